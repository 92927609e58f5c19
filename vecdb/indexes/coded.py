"""What `rabitq` and `ivf` have in common: vectors coded and put into lists, and the two steps of nominating.

A scan of 1-bit codes finds the best of many rows; where there are codes of more bits, these put what was found in a
better order, of which fewer have to be scored exactly. Invariant: an index over `count` vectors has a code of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.index import Candidates, Prepared, VectorView
from vecdb.contracts.params import Param
from vecdb.contracts.rows import MappedRows
from vecdb.errors import CancelledError, CorruptionError
from vecdb.indexes.codes import CodeBook, Sketch, read_book, sketch, write_book
from vecdb.indexes.fine import BITS, Fine, fine_rows, read_fine, write_fine
from vecdb.indexes.lists import Lists, Spread, bits_of, join_lists, list_traits, read_lists, write_lists
from vecdb.types import CancelCheck, Progress

__all__ = ["BITS_PARAM", "Coded", "Watcher", "encode_view", "read_coded", "write_coded"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_PIECE: Final = 8_192
_FAR: Final = 1e18
BITS_PARAM: Final = Param(
    "int",
    1,
    "Bits a coordinate of codes that order what a scan of one bit finds; 1 keeps none, more score fewer rows exactly.",
    low=1,
    choices=BITS,
)


@dataclass(frozen=True, slots=True)
class Coded:
    """Vectors as codes in lists.

    Attributes
    ----------
    book : CodeBook
        A cell of it is a list.
    lengths : ndarray of float32, shape (lists,)
        Root mean square distance of the members of a list from its centre.
    traits : ndarray of float32, shape (3, lists)
        What follows from them for the order of lists.
    lists : Lists
    fine : Fine or None
        Codes of more bits.
    """

    book: CodeBook
    lengths: F32
    traits: F32
    lists: Lists
    fine: Fine | None

    @property
    def count(self) -> int:
        return self.lists.count

    @property
    def bits(self) -> int:
        return 1 if self.fine is None else self.fine.bits

    @property
    def nbytes(self) -> int:
        """Bytes of all codes."""
        return self.lists.blocks.nbytes + (0 if self.fine is None else self.fine.rows.nbytes)

    def nominate(
        self, queries: F32, allowed: npt.NDArray[np.bool_] | None, rows: int, most: int, kept: int
    ) -> tuple[I64, F32, F32]:
        """Return the `kept` best by fine codes of the `most` best by 1-bit codes, of so many rows of the nearest lists.

        Without fine codes all `most` are returned. Needs the compiled kernels.

        Returns
        -------
        positions : ndarray of int64, shape (q, kept or most)
        scores : ndarray of float32, of the same shape
        nearness : ndarray of float32, shape (q, lists)
        """
        from vecdb.kernels import code_queries, code_refine, list_scan  # numba is loaded by now, never by an import

        book, blocks, fine = self.book, self.lists.blocks, self.fine
        self.lists.prove()
        if fine is not None:
            fine.prove(len(self.lengths))
        ready = code_queries.prepared(
            queries, book.mean, book.centres, self.traits, book.signs, squared=book.metric == "l2", ordered=True
        )
        found = list_scan.nominate(ready, blocks.table, blocks.shift, self.lists.starts, allowed, rows, most)
        if fine is not None:
            found = code_refine.refined(ready, fine.rows.table, fine.rows.shift, fine.bits, found[0], min(kept, most))
        return *found, ready.nearness

    def asking(self, allowed: npt.NDArray[np.bool_] | None, rows: int, most: int, kept: int) -> Prepared:
        """Return `nominate` with everything but the queries settled."""
        return lambda queries: Candidates(*self.nominate(queries, allowed, rows, most, kept)[:2])


class Watcher(Protocol):
    """Looks at vectors while they are encoded."""

    def see(self, first: int, rows: F32, made: Sketch) -> None:
        """Take in vectors, float32 (n, dim), that begin at position `first`, and their codes."""
        ...


def encode_view(
    book: CodeBook,
    view: VectorView,
    bits: int,
    watchers: Sequence[Watcher],
    progress: Progress = lambda done, total: None,
    cancel: CancelCheck = lambda: False,
    lengths: F32 | None = None,
) -> Coded:
    """Encode a view piece by piece; without `lengths` they are taken from these vectors.

    Raises
    ------
    CancelledError
        `cancel` said so.
    """
    parts, spread = [], Spread.of(len(book.centres))
    fine = None if bits == 1 else np.empty((view.count, book.width * bits // 8 + 16), np.uint8)
    for start in range(0, view.count, _PIECE):
        if cancel():
            raise CancelledError("building an index was cancelled")
        stop = min(view.count, start + _PIECE)
        rows = view.gather(np.arange(start, stop))
        made = sketch(book, rows)
        spread.see(made)
        parts.append((made.cells, bits_of(made), made.factors))
        if fine is not None:
            fine[start:stop] = fine_rows(book, made, bits)
        for watcher in watchers:
            watcher.see(start, rows, made)
        progress(stop, view.count)
    lists = join_lists(parts, len(book.centres))
    lengths = spread.lengths() if lengths is None else lengths
    kept = None if fine is None else Fine(MappedRows.of(fine), bits)
    return Coded(book, lengths, list_traits(book, lengths), lists, kept)


def write_coded(blobs: BlobWriter, coded: Coded) -> None:
    """Store everything but the numbers that `read_coded` is given."""
    write_book(blobs, coded.book)
    blobs.write("lengths", coded.lengths)
    write_lists(blobs, coded.lists)
    write_fine(blobs, coded.fine)


def read_coded(blobs: BlobReader, view: VectorView, lists: int, bits: int) -> Coded:
    """Return what `write_coded` stored for the vectors of `view`; codes stay where they lie.

    Raises
    ------
    CorruptionError
        If it is anything else.
    """
    if bits not in BITS or lists < 1:
        raise CorruptionError("the codes of an index are of another form or number", what="index blob", where="head")
    book = read_book(blobs, view.metric, view.dim, lists)
    lengths = blobs.array("lengths", "<f4", (lists,))
    if not ((lengths >= 0) & (lengths < _FAR)).all():
        raise CorruptionError("the numbers of an index are impossible", what="index blob", where="lengths")
    made = read_lists(blobs, book.width, lists, view.count)
    return Coded(book, lengths, list_traits(book, lengths), made, read_fine(blobs, book.width, view.count, bits))
