"""Parameters that a plugin declares once: kind, default, bounds and what they mean; checked here for everybody."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vecdb.errors import ParameterError

__all__ = ["Param", "settle_params"]

_KINDS = {"int": int, "float": float, "str": str, "bool": bool}
MAX_TEXT = 4_096


@dataclass(frozen=True, slots=True)
class Param:
    """One declared parameter.

    Attributes
    ----------
    kind : {"int", "float", "str", "bool"}
        Ints have 64 bits, floats are finite, text is Unicode: what a catalog can hold.
    default : int, float, str or bool
    doc : str
        One sentence, with the unit where there is one.
    low, high : int or float, optional
        Bounds of a number, both inclusive.
    choices : tuple, optional
        The only values there are.
    """

    kind: Literal["int", "float", "str", "bool"]
    default: Any
    doc: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None

    def check(self, owner: str, name: str, value: Any) -> Any:
        """Return `value` as the plain Python value of this kind.

        Raises
        ------
        ParameterError
            A value of another kind, outside the bounds, not among the choices, or not finite.
        """
        plain = _plain(self.kind, value)
        if plain is None or not self._allows(plain):
            raise ParameterError(
                f"parameter {name!r} of {owner} is {value!r}, expected {self.describe()}",
                hint=self.doc,
                name=name,
                got=value,
                allowed=self.describe(),
            )
        return plain

    def read(self, owner: str, name: str, text: str) -> Any:
        """Return the value that a word on the command line means; errors as in `check`."""
        if self.kind == "str":
            return self.check(owner, name, text)
        if self.kind == "bool":
            return self.check(owner, name, {"true": True, "false": False}.get(text.lower(), text))
        try:
            return self.check(owner, name, _KINDS[self.kind](text))
        except ValueError:
            return self.check(owner, name, text)

    def _allows(self, value: Any) -> bool:
        if self.choices is not None and value not in self.choices:
            return False
        if self.kind == "str":
            return len(value) <= MAX_TEXT
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def describe(self) -> str:
        """Return kind and bounds as people read them."""
        if self.choices is not None:
            return "one of " + ", ".join(map(repr, self.choices))
        bounds = [f">= {self.low}"] * (self.low is not None) + [f"<= {self.high}"] * (self.high is not None)
        return " ".join([self.kind, *bounds])


def _plain(kind: str, value: Any) -> Any:
    """Return `value` as a Python value of `kind`, None where it is something else; a bool is never a number."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool) and _is_storable(value):
        value = float(value)
    return value if type(value) is _KINDS[kind] and _is_storable(value) else None


def _is_storable(value: Any) -> bool:
    """Whether the catalog can hold a value: a finite number, an int of 64 bits, text that is Unicode."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def settle_params(owner: str, declared: Mapping[str, Param], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every declared parameter with its given or default value.

    Parameters
    ----------
    owner : str
        Whose parameters, for messages.
    declared : mapping of str to Param
    given : mapping of str to value

    Raises
    ------
    ParameterError
        Not a mapping, a parameter that is not declared (close matches are in the hint), or a value that is not allowed.
    """
    if not isinstance(given, Mapping):
        raise ParameterError(
            f"params of {owner} are {given!r}, expected a mapping from names to values",
            name="params",
            got=given,
            allowed="a mapping",
        )
    for name in given:
        if name not in declared:
            from difflib import get_close_matches  # needed for a message only

            close = get_close_matches(str(name), list(declared), 1)
            raise ParameterError(
                f"{owner} has no parameter {name!r}; it has {sorted(declared) or 'none'}",
                hint=f"Did you mean {close[0]!r}?" if close else None,
                name=name,
                got=given[name],
                allowed=sorted(declared),
            )
    return {
        name: param.check(owner, name, given[name]) if name in given else param.default
        for name, param in declared.items()
    }


def settle_stored(owner: str, declared: Mapping[str, Param], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return every declared parameter with its stored value, or its default where there is none that is allowed.

    The version of a type that stored them may have declared others.
    """
    settled = {}
    for name, param in declared.items():
        settled[name] = param.default
        if name in stored:
            with contextlib.suppress(ParameterError):
                settled[name] = param.check(owner, name, stored[name])
    return settled
