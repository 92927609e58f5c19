"""The numpy path of exact search: canonical scores, the error bound, and nomination that loses no winner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.oracle import DTYPES, METRICS, brackets, cut, exact_keys, hard_rows, same_bits, true_top
from vecdb import scan_numpy
from vecdb.blocks import VectorBlocks
from vecdb.errors import CorruptionError
from vecdb.kernels import reference
from vecdb.kernels.bounds import plan_scan

seeds = st.integers(0, 2**32 - 1)


# --- canonical scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [*range(1, 41), 384, 1280, 1281])
def test_canonical_scores_add_up_one_product_after_the_other(metric, d):
    rng = np.random.default_rng(d)
    for dtype in DTYPES:
        rows = hard_rows(rng, 6, d, dtype)
        query = rng.standard_normal(d).astype(np.float32)
        expected = reference.canonical_rows(metric, query, rows)
        assert scan_numpy.canonical_scores(metric, query, rows).tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(1, 1_280), (1, 65_536), (3, 20_001), (2_000, 9), (700, 385)])
def test_canonical_sums_of_every_shape_of_array(shape):
    """numpy chooses its loops by shape; the order of additions must not follow."""
    rng = np.random.default_rng(1)
    products = rng.standard_normal((shape[0], -(-shape[1] // 8) * 8))
    lanes = np.zeros((shape[0], 8))
    for start in range(0, products.shape[1], 8):
        lanes = lanes + products[:, start : start + 8]
    expected = ((lanes[:, 0] + lanes[:, 4]) + (lanes[:, 2] + lanes[:, 6])) + (
        (lanes[:, 1] + lanes[:, 5]) + (lanes[:, 3] + lanes[:, 7])
    )
    assert scan_numpy._lane_sums(products).tobytes() == expected.tobytes()


@given(seed=seeds, metric=st.sampled_from(METRICS), d=st.integers(1, 70), dtype=st.sampled_from(DTYPES))
def test_a_score_does_not_depend_on_its_neighbours(seed, metric, d, dtype):
    rng = np.random.default_rng(seed)
    rows = hard_rows(rng, 12, d, dtype)
    query = hard_rows(rng, 2, d)[0]
    together = scan_numpy.canonical_scores(metric, query, rows)
    alone = np.concatenate([scan_numpy.canonical_scores(metric, query, rows[i : i + 1]) for i in range(12)])
    assert together.tobytes() == alone.tobytes()
    assert scan_numpy.canonical_scores(metric, query, rows[::-1]).tobytes() == together[::-1].tobytes()


def test_scores_of_long_lists_are_cut_into_chunks_without_a_trace(monkeypatch):
    rng = np.random.default_rng(5)
    rows, query = hard_rows(rng, 50, 9), rng.standard_normal(9).astype(np.float32)
    expected = scan_numpy.canonical_scores("cosine", query, rows)
    monkeypatch.setattr(scan_numpy, "_CANONICAL_ELEMENTS", 40)
    assert scan_numpy.canonical_scores("cosine", query, rows).tobytes() == expected.tobytes()


def test_scores_of_known_vectors():
    query = np.array([3.0, 4.0], dtype=np.float32)
    rows = np.array([[3, 4], [-3, -4], [4, -3], [6, 8]], dtype=np.float32)
    assert scan_numpy.canonical_scores("cosine", query, rows).tolist() == [1.0, -1.0, 0.0, 1.0]
    assert scan_numpy.canonical_scores("dot", query, rows).tolist() == [25.0, -25.0, 0.0, 50.0]
    assert scan_numpy.canonical_scores("l2", query, rows).tolist() == [0.0, -10.0, -(50.0**0.5), -5.0]


@pytest.mark.parametrize("metric", METRICS)
def test_zero_scores_carry_no_sign(metric):
    query = np.array([1.0, 0.0], dtype=np.float32)
    row = {"cosine": [[-0.0, -1.0]], "dot": [[-0.0, -1.0]], "l2": [[1.0, -0.0]]}[metric]
    score = scan_numpy.canonical_scores(metric, query, np.array(row, dtype=np.float32))
    assert score[0] == 0.0 and not np.signbit(score[0])


def test_cosine_stays_in_its_range_and_a_zero_norm_scores_zero():
    rng = np.random.default_rng(0)
    rows = hard_rows(rng, 300, 33)
    for row in rows[:40]:
        scores = scan_numpy.canonical_scores("cosine", row, rows)
        assert scores.min() >= -1.0 and scores.max() <= 1.0
    zero = np.zeros((1, 33), dtype=np.float32)
    assert scan_numpy.canonical_scores("cosine", rows[0], zero).tolist() == [0.0]


# --- the error bound --------------------------------------------------------------------------------------


@given(seed=seeds, metric=st.sampled_from(METRICS), d=st.integers(1, 65), dtype=st.sampled_from(DTYPES))
def test_every_exact_key_lies_between_its_bounds(seed, metric, d, dtype):
    rng = np.random.default_rng(seed)
    rows = hard_rows(rng, 20, d, dtype)
    query = hard_rows(rng, 4, d)[:1]
    blocks = cut(metric, rows, rng)
    plan = plan_scan(metric, query)
    pool = scan_numpy._Pool(blocks, query[0], len(rows))
    for tile in scan_numpy.tiles(blocks, plan.queries, None):
        scan_numpy._absorb(plan, tile, [pool])
    keys = exact_keys(plan.form, query[0], rows)
    assert sorted(pool.positions.tolist()) == list(range(20))
    for lower, upper, position in zip(pool.lower, pool.upper, pool.positions, strict=True):
        assert brackets(lower, keys[position], upper)


@pytest.mark.parametrize("metric", METRICS)
def test_the_bound_is_tight_enough_to_nominate_few_rows(metric):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((5_000, 384)).astype(np.float32)
    blocks = cut(metric, rows, rng)
    nomination = scan_numpy.nominate(blocks, rng.standard_normal((8, 384)).astype(np.float32), 10)
    assert max(len(found) for found in nomination.positions) <= 20


# --- nomination and the top k -----------------------------------------------------------------------------


@given(
    seed=seeds,
    metric=st.sampled_from(METRICS),
    d=st.integers(1, 40),
    n=st.integers(1, 300),
    k=st.sampled_from([1, 2, 10, 400]),
    q=st.sampled_from([1, 3]),
    share=st.sampled_from([None, 0.0, 0.05, 0.6, 1.0]),
    dtype=st.sampled_from(DTYPES),
)
def test_no_winner_is_lost(seed, metric, d, n, k, q, share, dtype):
    rng = np.random.default_rng(seed)
    rows = hard_rows(rng, n, d, dtype)
    queries = hard_rows(rng, 4, d)[:q]
    allowed = None if share is None else rng.random(n) < share
    blocks = cut(metric, rows, rng)
    nomination = scan_numpy.nominate(blocks, queries, k, allowed=allowed)
    assert nomination.complete
    for query, positions in zip(queries, nomination.positions, strict=True):
        assert (np.diff(positions) > 0).all()
        assert allowed is None or allowed[positions].all()
        found = scan_numpy.top_k(metric, query, blocks, positions, k)
        assert same_bits(found, true_top(metric, query, rows, k, allowed))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("q", [1, 3])
def test_thousands_of_duplicates_are_decided_by_position(metric, q, monkeypatch):
    """Equal scores everywhere: a bounded candidate list without proof loses the smallest positions."""
    monkeypatch.setattr(scan_numpy, "_SETTLE_ABOVE", 64)
    rng = np.random.default_rng(3)
    rows = np.repeat(rng.standard_normal((3, 16)).astype(np.float32), 2_000, axis=0)
    rows = rows[rng.permutation(len(rows))]
    blocks = cut(metric, rows, rng)
    queries = rows[:q] + np.float32(1e-3)
    nomination = scan_numpy.nominate(blocks, queries, 25)
    for query, positions in zip(queries, nomination.positions, strict=True):
        assert same_bits(scan_numpy.top_k(metric, query, blocks, positions, 25), true_top(metric, query, rows, 25))


def test_settling_bounds_the_candidates(monkeypatch):
    monkeypatch.setattr(scan_numpy, "_SETTLE_ABOVE", 32)
    monkeypatch.setattr(scan_numpy, "_MAX_TILE_ROWS", 256)
    rows = np.ones((4_000, 4), dtype=np.float32)
    blocks = VectorBlocks.from_parts("dot", 4, [rows])
    nomination = scan_numpy.nominate(blocks, rows[:1], 5)
    assert len(nomination.positions[0]) < 600 and nomination.positions[0][:5].tolist() == [0, 1, 2, 3, 4]


def test_a_collection_far_from_the_origin_is_still_answered_exactly():
    """|x|^2 - 2qx cancels there: the bound grows and everything is decided canonically."""
    rng = np.random.default_rng(8)
    rows = (1e6 + rng.standard_normal((20_000, 8))).astype(np.float32)
    blocks = cut("l2", rows, rng)
    query = rows[17:18] + np.float32(0.5)
    positions = scan_numpy.nominate(blocks, query, 5).positions[0]
    assert same_bits(scan_numpy.top_k("l2", query[0], blocks, positions, 5), true_top("l2", query[0], rows, 5))


def test_cosine_rows_too_short_for_their_scale_are_kept():
    """1/|x| is infinite in float32 there, so no bound can be computed and none is claimed."""
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((400, 8)).astype(np.float32)
    query = rng.standard_normal((1, 8)).astype(np.float32)
    rows[::3] = (query * 1e-44).astype(np.float32)
    blocks = cut("cosine", rows, rng)
    assert any(np.isinf(scale).any() for scale in blocks.scales)
    positions = scan_numpy.nominate(blocks, query, 3).positions[0]
    assert same_bits(scan_numpy.top_k("cosine", query[0], blocks, positions, 3), true_top("cosine", query[0], rows, 3))


def test_a_block_larger_than_a_tile_and_many_small_ones_give_the_same(monkeypatch):
    monkeypatch.setattr(scan_numpy, "_MAX_TILE_ROWS", 256)
    rng = np.random.default_rng(6)
    rows, queries = hard_rows(rng, 3_000, 12), rng.standard_normal((5, 12)).astype(np.float32)
    one = VectorBlocks.from_parts("cosine", 12, [rows])
    many = VectorBlocks.from_parts("cosine", 12, [rows[i : i + 7].copy() for i in range(0, 3_000, 7)])
    for blocks in (one, many):
        for query, positions in zip(queries, scan_numpy.nominate(blocks, queries, 9).positions, strict=True):
            found = scan_numpy.top_k("cosine", query, blocks, positions, 9)
            assert same_bits(found, true_top("cosine", query, rows, 9))


def test_more_queries_than_a_group_and_an_empty_space():
    rng = np.random.default_rng(7)
    rows, queries = hard_rows(rng, 40, 5), rng.standard_normal((300, 5)).astype(np.float32)
    blocks = VectorBlocks.from_parts("dot", 5, [rows])
    nomination = scan_numpy.nominate(blocks, queries, 2)
    assert len(nomination.positions) == 300 and nomination.rows_scanned == 300 * 40
    empty = VectorBlocks.from_parts("dot", 5, [])
    nothing = scan_numpy.nominate(empty, queries, 2)
    assert nothing.complete and [len(found) for found in nothing.positions] == [0] * 300


def test_stop_is_asked_and_obeyed(monkeypatch):
    monkeypatch.setattr(scan_numpy, "_MAX_TILE_ROWS", 256)
    rows = np.eye(2_000, 4, dtype=np.float32)
    blocks = VectorBlocks.from_parts("dot", 4, [rows])
    asked = []
    nomination = scan_numpy.nominate(blocks, rows[:300], 3, stop=lambda: asked.append(1) or len(asked) > 2)
    assert not nomination.complete and len(asked) == 3 and len(nomination.positions) == 300
    assert nomination.rows_scanned == 2 * 256 * 256
    assert scan_numpy.nominate(blocks, rows[:1], 3, stop=lambda: False).complete


def test_top_k_orders_and_refuses_positions_from_a_damaged_index():
    blocks = VectorBlocks.from_parts("dot", 1, [np.array([[1], [3], [3], [2]], dtype=np.float32)])
    query = np.ones(1, dtype=np.float32)
    positions, scores = scan_numpy.top_k("dot", query, blocks, [3, 2, 0, 1], 3)
    assert positions.tolist() == [1, 2, 3] and scores.tolist() == [3.0, 3.0, 2.0]
    assert scan_numpy.top_k("dot", query, blocks, [], 3)[0].size == 0
    for bad in ([4], [-1], [0, 2**40]):
        with pytest.raises(CorruptionError):
            scan_numpy.top_k("dot", query, blocks, bad, 1)


@given(seed=seeds, k=st.integers(1, 30))
def test_best_first_equals_sorting(seed, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 3, size=200).astype(np.float32) * np.float32(-0.0 if rng.random() < 0.1 else 1.0)
    positions = rng.permutation(1_000)[:200]
    order = sorted(range(200), key=lambda i: (-scores[i], positions[i]))[:k]
    found, best = scan_numpy.best_first(positions, scores, k)
    assert found.tolist() == positions[order].tolist()
    assert not np.signbit(best[best == 0]).any()


# --- tiles --------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32 - 1),
    heights=st.lists(st.integers(0, 900), max_size=9),
    q=st.integers(1, 5),
    by_row=st.booleans(),
    share=st.sampled_from([None, 0.0, 0.02, 0.9]),
)
def test_tiles_cover_every_allowed_row_once(seed, heights, q, by_row, share):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-4, 5, (sum(heights), 3)).astype(np.float32)
    blocks = VectorBlocks.from_parts("dot", 3, np.split(rows, np.cumsum(heights)[:-1]) if heights else [])
    queries = rng.integers(-4, 5, (q, 3)).astype(np.float32)
    allowed = None if share is None else rng.random(len(rows)) < share
    seen = []
    for tile in scan_numpy.tiles(blocks, queries, allowed, by_row=by_row):
        products = tile.products if by_row else tile.products.T
        assert products.shape == (len(tile.positions), q) and len(tile.positions)
        assert np.array_equal(products, rows[tile.positions] @ queries.T)  # small integers: exact in any order
        assert np.array_equal(tile.scales, blocks.gather_scales(tile.positions))
        seen += tile.positions[slice(None) if tile.excluded is None else ~tile.excluded].tolist()
    assert seen == (list(range(len(rows))) if allowed is None else np.flatnonzero(allowed).tolist())


def test_tiles_end_with_blocks_where_one_ends_within_reach():
    """A product with the few rows of a cut block costs more than its share."""
    heights = [675] * 10 + [20_000, 675]
    blocks = VectorBlocks.from_parts("dot", 2, [np.ones((height, 2), np.float32) for height in heights])
    queries = np.ones((128, 2), np.float32)
    starts = [int(tile.positions[0]) for tile in scan_numpy.tiles(blocks, queries, None)]
    assert starts == [0, 6750, 14_942, 23_134] and scan_numpy._MAX_TILE_ROWS == 8192
