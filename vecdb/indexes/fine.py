"""Codes of 2, 4 or 8 bits a coordinate, which put the best of a scan in a better order without reading any vector.

The coordinates of a rotated residual r are rounded to the odd numbers v from ``-(2**B - 1)`` to ``2**B - 1``, in steps
that are best for normal numbers of their spread; the sign of v is the 1-bit code. ``<r, q>`` is estimated as
``|r|**2 / <v, r> * <v, q>``, unbiased over rotations, with an error of the order ``2**-B |r| |q| / sqrt(D)`` (Gao, Gou,
Xu, Yang, Long & Wong, "Practical and Asymptotically Optimal Quantization of High-Dimensional Vectors in Euclidean Space
for Approximate Nearest Neighbor Search", SIGMOD 2025, whose rounding also seeks the best step for each vector). A
stored row holds ``D * B / 8`` bytes, of which byte j has coordinate j in its lowest bits, coordinate j + D * B / 8 in
the next and so on; then slope and offset as float32, the cell as int32, and four bytes of zero. Rows lie in the order
of positions. Invariant: what a search follows was looked at once after loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.rows import MappedRows
from vecdb.errors import CorruptionError
from vecdb.indexes.codes import CodeBook, Sketch

__all__ = ["BITS", "Fine", "fine_rows", "levels", "read_fine", "write_fine"]

F32 = npt.NDArray[np.float32]

BITS: Final = (1, 2, 4, 8)
_STEPS: Final = {2: 0.996, 4: 0.335, 8: 0.031}
"""Widths of uniform steps that lose least of a normal number of spread 1 (Max, "Quantizing for Minimum Distortion",
IRE Transactions on Information Theory, 1960, table II)."""
_TAIL: Final = 16


@dataclass(slots=True)
class Fine:
    """Codes of several bits.

    Attributes
    ----------
    rows : MappedRows of uint8
        One row a vector.
    bits : int
        2, 4 or 8.
    proved : bool
        Whether the contents have been looked at since they were loaded.
    """

    rows: MappedRows
    bits: int
    proved: bool = True

    def prove(self, cells: int) -> None:
        """See to it that what a search follows is what `fine_rows` makes, for so many cells: once after loading.

        Raises
        ------
        CorruptionError
            The rows are damaged, or hold something else.
        """
        self.rows.verify()
        if self.proved:
            return
        for piece in self.rows.pieces():
            tail = np.ascontiguousarray(piece[:, -_TAIL:])
            named = tail[:, 8:12].copy().view("<i4")
            sound = np.isfinite(tail[:, :8].copy().view("<f4")).all() and ((named >= 0) & (named < cells)).all()
            if not sound:
                raise CorruptionError("the numbers of an index are impossible", what="index blob", where="fine")
        self.proved = True


def levels(turned: F32, bits: int) -> npt.NDArray[np.uint8]:
    """Return the code of each coordinate, 0 to ``2**bits - 1``, shape (n, width); turned (n, width) are residuals."""
    half = 1 << (bits - 1)
    steps = np.sqrt(np.einsum("ij,ij->i", turned, turned, dtype=np.float64) / turned.shape[1]) * _STEPS[bits]
    if bits == 8:  # so fine that cutting one large coordinate would cost more than all the rounding
        steps = np.maximum(steps, np.abs(turned).max(axis=1) / half)
    inverse = np.divide(1.0, steps, out=np.zeros_like(steps), where=steps > 1e-36).astype(np.float32)
    codes = np.floor(turned * inverse[:, None]) + half
    found: npt.NDArray[np.uint8] = np.clip(codes, 0, 2 * half - 1).astype(np.uint8)
    return found


def points(codes: npt.NDArray[np.uint8], bits: int) -> F32:
    """Return the odd numbers that codes stand for, float32 of the same shape."""
    return 2 * codes.astype(np.float32) - np.float32((1 << bits) - 1)


def fine_slopes(book: CodeBook, turned: F32, rounded: F32) -> F32:
    """Return the slope of each row, float32 (n,); turned and rounded (n, width)."""
    squares = np.einsum("ij,ij->i", turned, turned, dtype=np.float64)
    products = np.einsum("ij,ij->i", turned, rounded, dtype=np.float64)
    slopes = np.divide(squares, products, out=np.zeros_like(squares), where=products > 0)
    found: F32 = (slopes * (2 if book.metric == "l2" else 1)).astype(np.float32)
    return found


def fine_rows(book: CodeBook, made: Sketch, bits: int) -> npt.NDArray[np.uint8]:
    """Return the rows of some vectors, shape (n, D * bits / 8 + 16)."""
    codes = levels(made.turned, bits)
    size = book.width * bits // 8
    rows = np.zeros((len(codes), size + _TAIL), np.uint8)
    for turn in range(8 // bits):
        rows[:, :size] |= codes[:, turn * size : (turn + 1) * size] << np.uint8(bits * turn)
    slopes = fine_slopes(book, made.turned, points(codes, bits))
    for place, values in enumerate((slopes.astype("<f4"), made.factors[0].astype("<f4"), made.cells.astype("<i4"))):
        rows[:, size + 4 * place : size + 4 * place + 4] = values.view(np.uint8).reshape(-1, 4)
    return rows


def write_fine(blobs: BlobWriter, fine: Fine | None) -> None:
    """Store fine codes, if there are any."""
    if fine is not None:
        blobs.write_rows("fine", fine.rows.array())


def read_fine(blobs: BlobReader, width: int, count: int, bits: int) -> Fine | None:
    """Return the fine codes that `write_fine` stored, where they lie; None for one bit. CorruptionError as usual."""
    if bits == 1:
        return None
    return Fine(blobs.rows("fine", np.uint8, width * bits // 8 + _TAIL, count), bits, proved=False)
