"""Threads that share the work of one call: kernels leave the interpreter's lock, so they run side by side.

One pool for the process, made when it is first needed and as large as the largest wish so far; handing work over costs
some 50 us, so callers ask only where that pays. Invariant: results do not depend on how many threads there are, and the
caller's own thread always takes part, so that nothing waits for a pool that is gone (at exit, in the child of a fork).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from vecdb.errors import ParameterError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

R = TypeVar("R")

MOST: Final = 64

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_size = 0
_working = threading.local()


def default_threads() -> int:
    """Return how many processors this process may use, at most 16."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not everywhere
        usable = os.cpu_count() or 1
    return max(1, min(16, usable))


def check_threads(threads: object) -> int:
    """Return how many threads a search may use, by what `open` was given."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST:
        raise ParameterError(
            f"threads is {threads!r}, expected an int from 1 to {MOST}",
            name="threads",
            got=threads,
            allowed=f"1 to {MOST}",
        )
    return threads


def share(work: Sequence[Callable[[], R]]) -> list[R]:
    """Do every piece of `work`, each in a thread of its own, and return what they return.

    Parameters
    ----------
    work : sequence of callables
        The first is done by the calling thread. Pieces that share work themselves do it alone.

    Returns
    -------
    list
        In the order of `work`.

    Raises
    ------
    BaseException
        What the first piece that failed raised, once all of them have ended.
    """
    if len(work) <= 1 or getattr(_working, "busy", False):
        return [piece() for piece in work]
    waiting = [_handed_over(piece, len(work) - 1) for piece in work[1:]]
    error: BaseException | None = None
    results: list[R] = []
    for place, piece in enumerate(work):
        future = waiting[place - 1] if place else None
        try:
            results.append(piece() if future is None else future.result())
        except BaseException as raised:  # the others read what the caller is about to give up
            error = error or raised
    if error is not None:
        raise error
    return results


def _handed_over(piece: Callable[[], R], helpers: int) -> Future[R] | None:
    """Give a piece to the pool; None where there is none any more, and the caller does it."""
    try:
        return _executor(helpers).submit(_busily, piece)
    except RuntimeError:  # the interpreter is shutting down
        return None


def _busily(piece: Callable[[], R]) -> R:
    _working.busy = True
    return piece()


def _executor(helpers: int) -> ThreadPoolExecutor:
    global _pool, _size
    from concurrent.futures import ThreadPoolExecutor  # a process that asks for one thing needs none

    wanted = min(MOST, max(helpers, default_threads() - 1))
    with _lock:
        if _pool is None or _size < wanted:
            old = _pool
            _pool, _size = ThreadPoolExecutor(wanted, thread_name_prefix="vecdb-search"), wanted
            if old is not None:
                old.shutdown(wait=False)  # what it was given is still done
        return _pool


def _rest() -> None:
    """Before a fork: end idle threads, which the child would not have; whoever needs some later makes new ones."""
    global _pool, _size
    with _lock:
        old, _pool, _size = _pool, None, 0
    if old is not None and not getattr(_working, "busy", False):
        old.shutdown(wait=True)


def _forget() -> None:
    """In the child of a fork there are no threads but this one."""
    global _lock, _pool, _size, _working
    _lock, _pool, _size, _working = threading.Lock(), None, 0, threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_rest, after_in_child=_forget)
