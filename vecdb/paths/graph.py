"""Spaces as nodes, fitted transforms as edges: which path answers a query of one space over vectors of another.

Pure values: an edge names a transform and says what is known of it; nothing here holds one. Rules: a direct edge wins
over any composed path, a path has at most three edges, among composed ones the expected loss decides; queries move by
maps of queries, stored vectors by maps of stored vectors, and an exact isometry serves both, both ways.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vecdb.contracts.transform import Direction, Isometry

__all__ = ["MAX_EDGES", "Edge", "Path", "Step", "best_path", "paths", "preference"]

Side: TypeAlias = Literal["query", "gallery"]

MAX_EDGES = 3
UNKNOWN = 0.5
"""Retention that is assumed of a map that was never measured."""
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Edge:
    """A fitted transform between two spaces.

    Attributes
    ----------
    key : str
        What the transform is stored under.
    source, target : str
        Names of the spaces it maps between.
    direction : {"query", "gallery", "both"}
    isometry : {"none", "semi", "exact"}
    affine : bool
        Whether it folds into a search: a map of stored vectors serves vectors that were never mapped only if it does.
    retention : float or None
        Measured share of the target's own quality that is left, above 0; None: not measured.
    """

    key: str
    source: str
    target: str
    direction: Direction
    isometry: Isometry = "none"
    affine: bool = True
    retention: float | None = None

    @property
    def loss(self) -> float:
        """Minus the logarithm of the retention, at least 0: losses of a path are added."""
        known = UNKNOWN if self.retention is None else self.retention
        return -math.log(min(max(known, _LEAST), 1.0))


@dataclass(frozen=True, slots=True)
class Step:
    """One edge of a path, as it is walked.

    Attributes
    ----------
    edge : Edge
    side : {"query", "gallery"}
        Whether the query or the stored vector is mapped by it.
    inverted : bool
        Whether its inverse is applied: exact isometries only.
    """

    edge: Edge
    side: Side
    inverted: bool = False

    @property
    def start(self) -> str:
        """The space it leaves."""
        return self.edge.target if self.inverted else self.edge.source

    @property
    def end(self) -> str:
        """The space it enters."""
        return self.edge.source if self.inverted else self.edge.target


@dataclass(frozen=True, slots=True)
class Path:
    """How a query and a stored vector meet.

    Attributes
    ----------
    query : tuple of Step
        Applied to the query, in this order.
    gallery : tuple of Step
        Applied to the stored vector, in this order; all affine, so that they fold.
    meets : str
        The space where they are compared.
    loss : float
        Sum of the edges' losses; what a composed path really loses is measured, not computed.
    """

    query: tuple[Step, ...]
    gallery: tuple[Step, ...]
    meets: str
    loss: float

    @property
    def edges(self) -> int:
        """How many transforms it needs."""
        return len(self.query) + len(self.gallery)


def best_path(edges: Iterable[Edge], asked: str, stored: str) -> Path | None:
    """Return how a query of the space `asked` is answered over native vectors of the space `stored`.

    Parameters
    ----------
    edges : iterable of Edge
    asked, stored : str
        Names of spaces. The same one: the empty path.

    Returns
    -------
    Path or None
        None: no path of at most three edges. A direct edge wins; among direct edges, and among longer paths, the least
        loss, then fewer edges, then fewer mapped stored vectors, then the keys in order: the same on every machine.
    """
    return min(paths(edges, asked, stored), key=preference, default=None)


def paths(edges: Iterable[Edge], asked: str, stored: str) -> Iterator[Path]:
    """Yield every path of at most three edges that visits no space twice."""
    known = list(edges)
    forward = list(_walks(_steps(known, "query"), asked))
    sideways = list(_walks(_steps(known, "gallery"), stored))
    for query in forward:
        meets, visited = _end(query, asked), _visited(query, asked)
        for gallery in sideways:
            if _end(gallery, stored) != meets or len(query) + len(gallery) > MAX_EDGES:
                continue
            if len(visited & _visited(gallery, stored)) > 1 or not all(step.edge.affine for step in gallery):
                continue
            yield Path(query, gallery, meets, sum(step.edge.loss for step in query + gallery))


def _steps(edges: list[Edge], side: Side) -> list[Step]:
    """Return the ways in which edges can move one side."""
    found = []
    for edge in edges:
        if edge.isometry == "exact":
            found += [Step(edge, side), Step(edge, side, inverted=True)]
        elif edge.direction in (side, "both"):
            found.append(Step(edge, side))
    return found


def _walks(steps: list[Step], start: str) -> Iterator[tuple[Step, ...]]:
    """Yield the walks from a space that visit no space twice, the empty one first."""
    waiting: list[tuple[Step, ...]] = [()]
    while waiting:
        walk = waiting.pop(0)
        yield walk
        if len(walk) < MAX_EDGES:
            seen = _visited(walk, start)
            here = _end(walk, start)
            waiting += [(*walk, step) for step in steps if step.start == here and step.end not in seen]


def _end(walk: tuple[Step, ...], start: str) -> str:
    return walk[-1].end if walk else start


def _visited(walk: tuple[Step, ...], start: str) -> set[str]:
    return {start, *(step.end for step in walk)}


def preference(path: Path) -> tuple[bool, float, int, int, list[str]]:
    """Return what paths are ordered by, the best first: see `best_path`."""
    keys = [step.edge.key for step in path.query + path.gallery]
    return path.edges > 1, path.loss, path.edges, len(path.gallery), keys
