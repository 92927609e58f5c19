"""1-bit codes of vectors: the sign of each coordinate of a rotated residual, a cell, and two factors a vector.

A vector x of the cell j with centre c_j leaves the residual r = x - c_j, which is rotated at random and padded to D
coordinates; its code is the signs s. For a rotated query q the product ``<r, q>`` is estimated as
``|r|**2 / |r|_1 * <s, q>``, unbiased over rotations with an error of the order ``|r| |q| / sqrt(D)`` (Gao & Long,
"RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate Nearest Neighbor Search",
SIGMOD 2024, theorem 3.2). Both lengths are kept small: residuals by the cells, and queries by taking out the part
along the mean m of all vectors, whose product with each residual is stored. With the bend b of a query (the multiple
of m that is taken out) the estimated score is ``base[j] + b * offset + slope * <s, q - b m>``:

======  =====================  ===============================  ==================
metric  base[j]                offset                           slope
======  =====================  ===============================  ==================
dot     ``<c_j, q>``           ``<r, m>``                       ``|r|**2 / |r|_1``
l2      ``-|q - c_j|**2``      ``-|r|**2 + 2 <r, m - c_j>``     twice that
======  =====================  ===============================  ==================

A cosine is the dot product of vectors of length one. For l2 the bend is 1. Invariant: what is decoded is checked
against the number and width of the vectors before anything follows it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.errors import CancelledError, CorruptionError
from vecdb.types import CancelCheck, Metric

__all__ = [
    "CodeBook",
    "Codes",
    "Prepared",
    "Sketch",
    "code_width",
    "encode",
    "make_book",
    "may_be_width",
    "pack_signs",
    "prepare_queries",
    "read_book",
    "read_codes",
    "rotated_queries",
    "sketch",
    "unit_rows",
    "wide_width",
    "write_book",
    "write_codes",
]

F32 = npt.NDArray[np.float32]

ROUNDS: Final = 4
BLOCK: Final = 32
_HEAD: Final = struct.Struct("<4sIIIIIQ")
_MAGIC: Final = b"RBQ1"
_LEAST_WIDTH: Final = 64
_WIDE: Final = 256
MAX_CELLS: Final = 256
_ROWS_A_CELL: Final = 64
_ITERATIONS: Final = 8
_STRIP: Final = 4_096
_DENSE: Final = 1_024
"""Widest rotation that is also applied as a matrix: a product is quicker than transforms in steps of numpy."""
_LARGEST: Final = np.float32(1e15)
"""Components of stored vectors are no larger, so those of their means are not either."""


@dataclass(frozen=True, slots=True)
class CodeBook:
    """What all codes of an index share.

    Attributes
    ----------
    metric : {"cosine", "dot", "l2"}
    mean : ndarray of float32, shape (dim,)
    centres : ndarray of float32, shape (cells, dim)
        1 to 256 of them.
    signs : ndarray of float32, shape (ROUNDS, width)
        The random half of the rotation, +1 and -1.
    """

    metric: Metric
    mean: F32
    centres: F32
    signs: F32

    @property
    def dim(self) -> int:
        return len(self.mean)

    @property
    def width(self) -> int:
        """D, a multiple of 16 and at least 64: narrow vectors get more bits than coordinates."""
        return int(self.signs.shape[1])


@dataclass(frozen=True, slots=True)
class Codes:
    """The codes of some vectors.

    Attributes
    ----------
    packed : ndarray of uint8, shape (ceil(n / 32) * width * 4,)
        Blocks of 32 rows; within a block, four coordinates are a group of 16 bytes, and byte j holds the four signs of
        row j in its low and those of row j + 16 in its high bits.
    cells : ndarray of uint8, shape (n,)
    factors : ndarray of float32, shape (2, n)
        Offset and slope.
    """

    packed: npt.NDArray[np.uint8]
    cells: npt.NDArray[np.uint8]
    factors: F32

    @property
    def count(self) -> int:
        return len(self.cells)

    @classmethod
    def join(cls, parts: Sequence[Codes]) -> Codes:
        """Put codes behind each other; all but the last hold whole blocks."""
        packed = np.concatenate([part.packed for part in parts])
        factors = np.concatenate([part.factors for part in parts], axis=1)
        return cls(packed, np.concatenate([part.cells for part in parts]), np.ascontiguousarray(factors))


def code_width(dim: int) -> int:
    """Return D for vectors of `dim` coordinates."""
    return max(_LEAST_WIDTH, -(-dim // 16) * 16)


def wide_width(dim: int) -> int:
    """Return D for codes that have to tell near vectors apart: vectors of few coordinates are coded with more bits."""
    return max(_WIDE, code_width(dim))


def may_be_width(dim: int, width: int) -> bool:
    """Whether stored codes of vectors of `dim` coordinates can have so many bits."""
    return width in (code_width(dim), wide_width(dim))


def make_book(
    metric: Metric,
    sample: F32,
    count: int,
    seed: int,
    *,
    cells: int | None = None,
    width: int | None = None,
    cancel: CancelCheck = lambda: False,
) -> CodeBook:
    """Return a book for `count` vectors of which `sample` is a fair part; all chance comes from `seed`.

    `cells` is at most the number of rows of the sample; without it there is one for 64 vectors, up to 256. `width` is
    the number of bits of a code, by default `code_width`.
    """
    rng = np.random.default_rng(seed)
    rows = unit_rows(sample) if metric == "cosine" else sample
    if cells is None:
        cells = min(MAX_CELLS, max(1, count // _ROWS_A_CELL))
    centres = find_centres(rows, min(cells, len(sample)), rng, cancel)
    bits = code_width(sample.shape[1]) if width is None else width
    signs = rng.integers(0, 2, (ROUNDS, bits)).astype(np.float32) * 2 - 1
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return CodeBook(metric, mean, np.ascontiguousarray(centres), signs)


def find_centres(rows: F32, cells: int, rng: np.random.Generator, cancel: CancelCheck = lambda: False) -> F32:
    """Return the centres of `cells` groups of rows by Lloyd's iteration; groups that run empty start anew far out."""
    centres = rows[rng.choice(len(rows), cells, replace=False)].astype(np.float32)
    for _ in range(_ITERATIONS):
        if cancel():
            raise CancelledError("building an index was cancelled")
        found, distances = nearest_centres(rows, centres)
        order = np.argsort(found, kind="stable")
        starts = np.searchsorted(found[order], np.arange(cells))
        counts = np.diff(np.append(starts, len(rows)))
        filled = counts > 0
        sums = np.add.reduceat(rows[order], starts[filled], axis=0)
        centres[filled] = sums / counts[filled, None].astype(np.float32)
        if not filled.all():
            centres[~filled] = rows[np.argsort(-distances, kind="stable")[: int((~filled).sum())]]
    return centres


