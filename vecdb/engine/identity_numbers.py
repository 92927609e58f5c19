"""The numbers by which a batch of vectors is told native or foreign: shift, energies, spread.

Everything is measured on unit rows in float64. A space's `Axes` hold its mean, its *loud* axes (eigenvectors of the
covariance with the largest eigenvalues) and its *quiet* axes (the smallest). Another model's vectors spread their
energy over both alike, whatever they are about; the model's own leave the quiet axes nearly empty even on a topic
never seen. Invariant: a number depends on the rows and the axes alone and is never NaN.
Design: docs/explanation/identity.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.kernels import loader

__all__ = [
    "EVIDENCE",
    "Axes",
    "Floats",
    "Variety",
    "axis_count",
    "batch_evidence",
    "fit_axes",
    "row_evidence",
    "unit_rows",
    "variety",
]

Floats: TypeAlias = npt.NDArray[np.float64]

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
    """

    mean: Floats
    loud: Floats
    quiet: Floats
    signs: Floats
    direction: Floats

    @classmethod
    def of(cls, mean: Floats, loud: npt.NDArray[Any], quiet: npt.NDArray[Any], signs: npt.NDArray[Any]) -> Axes:
        """Return axes rounded to what is stored."""
        length = float(np.linalg.norm(mean))
        direction = mean / length if length > 1e-9 else np.zeros_like(mean)
        stored_loud, stored_quiet = np.asarray(loud, dtype=np.float32), np.asarray(quiet, dtype=np.float16)
        return cls(mean, _wide(stored_loud), _wide(stored_quiet), _wide(signs), direction)

    @property
    def dim(self) -> int:
        return int(self.mean.shape[0])


def _wide(array: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(array, dtype=np.float64)


def unit_rows(rows: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the rows, shape (n, d), at unit length in float64, and their norms; rows of zero norm stay zero."""
    wide = np.asarray(rows, dtype=np.float64)
    scale = np.abs(wide).max(axis=1, initial=0.0)
    wide = wide / np.where(scale > 0, scale, 1.0)[:, None]  # keeps the squares of extreme components in range
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


def _kept_signs(unit: Floats, axes: Axes) -> Floats:
    """Return per row the energy on one-sided columns with the right sign, and that with the wrong one, shape (2, n)."""
    if not axes.signs.any():
        return np.zeros((2, len(unit)))
    pointed = unit * axes.signs
    return np.stack([np.square(np.maximum(pointed, 0)).sum(axis=1), np.square(np.minimum(pointed, 0)).sum(axis=1)])


def _contrast(right: Floats, wrong: Floats) -> Floats:
    return (right - wrong) / np.maximum(right + wrong, 1e-12)


def batch_evidence(unit: Floats, axes: Axes) -> Floats:
    """Return the numbers of one batch in the order of `EVIDENCE`; energies are those around the batch's own mean."""
    mean = unit.mean(axis=0)
    centred = unit - mean
    length = float(np.linalg.norm(mean))
    alignment = float(mean @ axes.direction) / length if length > 1e-9 else 0.0
    right, wrong = _kept_signs(unit, axes).sum(axis=1)
    total = np.square(centred).sum()
    loud, quiet = (np.square(centred @ basis.T).sum() for basis in (axes.loud, axes.quiet))
    energy = _log_share(loud, total, len(axes.loud), axes.dim)
    return np.array([alignment, _contrast(right, wrong), energy, -_log_share(quiet, total, len(axes.quiet), axes.dim)])


def row_evidence(unit: Floats, axes: Axes) -> Floats:
    """Return the numbers of every single row, shape (n, 4); energies are those beside the direction of the mean."""
    alignment = unit @ axes.direction
    rest = unit - alignment[:, None] * axes.direction
    total = np.square(rest).sum(axis=1)
    loud, quiet = (np.square(rest @ basis.T).sum(axis=1) for basis in (axes.loud, axes.quiet))
    energy = _log_share(loud, total, len(axes.loud), axes.dim)
    silence = -_log_share(quiet, total, len(axes.quiet), axes.dim)
    return np.stack([alignment, _contrast(*_kept_signs(unit, axes)), energy, silence], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """The axes of a space stacked in float32, so that a row costs one product; the numbers are `row_evidence`'s.

    Attributes
    ----------
    stacked : ndarray of float32, shape (1 + k + q, d)
        Direction, loud and quiet axes.
    shadow : ndarray of float64, shape (k + q,)
        What the direction itself has on the loud and quiet axes, to be taken out of every row.
    axes : Axes
    length : float
        Squared length of the direction: 1, or 0 where the mean vanishes.
    signed : bool
        Whether any column is one-sided.
    """

    stacked: npt.NDArray[np.float32]
    shadow: Floats
    axes: Axes
    length: float
    signed: bool

    @classmethod
    def of(cls, axes: Axes) -> Screen:
        """Return the screen of a space's axes."""
        both = np.concatenate([axes.loud, axes.quiet])
        stacked = np.concatenate([axes.direction[None], both]).astype(np.float32)
        length = float(axes.direction @ axes.direction)
        return cls(stacked, both @ axes.direction, axes, length, bool(axes.signs.any()))

    def evidence(self, unit: Floats) -> Floats:
        """Return the numbers of every unit row, shape (n, 4)."""
        product = (unit.astype(np.float32) @ self.stacked.T).astype(np.float64)
        alignment, count, dim = product[:, 0], len(self.axes.loud), self.axes.dim
        beside = np.square(product[:, 1:] - alignment[:, None] * self.shadow)
        total = np.maximum(1.0 - np.square(alignment) * self.length, 0.0)
        energy = _log_share(beside[:, :count].sum(axis=1), total, count, dim)
        silence = -_log_share(beside[:, count:].sum(axis=1), total, len(self.axes.quiet), dim)
        return np.stack([alignment, _contrast(*_kept_signs(unit, self.axes)), energy, silence], axis=1)

    def row_evidence(self, query: npt.NDArray[np.float32]) -> list[float]:
        """Return the numbers of one row, shape (d,), not of unit length; floats, because a single query waits."""
        axes = self.axes
        (alignment, loud, quiet), unit = self._energies(query)
        total = max(1.0 - alignment * alignment * self.length, 0.0)
        signs = _contrast(*_kept_signs(unit[None].astype(np.float64), axes)) if self.signed else (0.0,)
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
            from vecdb.kernels import screen  # numba is loaded by now, never by importing this module

            return screen.energies(query, self.stacked, self.shadow, count)
        wide = query.astype(np.float64)
        unit = (wide / math.sqrt(wide.dot(wide))).astype(np.float32)
        product = self.stacked.dot(unit)
        beside = product[1:] - float(product[0]) * self.shadow
        loud, quiet = beside[:count], beside[count:]
        return [float(product[0]), float(loud.dot(loud)), float(quiet.dot(quiet))], unit


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
    gram = unit @ unit.T
    weights = 1 / np.maximum((gram > _ALIKE).sum(axis=1), 1)
    means = gram.mean(axis=0)
    gram = gram - means - means[:, None] + means.mean()
    trace, square = float(np.trace(gram)), float(np.square(gram).sum())
    return Variety(trace * trace / square if square > 1e-24 else 0.0, max(trace, 0.0) / len(unit), weights)
