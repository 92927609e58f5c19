"""Transforms one after the other: the path of a version chain as one transform.

Invariant: a composed map claims nothing that its parts do not. It is "exact" only if every part is, and then it is one
rotation again, brought back to the nearest orthogonal matrix at every step, so that a chain of any length does not
drift. Affine parts fold into one form as far as their row factors allow. Quality is never composed: a composed path is
measured again. Nothing here knows the store: which path is taken is `graph`'s to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Affine, State, Transform
from vecdb.contracts.transform import ISOMETRIES, Direction, Isometry, checked_rows
from vecdb.errors import ArgumentError, DimensionError
from vecdb.paths.rotation import Rotation, Rows32, refuse_state

__all__ = ["Chain", "compose", "fold", "nearest_rotation"]

Rows64 = npt.NDArray[np.float64]

_TINY = 1e-12


def compose(parts: Sequence[Transform], *, normalise: Sequence[bool] | None = None) -> Transform:
    """Return the transform that applies `parts` from left to right.

    Parameters
    ----------
    parts : sequence of Transform
        At least one; each takes what the one before gives.
    normalise : sequence of bool, optional
        For each place between two parts: whether rows are divided by their norms there, because the space between is a
        cosine space and the next part was fitted on unit vectors. Default: nowhere.

    Returns
    -------
    Transform
        The part itself where there is one; one `Rotation` where all parts are exact isometries; else a `Chain`.

    Raises
    ------
    ArgumentError
        No part, or parts fitted to map queries and parts fitted to map stored vectors.
    DimensionError
        A part takes other widths than the one before gives.
    """
    between = [False] * (len(parts) - 1) if normalise is None else list(normalise)
    _check(parts, between)
    if len(parts) == 1:
        return parts[0]
    made = Chain(tuple(parts), tuple(between))
    return _rotation(made) if made.isometry == "exact" and all(map(_is_rotation, parts)) else made


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Several transforms as one.

    Attributes
    ----------
    parts : tuple of Transform
        At least two, from the source to the target.
    normalise : tuple of bool
        One fewer: whether rows are divided by their norms between two parts.
    """

    parts: tuple[Transform, ...]
    normalise: tuple[bool, ...]

    @property
    def source_dim(self) -> int:
        return self.parts[0].source_dim

    @property
    def target_dim(self) -> int:
        return self.parts[-1].target_dim

    @property
    def direction(self) -> Direction:
        return _direction(self.parts)

    @property
    def isometry(self) -> Isometry:
        if any(self._steps()):
            return "none"
        return min((part.isometry for part in self.parts), key=ISOMETRIES.index)

    @property
    def lipschitz(self) -> float | None:
        """The product of the parts' bounds; None where one is not known, or where rows are normalised between them."""
        bounds = [part.lipschitz for part in self.parts]
        known = [bound for bound in bounds if bound is not None]
        return float(np.prod(known)) if len(known) == len(bounds) and not any(self._steps()) else None

    def _steps(self) -> list[bool]:
        """Return where rows really are normalised: isometries keep unit vectors as they are."""
        plain = [part.isometry != "none" for part in self.parts]
        return [here and not all(plain[: place + 1]) for place, here in enumerate(self.normalise)]

    def apply(self, vectors: Rows32) -> Rows32:
        rows = checked_rows(vectors, self.source_dim)
        for part, after in zip(self.parts, [*self._steps(), False], strict=True):
            rows = part.apply(rows)
            rows = _unit(rows) if after else rows
        return rows

    def affine(self) -> Affine | None:
        form = self.parts[0].affine()
        for part, before in zip(self.parts[1:], self._steps(), strict=True):
            following = part.affine()
            if form is None or following is None:
                return None
            form = _normalised(form) if before else form
            form = None if form is None else fold(form, following)
        return None if form is None else _with_bias(form, self.parts)

    def inverse(self) -> Transform | None:
        """Return the inverses in reverse order; None where one is missing or rows are normalised on the way."""
        backward = [part.inverse() for part in reversed(self.parts)]
        found = [part for part in backward if part is not None]
        if len(found) < len(backward) or any(self._steps()):
            return None
        return compose(found)

    def companion(self) -> None:
        return None

    def uncertainty(self, vectors: Rows32) -> Rows32 | None:
        """Return the errors of the parts, each stretched by the bounds of those after it; None where one is unknown."""
        rows, total = checked_rows(vectors, self.source_dim), np.zeros(len(vectors))
        for part, after in zip(self.parts, [*self._steps(), False], strict=True):
            errors, bound = part.uncertainty(rows), part.lipschitz
            exact = part.isometry == "exact"
            if (errors is None and not exact) or bound is None:
                return None
            total = total * bound * bound + (0.0 if errors is None else errors.astype(np.float64))
            rows = part.apply(rows)
            rows = _unit(rows) if after else rows
        return total.astype(np.float32)

    def state(self) -> State:
        """Refuse: the parts are stored, each under its own kind; their path is found again when it is needed."""
        raise refuse_state()


