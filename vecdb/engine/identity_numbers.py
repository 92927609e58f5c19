"""The numbers by which a batch of vectors is told native or foreign: shift, energies, spread.

Everything is measured on unit rows in float64. A space's `Axes` hold its mean, its *loud* axes (eigenvectors of the
covariance with the largest eigenvalues) and its *quiet* axes (the smallest). Another model's vectors spread their
energy over both alike, whatever they are about; the model's own leave the quiet axes nearly empty even on a topic
never seen. Invariant: a number depends on the rows and the axes alone and is never NaN.
Design: docs/explanation/identity.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.kernels import loader

__all__ = [
    "EVIDENCE",
    "Axes",
    "Floats",
    "Screen",
    "Variety",
    "axis_count",
    "fit_axes",
    "unit_rows",
    "variety",
]

Floats: TypeAlias = npt.NDArray[np.float64]
_Energies: TypeAlias = Callable[
    [npt.NDArray[np.float32], npt.NDArray[np.float32], Floats, int], tuple[list[float], npt.NDArray[np.float32]]
]

EVIDENCE = ("alignment", "signs", "energy", "quiet")
"""Columns of every evidence array; each is high for native and about 0 for foreign vectors."""

LOUD_AXES = 64
QUIET_MAX_DIM = 1024
"""Above this width quiet axes are left out: they need the complete eigendecomposition, a second or more."""
_AXES_BYTES = 8 << 20
_FLOOR = 0.02
_ALIKE = 0.98
_ONE_SIDED = 0.995
_ONE_SIDED_ENERGY = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """The directions that a space's numbers are measured against.

    Attributes
    ----------
    mean : ndarray of float64, shape (d,)
        Mean of the unit rows.
    loud, quiet : ndarray of float64, shape (k, d) and (q, d)
        Orthonormal rows: most and least variance. The values are those of float32 (loud) and float16 (quiet), so
        that stored axes judge exactly as fitted ones; half precision moves an energy by less than 1e-6.
    signs : ndarray of float64, shape (d,)
        1 or -1 for columns that never change sign, 0 for the others; all 0 unless such columns hold half the energy.
    direction : ndarray of float64, shape (d,)
        The mean at unit length; zeros where the mean vanishes.
    one_sided : bool
        Whether any sign is not 0.
    """

    mean: Floats
    loud: Floats
    quiet: Floats
    signs: Floats
    direction: Floats
    one_sided: bool

    @classmethod
    def of(cls, mean: Floats, loud: npt.NDArray[Any], quiet: npt.NDArray[Any], signs: npt.NDArray[Any]) -> Axes:
        """Return axes rounded to what is stored."""
        length = float(np.linalg.norm(mean))
        direction = mean / length if length > 1e-9 else np.zeros_like(mean)
        stored_loud, stored_quiet = np.asarray(loud, dtype=np.float32), np.asarray(quiet, dtype=np.float16)
        one_sided = bool(np.any(signs))
        return cls(mean, _wide(stored_loud), _wide(stored_quiet), _wide(signs), direction, one_sided)

    @property
    def dim(self) -> int:
        return int(self.mean.shape[0])


def _wide(array: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(array, dtype=np.float64)


def unit_rows(rows: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the rows, shape (n, d), at unit length in float64, and their norms; rows of zero norm stay zero."""
    wide = np.asarray(rows, dtype=np.float64)
    scale: Any = 1.0
    if rows.dtype not in (np.float32, np.float16):  # of which no square leaves the range of float64
        scale = np.abs(wide).max(axis=1, initial=0.0)
        wide = wide / np.where(scale > 0, scale, 1.0)[:, None]
    length = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return wide / np.where(length > 0, length, 1.0)[:, None], length * scale


