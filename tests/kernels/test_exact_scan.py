"""Compiled nomination: the same guarantee as the numpy path, in place, resumable, and with bounded pools."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.oracle import DTYPES, METRICS, brackets, cut, exact_keys, hard_rows, same_bits, true_top
from vecdb.blocks import VectorBlocks
from vecdb.kernels import loader, reference
from vecdb.kernels import nominate as module
from vecdb.kernels._pools import kth_largest
from vecdb.kernels.bounds import FORM_CODES, plan_scan
from vecdb.kernels.exact_scan import HALF, STRIP, absorb_tile, scan_blocks, scan_listed
from vecdb.kernels.nominate import best

seeds = st.integers(0, 2**32 - 1)
EVERY_ROW = np.empty(0, dtype=bool)
SCRATCH = np.empty(STRIP + 70, dtype=np.float32)


def check(blocks, rows, queries, k, answer, allowed=None):
    assert answer.complete and len(answer.found) == len(queries)
    for query, found in zip(queries, answer.found, strict=True):
        assert same_bits(found, true_top(blocks.metric, query, rows, k, allowed))
    assert answer.rescored >= sum(len(positions) for positions, _ in answer.found)


@given(
    seed=seeds,
    metric=st.sampled_from(METRICS),
    d=st.integers(1, 70),
    n=st.integers(1, 400),
    k=st.sampled_from([1, 2, 10, 500]),
    q=st.sampled_from([1, 2, 3, 9]),
    share=st.sampled_from([None, 0.0, 0.05, 0.6, 1.0]),
    dtype=st.sampled_from(DTYPES),
)
def test_no_winner_is_lost(seed, metric, d, n, k, q, share, dtype):
    rng = np.random.default_rng(seed)
    rows = hard_rows(rng, n, d, dtype)
    queries = np.concatenate([hard_rows(rng, 4, d)] * 3)[:q]
    allowed = None if share is None else rng.random(n) < share
    blocks = cut(metric, rows, rng)
    check(blocks, rows, queries, k, best(blocks, queries, k, allowed=allowed), allowed)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [1_536, 65_536])
def test_wide_vectors(metric, d):
    rng = np.random.default_rng(d)
    rows = hard_rows(rng, 40, d)
    blocks = cut(metric, rows, rng)
    for queries in (rows[:1] * np.float32(1.01), rows[:3] * np.float32(0.99)):
        check(blocks, rows, queries, 4, best(blocks, queries, 4))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("q", [1, 4])
@pytest.mark.parametrize("share", [None, 0.1, 0.9])
def test_crowds_of_ties_are_settled_and_the_scan_goes_on(metric, q, share, monkeypatch):
    """A pool that is full of equal scores must neither overflow nor drop the smallest positions."""
    settled = []
    original = module._Pools.settle
    monkeypatch.setattr(module._Pools, "settle", lambda *args: settled.append(1) or original(*args))
    rng = np.random.default_rng(3)
    rows = np.repeat(rng.standard_normal((3, 16)).astype(np.float32), 20_000, axis=0)[rng.permutation(60_000)]
    allowed = None if share is None else rng.random(len(rows)) < share
    blocks = cut(metric, rows, rng)
    queries = rows[:q] + np.float32(1e-3)
    check(blocks, rows, queries, 25, best(blocks, queries, 25, allowed=allowed), allowed)
    assert settled


@pytest.mark.parametrize("q", [1, 3])
def test_a_collection_far_from_the_origin(q):
    rng = np.random.default_rng(8)
    rows = (1e6 + rng.standard_normal((20_000, 8))).astype(np.float32)
    blocks = cut("l2", rows, rng)
    queries = rows[17 : 17 + q] + np.float32(0.5)
    check(blocks, rows, queries, 5, best(blocks, queries, 5))


@pytest.mark.parametrize("q", [1, 3])
def test_cosine_rows_too_short_for_their_scale_are_kept(q):
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((900, 8)).astype(np.float32)
    queries = rng.standard_normal((q, 8)).astype(np.float32)
    rows[::3] = (queries[0] * 1e-44).astype(np.float32)
    blocks = cut("cosine", rows, rng)
    check(blocks, rows, queries, 3, best(blocks, queries, 3))


def test_k_above_the_number_of_rows_and_nothing_at_all():
    rng = np.random.default_rng(5)
    rows = hard_rows(rng, 30, 4)
    blocks = cut("dot", rows, rng)
    for queries in (rows[:1], rows[:5]):
        assert [len(found) for found, _ in best(blocks, queries, 10_000).found] == [30] * len(queries)
        empty = VectorBlocks.from_parts("dot", 4, [])
        assert [len(found) for found, _ in best(empty, queries, 3).found] == [0] * len(queries)


def test_k_of_thousands():
    rng = np.random.default_rng(6)
    rows = hard_rows(rng, 9_000, 6)
    blocks = cut("cosine", rows, rng)
    for queries in (rows[:1], rows[:4]):
        check(blocks, rows, queries, 3_000, best(blocks, queries, 3_000))


# --- stopping and resuming --------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [None, 0.1])
def test_stop_is_asked_between_stretches(share, monkeypatch):
    monkeypatch.setattr(module, "_STOP_BYTES", 100 * 20)
    rng = np.random.default_rng(7)
    rows = hard_rows(rng, 5_000, 4)
    blocks = cut("dot", rows, rng)
    allowed = None if share is None else rng.random(5_000) < share
    asked = []
    stopped = best(blocks, rows[:1], 3, allowed=allowed, stop=lambda: asked.append(1) or len(asked) > 3)
    assert not stopped.complete and stopped.rows_scanned == 300
    full = best(blocks, rows[:2], 3, allowed=allowed, stop=lambda: False)
    check(blocks, rows, rows[:2], 3, full, allowed)


def test_stop_in_a_batch_gives_the_best_so_far():
    rng = np.random.default_rng(8)
    rows = hard_rows(rng, 40_000, 4)
    blocks = VectorBlocks.from_parts("dot", 4, [rows])
    asked = []
    stopped = best(blocks, rows[:300], 3, stop=lambda: asked.append(1) or len(asked) > 2)
    assert not stopped.complete and len(stopped.found) == 300
    assert len(stopped.found[0][0]) == 3 and len(stopped.found[299][0]) == 0


def pools(n, k, capacity=None):
    capacity = capacity or 4 * n + 1_024
    state = np.array([0, 2 * k + 64, 0])
    floor = np.full(1, -np.inf, dtype=np.float32)
    return np.empty((3, capacity), dtype=np.float32), np.empty(capacity, dtype=np.int64), state, floor


@given(seed=seeds, metric=st.sampled_from(METRICS), d=st.integers(1, 65), dtype=st.sampled_from(DTYPES))
def test_every_exact_key_lies_between_its_bounds(seed, metric, d, dtype):
    """The claim of vecdb/kernels/bounds.py, checked in exact rational arithmetic."""
    rng = np.random.default_rng(seed)
    rows, query = hard_rows(rng, 20, d, dtype), hard_rows(rng, 4, d)[:1]
    blocks = cut(metric, rows, rng)
    half = HALF if dtype is np.float16 else 0
    for direct in (True, False):
        plan = plan_scan(metric, query, direct=direct)
        bounds, positions, state, floor = pools(20, 20)
        error = plan.errors[0]
        if direct or metric != "l2":
            tail = (20, error, 20, bounds, positions, state, floor, SCRATCH)
            assert scan_blocks(FORM_CODES[plan.form] + half, plan.queries[0], blocks.scan_table, EVERY_ROW, *tail) == 0
        else:
            products = rows.astype(np.float32) @ plan.queries.T
            scales = np.concatenate(blocks.scales)
            errors, resume = plan.errors.reshape(2, 1), np.zeros(2, dtype=np.int64)
            tail = (20, bounds[None], positions[None], state[None], floor, resume)
            assert absorb_tile(2, products, scales, np.arange(20), EVERY_ROW, errors, *tail) == -1
        keys = exact_keys(plan.form, query[0], rows)
        assert sorted(positions[: state[0]].tolist()) == list(range(20))
        for place in range(20):
            assert brackets(bounds[0, place], keys[positions[place]], bounds[1, place])


@given(seed=seeds, step=st.integers(1, 50), metric=st.sampled_from(METRICS))
def test_a_scan_in_steps_is_the_same_scan(seed, step, metric):
    rng = np.random.default_rng(seed)
    rows, query = hard_rows(rng, 150, 9), hard_rows(rng, 4, 9)[:1]
    blocks = cut(metric, rows, rng)
    plan = plan_scan(metric, query, direct=True)
    error = plan.errors[0]
    results = []
    for stretch in (150, step):
        bounds, positions, state, floor = pools(150, 5)
        for end in [*range(stretch, 150, stretch), 150]:
            pool = (bounds, positions, state, floor)
            head = (FORM_CODES[plan.form], plan.queries[0], blocks.scan_table)
            assert scan_blocks(*head, EVERY_ROW, end, error, 5, *pool, SCRATCH) == 0
        results.append((positions[: state[0]].tolist(), float(floor[0]), state[0]))
    assert results[0] == results[1]


@given(seed=seeds, metric=st.sampled_from(METRICS), share=st.floats(0, 1))
def test_a_mask_and_a_list_of_rows_are_the_same_selection(seed, metric, share):
    rng = np.random.default_rng(seed)
    rows, query = hard_rows(rng, 150, 9), hard_rows(rng, 4, 9)[:1]
    blocks = cut(metric, rows, rng)
    plan = plan_scan(metric, query, direct=True)
    error = plan.errors[0]
    allowed = rng.random(150) < share
    wanted = np.flatnonzero(allowed)
    masked, listed = pools(150, 5), pools(150, 5)
    head = (FORM_CODES[plan.form], plan.queries[0], blocks.scan_table)
    scan_blocks(*head, allowed, 150, error, 5, *masked, SCRATCH)
    scan_listed(*head, wanted, len(wanted), error, 5, *listed, SCRATCH)
    assert masked[1][: masked[2][0]].tolist() == listed[1][: listed[2][0]].tolist()


@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=80),
    data=st.data(),
)
def test_selection_equals_sorting(values, data):
    k = data.draw(st.integers(1, len(values)))
    array = np.array(values, dtype=np.float32)
    assert kth_largest(array.copy(), len(values), k) == reference.kth_largest(array, k)


def test_selection_in_sorted_reversed_and_constant_arrays():
    for values in (np.arange(999.0), np.arange(999.0)[::-1], np.ones(999)):
        array = values.astype(np.float32)
        for k in (1, 2, 500, 998, 999):
            assert kth_largest(array.copy(), 999, k) == reference.kth_largest(array, k)


def test_nothing_copies_the_collection():
    rng = np.random.default_rng(9)
    rows = rng.standard_normal((20_000, 128)).astype(np.float32)
    blocks = VectorBlocks.from_parts("cosine", 128, np.split(rows, 20))
    best(blocks, rows[:1], 10)
    best(blocks, rows[:8], 10)
    loader.wait()  # what an earlier test asked for: its thread allocates too
    for queries in (rows[:1], rows[:8]):
        tracemalloc.start()
        try:
            best(blocks, queries, 10)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < rows.nbytes / 5
