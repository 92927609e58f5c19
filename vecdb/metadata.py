"""What metadata and text may be, checked before anything is written.

Metadata is a dict of plain values: None, bool, int (64 bit, signed), float, str, list and dict, nested at most
`MAX_DEPTH` levels. Keys are str without ``.`` (paths in `where` are dotted) and without ``$`` (operators begin
with it). Invariant: whatever `normalise_metadata` returns holds exactly these built-in types and passes
`validate_metadata`. The size limit is enforced where records are serialised. Rules: docs/reference/where.md.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from vecdb.errors import MetadataError

__all__ = ["MAX_DEPTH", "normalise_metadata", "validate_metadata", "validate_text"]

MAX_DEPTH = 32
"""Levels of nesting; the metadata dict itself is the first."""

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_AS_THEY_ARE = frozenset({bool, float, type(None)})
_HINTS = {
    "bytes": "decode it, or store it in base64 as a str.",
    "bytearray": "decode it, or store it in base64 as a str.",
    "memoryview": "decode it, or store it in base64 as a str.",
    "bytes_": "decode it, or store it in base64 as a str.",
    "set": "pass a sorted list.",
    "frozenset": "pass a sorted list.",
    "datetime": "pass value.isoformat() or value.timestamp(); both sort by time.",
    "date": "pass value.isoformat(), which sorts by time.",
    "time": "pass value.isoformat().",
    "timedelta": "pass value.total_seconds().",
    "datetime64": "pass str(value), or the integer it counts.",
    "timedelta64": "pass the integer it counts.",
    "Timestamp": "pass value.isoformat() or value.timestamp().",
    "Decimal": "pass float(value) or str(value).",
    "Fraction": "pass float(value) or str(value).",
    "UUID": "pass str(value).",
    "PosixPath": "pass str(value).",
    "WindowsPath": "pass str(value).",
    "ndarray": "pass value.tolist(); vectors go into a space, not into metadata.",
    "NAType": "pass None, or leave the field out.",
}
_ALLOWED = "None, bool, int, float, str, list and dict"


def validate_metadata(value: Any, position: int | None) -> None:
    """Check that metadata can be stored exactly as it is.

    Parameters
    ----------
    value : dict
        Only built-in types are accepted; see `normalise_metadata` for numpy scalars and tuples.
    position : int or None
        Place of the record in its batch, for the message; None for a single record.

    Raises
    ------
    MetadataError
        With `position` and the dotted `path` of the value at fault.
    """
    _dict(value, _Place(position, convert=False), (), 1)


def normalise_metadata(value: Any, position: int | None) -> dict[str, Any]:
    """Return metadata as a new dict of built-in types, or say what cannot be stored.

    numpy scalars become bool, int, float or str, tuples become lists, and subclasses (``IntEnum``, ``OrderedDict``)
    become the type they derive from.

    Parameters
    ----------
    value : dict
    position : int or None
        Place of the record in its batch, for the message; None for a single record.

    Returns
    -------
    dict
        Shares no container with `value`.

    Raises
    ------
    MetadataError
        With `position` and the dotted `path` of the value at fault.

    Examples
    --------
    >>> normalise_metadata({"year": np.int64(2024), "tags": ("a", "b")}, None)
    {'year': 2024, 'tags': ['a', 'b']}
    """
    return _dict(value, _Place(position, convert=True), (), 1)


def validate_text(value: Any, position: int | None) -> None:
    """Check a record's text: a str that UTF-8 can hold, or None.

    Raises
    ------
    MetadataError
        With `position`; `path` is None because the text is not a field.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise MetadataError(
            f"the text{_of_record(position)} is {_type(value)}, expected str or None.",
            hint="decode bytes first." if isinstance(value, bytes | bytearray) else None,
            position=position,
        )
    if not _encodes(value):
        raise MetadataError(
            f"the text{_of_record(position)} holds a lone surrogate, which UTF-8 cannot store.",
            hint="text.encode('utf-8', 'replace').decode() replaces them.",
            position=position,
        )


class _Place:
    """Which record is being read, and whether close relatives of the plain types are converted or refused."""

    __slots__ = ("convert", "position")

    def __init__(self, position: int | None, *, convert: bool) -> None:
        self.position = position
        self.convert = convert

    def fail(self, path: tuple[str, ...], problem: str, hint: str | None) -> NoReturn:
        dotted = ".".join(path)
        what = f"metadata field {_short(dotted)}" if path else "metadata"
        message = f"{what}{_of_record(self.position)} {problem}"
        raise MetadataError(message, hint=hint, position=self.position, path=dotted)


