"""A write as checked values: ids, bodies and vectors, settled before any lock is taken.

Everything a caller can get wrong is found here, so that an operation inside a transaction only meets conflicts with
what is stored. Invariant: a `Batch` that exists can be stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix, refuse_zero_rows
from vecdb.blocks import row_scales
from vecdb.errors import (
    ArgumentError,
    DimensionError,
    DuplicateIdError,
    IdError,
    MetadataError,
    NonFiniteError,
    ParameterError,
    VectorRangeError,
    ZeroVectorError,
)
from vecdb.int8rows import dequantise, quantise, relative_errors
from vecdb.metadata import normalise_metadata, validate_text
from vecdb.storage.format import EMPTY_BODY, pack_bodies
from vecdb.storage.idkeys import id_keys
from vecdb.types import Id, Space

Matrix: TypeAlias = npt.NDArray[Any]
_NO_ERRORS: Final = np.empty(0, np.float64)


@dataclass(frozen=True, slots=True)
class SpaceBatch:
    """The vectors of one space in a batch: `vectors[i]` belongs to record `places[i]` of the batch.

    Attributes
    ----------
    space : Space
    places : ndarray of int64, shape (n,)
    vectors : ndarray of float32 or float16, shape (n, dim)
        As the space will return them.
    scales : ndarray of float32, shape (n,)
    stored : ndarray of the space's dtype, shape (n, columns)
        As they are stored; `vectors` themselves, but in an int8 space.
    errors : ndarray of float64, shape (n,) or (0,)
        What rounding made of each, relative to its norm; none where nothing is rounded.
    """

    space: Space
    places: npt.NDArray[np.int64]
    vectors: npt.NDArray[Any]
    scales: npt.NDArray[np.float32]
    stored: npt.NDArray[Any]
    errors: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to write, in the caller's order.

    Attributes
    ----------
    ids, keys : tuple
        The ids, and their typed keys.
    metadatas, texts : tuple or None
        None where they were not given.
    bodies : tuple of bytes
        Metadata and text of each record, packed as a new record stores them.
    vectors : tuple of SpaceBatch
    """

    ids: tuple[Id, ...]
    keys: tuple[bytes, ...]
    metadatas: tuple[dict[str, Any], ...] | None
    texts: tuple[str | None, ...] | None
    bodies: tuple[bytes, ...]
    vectors: tuple[SpaceBatch, ...]

    def __len__(self) -> int:
        return len(self.keys)


def make_batch(
    ids: object,
    vectors: Mapping[str, Any] | None,
    metadata: object,
    texts: object,
    spaces: Mapping[str, Space],
    collection: str,
) -> Batch:
    """Check what a caller wants to write and return it as a batch."""
    values, single = id_list(ids)
    keys = unique_keys(values)
    metadatas, given_texts = _metadatas(metadata, len(keys), single), _texts(texts, len(keys), single)
    parts = tuple(_vectors({} if vectors is None else vectors, len(keys), spaces, collection, single))
    return Batch(values, keys, metadatas, given_texts, _bodies(metadatas, given_texts, len(keys)), parts)


def vector_batch(ids: object, vectors: Any, space: Space) -> Batch:
    """Check vectors that existing records are to get in `space`, and return them as a batch."""
    values, single = id_list(ids)
    part = space_batch(space, vectors, len(values), single)
    return Batch(values, unique_keys(values), None, None, _bodies(None, None, len(values)), (part,))


def _bodies(
    metadatas: tuple[dict[str, Any], ...] | None, texts: tuple[str | None, ...] | None, count: int
) -> tuple[bytes, ...]:
    if metadatas is None and texts is None:
        return (EMPTY_BODY,) * count
    nothing: tuple[None, ...] = (None,) * count
    return tuple(pack_bodies(metadatas or ({},) * count, texts or nothing, range(count)))


def id_list(ids: object) -> tuple[tuple[Id, ...], bool]:
    """Return ids as a tuple, and whether a single one was given."""
    if isinstance(ids, (str, int, np.integer)) and not isinstance(ids, bool):
        return (ids,), True  # type: ignore[return-value]
    if isinstance(ids, np.ndarray) and ids.ndim == 1:
        return tuple(ids.tolist()), False
    if isinstance(ids, (bytes, Mapping, np.ndarray)) or not isinstance(ids, Iterable):
        raise IdError(
            f"ids is a {type(ids).__name__}, expected a sequence of str or int", hint="Pass a list.", got=repr(ids)[:80]
        )
    return tuple(ids), False


def unique_keys(ids: Sequence[Id]) -> tuple[bytes, ...]:
    """Return the typed keys of `ids`; none may stand there twice."""
    keys = id_keys(ids)
    if len(set(keys)) != len(keys):
        first: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key in first:
                raise DuplicateIdError(
                    f"id {ids[place]!r} stands at positions {first[key]} and {place} of one batch",
                    hint="Keep the one you mean.",
                    id=ids[place],
                    first=first[key],
                    second=place,
                )
            first[key] = place
    return keys


def _metadatas(metadata: object, count: int, single: bool) -> tuple[dict[str, Any], ...] | None:
    if metadata is None:
        return None
    if isinstance(metadata, Mapping):
        if not single:
            raise MetadataError(
                "metadata is one mapping, expected one for each id", hint="Pass a list of dicts.", position=0
            )
        metadata = [metadata]
    items = _sequence(metadata, count, "metadata")
    return tuple({} if item is None else normalise_metadata(item, place) for place, item in enumerate(items))


