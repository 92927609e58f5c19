"""What rows and queries of a joint space look like.

A row is ``[y E, -mark]`` if its record has a new vector y, else ``[x, 0, mark]`` of the old one, x unchanged. What is
added to the scores of old rows for a new query is linear in x, and goes into the query. The last column tells the two
sides apart: a query that weighs it with ``+weight`` or ``-weight`` lifts one side by twice their product above the
other, so that one index, asked once for each side, gives the best of either in its own order. No scale between the
sides has to be guessed. All of it only nominates: final scores are those of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.contracts.transform import Affine, Transform
from vecdb.engine import transformborder as border
from vecdb.engine.bridge.folding import pull_of
from vecdb.engine.pairing import directed
from vecdb.engine.transforms import Loaded
from vecdb.errors import ParameterError, StateError
from vecdb.registry import Provided
from vecdb.storage.joints import JointEntry
from vecdb.types import Space

F32 = npt.NDArray[np.float32]
Side: TypeAlias = Literal["new", "old"]

MARK: Final = 0.6
"""In the last column of a row: no larger than needed, because it takes its part of what codes can tell."""
WEIGHT: Final = 0.6
"""In the last column of a query. One side is lifted by 0.72: more than the best of the two differ by. Where that is not
enough, what is found of the wrong side is left out, and the index is asked for the right one alone."""
EXTRA: Final = 1
"""Columns behind those of the transform: the mark."""


@dataclass(frozen=True, slots=True, eq=False)
class JointMaps:
    """The two sides of a joint transform, as rows and queries of a joint space are made with them.

    Attributes
    ----------
    provided : Provided
    asking, storing : Transform
        Of new vectors, asked and stored alike, and of old ones.
    base : ndarray of float64, shape (old.dim, width)
        What old vectors are multiplied with.
    pull : ndarray of float64, shape (old.dim,)
        ``<pull, x>`` is added to the score of an old row x for a new query.
    old, new : Space
    mark, weight : float
    """

    provided: Provided
    asking: Transform
    storing: Transform
    base: npt.NDArray[np.float64]
    pull: npt.NDArray[np.float64]
    old: Space
    new: Space
    mark: float
    weight: float

    @property
    def width(self) -> int:
        """Columns of the transform."""
        return int(self.asking.target_dim)

    @property
    def dim(self) -> int:
        """Columns of a row."""
        return self.width + EXTRA

    def rows(self, vectors: F32, side: Side) -> F32:
        """Return the rows of vectors of one of the spaces, float32, shape (n, dim).

        Parameters
        ----------
        vectors : ndarray of float32, shape (n, d)
        side : {"new", "old"}
        """
        metric, made = (self.new.metric, self.asking) if side == "new" else (self.old.metric, self.storing)
        given = directed(vectors, metric)
        wide = np.zeros((len(given), self.dim), np.float32)
        wide[:, : self.width] = border.apply(self.provided, made, given, self.width)
        wide[:, -1] = self.mark if side == "old" else -self.mark
        return wide

    def asked(self, queries: F32, given: Side, side: Side) -> F32:
        """Return queries as the rows of one side are asked, float32, shape (n, dim).

        Parameters
        ----------
        queries : ndarray of float32, shape (n, d)
        given : {"new", "old"}
            The model that they come from.
        side : {"new", "old"}
            Whose rows are wanted.
        """
        space, made = (self.new, self.asking) if given == "new" else (self.old, self.storing)
        wide = np.zeros((len(queries), self.dim), np.float32)
        for row in range(len(queries)):  # one by one: the same bits in any company
            image = border.apply(self.provided, made, directed(queries[row : row + 1], space.metric), self.width)
            if side == "old" and given == "new":  # what old rows do not have only leads a walk astray
                image = ((image.astype(np.float64) @ self.base.T + self.pull) @ self.base).astype(np.float32)
            wide[row, : self.width] = image[0]
        wide[:, -1] = self.weight if side == "old" else -self.weight
        return wide


def maps_of(loaded: Loaded, entry: JointEntry) -> JointMaps:
    """Return the maps of a joint space, whose transform was loaded.

    Raises
    ------
    StateError
        The transform has no other side, no affine form, or does not keep the new model's inner products.
    """
    with border.guarded(loaded.provided, "companion"):
        other = loaded.transform.companion()
    if other is None:
        raise StateError(f"transform {loaded.name!r} is joint and has no companion")
    by_new = loaded.source.id == entry.new
    asking, storing = (loaded.transform, other) if by_new else (other, loaded.transform)
    main, form = _affine(loaded, loaded.transform), _affine(loaded, storing)
    if main is None or form is None or form.row_scale is not None or form.b.any():
        raise StateError(f"old vectors of transform {loaded.name!r} do not lie in its space as they are")
    old, new = (loaded.target, loaded.source) if by_new else (loaded.source, loaded.target)
    base = np.asarray(form.W, np.float64)
    pull = np.zeros(old.dim) if main.row_bias is None else pull_of(main.row_bias, old.dim)
    if pull is None:
        raise StateError(f"the bias of transform {loaded.name!r} is not linear in the vectors of its old space")
    return JointMaps(loaded.provided, asking, storing, base, pull, old, new, entry.mark, entry.weight)


def _affine(loaded: Loaded, made: Transform) -> Affine | None:
    with border.guarded(loaded.provided, "affine"):
        return made.affine()


def new_side(loaded: Loaded) -> Space:
    """Return the space whose vectors a joint transform maps alike, asked or stored, keeping their inner products.

    Raises
    ------
    ParameterError
        It keeps those of neither space, or one of them is no cosine space.
    """
    with border.guarded(loaded.provided, "companion"):
        other = loaded.transform.companion()
    sides = ((loaded.transform, loaded.source), (other, loaded.target))
    found = [
        space for made, space in sides if made is not None and made.direction == "both" and made.isometry != "none"
    ]
    if not loaded.entry.joint or len(found) != 1:
        raise ParameterError(
            f"transform {loaded.name!r} of kind {loaded.entry.kind!r} does not keep new vectors whole in a joint space",
            hint="Fit one of kind 'bt2' or 'oca' that drops no columns (columns=-1).",
            name="transform",
            got=loaded.entry.kind,
            allowed="a joint transform that keeps inner products",
        )
    for space in (loaded.source, loaded.target):
        if space.metric != "cosine":
            raise ParameterError(
                f"space {space.name!r} compares by {space.metric!r}; a joint space is made of cosine spaces",
                name="transform",
                got=space.metric,
                allowed="cosine",
            )
    return found[0]
