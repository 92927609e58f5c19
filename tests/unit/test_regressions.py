"""Defects that were found by reading and by attack; each must stay away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

import vecdb
from vecdb.engine import guard, housekeeping
from vecdb.errors import CorruptionError, FileAccessError, LockedError, ParameterError, StateError
from vecdb.storage import env as env_module
from vecdb.storage import writetx
from vecdb.storage.env import Environment
from vecdb.storage.format import encode_record, pack_body, pack_sealed, stored_numbers, u64
from vecdb.storage.lockfile import LockFile, hold_data_file
from vecdb.storage.records import id_place, record_key
from vecdb.storage.spaces import segment_key
from vecdb.storage.state import collection_key


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with vecdb.open(tmp_path / "a.vecdb", timeout=60.0) as opened:
        docs = opened.create_collection("docs")
        docs.add_space("s", dim=4, metric="cosine")
        yield opened


def in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    """Run `work` in a thread; the list takes its result or its error."""
    out: list[Any] = []

    def run() -> None:
        try:
            out.append(work())
        except BaseException as error:  # handed to the test
            out.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, out


def until(condition: Any) -> None:
    for _ in range(60_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("never happened")


# --- who writes -------------------------------------------------------------------------------------------


def test_a_transaction_survives_another_thread_that_asks_for_one(db: vecdb.Database) -> None:
    docs, writer = db.collection("docs"), db._opened().writer
    asked = threading.Event()

    def other() -> None:
        asked.set()
        with db.transaction():
            docs.upsert("theirs")

    with db.transaction():
        docs.upsert("mine")
        thread, out = in_thread(other)
        asked.wait()
        thread.join(0.05)
        assert writer.transaction is not None
        docs.upsert("mine too")
    thread.join()
    assert out == [None]
    assert {record.id for record in docs.scan()} == {"mine", "mine too", "theirs"}


def test_a_call_that_was_interrupted_while_waiting_is_not_carried_out_later(
    db: vecdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, writer = db.collection("docs"), db._opened().writer

    class Interrupted:
        def acquire(self, timeout: float = -1) -> bool:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_turn", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            docs.upsert("never")
    docs.upsert("later")
    assert "never" not in docs


@pytest.mark.parametrize("behind", [False, True])
def test_an_interrupted_leader_lets_no_job_run_twice_or_get_lost(
    db: vecdb.Database, monkeypatch: pytest.MonkeyPatch, behind: bool
) -> None:
    docs, writer = db.collection("docs"), db._opened().writer
    commit, interrupted = Environment.commit, threading.Event()

    def interrupted_commit(self: Environment, tx: Any) -> None:
        if interrupted.is_set():
            return commit(self, tx)
        interrupted.set()
        if behind:  # the signal arrives while the flush is under way, and is seen when it returns
            tx.raw.commit()
        raise KeyboardInterrupt

    with writer._guard:
        pass
    writer._turn.acquire()
    leader, first = in_thread(lambda: docs.insert("leader"))
    until(lambda: len(writer._queue) == 1)
    follower, second = in_thread(lambda: docs.insert("follower"))
    until(lambda: len(writer._queue) == 2)
    monkeypatch.setattr(Environment, "commit", interrupted_commit)
    writer._turn.release()
    leader.join()
    follower.join()
    results = [*first, *second]
    assert sum(isinstance(result, KeyboardInterrupt) for result in results) == 1
    assert sum(isinstance(result, vecdb.WriteResult) for result in results) == 1
    assert len(docs) == (2 if behind else 1)
    assert db.check().ok


class HastyLock:
    """Runs out of patience at once when asked for `hasty` seconds, so that no test waits for as long."""

    def __init__(self, lock: LockFile, hasty: float) -> None:
        self._lock, self._hasty = lock, hasty

    def held(self, timeout: float) -> Any:
        return self._lock.held(0.05 if timeout == self._hasty else timeout)


def test_an_impatient_leader_does_not_fail_a_patient_follower(
    db: vecdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, writer = db.collection("docs"), db._opened().writer
    with vecdb.open(db.path, timeout=30.0) as hasty, monkeypatch.context() as patch:
        theirs = hasty.collection("docs")
        patch.setattr(writer, "_lock", HastyLock(writer._lock, 30.0))
        with LockFile(writer._env.writer_lock.path).held(1.0):
            writer._turn.acquire()
            leader, first = in_thread(lambda: theirs.upsert("hasty"))
            until(lambda: len(writer._queue) == 1)
            follower, second = in_thread(lambda: docs.upsert("patient"))
            until(lambda: len(writer._queue) == 2)
            writer._turn.release()
            leader.join()
        follower.join()
    assert isinstance(first[0], LockedError)
    assert isinstance(second[0], vecdb.WriteResult)
    assert [record.id for record in docs.scan()] == ["patient"]


# --- hostile files ----------------------------------------------------------------------------------------


def test_stored_numbers_are_whole_and_bounded() -> None:
    assert stored_numbers([0, (1 << 63) - 1], "x") == (0, (1 << 63) - 1)
    hostile: list[Any] = [[True], [-1], [1 << 63], ["1"], [1.0], [None], "12", 7, None, {}]
    for wrong in hostile:
        with pytest.raises(CorruptionError):
            stored_numbers(wrong, "x")
    with pytest.raises(CorruptionError):
        stored_numbers([1, 2], "x", 3)


HOSTILE_META = [
    (b"state", ["1", 0, 0, 1, 1, 0]),
    (b"state", [1, 1, 0, 1, 1, -5]),
    (b"catalog", {"next": [1, 1], "tags": {}, "collections": [["x", "docs", []]]}),
    (b"catalog", {"next": [1, 1], "tags": {}, "collections": [[1 << 40, "docs", []]]}),
    (b"catalog", {"next": [1, 1], "tags": {"t": ["now", 1.0]}, "collections": []}),
    (b"catalog", {"next": [1, 1], "tags": {}, "collections": [[1, 7, []]]}),
    (
        b"catalog",
        {"next": [2, 2], "tags": {}, "collections": [[1, "d", [["s", 3.5, "l2", "float32", "", "", "both", 1]]]]},
    ),
    (b"header", {"magic": "vecdb", "format": 1}),
    (collection_key(1), [1, 1, 1, 1, [[1, [1 << 60, 1, 0, 1 << 62, 0, 0, []]]]]),
    (collection_key(1), [1, "many", 1, 1, []]),
    (collection_key(1), [1, 1, 1, 1, []]),
    (collection_key(1), [1, 1, 1, 1, [[1, [1, 1, 0, 0, 0, 0, [float("nan"), 1.0]]]]]),
]


@pytest.mark.parametrize(("key", "plain"), HOSTILE_META)
def test_values_of_a_wrong_shape_are_damage(tmp_path: Path, key: bytes, plain: Any) -> None:
    with vecdb.open(tmp_path / "a.vecdb") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=4)
        docs.upsert("a", vectors={"s": [1, 2, 3, 4]})
        poison(db, "meta", key, pack_sealed(key, plain))
    with pytest.raises(CorruptionError), vecdb.open(tmp_path / "a.vecdb") as db:
        db.collection("docs").search([1, 2, 3, 4])


def poison(db: vecdb.Database, table: str, key: bytes, value: bytes) -> None:
    """Store a value behind everybody's back."""
    env = db._opened().env
    with db._opened().writer.turn(1.0), env.writer_lock.held(1.0):
        tx = env.begin_write()
        tx.put(table, key, value)
        env.commit(tx)


