"""Small arguments checked in one place: names, options, numbers."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vecdb.errors import ParameterError

MAX_NAME = 200


def check_name(kind: str, name: object) -> str:
    """Return `name` if a collection, space or tag may be called so."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ParameterError(
            f"a {kind} cannot be named {name!r}",
            hint=f"Use 1 to {MAX_NAME} printable characters.",
            name="name",
            got=name,
            allowed="printable str",
        )
    return name


def check_option(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that is not one of those allowed, with the closest in the hint."""
    if value not in allowed:
        from difflib import get_close_matches

        close = get_close_matches(str(value), allowed, 1)
        raise ParameterError(
            f"{name} is {value!r}, expected one of {tuple(allowed)}",
            hint=f"Did you mean {close[0]!r}?" if close else None,
            name=name,
            got=value,
            allowed=tuple(allowed),
        )


def check_number(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Refuse what is not a number within bounds."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        raise ParameterError(
            f"{name} is {value!r}, expected a number from {low} to {high}", name=name, got=value, allowed=(low, high)
        )


def check_count(name: str, value: object, low: int) -> int:
    """Return an int of at least `low`, below 2**63: many are stored, and a catalog with a larger one is not read."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ParameterError(
            f"{name} is {value!r}, expected an int of at least {low}", name=name, got=value, allowed=f">= {low}"
        )
    if value >= 1 << 63:
        raise ParameterError(f"{name} is {value!r}, expected less than 2**63", name=name, got=value, allowed="< 2**63")
    return int(value)


def check_timeout(value: float) -> float:
    """Return a time-out in seconds that every lock understands; infinity becomes some centuries."""
    check_number("timeout", value, 0)
    return min(float(value), threading.TIMEOUT_MAX)


def check_path(path: object) -> Path:
    """Return `path` as an absolute one if a file may be called so."""
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise ParameterError(
            f"{path!r} is not the path of a file", hint="Name a file, such as 'news.vecdb'.", name="path", got=path
        )
    return Path(os.path.abspath(name))
