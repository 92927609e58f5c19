"""Stored things by name, and what is loaded of them: transforms, relevance filters and corrections alike.

What is loaded belongs to one opening of a file and is let go when the catalog stops naming it. Everything here is a
copy, so that the file may be mapped anew under it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, Generic, Protocol, TypeVar

from vecdb.errors import UnknownNameError
from vecdb.storage.snapshot import State

__all__ = ["Memory", "find_named", "memory_of"]

T = TypeVar("T")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


class Memory(Generic[T]):
    """What is loaded of one kind of stored things, by number."""

    def __init__(self) -> None:
        self.loaded: dict[int, T] = {}

    def keep(self, sets: Container[int]) -> None:
        """Let go of what the catalog no longer names."""
        for number in [number for number in self.loaded if number not in sets]:
            self.loaded.pop(number, None)

    def unmap(self) -> None:
        """Nothing lies in the map: everything is a copy."""


def memory_of(state: State, what: str) -> Memory[Any]:
    """Return the memory of one kind of things, the same for all readers of this opening of the file."""
    known: Memory[Any] | None = state.loaded_indexes.get(what)
    return state.loaded_indexes.setdefault(what, Memory()) if known is None else known


def find_named(things: Iterable[N], collection: str, kind: str, name: object, hint: str | None = None) -> N:
    """Return the thing of a collection that has a name.

    Parameters
    ----------
    kind : str
        In words, for the error.
    hint : str, optional
        What to do where there is none at all.

    Raises
    ------
    UnknownNameError
    """
    known = []
    for each in things:
        if each.name == name:
            return each
        known.append(each.name)
    raise UnknownNameError(
        f"collection {collection!r} has no {kind} {name!r}; it has {known}",
        hint=None if known else hint,
        kind=kind,
        name=name,
        available=known,
    )
