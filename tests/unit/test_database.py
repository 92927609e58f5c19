"""The database as an application sees it: opening, collections, transactions, tags, commits, upkeep, errors."""

import os
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest

import vecdb
from vecdb import errors
from vecdb.storage import platform


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "news.vecdb"


@pytest.fixture
def db(path):
    with vecdb.open(path) as db:
        yield db


def make(path, count=3, **options):
    with vecdb.open(path, **options) as db:
        docs = db.create_collection("docs")
        docs.add_space("tiny", dim=2, metric="l2")
        docs.upsert(range(count), vectors={"tiny": np.arange(2 * count).reshape(count, 2)})


# --- opening ----------------------------------------------------------------------------------------------


def test_a_new_file_is_an_empty_database(path):
    with vecdb.open(path) as db:
        assert (db.path, db.mode, db.seq, db.closed) == (path, "a", 0, False)
        assert len(db.uuid) == 32
        assert db.collections() == [] and db.tags() == {} and db.commits() == []
        assert db.check().ok
    assert db.closed and path.is_file()


def test_the_identity_of_a_file_survives_reopening_and_copies(path, tmp_path):
    make(path)
    with vecdb.open(path) as db:
        uuid = db.uuid
        db.backup(tmp_path / "copy.vecdb")
    with vecdb.open(path) as db, vecdb.open(tmp_path / "copy.vecdb") as copy:
        assert db.uuid == copy.uuid == uuid


def test_mode_x_creates_and_refuses_an_existing_file(path):
    vecdb.open(path, mode="x").close()
    with pytest.raises(errors.ExistsError) as caught:
        vecdb.open(path, mode="x")
    assert caught.value.kind == "file"


def test_mode_r_reads_and_refuses_every_write(path, tmp_path):
    make(path)
    before = path.read_bytes()
    with vecdb.open(path, mode="r") as db:
        docs = db.collection("docs")
        writes = [
            lambda: db.create_collection("x"),
            lambda: db.drop_collection("docs"),
            lambda: db.tag("t"),
            lambda: db.untag("t"),
            lambda: db.optimize(),
            lambda: db.compact(),
            lambda: db.transaction().__enter__(),
            lambda: docs.add_space("s", dim=3),
            lambda: docs.rename_space("tiny", "s"),
            lambda: docs.drop_space("tiny"),
            lambda: docs.upsert(["a"]),
            lambda: docs.insert(["a"]),
            lambda: docs.upsert_many([{"ids": ["a"]}]),
            lambda: docs.set_vectors("tiny", [0], [[1, 2]]),
            lambda: docs.set_metadata([0], [{"a": 1}]),
            lambda: docs.delete([0]),
            lambda: docs.delete(where={"a": 1}),
            lambda: docs.delete([0], erase=True),
            lambda: docs.optimize(),
        ]
        for write in writes:
            with pytest.raises(errors.ReadOnlyError):
                write()
        assert docs.search([0, 1], k=1).ids == [0] and len(docs) == 3
        assert db.stats()["collections"]["docs"]["records"] == 3
        assert db.backup(tmp_path / "copy.vecdb") > 0
    assert path.read_bytes() == before


def test_mode_r_of_a_file_that_is_not_there(path):
    with pytest.raises(errors.FileAccessError) as caught:
        vecdb.open(path, mode="r")
    assert caught.value.path == str(path) and isinstance(caught.value, OSError)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "w"),
        ("mode", None),
        ("durability", "ful"),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("timeout", "1"),
        ("timeout", True),
        ("retention", -0.1),
        ("retention", None),
        ("map_size", 1e9),
        ("map_size", 100),
        ("map_size", "1G"),
    ],
)
def test_options_out_of_bounds(path, name, value):
    with pytest.raises(errors.ParameterError) as caught:
        vecdb.open(path, **{name: value})
    assert caught.value.name == name
    assert not path.exists()


def test_a_misspelt_option_gets_a_hint(path):
    with pytest.raises(errors.ParameterError, match="Did you mean 'full'"):
        vecdb.open(path, durability="ful")


