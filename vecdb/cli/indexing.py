"""Commands about indexes: index makes, lists and drops them, optimize brings everything up to date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

import vecdb
from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.options import collection_argument, database_argument, json_option, pairs, timeout_option
from vecdb.cli.output import Output

__all__ = ["COMMANDS"]

_COLUMNS = ("space", "kind", "automatic", "coverage", "parts", "bytes", "available", "provided_by")


@command(
    "vecdb index news.vecdb docs",
    "vecdb index news.vecdb docs minilm hnswlib.hnsw --param M=32",
    "vecdb index news.vecdb docs minilm hnswlib.hnsw --drop",
)
@database_argument
@collection_argument
@click.argument("space", required=False)
@click.argument("kind", required=False)
@click.option(
    "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the index type; repeatable."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of types that use randomness.")
@click.option("--drop", is_flag=True, help="Remove the index instead; its plugin need not be installed.")
@timeout_option
@json_option
def index(
    database: str,
    collection: str,
    space: str | None,
    kind: str | None,
    *,
    params: tuple[str, ...],
    seed: int,
    drop: bool,
    timeout: float,
    out: Output,
) -> None:
    """Build an index over a space, list or drop indexes.

    Without a space the indexes are listed; `vecdb plugins` lists the kinds there are.
    """
    if space is None:
        with opening.reading(database) as db:
            _show(db.collection(collection).indexes, out)
        return
    if kind is None:
        raise click.UsageError("name the kind of index too.")
    texts = pairs(params, "--param")
    with opening.writing(database, timeout) as db, out.progress("indexing") as progress:
        docs = db.collection(collection)
        if drop:
            docs.drop_index(space, kind)
        else:
            given = _values(db.plugins, kind, texts)
            docs.create_index(space, kind, seed=seed, progress=progress, **given)
        _show(docs.indexes, out)


def _values(plugins: vecdb.PluginRegistry, kind: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Read each value as the kind of its parameter; what the type does not declare is refused by `create_index`."""
    if not texts:
        return {}
    if kind == "auto":
        raise click.UsageError("--param needs a kind of index: plugins choose those of 'auto'.")
    declared = plugins.find("index type", kind).thing.parameters
    owner = f"index type {kind!r}"
    return {name: declared[name].read(owner, name, text) if name in declared else text for name, text in texts.items()}


def _show(indexes: list[vecdb.IndexInfo], out: Output) -> None:
    if out.as_json:
        out.document({"indexes": [asdict(each) for each in indexes]})
        return
    rows = [[getattr(each, name) for name in _COLUMNS] for each in indexes]
    out.table(_COLUMNS, rows, empty="no indexes: every search scans all vectors")
    for each in indexes:
        if each.reason:
            out.line(each.reason)
        for name, value in each.stats.items():
            if name.startswith(("recall@", "local_dimension")):
                out.line(f"{each.space} {each.kind}: {name.replace('_', ' ')}: {value}")


@command("vecdb optimize news.vecdb", "vecdb optimize news.vecdb docs --json")
@database_argument
@click.argument("collection", required=False)
@timeout_option
@json_option
def optimize(database: str, collection: str | None, timeout: float, out: Output) -> None:
    """Bring blocks and indexes up to date.

    Seals what is small, rewrites what is mostly dead, lets indexes take in what was written since.
    """
    with opening.writing(database, timeout) as db, out.progress("optimizing") as progress:
        target = db if collection is None else db.collection(collection)
        steps = target.optimize(progress)
    if out.as_json:
        out.document({"steps": steps})
    else:
        out.line(f"{steps:,} steps had something to do")


COMMANDS = (index, optimize)
