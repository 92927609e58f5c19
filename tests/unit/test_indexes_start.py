"""The first search of a process through an index: who waits for the kernels, for how long, and how little is read."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import vecdb
from vecdb.indexes import start
from vecdb.kernels import loader


class View:
    def __init__(self, count, dim):
        self.count, self.dim = count, dim


@pytest.fixture
def young(monkeypatch):
    """A process whose kernels are on their way, until `arrive` is called."""
    fresh = loader._Loader()
    fresh.thread = threading.current_thread()
    monkeypatch.setattr(loader, "_loader", fresh)
    monkeypatch.setattr(loader, "request", lambda: None)
    monkeypatch.delenv("VECDB_KERNELS", raising=False)
    return fresh


def arrive(fresh):
    fresh.ready = True
    fresh.finished.set()


def test_a_small_view_does_not_wait(young, monkeypatch):
    monkeypatch.setattr(loader, "wait_briefly", lambda: pytest.fail("it waited"))
    assert not start.compiled(View(36_000, 384))
    arrive(young)
    assert start.compiled(View(36_000, 384))


def test_a_small_view_does_not_ask_for_them(monkeypatch):
    """A process ends when its loader does: one question of a small store must not start it."""
    monkeypatch.setattr(loader, "_loader", loader._Loader())
    monkeypatch.setattr(loader, "request", lambda: pytest.fail("it asked"))
    assert not start.compiled(View(36_000, 384))


def test_a_large_view_waits_until_they_are_there(young):
    timer = threading.Timer(0.05, arrive, [young])
    timer.start()
    assert start.compiled(View(1_000_000, 384))
    timer.join()


def test_all_waiting_of_a_process_together_is_bounded(young, monkeypatch):
    waited = []
    monkeypatch.setattr(young.finished, "wait", lambda seconds: waited.append(seconds))
    now = iter([10.0, 11.5, 20.0, 20.6, 30.0, 30.0])
    monkeypatch.setattr(loader.time, "monotonic", lambda: next(now))
    assert not start.compiled(View(1_000_000, 384))
    assert not start.compiled(View(1_000_000, 384))
    assert not start.compiled(View(1_000_000, 384))
    assert waited == [2.0, pytest.approx(0.5)]  # the third does not wait at all


def test_kernels_that_are_switched_off_are_not_waited_for(young, monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")
    arrive(young)
    assert not start.compiled(View(1_000_000, 384))


FIRST_QUERY = """
import sys, numpy as np, vecdb
from vecdb.indexes import graph_walk, start
from vecdb.kernels import loader
start._LARGE, graph_walk._SMALL = 0, 0
loader._loader.patience = 60.0  # on a machine that is busy with other things
with vecdb.open(sys.argv[1], mode="r") as db:
    docs = db.collection("docs")
    hits = docs.search(np.load(sys.argv[2]), k=5, include=())
    with db._read() as snapshot:
        view = snapshot.space(docs._number, docs._entry().spaces["s"])
        print(len(hits), len(view.cache.sound), sum(map(len, view.cache.sound_chunks.values())), len(view))
"""


@pytest.mark.parametrize("kind", ["graph", "rabitq", "ivf"])
def test_the_first_query_of_a_process_reads_little_of_the_vectors(tmp_path, kind):
    """Chunks of 16 KB that were compared with their checksums are what was read of 20,000 vectors in 320 chunks."""
    vecdb.warmup()
    rng = np.random.default_rng(1)
    rows = np.repeat(8 * rng.standard_normal((200, 64), np.float32), 100, axis=0)  # neighbours lie beside each other
    rows += rng.standard_normal(rows.shape, np.float32)
    np.save(tmp_path / "query.npy", rows[77])
    path = tmp_path / "large.vecdb"
    with vecdb.open(path, automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=64, metric="l2")
        docs.upsert(range(len(rows)), {"s": rows}, trust=True)
        docs.optimize()
        docs.create_index("s", kind)
    done = subprocess.run(
        [sys.executable, "-c", FIRST_QUERY, path, tmp_path / "query.npy"], capture_output=True, text=True, check=True
    )
    found, whole_blocks, chunks, count = map(int, done.stdout.split())
    assert (found, whole_blocks, count) == (5, 0, 20_000)
    assert chunks < 100
