"""What a condition selects in a state of the file, remembered: most searches of an application repeat few conditions.

A state never changes, so what was found out about it stays true for as long as it is there; the next commit makes
another one. Invariant: what is remembered is what would be found out anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vecdb.engine.search import Allowed
    from vecdb.storage.snapshot import State

__all__ = ["MOST_BYTES", "known_as", "selected"]

MOST_BYTES: Final = 64 << 20
"""Of the masks of one state; what was asked longest ago goes first."""
_LONGEST: Final = 2_048
_COPIES: Final = 3
"""A mask, the same for the part of an index, and what is left for a scan."""


class _Selections:
    """What conditions select in one state; threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: dict[tuple[int, str], Allowed] = {}
        self._bytes = 0

    def get(self, key: tuple[int, str]) -> Allowed | None:
        with self._lock:
            found = self._found.pop(key, None)
            if found is not None:
                self._found[key] = found  # the last is what was asked for last
            return found

    def put(self, key: tuple[int, str], found: Allowed) -> None:
        with self._lock:
            if key in self._found or _size(found) > MOST_BYTES:
                return
            self._found[key] = found
            self._bytes += _size(found)
            while self._bytes > MOST_BYTES:
                self._bytes -= _size(self._found.pop(next(iter(self._found))))


def _size(found: Allowed) -> int:
    return _COPIES * (0 if found.mask is None else found.mask.nbytes) + _LONGEST


def known_as(where: Mapping[str, Any]) -> str | None:
    """Return what a condition is remembered by, None if it is not: too long, or with names or values of other types.

    Equal text is an equal condition: numbers of different types, ``true`` and strings are written differently. JSON
    would write the names 1 and "1" alike, and only the second is one of a field.
    """
    try:
        text = json.dumps(where)
        return text if len(text) <= _LONGEST and _has_names(where) else None
    except (TypeError, ValueError, RecursionError):
        return None


def _has_names(part: object) -> bool:
    """Whether every name in a part of a condition is a string."""
    if isinstance(part, dict):
        return all(isinstance(name, str) and _has_names(value) for name, value in part.items())
    return not isinstance(part, (list, tuple)) or all(map(_has_names, part))


def selected(state: State, space: int, condition: str, find: Callable[[], Allowed]) -> Allowed:
    """Return which positions of a space a condition allows, found out by `find` if that is not remembered."""
    known: _Selections = state.derived.get("selections") or state.derived.setdefault("selections", _Selections())
    key = (space, condition)
    found = known.get(key)
    if found is None:
        found = find()
        known.put(key, found)
    return found