def axis_count(dim: int) -> int:
    """Return how many loud axes a space of this width keeps: 64, at most a quarter of it, at most 8 MiB."""
    return max(1, min(LOUD_AXES, dim // 4, _AXES_BYTES // (4 * dim)))


def fit_axes(unit: Floats, *, seed: int) -> Axes:
    """Fit mean, loud and quiet axes to unit rows, shape (m, d).

    Up to `QUIET_MAX_DIM` columns the covariance is decomposed completely; above, the loud axes come from randomised
    subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4), seeded by `seed`.
    """
    mean = unit.mean(axis=0)
    centred = unit - mean
    count = axis_count(unit.shape[1])
    if unit.shape[1] > QUIET_MAX_DIM:
        return Axes.of(mean, _loud_axes(centred, count, seed), np.empty((0, unit.shape[1])), _one_sided(unit))
    vectors = np.linalg.eigh(centred.T @ centred)[1].T
    return Axes.of(mean, vectors[::-1][:count], vectors[:count], _one_sided(unit))


def _one_sided(unit: Floats) -> Floats:
    """Return the sign of every column that keeps it in 99.5 % of the rows, if such columns hold half the energy."""
    above, below = (unit >= 0).mean(axis=0) >= _ONE_SIDED, (unit <= 0).mean(axis=0) >= _ONE_SIDED
    signs = above.astype(np.float64) - below.astype(np.float64)
    energy = np.square(unit).sum(axis=0)
    return signs if energy[signs != 0].sum() >= _ONE_SIDED_ENERGY * energy.sum() else np.zeros_like(signs)


def _loud_axes(centred: Floats, count: int, seed: int) -> Floats:
    width = min(count + 16, *centred.shape)
    block = np.random.default_rng(seed).standard_normal((centred.shape[1], width))
    for _ in range(4):
        block = np.linalg.qr(centred.T @ (centred @ block))[0]
    turn = np.linalg.svd(centred @ block, full_matrices=False)[2]
    return (turn @ block.T)[:count]


def _log_share(part: Floats, total: Floats, count: int, dim: int) -> Floats:
    """Return log of the energy on `count` axes relative to an even spread; 0 where there is nothing to measure."""
    if count == 0:
        return np.zeros_like(total)
    even = count / dim
    share = np.where(total > 1e-12, part / np.maximum(total, 1e-12), even)
    return np.log((share / even + _FLOOR) / (1 + _FLOOR))


def _kept_signs(unit: Floats, axes: Axes) -> tuple[Floats, Floats]:
    """Return per row the energy on one-sided columns with the right sign, and that with the wrong one."""
    if not axes.one_sided:
        return np.zeros(unit.shape[:-1]), np.zeros(unit.shape[:-1])
    pointed = unit * axes.signs
    return np.square(np.maximum(pointed, 0)).sum(axis=-1), np.square(np.minimum(pointed, 0)).sum(axis=-1)


def _contrast(right: Floats, wrong: Floats) -> Floats:
    return (right - wrong) / np.maximum(right + wrong, 1e-12)


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """What measures rows against a space's axes: the axes stacked in float32, so that a row costs one product.

    Half of the time of a small write is this product. What float32 loses is below 1e-5 of a number, and batches are
    measured around their own mean, so that rows that hardly differ lose no more.

    Attributes
    ----------
    stacked : ndarray of float32, shape (1 + k + q, d)
        Direction, loud and quiet axes.
    shadow : ndarray of float64, shape (k + q,)
        What the direction itself has on the loud and quiet axes, to be taken out of every row.
    axes : Axes
    length : float
        Squared length of the direction: 1, or 0 where the mean vanishes.
    """

    stacked: npt.NDArray[np.float32]
    shadow: Floats
    axes: Axes
    length: float

    @classmethod
    def of(cls, axes: Axes) -> Screen:
        """Return the screen of a space's axes."""
        both = np.concatenate([axes.loud, axes.quiet])
        stacked = np.concatenate([axes.direction[None], both]).astype(np.float32)
        length = float(axes.direction @ axes.direction)
        return cls(stacked, both @ axes.direction, axes, length)

    def rows(self, unit: Floats) -> Floats:
        """Return the numbers of every single unit row, shape (n, 4); energies are those beside the mean's direction."""
        return self._of_rows(unit, self._product(unit))

    def batches(self, unit: Floats) -> tuple[Floats, Floats]:
        """Return the numbers of batches of unit rows, shape (..., n, d): of each batch, and of each of its rows.

        Shapes (..., 4) and (..., n, 4). A batch's energies are those around its own mean.
        """
        mean = unit.mean(axis=-2)
        centred = unit - mean[..., None, :]
        product = self._product(centred)
        return self._of_batches(unit, mean, centred, product), self._of_rows(
            unit, product + self._product(mean)[..., None, :]
        )

    def _product(self, rows: Floats) -> Floats:
        flat = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
        return (flat @ self.stacked.T).astype(np.float64).reshape(*rows.shape[:-1], len(self.stacked))

    def _of_rows(self, unit: Floats, product: Floats) -> Floats:
        alignment = product[..., 0]
        beside = np.square(product[..., 1:] - alignment[..., None] * self.shadow)
        total = np.maximum(1.0 - np.square(alignment) * self.length, 0.0)
        count = len(self.axes.loud)
        loud, quiet = beside[..., :count].sum(axis=-1), beside[..., count:].sum(axis=-1)
        return self._numbers(alignment, _kept_signs(unit, self.axes), loud, quiet, total)

    def _of_batches(self, unit: Floats, mean: Floats, centred: Floats, product: Floats) -> Floats:
        length = np.sqrt(np.square(mean).sum(axis=-1))
        alignment = np.where(length > 1e-9, mean @ self.axes.direction / np.maximum(length, 1e-9), 0.0)
        right, wrong = _kept_signs(unit, self.axes)
        around = np.square(product[..., 1:]).sum(axis=-2)
        count = len(self.axes.loud)
        loud, quiet = around[..., :count].sum(axis=-1), around[..., count:].sum(axis=-1)
        total = np.einsum("...ij,...ij->...", centred, centred)
        return self._numbers(alignment, (right.sum(axis=-1), wrong.sum(axis=-1)), loud, quiet, total)

    def _numbers(
        self, alignment: Floats, signs: tuple[Floats, Floats], loud: Floats, quiet: Floats, total: Floats
    ) -> Floats:
        """Put numbers into the order of `EVIDENCE`, in a new last axis."""
        dim = self.axes.dim
        energy = _log_share(loud, total, len(self.axes.loud), dim)
        silence = -_log_share(quiet, total, len(self.axes.quiet), dim)
        return np.stack([alignment, _contrast(*signs), energy, silence], axis=-1)

    def row_evidence(self, query: npt.NDArray[np.float32]) -> list[float]:
        """Return the numbers of one row, shape (d,), not of unit length; floats, because a single query waits."""
        axes = self.axes
        (alignment, loud, quiet), unit = self._energies(query)
        total = max(1.0 - alignment * alignment * self.length, 0.0)
        signs = _contrast(*_kept_signs(unit[None].astype(np.float64), axes)) if axes.one_sided else (0.0,)
        return [
            alignment,
            float(signs[0]),
            _one_log_share(loud, total, len(axes.loud), axes.dim),
            -_one_log_share(quiet, total, len(axes.quiet), axes.dim),
        ]

    def _energies(self, query: npt.NDArray[np.float32]) -> tuple[list[float], npt.NDArray[np.float32]]:
        """Return the part along the direction, the energies on loud and quiet axes, and the row at unit length."""
        count = len(self.axes.loud)
        if loader.ready():
            return _compiled_energies()(query, self.stacked, self.shadow, count)
        wide = query.astype(np.float64)
        unit = (wide / math.sqrt(wide.dot(wide))).astype(np.float32)
        product = self.stacked.dot(unit)
        beside = product[1:] - float(product[0]) * self.shadow
        loud, quiet = beside[:count], beside[count:]
        return [float(product[0]), float(loud.dot(loud)), float(quiet.dot(quiet))], unit


_energies: _Energies | None = None


def _compiled_energies() -> _Energies:
    """Return the kernel's entry; numba is loaded by now. Kept, because every search would feel the import."""
    global _energies
    if _energies is None:
        from vecdb.kernels.screen import energies

        _energies = energies
    return _energies


def _one_log_share(part: float, total: float, count: int, dim: int) -> float:
    """Return `_log_share` of one row."""
    if count == 0:
        return 0.0
    even = count / dim
    share = part / total if total > 1e-12 else even
    return math.log((share / even + _FLOOR) / (1 + _FLOOR))


@dataclass(frozen=True, slots=True, eq=False)
class Variety:
    """How different the rows of a batch are.

    Attributes
    ----------
    independent : float
        Participation ratio ``trace(G)^2 / trace(G^2)`` of the centred Gram matrix: independent rows it amounts to.
    spread : float
        Mean squared distance of the rows to their mean.
    weights : ndarray of float64, shape (n,)
        One over the number of rows with a cosine above 0.98 to this one; the sum counts distinct rows.
    """

    independent: float
    spread: float
    weights: Floats


def variety(unit: Floats) -> Variety:
    """Measure the variety of unit rows, shape (n, d)."""
    mean = unit.mean(axis=0)
    centred = (unit - mean).astype(np.float32)  # first the difference, then float32: copies of a row stay copies
    gram = centred @ centred.T
    along = (unit @ mean).astype(np.float32)
    alike = gram > np.subtract.outer(np.float32(_ALIKE + float(mean @ mean)) - along, along)
    flat = gram.reshape(-1)
    trace, square = float(np.trace(gram, dtype=np.float64)), float(flat @ flat)
    independent = trace * trace / square if square > 1e-24 else 0.0
    return Variety(independent, max(trace, 0.0) / len(unit), 1 / np.maximum(np.count_nonzero(alike, axis=1), 1))
