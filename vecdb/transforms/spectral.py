"""`whiten`, `pca` and `abtt`: what a space's own covariance suggests; queries and stored vectors are mapped alike.

They read the source rows alone: the target is the same model's space after the map, and its width says how many
components are kept. `whiten`: Su et al., "Whitening sentence representations" (2021); Yokoi et al., "Zipfian
whitening" (NeurIPS 2024) for the weights. `abtt`: Mu and Viswanath, "All-but-the-top" (ICLR 2018), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.contracts.transform import Width
from vecdb.errors import FitError
from vecdb.transforms.affine import AffineMap, Formula, load_affine
from vecdb.transforms.pairs import Rows64, fit_rows

__all__ = ["AbttType", "PcaType", "Spectrum", "WhitenType", "spectrum_of"]

_LEAST = 3
_CENTER = Param("bool", True, "Take the mean away first.")


class Spectrum(NamedTuple):
    """Mean, eigenvalues and axes (in columns) of a covariance, the largest first."""

    mean: Rows64
    values: npt.NDArray[np.float64]
    axes: Rows64


def spectrum_of(rows: Rows64, *, center: bool = True, zipf: float = 0.0) -> Spectrum:
    """Return the eigenvectors of the covariance of some rows.

    Parameters
    ----------
    rows : ndarray of float64, shape (n, d)
    center : bool, default True
    zipf : float, default 0.0
        Row i weighs ``(i + 1) ** -zipf``: rows are given the most frequent first.
    """
    weights = np.arange(1.0, len(rows) + 1.0) ** -zipf
    weights /= weights.sum()
    mean = weights @ rows if center else np.zeros(rows.shape[1])
    away = rows - mean
    values, axes = np.linalg.eigh((away.T * weights) @ away)
    axes *= np.where(np.abs(axes).max(0) == axes.max(0), 1.0, -1.0)  # the largest component is positive: one sign only
    return Spectrum(mean, np.maximum(values[::-1], 0.0), np.ascontiguousarray(axes[:, ::-1]))


def _able(*widths: Width) -> TransformCapabilities:
    return TransformCapabilities(
        requires=frozenset(), min_pairs=0, widths=frozenset(widths), affine=True, row_wise=True, deterministic=True
    )


@dataclass(frozen=True, slots=True)
class WhitenType:
    """``(x - m) C^(-1/2)``: every direction equally wide."""

    name: str = "whiten"
    version: int = 1
    capabilities: TransformCapabilities = field(default=_able("equal", "narrower"))
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "center": _CENTER,
            "rotate": Param("bool", False, "Leave the result on the principal axes; a narrower target always is."),
            "shrink": Param("float", 1e-3, "Added to the eigenvalues, relative to their mean.", 0.0, 1e3),
            "zipf": Param(
                "float", 0.0, "Row i weighs (i + 1) to minus this: rows are given the most frequent first.", 0.0, 4.0
            ),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        rows, width = _rows(data, self.name)
        found = spectrum_of(rows, center=params["center"], zipf=params["zipf"])
        values = found.values[:width] + params["shrink"] * max(float(found.values.mean()), 1e-300)
        if values[-1] <= found.values[0] * 1e-14:
            raise FitError(
                f"whiten was given rows that leave {int((values <= found.values[0] * 1e-14).sum())} of {width} columns"
                " without variance",
                hint="Give more rows, or a shrink above 0.",
                pairs=len(rows),
                needed=width + 1,
            )
        W = found.axes[:, :width] / np.sqrt(values)
        if width == rows.shape[1] and not params["rotate"]:
            W = W @ found.axes.T
        return _both(W, found.mean, data)

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


@dataclass(frozen=True, slots=True)
class PcaType:
    """``(x - m) V``: the leading principal components, as many as the target has columns."""

    name: str = "pca"
    version: int = 1
    capabilities: TransformCapabilities = field(default=_able("equal", "narrower"))
    parameters: Mapping[str, Param] = field(default_factory=lambda: {"center": _CENTER})

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        rows, width = _rows(data, self.name)
        found = spectrum_of(rows, center=params["center"])
        return _both(found.axes[:, :width], found.mean, data, rotation=not params["center"])

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


@dataclass(frozen=True, slots=True)
class AbttType:
    """``(x - m) (I - V V')``: without the mean and the leading components, which say more of the model than of x."""

    name: str = "abtt"
    version: int = 1
    capabilities: TransformCapabilities = field(default=_able("equal"))
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "center": _CENTER,
            "components": Param("int", 0, "How many are removed; 0: one for each 100 columns, at least 1.", 0, 65_535),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        rows, width = _rows(data, self.name)
        removed = params["components"] or max(1, width // 100)
        if removed >= width:
            raise FitError(
                f"abtt is to remove {removed} of {width} components, expected fewer",
                pairs=len(rows),
                needed=_LEAST,
            )
        found = spectrum_of(rows, center=params["center"])
        top = found.axes[:, :removed]
        return _both(np.eye(width) - top @ top.T, found.mean, data)

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def _rows(data: FitData, owner: str) -> tuple[Rows64, int]:
    return fit_rows(data, _LEAST, owner=owner), data.target.shape[1]


def _both(W: Rows64, mean: Rows64, data: FitData, *, rotation: bool = False) -> AffineMap:
    """Return a map for queries and stored vectors alike; it has an inverse where no direction is lost."""
    exact = rotation and W.shape[0] == W.shape[1]
    formula = Formula(W, -mean @ W, np.zeros(W.shape[1]))
    return AffineMap.of(formula, data, isometry="exact" if exact else "none", reversible=True, direction="both")
