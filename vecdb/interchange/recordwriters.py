"""Writers of records: the loss-free directory and JSON lines."""

from __future__ import annotations

import gzip
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np

from vecdb.errors import ParameterError
from vecdb.interchange.ageorder import places_by_age, reorder
from vecdb.interchange.manifest import MANIFEST, RECORDS, Manifest, SpaceFiles, digest_file, space_files
from vecdb.interchange.npyfile import NpyWriter, flush_to_disk
from vecdb.interchange.plan import Plan, Written
from vecdb.interchange.records import write_line
from vecdb.types import Id, Record

__all__ = ["text_stream", "write_directory", "write_jsonl"]

_LEVEL = 6


@contextmanager
def text_stream(path: str, *, compress: bool) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a new file for lines, as gzip if wanted (without a time stamp: same content, same bytes), and sync it."""
    with open(path, "xb", buffering=1 << 20) as raw:
        if compress:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=_LEVEL, mtime=0) as packed:
                yield packed
        else:
            yield raw
        flush_to_disk(raw)


def write_jsonl(plan: Plan, path: str) -> Written:
    """Write one flat object a record; a field that would hide id, text or a vector is refused."""
    plan.check_names(("id", "text"))
    counts = dict.fromkeys(plan.spaces, 0)
    records = 0
    with text_stream(path, compress=plan.compress) as stream:
        for record in plan.records():
            stream.write(write_line(_flat(record, counts)))
            records += 1
    return records, counts


def _flat(record: Record, counts: dict[str, int]) -> dict[str, Any]:
    flat: dict[str, Any] = {"id": record.id}
    if record.text is not None:
        flat["text"] = record.text
    for space, vector in record.vectors.items():
        flat[space] = vector.tolist()
        counts[space] += 1
    taken = sorted(set(record.metadata) & {"id", "text", *counts})
    if taken:
        raise ParameterError(
            f"record {record.id!r} has a metadata field {taken[0]!r}, which means something else in this format.",
            hint="export to a directory, which keeps them apart.",
            name="format",
            got="jsonl",
            allowed="directory",
        )
    return flat | record.metadata


class _SpaceWriter:
    """The two array files of one space."""

    def __init__(self, directory: str, dtype: str, dim: int, names: tuple[str, str]) -> None:
        self._vectors = NpyWriter(os.path.join(directory, names[0]), dtype, dim)
        self._rows = NpyWriter(os.path.join(directory, names[1]), np.int64, None)
        self._lines = array("q")

    def add(self, line: int, vector: Any) -> None:
        self._vectors.append(vector)
        self._lines.append(line)

    @property
    def count(self) -> int:
        return self._vectors.rows

    def finish(self, order: Sequence[Id], ids: Sequence[Id]) -> None:
        """Complete the files, the oldest vector first."""
        lines = np.array(self._lines, dtype=np.int64)
        self._rows.append(lines)
        self._vectors.finish(flush_to_disk)
        self._rows.finish(flush_to_disk)
        places = places_by_age(order, ids, self._lines)
        if places is not None:
            reorder(self._vectors.path, self._rows.path, places, lines)

    def close(self) -> None:
        self._vectors.close()
        self._rows.close()


def write_directory(plan: Plan, path: str) -> Written:
    """Write ``vecdb-export/1`` (see `vecdb.interchange.manifest`)."""
    os.mkdir(path, 0o700)
    files = space_files(list(plan.spaces))
    with ExitStack() as stack:
        writers = {}
        for name, space in plan.spaces.items():
            writers[name] = _SpaceWriter(path, space.returned, space.dim, files[name])
            stack.callback(writers[name].close)
        ids = _write_records(plan, path, writers)
        for name, writer in writers.items():
            writer.finish(plan.collection.vector_order(name, as_of=plan.seq), ids)
    counts = {name: writer.count for name, writer in writers.items()}
    _write_manifest(plan, path, len(ids), counts, files, _write_transforms(plan, path))
    return len(ids), counts


def _write_transforms(plan: Plan, path: str) -> list[tuple[str, str]]:
    """Write the transforms that are stored now between exported spaces; return their names and files."""
    written = []
    for number, each in enumerate(plan.collection.transforms, 1):
        if each.source in plan.spaces and each.target in plan.spaces:
            file = f"transform-{number}.bin"
            with open(os.path.join(path, file), "xb") as stream:
                stream.write(plan.collection.dump_transform(each.name))
                stream.flush()
                os.fsync(stream.fileno())
            written.append((each.name, file))
    return written


def _write_records(plan: Plan, path: str, writers: Mapping[str, _SpaceWriter]) -> list[Id]:
    """Write the records and add their vectors in one pass; return the ids by line."""
    ids: list[Id] = []
    with text_stream(os.path.join(path, RECORDS), compress=True) as stream:
        for record in plan.records():
            entry = {"id": record.id, "version": record.version, "metadata": record.metadata}
            stream.write(write_line(entry if record.text is None else {**entry, "text": record.text}))
            for space, vector in record.vectors.items():
                writers[space].add(len(ids), vector)
            ids.append(record.id)
    return ids


def _write_manifest(
    plan: Plan,
    path: str,
    records: int,
    counts: dict[str, int],
    files: dict[str, tuple[str, str]],
    transforms: list[tuple[str, str]],
) -> None:
    names = [RECORDS, *(file for pair in files.values() for file in pair), *(file for _, file in transforms)]
    manifest = Manifest(
        collection=plan.collection.name,
        seq=plan.seq,
        records=records,
        spaces=tuple(SpaceFiles(space, counts[name], *files[name]) for name, space in plan.spaces.items()),
        files={name: digest_file(os.path.join(path, name)) for name in names},
        transforms=tuple(transforms),
    )
    with open(os.path.join(path, MANIFEST), "x", encoding="utf-8") as stream:
        stream.write(manifest.to_json())
        stream.flush()
        os.fsync(stream.fileno())
