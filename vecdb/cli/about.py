"""Commands that describe a database: info, collections, spaces, commits, tag."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

import vecdb
from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.options import database_argument, json_option, timeout_option
from vecdb.cli.output import Output
from vecdb.types import Commit, Space

__all__ = ["COMMANDS"]


@command("vecdb info news.vecdb")
@database_argument
@json_option
def info(database: str, out: Output) -> None:
    """Show what a database holds and how large it is."""
    with opening.reading(database) as db:
        facts: dict[str, Any] = {"path": str(db.path), "uuid": str(db.uuid), **db.stats(), "tags": db.tags()}
    if out.as_json:
        out.document(facts)
    else:
        out.facts({name: value for name, value in facts.items() if name != "map_bytes"})  # room, not use


@command("vecdb collections news.vecdb")
@database_argument
@json_option
def collections(database: str, out: Output) -> None:
    """List the collections with their records and spaces."""
    with opening.reading(database) as db:
        found = [_collection(db.collection(name)) for name in db.collections()]
    if out.as_json:
        out.document({"collections": found})
    else:
        rows = [(item["name"], item["records"], ", ".join(item["spaces"])) for item in found]
        out.table(("collection", "records", "spaces"), rows, empty="no collections")


def _collection(collection: vecdb.Collection) -> dict[str, Any]:
    return {"name": collection.name, "records": len(collection), "spaces": list(collection.spaces)}


@command("vecdb spaces news.vecdb", "vecdb spaces news.vecdb docs --json")
@database_argument
@click.argument("collection", metavar="[COLLECTION]", required=False)
@json_option
def spaces(database: str, collection: str | None, out: Output) -> None:
    """List the spaces: which model made which vectors."""
    with opening.reading(database) as db:
        chosen = [db.collection(name) for name in (db.collections() if collection is None else [collection])]
        found = [{"collection": docs.name, **_space(docs, space)} for docs in chosen for space in docs.spaces.values()]
    if out.as_json:
        out.document({"spaces": found})
        return
    columns = ("collection", "name", "dim", "metric", "dtype", "model", "revision", "role", "vectors")
    rows = [[*(item[column] for column in columns), _percent(item["loss"])] for item in found]
    out.table(("collection", "space", *columns[2:], "mean loss (max)"), rows, empty="no spaces")


def _space(docs: vecdb.Collection, space: Space) -> dict[str, Any]:
    names = ("name", "dim", "metric", "dtype", "model", "revision", "role")
    facts = docs.stats()["spaces"][space.name]
    return {name: getattr(space, name) for name in names} | {"vectors": facts["vectors"], "loss": facts["loss"]}


def _percent(loss: Mapping[str, float] | None) -> str:
    """Show what rounding lost, relative to the norms of the vectors."""
    return "" if loss is None else f"{100 * loss['mean']:.3f} % ({100 * loss['max']:.3f} %)"


@command("vecdb commits news.vecdb --limit 5")
@database_argument
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest ones.")
@json_option
def commits(database: str, limit: int, out: Output) -> None:
    """Show the last commits, the newest at the end."""
    with opening.reading(database) as db:
        found = [_commit(commit) for commit in db.commits(limit)]
    if out.as_json:
        out.document({"commits": found})
        return
    rows = [(str(item["seq"]), item["time"], ", ".join(item["changes"]), ", ".join(item["tags"])) for item in found]
    out.table(("seq", "time", "changes", "tags"), rows, empty="no commits")


def _commit(commit: Commit) -> dict[str, Any]:
    time = datetime.fromtimestamp(commit.time, UTC).isoformat(timespec="milliseconds")
    return {"seq": commit.seq, "time": time, "changes": list(commit.changes), "tags": list(commit.tags)}


@command(
    "vecdb tag news.vecdb before-upgrade",
    "vecdb search news.vecdb docs --like a --as-of before-upgrade",
    "vecdb tag news.vecdb before-upgrade --remove",
)
@database_argument
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--seq", type=click.IntRange(min=0), help="The commit to tag. Default: the newest.")
@click.option("--remove", is_flag=True, help="Remove the tag NAME.")
@timeout_option
@json_option
def tag(database: str, name: str | None, seq: int | None, remove: bool, timeout: float, out: Output) -> None:
    """Name a commit, so that its state stays readable.

    Without NAME, list the tags.
    """
    if remove and seq is not None:
        raise click.UsageError("--seq has no meaning with --remove.")
    if name is None:
        if remove or seq is not None:
            raise click.UsageError("NAME is missing.")
        _list_tags(database, out)
        return
    with opening.writing(database, timeout) as db:
        if remove:
            db.untag(name)
        else:
            seq = db.tag(name, seq)
    if out.as_json:
        out.document({"tag": name, "seq": seq, "removed": remove})
    else:
        out.line(f"removed tag {name}" if remove else f"tag {name} is commit {seq}")


def _list_tags(database: str, out: Output) -> None:
    with opening.reading(database) as db:
        tags = db.tags()
    if out.as_json:
        out.document({"tags": tags})
    else:
        out.table(("tag", "seq"), [(name, str(seq)) for name, seq in tags.items()], empty="no tags")


COMMANDS = (info, collections, spaces, commits, tag)
