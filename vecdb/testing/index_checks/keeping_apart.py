"""Group X: what an index must not touch, keep or trust."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.testing.checks import fail, require, rule
from vecdb.testing.index_checks.apart import possible, run_apart
from vecdb.testing.index_checks.cases import (
    SEED,
    Built,
    load,
    metric_of,
    same_answers,
    usable,
    usual,
    usual_queries,
    usual_rows,
)
from vecdb.testing.memory import MemoryView

_DESCRIPTORS = Path("/proc/self/fd")


def _life(index_type: Any) -> Built:
    """Build, search, dump, load and search; return the loaded index."""
    built, queries = usual(index_type)
    built.answers(queries, 10)
    again = load(built, built.dumped())
    again.answers(queries, 10)
    again.index.stats()
    return again


@rule("X1")
def check_keeps_nothing_lent(index_type: Any) -> None:
    """Nothing that was lent is kept: neither a view, nor vectors in place, nor queries, nor the parameters."""
    rows, queries = usual_rows(index_type), usual_queries(index_type)
    params: dict[str, Any] = {name: param.default for name, param in index_type.parameters.items()}
    lent, plain = MemoryView(rows, metric_of(index_type), spoil=True), MemoryView(rows, metric_of(index_type))
    index = index_type.build(lent, params, seed=SEED, progress=lambda *_: None, cancel=lambda: False)
    built = Built(index_type, index, lent)
    before = usable(built, queries, 10, "what was lent in place is overwritten after the loan")
    if index_type.capabilities.deterministic:
        sound, _ = usual(index_type)
        same_answers(sound.answers(queries, 10), before, "what was lent in place is overwritten after the loan")
    lent.close()
    params.clear()
    same_answers(before, built.answers(queries, 10, view=plain), "with the view of the build closed")
    asked = queries.copy()
    first = index.search(asked, 10, allowed=None, effort=None, view=plain)
    kept = first[0].copy()
    asked[...] = 0
    index.search(queries[::-1].copy(), 10, allowed=None, effort=None, view=plain)
    require(np.array_equal(kept, first[0]), "an answer changes after it was given")
    same_answers(before, built.answers(queries, 10, view=plain), "with earlier queries overwritten")


@rule("X2")
def check_global_random_numbers(index_type: Any) -> None:
    """The global random numbers of numpy and Python are neither used nor changed: `seed` is the only source."""
    found = np.random.get_state(), random.getstate()
    try:
        # A state that no plugin seeds: else one that always seeds the same would leave what it found.
        np.random.seed(3_141_592_653)
        random.seed("vecdb.testing")
        before = np.random.get_state(), random.getstate()
        _life(index_type)
        after = np.random.get_state(), random.getstate()
    finally:
        np.random.set_state(found[0])
        random.setstate(found[1])
    require(_same_numbers(before[0], after[0]), "the global random state of numpy has changed")
    require(before[1] == after[1], "the global random state of Python has changed")


def _same_numbers(one: Any, other: Any) -> bool:
    return all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


@rule("X3")
def check_threads_end(index_type: Any) -> None:
    """No thread of Python is left running."""
    before = set(threading.enumerate())
    index = _life(index_type)
    left = _left_after_a_while(threading.enumerate, before)
    require(not left, f"{len(left)} threads are left, among them {sorted(map(str, left))[:1]}")
    del index


@rule("X4")
def check_output(index_type: Any) -> None:
    """Nothing is printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        _life(index_type)
    said = out.getvalue() + err.getvalue()
    require(not said, f"it prints {said[:60]!r}")


@rule("X5", lambda index_type: _DESCRIPTORS.is_dir())
def check_files_left_open(index_type: Any) -> None:
    """No file or socket is left open."""
    _life(index_type)
    before = set(_open_descriptors())
    index = _life(index_type)
    left = _left_after_a_while(_open_descriptors, before)
    require(not left, f"descriptors {sorted(left)[:3]} are left open")
    del index


def _open_descriptors() -> list[str]:
    return [path.name for path in _DESCRIPTORS.iterdir() if path.is_symlink()]


def _left_after_a_while(now: Callable[[], Iterable[Any]], before: set[Any]) -> set[Any]:
    """Return what is there now and was not before, and does not go away within two seconds."""
    until = time.monotonic() + 2.0
    while (left := set(now()) - before) and time.monotonic() < until:
        time.sleep(0.01)
    return left


@rule("X6", possible)
def check_no_files(index_type: Any) -> None:
    """No file, socket or process is opened: what an index stores goes through its blobs."""
    touched = [_alive(word)["file"] for word in run_apart(index_type, "watched") if "file" in _alive(word)]
    require(not touched, f"it uses {touched[:1]}")


@rule("X7", possible)
def check_nothing_is_executed(index_type: Any) -> None:
    """`load` unpickles, imports and executes nothing."""
    done = [_alive(word)["execution"] for word in run_apart(index_type, "watched") if "execution" in _alive(word)]
    require(not done, f"load uses {done[:1]}")


@rule("X8", possible)
def check_forged_blobs(index_type: Any) -> None:
    """Blobs that hold something else than was written give `CorruptionError` or usable answers: no crash, no hang.

    Shortened, lengthened, missing and swapped blobs must be noticed, unless the answers are the same; changed bytes may
    go unnoticed, as the engine's checksums are about those. Tried in a child process.
    """
    trying, wrong = "loading what was dumped", []
    for word in run_apart(index_type, "forged"):
        if "died" in word:
            fail(f"{trying}: it {word['died']}")
        trying = word.get("trying", trying)
        wrong += [word["wrong"]] if "wrong" in word else []
    require(not wrong, f"{wrong[:1]}, and {len(wrong) - 1} more")


def _alive(word: dict[str, str]) -> dict[str, str]:
    if "died" in word:
        fail(f"a life cycle in a process of its own {word['died']}")
    return word