def test_hostile_segments_allocate_nothing(tmp_path: Path) -> None:
    for blocks in ([[1, 1 << 20, 1 << 60, 0, 1 << 61]], [[1, 99, 1, 0, 0]], [[1, 65536, 2, 0, 0]], [["1"] * 5], 3):
        path = tmp_path / "a.vecdb"
        with vecdb.open(path) as db:
            docs = db.create_collection("docs", exist_ok=True)
            if not docs.spaces:
                docs.add_space("s", dim=4)
                docs.upsert("a", vectors={"s": [1, 2, 3, 4]})
                docs.optimize()
            poison(db, "segments", segment_key(1, 0), pack_sealed(segment_key(1, 0), blocks))
        with vecdb.open(path) as db, pytest.raises(CorruptionError):
            db.collection("docs").search([1, 2, 3, 4])


def test_a_reference_beyond_the_space_is_damage(db: vecdb.Database) -> None:
    docs = db.collection("docs")
    docs.upsert("a", vectors={"s": [1, 2, 3, 4]})
    key = record_key(1, 0)
    for ordinal in (1, 1 << 40, (1 << 64) - 1):
        poison(db, "records", key, encode_record(key, 1, {1: ordinal}, b"sa", pack_body({}, None, 0)))
        with pytest.raises(CorruptionError):
            docs.get("a", vectors="all")
        assert not db.check().ok


