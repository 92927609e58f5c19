"""Taking turns on a machine that others measure on, too: a lock file is held for a limited time, then offered.

A build that takes longer is stopped where it is while others have their turn (SIGSTOP), and its pauses are told.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from tools.bench.compare.child import Worker, WorkerError

_WATCH = 0.02


class Turn:
    """Holds `lock` (nothing if None) for at most about `most` seconds at a time.

    Parameters
    ----------
    lock : Path or None
        A file that everyone who measures on this machine locks with ``flock``.
    most : float
        Seconds after which `step` lets others in.
    """

    def __init__(self, lock: Path | None, most: float) -> None:
        self._path, self._most = lock, most
        self._file: IO[str] | None = None
        self._since = 0.0

    def __enter__(self) -> Turn:
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give()

    def step(self, ahead: float = 0.0) -> float:
        """Let others in if the time is up, or would be after `ahead` seconds more; return the seconds waited."""
        began = time.monotonic()
        if self._file is None or began + ahead - self._since < self._most:
            return 0.0
        self._give()
        time.sleep(0.2)  # whoever waits is woken by the kernel, but needs to run to take it
        self._take()
        return time.monotonic() - began

    def wait(self, worker: Worker, limit: float, watch: Callable[[], object] = lambda: None) -> float:
        """Wait for a worker's answer, stopping it while others have their turn; return the seconds it was stopped.

        `watch` is called all the time meanwhile.
        """
        paused, began = 0.0, time.monotonic()
        while not worker.answered(_WATCH):
            watch()
            if time.monotonic() - began - paused > limit:
                worker.kill()
                raise WorkerError(f"no answer within {limit:.0f} s")
            if self._file is not None and time.monotonic() - self._since > self._most:
                os.kill(worker.pid, signal.SIGSTOP)
                paused += self.step()
                os.kill(worker.pid, signal.SIGCONT)
        return paused

    def _take(self) -> None:
        if self._path is not None:
            self._file = self._path.open("a", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._since = time.monotonic()

    def _give(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
