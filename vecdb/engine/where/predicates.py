"""Tests of one scalar value, in two forms: on a Python value, and on the arrays of a column.

Types never mix: null, bool, number and str each have their own tests, and a value of another type fails. Ints and
floats are compared exactly, also beyond 2**53. NaN fails every test. Invariant: for each value,
``predicate.holds(value)`` equals the element of ``predicate.parts(values)`` that stands for it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.storage.columns import Tag, Values

__all__ = ["AnyOf", "Op", "Predicate", "compare", "utf8"]

Mask: TypeAlias = npt.NDArray[np.bool_]
Part: TypeAlias = tuple[Tag, "Mask | bool"]
Op: TypeAlias = Literal["$eq", "$gt", "$gte", "$lt", "$lte"]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "$eq": operator.eq,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


class Predicate(Protocol):
    """A test of a scalar."""

    def holds(self, value: Any) -> bool:
        """Whether a Python value passes."""

    def parts(self, values: Values) -> Iterator[Part]:
        """Masks for the types that can pass; see `Values.combine`."""


def compare(op: Op, operand: bool | int | float | str | None) -> Predicate:
    """Return the test ``value <op> operand``; types other than the operand's fail."""
    if operand is None:
        return _Null() if op == "$eq" else _Never()
    if isinstance(operand, bool):
        return _Bool(op, operand)
    if isinstance(operand, str):
        return _Text(op, operand, utf8(operand))
    if isinstance(operand, float) and math.isnan(operand):
        return _Never()
    return _Number(op, operand, _limit_for_ints(op, operand), _limit_for_floats(op, operand))


def utf8(text: str) -> bytes:
    """UTF-8 in which a lone surrogate keeps its place in the order of code points (stored text never has one)."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class _Never:
    def holds(self, value: Any) -> bool:
        return False

    def parts(self, values: Values) -> Iterator[Part]:
        return iter(())


@dataclass(frozen=True, slots=True)
class _Null:
    def holds(self, value: Any) -> bool:
        return value is None

    def parts(self, values: Values) -> Iterator[Part]:
        yield Tag.NULL, True


@dataclass(frozen=True, slots=True)
class _Bool:
    op: Op
    operand: bool

    def holds(self, value: Any) -> bool:
        return isinstance(value, bool) and bool(_OPERATORS[self.op](value, self.operand))

    def parts(self, values: Values) -> Iterator[Part]:
        yield Tag.BOOL, _OPERATORS[self.op](values.bools, int(self.operand))


@dataclass(frozen=True, slots=True)
class _Limit:
    """A comparison rewritten for one number type; `always` replaces it where the answer is the same for all."""

    op: str
    value: int | float
    always: bool | None = None

    def mask(self, array: npt.NDArray[Any]) -> Mask | bool:
        if self.always is None:
            return np.asarray(_OPERATORS[self.op](array, self.value))
        return self.always


@dataclass(frozen=True, slots=True)
class _Number:
    op: Op
    operand: int | float
    for_ints: _Limit
    for_floats: _Limit

    def holds(self, value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and bool(_OPERATORS[self.op](value, self.operand))

    def parts(self, values: Values) -> Iterator[Part]:
        yield Tag.INT, self.for_ints.mask(values.ints)
        yield Tag.FLOAT, self.for_floats.mask(values.floats)


def _limit_for_ints(op: Op, operand: int | float) -> _Limit:
    """Rewrite a comparison with any number as one with a 64-bit int, exactly."""
    if isinstance(operand, float) and math.isinf(operand):
        operand = 2**64 if operand > 0 else -(2**64)
    whole = math.floor(operand)
    name: str = op
    if whole != operand:  # x > 2.5 is x > 2; x < 2.5 is x <= 2
        if op == "$eq":
            return _Limit(op, 0, always=False)
        name = "$gt" if op in ("$gt", "$gte") else "$lte"
    if not _INT_MIN <= whole <= _INT_MAX:
        return _Limit(name, 0, always=bool(_OPERATORS[name](0, whole)))
    return _Limit(name, whole)


def _limit_for_floats(op: Op, operand: int | float) -> _Limit:
    """Rewrite a comparison with any number as one with a float64, exactly."""
    below = _float_not_above(operand)
    if below == operand:
        return _Limit(op, below)
    if op == "$eq":
        return _Limit(op, 0.0, always=False)
    return _Limit("$gt" if op in ("$gt", "$gte") else "$lte", below)


def _is_int64(number: int | float) -> bool:
    return _INT_MIN <= number <= _INT_MAX and number == math.floor(number)


def _float_not_above(number: int | float) -> float:
    """Return the largest float that is not greater than `number`."""
    try:
        nearest = float(number)
    except OverflowError:
        return np.finfo(np.float64).max.item() if number > 0 else -math.inf
    return nearest if nearest <= number else math.nextafter(nearest, -math.inf)


@dataclass(frozen=True, slots=True)
class _Text:
    op: Op
    operand: str
    key: bytes

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and bool(_OPERATORS[self.op](value, self.operand))

    def parts(self, values: Values) -> Iterator[Part]:
        strings = values.strings
        if strings is None:
            return
        if self.op == "$eq":
            code = strings.find(self.key)
            yield Tag.STR, strings.codes == code if code >= 0 else False
        elif self.op in ("$gt", "$lte"):
            after = strings.codes >= strings.right(self.key)
            yield Tag.STR, after if self.op == "$gt" else ~after
        else:
            after = strings.codes >= strings.left(self.key)
            yield Tag.STR, after if self.op == "$gte" else ~after


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf:
    """Equality with one of several operands; `of` builds it."""

    null: bool
    bools: frozenset[bool]
    numbers: frozenset[int | float]
    texts: frozenset[str]
    ints: npt.NDArray[np.int64]
    floats: npt.NDArray[np.float64]
    keys: frozenset[bytes]

    @classmethod
    def of(cls, operands: Iterable[Any]) -> AnyOf:
        """Sort plain operands by type (True equals 1 in Python, not here) and drop NaN, which equals nothing."""
        given = list(operands)
        texts = frozenset(item for item in given if isinstance(item, str))
        numbers = frozenset(
            item for item in given if isinstance(item, int | float) and not isinstance(item, bool) and item == item
        )
        return cls(
            null=any(item is None for item in given),
            bools=frozenset(item for item in given if isinstance(item, bool)),
            numbers=numbers,
            texts=texts,
            ints=np.array(sorted(set(map(int, filter(_is_int64, numbers)))), dtype=np.int64),
            floats=np.array(sorted(f for item in numbers if (f := _float_not_above(item)) == item), dtype=np.float64),
            keys=frozenset(map(utf8, texts)),
        )

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        if isinstance(value, str):
            return value in self.texts
        if isinstance(value, bool):
            return value in self.bools
        return isinstance(value, int | float) and value in self.numbers

    def parts(self, values: Values) -> Iterator[Part]:
        yield Tag.NULL, self.null
        yield Tag.BOOL, np.isin(values.bools, [int(item) for item in self.bools])
        yield Tag.INT, np.isin(values.ints, self.ints)
        yield Tag.FLOAT, np.isin(values.floats, self.floats)
        if values.strings is not None:
            yield Tag.STR, values.strings.among(self.keys)[values.strings.codes]
