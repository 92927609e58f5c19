"""What each operator means, one rule per test; every rule is asked of records and of columns."""

import math

import numpy as np
import pytest

from vecdb.engine.where import Condition, parse
from vecdb.storage.columns import ColumnChunk, encode_columns

NAN = math.nan


def selected(where, records):
    """The records that a condition selects, by `matches` and by `mask`, which must agree."""
    condition = parse(where)
    chunk = ColumnChunk.open(encode_columns(np.arange(len(records), dtype=np.uint64), records))
    mask = condition.mask(chunk, lambda: pytest.fail("no record may be read"))
    by_record = [condition.matches(record) for record in records]
    assert mask.tolist() == by_record
    return [record for record, is_in in zip(records, by_record, strict=True) if is_in]


def values_selected(test, values):
    """The values of a field `a` that pass a test."""
    records = [{"a": value} for value in values]
    return [record["a"] for record in selected({"a": test}, records)]


MISSING = {"b": 1}


# --- missing and null -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "test",
    [{"$exists": False}, {"$ne": 1}, {"$nin": [1, None]}, {"$nin": []}, {"$not": {"$eq": 1}}, {"$not": {"$lt": 5}}],
)
def test_a_missing_field_satisfies(test):
    assert selected({"a": test}, [MISSING]) == [MISSING]


@pytest.mark.parametrize(
    "test",
    [None, 1, {"$eq": None}, {"$exists": True}, {"$gt": 0}, {"$lte": 0}, {"$in": [None]}, {"$contains": ""},
     {"$not": {"$ne": 1}}, {"$not": {"$nin": [1]}}, {"$not": {"$exists": False}}],
)  # fmt: skip
def test_a_missing_field_does_not_satisfy(test):
    assert selected({"a": test}, [MISSING]) == []


def test_null_is_a_value():
    values = [None, 0, False, "", []]
    assert values_selected(None, values) == [None]
    assert values_selected({"$exists": True}, values) == values
    assert values_selected({"$ne": None}, values) == [0, False, "", []]
    assert values_selected({"$in": [None, ""]}, values) == [None, ""]


@pytest.mark.parametrize("operator", ["$gt", "$gte", "$lt", "$lte"])
def test_null_has_no_order(operator):
    assert values_selected({operator: None}, [None, 0, "a", True]) == []


# --- types ------------------------------------------------------------------------------------------------


def test_true_is_not_one():
    assert repr(values_selected(1, [True, 1, 1.0])) == "[1, 1.0]"
    assert repr(values_selected(True, [True, 1, 1.0])) == "[True]"
    assert repr(values_selected({"$in": [True]}, [True, 1, False])) == "[True]"
    assert repr(values_selected({"$in": [1]}, [True, 1, 1.0, False])) == "[1, 1.0]"
    assert repr(values_selected({"$contains": 1}, [[True], [1], [1.0]])) == "[[1], [1.0]]"


def test_bools_compare_with_bools():
    assert values_selected({"$gt": False}, [True, False, 1, "x"]) == [True]
    assert values_selected({"$lte": True}, [True, False, 1]) == [True, False]


