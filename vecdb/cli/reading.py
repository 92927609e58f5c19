"""Commands that read records: get and search."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.options import (
    as_of_option,
    collection_argument,
    database_argument,
    int_ids_option,
    json_option,
    where_option,
)
from vecdb.cli.output import Output
from vecdb.interchange import dumps, read_vectors
from vecdb.types import MAX_K, Hit, Hits, HitsBatch, Record

__all__ = ["COMMANDS"]

_MOST_INPUT = (256 << 20) + 1


@command("vecdb get news.vecdb docs a b", "vecdb get news.vecdb docs 12 --int-ids --vectors mini6 --json")
@database_argument
@collection_argument
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--vectors", metavar="SPACE", multiple=True, help="Show the vector of this space too; 'all' for each.")
@int_ids_option
@as_of_option
@json_option
def get(
    database: str, collection: str, ids: Sequence[str], vectors: Sequence[str], int_ids: bool, as_of: Any, out: Output
) -> None:
    """Show records by id.

    An ID that looks like a number means the text if a record has that id, otherwise the number. Write -- before IDs
    that begin with a dash.
    """
    with opening.reading(database) as db:
        docs = db.collection(collection)
        wanted = [opening.find_id(docs, text, int_ids, as_of) for text in ids]
        names = "all" if "all" in vectors else list(vectors)
        found = [_record(record) for record in docs.get(wanted, vectors=names, as_of=as_of)]
    if out.as_json:
        out.document({"records": found})
        return
    for record in found:
        out.facts(record)


def _record(record: Record) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": record.id, "version": record.version, "spaces": list(record.spaces)}
    if record.text is not None:
        shown["text"] = record.text
    shown["metadata"] = record.metadata
    if record.vectors:
        shown["vectors"] = {space: vector.tolist() for space, vector in record.vectors.items()}
    return shown


@command(
    "vecdb search news.vecdb docs --like a -k 5",
    """vecdb search news.vecdb docs --like 12 --where '{"section": {"$in": ["python", "doc"]}}'""",
    "vecdb search news.vecdb docs --vector '[0.1, 0.2, 0.7]' --space tiny --json",
    "vecdb search news.vecdb docs --positive a --positive b --negative c --group-by section",
)
@database_argument
@collection_argument
@click.option(
    "--vector",
    metavar="FILE|JSON",
    help="Query: a JSON list, or a file with one or .npy (several rows: several queries); - reads standard input.",
)
@click.option(
    "--like", metavar="ID", multiple=True, help="Query: the vector of this record, not among the hits; one query each."
)
@click.option(
    "--positive", metavar="ID", multiple=True, help="Example that the hits should be like; all make one query."
)
@click.option("--negative", metavar="ID", multiple=True, help="Example that the hits should be unlike.")
@click.option("-k", "k", type=click.IntRange(1, MAX_K), default=10, show_default=True, help="Hits for each query.")
@click.option("--space", help="Space to search; needed where the collection has several.")
@where_option
@as_of_option
@click.option(
    "--group-by", metavar="FIELD", help="Show the best of each value of this metadata field; -k counts values."
)
@click.option("--per-group", type=click.IntRange(min=1), help="Hits of each value.  [default: 1]")
@click.option("--diversify", type=click.Choice(["mmr", "mixture"]), help="Choose hits that are unlike each other.")
@click.option("--feedback", type=click.IntRange(min=1), help="Search again, moved towards so many of the best hits.")
@click.option("--exact", is_flag=True, help="Compare with every vector, whatever index there is.")
@click.option("--correction", metavar="NAME", help="Order hits by scores that this stored correction makes.")
@click.option("--relevance", metavar="NAME", help="Leave out hits that this stored filter calls not relevant.")
@click.option("--allow-stale", is_flag=True, help="Use the filter even if it was fitted on other scores.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out this many of the best hits.")
@click.option("--min-score", type=float, help="Leave out hits below this score.")
@click.option("--normalise", is_flag=True, help="Divide each query by its norm (int8 files).")
@int_ids_option
@click.option("--explain", is_flag=True, help="Say how the search was answered.")
@json_option
def search(
    database: str,
    collection: str,
    vector: str | None,
    normalise: bool,
    int_ids: bool,
    out: Output,
    **options: Any,
) -> None:
    """Find the records whose vectors are nearest to a query.

    Scores are higher for nearer. An ID that looks like a number means the text if a record has that id, otherwise the
    number.
    """
    examples = {name: options.pop(name) for name in ("like", "positive", "negative")}
    if examples["like"] and (vector is not None or examples["positive"] or examples["negative"]):
        raise click.UsageError("--like stands for a query; give it alone.")
    if vector is None and not examples["like"] and not examples["positive"]:
        raise click.UsageError("give one of --vector and --like, or --positive.")
    query = None if vector is None else _query(vector, normalise)
    with opening.reading(database) as db:
        docs = db.collection(collection)
        for name, given in examples.items():
            ids = [opening.find_id(docs, text, int_ids, options["as_of"]) for text in given]
            if ids:
                options[name] = ids[0] if name == "like" and len(ids) == 1 else ids
        found = docs.search(query, **options)
    _show(found, options["explain"], out)


def _query(name: str, normalise: bool) -> Any:
    source: Any = name
    if name == "-":
        source = sys.stdin.buffer.read(_MOST_INPUT)
    elif name.startswith("["):
        source = name.encode()
    return read_vectors(source, normalise=normalise)


def _show(found: Hits | HitsBatch, explain: bool, out: Output) -> None:
    answers = list(found) if isinstance(found, HitsBatch) else [found]
    if out.as_json:
        described = [_answer(hits) for hits in answers]
        batch = {"queries": described, "seq": found.seq}
        out.document(batch if isinstance(found, HitsBatch) else described[0])
        return
    for number, hits in enumerate(answers):
        if isinstance(found, HitsBatch):
            out.line(f"query {number}")
        _table(hits, out)
    if explain and found.plan is not None:
        out.notes({name: _plain(value) for name, value in found.plan.items()})


def _table(hits: Hits, out: Output) -> None:
    values = {id: dumps(group.value) for group in hits.groups or () for id in group.ids}
    rows = [
        (place, *([values[hit.id]] if values else []), str(hit.id), hit.score, *_description(hit))
        for place, hit in enumerate(hits, 1)
    ]
    judged = any(hit.relevance is not None for hit in hits)
    rows = (
        [(*row[:-2], float(hit.relevance or 0.0), *row[-2:]) for row, hit in zip(rows, hits, strict=True)]
        if judged
        else rows
    )
    columns = (
        "",
        *(["group"] if values else []),
        "id",
        "score",
        *(["relevance"] if judged else []),
        "text",
        "metadata",
    )
    out.table(columns, rows, empty="no hits", clipped=("text", "metadata"))
    if hits.dropped:
        out.note(f"{hits.dropped} not relevant")
    for warning in (*hits.warnings, *([] if hits.complete else [f"incomplete: {hits.reason}"])):
        out.note(warning)


def _description(hit: Hit) -> tuple[str, str]:
    text = " ".join((hit.text or "").split())
    facts = dumps(hit.metadata) if hit.metadata else ""
    return _short(text, 60), _short(facts, 80)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _answer(hits: Hits) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "hits": [_hit(hit) for hit in hits],
        "complete": hits.complete,
        "reason": hits.reason,
        "warnings": list(hits.warnings),
        "seq": hits.seq,
    }
    if hits.dropped or any(hit.relevance is not None for hit in hits):
        answer["dropped"] = hits.dropped
    if hits.groups is not None:
        answer["groups"] = [{"value": group.value, "ids": list(group.ids)} for group in hits.groups]
    if hits.plan is not None:
        answer["plan"] = {name: _plain(value) for name, value in hits.plan.items()}
    return answer


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.id,
        "score": float(hit.score),
        "distance": float(hit.distance),
        "space": hit.space,
        "text": hit.text,
        "metadata": hit.metadata,
        **({} if hit.relevance is None else {"relevance": hit.relevance}),
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else str(value)


COMMANDS = (get, search)
