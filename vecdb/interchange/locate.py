"""Turn "row 3 of this batch" into "line 12,004 of docs.jsonl.gz": errors of a batch, told in the source's terms."""

from __future__ import annotations

from typing import Any

from vecdb.errors import DuplicateIdError, RecordExistsError, VecdbError
from vecdb.interchange.chunks import Chunk

__all__ = ["duplicate", "located"]

_PLACES = ("row", "position", "first", "second")


def located(error: VecdbError, chunk: Chunk, name: str) -> VecdbError:
    """Return an error of the same class that says where in the source the record stands.

    Parameters
    ----------
    error : VecdbError
        Raised for `chunk`; its ``row``, ``position``, ``first`` and ``second`` count from the start of the chunk.
    chunk : Chunk
    name : str
        The source of the records.

    Returns
    -------
    VecdbError
        With row numbers of the source; `error` itself if it names no row.
    """
    data = {field: getattr(error, field) for field in error.fields}
    places = [data[field] for field in _PLACES if type(data.get(field)) is int and data[field] < len(chunk.ids)]
    if not places:
        return error
    for field in _PLACES:
        if data.get(field) in places and type(data[field]) is int:
            data[field] = chunk.first + data[field]
    where = " and ".join(_where(chunk, place, name) for place in places)
    message = f"{where} (record {' and '.join(str(place) for place in places)} of this batch): {error.message}"
    return type(error)(message, hint=error.hint, **data)


def duplicate(error: RecordExistsError, chunk: Chunk, name: str) -> DuplicateIdError:
    """Return the error for an id that came twice in the source of an import into an empty collection."""
    given = error.ids if isinstance(error.ids, list | tuple) else [error.ids]  # type: ignore[attr-defined]
    first: Any = given[0] if given else None
    place = chunk.ids.index(first) if first in chunk.ids else 0
    return DuplicateIdError(
        f"{_where(chunk, place, name)}: id {first!r} came before in the same source, or was written meanwhile.",
        hint="make the ids unique; the batches before this one are committed.",
        id=first,
        second=chunk.first + place,
    )


def _where(chunk: Chunk, place: int, name: str) -> str:
    line = f", line {chunk.lines[place]:,}" if chunk.lines else ""
    return f"{name}, row {chunk.first + place:,}{line}"
