"""The transform contract: maps from the vectors of one model to those of another, fitted on records known in both.

Rows are vectors and maps stand on the right, ``x @ W``, everywhere. A map for queries and a map for stored vectors are
two fits: the inverse of one is never used as the other, unless it is an exact isometry. The engine keeps the fitted
state, the pairs it was fitted on and what it was measured at; a transform only maps. The numbered rules:
docs/reference/transform-contract.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.contracts.quiet import never, silent
from vecdb.contracts.state import State
from vecdb.errors import DimensionError
from vecdb.types import CancelCheck, Progress, Space

__all__ = [
    "DIRECTIONS",
    "ISOMETRIES",
    "TRANSFORM_NEEDS",
    "WIDTHS",
    "Affine",
    "FitData",
    "Pairs",
    "Transform",
    "TransformCapabilities",
    "TransformType",
    "checked_rows",
]

Matrix = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
RowFunction: TypeAlias = Callable[[Matrix], Vector]
"""From rows, shape (n, d), to one number each, float32, shape (n,)."""

Role: TypeAlias = Literal["query", "gallery"]
Direction: TypeAlias = Literal["query", "gallery", "both"]
Isometry: TypeAlias = Literal["exact", "semi", "none"]
Need: TypeAlias = Literal["pairs", "queries", "labels", "groups", "validation"]
Width: TypeAlias = Literal["equal", "wider", "narrower"]

ISOMETRIES: tuple[Isometry, ...] = ("none", "semi", "exact")
"""From the weakest claim to the strongest."""
DIRECTIONS: tuple[Direction, ...] = ("query", "gallery", "both")
TRANSFORM_NEEDS: tuple[Need, ...] = ("pairs", "queries", "labels", "groups", "validation")
WIDTHS: tuple[Width, ...] = ("equal", "wider", "narrower")


@dataclass(frozen=True, slots=True)
class TransformCapabilities:
    """What every transform of a type is good for, whatever its parameters. Each default is the careful one.

    Attributes
    ----------
    requires : frozenset of {"pairs", "queries", "labels", "groups", "validation"}
        Parts of `FitData` without which there is no fit; the engine refuses before the plugin is asked.
    min_pairs : int
        Fewest pairs that any fit needs; one with parameters of its own may need more, and raises `FitError`.
    widths : frozenset of {"equal", "wider", "narrower"}
        How the target's width may differ from the source's; other spaces are refused before the plugin is asked.
    directions : frozenset of {"query", "gallery"}
        Roles it can be fitted for.
    isometry : {"none", "semi", "exact"}
        The least that every fit claims, see `Transform.isometry`; a fit may claim more.
    affine, invertible : bool
        Every fit has an affine form; every fit to a space of the same width has an exact inverse.
    row_wise : bool
        What becomes of a row does not depend on the other rows. Without it the transform is applied to whole
        collections only and never to queries.
    deterministic : bool
        The same data, parameters and state of `FitData.rng` give the same transform.
    joint : bool
        The result does not lie in the target space but in a third one of `Transform.target_dim` columns, into which
        the target's own vectors are mapped, too (`Transform.companion`).
    """

    requires: frozenset[Need] = frozenset({"pairs"})
    min_pairs: int = 1
    widths: frozenset[Width] = frozenset({"equal"})
    directions: frozenset[Role] = frozenset({"query", "gallery"})
    isometry: Isometry = "none"
    affine: bool = False
    invertible: bool = False
    row_wise: bool = False
    deterministic: bool = False
    joint: bool = False


@dataclass(frozen=True, slots=True)
class Pairs:
    """Records that are known in both spaces; row i of both is the same record.

    Attributes
    ----------
    source : ndarray of float32, shape (n, d)
    target : ndarray of float32, shape (n, e)
    labels, groups : ndarray of int64, shape (n,), or None
    """

    source: Matrix
    target: Matrix
    labels: Integers | None = None
    groups: Integers | None = None


@dataclass(frozen=True, slots=True)
class FitData:
    """What a transform is fitted on. Arrays are C-contiguous, finite, read-only and lent until `fit` returns.

    In a cosine space every row has norm 1.

    Attributes
    ----------
    source_space, target_space : Space
    source : ndarray of float32, shape (n, d)
        Vectors of n records in the space that is mapped from; n may be 0 where `requires` has no "pairs".
    target : ndarray of float32, shape (n, e)
        The same records in the space that is mapped to; where `requires` has no "pairs" it may have no row although
        `source` has some: such kinds learn from the source alone.
    queries : ndarray of float32, shape (q, d or e), or None
        Real queries without answers, in the space in which queries are asked: the source space if the role is
        "query", else the target space.
    queries_across : ndarray of float32, shape (p, e or d), or None
        The first p of `queries` in the other space, p at most q: how the model of what is stored embeds them.
    stored : ndarray of float32, shape (s, e or d), or None
        Vectors without partners in the space of what is stored and searched (the target space if the role is "query",
        else the source space): what a map of queries will meet, or what a map of stored vectors will map.
    labels : ndarray of int64, shape (n,), or None
        Class of each record; negative: not known.
    groups : ndarray of int64, shape (n,), or None
        Records of one group belong together and must not be split between fitting and validating.
    validation : Pairs or None
        Pairs kept back, to choose by; no group of theirs is among those of `source`.
    role : {"query", "gallery"}
        What will be mapped: queries, over stored vectors of the target space; or stored vectors, for queries of the
        target space.
    rng : numpy.random.Generator
        The only source of randomness.
    progress : callable
        ``progress(done, total)`` in steps of the plugin's own.
    cancel : callable
        Asked between steps: a true answer ends the fit with `CancelledError`.
    """

    source_space: Space
    target_space: Space
    source: Matrix
    target: Matrix
    role: Role
    rng: np.random.Generator
    queries: Matrix | None = None
    labels: Integers | None = None
    groups: Integers | None = None
    validation: Pairs | None = None
    queries_across: Matrix | None = None
    stored: Matrix | None = None
    progress: Progress = silent
    cancel: CancelCheck = never


@dataclass(frozen=True, slots=True)
class Affine:
    """The form by which a map is folded into a search: ``f(x) = row_scale(x) * (x @ W + b) + shift``.

    A query q over stored vectors x that were never mapped then costs one product per query and nothing per row:
    ``<q, f(x)> = row_scale(x) * (<q @ W.T, x> + <q, b>) + <q, shift>``, and the final score of x is that plus
    ``row_bias(x)``.

    Attributes
    ----------
    W : ndarray of float64, shape (d, e)
    b : ndarray of float64, shape (e,)
    shift : ndarray of float64, shape (e,), or None
        What no row factor multiplies; None: nothing.
    row_scale : callable or None
        From mapped rows, float32, shape (n, d), to one positive finite float32 each; None: 1.
    row_bias : callable or None
        From stored rows (of the target space for a map of queries, of the source space for a map of stored vectors)
        to one finite float32 each, added to their scores; None: 0. It is not part of ``f``.
    """

    W: npt.NDArray[np.float64]
    b: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64] | None = None
    row_scale: RowFunction | None = None
    row_bias: RowFunction | None = None

    def apply(self, vectors: Matrix) -> Matrix:
        """Return ``f`` of each row, computed in float64 and rounded to float32 at the end.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n, d)

        Returns
        -------
        ndarray of float32, shape (n, e)
        """
        mapped = vectors.astype(np.float64) @ self.W + self.b
        if self.row_scale is not None:
            mapped *= self.row_scale(vectors).astype(np.float64)[:, None]
        if self.shift is not None:
            mapped += self.shift
        return mapped.astype(np.float32)


@runtime_checkable
class Transform(Protocol):
    """A fitted map. It never changes, and several threads may apply it at once.

    Attributes
    ----------
    source_dim, target_dim : int
        Columns of what it takes and of what it gives.
    direction : {"query", "gallery", "both"}
        What it was fitted to map; "both" only where it maps queries and stored vectors alike.
    isometry : {"none", "semi", "exact"}
        "semi": inner products of any two vectors are kept. "exact": that, and every vector of the target width is
        the image of one (an orthogonal map).
    lipschitz : float or None
        A bound of ``|f(x) - f(y)| / |x - y|`` for all x and y; None: not known.
    """

    @property
    def source_dim(self) -> int: ...
    @property
    def target_dim(self) -> int: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def isometry(self) -> Isometry: ...
    @property
    def lipschitz(self) -> float | None: ...

    def apply(self, vectors: Matrix) -> Matrix:
        """Map vectors, row by row.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n, source_dim)
            C-contiguous, read-only, finite; of norm 1 in a cosine space. n may be 0.

        Returns
        -------
        ndarray of float32, shape (n, target_dim)
            New and finite. In a cosine space the engine divides by the norm.

        Raises
        ------
        DimensionError
            If the rows have another width.
        """
        ...

    def affine(self) -> Affine | None:
        """Return the same map as a formula, None where it is none."""
        ...

    def inverse(self) -> Transform | None:
        """Return the exact inverse, None where there is none: what cannot be undone is fitted in reverse instead."""
        ...

    def companion(self) -> Transform | None:
        """Return the map of the target's own vectors into the joint space; None where they stay as they are."""
        ...

    def uncertainty(self, vectors: Matrix) -> Vector | None:
        """Return the expected squared error of each mapped row, float32, shape (n,), not negative; None: unknown."""
        ...

    def state(self) -> State:
        """Return everything that `TransformType.load` needs, as plain values and arrays."""
        ...


