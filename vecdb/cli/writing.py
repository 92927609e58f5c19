"""Commands that change records: delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.options import (
    collection_argument,
    database_argument,
    int_ids_option,
    json_option,
    timeout_option,
    where_option,
)
from vecdb.cli.output import Output
from vecdb.errors import WhereError

__all__ = ["COMMANDS"]


@command("vecdb delete news.vecdb docs a b", """vecdb delete news.vecdb docs --where '{"section": "games"}'""")
@database_argument
@collection_argument
@click.argument("ids", metavar="[ID...]", nargs=-1)
@where_option
@click.option("--erase", is_flag=True, help="Forget untagged history too, so that compact removes the bytes.")
@int_ids_option
@timeout_option
@json_option
def delete(
    database: str,
    collection: str,
    ids: Sequence[str],
    *,
    where: Any,
    erase: bool,
    int_ids: bool,
    out: Output,
    timeout: float,
) -> None:
    """Delete records by id, or all that satisfy a condition.

    All go in one commit. An ID that looks like a number means the text if a record has that id, otherwise the number.
    Write -- before IDs that begin with a dash.
    """
    if bool(ids) == (where is not None):
        raise click.UsageError("give either IDs or --where.")
    if where == {}:
        raise WhereError("--where '{}' would delete every record.", hint="name a condition.")
    with opening.writing(database, timeout) as db:
        docs = db.collection(collection)
        chosen = [opening.find_id(docs, text, int_ids, None) for text in ids] if ids else None
        result = docs.delete(chosen, where=where, erase=erase)
    if out.as_json:
        out.document({"deleted": result.deleted, "seq": result.seq})
    else:
        out.line(f"deleted {result.deleted:,} records")


COMMANDS = (delete,)
