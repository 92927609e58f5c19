"""Hints in the words of the command line, where those of the library speak of Python calls."""

from __future__ import annotations

from vecdb.errors import (
    CollectionMissingError,
    ExistsError,
    SnapshotExpiredError,
    SpaceMismatchError,
    SpaceMissingError,
    TagMissingError,
    VecdbError,
    WrongModelError,
)

__all__ = ["hint_for"]

_BY_CLASS: dict[type[VecdbError], str] = {
    CollectionMissingError: "vecdb collections DB lists them; vecdb import makes new ones.",
    SpaceMissingError: "vecdb spaces DB lists them; vecdb import makes new ones.",
    SpaceMismatchError: "name it with --space.",
    TagMissingError: "vecdb tag DB lists them; vecdb tag DB NAME makes one.",
    SnapshotExpiredError: "vecdb commits DB lists the commits; vecdb tag DB NAME keeps one readable.",
    WrongModelError: "check which model made them; vectors of another model need a space of their own. "
    "--trust skips this check.",
}

_EXISTS: dict[str, str] = {
    "tag": "vecdb tag DB NAME --remove removes it.",
    "index": "vecdb optimize brings it up to date; vecdb index DB COLLECTION SPACE KIND --drop removes it.",
    "file": "choose another name.",
}
"""By what there is already, unless the command has an option for it and said so."""


def hint_for(error: VecdbError) -> str | None:
    """Return what to do next on the command line."""
    if type(error) is SpaceMismatchError and not error.available:  # type: ignore[attr-defined]
        return "the collection has no space; vecdb import --vectors SPACE=FILE makes one."
    if isinstance(error, ExistsError) and "--" not in (error.hint or ""):
        return _EXISTS.get(str(getattr(error, "kind", "")), error.hint)
    return _BY_CLASS.get(type(error), error.hint)