def nearest_centres(rows: F32, centres: F32) -> tuple[npt.NDArray[np.int64], F32]:
    """Return the nearest centre of each row, and the square of the distance up to a term of the row alone."""
    found = np.empty(len(rows), np.int64)
    distances = np.empty(len(rows), np.float32)
    half = 0.5 * np.einsum("ij,ij->i", centres, centres)
    for start in range(0, len(rows), _STRIP):
        part = rows[start : start + _STRIP]
        gains = part @ centres.T - half
        best = found[start : start + _STRIP] = gains.argmax(axis=1)
        squares = np.einsum("ij,ij->i", part, part)
        distances[start : start + _STRIP] = squares - 2 * gains[np.arange(len(part)), best]
    return found, distances


# --- encoding ---------------------------------------------------------------------------------------------


def rotated(book: CodeBook, rows: F32) -> F32:
    """Return rows, already centred, padded and rotated, shape (n, width); numpy alone, so that a commit can encode."""
    turned = np.zeros((len(rows), book.width), np.float32)
    turned[:, : book.dim] = rows
    return rotated_queries(book, turned)


def rotated_queries(book: CodeBook, padded: F32) -> F32:
    """Return padded rows rotated, shape (n, width), without numba; many at once by a matrix product."""
    if book.width <= _DENSE and len(padded) >= 2 * book.width:
        dense: F32 = padded @ rotated_queries(book, np.eye(book.width, dtype=np.float32))
        return dense
    turned = padded.copy()
    size = 1 << (book.width.bit_length() - 1)
    for flips in book.signs:
        turned *= flips
        _transform(turned[:, :size])
        if size < book.width:
            _transform(turned[:, book.width - size :])
    return turned


