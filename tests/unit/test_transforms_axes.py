"""Principal axes, along which `distill` takes its steps: turning changes no judgement, a fit turns with the spaces."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, rows_of
from vecdb.transforms.axes import axes_of
from vecdb.transforms.distill import DistillType, centres_of, lessons_of
from vecdb.transforms.listwise import Score, _judgement

SEEDS = st.integers(0, 10_000)
few = settings(max_examples=15)
ALL = slice(None)


def data_for(seed, *, d=7, e=5, count=60, metric="cosine", **missing):
    """Return pairs with everything that a map of queries can be fitted on, or without what is named."""
    rng = np.random.default_rng(seed)
    new = rows_of(count + 50, d, rng)
    old = np.tanh(2 * new @ rng.standard_normal((d, e)))
    old /= np.linalg.norm(old, axis=1, keepdims=True)
    parts = {
        "kept": (new[count - 25 : count], old[count - 25 : count]),
        "queries": new[count : count + 30],
        "across": old[count : count + 20],
        "stored": old[count + 30 :],
    }
    parts |= missing
    return data_of(new[: count - 25], old[: count - 25], role="query", metric=metric, seed=seed, **parts)


def turned_by(data, Q, R):
    """Return the same data as they are after a turn of both spaces."""

    def by(rows, turn):
        return None if rows is None else np.ascontiguousarray(rows @ turn, np.float32)

    kept = replace(data.validation, source=by(data.validation.source, Q), target=by(data.validation.target, R))
    return replace(
        data,
        source=by(data.source, Q),
        target=by(data.target, R),
        queries=by(data.queries, Q),
        queries_across=by(data.queries_across, R),
        stored=by(data.stored, R),
        validation=kept,
        rng=np.random.default_rng(3),
    )


@given(SEEDS)
@few
def test_axes_are_orthonormal_and_columns_along_them_are_uncorrelated_narrow_ones_first(seed):
    data = data_for(seed)
    axes = axes_of(data)
    for turn, rows in ((axes.before, data.source), (axes.after, data.target)):
        np.testing.assert_allclose(turn.T @ turn, np.eye(len(turn)), atol=1e-10)
        along = (rows - rows.mean(0)) @ turn
        spread = along.T @ along
        np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-4 * spread.max())
        assert (np.diff(np.diag(spread)) > -1e-4 * spread.max()).all()


@given(SEEDS, st.sampled_from(["cosine", "dot", "l2"]))
@few
def test_teachers_judge_turned_data_as_they_judged_them_before(seed, metric):
    data = data_for(seed, metric=metric)
    turned = axes_of(data).turn(data)
    before, after = (lessons_of(each, centres_of(each), "mean") for each in (data, turned))
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        assert one.weight == other.weight and one.teacher == other.teacher
        tables = [_judgement(each, ALL, ALL, (metric, metric)) for each in (one, other)]
        np.testing.assert_allclose(tables[0], tables[1], atol=2e-4 * np.abs(tables[0]).max())
        np.testing.assert_allclose(one.bank.bias, other.bank.bias, atol=1e-4)


@given(SEEDS)
@few
def test_a_score_turned_back_gives_what_it_gave_along_the_axes(seed):
    data = data_for(seed)
    axes, rng = axes_of(data), np.random.default_rng(seed)
    along = Score(rng.standard_normal((7, 5)).astype(np.float32), rng.standard_normal((2, 5)).astype(np.float32))
    back = axes.back(along)
    assert back.W.dtype == back.b.dtype == np.float32
    turned = axes.turn(data)
    inside = (turned.source @ along.W + along.b[1]) @ turned.target.T
    outside = (data.source @ back.W + back.b[1]) @ data.target.T
    np.testing.assert_allclose(outside, inside, atol=1e-4 * np.abs(inside).max())


@pytest.mark.parametrize("missing", ["queries", "across", "stored"])
def test_what_is_not_there_stays_away_and_kept_back_pairs_are_not_turned(missing):
    absent = {"queries": None, "across": None} if missing == "queries" else {missing: None}
    data = data_for(1, **absent)
    turned = axes_of(data).turn(data)
    for name in ("queries", "queries_across", "stored"):
        assert (getattr(turned, name) is None) == (getattr(data, name) is None)
    assert turned.validation is None
    assert turned.rng is data.rng and turned.source_space is data.source_space


@given(SEEDS)
@few
def test_a_map_fitted_in_turned_spaces_is_the_turned_map(seed):
    data, rng = data_for(seed, count=80), np.random.default_rng(seed)
    Q, R = orthonormal(7, 7, rng), orthonormal(5, 5, rng)
    plain = fitted(DistillType(), replace(data, rng=np.random.default_rng(3)), steps=15, penalty=0.1)
    turned = fitted(DistillType(), turned_by(data, Q, R), steps=15, penalty=0.1)
    rows = data.validation.source
    one = plain.apply(rows) @ R.astype(np.float32)
    other = turned.apply(np.ascontiguousarray(rows @ Q, np.float32))
    np.testing.assert_allclose(one, other, atol=0.02 * np.abs(one).max())


def test_fewer_pairs_than_columns_have_axes_too():
    rng = np.random.default_rng(2)
    data = data_of(rows_of(5, 9, rng), rows_of(5, 12, rng), role="query")
    axes = axes_of(data)
    assert axes.before.shape == (9, 9) and axes.after.shape == (12, 12)
    assert np.isfinite(fitted(DistillType(), data, steps=3).apply(data.source)).all()
