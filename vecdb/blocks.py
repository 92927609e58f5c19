"""The scan order of one space: a sequence of read-only vector blocks and one number per row.

Owns the addressing of rows: position ``p`` lies in block ``b`` with ``starts[b] <= p < starts[b + 1]``.
Invariant: every matrix and every row of scales is C-contiguous, aligned, in native byte order, and stays alive as
long as the `VectorBlocks` that names it, so the address tables that compiled scans follow can never dangle.
Nothing here copies the collection. Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError, DTypeError
from vecdb.int8rows import dequantise, stored_columns
from vecdb.types import Metric

__all__ = ["KINDS", "Matrix", "VectorBlocks", "as_floats", "row_scales"]

Matrix: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.int8]
KINDS: Final = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.int8))
"""How rows may be stored; kernels know a type by its place here."""
_CHUNK_ELEMENTS = 1 << 16
_FEW_ROWS = 64


@dataclass(frozen=True, eq=False)
class VectorBlocks:
    """The vectors of one space in scan order, as the storage maps them.

    Build it with `from_parts` (checked) or `join`; the plain constructor trusts its arguments.

    Attributes
    ----------
    metric : {"cosine", "dot", "l2"}
    dim : int
    matrices : tuple of ndarray of float32 or float16, shape (rows_b, dim), or of int8, as `int8rows` describes
        C-contiguous, borrowed; all of one dtype.
    scales : tuple of ndarray of float32, shape (rows_b,)
        Per row, see `row_scales`.
    starts : ndarray of int64, shape (B + 1,)
        First position of each block, and the number of rows at the end.
    """

    metric: Metric
    dim: int
    matrices: tuple[Matrix, ...]
    scales: tuple[npt.NDArray[np.float32], ...]
    starts: npt.NDArray[np.int64]

    @classmethod
    def from_parts(
        cls,
        metric: Metric,
        dim: int,
        matrices: Sequence[Matrix],
        scales: Sequence[npt.NDArray[np.float32]] | None = None,
    ) -> VectorBlocks:
        """Check the layout of `matrices` and compute `starts`.

        Parameters
        ----------
        metric, dim
            Of the space.
        matrices : sequence of ndarray of float32 or float16, shape (rows, dim), or of int8
            Borrowed, not copied.
        scales : sequence of ndarray of float32, shape (rows,), optional
            Stored row scales; computed from the vectors if left out.

        Raises
        ------
        CorruptionError
            If a block's shape, dtype or memory layout is not what a scan may follow.
        """
        if scales is None:
            scales = [row_scales(metric, as_floats(matrix, dim)) for matrix in matrices]
        if len(scales) != len(matrices):
            raise _layout_error("the table of scales", f"{len(scales)} entries for {len(matrices)} blocks")
        for place, (matrix, scale) in enumerate(zip(matrices, scales, strict=True)):
            _check_block(place, matrix, scale, dim, matrices[0].dtype)
        counts = [matrix.shape[0] for matrix in matrices]
        starts = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=starts[1:])
        return cls(metric, dim, tuple(matrices), tuple(scales), starts)

    @classmethod
    def join(cls, parts: Sequence[VectorBlocks]) -> VectorBlocks:
        """Put several scan orders of one space behind each other, reusing their address tables.

        Parameters
        ----------
        parts : non-empty sequence of VectorBlocks
            All of one metric, width and dtype; those without rows are skipped.
        """
        first = parts[0]
        parts = [part for part in parts if part.count] or [first]
        if any((part.metric, part.dim, part.dtype) != (first.metric, first.dim, parts[0].dtype) for part in parts):
            raise _layout_error("joined blocks", "parts of different metric, width or dtype")
        if len(parts) == 1:
            return parts[0]
        shifts = np.cumsum([0] + [part.count for part in parts], dtype=np.int64)
        starts = [part.starts[:-1] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
        joined = cls(
            first.metric,
            first.dim,
            tuple(matrix for part in parts for matrix in part.matrices),
            tuple(scale for part in parts for scale in part.scales),
            np.concatenate([*starts, shifts[-1:]]),
        )
        if all("addresses" in part.__dict__ for part in parts):
            joined.__dict__["addresses"] = np.concatenate([part.addresses for part in parts])
            joined.__dict__["scale_addresses"] = np.concatenate([part.scale_addresses for part in parts])
        return joined

    def __len__(self) -> int:
        return len(self.matrices)

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.starts[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Storage dtype; float32 if there are no blocks."""
        return self.matrices[0].dtype if self.matrices else np.dtype(np.float32)

    @cached_property
    def kind(self) -> int:
        """Place of the dtype in `KINDS`."""
        return KINDS.index(self.dtype)

    @cached_property
    def half(self) -> bool:
        """Whether the rows are float16."""
        return self.dtype == np.float16

    @property
    def row_bytes(self) -> int:
        """Bytes that a scan reads per row, its scale included."""
        return _columns(self.dim, self.dtype) * self.dtype.itemsize + 4

    @cached_property
    def addresses(self) -> npt.NDArray[np.uint64]:
        """Address of each block's first component, shape (B,)."""
        return _addresses(self.matrices)

    @cached_property
    def scale_addresses(self) -> npt.NDArray[np.uint64]:
        """Address of each block's first scale, shape (B,)."""
        return _addresses(self.scales)

    @property
    def scan_table(self) -> npt.NDArray[np.int64]:
        """What a compiled scan of floats follows, shape (B + 1, 3): address of vectors, of scales, first position.

        The last row closes the table: its addresses are 0, its position is `count`.

        Raises
        ------
        DTypeError
            If the rows are int8: whoever reads them as floats would read beyond them. `gather` returns floats.
        """
        if self.dtype == np.int8:
            what = "the rows of this space are int8 and cannot be read as floats where they lie"
            raise DTypeError(
                what, hint="Read copies of them.", expected="float32 or float16", got="int8", where="vector blocks"
            )
        return self.any_table

    @cached_property
    def any_table(self) -> npt.NDArray[np.int64]:
        """`scan_table`, for kernels that know rows of each of `KINDS`."""
        table = np.zeros((len(self) + 1, 3), dtype=np.int64)
        table[:-1, 0] = self.addresses.view(np.int64)
        table[:-1, 1] = self.scale_addresses.view(np.int64)
        table[:, 2] = self.starts
        return table

    def slice(self, block_from: int, block_to: int) -> VectorBlocks:
        """Return blocks ``block_from <= b < block_to`` alone; positions start at 0 again."""
        starts = self.starts[block_from : block_to + 1]
        part = VectorBlocks(
            self.metric,
            self.dim,
            self.matrices[block_from:block_to],
            self.scales[block_from:block_to],
            starts - starts[0],
        )
        for name in ("addresses", "scale_addresses"):
            if name in self.__dict__:
                part.__dict__[name] = self.__dict__[name][block_from:block_to]
        return part

    def gather(self, positions: npt.ArrayLike) -> Matrix:
        """Copy the rows at `positions`, in that order.

        Parameters
        ----------
        positions : array_like of int64, shape (c,)

        Returns
        -------
        ndarray of the storage dtype, or float32 for int8, shape (c, dim)
            Owned by the caller.

        Raises
        ------
        CorruptionError
            If a position is outside ``[0, count)``: positions come from stored indexes.
        """
        columns = _columns(self.dim, self.dtype)
        rows: Matrix = np.empty((len(np.asarray(positions)), columns), dtype=self.dtype)
        for place, block, row in self._located(positions):
            rows[place] = self.matrices[block][row]
        return as_floats(rows, self.dim)

    def gather_scales(self, positions: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Copy the scales at `positions`, in that order; errors as in `gather`."""
        scales = np.empty(len(np.asarray(positions)), dtype=np.float32)
        for place, block, row in self._located(positions):
            scales[place] = self.scales[block][row]
        return scales

    def checked_positions(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return `positions` as contiguous int64, all proven to lie in ``[0, count)``."""
        checked = np.ascontiguousarray(positions, dtype=np.int64)
        if checked.ndim != 1:
            raise _layout_error("positions", f"{checked.ndim} axes")
        if checked.size and np.maximum.reduce(checked.view(np.uint64)) >= self.count:  # negative: large
            raise CorruptionError(
                f"a candidate position lies outside the {self.count} rows of the space"
                f" (positions {int(checked.min())} to {int(checked.max())}).",
                hint="Run check(); an index that names such rows is rebuilt.",
                what="candidate positions",
                where="vector blocks",
            )
        return checked

    def _located(self, positions: npt.ArrayLike) -> Iterator[tuple[Any, int, Any]]:
        """Yield (places in the output, block, rows in it): one row at a time if few, else one run per block."""
        checked = self.checked_positions(positions)
        blocks = np.searchsorted(self.starts, checked, side="right") - 1
        rows = checked - self.starts[blocks]
        if len(checked) <= _FEW_ROWS:
            yield from zip(range(len(checked)), blocks.tolist(), rows.tolist(), strict=True)
            return
        order = np.argsort(blocks, kind="stable")
        cuts = np.flatnonzero(np.diff(blocks[order])) + 1
        for places in np.split(order, cuts):
            yield places, int(blocks[places[0]]), rows[places]


def row_scales(metric: Metric, rows: Matrix) -> npt.NDArray[np.float32]:
    """Return the one number per row that scans need beside the row itself.

    Parameters
    ----------
    metric : {"cosine", "dot", "l2"}
    rows : ndarray of float32 or float16, shape (n, dim)
        Components up to 1e15 in magnitude.

    Returns
    -------
    ndarray of float32, shape (n,)
        cosine ``1 / |x|`` (inf for rows shorter than 2.9e-39), dot ``|x|``, l2 ``|x|**2``; computed in float64
        and rounded once.
    """
    squares = np.empty(len(rows), dtype=np.float64)
    step = max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step].astype(np.float64)
        np.einsum("ij,ij->i", chunk, chunk, out=squares[start : start + step])
    if metric == "l2":
        return squares.astype(np.float32)
    norms = np.sqrt(squares)
    if metric == "dot":
        return norms.astype(np.float32)
    with np.errstate(divide="ignore", over="ignore"):
        return (1.0 / norms).astype(np.float32)


