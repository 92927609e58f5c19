"""An export directory as the source of an import.

Before anything is stored, sizes and SHA-256 of all files are compared with the manifest, the shapes of the arrays with
its counts, and the spaces with those the collection has. A damaged or changed export therefore stores nothing.
Records come first, in their order, and then the vectors that are younger than their place among the records says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import CorruptionError, ExistsError, SourceError
from vecdb.interchange.chunks import Chunk, Limits
from vecdb.interchange.codec import loads, place
from vecdb.interchange.exportvectors import SpaceRows
from vecdb.interchange.idspool import IdSpool
from vecdb.interchange.lines import fingerprint_file, reading, real_lines
from vecdb.interchange.manifest import MANIFEST, RECORDS, Manifest, digest_file, read_manifest
from vecdb.interchange.sources import SourceFacts, Sources
from vecdb.types import Space

if TYPE_CHECKING:
    from vecdb import Collection

__all__ = ["ExportRecords", "export_facts", "is_export", "open_export", "verify_export"]

MAX_TRANSFORM = 1 << 30
_OBJECT_COST = 4
_IDENTITY = ("dim", "metric", "dtype", "model", "revision", "role")


def is_export(source: Any) -> bool:
    """Whether a source is a directory; the only directories that can be imported are exports."""
    return isinstance(source, str | os.PathLike) and os.path.isdir(source)


def open_export(collection: Collection, directory: str) -> Sources:
    """Verify an export, create the spaces the collection does not have, and return what is to be read."""
    manifest = read_manifest(directory)
    verify_export(directory, manifest)
    records = ExportRecords(directory, manifest, os.path.dirname(os.path.abspath(collection.database.path)))
    try:
        known = collection.spaces
        for item in manifest.spaces:
            if item.space.name in known:
                _check_same(item.space, known[item.space.name], collection.name)
        for item in manifest.spaces:
            if item.space.name not in known:
                _add_space(collection, item.space)
        for name, file in manifest.transforms:
            _add_transform(collection, name, os.path.join(directory, file))
    except BaseException:
        records.close()
        raise
    return Sources(records, later=records.later)


def export_facts(directory: str) -> SourceFacts:
    """Return what the manifest says about an export."""
    manifest = read_manifest(directory)
    widths = {item.space.name: (item.space.dim, np.dtype(item.space.dtype)) for item in manifest.spaces}
    return SourceFacts(manifest.records, widths)


def verify_export(directory: str, manifest: Manifest) -> None:
    """Compare every file with the size and checksum of the manifest.

    Raises
    ------
    SourceError
        Naming the first file that is missing, of another size, or changed.
    """
    for name, expected in manifest.files.items():
        path = os.path.join(directory, name)
        if os.path.islink(path) or not os.path.isfile(path):
            raise SourceError(f"{path} is missing, or is not a plain file.", hint="copy the export again.", path=path)
        if os.path.getsize(path) != expected[0]:
            raise SourceError(
                f"{path} has {os.path.getsize(path):,} bytes, the manifest says {expected[0]:,}.",
                hint="the file is cut off or changed; copy the export again.",
                path=path,
            )
    for name, expected in manifest.files.items():
        path = os.path.join(directory, name)
        if digest_file(path) != expected:
            raise SourceError(
                f"{path} has another SHA-256 than the manifest says.",
                hint="the file was damaged or changed; copy the export again.",
                path=path,
            )


def _check_same(given: Space, there: Space, collection: str) -> None:
    differing = [key for key in _IDENTITY if getattr(given, key) != getattr(there, key)]
    if differing:
        facts = "; ".join(f"{key} {getattr(there, key)!r}, export {getattr(given, key)!r}" for key in differing)
        raise ExistsError(
            f"collection {collection!r} already has a space {given.name!r} with another identity: {facts}.",
            hint="import into another collection, or rename the space there.",
            kind="space",
            name=given.name,
        )


def _add_space(collection: Collection, space: Space) -> None:
    identity = {key: getattr(space, key) for key in _IDENTITY}
    collection.add_space(space.name, **identity)


def _add_transform(collection: Collection, name: str, path: str) -> None:
    """Store a transform of an export, unless it is there already."""
    size = os.path.getsize(path)
    if size > MAX_TRANSFORM:
        raise SourceError(f"{path} has {size:,} bytes, a transform at most {MAX_TRANSFORM:,}.", path=path)
    with reading(path), open(path, "rb") as stream:
        data = stream.read(MAX_TRANSFORM + 1)
    try:
        collection.load_transform(data, name=name)
    except CorruptionError as error:
        raise SourceError(f"{path}: {error.message}", hint="export the collection again.", path=path) from error


class ExportRecords:
    """The records of an export with their vectors; what does not fit in memory meanwhile is put into `folder`."""

    def __init__(self, directory: str, manifest: Manifest, folder: str) -> None:
        self.name = os.path.join(directory, RECORDS)
        self.rows: int | None = manifest.records
        self._manifest = os.path.join(directory, MANIFEST)
        self._count = manifest.records
        self._spaces: dict[str, SpaceRows] = {}
        self._ids: IdSpool | None = None
        try:
            for item in manifest.spaces:
                self._spaces[item.space.name] = SpaceRows(directory, item, manifest.records)
            self.later = sum(rows.later for rows in self._spaces.values())
            if self.later:
                self._ids = IdSpool(folder)
        except BaseException:
            self.close()
            raise

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        yield from self._records(start, limits)
        skip = max(0, start - self._count)
        for space, rows in self._spaces.items():
            yield from self._later(space, min(skip, rows.later), limits)
            skip = max(0, skip - rows.later)

    def _later(self, space: str, skip: int, limits: Limits) -> Iterator[Chunk]:
        """Yield the vectors of a space that come after the records."""
        if self._ids is None:
            return
        for first, lines, block in self._spaces[space].after_records(skip, limits):
            yield Chunk(first, self._ids.get(lines), vectors={space: block}, later=block.where)

    def _records(self, start: int, limits: Limits) -> Iterator[Chunk]:
        row_bytes = limits.row_bytes + sum(item.row_bytes for item in self._spaces.values())
        lines: list[tuple[int, bytes]] = []
        cost = 0
        first = start
        seen = 0
        for seen, (number, line) in enumerate(real_lines(self.name), 1):
            self._check_row(seen - 1, number)
            if seen <= start:
                if self._ids is not None:
                    self._ids.extend([self._record(number, line)["id"]])
                continue
            lines.append((number, line))
            cost += len(line) * _OBJECT_COST + row_bytes
            if len(lines) >= limits.rows or cost >= limits.nbytes:
                yield self._chunk(first, lines)
                first, cost, lines = seen, 0, []
        if lines:
            yield self._chunk(first, lines)
        if seen != self._count:
            raise self._miscounted(f"{seen:,}")

    def _check_row(self, row: int, number: int) -> None:
        if row >= self._count:
            raise self._miscounted(f"more than {self._count:,}", number)

    def _miscounted(self, got: str, line: int | None = None) -> SourceError:
        return SourceError(
            f"{self.name} holds {got} records, the manifest says {self._count:,}.",
            hint="export the collection again.",
            path=self.name,
            line=line,
        )

    def _chunk(self, first: int, lines: list[tuple[int, bytes]]) -> Chunk:
        records = [self._record(number, line) for number, line in lines]
        ids = [record["id"] for record in records]
        if self._ids is not None:
            self._ids.extend(ids)
        blocks = {space: rows.of_records(first, first + len(lines)) for space, rows in self._spaces.items()}
        return Chunk(
            first,
            ids,
            [record["metadata"] for record in records],
            [record.get("text") for record in records],
            {space: block for space, block in blocks.items() if block.rows.size},
            [number for number, _ in lines],
        )

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        record = loads(line, path=self.name, number=number)
        if not isinstance(record, dict) or not {"id", "metadata"} <= set(record):
            raise SourceError(
                f"{place(self.name, number)} is not a record with id and metadata.",
                hint="export the collection again.",
                path=self.name,
                line=number,
            )
        return record

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        source = self._spaces[column].vectors
        return source.dim, source.dtype

    def count(self) -> int:
        return self._count

    def fingerprint(self) -> Any:
        return fingerprint_file(self._manifest)

    def close(self) -> None:
        for rows in self._spaces.values():
            rows.close()
        if self._ids is not None:
            self._ids.close()
