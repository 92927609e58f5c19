"""No room left: the write fails with a typed error, what was there stays, and writing goes on when there is room again.

Limits are set in children: on the file's size (what a full disk looks like to LMDB) and on the address space.
"""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.testing.crash import Trial, verify, write_step
from vecdb.testing.processes import Child, call_in_child
from vecdb.testing.workload import Workload

KB = 1 << 10
ROWS = np.random.default_rng(1).standard_normal((400, 256)).astype(np.float32)


def limit_file_size(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def address_space():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def write_until_full(path, room, seed):
    """Write steps with so much room left; once refused, prove the rest, lift the limit and write on."""
    trial = Trial(path, Workload(seed))
    trial.create()
    refused = []
    limit_file_size(path.stat().st_size + room)
    with trial.open() as db:
        while len(refused) < 3 and trial.workload.number < 300:
            step = trial.workload.next_step()
            before = db.seq
            try:
                step.write(db)
            except vecdb.StorageError as error:
                refused.append(type(error).__name__)
                assert db.seq == before
                assert verify(db, trial.workload, trial.workload.number, db.seq - trial.base) == []
                continue
            trial.workload.take(step)
        limit_file_size(resource.RLIM_INFINITY)
        for _ in range(5):
            write_step(db, trial.workload, lambda number: None)
        assert verify(db, trial.workload, trial.workload.number, db.seq - trial.base) == []
    with trial.open() as db:
        assert verify(db, trial.workload, trial.workload.number, db.seq - trial.base) == []
    return refused


def hold_at(tmp_path, room, seed):
    refused = call_in_child(lambda: write_until_full(tmp_path / f"{room}.vecdb", room, seed))
    assert refused == ["DiskFullError"] * 3, (room, refused)


@pytest.mark.parametrize("room", [0, 4, 8, 36, 100, 300, 1200, 1220, 2700])
def test_a_full_disk(tmp_path, room):
    hold_at(tmp_path, room * KB, seed=room)


@pytest.mark.full
@pytest.mark.parametrize("part", range(8))
def test_a_full_disk_at_each_page(tmp_path, part):
    for room in range(part * 4, 2048, 32):
        hold_at(tmp_path, room * KB, seed=part)


@pytest.mark.parametrize("size", [0, 1, 4, 8, 12, 24, 36, 64])
def test_no_room_to_create_a_file(tmp_path, size):
    """The error is typed; nothing half-made is in the way of the next try."""
    path = tmp_path / "new.vecdb"

    def scenario():
        limit_file_size(size * KB)
        try:
            with vecdb.open(path) as db:
                db.create_collection("c").add_space("s", dim=4)
                for turn in range(100):
                    db.collection("c").upsert([turn], {"s": ROWS[turn : turn + 1, :4]}, texts=["x" * 2000])
        except vecdb.StorageError as error:
            said = type(error).__name__
        else:
            said = "no error"
        limit_file_size(resource.RLIM_INFINITY)
        with vecdb.open(path) as db:
            db.create_collection("c", exist_ok=True)
            assert db.check().ok
        return said

    assert call_in_child(scenario) == "DiskFullError"


@pytest.mark.parametrize("what", ["compact", "backup"])
def test_no_room_for_a_copy(tmp_path, what):
    """The copy is refused and leaves nothing behind; the file it was made of stays as it was."""
    path = tmp_path / "store.vecdb"

    def scenario():
        with vecdb.open(path) as db:
            docs = db.create_collection("docs")
            docs.add_space("s", dim=256, metric="l2")
            docs.upsert(list(range(400)), {"s": ROWS}, trust=True)
            limit_file_size(path.stat().st_size // 4)
            try:
                db.compact() if what == "compact" else db.backup(tmp_path / "copy.vecdb")
                said = "no error"
            except vecdb.StorageError as error:
                said = type(error).__name__
            limit_file_size(resource.RLIM_INFINITY)
            assert docs.search(ROWS[7], k=1).ids == [7]
            docs.upsert(["more"], {"s": ROWS[:1]}, trust=True)
            assert db.check().ok
            left = sorted(entry.name for entry in tmp_path.iterdir())
            assert left == ["store.vecdb", "store.vecdb-lock", "store.vecdb-writer"], left
            assert db.compact()["bytes_after"] > 0
        return said

    assert call_in_child(scenario) == "DiskFullError"


# --- the memory map ---------------------------------------------------------------------------------------


def test_a_small_map_grows_by_itself(tmp_path):
    path = tmp_path / "grown.vecdb"
    with vecdb.open(path, map_size=1 << 20) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=256, metric="l2")
        for turn in range(20):
            ids = list(range(turn * 400, turn * 400 + 400))
            docs.upsert(ids, {"s": ROWS + turn}, trust=True)
            assert docs.search(ROWS[3] + turn, k=1).ids == [turn * 400 + 3]
        with db.transaction():
            docs.delete(list(range(400)))
            for turn in range(20, 30):
                docs.upsert(list(range(turn * 400, turn * 400 + 400)), {"s": ROWS + turn}, trust=True)
        assert len(docs) == 29 * 400 and db.check().ok
        assert db.stats()["map_bytes"] > 8 << 20


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.full)])
def test_a_small_map_grows_under_several_processes(tmp_path, processes):
    """Each writes and reads while the others enlarge the map; no call fails."""
    path = tmp_path / "shared.vecdb"
    with vecdb.open(path, map_size=1 << 20) as db:
        db.create_collection("docs").add_space("s", dim=256, metric="l2")
    turns, rows = 9, 200 // processes

    def work(number):
        with vecdb.open(path, map_size=1 << 20, timeout=120) as db:
            docs = db.collection("docs")
            for turn in range(turns):
                ids = [f"{number}.{turn}.{row}" for row in range(rows)]
                docs.upsert(ids, {"s": ROWS[:rows] + 1000 * number + turn}, trust=True)
                assert docs.search(ROWS[9] + 1000 * number + turn, k=1).ids == [ids[9]]
                assert sum(1 for _ in docs.scan(limit=300)) <= 300
        return number

    children = [Child(lambda _, number=number: work(number)) for number in range(processes)]
    try:
        assert [child.result() for child in children] == list(range(processes))
    finally:
        for child in children:
            child.close()
    with vecdb.open(path) as db:
        assert len(db.collection("docs")) == processes * turns * rows and db.check().ok


