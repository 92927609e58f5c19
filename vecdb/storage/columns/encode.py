"""Turns the metadata of a chunk's records into columns.

Invariant: for every path it keeps, the chunk reads back the same values with the same types; what it leaves out, for
number of paths or for size, is marked so that readers go to the records instead.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import MetadataError, ParameterError
from vecdb.storage.columns.layout import (
    BARE,
    HEADER,
    MAGIC,
    MAX_COLUMN_BYTES,
    MAX_COLUMNS_BYTES,
    MAX_PATHS,
    MAX_RECORDS,
    VERSION,
    Array,
    Tag,
    pack_array,
    pad,
)

__all__ = ["encode_columns"]

_TAGS: dict[type, Tag] = {
    type(None): Tag.NULL,
    bool: Tag.BOOL,
    int: Tag.INT,
    float: Tag.FLOAT,
    str: Tag.STR,
    list: Tag.LIST,
    dict: Tag.DICT,
}
_MEMBER_TAGS: dict[type, Tag] = _TAGS | {list: Tag.DICT}
_Found = dict[str, tuple[list[int], list[Any]]]


def encode_columns(rows: npt.NDArray[np.uint64], metadatas: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the chunk for some records, to be read by `ColumnChunk.open`.

    Parameters
    ----------
    rows : ndarray of uint64, shape (n,), n <= `MAX_RECORDS`
        Record rows, strictly ascending.
    metadatas : sequence of n mappings
        What `vecdb.metadata.normalise_metadata` returned for each.

    Returns
    -------
    bytes
        The `MAX_PATHS` most frequent paths (ties: by name) have columns. A path whose column would pass
        `MAX_COLUMN_BYTES`, or the chunk's `MAX_COLUMNS_BYTES`, is listed without values.

    Raises
    ------
    ParameterError
        If the rows do not rise, are too many, or are not as many as the metadata.
    MetadataError
        If a value is not of a type that metadata has.
    """
    _check_rows(rows, len(metadatas))
    found = _collect(metadatas)
    kept = sorted(found, key=lambda path: (-len(found[path][0]), path))[:MAX_PATHS]
    bodies = [_gaps(rows)]
    names = []
    budget = MAX_COLUMNS_BYTES
    for path in kept:
        body = _column(path, *found[path], records=len(rows))
        if len(body) > min(budget, MAX_COLUMN_BYTES):
            body = b""
        budget -= len(body)
        names.append(path)
        bodies.append(body)
    return _assemble(rows, names, bodies, overflow=len(found) > len(kept))


def _check_rows(rows: Array, count: int) -> None:
    if rows.dtype != np.uint64 or rows.ndim != 1 or len(rows) != count or count > MAX_RECORDS:
        raise ParameterError(
            f"rows are {rows.dtype} of shape {rows.shape}, expected uint64 of shape ({count},), at most {MAX_RECORDS}.",
            name="rows",
            got=rows.shape,
            allowed=(count,),
        )
    if not bool(np.all(rows[1:] > rows[:-1])):
        raise ParameterError("rows are not strictly ascending.", name="rows")


def _collect(metadatas: Sequence[Mapping[str, Any]]) -> _Found:
    """Gather, for each dotted path, the places of the records that have it and their values."""
    found: _Found = {}

    def walk(prefix: str, metadata: Mapping[str, Any], place: int) -> None:
        for key, value in metadata.items():
            path = prefix + key
            if path not in found:
                found[path] = ([], [])
            places, values = found[path]
            places.append(place)
            values.append(value)
            if type(value) is dict:
                walk(path + ".", value, place)

    for place, metadata in enumerate(metadatas):
        if metadata:
            walk("", metadata, place)
    return found


