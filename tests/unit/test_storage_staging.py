"""Large parts of indexes are stored in several commits: whole or not at all, and a file that never holds more."""

import threading

import numpy as np
import pytest

import vecdb
from tests.indextypes import CopiesType, MadeType, able, registry
from vecdb.contracts.blobs import MadeRows
from vecdb.errors import CancelledError, LockedError, PluginContractError, PluginError, StorageError
from vecdb.storage import staging
from vecdb.storage.blobs import BlobData
from vecdb.storage.indexes import read_named

COUNT, DIM = 1_200, 700
NOTHING = lambda: None  # noqa: E731


def rows(count):
    return np.random.default_rng(count).standard_normal((count, DIM)).astype(np.float32)


def raising(error):
    raise error


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(staging, "STEP_BYTES", 100_000)


def made(path, type_=None, **options):
    type_ = type_ or MadeType("acme.made", able("exact", "add"))
    db = vecdb.open(path, plugins=registry(type_), **{"durability": "relaxed", "automatic": False, **options})
    if "c" not in db.collections():
        c = db.create_collection("c")
        c.add_space("s", dim=DIM, metric="l2")
        c.upsert(range(COUNT), {"s": rows(COUNT)}, trust=True)
        c.optimize()
    return db, db.collection("c")


def writer_of(db):
    return db._opened().writer


def state_of(db):
    """Return the staged set and the pieces that are stored."""
    with db._read() as snapshot:
        return staging.staged_set(snapshot.tx), snapshot.tx.entries("blobs")["entries"]


def watch_commits(monkeypatch, db):
    """Note the bytes that each commit writes, and what is staged then."""
    writer, seen = writer_of(db), []
    commit = writer.commit_write

    def watched(tx):
        seen.append((tx.written, staging.staged_set(tx)))
        commit(tx)

    monkeypatch.setattr(writer, "commit_write", watched)
    return seen


def blobs_of(db, c):
    with db._read() as snapshot:
        part = snapshot.entry(1, "c").indexes[0].parts[0]
        return {line.name: read_named(snapshot.tx, part, line.name) for line in part.blobs}


def test_no_commit_writes_more_than_a_step_and_a_piece(tmp_path, small, monkeypatch):
    db, c = made(tmp_path / "a.vecdb")
    seen = watch_commits(monkeypatch, db)
    c.create_index("s", "acme.made")
    assert len(seen) > 3 and max(written for written, _ in seen) < 100_000 + (1 << 20) + 65_536
    assert [number for _, number in seen[:-1]] == [seen[0][1]] * (len(seen) - 1) and seen[0][1]
    assert seen[-1][1] == 0 and state_of(db)[0] == 0
    assert db.check().ok
    assert c.search(rows(1)[0], 5).ids == c.search(rows(1)[0], 5, exact=True).ids
    db.close()


def test_a_staged_part_is_the_part_that_one_commit_would_have_stored(tmp_path, monkeypatch):
    found = []
    for step in (1, 1 << 40):
        monkeypatch.setattr(staging, "STEP_BYTES", step)
        db, c = made(tmp_path / f"{step}.vecdb")
        c.delete(list(range(0, COUNT, 7)))  # the engine's own blob is there too
        c.create_index("s", "acme.made")
        found.append((blobs_of(db, c), c.indexes[0].bytes, c.indexes[0].stats))
        db.close()
    assert found[0] == found[1] and "#ordinals" in found[0][0]


def test_what_is_small_is_stored_with_its_commit(tmp_path, monkeypatch):
    db, c = made(tmp_path / "a.vecdb")
    seen = watch_commits(monkeypatch, db)
    c.create_index("s", "acme.made")
    assert len(seen) == 1 and seen[0][1] == 0
    db.close()


def test_parts_that_upkeep_makes_are_staged_too(tmp_path, small, monkeypatch):
    db, c = made(tmp_path / "a.vecdb")
    c.create_index("s", "acme.made")
    c.upsert(range(COUNT, 3 * COUNT), {"s": rows(2 * COUNT)}, trust=True)
    seen = watch_commits(monkeypatch, db)
    c.optimize()
    assert any(number for _, number in seen) and state_of(db)[0] == 0
    assert db.check().ok and c.indexes[0].coverage == 1.0
    db.close()


def test_a_map_that_is_too_small_grows_on_the_way(tmp_path, small):
    db, c = made(tmp_path / "a.vecdb", map_size=2 << 20)
    c.create_index("s", "acme.made")
    assert db.check().ok and state_of(db)[0] == 0 and c.indexes[0].coverage == 1.0
    db.close()


