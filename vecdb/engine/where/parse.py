"""Checks a `where` dict and builds its condition.

Invariant: a condition that `parse` returns can be evaluated on any stored metadata without an error. What is wrong
with the dict is said here, once, with the path and operator at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NoReturn

import numpy as np

from vecdb.engine.where.condition import AllOf, Condition, Contains, Exists, NoneOf, OneOf, Passes
from vecdb.engine.where.predicates import AnyOf, Op, compare
from vecdb.errors import WhereError

__all__ = ["MAX_DEPTH", "MAX_OPERANDS", "parse"]

MAX_DEPTH = 32
"""Levels of `$and`, `$or` and `$not` inside each other."""
MAX_OPERANDS = 10_000
"""Values compared with, in the whole condition; each member of `$in` counts. As many fields and operators."""

_LOGICAL = ("$and", "$or", "$not")
_COMPARISONS: dict[str, Op] = {"$eq": "$eq", "$gt": "$gt", "$gte": "$gte", "$lt": "$lt", "$lte": "$lte"}
_FIELD_OPERATORS = (*_COMPARISONS, "$ne", "$in", "$nin", "$exists", "$contains", "$not")


def parse(where: Mapping[str, Any]) -> Condition:
    """Return the condition for a `where` dict.

    Parameters
    ----------
    where : mapping
        Fields (dotted paths) to a value or to operators, and `$and`, `$or`, `$not`. ``{}`` selects everything. At
        most `MAX_OPERANDS` operands and `MAX_DEPTH` levels.

    Returns
    -------
    Condition

    Raises
    ------
    WhereError
        With `path` and `operator`, and the nearest known operator as a hint.

    Examples
    --------
    >>> condition = parse({"year": {"$gte": 2020}, "tags": "news"})
    >>> condition.matches({"year": 2024, "tags": ["news", "local"]})
    True
    >>> condition.paths
    ('tags', 'year')
    """
    return _Parser().condition(where, None, 1)


class _Parser:
    """Counts operands over one `where`: a dict that contains itself twice over would otherwise never end."""

    def __init__(self) -> None:
        self._counts = {"operands": 0, "conditions": 0}

    def condition(self, where: Any, operator: str | None, depth: int) -> Condition:
        if not isinstance(where, Mapping):
            hint = 'a condition looks like {"field": value} or {"field": {"$gte": value}}.'
            _fail(f"a condition is of type {_type(where)}, expected a dict.", hint, operator=operator)
        if depth > MAX_DEPTH:
            _fail(f"conditions are nested deeper than {MAX_DEPTH} levels.", "flatten them; $in replaces a long $or.")
        self._count("conditions", len(where), None, operator)
        parts = [self._entry(key, value, depth) for key, value in where.items()]
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _entry(self, key: Any, value: Any, depth: int) -> Condition:
        if not isinstance(key, str):
            _fail(f"a field name is of type {_type(key)}, expected str.", "fields are named by dotted paths, 'a.b'.")
        if key == "$not":
            return NoneOf(self.condition(value, key, depth + 1))
        if key in ("$and", "$or"):
            conditions = _conditions(key, value)
            self._count("conditions", len(conditions), None, key)
            children = tuple(self.condition(child, key, depth + 1) for child in conditions)
            return AllOf(children) if key == "$and" else OneOf(children)
        if "$" in key:
            _unknown_at_top(key)
        return self._field(key, value, depth)

    def _field(self, path: str, value: Any, depth: int) -> Condition:
        if isinstance(value, Mapping):
            return self._operators(path, value, depth)
        return self._test(path, "$eq", value)

    def _operators(self, path: str, operators: Mapping[Any, Any], depth: int) -> Condition:
        if depth > MAX_DEPTH:
            _fail(f"conditions are nested deeper than {MAX_DEPTH} levels.", "flatten them.", path=path)
        if not operators:
            _fail(f"field {_short(path)} has no operator.", '{"$exists": True} asks for the field.', path=path)
        self._count("conditions", len(operators), path, None)
        parts = [self._operator(path, name, operand, depth) for name, operand in operators.items()]
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _operator(self, path: str, name: Any, operand: Any, depth: int) -> Condition:
        if name not in _FIELD_OPERATORS:
            _unknown_of_field(path, name)
        if name == "$not":
            if not isinstance(operand, Mapping):
                hint = '{"$ne": value} is the opposite of a value.'
                _fail_operand(path, name, f"takes a dict of operators, got {_type(operand)}", hint)
            return NoneOf(self._operators(path, operand, depth + 1))
        if name == "$exists":
            return _exists(path, operand)
        return self._test(path, name, operand)

    def _test(self, path: str, name: str, operand: Any) -> Condition:
        parts = tuple(path.split("."))
        if name in ("$in", "$nin"):
            members = [_scalar(path, name, item) for item in self._members(path, name, operand)]
            test: Condition = Passes(path, parts, AnyOf.of(members))
            return test if name == "$in" else NoneOf(test)
        self._count("operands", 1, path, name)
        value = _scalar(path, name, operand)
        if name == "$contains":
            return Contains(path, parts, compare("$eq", value), value if isinstance(value, str) else None)
        if name == "$ne":
            return NoneOf(Passes(path, parts, compare("$eq", value)))
        return Passes(path, parts, compare(_COMPARISONS[name], value))

    def _members(self, path: str, name: str, operand: Any) -> Sequence[Any]:
        if isinstance(operand, np.ndarray) and operand.ndim == 1:
            self._count("operands", len(operand), path, name)
            return operand.tolist() if operand.dtype.kind in "biufUO" else list(operand)
        if isinstance(operand, str | bytes | bytearray | memoryview) or not isinstance(operand, Sequence | Set):
            hint = "pass list(values)." if hasattr(operand, "__iter__") else "one value goes into a list too: [value]."
            _fail_operand(path, name, f"takes a list of values, got {_type(operand)}", hint)
        self._count("operands", len(operand), path, name)
        return list(operand)

    def _count(self, what: str, more: int, path: str | None, name: str | None) -> None:
        self._counts[what] += more
        if self._counts[what] > MAX_OPERANDS:
            hint = "split the call, or store what the values have in common as a field."
            _fail(f"the condition has more than {MAX_OPERANDS:,} {what}.", hint, path=path, operator=name)


def _conditions(key: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not value:
        got = "an empty list" if isinstance(value, list | tuple) else _type(value)
        _fail(
            f"{key} takes a non-empty list of conditions, got {got}.", f'{{"{key}": [{{...}}, {{...}}]}}', operator=key
        )
    return value


def _exists(path: str, operand: Any) -> Condition:
    if not isinstance(operand, bool | np.bool_):
        _fail_operand(path, "$exists", f"takes True or False, got {_type(operand)}", None)
    exists = Exists(path, tuple(path.split(".")))
    return exists if operand else NoneOf(exists)


def _scalar(path: str, name: str, operand: Any) -> bool | int | float | str | None:
    """Return an operand as a built-in type, or say why it cannot be compared with."""
    if operand is None or type(operand) in (bool, int, float, str):
        return operand  # type: ignore[no-any-return]
    for kinds, plain in _RELATIVES:
        if isinstance(operand, kinds) and not isinstance(operand, np.timedelta64):
            return plain(operand)
    _fail_operand(
        path, name, f"compares with None, bool, int, float or str, got {_type(operand)}", _hint(operand, name)
    )


_RELATIVES: tuple[tuple[tuple[type, ...], Callable[[Any], bool | int | float | str]], ...] = (
    ((np.bool_,), bool),
    ((int, np.integer), int),
    ((float, np.floating), float),
    ((str,), str.__str__),  # str() of an enum member would be its name
)


def _hint(operand: Any, name: str) -> str:
    if isinstance(operand, Mapping):
        return 'a nested field is named by its dotted path, {"a.b": value}; operators begin with "$".'
    if isinstance(operand, list | tuple | Set | np.ndarray):
        if name in ("$eq", "$contains"):
            return '{"$in": [...]} asks for one of several values; {"$contains": value} for one member of a list.'
        return "compare with one value; $in and $nin take several."
    return "pass what the metadata holds, such as value.isoformat() for a date."


def _unknown_at_top(key: str) -> NoReturn:
    if key in _FIELD_OPERATORS:
        _fail(f"{key} stands without a field.", f'{{"field": {{"{key}": value}}}}', operator=key)
    if key.startswith("$"):
        _fail(f"unknown operator {_short(key)}.", _closest(key, _LOGICAL), operator=key)
    _fail(
        f"field {_short(key)} has a '$', which no stored key has.", 'operators go inside: {"a": {"$gt": 1}}.', path=key
    )


def _unknown_of_field(path: str, name: Any) -> NoReturn:
    if not isinstance(name, str):
        _fail(f"field {_short(path)}: an operator is of type {_type(name)}, expected str.", None, path=path)
    if name in _LOGICAL:
        hint = f'{name} goes outside of the field: {{"{name}": [{{"field": ...}}, ...]}}.'
    elif name.startswith("$"):
        hint = _closest(name, _FIELD_OPERATORS)
    elif f"${name}" in _FIELD_OPERATORS:
        hint = f"operators begin with a dollar sign: '${name}'."
    else:
        hint = f"a nested field is named by its dotted path, {_short(path + '.' + name)}."
    _fail(f"field {_short(path)}: unknown operator {_short(name)}.", hint, path=path, operator=name)


def _closest(name: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}."


def _fail_operand(path: str, operator: str, problem: str, hint: str | None) -> NoReturn:
    _fail(f"field {_short(path)}: {operator} {problem}.", hint, path=path, operator=operator)


def _fail(problem: str, hint: str | None, *, path: str | None = None, operator: str | None = None) -> NoReturn:
    raise WhereError(f"where: {problem}", hint=hint, path=path, operator=operator)


def _type(value: Any) -> str:
    return type(value).__name__


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
