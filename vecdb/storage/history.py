"""What was before: pre-images of changed records, deaths of vectors, and how far back one can read.

Keys of ``history``: ``c`` + collection + seq -> what the commit changed and the counts before it;
``r`` + collection + row + seq -> the record's bytes before that commit. Keys of ``deaths``: space + seq -> the ordinals
that died in it; seq 0 holds those that died at or before the horizon. A read at seq S takes the current state and
undoes every commit after S, so nothing at or before the horizon is ever needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError
from vecdb.storage.format import (
    pack_numbers,
    pack_sealed,
    read_u64,
    seal,
    stored_numbers,
    u32_u64,
    u64,
    unpack_numbers,
    unpack_sealed,
    unseal,
)
from vecdb.storage.state import CollectionState
from vecdb.storage.tx import Tx


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit did to one collection."""

    seq: int
    next_row: int
    live: int
    spaces: Mapping[int, tuple[int, int]]
    """Space -> (next ordinal, live) before the commit."""
    rows: npt.NDArray[np.uint64]
    """Rows whose record existed before and was changed or deleted."""
    cost: int


def change_key(collection: int, seq: int) -> bytes:
    return b"c" + u32_u64(collection, seq)


def image_key(collection: int, row: int, seq: int) -> bytes:
    return b"r" + u32_u64(collection, row) + u64(seq)


def write_change(tx: Tx, collection: int, seq: int, before: CollectionState, rows: Sequence[int], cost: int) -> None:
    """Store the counts before commit `seq` and the rows it changed."""
    spaces = [[number, counts.next_ordinal, counts.live] for number, counts in before.spaces.items()]
    key = change_key(collection, seq)
    tx.put("history", key, pack_sealed(key, [before.next_row, before.live, spaces, pack_numbers(sorted(rows)), cost]))


def read_change(key: bytes, value: Any) -> Change:
    plain = unpack_sealed(key, value, "history entry")
    try:
        next_row, live, spaces, rows, cost = plain
        counts = {number: (born, alive) for number, born, alive in (stored_numbers(each, "history") for each in spaces)}
        stored_numbers([next_row, live, cost], "history")
        return Change(read_u64(key[5:]), next_row, live, counts, unpack_numbers(rows, "history entry"), cost)
    except (TypeError, ValueError) as error:
        raise CorruptionError(f"a history entry has a wrong shape: {error}", what="history") from error


def changes_after(tx: Tx, collection: int, seq: int) -> list[Change]:
    """Return what each commit after `seq` changed, oldest first."""
    prefix = change_key(collection, 0)[:5]
    return [read_change(key, value) for key, value in tx.range("history", prefix, change_key(collection, seq + 1))]


def write_image(tx: Tx, collection: int, row: int, seq: int, value: bytes) -> int:
    """Keep a record's stored bytes as they were before commit `seq`; the first image of a commit wins."""
    key = image_key(collection, row, seq)
    if tx.get("history", key) is not None:
        return 0
    tx.put("history", key, seal(key, value))
    return len(value) + 48


def read_image(tx: Tx, collection: int, row: int, seq: int) -> bytes:
    """Return the record's stored bytes from before commit `seq`."""
    key = image_key(collection, row, seq)
    value = tx.get("history", key)
    if value is None:
        raise CorruptionError(f"the history of row {row} is missing", what="history", where=key.hex())
    return bytes(unseal(key, value, "history image"))


def images_of(tx: Tx, collection: int, row: int) -> list[tuple[int, bytes]]:
    """Return (seq, bytes before it) for each kept change of a row, oldest first."""
    prefix = b"r" + u32_u64(collection, row)
    return [
        (read_u64(key[13:]), bytes(unseal(key, value, "history image"))) for key, value in tx.range("history", prefix)
    ]


# --- deaths -----------------------------------------------------------------------------------------------


def write_deaths(tx: Tx, space: int, seq: int, ordinals: npt.NDArray[np.uint64]) -> None:
    """Record that `ordinals` died in commit `seq`, in addition to what it recorded before."""
    key = u32_u64(space, seq)
    value = tx.get("deaths", key)
    known = unpack_numbers(unseal(key, value, "deaths"), "deaths") if value is not None else np.empty(0, np.uint64)
    tx.put("deaths", key, seal(key, pack_numbers(np.union1d(known, ordinals))))


def read_deaths(tx: Tx, space: int, after: int = -1) -> list[tuple[int, npt.NDArray[np.uint64]]]:
    """Return (seq, ordinals) of the deaths after `after`, oldest first; seq 0 stands for "before the horizon"."""
    prefix = u32_u64(space, 0)[:4]
    return [
        (read_u64(key[4:]), unpack_numbers(unseal(key, value, "deaths"), "deaths"))
        for key, value in tx.range("deaths", prefix, u32_u64(space, after + 1))
    ]


def settle_deaths(tx: Tx, space: int, horizon: int, gone: npt.NDArray[np.uint64] | None = None) -> int:
    """Fold the deaths at or before `horizon` into one entry, without those in `gone`; return how many remain."""
    old = [ordinals for seq, ordinals in read_deaths(tx, space) if seq <= horizon]
    merged = np.unique(np.concatenate(old)) if old else np.empty(0, np.uint64)
    if gone is not None:
        merged = np.setdiff1d(merged, gone, assume_unique=False)
    tx.delete_range("deaths", u32_u64(space, 0)[:4], u32_u64(space, horizon + 1))
    if len(merged):
        key = u32_u64(space, 0)
        tx.put("deaths", key, seal(key, pack_numbers(merged)))
    return len(merged)


# --- forgetting -------------------------------------------------------------------------------------------


def forget_commit(tx: Tx, collection: int, seq: int) -> int:
    """Drop the images of one commit, which only reads before it needed; return what keeping them cost."""
    key = change_key(collection, seq)
    value = tx.get("history", key)
    if value is None:
        return 0
    change = read_change(key, value)
    for row in change.rows.tolist():
        tx.delete("history", image_key(collection, row, seq))
    tx.delete("history", key)
    return change.cost


def forget_collection(tx: Tx, collection: int) -> int:
    """Drop all history of a collection; return what keeping it cost."""
    cost = sum(read_change(key, value).cost for key, value in tx.range("history", b"c" + u32_u64(collection, 0)[:4]))
    for letter in (b"c", b"r"):
        tx.delete_range("history", letter + u32_u64(collection, 0)[:4])
    return cost
