"""Kill a writer at a random moment or at a named place, open the file again, and hold it against the model.

The child is forked from a process that has imported everything, opens the database itself, writes the steps of a
`Workload` and acknowledges each through a pipe once the call returned. The parent kills it and proves what a durable
store promises: every acknowledged step is there, at most one more, nothing of it half. POSIX only.
Failpoints: vecdb/storage/failpoints.py. What a crash may find: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import vecdb
from vecdb.errors import VecdbError
from vecdb.testing.workload import Workload

__all__ = ["Kill", "Lives", "Outcome", "Trial", "run_child", "verify"]

_ACK: Final = struct.Struct("<I")
_FAILED: Final = 3
_PATIENCE: Final = 120.0
_FRUITLESS: Final = 5
_LONGEST_FACTOR: Final = 64.0
_CHORES: Final = 9
"""One step in so many is followed by upkeep, which users do not see and which must be interruptible too."""


@dataclass(frozen=True, slots=True)
class Kill:
    """When the child dies.

    Attributes
    ----------
    after : float, optional
        Seconds after it began.
    failpoint : str, optional
        At the place of this name instead.
    visit : int, default 1
        At which visit of it.
    how : {"exit", "pause", "raise"}, default "exit"
        What happens at the failpoint: the child ends at once; it stands still and is killed from outside; or the call
        fails with an OSError and the child lives.
    """

    after: float | None = None
    failpoint: str | None = None
    visit: int = 1
    how: Literal["exit", "pause", "raise"] = "exit"

    def variable(self) -> str:
        """Return what VECDB_FAILPOINT must be."""
        return "" if self.failpoint is None else f"{self.failpoint}:{self.visit}:{self.how}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one child.

    Attributes
    ----------
    acknowledged : int
        Number of the last step it acknowledged; 0 if none.
    killed : bool
        It died as asked, not because it ran out of steps.
    error : str
        Traceback, if it failed by itself.
    """

    acknowledged: int
    killed: bool
    error: str = ""


@dataclass(slots=True)
class Lives:
    """Draws how long children live, and lets them live longer where the machine is too slow for what they do.

    Parameters
    ----------
    seed : object
        What `random.Random` takes.
    shortest, longest : float
        Seconds, as long as one child in five gets something done.
    """

    seed: Any
    shortest: float
    longest: float
    _chance: random.Random = field(init=False)
    _factor: float = field(default=1.0, init=False)
    _fruitless: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def kill(self) -> Kill:
        """Return when the next child dies."""
        return Kill(after=self._factor * self._chance.uniform(self.shortest, self.longest))

    def learn(self, outcome: Outcome) -> None:
        """Take note of what a child got done: after five that acknowledged nothing, lives are twice as long."""
        self._fruitless = 0 if outcome.acknowledged else self._fruitless + 1
        if self._fruitless == _FRUITLESS and self._factor < _LONGEST_FACTOR:
            self._factor, self._fruitless = 2 * self._factor, 0


