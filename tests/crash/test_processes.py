"""Several processes on one file: locks that name their holder, reads that never tear, space that comes back."""

from __future__ import annotations

import functools
import os
import random
import time

import numpy as np
import pytest

import vecdb
from vecdb.storage.env import Environment
from vecdb.testing.processes import Child

ROWS = np.random.default_rng(2).standard_normal((500, 256)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "shared.vecdb"
    with vecdb.open(file) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=256, metric="l2")
        docs.upsert(list(range(500)), {"s": ROWS}, trust=True)
    return file


def holding(path):
    """Return a child that holds a transaction on the file until it is told to end it."""

    def work(link):
        with vecdb.open(path) as db, db.transaction():
            db.collection("docs").upsert(["held"], {"s": ROWS[:1]}, trust=True)
            link.send("inside")
            link.receive()
        return "committed"

    child = Child(work)
    assert child.receive() == "inside"
    return child


# --- the writer lock --------------------------------------------------------------------------------------


def test_a_second_writer_waits_and_then_learns_who_writes(path):
    with holding(path) as child, vecdb.open(path, timeout=0.3) as db:
        docs = db.collection("docs")
        for write in (
            lambda: docs.upsert(["x"], {"s": ROWS[:1]}, trust=True),
            lambda: docs.delete([0]),
            lambda: db.tag("t"),
            lambda: db.transaction().__enter__(),
            lambda: db.optimize(),
        ):
            with pytest.raises(vecdb.LockedError, match=f"process {child.pid}") as caught:
                write()
            assert str(child.pid) in caught.value.holder and caught.value.waited >= 0.3
        assert "held" not in docs and len(docs) == 500
        child.send("end")
        with vecdb.open(path, timeout=60) as patient:
            patient.collection("docs").upsert(["x"], {"s": ROWS[:1]}, trust=True)
        assert child.result() == "committed"
        assert "held" in docs and "x" in docs and db.check().ok


@pytest.mark.parametrize("mode", ["a", "r"])
def test_opening_and_reading_wait_for_nobody(path, mode):
    """Also where the process that opens has never seen the file."""
    with holding(path) as child, vecdb.open(path, mode=mode, timeout=0.0) as db:
        assert db.collection("docs").search(ROWS[3], k=1).ids == [3]
        assert db.check().ok and "held" not in db.collection("docs")
        child.send("end")
        child.result()
        assert "held" in db.collection("docs")


def test_a_writer_killed_in_its_transaction_holds_up_nobody(path):
    child = holding(path)
    child.close()
    with vecdb.open(path, timeout=0.5) as db:
        assert "held" not in db.collection("docs")
        db.collection("docs").upsert(["x"], {"s": ROWS[:1]}, trust=True)
        assert db.check().ok


def test_a_killed_writer_is_not_named_after_somebody_else_took_the_lock(path):
    holding(path).close()
    with holding(path) as second, vecdb.open(path, timeout=0.1) as db:
        with pytest.raises(vecdb.LockedError, match=f"process {second.pid}"):
            db.tag("t")
        second.send("end")
        second.result()


def test_two_processes_create_one_file(tmp_path):
    """Whoever is second finds the database that the first made."""
    for turn in range(10):
        path = tmp_path / f"{turn}.vecdb"

        def work(link, path=path):
            link.receive()
            with vecdb.open(path) as db:
                return db.uuid

        children = [Child(work) for _ in range(4)]
        try:
            for child in children:
                child.send("go")
            assert len({child.result() for child in children}) == 1
        finally:
            for child in children:
                child.close()


def test_a_database_that_is_made_between_two_looks_is_found(path, monkeypatch):
    """The tables were not there yet at the first look, the file was not empty any more at the second."""
    looks = []
    real = Environment._find_tables

    def late(env, lmdb_env):
        looks.append(1)
        return len(looks) > 1 and real(env, lmdb_env)

    monkeypatch.setattr(Environment, "_find_tables", late)
    with vecdb.open(path, mode="r") as db:
        assert len(looks) == 2 and len(db.collection("docs")) == 500


# --- compaction -------------------------------------------------------------------------------------------


