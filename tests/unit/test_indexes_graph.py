"""The graph as an index: layouts that answer alike, filters, what is stored and forged, the measured effort."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from tests.indextypes import NONE
from vecdb.engine import indexed
from vecdb.errors import CorruptionError
from vecdb.indexes import codes, graph_walk
from vecdb.indexes import graph as graphs
from vecdb.indexes.graph import GraphType
from vecdb.indexes.graph_gauge import default_effort
from vecdb.indexes.graph_layout import link_rows
from vecdb.kernels import loader
from vecdb.testing.memory import MemoryBlobs, MemoryView

METRICS = ("cosine", "dot", "l2")
TYPE = GraphType()


@pytest.fixture(scope="module", autouse=True)
def kernels():
    vecdb.warmup()
    assert loader.ready() or not loader.enabled()


@pytest.fixture(params=["walks", "lists"])
def restricted(request, monkeypatch):
    """What is done where not all rows are allowed: a walk, as among many, or a look at each code, as among few."""
    monkeypatch.setattr(graph_walk, "_FEW", 0 if request.param == "walks" else 1 << 40)
    return request.param


def vectors(count=1_200, dim=24, seed=0):
    """Points near a curved surface of six dimensions, the same for every seed."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(7).standard_normal((6, dim))
    return np.tanh(rng.standard_normal((count, 6)) @ shape + 0.2).astype(np.float32)


def build(rows, metric="l2", layout="compact", degree=32, seed=0, **options):
    view = MemoryView(rows, metric=metric, **options)
    index = TYPE.build(
        view, {"degree": degree, "layout": layout}, seed=seed, progress=lambda done, total: None, cancel=lambda: False
    )
    return view, index


def stored(index):
    blobs = MemoryBlobs()
    index.dump(blobs)
    return blobs


def ask(index, view, queries, k=10, allowed=None, effort=None):
    return index.search(queries, k, allowed=allowed, effort=effort, view=view)


def truth(rows, queries, metric, k=10, allowed=None):
    rows, queries = rows.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        scores = -((queries[:, None] - rows[None]) ** 2).sum(axis=2)
    else:
        scores = queries @ rows.T / (np.linalg.norm(rows, axis=1) if metric == "cosine" else 1)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def recall(found, wanted):
    hits = [len(set(one.tolist()) & set(other.tolist())) for one, other in zip(found, wanted, strict=True)]
    return sum(hits) / wanted.size


@pytest.mark.parametrize("metric", METRICS)
def test_both_layouts_and_what_was_loaded_answer_alike(metric, restricted):
    rows, queries = vectors(), vectors(40, seed=5)
    answers = []
    for layout in ("compact", "fast"):
        view, index = build(rows, metric, layout)
        again = TYPE.load(stored(index), view, {})
        allowed = np.random.default_rng(1).random(len(rows)) < 0.3
        for mask in (None, allowed):
            found = ask(index, view, queries, allowed=mask)
            for one, other in zip(found, ask(again, view, queries, allowed=mask), strict=True):
                assert np.array_equal(one, other)
            answers.append(found.positions)
        assert again.effort_curve().recalls.tolist() == index.effort_curve().recalls.tolist()
        assert dict(again.stats()) == dict(index.stats())
    assert np.array_equal(answers[0], answers[2]) and np.array_equal(answers[1], answers[3])
    assert recall(answers[0], truth(rows, queries, metric)) > 0.95
    assert recall(answers[1], truth(rows, queries, metric, allowed=allowed)) > 0.95


