"""The state of a fitted object as bytes: plain values and arrays as msgpack, nothing that runs when it is read.

Containers and arrays are written as lists that begin with a letter, so that no value can be mistaken for another:
``["d", {name: value}]``, ``["l", value, ...]``, ``["a", dtype, shape, bytes]``. Invariant: whatever bytes come in, only
`CorruptionError` comes out, and an array is made only where its bytes are there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from vecdb.errors import CorruptionError
from vecdb.storage.format import Buffer, pack, stored_numbers, unpack

MAX_DEPTH: Final = 16
_MAX_AXES: Final = 8
_KINDS: Final = "biuf"


def pack_state(state: Mapping[str, Any]) -> bytes:
    """Return a state as bytes; the caller made sure that it holds plain values and arrays only."""
    return pack(_tagged(dict(state)))


def _tagged(value: Any) -> Any:
    if isinstance(value, dict):
        return ["d", {name: _tagged(part) for name, part in value.items()}]
    if isinstance(value, (list, tuple)):
        return ["l", *map(_tagged, value)]
    if isinstance(value, np.ndarray):
        plain = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        return ["a", plain.dtype.str, list(value.shape), plain.tobytes()]
    return value


def unpack_state(data: Buffer, what: str) -> dict[str, Any]:
    """Invert `pack_state`; arrays are read-only.

    Raises
    ------
    CorruptionError
    """
    try:
        state = _untagged(unpack(data, what), 0)
    except (TypeError, ValueError) as error:
        raise CorruptionError(f"{what} has a wrong shape: {error}", what=what) from error
    if type(state) is not dict:
        raise CorruptionError(f"{what} is a {type(state).__name__}, expected names and values", what=what)
    return state


def _untagged(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deep")
    if type(value) is not list:
        if value is not None and type(value) not in (bool, int, float, str, bytes):
            raise TypeError(f"{type(value).__name__} in the place of a value")
        return value
    tag, *parts = value
    if tag == "l":
        return [_untagged(part, depth + 1) for part in parts]
    if tag == "d" and len(parts) == 1 and type(parts[0]) is dict:
        return {_name(name): _untagged(part, depth + 1) for name, part in parts[0].items()}
    if tag == "a" and len(parts) == 3:
        return _array(*parts)
    raise ValueError(f"{tag!r} begins no value")


def _name(name: Any) -> str:
    if type(name) is not str:
        raise TypeError(f"{type(name).__name__} in the place of a name")
    return name


def _array(kind: Any, shape: Any, data: Any) -> Any:
    if type(kind) is not str or type(data) is not bytes or type(shape) is not list or len(shape) > _MAX_AXES:
        raise TypeError("an array of a wrong form")
    dtype = np.dtype(kind)
    if dtype.kind not in _KINDS or dtype.itemsize > 8 or dtype.hasobject:
        raise TypeError(f"an array of {kind}")
    axes = stored_numbers(shape, "state")
    if math.prod(axes) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {axes} in {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(axes).astype(dtype.newbyteorder("="), copy=False)
