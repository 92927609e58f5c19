"""The export directory ``vecdb-export/1`` and its manifest.

::

    NAME/
      manifest.json        format, collection, seq, record count, spaces, and size and SHA-256 of every other file
      records.jsonl.gz     one record a line, in record order:
                           {"id": ..., "version": n, "metadata": {...}, "text": "..."}   (text only if there is one)
      SPACE.npy            (n, dim), little-endian, the space's stored element type, every bit as stored, the vector
                           that was stored first in the first row
      SPACE.rows.npy       (n,) int64: the line of records.jsonl.gz, from 0, that vector i belongs to
      transform-N.bin      a stored transform between two of the spaces, as `Collection.dump_transform` returns it; the
                           manifest has its name ("transforms": [{"name": ..., "file": ...}], only where there are any)

Ids keep their type: a JSON string or a JSON number. Floats that JSON has no word for are written as described in
`vecdb.interchange.codec`. Vectors stand in the order of their age, by which equal scores rank: the order of their
records, except for those that were replaced or added later. An import stores records in their order, each with those of
its vectors that ascend with it; then, space by space, the vectors from the first on that does not, in their order. So
a fresh copy ranks equal scores as the original does. The version of a record is written for information: an imported
record begins at 1. File names of spaces are their percent-encoded names; the manifest says which file belongs to which
space, and only plain names inside the directory are followed. The same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from vecdb.errors import FormatVersionError, SourceError
from vecdb.interchange.codec import dumps, loads
from vecdb.interchange.lines import reading
from vecdb.types import MAX_DIM, METRICS, Space

__all__ = ["FORMAT", "MANIFEST", "RECORDS", "Manifest", "SpaceFiles", "digest_file", "read_manifest", "space_files"]

FORMAT = "vecdb-export/1"
MANIFEST = "manifest.json"
RECORDS = "records.jsonl.gz"

_MAX_MANIFEST = 16 << 20
_IDENTITY = ("name", "dim", "metric", "dtype", "model", "revision", "role")
_ALLOWED = {"metric": METRICS, "dtype": ("float32", "float16", "int8"), "role": ("document", "query", "both")}


@dataclass(frozen=True, slots=True)
class SpaceFiles:
    """One space of an export: its identity, how many vectors, and its two files."""

    space: Space
    count: int
    vectors: str
    rows: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export holds.

    Attributes
    ----------
    collection : str
    seq : int
        The commit that was exported.
    records : int
        Lines of ``records.jsonl.gz``.
    spaces : tuple of SpaceFiles
    files : mapping of str to (size, SHA-256 in hex)
    transforms : tuple of (name, file)
    """

    collection: str
    seq: int
    records: int
    spaces: tuple[SpaceFiles, ...]
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    transforms: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> str:
        spaces = [
            {key: getattr(item.space, key) for key in _IDENTITY}
            | {"count": item.count, "vectors": item.vectors, "rows": item.rows}
            for item in self.spaces
        ]
        files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(self.files.items())}
        content = {
            "format": FORMAT,
            "collection": self.collection,
            "seq": self.seq,
            "records": self.records,
            "spaces": spaces,
            **(
                {"transforms": [{"name": name, "file": file} for name, file in self.transforms]}
                if self.transforms
                else {}
            ),
            "files": files,
        }
        return dumps(content, indent=2) + "\n"


def space_files(names: list[str]) -> dict[str, tuple[str, str]]:
    """Return the two file names of each space, distinct also where the file system ignores case."""
    taken = {MANIFEST, RECORDS}
    out = {}
    for name in names:
        stem = quote(name, safe=" ").lstrip(".")[:100] or "space"
        tail, number = "", 1
        while {(stem + tail + end).casefold() for end in (".npy", ".rows.npy")} & taken:
            number += 1
            tail = f"-{number}"
        out[name] = (f"{stem}{tail}.npy", f"{stem}{tail}.rows.npy")
        taken |= {file.casefold() for file in out[name]}
    return out


