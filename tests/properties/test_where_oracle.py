"""Columns, conditions and orders against evaluators written here from the rules alone (docs/reference/where.md)."""

import functools
import math
from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from vecdb.engine.order import parse_order
from vecdb.engine.where import parse
from vecdb.metadata import normalise_metadata, validate_metadata
from vecdb.storage.columns import MISSING, OPAQUE, ColumnChunk, encode_columns

# --- metadata ---------------------------------------------------------------------------------------------

BIG = [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
EDGES = [0.0, -0.0, 1.0, 2.5, float(2**53), float(2**63), -float(2**63), math.nan, math.inf, -math.inf, 5e-324]
TEXTS = ["", "a", "ab", "b", "B", "é", "\uffff", "\U0001f600", "a\x00", "zz"]
KEYS = ["a", "b", "c", ""]
PATHS = ["a", "b", "c", "", "a.b", "b.a", "a.b.c", "a.", ".a", "zz"]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(BIG),
    st.sampled_from(EDGES),
    st.floats(),
    st.sampled_from(TEXTS),
    st.text(alphabet="abé\U0001f600", max_size=3),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
# Columns of one type take other paths through the code than mixed ones.
uniform = st.sampled_from([st.integers(-300, 300), st.floats(), st.sampled_from(TEXTS), st.booleans()]).flatmap(
    lambda kind: st.lists(st.fixed_dictionaries({}, optional={"a": kind, "b": st.lists(kind, max_size=3)}), max_size=12)
)
batches = st.lists(records, max_size=12) | uniform

# --- conditions -------------------------------------------------------------------------------------------

operands = scalars | st.sampled_from([2**64, -(10**400), 10**400, 2**63, "\ud800", "\udfff", float(2**53) + 2])
fields = st.fixed_dictionaries(
    {},
    optional={
        **{name: operands for name in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains")},
        "$in": st.lists(operands, max_size=20),
        "$nin": st.lists(operands, max_size=3),
        "$exists": st.booleans(),
    },
).filter(bool)
field_tests = operands | fields | st.builds(lambda inner: {"$not": inner}, fields)
leaves = st.dictionaries(st.sampled_from(PATHS), field_tests, max_size=2)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
        st.builds(lambda part, other: {"$not": part, **other}, inner, leaves),
    ),
    max_leaves=4,
)

# --- the rules, once more -----------------------------------------------------------------------------------

NOTHING = object()


def at(record, path):
    for key in path.split("."):
        if not isinstance(record, dict) or key not in record:
            return NOTHING
        record = record[key]
    return record


def family(value):
    if value is None:
        return "null"
    return {bool: "bool", int: "number", float: "number", str: "str"}.get(type(value), "container")


def sign(left, right):
    """-1, 0 or 1, or None where the two have no order."""
    if family(left) != family(right) or family(left) in ("null", "container"):
        return 0 if left is None and right is None else None
    if family(left) == "number":
        if left != left or right != right:
            return None
        left, right = exact(left), exact(right)
    elif family(left) == "str":
        left, right = [ord(c) for c in left], [ord(c) for c in right]
    return (left > right) - (left < right)


def exact(number):
    """A number as (infinity or not, exact fraction), so that no float rounding is involved."""
    if isinstance(number, float) and math.isinf(number):
        return (1 if number > 0 else -1, Fraction(0))
    return (0, Fraction(number))


WANTED = {"$eq": {0}, "$gt": {1}, "$gte": {0, 1}, "$lt": {-1}, "$lte": {-1, 0}}


def passes(value, op, operand):
    if value is None and op != "$eq":
        return False  # null only equals null
    return sign(value, operand) in WANTED[op]


def some(value, test):
    return any(map(test, value)) if isinstance(value, list) else test(value)


def field_holds(value, op, operand):
    if op == "$not":
        return not all(field_holds(value, inner, its) for inner, its in operand.items())
    if op == "$exists":
        return (value is not NOTHING) == operand
    if op == "$ne":
        return not field_holds(value, "$eq", operand)
    if op == "$nin":
        return not field_holds(value, "$in", operand)
    if value is NOTHING:
        return False
    if op == "$in":
        return any(field_holds(value, "$eq", one) for one in operand)
    if op == "$contains":
        if isinstance(value, list):
            return any(passes(member, "$eq", operand) for member in value)
        return isinstance(value, str) and isinstance(operand, str) and operand in value
    return some(value, lambda member: passes(member, op, operand))


def holds(where, record):
    for key, value in where.items():
        if key == "$and":
            good = all(holds(part, record) for part in value)
        elif key == "$or":
            good = any(holds(part, record) for part in value)
        elif key == "$not":
            good = not holds(value, record)
        else:
            tests = value if isinstance(value, dict) else {"$eq": value}
            good = all(field_holds(at(record, key), op, operand) for op, operand in tests.items())
        if not good:
            return False
    return True


# --- chunks -----------------------------------------------------------------------------------------------


def never():
    raise AssertionError("the chunk covers every path: no record may be read")


def chunk_of(batch, *, shift=0):
    rows = np.cumsum(np.arange(1, len(batch) + 1, dtype=np.uint64), dtype=np.uint64)
    raw = encode_columns(rows, batch)
    chunk = ColumnChunk.open(memoryview(bytes(shift) + raw)[shift:])
    assert chunk.rows.tolist() == rows.tolist()
    return chunk


