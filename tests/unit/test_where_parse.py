"""Malformed conditions: what is said, about which path and operator, and what is suggested."""

import datetime
import enum
import random

import numpy as np
import pytest

from vecdb.engine.where import parse
from vecdb.errors import WhereError


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("where", "path", "operator", "said"),
    [
        ([], None, None, "list, expected a dict"),
        (None, None, None, "NoneType, expected a dict"),
        ("a = 1", None, None, "str, expected a dict"),
        ({1: 2}, None, None, "field name is of type int"),
        ({"$gt": 5}, None, "$gt", r'\$gt stands without a field.*\{"field": \{"\$gt": value\}\}'),
        ({"$xor": []}, None, "$xor", r"unknown operator '\$xor'.*did you mean '\$or'"),
        ({"$AND": []}, None, "$AND", r"did you mean '\$and'"),
        ({"$where": "1"}, None, "$where", r"unknown operator '\$where'"),
        ({"a.$gt": 5}, "a.$gt", None, r"has a '\$'"),
        ({"a": {}}, "a", None, "has no operator"),
        ({"a": {"$gtt": 1}}, "a", "$gtt", r"did you mean '\$gt"),
        ({"a": {"$regex": "x"}}, "a", "$regex", r"unknown operator '\$regex'"),
        ({"a": {"$zzzzzz": "x"}}, "a", "$zzzzzz", r"known: \$eq"),
        ({"a": {"gte": 1}}, "a", "gte", r"dollar sign: '\$gte'"),
        ({"a": {"b": 1}}, "a", "b", "dotted path, 'a.b'"),
        ({"a": {"$gt": 1, "b": 1}}, "a", "b", "dotted path"),
        ({"a": {1: 1}}, "a", None, "an operator is of type int"),
        ({"a": {"$or": [{"$gt": 1}]}}, "a", "$or", r"\$or goes outside of the field"),
        ({"a": {"$not": 5}}, "a", "$not", r"takes a dict of operators, got int.*\$ne"),
        ({"a": {"$not": {}}}, "a", None, "has no operator"),
        ({"$not": 5}, None, "$not", "int, expected a dict"),
        ({"$not": [{"a": 1}]}, None, "$not", "list, expected a dict"),
        ({"$and": []}, None, "$and", "got an empty list"),
        ({"$or": {"a": 1}}, None, "$or", "non-empty list of conditions, got dict"),
        ({"$or": [5]}, None, "$or", "int, expected a dict"),
        ({"a": {"$exists": 1}}, "a", "$exists", "takes True or False, got int"),
        ({"a": {"$exists": None}}, "a", "$exists", "got NoneType"),
        ({"a": [1, 2]}, "a", "$eq", r"got list.*\$in"),
        ({"a": {"$eq": {"b": 1}}}, "a", "$eq", r"got dict.*dotted path"),
        ({"a": {"$gt": [1]}}, "a", "$gt", "got list"),
        ({"a": {"$contains": ["x"]}}, "a", "$contains", "got list"),
        ({"a": {"$in": 5}}, "a", "$in", "takes a list of values, got int"),
        ({"a": {"$in": "abc"}}, "a", "$in", "takes a list of values, got str"),
        ({"a": {"$in": b"abc"}}, "a", "$in", "got bytes"),
        ({"a": {"$in": {"b": 1}}}, "a", "$in", "got dict"),
        ({"a": {"$in": (x for x in "ab")}}, "a", "$in", r"got generator.*list\(values\)"),
        ({"a": {"$in": np.zeros((2, 2))}}, "a", "$in", "got ndarray"),
        ({"a": {"$in": np.array([b"x"])}}, "a", "$in", "got bytes"),
        ({"a": {"$in": np.array(["2020"], "M8[Y]")}}, "a", "$in", "got datetime64"),
        ({"a": {"$nin": [[1]]}}, "a", "$nin", "got list"),
        ({"a": b"x"}, "a", "$eq", "got bytes"),
        ({"a": 1j}, "a", "$eq", "got complex"),
        ({"a": datetime.date(2024, 1, 1)}, "a", "$eq", "got date.*isoformat"),
        ({"a": np.timedelta64(1, "s")}, "a", "$eq", "got timedelta64"),
        ({"a": np.zeros(2)}, "a", "$eq", "got ndarray"),
    ],
)
def test_what_is_wrong_is_said(where, path, operator, said):
    with pytest.raises(WhereError, match=f"^where: .*{said}") as caught:
        parse(where)
    assert (caught.value.path, caught.value.operator) == (path, operator)


def nested(levels, key):
    where = {"a": 1}
    for _ in range(levels - 1):
        where = {key: where} if key == "$not" else {key: [where]}
    return where


