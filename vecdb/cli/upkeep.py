"""Commands that keep a database well: check, compact, backup, warmup; and demo, which shows one."""

from __future__ import annotations

import time
from typing import Any, Literal

import click

import vecdb
from vecdb.cli import opening
from vecdb.cli.commands import command
from vecdb.cli.options import database_argument, json_option, timeout_option
from vecdb.cli.output import Output

__all__ = ["COMMANDS"]


@command("vecdb check news.vecdb && echo sound")
@database_argument
@json_option
@click.pass_context
def check(ctx: click.Context, database: str, out: Output) -> None:
    """Prove every checksum, reference and count of a file.

    The exit code is 1 if something is wrong; every problem is named.
    """
    with opening.reading(database) as db, out.progress("checking") as progress:
        report = db.check(progress)
    counts = dict(report.counts)
    if out.as_json:
        problems = list(report.problems)
        out.document({"ok": report.ok, "problems": problems, "counts": counts, "seconds": report.seconds})
    else:
        for problem in report.problems:
            out.line(problem)
        looked = ", ".join(f"{value:,} {name}" for name, value in counts.items())
        out.line(f"{'sound' if report.ok else f'{len(report.problems):,} problems'}: {looked}")
    if not report.ok:
        ctx.exit(1)


@command("vecdb compact news.vecdb", "vecdb compact news.vecdb --keep nothing --timeout 60")
@database_argument
@click.option(
    "--keep",
    type=click.Choice(["tags", "window", "nothing"]),
    default="tags",
    show_default=True,
    help="History that stays readable: tagged commits, also the retention window, or none (tags are removed).",
)
@timeout_option
@json_option
def compact(database: str, keep: Literal["tags", "window", "nothing"], timeout: float, out: Output) -> None:
    """Give the space of deleted and old data back to the disk.

    Needs the file for itself: other programs that have it open must close it within --timeout.
    """
    with opening.writing(database, timeout) as db, out.progress("compacting") as progress:
        sizes = db.compact(keep, timeout, progress)
    if out.as_json:
        out.document(dict(sizes))
        return
    before, after = sizes["bytes_before"], sizes["bytes_after"]
    out.line(f"{before:,} bytes -> {after:,} bytes ({after / max(1, before):.0%})")


@command("vecdb backup news.vecdb backups/news-monday.vecdb")
@database_argument
@click.argument("target", metavar="TARGET", type=click.Path(path_type=str))
@json_option
def backup(database: str, target: str, out: Output) -> None:
    """Write a consistent, verified copy to a new file.

    The database may be in use meanwhile.
    """
    with opening.reading(database) as db, out.progress("copying") as progress:
        size = db.backup(target, progress)
    if out.as_json:
        out.document({"path": target, "bytes": size})
    else:
        out.line(f"{target}: {size:,} bytes")


@command("vecdb warmup")
@json_option
def warmup(out: Output) -> None:
    """Compile all kernels now, so that no later process has to.

    The result is kept in a cache directory of the user, named by kernel sources, numba and processor.
    """
    began = time.perf_counter()
    with out.progress("compiling") as progress:
        done: list[Any] = vecdb.warmup(progress)
    seconds = time.perf_counter() - began
    if out.as_json:
        kernels = [{"kernel": i.kernel, "seconds": i.seconds, "from_cache": i.from_cache} for i in done]
        out.document({"kernels": kernels, "seconds": seconds})
        return
    cached = sum(item.from_cache for item in done)
    out.line(f"{len(done)} kernels ready in {seconds:.1f} s; {cached} were compiled before")


@command("vecdb demo", "vecdb demo --path demo.vecdb")
@click.option("--path", type=click.Path(path_type=str), help="Keep the database here. Default: a temporary file.")
@json_option
@click.pass_context
def demo(ctx: click.Context, path: str | None, out: Output) -> None:
    """Build, search, rewind and kill a small real database.

    Shows what happened; the exit code is 1 if a claim did not hold.
    """
    from vecdb import demo as demonstration

    report = demonstration.run(path, quiet=out.as_json)
    if out.as_json:
        out.document(report.to_dict())
    if not report.ok:
        ctx.exit(1)


COMMANDS = (check, compact, backup, warmup, demo)
