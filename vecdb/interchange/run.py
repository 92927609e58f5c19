"""The loop of an import: chunks of a source become commits, and a checkpoint follows each of them.

Invariant: the checkpoint never counts a row whose commit has not returned, and what it does not count although it was
committed (a kill in between) is found by comparing, so running again gives what one run would have given.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import ArgumentError, ImportInterruptedError, RecordExistsError, VecdbError
from vecdb.interchange.chunks import Block, Chunk, Limits
from vecdb.interchange.convert import as_vectors
from vecdb.interchange.locate import duplicate, located
from vecdb.interchange.resume import Checkpoint, CheckpointFile
from vecdb.interchange.sources import Sources
from vecdb.interchange.stored import stored_prefix
from vecdb.types import CancelCheck, Progress

if TYPE_CHECKING:
    from vecdb import Collection

__all__ = ["ImportResult", "Job", "run_import"]


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did.

    Attributes
    ----------
    rows : int
        Rows of the source, those of an earlier interrupted run included.
    inserted, updated : int
        Records written by this run that were new, or were there before.
    resumed : int
        Rows that an earlier run had committed already.
    seq : int
        The commit that holds the last row.
    """

    rows: int
    inserted: int
    updated: int
    resumed: int
    seq: int


@dataclass(frozen=True, slots=True)
class Job:
    """One import, its arguments settled."""

    collection: Collection
    sources: Sources
    normalise: frozenset[str]
    existing: bool
    merge: bool
    trust: bool
    ordered: bool = False
    """Vectors must get the order of the source, whatever the collection held."""

    def complete(self, chunk: Chunk) -> Chunk:
        """Add the vectors that stand beside the records and bring all to the number type of a space."""
        blocks = dict(chunk.vectors)
        count = len(chunk.ids)
        for space, source in self.sources.vectors.items():
            blocks[space] = Block(source.read(chunk.first, chunk.first + count), None, source.name)
        return replace(chunk, vectors={s: self._converted(s, block) for s, block in blocks.items() if block.rows.size})

    def _converted(self, space: str, block: Block) -> Block:
        with block.places_in_errors():
            return replace(block, rows=as_vectors(block.rows, normalise=space in self.normalise, where=block.where))

    def write(self, chunk: Chunk, *, insert: bool) -> _Done:
        count = len(chunk.ids)
        vectors = {space: block.spread(count) for space, block in chunk.vectors.items()}
        if self.existing or chunk.later:
            return self._set_vectors(chunk)
        if insert:
            result = self.collection.insert(chunk.ids, vectors, chunk.metadata, chunk.texts, trust=self.trust)
        else:
            result = self.collection.upsert(
                chunk.ids, vectors, chunk.metadata, chunk.texts, merge=self.merge, trust=self.trust
            )
        return _Done(result.seq, result.inserted, result.updated)

    def _set_vectors(self, chunk: Chunk) -> _Done:
        seq = 0
        for space, block in chunk.vectors.items():
            ids = chunk.ids if block.at is None else [chunk.ids[place] for place in block.at.tolist()]
            with block.places_in_errors():
                seq = self.collection.set_vectors(space, ids, block.rows, trust=self.trust).seq
        return _Done(seq, 0, 0 if chunk.later else len(chunk.ids))


@dataclass(frozen=True, slots=True)
class _Done:
    seq: int
    inserted: int
    updated: int


def run_import(
    job: Job,
    limits: Limits,
    settings: list[Any],
    resume: bool,
    progress: Progress | None,
    cancel: CancelCheck | None,
) -> ImportResult:
    keeper = _Keeper(job, settings, resume)
    start = keeper.begin()
    run = _Run(job, keeper, start, progress, job.sources.total())
    try:
        _take_all(run, job, limits, cancel)
    except ArgumentError:
        if run.point.rows == 0:  # nothing was stored, so there is nothing to continue
            keeper.finish()
        raise
    keeper.finish()
    rows, resumed = job.sources.records_in(run.point.rows), job.sources.records_in(start.rows)
    return ImportResult(rows, run.inserted, run.updated, resumed, run.point.seq)


