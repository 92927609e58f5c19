"""How much of a chunk an earlier run has stored already."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb.int8rows import dequantise, quantise
from vecdb.interchange.chunks import Chunk
from vecdb.types import Record

if TYPE_CHECKING:
    from vecdb import Collection

__all__ = ["stored_prefix"]


def stored_prefix(collection: Collection, chunk: Chunk, *, existing: bool, merge: bool) -> int:
    """Return how many records at the start of a chunk are stored already, exactly as the source has them.

    A killed import committed whole batches, so what it left is the beginning of what comes next, never a part of the
    middle.

    Parameters
    ----------
    collection : Collection
    chunk : Chunk
        Its vectors are float16 or float32 already.
    existing : bool
        Only vectors are imported.
    merge : bool
        What the source does not give may be there.
    """
    spaces = collection.spaces
    found: list[Record | None] = [*collection.get(chunk.ids, vectors=list(chunk.vectors), missing_ok=True)]
    vectors = {space: block.spread(len(chunk.ids)) for space, block in chunk.vectors.items()}
    rounded = {space for space in vectors if space in spaces and spaces[space].dtype == "int8"}
    vectors |= {space: [row if row is None else _as_kept(row) for row in vectors[space]] for space in rounded}
    for place, record in enumerate(found):
        if record is None or not _same(record, chunk, place, vectors, existing, merge):
            return place
    return len(found)


def _same(record: Record, chunk: Chunk, place: int, vectors: dict[str, Any], existing: bool, merge: bool) -> bool:
    given = {space: rows[place] for space, rows in vectors.items() if rows[place] is not None}
    if not all(_same_vector(record, space, row) for space, row in given.items()):
        return False
    if existing:
        return True
    metadata = chunk.metadata[place] if chunk.metadata else {}
    text = chunk.texts[place] if chunk.texts else None
    if merge:
        return _same_json({**record.metadata, **metadata}, record.metadata) and text in (None, record.text)
    return set(record.spaces) == set(given) and text == record.text and _same_json(metadata, record.metadata)


def _same_vector(record: Record, space: str, row: npt.NDArray[Any]) -> bool:
    stored = record.vectors.get(space)
    if stored is None or stored.shape != row.shape:
        return False
    with np.errstate(over="ignore"):
        return bool(stored.tobytes() == row.astype(stored.dtype).tobytes())


def _as_kept(row: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a vector as an int8 space would return it."""
    kept: npt.NDArray[np.float32] = dequantise(quantise(row.astype(np.float32).reshape(1, -1)), len(row))[0]
    return kept


def _same_json(one: Any, other: Any) -> bool:
    """Compare as text, so that NaN equals itself and 1 is not 1.0."""
    return _text(one) == _text(other)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_item)


def _item(value: Any) -> Any:
    """A numpy scalar means its Python value; of anything else only that it differs matters."""
    return value.item() if isinstance(value, np.generic) else repr(value)