def digest_file(path: str) -> tuple[int, str]:
    """Return size and SHA-256 of a file, read in pieces."""
    with reading(path), open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return os.fstat(stream.fileno()).st_size, digest


def read_manifest(directory: str) -> Manifest:
    """Read and check the manifest of an export directory.

    Raises
    ------
    SourceError
        Not an export, or a manifest that does not hold what it must.
    FormatVersionError
        An export of a format that this version does not know.
    """
    path = os.path.join(directory, MANIFEST)
    if not os.path.isfile(path):
        raise SourceError(
            f"{directory} is a directory without {MANIFEST}.",
            hint="give a directory that export wrote.",
            path=directory,
        )
    with reading(path), open(path, "rb") as stream:
        text = stream.read(_MAX_MANIFEST + 1)
    if len(text) > _MAX_MANIFEST:
        raise SourceError(f"{path} is larger than {_MAX_MANIFEST:,} bytes.", path=path)
    found = loads(text, path=path)
    if isinstance(found, dict) and str(found.get("format")).startswith("vecdb-export/") and found["format"] != FORMAT:
        raise FormatVersionError(
            f"{path} is of format {found['format']}, this version reads {FORMAT}.",
            hint="use a newer vecdb.",
            found=found["format"],
            supported=FORMAT,
        )
    return _parse(found, path)


def _parse(found: Any, path: str) -> Manifest:
    try:
        if found["format"] != FORMAT:
            raise ValueError("the format is missing")
        manifest = Manifest(
            collection=_typed(found["collection"], str),
            seq=_count(found["seq"]),
            records=_count(found["records"]),
            spaces=tuple(_space(item) for item in _typed(found["spaces"], list)),
            files={_plain(name): _file(item) for name, item in _typed(found["files"], dict).items()},
            transforms=tuple(_transform(item) for item in _typed(found.get("transforms", []), list)),
        )
        _check_complete(manifest)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise SourceError(
            f"{path} is not a manifest of {FORMAT}: {problem}.", hint="export the collection again.", path=path
        ) from error
    return manifest


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.80} is not a {kind.__name__}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError(f"{value!r:.80} is not a count")
    return value


def _plain(name: Any) -> str:
    """Only files directly inside the directory are ever opened."""
    if not isinstance(name, str) or not name or name.startswith(".") or {"/", "\\", "\0", ":"} & set(name):
        raise ValueError(f"{name!r:.80} is not a plain file name")
    return name


def _file(item: Any) -> tuple[int, str]:
    return _count(item["bytes"]), _typed(item["sha256"], str)


def _space(item: Any) -> SpaceFiles:
    for key, allowed in _ALLOWED.items():
        if item[key] not in allowed:
            raise ValueError(f"{key} is {item[key]!r:.80}, expected one of {', '.join(allowed)}")
    dim = _count(item["dim"])
    if not 1 <= dim <= MAX_DIM:
        raise ValueError(f"dim is {dim}")
    texts = {key: _typed(item[key], str) for key in ("name", "metric", "dtype", "model", "revision", "role")}
    return SpaceFiles(Space(dim=dim, **texts), _count(item["count"]), _plain(item["vectors"]), _plain(item["rows"]))


def _transform(item: Any) -> tuple[str, str]:
    return _typed(item["name"], str), _plain(item["file"])


def _check_complete(manifest: Manifest) -> None:
    needed = {RECORDS, *(name for item in manifest.spaces for name in (item.vectors, item.rows))}
    needed |= {file for _, file in manifest.transforms}
    missing = needed - set(manifest.files)
    if missing:
        raise ValueError(f"{', '.join(sorted(missing))} is not listed in 'files'")
    names = [item.space.name for item in manifest.spaces]
    if len(set(names)) < len(names):
        raise ValueError("a space is listed twice")
