"""Open a database for a command, and find in it what the command line names."""

from __future__ import annotations

import os

import vecdb
from vecdb.errors import MissingError, RecordMissingError
from vecdb.types import Id

__all__ = ["find_id", "reading", "writing"]


def reading(path: str) -> vecdb.Database:
    """Open an existing database read-only."""
    _check_there(path)
    return vecdb.open(path, mode="r")


def writing(path: str, timeout: float) -> vecdb.Database:
    """Open an existing database for writing."""
    _check_there(path)
    return vecdb.open(path, mode="a", timeout=timeout)


def _check_there(path: str) -> None:
    if not os.path.exists(path):
        raise MissingError(f"there is no database at {path}.", hint="check the name; import creates one.")


def find_id(collection: vecdb.Collection, text: str, int_ids: bool, as_of: int | str | None) -> Id:
    """Return the id that a word on the command line means.

    Parameters
    ----------
    collection : Collection
    text : str
    int_ids : bool
        The word is a number, whatever ids there are.
    as_of : int, str or None
        The state in which it is looked up.

    Returns
    -------
    str or int
        The str if a record has it, else the int if the word is one and a record has that.

    Raises
    ------
    RecordMissingError
        No record has it.
    """
    number = _number(text)
    words: list[Id] = [] if int_ids else [text]
    for candidate in words if number is None else [*words, number]:
        if candidate != "" and collection.get([candidate], missing_ok=True, as_of=as_of) != [None]:
            return candidate
    raise RecordMissingError(
        f"collection {collection.name!r} has no record with id {text!r}.",
        hint="ids may be numbers or text; vecdb get --help says how they are told apart.",
        ids=[text],
        collection=collection.name,
    )


def _number(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**63 else None
