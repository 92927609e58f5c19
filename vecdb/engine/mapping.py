"""Vectors of one space mapped to another along stored transforms, outside of any search."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.contracts.transform import Role, Transform
from vecdb.engine import transformborder as border
from vecdb.engine.pairing import directed
from vecdb.engine.transforms import Loaded, edges, find_transform, load_transform
from vecdb.engine.view import CollectionView
from vecdb.errors import SpaceMismatchError, StateError
from vecdb.paths.graph import Path, Step, paths, preference
from vecdb.registry import PluginRegistry
from vecdb.types import Space

F32 = npt.NDArray[np.float32]


def map_vectors(
    view: CollectionView, source: Space, target: Space, rows: F32, role: Role, registry: PluginRegistry
) -> F32:
    """Return the images of vectors, float32, shape (n, target.dim); of norm 1 in a cosine space.

    Parameters
    ----------
    role : {"query", "gallery"}
        What the vectors are used as: maps of queries and maps of stored vectors are different fits.

    Raises
    ------
    SpaceMismatchError
        No path of transforms for this role.
    """
    known = edges(view.entry, registry)
    if role == "query":
        found = [path for path in paths(known, source.name, target.name) if not path.gallery]
    else:
        found = [path for path in paths(known, target.name, source.name) if not path.query]
    if not found:
        raise SpaceMismatchError(
            f"there is no transform of {'queries' if role == 'query' else 'stored vectors'} "
            f"from space {source.name!r} to {target.name!r}",
            hint="Fit one with fit_transform().",
            query_space=source.name,
            available=[edge.key for edge in known],
        )
    best: Path = min(found, key=preference)
    steps = best.query or best.gallery
    if role == "gallery" or len(rows) < 2:
        return walk(view, steps, rows, registry)
    # Products of single rows and of many differ in their last bits: queries get the bits that a search gives them.
    return np.concatenate([walk(view, steps, rows[row : row + 1], registry) for row in range(len(rows))])


def walk(view: CollectionView, steps: tuple[Step, ...], rows: F32, registry: PluginRegistry) -> F32:
    """Return rows after the steps of a path, one after the other, each on the rows that its space stands for."""
    spaces = view.entry.spaces
    for step in steps:
        loaded, made = step_map(view, step, registry)
        given = directed(rows, spaces[step.start].metric)
        rows = border.apply(loaded.provided, made, given, spaces[step.end].dim)
        rows = directed(rows, spaces[step.end].metric)
    return np.ascontiguousarray(rows, np.float32)


def step_map(view: CollectionView, step: Step, registry: PluginRegistry) -> tuple[Loaded, Transform]:
    """Return the loaded transform of a step, and the map that is applied: the transform or its inverse.

    Raises
    ------
    StateError
        An exact isometry that has no inverse after all.
    """
    entry = find_transform(view.entry, step.edge.key)
    loaded = load_transform(view.snapshot, view.entry, entry, registry)
    if not step.inverted:
        return loaded, loaded.transform
    with border.guarded(loaded.provided, "inverse"):
        back = loaded.transform.inverse()
    if back is None:
        raise StateError(f"transform {entry.name!r} says that it is an exact isometry, and has no inverse")
    return loaded, border.checked(loaded.provided, back, loaded.target, loaded.source)