def test_the_rows_of_the_fast_layout_are_made_while_they_are_stored():
    rows = vectors(700, 40)
    view, index = build(rows, "cosine", "fast")
    assert index.layout == "fast" and index.graph.layout == "compact"
    loaded = TYPE.load(stored(index), view, {})
    assert loaded.layout == loaded.graph.layout == "fast" and loaded.wanted is None
    neighbours, records = index.graph.links.array().view("<i4"), index.graph.records.array()
    wanted = link_rows(neighbours, records, index.graph.book.width, "fast")
    assert np.array_equal(loaded.graph.links.array(), wanted)
    assert index.stats()["index_bytes"] == records.nbytes + wanted.nbytes == loaded.stats()["index_bytes"]
    assert stored(loaded).contents() == stored(index).contents()
    assert loaded.problems(view) == index.problems(view) == []


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_a_filter_that_chooses_a_far_cluster_is_answered(share, restricted):
    rng = np.random.default_rng(0)
    rows = vectors(2_000)
    far = rows[:, 0] < np.quantile(rows[:, 0], share)
    queries = rows[~far][rng.choice((~far).sum(), 30)] + np.float32(0.01)
    view, index = build(rows)
    found = ask(index, view, queries, allowed=far, effort=100)
    assert (found.positions >= 0).all() and far[found.positions].all()
    assert recall(found.positions, truth(rows, queries, "l2", allowed=far)) > 0.9


def test_few_allowed_rows_are_all_found_or_the_answer_is_short(restricted):
    rows = vectors(900)
    view, index = build(rows)
    for count in (0, 1, 3):
        allowed = np.zeros(900, np.bool_)
        allowed[np.random.default_rng(count).choice(900, count, replace=False)] = True
        found = ask(index, view, vectors(5, seed=2), allowed=allowed)
        assert all(set(row[row >= 0].tolist()) == set(np.flatnonzero(allowed).tolist()) for row in found.positions)


def test_of_few_allowed_rows_those_that_look_nearest_are_computed_and_no_others(monkeypatch):
    rows, queries = vectors(900), vectors(12, seed=4)
    view, index = build(rows)
    allowed = np.random.default_rng(1).random(900) < 0.4
    assert (
        recall(
            ask(index, view, queries, allowed=allowed, effort=900).positions, truth(rows, queries, "l2", 10, allowed)
        )
        == 1.0
    )
    few, more = (ask(index, view, queries, allowed=allowed, effort=effort).positions for effort in (10, 60))
    wanted = truth(rows, queries, "l2", allowed=allowed)
    assert 0.3 < recall(few, wanted) < recall(more, wanted) and recall(more, wanted) > 0.95


@pytest.mark.parametrize("small", [0, graph_walk._SMALL])
def test_what_is_read_of_few_allowed_rows_is_proved_whether_all_of_it_is_or_not(monkeypatch, small):
    monkeypatch.setattr(graph_walk, "_SMALL", small)
    rows, queries = vectors(600), vectors(3, seed=4)
    allowed = np.arange(600) % 5 == 0
    view, index = build(rows)
    wanted = ask(index, view, queries, allowed=allowed)
    proved = []
    monkeypatch.setattr(view, "verify", lambda positions: proved.append(np.array(positions)), raising=False)
    for _ in range(2):
        found = ask(TYPE.load(stored(index), view, {}), view, queries, allowed=allowed)
        assert np.array_equal(found.positions, wanted.positions)
    if small:
        assert not proved
    else:
        assert all(allowed[each].all() for each in proved) and set(found.positions.ravel()) <= set(proved[-1])


def test_gone_rows_are_bridges_and_never_read(restricted):
    rows = vectors()
    _, index = build(rows)
    gone = np.random.default_rng(3).random(len(rows)) < 0.4
    view = MemoryView(rows, metric="l2", removed=np.flatnonzero(gone), spoil=True)
    queries = vectors(30, seed=8)
    found = ask(TYPE.load(stored(index), view, {}), view, queries, allowed=~gone, effort=64)
    assert recall(found.positions, truth(rows, queries, "l2", allowed=~gone)) > 0.95


def test_k_and_effort_may_be_anything():
    rows = vectors(60)
    view, index = build(rows)
    for k, effort in ((1, 1), (60, 1), (200, None), (3, 10_000)):
        found = ask(index, view, rows[:4], k=k, effort=effort)
        assert found.positions.shape == (4, min(k, 60))
        assert (found.positions >= 0).all()


