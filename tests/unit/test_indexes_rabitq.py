"""1-bit codes: the estimator, what is stored, the measured effort, and answers through a database."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.errors import CancelledError, CorruptionError
from vecdb.indexes import codes
from vecdb.indexes.rabitq import RabitqType
from vecdb.kernels import loader
from vecdb.testing.memory import MemoryBlobs, MemoryView

METRICS = ("cosine", "dot", "l2")


@pytest.fixture(scope="module", autouse=True)
def kernels():
    vecdb.warmup()
    assert loader.ready() or not loader.enabled()


def vectors(count=600, dim=40, seed=0, centre=0.0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, dim)) + centre).astype(np.float32)


def build(rows, metric="dot", seed=0, bits=1):
    view = MemoryView(rows, metric=metric)
    told = []
    index = RabitqType().build(
        view, {"bits": bits}, seed=seed, progress=lambda done, total: told.append((done, total)), cancel=lambda: False
    )
    assert told[-1] == (len(rows), len(rows))
    return view, index


def true_scores(rows, query, metric):
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return -np.linalg.norm(rows - query, axis=1)
    scores = rows @ query
    return scores / np.linalg.norm(rows, axis=1) if metric == "cosine" else scores


@pytest.mark.parametrize("dim", [1, 3, 64, 65, 384, 1_536])
def test_the_rotation_keeps_products(dim):
    rows = vectors(9, dim)
    book = codes.make_book("dot", rows, 9, 0)
    turned = codes.rotated(book, rows)
    assert turned.shape == (9, codes.code_width(dim)) and codes.code_width(dim) % 16 == 0
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dim", [17, 64, 100, 384, 1_024, 1_025])
def test_many_rows_are_rotated_as_few_are(dim):
    rows = vectors(2 * codes.code_width(dim), dim)
    book = codes.make_book("dot", rows[:100], 100, 0)
    few = np.concatenate([codes.rotated(book, rows[place : place + 64]) for place in range(0, len(rows), 64)])
    np.testing.assert_allclose(codes.rotated(book, rows), few, rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 100), groups=st.integers(1, 8), seed=st.integers(0, 9))
def test_packed_signs_are_found_where_the_layout_says(count, groups, seed):
    signs = np.random.default_rng(seed).random((count, 4 * groups)) < 0.5
    packed = codes.pack_signs(signs).reshape(-1, groups, 16)
    for row in range(count):
        block, place = divmod(row, 32)
        nibbles = packed[block, :, place % 16] >> (4 if place >= 16 else 0) & 15
        assert [int(nibble) >> bit & 1 for nibble in nibbles for bit in range(4)] == signs[row].astype(int).tolist()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("centre", [0.0, 3.0])
def test_estimates_have_the_error_that_the_paper_promises(metric, centre):
    """Theorem 3.2: about sqrt(pi / 2 - 1) |r| |q| / sqrt(D); three times that bounds nearly all of 18,000."""
    rows, queries = vectors(600, 128, 1, centre), vectors(30, 128, 2, centre)
    if metric == "cosine":
        rows, queries = codes.unit_rows(rows), codes.unit_rows(queries)
    book = codes.make_book(metric, rows, len(rows), 0)
    made, signs = codes.encode(book, rows)
    asked = codes.prepare_queries(book, queries)
    turned = codes.rotated_queries(book, asked.turned)
    sums = turned @ (2 * signs.astype(np.float32) - 1).T
    found = asked.bases[:, made.cells] + asked.bends[:, None] * made.factors[0] + made.factors[1] * sums
    exact = queries.astype(np.float64) @ rows.T
    if metric == "l2":
        exact = 2 * exact - np.einsum("ij,ij->i", rows, rows) + 0.0
        found = found + 0.0
    lengths = np.linalg.norm(rows - book.centres[made.cells], axis=1)
    scale = np.linalg.norm(turned, axis=1)[:, None] * lengths / np.sqrt(book.width) * (2 if metric == "l2" else 1)
    errors = (found - exact) / np.maximum(scale, 1e-9)
    spread = np.sqrt(np.pi / 2 - 1)
    assert abs(errors.mean()) < 0.1
    assert errors.std() < 1.2 * spread
    assert (np.abs(errors) < 3 * spread).mean() > 0.99


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [8, 100])
def test_with_every_row_nominated_the_answer_is_exact(metric, dim):
    rows = vectors(300, dim, 3)
    view, index = build(rows, metric)
    query = vectors(1, dim, 4)
    found = index.search(query, 10, allowed=None, effort=300, view=view)
    assert sorted(found.positions[0].tolist()) == list(range(300))
    order = np.argsort(-true_scores(rows, query[0], metric), kind="stable")
    correlation = np.corrcoef(np.argsort(found.positions[0]), np.argsort(order))[0, 1]
    assert correlation > 0.8


def test_allowed_rows_alone_are_nominated_and_all_of_them_if_few():
    rows = vectors(500)
    view, index = build(rows)
    allowed = np.zeros(500, np.bool_)
    allowed[[3, 77, 499]] = True
    found = index.search(vectors(2, seed=9), 10, allowed=allowed, effort=None, view=view)
    assert [sorted(row[:3].tolist()) for row in found.positions] == [[3, 77, 499]] * 2
    assert (found.positions[:, 3:] == -1).all() and (found.scores[:, 3:] == -np.inf).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    rows = vectors()
    blobs = []
    for seed in (5, 5, 6):
        kept = MemoryBlobs()
        build(rows, seed=seed)[1].dump(kept)
        blobs.append({name: kept.read(name) for name in kept.names()})
    assert blobs[0] == blobs[1] != blobs[2]


@pytest.mark.parametrize("metric", METRICS)
def test_what_was_dumped_answers_alike(metric):
    rows = vectors(200, 30, 6)
    view, index = build(rows, metric)
    blobs = MemoryBlobs()
    index.dump(blobs)
    again = RabitqType().load(blobs, view, {})
    queries = vectors(5, 30, 7)
    for one, other in zip(
        index.search(queries, 7, allowed=None, effort=None, view=view),
        again.search(queries, 7, allowed=None, effort=None, view=view),
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert again.effort == index.effort


def test_codes_of_another_number_or_width_are_refused():
    view, index = build(vectors(100, 20))
    blobs = MemoryBlobs()
    index.dump(blobs)
    for other in (MemoryView(vectors(99, 20), metric="dot"), MemoryView(vectors(100, 21), metric="dot")):
        with pytest.raises(CorruptionError):
            RabitqType().load(blobs, other, {})
    assert RabitqType().load(blobs, view, {}).coded.count == 100


def test_a_cancelled_build_stops():
    with pytest.raises(CancelledError):
        RabitqType().build(
            MemoryView(vectors(50), metric="dot"), {}, seed=0, progress=lambda done, total: None, cancel=lambda: True
        )


def test_vectors_of_few_real_dimensions_need_less_effort_than_noise():
    rng = np.random.default_rng(0)
    flat = np.tanh(rng.standard_normal((3_000, 8)) @ rng.standard_normal((8, 256))).astype(np.float32)
    assert build(flat)[1].effort < build(vectors(3_000, 64))[1].effort


def test_a_new_collection_can_be_indexed_and_sealed_vectors_get_codes_in_their_commit(tmp_path):
    rows = vectors(9_000, 64, 8)
    queries = vectors(20, 64, 9)
    with vecdb.open(tmp_path / "a.vecdb", plugins=vecdb.PluginRegistry(entry_points=False)) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=64, metric="cosine")
        docs.upsert(list(range(3_000)), vectors={"s": rows[:3_000]})
        made = docs.create_index("s", "rabitq")
        assert made.coverage == 1.0 and made.parts == 1
        docs.upsert(list(range(3_000, 9_000)), vectors={"s": rows[3_000:]})
        grown = docs.indexes[0]
        assert grown.parts == 2 and grown.coverage > 0.5
        hits = docs.search(queries, k=10, explain=True)
        exact = docs.search(queries, k=10, exact=True)
        shared = sum(len(set(one) & set(other)) for one, other in zip(hits.ids, exact.ids, strict=True))
        assert shared >= 0.9 * 200
        assert hits.plan["index"] == "rabitq" and hits.plan["nominated"] < 20 * 9_000
        best = {id: score for one in exact for id, score in zip(one.ids, one.scores.tolist(), strict=True)}
        assert all(
            best.get(id, score) == score for one in hits for id, score in zip(one.ids, one.scores.tolist(), strict=True)
        )
        assert db.check().ok
