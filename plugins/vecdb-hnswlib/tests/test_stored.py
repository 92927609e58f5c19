"""What hnswlib is given to load: never a number that leads outside of its memory."""

import struct
import sys
import zlib

import hnswlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vecdb_hnswlib import HnswType
from vecdb_hnswlib.stored import HEAD

from vecdb.contracts import settle_params
from vecdb.errors import CorruptionError, PluginLoadError
from vecdb.testing.memory import MemoryBlobs, MemoryView

TYPE = HnswType()
PARAMS = settle_params("hnswlib.hnsw", TYPE.parameters, {"M": 4, "ef_construction": 20})
ROWS = np.random.default_rng(5).standard_normal((120, 6)).astype(np.float32)
ROW = 4 + 8 * 4 + 4 * 6 + 8


def built(metric="l2"):
    view = MemoryView(ROWS, metric)
    return view, TYPE.build(view, PARAMS, seed=3, progress=lambda *_: None, cancel=lambda: False)


def dumped(index):
    blobs = MemoryBlobs()
    index.dump(blobs)
    return blobs


VIEW, INDEX = built()
SOUND = dumped(INDEX).contents()


def load_with(**changed):
    """Load blobs of which some are replaced, with checksums that fit them."""
    contents = {**SOUND, **changed}
    if "head" not in changed:
        fields = list(HEAD.unpack(contents["head"]))
        fields[-3:] = [zlib.crc32(contents[name]) for name in ("nodes", "levels", "links")]
        contents["head"] = HEAD.pack(*fields)
    return TYPE.load(MemoryBlobs.of(contents), VIEW, PARAMS)


def put(name, at, data):
    raw = bytearray(SOUND[name])
    raw[at : at + len(data)] = data
    return {name: bytes(raw)}


def head_with(**fields):
    names = ("magic", "dim", "m", "efc", "count", "seed", "top", "entry", "nodes", "levels", "links")
    values = dict(zip(names, HEAD.unpack(SOUND["head"]), strict=True)) | fields
    return {"head": HEAD.pack(*values.values())}


def test_what_was_stored_answers_as_before():
    again = load_with()
    for k, effort in ((1, None), (10, None), (10, 500), (200, None)):
        first = INDEX.search(ROWS, k, allowed=None, effort=effort, view=VIEW)
        second = again.search(ROWS, k, allowed=None, effort=effort, view=VIEW)
        assert np.array_equal(first.positions, second.positions) and np.array_equal(first.scores, second.scores)


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        (put("nodes", 0, struct.pack("<H", 9)), "nodes"),  # more links than the lowest layer has room for
        (put("nodes", 4, struct.pack("<I", 120)), "nodes"),  # a link to a node that is not there
        (put("nodes", 7 * ROW + 4, struct.pack("<I", 2**32 - 1)), "nodes"),
        (put("nodes", 2, b"\x02"), "nodes"),
        (put("nodes", ROW - 8, struct.pack("<Q", 1)), "nodes"),  # two nodes with one label
        (put("levels", 0, struct.pack("<i", -1)), "levels"),
        (put("levels", 0, struct.pack("<i", 2**31 - 1)), "levels"),
        (put("links", 0, struct.pack("<I", 5)), "links"),
        (put("links", 0, struct.pack("<II", 1, 120)), "links"),
        ({"nodes": SOUND["nodes"][:-1]}, "nodes"),
        ({"links": SOUND["links"] + b"\0" * 20}, "links"),
        ({"levels": SOUND["levels"][:-4]}, "levels"),
        ({"head": b""}, "head"),
        (head_with(magic=b"vhnsw\0\0\2"), "head"),
        (head_with(dim=7), "head"),
        (head_with(count=119), "head"),
        (head_with(m=5), "head"),
        (head_with(entry=120), "head"),
        (head_with(top=9), "levels"),
        (head_with(nodes=1), "nodes"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(changed, where):
    with pytest.raises(CorruptionError) as caught:
        load_with(**changed)
    assert caught.value.where == where


def test_an_upper_link_to_a_node_of_the_lowest_layer_only_is_refused():
    levels = np.frombuffer(SOUND["levels"], "<i4")
    low = int(np.flatnonzero(levels == 0)[0])
    with pytest.raises(CorruptionError, match="not in that layer"):
        load_with(**put("links", 0, struct.pack("<II", 1, low)))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["nodes", "levels", "links"]), st.integers(0, 2**31), st.binary(min_size=1, max_size=8))