def test_the_curve_was_measured_on_rows_left_out_and_decides_the_effort():
    _, index = build(vectors(3_000, 48))
    curve = index.effort_curve()
    assert curve.queries == 300 and curve.k == 10
    assert (np.diff(curve.efforts) > 0).all() and curve.recalls[-1] > curve.recalls[0]
    assert index.stats()["effort"] == default_effort(curve)
    assert build(vectors(9))[1].effort_curve() is None


def test_every_row_can_be_reached_and_a_lost_one_is_told():
    view, index = build(vectors(500))
    assert index.problems(view) == []
    links = index.graph.links.array()
    lost = np.where(links.view("<i4") == 77, -1, links.view("<i4")).astype("<i4").view(np.uint8)
    from dataclasses import replace

    from vecdb.contracts.rows import MappedRows

    broken = graphs.GraphIndex(replace(index.graph, links=MappedRows.of(lost), entries=np.array([0], np.int32)))
    assert "77" in broken.problems(view)[0]


def test_segments_are_encoded_and_scanned():
    rows = vectors(700)
    _, index = build(rows[:400])
    view = MemoryView(rows[400:], metric="l2")
    blobs = MemoryBlobs()
    index.encode_segment(view, blobs)
    part = TYPE.load(blobs, view, {})
    queries = vectors(20, seed=4)
    assert recall(ask(part, view, queries, effort=100).positions, truth(rows[400:], queries, "l2")) > 0.95
    assert part.effort_curve() is None and part.problems(view) == []
    again = MemoryBlobs()
    part.dump(again)
    assert again.names() == blobs.names()


@pytest.mark.parametrize("layout", ["compact", "fast"])
def test_hostile_blobs_are_refused_or_answer_soundly(layout, restricted):
    """Bytes changed anywhere, lengths kept or not: an error of ours, or positions that exist and are allowed."""
    rows, queries = vectors(300, 16), vectors(6, 16, seed=1)
    view, index = build(rows, layout=layout)
    kept = stored(index)
    allowed = np.arange(300) % 3 > 0
    refused = answered = 0
    for seed in range(150):
        blobs = forged(kept, seed)
        try:
            loaded = TYPE.load(blobs, view, {})
            for mask in (None, allowed):
                found = ask(loaded, view, queries, allowed=mask, effort=1 + seed % 60)
                sound(found, 300, mask)
        except CorruptionError:
            refused += 1
        else:
            answered += 1
    assert refused > 10 and answered > 10


