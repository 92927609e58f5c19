"""Building parts of indexes: reading under short leases, building without a lock, what a commit then stores.

What is built covers what is sealed at one commit. Vectors that are removed from the file while a build reads them end
it; it begins again under one lease that keeps them, or is put off where nobody waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from vecdb.contracts.index import Index
from vecdb.engine import border, measuring
from vecdb.engine.view import CollectionView
from vecdb.engine.views import BuildView, VectorsMovedError
from vecdb.errors import CancelledError, SpaceMissingError
from vecdb.registry import PluginRegistry, Provided
from vecdb.storage.blobs import BlobData
from vecdb.storage.indexes import IndexEntry, IndexPart
from vecdb.storage.indexstore import part_blobs, store_part
from vecdb.storage.measured import NOTHING, Measured
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.spaces import SpaceView
from vecdb.storage.staging import is_large
from vecdb.storage.state import CollectionEntry
from vecdb.storage.writetx import WriteTx
from vecdb.types import CancelCheck, Progress, Space

Numbers = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
R = TypeVar("R")
Read: TypeAlias = Callable[[], AbstractContextManager[Snapshot]]
Stage: TypeAlias = Callable[[Sequence[BlobData], Callable[[], object]], AbstractContextManager[int]]
log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What building needs of the database.

    Attributes
    ----------
    read : callable
        Opens a snapshot of the newest commit.
    write : callable
        Runs an operation in a commit that users see.
    maintain : callable
        Runs one in a commit that they do not see; it says whether there was something to do.
    """

    read: Read
    write: Callable[[Callable[[WriteTx], Any]], Any]
    maintain: Callable[[Callable[[WriteTx], bool]], bool]
    registry: PluginRegistry
    collection: tuple[int, str]
    progress: Progress | None = None
    cancel: CancelCheck | None = None
    recorded: Callable[[int], F32 | None] = lambda space: None
    """The queries that searches of a space have recorded, None where they are too few."""
    stage: Stage = lambda blobs, check: nullcontext(0)
    """Stores a large set of blobs ahead of the commit that names it, as `storage.writer.Writer.stage` does."""
    patient: bool = True
    """Whether a build may keep the file from giving space back; nobody waits for one in the background."""

    def tell(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def is_cancelled(self) -> bool:
        return self.cancel is not None and bool(self.cancel())

    def check(self) -> None:
        """Raise CancelledError if the caller no longer wants what is being made."""
        if self.is_cancelled():
            raise CancelledError("storing an index was cancelled")


@dataclass(frozen=True, slots=True)
class Work:
    """Vectors to be covered by one part."""

    ordinals: Numbers
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Built:
    """A part that a commit is to store.

    Attributes
    ----------
    work : Work
    blobs : list of BlobData
        What its type wrote.
    coded : bool
    measured : Measured
    staged : int
        Number of the set that holds them already, 0 for none.
    """

    work: Work
    blobs: list[BlobData]
    coded: bool = False
    measured: Measured = NOTHING
    staged: int = 0

    def contents(self) -> list[BlobData]:
        """Return all that is to be stored."""
        return part_blobs(self.work.ordinals, self.work.first, self.work.stop, self.blobs)

    def store(self, write: WriteTx, provided: Provided) -> IndexPart:
        """Store it in a commit."""
        work, version = self.work, provided.thing.version
        part = store_part(write, version, work.ordinals, work.first, work.stop, self.contents(), staged=self.staged)
        return replace(part, coded=self.coded, measured=self.measured)


@contextmanager
def staged(shop: Workshop, built: Built | None) -> Iterator[Built | None]:
    """Give what is built to the block, whose next commit is to store it; what is large is stored ahead of that.

    Raises
    ------
    CancelledError
        While it is stored; nothing stays of it.
    """
    contents = [] if built is None else built.contents()
    if built is None or not is_large(contents):
        yield built
        return
    with shop.stage(contents, shop.check) as number:
        yield replace(built, staged=number)


def build_all(shop: Workshop, space: Space, provided: Provided, index: IndexEntry) -> Built | None:
    """Build over everything sealed; None if there is nothing."""
    return steady(shop, lambda read: build_from(shop, read, space, provided, index, 0))


def steady(shop: Workshop, work: Callable[[Read], R]) -> R:
    """Do `work` under short leases; if vectors were removed under it, again under one lease that keeps them.

    Raises
    ------
    VectorsMovedError
        If they were and the shop is not patient: under one lease everything that is written meanwhile stays.
    """
    try:
        return work(shop.read)
    except VectorsMovedError:
        if not shop.patient:
            raise
        log.info("vectors were removed during the build of an index; it begins again")
    with shop.read() as snapshot:
        return work(lambda: Held(snapshot))


class Held(AbstractContextManager[Snapshot]):
    """A snapshot that somebody else ends."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __enter__(self) -> Snapshot:
        return self._snapshot

    def __exit__(self, *error: object) -> None:
        return None


def build_from(
    shop: Workshop, read: Read, space: Space, provided: Provided, index: IndexEntry, first: int
) -> Built | None:
    """Build over everything sealed from ordinal `first` on, and measure it; None if there is nothing."""
    work = sealed_work(shop, read, space, first)
    if not len(work.ordinals):
        return None
    watched = BuildView(read, shop.collection, space, work.ordinals)
    built = border.build(provided, watched, index.params, seed=index.seed, progress=shop.tell, cancel=shop.is_cancelled)
    watched.confirm()
    measured = measure(shop, read, space, provided, index, built, work.ordinals)
    return Built(work, border.dump(provided, built), measured=measured)


def measure(
    shop: Workshop,
    read: Read,
    space: Space,
    provided: Provided,
    index: IndexEntry,
    built: Index,
    ordinals: Numbers,
) -> Measured:
    """Measure an index over vectors of which some may have been removed since it was built."""
    view = BuildView(read, shop.collection, space, ordinals, known=len(ordinals))
    recorded = shop.recorded(space.id)
    return measuring.measure(provided, built, view, seed=index.seed, recorded=recorded, cancel=shop.cancel)


def encode_from(shop: Workshop, read: Read, space: Space, provided: Provided, style: Index, first: int) -> Built | None:
    """Encode everything sealed from ordinal `first` on in the style of an index; None if there is nothing."""
    work = sealed_work(shop, read, space, first)
    if not len(work.ordinals):
        return None
    watched = BuildView(read, shop.collection, space, work.ordinals)
    blobs = border.encode_segment(provided, style, watched)
    watched.confirm()
    return Built(work, blobs, coded=True)


def sealed_work(shop: Workshop, read: Read, space: Space, first: int) -> Work:
    """Return the living sealed vectors from ordinal `first` on, as they are now."""
    with read() as snapshot:
        entry = snapshot.entry(*shop.collection)
        _require_space(entry, space)
        view = CollectionView(snapshot, entry)
        return sealed_from(view, view.space(space), first)


def _require_space(entry: CollectionEntry, space: Space) -> None:
    if all(known.id != space.id for known in entry.spaces.values()):
        raise SpaceMissingError(
            f"space {space.name!r} of collection {entry.name!r} was dropped while its index was built",
            name=space.name,
            available=list(entry.spaces),
        )


def sealed_from(view: CollectionView, space_view: SpaceView, first: int) -> Work:
    """Return the living sealed vectors from ordinal `first` on."""
    start = space_view.count_before(view.tx, first)
    positions = np.arange(start, space_view.sealed, dtype=np.int64)
    dead = space_view.dead(view.tx)
    if dead is not None:
        positions = positions[~dead[start : space_view.sealed]]
    ordinals = space_view.ordinals_at(view.tx, positions)
    return Work(ordinals, first if first or not len(ordinals) else int(ordinals[0]), space_view.counts.tail_start)


def owner_of(provided: Provided) -> str:
    """Return who provides a type, for messages."""
    return f"{provided.distribution} {provided.version}" if provided.distribution else provided.plugin
