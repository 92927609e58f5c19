"""Rows of int8 are searched as the float32 rows that they stand for: the same positions, the same bits, every path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.oracle import METRICS, brackets, cut, exact_keys, hard_rows, same_bits, true_top
from vecdb import exact, scan_numpy
from vecdb.blocks import KINDS, VectorBlocks
from vecdb.errors import DTypeError
from vecdb.int8rows import dequantise, quantise
from vecdb.kernels import nominate
from vecdb.kernels.bounds import FORM_CODES, plan_scan
from vecdb.kernels.exact_scan import INT8, STRIP, scan_blocks

seeds = st.integers(0, 2**32 - 1)


def codes(metric, rng, n, d):
    """Return blocks of int8 rows, and the float32 rows that they stand for."""
    rows = hard_rows(rng, n, d)
    if metric == "cosine":  # what rounds to nothing is refused at the door
        rows = rows * np.float32(1e30) if np.abs(rows).max() < 1e-25 else rows
    stored = quantise(rows)
    plain = dequantise(stored, d)
    cuts = np.sort(rng.integers(0, n + 1, size=int(rng.integers(0, 6))))
    parts = [np.ascontiguousarray(part) for part in np.split(stored, cuts)]
    for part in parts:
        part.setflags(write=False)
    return VectorBlocks.from_parts(metric, d, parts), plain


@given(
    seed=seeds,
    metric=st.sampled_from(METRICS),
    d=st.integers(1, 70),
    n=st.integers(1, 300),
    k=st.sampled_from([1, 3, 10, 500]),
    q=st.sampled_from([1, 2, 3, 9]),
    share=st.sampled_from([None, 0.0, 0.05, 0.6]),
    path=st.sampled_from(["numpy", "numba"]),
)
def test_answers_are_those_of_the_rows_that_are_meant(seed, metric, d, n, k, q, share, path):
    rng = np.random.default_rng(seed)
    blocks, plain = codes(metric, rng, n, d)
    queries = np.concatenate([hard_rows(rng, 4, d), plain[:1] + np.float32(0), plain[:1] * np.float32(1.01)])[:q]
    queries = np.concatenate([queries] * 9)[:q]
    allowed = None if share is None else rng.random(n) < share
    found, _ = exact.search(blocks, queries, k, allowed=allowed, path=path)
    for query, answer in zip(queries, found, strict=True):
        assert same_bits(answer, true_top(metric, query, plain, k, allowed))


@pytest.mark.parametrize("metric", METRICS)
def test_a_row_finds_itself(metric):
    """At distance 0 the bounds leave no room at all: the rows of the scan must be those of the canonical routine."""
    rng = np.random.default_rng(4)
    stored = quantise(rng.standard_normal((3000, 384)).astype(np.float32))
    stored[1::3] = stored[::3]
    blocks, plain = VectorBlocks.from_parts(metric, 384, np.split(stored, 6)), dequantise(stored, 384)
    for place in range(0, 3000, 151):
        for path in ("numpy", "numba"):
            [answer], _ = exact.search(blocks, plain[place : place + 1], 3, path=path)
            assert same_bits(answer, true_top(metric, plain[place], plain, 3))


@given(seed=seeds, metric=st.sampled_from(METRICS), d=st.integers(1, 65))
def test_every_exact_key_lies_between_its_bounds(seed, metric, d):
    rng = np.random.default_rng(seed)
    blocks, plain = codes(metric, rng, 20, d)
    query = hard_rows(rng, 4, d)[:1] if seed % 2 else plain[:1].copy()
    plan = plan_scan(metric, query, direct=True)
    bounds, positions = np.empty((3, 1100), np.float32), np.empty(1100, np.int64)
    state, floor = np.array([0, 104, 0]), np.full(1, -np.inf, np.float32)
    head = (FORM_CODES[plan.form] + INT8, plan.queries[0], blocks.any_table, np.empty(0, bool), 20, plan.errors[0], 20)
    assert scan_blocks(*head, bounds, positions, state, floor, np.empty(STRIP + 2 * d, np.float32)) == 0
    keys = exact_keys(plan.form, query[0], plain)
    assert sorted(positions[: state[0]].tolist()) == list(range(20))
    for place in range(20):
        assert brackets(bounds[0, place], keys[positions[place]], bounds[1, place])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [*range(1, 20), 384, 1536])
def test_canonical_scores_have_the_same_bits(metric, d):
    rng = np.random.default_rng(d)
    blocks, plain = codes(metric, rng, 40, d)
    query = hard_rows(rng, 4, d)[0]
    positions = rng.permutation(40)
    for path in ("numpy", "numba"):
        answer = exact.rescore(blocks, query, positions, 40, path=path)
        assert same_bits(answer, true_top(metric, query, plain, 40))
    whole = scan_numpy.canonical_scores(metric, query, blocks.gather(np.arange(40)))
    assert whole.tobytes() == scan_numpy.canonical_scores(metric, query, plain).tobytes()


@settings(max_examples=20)
@given(seed=seeds, metric=st.sampled_from(METRICS), q=st.sampled_from([1, 5]))
def test_crowds_of_ties_are_settled(seed, metric, q):
    rng = np.random.default_rng(seed)
    stored = quantise(np.repeat(rng.standard_normal((3, 16)).astype(np.float32), 3000, axis=0)[rng.permutation(9000)])
    blocks, plain = VectorBlocks.from_parts(metric, 16, np.split(stored, 9)), dequantise(stored, 16)
    queries = plain[:q] + np.float32(1e-3)
    answer = nominate.best(blocks, queries, 25)
    for query, found in zip(queries, answer.found, strict=True):
        assert same_bits(found, true_top(metric, query, plain, 25))


def test_scales_are_those_of_the_rows_that_are_meant():
    rng = np.random.default_rng(1)
    blocks, plain = codes("l2", rng, 50, 9)
    twin = cut("l2", plain, rng)
    assert np.concatenate(blocks.scales).tobytes() == np.concatenate(twin.scales).tobytes()
    assert blocks.kind == KINDS.index(np.dtype(np.int8)) and blocks.row_bytes == 16 + 4
    assert not blocks.half and blocks.count == 50


def test_nobody_reads_them_as_floats_in_place():
    blocks, plain = codes("dot", np.random.default_rng(2), 30, 10)
    with pytest.raises(DTypeError, match="cannot be read as floats"):
        blocks.scan_table  # noqa: B018 - the look is what raises
    assert blocks.gather([3, 1]).tobytes() == plain[[3, 1]].tobytes()
    assert blocks.slice(0, len(blocks)).gather([29]).tobytes() == plain[29:].tobytes()


def test_the_width_of_a_block_is_checked():
    from vecdb.errors import CorruptionError

    for columns in (10, 12, 20):
        with pytest.raises(CorruptionError, match="shapes"):
            VectorBlocks.from_parts("dot", 10, [np.zeros((3, columns), np.int8)], [np.zeros(3, np.float32)])
