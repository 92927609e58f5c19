"""Commands that judge models: plan-upgrade, compat-matrix, doctor; and transforms, which lists what leads where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
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
_COLUMNS = ("name", "source", "target", "kind", "direction", "pairs", "reference", "retention", "available")


def _entries(ctx: click.Context, param: click.Parameter, value: str | None) -> list[Any] | None:
    """Read a JSON list, or a file with one JSON value in each line."""
    if value is None:
        return None
    text = Path(value).read_bytes()
    if text.lstrip()[:1] == b"[" and text.rstrip()[-1:] == b"]" and text.count(b"\n[") == 0:
        found = loads(text, path=value)
        return found if isinstance(found, list) else [found]
    return [_line(line, value) for line in text.splitlines() if line.strip()]


def _line(line: bytes, path: str) -> Any:
    try:
        return loads(line, path=path)
    except SourceError:
        return line.decode("utf-8", "strict").strip()  # a bare id


def _query_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the files that hold queries and their answers."""
    options = (
        click.option("--old-queries", type=_FILE, metavar="FILE", help="Queries as the old model embeds them."),
        click.option("--new-queries", type=_FILE, metavar="FILE", help="The same queries as the new model does."),
        click.option(
            "--relevant",
            callback=_entries,
            type=_FILE,
            metavar="FILE",
            help="What answers each query: a JSON list of ids, of lists of ids or of objects from id to grade; or one "
            "such value a line.",
        ),
        click.option(
            "--old-bank", type=_FILE, metavar="FILE", help="Other queries, without answers, by the old model."
        ),
        click.option("--new-bank", type=_FILE, metavar="FILE", help="The same by the new model."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command(
    "vecdb plan-upgrade news.vecdb docs minilm bge --old-queries old.npy --new-queries new.npy --relevant ids.json",
    "vecdb plan-upgrade news.vecdb docs minilm bge --pairs new.npy --pair-ids ids.json --report plan.html",
    name="plan-upgrade",
)
@database_argument
@collection_argument
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--pairs", "rows", type=_FILE, metavar="FILE", help="Vectors of some records by the new model.")
@click.option("--pair-ids", callback=_entries, type=_FILE, metavar="FILE", help="The ids of these records.")
@_query_options
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Kind of map to try; repeatable. Default: a few.")
@click.option("--splits", type=click.IntRange(min=2), default=5, show_default=True, help="Splits of the pairs.")
@click.option(
    "--metric",
    type=click.Choice(["auto", "mrr", "recall@10", "ndcg@10"]),
    default="auto",
    show_default=True,
    help="What ratios are of.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random in it.")
@click.option(
    "--report",
    "path",
    type=click.Path(dir_okay=False, path_type=str),
    metavar="FILE",
    help="Write .html, .json or text.",
)
@click.option("--apply", "store", is_flag=True, help="Store the maps, whatever the verdict is.")
@timeout_option
@json_option
def plan_upgrade(
    database: str,
    collection: str,
    source: str,
    target: str,
    *,
    rows: str | None,
    pair_ids: Sequence[Any] | None,
    kinds: Sequence[str],
    path: str | None,
    store: bool,
    timeout: float,
    out: Output,
    **given: Any,
) -> None:
    """Say whether a new embedding model is worth it.

    Compares staying, bridging and re-embedding, with intervals, and advises. Without --pairs the records that have
    vectors in both spaces are used. Nothing is stored without --apply.
    """
    if (rows is None) != (pair_ids is None):
        raise click.UsageError("--pairs and --pair-ids belong together.")
    queries, bank = _query_sets(given)
    known = None if rows is None else (list(pair_ids or ()), read_vectors(rows))
    with opening.writing(database, timeout) if store else opening.reading(database) as db:
        docs = db.collection(collection)
        with out.progress("comparing") as progress:
            plan = docs.plan_upgrade(
                source,
                target,
                pairs=known,
                queries=queries,
                bank=bank,
                kinds=list(kinds) or None,
                progress=progress,
                **given,
            )
        stored = [info.name for info in plan.apply()] if store else []
        correcting = [info.name for info in plan.corrections]
    if path is not None:
        plan.report.save(path)
    if out.as_json:
        out.document({**plan.report.as_dict(), "stored": stored, "corrections": correcting})
        return
    out.line(str(plan.report))
    for name in stored:
        out.line(f"stored transform {name}")
    for name in correcting:
        out.line(f"stored correction {name}")


def _query_sets(given: dict[str, Any]) -> tuple[vecdb.QuerySet | None, vecdb.QuerySet | None]:
    """Take the query options out of `given`."""
    old, new, old_bank, new_bank = (
        None if (path := given.pop(name)) is None else read_vectors(path)
        for name in ("old_queries", "new_queries", "old_bank", "new_bank")
    )
    relevant = given.pop("relevant")
    queries = vecdb.QuerySet(old=old, new=new, relevant=relevant) if old is not None or new is not None else None
    if queries is None and relevant is not None:
        raise click.UsageError("--relevant needs --new-queries.")
    bank = vecdb.QuerySet(old=old_bank, new=new_bank) if old_bank is not None or new_bank is not None else None
    return queries, bank


@command(
    "vecdb compat-matrix news.vecdb docs --queries minilm=old.npy --queries bge=new.npy --relevant ids.json",
    name="compat-matrix",
)
@database_argument
@collection_argument
@click.option(
    "--queries", "files", multiple=True, required=True, metavar="SPACE=FILE", help="The same queries by each model."
)
@click.option("--relevant", callback=_entries, type=_FILE, required=True, metavar="FILE", help="As for plan-upgrade.")
@click.option(
    "--metric",
    type=click.Choice(["mrr", "recall@10", "ndcg@10"]),
    default="mrr",
    show_default=True,
    help="What is measured.",
)
@json_option
def compat_matrix(
    database: str, collection: str, files: Sequence[str], relevant: Sequence[Any], metric: Any, out: Output
) -> None:
    """Compare queries of all models over vectors of all.

    Between two models the stored transforms are used; a dash says that none leads there.
    """
    queries = {space: read_vectors(path) for space, path in pairs(files, "--queries").items()}
    with opening.reading(database) as db:
        found = db.collection(collection).compatibility_matrix(queries, relevant, metric=metric)
    if out.as_json:
        out.document(found.as_dict())
    else:
        out.line(str(found))


@command("vecdb transforms news.vecdb docs", "vecdb transforms news.vecdb docs --drop bge-to-minilm-ridge")
@database_argument
@collection_argument
@click.option("--drop", metavar="NAME", help="Remove a transform instead; its plugin need not be installed.")
@timeout_option
@json_option
def transforms(database: str, collection: str, drop: str | None, timeout: float, out: Output) -> None:
    """List the stored transforms between spaces, or drop one."""
    if drop is None:
        with opening.reading(database) as db:
            _show(db.collection(collection).transforms, out)
        return
    with opening.writing(database, timeout) as db:
        docs = db.collection(collection)
        docs.drop_transform(drop)
        _show(docs.transforms, out)


def _show(found: Sequence[vecdb.TransformInfo], out: Output) -> None:
    if out.as_json:
        out.document({"transforms": [asdict(each) for each in found]})
        return
    rows = [[_value(each, name) for name in _COLUMNS] for each in found]
    out.table(_COLUMNS, rows, empty="no transforms: queries of a space are answered over its own vectors")
    for each in found:
        if each.reason:
            out.line(f"{each.name}: {each.reason}")


def _value(info: vecdb.TransformInfo, name: str) -> Any:
    return info.quality.get("retention") if name == "retention" else getattr(info, name)


@command("vecdb doctor news.vecdb", "vecdb doctor news.vecdb docs --space minilm --json")
@database_argument
@click.argument("collection", metavar="[COLLECTION]", required=False)
@click.option("--space", help="Examine this space only.")
@json_option
def doctor(database: str, collection: str | None, space: str | None, out: Output) -> None:
    """Say whether a space holds vectors of several models.

    And where one gives way to another, in order of age. Nothing is changed.
    """
    if space is not None and collection is None:
        raise click.UsageError("--space needs a collection.")
    with opening.reading(database) as db, out.progress("examining"):
        names = db.collections() if collection is None else [collection]
        found = [(name, each) for name in names for each in db.collection(name).doctor(space)]
    if out.as_json:
        out.document({"spaces": [{"collection": name, **asdict(each)} for name, each in found]})
        return
    for name, each in found:
        out.line(f"{name} {each.space}: {_said(each)}")
        for model, count, first, last in each.stretches if len(each.stretches) > 1 else ():
            out.line(f"  model {model}: {count:,} vectors, from record {first!r} to {last!r}")
    if not found:
        out.line("(no spaces)")


def _said(found: vecdb.Diagnosis) -> str:
    if found.models is None:
        return found.note
    if found.mixed:
        return f"{found.note}: {' and '.join(f'{size:,}' for size in found.mixed)} of {found.vectors:,}"
    kinds = "one model" if found.models == 1 else f"{found.models} models, one after the other"
    return f"{found.vectors:,} vectors look like {kinds}"


COMMANDS = (plan_upgrade, compat_matrix, transforms, doctor)