def as_floats(rows: Matrix, dim: int) -> Matrix:
    """Return rows of int8 as the float32 they stand for; rows of floats as they are."""
    return dequantise(rows, dim) if rows.dtype == np.int8 else rows


def _columns(dim: int, dtype: np.dtype[Any]) -> int:
    return stored_columns(dim) if dtype == np.int8 else dim


def _addresses(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    return np.fromiter((array.__array_interface__["data"][0] for array in arrays), np.uint64, len(arrays))


def _check_block(place: int, matrix: Matrix, scale: npt.NDArray[Any], dim: int, dtype: np.dtype[Any]) -> None:
    """Refuse anything that a compiled scan, which follows bare addresses, could misread."""
    if matrix.ndim != 2 or matrix.shape[1] != _columns(dim, matrix.dtype) or scale.shape != matrix.shape[:1]:
        raise _layout_error(f"block {place}", f"shapes {matrix.shape} and {scale.shape}, width {dim}")
    if matrix.dtype != dtype or matrix.dtype not in KINDS or scale.dtype != np.float32:
        raise _layout_error(f"block {place}", f"dtypes {matrix.dtype} and {scale.dtype}")
    for array in (matrix, scale):
        if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
            raise _layout_error(f"block {place}", "not contiguous, aligned and in native byte order")


def _layout_error(what: str, found: str) -> CorruptionError:
    return CorruptionError(f"{what} of a vector space cannot be scanned: {found}.", what=what, where="vector blocks")
