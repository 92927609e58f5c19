"""Export: one pass over the collection at one commit, into files that appear only when they are complete.

Everything is written to a temporary sibling, synced, and renamed; what fails half-way leaves nothing behind. Memory is
bounded by one chunk of records, whatever the size of the collection; a directory also keeps the ids.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vecdb.errors import (
    DiskFullError,
    ExistsError,
    FileAccessError,
    ParameterError,
    SpaceMissingError,
    TagMissingError,
    VecdbError,
)
from vecdb.interchange.arraywriters import write_fvecs, write_npy, write_npz
from vecdb.interchange.arrowwriters import write_arrow, write_parquet
from vecdb.interchange.manifest import MANIFEST
from vecdb.interchange.plan import Plan, Written
from vecdb.interchange.recordwriters import write_directory, write_jsonl
from vecdb.types import Progress, Space, Where

if TYPE_CHECKING:
    from vecdb import Collection

__all__ = ["FORMATS", "ExportResult", "export_data"]

WRITERS: dict[str, Callable[[Plan, str], Written]] = {
    "directory": write_directory,
    "jsonl": write_jsonl,
    "npz": write_npz,
    "parquet": write_parquet,
    "arrow": write_arrow,
    "fvecs": write_fvecs,
    "npy": write_npy,
}
FORMATS = tuple(WRITERS)
"""Formats that can be written; "directory" is the loss-free one."""

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".npz": "npz",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".fvecs": "fvecs",
    ".npy": "npy",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written.

    Attributes
    ----------
    path, format : str
    records : int
    vectors : dict of str to int
        Space name to the number of vectors.
    seq : int
        The commit that was read.
    """

    path: str
    format: str
    records: int
    vectors: dict[str, int]
    seq: int


