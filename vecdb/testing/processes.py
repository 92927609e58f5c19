"""Child processes for tests: forked, talked to in lines of JSON, and never waited for without a limit.

Invariant: a child ends with the parent or with `Child.close`, whatever happened; a child that hangs says where.
POSIX only.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NoReturn

from vecdb.errors import StateError

__all__ = ["Child", "Link", "call_in_child"]

PATIENCE: Final = 90.0
"""Seconds to wait for a child's answer: long, because a machine may be busy and its disk slow."""


class Link:
    """One end of a conversation in JSON values.

    Parameters
    ----------
    heard, said : int
        Descriptors to read from and to write to.
    """

    def __init__(self, heard: int, said: int) -> None:
        self._heard = heard
        self._said = said
        self._buffer = b""

    def send(self, value: object = None) -> None:
        """Send a value that JSON can hold."""
        os.write(self._said, json.dumps(value).encode() + b"\n")

    def receive(self, timeout: float = PATIENCE) -> Any:
        """Return the next value of the other side.

        Raises
        ------
        EOFError
            If the other side has gone.
        TimeoutError
            If it says nothing for `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if not select.select([self._heard], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError(f"the other process said nothing for {timeout} s")
            piece = os.read(self._heard, 1 << 16)
            if not piece:
                raise EOFError("the other process has gone")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """Hang up."""
        os.close(self._heard)
        os.close(self._said)


class Child(Link):
    """A forked process that does `work` with its end of the conversation; what `work` returns is its `result`.

    Parameters
    ----------
    work : callable
        Called in the child with a `Link`.
    """

    def __init__(self, work: Callable[[Link], object]) -> None:
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        self.code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os.close(from_parent)
            os.close(to_parent)
            _serve(work, Link(to_child, from_child))
        os.close(to_child)
        os.close(from_child)
        super().__init__(to_parent, from_parent)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def result(self, timeout: float = PATIENCE) -> Any:
        """Wait for the child to finish; return what its work returned.

        Raises
        ------
        StateError
            If it failed, was killed, or did not finish in time; with its traceback.
        """
        said: Any = None
        try:
            while not (isinstance(said, dict) and ("result" in said or "failed" in said)):
                said = self.receive(timeout)
        except TimeoutError:
            os.kill(self.pid, signal.SIGABRT)  # faulthandler writes every thread's stack to standard error
            raise StateError(f"the child did not finish within {timeout} s") from None
        except EOFError:
            self._reap()
            raise StateError(f"the child ended with code {self.code}") from None
        self._reap()
        if "failed" in said:
            raise StateError(f"the child failed:\n{said['failed']}")
        return said["result"]

    def running(self) -> bool:
        """Return whether the child is still at work; raises its error if it failed."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                return True
            self.code = os.waitstatus_to_exitcode(status)
        self.result()
        return False

    def kill(self) -> None:
        """Send SIGKILL and wait until it is gone."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()

    def close(self) -> None:
        """Make sure that the child is gone, and hang up."""
        if self._heard >= 0:
            self.kill()
            super().close()
            self._heard = -1

    def _reap(self) -> None:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _serve(work: Callable[[Link], object], link: Link) -> NoReturn:
    try:  # nothing may leave it: the child would go on with what its parent was doing
        faulthandler.enable(file=2)  # sys.stderr may be something without a descriptor
        link.send({"result": work(link)})
    except BaseException:
        link.send({"failed": traceback.format_exc()})
    finally:
        os._exit(0)


def call_in_child(work: Callable[[], object], timeout: float = PATIENCE) -> Any:
    """Fork a child that calls `work`, and return what it returned (a JSON value).

    Raises
    ------
    StateError
        If it failed, was killed, or did not finish within `timeout` seconds.
    """
    with Child(lambda _: work()) as child:
        return child.result(timeout)