def test_a_file_is_sound_while_a_set_is_staged(tmp_path, small):
    db, _ = made(tmp_path / "a.vecdb")
    reports = []

    def check():
        with vecdb.open(tmp_path / "a.vecdb", "r", plugins=registry(MadeType("acme.made"))) as other:
            reports.append((other.check().ok, state_of(other), len(other.collection("c"))))

    blobs = [BlobData("x", memoryview(bytes(300_000)))]
    with writer_of(db).stage(blobs, check, timeout=1.0) as number:
        check()
        assert [staged for _, (staged, _), _ in reports] == [0, *[number] * (len(reports) - 1)]
    assert all(ok and count == COUNT for ok, _, count in reports) and len(reports) > 2
    assert state_of(db) == (0, 0)
    db.close()


# --- what is given up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 3])
def test_who_cancels_leaves_nothing(tmp_path, monkeypatch, after):
    monkeypatch.setattr(staging, "STEP_BYTES", 1)
    db, c = made(tmp_path / "a.vecdb")
    asked = []

    def check():
        asked.append(0)
        if len(asked) > after:
            raise CancelledError("enough")

    with pytest.raises(CancelledError), writer_of(db).stage(large(), check, timeout=1.0):
        raise AssertionError
    assert state_of(db) == (0, 0) and db.check().ok
    c.create_index("s", "acme.made")
    assert c.indexes[0].coverage == 1.0
    db.close()


def large():
    return [BlobData("x", memoryview(bytes(3 << 20))), BlobData("y", memoryview(np.arange(99, dtype=np.uint8)))]


def test_a_commit_that_fails_or_never_comes_leaves_nothing(tmp_path, small):
    db, c = made(tmp_path / "a.vecdb")
    writer = writer_of(db)
    with writer.stage(large(), NOTHING, timeout=1.0) as number:
        assert state_of(db)[0] == number and state_of(db)[1] > 2
        with pytest.raises(RuntimeError, match="no"):
            db._write(lambda write: raising(RuntimeError("no")))
    assert state_of(db) == (0, 0)
    with writer.stage(large(), NOTHING, timeout=1.0):
        assert not writer.maintain(lambda write: False, timeout=1.0)
    assert state_of(db) == (0, 0)
    with writer.stage(large(), NOTHING, timeout=1.0):
        pass
    assert state_of(db) == (0, 0) and db.check().ok
    c.upsert([1], {"s": rows(1)}, trust=True)
    db.close()


def leave_behind(db, blobs):
    """Stage a set as a process does that dies on the way."""
    writer = writer_of(db)
    maintain = lambda work: writer.maintain(work, timeout=1.0)  # noqa: E731
    number = writer._staged = staging.claim(maintain)
    staging.store(maintain, number, blobs, NOTHING)
    writer._staged = 0
    return number


@pytest.mark.parametrize("how", ["write", "transaction", "maintain", "optimize", "stage"])
def test_what_a_dead_process_staged_goes_with_the_next_commit(tmp_path, small, how):
    db, c = made(tmp_path / "a.vecdb")
    number = leave_behind(db, large())
    assert state_of(db)[0] == number and state_of(db)[1] > 2 and db.check().ok
    if how == "write":
        c.delete([1])
    elif how == "transaction":
        with db.transaction():
            c.delete([1])
            c.delete([2])
    elif how == "maintain":  # which finds nothing to do otherwise
        assert not writer_of(db).maintain(lambda write: False, timeout=1.0)
    elif how == "optimize":
        c.create_index("s", "acme.made")
    else:
        with writer_of(db).stage(large(), NOTHING, timeout=1.0) as other:
            assert other > number and state_of(db)[0] == other
    assert state_of(db)[0] == 0 and db.check().ok
    db.close()


def roll_back(db, c):
    with db.transaction():
        c.delete([1])
        raising(RuntimeError("no"))


def test_a_rolled_back_commit_removes_nothing(tmp_path, small):
    db, c = made(tmp_path / "a.vecdb")
    number = leave_behind(db, large())
    with pytest.raises(RuntimeError, match="no"):
        roll_back(db, c)
    assert state_of(db)[0] == number and len(c) == COUNT
    db.close()


def test_compaction_and_backup_keep_nothing_of_it(tmp_path, small):
    db, _ = made(tmp_path / "a.vecdb")
    leave_behind(db, large())
    db.backup(tmp_path / "copy.vecdb")
    db.compact()
    assert state_of(db) == (0, 0) and db.check().ok
    with vecdb.open(tmp_path / "copy.vecdb", plugins=registry()) as copy:
        assert copy.check().ok
        copy.collection("c").delete([1])
        assert state_of(copy) == (0, 0) and copy.check().ok
    db.close()


