"""Import: sources in, committed batches out.

Memory is bounded by one batch whatever the size of the source. Each batch is one commit, keyed by id; a checkpoint
beside the database (`vecdb.interchange.resume`) lets the same import continue after it was killed, with the same
result as if it had not been. Errors name file, line and row; batches committed before stay.
"""

from __future__ import annotations

import os
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import ParameterError, SpaceMissingError
from vecdb.interchange import restore, vectorfiles
from vecdb.interchange.chunks import Limits
from vecdb.interchange.foreign import ForeignFile, open_foreign
from vecdb.interchange.run import ImportResult, Job, run_import
from vecdb.interchange.sources import SourceFacts, Sources, open_sources
from vecdb.registry import default_registry
from vecdb.types import CancelCheck, Id, Progress

if TYPE_CHECKING:
    from vecdb import Collection, PluginRegistry

__all__ = ["DEFAULT_BATCH_BYTES", "from_table", "import_data", "inspect_source"]

DEFAULT_BATCH_BYTES = 8 << 20
_MOST_ROWS = 10_000


def import_data(
    collection: Collection,
    source: Any = None,
    *,
    vectors: Mapping[str, Any] | None = None,
    ids: str | Sequence[Id] | None = "id",
    text: str | None = None,
    metadata: Sequence[str] | None = None,
    nulls: bool | None = None,
    normalise: bool | Names[str] = False,
    existing: bool = False,
    merge: bool = False,
    batch: int | None = None,
    batch_bytes: int = DEFAULT_BATCH_BYTES,
    resume: bool = True,
    progress: Progress | None = None,
    cancel: CancelCheck | None = None,
    trust: bool = False,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> ImportResult:
    """Read records and vectors from files, tables or arrays into a collection.

    Parameters
    ----------
    collection : Collection
        Its spaces must exist, except when `source` is an export directory, which brings its own.
    source : path, table, iterable of dict, array_like of shape (n, d), or None
        ``.jsonl`` / ``.jsonl.gz`` (one object a line), ``.parquet``, ``.arrow`` / ``.feather`` (extra ``arrow``); a
        pandas, Polars or Arrow table or a dict of columns; a directory written by `export_data`; a vector file or
        array for the collection's only space; any other file that an importer of the database's plugins reads. None:
        `vectors` alone, with the ids 0 to n - 1 or `ids`.
    vectors : mapping of str to (path, array_like or "@field")
        Space name to where its vectors are. Files: ``.npy``, ``.npz`` (``file.npz::name``), ``.fvecs``, ``.bvecs``,
        ``.ivecs``, arrays: row i belongs to record i. ``"@field"``: a field or column of the records; null there
        means that the record has no vector. Default for a file that a plugin reads: its vectors, each in the space
        of their name.
    ids : str, sequence of (str or int), or None; default "id"
        The field that holds the id; None numbers the records from 0. Values only where there are no records.
    text : str, optional
        The field that becomes the record's text. Default: none, a field called text is metadata.
    metadata : sequence of str, optional
        The fields that become metadata. Default: all that have no other meaning.
    nulls : bool, optional
        Keep null as the value None (default for JSON and dicts) or leave the field out (default for tables).
    normalise : bool or collection of space names, default False
        Divide each row by its norm after the cast to float32 (needed for int8 rows with a scale of their own).
    existing : bool, default False
        Give existing records a vector in further spaces; metadata and text are not touched, unknown ids raise.
    merge : bool, default False
        Keep what existing records have and the source does not give.
    batch : int, optional
        Records a commit, at least 1. Default: as many as `batch_bytes` allows, at most 10,000.
    batch_bytes : int, default 8 MiB
        Bytes a commit, at least 4096: vectors as float32 plus about four times the bytes of the lines.
    resume : bool, default True
        Continue an earlier run of the same import from files that was stopped. The progress is kept in a small file
        beside the database until the import is complete. Data in memory is never resumed.
    progress : callable, optional
        ``progress(done, total)`` in rows; `total` may be None.
    cancel : callable, optional
        Asked before each batch; a true answer stops with `ImportInterruptedError`, a `CancelledError`.
    trust : bool, default False
        Skip the check that vectors look like the space's model.
    format : str, optional
        Name of the importer that reads the file. Default: by its suffix, else by its first bytes; vecdb reads what it
        knows itself.
    options : mapping, optional
        Parameters of that importer.

    Returns
    -------
    ImportResult

    Raises
    ------
    SourceError
        A damaged, cut-off, oversized or mismatching file, naming file and line; before the first commit where sizes
        tell.
    DuplicateIdError
        An id twice in one batch, or at all if the collection was empty.
    DimensionError, DTypeError, NonFiniteError, ZeroVectorError, IdError, MetadataError, ...
        As in `Collection.upsert`, with the row of the source and, for text files, the line.
    ExtraMissingError
        Parquet or Arrow without pyarrow.
    PluginContractError
        An importer raised or returned what breaks its contract; batches before that are committed.
    UnknownNameError
        No plugin provides the `format`.
    """
    if format is None and restore.is_export(source):
        given = {"vectors": vectors, "text": text, "metadata": metadata}
        _refuse_choices({**given, "existing": existing, "merge": merge, "normalise": normalise})
        return _restored(collection, source, batch, batch_bytes, resume, progress, cancel)
    foreign = open_foreign(source, format, options, collection.database.plugins)
    if foreign is not None:
        source, vectors = foreign, _spaces_of(foreign, vectors)
    source, vectors = _vectors_alone(collection, source, dict(vectors or {}))
    keep_nulls = _keeps_nulls(source) if nulls is None else nulls
    sources = open_sources(source, vectors=vectors, ids=ids, text=text, metadata=metadata, nulls=keep_nulls)
    try:
        _check_spaces(collection, vectors)
        job = Job(collection, sources, _names(normalise, vectors), existing, merge, trust)
        settings = [ids if isinstance(ids, str) else None, text, metadata, keep_nulls, existing, merge]
        return run_import(job, _limits(batch, batch_bytes, sources), settings, resume, progress, cancel)
    finally:
        sources.close()


def from_table(
    collection: Collection,
    table: Any,
    *,
    id: str | None = "id",
    text: str | None = None,
    vectors: Mapping[str, str] | None = None,
    metadata: Sequence[str] | None = None,
    **options: Any,
) -> ImportResult:
    """Import a table in memory: `import_data` with column names.

    Parameters
    ----------
    collection : Collection
    table : pandas or Polars DataFrame, pyarrow Table or RecordBatch, or dict of str to sequence
    id, text : str or None
        Columns.
    vectors : mapping of str to str
        Space name to column.
    metadata : sequence of str, optional
        Columns that become metadata. Default: all that have no other meaning.
    **options
        The other parameters of `import_data`.
    """
    named = {space: "@" + column for space, column in (vectors or {}).items()}
    return import_data(collection, table, ids=id, text=text, vectors=named, metadata=metadata, **options)


def inspect_source(
    source: Any = None,
    *,
    vectors: Mapping[str, Any] | None = None,
    ids: str | Sequence[Id] | None = "id",
    text: str | None = None,
    metadata: Sequence[str] | None = None,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    plugins: PluginRegistry | None = None,
) -> SourceFacts:
    """Return rows and vector widths of a source without importing it.

    The parameters are those of `import_data`; `plugins` is where importers are looked up,
    by default among the installed plugins.
    """
    if format is None and restore.is_export(source):
        return restore.export_facts(os.fspath(source))
    foreign = open_foreign(source, format, options, default_registry() if plugins is None else plugins)
    if foreign is not None:
        source, vectors = foreign, _spaces_of(foreign, vectors)
    if not vectors and _is_vectors_alone(source):
        vectors, source = {"": source}, None
    sources = open_sources(source, vectors=dict(vectors or {}), ids=ids, text=text, metadata=metadata)
    try:
        return sources.facts()
    finally:
        sources.close()


def _spaces_of(foreign: ForeignFile, vectors: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Without a word on vectors, all that the file has are meant, each for the space of its name."""
    return {name: "@" + name for name in foreign.widths} if vectors is None else vectors


def _refuse_choices(given: Mapping[str, Any]) -> None:
    """An export says itself what is what."""
    chosen = [name for name, value in given.items() if value not in (None, False) and value != {}]
    if chosen:
        raise ParameterError(
            f"{chosen[0]} has no meaning for an export, which holds everything as it was.",
            hint="leave it out.",
            name=chosen[0],
            got=given[chosen[0]],
            allowed="nothing",
        )


def _restored(
    collection: Collection,
    source: Any,
    batch: int | None,
    batch_bytes: int,
    resume: bool,
    progress: Progress | None,
    cancel: CancelCheck | None,
) -> ImportResult:
    sources = restore.open_export(collection, os.fspath(source))
    try:
        # The vectors were accepted once; the guard would judge batches of an order it did not see then.
        job = Job(collection, sources, frozenset(), existing=False, merge=False, trust=True, ordered=True)
        return run_import(job, _limits(batch, batch_bytes, sources), ["export"], resume, progress, cancel)
    finally:
        sources.close()


def _vectors_alone(collection: Collection, source: Any, vectors: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A vector file or an array as the source is meant for the only space there is."""
    if not _is_vectors_alone(source):
        return source, vectors
    if vectors or len(collection.spaces) != 1:
        raise ParameterError(
            "vectors without a space can be imported only where the collection has exactly one.",
            hint="name the space (vectors={space: file}, --vectors SPACE=FILE).",
            name="source",
            got=f"{len(collection.spaces)} spaces",
            allowed="1",
        )
    return None, {next(iter(collection.spaces)): source}


def _is_vectors_alone(source: Any) -> bool:
    if not isinstance(source, str | os.PathLike):
        return isinstance(source, np.ndarray)
    suffix = os.path.splitext(os.fspath(source).partition("::")[0])[1].lower()
    return suffix in (*vectorfiles.SUFFIXES, ".npz")


def _keeps_nulls(source: Any) -> bool:
    """In JSON null is a value; in a table it is how a missing field looks."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source).lower().endswith((".jsonl", ".ndjson", ".gz"))
    return isinstance(source, Sequence) or hasattr(source, "__next__")


def _check_spaces(collection: Collection, vectors: Mapping[str, Any]) -> None:
    known = collection.spaces
    for space in vectors:
        if space not in known:
            raise SpaceMissingError(
                f"collection {collection.name!r} has no space {space!r}; it has {', '.join(known) or 'none'}.",
                hint=f"create it first: collection.add_space({space!r}, dim=...).",
                name=space,
                available=tuple(known),
            )


def _names(normalise: bool | Names[str], vectors: Mapping[str, Any]) -> frozenset[str]:
    if isinstance(normalise, bool):
        return frozenset(vectors) if normalise else frozenset()
    unknown = set(normalise) - set(vectors)
    if unknown:
        raise ParameterError(
            f"normalise names {', '.join(map(repr, sorted(unknown)))}, for which no vectors are given.",
            hint="name spaces that are imported.",
            name="normalise",
            got=sorted(unknown),
            allowed=sorted(vectors),
        )
    return frozenset(normalise)


def _limits(batch: int | None, batch_bytes: int, sources: Sources) -> Limits:
    for name, value, least in (("batch", batch, 1), ("batch_bytes", batch_bytes, 4096)):
        if value is not None and (type(value) is not int or value < least):
            raise ParameterError(
                f"{name} is {value!r}, expected an int of at least {least:,}.",
                hint="leave it out for the default.",
                name=name,
                got=value,
                allowed=f">= {least}",
            )
    return Limits(batch if batch is not None else _MOST_ROWS, batch_bytes, sources.row_bytes())
