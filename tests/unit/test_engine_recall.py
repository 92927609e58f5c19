"""Which effort a recall takes, from measured curves; and what the catalog keeps of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.contracts import EffortCurve
from vecdb.engine import recall
from vecdb.engine.recall import SCAN, Choice, as_curve, as_stored, choose_effort, curves_for, expectation
from vecdb.errors import CorruptionError
from vecdb.storage.indexes import IndexEntry, IndexPart, index_from_plain, index_to_plain
from vecdb.storage.measured import MILLION, Measured, StoredCurve, measured_from_plain, measured_to_plain


def stored(efforts=(10, 20, 40), recalls=(0.5, 0.8, 0.999), k=10, source="members", queries=10**6):
    spread = np.zeros(len(efforts))
    curve = EffortCurve(np.array(efforts, np.int64), np.array(recalls, np.float64), queries, k, spread)
    return as_stored(curve, source)


# --- choosing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "low", "high"), [(0.3, 10, 10), (0.8, 20, 21), (0.9, 25, 35), (0.99, 38, 40)])
def test_the_smallest_effort_that_reaches_it(wanted, low, high):
    choice = choose_effort([stored()], wanted, 10)
    assert low <= choice.effort <= high and choice.source == "members"
    assert choice.expected >= wanted - 1e-3


def test_what_nothing_reaches_is_scanned():
    assert choose_effort([stored()], 0.9999, 10) is SCAN
    assert choose_effort([], 0.5, 10) is SCAN
    assert choose_effort([stored(queries=30)], 0.98, 10) is SCAN


def test_fewer_neighbours_take_the_effort_of_ten():
    assert choose_effort([stored()], 0.9, 1) == choose_effort([stored()], 0.9, 10)


def test_between_two_measured_k_the_effort_grows_by_a_power():
    curves = [stored(k=100, efforts=(100, 200, 400)), stored()]
    ten, some, hundred = (choose_effort(curves, 0.95, k).effort for k in (10, 32, 100))
    assert ten < some < hundred
    assert some == pytest.approx((ten * hundred) ** 0.5, rel=0.05)
    assert hundred == choose_effort([stored(k=100, efforts=(100, 200, 400))], 0.95, 100).effort


def test_beyond_the_largest_measured_k_it_grows_in_proportion():
    assert choose_effort([stored()], 0.95, 50).effort == 5 * choose_effort([stored()], 0.95, 10).effort


def test_the_harder_of_two_sources_decides():
    easy, hard = stored(), stored(efforts=(30, 60, 120), source="recorded")
    choice = choose_effort([easy, hard], 0.9, 10)
    assert choice.source == "recorded" and choice.effort == choose_effort([hard], 0.9, 10).effort
    assert choose_effort([easy, stored(recalls=(0.5, 0.8, 0.85), source="recorded")], 0.9, 10) is SCAN


def test_what_an_effort_is_expected_to_find_is_the_least_of_the_sources():
    easy, hard = stored(), stored(recalls=(0.4, 0.7, 0.9), source="recorded")
    choice = expectation([easy, hard], 20, 10)
    assert choice.source == "recorded" and choice.expected == pytest.approx(0.7)
    assert expectation([], 20, 10) == Choice(20)
    assert expectation([easy], 100, 50).expected == pytest.approx(0.8)


@given(
    recalls=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=10).map(sorted),
    wanted=st.floats(0.01, 0.999),
    k=st.integers(1, 2_000),
)
def test_more_recall_and_more_neighbours_never_take_less(recalls, wanted, k):
    efforts = tuple(16 * 2**place for place in range(len(recalls)))
    curves = [stored(efforts, recalls), stored(tuple(8 * each for each in efforts), recalls, k=100)]
    choice, more, wider = (
        choose_effort(curves, *each) for each in ((wanted, k), ((1 + wanted) / 2, k), (wanted, 2 * k))
    )
    if choice is SCAN:
        assert more is SCAN and wider is SCAN
    else:
        assert wider.effort >= choice.effort
        assert more is SCAN or more.effort >= choice.effort


# --- whose curve ------------------------------------------------------------------------------------------


def part(number, count, *, coded=False, measured=()):
    first = number * 10_000
    return IndexPart(number, 1, first, first + count, count, (), coded, Measured(tuple(measured)))


def test_a_part_that_was_not_measured_takes_the_curve_of_a_larger_one():
    mine, large, small = stored(), stored(queries=7), stored(queries=8)
    parts = (
        part(0, 5_000, measured=[large]),
        part(1, 100, measured=[small]),
        part(2, 900),
        part(3, 9, measured=[mine]),
    )
    index = IndexEntry(1, 1, "x", parts=parts)
    assert curves_for(index, parts[3], two_kinds=False) == (mine,)
    assert curves_for(index, parts[2], two_kinds=False) == (large,)
    assert curves_for(IndexEntry(1, 1, "x", parts=parts[1:]), parts[2], two_kinds=False) == ()


def test_codes_say_nothing_of_built_parts_where_there_are_two_kinds():
    parts = (part(0, 5_000, measured=[stored()]), part(1, 900, coded=True))
    index = IndexEntry(1, 1, "x", parts=parts)
    assert curves_for(index, parts[1], two_kinds=True) == ()
    assert curves_for(index, parts[1], two_kinds=False) == (stored(),)


# --- keeping ----------------------------------------------------------------------------------------------


def test_a_curve_is_kept_within_a_millionth_and_never_better():
    curve = EffortCurve(np.array([3, 9]), np.array([1 / 3, 0.99999999]), 77, 10, np.array([0.1234567, 0.0]))
    again = as_curve(as_stored(curve, "members"))
    assert again.efforts.tolist() == [3, 9] and (again.queries, again.k) == (77, 10)
    assert (again.recalls <= curve.recalls).all() and np.allclose(again.recalls, curve.recalls, atol=2e-6)
    assert (again.deviations >= curve.deviations).all() and np.allclose(again.deviations, curve.deviations, atol=2e-6)
    assert as_curve(as_stored(EffortCurve(curve.efforts, curve.recalls, 77), "held out")).deviations is None


MEASURED = Measured((stored(), stored(k=100, source="recorded")), 18_500, 250)
PLAIN = measured_to_plain(MEASURED)


def test_the_catalog_keeps_what_was_measured():
    assert measured_from_plain(PLAIN) == MEASURED
    plain = [3, 2, "acme.x", {}, 7, "acme", [[9, 1, 0, 5, 4, [["a", 10]], True, PLAIN]], True]
    entry = index_from_plain(plain)
    assert entry.automatic and entry.parts[0].coded and entry.parts[0].measured == MEASURED
    assert index_to_plain(entry) == plain


def test_an_index_of_which_nothing_is_known_is_stored_as_ever():
    plain = [3, 2, "acme.x", {}, 7, "acme", [[9, 1, 0, 5, 4, [["a", 10]]]]]
    assert index_to_plain(index_from_plain(plain)) == plain


def curve_with(**changes):
    source, k, queries, numbers = PLAIN[2][0]
    given = {"source": source, "k": k, "queries": queries, "numbers": numbers, **changes}
    return [1, 2, [[given["source"], given["k"], given["queries"], given["numbers"]]]]


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        [1, 2],
        [-1, 2, []],
        [1, 2.5, []],
        [1, 2, 3],
        [1, 2, [[]]],
        [1, 2, [PLAIN[2][0]] * 17],
        curve_with(source=3),
        curve_with(k=0),
        curve_with(k="10"),
        curve_with(queries=0),
        curve_with(numbers=[]),
        curve_with(numbers=[1, 2]),
        curve_with(numbers=[10, 5, 5, 10, 6, 5]),
        curve_with(numbers=[0, 5, 5]),
        curve_with(numbers=[1, MILLION + 1, 5]),
        curve_with(numbers=[1, 5, MILLION + 1]),
        curve_with(numbers=[1, -5, 5]),
        curve_with(numbers=[1, 0.5, 5]),
        curve_with(numbers=[number for effort in range(1, 300) for number in (effort, 1, 1)]),
    ],
)
def test_a_malformed_curve_is_refused(plain):
    with pytest.raises((TypeError, ValueError, CorruptionError)):
        measured_from_plain(plain)
    with pytest.raises((TypeError, ValueError, CorruptionError)):
        index_from_plain([3, 2, "x", {}, 7, "", [[9, 1, 0, 5, 4, [], True, plain]]])


@pytest.mark.parametrize("coded", [None, 1, "yes"])
def test_a_part_of_no_kind_is_refused(coded):
    with pytest.raises((TypeError, ValueError, CorruptionError)):
        index_from_plain([3, 2, "x", {}, 7, "", [[9, 1, 0, 5, 4, [], coded, PLAIN]]])


def test_the_names_of_choices():
    assert recall.DEFAULT.effort is None and recall.EXACT.expected == 1.0
    assert isinstance(stored(), StoredCurve)