def fold(first: Affine, second: Affine) -> Affine | None:
    """Return the form of two affine maps, the first one's result given to the second; None where there is none.

    Row biases belong to scores and not to the map: they are left out.

    Parameters
    ----------
    first, second : Affine
        Not both with a row factor: the product of two is a factor again, but what the first adds behind its own is not.
    """
    W = first.W @ second.W
    scale = first.row_scale
    if second.row_scale is None:
        shift = (_shift(first) @ second.W) + second.b + _shift(second)
        return Affine(W, first.b @ second.W, shift, scale) if scale else Affine(W, first.b @ second.W + shift)
    if scale is not None:
        return None
    rows_of, outer = first.apply, second.row_scale
    b = (first.b + _shift(first)) @ second.W + second.b
    return Affine(W, b, second.shift, lambda vectors: outer(rows_of(vectors)))


def _shift(form: Affine) -> Rows64:
    return np.zeros(form.W.shape[1]) if form.shift is None else form.shift


def _normalised(form: Affine) -> Affine | None:
    """Return the form of a map whose rows are then divided by their norms; None where a row factor is there already."""
    if form.row_scale is not None:
        return None
    plain = Affine(form.W, form.b + _shift(form))
    return Affine(plain.W, plain.b, None, lambda vectors: _reciprocal_norms(plain.apply(vectors)))


def _reciprocal_norms(rows: Rows32) -> Rows32:
    factors: Rows32 = (1.0 / np.maximum(np.linalg.norm(rows, axis=1), _TINY)).astype(np.float32)
    return factors


def _unit(rows: Rows32) -> Rows32:
    unit: Rows32 = rows * _reciprocal_norms(rows)[:, None]
    return unit


def _with_bias(form: Affine, parts: Sequence[Transform]) -> Affine | None:
    """Add the row bias of the stored rows' own part: the last for queries, the first for stored vectors."""
    forms = [part.affine() for part in parts]
    own = forms[0] if _direction(parts) == "gallery" else forms[-1]
    others = [each for each in forms if each is not own]
    if any(each is None or each.row_bias is not None for each in others) or own is None:
        return None
    return Affine(form.W, form.b, form.shift, form.row_scale, own.row_bias)


# --- rotations --------------------------------------------------------------------------------------------


def nearest_rotation(W: Rows64) -> Rows64:
    """Return the orthogonal matrix nearest to one that is almost orthogonal: a Newton-Schulz step to its polar factor.

    ``W (3 I - W'W) / 2`` squares the error (Higham, "Functions of Matrices", section 8.3): 1e-6 becomes 1e-12.
    """
    step: Rows64 = 0.5 * (3.0 * W - W @ (W.T @ W))
    return step


def _is_rotation(part: Transform) -> bool:
    form = part.affine() if part.isometry == "exact" else None
    return form is not None and not form.b.any() and form.row_scale is None and form.shift is None


def _rotation(chain: Chain) -> Rotation:
    W = np.eye(chain.source_dim)
    for part in chain.parts:
        form = part.affine()
        if form is not None:
            W = nearest_rotation(W @ form.W)
    rounded = np.array(W, dtype=np.float32, order="C")
    rounded.flags.writeable = False
    return Rotation(rounded, chain.direction)


# --- what fits together -----------------------------------------------------------------------------------


def _check(parts: Sequence[Transform], between: Sequence[bool]) -> None:
    if not parts or len(between) != len(parts) - 1:
        raise ArgumentError(f"{len(parts)} transforms with {len(between)} places between them cannot be composed")
    for one, other in pairwise(parts):
        if one.target_dim != other.source_dim:
            raise DimensionError(
                f"a transform to {one.target_dim} columns is followed by one from {other.source_dim}",
                expected=one.target_dim,
                got=other.source_dim,
                where="composed transforms",
            )
    _direction(parts)


def _direction(parts: Sequence[Transform]) -> Direction:
    """Return what all parts map: an exact isometry fitted for one side does for the other."""
    wanted = {part.direction for part in parts if part.direction != "both" and part.isometry != "exact"}
    if len(wanted) > 1:
        raise ArgumentError(
            "transforms fitted to map queries and transforms fitted to map stored vectors cannot be composed",
            hint="A map of queries and a map of stored vectors are two fits; fit the one that is missing.",
        )
    if wanted:
        return wanted.pop()
    sides = {part.direction for part in parts} - {"both"}
    return sides.pop() if len(sides) == 1 else "both"
