"""Queries with their answers, from a file of JSON lines or an ``.npz``: what relevance filters are fitted on.

A line is ``{"vector": [...], "relevant": ID}`` or has a ``text`` in the place of the vector; ``relevant`` and
``ignore`` are an id or a list of ids, ``group`` is anything that queries of one kind share. An ``.npz`` has arrays
``queries`` (n, d), ``relevant`` (n,) or (n, r) of ids, and perhaps ``ignore`` (n,) or (n, r) and ``group`` (n,);
negative numbers and empty texts are no ids. Nothing in either is executed, and sizes are checked before anything is
read.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import SourceError
from vecdb.interchange.chunks import stack
from vecdb.interchange.codec import loads, place
from vecdb.interchange.convert import as_vectors
from vecdb.interchange.lines import reading, real_lines
from vecdb.interchange.queries import MAX_BYTES
from vecdb.types import Id

__all__ = ["LabelledQueries", "read_labelled"]

_KNOWN = frozenset({"vector", "text", "relevant", "ignore", "group", "id"})
_ARRAYS = frozenset({"queries", "relevant", "ignore", "group"})


@dataclass(frozen=True, slots=True, eq=False)
class LabelledQueries:
    """Queries and what is known of them.

    Attributes
    ----------
    queries : ndarray of shape (n, d), or list of str
    relevant, ignore : list of lists of ids, or None
        None: the file says nothing of it.
    groups : list or None
    """

    queries: Any
    relevant: list[list[Id]] | None
    ignore: list[list[Id]] | None
    groups: list[Any] | None


def read_labelled(path: str | os.PathLike[str]) -> LabelledQueries:
    """Read queries with their answers.

    Parameters
    ----------
    path : path
        A file of JSON lines, or an ``.npz``; at most 256 MiB of vectors.

    Raises
    ------
    SourceError, DTypeError, DimensionError, FileAccessError
    """
    name = os.fspath(path)
    return _from_npz(name) if name.lower().endswith(".npz") else _from_lines(name)


def _from_lines(path: str) -> LabelledQueries:
    entries = []
    for number, line in real_lines(path):
        entry = loads(line, path=path, number=number)
        if not isinstance(entry, dict) or not {"vector", "text"} & set(entry) or set(entry) - _KNOWN:
            raise SourceError(
                f"{place(path, number)} is not a labelled query.",
                hint='write {"vector": [0.1, ...], "relevant": "id"}, or "text" in the place of "vector".',
                path=path,
                line=number,
            )
        entries.append((number, entry))
    if not entries:
        raise SourceError(f"{path} holds no queries.", path=path)
    relevant, ignore = (
        [_ids(entry.get(name), path, number) for number, entry in entries]
        if any(name in entry for _, entry in entries)
        else None
        for name in ("relevant", "ignore")
    )
    grouped = any("group" in entry for _, entry in entries)
    groups = [_group(entry.get("group"), path, number) for number, entry in entries] if grouped else None
    return LabelledQueries(_queries([entry for _, entry in entries], path), relevant, ignore, groups)


def _queries(entries: list[dict[str, Any]], path: str) -> Any:
    if all(isinstance(entry.get("text"), str) and "vector" not in entry for entry in entries):
        return [entry["text"] for entry in entries]
    rows = [entry.get("vector") for entry in entries]
    widths = {len(row) if isinstance(row, list) else None for row in rows}
    if len(widths) != 1 or None in widths:
        raise SourceError(f"{path} holds vectors of several widths, or queries without one.", path=path)
    if len(rows) * next(iter(widths)) * 8 > MAX_BYTES:  # type: ignore[operator]  # None was refused
        raise SourceError(f"{path} holds more than {MAX_BYTES:,} bytes of vectors.", path=path)
    return as_vectors(stack(rows, path, 0).rows, normalise=False, where=path)


def _ids(value: Any, path: str, number: int) -> list[Id]:
    some = [] if value is None else value if isinstance(value, list) else [value]
    if any(not isinstance(id, (str, int)) or isinstance(id, bool) for id in some):
        raise SourceError(f"{place(path, number)} has {value!r} in the place of ids.", path=path, line=number)
    return some


def _group(value: Any, path: str, number: int) -> Any:
    if isinstance(value, (list, dict)):
        raise SourceError(f"{place(path, number)} has {value!r} in the place of a group.", path=path, line=number)
    return value


# --- npz --------------------------------------------------------------------------------------------------


def _from_npz(path: str) -> LabelledQueries:
    with reading(path):
        arrays = _arrays(path)
    if "queries" not in arrays or set(arrays) - _ARRAYS:
        raise SourceError(
            f"{path} holds the arrays {sorted(arrays)}, expected queries and perhaps relevant, ignore, group.",
            path=path,
        )
    queries = as_vectors(arrays["queries"], normalise=False, where=path)
    count = len(queries)
    relevant, ignore = (_id_lists(arrays.get(name), name, count, path) for name in ("relevant", "ignore"))
    groups = arrays.get("group")
    if groups is not None and groups.shape != (count,):
        raise SourceError(f"{path}: group has shape {groups.shape}, expected ({count},).", path=path)
    return LabelledQueries(queries, relevant, ignore, None if groups is None else groups.tolist())


def _arrays(path: str) -> dict[str, npt.NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise SourceError(f"{path} holds more than {MAX_BYTES:,} bytes.", path=path)
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise SourceError(f"{path} is no .npz of plain arrays: {error}.", path=path) from error


def _id_lists(array: npt.NDArray[Any] | None, name: str, count: int, path: str) -> list[list[Id]] | None:
    if array is None:
        return None
    wide = array[:, None] if array.ndim == 1 else array
    if wide.ndim != 2 or len(wide) != count or array.dtype.kind not in "iuU":
        raise SourceError(
            f"{path}: {name} is {array.dtype} of shape {array.shape}, expected ids, {count} or {count} lists of them.",
            path=path,
        )
    return [[id for id in row if (id != "" if isinstance(id, str) else id >= 0)] for row in wide.tolist()]
