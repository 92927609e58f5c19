"""The demonstration: a real database built, searched, sent back in time and killed, before the reader's eyes.

Owns nothing that is stored. It is written like an application: public names of vecdb and the sample only. Invariant:
every figure that it shows was measured in this very run; none is typed in. `build` fills and searches the database,
`upgrade` changes its model, `crash` kills a writer in mid-commit, `facts` holds what was found, `show` prints it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vecdb
from vecdb import sample
from vecdb.demo import build, crash, show, upgrade
from vecdb.demo.facts import Answer, Built, Crash, DemoReport, Quality, Stage, Travel, Upgrade

__all__ = ["Answer", "Built", "Crash", "DemoReport", "Quality", "Stage", "Travel", "Upgrade", "run"]


def run(path: str | os.PathLike[str] | None = None, console: Any = None, *, quiet: bool = False) -> DemoReport:
    """Show what vecdb does on the sample inside the package, in a few seconds.

    Builds a database with one space for each of two models, searches it with and without ``where`` and compares every
    answer with a plain numpy product, deletes records and searches the time before, changes the model of a collection
    and changes it back, then has a second process commit batches and kills it in the middle of one.

    Parameters
    ----------
    path : path, optional
        File to create and to keep. Default: a temporary file that is removed at the end.
    console : rich.console.Console, optional
        Where to print. Default: standard output, with rich if it is installed and as plain text otherwise.
    quiet : bool, default False
        Print nothing; only the report is wanted.

    Returns
    -------
    DemoReport
        Every figure that was shown; ``report.ok`` says whether each claim held.

    Raises
    ------
    ExistsError
        If something is already at `path`.
    StorageError
        If the database cannot be written there.
    """
    began = time.perf_counter()
    screen = show.screen(console, quiet=quiet)
    data = sample.load()
    with _file(path) as file:
        built = build.fill(file, data)
        show.built(screen, built, data)
        with vecdb.open(file) as db:
            answers = build.answers(db, data)
            show.answers(screen, answers, built.records)
            quality = build.qualities(db, data)
            show.qualities(screen, quality)
            travel = build.travel(db, data)
            show.travel(screen, travel)
            upgraded = upgrade.upgrade(db, data)
            show.upgrade(screen, upgraded)
        crashed = crash.kill_a_writer(file, data)
        show.crash(screen, crashed)
        report = DemoReport(
            path=str(file),
            kept=path is not None,
            built=built,
            answers=answers,
            quality=quality,
            travel=travel,
            upgrade=upgraded,
            crash=crashed,
            seconds=time.perf_counter() - began,
        )
    show.verdict(screen, report)
    return report


@contextmanager
def _file(path: str | os.PathLike[str] | None) -> Iterator[Path]:
    if path is not None:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="vecdb-demo-") as folder:
        yield Path(folder) / "demo.vecdb"
