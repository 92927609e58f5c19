"""Commands that move data: import and export."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

import vecdb
from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.importoptions import import_options
from vecdb.cli.options import (
    as_of_option,
    collection_argument,
    database_argument,
    for_spaces,
    json_option,
    pairs,
    timeout_option,
    where_option,
)
from vecdb.cli.output import Output
from vecdb.errors import CollectionMissingError, ImportInterruptedError, SpaceMissingError
from vecdb.interchange import (
    FORMATS,
    ImportResult,
    export_data,
    find_importer,
    import_data,
    inspect_source,
    reads_itself,
)
from vecdb.registry import default_registry
from vecdb.types import Progress

__all__ = ["COMMANDS"]

_IDENTITY = ("metric", "dtype", "role", "model", "revision")


@command(
    "vecdb import news.vecdb docs docs.jsonl.gz --text text --vectors mini6=docs.npy --model all-MiniLM-L6-v2",
    "vecdb import news.vecdb docs --vectors e5s=e5.npy --ids-from docs.jsonl.gz --existing",
    "vecdb import news.vecdb docs table.parquet --id key --vectors mini6=@embedding --fields title,year",
    "vecdb import copy.vecdb docs news-export",
    name="import",
)
@database_argument
@collection_argument
@import_options
@timeout_option
@json_option
def import_command(database: str, collection: str, out: Output, **options: Any) -> None:
    """Read records and vectors into a collection.

    Each batch is one commit. SOURCE is .jsonl or .jsonl.gz (one object a line), .parquet or .arrow, or a directory
    that export wrote. Vectors stand beside it in .npy, .npz (FILE::NAME), .fvecs, .bvecs or .ivecs files, or in a
    field of the records (--vectors SPACE=@FIELD). Without SOURCE the records are numbered from 0. Files of other kinds
    are read by plugins; vecdb plugins lists the importers.

    Database, collection and spaces are made where they do not exist. Options for new spaces take one value for all of
    them or SPACE=VALUE. A run that was stopped continues where it was when it is started again.
    """
    call = _Call(options)
    call.check()
    with _open(database, options, out) as db:
        docs = _collection(db, collection, options["create"], out)
        if not call.is_export():
            _make_spaces(docs, call, options, out)
        with out.progress(f"importing {collection}") as progress:
            result = _run(docs, call, options, progress)
        facts = {"records": len(docs), "spaces": {name: space.dim for name, space in docs.spaces.items()}}
    _report(result, facts, out)


class _Call:
    """What the options mean for `import_data`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        given = [name for name in ("source", "records", "ids_from") if options[name] is not None]
        if len(given) > 1:
            raise click.UsageError("give one of SOURCE, --records and --ids-from.")
        self.source: str | None = options[given[0]] if given else None
        only_ids = options["ids_from"] is not None
        if only_ids and not options["existing"]:
            raise click.UsageError("--ids-from reads nothing but ids and needs --existing; give the file as SOURCE.")
        self.format: str | None = options["format"]
        self.options = self._options(options["params"])
        self.vectors = pairs(options["vectors"], "--vectors")
        self.ids = None if options["number"] else options["id_field"]
        self.text = None if only_ids else options["text"]
        fields = options["fields"]
        self.metadata = [] if only_ids or fields == "" else None if fields is None else fields.split(",")

    def _options(self, given: Sequence[str]) -> dict[str, Any]:
        """Read parameters of an importer, which has declared their types."""
        texts = pairs(given, "--param")
        if not texts:
            return {}
        if self.source is None:
            raise click.UsageError("--param is for an importer, which reads SOURCE.")
        found = find_importer(self.source, self.format, default_registry())
        owner, declared = f"importer {found.name!r}", found.thing.parameters
        return {
            name: declared[name].read(owner, name, text) if name in declared else text for name, text in texts.items()
        }

    def check(self) -> None:
        """Look at what is to be read before a database is made for it."""
        if self.source is None and not self.vectors:
            raise click.UsageError("there is nothing to import: give SOURCE, --vectors or both.")
        if self.is_foreign() and not self.vectors:
            facts = inspect_source(self.source, **{**self.reading(), "vectors": None})
            self.vectors = {name: "@" + name for name in facts.widths}
            return
        beside = {space: name for space, name in self.vectors.items() if not name.startswith("@")}
        inspect_source(self.source, **{**self.reading(), "vectors": beside})

    def is_foreign(self) -> bool:
        """Return whether an importer of a plugin reads the source."""
        return self.format is not None or (
            self.source is not None and not self.is_export() and not reads_itself(self.source)
        )

    def is_export(self) -> bool:
        return self.source is not None and os.path.isdir(self.source)

    def reading(self) -> dict[str, Any]:
        chosen = {"vectors": self.vectors, "ids": self.ids, "text": self.text, "metadata": self.metadata}
        return {**chosen, "format": self.format, "options": self.options}