def test_compaction_is_refused_while_another_process_has_the_file_open(path):
    def work(link):
        with vecdb.open(path) as db:
            link.send("open")
            link.receive()
            db.collection("docs").upsert(["of the child"], {"s": ROWS[:1]}, trust=True)
            return len(db.collection("docs"))

    with Child(work) as child, vecdb.open(path) as db:
        assert child.receive() == "open"
        docs = db.collection("docs")
        docs.delete(list(range(100)))
        with pytest.raises(vecdb.LockedError, match=f"process {child.pid}"):
            db.compact(timeout=0.2)
        docs.upsert(["of the parent"], {"s": ROWS[:1]}, trust=True)
        child.send("go on")
        assert child.result() == 402
        assert db.compact()["bytes_after"] > 0
        assert "of the child" in docs and "of the parent" in docs and db.check().ok


def test_a_reader_in_another_process_is_reason_enough(path):
    def work(link):
        with vecdb.open(path, mode="r") as db:
            link.send("open")
            link.receive()
            return db.collection("docs").search(ROWS[9], k=1).ids

    with Child(work) as child, vecdb.open(path) as db:
        child.receive()
        with pytest.raises(vecdb.LockedError):
            db.compact(timeout=0.1)
        child.send("go on")
        assert child.result() == [9]


def test_whoever_opens_during_the_swap_gets_the_new_file(path):
    """The writer stands still between copy and rename; another process opens, waits, and its write is kept."""

    def compacting(link):
        from vecdb.storage import copying

        real = copying._swap

        def slow(*arguments):
            link.send("about to swap")
            link.receive()
            real(*arguments)

        copying._swap = slow
        with vecdb.open(path) as db:
            db.compact()
        return "compacted"

    def opening(link):
        with vecdb.open(path) as db:
            db.collection("docs").upsert(["late"], {"s": ROWS[:1]}, trust=True)
            return len(db.collection("docs"))

    with Child(compacting) as first:
        assert first.receive() == "about to swap"
        with Child(opening) as second:
            time.sleep(0.2)
            first.send("go on")
            assert second.result() == 501
            assert first.result() == "compacted"
    with vecdb.open(path) as db:
        assert "late" in db.collection("docs") and db.check().ok


def test_compactions_and_writers_race(path):
    """Three processes write and compact all the time; nothing is lost, and somebody gets to compact."""

    def work(number):
        compacted = 0
        chance = random.Random(number)
        with vecdb.open(path, timeout=120) as db:
            docs = db.collection("docs")
            for turn in range(12):
                docs.upsert([f"{number}.{turn}"], {"s": ROWS[turn : turn + 1]}, trust=True)
                docs.delete([number * 30 + turn])
        for _ in range(15):
            with vecdb.open(path, timeout=120) as db:
                db.collection("docs").upsert([f"{number} again"], {"s": ROWS[:1]}, trust=True)
                try:
                    db.compact(timeout=chance.uniform(0, 0.05))
                    compacted += 1
                except vecdb.LockedError:
                    pass
        if not number:  # with some patience its turn comes, at the latest when the others are done
            with vecdb.open(path, timeout=120) as db:
                db.compact(timeout=80)
                compacted += 1
        return compacted

    children = [Child(lambda _, number=number: work(number)) for number in range(3)]
    try:
        assert sum(child.result() for child in children) > 0
    finally:
        for child in children:
            child.close()
    with vecdb.open(path) as db:
        docs = db.collection("docs")
        assert len(docs) == 500 - 36 + 36 + 3
        assert all(f"{number}.{turn}" in docs for number in range(3) for turn in range(12))
        assert db.check().ok


# --- space ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "dtype"), [(256, "float32"), (384, "float16"), (512, "float32")])
def test_little_is_left_of_a_small_database_too(tmp_path, dim, dtype):
    """A few hundred vectors take no 1 MB block, and the pages of ids and records are filled again."""
    rows = np.random.default_rng(0).standard_normal((3000, dim)).astype(np.float32)
    with vecdb.open(tmp_path / "small.vecdb", retention=0.0, durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=dim, metric="cosine", dtype=dtype)
        docs.upsert(list(range(3000)), {"s": rows}, trust=True)
        docs.delete([number for number in range(3000) if number % 10])
        sizes = db.compact(keep="nothing")
        assert sizes["bytes_after"] <= 0.15 * sizes["bytes_before"], sizes
        assert db.check().ok and docs.get([20], vectors="s")[0].vectors["s"][0] == rows[20, 0].astype(dtype)


