"""The near side of a worker: starts it in its environment, sends commands, waits for answers with a limit of time."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tools.bench.compare.peers import MODULES
from tools.bench.machine import environment

ROOT = Path(__file__).resolve().parents[3]
_EXTRA_THREADS = ("NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS", "LANCE_CPU_THREADS")


class WorkerError(Exception):
    """What a worker answered instead of a result, or that it ended or took too long."""


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment of a worker: every runtime that listens to a variable is told the number of threads."""
    changed = environment(os.environ, root=ROOT, blas_threads=threads)
    return changed | dict.fromkeys(_EXTRA_THREADS, str(threads))


class Worker:
    """A process with one adapter.

    Parameters
    ----------
    peer : str
    threads : int
    log : Path
        Where its standard error goes.
    interpreter : str, optional
        The Python that has the peer's library.
    """

    def __init__(self, peer: str, threads: int, log: Path, interpreter: str = sys.executable) -> None:
        self.peer = peer
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log: IO[str] = log.open("a", encoding="utf-8")
        self._process = subprocess.Popen(
            [interpreter, "-m", "tools.bench.compare.worker", MODULES[peer]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=worker_environment(threads),
            text=True,
        )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def send(self, do: str, **given: Any) -> None:
        """Send a command without waiting."""
        stdin = self._process.stdin
        if stdin is None or self._process.poll() is not None:
            raise WorkerError(f"the process of {self.peer} has ended with {self._process.returncode}")
        stdin.write(json.dumps({"do": do, **given}) + "\n")
        stdin.flush()

    def answered(self, seconds: float) -> bool:
        """Whether an answer, or the end, has come within so many seconds."""
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def receive(self, limit: float) -> dict[str, Any]:
        """Return the answer to the command sent last."""
        if not self.answered(limit):
            self.kill()
            raise WorkerError(f"no answer within {limit:.0f} s")
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise WorkerError(f"the process ended with {self._process.wait()}")
        found: Mapping[str, Any] = json.loads(line)
        if "error" in found:
            raise WorkerError(str(found["error"]))
        return dict(found)

    def call(self, do: str, *, limit: float = 120.0, **given: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        self.send(do, **given)
        return self.receive(limit)

    def close(self) -> None:
        """End the process in good order, or at once where it does not."""
        try:
            self.call("close", limit=30.0)
        except (WorkerError, OSError):
            self.kill()
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.wait()


def cold(peer: str, arguments: list[str], log: Path, interpreter: str = sys.executable) -> tuple[float, str]:
    """Run the process of `tools.bench.compare.cold`; return its wall seconds and the row it found."""
    command = [interpreter, "-m", "tools.bench.compare.cold", MODULES[peer], *arguments]
    with log.open("a", encoding="utf-8") as errors:
        began = time.perf_counter()
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=worker_environment(1),
            timeout=120,
            check=False,
        )
    if done.returncode:
        raise WorkerError(f"the process ended with {done.returncode}")
    return time.perf_counter() - began, done.stdout.strip().splitlines()[-1]
