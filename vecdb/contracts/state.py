"""What a fitted transform or filter is stored as: plain values and arrays, nothing that runs when it is read.

The engine writes it as one record with a checksum and reads it back with the same types. `state_problems` says what
cannot be stored; `state_digest` is equal exactly where two states are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError

__all__ = ["State", "state_array", "state_digest", "state_problems", "state_value"]

Plain = TypeVar("Plain", bool, int, float, str, bytes)

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


# --- reading one back -------------------------------------------------------------------------------------


def state_array(state: State, name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """Return an array of a state, for `load`, which may believe nothing.

    Parameters
    ----------
    state : mapping
    name : str
    dtype : dtype_like
    shape : tuple of (int or None)
        None: any length of at least 1.

    Returns
    -------
    ndarray
        Read-only. Floating numbers are finite.

    Raises
    ------
    CorruptionError
        It is missing, of another type or shape, or not finite.
    """
    found = state.get(name)
    wanted = np.dtype(dtype)
    if not isinstance(found, np.ndarray) or found.dtype != wanted:
        kind = found.dtype if isinstance(found, np.ndarray) else type(found).__name__
        raise _damaged(name, f"is {kind}, expected an array of {wanted}")
    if found.ndim != len(shape) or not all(
        have >= 1 if want is None else have == want for have, want in zip(found.shape, shape, strict=True)
    ):
        raise _damaged(name, f"has shape {found.shape}, expected {shape}")
    if wanted.kind == "f" and not np.isfinite(found).all():
        raise _damaged(name, "holds numbers that are not finite")
    view = found.view()
    view.flags.writeable = False
    return view


def state_value(state: State, name: str, kind: type[Plain]) -> Plain:
    """Return a plain value of a state, for `load`.

    Raises
    ------
    CorruptionError
        It is missing, of another type, or a float that is not finite.
    """
    found = state.get(name)
    if type(found) is not kind:
        raise _damaged(name, f"is {type(found).__name__}, expected {kind.__name__}")
    if kind is float and not math.isfinite(float(found)):
        raise _damaged(name, f"is {found!r}, expected a finite number")
    return found


def _damaged(name: str, problem: str) -> CorruptionError:
    return CorruptionError(f"{name} of a stored state {problem}", what="state", where=name)