def test_deleting_most_and_compacting_gives_the_space_back(tmp_path):
    path = tmp_path / "space.vecdb"
    rng = np.random.default_rng(0)
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=256, metric="cosine")
        for start in range(0, 10_000, 1000):
            ids = list(range(start, start + 1000))
            rows = rng.standard_normal((1000, 256)).astype(np.float32)
            docs.upsert(
                ids, {"s": rows}, metadata=[{"n": n} for n in ids], texts=[f"text {n}" for n in ids], trust=True
            )
        docs.delete(where={"n": {"$gte": 1000}})
        sizes = db.compact()
        assert sizes["bytes_after"] <= 0.15 * sizes["bytes_before"], sizes
        assert path.stat().st_size == sizes["bytes_after"]
        assert len(docs) == 1000 and db.check().ok


def live_bytes(db):
    """What the live data takes in a compact copy."""
    copy = db.path.with_name(f"{db.path.name}-copied")
    size = db.backup(copy)
    copy.unlink()
    return size


def rewrite(db, turn, count=20):
    docs = db.collection("docs")
    start = turn * count % 500
    ids = list(range(start, min(start + count, 500)))
    docs.upsert(ids, {"s": ROWS[ids] + turn}, trust=True)


@pytest.mark.parametrize("rewrites", [1000, pytest.param(10_000, marks=pytest.mark.full)])
def test_rewrites_under_live_readers_keep_the_file_small(tmp_path, rewrites):
    """Readers that renew their snapshots keep nothing for long; the file stays below twice its live data (10 MB)."""
    path = tmp_path / "rewritten.vecdb"
    rows = np.tile(ROWS, (20, 1))
    with vecdb.open(path, retention=0.0) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=256, metric="l2")
        docs.upsert(list(range(len(rows))), {"s": rows}, trust=True)

    def reading(link):
        with vecdb.open(path, mode="r") as db:
            docs = db.collection("docs")
            link.send("reading")
            while os.getppid() == parent:
                docs.search(ROWS[1], k=5)
                docs.get(list(range(100)), vectors="s")

    parent = os.getpid()
    children = [Child(reading) for _ in range(2)]
    try:
        for child in children:
            child.receive()
        with vecdb.open(path, retention=0.0) as db:
            docs = db.collection("docs")
            for turn in range(rewrites):
                ids = [(turn * 40 + place) % len(rows) for place in range(40)]
                docs.upsert(ids, {"s": rows[ids] + turn}, trust=True)
            assert db.check().ok
            assert path.stat().st_size <= 2 * live_bytes(db)
    finally:
        for child in children:
            child.close()


def test_a_reader_killed_in_mid_read_does_not_pin_space(path):
    """Its slot is cleared while the writer goes on, without anybody opening the file anew."""

    def reading(link):
        with vecdb.open(path, mode="r") as db, db._read():
            link.send("inside")
            time.sleep(60)

    with vecdb.open(path, retention=0.0) as db:
        db.collection("docs").upsert(["warm"], {"s": ROWS[:1]}, trust=True)
        child = Child(reading)
        child.receive()
        rewrite(db, 0)  # the fork closed the file here: open it before the reader dies
        child.close()
        for turn in range(400):
            rewrite(db, turn)
        assert db.stats()["oldest_reader_lag"] < 100


# --- soak -------------------------------------------------------------------------------------------------

PART = 76
"""Records that a commit rewrites: commit t writes ids PART * t ... PART * t + PART - 1, modulo their number."""
SOME, MANY = 25 * PART, 145 * PART
"""8 and 46 MB of vectors: many where the size of the file matters, and a block more or less must not decide."""


@functools.cache
def wide(count):
    return np.random.default_rng(3).standard_normal((count, 1024)).astype(np.float32)