def forged(kept, seed):
    rng = np.random.default_rng(seed)
    names = list(kept.names())
    target = names[seed % len(names)]
    blobs = MemoryBlobs()
    for name in names:
        data = bytearray(kept.read(name))
        if name == target and data:
            for place in rng.integers(0, len(data), 1 + int(rng.integers(0, 60))):
                data[place] = int(rng.integers(0, 256))
            if rng.random() < 0.1:
                data = data[: int(rng.integers(0, len(data)))]
        if name in ("records", "links"):
            width = len(kept.read(name)) // 300
            blobs.write_rows(
                name, np.frombuffer(bytes(data[: len(data) // width * width]), np.uint8).reshape(-1, width)
            )
        else:
            blobs.write(name, bytes(data))
    return blobs


def sound(found, count, mask):
    positions, scores = found
    assert ((positions >= -1) & (positions < count)).all()
    assert np.isfinite(scores[positions >= 0]).all()
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    for row in positions:
        real = row[row >= 0]
        assert len(set(real.tolist())) == len(real)
        assert mask is None or mask[real].all()


@pytest.mark.parametrize("layout", ["compact", "fast"])
def test_a_collection_answers_through_a_graph_and_grows(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(indexed, "SCAN_BELOW", 0)
    rows, queries = vectors(4_500, 32), vectors(20, 32, seed=9)
    with vecdb.open(tmp_path / "a.vecdb", plugins=NONE) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=32, metric="cosine")
        docs.upsert(list(range(3_000)), vectors={"s": rows[:3_000]}, metadata=[{"n": n} for n in range(3_000)])
        docs.create_index("s", "graph", layout=layout)
        docs.upsert(
            list(range(3_000, 4_500)), vectors={"s": rows[3_000:]}, metadata=[{"n": n} for n in range(3_000, 4_500)]
        )
        docs.delete(list(range(0, 3_000, 7)))
        for where in (None, {"n": {"$lt": 900}}, {"n": {"$gte": 2_900}}):
            hits = docs.search(queries, k=10, where=where, explain=True)
            exact = docs.search(queries, k=10, where=where, exact=True)
            shared = sum(len(set(one) & set(other)) for one, other in zip(hits.ids, exact.ids, strict=True))
            assert shared >= 0.93 * 200, where
        assert db.check().ok
    with vecdb.open(tmp_path / "a.vecdb", plugins=NONE) as db:
        docs = db.collection("docs")
        assert docs.search(queries, k=10).ids == docs.search(queries, k=10).ids
        assert docs.indexes[0].kind == "graph"


@pytest.mark.parametrize("width", [64, 80, 384, 1_024, 1_104, 2_048, 4_096])
@pytest.mark.parametrize(
    ("cells", "degree", "k", "effort", "met"), [(1, 32, 1, 1, 0), (64, 128, 10, 500, 9), (3, 64, 333, 2_047, 70_001)]
)
def test_the_scratch_of_a_walk_holds_all_that_is_laid_out_in_it(width, cells, degree, k, effort, met):
    """It has no bounds of its own: a byte too few is somebody else's memory."""
    from vecdb.kernels import graph_search
    from vecdb.kernels._asked import LINE, lay_out

    room = 8 * graph_search.scratch_words(width, cells, degree, k, effort, met)
    for start in range(4_096, 4_096 + LINE, 8):
        desk = lay_out(start + -start % LINE, width, width - 3, cells)
        laid = graph_search.lay_walk(desk.raised + LINE * desk.words, degree, k, effort)
        end = laid[-1] + (met // 8 + 1 if met else 0)
        assert start + room >= end > start + room - 16 * LINE


# --- bits of a code ---


def test_vectors_of_few_coordinates_are_coded_with_more_bits():
    assert [codes.wide_width(dim) for dim in (8, 96, 256, 300, 384)] == [256, 256, 256, 304, 384]
    assert codes.may_be_width(96, 96) and codes.may_be_width(96, 256)
    assert not codes.may_be_width(96, 128) and not codes.may_be_width(384, 256) and not codes.may_be_width(96, 0)


@pytest.mark.parametrize("layout", ["compact", "fast"])
def test_graphs_of_narrower_codes_are_still_read(tmp_path, monkeypatch, layout):
    """What was stored with one bit a coordinate answers, grows and is checked as before."""
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(900, 24)).astype(np.float32)
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=24)
        docs.upsert(list(range(900)), {"m": vectors}, trust=True)
        with monkeypatch.context() as patched:
            patched.setattr(codes, "_WIDE", 0)
            assert docs.create_index("m", "graph", layout=layout).stats["bits"] == 64
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as db:
        docs = db.collection("docs")
        assert docs.indexes[0].available and docs.indexes[0].stats["bits"] == 64
        docs.upsert(list(range(900, 1_500)), {"m": rng.normal(size=(600, 24))}, trust=True)
        docs.optimize()
        for query in vectors[:20]:
            assert docs.search(query, effort=2_000).ids == docs.search(query, exact=True).ids
        assert db.check().ok
        docs.drop_index("m", "graph")
        assert docs.create_index("m", "graph", layout=layout).stats["bits"] == 256
