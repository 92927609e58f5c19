"""Who may write, when, and as one commit: the writer lock, group commit, replay, transactions.

There is one writer at a time. The thread whose turn it is commits everything that waits in the queue in one LMDB
transaction (group commit), so a batch never changes threads and a single caller pays for no hand-over. Each queued
operation is a function of a `WriteTx` that can be run again: if the map is full, or a neighbour in the group fails, the
transaction is thrown away and the group is run anew.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from vecdb.errors import ForkedError, LockedError, StorageError, TransactionError
from vecdb.storage import staging
from vecdb.storage.backlog import Backlog
from vecdb.storage.env import Environment
from vecdb.storage.failpoints import visit
from vecdb.storage.lockfile import LockFile
from vecdb.storage.saying import say
from vecdb.storage.signals import NeedsGrowth
from vecdb.storage.snapshot import Reader
from vecdb.storage.state import read_counters
from vecdb.storage.tx import Tx

if TYPE_CHECKING:
    from vecdb.storage.blobs import BlobData
    from vecdb.storage.writetx import WriteTx

_LOOK_AROUND: Final = 0.2
"""Seconds that somebody who can be called off waits for the lock at a time."""
R = TypeVar("R")
Operation = Callable[["WriteTx"], R]


class _Job(Generic[R]):
    """One caller's operation and what became of it."""

    __slots__ = ("_result", "done", "error", "operation", "timeout")

    def __init__(self, operation: Operation[R], timeout: float) -> None:
        self.operation = operation
        self.timeout = timeout
        self.error: BaseException | None = None
        self.done = False
        self._result: Any = None

    def run(self, write: WriteTx) -> None:
        self._result = self.operation(write)
        write.finish()

    def settle(self, error: BaseException | None = None) -> None:
        self.error = error
        self.done = True

    def value(self) -> R:
        if self.error is not None:
            raise self.error
        result: R = self._result
        return result


