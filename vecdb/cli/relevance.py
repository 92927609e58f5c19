"""The command about relevance filters: relevance lists, fits, fits again and drops them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

import vecdb
from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.options import collection_argument, database_argument, json_option, pairs, timeout_option
from vecdb.cli.output import Output
from vecdb.interchange import read_labelled, read_vectors

__all__ = ["COMMANDS"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=str)
_COLUMNS = ("name", "space", "kind", "revision", "queries", "positives", "missed", "threshold", "stale", "available")
_SHOWN = ("pr_auc", "precision_at_95", "ece_top10", "brier_skill_top10", "recall", "precision")


def _fit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--fit", "name", metavar="NAME", help="Fit a filter of this name."),
        click.option("--kind", default="cosine-adapter", show_default=True, help="Kind of filter."),
        click.option(
            "--labelled",
            type=_FILE,
            metavar="FILE",
            help='Queries with answers: lines of {"vector": [...], "relevant": IDS, "ignore": IDS, "group": ANY}, or '
            "an .npz with arrays queries, relevant, ignore, group.",
        ),
        click.option("--space", help="The space that the queries are of."),
        click.option("--pool", type=click.IntRange(min=1), default=100, show_default=True, help="Candidates of each."),
        click.option(
            "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the kind; repeatable."
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random."),
        click.option("--refit", metavar="NAME", help="Fit a stored filter again, on its own queries."),
        click.option("--queries", type=_FILE, metavar="FILE", help="Its queries by the model of --space, for --refit."),
        click.option("--drop", metavar="NAME", help="Remove a filter; its plugin need not be installed."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command(
    "vecdb relevance news.vecdb docs",
    "vecdb relevance news.vecdb docs --fit shop --kind calibrated --labelled queries.jsonl --param method=isotonic",
    "vecdb relevance news.vecdb docs --refit shop --space bge --queries new.npy",
)
@database_argument
@collection_argument
@_fit_options
@timeout_option
@json_option
def relevance(
    database: str,
    collection: str,
    *,
    name: str | None,
    refit: str | None,
    drop: str | None,
    timeout: float,
    out: Output,
    **given: Any,
) -> None:
    """List, fit or drop relevance filters.

    They say which hits are relevant, and drop the others from a search. A fit is measured on a quarter of the queries;
    intervals are in brackets. A stale filter was fitted on other scores.
    """
    wanted = [each for each in (name, refit, drop) if each is not None]
    if len(wanted) > 1:
        raise click.UsageError("--fit, --refit and --drop exclude each other.")
    if not wanted:
        with opening.reading(database) as db:
            _show(db.collection(collection).relevance_filters, out)
        return
    with opening.writing(database, timeout) as db, out.progress("fitting") as progress:
        docs = db.collection(collection)
        if drop is not None:
            docs.drop_relevance(drop)
        elif refit is not None:
            path = given["queries"]
            rows = None if path is None else read_vectors(path)
            docs.refit_relevance(refit, space=given["space"], queries=rows, progress=progress)
        else:
            _fit(db, docs, str(name), given, progress)
        _show(docs.relevance_filters, out)


def _fit(db: vecdb.Database, docs: vecdb.Collection, name: str, given: Mapping[str, Any], progress: Any) -> None:
    if given["labelled"] is None:
        raise click.UsageError("--fit needs --labelled.")
    found = read_labelled(given["labelled"])
    docs.fit_relevance(
        name,
        given["kind"],
        space=given["space"],
        queries=found.queries,
        relevant_ids=found.relevant,
        ignore_ids=found.ignore,
        groups=found.groups,
        pool=given["pool"],
        params=_values(db.plugins, given["kind"], pairs(given["params"], "--param")),
        seed=given["seed"],
        progress=progress,
    )


def _values(plugins: vecdb.PluginRegistry, kind: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Read each value as the kind of its parameter; what is not declared is refused by the fit."""
    if not texts:
        return {}
    declared = plugins.find("relevance filter", kind).thing.parameters
    owner = f"relevance filter {kind!r}"
    return {name: declared[name].read(owner, name, text) if name in declared else text for name, text in texts.items()}


def _show(found: Sequence[vecdb.FilterInfo], out: Output) -> None:
    if out.as_json:
        out.document({"relevance_filters": [asdict(each) for each in found]})
        return
    rows = [[getattr(each, name) for name in _COLUMNS] for each in found]
    out.table(_COLUMNS, rows, empty="no relevance filters: searches return the best, whether or not they are relevant")
    for each in found:
        said = [f"{name.replace('_', ' ')} {_value(each.report[name])}" for name in _SHOWN if name in each.report]
        if said:
            out.line(f"{each.name}: measured on {each.report['measured_on']} queries: {', '.join(said)}")
        if each.reason:
            out.line(f"{each.name}: {each.reason}")


def _value(measured: Mapping[str, Any]) -> str:
    value, low, high = (measured[name] for name in ("value", "low", "high"))
    return "unknown" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


COMMANDS = (relevance,)
