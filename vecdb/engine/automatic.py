"""The automatic policy of indexes: when upkeep is worth a thread, the index of a space that has none, and the thread.

Writers and searches never wait for it: it reads under short leases, and what it stores is one commit a step. It looks
at counts after each commit, waits until writing pauses, and ends at `stop`, before a fork, and at exit. The index that
it gives to a space is in the catalog like any other, marked; once somebody drops it, the space stays without.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vecdb.engine.housekeeping import sealing
from vecdb.engine.indexing import choose_kind, create_index, is_wanted
from vecdb.engine.upkeep import upkeep
from vecdb.engine.views import VectorsMovedError, find_entry
from vecdb.engine.workshop import Workshop
from vecdb.errors import (
    CancelledError,
    ClosedError,
    CollectionMissingError,
    LockedError,
    PluginError,
    SpaceMissingError,
    UnknownNameError,
    VecdbError,
)
from vecdb.storage import handles
from vecdb.storage.state import CollectionEntry, SpaceCounts
from vecdb.storage.writetx import WriteTx
from vecdb.types import CancelCheck

PAUSE: Final = 0.5
"""Seconds without a commit after which upkeep begins; and at most..."""
PATIENCE: Final = 30.0
"""...so many seconds after it was first due."""
_NEW: Final = 1_024
_NEW_SHARE: Final = 0.05
_DEAD_SHARE: Final = 0.15
log = logging.getLogger("vecdb")

Maintain = Callable[[Callable[[WriteTx], bool]], bool]
Key = tuple[int, str]
_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()


def keep_indexes(shop: Workshop) -> int:
    """Give spaces the index that they should have, and bring all up to date; return how many had something to do."""
    useful, failed = 0, None
    try:
        useful = _give_indexes(shop)
    except (PluginError, UnknownNameError) as error:
        log.warning("no automatic index for collection %r: %s", shop.collection[1], error)
        failed = error
    useful += upkeep(shop)
    if failed is not None:
        raise failed
    return useful


def _give_indexes(shop: Workshop) -> int:
    with shop.read() as snapshot:
        entry = find_entry(snapshot, shop.collection)
        counts = {} if entry is None else snapshot.counts(entry.id).spaces
    if entry is None:
        return 0
    made = 0
    for space in [space for space in entry.spaces.values() if _may_have(entry, space.id)]:
        chosen = choose_kind(shop, space, counts[space.id].live, {})
        if chosen is None or not is_wanted(entry, space.id, chosen[0]):
            continue
        try:
            shop.maintain(sealing(entry, space.name))
            made += bool(create_index(shop, space.name, *chosen, 0, automatic=True))
        except (CollectionMissingError, SpaceMissingError) as error:  # dropped meanwhile
            log.info("%s", error)
    return made


def _may_have(entry: CollectionEntry, space: int) -> bool:
    mine = [index for index in entry.indexes if index.space == space]
    return space not in entry.declined and all(index.automatic for index in mine)


def patiently(maintain: Maintain, cancel: CancelCheck, seconds: float) -> Maintain:
    """Return `maintain` for a thread that waits for its turn, up to so many seconds, but not beyond its own end."""

    def waiting(work: Callable[[WriteTx], bool]) -> bool:
        until = time.monotonic() + seconds
        while True:
            try:
                return maintain(work)
            except LockedError:
                if cancel():
                    raise CancelledError("upkeep of indexes was ended") from None
                if time.monotonic() > until:
                    raise

    return waiting


@dataclass(slots=True)
class _Seen:
    """Counts of a space when its indexes were last looked at."""

    sealed: int
    dead: int


class Keeper:
    """The thread that keeps the indexes of one opened database; it lives only while there is something to do.

    Parameters
    ----------
    work : callable
        ``work(collection, cancel)`` does what `keep_indexes` does.
    """

    def __init__(self, work: Callable[[Key, Callable[[], bool]], object]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._wanted: dict[Key, float] = {}
        self._seen: dict[int, _Seen] = {}
        self._last = 0.0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        _keepers.add(self)

    def look(self, entry: CollectionEntry, spaces: Mapping[int, SpaceCounts]) -> None:
        """Look at the counts that a commit left, and see to it that the indexes are looked after if they need it."""
        self._last = time.monotonic()
        if not any(self._is_due(entry, number, counts) for number, counts in spaces.items()):
            return
        for number, counts in spaces.items():
            self._seen[number] = _Seen(counts.tail_start, counts.dead)
        with self._lock:
            self._wanted.setdefault((entry.id, entry.name), self._last)
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="vecdb-upkeep", daemon=True)
                self._thread.start()

    def _is_due(self, entry: CollectionEntry, number: int, counts: SpaceCounts) -> bool:
        seen = self._seen.get(number)
        if seen is None:
            known = [index.stop for index in entry.indexes if index.space == number]
            seen = self._seen[number] = _Seen(min(known, default=0), 0)
        new, died = counts.tail_start - seen.sealed, counts.dead - min(seen.dead, counts.dead)
        return new >= max(_NEW, _NEW_SHARE * counts.live) or died >= max(_NEW, _DEAD_SHARE * counts.live)

    def _run(self) -> None:
        while (key := self._next()) is not None:
            try:
                self._work(key, self._stopping.is_set)
            except (CancelledError, ClosedError) as error:
                log.debug("upkeep of indexes ended: %s", error)
            except VectorsMovedError:  # they are rewritten faster than an index can be built: due with the next commit
                log.debug("upkeep of indexes of collection %r put off: its vectors are being replaced", key[1])
                self._seen.clear()
            except LockedError as error:  # somebody else writes for long: due again with the next commit
                log.debug("upkeep of indexes put off: %s", error)
                self._seen.clear()
            except VecdbError as error:  # whoever needs what failed meets it again
                log.warning("upkeep of indexes of collection %r failed: %s", key[1], error)

    def _next(self) -> Key | None:
        """Wait until writing pauses; return a collection to look after, None if there is none or the end has come."""
        while True:
            with self._lock:
                now = time.monotonic()
                if self._stopping.is_set() or not self._wanted:
                    self._thread = None
                    return None
                key, since = next(iter(self._wanted.items()))
                wait = min(self._last + PAUSE, since + PATIENCE) - now
                if wait <= 0:
                    del self._wanted[key]
                    return key
            self._stopping.wait(wait)

    def stop(self) -> None:
        """End what is being done, and do nothing any more until `go_on`."""
        with self._lock:
            self._stopping.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def go_on(self) -> None:
        """After `stop`: work again when there is something to do; what was ended is due with the next commit."""
        self._lock = threading.Lock()  # in the child of a fork, a thread that is not there may hold the old one
        self._stopping = threading.Event()
        self._thread = None
        self._seen.clear()
        self._wanted.clear()


@contextlib.contextmanager
def by_hand(keeper: Keeper | None) -> Iterator[None]:
    """For the block, leave indexes to the caller, who makes or updates them: nothing is built twice."""
    if keeper is not None:
        keeper.stop()
    try:
        yield
    finally:
        if keeper is not None:
            keeper.go_on()


def _before_fork() -> None:
    for keeper in list(_keepers):
        keeper.stop()


def _after_fork(child: bool) -> None:
    for keeper in list(_keepers):
        keeper.go_on()


handles.on_fork(_before_fork, _after_fork)