class Writer:
    """Commits operations to one environment.

    Parameters
    ----------
    env : Environment
    reader : Reader
        Whose caches tell where metadata chunks lie.
    retention : float
        Seconds of history to keep.
    """

    def __init__(self, env: Environment, reader: Reader, *, retention: float) -> None:
        self.retention = retention
        self.transaction: Transaction | None = None
        self._env = env
        self._reader = reader
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._queue: list[_Job[Any]] = []
        self._aim = 0
        """Version that the group in the making will have."""
        self._lock: LockFile = env.writer_lock
        self._backlog = Backlog()
        self._held: tuple[int, contextlib.ExitStack] | None = None
        """The thread that keeps turn and lock from one commit to its next, and how they are given up."""
        self._staged = 0
        """Number of the set of blobs that this thread is staging."""

    def own_transaction(self) -> Transaction | None:
        """Return the transaction that the calling thread has open."""
        transaction = self.transaction
        return transaction if transaction is not None and transaction.is_mine() else None

    def run(self, operation: Operation[R], *, timeout: float) -> R:
        """Run `operation` in a commit of its own seq and return its result once it is durable.

        Raises
        ------
        LockedError
            Another process, or a transaction of another thread, kept the lock for `timeout` seconds.
        """
        transaction = self.transaction
        if transaction is not None and transaction.is_mine():
            return transaction.apply(operation)
        job = _Job(operation, timeout)
        if self._holds():
            with self._alone(timeout):
                self._commit_group([job])
            return job.value()
        try:
            self._wait_for_turn(job)
        except BaseException:
            self._withdraw(job)  # a call that was interrupted must not be carried out by the next leader
            raise
        try:
            if not job.done:
                self._lead(job, timeout)
        finally:
            self._turn.release()
        return job.value()

    def _wait_for_turn(self, job: _Job[Any]) -> None:
        """Join the queue and take the turn; leave again after the time-out, unless a leader is committing the job."""
        with self._guard:
            self._queue.append(job)
        if self._turn.acquire(timeout=job.timeout):
            return
        if self._withdraw(job):
            holder = "a transaction of another thread of this process"
            raise LockedError(
                f"{self._env.path}: the writer lock is held by {holder}; waited {job.timeout:.1f} s",
                hint="End the transaction, or pass a longer timeout.",
                path=str(self._env.path),
                holder=holder,
                waited=job.timeout,
            )
        self._turn.acquire()

    def _withdraw(self, job: _Job[Any]) -> bool:
        """Take a job out of the queue; False if a leader has it already."""
        with self._guard:
            if job not in self._queue:
                return False
            self._queue.remove(job)
            return True

    def _lead(self, own: _Job[Any], timeout: float) -> None:
        with self._guard:
            jobs, self._queue = self._queue, []
        try:
            with self._lock.held(timeout):
                self._commit_group(jobs)
        except LockedError as error:
            for job in jobs:
                if job.timeout <= timeout:
                    job.settle(error)
            self._put_back(jobs, own)  # whoever has more patience waits on
        except BaseException:
            self._put_back(jobs, own)
            raise

    def _put_back(self, jobs: list[_Job[Any]], own: _Job[Any]) -> None:
        """Give the jobs of others that were not run back to the queue, each to be led by its own caller."""
        with self._guard:
            self._queue[:0] = [job for job in jobs if job is not own and not job.done]

    def _commit_group(self, jobs: list[_Job[Any]]) -> None:
        waiting = list(jobs)
        while waiting:
            tx = self.begin_write()
            try:
                failed = self._run_all(tx, waiting)
                if failed is None:
                    visit("commit.before")
                    self.commit_write(tx)
            except NeedsGrowth:
                self._env.abort(tx)
                self._env.grow()
                continue
            except BaseException as error:
                self._env.abort(tx)
                if isinstance(error, Exception):
                    for job in waiting:
                        job.settle(error)
                    return
                if self._reached():  # interrupted just behind the commit: nobody may run these again
                    for job in waiting:
                        job.settle()
                raise
            if failed is None:
                for job in waiting:
                    job.settle()
                visit("commit.after")
                return
            self._env.abort(tx)
            waiting.remove(failed)

    def _reached(self) -> bool:
        """Whether the group that was run last is in the file; the caller holds the writer lock."""
        with self._env.lease() as tx:
            return 0 < self._aim <= read_counters(tx).version

    def _run_all(self, tx: Tx, jobs: list[_Job[Any]]) -> _Job[Any] | None:
        """Run every job; return the first that failed, which is then settled."""
        self._aim = 0
        visit("write.begin")
        write = self.begin(tx)
        for place, job in enumerate(jobs):
            if place:
                write.next_commit()
            try:
                with self._env.translated():
                    job.run(write)
            except NeedsGrowth:
                raise
            except Exception as error:  # the caller's error: reported to that caller, the rest of the group goes on
                job.settle(error)
                return job
        self._aim = write.version
        return None

    def begin_write(self) -> Tx:
        """Begin a write transaction, after readers who hold back much had a moment to go on; under the writer lock."""
        if not self._env.held_here():  # it would wait for itself
            self._backlog.wait(self._env.commits)
        return self._env.begin_write()

    def commit_write(self, tx: Tx) -> None:
        """Make a transaction durable, and note what it wrote."""
        number, written = tx.raw.id(), tx.written
        self._env.commit(tx)
        self._backlog.add(number, written)

    def begin(self, tx: Tx) -> WriteTx:
        from vecdb.storage.writetx import WriteTx  # who only reads does without

        with self._env.translated():
            swept = staging.sweep(tx, self._staged)
        write = WriteTx(tx, retention=self._reader.window(self.retention), chunks=self._reader.private_caches().chunks)
        write.swept = swept
        return write

    def maintain(self, work: Callable[[WriteTx], bool], *, timeout: float) -> bool:
        """Run housekeeping in a commit that users do not see; nothing is written if `work` finds nothing to do."""
        with self._alone(timeout):
            return self._maintain(work)

    def _maintain(self, work: Callable[[WriteTx], bool]) -> bool:
        while True:
            tx = self.begin_write()
            try:
                write = self.begin(tx)
                with self._env.translated():
                    useful = work(write)
                    if useful or write.swept:
                        write.finish_maintenance()
                if useful or write.swept:
                    visit("commit.before")
                    self.commit_write(tx)
                else:
                    self._env.abort(tx)
            except NeedsGrowth:
                self._env.abort(tx)
                self._env.grow()
                continue
            except BaseException:
                self._env.abort(tx)
                raise
            return useful

    @contextlib.contextmanager
    def stage(self, blobs: Sequence[BlobData], check: Callable[[], object], *, timeout: float) -> Iterator[int]:
        """Store a set of blobs in commits of its own; give its number to the block, whose next commit is to name it.

        The writer lock is held until that commit has ended. What no commit names when the block ends is removed.

        Parameters
        ----------
        blobs : sequence of BlobData
        check : callable
            Called before each step, and now and then while others hold the lock; what it raises ends the staging.
        timeout : float
            Seconds to wait for the writer lock.
        """
        with self._alone_at_last(check, timeout) as held:
            try:
                self._staged = staging.claim(self._maintain)
                staging.store(self._maintain, self._staged, blobs, check)
                self._held = threading.get_ident(), held
                yield self._staged
            finally:
                self._held, self._staged = None, 0
                held.close()
                self._sweep()

    def _sweep(self) -> None:
        """Remove what was staged and not named, unless somebody else writes: then they do."""
        try:
            with self._env.lease() as tx:
                left = staging.staged_set(tx)
            if left:
                self.maintain(lambda write: False, timeout=0.0)
        except StorageError as error:
            say("%s: a set of blobs that nothing names is left to the next commit: %s", self._env.path, error)

    def _holds(self) -> bool:
        """Whether this thread kept the lock from its last commit for the next."""
        return self._held is not None and self._held[0] == threading.get_ident()

    def _alone(self, timeout: float) -> contextlib.ExitStack:
        """Return turn and lock, to be given up by closing it: those that this thread kept, or else wait for them."""
        if self._held is not None and self._holds():
            (_, kept), self._held = self._held, None
            return kept.pop_all()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.turn(timeout))
            stack.enter_context(self._lock.held(timeout))
            return stack.pop_all()

    def _alone_at_last(self, check: Callable[[], object], timeout: float) -> contextlib.ExitStack:
        """Do the same, but ask from time to time whether it is still wanted."""
        until = time.monotonic() + timeout
        while True:
            check()
            try:
                return self._alone(max(0.0, min(_LOOK_AROUND, until - time.monotonic())))
            except LockedError:
                if time.monotonic() >= until:
                    raise

    @contextlib.contextmanager
    def turn(self, timeout: float) -> Iterator[None]:
        """Be the only writing thread of this process for the block."""
        if self.transaction is not None and self.transaction.is_mine():
            self.transaction.check()
            raise TransactionError("this call cannot be made inside a transaction", hint="End the transaction first.")
        turn = self._turn  # the child of a fork gets another, and must give this one back if it leaves the block
        if not turn.acquire(timeout=timeout):
            self._give_up_turn(timeout)
        try:
            yield
        finally:
            turn.release()

    def _give_up_turn(self, timeout: float) -> None:
        raise LockedError(
            f"{self._env.path}: another thread of this process is writing; waited {timeout:.1f} s",
            hint="Pass a longer timeout.",
            path=str(self._env.path),
            holder="this process",
            waited=timeout,
        )

    @contextlib.contextmanager
    def begin_transaction(self, timeout: float) -> Iterator[Transaction]:
        """Hold the writer lock for the block; commit at its end, or throw everything away if it raises."""
        if self._own_transaction():
            raise TransactionError("transactions cannot be nested", hint="Use the one that is open.")
        if self.transaction is not None and self.transaction.forked:
            self.transaction = None  # it ended with the fork
        with self.turn(timeout), self._lock.held(timeout):
            transaction = Transaction(self, self._env)
            self.transaction = transaction
            try:
                yield transaction
                transaction.commit()
            finally:
                self.transaction = None
                transaction.end()

    # --- forks and closing ---

    def _own_transaction(self) -> Transaction | None:
        """Return the transaction that this thread of this process began, if it is still open."""
        transaction = self.transaction
        return transaction if transaction is not None and transaction.is_mine() and not transaction.forked else None

    def before_fork(self, timeout: float) -> bool:
        """Let a commit of another thread end; take back a transaction of this one, to be replayed on its next use.

        Returns False, having changed nothing, if the other thread takes longer than `timeout` seconds.
        """
        transaction = self._own_transaction()
        if transaction is not None:
            transaction.suspend()
        elif not self._turn.acquire(timeout=timeout):
            return False
        self._guard.acquire()
        return True

    def after_fork(self, *, child: bool) -> None:
        if child:
            self._turn, self._guard = threading.Lock(), threading.Lock()
            self._queue = []
            self._held, self._staged = None, 0
            self._lock.abandon()
            return  # a transaction of this thread stays, so that what its block does here raises `ForkedError`
        self._guard.release()
        if self._own_transaction() is None:
            self._turn.release()

    def close(self) -> None:
        self._lock.abandon()


