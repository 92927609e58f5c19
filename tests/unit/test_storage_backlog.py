"""A writer gives readers time to go on before the file grows: bounded, once for each commit, never for itself."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import vecdb
from vecdb.storage import backlog as module
from vecdb.storage.backlog import LEAST, PATIENCE, SHARE, Backlog

MB = 1 << 20


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def filled(commits: int, written: int = MB // 2) -> Backlog:
    backlog = Backlog()
    for commit in range(1, commits + 1):
        backlog.add(commit, written)
    return backlog


def test_little_is_no_reason_to_look(clock: Clock) -> None:
    backlog = filled(1)
    backlog.wait(lambda: pytest.fail("looked at readers"))
    assert 0 < backlog.bytes < LEAST


def test_without_readers_nothing_is_waited_for(clock: Clock) -> None:
    backlog = filled(10)
    backlog.wait(lambda: (10, 10, 8 * MB))
    assert clock.now == 100.0 and backlog.bytes == 0


def test_what_the_oldest_reader_holds_back_counts_and_nothing_before(clock: Clock) -> None:
    backlog = filled(10)
    each = backlog.bytes // 10
    backlog.wait(lambda: (10, 9, 8 * MB))
    assert clock.now == 100.0 and backlog.bytes == each
    backlog = filled(10)
    backlog.wait(lambda: (10, 6, 4 * each * SHARE + SHARE))  # a share of a large file
    assert clock.now == 100.0 and backlog.bytes == 4 * each


def test_the_wait_ends_when_readers_have_gone_on(clock: Clock) -> None:
    backlog = filled(10)
    oldest = iter([2, 2, 3, 5, 9, 10])
    backlog.wait(lambda: (10, next(oldest), 8 * MB))
    assert 100.0 < clock.now < 100.0 + PATIENCE and backlog.bytes < LEAST
    assert list(oldest) == [10]


def test_one_commit_is_waited_for_once_and_not_for_long(clock: Clock) -> None:
    backlog = filled(10)
    backlog.wait(lambda: (10, 2, 8 * MB))
    assert PATIENCE <= clock.now - 100.0 < 1.1 * PATIENCE
    before = clock.now
    backlog.add(11, MB)
    backlog.wait(lambda: (11, 2, 8 * MB))  # whoever still reads it has had his time
    assert clock.now == before
    backlog.wait(lambda: (11, 3, 8 * MB))  # the next one gets his
    assert clock.now > before


def test_a_compacted_file_counts_its_commits_anew(clock: Clock) -> None:
    backlog = filled(50)
    backlog.add(2, 100)
    assert backlog.bytes < MB
    backlog.wait(lambda: pytest.fail("looked at readers"))


# --- in a database ---


ROWS = np.random.default_rng(0).standard_normal((300, 512)).astype(np.float32)


@pytest.fixture
def db(tmp_path, monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")
    with vecdb.open(tmp_path / "x.vecdb", retention=0.0, durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=512, metric="l2")
        docs.upsert(range(300), {"s": ROWS}, trust=True)
        yield db


def rewrite(db: vecdb.Database, turns: int) -> None:
    for turn in range(turns):
        db.collection("docs").upsert(range(300), {"s": ROWS + turn}, trust=True)


@pytest.fixture
def waits(monkeypatch):
    """Count the steps of waiting."""
    counted = []
    real = module.time.sleep
    monkeypatch.setattr(module.time, "sleep", lambda seconds: counted.append(seconds) or real(seconds))
    return counted


def test_a_writer_without_readers_never_waits(db, waits):
    rewrite(db, 10)
    assert waits == [] and db.check().ok


def test_a_reader_that_stays_delays_one_write_and_no_more(db, waits):
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with db._read() as snapshot:
            inside.set()
            leave.wait(60)
            assert snapshot.seq == before

    before = db.seq
    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert inside.wait(60)
        rewrite(db, 12)
        assert 0 < sum(waits) <= 1.1 * PATIENCE
        assert db._opened().env.facts()["oldest_reader_lag"] >= 12
    finally:
        leave.set()
        reader.join()


def test_a_writer_that_reads_itself_does_not_wait_for_itself(db, waits):
    with db._read():
        rewrite(db, 12)
    assert waits == []


def test_a_reader_that_goes_on_is_waited_for(db, monkeypatch):
    """The write goes on as soon as the reader has left, and uses its pages."""
    inside, leave = threading.Event(), threading.Event()
    real = module.time.sleep

    def sleep(seconds: float) -> None:
        leave.set()
        real(seconds)

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module, "PATIENCE", 60.0)

    def read() -> None:
        with db._read():
            inside.set()
            leave.wait(60)

    reader = threading.Thread(target=read)
    reader.start()
    assert inside.wait(60)
    rewrite(db, 12)
    assert leave.is_set()  # else nobody waited
    reader.join()
    assert db.check().ok


def test_transactions_and_upkeep_wait_as_single_writes_do(db, monkeypatch):
    asked = []
    monkeypatch.setattr(Backlog, "wait", lambda self, look: asked.append(look()))
    with db.transaction():
        db.collection("docs").delete([1])
    assert len(asked) == 1
    db.optimize()
    assert len(asked) > 1
    newest, oldest, size = asked[-1]
    assert newest == oldest > 0 and 0 < size <= db.path.stat().st_size
