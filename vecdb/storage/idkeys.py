"""Typed keys of record ids: ``s`` + UTF-8, or ``i`` + 8 bytes, so that ``1`` and ``"1"`` stay two ids.

Invariant: what is refused here is refused with its place among the ids of the call, alone or among many.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError, IdError
from vecdb.types import MAX_ID_BYTES, Id

_U64 = struct.Struct(">Q")
_I64_SHIFT: Final = 1 << 63
_FEW: Final = 4
"""Keys up to which numpy takes longer than a loop."""


def id_key(value: Id, position: int | None = None) -> bytes:
    """Return the typed key of a record id: ``s`` + UTF-8, or ``i`` + 8 bytes; ``1`` and ``"1"`` stay two ids."""
    where = "" if position is None else f" at position {position}"
    if type(value) is str:
        try:
            raw = value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise IdError(
                f"id{where} holds a lone surrogate and is not valid text", got=repr(value), position=position
            ) from error
        if not 0 < len(raw) <= MAX_ID_BYTES:
            raise IdError(
                f"id{where} has {len(raw)} bytes of UTF-8, expected 1 to {MAX_ID_BYTES}",
                hint="Hash long ids, and keep the long form in the metadata.",
                got=value[:80],
                position=position,
            )
        return b"s" + raw
    if isinstance(value, (bool, np.bool_)):
        raise IdError(f"id{where} is a bool ({value!r}), expected str or int", got=value, position=position)
    if isinstance(value, (int, np.integer)):
        number = int(value)
        if not -_I64_SHIFT <= number < _I64_SHIFT:
            raise IdError(
                f"id{where} is {number}, outside the 64-bit range", hint="Use a str.", got=number, position=position
            )
        return b"i" + _U64.pack(number + _I64_SHIFT)
    if isinstance(value, str):
        return id_key(str(value), position)
    raise IdError(
        f"id{where} is a {type(value).__name__}, expected str or int",
        hint="Convert it to str.",
        got=repr(value)[:80],
        position=position,
    )


def id_keys(ids: Sequence[Id]) -> tuple[bytes, ...]:
    """Return `id_key` of each id; ids of one type, which is nearly every batch, are encoded together."""
    kinds = set(map(type, ids)) if len(ids) > 1 else set()
    keys = _text_keys(ids) if kinds == {str} else _number_keys(ids) if kinds == {int} else None
    return tuple(id_key(value, place) for place, value in enumerate(ids)) if keys is None else keys


def _text_keys(ids: Sequence[Any]) -> tuple[bytes, ...] | None:
    """Return the keys of str ids, None if one of them is refused."""
    try:
        keys = tuple([b"s" + value.encode() for value in ids])
    except UnicodeEncodeError:
        return None
    lengths = set(map(len, keys))
    return keys if min(lengths) > 1 and max(lengths) <= MAX_ID_BYTES + 1 else None


def _number_keys(ids: Sequence[Any]) -> tuple[bytes, ...] | None:
    """Return the keys of int ids, None if one of them is refused."""
    try:
        numbers = np.array(ids, np.int64)
    except OverflowError:
        return None
    return tuple(prefixed(b"i", numbers.view(np.uint64) ^ np.uint64(_I64_SHIFT)))


def prefixed(prefix: bytes, numbers: Sequence[int] | npt.NDArray[np.uint64]) -> list[bytes]:
    """Return `prefix` + u64 of each number: the keys of many rows at once."""
    if len(numbers) <= _FEW:
        return [prefix + _U64.pack(number) for number in numbers]
    width = len(prefix) + 8
    keys = np.empty((len(numbers), width), np.uint8)
    keys[:, :-8] = np.frombuffer(prefix, np.uint8)
    keys[:, -8:] = np.asarray(numbers, np.uint64).astype(">u8").view(np.uint8).reshape(-1, 8)
    return pieces(keys.tobytes(), width)


def pieces(data: bytes, width: int) -> list[bytes]:
    """Cut `data` into pieces of one width."""
    return list(struct.unpack(f"{width}s" * (len(data) // width), data))


def id_value(key: bytes | bytearray | memoryview) -> Id:
    """Invert `id_key`."""
    raw = bytes(key)
    if raw[:1] == b"i" and len(raw) == 9:
        return int(_U64.unpack(raw[1:])[0]) - _I64_SHIFT
    if raw[:1] == b"s" and 1 < len(raw) <= MAX_ID_BYTES + 1:
        try:
            return raw[1:].decode("utf-8")
        except UnicodeDecodeError:
            pass
    raise CorruptionError("a stored id cannot be read", what="id", where=raw[:16].hex())