def soak_reader(path, seed, count):
    """Read consistent snapshots for ever; end with an error at the first torn or stale one.

    Every commit stamps its number on the records it writes and on a marker record, so a snapshot is whole if every
    record has the stamp that the marker's number demands, and the vector that its own stamp demands.
    """
    chance = random.Random(seed)
    with vecdb.open(path, mode="r") as db:
        docs = db.collection("docs")
        newest = 0
        while os.getppid() != 1:
            before = db.seq
            chosen = chance.sample(range(count), 400)
            *records, marker = docs.get([*chosen, "marker"], vectors="s")
            after = db.seq
            assert newest <= before <= after, "stale"
            newest = after
            check_whole(records, marker.metadata["turn"], wide(count))
            check_search(docs, chance.randrange(count), wide(count))


def check_whole(records, marker, rows):
    parts = len(rows) // PART
    for record in records:
        part = record.id // PART
        last = marker - (marker - part) % parts if marker >= part else 0
        assert record.metadata["turn"] == last, f"torn: record {record.id} is of commit {record.metadata} at {marker}"
        assert record.vectors["s"].tobytes() == (rows[record.id] + np.float32(last)).tobytes()


def check_search(docs, key, rows):
    """The top three are the model's: the nearest by the vectors that the same search returns, in that order.

    Scores are float32, and equal ones come in the order of age, so distances may fall by what float32 cannot tell.
    """
    query = docs.get([key], vectors="s")[0].vectors["s"]
    hits = docs.search(query, k=3, include=("vectors", "metadata"))
    distances = [np.sqrt(((hit.vectors["s"].astype(np.float64) - query) ** 2).sum()) for hit in hits]
    assert hits.distances.tolist() == sorted(hits.distances.tolist())
    np.testing.assert_allclose(hits.distances, distances, rtol=1e-6, atol=1e-6)
    stamps = [(hit.id, hit.metadata["turn"]) for hit in hits if hit.id != "marker"]
    assert all(
        hit.vectors["s"].tobytes() == (rows[hit.id] + np.float32(hit.metadata["turn"])).tobytes()
        for hit in hits
        if hit.id != "marker"
    ), stamps


def soak_writer(path, link, wide):
    with vecdb.open(path, retention=0.0) as db:
        docs = db.collection("docs")
        turn = 0
        while os.getppid() != 1:
            turn += 1
            start = turn * PART % len(wide)
            ids = list(range(start, start + PART))
            rows = np.concatenate([wide[ids] + np.float32(turn), wide[:1]])
            docs.upsert([*ids, "marker"], {"s": rows}, metadata=[{"turn": turn}] * (PART + 1), trust=True)
            if turn % 10 == 0:
                link.send(turn)


def soak(path, seconds, count):
    """Eight readers and a writer, one reader killed each second and replaced; return file and live bytes."""
    with vecdb.open(path, retention=0.0) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=1024, metric="l2")
        rows = np.concatenate([wide(count), wide(count)[:1]])
        docs.upsert([*range(count), "marker"], {"s": rows}, metadata=[{"turn": 0}] * len(rows), trust=True)
    chance = random.Random(seconds)
    readers = [Child(lambda _, seed=seed: soak_reader(path, seed, count)) for seed in range(8)]
    writer = Child(lambda link: soak_writer(path, link, wide(count)))
    try:
        for turn in range(seconds):
            time.sleep(1.0)
            victim = chance.randrange(8)
            assert readers[victim].running()
            readers[victim].close()
            readers[victim] = Child(lambda _, turn=turn: soak_reader(path, 100 + turn, count))
        assert all(reader.running() for reader in readers)
        assert writer.running() and writer.receive() > 0
    finally:
        for child in (*readers, writer):
            child.close()
    with vecdb.open(path, retention=0.0) as db:
        assert db.check().ok
        return path.stat().st_size, live_bytes(db)


LENGTHS = [4, pytest.param(30, marks=pytest.mark.full), pytest.param(600, marks=pytest.mark.nightly)]


@pytest.mark.parametrize("seconds", LENGTHS)
def test_no_read_is_torn_or_stale_in_a_soak(tmp_path, seconds):
    soak(tmp_path / "soaked.vecdb", seconds, SOME)


@pytest.mark.parametrize("seconds", LENGTHS[1:])
def test_the_file_stays_small_in_a_soak(tmp_path, seconds):
    size, live = soak(tmp_path / "soaked.vecdb", seconds, MANY)
    assert size <= 1.5 * live
