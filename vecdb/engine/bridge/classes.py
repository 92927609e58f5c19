"""Which vectors of a collection a query can be compared with, and how it gets there.

A class is the vectors of one space with one way to them: direct where the query was given in that space, else the best
path of transforms. A path whose transforms cannot be loaded gives way to the next best, and a note says why. Classes
are in order of preference: a record that has vectors in several is answered by the first. Everything here is
remembered while the catalog and the plugins stay the same.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts.transform import Affine, Transform
from vecdb.engine import transformborder as border
from vecdb.engine.bridge.folding import Fold, Tables, pull_of
from vecdb.engine.mapping import step_map
from vecdb.engine.pairing import directed
from vecdb.engine.transforms import Loaded, edges, find_transform, load_transform, retention_of, unavailable
from vecdb.engine.view import CollectionView
from vecdb.errors import PluginError, StateError, StorageError
from vecdb.paths.compose import compose
from vecdb.paths.graph import Edge, Path, paths, preference
from vecdb.registry import PluginRegistry
from vecdb.storage.state import CollectionEntry
from vecdb.types import Metric, Space

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """One map of queries on the way: the transform that is stored, what is applied, and between which spaces.

    `joint` maps lead to a third space, whose metric is the cosine, or the inner product where rows have a bias.
    """

    loaded: Loaded
    made: Transform
    start: Space
    metric: Metric
    width: int
    inverted: bool = False
    joint: bool = False

    def __call__(self, query: F32) -> F32:
        """Return the image of one query, shape (1, d)."""
        mapped = border.apply(self.loaded.provided, self.made, directed(query, self.start.metric), self.width)
        return directed(mapped, self.metric)


@dataclass(frozen=True, slots=True, eq=False)
class VectorClass:
    """The vectors of one space, and the way of a query to them.

    Attributes
    ----------
    space : Space
        Whose vectors they are.
    asked : Space
        In which the query is given.
    origin : str
        What hits are marked with: "native", "bridged:NAME" with the names of the transforms, or "mapped:NAME" where the
        stored vectors are images that these made.
    walks : tuple of Walk
        Maps of the query, in order.
    fold : Fold or None
        What is made of stored vectors on the fly.
    gallery : tuple of (Loaded, Transform)
        The maps of stored vectors that `fold` consists of.
    meets : Space or None
        Where these lead.
    derived : dict
        What searches made of it.
    """

    space: Space
    asked: Space
    origin: str = "native"
    walks: tuple[Walk, ...] = ()
    fold: Fold | None = None
    gallery: tuple[tuple[Loaded, Transform], ...] = ()
    meets: Space | None = None
    derived: dict[Any, Any] = field(default_factory=dict)

    @property
    def direct(self) -> bool:
        return not self.walks and self.fold is None

    def levels(self, queries: F32) -> list[F32]:
        """Return queries before the first map and after each, one by one: the same bits in any company."""
        found = [queries]
        for walk in self.walks:
            rows = [walk(found[-1][row : row + 1]) for row in range(len(queries))]
            found.append(rows[0] if len(rows) == 1 else np.concatenate(rows))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """What a query reaches.

    Attributes
    ----------
    classes : tuple of VectorClass
        In order of preference.
    unreachable : tuple of Space
        No path leads there.
    notes : tuple of str
        On transforms that cannot be used here.
    """

    classes: tuple[VectorClass, ...]
    unreachable: tuple[Space, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Memory:
    """What searches found out of one opening of a file."""

    reaches: dict[Any, tuple[CollectionEntry, int, Reach]] = field(default_factory=dict)
    alone: dict[tuple[int, int], tuple[tuple[int, int], Any]] = field(default_factory=dict)
    """By collection and space: the only class that answers at a version of the file, and which of its vectors may."""
    several: dict[tuple[int, int], tuple[tuple[int, int], Any]] = field(default_factory=dict)
    """The same where several do."""
    tables: Tables = field(default_factory=Tables)

    def keep(self, sets: Container[int]) -> None:
        """Let go of everything that names a transform: the catalog changed."""
        self.reaches.clear()
        self.alone.clear()
        self.several.clear()

    def unmap(self) -> None:
        """Stay: nothing lies in the map."""


def memory_of(view: CollectionView) -> Memory:
    """Return what is remembered of this opening of the file."""
    known = view.snapshot.state.loaded_indexes
    found: Memory = known.get("bridge") or known.setdefault("bridge", Memory())
    return found


def reach_of(
    view: CollectionView,
    asked: Sequence[Space],
    target: Space,
    registry: PluginRegistry,
    among: frozenset[str] | None = None,
) -> Reach:
    """Return what a query that is given in the spaces `asked` reaches, on the scale of `target`, one of them.

    Parameters
    ----------
    among : frozenset of str, optional
        Names of the spaces whose vectors may answer; default all.
    """
    memory = memory_of(view)
    key = view.number, tuple(space.id for space in asked), target.id, among
    known = memory.reaches.get(key)
    if known is not None and known[0] is view.entry and known[1] == registry.changes:
        return known[2]
    made = _Finder(view, registry).reach(asked, target, among)
    if len(memory.reaches) > 256:
        memory.reaches.clear()
    memory.reaches[key] = (view.entry, registry.changes, made)
    return made


class _Finder:
    """Looks for the way to each space."""

    def __init__(self, view: CollectionView, registry: PluginRegistry) -> None:
        self._view = view
        self._registry = registry
        self._edges = edges(view.entry, registry)
        self._notes = [
            f"transform {each.name!r} is not used: {reason}"
            for each in view.entry.transforms
            if (reason := unavailable(each, registry)) is not None
        ]

    def reach(self, asked: Sequence[Space], target: Space, among: frozenset[str] | None) -> Reach:
        first = [space for space in asked if space.id == target.id]
        given = first + [space for space in asked if space.id != target.id]
        every = self._view.entry.given_spaces  # rows of joint spaces are made of the vectors of others, which answer
        known = [*every, *(space for space in given if space not in every)]
        wanted = [space for space in known if among is None or space.name in among]
        classes = [VectorClass(space, space) for space in given if space in wanted]
        others = [space for space in wanted if space not in given]
        found = [(space, self._way(given, space)) for space in others]
        ways = sorted((way for _, way in found if way is not None), key=_order)
        unreachable = tuple(space for space, way in found if way is None)
        return Reach((*classes, *(made for _, made in ways)), unreachable, tuple(self._notes))

    def _way(self, given: Sequence[Space], stored: Space) -> tuple[Any, VectorClass] | None:
        """Return the best usable way from any of the given spaces, with what it is preferred by."""
        offers: list[tuple[Any, Space, Path | Edge]] = [
            (preference(path), space, path) for space in given for path in paths(self._edges, space.name, stored.name)
        ]
        offers += [
            ((False, edge.loss, 1, 0, [edge.key]), space, edge)
            for space in given
            for edge in self._joint_edges(space, stored)
        ]
        for rank, space, way in sorted(offers, key=lambda offer: offer[0]):
            made = self._made(space, stored, way)
            if made is not None:
                return rank, made
        return None

    def _joint_edges(self, asked: Space, stored: Space) -> list[Edge]:
        """Return the joint transforms that lead both sides into one third space."""
        return [
            Edge(each.name, asked.name, stored.name, "query", "none", True, retention_of(each))
            for each in self._view.entry.transforms
            if each.joint
            and each.affine
            and {each.source, each.target} == {asked.id, stored.id}
            and unavailable(each, self._registry) is None
        ]

    def _made(self, asked: Space, stored: Space, way: Path | Edge) -> VectorClass | None:
        try:
            return self._joint(asked, stored, way) if isinstance(way, Edge) else self._along(asked, stored, way)
        except (PluginError, StateError, StorageError) as error:
            note = f"a path to space {stored.name!r} cannot be used: {error.message}"
            if note not in self._notes:
                self._notes.append(note)
            return None

    def _along(self, asked: Space, stored: Space, path: Path) -> VectorClass:
        spaces = self._view.entry.spaces
        walks = []
        for step in path.query:
            loaded, made = step_map(self._view, step, self._registry)
            end = spaces[step.end]
            walks.append(Walk(loaded, made, spaces[step.start], end.metric, end.dim, step.inverted))
        gallery = tuple(step_map(self._view, step, self._registry) for step in path.gallery)
        names = "+".join(step.edge.key for step in path.query + path.gallery)
        origin = f"bridged:{names}" if len(walks) != 1 or gallery else _origin(walks[0].loaded)
        fold = self._fold(stored, path, walks, gallery)
        return VectorClass(stored, asked, origin, tuple(walks), fold, gallery, spaces[path.meets])

    def _fold(
        self, stored: Space, path: Path, walks: Sequence[Walk], gallery: Sequence[tuple[Loaded, Transform]]
    ) -> Fold | None:
        """Return what is made of stored rows: mapped on the fly, or given the bias of the last map of queries."""
        spaces = self._view.entry.spaces
        if gallery:
            between = [spaces[step.end].metric == "cosine" for step in path.gallery[:-1]]
            form = compose([made for _, made in gallery], normalise=between).affine()
            if form is None:
                raise StateError(f"the maps of stored vectors to space {path.meets!r} do not fold into a search")
            key = "+".join(str(loaded.entry.set) for loaded, _ in gallery)
            pull = pull_of(form.row_bias, stored.dim)
            return Fold(form, form.row_bias, spaces[path.meets].metric, stored.metric, key, pull)
        last = walks[-1]
        form = _affine(last.loaded, last.made)
        if form is None or form.row_bias is None or last.inverted:
            return None
        pull = pull_of(form.row_bias, stored.dim)
        return Fold(None, form.row_bias, stored.metric, stored.metric, f"bias {last.loaded.entry.set}", pull)

    def _joint(self, asked: Space, stored: Space, edge: Edge) -> VectorClass:
        """Return the class of a joint transform: both sides are mapped, and meet in its own space."""
        entry = find_transform(self._view.entry, edge.key)
        loaded = load_transform(self._view.snapshot, self._view.entry, entry, self._registry)
        with border.guarded(loaded.provided, "companion"):
            other = loaded.transform.companion()
        if other is None:
            raise StateError(f"transform {entry.name!r} is joint and has no companion")
        by_query = entry.source == asked.id
        asking, storing = (loaded.transform, other) if by_query else (other, loaded.transform)
        main, form = _affine(loaded, loaded.transform), _affine(loaded, storing)
        if main is None or form is None:
            raise StateError(f"transform {entry.name!r} does not fold into a search")
        width = int(asking.target_dim)
        metric: Metric = "cosine" if main.row_bias is None else "dot"  # a bias is added to inner products
        plain = Affine(form.W, form.b, form.shift, form.row_scale)
        bias = None if storing.direction == "both" else main.row_bias  # of old rows, for new queries
        fold = Fold(plain, bias, metric, stored.metric, f"joint {entry.set}", pull_of(bias, stored.dim))
        walk = Walk(loaded, asking, asked, metric, width, joint=True)
        return VectorClass(stored, asked, f"bridged:{entry.name}", (walk,), fold)


def _origin(loaded: Loaded) -> str:
    """Return how hits reached by one transform are marked: images of old vectors say by what they were made."""
    images = loaded.entry.provenance.get("images")
    return f"mapped:{'+'.join(images)}" if isinstance(images, list) and images else f"bridged:{loaded.name}"


def _order(way: tuple[Any, VectorClass]) -> tuple[Any, ...]:
    """Return what classes are ordered by: as paths are, and of equal ones the space first that came last."""
    (chain, loss, edges_, mapped, keys), made = way
    return chain, loss, edges_, mapped, -made.space.id, keys


def _affine(loaded: Loaded, made: Transform) -> Affine | None:
    with border.guarded(loaded.provided, "affine"):
        return made.affine()