def _dict(value: Any, place: _Place, path: tuple[str, ...], depth: int) -> dict[str, Any]:
    kind = type(value)
    if kind is not dict and not (place.convert and isinstance(value, dict)):
        place.fail(path, f"is {_type(value)}, expected a dict.", _HINTS.get(kind.__name__, "pass dict(value)."))
    _check_depth(place, path, depth)
    plain: dict[str, Any] = {}
    for key, item in value.items():
        # An identifier has neither dots, "$" nor surrogates: one quick test passes nearly every key.
        if type(key) is not str or not key.isidentifier():
            key = _key(key, place, path)
        kind = type(item)
        if kind in _AS_THEY_ARE or (kind is str and item.isascii()):
            plain[key] = item
        else:
            plain[key] = _value(item, place, (*path, key), depth)
    return plain


def _list(value: Any, place: _Place, path: tuple[str, ...], depth: int) -> list[Any]:
    _check_depth(place, path, depth)
    plain = []
    for number, item in enumerate(value):
        kind = type(item)
        if kind in _AS_THEY_ARE or (kind is str and item.isascii()):
            plain.append(item)
        else:
            plain.append(_value(item, place, (*path, str(number)), depth))
    return plain


def _value(value: Any, place: _Place, path: tuple[str, ...], depth: int) -> Any:
    kind = type(value)
    if kind is int:
        return _int(value, place, path)
    if kind is str:
        return _str(value, place, path)
    if kind is list:
        return _list(value, place, path, depth + 1)
    if kind is dict:
        return _dict(value, place, path, depth + 1)
    if kind in _AS_THEY_ARE:
        return value
    if not place.convert:
        _refuse(value, place, path)
    return _relative(value, place, path, depth)


def _relative(value: Any, place: _Place, path: tuple[str, ...], depth: int) -> Any:
    """Convert what is not a plain type but means the same: numpy scalars, tuples, subclasses."""
    if isinstance(value, np.timedelta64):  # derives from np.integer
        _refuse(value, place, path)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return _int(int(value), place, path)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, str):
        return _str(str.__str__(value), place, path)  # str() of an enum member would be its name
    if isinstance(value, list | tuple):
        return _list(value, place, path, depth + 1)
    if isinstance(value, dict):
        return _dict(value, place, path, depth + 1)
    _refuse(value, place, path)


def _int(value: int, place: _Place, path: tuple[str, ...]) -> int:
    if not _INT_MIN <= value <= _INT_MAX:
        place.fail(path, "is an int outside of 64 bits.", "pass it as a float (rounded) or as a str (exact).")
    return value


def _str(value: str, place: _Place, path: tuple[str, ...]) -> str:
    if not _encodes(value):
        place.fail(
            path,
            "holds a lone surrogate, which UTF-8 cannot store.",
            "text.encode('utf-8', 'replace').decode() replaces them.",
        )
    return value


def _key(given: Any, place: _Place, path: tuple[str, ...]) -> str:
    if not isinstance(given, str) or (type(given) is not str and not place.convert):
        place.fail(path, f"has a key that is {_type(given)}, expected str.", "pass str(key).")
    key: str = str.__str__(given)  # str() of an enum member would be its name
    if "." in key:
        place.fail((*path, key), "has a dot in its key.", "nest a dict instead: {'a': {'b': 1}} is read as 'a.b'.")
    if "$" in key:
        place.fail((*path, key), "has a '$' in its key, which marks operators in `where`.", "rename the key.")
    if not _encodes(key):
        place.fail(path, "has a key with a lone surrogate, which UTF-8 cannot store.", "rename the key.")
    return key


def _check_depth(place: _Place, path: tuple[str, ...], depth: int) -> None:
    if depth > MAX_DEPTH:
        place.fail(path, f"is nested deeper than {MAX_DEPTH} levels.", "store deep structures as one JSON str.")


def _refuse(value: Any, place: _Place, path: tuple[str, ...]) -> NoReturn:
    hint = _HINTS.get(type(value).__name__, f"metadata holds {_ALLOWED}.")
    place.fail(path, f"is {_type(value)}, which cannot be stored.", hint)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type(value: Any) -> str:
    return f"of type {type(value).__name__}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _of_record(position: int | None) -> str:
    return "" if position is None else f" of record {position}"