@dataclass(slots=True)
class Trial:
    """A file, the workload written to it, and what its killed writers left behind.

    Parameters
    ----------
    path : Path
    workload : Workload
    retention : float, default 0.0
        Seconds of history the writers keep.
    durability : str, default "full"
    write : callable, optional
        The child's work, ``(db, workload, acknowledge)``; default: step after step with some upkeep. Tests of the
        harness pass one with a bug.
    """

    path: Path
    workload: Workload
    retention: float = 0.0
    durability: str = "full"
    write: Callable[[vecdb.Database, Workload, Callable[[int], None]], None] | None = None
    base: int = -1
    unacknowledged: int = field(default=0)
    """Steps that were found committed although their acknowledgement was cut off: allowed, and worth counting."""

    def create(self) -> None:
        """Make the file."""
        with self.open() as db:
            self.workload.prepare(db)
            self.base = db.seq

    def open(self) -> vecdb.Database:
        """Open the file as the writers do."""
        return vecdb.open(self.path, durability=self.durability, retention=self.retention)  # type: ignore[arg-type]

    def run(self, kill: Kill, steps: int = 10_000) -> Outcome:
        """Let one child write at most `steps` more steps and kill it."""
        return run_child(lambda acknowledge: self._child(acknowledge, steps), kill)

    def _child(self, acknowledge: Callable[[int], None], steps: int) -> None:
        with self.open() as db:
            if self.write is not None:
                self.write(db, self.workload, acknowledge)
                return
            for _ in range(steps):
                write_step(db, self.workload, acknowledge)
                if self.workload.number % _CHORES == 0:
                    do_chore(db, self.workload.number // _CHORES, self.path)

    def check(self, outcome: Outcome) -> list[str]:
        """Return every broken promise, empty if all were kept; the workload moves on to what the file holds."""
        if outcome.error:
            return [f"the writer failed: {outcome.error}"]
        acknowledged = max(outcome.acknowledged, self.workload.number)
        with self.open() as db:
            found = db.seq - self.base
            problems = verify(db, self.workload, acknowledged, found)
        self.unacknowledged += found > acknowledged
        return problems + stray_files(self.path)


def write_step(db: vecdb.Database, workload: Workload, acknowledge: Callable[[int], None]) -> None:
    """Do one step and acknowledge it after the call returned."""
    step = workload.next_step()
    step.write(db)
    acknowledge(step.number)
    workload.take(step)


def do_chore(db: vecdb.Database, turn: int, path: Path) -> None:
    """Do one piece of upkeep: optimise, compact or back up."""
    chore = turn % 4
    if chore == 3:
        copy = path.with_name(f"{path.name}.backup-{os.getpid()}")
        db.backup(copy)
        copy.unlink()
    elif chore == 1:
        db.compact()
    else:
        db.optimize()


def verify(db: vecdb.Database, workload: Workload, acknowledged: int, found: int) -> list[str]:
    """Hold an opened file that has `found` steps in it against the model; return what is wrong."""
    if not acknowledged <= found <= acknowledged + 1:
        return [f"{acknowledged} steps were acknowledged, {found} are in the file"]
    while workload.number < found:
        workload.take(workload.next_step())
    problems = list(db.check().problems)
    try:
        return problems + workload.differences(db)
    except VecdbError as error:
        return [*problems, f"{type(error).__name__}: {error}"]


def stray_files(path: Path) -> list[str]:
    """Remove what a killed copy may leave behind, and name everything else beside the file that should not be there."""
    own = {path.name, f"{path.name}-lock", f"{path.name}-writer"}
    strays = [entry for entry in path.parent.iterdir() if entry.name.startswith(path.name) and entry.name not in own]
    for entry in strays:
        entry.unlink()
    known = (".compacting", ".copying-", ".backup-", ".loading-")
    return [f"unexpected file {entry.name}" for entry in strays if not any(part in entry.name for part in known)]


# --- the child process ------------------------------------------------------------------------------------


def run_child(work: Callable[[Callable[[int], None]], None], kill: Kill) -> Outcome:
    """Fork a child that does `work`, kill it as asked, and return what it acknowledged before.

    Parameters
    ----------
    work : callable
        Called in the child with a function that acknowledges a number.
    kill : Kill
    """
    acks, acks_in = os.pipe()
    said, said_in = os.pipe()
    with _variable("VECDB_FAILPOINT", kill.variable()):
        child = os.fork()
        if not child:
            os.close(acks)
            os.close(said)
            _be_child(work, acks_in, said_in)
    os.close(acks_in)
    os.close(said_in)
    try:
        note = _kill_when_due(child, kill, said)
        killed, code = _reap(child)
        return Outcome(_last_number(acks), killed, (note + _drain(said)).decode() if code == _FAILED else "")
    finally:
        os.close(acks)
        os.close(said)


def _be_child(work: Callable[[Callable[[int], None]], None], acks: int, said: int) -> NoReturn:
    os.dup2(said, 2)
    code = 0
    try:
        work(lambda number: _write_ack(acks, number))
    except BaseException:
        os.write(2, traceback.format_exc().encode()[-60_000:])
        code = _FAILED
    finally:
        os._exit(code)


def _write_ack(descriptor: int, number: int) -> None:
    os.write(descriptor, _ACK.pack(number))


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for the moment of the fork: children read it, this process does not."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _kill_when_due(child: int, kill: Kill, said: int) -> bytes:
    """Wait for the moment, kill; return what the child said on standard error until then."""
    heard = b""
    if kill.after is not None:
        time.sleep(kill.after)
        os.kill(child, signal.SIGKILL)
    elif kill.failpoint is not None and kill.how == "pause":
        until = time.monotonic() + _PATIENCE
        while f"failpoint {kill.failpoint}\n".encode() not in heard and time.monotonic() < until:
            if not select.select([said], [], [], 0.5)[0]:
                continue
            piece = os.read(said, 65536)
            if not piece:
                return heard
            heard += piece
        os.kill(child, signal.SIGKILL)
    return heard


def _reap(child: int) -> tuple[bool, int]:
    """Wait for the child; return whether it was killed (or ended itself at a failpoint), and its exit code."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code in (-signal.SIGKILL, 137), code


def _drain(descriptor: int) -> bytes:
    heard = b""
    while piece := os.read(descriptor, 65536):
        heard += piece
    return heard


def _last_number(descriptor: int) -> int:
    heard = _drain(descriptor)
    whole = len(heard) // _ACK.size * _ACK.size
    return int(_ACK.unpack(heard[whole - _ACK.size : whole])[0]) if whole else 0