def test_an_id_that_leads_to_another_record_is_damage(db: vecdb.Database) -> None:
    """Rows of `ids` have no checksum; the record they lead to must bear the id."""
    docs = db.collection("docs")
    docs.upsert(["a", "b"], vectors={"s": np.eye(4)[:2]}, texts=["A", "B"])
    docs.upsert(["a"], metadata=[{"n": 2}], merge=True)
    past = db.seq - 1
    poison(db, "ids", id_place(1, b"sa"), u64(1))
    calls: list[Callable[[], object]] = [
        lambda: docs.get("a"),
        lambda: docs.get(["b", "a"], missing_ok=True),
        lambda: docs.get("a", as_of=past),
        lambda: docs.search(like="a"),
        lambda: docs.history("a"),
        lambda: docs.upsert("a", texts="new"),
        lambda: docs.upsert(["b", "a"], texts=["x", "y"], merge=True),
        lambda: docs.set_metadata("a", {}),
        lambda: docs.delete("a"),
        lambda: docs.delete(["b", "a"], missing_ok=True),
    ]
    for call in calls:
        with pytest.raises(CorruptionError):
            call()
    assert not db.check().ok and docs.get("b")[0].text == "B"


# --- what a process remembers -----------------------------------------------------------------------------


def test_caches_forget_what_is_no_longer_in_the_file(db: vecdb.Database) -> None:
    docs, reader = db.collection("docs"), db._opened().reader
    ids, rng = [f"i{number}" for number in range(600)], np.random.default_rng(0)
    for turn in range(12):
        docs.upsert(ids, vectors={"s": rng.normal(size=(600, 4))}, metadata=[{"turn": turn}] * 600, trust=True)
        assert docs.count({"turn": turn}) == 600
        docs.search([1, 2, 3, 4])
        housekeeping_now(db)
    caches = reader._caches
    with db._read() as snapshot:
        assert set(caches.chunks) <= {chunk.line.id for chunk in snapshot.columns(1).chunks}
        assert set(caches.blocks.blocks) <= {ref.id for ref in snapshot.space(1, docs.spaces["s"]).refs}
        assert caches.blocks.sound <= set(caches.blocks.blocks)


def test_views_of_dropped_collections_are_not_kept(db: vecdb.Database) -> None:
    for turn in range(5):
        other = db.create_collection(f"other{turn}")
        other.add_space("s", dim=4)
        other.upsert("a", vectors={"s": [1, 2, 3, 4]}, metadata=[{"n": 1}])
        other.search([1, 2, 3, 4], where={"n": 1})
        db.drop_collection(f"other{turn}")
        assert db.collections() == ["docs"]
    state = db._opened().reader._caches.state
    for _ in range(3):
        db.collection("docs").upsert("a")
        state = db._opened().reader._caches.state
        assert len(db.collection("docs")) == 1
    assert state is not None
    assert not state.known_spaces()
    assert not state.known_columns()


