"""The harness finds bugs: each is planted by a patch in a child or a test, and must be caught."""

from __future__ import annotations

import contextlib
import queue
import random
import threading

import numpy as np
import pytest

import vecdb
from vecdb.errors import StateError
from vecdb.storage import format as formats
from vecdb.storage import history, records, spaces, state, writetx
from vecdb.storage.env import Environment
from vecdb.testing.crash import Lives, Trial, write_step
from vecdb.testing.damage import answers, flip_bit, probe_all
from vecdb.testing.processes import call_in_child
from vecdb.testing.workload import Workload

ROWS = np.random.default_rng(6).standard_normal((600, 256)).astype(np.float32)


def caught_by_kills(tmp_path, write, kills=60, seed=1):
    """Return what the harness says of a writer with a bug; None if it found nothing."""
    trial = Trial(tmp_path / "planted.vecdb", Workload(seed), write=write)
    trial.create()
    lives = Lives(seed, 0.02, 0.15)
    for _ in range(kills):
        outcome = trial.run(lives.kill())
        lives.learn(outcome)
        problems = trial.check(outcome)
        if problems:
            return problems[0]
    return None


def steps(db, workload, acknowledge):
    while True:
        write_step(db, workload, acknowledge)


def test_the_harness_finds_nothing_without_a_bug(tmp_path):
    assert caught_by_kills(tmp_path, steps, kills=10) is None


def test_acknowledged_before_the_commit(tmp_path):
    """A writer that hands its commits to a background thread and answers at once loses some when it is killed."""

    def write(db, workload, acknowledge):
        waiting = queue.Queue()

        def commit():
            while True:
                waiting.get().write(db)

        threading.Thread(target=commit, daemon=True).start()
        for _ in range(200):
            step = workload.next_step()
            waiting.put(step)
            acknowledge(step.number)
            workload.take(step)
        threading.Event().wait()

    assert "were acknowledged" in caught_by_kills(tmp_path, write)


def test_a_commit_that_is_thrown_away(tmp_path):
    """Every fifth commit is rolled back and reported as done."""

    def write(db, workload, acknowledge):
        real, turns = Environment.commit, iter(range(1, 10**6))
        Environment.commit = lambda env, tx: env.abort(tx) if next(turns) % 5 == 0 else real(env, tx)
        steps(db, workload, acknowledge)

    assert caught_by_kills(tmp_path, write) is not None


def test_a_batch_in_two_commits(tmp_path):
    """Half a batch can be seen after a kill between the two; the count of commits gives it away at once."""

    def write(db, workload, acknowledge):
        real = vecdb.Collection.upsert

        def halves(self, ids, vectors=None, metadata=None, texts=None, **rules):
            middle = len(ids) // 2
            for part in (slice(None, middle), slice(middle, None)):
                if ids[part]:
                    chosen = {name: rows[part] for name, rows in vectors.items()}
                    real(self, ids[part], chosen, metadata[part], texts[part], **rules)

        vecdb.Collection.upsert = halves
        steps(db, workload, acknowledge)

    assert caught_by_kills(tmp_path, write) is not None


def test_columns_outside_the_transaction(tmp_path):
    """A derived structure that is written in a commit of its own is missing after a kill between the two."""

    def write(db, workload, acknowledge):
        real = writetx.ColumnWriter.forget
        writetx.ColumnWriter.forget = lambda self, rows: 0 if workload.number % 7 == 6 else real(self, rows)
        steps(db, workload, acknowledge)

    assert caught_by_kills(tmp_path, write) is not None


# --- checksums --------------------------------------------------------------------------------------------


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.vecdb"
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("wide", dim=256, metric="cosine")
        docs.upsert(list(range(600)), {"wide": ROWS}, metadata=[{"n": n, "even": n % 2 == 0} for n in range(600)])
        db.tag("before")
        db.optimize()
    return path


