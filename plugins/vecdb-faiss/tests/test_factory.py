"""Factory strings of Faiss as index types: each kind filters, keeps, grows and stops as the contract says."""

import sys

import faiss
import numpy as np
import pytest
from vecdb_faiss import FactoryType
from vecdb_faiss.library import one_thread

from vecdb.contracts import settle_params
from vecdb.errors import CancelledError, CorruptionError, ParameterError, PluginLoadError
from vecdb.testing.memory import MemoryBlobs, MemoryView

TYPE = FactoryType()
RNG = np.random.default_rng(5)
ROWS = RNG.standard_normal((700, 16)).astype(np.float32)
KINDS = [
    "Flat",
    "HNSW16,Flat",
    "IVF8,Flat",
    "IVF8,PQ4x4",
    "SQ8",
    "PCA8,Flat",
    "OPQ4,IVF8,PQ4x4fs,RFlat",
    "PQ4x4",
    "L2norm,Flat",
]
PLAIN = ["PQ4x4", "PQ4x4fs", "NSG8,Flat"]


def params_of(factory, **more):
    return settle_params("faiss.factory", TYPE.parameters, {"factory": factory, **more})


def built(factory, metric="l2", rows=ROWS, seed=3, cancel=lambda: False):
    view = MemoryView(rows, metric)
    return view, TYPE.build(view, params_of(factory), seed=seed, progress=lambda *_: None, cancel=cancel)


def dumped(index):
    blobs = MemoryBlobs()
    index.dump(blobs)
    return blobs


@pytest.mark.parametrize("factory", KINDS)
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_every_kind_filters_and_comes_back(factory, metric):
    view, index = built(factory, metric)
    again = TYPE.load(dumped(index), view, params_of(factory))
    for allowed in (None, RNG.random(700) < 0.3, np.arange(700) == 5, np.zeros(700, np.bool_)):
        for effort in (None, 700):
            first = index.search(ROWS[:9], 10, allowed=allowed, effort=effort, view=view)
            second = again.search(ROWS[:9], 10, allowed=allowed, effort=effort, view=view)
            assert np.array_equal(first.positions, second.positions) and np.array_equal(first.scores, second.scores)
            found = first.positions[first.positions >= 0]
            assert allowed is None or allowed[found].all()
            expected = 10 if allowed is None else min(10, int(allowed.sum()))
            assert effort is None or (first.positions >= 0).sum(axis=1).min() >= expected


@pytest.mark.parametrize("factory", PLAIN)
def test_kinds_without_selectors_are_asked_for_more(factory):
    view, index = built(factory, rows=ROWS)
    allowed = RNG.random(700) < 0.2
    found = index.search(ROWS[:9], 10, allowed=allowed, effort=50, view=view).positions
    assert allowed[found[found >= 0]].all() and (found >= 0).any()


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW16,Flat"])
def test_effort_of_everything_is_exact(factory):
    view, index = built(factory)
    truth = np.argsort(((ROWS[:20, None] - ROWS) ** 2).sum(-1), axis=1, kind="stable")[:, :10]
    found = index.search(ROWS[:20], 10, allowed=None, effort=700, view=view).positions
    assert np.mean(found == truth) > 0.99


def test_more_effort_means_more_recall_of_lists():
    view, index = built("IVF32,Flat")
    truth = np.argsort(((ROWS[:50, None] - ROWS) ** 2).sum(-1), axis=1)[:, :10]

    def recall(effort):
        found = index.search(ROWS[:50], 10, allowed=None, effort=effort, view=view).positions
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])

    assert recall(30) < recall(200) < recall(700) == 1.0


@pytest.mark.parametrize("factory", ["HNSW16,Flat", "IVF8,Flat", "OPQ4,IVF8,PQ4x4fs,RFlat"])
def test_the_same_seed_gives_the_same_bytes(factory):
    first, second = (dumped(built(factory, seed=9)[1]).contents() for _ in range(2))
    assert first == second


def test_it_grows():
    _, index = built("IVF8,Flat")
    more = np.concatenate([ROWS, RNG.standard_normal((1_500, 16)).astype(np.float32)])
    view, steps = MemoryView(more, "l2"), []
    index.add(view, 700, progress=lambda done, total: steps.append((done, total)), cancel=lambda: False)
    assert steps[-1] == (1_500, 1_500) and index.stats()["vectors"] == 2_200
    found = index.search(more[-5:], 1, allowed=None, effort=2_200, view=view).positions
    assert found[:, 0].tolist() == list(range(2_195, 2_200))
    with pytest.raises(CancelledError):
        index.add(MemoryView(np.concatenate([more, ROWS])), 2_200, progress=lambda *_: None, cancel=lambda: True)


@pytest.mark.parametrize(
    ("factory", "metric"), [("HNSW32,What", "l2"), ("IVF4096,Flat", "l2"), ("IDMap,Flat", "l2"), ("LSH", "dot")]
)
def test_what_faiss_refuses_is_said_with_its_reason(factory, metric):
    with pytest.raises(ParameterError, match="faiss cannot build") as caught:
        built(factory, metric)
    assert caught.value.got == factory and "reason given" not in str(caught.value)


def test_cancelling_stops_training_and_adding():
    for after in (0, 1, 2):
        asked = iter([False] * after + [True] * 9)
        with pytest.raises(CancelledError):
            built("IVF8,Flat", rows=np.tile(ROWS, (3, 1)), cancel=lambda asked=asked: next(asked))


@pytest.mark.parametrize("name", ["head", "index"])
def test_other_bytes_are_refused_before_faiss_sees_them(name):
    view, index = built("HNSW16,Flat")
    blobs = dumped(index)
    sound = blobs.contents()[name]
    for at in range(0, len(sound), max(1, len(sound) // 40)):
        changed = sound[:at] + bytes([sound[at] ^ 0x40]) + sound[at + 1 :]
        for data in (changed, sound[:at]):
            with pytest.raises(CorruptionError):
                TYPE.load(blobs.forged(name, data), view, params_of("HNSW16,Flat"))


def test_an_index_of_other_vectors_or_parameters_is_refused():
    _, index = built("Flat")
    for view, factory in (
        (MemoryView(ROWS[:-1], "l2"), "Flat"),
        (MemoryView(ROWS, "dot"), "Flat"),
        (MemoryView(ROWS[:, :8], "l2"), "Flat"),
        (MemoryView(ROWS, "l2"), "SQ8"),
    ):
        with pytest.raises(CorruptionError):
            TYPE.load(dumped(index), view, params_of(factory))


def test_threads_of_faiss_stay_as_they_were():
    before = faiss.omp_get_max_threads()
    with one_thread():
        assert faiss.omp_get_max_threads() == 1
    assert faiss.omp_get_max_threads() == before


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(PluginLoadError, match="cannot be imported") as caught:
        built("Flat")
    assert "pip install" in caught.value.hint and caught.value.distribution == "vecdb-faiss"
