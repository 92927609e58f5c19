"""Search by corrected scores equals scoring every row, correcting every score and sorting: the same bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.oracle import hard_rows
from vecdb.blocks import VectorBlocks
from vecdb.corrections import Adjustment, search
from vecdb.errors import DimensionError, ParameterError
from vecdb.kernels import loader
from vecdb.scan_numpy import canonical_scores

METRICS = ("cosine", "dot", "l2")


@pytest.fixture(scope="module", params=["numpy", "numba"])
def path(request):
    if request.param == "numba":
        loader.request()
        if not loader.wait():
            pytest.skip("compiled kernels cannot be loaded here")
    return request.param


def cut_up(metric, rows, rng):
    cuts = np.sort(rng.integers(0, len(rows) + 1, size=3))
    parts = [np.ascontiguousarray(part) for part in np.split(rows, cuts)]
    return VectorBlocks.from_parts(metric, rows.shape[1], parts)


def two_pass(metric, rows, query, number, k, adjustment, allowed=None):
    """Score, correct, sort: nothing is shared with the code under test but the canonical score of a row."""
    raw = canonical_scores(metric, query, rows).astype(np.float32) + np.float32(0.0)
    if adjustment.form == "bias":
        corrected = raw + adjustment.table[:, 0]
    else:
        corrected = np.array([plain_proximity(adjustment, number, row, float(raw[row])) for row in range(len(raw))])
    corrected = corrected.astype(np.float32) + np.float32(0.0)
    there = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    if adjustment.switch is not None and len(there):
        first = min(there.tolist(), key=lambda row: (-raw[row], row))
        corrected = corrected if adjustment.switch[first] else raw
    order = sorted(there.tolist(), key=lambda row: (-corrected[row], row))[:k]
    return order, corrected[order], raw[order]


def plain_proximity(adjustment, number, row, raw):
    mean, deviation = (float(value) for value in adjustment.table[row])
    asked_mean, asked_deviation = adjustment.moments[number].tolist()
    one, other = (raw - mean) / deviation, (raw - asked_mean) / asked_deviation
    beyond, beyond_asked = (0.5 * math.erfc(z / math.sqrt(2.0)) for z in (one, other))
    near = (0.5 * math.erfc(-one / math.sqrt(2.0))) * (0.5 * math.erfc(-other / math.sqrt(2.0)))
    if near < 0.5:
        return -np.log1p(-near)
    return -np.log(max(beyond + beyond_asked - beyond * beyond_asked, 1e-300))


def adjustment_for(form, rng, count, queries):
    if form == "bias":
        return Adjustment("bias", (rng.standard_normal((count, 1)) * 0.3).astype(np.float32))
    if form == "dynamic":
        return Adjustment("bias", rng.standard_normal((count, 2)).astype(np.float32), rng.random(count) < 0.5)
    table = np.column_stack([rng.standard_normal(count) * 0.2, rng.random(count) + 0.05]).astype(np.float32)
    moments = np.column_stack([rng.standard_normal(queries) * 0.2, rng.random(queries) + 0.05])
    return Adjustment("proximity", table, None, moments)


@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(METRICS),
    form=st.sampled_from(["bias", "dynamic", "proximity"]),
    k=st.integers(1, 40),
    queries=st.integers(1, 5),
    where=st.booleans(),
)
def test_folded_equals_two_passes(path, seed, metric, form, k, queries, where):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 90)), int(rng.integers(1, 12))
    dtype = (np.float32, np.float16)[int(rng.integers(2))]
    rows = hard_rows(rng, n, d, dtype)
    asked = np.concatenate([hard_rows(rng, queries, d), rows[:1].astype(np.float32)])
    adjustment = adjustment_for(form, rng, n, len(asked))
    if form == "bias" and seed % 3 == 0:  # ties by the hundred
        adjustment.table[:] = np.round(adjustment.table)
    allowed = rng.random(n) < 0.5 if where else None
    found, facts = search(cut_up(metric, rows, rng), asked, k, adjustment, allowed=allowed, path=path)
    assert facts.complete and facts.path == path
    for number, (positions, corrected, raw) in enumerate(found):
        order, expected, plain = two_pass(metric, rows, asked[number], number, k, adjustment, allowed)
        assert positions.tolist() == order
        assert corrected.tobytes() == expected.tobytes()
        assert raw.tobytes() == plain.tobytes()


def test_a_crowd_of_ties_is_settled_and_the_earliest_win(path):
    rows = np.tile(np.eye(4, dtype=np.float32), (6_000, 1))
    adjustment = Adjustment("bias", np.zeros((len(rows), 1), np.float32))
    query = np.array([[1, 0, 0, 0]], np.float32)
    found, _ = search(VectorBlocks.from_parts("cosine", 4, [rows]), query, 5, adjustment, path=path)
    assert found[0][0].tolist() == [0, 4, 8, 12, 16]
    dynamic = Adjustment("bias", np.zeros((len(rows), 2), np.float32), np.zeros(len(rows), np.bool_))
    again, _ = search(VectorBlocks.from_parts("cosine", 4, [rows]), query, 5, dynamic, path=path)
    assert again[0][0].tolist() == [0, 4, 8, 12, 16]


def test_a_batch_has_the_bits_of_single_queries(path):
    rng = np.random.default_rng(3)
    rows, asked = rng.standard_normal((2_000, 24)).astype(np.float32), rng.standard_normal((300, 24)).astype(np.float32)
    blocks = VectorBlocks.from_parts("cosine", 24, [rows[:900], rows[900:]])
    for form in ("bias", "dynamic", "proximity"):
        adjustment = adjustment_for(form, rng, len(rows), len(asked))
        together, _ = search(blocks, asked, 7, adjustment, path=path)
        for number in (0, 7, 255, 256, 299):
            alone, _ = search(
                blocks, asked[number : number + 1], 7, adjustment.take(slice(number, number + 1)), path=path
            )
            assert all(a.tobytes() == b.tobytes() for a, b in zip(alone[0], together[number], strict=True))


def test_a_stopped_scan_says_so(path):
    rows = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    adjustment = Adjustment("bias", np.zeros((500, 1), np.float32))
    found, facts = search(
        VectorBlocks.from_parts("dot", 8, [rows]), rows[:2], 3, adjustment, stop=lambda: True, path=path
    )
    assert not facts.complete and [len(positions) for positions, _, _ in found] == [0, 0]


def test_impossible_arguments_are_refused():
    blocks = VectorBlocks.from_parts("dot", 2, [np.ones((3, 2), np.float32)])
    fits, short = (Adjustment("bias", np.zeros((n, 1), np.float32)) for n in (3, 2))
    with pytest.raises(ParameterError, match="k is 0"):
        search(blocks, np.ones((1, 2), np.float32), 0, fits)
    with pytest.raises(DimensionError):
        search(blocks, np.ones((1, 3), np.float32), 1, fits)
    with pytest.raises(ParameterError, match="knows 2 rows, there are 3"):
        search(blocks, np.ones((1, 2), np.float32), 1, short)


def test_nothing_to_search_is_an_empty_answer(path):
    blocks = VectorBlocks.from_parts("cosine", 3, [])
    found, _ = search(
        blocks, np.ones((2, 3), np.float32), 4, Adjustment("bias", np.empty((0, 1), np.float32)), path=path
    )
    assert [len(part) for part in found[0]] == [0, 0, 0] and len(found) == 2


def test_proximity_orders_what_is_far_out_and_what_is_hopeless():
    table = np.tile(np.array([[0.0, 0.1]], np.float32), (6, 1))
    adjustment = Adjustment("proximity", table, None, np.array([[0.0, 0.1]]))
    raw = np.array([3.0, 2.0, 1.0, 0.0, -1.0, -2.0], np.float32)
    scores = adjustment.scores(0, np.arange(6), raw)
    assert np.isfinite(scores).all() and (np.diff(scores[:4]) < 0).all() and (np.diff(scores) <= 0).all()
