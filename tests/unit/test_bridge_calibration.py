"""Score maps: what they match, that they rise, and that ranks spread classes by their size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.contracts import Affine
from vecdb.engine.bridge.calibration import (
    LISTED,
    Line,
    by_rank,
    evidence,
    expected,
    isotonic,
    matched,
    tail_matched,
)
from vecdb.engine.bridge.folding import Fold, RowTable, pull_of
from vecdb.engine.pairing import directed

SEEDS = st.integers(0, 10_000)


def scores(seed, count=64, spread=1.0, mean=0.0):
    return np.random.default_rng(seed).standard_normal(count) * spread + mean


@given(SEEDS, st.floats(0.01, 5), st.floats(-3, 3))
def test_a_matched_line_gives_mean_and_deviation(seed, spread, mean):
    cross, native = scores(seed), scores(seed + 1, spread=spread, mean=mean)
    line = matched(cross, native)
    moved = line(cross)
    assert line.factor > 0
    assert moved.mean() == pytest.approx(native.mean()) and moved.std() == pytest.approx(native.std())


@given(SEEDS)
def test_a_matched_tail_gives_median_and_best_eighth(seed):
    cross, native = scores(seed), np.exp(scores(seed + 1))
    moved = tail_matched(cross, native)(cross)
    assert np.median(moved) == pytest.approx(np.median(native))
    assert np.sort(moved)[-8:].mean() == pytest.approx(np.sort(native)[-8:].mean())


@pytest.mark.parametrize("match", [matched, tail_matched])
@pytest.mark.parametrize("flat", ["cross", "native", "both"])
def test_scores_without_spread_are_only_moved(match, flat):
    one = np.full(20, 0.3) if flat != "native" else scores(1, 20)
    other = np.full(20, 0.7) if flat != "cross" else scores(2, 20)
    line = match(one, other)
    assert line.factor == 1.0 and np.isfinite(line.offset)


@given(SEEDS, st.floats(0.1, 3), st.floats(-2, 2), st.floats(0.1, 3), st.floats(-2, 2))
def test_lines_are_applied_one_after_the_other(seed, a, b, c, d):
    values = scores(seed).astype(np.float32)
    first, second = Line(a, b), Line(c, d)
    np.testing.assert_allclose(
        second.after(first)(values), second(first(values).astype(np.float32)), rtol=1e-4, atol=1e-4
    )


@given(SEEDS, st.integers(2, 200), st.booleans())
def test_an_isotonic_curve_rises_strictly_and_follows_the_pairs(seed, count, noisy):
    cross = scores(seed, count)
    native = np.tanh(cross) + (scores(seed + 1, count, 0.5) if noisy else 0.0)
    curve = isotonic(cross, native)
    grid = np.linspace(cross.min() - 1, cross.max() + 1, 200).astype(np.float32)
    assert (np.diff(curve(grid)) > 0).all()
    if not noisy:
        np.testing.assert_allclose(curve(cross.astype(np.float32)), native, atol=0.02)


@given(
    st.integers(1, 50), st.integers(1, 1_000), st.integers(0, 1_000), st.sampled_from(["rrf", "ranks"]), st.booleans()
)
def test_ranks_fall(count, size, others, method, first):
    found = by_rank(count, size=size, total=size + others, method=method, first=first)
    assert (np.diff(found) < 0).all() and (found > 0).all()


def test_a_class_of_a_tenth_has_a_tenth_of_the_first_places():
    small = by_rank(100, size=100, total=1_000, method="ranks", first=True)
    large = by_rank(100, size=900, total=1_000, method="ranks", first=False)
    order = np.argsort(-np.concatenate([small, large]), kind="stable")[:50]
    assert order[0] == 0 and 5 <= int((order < 100).sum()) <= 6


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_heads_are_as_long_as_sizes_let_expect(size, others):
    head = expected(size, size + others)
    assert 1 <= head <= LISTED and abs(head - LISTED * size / (size + others)) <= 1


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_small_classes_say_little(one, other):
    found = evidence(one, other, one + other)
    assert found == evidence(other, one, one + other) and 0 < found <= 1
    assert (found == 1.0) == (min(one, other) >= 2.5 and LISTED * min(one, other) >= 2.5 * (one + other))


# --- folding ---


@given(SEEDS, st.sampled_from(["cosine", "dot", "l2"]), st.booleans(), st.booleans(), st.booleans())
def test_a_fold_scores_what_mapping_the_rows_would(seed, metric, scaled, shifted, biased):
    rng = np.random.default_rng(seed)
    W, b = rng.standard_normal((6, 4)), rng.standard_normal(4)
    shift = rng.standard_normal(4) if shifted else None
    scale = (lambda rows: (1.0 / (1.0 + np.abs(rows).sum(1))).astype(np.float32)) if scaled else None
    bias = (lambda rows: rows[:, 0]) if biased else None
    form = Affine(W, b, shift, scale)
    fold = Fold(form, bias, metric, "dot", "key")
    rows, query = rng.standard_normal((9, 6)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    image = form.apply(rows).astype(np.float64)
    if metric == "cosine":
        wanted = image @ query / np.linalg.norm(image, axis=1) / np.linalg.norm(query)
    else:
        wanted = image @ query if metric == "dot" else -np.linalg.norm(image - query, axis=1)
    wanted = wanted + (rows[:, 0] if biased else 0.0)
    np.testing.assert_allclose(fold.of_rows(query, rows), wanted, rtol=2e-4, atol=2e-4)


def test_a_fold_without_a_map_adds_a_bias():
    rows = np.eye(3, dtype=np.float32) * np.float32(2.0)
    fold = Fold(None, lambda given: given.sum(1), "cosine", "cosine", "key")
    found = fold.of_rows(np.array([1, 0, 0], np.float32), rows)
    np.testing.assert_allclose(found, [2.0, 1.0, 1.0], atol=1e-6)
    table = fold.rows(rows).take(np.array([0, 2]))
    assert isinstance(table, RowTable) and table.bias is not None and len(table.bias) == 2


@given(SEEDS, st.sampled_from(["cosine", "dot"]), st.booleans())
def test_one_vector_orders_stored_rows_as_their_scores_do_bias_and_all(seed, metric, mapped):
    rng = np.random.default_rng(seed)
    pull, rows = rng.standard_normal(6), directed(rng.standard_normal((30, 6)).astype(np.float32), "cosine")
    form = Affine(rng.standard_normal((6, 4)), np.zeros(4)) if mapped and metric == "dot" else None
    query = rng.standard_normal(6 if form is None else 4).astype(np.float32)

    def bias(given):
        return (given @ pull).astype(np.float32)

    fold = Fold(form, bias, metric, "cosine", "key", pull_of(bias, 6))
    asked, scores = fold.ordering(query), fold.of_rows(query, rows)
    assert np.abs(fold.pull - pull).max() < 1e-6
    products = rows @ asked
    np.testing.assert_allclose(products - products[0], scores - scores[0], atol=1e-4)


def test_a_bias_that_is_not_linear_is_left_out_of_the_order():
    assert pull_of(None, 3) is None
    assert pull_of(lambda rows: np.abs(rows).sum(1), 3) is None
    assert pull_of(lambda rows: np.ones(len(rows), np.float32), 3) is None
    fold = Fold(None, lambda rows: np.ones(len(rows), np.float32), "cosine", "cosine", "key")
    np.testing.assert_array_equal(fold.ordering(np.array([1, 2, 2], np.float32)), [1, 2, 2])
