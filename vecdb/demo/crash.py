"""A writer in a second process, killed in the middle of a commit; then the file is opened again.

The writer (`python -m vecdb.demo --writer PATH`) commits batches of texts and says so on its standard output after each
commit, as an application would answer its caller. The parent makes it pause inside a commit through the environment
variable ``VECDB_FAILPOINT`` (the record is written, the commit is not), waits for the note on standard error that it
stands there, and sends SIGKILL. Nothing is cleaned up, no handler runs. Design: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

import vecdb
from vecdb import sample
from vecdb.demo.build import JOURNAL
from vecdb.demo.facts import Crash
from vecdb.errors import StateError
from vecdb.sample import Sample
from vecdb.types import Record

__all__ = ["kill_a_writer", "write_until_killed"]

Lines: TypeAlias = "queue.SimpleQueue[str | None]"
"""What the writer says on standard error; None when it ended."""

_BATCH = 20
_KILLED_COMMIT = 6
"""The commit, counted from 1, that never ends."""
_POINT = "commit.before"
_PATIENCE = 60.0
"""Seconds to wait for the writer to reach that commit."""


def _batches(data: Sample) -> Iterator[dict[str, Any]]:
    texts = data.texts
    for start in range(0, len(texts), _BATCH):
        part = slice(start, start + _BATCH)
        yield {
            "ids": texts.ids[part],
            "vectors": {name: vectors[part] for name, vectors in texts.vectors.items()},
            "metadata": texts.metadata[part],
            "texts": texts.texts[part],
        }


def write_until_killed(path: str) -> None:
    """Commit batch after batch and acknowledge each one; what the second process does."""
    data = sample.load()
    with vecdb.open(path, automatic=False) as db:  # no housekeeping: the commits are exactly the batches
        journal = db.collection(JOURNAL)
        for number, batch in enumerate(_batches(data), start=1):
            journal.upsert(**batch)
            print(f"acknowledged {number}", flush=True)


def kill_a_writer(path: Path, data: Sample) -> Crash:
    """Start the writer, kill it in mid-commit, open the file again and count.

    Raises
    ------
    StateError
        If the writer ended, or did not come to the commit in time, so that there was nothing to show.
    """
    acknowledged, signal = _run_writer(path)
    batches = list(_batches(data))
    unfinished = batches[acknowledged]
    began = time.perf_counter()
    with vecdb.open(path) as db:
        journal = db.collection(JOURNAL)
        len(journal)
        milliseconds = (time.perf_counter() - began) * 1e3
        found = sum(_intact(journal, batch) for batch in batches[:acknowledged])
        unfinished_found = sum(name in journal for name in unfinished["ids"])
        report = db.check()
        journal.upsert(**unfinished)
        return Crash(
            commits=acknowledged,
            acknowledged=sum(len(batch["ids"]) for batch in batches[:acknowledged]),
            found=found,
            unfinished=len(unfinished["ids"]),
            unfinished_found=unfinished_found,
            signal=signal,
            problems=report.problems,
            checked=dict(report.counts),
            rewritten=_intact(journal, unfinished),
            reopen_milliseconds=milliseconds,
        )


def _intact(journal: vecdb.Collection, batch: dict[str, Any]) -> int:
    """Return how many records of the batch are stored with their text, metadata and every vector bit."""
    records: list[Record | None] = [*journal.get(batch["ids"], vectors="all", missing_ok=True)]
    return sum(
        record is not None
        and record.text == batch["texts"][row]
        and record.metadata == batch["metadata"][row]
        and set(record.vectors) == set(batch["vectors"])
        and all(np.array_equal(record.vectors[name], rows[row]) for name, rows in batch["vectors"].items())
        for row, record in enumerate(records)
    )


# --- the second process -----------------------------------------------------------------------------------


def _run_writer(path: Path) -> tuple[int, int]:
    """Run the writer up to the fatal commit and kill it there; returns (acknowledged commits, signal)."""
    command = [sys.executable, "-m", "vecdb.demo", "--writer", str(path)]
    with subprocess.Popen(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None and writer.stderr is not None
        lines: Lines = queue.SimpleQueue()
        listener = threading.Thread(target=_forward, args=(writer.stderr, lines), daemon=True)
        listener.start()
        try:
            _wait_for_the_point(lines)
        finally:
            writer.kill()
            listener.join()  # ends with the pipe, which must not be closed under it
        acknowledged = sum(line.startswith("acknowledged ") for line in writer.stdout)
        return acknowledged, abs(writer.wait())


def _environment() -> dict[str, str]:
    """Return the environment of this process with the failpoint, and with this very vecdb first on the path."""
    here = str(Path(vecdb.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "VECDB_FAILPOINT": f"{_POINT}:{_KILLED_COMMIT}"}


def _wait_for_the_point(lines: Lines) -> None:
    """Return when the writer says that it stands in the middle of a commit."""
    said: list[str] = []
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise _not_shown(f"did not come to its commit {_KILLED_COMMIT} within {_PATIENCE:.0f} s", said) from None
        if line is None:
            raise _not_shown(f"ended before its commit {_KILLED_COMMIT}", said)
        if line.split() == ["failpoint", _POINT]:
            return
        said.append(line)


def _forward(stream: IO[str], lines: Lines) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _not_shown(why: str, said: list[str]) -> StateError:
    last = f" It said: {said[-1].strip()}" if said else ""
    return StateError(f"The demonstration's writer {why}.{last}", hint="run the demo again on a local disk")