def _transform(rows: F32) -> None:
    """Walsh-Hadamard transform of each row in place, normalised."""
    size, half = rows.shape[1], 1
    while half < size:
        pairs = rows.reshape(
            len(rows), size // (2 * half), 2, half
        )  # parts of an axis whose items follow each other: a view
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        difference = left - right
        left += right
        right[...] = difference
        half *= 2
    rows *= np.float32(1 / np.sqrt(size))


class Sketch(NamedTuple):
    """What is kept of some vectors, before it is packed.

    Attributes
    ----------
    cells : ndarray of int64, shape (n,)
    turned : ndarray of float32, shape (n, width)
        Rotated residuals; their signs are the codes.
    factors : ndarray of float32, shape (2, n)
        Offset and slope.
    """

    cells: npt.NDArray[np.int64]
    turned: F32
    factors: F32


def sketch(book: CodeBook, rows: F32) -> Sketch:
    """Return the parts of the codes of rows, float32 of shape (n, dim), n at least 1."""
    if book.metric == "cosine":
        rows = unit_rows(rows)
    cells, _ = nearest_centres(rows, book.centres)
    residuals = rows - book.centres[cells]
    turned = rotated(book, residuals)
    return Sketch(cells, turned, _factors(book, cells, residuals, turned))


def encode(book: CodeBook, rows: F32) -> tuple[Codes, npt.NDArray[np.bool_]]:
    """Return the codes of rows, float32 of shape (n, dim), n at least 1, and their signs, shape (n, width)."""
    made = sketch(book, rows)
    signs = made.turned > 0
    return Codes(pack_signs(signs), made.cells.astype(np.uint8), made.factors), signs


