"""Keeping a database in order: sealing tails and deltas, giving space back, forgetting history.

Each step is one small commit that users do not see. `after_write` is the automatic policy: it looks at counts only and
does at most one bounded step, so that no write inherits a long pause.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from vecdb.errors import CancelledError, LockedError, StateError, StorageError
from vecdb.storage.handles import Store
from vecdb.storage.indexstore import put_index
from vecdb.storage.snapshot import find_space
from vecdb.storage.state import CollectionEntry, SpaceCounts
from vecdb.storage.vectors import row_bytes
from vecdb.storage.writetx import Pending, WriteTx
from vecdb.types import CancelCheck, Progress, Space

REPACK_SHARE = 0.2
"""What rewriting must give back: the dead share of a segment, or the share of the old blocks that the new ones save."""
_LEAST_REPACK, _MOST_REPACK = 1 << 20, 4 << 20
"""Bytes written in one step, a sixteenth of the space: what a write may have to wait for, and what is there twice."""
_BREATH = 0.25
"""Seconds between steps unless much died meanwhile."""
_DUE_DEAD = 256
_LOOKS = 32
"""Blocks without survivors, which cost nothing to give back, are looked for each time so small a share has died."""
_PAUSE = 1.0
"""Seconds between attempts while history keeps most of the dead."""
_TIDY_EVERY = 16
_PACKED = ("ids", "records", "history", "log")
"""Tables whose pages deletions leave half empty: a compact copy copies pages as they are."""
log = logging.getLogger("vecdb")


Step = Callable[[WriteTx], bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a commit left behind, as far as housekeeping wants to know."""

    seq: int
    horizon: int
    spaces: Mapping[int, SpaceCounts]


def outcome(write: WriteTx, entry: CollectionEntry) -> Outcome:
    """Note the counts that a commit is about to make true."""
    pending = _pending(write, entry)
    return Outcome(write.seq, write.counters.horizon, {} if pending is None else dict(pending.spaces))


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of the last attempt to give space back.

    Attributes
    ----------
    time : float
        Of the monotonic clock.
    dead : int
        Vectors that were dead when it ended.
    horizon : int
    commit : int
        LMDB's number of its commit, 0 if it found nothing to do.
    ready : bool
        It released the spare blocks, whose pages the next one is to use.
    """

    time: float
    dead: int
    horizon: int
    commit: int = 0
    ready: bool = False


def after_write(store: Store, entry: CollectionEntry, left: Outcome) -> None:
    """Do what housekeeping a commit's counts say is due; nothing is read to find out.

    The write itself is durable already, so housekeeping that cannot be done now is left to a later one: it waits for
    no lock, and a full disk or a damaged block is logged, to be met again by whoever needs that space or block.
    """
    try:
        for name, step in _due_steps(store, entry, left):
            useful = store.writer.maintain(step, timeout=0.0)
            log.debug("%s: %s: %s", store.path, name, "done" if useful else "nothing to do")
    except (LockedError, StateError) as error:  # another writer was quicker, or the database is being closed
        log.debug("%s: housekeeping put off: %s", store.path, error)
    except StorageError as error:
        log.warning("%s: housekeeping failed: %s", store.path, error)


def _due_steps(store: Store, entry: CollectionEntry, left: Outcome) -> Iterator[tuple[str, Step]]:
    for space in entry.spaces.values():
        counts = left.spaces.get(space.id)
        if counts is None or counts.dead < _DUE_DEAD:
            continue
        if _is_due(store, space, counts, left.horizon):
            yield from _give_back(store, entry, space, left)
        elif counts.dead - min(store.looked.get(space.id, 0), counts.dead) >= max(_DUE_DEAD, counts.live // _LOOKS):
            store.looked[space.id] = counts.dead
            yield f"remove empty blocks of space {space.name}", _settle_step(entry, space, REPACK_SHARE, 0)
    if left.seq % _TIDY_EVERY == 0:
        for space in entry.spaces.values():
            yield f"merge the segments of space {space.name}", _merge_step(entry, space)
        yield f"tidy the columns of {entry.name}", _tidy_columns_step(entry)


def _give_back(store: Store, entry: CollectionEntry, space: Space, left: Outcome) -> Iterator[tuple[str, Step]]:
    """Yield the step that rewrites some blocks of a space, or makes room for it, and note what became of it."""
    last: Attempt | None = store.settled.get(space.id)
    store.settled[space.id] = Attempt(time.monotonic(), left.spaces[space.id].dead, left.horizon)
    after: list[int] = []

    def noting(step: Step) -> Step:
        def noted(write: WriteTx) -> bool:
            useful = step(write)
            pending = _pending(write, entry)
            after[:] = [pending.spaces[space.id].dead] if useful and pending is not None else []
            return useful

        return noted

    most = _step_bytes(space, left.spaces[space.id])
    if last is None or not last.ready:
        yield f"release spare blocks of space {space.name}", noting(_release_step(entry, space, most))
    ready = bool(after)
    if not ready:
        yield f"repack space {space.name}", noting(_settle_step(entry, space, REPACK_SHARE, most))
    if after:
        newest = store.env.commits()[0]
        store.settled[space.id] = Attempt(time.monotonic(), after[0], left.horizon, newest, ready)


def _is_due(store: Store, space: Space, counts: SpaceCounts, horizon: int) -> bool:
    """Whether enough died that rewriting may give space back, and something changed since the last attempt."""
    if 4 * counts.dead < counts.live:
        return False
    last: Attempt | None = store.settled.get(space.id)
    if last is None:
        return True
    waited = time.monotonic() - last.time
    grown = counts.dead - min(last.dead, counts.dead)
    if last.commit:  # the last attempt was worth it: go on once its pages are free
        newest, oldest, _ = store.env.commits()
        much = 4 * grown * row_bytes(space) >= _step_bytes(space, counts)
        return min(newest, oldest) > last.commit and (last.ready or much or waited >= _BREATH)
    return grown >= max(_DUE_DEAD, counts.live // 2) or (horizon != last.horizon and waited >= _PAUSE)


def _step_bytes(space: Space, counts: SpaceCounts) -> int:
    taken = (counts.live + counts.dead) * row_bytes(space)
    return min(_MOST_REPACK, max(_LEAST_REPACK, taken // 16))


def _settle_step(entry: CollectionEntry, space: Space, threshold: float, most: int | None = None) -> Step:
    def step(write: WriteTx) -> bool:
        pending = _pending(write, entry)
        return (
            pending is not None
            and space.id in pending.spaces
            and write.settle(pending, space, threshold=threshold, most=most)
        )

    return step


def _release_step(entry: CollectionEntry, space: Space, wanted: int | None = None) -> Step:
    def step(write: WriteTx) -> bool:
        pending = _pending(write, entry)
        return pending is not None and space.id in pending.spaces and write.release_spare(space, wanted)

    return step


def _pending(write: WriteTx, entry: CollectionEntry) -> Pending | None:
    """Return the collection's counts, None if it was dropped meanwhile."""
    known = write.catalog.collections.get(entry.name)
    return write.pending(known) if known is not None and known.id == entry.id else None