@pytest.mark.parametrize("operator", ["$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize("operand", [1, "1", True])
def test_comparing_across_types_is_false(operator, operand):
    others = [value for value in (None, True, 5, 0.5, "0", "2", {"x": 1}, []) if type(value) is not type(operand)]
    if type(operand) is int:
        others.remove(0.5)
    assert values_selected({operator: operand}, others) == []


def test_ints_and_floats_compare_exactly():
    big = 2**53
    values = [big - 1, big, big + 1, float(big), float(big) + 2]
    assert values_selected({"$eq": big}, values) == [big, float(big)]
    assert values_selected({"$eq": float(big)}, values) == [big, float(big)]
    assert values_selected({"$eq": big + 1}, values) == [big + 1]
    assert values_selected({"$gt": float(big)}, values) == [big + 1, float(big) + 2]
    assert values_selected({"$gt": big + 1}, values) == [float(big) + 2]
    assert values_selected({"$lt": big + 1}, values) == [big - 1, big, float(big)]
    assert values_selected({"$in": [big + 1, float(big) + 2]}, values) == [big + 1, float(big) + 2]


def test_ints_between_two_floats_whichever_is_nearer():
    low, high = float(2**53) + 2, float(2**53) + 4
    for between in (2**53 + 3, 2**60 + 2**8 - 1, 2**60 + 1):
        below = low if between == 2**53 + 3 else float(2**60)
        above = high if between == 2**53 + 3 else float(2**60) + 2**8
        assert values_selected({"$gt": between}, [below, above]) == [above]
        assert values_selected({"$gte": between}, [below, above]) == [above]
        assert values_selected({"$lt": between}, [below, above]) == [below]
        assert values_selected({"$lte": between}, [below, above]) == [below]
        assert values_selected({"$in": [between]}, [below, above]) == []


def test_fractions_between_ints():
    assert values_selected({"$gt": 2.5}, [2, 3, 2.5, 2.75]) == [3, 2.75]
    assert values_selected({"$gte": 2.5}, [2, 3, 2.5, 2.75]) == [3, 2.5, 2.75]
    assert values_selected({"$lt": -2.5}, [-2, -3, -2.5, -2.75]) == [-3, -2.75]
    assert values_selected({"$lte": -2.5}, [-2, -3, -2.5, -2.75]) == [-3, -2.5, -2.75]
    assert values_selected(2.5, [2, 3]) == []


@pytest.mark.parametrize("huge", [2**63, 10**400, math.inf])
def test_operands_beyond_every_stored_number(huge):
    values = [2**63 - 1, -(2**63), 0, 1e308, -1e308]
    assert values_selected({"$lt": huge}, [0, 5, -5]) == [0, 5, -5]
    assert values_selected({"$gt": -huge}, [0, 5, -5]) == [0, 5, -5]
    assert values_selected({"$gte": huge}, [0, 5, -5, 2**63 - 1]) == []
    assert values_selected({"$eq": huge}, values) == []
    assert values_selected({"$in": [huge, 0]}, values) == [0]


def test_infinities_are_numbers():
    values = [math.inf, -math.inf, 2**63 - 1, 0.5]
    assert values_selected(math.inf, values) == [math.inf]
    assert values_selected({"$gt": 10**400}, values) == [math.inf]
    assert values_selected({"$lt": -(10**400)}, values) == [-math.inf]
    assert values_selected({"$lt": math.inf}, values) == values[1:]


def test_minus_zero_is_zero():
    assert len(values_selected(0, [0.0, -0.0, 0])) == 3
    assert len(values_selected({"$in": [-0.0]}, [0.0, -0.0, 0])) == 3


def test_nan_equals_nothing():
    values = [NAN, 1.0, 1, "nan", None]
    for test in (NAN, {"$gt": NAN}, {"$lte": NAN}, {"$in": [NAN]}, {"$contains": NAN}):
        assert values_selected(test, values) == []
    assert len(values_selected({"$ne": NAN}, values)) == len(values)
    assert len(values_selected({"$nin": [NAN]}, values)) == len(values)
    assert values_selected({"$gt": 0}, values) == [1.0, 1]
    assert len(values_selected({"$ne": 1}, values)) == 3
    assert selected({"a": {"$ne": NAN}}, [MISSING]) == [MISSING]


def test_text_is_ordered_by_code_point():
    texts = ["", "Z", "a", "z", "é", "\uffff", "\U0001f600"]
    for place, text in enumerate(texts):
        assert values_selected({"$lt": text}, texts) == texts[:place]
        assert values_selected({"$lte": text}, texts) == texts[: place + 1]
        assert values_selected({"$gt": text}, texts) == texts[place + 1 :]
        assert values_selected({"$gte": text}, texts) == texts[place:]
    assert values_selected({"$gt": "\ud800"}, texts) == ["\uffff", "\U0001f600"]
    assert values_selected("\ud800", texts) == []


# --- lists ------------------------------------------------------------------------------------------------


def test_a_list_satisfies_a_comparison_if_one_member_does():
    lists = [[1, 5], [2, 3], [], ["5"], [None], [[5]], [{"x": 5}]]
    assert values_selected(5, lists) == [[1, 5]]
    assert values_selected({"$gt": 2}, lists) == [[1, 5], [2, 3]]
    assert values_selected({"$in": ["5", 3]}, lists) == [[2, 3], ["5"]]
    assert values_selected(None, lists) == [[None]]


def test_several_operators_may_be_satisfied_by_different_members():
    assert values_selected({"$gt": 4, "$lt": 2}, [[1, 5], [3], [5]]) == [[1, 5]]


def test_a_list_satisfies_ne_if_no_member_equals():
    lists = [[1, 5], [2, 3], [], [[1]]]
    assert values_selected({"$ne": 1}, lists) == [[2, 3], [], [[1]]]
    assert values_selected({"$nin": [1, 2]}, lists) == [[], [[1]]]


def test_an_empty_list_exists():
    assert values_selected({"$exists": True}, [[], {}, None]) == [[], {}, None]


def test_contains_is_membership_in_lists():
    lists = [["red", "blue"], ["reddish"], "red", "a red hat", [["red"]], {"red": 1}, []]
    assert values_selected({"$contains": "red"}, lists) == [["red", "blue"], "red", "a red hat"]
    assert values_selected({"$contains": 1}, [[1, 2], [1.0], 1, "1", [True]]) == [[1, 2], [1.0]]
    assert values_selected({"$contains": None}, [[None], None, [1]]) == [[None]]


def test_contains_is_a_substring_in_text():
    texts = ["", "abc", "ab", "b", "né", 5]
    assert values_selected({"$contains": "b"}, texts) == ["abc", "ab", "b"]
    assert values_selected({"$contains": "é"}, texts) == ["né"]
    assert values_selected({"$contains": ""}, texts) == ["", "abc", "ab", "b", "né"]
    assert values_selected({"$contains": "\udcc3"}, texts) == []


# --- paths ------------------------------------------------------------------------------------------------


def test_a_dotted_path_goes_through_dicts():
    records = [{"a": {"b": 1}}, {"a": {"b": {"c": 1}}}, {"a": 1}, {"a": None}, {}]
    assert selected({"a.b": 1}, records) == records[:1]
    assert selected({"a.b.c": 1}, records) == records[1:2]
    assert selected({"a.b": {"$exists": True}}, records) == records[:2]
    assert selected({"a": {"$exists": True}}, records) == records[:4]
    assert selected({"a.b": {"$exists": False}}, records) == records[2:]


def test_a_dotted_path_does_not_go_into_lists():
    records = [{"a": [{"b": 1}]}, {"a": {"b": 1}}]
    assert selected({"a.b": 1}, records) == records[1:]
    assert selected({"a.0": {"$exists": True}}, records) == []


def test_a_dict_equals_nothing():
    records = [{"a": {"b": 1}}]
    assert selected({"a": {"$ne": 1}}, records) == records
    assert selected({"a": {"$in": [1, None]}}, records) == []


# --- combinations -----------------------------------------------------------------------------------------

PEOPLE = [{"n": number, "even": number % 2 == 0, "name": "abc"[number % 3]} for number in range(12)]


def test_several_fields_and_several_operators_all_hold():
    assert [each["n"] for each in selected({"n": {"$gte": 2, "$lt": 9}, "even": True}, PEOPLE)] == [2, 4, 6, 8]


def test_logic():
    def numbers(where):
        return [each["n"] for each in selected(where, PEOPLE)]

    assert numbers({"$or": [{"n": 1}, {"n": {"$gt": 9}}]}) == [1, 10, 11]
    assert numbers({"$and": [{"even": True}, {"name": "a"}]}) == [0, 6]
    assert numbers({"$not": {"n": {"$lt": 10}}}) == [10, 11]
    assert numbers({"n": {"$not": {"$gt": 1, "$lt": 11}}}) == [0, 1, 11]
    assert numbers({"$not": {"$or": [{"even": True}, {"name": "a"}]}, "n": {"$gt": 5}}) == [7, 11]
    assert numbers({"n": {"$not": {"$not": {"$eq": 3}}}}) == [3]


def test_the_empty_condition_selects_everything():
    assert selected({}, PEOPLE) == PEOPLE
    assert selected({"$and": [{}]}, PEOPLE) == PEOPLE
    assert selected({"$not": {}}, PEOPLE) == []
    assert parse({}).paths == ()


def test_an_empty_in_selects_nothing():
    assert selected({"n": {"$in": []}}, PEOPLE) == []
    assert selected({"n": {"$nin": []}}, PEOPLE) == PEOPLE


def test_an_empty_chunk_has_an_empty_mask():
    assert selected({"a": 1}, []) == []


def test_paths_are_sorted_and_named_once():
    condition = parse({"b": 1, "$or": [{"a.x": 1}, {"b": {"$gt": 2}}], "c": {"$not": {"$lt": 1}}})
    assert isinstance(condition, Condition)
    assert condition.paths == ("a.x", "b", "c")


def test_a_mask_belongs_to_the_caller():
    chunk = ColumnChunk.open(encode_columns(np.arange(3, dtype=np.uint64), [{"a": 1}] * 3))
    condition = parse({"a": 1})
    condition.mask(chunk, list)[:] = False
    assert condition.mask(chunk, list).all()


def test_a_large_in_is_the_same_as_many_small_ones():
    records = [{"a": f"k{number}", "n": number, "f": number / 2} for number in range(500)]
    wanted = range(0, 500, 7)
    assert selected({"a": {"$in": [f"k{number}" for number in wanted]}}, records) == records[::7]
    assert selected({"n": {"$in": list(wanted)}}, records) == records[::7]
    assert selected({"f": {"$in": [number / 2 for number in wanted]}}, records) == records[::7]