def test_a_map_that_cannot_grow(tmp_path):
    """`MapFullError`, and everything written before stays readable in the same process."""
    path = tmp_path / "tight.vecdb"

    def scenario():
        with vecdb.open(path, map_size=4 << 20) as db:
            docs = db.create_collection("docs")
            docs.add_space("s", dim=256, metric="l2")
            docs.upsert(list(range(400)), {"s": ROWS}, trust=True)
            assert docs.search(ROWS[7], k=1).ids == [7]
            used = address_space()
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), hard))
            written, said = 1, ""
            while not said and written < 400:
                try:
                    docs.upsert([f"{written}.{row}" for row in range(400)], {"s": ROWS}, trust=True)
                    written += 1
                except (vecdb.StorageError, MemoryError) as error:
                    said = type(error).__name__
            assert len(docs) == written * 400
            assert docs.get([7], vectors="s")[0].vectors["s"].tobytes() == ROWS[7].tobytes()
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            docs.upsert(["more"], {"s": ROWS[:1]}, trust=True)
            assert len(docs) == written * 400 + 1 and db.check().ok
        return said

    assert call_in_child(scenario) == "MapFullError"


def test_an_address_space_too_small_for_the_default_map(tmp_path):
    """The map is halved until it fits."""
    path = tmp_path / "limited.vecdb"

    def scenario():
        used = address_space()
        resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 30), resource.RLIM_INFINITY))
        with vecdb.open(path) as db:
            db.create_collection("c")
            return db.stats()["map_bytes"]

    assert 1 << 30 <= call_in_child(scenario) <= 6 << 30
