"""Commands that say how a database is doing: stats, with the health of its spaces, and report, which is a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import vecdb
from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.options import as_of_option, database_argument, json_option
from vecdb.cli.output import Output
from vecdb.interchange import loads

__all__ = ["COMMANDS"]


def _pairs(ctx: click.Context, param: click.Parameter, value: str | None) -> list[Any] | None:
    """Read pairs of ids from a file."""
    if value is None:
        return None
    found = loads(Path(value).read_bytes(), path=value)
    if not isinstance(found, list):
        raise click.BadParameter(f"{value} holds a {type(found).__name__}, expected a list of [id, id]")
    return found


@command("vecdb stats news.vecdb", "vecdb stats news.vecdb docs --health --space minilm")
@database_argument
@click.argument("collection", metavar="[COLLECTION]", required=False)
@click.option("--health", is_flag=True, help="Measure how vectors lie and what indexes find, of every space.")
@click.option("--space", help="With --health: this space alone.")
@click.option(
    "--sample",
    type=click.IntRange(1, 50_000),
    default=4_000,
    show_default=True,
    help="With --health: vectors drawn at random.",
)
@click.option("--labels", metavar="FIELD", help="With --health: how separate the values of this metadata field are.")
@click.option(
    "--pairs",
    callback=_pairs,
    type=click.Path(exists=True, dir_okay=False, path_type=str),
    metavar="FILE",
    help="With --health: records that belong together, a JSON list of [id, id]; how well they find each other.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="With --health: of the sample.")
@as_of_option
@json_option
def stats(
    database: str, collection: str | None, *, health: bool, space: str | None, as_of: Any, out: Output, **wishes: Any
) -> None:
    """Count records and vectors, or measure spaces.

    Measures of health come from a random sample, with 95 % intervals in brackets.
    """
    with opening.reading(database) as db:
        chosen = [db.collection(name) for name in (db.collections() if collection is None else [collection])]
        if health:
            _show_health(_health(chosen, space, {**wishes, "as_of": as_of}), out)
            return
        if space is not None or as_of is not None:
            raise click.UsageError("--space and --as-of belong to --health.")
        _show_counts({docs.name: docs.stats() for docs in chosen}, out)


def _health(chosen: list[vecdb.Collection], space: str | None, wishes: dict[str, Any]) -> list[vecdb.SpaceHealth]:
    named = [(docs, name) for docs in chosen for name in (docs.spaces if space is None else [space])]
    return [docs.health(name, **wishes) for docs, name in named]


def _show_health(found: list[vecdb.SpaceHealth], out: Output) -> None:
    if out.as_json:
        out.document({"spaces": [each.as_dict() for each in found]})
        return
    for place, each in enumerate(found):
        if place:
            out.line("")
        out.line(str(each))
    if not found:
        out.line("(no spaces)")


def _show_counts(found: dict[str, dict[str, Any]], out: Output) -> None:
    if out.as_json:
        out.document({"collections": found})
        return
    for name, facts in found.items():
        indexes = {f"{each['space']} {each['kind']}": f"covers {each['coverage']:.0%}" for each in facts["indexes"]}
        out.facts({name: {**facts, "indexes": indexes}})
    if not found:
        out.line("(no collections)")


@command("vecdb report news.vecdb --out health.html", "vecdb report news.vecdb docs --labels section --json")
@database_argument
@click.argument("collections", metavar="[COLLECTION]...", nargs=-1)
@click.option(
    "--out",
    "path",
    type=click.Path(dir_okay=False, path_type=str),
    metavar="FILE",
    help="Write .html, .json or text. Default: print text.",
)
@click.option(
    "--sample",
    type=click.IntRange(1, 50_000),
    default=4_000,
    show_default=True,
    help="Vectors of each space drawn at random.",
)
@click.option("--labels", metavar="FIELD", help="A metadata field: how separate its values are.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the samples.")
@json_option
def report(database: str, collections: Sequence[str], *, path: str | None, out: Output, **wishes: Any) -> None:
    """Report on all spaces as one HTML page.

    The page is complete in itself: no script, nothing is loaded from anywhere. Nothing is written to the database.
    """
    with opening.reading(database) as db, out.progress("measuring spaces") as progress:
        found = db.report(collections or None, progress=progress, **wishes)
    if path is not None:
        _write(found, path)
    if out.as_json:
        out.document(found.as_dict())
    elif path is None:
        out.line(str(found))
    else:
        spaces = sum(len(each.spaces) for each in found.collections)
        out.line(f"{path}: {spaces} spaces of {len(found.collections)} collections")


def _write(found: vecdb.HealthReport, path: str) -> None:
    try:
        found.save(path)
    except OSError as error:
        raise click.BadParameter(f"cannot write {path}: {error.strerror}", param_hint="--out") from error


COMMANDS = (stats, report)
