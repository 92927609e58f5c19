"""The vectors of one space as readers see them: blocks, tail and deaths behind positions 0..n-1 in ordinal order.

A `SpaceView` belongs to one commit and never changes; the next one is derived from it by reading only what is new.
Positions are stable within an epoch (sealing the tail does not move them), so buffers are shared between views and only
ever extended behind what an older view can see. Views of the map are used under a lease only.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError, VectorMissingError
from vecdb.int8rows import dequantise
from vecdb.storage.format import (
    BLOCK_CLASSES,
    CHUNK,
    Block,
    BlockRef,
    decode_tail,
    open_block,
    pack_sealed,
    read_u64,
    stored_numbers,
    u32,
    u32_u64,
    u64,
    unpack_sealed,
    verify_chunks,
)
from vecdb.storage.history import read_deaths
from vecdb.storage.state import SpaceCounts
from vecdb.storage.tx import Tx
from vecdb.types import Space

_OFTEN = 8
"""Random accesses to a block after which checking the rest of it costs less than asking each time."""
_FEW = 64
"""Positions for each block up to which they are looked up one by one: for so few, plain Python beats arrays."""
_HABIT = 256
"""Searches of one state after which it knows the record row of every vector: eight bytes each, read once."""

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of sealed blocks; `base` (its key) is the ordinal its first block starts from."""

    base: int
    blocks: tuple[BlockRef, ...]

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)


def segment_key(space: int, base: int) -> bytes:
    return u32_u64(space, base)


def write_segment(tx: Tx, space: int, segment: Segment) -> None:
    key = segment_key(space, segment.base)
    blocks = [[block.id, block.size_class, block.rows, block.first, block.last] for block in segment.blocks]
    tx.put("segments", key, pack_sealed(key, blocks))


def read_segments(tx: Tx, space: int, start: int = 0) -> list[Segment]:
    """Return the segments from ordinal `start` on, in order."""
    prefix = u32_u64(space, 0)[:4]
    return [_segment(key, value) for key, value in tx.range("segments", prefix, segment_key(space, start))]


def _segment(key: bytes, value: Any) -> Segment:
    plain = unpack_sealed(key, value, "segment")
    try:
        blocks = tuple(_block_ref(fields) for fields in plain)
        if not blocks:
            raise ValueError("no blocks")
        return Segment(read_u64(key[4:]), blocks)
    except (TypeError, ValueError) as error:
        raise CorruptionError("a segment has a wrong shape", what="segment", where=key.hex()) from error


def _block_ref(fields: Any) -> BlockRef:
    ref = BlockRef(*stored_numbers(fields, "segment", 5))
    if ref.size_class not in BLOCK_CLASSES or not 0 < ref.rows <= min(ref.size_class, ref.last - ref.first + 1):
        raise ValueError(f"block {ref.id}")
    return ref


