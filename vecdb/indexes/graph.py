"""`graph`: a proximity graph that is walked by estimated distances; exact ones are computed where the vectors lie.

Each vector has a 1-bit code and up to `degree` neighbours; `effort` is the size of the pool of a walk, and its default
is measured while the index is built, on vectors left out of it (`vecdb.indexes.graph_gauge`). Newly sealed vectors get
codes alone, which are scanned until enough of them are there for a graph. Sources: see `vecdb.kernels.graph_search` for
the walk, `vecdb.indexes.graph_build` for the graph.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.effort import EffortCurve
from vecdb.contracts.index import Candidates, IndexCapabilities, Prepared, VectorView
from vecdb.contracts.params import Param
from vecdb.contracts.rows import MappedRows
from vecdb.errors import CancelledError, DTypeError
from vecdb.indexes.codes import BLOCK, CodeBook, Codes, encode, make_book, read_codes, sketch, wide_width, write_codes
from vecdb.indexes.flat import exact_candidates
from vecdb.indexes.graph_layout import (
    LAYOUTS,
    Layout,
    StoredGraph,
    link_rows,
    links_bytes,
    make_records,
    read_graph,
    write_graph,
)
from vecdb.indexes.graph_walk import Habit, prepared_walk, walk_graph
from vecdb.indexes.samples import spread_positions
from vecdb.indexes.scanned import ScannedCodes
from vecdb.indexes.start import compiled
from vecdb.lazy import LazyModule
from vecdb.types import METRICS, CancelCheck, Progress

if TYPE_CHECKING:
    from vecdb.indexes import graph_build, graph_gauge, graph_link
    from vecdb.indexes.graph_build import Graph
else:  # what searches do without
    graph_build = LazyModule("vecdb.indexes.graph_build")
    graph_gauge = LazyModule("vecdb.indexes.graph_gauge")
    graph_link = LazyModule("vecdb.indexes.graph_link")

__all__ = ["GraphIndex", "GraphType"]

_PIECE: Final = 4_096
_SAMPLE: Final = 8_192
_CELLS: Final = 64
_ROWS_A_CELL: Final = 64
_LEFT_OUT: Final = 1_000
_NEAR: Final = 64
_POOL: Final = 128
"""How many rows a row that is linked later chooses from, and the effort of finding them."""
_DEAR_FROM: Final = 256
_MOST_THREADS: Final = 16
_CAPABILITIES = IndexCapabilities(
    metrics=frozenset(METRICS),
    filtered=True,
    lists=True,
    encodes_segments=True,
    deterministic=True,
    measured=True,
    part_from=10_000,
    proves=True,
    prepares=True,
    min_recall_at_10=0.95,
)
_PARAMETERS: Final = {
    "degree": Param("int", 32, "Most neighbours of a vector.", low=32, choices=(32, 64, 96, 128)),
    "layout": Param(
        "str",
        "compact",
        "compact: one code a vector, about a seventh of a vector's size; fast: also those of its neighbours beside it.",
        choices=LAYOUTS,
    ),
}


def _is_dear(pool: int, components: int) -> bool:
    """Whether a walk with such a pool takes longer than a scan: where nothing but noise tells neighbours apart.

    3,000 components are scanned in the time of a step, and three more for each row that the pool is kept in order with.
    """
    return pool >= _DEAR_FROM and pool * (3_000 + 3 * pool) > components


@dataclass(frozen=True, slots=True)
class GraphType:
    """The graph."""

    name: str = "graph"
    version: int = 1
    capabilities: IndexCapabilities = _CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=lambda: dict(_PARAMETERS))

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> GraphIndex:
        if view.space.dtype == "int8":  # so few rows that no walk was measured would be found out by searches
            what = "the rows of this space are int8 and cannot be read as floats where they lie"
            raise DTypeError(
                what, hint="ivf and rabitq read copies of them.", expected="float32 or float16", got="int8"
            )
        sample = view.gather(spread_positions(view.count, _SAMPLE))
        book = make_book(view.metric, sample, min(view.count, _CELLS * _ROWS_A_CELL), seed, width=wide_width(view.dim))
        steps = _Steps(view.count, progress, cancel)
        records = _encode(book, view, steps)
        made, curve = _linked(book, records, view, params["degree"], seed, steps)
        graph = _stored(book, records, made, curve)
        steps.end()
        return GraphIndex(graph, params["layout"])

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> GraphIndex | ScannedCodes:
        if "records" in blobs.names():
            return GraphIndex(read_graph(blobs, view.metric, view.dim, view.count))
        return CodesOfGraph(*read_codes(blobs, view.metric, view.dim, view.count))


@dataclass(frozen=True, slots=True)
class GraphIndex:
    """A graph over the vectors of a view.

    Attributes
    ----------
    graph : StoredGraph
        As it is searched: compact where it was just built, since the links of ``fast`` are larger than the vectors.
    wanted : {"compact", "fast"}, optional
        The layout that it is stored in; None: its own. Both find the same.
    habit : Habit
    """

    graph: StoredGraph
    wanted: Layout | None = None
    habit: Habit = field(default_factory=Habit, compare=False, repr=False)

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: npt.NDArray[np.bool_] | None,
        effort: int | None,
        view: VectorView,
    ) -> Candidates:
        if not compiled(view):
            return exact_candidates(queries, k, allowed, view)
        pool = self._pool(k, allowed is not None, effort, view)
        if pool is None:
            return exact_candidates(queries, k, allowed, view)
        return walk_graph(self.graph, queries, min(k, self.graph.count), allowed, pool, view, self.habit)

    def prepare(
        self, k: int, *, allowed: npt.NDArray[np.bool_] | None, effort: int | None, view: VectorView
    ) -> Prepared | None:
        pool = self._pool(k, allowed is not None, effort, view) if compiled(view) else None
        if pool is None:
            return None
        return prepared_walk(self.graph, min(k, self.graph.count), allowed, pool, view, self.habit)

    def _pool(self, k: int, restricted: bool, effort: int | None, view: VectorView) -> int | None:
        """Return the rows that a walk keeps, None where a scan is quicker."""
        count = self.graph.count
        pool = effort if effort is not None else self.graph.effort + 2 * max(0, k - 10)
        if effort is None and not restricted and _is_dear(pool, count * view.dim):
            return None
        return min(count, max(k, pool))

    @property
    def layout(self) -> Layout:
        """The layout that it is stored in."""
        return self.wanted or self.graph.layout

    def dump(self, blobs: BlobWriter) -> None:
        write_graph(blobs, self.graph, self.layout)

    def stats(self) -> Mapping[str, int | float | str]:
        graph = self.graph
        return {
            "vectors": graph.count,
            "degree": graph.degree,
            "layout": self.layout,
            "bits": graph.book.width,
            "entries": len(graph.entries),
            "effort": graph.effort,
            "index_bytes": graph.records.nbytes + links_bytes(graph, self.layout),
        }

    def effort_curve(self) -> EffortCurve | None:
        return self.graph.curve

    def encode_segment(self, view: VectorView, blobs: BlobWriter) -> None:
        parts = [encode(self.graph.book, rows)[0] for rows in _pieces(view)]
        write_codes(blobs, self.graph.book, Codes.join(parts), self.graph.effort)

    def problems(self, view: VectorView) -> Sequence[str]:
        graph = graph_build.Graph(_neighbours_of(self.graph), self.graph.entries)
        if int(graph.neighbours.max()) >= graph.count or int(graph.neighbours.min()) < -1:
            return ["the graph names vectors that do not exist"]
        lost = graph_build.unreachable(graph)
        return [f"{len(lost)} vectors cannot be reached, position {int(lost[0])} for one"] if len(lost) else []


class CodesOfGraph(ScannedCodes):
    """What `GraphIndex.encode_segment` wrote: codes alone, which are scanned."""

    def effort_curve(self) -> EffortCurve | None:
        return None

    def problems(self, view: VectorView) -> Sequence[str]:
        return []


# --- building ---------------------------------------------------------------------------------------------


class _Steps:
    """Tells the progress of a build: a fifth for the codes, the rest for the graph, its end only when all is done."""

    def __init__(self, count: int, progress: Progress, cancel: CancelCheck) -> None:
        self._count = count
        self._progress = progress
        self.cancel = cancel

    def encoded(self, rows: int) -> None:
        self._progress(rows, 5 * self._count)
        if self.cancel():
            raise CancelledError("building a graph was cancelled")

    def told(self, done: int, total: int | None) -> None:
        most = 4 * self._count
        self._progress(min(self._count + done * most // max(1, total or 1), 5 * self._count - 1), 5 * self._count)

    def end(self) -> None:
        self._progress(5 * self._count, 5 * self._count)


def _threads() -> int:
    return max(1, min(_MOST_THREADS, os.cpu_count() or 1))


def _pieces(view: VectorView) -> Iterator[npt.NDArray[np.float32]]:
    """Yield all vectors of a view, some at a time; none of them may be gone."""
    for start in range(0, view.count, _PIECE):
        yield view.gather(np.arange(start, min(view.count, start + _PIECE)))


def _encode(book: CodeBook, view: VectorView, steps: _Steps) -> npt.NDArray[np.uint8]:
    parts, done = [], 0
    for rows in _pieces(view):
        made = sketch(book, rows)
        parts.append(make_records(made.turned > 0, made.factors, made.cells.astype(np.uint8)))
        steps.encoded(done := done + len(rows))
    return np.concatenate(parts)


def _stored(book: CodeBook, records: npt.NDArray[np.uint8], made: Graph, curve: EffortCurve | None) -> StoredGraph:
    links = MappedRows.of(link_rows(made.neighbours, records, book.width, "compact"))
    codes = MappedRows.of(records)
    return StoredGraph(
        book, codes, links, made.entries, made.degree, "compact", graph_gauge.default_effort(curve), curve
    )


def _linked(
    book: CodeBook, records: npt.NDArray[np.uint8], view: VectorView, degree: int, seed: int, steps: _Steps
) -> tuple[Graph, EffortCurve | None]:
    """Link all vectors; what was left out at first tells how much the graph finds, and is linked at last."""
    rng = np.random.default_rng(seed)
    left_out = np.sort(rng.choice(view.count, min(_LEFT_OUT, view.count // 10), replace=False)).astype(np.int64)
    made = graph_build.build_graph(
        view,
        degree=degree,
        seed=seed,
        progress=steps.told,
        cancel=steps.cancel,
        threads=_threads(),
        left_out=left_out,
    )
    if not len(left_out):
        return made, None
    bare = _stored(book, records, made, None)
    curve = graph_gauge.measure(bare, view, left_out, _threads())
    near = walk_graph(bare, view.gather(left_out), min(_NEAR, view.count), None, min(_POOL, view.count), view)
    whole = graph_link.link(
        made,
        view,
        left_out,
        near.positions,
        seed=seed,
        progress=lambda done, total: None,
        cancel=steps.cancel,
        threads=_threads(),
    )
    return whole, curve


def _neighbours_of(graph: StoredGraph) -> npt.NDArray[np.int32]:
    """Return the numbers of all neighbours, shape (n, R), verified."""
    rows = graph.links.array()
    blocks = rows.reshape(graph.count, graph.degree // BLOCK, -1)[:, :, : 4 * BLOCK]
    return np.ascontiguousarray(blocks).view("<i4").reshape(graph.count, graph.degree)