def export_data(
    collection: Collection,
    target: str | os.PathLike[str],
    *,
    format: str | None = None,
    spaces: Sequence[str] | None = None,
    where: Where | None = None,
    as_of: int | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Write a collection, or the part of it that satisfies `where`, to files.

    Parameters
    ----------
    collection : Collection
    target : path
        Must not exist unless `overwrite`.
    format : {"directory", "jsonl", "npz", "parquet", "arrow", "fvecs", "npy"}, optional
        Default: by the suffix of `target`; no known suffix means "directory".

        - "directory": ``vecdb-export/1``, loss-free: `import_data` brings back ids with their type, metadata, texts,
          spaces, every vector bit, and the orders of records and of vectors (equal scores rank as they did); and the
          transforms that are stored now between the spaces that are written.
        - "jsonl": one object a line (gzip if the name ends in ``.gz``) with id, text, the metadata fields, and each
          space's vector as a list of numbers under the space's name.
        - "parquet", "arrow": columns id, text, one for each metadata field and one for each space (extra ``arrow``).
        - "npz": array ``ids`` and one array a space (with ``SPACE.rows`` where some records have no vector);
          metadata and texts are left out.
        - "fvecs", "npy": the vectors of one space in record order, nothing else.
    spaces : sequence of str, optional
        Default: all. An empty sequence leaves the vectors out.
    where : mapping, optional
        Condition on metadata.
    as_of : int or str, optional
        A seq or tag; default: now.
    overwrite : bool, default False
        Replace what is at `target`. The old files are there until the new ones are complete.
    progress : callable, optional
        ``progress(done, total)`` in records.

    Returns
    -------
    ExportResult

    Raises
    ------
    ExistsError
        `target` exists.
    SpaceMissingError, ParameterError, ExtraMissingError
    DiskFullError, FileAccessError
        Nothing is left at `target`.
    """
    path = os.fspath(target).rstrip("/") or "/"
    kind = _format(path, format)
    plan = make_plan(collection, spaces, where, as_of, progress, compress=path.lower().endswith(".gz"))
    with _replacing(path, overwrite) as temporary:
        records, vectors = WRITERS[kind](plan, temporary)
    return ExportResult(path, kind, records, vectors, plan.seq)


def make_plan(
    collection: Collection,
    spaces: Sequence[str] | None,
    where: Where | None,
    as_of: int | str | None,
    progress: Progress | None = None,
    *,
    compress: bool = False,
) -> Plan:
    """Settle which spaces of which commit are read."""
    chosen = _spaces(collection, spaces)
    return Plan(collection, chosen, where, _seq(collection, as_of), progress, compress)


def _format(path: str, given: str | None) -> str:
    lower = path.lower()
    named = next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), "directory")
    if given is None:
        return named
    if given not in FORMATS:
        raise ParameterError(
            f"format is {given!r}, expected one of {', '.join(FORMATS)}.",
            hint="leave it out: the suffix of the target decides.",
            name="format",
            got=given,
            allowed=FORMATS,
        )
    return given


def _spaces(collection: Collection, names: Sequence[str] | None) -> dict[str, Space]:
    known: Mapping[str, Space] = collection.spaces
    if names is None:
        made = collection.joint_spaces  # of the vectors of other spaces, which are written
        return {name: space for name, space in known.items() if name not in made}
    for name in names:
        if name not in known:
            raise SpaceMissingError(
                f"collection {collection.name!r} has no space {name!r}; it has {', '.join(known) or 'none'}.",
                hint="leave spaces out to export all.",
                name=name,
                available=tuple(known),
            )
    return {name: known[name] for name in dict.fromkeys(names)}


def _seq(collection: Collection, as_of: int | str | None) -> int:
    """Fix the commit that is read: all passes of an export must see the same one."""
    if as_of is None:
        return int(collection.database.seq)
    if isinstance(as_of, int):
        return as_of
    tags = collection.database.tags()
    if as_of not in tags:
        raise TagMissingError(
            f"there is no tag {as_of!r}; there are {', '.join(tags) or 'none'}.",
            hint="give a seq or the name of a tag.",
            name=as_of,
            available=tuple(tags),
        )
    return int(tags[as_of])


@contextmanager
def _replacing(path: str, overwrite: bool) -> Iterator[str]:
    """Hand out a name beside `path`; when the body is done, what was made there becomes `path` in one step."""
    _check_target(path, overwrite)
    temporary = f"{path}.{os.getpid()}.partial"
    _remove(temporary)
    try:
        yield temporary
        _publish(temporary, path)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        _remove(temporary)


def _check_target(path: str, overwrite: bool) -> None:
    """Refuse to replace anything without leave, and a directory that is not an export whatever the leave."""
    if not os.path.lexists(path):
        return
    foreign = os.path.isdir(path) and os.listdir(path) and not os.path.isfile(os.path.join(path, MANIFEST))
    if foreign or not overwrite:
        raise ExistsError(
            f"{path} exists already" + (" and is not an export." if foreign else "."),
            hint="choose another name."
            if foreign
            else "choose another name, or overwrite it (overwrite=True, --overwrite).",
            kind="directory" if os.path.isdir(path) else "file",
            name=path,
        )


def _publish(temporary: str, path: str) -> None:
    """Make the files durable, then rename: a reader sees the old export or the whole new one."""
    if os.path.isdir(temporary):
        sync_directory(temporary)
    if os.path.isdir(path) and not os.path.islink(path):
        aside = f"{path}.{os.getpid()}.old"
        os.rename(path, aside)
        os.rename(temporary, path)
        shutil.rmtree(aside)
    else:
        os.replace(temporary, path)
    sync_directory(os.path.dirname(path) or ".")


def sync_directory(path: str) -> None:
    """Make names in a directory survive a power cut, where the system can."""
    if os.name == "nt":  # Windows cannot open a directory; its renames are journaled
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _write_error(path: str, error: OSError) -> VecdbError:
    if isinstance(error, VecdbError):
        return error
    if error.errno in _FULL:
        return DiskFullError(f"no space left to write {path}.", hint="free some space and export again.", path=path)
    return FileAccessError(
        f"cannot write {path}: {error.strerror or error}.", hint="check directory and permissions.", path=path
    )