class BlockCache:
    """Blocks opened in this process by number (never reused), and which of their chunks were found sound."""

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}
        self.sound: set[int] = set()
        self.sound_chunks: dict[int, set[int]] = {}
        self.touched: dict[int, int] = {}

    def open(self, tx: Tx, ref: BlockRef, space: Space) -> Block:
        block = self.blocks.get(ref.id)
        if block is None:
            value = tx.get("blocks", u64(ref.id))
            if value is None:
                raise CorruptionError(f"vector block {ref.id} is missing", what="vector block", where=str(ref.id))
            block = open_block(memoryview(value), ref, space.id, space.columns, space.dtype)
            self.blocks[ref.id] = block
        return block

    def forget(self, refs: Iterable[BlockRef]) -> None:
        """Drop blocks that are no longer in the file; whoever still reads an older commit opens them again."""
        for ref in refs:
            self.blocks.pop(ref.id, None)
            self.sound.discard(ref.id)
            self.sound_chunks.pop(ref.id, None)
            self.touched.pop(ref.id, None)

    def verify(self, block: Block) -> None:
        """Check every chunk of a block once per process."""
        if block.ref.id in self.sound:
            return
        verify_chunks(block, range(len(block.digests)))
        self.sound.add(block.ref.id)
        self.sound_chunks.pop(block.ref.id, None)

    def verify_bytes(self, block: Block, start: int, stop: int) -> None:
        """Check the chunks that hold payload bytes [start, stop)."""
        if block.ref.id in self.sound:
            return
        known = self.sound_chunks.setdefault(block.ref.id, set())
        unknown = [index for index in range(start // CHUNK, -(-stop // CHUNK)) if index not in known]
        if unknown:
            verify_chunks(block, unknown)
            known.update(unknown)

    def verify_rows(self, block: Block, rows: Iterable[int]) -> None:
        """Check the chunks under the vectors of `rows`, and those under the block's side arrays."""
        if block.ref.id in self.sound:
            return
        width = block.vectors.shape[1] * block.vectors.itemsize
        for row in rows:
            self.verify_bytes(block, row * width, (row + 1) * width)
        self.verify_sides(block)

    def verify_often(self, block: Block, rows: Iterable[int]) -> None:
        """`verify_rows`, but a block that is asked for again and again is checked as a whole."""
        touched = self.touched.get(block.ref.id, 0) + 1
        self.touched[block.ref.id] = touched
        if touched < _OFTEN:
            self.verify_rows(block, rows)
        else:
            self.verify(block)
            self.touched.pop(block.ref.id, None)

    def verify_sides(self, block: Block) -> None:
        """Check the chunks under a block's record rows, scales and ordinals."""
        if block.ref.id in self.sound:
            return
        width = block.vectors.shape[1] * block.vectors.itemsize
        self.verify_bytes(block, block.ref.rows * width, min(len(block.payload), block.ref.rows * (width + 16) + 8))


class TailBuffer:
    """The unsealed rows of a space in aligned arrays; grows in place behind what earlier views see."""

    def __init__(self, start: int, space: Space, room: int) -> None:
        self.start = start
        self.count = 0
        self.lock = threading.Lock()
        self.vectors = np.empty((room, space.columns), dtype=space.dtype)
        self.rows = np.empty(room, np.uint64)
        self.scales = np.empty(room, np.float32)

    def extend(self, vectors: npt.NDArray[Any], rows: Numbers, scales: npt.NDArray[np.float32]) -> None:
        stop = self.count + len(rows)
        while stop > len(self.rows):
            self._enlarge()
        self.vectors[self.count : stop] = vectors
        self.rows[self.count : stop] = rows
        self.scales[self.count : stop] = scales
        self.count = stop

    def _enlarge(self) -> None:
        room = max(16, 2 * len(self.rows))
        for name in ("vectors", "rows", "scales"):
            old = getattr(self, name)
            new = np.empty((room, *old.shape[1:]), old.dtype)
            new[: self.count] = old[: self.count]
            setattr(self, name, new)


class SpaceView:
    """One space at one commit.

    Attributes
    ----------
    space : Space
    counts : SpaceCounts
    refs : tuple of BlockRef
    starts : ndarray of int64, shape (blocks + 1,)
        Position at which each block starts; the last is where the tail starts.
    tail : TailBuffer
    tail_count : int
    death_ordinals, death_seqs : ndarray
        Every vector that is dead but still here, and since when (0: since before the horizon).
    """

    def __init__(
        self, space: Space, counts: SpaceCounts, refs: Sequence[BlockRef], tail: TailBuffer, blocks: BlockCache
    ) -> None:
        self.space = space
        self.counts = counts
        self.refs = tuple(refs)
        self.starts: Places = np.concatenate(([0], np.cumsum([ref.rows for ref in refs], dtype=np.int64))).astype(
            np.int64
        )
        self._starts_list: list[int] = self.starts.tolist()
        self.firsts = np.array([ref.first for ref in refs], np.uint64)
        self.tail = tail
        self.tail_count = counts.next_ordinal - counts.tail_start
        self.cache = blocks
        self.death_ordinals: Numbers = np.empty(0, np.uint64)
        self.death_seqs: Numbers = np.empty(0, np.uint64)
        self._dead: Bools | None = None
        self._rows: Numbers | None = None
        self._looked_up = 0
        self._opened: list[Block] | None = None
        self._sound: Bools | None = None
        self._sound_known = -1
        self._all_sound = False
        self._lock = threading.Lock()
        self.derived: dict[str, Any] = {}
        """What the engine made of this view and wants to find again."""

    @property
    def sealed(self) -> int:
        return int(self.starts[-1])

    def __len__(self) -> int:
        return self.sealed + self.tail_count

    # --- blocks ---

    def open_blocks(self, tx: Tx) -> list[Block]:
        """Return every block, opened (headers checked, payload not yet)."""
        if self._opened is None:
            self._opened = [self.cache.open(tx, ref, self.space) for ref in self.refs]
        return self._opened

    def verify_all(self, tx: Tx) -> None:
        """Check every chunk that was not checked before in this process."""
        if self._all_sound:
            return
        sound = self.cache.sound
        for block in self.open_blocks(tx):
            if block.ref.id not in sound:
                self.cache.verify(block)
        self._all_sound = True

    @property
    def all_sound(self) -> bool:
        """Whether every vector of this view was compared with its checksums."""
        return self._all_sound

    def verify_positions(self, tx: Tx, positions: Places) -> None:
        """Check the chunks under these rows."""
        if self._all_sound:
            return
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        doubtful = positions[~self._sound_blocks()[numbers]]
        if not len(doubtful):
            return
        for block, rows in self._by_block(tx, doubtful):
            self.cache.verify_often(block, np.unique(rows).tolist())

    def _sound_blocks(self) -> Bools:
        """Return which blocks were verified as a whole, and behind them the tail, which is checked when it is read."""
        known = len(self.cache.sound)  # blocks of this view only join it
        if self._sound is None or self._sound_known != known:
            sound = self.cache.sound
            self._sound = np.array([*(ref.id in sound for ref in self.refs), True], np.bool_)
            self._sound_known = known
        return self._sound

    def _by_block(self, tx: Tx, positions: Places) -> Iterable[tuple[Block, Places]]:
        inside = positions[positions < self.sealed]
        if not len(inside):
            return
        blocks = self.open_blocks(tx)
        numbers = np.searchsorted(self.starts, inside, side="right") - 1
        for number in np.unique(numbers).tolist():
            yield blocks[number], inside[numbers == number] - self.starts[number]

    # --- positions, ordinals, record rows ---

    def ordinals_at(self, tx: Tx, positions: Places) -> Numbers:
        """Return the ordinals at `positions`."""
        out = (positions - self.sealed + self.counts.tail_start).astype(np.uint64)
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        blocks = self.open_blocks(tx)
        for number in np.unique(numbers[positions < self.sealed]).tolist():
            chosen = numbers == number
            block = blocks[number]
            self.cache.verify_sides(block)
            out[chosen] = np.uint64(block.ref.first) + block.deltas[positions[chosen] - self.starts[number]].astype(
                np.uint64
            )
        return out

    def count_before(self, tx: Tx, ordinal: int) -> int:
        """Return how many positions hold an ordinal below `ordinal`."""
        if ordinal >= self.counts.tail_start:
            return self.sealed + ordinal - self.counts.tail_start
        number = int(np.searchsorted(self.firsts, np.uint64(ordinal), side="right")) - 1
        if number < 0:
            return 0
        block = self.cache.open(tx, self.refs[number], self.space)
        self.cache.verify_sides(block)
        inside = int(np.searchsorted(block.deltas, np.uint64(ordinal - self.refs[number].first)))
        return int(self.starts[number]) + inside

    def positions_of(self, tx: Tx, ordinals: Numbers) -> Places:
        """Return where `ordinals` lie; -1 for those that are no longer here."""
        if len(ordinals) and int(ordinals.max()) >= self.counts.next_ordinal:
            raise CorruptionError(
                f"something refers to vector {int(ordinals.max())} of space {self.space.name!r}, "
                f"which has {self.counts.next_ordinal}",
                what="reference",
                where=self.space.name,
            )
        if self.sealed == self.counts.tail_start:  # nothing was ever removed: ordinals are positions
            return ordinals.astype(np.int64)
        out = ordinals.astype(np.int64) - self.counts.tail_start + self.sealed
        sealed = ordinals < np.uint64(self.counts.tail_start)
        if not sealed.any():
            return out
        out[sealed] = -1
        numbers = np.searchsorted(self.firsts, ordinals, side="right") - 1
        for number in np.unique(numbers[sealed & (numbers >= 0)]).tolist():
            chosen = sealed & (numbers == number)
            out[chosen] = self._places_in(tx, number, ordinals[chosen])
        return out

    def _places_in(self, tx: Tx, number: int, ordinals: Numbers) -> Places:
        ref = self.refs[number]
        offsets = ordinals - np.uint64(ref.first)
        if ref.last - ref.first + 1 == ref.rows:
            return np.where(offsets < ref.rows, offsets.astype(np.int64) + self.starts[number], -1)
        block = self.cache.open(tx, ref, self.space)
        self.cache.verify_sides(block)
        places = np.minimum(np.searchsorted(block.deltas, offsets), ref.rows - 1)
        return np.where(block.deltas[places] == offsets, places + self.starts[number], -1)

    def rows(self, tx: Tx) -> Numbers:
        """Return the record row of each position, shape (n,)."""
        with self._lock:
            if self._rows is None:
                blocks = self.open_blocks(tx)
                for block in blocks:
                    self.cache.verify_sides(block)
                self._rows = np.concatenate([*(block.rows for block in blocks), self.tail.rows[: self.tail_count]])
            return self._rows

    def rows_at(self, tx: Tx, positions: Places) -> Numbers:
        """Return the record rows at `positions`."""
        if self._rows is not None:
            return self._rows[positions]
        out = np.empty(len(positions), np.uint64)
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        in_tail = positions >= self.sealed
        out[in_tail] = self.tail.rows[positions[in_tail] - self.sealed]
        blocks = self.open_blocks(tx)
        for number in np.unique(numbers[~in_tail]).tolist():
            chosen = ~in_tail & (numbers == number)
            self.cache.verify_sides(blocks[number])
            out[chosen] = blocks[number].rows[positions[chosen] - self.starts[number]]
        return out

    def row_list(self, tx: Tx, positions: Places) -> list[int]:
        """Return the record rows at `positions`, quickly where there are few: what a search asks."""
        self._looked_up += 1
        if self._looked_up == _HABIT:
            self.rows(tx)
        if self._rows is not None or len(positions) > _FEW * (len(self.refs) + 1):
            found: list[int] = self.rows_at(tx, positions).tolist()
            return found
        starts, sealed, blocks = self._starts_list, self._starts_list[-1], self.open_blocks(tx)
        sound, rows = self.cache.sound, []
        for position in positions.tolist():
            if position >= sealed:
                rows.append(self.tail.rows.item(position - sealed))
                continue
            number = bisect_right(starts, position) - 1
            block = blocks[number]
            if block.ref.id not in sound:
                self.cache.verify_sides(block)
            rows.append(block.rows.item(position - starts[number]))
        return rows

    # --- life and death ---

    def dead(self, tx: Tx) -> Bools | None:
        """Return which positions are dead now, None if none is."""
        if not len(self.death_ordinals):
            return None
        with self._lock:
            if self._dead is None:
                self._dead = self._mark(tx, self.death_ordinals)
            return self._dead

    def dead_as_of(self, tx: Tx, seq: int) -> Bools | None:
        """Return which positions were dead at `seq` (births after it are cut off by the caller)."""
        ordinals = self.death_ordinals[self.death_seqs <= np.uint64(seq)]
        return self._mark(tx, ordinals) if len(ordinals) else None

    def _mark(self, tx: Tx, ordinals: Numbers) -> Bools:
        mask = np.zeros(len(self), np.bool_)
        places = self.positions_of(tx, ordinals)
        mask[places[places >= 0]] = True
        return mask

    # --- vectors ---

    def gather(self, tx: Tx, positions: Places) -> npt.NDArray[Any]:
        """Return copies of the vectors at `positions`, verified, shape (c, dim), of the type the space returns."""
        out = np.empty((len(positions), self.space.columns), self.space.dtype)
        in_tail = positions >= self.sealed
        out[in_tail] = self.tail.vectors[positions[in_tail] - self.sealed]
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        blocks = self.open_blocks(tx)
        for number in np.unique(numbers[~in_tail]).tolist():
            chosen = ~in_tail & (numbers == number)
            rows = positions[chosen] - self.starts[number]
            self.cache.verify_rows(blocks[number], rows.tolist())
            out[chosen] = blocks[number].vectors[rows]
        return dequantise(out, self.space.dim) if self.space.dtype == "int8" else out

    def vectors_of(self, tx: Tx, ordinals: Sequence[int]) -> npt.NDArray[Any]:
        """Return the vectors with these ordinals."""
        places = self.positions_of(tx, np.array(ordinals, np.uint64))
        if len(places) and int(places.min()) < 0:
            raise VectorMissingError(
                f"a vector of space {self.space.name!r} was already removed", space=self.space.name
            )
        return self.gather(tx, places)


# --- building views ---------------------------------------------------------------------------------------


def load_view(
    tx: Tx, space: Space, counts: SpaceCounts, previous: SpaceView | None, blocks: BlockCache, room: int
) -> SpaceView:
    """Return the view of `space` at this transaction's commit, reusing what `previous` already read."""
    older = previous
    if previous is None or previous.counts.epoch != counts.epoch or previous.counts.next_ordinal > counts.next_ordinal:
        previous = None
    if previous is not None and previous.counts == counts:
        return previous
    known = previous.refs if previous is not None else ()
    start = previous.counts.tail_start if previous is not None else 0
    new = (
        [block for segment in read_segments(tx, space.id, start) for block in segment.blocks]
        if counts.tail_start > start
        else []
    )
    _check_refs(space, counts, (*known[-1:], *new))
    tail = _load_tail(tx, space, counts, previous, room)
    view = SpaceView(space, counts, (*known, *new), tail, blocks)
    if view.sealed + view.tail_count < counts.live:
        raise CorruptionError(
            f"space {space.name!r} has fewer vectors than its counts say", what="space", where=space.name
        )
    _load_deaths(tx, view, previous)
    if older is not None and previous is None:
        blocks.forget(set(older.refs) - set(view.refs))
    return view


def _check_refs(space: Space, counts: SpaceCounts, refs: Sequence[BlockRef]) -> None:
    """Blocks must follow each other without an overlap and end before the tail."""
    end = 0
    for ref in refs:
        if ref.first < end or ref.last >= counts.tail_start:
            raise CorruptionError(
                f"vector block {ref.id} of space {space.name!r} overlaps what lies beside it",
                what="segment",
                where=space.name,
            )
        end = ref.last + 1


def _load_tail(tx: Tx, space: Space, counts: SpaceCounts, previous: SpaceView | None, room: int) -> TailBuffer:
    if previous is not None and previous.tail.start == counts.tail_start:
        with previous.tail.lock:  # two readers of different commits may start from the same view
            if previous.tail.count == previous.tail_count:
                return _extend_tail(tx, space, counts, previous.tail)
    fresh = TailBuffer(counts.tail_start, space, min(room, max(16, counts.next_ordinal - counts.tail_start)))
    return _extend_tail(tx, space, counts, fresh)


def _extend_tail(tx: Tx, space: Space, counts: SpaceCounts, tail: TailBuffer) -> TailBuffer:
    prefix = u32_u64(space.id, 0)[:4]
    for key, value in tx.range("tail", prefix, u32_u64(space.id, tail.start + tail.count)):
        if read_u64(key[4:]) != tail.start + tail.count:
            raise CorruptionError(f"the tail of space {space.name!r} has a gap", what="tail chunk", where=key.hex())
        tail.extend(*decode_tail(key, value, space.columns, space.dtype))
    if tail.start + tail.count != counts.next_ordinal:
        raise CorruptionError(f"the tail of space {space.name!r} ends too early", what="tail chunk", where=space.name)
    return tail


def _load_deaths(tx: Tx, view: SpaceView, previous: SpaceView | None) -> None:
    """Read the deaths that `previous` does not know; within an epoch they only ever grow at the end."""
    last = int(previous.death_seqs.max(initial=0)) if previous is not None else -1
    entries = read_deaths(tx, view.space.id, last)
    if previous is not None:
        view.death_ordinals, view.death_seqs = previous.death_ordinals, previous.death_seqs
    if previous is not None and previous._dead is not None:
        view._dead = np.concatenate([previous._dead, np.zeros(len(view) - len(previous), np.bool_)])
    if not entries:
        return
    new = np.concatenate([ordinals for _, ordinals in entries])
    view.death_ordinals = np.concatenate([view.death_ordinals, new])
    view.death_seqs = np.concatenate(
        [view.death_seqs, *(np.full(len(found), seq, np.uint64) for seq, found in entries)]
    )
    if view._dead is not None:
        places = view.positions_of(tx, new)
        view._dead[places[places >= 0]] = True


def profile_key(space: Space) -> bytes:
    return b"p" + u32(space.id)


def read_profile(tx: Tx, space: Space) -> Any:
    """Return the stored profile of a space, None if there is none."""
    key = profile_key(space)
    value = tx.get("meta", key)
    return None if value is None else unpack_sealed(key, value, "profile")
