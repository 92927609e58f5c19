"""Files whose format a plugin reads: which importer is asked, and what it returns is checked before it is believed.

A file that vecdb reads itself is never offered to a plugin, and no plugin is loaded for it. Whatever an importer does
wrong becomes an error that names its plugin and the rule; what is wrong with the file stays a `SourceError`. The rules:
docs/reference/importer-contract.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from vecdb.contracts import ImportBatch, ImportSource, settle_params
from vecdb.errors import (
    DimensionError,
    DTypeError,
    ExtraMissingError,
    FileAccessError,
    ParameterError,
    PluginContractError,
    SourceError,
)
from vecdb.interchange.chunks import Block, Chunk, Fields, Limits, stack
from vecdb.interchange.lines import fingerprint_file, reading
from vecdb.interchange.suffixes import known_suffixes, reads_itself
from vecdb.registry import PluginRegistry, Provided

__all__ = ["ForeignFile", "ForeignRecords", "find_importer", "open_foreign"]

_MAGIC = 64
_ROW_COST = 512
"""Bytes of id, text and metadata that a record is taken to have."""


# --- which importer ---------------------------------------------------------------------------------------


def find_importer(path: str, name: str | None, registry: PluginRegistry) -> Provided:
    """Return the importer for a file: the one of that name, else the one for its suffix or its first bytes.

    Raises
    ------
    UnknownNameError
        No importer has the name.
    ParameterError
        More than one reads such files.
    SourceError
        None does.
    """
    if name is not None:
        return registry.find("importer", name)
    found = _recognising(path, registry.provided("importer"))
    if len(found) > 1:
        names = [each.name for each in found]
        raise ParameterError(
            f"{path} can be read by {' and '.join(f'{each.name} of {each.owner}' for each in found)}.",
            hint=f"name one of them: format={names[0]!r} (--format {names[0]}).",
            name="format",
            got=None,
            allowed=names,
        )
    if not found:
        raise _unreadable(path, registry)
    return found[0]


def _recognising(path: str, importers: list[Provided]) -> list[Provided]:
    head = _head(path) if importers else b""
    ends = [each for each in importers if each.thing.suffixes and path.lower().endswith(each.thing.suffixes)]
    if ends:
        return [each for each in ends if not each.thing.magic or head.startswith(each.thing.magic)]
    return [each for each in importers if each.thing.magic and head.startswith(each.thing.magic)]


def _head(path: str) -> bytes:
    with reading(path), open(path, "rb") as file:
        return file.read(_MAGIC)


def _unreadable(path: str, registry: PluginRegistry) -> SourceError:
    suffixes = [suffix for each in registry.provided("importer") for suffix in each.thing.suffixes]
    hint = f"known suffixes: {known_suffixes()}" + (
        f"; of plugins: {', '.join(sorted(suffixes))}." if suffixes else "."
    )
    failed = [info.name for info in registry.plugins() if info.error is not None]
    hint += f" Failed to load: {', '.join(failed)}." if failed else ""
    return SourceError(f"{path} is not a file of records that can be read.", hint=hint, path=path)


# --- an open file -----------------------------------------------------------------------------------------


class ForeignFile:
    """A file that an importer has opened, with what it says of itself checked.

    Attributes
    ----------
    path : str
    widths : dict of str to int
    rows : int or None
    """

    def __init__(self, path: str, provided: Provided, options: Mapping[str, Any]) -> None:
        self.path = path
        self.provided = provided
        self.params = settle_params(f"importer {provided.name!r}", provided.thing.parameters, options)
        _head(path)  # a file that is not there, or not to be read, is nobody's fault
        with self._guarded("open"):
            self._source: ImportSource = provided.thing.open(path, self.params)
            rows: Any = self._source.rows
            widths: dict[Any, Any] = dict(self._source.widths)
        if rows is not None and (type(rows) is not int or rows < 0):
            self._broken("check_open_returns_a_source", f"rows is {rows!r}")
        if not all(isinstance(name, str) and type(width) is int and width >= 1 for name, width in widths.items()):
            self._broken("check_open_returns_a_source", f"widths is {widths!r}")
        self.rows: int | None = rows
        self.widths: dict[str, int] = widths

    def close(self) -> None:
        with self._guarded("close"):
            self._source.close()

    def batches(self, start: int, most: int) -> Iterator[ImportBatch]:
        """Yield the batches from row `start` on, each checked for its form."""
        row = start
        with self._guarded("batches"):
            reader = iter(self._source.batches(start, most))
        while True:
            with self._guarded("batches"):
                batch = next(reader, None)
            if batch is None:
                break
            self._check(batch, row, most)
            row += len(batch.ids)
            yield batch
        if self.rows is not None and row != max(self.rows, start):
            problem = f"it said that there are {self.rows:,} records, and gave {row:,}"
            self._broken("check_rows_is_the_number_of_records", problem)

    def _check(self, batch: Any, row: int, most: int) -> None:
        rule = "check_batches_are_of_the_right_form"
        if not isinstance(batch, ImportBatch):
            self._broken(rule, f"a batch is {type(batch).__name__}, expected ImportBatch")
        ids: Any = batch.ids
        if not isinstance(ids, list) or not 1 <= len(ids) <= most:
            size = len(ids) if isinstance(ids, list) else type(ids).__name__
            self._broken(rule, f"the batch from row {row:,} on has {size} ids, expected a list of 1 to {most:,}")
        columns: dict[str, Any] = {"metadata": batch.metadata, "texts": batch.texts, "lines": batch.lines}
        columns.update({f"vectors {name!r}": rows for name, rows in batch.vectors.items()})
        for name, values in columns.items():
            if values is not None and len(values) != len(batch.ids):
                self._broken(rule, f"from row {row:,} on, {len(batch.ids)} ids stand with {len(values)} {name}")
        unknown = sorted(set(batch.vectors) - set(self.widths))
        if unknown:
            self._broken("check_vectors_have_the_declared_widths", f"there are vectors {unknown[0]!r}, not in widths")

    def block(self, values: Any, name: str, row: int) -> Block:
        """Return the vectors of a batch as a block, with the declared width."""
        where = f"{self.path}, vectors {name!r}"
        try:
            whole = isinstance(values, np.ndarray) and values.ndim == 2
            block = Block(values, None, where) if whole else stack(list(values), where, row)
        except (DimensionError, DTypeError) as error:
            self._broken("check_vectors_have_the_declared_widths", error.message)
        if block.rows.size and block.rows.shape[1] != self.widths[name]:
            problem = (
                f"vectors {name!r} from row {row:,} on are {block.rows.shape[1]} wide, declared {self.widths[name]}"
            )
            self._broken("check_vectors_have_the_declared_widths", problem)
        return block

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Let through what is wrong with the file; anything else is the plugin's fault."""
        try:
            yield
        except (SourceError, ExtraMissingError, FileAccessError, PluginContractError):
            raise
        except Exception as error:
            problem = f"{doing} raised {type(error).__name__}: {error}"
            raise self._error("check_damaged_file_is_refused", problem) from error

    def _broken(self, rule: str, problem: str) -> NoReturn:
        raise self._error(rule, problem)

    def _error(self, rule: str, problem: str) -> PluginContractError:
        provided = self.provided
        return PluginContractError(
            f"importer {provided.name!r} of {provided.owner} breaks rule {rule} with {self.path}: {problem}",
            hint="Tell its author; batches before this one are committed.",
            plugin=provided.plugin,
            distribution=provided.distribution,
            rule=rule,
            problem=problem,
        )


