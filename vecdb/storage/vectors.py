"""Writing vectors: append to the tail, seal it into blocks, repack blocks that hold too many dead.

Ordinals are handed out in order and never reused; blocks are written once, under numbers that are never reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.storage.failpoints import visit
from vecdb.storage.format import (
    BLOCK_CLASSES,
    BlockRef,
    block_capacity,
    decode_tail,
    encode_block,
    encode_tail,
    open_block,
    smallest_class,
    u32_u64,
    u64,
    verify_chunks,
)
from vecdb.storage.repack import Stretch, cut, plan, usual_class
from vecdb.storage.spaces import Segment, read_segments, segment_key, write_segment
from vecdb.storage.spare import read_spare, release, retire
from vecdb.storage.tx import Tx
from vecdb.types import Space

MAX_SEGMENT_BLOCKS: Final = 64
WRITTEN_SEGMENT_BLOCKS: Final = 16
"""Blocks in a segment as first written: bounds what one repacking has to move."""
_COMMITS_AHEAD: Final = 12
"""Commits before the tail is full at which a spare block is released."""
_SMALL_SEGMENT: Final = 8
_SMALL_RUN: Final = 8

Vectors = npt.NDArray[Any]
Numbers = npt.NDArray[np.uint64]
Scales = npt.NDArray[np.float32]


def row_bytes(space: Space) -> int:
    return space.columns * np.dtype(space.dtype).itemsize


class VectorWriter:
    """Appends vectors to one space within a write transaction; `stored` is how many the space holds, dead included."""

    def __init__(self, tx: Tx, space: Space, new_block: Callable[[], int], stored: int = 0) -> None:
        self.tx = tx
        self.space = space
        self._new_block = new_block
        self._width = row_bytes(space)
        self.usual = usual_class(stored, self._width)
        self._stored_bytes = stored * self._width

    def append(self, vectors: Vectors, rows: Numbers, scales: Scales, *, next_ordinal: int, tail_start: int) -> int:
        """Append in order, sealing whole blocks; return the new start of the tail."""
        waiting = next_ordinal - tail_start
        capacity = self._make_room(waiting, len(rows))
        if waiting + len(rows) < capacity:
            self._put_tail(next_ordinal, vectors, rows, scales)
            return tail_start
        held: list[tuple[Any, ...]] = [(vectors, rows, scales)]
        if waiting:
            held.insert(0, self.read_tail(tail_start, next_ordinal))
            self._drop_tail()
        whole = (waiting + len(rows)) // capacity * capacity
        full, rest = _cut(held, whole)
        start = tail_start
        pieces = []
        for piece in full:
            pieces.append((*piece, np.arange(start, start + len(piece[1]), dtype=np.uint64)))
            start += len(piece[1])
        self._seal(pieces)
        if rest:
            self._put_tail(start, *_joined(rest))
        return start

    def _make_room(self, waiting: int, count: int) -> int:
        """Return how many rows the tail may hold: what fits into a block of the usual class, or of a larger spare one.

        Some commits before it is full, a spare block is released: once readers have left, its pages are free.
        """
        spare = [size_class for _, size_class in read_spare(self.tx, self.space.id)]
        size_class = self._tail_class(waiting, count, spare)
        capacity, early = block_capacity(size_class, self._width), _COMMITS_AHEAD * count
        if early >= capacity:
            blocks = (waiting + count) // capacity
        else:
            blocks = int(waiting < capacity - early <= waiting + count)
        if spare and blocks:
            wanted = blocks * size_class
            release(self.tx, self.space.id, wanted, size_class) or release(self.tx, self.space.id, wanted)
        return capacity

    def _tail_class(self, waiting: int, count: int, spare: Sequence[int]) -> int:
        """Return the class of the block that the tail is to fill.

        A larger one than usual only if its place is released, by commits like this one, when the tail is too long for
        a usual block already: between a release and its use, what commits write would cut up the run of pages.
        """
        usual = block_capacity(self.usual, self._width)
        meant = BLOCK_CLASSES[-1] if waiting >= usual else self.usual  # the spare block was released already
        largest = max([meant, *spare])
        late = block_capacity(largest, self._width) - _COMMITS_AHEAD * count
        return largest if late > usual else self.usual

    def _put_tail(self, first: int, vectors: Vectors, rows: Numbers, scales: Scales) -> None:
        if len(rows):
            key = u32_u64(self.space.id, first)
            self.tx.put("tail", key, encode_tail(key, vectors, rows, scales))

    def read_tail(self, start: int, stop: int) -> tuple[Vectors, Numbers, Scales]:
        """Return the rows of the tail, ordinals `start` to `stop`."""
        chunks = [
            decode_tail(key, value, self.space.columns, self.space.dtype)
            for key, value in self.tx.range("tail", u32_u64(self.space.id, 0)[:4], u32_u64(self.space.id, start))
        ]
        vectors, rows, scales = (np.concatenate([chunk[part] for chunk in chunks]) for part in range(3))
        assert len(rows) == stop - start
        return vectors, rows, scales

    def _drop_tail(self) -> None:
        self.tx.delete_range("tail", u32_u64(self.space.id, 0)[:4])

    def seal_tail(self, *, next_ordinal: int, tail_start: int) -> int:
        """Seal a tail that does not fill a block yet; return the new start of the tail."""
        if next_ordinal > tail_start:
            vectors, rows, scales = self.read_tail(tail_start, next_ordinal)
            self._drop_tail()
            self._seal([(vectors, rows, scales, np.arange(tail_start, next_ordinal, dtype=np.uint64))])
        return next_ordinal

    def _seal(self, pieces: Iterable[tuple[Vectors, Numbers, Scales, Numbers]]) -> None:
        visit("seal.before")
        blocks = self._write_blocks(pieces, BLOCK_CLASSES[-1], self.usual)
        for start in range(0, len(blocks), WRITTEN_SEGMENT_BLOCKS):
            part = tuple(blocks[start : start + WRITTEN_SEGMENT_BLOCKS])
            write_segment(self.tx, self.space.id, Segment(part[0].first, part))
            visit("seal.half")

    def _write_blocks(
        self, pieces: Iterable[tuple[Vectors, Numbers, Scales, Numbers]], large: int, last: int
    ) -> list[BlockRef]:
        """Write pieces of (vectors, rows, scales, ordinals): full blocks of class `large`, the rest at most `last`."""
        refs: list[BlockRef] = []
        held: list[tuple[Any, ...]] = []
        waiting, capacity = 0, block_capacity(large, self._width)
        for piece in pieces:
            held.append(piece)
            waiting += len(piece[1])
            while waiting >= capacity:
                held = self._write_first(held, capacity, refs)
                waiting -= capacity
        for count in cut(waiting, self._width, last):
            held = self._write_first(held, count, refs)
        return refs

    def _write_first(self, held: list[tuple[Any, ...]], count: int, refs: list[BlockRef]) -> list[tuple[Any, ...]]:
        """Write the first `count` rows that are held as a block; return what is held after that."""
        block, rest = _cut(held, count)
        refs.append(self._write_block(*_joined(block)))
        return rest

    def _write_block(self, vectors: Vectors, rows: Numbers, scales: Scales, ordinals: Numbers) -> BlockRef:
        size_class = smallest_class(len(rows), self._width)
        ref = BlockRef(self._new_block(), size_class, len(rows), int(ordinals[0]), int(ordinals[-1]))
        self.tx.put(
            "blocks", u64(ref.id), encode_block(ref, self.space.id, vectors, rows, scales, ordinals), append=True
        )
        return ref

    # --- repacking ---

    def repack(self, segments: list[Segment], gone: Numbers) -> None:
        """Rewrite neighbouring segments as one run of large blocks without the ordinals in `gone` (sorted)."""
        for segment in segments:
            self.tx.delete("segments", segment_key(self.space.id, segment.base))
        survivors = (self._survivors(ref, gone) for segment in segments for ref in segment.blocks)
        refs = self._write_blocks(survivors, BLOCK_CLASSES[-1], BLOCK_CLASSES[-1])
        for segment in segments:
            for ref in segment.blocks:
                self.tx.delete("blocks", u64(ref.id))
            visit("maintain.repack")
        for start in range(0, len(refs), WRITTEN_SEGMENT_BLOCKS):
            part = tuple(refs[start : start + WRITTEN_SEGMENT_BLOCKS])
            write_segment(self.tx, self.space.id, Segment(part[0].first, part))

    def repack_best(self, segments: Sequence[Segment], final: Numbers, threshold: float, most: int) -> Numbers:
        """Rewrite the stretches of blocks that give back most, see `repack.plan`; return the dead that are gone.

        `segments` are all of the space, `final` the ordinals (sorted) that nobody can read any more.
        """
        refs = [ref for segment in segments for ref in segment.blocks]
        dead = np.array([len(dead_in((ref,), final)) for ref in refs], np.int64)
        stretches = plan(refs, dead, self._width, largest=self.usual, threshold=threshold, most=most)
        for first, stop, inside in _by_segments(segments, stretches):
            self._rewrite(segments[first:stop], inside, final)
        self._keep_spare([ref for stretch in stretches for ref in refs[stretch.start : stretch.stop]], stretches)
        return joined([dead_in(refs[stretch.start : stretch.stop], final) for stretch in stretches])

    def _keep_spare(self, emptied: Sequence[BlockRef], stretches: Sequence[Stretch]) -> None:
        """Keep emptied blocks as spare: what the next rewriting and the tail need, but never more than a quarter."""
        written = sum(stretch.written for stretch in stretches)
        retire(self.tx, self.space.id, emptied, max(2 * written, self._stored_bytes // 4))

    def _rewrite(self, segments: Sequence[Segment], stretches: Sequence[Stretch], gone: Numbers) -> None:
        """Rewrite stretches of the blocks of neighbouring segments, numbered through; the others stay as they are."""
        refs = [ref for segment in segments for ref in segment.blocks]
        kept: list[BlockRef] = []
        place = 0
        for stretch in stretches:
            old = refs[stretch.start : stretch.stop]
            kept += refs[place : stretch.start]
            kept += self._write_blocks((self._survivors(ref, gone) for ref in old), self.usual, self.usual)
            place = stretch.stop
        kept += refs[place:]
        visit("maintain.repack")
        for segment in segments:
            self.tx.delete("segments", segment_key(self.space.id, segment.base))
        for start in range(0, len(kept), MAX_SEGMENT_BLOCKS):
            part = tuple(kept[start : start + MAX_SEGMENT_BLOCKS])
            write_segment(self.tx, self.space.id, Segment(part[0].first, part))

    def _survivors(self, ref: BlockRef, gone: Numbers) -> tuple[Vectors, Numbers, Scales, Numbers]:
        value = self.tx.get("blocks", u64(ref.id))
        assert value is not None
        block = open_block(memoryview(value), ref, self.space.id, self.space.columns, self.space.dtype)
        verify_chunks(block, range(len(block.digests)))
        ordinals = np.uint64(ref.first) + block.deltas.astype(np.uint64)
        inside = gone[
            np.searchsorted(gone, np.uint64(ref.first)) : np.searchsorted(gone, np.uint64(ref.last), side="right")
        ]
        keep = ~np.isin(ordinals, inside, assume_unique=True)
        return block.vectors[keep], block.rows[keep], block.scales[keep], ordinals[keep]

    def merge_small(self) -> bool:
        """Join runs of small neighbouring segments into one entry (no block moves); True if any was joined."""
        run: list[Segment] = []
        joined = False
        for segment in [*read_segments(self.tx, self.space.id), None]:
            fits = segment is not None and len(segment.blocks) < _SMALL_SEGMENT
            if fits and sum(len(member.blocks) for member in run) + len(segment.blocks) <= MAX_SEGMENT_BLOCKS:  # type: ignore[union-attr]
                run.append(segment)  # type: ignore[arg-type]
                continue
            joined |= self._join(run)
            run = [segment] if fits and segment is not None else []
        return joined

    def _join(self, run: list[Segment]) -> bool:
        if len(run) < _SMALL_RUN:
            return False
        for segment in run[1:]:
            self.tx.delete("segments", segment_key(self.space.id, segment.base))
        write_segment(
            self.tx, self.space.id, Segment(run[0].base, tuple(ref for segment in run for ref in segment.blocks))
        )
        return True


def _cut(held: list[tuple[Any, ...]], count: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Cut pieces of rows, none of them empty afterwards, behind the first `count` rows; nothing is copied."""
    first: list[tuple[Any, ...]] = []
    rest: list[tuple[Any, ...]] = []
    for piece in held:
        here = min(count, len(piece[1]))
        count -= here
        if here:
            first.append(tuple(part[:here] for part in piece))
        if here < len(piece[1]):
            rest.append(tuple(part[here:] for part in piece))
    return first, rest