class Partial:
    """A chunk that says it does not keep some paths, as one with too many paths does."""

    def __init__(self, chunk, hidden):
        self._chunk = chunk
        self._hidden = hidden

    def __len__(self):
        return len(self._chunk)

    def covers(self, path):
        return path not in self._hidden

    def column(self, path):
        assert self.covers(path)
        return self._chunk.column(path)

    def values(self, path):
        assert self.covers(path)
        return self._chunk.values(path)


def shown(value):
    """What a column gives back for a value."""
    if isinstance(value, list):
        return [OPAQUE if isinstance(member, list | dict) else member for member in value]
    return OPAQUE if isinstance(value, dict) else value


def paths_of(record, prefix=""):
    for key, value in record.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from paths_of(value, prefix + key + ".")


@given(batches, st.integers(0, 7))
def test_columns_give_back_every_value_with_its_type(batch, shift):
    chunk = chunk_of(batch, shift=shift)
    assert sorted(chunk.paths) == sorted({path for record in batch for path in paths_of(record)})
    for path in {*chunk.paths, *PATHS}:
        assert chunk.covers(path)
        expected = [at(record, path) for record in batch]
        expected = [MISSING if value is NOTHING else shown(value) for value in expected]
        assert repr(chunk.values(path)) == repr(expected)  # tells 1, True and 1.0 apart, and shows NaN


@given(batches, conditions)
@example([{"a": 2**53 + 1}, {"a": float(2**53)}], {"a": {"$gt": float(2**53)}})
@example([{"a": True}, {"a": 1}, {"a": 1.0}], {"a": 1})
@example([{"a": math.nan}], {"a": {"$in": [math.nan]}})
@example([{"a": None}, {}], {"a": None})
@example([{"a": [1, "x"]}], {"a": {"$ne": 1}})
@example([{"a": "\uffff"}, {"a": "\U0001f600"}], {"a": {"$gt": "\ud800"}})
@example([{"a": 1.5e308}, {"a": math.inf}, {"a": 7}], {"a": {"$lt": 10**400}})
def test_mask_and_matches_follow_the_rules(batch, where):
    condition = parse(where)
    expected = [holds(where, record) for record in batch]
    assert [condition.matches(record) for record in batch] == expected
    mask = condition.mask(chunk_of(batch), never)
    assert mask.dtype == bool and mask.tolist() == expected


@given(batches, conditions, st.sets(st.sampled_from(PATHS)))
def test_paths_without_a_column_are_answered_from_the_records(batch, where, hidden):
    condition = parse(where)
    calls = []

    def fetch():
        calls.append(1)
        return batch

    chunk = Partial(chunk_of(batch), hidden)
    assert condition.mask(chunk, fetch).tolist() == [holds(where, record) for record in batch]
    assert len(calls) <= 1
    assert condition.uncovered(chunk) == tuple(path for path in condition.paths if path in hidden)
    assert not calls or condition.uncovered(chunk)


@given(batches, conditions)
def test_a_condition_and_its_negation_split_the_records(batch, where):
    chunk = chunk_of(batch)
    mask = parse(where).mask(chunk, never)
    assert np.array_equal(parse({"$not": where}).mask(chunk, never), ~mask)


# --- order ------------------------------------------------------------------------------------------------

RANKS = {"null": 0, "bool": 1, "number": 2, "str": 4, "container": 5}
orders = st.lists(st.sampled_from([path for path in PATHS if path]), min_size=1, max_size=3, unique=True).flatmap(
    lambda paths: st.tuples(*(st.sampled_from([path, "-" + path]) for path in paths)).map(list)
)


def order_sign(left, right, path, falling):
    left, right = at(left, path), at(right, path)
    if left is NOTHING or right is NOTHING:
        return (left is NOTHING) - (right is NOTHING)
    ranks = [3 if value != value else RANKS[family(value)] for value in (left, right)]
    if ranks[0] != ranks[1]:
        result = 1 if ranks[0] > ranks[1] else -1
    else:
        result = 0 if ranks[0] in (0, 3, 5) else sign(left, right)
    return -result if falling else result


def expected_order(batch, order_by):
    def compare(one, other):
        for name in order_by:
            result = order_sign(batch[one], batch[other], name.removeprefix("-"), name.startswith("-"))
            if result:
                return result
        return one - other

    return sorted(range(len(batch)), key=functools.cmp_to_key(compare))


@given(batches, orders, st.sets(st.sampled_from(PATHS)), st.integers(0, 12))
def test_order_is_total_and_the_same_from_records_and_columns(batch, order_by, hidden, limit):
    order = parse_order(order_by)
    expected = expected_order(batch, order_by)
    rows = range(len(batch))
    from_records = [order.key(record) for record in batch]
    chunk = chunk_of(batch)
    for keys in (from_records, order.keys(chunk, never), order.keys(Partial(chunk, hidden), lambda: batch)):
        assert keys == from_records
        assert order.sort(rows, keys) == expected
        assert order.sort(rows, keys, limit) == expected[:limit]
    backwards = list(reversed(rows))
    assert order.sort(backwards, [from_records[row] for row in backwards]) == expected


# --- metadata at the door ---------------------------------------------------------------------------------


@given(records)
def test_plain_metadata_passes_unchanged(record):
    validate_metadata(record, 0)
    assert repr(normalise_metadata(record, 0)) == repr(record)