def open_foreign(
    source: Any, name: str | None, options: Mapping[str, Any] | None, registry: PluginRegistry
) -> ForeignFile | None:
    """Open a file by an importer, where one is named or vecdb cannot read it itself; None otherwise.

    Raises
    ------
    ParameterError
        A format or options for something that no importer reads.
    """
    is_file = isinstance(source, str | os.PathLike) and not os.path.isdir(source)
    if name is not None and not is_file:
        raise ParameterError(
            "format names an importer, which reads files.", name="format", got=name, allowed="None without a file"
        )
    if not is_file or (name is None and reads_itself(os.fspath(source))):
        if options:
            raise ParameterError(
                "options are for importers of plugins, and none reads this source.",
                hint="leave them out, or name the importer.",
                name="options",
                got=sorted(options),
                allowed="nothing",
            )
        return None
    path = os.fspath(source)
    return ForeignFile(path, find_importer(path, name, registry), options or {})


# --- as records -------------------------------------------------------------------------------------------


class ForeignRecords:
    """The records of a file that an importer has opened; closing it closes the file."""

    def __init__(self, file: ForeignFile, fields: Fields, ids: Any) -> None:
        if ids not in ("id", None):
            raise ParameterError(
                f"ids is {ids!r}, but importer {file.provided.name!r} says itself what the ids are.",
                hint="leave it out, or give None to number the records.",
                name="ids",
                got=ids,
                allowed="nothing or None",
            )
        for space, name in fields.vectors.items():
            if name not in file.widths:
                raise SourceError(
                    f"{file.path} has no vectors {name!r} for space {space!r}; it has {sorted(file.widths) or 'none'}.",
                    hint="name them as the file does (vectors={space: '@name'}).",
                    path=file.path,
                )
        self.name = file.path
        self.rows = file.rows
        self._file = file
        self._fields = fields
        self._numbered = ids is None

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        row_bytes = _ROW_COST + limits.row_bytes + 4 * sum(self._file.widths.values())
        row = start
        for batch in self._file.batches(start, Limits(limits.rows, limits.nbytes, row_bytes).most_rows()):
            yield self._chunk(batch, row)
            row += len(batch.ids)

    def _chunk(self, batch: ImportBatch, row: int) -> Chunk:
        chosen, given = self._fields.vectors, batch.vectors
        metadata, texts = batch.metadata, batch.texts
        if self._fields.text is not None and metadata is not None:
            metadata = [dict(each) for each in metadata]
            texts = [each.pop(self._fields.text, None) for each in metadata]
        if self._fields.metadata is not None and metadata is not None:
            names = self._fields.metadata
            metadata = [{name: each[name] for name in names if name in each} for each in metadata]
        return Chunk(
            row,
            list(range(row, row + len(batch.ids))) if self._numbered else batch.ids,
            metadata,
            texts,
            {space: self._file.block(given[name], name, row) for space, name in chosen.items() if name in given},
            batch.lines,
        )

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        return self._file.widths[column], np.dtype(np.float32)

    def count(self) -> int:
        return self.rows if self.rows is not None else sum(len(batch.ids) for batch in self._file.batches(0, 10_000))

    def fingerprint(self) -> Any:
        provided = self._file.provided
        return [fingerprint_file(self.name), provided.name, provided.version, self._file.params]

    def close(self) -> None:
        self._file.close()
