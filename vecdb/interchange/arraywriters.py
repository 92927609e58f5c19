"""Writers of arrays: ``.npz``, ``.npy`` and ``.fvecs``."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import ParameterError
from vecdb.interchange.npyfile import NpyWriter, flush_to_disk
from vecdb.interchange.plan import Plan, Written
from vecdb.types import Record

__all__ = ["id_type", "write_fvecs", "write_npy", "write_npz"]

_EPOCH = (1980, 1, 1, 0, 0, 0)


def id_type(plan: Plan, kind: str) -> tuple[type, int]:
    """Return the one type that all ids have, and the most characters in a str; arrays and columns cannot mix them."""
    kinds: set[type] = set()
    width = 1
    for record in plan.records(()):
        kinds.add(type(record.id))
        if isinstance(record.id, str):
            width = max(width, len(record.id))
        if len(kinds) > 1:
            raise ParameterError(
                f"the collection has ids of both types, which {kind} cannot hold in one column.",
                hint="export to a directory or to .jsonl, which keep the type of each id.",
                name="format",
                got=kind,
                allowed="directory, jsonl",
            )
    return (kinds.pop() if kinds else str), width


def write_npy(plan: Plan, path: str) -> Written:
    """Write the vectors of one space."""
    space = plan.only_space(".npy")
    records = 0
    writer = NpyWriter(path, space.returned, space.dim)
    try:
        for record in plan.records():
            records += 1
            for vector in record.vectors.values():
                writer.append(vector)
        writer.finish(flush_to_disk)
    finally:
        writer.close()
    return records, {space.name: writer.rows}


def write_fvecs(plan: Plan, path: str) -> Written:
    """Write the vectors of one space, each preceded by its width."""
    space = plan.only_space(".fvecs")
    width = np.array([space.dim], dtype="<i4").tobytes()
    records = written = 0
    with open(path, "xb", buffering=1 << 20) as stream:
        for record in plan.records():
            records += 1
            for vector in record.vectors.values():
                stream.write(width + vector.astype("<f4").tobytes())
                written += 1
        flush_to_disk(stream)
    return records, {space.name: written}


def write_npz(plan: Plan, path: str) -> Written:
    """Write ``ids`` and one array a space into an archive, by way of one array file each beside it."""
    plan.check_names(("ids",))
    kind, width = id_type(plan, ".npz")
    parts = f"{path}.parts"
    os.mkdir(parts, 0o700)
    try:
        with _open_members(plan, parts, np.dtype(np.int64) if kind is int else np.dtype(f"<U{width}")) as members:
            records = _fill(plan, members)
        counts = {space: members[space].rows for space in plan.spaces}
        complete = {f"{space}.rows" for space, count in counts.items() if count == records}
        with open(path, "xb") as stream:
            _pack(stream, {name: writer.path for name, writer in members.items() if name not in complete})
            flush_to_disk(stream)
    finally:
        shutil.rmtree(parts)
    return records, counts


@contextmanager
def _open_members(plan: Plan, directory: str, ids: np.dtype[Any]) -> Iterator[dict[str, NpyWriter]]:
    """Open one file for each array; they are numbered because the name of a space need not be a file name."""
    shapes: dict[str, tuple[npt.DTypeLike, int | None]] = {"ids": (ids, None)}
    for name, space in plan.spaces.items():
        shapes[name] = (space.returned, space.dim)
        shapes[f"{name}.rows"] = (np.int64, None)
    members: dict[str, NpyWriter] = {}
    try:
        for number, (name, (dtype, width)) in enumerate(shapes.items()):
            members[name] = NpyWriter(os.path.join(directory, str(number)), dtype, width)
        yield members
        for writer in members.values():
            writer.finish()
    finally:
        for writer in members.values():
            writer.close()


def _fill(plan: Plan, members: dict[str, NpyWriter]) -> int:
    records = 0
    for record in plan.records():
        members["ids"].append(np.array([record.id], dtype=members["ids"].dtype))
        _add_vectors(record, records, members)
        records += 1
    return records


def _add_vectors(record: Record, row: int, members: dict[str, NpyWriter]) -> None:
    for space, vector in record.vectors.items():
        members[space].append(vector)
        members[f"{space}.rows"].append(np.array([row], dtype=np.int64))


def _pack(stream: IO[bytes], members: dict[str, str]) -> None:
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        for name, path in members.items():
            with open(path, "rb") as source, archive.open(_member(name), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)  # no time stamp: same content, same bytes
