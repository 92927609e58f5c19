"""Reads that outlive one snapshot or look at several: scans, histories, and finding the seq that `as_of` means."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from vecdb.engine.view import CollectionView, Past
from vecdb.errors import ForkedError, ParameterError, TagMissingError
from vecdb.storage.format import decode_record
from vecdb.storage.history import images_of
from vecdb.storage.records import record_key
from vecdb.storage.snapshot import Hold, Snapshot, State, find_space
from vecdb.types import Id, Record, RecordVersion, Space

if TYPE_CHECKING:
    from vecdb.engine.order import Order
    from vecdb.engine.where import Condition
    from vecdb.storage.handles import Store
    from vecdb.storage.writer import Transaction

_CHUNK = 512


class OpenView:
    """A context that opens a snapshot and yields the collection's view of it.

    Parameters
    ----------
    snapshot : context manager of Snapshot
    collection : tuple of int and str
    as_of : int or str or None
        A seq, a tag, or the newest.
    past : Past, optional
        What earlier views of the same reading found out.
    """

    __slots__ = ("_as_of", "_collection", "_past", "_snapshot")

    def __init__(
        self,
        snapshot: AbstractContextManager[Snapshot],
        collection: tuple[int, str],
        as_of: int | str | None,
        past: Past | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._collection = collection
        self._as_of = as_of
        self._past = past

    def __enter__(self) -> CollectionView:
        snapshot = self._snapshot.__enter__()
        try:
            seq = resolve(snapshot, self._as_of)
            return CollectionView(snapshot, snapshot.entry(*self._collection), seq, self._past)
        except BaseException as error:
            self._snapshot.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._snapshot.__exit__(kind, error, trace)


def resolve(snapshot: Snapshot, as_of: int | str | None) -> int | None:
    """Return the seq that `as_of` means."""
    if as_of is None:
        return None
    if isinstance(as_of, str):
        tag = snapshot.state.catalog.tags.get(as_of)
        if tag is None:
            raise missing_tag(as_of, snapshot.state.catalog.tags)
        return tag.seq
    if isinstance(as_of, bool) or not isinstance(as_of, int):
        raise ParameterError(f"as_of is {as_of!r}, expected a seq or the name of a tag", name="as_of", got=as_of)
    return as_of


def spaces_named(view: CollectionView, names: Sequence[str] | str) -> list[Space]:
    """Return the spaces whose vectors were asked for."""
    if names == "all":
        return view.entry.given_spaces
    if not isinstance(names, Iterable):
        raise ParameterError(
            f"vectors is {names!r}, expected names of spaces or 'all'", name="vectors", got=names, allowed="names"
        )
    return [find_space(view.entry, name) for name in ([names] if isinstance(names, str) else names)]


def parse_order_by(order_by: str | Sequence[str] | None) -> Order | None:
    if order_by is None:
        return None
    from vecdb.engine.order import parse_order  # conditions and columns come with it

    return parse_order(order_by)


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What a scan should return."""

    condition: Condition | None
    limit: int | None
    order: Order | None
    vectors: Sequence[str] | str
    as_of: int | str | None
    own_writes: bool = False
    """Whether rows may vanish meanwhile, because the scan sees what its own transaction does."""


OpenAt = Callable[[int | str | None, Past | None], OpenView]


def scan(open_at: OpenAt, plan: ScanPlan, hold: Hold | None = None) -> Iterator[Record]:
    """Return an iterator over the records of one seq; every chunk is read through a snapshot of its own.

    `hold`, made before, keeps the history that the iterator needs, until the iterator is gone.
    """
    with open_at(plan.as_of, None) as view:
        seq, stop = view.seq, view.next_row
        if hold is not None:
            reach_back(hold, view)
        spaces_named(view, plan.vectors)
        rows = _chosen_rows(view, plan)
    chunks = _Walk(stop, plan.limit, hold) if rows is None else _Slices(rows, hold)
    return _records(open_at, seq, plan, chunks)


def reach_back(hold: Hold, view: CollectionView) -> None:
    """Keep what the commits since the one that is read left behind, if that is an earlier one."""
    if not view.is_past:
        return
    from vecdb.storage.writetx import read_log  # readers of the newest state do without the writer's code

    entry = read_log(view.tx, view.seq + 1)
    if entry is not None:
        hold.reach(entry[0])


def _chosen_rows(view: CollectionView, plan: ScanPlan) -> list[int] | None:
    """Return the rows to read in order, None for all in record order."""
    if plan.condition is None and plan.order is None:
        return None
    if plan.condition is None:
        rows = view.rows_from(0, view.live)
    else:
        rows = [int(row) for row in view.select(plan.condition).rows]
    if plan.order is not None:
        return view.sorted_rows(rows, plan.order, plan.limit)
    return rows if plan.limit is None else rows[: plan.limit]


