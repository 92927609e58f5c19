"""Codes of several bits: where each coordinate's code is, what is refused, and what they spare."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.errors import CorruptionError, ParameterError
from vecdb.indexes import IvfType, RabitqType, codes, fine
from vecdb.indexes.effort import CodeGauge, kept_of
from vecdb.kernels import loader
from vecdb.testing import datasets
from vecdb.testing.memory import MemoryBlobs, MemoryView

TYPES = {"rabitq": (RabitqType(), {}), "ivf": (IvfType(), {"lists": 0})}
METRICS = ("cosine", "dot", "l2")


@pytest.fixture(scope="module", autouse=True)
def kernels():
    vecdb.warmup()
    assert loader.ready() or not loader.enabled()


def build(kind, rows, metric="dot", bits=4, seed=0):
    index_type, others = TYPES[kind]
    view = MemoryView(rows, metric=metric)
    given = {**others, "bits": bits}
    return view, index_type.build(view, given, seed=seed, progress=lambda *_: None, cancel=lambda: False)


def decoded(rows, width, bits):
    """The codes in rows, one coordinate at a time, as the documentation says where they are."""
    size = width * bits // 8
    found = np.empty((len(rows), width), np.uint8)
    for place in range(width):
        turn, byte = divmod(place, size)
        found[:, place] = (rows[:, byte] >> (bits * turn)) & ((1 << bits) - 1)
    return found


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 9),
    dim=st.integers(1, 100),
    bits=st.sampled_from([2, 4, 8]),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 9),
)
def test_a_row_holds_codes_slope_offset_and_cell(count, dim, bits, metric, seed):
    rows = datasets.gaussian(count, dim, seed)
    book = codes.make_book(metric, rows, count, seed)
    made = codes.sketch(book, rows)
    stored = fine.fine_rows(book, made, bits)
    size = book.width * bits // 8
    assert stored.shape == (count, size + 16) and not stored[:, -4:].any()
    levels = fine.levels(made.turned, bits)
    assert np.array_equal(decoded(stored, book.width, bits), levels)
    tail = np.ascontiguousarray(stored[:, size:])
    slopes, offsets = tail[:, :8].copy().view("<f4").T
    assert np.array_equal(slopes, fine.fine_slopes(book, made.turned, fine.points(levels, bits)))
    assert np.array_equal(offsets, made.factors[0])
    assert np.array_equal(tail[:, 8:12].copy().view("<i4").reshape(-1), made.cells)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_highest_bit_is_the_sign_and_codes_rise_with_coordinates(bits):
    turned = np.sort(np.random.default_rng(0).standard_normal((5, 160)).astype(np.float32), axis=1)
    levels = fine.levels(turned, bits)
    assert np.array_equal(levels >> (bits - 1) == 1, turned >= 0)
    assert (np.diff(levels.astype(int), axis=1) >= 0).all()
    assert levels.min() >= 0 and levels.max() < 1 << bits
    rounded = fine.points(levels, bits)
    assert np.array_equal(np.unique(rounded % 2), [1.0]) and np.abs(rounded).max() <= (1 << bits) - 1


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-30, 1e-10, 1.0, 1e15])
def test_lengths_of_every_size_have_codes_and_finite_slopes(bits, scale):
    turned = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32) * np.float32(scale)
    book = codes.CodeBook("l2", np.zeros(64, "f"), np.zeros((1, 64), "f"), np.ones((4, 64), "f"))
    slopes = fine.fine_slopes(book, turned, fine.points(fine.levels(turned, bits), bits))
    assert np.isfinite(slopes).all() and (slopes >= 0).all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_finer_codes_order_what_was_found_better_and_leave_less_to_score(kind, metric, bits):
    rows, queries = datasets.gaussian(2_000, 48, 1), datasets.gaussian(30, 48, 2)
    true = datasets.oracle_scores(metric, queries, rows)
    truth = [set(datasets.best(each, 10).tolist()) for each in true]
    view, plain = build(kind, rows, metric, bits=1)
    _, index = build(kind, rows, metric, bits=bits)
    coarse = plain.search(queries, 10, allowed=None, effort=200, view=view)
    found = index.search(queries, 10, allowed=None, effort=200, view=view)
    assert found.positions.shape[1] == kept_of(index.kept, 10, 200) < 200 == coarse.positions.shape[1]
    width = found.positions.shape[1]
    shared = [
        sum(len(one & set(row.tolist())) for one, row in zip(truth, positions, strict=True))
        for positions in (coarse.positions, found.positions, coarse.positions[:, :width])
    ]
    assert shared[0] - shared[1] <= 6 and shared[1] > shared[2]
    assert index.stats()["bits"] == bits and index.stats()["rescored"] < plain.stats()["rescored"]


@pytest.mark.parametrize("kind", TYPES)
def test_more_bits_need_fewer_exact_scores(kind):
    rows = datasets.gaussian(2_000, 48, 3)
    kept = [build(kind, rows, bits=bits)[1].kept for bits in (2, 4, 8)]
    assert kept[0] > kept[1] >= kept[2] >= 10


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_what_was_dumped_answers_alike_and_so_does_a_segment(kind, bits):
    rows = datasets.clustered(300, 30, 6)
    view, index = build(kind, rows, "l2", bits)
    blobs, second, third = MemoryBlobs(), MemoryBlobs(), MemoryBlobs()
    index.dump(blobs)
    again = TYPES[kind][0].load(blobs, view, {})
    allowed = np.arange(300) % 3 == 0
    for mask in (None, allowed):
        one, other = (each.search(rows[:5], 7, allowed=mask, effort=None, view=view) for each in (index, again))
        assert np.array_equal(one.positions, other.positions) and np.array_equal(one.scores, other.scores)
        assert (one.positions[:, 0] >= 0).all()
    again.dump(second)
    assert blobs.contents() == second.contents()
    part = MemoryView(rows[:70] + np.float32(0.01), metric="l2")
    index.encode_segment(part, third)
    sealed = TYPES[kind][0].load(third, part, {})
    assert sealed.coded.bits == bits and sealed.kept == index.kept
    found = sealed.search(rows[:9], 3, allowed=None, effort=None, view=part)
    assert all(place in row for place, row in enumerate(found.positions.tolist()))


@pytest.mark.parametrize("bits", [2, 8])
def test_the_curve_of_lists_with_finer_codes_is_that_of_their_searches(bits):
    rows, queries = np.split(datasets.low_dimensional(3_060, 24, 1), [3_000])
    view, index = build("ivf", rows, "l2", bits)
    truth = [set(datasets.best(each, 10).tolist()) for each in datasets.oracle_scores("l2", queries, rows)]
    curve = index.effort_curve()
    for effort, bound in zip(curve.efforts.tolist(), curve.lower_bounds().tolist(), strict=True):
        found = index.search(queries, 10, allowed=None, effort=effort, view=view).positions
        shared = [len(one & set(row.tolist())) / 10 for one, row in zip(truth, found, strict=True)]
        assert np.mean(shared) >= bound - 0.08


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 9, 10, 33])
def test_very_few_vectors_are_all_found(kind, bits, count):
    """Fewer than ten leave nothing out to be asked."""
    view, index = build(kind, datasets.gaussian(count, 3, 1), "l2", bits)
    found = index.search(np.ones((2, 3), np.float32), 50, allowed=None, effort=None, view=view)
    assert [sorted(row.tolist()) for row in found.positions] == [list(range(count))] * 2


def stored(kind):
    view, index = build(kind, datasets.gaussian(200, 20, 4))
    blobs = MemoryBlobs()
    index.dump(blobs)
    return view, index, blobs


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("place", "value"),
    [(8, np.int32(-1)), (8, np.int32(1 << 20)), (0, np.float32("nan")), (4, np.float32("inf"))],
)
def test_a_row_that_nothing_here_wrote_is_refused_before_it_is_followed(kind, place, value):
    view, index, blobs = stored(kind)
    rows = index.coded.fine.rows.array().copy()
    start = rows.shape[1] - 16 + place
    rows[7, start : start + 4] = np.frombuffer(value.tobytes(), np.uint8)
    forged = TYPES[kind][0].load(blobs.forged("fine", rows.tobytes()), view, {})
    with pytest.raises(CorruptionError):
        forged.search(np.ones((1, 20), np.float32), 5, allowed=None, effort=None, view=view)


@pytest.mark.parametrize("kind", TYPES)
def test_damage_of_fine_codes_is_found_before_an_answer(kind):
    view, _, blobs = stored(kind)
    for bad in (blobs.damaged("fine"), blobs.forged("fine", None), blobs.forged("fine", b"12")):
        with pytest.raises(CorruptionError):
            TYPES[kind][0].load(bad, view, {}).search(
                np.ones((1, 20), np.float32), 5, allowed=None, effort=None, view=view
            )


@pytest.mark.parametrize("kind", TYPES)
def test_numbers_of_bits_that_do_not_exist_are_refused(kind, tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", plugins=vecdb.PluginRegistry(entry_points=False)) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=4)
        for bits in (0, 3, 16):
            with pytest.raises(ParameterError):
                docs.create_index("s", kind, bits=bits)


@pytest.mark.parametrize("kind", TYPES)
def test_an_index_of_fine_codes_in_a_database_finds_what_a_scan_does(kind, tmp_path):
    rows, queries = datasets.clustered(4_000, 64, 8), datasets.clustered(20, 64, 9)
    with vecdb.open(tmp_path / "a.vecdb", plugins=vecdb.PluginRegistry(entry_points=False)) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=64, metric="l2")
        docs.upsert(list(range(4_000)), vectors={"s": rows})
        assert docs.create_index("s", kind, bits=4).stats["bits"] == 4
    with vecdb.open(tmp_path / "a.vecdb", plugins=vecdb.PluginRegistry(entry_points=False)) as db:
        docs = db.collection("docs")
        hits, exact = docs.search(queries, k=10, explain=True), docs.search(queries, k=10, exact=True)
        shared = sum(len(set(one) & set(other)) for one, other in zip(hits.ids, exact.ids, strict=True))
        assert shared >= 0.95 * 200 and hits.plan["index"] == kind
        assert db.check().ok


@given(kept=st.integers(0, 100), k=st.integers(1, 500), most=st.integers(1, 3_000))
def test_what_is_kept_holds_the_answer_and_grows_with_k_and_with_effort(kept, k, most):
    found = kept_of(kept, k, most)
    assert min(k, most) <= found <= most
    assert found <= kept_of(kept, k + 1, most) and found <= kept_of(kept, k, most + 8)


def test_a_gauge_of_fine_codes_keeps_at_least_the_neighbours_themselves():
    rows = datasets.gaussian(500, 30, 5)
    book, places = codes.make_book("l2", rows, 500, 0), np.array([3, 99, 250])
    for bits, least in ((1, 10), (8, 10)):
        gauge = CodeGauge(book, rows[places], places, bits)
        for start in range(0, 500, 200):
            part = rows[start : start + 200]
            gauge.see(start, part, codes.sketch(book, part))
        assert gauge.kept() >= least and gauge.effort() >= 48
        assert bits == 1 or gauge.kept() <= 13