def housekeeping_now(db: vecdb.Database) -> None:
    housekeeping.forget(db._opened(), "nothing", 1.0)
    db.optimize()
    db.collection("docs").search([1, 2, 3, 4], where={"none": 1})


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[tuple[Any, ...]]:
    """Have the calls of a function noted, arguments and all."""
    calls: list[tuple[Any, ...]] = []
    function = getattr(module, name)

    def noted(*given: Any) -> Any:
        calls.append(given)
        return function(*given)

    monkeypatch.setattr(module, name, noted)
    return calls


# --- transactions -----------------------------------------------------------------------------------------


def test_a_profile_is_fitted_once_for_many_writes_of_a_transaction(
    db: vecdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = db.collection("docs")
    fitted = counted(monkeypatch, guard, "fit_profile")
    vectors = np.random.default_rng(0).normal(size=(2100, 4))
    docs.upsert([f"i{number}" for number in range(2100)], vectors={"s": vectors})
    with db.transaction():
        for number in range(20):
            docs.upsert(f"i{number}", vectors={"s": [1, 2, 3, 4]})
    docs.upsert("i0", vectors={"s": [1, 2, 3, 4]})
    assert len(fitted) == 1


def test_deaths_of_a_transaction_are_stored_once(db: vecdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.collection("docs")
    stored = counted(monkeypatch, writetx, "write_deaths")
    docs.upsert([1, 2, 3, 4], vectors={"s": np.eye(4)})
    before = db.seq
    with db.transaction():
        for number in (1, 2, 3):
            docs.upsert(number, vectors={"s": [1, 2, 3, 4]})
        docs.upsert(1, vectors={"s": [1, 1, 1, 1]})
        docs.delete(4)
    assert [len(given[3]) for given in stored] == [5]
    assert docs.search([1, 1, 1, 1], k=9).ids == [1, 2, 3]
    assert sorted(docs.search([1, 1, 1, 1], k=9, as_of=before).ids) == [1, 2, 3, 4]
    with db.transaction():
        docs.delete(3)
        assert docs.count() == 2
        docs.drop_space("s")
        docs.upsert(1)
    assert db.check().ok


def test_space_comes_back_where_only_transactions_write(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "a.vecdb", retention=0) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=64, metric="l2")
        rng, ids = np.random.default_rng(0), list(range(400))
        for _ in range(40):
            with db.transaction():
                docs.upsert(ids, vectors={"s": rng.normal(size=(400, 64))}, trust=True)
        counts = docs.stats()["spaces"]["s"]
        assert counts["vectors"] == 400
        assert counts["dead"] < 8_000
        assert db.check().ok


def test_images_are_forgotten_when_the_tag_goes_in_the_same_commit(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "a.vecdb", retention=0) as db:
        docs = db.create_collection("docs")
        docs.upsert("a", texts="old")
        db.tag("t")
        with db.transaction():
            docs.upsert("a", texts="new")
            db.untag("t")
        with db._read() as snapshot:
            assert not list(snapshot.tx.range("history", b""))


def test_a_scan_in_a_transaction_ends_though_the_loop_writes(db: vecdb.Database) -> None:
    docs = db.collection("docs")
    with db.transaction():
        docs.upsert(list(range(600)), metadata=[{"n": number} for number in range(600)])
        seen = 0
        for record in docs.scan():
            seen += 1
            docs.upsert(f"copy of {record.id}")
        assert seen == 600
        docs.delete([f"copy of {number}" for number in range(600)])
        rows = docs.scan(where={"n": {"$gte": 0}})
        next(rows)
        docs.delete(list(range(520, 580)))
        assert len(list(rows)) == 539


# --- the file ---------------------------------------------------------------------------------------------


def test_a_panic_seen_by_a_reader_leaves_the_views_of_others_alone(
    db: vecdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, env = db.collection("docs"), db._opened().env
    docs.upsert("a", vectors={"s": [1, 2, 3, 4]})
    begin = Environment.__dict__["_begin"].__func__
    panics = [lmdb.PanicError("mdb_txn_begin")]
    reading, done = threading.Event(), threading.Event()

    def long_read() -> int:
        with env.lease() as tx:
            reading.set()
            done.wait(60)
            return len(bytes(tx.get("meta", b"state") or b""))

    holder, held = in_thread(long_read)
    reading.wait()
    monkeypatch.setattr(Environment, "_begin", staticmethod(lambda raw: throw(panics.pop()) if panics else begin(raw)))
    reader, found = in_thread(lambda: docs.get("a")[0].id)
    reader.join(0.1)
    assert env._env is not None
    done.set()
    holder.join()
    reader.join()
    assert held[0] > 0
    assert found == ["a"]


def throw(error: Exception) -> Any:
    raise error


def test_what_needs_the_file_alone_is_refused_while_its_own_thread_reads(db: vecdb.Database) -> None:
    docs = db.collection("docs")
    docs.upsert("a", vectors={"s": [1, 2, 3, 4]})
    with pytest.raises(StateError, match="its own thread reads"):
        docs.search([1, 2, 3, 4], cancel=lambda: db.compact(timeout=0.1) is None)
    assert docs.search([1, 2, 3, 4]).ids == ["a"]
    db.compact()


def test_readers_survive_a_writer_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("docs").upsert("a")
    with vecdb.open(path, mode="r") as reader:
        opening = hold_data_file

        def refused(file: Path, *, readonly: bool, timeout: float) -> int:
            if not readonly:
                raise FileAccessError(f"{file}: read-only", path=str(file))
            return opening(file, readonly=readonly, timeout=timeout)

        with monkeypatch.context() as patch:
            patch.setattr(env_module, "hold_data_file", refused)
            with pytest.raises(FileAccessError):
                vecdb.open(path)
            assert "a" in reader.collection("docs")
        with vecdb.open(path) as writer:
            writer.collection("docs").upsert("b")
        assert "b" in reader.collection("docs")


def test_a_name_that_is_too_long_is_a_typed_error(tmp_path: Path) -> None:
    for length in (250, 300, 5000):
        with pytest.raises(FileAccessError):
            vecdb.open(tmp_path / ("x" * length))


def test_a_collection_has_no_more_spaces_than_a_record_can_refer_to(db: vecdb.Database) -> None:
    docs = db.create_collection("many")
    with db.transaction():
        for number in range(255):
            docs.add_space(f"s{number}", dim=1, metric="dot")
        with pytest.raises(ParameterError, match="255"):
            docs.add_space("one more", dim=1)
    docs.upsert("a", vectors={name: [1.0] for name in docs.spaces})
    assert len(docs.get("a", vectors="all")[0].vectors) == 255


def test_check_believes_the_file_and_not_what_readers_remember(db: vecdb.Database) -> None:
    docs = db.collection("docs")
    docs.upsert(["a", "b"], vectors={"s": np.eye(4)[:2]}, metadata=[{"n": 1}, {"n": 2}])
    docs.search([1, 2, 3, 4], where={"n": 1})
    assert db.check().ok
    key = segment_key(1, 0)
    poison(db, "tail", key, b"damaged")
    assert not db.check().ok


def test_vectors_of_a_collection_made_in_the_transaction_count_as_unverified(db: vecdb.Database) -> None:
    with db.transaction():
        fresh = db.create_collection("fresh")
        fresh.add_space("s", dim=4)
        assert fresh.upsert([1, 2, 3], vectors={"s": np.eye(4)[:3]}).unverified == 3
        assert fresh.upsert([4], vectors={"s": [[1, 2, 3, 4]]}, trust=True).unverified == 1


def test_a_record_that_shrinks_in_its_transaction_does_not_look_like_damage(tmp_path: Path) -> None:
    """LMDB keeps the pages of the longer value, so the shorter one has more than it needs."""
    path = tmp_path / "shrunk.vecdb"
    with vecdb.open(path) as opened:
        docs = opened.create_collection("docs")
        with opened.transaction():
            for length in (30_000, 9_000, 3_000):
                docs.upsert("a", metadata={"text": "x" * length})
                docs.count()  # what is pending is put in place
    with vecdb.open(path) as opened:
        assert opened.check().ok
        assert opened.collection("docs").get("a")[0].metadata == {"text": "x" * 3_000}
        opened.backup(tmp_path / "copy.vecdb")