def _open(path: str, options: Mapping[str, Any], out: Output) -> vecdb.Database:
    if not os.path.exists(path):
        if not options["create"]:
            return opening.writing(path, options["timeout"])  # says that there is none
        out.note(f"making database {path}")
    return vecdb.open(path, durability=options["durability"], timeout=options["timeout"])


def _collection(db: vecdb.Database, name: str, create: bool, out: Output) -> vecdb.Collection:
    try:
        return db.collection(name)
    except CollectionMissingError:
        if not create:
            raise
    out.note(f"making collection {name}")
    return db.create_collection(name)


def _make_spaces(docs: vecdb.Collection, call: _Call, options: Mapping[str, Any], out: Output) -> None:
    """Make the spaces that vectors are given for and that do not exist; their width comes from the source."""
    settings = {key: for_spaces(options[key], list(call.vectors), f"--{key}") for key in _IDENTITY}
    new = [space for space in call.vectors if space not in docs.spaces]
    if not new:
        return
    if not options["create"]:
        raise SpaceMissingError(
            f"collection {docs.name!r} has no space {new[0]!r}.",
            hint="leave --no-create out.",
            name=new[0],
            available=tuple(docs.spaces),
        )
    widths = inspect_source(call.source, **call.reading()).widths
    for space in new:
        identity: dict[str, Any] = {key: values[space] for key, values in settings.items() if space in values}
        made = docs.add_space(space, dim=widths[space][0], **identity)
        model = made.model or "not named"
        out.note(f"making space {space}: {made.dim} wide, {made.metric}, {made.dtype}, model {model}")


def _run(docs: vecdb.Collection, call: _Call, options: Mapping[str, Any], progress: Progress | None) -> ImportResult:
    chosen = {name: options[name] for name in ("existing", "merge", "normalise", "trust", "batch", "resume")}
    committed = 0

    def follow(done: int, total: int | None) -> None:
        nonlocal committed
        committed = done
        if progress is not None:
            progress(done, total)

    try:
        return import_data(docs, call.source, **call.reading(), **chosen, progress=follow)
    except KeyboardInterrupt as error:
        raise ImportInterruptedError(
            f"the import was interrupted; {committed:,} rows are committed.",
            hint="run the same command again to continue.",
            done=committed,
        ) from error


def _report(result: ImportResult, collection: Mapping[str, Any], out: Output) -> None:
    if out.as_json:
        names = ("rows", "inserted", "updated", "resumed", "seq")
        out.document({**{name: getattr(result, name) for name in names}, **collection})
        return
    out.line(f"{result.rows:,} rows: {result.inserted:,} records inserted, {result.updated:,} updated")
    if result.resumed:
        out.line(f"{result.resumed:,} of them by an earlier run")
    out.line(f"the collection has {collection['records']:,} records")


@command(
    "vecdb export news.vecdb docs news-export",
    """vecdb export news.vecdb docs games.parquet --where '{"section": "games"}'""",
    "vecdb export news.vecdb docs old.jsonl.gz --no-vectors --as-of before-upgrade",
)
@database_argument
@collection_argument
@click.argument("target", metavar="TARGET", type=click.Path(path_type=str))
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Default: by suffix of TARGET, else a directory.")
@click.option("--space", "spaces", metavar="SPACE", multiple=True, help="Only the vectors of this space.")
@click.option("--no-vectors", is_flag=True, help="Leave the vectors out.")
@where_option
@as_of_option
@click.option("--overwrite", is_flag=True, help="Replace TARGET when the new files are complete.")
@json_option
def export(
    database: str,
    collection: str,
    target: str,
    *,
    kind: str | None,
    spaces: Sequence[str],
    no_vectors: bool,
    where: Any,
    as_of: Any,
    overwrite: bool,
    out: Output,
) -> None:
    """Write a collection to files.

    The default is a directory that import reads back without any loss. By suffix of TARGET: .jsonl, .jsonl.gz,
    .parquet, .arrow, .npz, .npy, .fvecs. TARGET appears when it is complete.
    """
    if spaces and no_vectors:
        raise click.UsageError("--space and --no-vectors exclude each other.")
    chosen = [] if no_vectors else list(spaces) or None
    with opening.reading(database) as db, out.progress(f"exporting {collection}") as progress:
        docs = db.collection(collection)
        done = export_data(
            docs, target, format=kind, spaces=chosen, where=where, as_of=as_of, overwrite=overwrite, progress=progress
        )
    if out.as_json:
        names = ("path", "format", "records", "vectors", "seq")
        out.document({name: getattr(done, name) for name in names})
    else:
        counts = "".join(f", {count:,} vectors of {space}" for space, count in done.vectors.items())
        out.line(f"{done.path} ({done.format}): {done.records:,} records{counts}")


COMMANDS = (import_command, export)