class Transaction:
    """Several operations of one thread as one commit.

    Operations are kept, so that the whole can be run again after the map had to grow or the process forked: the writer
    lock is held throughout, so a second run sees what the first saw.
    """

    def __init__(self, writer: Writer, env: Environment) -> None:
        self._writer = writer
        self._env = env
        self._thread = threading.get_ident()
        self._pid = os.getpid()
        self._operations: list[Operation[Any]] = []
        self.left: dict[int, Any] = {}
        """What the operations say of each collection for housekeeping, by its number."""
        self._tx: Tx | None = None
        self._write: WriteTx | None = None
        self._over = False
        self._broken = False
        self.committed = False
        """Whether it became a commit; one without operations does not."""

    def is_mine(self) -> bool:
        """Whether this thread began it, be it before a fork."""
        return self._thread == threading.get_ident()

    @property
    def forked(self) -> bool:
        """Whether this is the child of a fork, where nothing of it may be used."""
        return self._pid != os.getpid()

    def check(self) -> None:
        """Raise unless this transaction may be used here and now."""
        if self.forked:
            raise ForkedError(
                "the transaction was begun before a fork", hint="Begin a new one in the child.", what="transaction"
            )
        if self._over or self._broken:
            raise TransactionError("the transaction has ended", hint="Begin a new one.")
        if self._thread != threading.get_ident():
            raise TransactionError(
                "a transaction belongs to the thread that began it", hint="Begin one in each thread."
            )

    def write_tx(self) -> WriteTx:
        """Return the open write transaction, running the operations again if it had to be given up."""
        self.check()
        while self._write is None:
            try:
                self._write = self._replay()
            except NeedsGrowth:
                self.suspend()
                self._env.grow()
            except BaseException:
                self.suspend()
                raise
        return self._write

    def _replay(self) -> WriteTx:
        self._tx = self._writer.begin_write()
        with self._env.translated():
            write = self._writer.begin(self._tx)
            for operation in self._operations:
                operation(write)
        return write

    def flushed(self) -> WriteTx:
        """Return the open write transaction with everything done so far where its own reads find it."""
        while True:
            write = self.write_tx()
            try:
                with self._env.translated():
                    write.flush()
                return write
            except NeedsGrowth:
                self.suspend()
                self._env.grow()

    def apply(self, operation: Operation[R]) -> R:
        """Run one operation in the transaction."""
        while True:
            write = self.write_tx()
            write.dirty = False
            try:
                with self._env.translated():
                    result = operation(write)
            except NeedsGrowth:
                self.suspend()
                self._env.grow()
                continue
            except BaseException:
                self._broken = write.dirty  # half of the operation is in: only a roll-back is safe now
                raise
            self._operations.append(operation)
            return result

    def commit(self) -> None:
        """Make the operations durable as one commit."""
        if self._broken:
            raise TransactionError(
                "an operation failed half-way, the transaction was rolled back", hint="Begin a new one."
            )
        self.check()
        while self._operations:
            write = self.write_tx()
            try:
                with self._env.translated():
                    write.finish()
                visit("commit.before")
                assert self._tx is not None
                self._writer.commit_write(self._tx)
                self._tx = self._write = None
                self.committed = True
            except NeedsGrowth:
                self.suspend()
                self._env.grow()
                continue
            visit("commit.after")
            return

    def suspend(self) -> None:
        """Give up the LMDB transaction; the next use runs the operations again."""
        tx, self._tx, self._write = self._tx, None, None
        if tx is not None:
            self._env.abort(tx)

    def end(self) -> None:
        self._over = True
        if not self.forked:
            self.suspend()