def _texts(texts: object, count: int, single: bool) -> tuple[str | None, ...] | None:
    if texts is None:
        return None
    if isinstance(texts, str):
        if not single:
            raise MetadataError("texts is one str, expected one for each id", hint="Pass a list of str.", position=0)
        texts = [texts]
    items = _sequence(texts, count, "texts")
    for place, item in enumerate(items):
        if item is not None:
            validate_text(item, place)
    return tuple(items)


def _sequence(values: object, count: int, name: str) -> list[Any]:
    if not isinstance(values, Iterable):
        raise ParameterError(
            f"{name} is a {type(values).__name__}, expected a list", name=name, got=type(values).__name__
        )
    items = list(values)
    if len(items) != count:
        raise ParameterError(
            f"{name} has {len(items)} entries for {count} ids",
            hint="Give one for each id, None where there is none.",
            name=name,
            got=len(items),
            allowed=count,
        )
    return items


def _vectors(
    vectors: Mapping[str, Any], count: int, spaces: Mapping[str, Space], collection: str, single: bool
) -> Iterable[SpaceBatch]:
    if not isinstance(vectors, Mapping):
        raise ArgumentError(
            f"vectors is a {type(vectors).__name__}, expected a dict from space to array",
            hint="Write vectors={'name': X}.",
        )
    for name in vectors:
        if name not in spaces:
            raise unknown_space(name, spaces, collection)
    for name, values in vectors.items():
        if values is not None:
            yield space_batch(spaces[name], values, count, single)


def unknown_space(name: object, spaces: Mapping[str, Space], collection: str) -> Exception:
    """Return the error for a space that the collection does not have."""
    from vecdb.storage.snapshot import find_space
    from vecdb.storage.state import CollectionEntry

    try:
        find_space(CollectionEntry(0, collection, spaces), name)
    except LookupError as error:
        return error
    raise AssertionError(name)


def space_batch(space: Space, values: Any, count: int, single: bool) -> SpaceBatch:
    """Check the vectors of one space; a list may hold None for records without a vector."""
    places = np.arange(count, dtype=np.int64)
    if isinstance(values, (list, tuple)) and any(value is None for value in values):
        if len(values) != count:
            raise _wrong_count(space, len(values), count)
        places = np.array([place for place, value in enumerate(values) if value is not None], np.int64)
        values = [value for value in values if value is not None]
    where = f"vectors of space {space.name!r}"
    try:
        matrix, stored, errors = _rounded(space, values, where, single)
    except (NonFiniteError, VectorRangeError, ZeroVectorError) as error:
        row: int | None = vars(error).get("row")
        if len(places) == count or row is None:
            raise
        raise _at_position(error, int(places[row])) from None
    if len(matrix) != len(places):
        raise _wrong_count(space, len(matrix), count)
    return SpaceBatch(space, places, matrix, row_scales(space.metric, matrix), stored, errors)


def _rounded(space: Space, values: Any, where: str, single: bool) -> tuple[Matrix, Matrix, npt.NDArray[np.float64]]:
    """Return vectors as the space will return them, as it stores them, and what rounding made of each."""

    def accepted(dtype: Literal["float32", "float16"]) -> Matrix:
        return as_matrix(values, space.dim, metric=space.metric, dtype=dtype, where=where, allow_single=single)

    if space.dtype == "float32":
        kept = accepted("float32")
        return kept, kept, _NO_ERRORS
    if space.dtype == "float16":
        kept = accepted("float16")
        return kept, kept, np.zeros(len(kept)) if _is_half(values) else relative_errors(accepted("float32"), kept)
    given = accepted("float32")
    stored = quantise(given)
    kept = dequantise(stored, space.dim)
    if space.metric == "cosine":
        refuse_zero_rows(kept, where, "int8")
    return kept, stored, relative_errors(given, kept)


def _is_half(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype == np.float16


def _at_position(error: ArgumentError, position: int) -> ArgumentError:
    """Return the error with the record's position in the batch, where records without a vector were left out."""
    data = {name: getattr(error, name) for name in error.fields} | {"row": position}
    return type(error)(f"record {position} of the batch: {error.message}", hint=error.hint, **data)


def _wrong_count(space: Space, got: int, count: int) -> DimensionError:
    return DimensionError(
        f"space {space.name!r} was given {got} vectors for {count} ids",
        hint="Give one row for each id; a list may hold None where there is no vector.",
        expected=count,
        got=got,
        where=f"vectors of space {space.name!r}",
    )


def upsert_arguments(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `upsert` that one batch of `upsert_many` holds."""
    given = {str(name) for name in batch} if hasattr(batch, "keys") else {type(batch).__name__}
    unknown = given - {"ids", "vectors", "metadata", "texts"}
    if unknown or "ids" not in given:
        raise ParameterError(
            f"a batch of upsert_many has {sorted(unknown) or 'no ids'}",
            hint="Each batch is a dict with ids, and optionally vectors, metadata, texts.",
            name="batches",
            got=sorted(given),
        )
    return dict(batch)
