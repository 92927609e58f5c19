"""Spare blocks: emptied by repacking, but kept until shortly before a new block needs their place.

LMDB hands out the pages that were freed longest ago first, one by one, and looks for a run only when a value asks for
several. A block that is deleted at once is therefore cut up by small commits before the next block wants its run, and
that one lengthens the file. Blocks that stay in the file until a few commits before they are needed keep their runs.
Key of ``meta``: ``f`` + space -> [number, class] of each, oldest first. Invariant: no segment names a spare block.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vecdb.errors import CorruptionError
from vecdb.storage.format import (
    BLOCK_CLASSES,
    BlockRef,
    pack_sealed,
    stored_numbers,
    u32,
    u64,
    unpack_sealed,
)
from vecdb.storage.tx import Tx

SPARE: Final = b"f"


def spare_key(space: int) -> bytes:
    return SPARE + u32(space)


def read_spare(tx: Tx, space: int) -> list[tuple[int, int]]:
    """Return (number, class) of each spare block of a space."""
    key = spare_key(space)
    value = tx.get("meta", key)
    if value is None:
        return []
    plain = unpack_sealed(key, value, "spare blocks")
    if not isinstance(plain, list):
        raise CorruptionError("a list of spare blocks has a wrong shape", what="spare blocks", where=key.hex())
    pairs = [stored_numbers(pair, "spare blocks", 2) for pair in plain]
    if any(size_class not in BLOCK_CLASSES for _, size_class in pairs):
        raise CorruptionError("a spare block has an unknown class", what="spare blocks", where=key.hex())
    return [(number, size_class) for number, size_class in pairs]


def _write_spare(tx: Tx, space: int, pairs: list[tuple[int, int]]) -> None:
    key = spare_key(space)
    if pairs:
        tx.put("meta", key, pack_sealed(key, [list(pair) for pair in pairs]))
    else:
        tx.delete("meta", key)


def retire(tx: Tx, space: int, refs: Iterable[BlockRef], most: int) -> None:
    """Keep blocks that hold nothing any more as spare, up to `most` bytes of them altogether; delete the others."""
    pairs = read_spare(tx, space)
    kept = sum(size_class for _, size_class in pairs)
    for ref in refs:
        if kept + ref.size_class <= most:
            kept += ref.size_class
            pairs.append((ref.id, ref.size_class))
        else:
            tx.delete("blocks", u64(ref.id))
    _write_spare(tx, space, pairs)


def release(tx: Tx, space: int, wanted: int | None = None, size_class: int | None = None) -> bool:
    """Delete spare blocks, large ones first, until their pages make `wanted` bytes; True if there was one.

    None for `wanted` means all, a `size_class` only those of that class.
    """
    pairs = read_spare(tx, space)
    left, freed = list(pairs), 0
    for pair in sorted(pairs, key=lambda pair: -pair[1]):
        if size_class in (None, pair[1]) and (wanted is None or freed < wanted):
            left.remove(pair)
            freed += pair[1]
            tx.delete("blocks", u64(pair[0]))
    if freed:
        _write_spare(tx, space, left)
    return freed > 0