def test_bulk_cannot_be_read_only(path):
    with pytest.raises(errors.ParameterError):
        vecdb.open(path, mode="r", durability="bulk")


@pytest.mark.parametrize("value", [float("inf"), np.float32(2), 3])
def test_a_time_out_may_be_any_number_or_endless(path, value):
    with vecdb.open(path, timeout=value, retention=value) as db:
        db.create_collection("docs")
        with db.transaction():
            db.create_collection("more")
        db.compact(timeout=value)


@pytest.mark.parametrize("bad", [5, None, "", "a\0b", b"bytes.vecdb", ["x"]])
def test_what_is_not_a_path(bad):
    with pytest.raises(errors.ParameterError):
        vecdb.open(bad)


def test_directories_and_missing_directories(tmp_path):
    with pytest.raises(errors.FileAccessError, match="directory"):
        vecdb.open(tmp_path)
    with pytest.raises(errors.FileAccessError):
        vecdb.open(tmp_path / "nowhere" / "x.vecdb")
    with pytest.raises(errors.FileAccessError):
        vecdb.open(tmp_path / "nowhere" / "x.vecdb", mode="r")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.FileAccessError):
        vecdb.open(tmp_path / "file" / "x.vecdb")


@pytest.mark.parametrize(
    "content", [b"not a database\n" * 1000, b"SQLite format 3\0" + bytes(8000), b"x", bytes(20_000)]
)
def test_files_of_something_else_are_refused_and_left_alone(path, content):
    path.write_bytes(content)
    for mode in ("a", "r"):
        with pytest.raises(errors.NotADatabaseError) as caught:
            vecdb.open(path, mode=mode)
        assert caught.value.path == str(path)
    assert path.read_bytes() == content


def test_an_empty_file_is_made_a_database_unless_it_is_only_read(path):
    path.touch()
    with pytest.raises(errors.NotADatabaseError):
        vecdb.open(path, mode="r")
    with vecdb.open(path) as db:
        assert db.collections() == []


def test_a_file_of_a_newer_format(path, monkeypatch):
    from vecdb.storage import state

    monkeypatch.setattr(state, "FORMAT_VERSION", 99)
    make(path)
    monkeypatch.undo()
    for mode in ("a", "r"):
        with pytest.raises(errors.FormatVersionError) as caught:
            vecdb.open(path, mode=mode)
        assert (caught.value.found, caught.value.supported) == (99, 1)


