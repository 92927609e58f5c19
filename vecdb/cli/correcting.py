"""Commands about hubs: fit-correction stores a correction of scores, corrections lists or drops what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

import vecdb
from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.options import collection_argument, database_argument, json_option, pairs, timeout_option
from vecdb.cli.output import Output
from vecdb.errors import SourceError
from vecdb.interchange import loads, read_vectors

__all__ = ["COMMANDS"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=str)
_COLUMNS = ("name", "space", "kind", "bank", "gallery", "own", "rows", "bytes")


@command("vecdb corrections news.vecdb docs", "vecdb corrections news.vecdb docs --drop fair")
@database_argument
@collection_argument
@click.option("--drop", metavar="NAME", help="Remove a correction instead.")
@timeout_option
@json_option
def corrections(database: str, collection: str, drop: str | None, timeout: float, out: Output) -> None:
    """List the stored corrections of scores, or drop one."""
    if drop is None:
        with opening.reading(database) as db:
            _show(db.collection(collection).corrections, out)
        return
    with opening.writing(database, timeout) as db:
        docs = db.collection(collection)
        docs.drop_correction(drop)
        _show(docs.corrections, out)


@command(
    "vecdb fit-correction news.vecdb docs fair queries.npy",
    "vecdb fit-correction news.vecdb docs soft queries.npy --kind inverted-softmax --param temperature=0.5",
)
@database_argument
@collection_argument
@click.argument("name")
@click.argument("bank", type=_FILE)
@click.option("--kind", default="csls", show_default=True, help="Kind of correction.")
@click.option("--space", help="Space of the queries; needed where the collection has several.")
@click.option("--param", "params", metavar="NAME=VALUE", multiple=True, help="Parameter of the kind.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="For the rows that a gallery bank is drawn from.")
@timeout_option
@json_option
def fit_correction(
    database: str,
    collection: str,
    name: str,
    bank: str,
    params: Sequence[str],
    timeout: float,
    out: Output,
    **options: Any,
) -> None:
    """Learn which records are near to every query.

    BANK is a file of vectors: queries like those to come, as the space's model embeds them; no answers are needed.
    `vecdb search --correction NAME` then takes from the score of each record what it owes to that.
    """
    given = {key: _value(text) for key, text in pairs(params, "--param").items()}
    with opening.writing(database, timeout) as db:
        docs = db.collection(collection)
        docs.fit_correction(name, bank=read_vectors(bank), **options, **given)
        _show(docs.corrections, out)


def _value(text: str) -> Any:
    """Read a number, true or false as such; anything else is a word."""
    try:
        return loads(text.encode(), path="--param")
    except SourceError:
        return text


def _show(found: Sequence[vecdb.CorrectionInfo], out: Output) -> None:
    if out.as_json:
        out.document({"corrections": [asdict(each) for each in found]})
        return
    rows = [[getattr(each, name) for name in _COLUMNS] for each in found]
    out.table(_COLUMNS, rows, empty="no corrections: scores are as they are")


COMMANDS = (corrections, fit_correction)
