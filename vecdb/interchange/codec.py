"""One record as one line of JSON, without loss.

JSON has no NaN and no infinities, so these floats are written as ``{"$float": "NaN"}``, ``{"$float": "Infinity"}``
and ``{"$float": "-Infinity"}``. The form cannot collide with data: vecdb refuses metadata keys that hold ``$``.
Invariant: ``loads(dumps(x))`` equals ``x`` in value and type for all that a record can hold; ints keep their 64 bits
and every finite float its 64 (the shortest decimal that reads back). The bare words ``NaN`` and ``Infinity``, which
some programs write, are accepted when reading. Who calls it: every reader and writer of this folder and the command
line. The format is described in `vecdb.interchange.manifest`.
"""

from __future__ import annotations

import json
from math import inf, isfinite, isnan, nan
from typing import Any

from vecdb.errors import SourceError

__all__ = ["dumps", "loads"]

_FLOATS = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}
_KEY = "$float"


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return strict JSON on one line (or indented, for people).

    Parameters
    ----------
    value : None, bool, int, float, str, list or dict
    indent : int, optional
        Spaces a level; None writes one line.
    """
    separators = (",", ":") if indent is None else None
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=separators, indent=indent)
    except ValueError:  # a float that JSON has no word for
        return json.dumps(_encode(value), ensure_ascii=False, allow_nan=False, separators=separators, indent=indent)


def loads(line: bytes | str, *, path: str, number: int | None = None) -> Any:
    """Read what `dumps` wrote, or any JSON.

    Parameters
    ----------
    line : bytes or str
        UTF-8.
    path : str
        For the message: where the line stands.
    number : int, optional
        Its line number, from 1.

    Raises
    ------
    SourceError
        Naming `path` and `number`, for anything that is not JSON.
    """
    try:
        text = line if isinstance(line, str) else line.decode()
        return (_WITH_FLOATS if _KEY in text else _PLAIN).decode(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{place(path, number)} is not valid JSON: {_reason(error)}.",
            hint="each line must hold one complete JSON document in UTF-8." if number is not None else None,
            path=path,
            line=number,
        ) from error


def place(path: str, number: int | None) -> str:
    return path if number is None else f"{path}, line {number:,},"


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return str(error).rstrip(".")


def _decode(found: dict[str, Any]) -> Any:
    if len(found) == 1 and _KEY in found:
        word = found[_KEY]
        if not isinstance(word, str) or word not in _FLOATS:
            raise ValueError(f'"{_KEY}" must be one of {", ".join(_FLOATS)}')
        return _FLOATS[word]
    return found


# Made once: json.loads with a hook makes a decoder for each line, and a hook is called for each object.
_PLAIN = json.JSONDecoder()
_WITH_FLOATS = json.JSONDecoder(object_hook=_decode)


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return {_KEY: "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value