def flips(image, count=40):
    chance = random.Random(0)
    block = image.index(b"VBLK")
    return [
        (f"bit {place}", flip_bit(place)) for place in (8 * (block + chance.randrange(600_000)) for _ in range(count))
    ]


def test_no_checksum_of_blocks(sound, tmp_path, monkeypatch):
    expected, image = answers(sound, ask_first=True), sound.read_bytes()
    assert probe_all(image, expected, flips(image), tmp_path)[1] == []
    monkeypatch.setattr(spaces, "verify_chunks", lambda block, indices: None)
    ends, bad = probe_all(image, expected, flips(image), tmp_path)
    assert ends["silently wrong"] > 10 and bad


def test_no_checksum_of_sealed_values(sound, tmp_path, monkeypatch):
    expected, image = answers(sound, ask_first=True), sound.read_bytes()
    place = image.index(b"\xa4even")  # in a record or its column
    damages = [(f"bit {bit}", flip_bit(bit)) for bit in range(8 * (place + 1), 8 * (place + 7), 3)]
    assert probe_all(image, expected, damages, tmp_path)[1] == []
    for module in (formats, history, records, spaces, state, writetx):
        if hasattr(module, "unseal"):
            monkeypatch.setattr(module, "unseal", lambda key, value, what: memoryview(value)[8:])
    assert probe_all(image, expected, damages, tmp_path)[1]


# --- caches -----------------------------------------------------------------------------------------------


def rewritten_under_a_reader(path):
    """A handle that has read the old blocks searches after they were repacked; return (found, expected)."""
    with vecdb.open(path, retention=0.0, automatic=False) as db:
        docs = db.collection("docs")
        docs.search(ROWS[3], k=1)
        docs.delete(list(range(0, 600, 2)))
        docs.search(ROWS[3], k=1)
        db.untag("before")
        docs.set_metadata([1], [{"n": 1}])  # moves the horizon
        db.optimize()
        for turn in range(1, 9):  # the space of the old blocks is used again
            docs.upsert([f"{turn} {row}" for row in range(600)], {"wide": ROWS[::-1] + 40 * turn}, trust=True)
        return [docs.search(ROWS[number], k=1).ids[0] for number in range(1, 600, 2)], list(range(1, 600, 2))


def test_an_epoch_that_is_not_bumped(sound, monkeypatch):
    """Views made before a repacking name blocks that are gone: an error or a wrong answer, but never the right one."""
    real = writetx.WriteTx.settle

    def settle(self, pending, space, **rules):
        before = pending.spaces[space.id].epoch
        useful = real(self, pending, space, **rules)
        pending.spaces[space.id] = writetx.replace(pending.spaces[space.id], epoch=before)
        return useful

    monkeypatch.setattr(writetx.WriteTx, "settle", settle)
    try:
        with np.errstate(all="ignore"):  # whatever lies there now may be no numbers
            found, expected = rewritten_under_a_reader(sound)
    except vecdb.StorageError:
        return
    assert found != expected


def test_the_epoch_is_bumped(sound):
    found, expected = rewritten_under_a_reader(sound)
    assert found == expected


def test_a_map_whose_change_of_size_goes_unnoticed(tmp_path, monkeypatch):
    """Views of the old map: the process dies, or reads other data. This bug was found by the test of small maps."""
    path = tmp_path / "grown.vecdb"

    def scenario():
        with vecdb.open(path, map_size=1 << 20) as db:
            docs = db.create_collection("docs")
            docs.add_space("s", dim=256, metric="l2")
            for turn in range(12):
                ids = list(range(turn * 600, turn * 600 + 600))
                docs.upsert(ids, {"s": ROWS + turn}, trust=True)
                if docs.search(ROWS[3] + turn, k=1).ids != [turn * 600 + 3]:
                    return "wrong answer"
        return "right"

    assert call_in_child(scenario) == "right"
    path.unlink()
    monkeypatch.setattr(Environment, "opened", property(lambda env: 1, lambda env, value: None), raising=False)
    with contextlib.suppress(StateError):  # it died
        assert call_in_child(scenario) != "right"