def _joined(pieces: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return pieces[0] if len(pieces) == 1 else tuple(map(np.concatenate, zip(*pieces, strict=True)))


def drop_vectors(tx: Tx, space: Space) -> None:
    """Remove everything stored for a space."""
    prefix = u32_u64(space.id, 0)[:4]
    for segment in read_segments(tx, space.id):
        for ref in segment.blocks:
            tx.delete("blocks", u64(ref.id))
    release(tx, space.id)
    for table in ("segments", "tail", "deaths"):
        tx.delete_range(table, prefix)


def dead_in(blocks: Sequence[BlockRef], final: Numbers) -> Numbers:
    """Return those of `final` (ascending) that lie between the first and last ordinal of `blocks`."""
    return final[np.searchsorted(final, blocks[0].first) : np.searchsorted(final, blocks[-1].last, side="right")]


def joined(parts: list[Numbers]) -> Numbers:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _by_segments(segments: Sequence[Segment], stretches: Sequence[Stretch]) -> Iterator[tuple[int, int, list[Stretch]]]:
    """Yield (first, stop, stretches) of each run of segments that stretches tie together, numbered from its start."""
    ends = np.cumsum([len(segment.blocks) for segment in segments])
    first, last, inside = 0, -1, list[Stretch]()
    for stretch in stretches:
        begins, finishes = np.searchsorted(ends, [stretch.start, stretch.stop - 1], side="right").tolist()
        if begins > last:
            if inside:
                yield first, last + 1, inside
            first, inside = begins, []
        last = finishes
        before = int(ends[first]) - len(segments[first].blocks)
        inside.append(Stretch(stretch.start - before, stretch.stop - before, stretch.written))
    if inside:
        yield first, last + 1, inside
