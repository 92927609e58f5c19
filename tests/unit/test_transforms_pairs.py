"""What a fit refuses, with numbers, before it computes anything; and what it remembers of its data."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fits import data_of, rows_of
from vecdb.errors import CancelledError, CorruptionError, DimensionError, FitError, NonFiniteError
from vecdb.transforms.pairs import centred, checked_rows, fit_pairs, fit_rows, go_on
from vecdb.transforms.provenance import facts_of, load_facts

RNG = np.random.default_rng(3)
X, Y = rows_of(30, 5, RNG), rows_of(30, 7, RNG)


def test_pairs_come_back_as_float64_copies():
    data = data_of(X, Y)
    source, target = fit_pairs(data, 3, owner="thing")
    assert source.dtype == target.dtype == np.float64
    np.testing.assert_array_equal(source, data.source)
    assert not np.shares_memory(source, data.source)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_pairs_are_counted(count):
    with pytest.raises(FitError, match=f"thing was given {count} rows to fit on, expected at least 3") as caught:
        fit_pairs(data_of(X[:count], Y[:count]), 3, owner="thing")
    assert (caught.value.pairs, caught.value.needed) == (count, 3)


def test_unequal_numbers_of_rows_are_no_pairs():
    with pytest.raises(FitError, match="30 source rows and 29 target rows"):
        fit_pairs(data_of(X, Y[:-1]), 3, owner="thing")


@pytest.mark.parametrize("side", ["source", "target"])
def test_one_vector_repeated_is_one_pair_on_whichever_side(side):
    rows = {"source": X, "target": Y}
    rows[side] = np.repeat(rows[side][:1], 30, axis=0)
    with pytest.raises(FitError, match=f"all rows of the {side} .* the same vector") as caught:
        fit_pairs(data_of(**rows), 2, owner="thing")
    assert (caught.value.pairs, caught.value.needed) == (1, 2)


@given(st.integers(2, 6), st.floats(0.01, 100), st.integers(0, 1000))
def test_rows_on_one_line_are_refused_wherever_it_lies(width, step, seed):
    rng = np.random.default_rng(seed)
    line = rng.standard_normal(width) + step * rng.standard_normal((20, 1)) * rng.standard_normal(width)
    with pytest.raises(FitError, match="on one line") as caught:
        fit_pairs(data_of(line, rng.standard_normal((20, 3))), 3, owner="thing")
    assert caught.value.pairs == 2 and caught.value.needed == 3


def test_two_pairs_are_enough_where_two_are_asked_for():
    line = np.outer([0.0, 1.0, 2.0], np.ones(4))
    fit_pairs(data_of(line, line), 2, owner="thing")


@given(st.integers(3, 8), st.integers(0, 1000))
def test_rows_in_a_plane_are_enough(count, seed):
    rng = np.random.default_rng(seed)
    plane = rng.standard_normal((count, 2)) @ rng.standard_normal((2, 6))
    fit_pairs(data_of(plane, plane), 3, owner="thing")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["source", "target", "queries"])
def test_numbers_that_are_none_are_named_with_their_place(part, number):
    parts = {"source": X.copy(), "target": Y.copy(), "queries": Y.copy()}
    parts[part][4, 2] = number
    with pytest.raises(NonFiniteError, match=f"{part} of a fit: row 4, column 2") as caught:
        fit_pairs(data_of(**parts), 3, owner="thing")
    assert (caught.value.row, caught.value.column, caught.value.where) == (4, 2, part)


@pytest.mark.parametrize("place", [0, 1])
def test_the_kept_back_pairs_are_looked_at_too(place):
    kept = [X.copy(), Y.copy()]
    kept[place][0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="validation"):
        fit_pairs(data_of(X, Y, kept=tuple(kept)), 3, owner="thing")


def test_a_fit_on_the_source_alone_does_not_count_partners():
    data = data_of(X, Y[:0])
    assert fit_rows(data, 3, owner="thing").shape == (30, 5)
    with pytest.raises(FitError):
        fit_rows(data, 31, owner="thing")


def test_stopping_is_asked_for_with_the_progress():
    said = []
    go_on(data_of(X, Y, progress=lambda done, total: said.append((done, total))), 2, 5)
    assert said == [(2, 5)]
    with pytest.raises(CancelledError, match="after 2 of 5 steps"):
        go_on(data_of(X, Y, cancel=lambda: True), 2, 5)


@given(st.booleans(), st.integers(0, 100))
def test_centring_takes_the_means_away_and_keeps_them(center, seed):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((9, 3)), 2 + rng.standard_normal((9, 4))
    pairs = centred(A, B, center=center)
    np.testing.assert_allclose(pairs.A + pairs.before, A, atol=1e-12)
    np.testing.assert_allclose(pairs.B + pairs.after, B, atol=1e-12)
    assert pairs.pairs == 9
    np.testing.assert_allclose(pairs.length, sum(np.sqrt((row**2).sum()) for row in pairs.B) / 9)
    if center:
        np.testing.assert_allclose(pairs.A.mean(0), 0, atol=1e-12)
    else:
        assert not pairs.before.any() and not pairs.after.any()


@pytest.mark.parametrize("shape", [(3, 4), (5,), (0, 6), (2, 2, 5)])
def test_rows_of_another_width_are_refused(shape):
    with pytest.raises(DimensionError) as caught:
        checked_rows(np.zeros(shape, np.float32), 5)
    assert caught.value.expected == 5 and caught.value.got == shape


# --- provenance -------------------------------------------------------------------------------------------


def test_facts_tell_fits_on_the_same_data_from_others():
    one, again = facts_of(data_of(X, Y), penalty=0.5), facts_of(data_of(X, Y, seed=9))
    assert one["data"] == again["data"] and one["pairs"] == 30 and one["penalty"] == 0.5
    for other in (data_of(X[:-1], Y[:-1]), data_of(X, Y, queries=Y), data_of(X, Y, labels=np.arange(30))):
        assert facts_of(other)["data"] != one["data"]
    changed = X.copy()
    changed[3, 3] = np.nextafter(np.float32(changed[3, 3]), np.float32(2))
    assert facts_of(data_of(changed, Y))["data"] != one["data"]


def test_facts_come_back_from_a_state():
    facts = facts_of(data_of(X, Y), penalty=0.5, restore="clip", mean=True)
    assert load_facts({"fit": dict(facts)}) == facts


@pytest.mark.parametrize(
    "damage",
    [
        {"pairs": "30"},
        {"pairs": True},
        {"data": 3},
        {"penalty": float("nan")},
        {"penalty": float("inf")},
        {"penalty": [1]},
        {"penalty": None},
        {7: 1},
    ],
)
def test_damaged_facts_are_refused(damage):
    facts = {**facts_of(data_of(X, Y), penalty=0.5), **damage}
    with pytest.raises(CorruptionError):
        load_facts({"fit": facts})


@pytest.mark.parametrize("state", [{}, {"fit": None}, {"fit": 3}, {"fit": {"data": "x"}}, {"fit": {"pairs": 3}}])
def test_missing_facts_are_refused(state):
    with pytest.raises(CorruptionError):
        load_facts(state)


def test_the_digest_covers_queries_and_labels_that_are_missing_too():
    data = data_of(X, Y)
    assert facts_of(replace(data, queries=data.target[:0]))["data"] != facts_of(data)["data"]