class _Slices:
    """Rows that are known, chunk by chunk; holds history until the last ones are read."""

    def __init__(self, rows: list[int], hold: Hold | None) -> None:
        self._rows = rows
        self._hold = hold
        self.over = not rows

    def next(self, view: CollectionView, *, may_vanish: bool) -> list[int]:
        """Return the next rows; after the last ones `over` is set."""
        chunk, self._rows = self._rows[:_CHUNK], self._rows[_CHUNK:]
        self.over = not self._rows
        return view.still_there(chunk) if may_vanish else chunk

    def release(self) -> None:
        """Let go of the history if nothing is left to read."""
        if self.over:
            self._hold = None


class _Walk(_Slices):
    """All rows below `stop`, or the first `limit`, found chunk by chunk; a transaction may add more behind `stop`."""

    def __init__(self, stop: int, limit: int | None, hold: Hold | None) -> None:
        super().__init__([], hold)
        self._start = 0
        self._stop = stop
        self._left = stop if limit is None else limit
        self.over = not stop or not self._left

    def next(self, view: CollectionView, *, may_vanish: bool) -> list[int]:
        """Return the next rows; after the last ones `over` is set, so that nothing is opened only to find none."""
        wanted = min(_CHUNK, self._left)
        rows = [row for row in view.rows_from(self._start, wanted) if row < self._stop]
        self._left -= len(rows)
        self._start = rows[-1] + 1 if rows else self._stop
        self.over = len(rows) < wanted or not self._left or self._start >= self._stop
        return rows


def _records(open_at: OpenAt, seq: int, plan: ScanPlan, chunks: _Slices) -> Iterator[Record]:
    process, past = os.getpid(), Past(seq)
    while not chunks.over:
        with open_at(seq, past) as view:
            rows = chunks.next(view, may_vanish=plan.own_writes)
            records = list(view.present_many(rows, spaces_named(view, plan.vectors)))
        chunks.release()
        for record in records:
            if os.getpid() != process:
                raise ForkedError(
                    "the iterator was made before a fork", hint="Scan anew in the child.", what="iterator"
                )
            yield record


def vector_order(view: CollectionView, space: Space) -> list[Id]:
    """Return the ids of the records with a vector in `space`, by ordinal."""
    space_view = view.space(space)
    hidden = view.hidden(space_view)
    positions = np.arange(len(space_view)) if hidden is None else np.flatnonzero(~hidden)
    return [view.record(row).id for row in space_view.rows_at(view.tx, positions.astype(np.int64)).tolist()]


def history(view: CollectionView, key: bytes) -> list[RecordVersion]:
    """Return the kept states of the record with this id, oldest first."""
    versions: dict[int, Record | None] = {}
    counters = view.snapshot.state.counters
    for row in _rows_ever(view, counters.horizon, key):
        _add_states(view, row, key, versions)
    return [RecordVersion(seq, versions[seq]) for seq in sorted(versions)]


def _rows_ever(view: CollectionView, horizon: int, key: bytes) -> list[int]:
    """Return every row under which the id was kept since the horizon."""
    found = {row for row in (view.find(key),) if row is not None}
    for change in view.snapshot.changes(view.number, horizon):
        for row in change.rows.tolist():
            images = images_of(view.tx, view.number, row)
            if images and decode_record(record_key(view.number, row), images[0][1]).key == key:
                found.add(row)
    return sorted(found)


def _add_states(view: CollectionView, row: int, key: bytes, versions: dict[int, Record | None]) -> None:
    """Add the states of one row: each image was current until the commit that it was taken before."""
    born = _birth(view, row)
    for seq, value in images_of(view.tx, view.number, row):
        versions[born] = view.present_stored(decode_record(record_key(view.number, row), value), ())
        born = seq
    current = view.find(key)
    versions[born] = view.present_stored(view.record(row, key), ()) if current == row else None


def _birth(view: CollectionView, row: int) -> int:
    """Return the seq at which a row was first written, the horizon if that was before it."""
    horizon = view.snapshot.state.counters.horizon
    for change in reversed(view.snapshot.changes(view.number, horizon)):
        if row >= change.next_row:
            return change.seq
    return horizon


@contextlib.contextmanager
def uncommitted(store: Store, transaction: Transaction) -> Iterator[Snapshot]:
    """Read what a transaction did so far; what is learnt of it stays private."""
    with store.env.translated():
        write = transaction.flushed()
        yield Snapshot(write.tx, State(write.tx, write.counters, store.reader.private_caches(), None))


def missing_tag(name: str, tags: Iterable[str]) -> TagMissingError:
    """Return the error for a tag that is not there."""
    known = sorted(tags)
    hint = "Make it with db.tag(name)."
    return TagMissingError(f"there is no tag {name!r}; there are {known}", hint=hint, name=name, available=known)
