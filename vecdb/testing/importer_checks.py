"""The rules of the importer contract as checks; docs/reference/importer-contract.md numbers them as here.

Everything is read from `Importer.example`, written to a directory that is removed afterwards.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.contracts import ImportBatch
from vecdb.errors import SourceError
from vecdb.testing import fitting
from vecdb.testing.checks import Check, applying, collect, fail, require, rule

__all__ = ["iter_importer_checks"]

_MOST = 1_000
_Row = tuple[Any, ...]


@contextmanager
def _example(importer: Any, data: bytes | None = None) -> Iterator[str]:
    """Write the example, or other bytes under the same name, to a file for the time of a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="vecdb-check-") as folder:
        path = os.path.join(folder, "example" + (importer.suffixes[0] if importer.suffixes else ""))
        Path(path).write_bytes(importer.example if data is None else data)
        yield path


@contextmanager
def _opened(importer: Any, path: str) -> Iterator[Any]:
    source = importer.open(path, fitting.defaults(importer))
    try:
        yield source
    finally:
        source.close()


def _rows(source: Any, start: int = 0, most: int = _MOST) -> list[_Row]:
    """Return the records from row `start` on, each as values that can be compared."""
    return [row for batch in source.batches(start, most) for row in _rows_of(batch)]


def _rows_of(batch: ImportBatch) -> Iterator[_Row]:
    for place, record in enumerate(batch.ids):
        vectors = {name: _bits(rows[place]) for name, rows in batch.vectors.items() if rows[place] is not None}
        metadata = batch.metadata[place] if batch.metadata is not None else None
        yield record, vectors, repr(metadata), batch.texts[place] if batch.texts is not None else None


def _bits(vector: Any) -> tuple[str, bytes]:
    array = np.asarray(vector)
    return array.dtype.str, array.tobytes()


def _all(importer: Any) -> list[_Row]:
    with _example(importer) as path, _opened(importer, path) as source:
        return _rows(source)


@rule("D1")
def check_importer_descriptor(importer: Any) -> None:
    """Name, suffixes, magic, example and parameters are what the contract names, and known values."""
    fitting.check_descriptor("importer", importer)


@rule("I1")
def check_example_is_recognised(importer: Any) -> None:
    """The example begins with one of the importer's magic bytes, if it has any, and holds at least 5 records."""
    magic = importer.magic
    require(not magic or importer.example.startswith(tuple(magic)), "the example begins with none of the magic bytes")
    found = len(_all(importer))
    require(found >= 5, f"the example holds {found} records, expected 5 or more")


@rule("I2")
def check_open_returns_a_source(importer: Any) -> None:
    """`open` returns an object with `rows`, `widths`, `batches` and `close`, for each choice of the parameters."""
    for params in fitting.variants(importer):
        with _example(importer) as path:
            source = importer.open(path, params)
            missing = [name for name in ("batches", "close") if not callable(getattr(source, name, None))]
            require(not missing, f"the source has no method {missing and missing[0]}")
            rows, widths = source.rows, source.widths
            source.close()
        require(rows is None or (type(rows) is int and rows >= 0), f"rows is {rows!r}, expected an int or None")
        right = all(isinstance(name, str) and type(width) is int and width >= 1 for name, width in widths.items())
        require(right, f"widths is {dict(widths)!r}, expected names and positive ints")


@rule("I3")
def check_batches_are_of_the_right_form(importer: Any) -> None:
    """Every batch is an `ImportBatch` of 1 to `most` records whose columns all have its length."""
    for most in (1, 3, _MOST):
        with _example(importer) as path, _opened(importer, path) as source:
            for batch in source.batches(0, most):
                require(isinstance(batch, ImportBatch), f"a batch is {type(batch).__name__}, expected ImportBatch")
                count = len(batch.ids)
                require(1 <= count <= most, f"a batch has {count} records where {most} were asked for")
                columns: dict[str, Any] = {"metadata": batch.metadata, "texts": batch.texts, "lines": batch.lines}
                columns.update({f"vectors {name!r}": rows for name, rows in batch.vectors.items()})
                wrong = {name: len(rows) for name, rows in columns.items() if rows is not None and len(rows) != count}
                require(not wrong, f"a batch of {count} records has columns of other lengths: {wrong}")


@rule("I4")
def check_vectors_have_the_declared_widths(importer: Any) -> None:
    """Vectors have names and widths that `widths` declares, and are real numbers."""
    with _example(importer) as path, _opened(importer, path) as source:
        widths = dict(source.widths)
        for batch in source.batches(0, _MOST):
            for name, rows in batch.vectors.items():
                require(name in widths, f"there are vectors {name!r}, but widths names only {sorted(widths)}")
                for row in rows:
                    if row is not None:
                        array = np.asarray(row)
                        require(array.dtype.kind in "fiu", f"vectors {name!r} are {array.dtype}, expected real numbers")
                        shape = array.shape
                        require(shape == (widths[name],), f"a vector {name!r} has shape {shape}, not {(widths[name],)}")


