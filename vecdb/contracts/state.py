"""What a fitted transform or filter is stored as: plain values and arrays, nothing that runs when it is read.

The engine writes it as one record with a checksum and reads it back with the same types. `state_problems` says what
cannot be stored; `state_digest` is equal exactly where two states are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

__all__ = ["State", "state_digest", "state_problems"]

State: TypeAlias = Mapping[str, Any]
"""Names to None, bool, int of 64 bits, float, str, bytes, ndarray of bool or numbers, and lists and dicts of those."""

MAX_DEPTH = 8
_KINDS = "biuf"


def state_problems(state: Any) -> Iterator[str]:
    """Yield what keeps a state from being stored, each with its place.

    Parameters
    ----------
    state : object
        What a plugin returned.
    """
    if not isinstance(state, dict):
        yield f"the state is {type(state).__name__}, expected dict"
    else:
        yield from _problems(state, "state", 0)


def _problems(value: Any, place: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield f"{place} is nested more than {MAX_DEPTH} deep"
    elif type(value) is dict:
        for name, part in value.items():
            if type(name) is not str:
                yield f"{place} has the key {name!r}, expected str"
            else:
                yield from _problems(part, f"{place}[{name!r}]", depth + 1)
    elif type(value) is list:
        for number, part in enumerate(value):
            yield from _problems(part, f"{place}[{number}]", depth + 1)
    elif type(value) is np.ndarray:
        if value.dtype.kind not in _KINDS or value.dtype.itemsize > 8:
            yield f"{place} is an array of {value.dtype}, expected bool or numbers of at most 64 bits"
    elif type(value) is int:
        if not -(2**63) <= value < 2**64:
            yield f"{place} is an int of more than 64 bits"
    elif value is not None and type(value) not in (bool, float, str, bytes):
        yield f"{place} is {type(value).__name__}, expected a plain value or an array"


def state_digest(state: State) -> str:
    """Return a hexadecimal SHA-256 of names, types, shapes and bytes; the order of names does not matter.

    Raises
    ------
    TypeError
        If the state cannot be stored.
    """
    problems = list(state_problems(state))
    if problems:
        raise TypeError("; ".join(problems))
    digest = hashlib.sha256()
    for part in _parts(state):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        yield f"dict {len(value)}".encode()
        for name in sorted(value):
            yield name.encode("utf-8", "surrogatepass")
            yield from _parts(value[name])
    elif isinstance(value, list):
        yield f"list {len(value)}".encode()
        for part in value:
            yield from _parts(part)
    elif isinstance(value, np.ndarray):
        plain = value.astype(value.dtype.newbyteorder("<"), order="C")
        yield f"array {plain.dtype.str} {plain.shape}".encode()
        yield plain.tobytes()
    else:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        yield type(value).__name__.encode() + b" " + data
