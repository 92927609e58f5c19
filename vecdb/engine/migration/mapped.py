"""Materialising a map: every record gets the image of its old vector, in a space that says by which transforms.

Mapped vectors are not the new model's, so they never share a space with it: they get one of their own, with the
identity between the two as a bridge and the transform's reference rows to calibrate by. Searches in the new space then
reach them like any other class, the old space can go, and a later migration from the mapped space embeds for real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from vecdb.engine.mapping import step_map, walk
from vecdb.engine.migration.encoders import Encoded
from vecdb.engine.pairing import directed
from vecdb.engine.transforms import NewTransform, edges, find_transform, retention_of
from vecdb.engine.view import CollectionView
from vecdb.errors import SpaceMismatchError, UnknownNameError
from vecdb.paths.graph import Path, paths, preference
from vecdb.registry import PluginRegistry
from vecdb.types import Record, Space

Open = Callable[[], AbstractContextManager[CollectionView]]
KIND = "identity"


@dataclass(frozen=True, slots=True)
class Images:
    """What a migration of maps needs before it can begin: the space of the images, and the bridge to it."""

    space: Space
    transforms: tuple[str, ...]


def space_name(target: str) -> str:
    """Return the name of the space that holds the images of old vectors."""
    return f"{target}-mapped"


def plan_images(view: CollectionView, source: Space, target: Space, registry: PluginRegistry) -> Images:
    """Return the space of the images, to be added, and the transforms that make them.

    Raises
    ------
    SpaceMismatchError
        No transforms of stored vectors lead from source to target.
    """
    known = edges(view.entry, registry)
    found = [path for path in paths(known, target.name, source.name) if not path.query]
    if not found:
        raise SpaceMismatchError(
            f"there is no transform of stored vectors from space {source.name!r} to {target.name!r}",
            hint="Fit one with fit_transform(source, target, direction='gallery').",
            query_space=target.name,
            available=[edge.key for edge in known],
        )
    names = tuple(step.edge.key for step in min(found, key=preference).gallery)
    model = f"{target.model or target.name}, mapped from {source.model or source.name} by {' and '.join(names)}"
    space = Space(
        space_name(target.name), target.dim, target.metric, "float32", model[:1000], target.revision, "document"
    )
    return Images(space, names)


def bridge_to(
    view: CollectionView, source: Space, target: Space, images: Space, names: Sequence[str], registry: PluginRegistry
) -> NewTransform:
    """Return the identity from the target to the space of the images, with rows to calibrate by where there are any."""
    steps = _path(view, source, target, names, registry).gallery
    provided = registry.find("transform", KIND)
    made = provided.thing.load({"source_dim": target.dim, "target_dim": images.dim})
    reference = None
    loaded, _ = step_map(view, steps[0], registry)
    if len(steps) == 1 and loaded.reference is not None and not steps[0].inverted:
        old, new = loaded.reference
        reference = (new, walk(view, steps, old, registry))
    retention = retention_of(find_transform(view.entry, names[0])) if len(names) == 1 else None
    quality = {} if retention is None else {"retention": retention}
    facts = {"images": list(names)}
    return NewTransform(target, images, provided, made, reference=reference, quality=quality, provenance=facts)


def _path(view: CollectionView, source: Space, target: Space, names: Sequence[str], registry: PluginRegistry) -> Path:
    for path in paths(edges(view.entry, registry), target.name, source.name):
        if not path.query and [step.edge.key for step in path.gallery] == list(names):
            return path
    raise UnknownNameError(
        f"the transforms {list(names)} no longer lead from space {source.name!r} to {target.name!r}",
        hint="Roll the migration back, and begin another.",
        kind="transform",
        name=", ".join(names),
    )


@dataclass(slots=True)
class Mapper:
    """Makes images of old vectors in the place of an encoder.

    Attributes
    ----------
    space : Space
        That of the images.
    source, target : Space
        What the transforms map between.
    """

    space: Space
    source: Space
    target: Space
    names: Sequence[str]
    registry: PluginRegistry
    view: Open

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Return the images of the records' vectors in the source space, which they were read with."""
        rows = np.stack([np.asarray(record.vectors[self.source.name], np.float32) for record in records])
        with self.view() as view:
            steps = _path(view, self.source, self.target, self.names, self.registry).gallery
            images = walk(view, steps, rows, self.registry)
        return Encoded(list(range(len(records))), directed(images, self.space.metric), {})