# --- who may write meanwhile ------------------------------------------------------------------------------


def test_others_wait_until_the_set_is_named(tmp_path, small):
    db, c = made(tmp_path / "a.vecdb")
    writer, told = writer_of(db), []

    def write():
        c.upsert([5], {"s": rows(1)}, trust=True)
        told.append("written")

    other = threading.Thread(target=write)
    with writer.stage(large(), NOTHING, timeout=1.0):
        other.start()
        other.join(0.1)
        assert told == []
        writer.maintain(lambda write: bool(told.append("named") or staging.settle(write.tx) or True), timeout=1.0)
        other.join(10)
    assert told == ["named", "written"]
    db.close()


def test_the_lock_is_given_up_with_the_commit_that_names_the_set(tmp_path, small):
    """What follows that commit, as a hook of a plugin, may wait for another writer."""
    db, c = made(tmp_path / "a.vecdb")
    writer, done = writer_of(db), []
    with writer.stage(large(), NOTHING, timeout=1.0):
        writer.run(lambda write: staging.settle(write.tx), timeout=1.0)
        other = threading.Thread(target=lambda: done.append(c.delete([1])))
        other.start()
        other.join(10)
        assert len(done) == 1
    db.close()


def test_who_waits_for_the_lock_can_be_called_off(tmp_path, small):
    db, _ = made(tmp_path / "a.vecdb")
    writer, asked = writer_of(db), []

    def check():
        asked.append(0)
        if len(asked) == 3:
            raise CancelledError("enough")

    def attempt(check, error, timeout):
        with pytest.raises(error), writer.stage(large(), check, timeout=timeout):
            raise AssertionError
        asked.append("raised")

    with db.transaction():
        for given in ((check, CancelledError, 9.0), (NOTHING, LockedError, 0.0)):
            other = threading.Thread(target=attempt, args=given)
            other.start()
            other.join(20)
    assert asked == [0, 0, 0, "raised", "raised"]
    db.close()


def test_a_set_that_is_gone_is_not_named(tmp_path, small):
    from vecdb.storage.indexstore import store_part

    db, _ = made(tmp_path / "a.vecdb")
    with pytest.raises(StorageError, match="were staged, but are gone"):
        db._write(lambda write: store_part(write, 1, np.arange(3, dtype=np.uint64), 0, 3, large(), staged=77))
    db.close()


# --- rows that are made -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda first, stop: np.zeros((stop - first, 3), np.float32), "have .* bytes"),
        (lambda first, stop: None, "are made"),
        (lambda first, stop: np.zeros((2 * (stop - first), 2 * DIM), np.float32)[::2, ::2], "are made"),
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 40])
def test_rows_that_are_made_wrong_name_the_plugin(tmp_path, monkeypatch, step, make, problem):
    monkeypatch.setattr(staging, "STEP_BYTES", step)
    type_ = MadeType("acme.made", able("exact"))
    type_.made = lambda index: MadeRows(len(index.vectors), 4 * DIM, make)
    db, c = made(tmp_path / "a.vecdb", type_)
    with pytest.raises(PluginContractError, match=problem) as caught:
        c.create_index("s", "acme.made")
    assert caught.value.rule == "blobs" and caught.value.plugin and c.indexes == []
    assert state_of(db) == (0, 0) and db.check().ok
    db.close()


@pytest.mark.parametrize("step", [1, 1 << 40])
def test_an_error_in_making_rows_names_the_plugin(tmp_path, monkeypatch, step):
    monkeypatch.setattr(staging, "STEP_BYTES", step)
    type_ = MadeType("acme.made", able("exact"))
    type_.made = lambda index: MadeRows(len(index.vectors), 4 * DIM, lambda first, stop: raising(ValueError("no rows")))
    db, c = made(tmp_path / "a.vecdb", type_)
    with pytest.raises(PluginError, match="no rows"):
        c.create_index("s", "acme.made")
    assert state_of(db) == (0, 0) and db.check().ok and c.search(rows(1)[0], 3).ids
    db.close()


def test_a_staged_set_is_removed_without_asking_whose_it_was(tmp_path, small):
    db, _ = made(tmp_path / "a.vecdb", CopiesType())
    leave_behind(db, large())
    db.close()
    with vecdb.open(tmp_path / "a.vecdb", plugins=registry()) as again:
        again.collection("c").delete([3])
        assert state_of(again) == (0, 0)
