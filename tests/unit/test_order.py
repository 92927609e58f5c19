"""`order_by`: the order of types, of values, of ties; and what is refused."""

import math

import numpy as np
import pytest

from vecdb.engine.order import MAX_FIELDS, Order, Sort, parse_order
from vecdb.errors import ParameterError
from vecdb.storage.columns import ColumnChunk, encode_columns

NAN = math.nan
ASCENDING = [
    None,
    False,
    True,
    -math.inf,
    -(2**63),
    -1.5,
    0,
    1,
    1.5,
    2**53,
    float(2**53) + 2,
    2**53 + 3,
    math.inf,
    NAN,
    "",
    "Z",
    "a",
    "é",
    "\uffff",
    "\U0001f600",
    [1],
]


def ordered(order_by, records, limit=None):
    """The places of records in an order, from records and from columns, which must agree."""
    order = parse_order(order_by)
    rows = range(len(records))
    chunk = ColumnChunk.open(encode_columns(np.array(rows, dtype=np.uint64), records))
    keys = order.keys(chunk, lambda: pytest.fail("no record may be read"))
    assert keys == [order.key(record) for record in records]
    return order.sort(rows, keys, limit)


def test_types_and_values_have_one_order():
    places = np.random.default_rng(0).permutation(len(ASCENDING)).tolist()
    records = [{"a": ASCENDING[place]} for place in places]
    assert [places[row] for row in ordered("a", records)] == list(range(len(ASCENDING)))
    assert [places[row] for row in ordered("-a", records)] == list(reversed(range(len(ASCENDING))))


@pytest.mark.parametrize("order_by", ["a", "-a"])
def test_a_missing_field_is_last_both_ways(order_by):
    assert ordered(order_by, [{"b": 1}, {"a": None}, {}, {"a": [1]}])[-2:] == [0, 2]


@pytest.mark.parametrize("order_by", ["a", "-a"])
def test_equal_values_keep_record_order(order_by):
    for equal in ([1, 1.0, 1], ["x"] * 3, [[1], {"b": 1}, []], [0.0, -0.0, 0], [NAN, NAN], [None, None]):
        assert ordered(order_by, [{"a": value} for value in equal]) == list(range(len(equal)))


def test_later_fields_break_ties():
    records = [{"y": 2, "t": "b"}, {"y": 1, "t": "z"}, {"y": 2, "t": "a"}, {"t": "a"}, {"y": 2}]
    assert ordered(["y", "t"], records) == [1, 2, 0, 4, 3]
    assert ordered(["-y", "t"], records) == [2, 0, 4, 1, 3]
    assert ordered(["-y", "-t"], records) == [0, 2, 4, 1, 3]
    assert ordered(("t",), records) == [2, 3, 0, 1, 4]


def test_paths_go_through_dicts():
    records = [{"a": {"b": 2}}, {"a": {"b": 1}}, {"a": [{"b": 0}]}, {"a": 5}]
    assert ordered("a.b", records) == [1, 0, 2, 3]


@pytest.mark.parametrize("limit", [0, 1, 3, 100])
def test_a_limit_is_the_beginning_of_the_whole_order(limit):
    records = [{"a": (7 * number) % 20, "b": number % 2} for number in range(60)]
    assert ordered(["b", "-a"], records, limit) == ordered(["b", "-a"], records)[:limit]


def test_ties_go_by_row_whatever_the_order_of_the_rows():
    order = parse_order("a")
    keys = [order.key({"a": 1})] * 4
    assert order.sort([9, 3, 7, 1], keys) == [1, 3, 7, 9]
    assert order.sort([9, 3, 7, 1], keys, 2) == [1, 3]


def test_an_order_knows_its_paths():
    order = parse_order(["-a.b", "c"])
    assert order == Order((Sort("a.b", descending=True), Sort("c", descending=False)))
    assert order.paths == ("a.b", "c")


@pytest.mark.parametrize(
    ("order_by", "said"),
    [
        (None, "NoneType"),
        (5, "int"),
        ([5], "list"),
        ({"a"}, "set"),
        ([], "0 fields"),
        ([f"p{number}" for number in range(MAX_FIELDS + 1)], "17 fields"),
        ("", "field ''"),
        ("-", "field ''"),
        ("$a", "dotted path"),
        (["a", "-a"], "a field twice"),
    ],
)
def test_what_is_wrong_is_said(order_by, said):
    with pytest.raises(ParameterError, match=f"order_by .*{said}") as caught:
        parse_order(order_by)
    assert caught.value.name == "order_by" and caught.value.hint


def test_rows_and_keys_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        parse_order("a").sort([1, 2], [(False, 0, 0)])