def unit_rows(rows: F32) -> F32:
    """Return rows of length one; a row of zeros stays."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    scaled: F32 = rows * inverse.astype(np.float32)[:, None]
    return scaled


def pack_signs(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return signs (n, width) in blocks of 32 rows; see `Codes`."""
    count, width = bits.shape
    whole = np.zeros((-(-count // BLOCK) * BLOCK, width // 4, 4), np.uint8)
    whole[:count] = bits.reshape(count, width // 4, 4)
    nibbles = whole @ np.array([1, 2, 4, 8], np.uint8)
    blocks = nibbles.reshape(-1, 2, BLOCK // 2, width // 4)
    return np.ascontiguousarray((blocks[:, 0] | blocks[:, 1] << 4).transpose(0, 2, 1)).reshape(-1)


def _factors(book: CodeBook, cells: npt.NDArray[np.int64], residuals: F32, turned: F32) -> F32:
    """Return offset and slope of each row, float32 of shape (2, n)."""
    squares = np.einsum("ij,ij->i", turned, turned, dtype=np.float64)
    sums = np.abs(turned).sum(axis=1, dtype=np.float64)
    slopes = np.divide(squares, sums, out=np.zeros_like(squares), where=sums > 0)
    if book.metric != "l2":
        return np.stack([residuals @ book.mean.astype(np.float64), slopes]).astype(np.float32)
    known = np.einsum("ij,ij->i", residuals, book.mean - book.centres[cells], dtype=np.float64)
    return np.stack([2 * known - squares, 2 * slopes]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Queries as `kernels.code_scan` takes them.

    Attributes
    ----------
    turned : ndarray of float32, shape (q, width)
        Padded, still to be rotated.
    bends : ndarray of float32, shape (q,)
    bases : ndarray of float32, shape (q, cells)
    """

    turned: F32
    bends: F32
    bases: F32


def prepare_queries(book: CodeBook, queries: F32) -> Prepared:
    """Return queries without their part along the mean, and what is known of their scores."""
    padded = np.zeros((len(queries), book.width), np.float32)
    bases = queries @ book.centres.T
    if book.metric == "l2":
        bases *= 2
        bases -= np.einsum("ij,ij->i", book.centres, book.centres)
        padded[:, : book.dim] = queries - book.mean
        return Prepared(padded, np.ones(len(queries), np.float32), bases)
    length = float(book.mean @ book.mean)
    bends = queries @ (book.mean / np.float32(length)) if length > 0 else np.zeros(len(queries), np.float32)
    padded[:, : book.dim] = queries - bends[:, None] * book.mean
    return Prepared(padded, bends, bases)


# --- keeping ----------------------------------------------------------------------------------------------


def write_book(blobs: BlobWriter, book: CodeBook) -> None:
    """Store a book; its shape is for the caller to keep."""
    blobs.write("mean", book.mean)
    blobs.write("centres", book.centres)
    blobs.write("signs", np.packbits(book.signs > 0))


def read_book(blobs: BlobReader, metric: Metric, dim: int, cells: int, width: int | None = None) -> CodeBook:
    """Return the book of so many cells that `write_book` stored; CorruptionError if it is anything else."""
    width = code_width(dim) if width is None else width
    flags = np.unpackbits(blobs.array("signs", np.uint8, (ROUNDS * width // 8,)))
    signs = flags.reshape(ROUNDS, width).astype(np.float32) * 2 - 1
    book = CodeBook(metric, blobs.array("mean", "<f4", (dim,)), blobs.array("centres", "<f4", (cells, dim)), signs)
    if not all((np.abs(part) <= _LARGEST).all() for part in (book.mean, book.centres)):
        raise CorruptionError("the numbers of an index are impossible", what="index blob", where="centres")
    return book


def write_codes(blobs: BlobWriter, book: CodeBook, codes: Codes, effort: int) -> None:
    """Store a book, its codes, and the default effort."""
    blobs.write("head", _HEAD.pack(_MAGIC, book.dim, book.width, ROUNDS, len(book.centres), effort, codes.count))
    write_book(blobs, book)
    blobs.write("codes", codes.packed)
    blobs.write("cells", codes.cells)
    blobs.write("factors", codes.factors)


def read_codes(blobs: BlobReader, metric: Metric, dim: int, count: int) -> tuple[CodeBook, Codes, int]:
    """Return what `write_codes` stored for `count` vectors of `dim` coordinates.

    Raises
    ------
    CorruptionError
        If it is anything else.
    """
    head = blobs.read("head")
    width, _, cells, effort = _HEAD.unpack(head)[2:6] if len(head) == _HEAD.size else (0, 0, 0, 0)
    known = may_be_width(dim, width) and 1 <= cells <= MAX_CELLS
    if not known or head != _HEAD.pack(_MAGIC, dim, width, ROUNDS, cells, effort, count):
        raise CorruptionError("the codes of an index are of another form or number", what="index blob", where="head")
    book = read_book(blobs, metric, dim, cells, width)
    packed = blobs.array("codes", np.uint8, (-(-count // BLOCK) * width * 4,))
    codes = Codes(packed, blobs.array("cells", np.uint8, (count,)), blobs.array("factors", "<f4", (2, count)))
    if not np.isfinite(codes.factors).all():
        raise CorruptionError("the numbers of an index are impossible", what="index blob", where="factors")
    if int(codes.cells.max()) >= cells:
        raise CorruptionError("the codes of an index name cells that do not exist", what="index blob", where="cells")
    return book, codes, max(1, effort)