def test_forged_bytes_are_refused_or_harmless(name, at, data):
    """Whatever passes can be searched and grown without a crash: links lead to nodes, whatever the vectors are."""
    at %= max(1, len(SOUND[name]) - len(data))
    try:
        index = load_with(**put(name, at, data))
    except CorruptionError:
        return
    found = index.search(np.nan_to_num(ROWS[:5]), 10, allowed=None, effort=200, view=VIEW)
    assert found.positions.max() < len(ROWS)


@settings(deadline=None)
@given(st.integers(0, HEAD.size - 1), st.integers(1, 255))
def test_any_change_of_the_head_is_refused(at, flip):
    raw = bytearray(SOUND["head"])
    raw[at] ^= flip
    try:
        index = load_with(head=bytes(raw))
    except CorruptionError:
        return
    changed = [a for a, b in zip(HEAD.unpack(bytes(raw)), HEAD.unpack(SOUND["head"]), strict=True) if a != b]
    assert len(changed) == 1 and HEAD.unpack(bytes(raw))[5] == changed[0], "only the seed may differ: any will do"
    assert index.stats()["vectors"] == len(ROWS)


def test_removed_vectors_stay_removed_and_the_graph_grows_after_loading():
    _, index = built("cosine")
    index.remove(np.array([0, 5, 5, 119]))
    index.remove(np.array([5]))
    more = np.concatenate([ROWS, ROWS[::-1]])
    view = MemoryView(more, "cosine")
    again = TYPE.load(dumped(index), MemoryView(ROWS, "cosine"), PARAMS)
    assert again.stats()["removed"] == index.stats()["removed"] == 3
    steps = []
    again.add(view, len(ROWS), progress=lambda done, total: steps.append((done, total)), cancel=lambda: False)
    assert steps[-1] == (120, 120)
    found = again.search(more, 300, allowed=None, effort=None, view=view).positions
    assert not np.isin(found, [0, 5, 119]).any() and (found == 239).any()


def test_many_equal_vectors_give_fewer_candidates_and_no_error():
    rows = np.ones((400, 6), np.float32)
    view = MemoryView(rows, "l2")
    index = TYPE.build(view, PARAMS, seed=0, progress=lambda *_: None, cancel=lambda: False)
    for queries in (rows[:1], rows[:3]):
        found = index.search(queries, 400, allowed=None, effort=None, view=view)
        there = found.positions >= 0
        assert there.sum(axis=1).min() >= 10  # what can be reached depends on the links
        assert (found.scores[~there] == -np.inf).all() and (found.scores[there] == 0).all()


def test_all_removed_gives_nothing():
    _, index = built()
    index.remove(np.arange(120))
    assert index.search(ROWS[:2], 5, allowed=None, effort=None, view=VIEW).positions.shape == (2, 0)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(PluginLoadError, match="cannot be imported") as caught:
        built()
    assert "pip install" in caught.value.hint and caught.value.distribution == "vecdb-hnswlib"


def test_effort_raises_recall_and_no_search_changes_the_shared_default():
    rng = np.random.default_rng(0)
    rows, queries = (rng.standard_normal((n, 24)).astype(np.float32) for n in (3_000, 40))
    view = MemoryView(rows, "l2")
    params = PARAMS | {"ef_search": 10}
    index = TYPE.build(view, params, seed=1, progress=lambda *_: None, cancel=lambda: False)
    truth = np.argsort(((queries[:, None] - rows) ** 2).sum(-1), axis=1)[:, :10]

    def recall(effort):
        found = index.search(queries, 10, allowed=None, effort=effort, view=view).positions
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])

    default = recall(None)
    assert recall(400) > default + 0.1
    assert recall(None) == default == recall(1)


@pytest.mark.parametrize(("metric", "space"), [("cosine", "cosine"), ("dot", "ip"), ("l2", "l2")])
def test_answers_are_those_of_the_bare_library(metric, space):
    _, index = built(metric)
    bare = hnswlib.Index(space, 6)
    bare.init_index(120, 4, 20, random_seed=3)
    bare.add_items(ROWS, num_threads=1)
    bare.set_ef(64)
    labels, _ = bare.knn_query(ROWS, 10, num_threads=1)
    found = index.search(ROWS, 10, allowed=None, effort=None, view=MemoryView(ROWS, metric))
    assert np.array_equal(np.sort(found.positions, axis=1), np.sort(labels.astype(np.int64), axis=1))
