"""Compiled canonical scores equal the numpy ones bit for bit, whatever is scored and however it is cut up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.oracle import DTYPES, METRICS, cut, hard_rows, same_bits
from vecdb import scan_numpy
from vecdb.blocks import VectorBlocks
from vecdb.errors import CorruptionError
from vecdb.kernels import canonical


def compiled(metric, query, rows, blocks=None):
    no_scales = [np.zeros(len(rows), dtype=np.float32)]  # canonical scores use the components alone
    blocks = blocks or VectorBlocks.from_parts(metric, rows.shape[1], [rows], no_scales)
    return canonical.canonical_at(metric, query, blocks, np.arange(len(rows)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [*range(1, 41), 384, 385, 1280])
def test_bits_equal_numpy(metric, dtype, d):
    rng = np.random.default_rng(d)
    rows, queries = hard_rows(rng, 30, d, dtype), hard_rows(rng, 3, d)
    for query in queries:
        assert compiled(metric, query, rows).tobytes() == scan_numpy.canonical_scores(metric, query, rows).tobytes()


@given(
    metric=st.sampled_from(METRICS),
    components=st.lists(
        st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)] * 2),
        min_size=1,
        max_size=40,
    ),
)
def test_bits_equal_numpy_for_any_two_vectors(metric, components):
    """Whole float32 range: far beyond what the door lets in, denormals included."""
    query, row = np.array(components, dtype=np.float32).T
    rows = np.ascontiguousarray(row[None])
    query = np.ascontiguousarray(query)
    assert compiled(metric, query, rows).tobytes() == scan_numpy.canonical_scores(metric, query, rows).tobytes()


@given(seed=st.integers(0, 2**32 - 1), metric=st.sampled_from(METRICS), dtype=st.sampled_from(DTYPES))
def test_scores_do_not_depend_on_blocks_or_order(seed, metric, dtype):
    rng = np.random.default_rng(seed)
    rows = hard_rows(rng, 60, 21, dtype)
    query = hard_rows(rng, 2, 21)[0]
    blocks = cut(metric, rows, rng)
    whole = compiled(metric, query, rows, blocks)
    order = rng.permutation(60)
    assert canonical.canonical_at(metric, query, blocks, order).tobytes() == whole[order].tobytes()


@pytest.mark.parametrize("metric", METRICS)
def test_zeros_carry_no_sign_and_zero_norms_score_zero(metric):
    rows = np.array([[-0.0, -1.0], [1.0, -0.0], [0.0, 0.0]], dtype=np.float32)
    scores = compiled(metric, np.array([1.0, 0.0], dtype=np.float32), rows)
    assert not np.signbit(scores[scores == 0.0]).any()
    if metric == "cosine":
        assert scores.tolist() == [0.0, 1.0, 0.0]


def test_top_k_equals_numpy_and_refuses_damage():
    rng = np.random.default_rng(0)
    rows = hard_rows(rng, 200, 30)
    blocks = cut("cosine", rows, rng)
    positions = rng.permutation(200)[:90]
    for k in (1, 10, 500):
        query = hard_rows(rng, 2, 30)[0]
        ours = canonical.top_k("cosine", query, blocks, positions, k)
        assert same_bits(ours, scan_numpy.top_k("cosine", query, blocks, positions, k))
    with pytest.raises(CorruptionError):
        canonical.top_k("cosine", rows[0], blocks, [200], 1)
    assert canonical.top_k("cosine", rows[0], blocks, [], 1)[0].size == 0


def test_block_of_finds_every_position_past_empty_blocks():
    heights = [3, 0, 0, 1, 5, 0]
    parts = [np.ones((height, 2), dtype=np.float32) for height in heights]
    table = VectorBlocks.from_parts("dot", 2, parts).scan_table
    expected = [block for block, height in enumerate(heights) for _ in range(height)]
    assert [canonical.block_of(table, position) for position in range(9)] == expected
