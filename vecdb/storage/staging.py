"""Sets of blobs that are stored ahead of the commit that names them, in several small commits.

LMDB keeps what a transaction writes in memory until it commits, so a set that is as large as the vectors would take as
much again. It is *staged* instead: its pieces go into commits of their own, and the commit that names the set only adds
it to the catalog. Whoever stages holds the writer lock from the first piece to that commit; so a mark that a writer
finds when it begins was left by one that died or gave up, and the pieces go with what it commits. Invariant: at most
one set is staged, and ``meta`` names it from before its first piece until the catalog does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from vecdb.storage.blobs import BlobData, Piece, drop_blobs, pieces_of
from vecdb.storage.failpoints import visit
from vecdb.storage.format import pack_sealed, stored_numbers, unpack_sealed
from vecdb.storage.tx import Tx

if TYPE_CHECKING:
    from vecdb.storage.writetx import WriteTx

STAGED: Final = b"staged"
STEP_BYTES: Final = 32 << 20
"""Bytes that one commit stores, about; a smaller set is stored in the commit that names it."""
_SET: Final = 8

Maintain = Callable[[Callable[["WriteTx"], bool]], bool]


def staged_set(tx: Tx) -> int:
    """Return the number of the set that is staged, 0 if there is none."""
    value = tx.get("meta", STAGED)
    return 0 if value is None else stored_numbers([unpack_sealed(STAGED, value, "staged set")], "staged set")[0]


def staged_pieces(tx: Tx) -> int:
    """Return how many pieces of the staged set are stored."""
    number = staged_set(tx)
    return len(tx.keys("blobs", number.to_bytes(_SET, "big"))) if number else 0


def is_large(blobs: Sequence[BlobData]) -> bool:
    """Whether a set is to be staged."""
    return sum(len(blob.data) for blob in blobs) > STEP_BYTES


def claim(maintain: Maintain) -> int:
    """Commit the mark of a new set; return its number."""
    numbers: list[int] = []

    def mark(write: WriteTx) -> bool:
        numbers[:] = [write.take_set()]
        write.tx.put("meta", STAGED, pack_sealed(STAGED, numbers[0]))
        return True

    maintain(mark)
    return numbers[0]


def store(maintain: Maintain, number: int, blobs: Sequence[BlobData], check: Callable[[], object]) -> None:
    """Commit the pieces of the claimed set, a few at a time; `check` is called before each step and may raise."""
    for step in _steps(pieces_of(number, blobs)):
        check()
        maintain(lambda write, step=step: _put(write, step))  # type: ignore[misc]
        visit("index.staged")


def _put(write: WriteTx, step: list[Piece]) -> bool:
    for piece in step:
        piece.put(write.tx)
    return True


def _steps(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    for first in pieces:
        step, size = [first], first.size
        while size < STEP_BYTES and (more := next(pieces, None)) is not None:
            step.append(more)
            size += more.size
        yield step


def settle(tx: Tx) -> None:
    """Take the mark away: the catalog names the set with this commit."""
    tx.delete("meta", STAGED)


def sweep(tx: Tx, living: int) -> bool:
    """Remove what somebody staged and never named; `living` is the set that is being staged, 0 for none."""
    number = staged_set(tx)
    if number in (0, living):
        return False
    drop_blobs(tx, number)
    settle(tx)
    return True
