"""Codes that lie list by list: which list a vector is in, the blocks of a list, and the order lists are looked at in.

A list holds the vectors nearest to its centre. Lists follow each other without gaps, by list and then by position, and
are cut into blocks of 32 rows, each one stored row: ``width * 4`` bytes of codes (see `vecdb.indexes.codes.Codes`), 32
offsets and 32 slopes as float32, and 32 positions as int32, -1 behind the last row. Lists are looked at in the order
of the score that a good member of theirs would have: with c the centre, rho the root mean square of the residuals of a
list, and three standard deviations of the product of a random direction with the query,

======  ==========================================================
metric  nearness
======  ==========================================================
dot     ``<c, q> + 3 rho |q| / sqrt(dim)``
l2      ``-|q - c|**2 + 6 rho |q - c| / sqrt(dim) - rho**2``
======  ==========================================================

and a cosine is the dot product of vectors of length one. Invariant: what is decoded is checked against the number and
width of the vectors before anything follows it, the blocks themselves when they are first searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.rows import MappedRows
from vecdb.errors import CorruptionError
from vecdb.indexes.codes import BLOCK, CodeBook, Sketch, pack_signs

__all__ = ["Lists", "Spread", "join_lists", "read_lists", "write_lists"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_FACTOR_BYTES: Final = 4 * BLOCK
_STRIP: Final = 256
"""Blocks packed at once."""
_DEVIATIONS: Final = 3.0


@dataclass(slots=True)
class Spread:
    """How far the members of each list are from its centre.

    Attributes
    ----------
    sums : ndarray of float64, shape (lists,)
        Squared lengths of residuals.
    counts : ndarray of int64, shape (lists,)
    """

    sums: npt.NDArray[np.float64]
    counts: I64

    @classmethod
    def of(cls, lists: int) -> Spread:
        return cls(np.zeros(lists), np.zeros(lists, np.int64))

    def see(self, made: Sketch) -> None:
        """Take in some vectors."""
        lists = len(self.counts)
        squares = np.einsum("ij,ij->i", made.turned, made.turned, dtype=np.float64)
        self.sums += np.bincount(made.cells, squares, lists)
        self.counts += np.bincount(made.cells, minlength=lists)

    def lengths(self) -> F32:
        """Return the root mean square residual of each list; that of all for a list without members."""
        mean = self.sums.sum() / max(1, self.counts.sum())
        squares = np.divide(self.sums, self.counts, out=np.full(len(self.sums), mean), where=self.counts > 0)
        lengths: F32 = np.sqrt(squares).astype(np.float32)
        return lengths


def list_traits(book: CodeBook, lengths: F32) -> F32:
    """Return squared length, spread and drop of each list, float32 of shape (3, lists); see the table above."""
    spreads = np.float32(_DEVIATIONS / np.sqrt(book.dim)) * lengths
    if book.metric != "l2":
        return np.stack([np.zeros_like(lengths), spreads, np.zeros_like(lengths)])
    squares = np.einsum("ij,ij->i", book.centres, book.centres)
    return np.stack([squares, 2 * spreads, lengths**2])


def chained(centres: F32) -> F32:
    """Return centres in an order in which neighbours follow each other, since lists that do share a block."""
    half = 0.5 * np.einsum("ij,ij->i", centres, centres)
    order = np.zeros(len(centres), np.int64)
    for place in range(1, len(centres)):
        half[order[place - 1]] = np.inf
        order[place] = np.argmax(centres @ centres[order[place - 1]] - half)
    return np.ascontiguousarray(centres[order])


@dataclass(slots=True)
class Lists:
    """The blocks of all lists.

    Attributes
    ----------
    blocks : MappedRows of uint8
        One row a block.
    starts : ndarray of int64, shape (lists + 1,)
        Row that each list begins with; the last is the number of rows.
    proved : bool
        Whether the contents of the blocks have been looked at since they were loaded.
    """

    blocks: MappedRows
    starts: I64
    proved: bool = True

    @property
    def count(self) -> int:
        return int(self.starts[-1])

    def prove(self) -> None:
        """See to it that what a search follows is what `join_lists` makes: once after loading.

        Raises
        ------
        CorruptionError
            The blocks are damaged, or hold something else.
        """
        self.blocks.verify()
        if self.proved:
            return
        seen = np.zeros(self.count, np.bool_)
        first = 0
        for piece in self.blocks.pieces():
            tail = piece[:, -3 * _FACTOR_BYTES :]
            numbers = np.ascontiguousarray(tail[:, : 2 * _FACTOR_BYTES]).view("<f4")
            names = np.ascontiguousarray(tail[:, 2 * _FACTOR_BYTES :]).view("<i4").reshape(-1)
            names = names[: self.count - first]
            if not bool(np.isfinite(numbers).all()) or not _is_inside(names, self.count):
                raise CorruptionError("the numbers of an index are impossible", what="index blob", where="blocks")
            seen[names] = True
            first += len(piece) * BLOCK
        if not seen.all():
            raise CorruptionError("an index names positions twice", what="index blob", where="blocks")
        self.proved = True


def _is_inside(names: npt.NDArray[np.int32], count: int) -> bool:
    return bool(((names >= 0) & (names < count)).all())


def join_lists(parts: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], F32]], lists: int) -> Lists:
    """Sort vectors into lists.

    Parameters
    ----------
    parts : sequence of (cells, bits, factors)
        In the order of positions: the list of each vector, int64 (n,); its signs as `bits_of` packs them, uint8
        (n, width / 8); offset and slope, float32 (2, n).
    lists : int
    """
    cells = np.concatenate([part[0] for part in parts])
    bits = np.concatenate([part[1] for part in parts])
    factors = np.concatenate([part[2] for part in parts], axis=1)
    order = np.argsort(cells, kind="stable")
    starts = np.zeros(lists + 1, np.int64)
    np.cumsum(np.bincount(cells, minlength=lists), out=starts[1:])
    width = bits.shape[1] * 8
    blocks = np.zeros((-(-len(order) // BLOCK), width * 4 + 3 * _FACTOR_BYTES), np.uint8)
    for first in range(0, len(blocks), _STRIP):
        chosen = order[first * BLOCK : (first + _STRIP) * BLOCK]
        _fill(blocks[first : first + _STRIP], chosen, bits[chosen], factors[:, chosen])
    return Lists(MappedRows.of(blocks), starts)


def bits_of(made: Sketch) -> npt.NDArray[np.uint8]:
    """Return the signs of vectors, a bit each, shape (n, width / 8)."""
    return np.packbits(made.turned > 0, axis=1)


def _fill(blocks: npt.NDArray[np.uint8], names: I64, bits: npt.NDArray[np.uint8], factors: F32) -> None:
    """Write some vectors to consecutive blocks."""
    places = len(blocks) * BLOCK
    codes = blocks.shape[1] - 3 * _FACTOR_BYTES
    blocks[:, :codes] = pack_signs(np.unpackbits(bits, axis=1).astype(np.bool_)).reshape(len(blocks), codes)
    for number, values in enumerate((factors[0], factors[1], names)):
        wide = np.full(places, -1, "<i4") if number == 2 else np.zeros(places, "<f4")
        wide[: len(names)] = values
        start = codes + number * _FACTOR_BYTES
        blocks[:, start : start + _FACTOR_BYTES] = wide.view(np.uint8).reshape(len(blocks), _FACTOR_BYTES)


def write_lists(blobs: BlobWriter, lists: Lists) -> None:
    """Store lists; `read_lists` needs their number and that of their rows."""
    blobs.write("starts", lists.starts)
    blobs.write_rows("blocks", lists.blocks.array())


def read_lists(blobs: BlobReader, width: int, lists: int, count: int) -> Lists:
    """Return the lists that `write_lists` stored, where they lie.

    Raises
    ------
    CorruptionError
        If their form is another. Their contents are looked at by `Lists.prove`.
    """
    starts = blobs.array("starts", "<i8", (lists + 1,))
    if starts[0] != 0 or starts[-1] != count or (starts[1:] < starts[:-1]).any():
        raise CorruptionError("the lists of an index do not follow each other", what="index blob", where="starts")
    blocks = blobs.rows("blocks", np.uint8, width * 4 + 3 * _FACTOR_BYTES, -(-count // BLOCK))
    return Lists(blocks, starts, proved=False)
