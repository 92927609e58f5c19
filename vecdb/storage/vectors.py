"""Writing vectors: append to the tail, seal it into blocks, repack blocks that hold too many dead.

Ordinals are handed out in order and never reused; blocks are written once, under numbers that are never reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
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
    verify_chunk,
)
from vecdb.storage.spaces import Segment, read_segments, segment_key, write_segment
from vecdb.storage.tx import Tx
from vecdb.types import Space

MAX_SEGMENT_BLOCKS: Final = 64
WRITTEN_SEGMENT_BLOCKS: Final = 16
"""Blocks in a segment as first written: bounds what one repacking has to move."""
_SMALL_SEGMENT: Final = 8
_SMALL_RUN: Final = 8

Vectors = npt.NDArray[Any]
Numbers = npt.NDArray[np.uint64]
Scales = npt.NDArray[np.float32]


def row_bytes(space: Space) -> int:
    return space.dim * np.dtype(space.dtype).itemsize


class VectorWriter:
    """Appends vectors to one space within a write transaction."""

    def __init__(self, tx: Tx, space: Space, new_block: Callable[[], int]) -> None:
        self.tx = tx
        self.space = space
        self._new_block = new_block
        self._capacity = max(1, block_capacity(BLOCK_CLASSES[-1], row_bytes(space)))

    def append(self, vectors: Vectors, rows: Numbers, scales: Scales, *, next_ordinal: int, tail_start: int) -> int:
        """Append in order, sealing whole blocks; return the new start of the tail."""
        waiting = next_ordinal - tail_start
        if waiting + len(rows) < self._capacity:
            self._put_tail(next_ordinal, vectors, rows, scales)
            return tail_start
        if waiting:
            old = self.read_tail(tail_start, next_ordinal)
            vectors = np.concatenate([old[0], vectors])
            rows, scales = np.concatenate([old[1], rows]), np.concatenate([old[2], scales])
            self._drop_tail()
        whole = len(rows) // self._capacity * self._capacity
        self._seal(
            vectors[:whole], rows[:whole], scales[:whole], np.arange(tail_start, tail_start + whole, dtype=np.uint64)
        )
        if whole < len(rows):
            self._put_tail(tail_start + whole, vectors[whole:], rows[whole:], scales[whole:])
        return tail_start + whole

    def _put_tail(self, first: int, vectors: Vectors, rows: Numbers, scales: Scales) -> None:
        if len(rows):
            key = u32_u64(self.space.id, first)
            self.tx.put("tail", key, encode_tail(key, vectors, rows, scales))

    def read_tail(self, start: int, stop: int) -> tuple[Vectors, Numbers, Scales]:
        """Return the rows of the tail, ordinals `start` to `stop`."""
        chunks = [
            decode_tail(key, value, self.space.dim, self.space.dtype)
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
            self._seal(vectors, rows, scales, np.arange(tail_start, next_ordinal, dtype=np.uint64))
        return next_ordinal

    def _seal(self, vectors: Vectors, rows: Numbers, scales: Scales, ordinals: Numbers) -> None:
        visit("seal.before")
        blocks = self.write_blocks([(vectors, rows, scales, ordinals)])
        for start in range(0, len(blocks), WRITTEN_SEGMENT_BLOCKS):
            part = tuple(blocks[start : start + WRITTEN_SEGMENT_BLOCKS])
            write_segment(self.tx, self.space.id, Segment(part[0].first, part))
            visit("seal.half")

    def write_blocks(self, pieces: Iterable[tuple[Vectors, Numbers, Scales, Numbers]]) -> list[BlockRef]:
        """Write pieces of (vectors, rows, scales, ordinals) as full blocks, the last in the smallest class."""
        refs: list[BlockRef] = []
        held: list[tuple[Any, ...]] = []
        waiting = 0
        for piece in pieces:
            held.append(piece)
            waiting += len(piece[1])
            while waiting >= self._capacity:
                full, held = self._split(held, self._capacity)
                refs.append(self._write_block(*full))
                waiting -= self._capacity
        if waiting:
            full, _ = self._split(held, waiting)
            refs.append(self._write_block(*full))
        return refs

    @staticmethod
    def _split(held: list[tuple[Any, ...]], count: int) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
        joined = (
            held[0] if len(held) == 1 else tuple(np.concatenate([piece[part] for piece in held]) for part in range(4))
        )
        rest = tuple(part[count:] for part in joined)
        return tuple(part[:count] for part in joined), [rest] if len(rest[1]) else []

    def _write_block(self, vectors: Vectors, rows: Numbers, scales: Scales, ordinals: Numbers) -> BlockRef:
        size_class = smallest_class(len(rows), row_bytes(self.space))
        ref = BlockRef(self._new_block(), size_class, len(rows), int(ordinals[0]), int(ordinals[-1]))
        self.tx.put(
            "blocks", u64(ref.id), encode_block(ref, self.space.id, vectors, rows, scales, ordinals), append=True
        )
        return ref

    # --- repacking ---

    def repack(self, segments: list[Segment], gone: Numbers) -> None:
        """Rewrite neighbouring segments as one run without the ordinals in `gone` (sorted)."""
        for segment in segments:
            self.tx.delete("segments", segment_key(self.space.id, segment.base))
        refs = self.write_blocks(self._survivors(ref, gone) for segment in segments for ref in segment.blocks)
        for segment in segments:
            for ref in segment.blocks:
                self.tx.delete("blocks", u64(ref.id))
            visit("maintain.repack")
        for start in range(0, len(refs), WRITTEN_SEGMENT_BLOCKS):
            part = tuple(refs[start : start + WRITTEN_SEGMENT_BLOCKS])
            write_segment(self.tx, self.space.id, Segment(part[0].first, part))

    def repack_blocks(self, segment: Segment, places: Sequence[int], gone: Numbers) -> None:
        """Rewrite the blocks at `places` of a segment without the ordinals in `gone`; the others stay as they are."""
        blocks: list[BlockRef] = []
        for chosen, run in groupby(range(len(segment.blocks)), key=set(places).__contains__):
            refs = [segment.blocks[place] for place in run]
            blocks += self.write_blocks(self._survivors(ref, gone) for ref in refs) if chosen else refs
        for place in places:
            self.tx.delete("blocks", u64(segment.blocks[place].id))
        visit("maintain.repack")
        if blocks:
            write_segment(self.tx, self.space.id, Segment(segment.base, tuple(blocks)))
        else:
            self.tx.delete("segments", segment_key(self.space.id, segment.base))

    def _survivors(self, ref: BlockRef, gone: Numbers) -> tuple[Vectors, Numbers, Scales, Numbers]:
        value = self.tx.get("blocks", u64(ref.id))
        assert value is not None
        block = open_block(memoryview(value), ref, self.space.id, self.space.dim, self.space.dtype)
        for index in range(len(block.digests)):
            verify_chunk(block, index)
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


def drop_vectors(tx: Tx, space: Space) -> None:
    """Remove everything stored for a space."""
    prefix = u32_u64(space.id, 0)[:4]
    for segment in read_segments(tx, space.id):
        for ref in segment.blocks:
            tx.delete("blocks", u64(ref.id))
    for table in ("segments", "tail", "deaths"):
        tx.delete_range(table, prefix)