def sealing(entry: CollectionEntry, name: str) -> Step:
    """Return the step that seals the tail of one space, so that an index can cover it."""
    return _seal_step(entry, find_space(entry, name))


def optimize(
    store: Store, entries: list[CollectionEntry], timeout: float, progress: Progress | None, cancel: CancelCheck | None
) -> int:
    """Seal tails and deltas, repack, merge; return how many steps had something to do."""
    steps = [step for entry in entries for step in _steps(entry)]
    useful = 0
    for place, step in enumerate(steps):
        if cancel is not None and cancel():
            raise CancelledError("optimize was cancelled; the steps that were done stay done")
        useful += store.writer.maintain(step, timeout=timeout)
        if progress is not None:
            progress(place + 1, len(steps))
    return useful


def _steps(entry: CollectionEntry, threshold: float = REPACK_SHARE, *, everything: bool = False) -> Iterator[Step]:
    for space in entry.spaces.values():
        yield _seal_step(entry, space)
        yield _settle_step(entry, space, threshold)
        yield _release_step(entry, space)
        yield _merge_step(entry, space)
    yield _columns_step(entry, everything=everything)


def _seal_step(entry: CollectionEntry, space: Space) -> Step:
    def step(write: WriteTx) -> bool:
        pending = _pending(write, entry)
        return pending is not None and space.id in pending.spaces and write.seal_tail(pending, space)

    return step


def _merge_step(entry: CollectionEntry, space: Space) -> Step:
    def step(write: WriteTx) -> bool:
        pending = _pending(write, entry)
        return pending is not None and space.id in pending.spaces and write.merge_segments(pending, space)

    return step


def _tidy_columns_step(entry: CollectionEntry) -> Step:
    def step(write: WriteTx) -> bool:
        pending = _pending(write, entry)
        return pending is not None and write.columns(pending).tidy()

    return step


def _columns_step(entry: CollectionEntry, *, everything: bool) -> Step:
    def step(write: WriteTx) -> bool:
        pending = _pending(write, entry)
        if pending is None:
            return False
        columns = write.columns(pending)
        sealed = pending.delta > 0
        pending.delta = columns.seal_delta()
        return columns.tidy(everything=everything) or sealed

    return step


def forget(store: Store, keep: str, timeout: float) -> None:
    """Drop the history that `keep` does not name: "window" drops nothing now, anything else all but what tags need."""

    def step(write: WriteTx) -> bool:
        tags = write.catalog.tags
        target = min((tag.seq for tag in tags.values()), default=write.counters.seq)
        before = write.counters.horizon
        write.forget_until(target)
        return write.counters.horizon > before

    if keep != "window":
        store.writer.maintain(step, timeout=timeout)


def _pack_step(table: str) -> Step:
    return lambda write: write.tx.pack(table)


def _shed_step(entry: CollectionEntry) -> Step:
    """Return the step that drops parts of indexes most of whose vectors are dead: upkeep makes them anew, smaller."""

    def step(write: WriteTx) -> bool:
        pending = _pending(write, entry)
        if pending is None:
            return False
        known, shed = write.catalog.collections[entry.name], False
        for index in known.indexes:
            counts = pending.spaces.get(index.space)
            if counts is not None and sum(part.count for part in index.parts) > 2 * counts.live:
                put_index(write, entry.name, replace(index, parts=()))
                shed = True
        return shed

    return step


def squeeze(store: Store, entries: list[CollectionEntry], timeout: float, progress: Progress | None) -> None:
    """Rewrite everything that holds something dead, however little, before the file is copied compactly."""
    steps = [_shed_step(entry) for entry in entries]
    steps += [step for entry in entries for step in _steps(entry, 0.0, everything=True)]
    steps += [_pack_step(table) for table in _PACKED]
    for place, step in enumerate(steps):
        store.writer.maintain(step, timeout=timeout)
        if progress is not None:
            progress(place + 1, len(steps) + 1)