@pytest.mark.parametrize("key", ["$and", "$or", "$not"])
def test_conditions_may_be_32_levels_deep(key):
    assert parse(nested(32, key)).paths == ("a",)
    with pytest.raises(WhereError, match="32 levels"):
        parse(nested(33, key))


def test_operators_of_a_field_may_not_be_deeper():
    operators = {"$eq": 1}
    for _ in range(40):
        operators = {"$not": operators}
    with pytest.raises(WhereError, match="32 levels") as caught:
        parse({"a": operators})
    assert caught.value.path == "a"


def test_a_condition_that_holds_itself_ends():
    where = {}
    where["$and"] = [where, where]
    with pytest.raises(WhereError):
        parse(where)
    wide = {"a": 1}
    for _ in range(30):
        wide = {"$or": [wide, wide]}
    with pytest.raises(WhereError, match="10,000 conditions"):
        parse(wide)


def test_there_may_be_10_000_operands():
    parse({"a": {"$in": range(10_000)}})
    for where in (
        {"a": {"$in": range(10_001)}},
        {"a": {"$nin": np.arange(10_001)}},
        {"b": 1, "a": {"$in": range(10_000)}},
    ):
        with pytest.raises(WhereError, match="10,000 operands"):
            parse(where)


@pytest.mark.parametrize(
    "several",
    [[1, 2], (1, 2), {1, 2}, frozenset([1, 2]), range(1, 3), {1: 0, 2: 0}.keys(), np.array([1, 2]),
     np.array([1.0, 2.0]), np.array([1, 2], object), np.array([1, 2], np.uint8), [np.int64(1), np.float32(2)]],
)  # fmt: skip
def test_in_takes_any_collection(several):
    condition = parse({"a": {"$in": several}})
    assert [condition.matches({"a": value}) for value in (0, 1, 2, 2.0, True)] == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("operand", "value"),
    [
        (np.int8(5), 5),
        (np.uint64(2**63 - 1), 2**63 - 1),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.str_("red"), "red"),
        (Colour.RED, "red"),
        (np.bool_(True), True),
        (np.array(["red"])[0], "red"),
    ],
)
def test_relatives_of_the_plain_types_are_operands(operand, value):
    for test in (operand, {"$eq": operand}, {"$in": [operand]}, {"$gte": operand}, {"$contains": operand}):
        stored = [value] if isinstance(test, dict) and "$contains" in test else value
        assert parse({"a": test}).matches({"a": stored})
    assert not parse({"a": {"$ne": operand}}).matches({"a": value})


def test_exists_takes_a_numpy_bool():
    assert parse({"a": {"$exists": np.bool_(False)}}).matches({})


def test_long_names_are_cut_in_messages():
    with pytest.raises(WhereError) as caught:
        parse({"x" * 10_000: {"$bad": 1}})
    assert len(str(caught.value)) < 400 and caught.value.path == "x" * 10_000


class Stubborn:
    """Something whose repr fails."""

    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize("odd", [Stubborn(), object(), type, len, NotImplemented, ...])
def test_operands_are_never_shown_by_their_own_code(odd):
    for where in (odd, {"a": odd}, {"a": {"$in": [odd]}}, {"$and": odd}, {"a": {"$exists": odd}}, {"a": {"$not": odd}}):
        with pytest.raises(WhereError):
            parse(where)


def test_huge_ints_are_operands():
    assert parse({"a": {"$lt": 10**5_000}}).matches({"a": 1})


ATOMS = [None, True, 0, 1.5, "x", "$gt", [], {}, [1], b"x", (), "a.b", 10**400, float("nan")]
NAMES = [
    "a",
    "a.b",
    "",
    "$and",
    "$or",
    "$not",
    "$eq",
    "$ne",
    "$in",
    "$nin",
    "$exists",
    "$contains",
    "$gt",
    "$foo",
    5,
    None,
]


def any_object(picker, depth):
    shape = picker.randrange(4) if depth else 0
    if shape == 1:
        return [any_object(picker, depth - 1) for _ in range(picker.randrange(3))]
    if shape > 1:
        return {picker.choice(NAMES): any_object(picker, depth - 1) for _ in range(picker.randrange(1, 3))}
    return picker.choice(ATOMS)


def test_any_object_is_a_condition_or_a_where_error():
    picker = random.Random(4)
    outcomes = {True: 0, False: 0}
    for _ in range(5_000):
        try:
            condition = parse(any_object(picker, 4))
        except WhereError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert condition.matches({"a": {"b": 1}}) in (True, False)
    assert min(outcomes.values()) > 50