@rule("I5")
def check_ids_are_ids(importer: Any) -> None:
    """Ids are str or int of Python, and those of the example are all different."""
    ids = [row[0] for row in _all(importer)]
    wrong = [record for record in ids if type(record) not in (str, int)]
    require(not wrong, f"an id is {wrong and wrong[0]!r} of type {type(wrong[0]).__name__ if wrong else ''}")
    require(len(set(ids)) == len(ids), "the example has an id twice")


@rule("I6")
def check_rows_is_the_number_of_records(importer: Any) -> None:
    """`rows`, where it is not None, is how many records there are."""
    with _example(importer) as path, _opened(importer, path) as source:
        rows, found = source.rows, len(_rows(source))
    require(rows is None or rows == found, f"rows is {rows}, but there are {found} records")


@rule("I7")
def check_batches_go_on_from_any_row(importer: Any) -> None:
    """`batches` from row n on gives the records that follow the first n, and none from the last row on."""
    whole = _all(importer)
    with _example(importer) as path, _opened(importer, path) as source:
        for start in (1, 3, len(whole) - 1, len(whole)):
            require(
                _rows(source, start) == whole[start:], f"from row {start} on other records come than the first time"
            )


@rule("I8")
def check_size_of_batches_does_not_matter(importer: Any) -> None:
    """The records are the same whatever the size of the batches."""
    whole = _all(importer)
    for most in (1, 2, 4):
        with _example(importer) as path, _opened(importer, path) as source:
            require(_rows(source, 0, most) == whole, f"in batches of {most} other records come than in one")


@rule("I9")
def check_sources_do_not_disturb_each_other(importer: Any) -> None:
    """Two sources, and two passes over one, read by turns, give the same records each."""
    whole = _all(importer)
    with _example(importer) as path, _opened(importer, path) as one, _opened(importer, path) as other:
        passes = [one.batches(0, 1), other.batches(0, 1), one.batches(0, 1)]
        found: list[list[_Row]] = [[], [], []]
        for _ in whole:
            for rows, batches in zip(found, passes, strict=True):
                rows.extend(_rows_of(next(batches)))
    require(all(rows == whole for rows in found), "read by turns, they give other records than one alone")


@rule("I10")
def check_close_gives_the_file_up(importer: Any) -> None:
    """`close` closes the file, also in the middle of a pass, and is harmless the second time."""
    folder = "/proc/self/fd"
    with _example(importer) as path:
        source = importer.open(path, fitting.defaults(importer))
        reading = source.batches(0, 1)
        next(reading)
        source.close()
        source.close()
        del reading
        if os.path.isdir(folder):
            links = [os.path.join(folder, name) for name in os.listdir(folder)]
            still = [link for link in links if os.path.realpath(link) == os.path.realpath(path)]
            require(not still, "the file is still open after close")


@rule("I11")
def check_file_is_left_alone(importer: Any) -> None:
    """Reading changes neither the file nor its directory."""
    with _example(importer) as path:
        folder, before = os.path.dirname(path), os.stat(path).st_mtime_ns
        with _opened(importer, path) as source:
            _rows(source)
            beside = sorted(os.listdir(folder))
        require(Path(path).read_bytes() == importer.example, "reading it changed the file")
        require(os.stat(path).st_mtime_ns == before, "reading it changed the time of the file")
        beside = sorted({*beside, *os.listdir(folder)})
        require(beside == [os.path.basename(path)], f"reading it left files beside it: {beside}")


@rule("I12")
def check_damaged_file_is_refused(importer: Any) -> None:
    """A file that is cut off, empty or of another format raises `SourceError`, or gives the records it begins with."""
    whole, data = _all(importer), importer.example
    foreign = bytes(range(256)) * 4
    cuts = {f"cut off after {size} of {len(data)} bytes": data[:size] for size in _sizes(len(data))}
    for words, content in {**cuts, "of 1024 arbitrary bytes": foreign, "with a foreign end": data + foreign}.items():
        with _example(importer, content) as path:
            found = _read_or_refuse(importer, path, words)
        if words in cuts:
            same = found == whole[: len(found)] or found[:-1] == whole[: len(found) - 1]
            require(same, f"a file {words} gives other records")
        if words == "of 1024 arbitrary bytes":
            require(not found, f"a file {words} gives {len(found)} records")


def _sizes(length: int) -> list[int]:
    """Return where to cut: at both ends byte by byte, and at as many places between."""
    near = range(min(16, length))
    return sorted({*near, *(length - 1 - size for size in near), *(length * step // 32 for step in range(32))})


def _read_or_refuse(importer: Any, path: str, words: str) -> list[_Row]:
    found: list[_Row] = []
    try:
        with _opened(importer, path) as source:
            for batch in source.batches(0, 1):
                found.extend(_rows_of(batch))
    except SourceError:
        return found
    except Exception as error:
        fail(f"a file {words} raises {type(error).__name__}, expected SourceError: {error}")
    return found


CHECKS = collect(globals().values())


def iter_importer_checks(importer: Any) -> Iterator[Check]:
    """Yield the checks for an importer."""
    return applying(CHECKS, importer)