def _take_all(run: _Run, job: Job, limits: Limits, cancel: CancelCheck | None) -> None:
    start = run.point.rows
    if start == 0:
        job.sources.check_counts()
    for chunk in job.sources.records.chunks(start, limits):
        if cancel is not None and cancel():
            raise ImportInterruptedError(
                f"the import was stopped; {run.point.rows:,} rows are committed.",
                hint="run the same import again to continue." if run.resumable else None,
                done=run.point.rows,
            )
        run.take(chunk)


class _Keeper:
    """Loads and keeps the checkpoint, if there is one to keep."""

    def __init__(self, job: Job, settings: list[Any], resume: bool) -> None:
        self._job = job
        fingerprint = job.sources.fingerprint() if resume else None
        self.file: CheckpointFile | None = None
        if fingerprint is not None:
            database = job.collection.database
            identity = {
                "database": str(database.uuid),
                "collection": job.collection.name,
                "names": job.sources.names(),
                "fields": [settings, dict(job.sources.columns), sorted(job.normalise)],
                "sources": fingerprint,
            }
            self.file = CheckpointFile(os.fspath(database.path), identity)

    def begin(self) -> Checkpoint:
        found = self.file.load() if self.file else None
        if found is not None and self._still_true(found):
            return found
        start = Checkpoint(0, 0, None, fresh=len(self._job.collection) == 0 and not self._job.existing)
        self.save(start)
        return start

    def _still_true(self, found: Checkpoint) -> bool:
        collection = self._job.collection
        if collection.database.seq < found.seq:  # commits were lost (power cut with durability below full)
            return False
        return found.last is None or found.last in collection

    def save(self, point: Checkpoint) -> None:
        if self.file:
            self.file.save(point)

    def finish(self) -> None:
        if self.file:
            self.file.remove()


class _Run:
    """The state of the loop: how far it is, and whether records of a killed run may lie ahead."""

    def __init__(
        self, job: Job, keeper: _Keeper, start: Checkpoint, progress: Progress | None, total: int | None
    ) -> None:
        self._job = job
        self._keeper = keeper
        self._progress: Callable[[int], object] = (lambda done: progress(done, total)) if progress else lambda _: None
        self._comparing = keeper.file is not None and (start.rows > 0 or len(job.collection) > 0)
        if job.ordered and not start.fresh:
            self._comparing = False  # a vector that was there before this import has another age: write it again
        self.point = start
        self.inserted = self.updated = 0
        self._progress(start.rows)

    @property
    def resumable(self) -> bool:
        return self._keeper.file is not None

    def take(self, chunk: Chunk) -> None:
        """Write one chunk and remember that it is written."""
        job = self._job
        rows = self.point.rows + len(chunk.ids)
        last = _native(chunk.ids[-1])
        chunk = self._located(chunk, lambda: job.complete(chunk))
        if self._comparing:
            chunk = self._left_to_write(chunk)
        seq = self.point.seq
        if chunk.ids:
            done = self._located(chunk, lambda: job.write(chunk, insert=self.point.fresh))
            self.inserted += done.inserted
            self.updated += done.updated
            seq = done.seq
        self.point = Checkpoint(rows, seq, last, self.point.fresh)
        if job.collection.database.seq >= seq:  # else a transaction of the caller holds the rows back
            self._keeper.save(self.point)
        self._progress(rows)

    def _left_to_write(self, chunk: Chunk) -> Chunk:
        """Drop what a killed run committed without noting it; the first record that is not stored ends the search."""
        collection = self._job.collection
        only_vectors = self._job.existing or chunk.later is not None
        known = stored_prefix(collection, chunk, existing=only_vectors, merge=self._job.merge)
        self._comparing = known == len(chunk.ids)
        if len(collection) > self.point.rows + known:  # somebody else wrote since: an id that is there is no duplicate
            self.point = replace(self.point, fresh=False)
        return chunk.after(known)

    def _located(self, chunk: Chunk, action: Callable[[], Any]) -> Any:
        name = chunk.later or self._job.sources.records.name
        try:
            return action()
        except RecordExistsError as error:
            raise duplicate(error, chunk, name) from error
        except VecdbError as error:
            raise located(error, chunk, name) from error


def _native(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