def _assemble(rows: Array, names: list[str], bodies: list[bytes], *, overflow: bool) -> bytes:
    ends = list(itertools.accumulate(map(len, bodies)))
    spans = [[end - len(body), len(body)] for end, body in zip(ends, bodies, strict=True)]
    columns = [[name, *span] for name, span in zip(names, spans[1:], strict=True)]
    directory = json.dumps({"rows": spans[0], "columns": columns}, separators=(",", ":")).encode()
    first = int(rows[0]) if len(rows) else 0
    header = HEADER.pack(MAGIC, VERSION, int(overflow), len(rows), len(directory), first)
    return b"".join([header, directory, bytes(pad(len(directory))), *bodies])


def _gaps(rows: Array) -> bytes:
    """Rows relative to the first; nothing at all where they are consecutive."""
    relative = rows - rows[:1]
    if not len(rows) or int(relative[-1]) == len(rows) - 1:
        return b""
    return pack_array(_narrow_unsigned(relative))


def _column(path: str, places: list[int], values: list[Any], *, records: int) -> bytes:
    here = [] if len(places) == records else places
    try:
        return b"".join([pack_array(np.array(here, dtype=np.uint16)), *_values(values, _TAGS)])
    except (KeyError, OverflowError, UnicodeEncodeError) as error:
        raise MetadataError(
            f"metadata field {path!r} has a value that columns cannot hold: {error!r}.",
            hint="pass metadata through normalise_metadata first.",
            path=path,
        ) from error


def _values(values: Sequence[Any], tag_of: Mapping[type, Tag]) -> list[bytes]:
    """Encode values as the types that occur, the type of each value (unless it is plain), the values by type."""
    tags = bytes([tag_of[type(value)] for value in values])
    occurring = sorted(set(tags))
    blocks = [pack_array(np.array(occurring, dtype=np.uint8))]
    if len(occurring) == 1 and occurring[0] not in BARE:
        return blocks + _payload(Tag(occurring[0]), values)
    blocks.append(pack_array(np.frombuffer(tags, dtype=np.uint8)))
    for tag in occurring:
        blocks += _payload(Tag(tag), [value for value, its in zip(values, tags, strict=True) if its == tag])
    return blocks


def _payload(tag: Tag, values: Sequence[Any]) -> list[bytes]:
    encode = _PAYLOADS.get(tag)
    return encode(values) if encode else []


def _bools(values: Sequence[bool]) -> list[bytes]:
    return [pack_array(np.array(values, dtype=np.uint8))]


def _ints(values: Sequence[int]) -> list[bytes]:
    array = np.array(values, dtype=np.int64)
    low, high = int(array.min()), int(array.max())
    for dtype in (np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return [pack_array(array.astype(dtype))]
    return [pack_array(array)]


def _floats(values: Sequence[float]) -> list[bytes]:
    return [pack_array(np.array(values, dtype=np.float64))]


def _strings(values: Sequence[str]) -> list[bytes]:
    """Encode texts as codes into a dictionary sorted by code point, which is also the order of their UTF-8 bytes."""
    distinct = sorted(set(values))
    code_of = {text: code for code, text in enumerate(distinct)}
    codes = np.array([code_of[text] for text in values], dtype=np.int64)
    encoded = [text.encode() for text in distinct]
    blob = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return [pack_array(_narrow_unsigned(codes)), pack_array(_offsets(map(len, encoded))), pack_array(blob)]


def _lists(values: Sequence[list[Any]]) -> list[bytes]:
    members = list(itertools.chain.from_iterable(values))
    return [pack_array(_offsets(map(len, values))), *_values(members, _MEMBER_TAGS)]


def _offsets(lengths: Any) -> Array:
    return _narrow_unsigned(np.array([0, *itertools.accumulate(lengths)], dtype=np.uint64))


def _narrow_unsigned(array: Array) -> Array:
    high = int(array.max()) if len(array) else 0
    for dtype in (np.uint8, np.uint16, np.uint32):
        if high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array.astype(np.uint64)


_PAYLOADS: dict[Tag, Callable[[Sequence[Any]], list[bytes]]] = {
    Tag.BOOL: _bools,
    Tag.INT: _ints,
    Tag.FLOAT: _floats,
    Tag.STR: _strings,
    Tag.LIST: _lists,
}
