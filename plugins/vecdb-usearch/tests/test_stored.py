"""What USearch is given to load: never a number that leads outside of its memory."""

import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usearch.index import Index as Bare
from vecdb_usearch import UsearchType, layout
from vecdb_usearch.hnsw import HEAD, MAGIC

from vecdb.contracts import settle_params
from vecdb.errors import CorruptionError, ParameterError, PluginLoadError
from vecdb.testing.memory import MemoryBlobs, MemoryView

TYPE = UsearchType()
PARAMS = settle_params("usearch.hnsw", TYPE.parameters, {"connectivity": 4, "expansion_add": 20})
ROWS = np.random.default_rng(5).standard_normal((120, 6)).astype(np.float32)


def built(metric="l2", rows=ROWS, **params):
    view = MemoryView(rows, metric)
    return view, TYPE.build(view, PARAMS | params, seed=3, progress=lambda *_: None, cancel=lambda: False)


def dumped(index):
    blobs = MemoryBlobs()
    index.dump(blobs)
    return blobs


VIEW, INDEX = built()
SOUND = dumped(INDEX).contents()["index"]
PARTS = layout.parse(np.frombuffer(SOUND, np.uint8), "index")
NODES = len(SOUND) - len(PARTS.nodes)
TALL = int(np.flatnonzero(PARTS.levels > 0)[0])
UPPER = NODES + int(PARTS.offsets[TALL]) + 10 + 4 + 4 * PARTS.links_base
GRAPH = NODES - 2 * PARTS.count - 40


def load_with(raw, params=PARAMS, view=VIEW):
    """Load bytes with a head that fits them."""
    return TYPE.load(MemoryBlobs.of({"head": HEAD.pack(MAGIC, len(raw), zlib.crc32(raw)), "index": raw}), view, params)


def put(at, data):
    raw = bytearray(SOUND)
    raw[at : at + len(data)] = data
    return bytes(raw)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
def test_what_was_stored_answers_as_before(metric, dtype):
    if dtype == "i8" and metric != "cosine":
        with pytest.raises(ParameterError, match="directions only"):
            built(metric, dtype=dtype)
        return
    view, index = built(metric, dtype=dtype)
    again = TYPE.load(dumped(index), view, PARAMS | {"dtype": dtype})
    for k, effort in ((1, None), (10, None), (10, 500), (200, None)):
        first = index.search(ROWS, k, allowed=None, effort=effort, view=view)
        second = again.search(ROWS, k, allowed=None, effort=effort, view=view)
        assert np.array_equal(first.positions, second.positions) and np.array_equal(first.scores, second.scores)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        SOUND[:7],
        SOUND[:-1],
        SOUND + b"\0",
        put(0, struct.pack("<I", 2**32 - 1)),
        put(4, struct.pack("<I", 2**32 - 1)),
        put(8 + 120 * 24, b"another"),
        put(8 + 120 * 24 + 13, b"c"),  # another metric
        put(GRAPH, struct.pack("<Q", 2**63)),
        put(GRAPH + 8, struct.pack("<Q", 5)),
        put(GRAPH + 16, struct.pack("<Q", 3)),
        put(GRAPH + 24, struct.pack("<Q", 9)),
        put(GRAPH + 32, struct.pack("<Q", 120)),
        put(NODES - 240, struct.pack("<h", -1)),
        put(NODES, struct.pack("<Q", 120)),  # a key that is no position
        put(NODES, struct.pack("<Q", 1)),  # a key twice
        put(NODES + 8, struct.pack("<h", 7)),  # a level that is not the listed one
        put(NODES + 10, struct.pack("<I", 9)),
        put(NODES + 14, struct.pack("<I", 120)),
        put(UPPER, struct.pack("<II", 1, 120)),
        put(UPPER, struct.pack("<II", 1, int(np.flatnonzero(PARTS.levels == 0)[0]))),
        put(UPPER, struct.pack("<I", 5)),
    ],
)
def test_a_number_that_does_not_fit_is_refused(raw):
    with pytest.raises(CorruptionError):
        load_with(raw)


def test_an_index_of_other_parameters_is_refused():
    for params in ({"connectivity": 5}, {"dtype": "f16"}):
        with pytest.raises(CorruptionError):
            load_with(SOUND, PARAMS | params)
    with pytest.raises(CorruptionError):
        load_with(SOUND, view=MemoryView(ROWS, "dot"))


def test_bytes_without_their_checksum_are_refused():
    with pytest.raises(CorruptionError, match="does not fit"):
        TYPE.load(dumped(INDEX).forged("index", put(20, bytes([SOUND[20] ^ 1]))), VIEW, PARAMS)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31), st.binary(min_size=1, max_size=8))
def test_forged_bytes_are_refused_or_harmless(at, data):
    """Whatever passes can be searched without a crash: links lead to nodes, whatever the vectors are."""
    try:
        index = load_with(put(at % (len(SOUND) - len(data)), data))
    except CorruptionError:
        return
    found = index.search(ROWS[:5], 10, allowed=None, effort=200, view=VIEW)
    assert found.positions.max() < len(ROWS)


def test_removed_vectors_stay_removed_and_the_graph_grows_after_loading():
    _, index = built("cosine")
    index.remove(np.array([0, 5, 5, 119]))
    index.remove(np.array([5]))
    view = MemoryView(np.concatenate([ROWS, ROWS[::-1]]), "cosine")
    again = TYPE.load(dumped(index), MemoryView(ROWS, "cosine"), PARAMS)
    assert again.stats()["vectors"] == index.stats()["vectors"] == 117
    steps = []
    again.add(view, len(ROWS), progress=lambda done, total: steps.append((done, total)), cancel=lambda: False)
    assert steps[-1] == (120, 120)
    for index in (again, TYPE.load(dumped(again), view, PARAMS)):
        found = index.search(ROWS, 300, allowed=None, effort=None, view=view).positions
        assert not np.isin(found, [0, 5, 119]).any() and (found == 239).any()


def test_all_removed_gives_nothing():
    _, index = built()
    index.remove(np.arange(120))
    assert index.search(ROWS[:2], 5, allowed=None, effort=None, view=VIEW).positions.shape == (2, 0)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(PluginLoadError, match="cannot be imported") as caught:
        built()
    assert "pip install" in caught.value.hint and caught.value.distribution == "vecdb-usearch"


@pytest.mark.parametrize(("metric", "kind"), [("cosine", "cos"), ("dot", "ip"), ("l2", "l2sq")])
def test_answers_are_those_of_the_bare_library(metric, kind):
    view, index = built(metric)
    bare = Bare(ndim=6, metric=kind, dtype="f32", connectivity=4, expansion_add=20, expansion_search=64)
    bare.add(np.arange(120, dtype=np.uint64), ROWS, threads=1)
    keys = bare.search(ROWS, 10, threads=1).keys.astype(np.int64)
    found = index.search(ROWS, 10, allowed=None, effort=None, view=view)
    assert np.array_equal(np.sort(found.positions, axis=1), np.sort(keys, axis=1))