@runtime_checkable
class TransformType(Protocol):
    """A kind of transform, registered under a name; stateless.

    Attributes
    ----------
    name : str
        Lower case; with a prefix, ``"acme.affine"``, unless it is part of vecdb.
    version : int
        Of the stored state. A transform stored by another version is unavailable until it is fitted again.
    capabilities : TransformCapabilities
    parameters : mapping of str to Param
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def capabilities(self) -> TransformCapabilities: ...
    @property
    def parameters(self) -> Mapping[str, Param]: ...

    def fit(self, data: FitData, params: Mapping[str, Any]) -> Transform:
        """Fit a map from the source to the target.

        Parameters
        ----------
        data : FitData
        params : mapping
            Every declared parameter, checked.

        Raises
        ------
        FitError
            Too few pairs, or pairs that do not determine the map.
        CancelledError
            `FitData.cancel` said stop.
        """
        ...

    def load(self, state: State) -> Transform:
        """Return the transform whose `Transform.state` this is.

        Raises
        ------
        CorruptionError
            If it is not what `state` returns. Nothing stored may be trusted: names, shapes and numbers are checked.
        """
        ...


def checked_rows(vectors: Matrix, width: int) -> Matrix:
    """Return rows to be mapped.

    Raises
    ------
    DimensionError
        If they have another width.
    """
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise DimensionError(
            f"a transform was given rows of shape {vectors.shape}, expected (n, {width})",
            hint="Rows to be mapped have the width of the source space.",
            expected=width,
            got=vectors.shape,
            where="rows to be mapped",
        )
    return vectors
