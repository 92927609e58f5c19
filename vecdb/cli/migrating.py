"""The commands under ``vecdb migrate``: changing the embedding model of a collection, step by step.

The encoder is the caller's own code, named as ``module:callable`` on the command line; nothing stored names one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any

import click

import vecdb
from vecdb.cli import opening
from vecdb.cli.commands import command, verbatim
from vecdb.cli.options import collection_argument, database_argument, json_option, pairs, timeout_option
from vecdb.cli.output import Output

__all__ = ["COMMANDS"]

_SHOWN = 10
"""Records that are listed by name."""


@click.group(
    epilog=verbatim(
        "Examples:",
        "vecdb migrate start news.vecdb docs minilm bge --encode models:embed",
        "vecdb migrate status news.vecdb docs --json",
        "vecdb migrate rollback news.vecdb docs",
    )
)
def migrate() -> None:
    """Change to a new embedding model, or back.

    Every record gets a vector from the new model while everything goes on; until `finish` all of it can be undone.
    """


def _load(ctx: click.Context, param: click.Parameter, value: str | None) -> Callable[[list[Any]], Any] | None:
    """Import the callable that ``module:name`` stands for; modules of the working directory are found."""
    if value is None:
        return None
    module, sign, name = value.partition(":")
    if not sign or not module or not name:
        raise click.BadParameter(f"{value!r} is not MODULE:CALLABLE.", ctx=ctx, param=param)
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise click.BadParameter(f"cannot load {value}: {error}.", ctx=ctx, param=param) from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise click.BadParameter(f"{value} is a {type(found).__name__}, which cannot be called.", ctx=ctx, param=param)
    return found  # type: ignore[no-any-return]


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of whatever embeds."""
    options = (
        click.option(
            "--encode",
            callback=_load,
            metavar="MODULE:CALLABLE",
            help="Python callable from a list of texts to an array with a row for each.",
        ),
        click.option("--limit", type=click.IntRange(min=0), help="Embed at most so many records now. Default: all."),
        click.option(
            "--rate", type=click.FloatRange(min=0, min_open=True), help="Records per second at most. Default: no limit."
        ),
        click.option(
            "--retries",
            type=click.IntRange(min=0),
            default=3,
            show_default=True,
            help="Further attempts after the encoder raised.",
        ),
        click.option("--trust", is_flag=True, help="Skip the guard against another model's vectors."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command(
    "vecdb migrate start news.vecdb docs minilm bge --encode models:embed",
    "vecdb migrate start news.vecdb docs minilm bge --encode models:embed --policy traffic --limit 5000",
)
@database_argument
@collection_argument
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@_run_options
@click.option("--policy", default="novelty", show_default=True, help="Order of the records; a plugin's name, too.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the policy; repeatable.")
@click.option("--batch", type=click.IntRange(min=1), default=256, show_default=True, help="Records of one commit.")
@click.option(
    "--canary",
    type=click.FloatRange(0, 0.5),
    default=0.03,
    show_default=True,
    help="Share of the records that is embedded first, at random, to see whether the promise is kept.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random in it.")
@click.option("--records", is_flag=True, help="The encoder takes Record objects instead of texts.")
@timeout_option
@json_option
def start(
    database: str,
    collection: str,
    source: str,
    target: str,
    *,
    encode: Callable[[list[Any]], Any] | None,
    limit: int | None,
    rate: float | None,
    retries: int,
    trust: bool,
    policy: str,
    params: tuple[str, ...],
    batch: int,
    canary: float,
    seed: int,
    records: bool,
    timeout: float,
    out: Output,
) -> None:
    """Record a migration from the space SOURCE to the space TARGET, and embed.

    Without --encode it is only recorded. Interrupt it at will: `resume` goes on.
    """
    texts = pairs(params, "--param")
    with opening.writing(database, timeout) as db:
        migration = db.collection(collection).migrate(
            source,
            target,
            encode,
            policy,
            batch,
            canary=canary,
            seed=seed,
            params=_values(db.plugins, policy, texts),
            inputs="records" if records else "texts",
            retries=retries,
            rate=rate,
            trust=trust,
        )
        _embed(migration, encode is not None, limit, out)


def _values(plugins: vecdb.PluginRegistry, policy: str, texts: dict[str, str]) -> dict[str, Any]:
    """Read each value as the kind of its parameter; what the policy does not declare is refused by `migrate`."""
    if not texts:
        return {}
    declared = plugins.find("backfill policy", policy).thing.parameters
    owner = f"backfill policy {policy!r}"
    return {name: declared[name].read(owner, name, text) if name in declared else text for name, text in texts.items()}


def _embed(
    migration: vecdb.Migration, able: bool, limit: int | None, out: Output, *, retry_failed: bool = False
) -> None:
    if able:
        with out.progress("embedding") as progress:
            migration.run(limit, retry_failed=retry_failed, progress=progress)
    _show(migration.status(), out)


@command("vecdb migrate status news.vecdb docs")
@database_argument
@collection_argument
@click.option("--all", "every", is_flag=True, help="Also those that are over.")
@json_option
def status(database: str, collection: str, every: bool, out: Output) -> None:
    """Say how far a migration is, how fast, and which records would be left out."""
    with opening.reading(database) as db:
        docs = db.collection(collection)
        known = docs.migrations if every else (docs.migration().status(),)
    if out.as_json:
        out.document({"migrations": [asdict(each) for each in known]})
        return
    for each in known:
        _show(each, out)


@command("vecdb migrate pause news.vecdb docs", "vecdb migrate pause news.vecdb docs --reason 'the quota is spent'")
@database_argument
@collection_argument
@click.option("--reason", default="by request", show_default=True, help="What whoever goes on is told.")
@timeout_option
@json_option
def pause(database: str, collection: str, reason: str, timeout: float, out: Output) -> None:
    """Stop a migration after the batch that it is at, in whatever process it runs."""
    with opening.writing(database, timeout) as db:
        migration = db.collection(collection).migration()
        migration.pause(reason)
        _show(migration.status(), out)


@command("vecdb migrate resume news.vecdb docs --encode models:embed")
@database_argument
@collection_argument
@_run_options
@click.option("--retry-failed", is_flag=True, help="Try records again that could not be embedded at three passes.")
@timeout_option
@json_option
def resume(
    database: str,
    collection: str,
    *,
    encode: Callable[[list[Any]], Any] | None,
    limit: int | None,
    rate: float | None,
    retries: int,
    trust: bool,
    retry_failed: bool,
    timeout: float,
    out: Output,
) -> None:
    """Let a paused or interrupted migration go on, and embed.

    Without --encode a pause is ended and nothing is embedded.
    """
    with opening.writing(database, timeout) as db:
        migration = db.collection(collection).migration(encode, retries=retries, rate=rate, trust=trust)
        if migration.status().paused:
            migration.resume()
        _embed(migration, encode is not None, limit, out, retry_failed=retry_failed)


@command("vecdb migrate finish news.vecdb docs")
@database_argument
@collection_argument
@click.option("--leave-missing", is_flag=True, help="Also where records are still without a vector of the new model.")
@timeout_option
@json_option
def finish(database: str, collection: str, leave_missing: bool, timeout: float, out: Output) -> None:
    """Drop the old space. After that nothing can be undone."""
    with opening.writing(database, timeout) as db:
        migration = db.collection(collection).migration()
        migration.finish(leave_missing=leave_missing)
        _show(migration.status(), out)


@command("vecdb migrate rollback news.vecdb docs && vecdb compact news.vecdb")
@database_argument
@collection_argument
@timeout_option
@json_option
def rollback(database: str, collection: str, timeout: float, out: Output) -> None:
    """Take away everything that the migration wrote. Answers of the old space are what they were before it."""
    with opening.writing(database, timeout) as db:
        migration = db.collection(collection).migration()
        with out.progress("rolling back") as progress:
            left = migration.rollback(progress=progress)
        _show(left, out)


def _show(status: vecdb.MigrationStatus, out: Output) -> None:
    if out.as_json:
        out.document(asdict(status))
        return
    out.line(
        f"migration {status.number} from {status.source} to {status.target}: {status.state}"
        + (f", paused: {status.paused}" if status.paused else "")
    )
    out.line(
        f"{status.share:.1%} of {status.total:,} records, {status.pending:,} left, {status.rate:,.0f} a second"
        + (f", about {status.remaining:,.0f} s to go" if status.remaining else "")
    )
    if status.measured:
        promised, found = status.measured["promised"], status.measured["found"]
        out.line(f"canary: bridged and native neighbours agree to {found:.2f}, promised {promised:.2f}")
    _list("could not be embedded", [f"{id!r}: {reason}" for id, reason in status.failures], out)
    _list("have a vector of the new model alone", [repr(id) for id in status.only_new], out)


def _list(what: str, items: list[str], out: Output) -> None:
    if items:
        out.line(f"{len(items):,} records {what}")
    for item in items[:_SHOWN]:
        out.line(f"  {item}")


for _command in (start, status, pause, resume, finish, rollback):
    migrate.add_command(_command)

COMMANDS = (migrate,)