def test_a_file_that_lost_its_end(path):
    make(path, 2000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size // 2 // 4096 * 4096)
    with pytest.raises(errors.CorruptionError):
        vecdb.open(path)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_network_file_systems_are_refused_unless_allowed(path, monkeypatch, kind):
    monkeypatch.setattr(platform, "filesystem_kind", lambda _: kind)
    with pytest.raises(errors.RemoteFileSystemError) as caught:
        vecdb.open(path)
    assert caught.value.kind == kind and not path.exists()
    with vecdb.open(path, allow_remote=True) as db:
        db.create_collection("docs")


def test_a_directory_that_may_not_be_written():
    """As root permissions mean nothing, so another user tries."""
    script = (
        "import os, sys, vecdb\n"
        "vecdb.open(os.path.join(sys.argv[1], 'there.vecdb')).close()\n"
        "os.chmod(sys.argv[1], 0o555)\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "for mode in ('a', 'x', 'r'):\n"
        "    try: vecdb.open(os.path.join(sys.argv[1], 'new.vecdb'), mode=mode)\n"
        "    except vecdb.FileAccessError as error: print('refused', error.path)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [sys.executable, "-c", script, folder], capture_output=True, text=True, timeout=180, check=False
        )
        assert found.stdout.count("refused") == 3, found.stderr
        assert not [name for name in os.listdir(folder) if name.startswith("new")]
        os.chmod(folder, 0o755)


# --- closing ----------------------------------------------------------------------------------------------


def test_a_closed_database_says_so_everywhere(path):
    db = vecdb.open(path)
    docs = db.create_collection("docs")
    docs.add_space("tiny", dim=2)
    db.close()
    db.close()
    calls = [
        lambda: db.seq,
        lambda: db.uuid,
        db.collections,
        db.tags,
        db.commits,
        db.stats,
        db.check,
        db.optimize,
        db.compact,
        lambda: db.backup(path.with_name("copy")),
        lambda: db.tag("t"),
        lambda: db.collection("docs"),
        lambda: db.create_collection("x"),
        lambda: db.transaction().__enter__(),
        lambda: docs.spaces,
        lambda: docs.upsert(["a"]),
        lambda: docs.get(["a"]),
        lambda: docs.count(),
        lambda: len(docs),
        lambda: "a" in docs,
        lambda: list(docs.scan()),
        lambda: docs.search([1, 2]),
        lambda: docs.history("a"),
        lambda: docs.stats(),
    ]
    for call in calls:
        with pytest.raises(errors.ClosedError):
            call()
    assert "closed" in repr(db)


def test_leaving_the_block_closes_also_after_an_error(path):
    with pytest.raises(KeyError), vecdb.open(path) as db:  # noqa: PT012
        db.create_collection("docs")
        raise KeyError
    assert db.closed
    with vecdb.open(path) as db:
        assert db.collections() == ["docs"]


def test_closing_inside_a_transaction_is_refused(db, path):
    docs = db.create_collection("docs")
    with db.transaction():
        docs.upsert(["a"])
        with pytest.raises(errors.TransactionError):
            db.close()
        with vecdb.open(path) as other:  # another handle keeps nothing waiting
            assert len(other.collection("docs")) == 1  # one thread, one transaction, whichever handle
    assert len(docs) == 1


def test_handles_share_one_file(path):
    with vecdb.open(path) as first, vecdb.open(path) as second, vecdb.open(path, mode="r") as third:
        first.create_collection("docs")
        second.collection("docs").upsert(["a"])
        assert len(third.collection("docs")) == 1
        first.close()
        assert len(second.collection("docs")) == 1
        with pytest.raises(errors.ReadOnlyError):
            third.create_collection("x")
        with pytest.raises(errors.ParameterError):
            vecdb.open(path, durability="relaxed")


def test_a_reader_and_then_a_writer_in_one_process(path):
    make(path)
    with vecdb.open(path, mode="r") as reader, vecdb.open(path) as writer:
        writer.collection("docs").upsert(["new"])
        assert "new" in reader.collection("docs")


# --- collections ------------------------------------------------------------------------------------------


def test_collections_are_listed_in_the_order_they_were_made(db):
    for name in ("b", "a", "é c"):
        assert db.create_collection(name).name == name
    assert db.collections() == ["b", "a", "é c"]
    assert db.collection("a").database is db
    assert "'a'" in repr(db.collection("a"))


def test_creating_a_collection_twice(db):
    first = db.create_collection("docs")
    first.upsert(["a"])
    seq = db.seq
    with pytest.raises(errors.ExistsError) as caught:
        db.create_collection("docs")
    assert (caught.value.kind, caught.value.name) == ("collection", "docs")
    assert len(db.create_collection("docs", exist_ok=True)) == 1
    assert db.seq == seq


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", None, 3, b"x", "\ud800"])
def test_names_that_cannot_be(db, name):
    for call in (db.create_collection, db.tag):
        with pytest.raises(errors.ParameterError):
            call(name)
    docs = db.create_collection("docs")
    with pytest.raises(errors.ParameterError):
        docs.add_space(name, dim=3)
    docs.add_space("s", dim=3)
    with pytest.raises(errors.ParameterError):
        docs.rename_space("s", name)
    assert list(docs.spaces) == ["s"] and db.tags() == {} and db.seq == 2


@pytest.mark.parametrize("name", ["nope", 3, None, ["docs"]])
def test_a_collection_that_is_not_there(db, name):
    db.create_collection("docs")
    for call in (db.collection, db.drop_collection):
        with pytest.raises(errors.CollectionMissingError) as caught:
            call(name)
        assert caught.value.available == ["docs"]
    assert db.seq == 1


def test_dropping_a_collection_takes_everything_and_leaves_the_others(db):
    docs, other = db.create_collection("docs"), db.create_collection("other")
    for one in (docs, other):
        one.add_space("tiny", dim=2)
        one.upsert(["a", "b"], vectors={"tiny": [[1, 2], [3, 4]]}, metadata=[{"n": 1}, {"n": 2}])
        one.upsert(["a"], vectors={"tiny": [[1, 3]]})
    db.optimize()
    db.drop_collection("docs")
    assert db.collections() == ["other"]
    for call in (lambda: docs.count(), lambda: docs.upsert(["a"]), lambda: docs.search([1, 2]), lambda: docs.spaces):
        with pytest.raises(errors.CollectionMissingError):
            call()
    again = db.create_collection("docs")
    assert len(again) == 0 and again.spaces == {}
    with pytest.raises(errors.CollectionMissingError):  # another one of the same name
        docs.count()
    assert len(other) == 2 and db.check().ok


def test_history_of_a_dropped_collection_is_not_charged_any_more(db):
    docs = db.create_collection("docs")
    for text in "xyz":
        docs.upsert(["a"], texts=[text * 50_000])
    assert db.stats()["history_bytes"] > 100_000
    db.drop_collection("docs")
    assert db.stats()["history_bytes"] == 0


# --- transactions -----------------------------------------------------------------------------------------


def test_a_transaction_is_one_commit(db):
    docs = db.create_collection("docs")
    with db.transaction() as same:
        assert same is db
        docs.upsert(["a"])
        docs.upsert(["b"])
        docs.delete(["a"])
        db.create_collection("more")
    assert db.seq == 2 and [record.id for record in docs.scan()] == ["b"]
    assert db.commits()[-1].changes == (
        "docs: upsert 1",
        "docs: upsert 1",
        "docs: delete 1",
        "more: create collection",
    )


def test_an_exception_rolls_everything_back(db):
    docs = db.create_collection("docs")
    with pytest.raises(KeyError), db.transaction():  # noqa: PT012
        docs.add_space("tiny", dim=2)
        docs.upsert(["a"], vectors={"tiny": [[1, 2]]})
        db.create_collection("more")
        db.tag("t")
        raise KeyError
    assert db.collections() == ["docs"] and docs.spaces == {} and len(docs) == 0 and db.tags() == {} and db.seq == 1
    assert db.check().ok
    docs.upsert(["a"])


def test_reads_inside_see_own_writes_and_search_the_state_before(db):
    docs = db.create_collection("docs")
    docs.add_space("tiny", dim=2, metric="l2")
    docs.upsert(["a"], vectors={"tiny": [[1, 1]]}, metadata=[{"n": 1}])
    with db.transaction():
        docs.upsert(["b"], vectors={"tiny": [[2, 2]]}, metadata=[{"n": 2}])
        docs.set_metadata(["a"], [{"n": 3}])
        assert "b" in docs and len(docs) == 2
        assert docs.get("a")[0].metadata == {"n": 3}
        assert docs.get("b", vectors="all")[0].vectors["tiny"].tolist() == [2, 2]
        assert docs.count({"n": {"$gte": 2}}) == 2
        assert [record.id for record in docs.scan({"n": 2})] == ["b"]
        assert docs.search([2, 2], k=5).ids == ["a"]
        assert docs.delete(where={"n": 3}).deleted == 1
        assert "a" not in docs and docs.search([2, 2], k=5).ids == ["a"]
    assert docs.search([2, 2], k=5).ids == ["b"]


def test_the_past_is_the_past_inside_a_transaction_too(db):
    docs = db.create_collection("docs")
    docs.upsert(["a", "b"], metadata=[{"n": 1}, {"n": 1}])
    db.tag("before")
    with db.transaction():
        docs.set_metadata(["a"], [{"n": 2}])
        docs.delete(["b"])
        docs.upsert(["c"])
        for as_of in ("before", 2, db.seq - 1):
            assert [record.id for record in docs.scan(as_of=as_of)] == ["a", "b"]
            assert docs.get("a", as_of=as_of)[0].metadata == {"n": 1}
            assert docs.count({"n": 1}, as_of=as_of) == 2
        assert [version.seq for version in docs.history("a")] == [2]
        assert len(docs.history("b")) == 1


def test_a_scan_that_began_in_a_transaction_ends_with_it(db):
    docs = db.create_collection("docs")
    docs.upsert(range(2000))
    outside = docs.scan()
    next(outside)
    with db.transaction():
        docs.upsert(range(2000, 2600), metadata=[{"new": True}] * 600)
        inside = docs.scan({"new": True})
        assert next(inside).id == 2000
        assert sum(1 for _ in outside) == 1999  # one that began before sees nothing of this
    with pytest.raises(errors.TransactionError):
        list(inside)


def test_records_that_vanish_during_a_scan_inside_a_transaction(db):
    docs = db.create_collection("docs")
    docs.upsert(range(1200), metadata=[{"n": 1}] * 1200)
    with db.transaction():
        seen = []
        for record in docs.scan({"n": 1}):
            seen.append(record.id)
            if record.id == 0:
                docs.delete(range(600, 1200))
        assert seen[:512] == list(range(512)) and len(docs) == 600


def test_transactions_do_not_nest_and_belong_to_their_thread(db):
    docs = db.create_collection("docs")
    caught = []

    def elsewhere():
        try:
            assert len(docs) == 0  # readers of other threads see the last commit
            vecdb.open(db.path).close()
            docs.upsert(["other"])
        except errors.VecdbError as error:
            caught.append(error)

    with db.transaction():
        docs.upsert(["a"])
        with pytest.raises(errors.TransactionError), db.transaction():
            pass
        db._timeout = 0.05
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert [type(error) for error in caught] == [errors.LockedError]
    assert "thread" in caught[0].holder
    assert [record.id for record in docs.scan()] == ["a"]


def test_what_cannot_run_inside_a_transaction(db):
    docs = db.create_collection("docs")
    docs.upsert(["a"])
    with db.transaction():
        docs.upsert(["b"])
        for call in (db.compact, db.optimize, docs.optimize, lambda: docs.delete(["a"], erase=True)):
            with pytest.raises(errors.TransactionError):
                call()
        assert "a" in docs
    assert len(docs) == 2 and db.check().ok


def test_a_refused_operation_leaves_the_rest_of_the_transaction(db):
    docs = db.create_collection("docs")
    docs.upsert(["a"])
    with db.transaction():
        docs.upsert(["b"])
        with pytest.raises(errors.RecordExistsError):
            docs.insert(["c", "a"])
        with pytest.raises(errors.RecordMissingError):
            docs.delete(["zzz"])
        with pytest.raises(errors.ConflictError):
            docs.upsert(["a"], if_version=7)
        with pytest.raises(errors.ExistsError):
            db.create_collection("docs")
    assert [record.id for record in docs.scan()] == ["a", "b"] and db.check().ok


def test_an_empty_transaction_is_no_commit(db):
    db.create_collection("docs")
    with db.transaction():
        assert db.collection("docs").count() == 0
    assert db.seq == 1


def test_a_transaction_may_outgrow_the_map(path):
    with vecdb.open(path, map_size=1 << 18) as db:
        docs = db.create_collection("docs")
        with db.transaction():
            for number in range(40):
                docs.upsert([number], texts=["x" * 30_000])
                assert len(docs) == number + 1  # reading writes the counts, which may need a larger map as well
            db.tag("grown")
        assert len(docs) == 40 and db.check().ok
        assert db.stats()["map_bytes"] > 1 << 18


def test_collections_and_spaces_made_and_dropped_in_one_transaction(db):
    with db.transaction():
        docs = db.create_collection("docs")
        docs.add_space("one", dim=2)
        docs.upsert(["a"], vectors={"one": [[1, 2]]})
        docs.rename_space("one", "two")
        docs.add_space("one", dim=3)
        docs.upsert(["a"], vectors={"one": [[1, 2, 3]]}, merge=True)
        docs.drop_space("two")
        db.create_collection("gone").upsert(["x"])
        db.drop_collection("gone")
    assert docs.get("a", vectors="all")[0].vectors["one"].tolist() == [1, 2, 3]
    assert list(docs.spaces) == ["one"] and db.collections() == ["docs"] and db.check().ok


# --- tags and commits -------------------------------------------------------------------------------------


def test_tags_name_commits(db):
    docs = db.create_collection("docs")
    docs.upsert(["a"])
    assert db.tag("two") == 2
    docs.upsert(["b"])
    assert db.tag("one", seq=1) == 1
    assert db.tags() == {"two": 2, "one": 1}
    assert docs.count(as_of="two") == 1 and docs.count(as_of="one") == 0 and docs.count() == 2
    db.untag("two")
    assert db.tags() == {"one": 1}
    with pytest.raises(errors.TagMissingError) as caught:
        db.untag("two")
    assert caught.value.available == ["one"]
    with pytest.raises(errors.TagMissingError):
        docs.count(as_of="two")
    with pytest.raises(errors.ExistsError):
        db.tag("one")


@pytest.mark.parametrize("seq", ["1", 1.0, True, -1])
def test_a_tag_needs_the_number_of_a_commit(db, seq):
    db.create_collection("docs")
    with pytest.raises(errors.ParameterError):
        db.tag("t", seq=seq)
    assert db.tags() == {} and db.seq == 1


def test_a_tag_of_a_commit_that_is_not_kept_or_not_there(path):
    with vecdb.open(path, retention=0) as db:
        db.create_collection("docs")
        db.create_collection("more")
        for seq in (0, 1, 3):
            with pytest.raises(errors.SnapshotExpiredError) as caught:
                db.tag("t", seq=seq)
            assert (caught.value.seq, caught.value.oldest) == (seq, 2)


def test_tags_keep_what_a_retention_of_zero_forgets(path):
    with vecdb.open(path, retention=0) as db:
        docs = db.create_collection("docs")
        docs.upsert(["a"], metadata=[{"n": 1}])
        db.tag("t")
        docs.upsert(["a"], metadata=[{"n": 2}])
        assert docs.get("a", as_of="t")[0].metadata == {"n": 1}
        db.untag("t")
        with pytest.raises(errors.SnapshotExpiredError):
            docs.get("a", as_of=2)


def test_a_tag_after_a_write_of_which_no_history_is_kept_is_refused(path):
    with vecdb.open(path, retention=0) as db:
        docs = db.create_collection("docs")
        docs.upsert(["a"], metadata=[{"n": 1}])
        with db.transaction():
            docs.set_metadata(["a"], [{"n": 2}])
            with pytest.raises(errors.TransactionError):
                db.tag("t")
        with db.transaction():
            db.tag("t")
            docs.set_metadata(["a"], [{"n": 3}])
        assert docs.get("a", as_of="t")[0].metadata == {"n": 2}


def test_the_commit_log(db):
    docs = db.create_collection("docs")
    docs.upsert(["a", "b"])
    db.tag("t")
    log = db.commits()
    assert [commit.seq for commit in log] == [1, 2, 3]
    assert [commit.changes for commit in log] == [("docs: create collection",), ("docs: upsert 2",), ("tag 't' at 2",)]
    assert [commit.tags for commit in log] == [(), ("t",), ()]
    assert log == sorted(log, key=lambda commit: commit.time)
    assert db.commits(limit=2) == log[1:] and db.commits(limit=0) == [] and db.commits(limit=99) == log


@pytest.mark.parametrize("limit", [-1, "2", 1.5, True])
def test_a_limit_of_commits(db, limit):
    with pytest.raises(errors.ParameterError):
        db.commits(limit)
