"""How the construction of a graph spreads its work over threads and stays cancellable.

Kernels release the GIL, so plain threads do. Invariant: pieces of work write to places of their own, so the result is
the same for any number of threads and whichever piece ends first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from vecdb.errors import CancelledError
from vecdb.types import CancelCheck, Progress

__all__ = ["Work"]


@dataclass(slots=True)
class Work:
    """Runs pieces of work, asks whether to go on, and tells how far it is.

    Attributes
    ----------
    threads : int
        At least 1.
    progress : callable
    cancel : callable
    total : int
        Steps of the whole build.
    done : int
    """

    threads: int
    progress: Progress
    cancel: CancelCheck
    total: int
    done: int = field(default=0)

    def check(self) -> None:
        """Raise CancelledError if the caller no longer wants the graph."""
        if self.cancel():
            raise CancelledError("building a graph was cancelled")

    def advance(self, steps: int) -> None:
        """Count steps as done; the last one is told by `finish` alone."""
        self.done = min(self.done + steps, self.total - 1)
        self.progress(self.done, self.total)

    def finish(self) -> None:
        """Tell that all is done."""
        self.done = self.total
        self.progress(self.total, self.total)

    def run(self, pieces: Iterable[tuple[int, Callable[[], object]]]) -> None:
        """Do all pieces, given as (steps, function); at most two a thread wait at any time."""
        if self.threads == 1:
            for steps, piece in pieces:
                self.check()
                piece()
                self.advance(steps)
            return
        with ThreadPoolExecutor(self.threads, thread_name_prefix="vecdb-graph") as pool:
            try:
                self._spread(pool, iter(pieces))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _spread(self, pool: ThreadPoolExecutor, pieces: Iterable[tuple[int, Callable[[], object]]]) -> None:
        steps: dict[Future[object], int] = {}
        source = iter(pieces)
        while True:
            self.check()
            for count, piece in islice(source, 2 * self.threads - len(steps)):
                steps[pool.submit(piece)] = count
            if not steps:
                return
            for future in wait(steps, return_when=FIRST_COMPLETED).done:
                future.result()
                self.advance(steps.pop(future))
