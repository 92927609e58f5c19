"""A child process for checks that may crash, or that must watch a whole interpreter.

The child is a fresh interpreter where the index type can be found by its name there: native libraries with threads of
their own do not survive a fork. Otherwise it is forked. It reports in lines of JSON; a child that dies or hangs is
reported with the last thing it said. What it does: `vecdb.testing.index_checks.jobs`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from vecdb.testing.index_checks.jobs import JOBS, resolve
from vecdb.testing.processes import Child, Link

__all__ = ["possible", "run_apart"]

_PATIENCE = 120.0
"""Seconds that one step of a child may take."""


def possible(index_type: Any) -> bool:
    """Return whether this platform has what a child of this kind needs."""
    return hasattr(os, "fork")


def run_apart(index_type: Any, job: str) -> Iterator[Any]:
    """Yield what a child process says while it does a job; after a crash or a hang, ``{"died": how}``."""
    place = _place_of(index_type)
    said: Iterator[Any]
    if place is not None:
        said = _in_interpreter(place, job)
        if next(said, None) == "ready":
            yield from said
            return
    yield from _in_fork(index_type, job)


def _place_of(index_type: Any) -> dict[str, str] | None:
    """Return how a fresh interpreter finds the type, None if it cannot."""
    cls = type(index_type)
    places = [{"module": cls.__module__, "name": cls.__qualname__}, {"registered": str(index_type.name)}]
    for place in places:
        if place.get("module") == "__main__":
            continue
        try:
            found = resolve(place)
        except Exception:  # whatever it is, this is not the way to find it
            continue
        if type(found) is cls and _state(found) == _state(index_type):
            return place
    return None


def _state(index_type: Any) -> dict[str, Any]:
    """Return all attributes: a type that was made with other arguments is another one."""
    slots = [name for cls in type(index_type).__mro__ for name in getattr(cls, "__slots__", ())]
    return {name: getattr(index_type, name, None) for name in slots} | getattr(index_type, "__dict__", {})


def _in_interpreter(place: dict[str, str], job: str) -> Iterator[Any]:
    heard, said = os.pipe()
    order = json.dumps({"place": place, "job": job, "path": sys.path, "say": said})
    command = [sys.executable, "-m", "vecdb.testing.index_checks.jobs", order]
    path = os.pathsep.join(filter(None, sys.path))
    child = subprocess.Popen(
        command,
        pass_fds=[said],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    os.close(said)
    try:
        yield from _heard(Link(heard, -1), lambda: child.wait(_PATIENCE))
    finally:
        child.kill()
        child.wait()
        os.close(heard)


def _in_fork(index_type: Any, job: str) -> Iterator[Any]:
    def work(link: Link) -> None:
        JOBS[job](index_type, link.send)
        link.send("done")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads; this child is short
        child = Child(work)
    with child:
        yield from _heard(child, lambda: None)


def _heard(link: Link, end: Any) -> Iterator[Any]:
    """Yield what is said until "done"."""
    while True:
        try:
            word = link.receive(_PATIENCE)
        except TimeoutError:
            yield {"died": f"does not end within {_PATIENCE:g} s"}
            return
        except EOFError:
            code = end()
            yield {"died": "ends the process" + (f" with code {code}" if code else "")}
            return
        if word == "done":
            return
        if isinstance(word, dict) and "failed" in word:
            yield {"died": word["failed"].strip().splitlines()[-1]}
            return
        yield word
