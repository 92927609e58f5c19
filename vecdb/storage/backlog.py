"""Giving readers time to go on before the file grows for want of the pages that they hold back.

LMDB uses the pages that a commit freed again once nobody reads an older one. A reader's lease lasts milliseconds, but
on a busy machine a quick writer makes dozens of commits meanwhile, and the file grows by all that they write. So a
writer that has written much since the oldest commit that is being read waits for a moment, and once only for the same
commit: a copy of the file, or a process that was stopped, holds nobody up for long.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 0.1
"""Seconds that a write waits at most."""
LEAST: Final = 1 << 20
"""Bytes written since the oldest commit that is being read from which on it waits, and at least a share of the file."""
SHARE: Final = 16
_STEP: Final = 0.0005
_EACH: Final = 64 << 10
"""Bytes of tree pages that a commit writes besides its values, about."""

Look = Callable[[], tuple[int, int, int]]
"""Returns LMDB's numbers of the newest commit and of the oldest that is being read, and the bytes of the file."""


class Backlog:
    """What the commits of this process wrote since the oldest that is known to be read.

    Attributes
    ----------
    bytes : int
        What they wrote, about.
    """

    __slots__ = ("_commits", "_given_up", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._commits: deque[tuple[int, int]] = deque()
        self._given_up = -1

    def add(self, commit: int, written: int) -> None:
        """Note how many bytes of values a commit wrote."""
        if self._commits and commit <= self._commits[-1][0]:  # compaction counts from the beginning
            self._forget(self._commits[-1][0])
        self._commits.append((commit, written + _EACH))
        self.bytes += written + _EACH

    def wait(self, look: Look) -> None:
        """Wait while readers hold back much, for `PATIENCE` at most; looks at readers only where that may be so."""
        if self.bytes < LEAST:
            return
        end = 0.0
        while True:
            _, oldest, file_bytes = look()
            self._forget(oldest)
            if self.bytes < max(LEAST, file_bytes // SHARE) or oldest == self._given_up:
                return
            now = time.monotonic()
            end = end or now + PATIENCE
            if now >= end:
                self._given_up = oldest
                return
            time.sleep(_STEP)

    def _forget(self, oldest: int) -> None:
        """Drop the commits that nobody reads an older one of."""
        while self._commits and self._commits[0][0] <= oldest:
            self.bytes -= self._commits.popleft()[1]
