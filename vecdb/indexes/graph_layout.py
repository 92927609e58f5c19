"""The stored form of a graph: a code of every vector, its neighbours, and their codes beside them if that is wanted.

A *record* is the code of one vector: D signs in words of 64, offset and slope (float32), its cell (uint32), filled up
to a multiple of 16 bytes. A row of *links* is the numbers of the neighbours (int32, -1 behind the last); in the layout
``fast`` it is a block for every 32 neighbours: their numbers, offsets, slopes, cells (uint8) and codes in the groups of
four that `vecdb.indexes.codes.Codes` describes, filled up to a multiple of 64 bytes. Estimates of a row are the same
in both layouts. Invariant: what is read back is checked as far as it can be without reading rows; each row number is
compared with the count when it is followed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter, MadeRows
from vecdb.contracts.effort import EffortCurve
from vecdb.contracts.rows import MappedRows
from vecdb.errors import CorruptionError
from vecdb.indexes.codes import BLOCK, MAX_CELLS, ROUNDS, CodeBook, may_be_width
from vecdb.types import Metric

__all__ = [
    "GRAPH_MARK",
    "Layout",
    "StoredGraph",
    "link_rows",
    "links_bytes",
    "make_records",
    "read_graph",
    "write_graph",
]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]

Layout = Literal["compact", "fast"]
LAYOUTS: Final[tuple[Layout, ...]] = ("compact", "fast")
GRAPH_MARK: Final = "graph"
_HEAD: Final = struct.Struct("<4s10Q")
_MAGIC: Final = b"GRA1"
_FORMS: Final[dict[Metric, int]] = {"cosine": 0, "dot": 1, "l2": 2}
_MOST_ENTRIES: Final = 4_096
_MOST_EFFORTS: Final = 64
_LARGEST: Final = np.float32(1e15)
_STEP: Final = 4_096


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """Everything that a search of a graph needs, and what it keeps.

    Attributes
    ----------
    book : CodeBook
    records : MappedRows
        uint8, see the module.
    links : MappedRows
        uint8.
    entries : ndarray of int32, shape (e,)
    degree : int
    layout : {"compact", "fast"}
    effort : int
        Default.
    curve : EffortCurve or None
    anchors : ndarray of float32, shape (cells + 1, dim + 1)
        The centres and the mean of the book, each with its square, as `vecdb.kernels.graph_search` takes them.
    maps, plan : ndarray of int64
        What the kernel follows: addresses, and shapes.
    """

    book: CodeBook
    records: MappedRows
    links: MappedRows
    entries: I32
    degree: int
    layout: Layout
    effort: int
    curve: EffortCurve | None
    anchors: F32 = field(init=False, repr=False)
    maps: npt.NDArray[np.int64] = field(init=False, repr=False)
    plan: npt.NDArray[np.int64] = field(init=False, repr=False)
    desk: Any = field(init=False, repr=False, compare=False, default=None)
    """What the last search was prepared with: `vecdb.indexes.graph_walk` replaces it as a whole."""

    def __post_init__(self) -> None:
        points = np.concatenate([self.book.centres, self.book.mean[None]])
        squares = np.einsum("ij,ij->i", points, points)
        links, codes = self.links, self.records
        plan = [self.count, len(self.entries), 0]
        plan += [links.shift, links.row_bytes, len(links.table), codes.shift, codes.row_bytes, len(codes.table)]
        plan += [self.degree, int(self.layout == "fast"), _FORMS[self.book.metric], 0, 0]
        object.__setattr__(self, "anchors", np.ascontiguousarray(np.concatenate([points, squares[:, None]], axis=1)))
        object.__setattr__(self, "maps", np.concatenate([links.table, codes.table, self.entries.astype(np.int64)]))
        object.__setattr__(self, "plan", np.array(plan, np.int64))

    @property
    def count(self) -> int:
        return self.records.count


# --- records and links ------------------------------------------------------------------------------------


def _record_bytes(width: int) -> int:
    return -(-(-(-width // 64) * 8 + 12) // 16) * 16


def _link_bytes(width: int, degree: int, layout: Layout) -> int:
    if layout == "compact":
        return 4 * degree
    return degree // BLOCK * (-(-(416 + 4 * width) // 64) * 64)


def make_records(signs: npt.NDArray[np.bool_], factors: F32, cells: Bytes) -> Bytes:
    """Return records of rows: signs (n, D), factors (2, n), cells (n,)."""
    count, width = signs.shape
    words = -(-width // 64) * 8
    records = np.zeros((count, _record_bytes(width)), np.uint8)
    records[:, : width // 8] = np.packbits(signs, axis=1, bitorder="little")
    tail = np.empty((count, 3), "<u4")
    tail[:, :2] = np.ascontiguousarray(factors.T, "<f4").view("<u4")
    tail[:, 2] = cells
    records[:, words : words + 12] = tail.view(np.uint8)
    return records


def link_rows(neighbours: I32, records: Bytes, width: int, layout: Layout) -> Bytes:
    """Return rows of links: neighbours (n, R), records as `make_records` gives them of all rows."""
    if layout == "compact":
        return np.ascontiguousarray(neighbours, "<i4").view(np.uint8)
    rows = np.zeros((len(neighbours), _link_bytes(width, neighbours.shape[1], layout)), np.uint8)
    block_bytes = rows.shape[1] * BLOCK // neighbours.shape[1]
    for start in range(0, len(neighbours), _STEP):
        part = neighbours[start : start + _STEP]
        for number in range(neighbours.shape[1] // BLOCK):
            target = rows[start : start + _STEP, number * block_bytes : (number + 1) * block_bytes]
            _fill_block(part[:, number * BLOCK : (number + 1) * BLOCK], records, width, target)
    return rows


def _fill_block(ids: I32, records: Bytes, width: int, target: Bytes) -> None:
    """Write the blocks of some rows: ids (c, 32), target (c, block bytes), zeroed."""
    count, words = len(ids), -(-width // 64) * 8
    there = ids >= 0
    chosen = records[np.where(there, ids, 0)]
    chosen[~there] = 0
    tail = np.ascontiguousarray(chosen[:, :, words : words + 12]).view("<u4")
    target[:, :128] = np.ascontiguousarray(ids, "<i4").view(np.uint8)
    target[:, 128:256] = np.ascontiguousarray(tail[:, :, 0]).view(np.uint8)
    target[:, 256:384] = np.ascontiguousarray(tail[:, :, 1]).view(np.uint8)
    target[:, 384:416] = tail[:, :, 2].astype(np.uint8)
    codes = chosen[:, :, : width // 8]
    nibbles = np.stack([codes & 15, codes >> 4], axis=3).reshape(count, 2, BLOCK // 2, width // 4)
    packed = (nibbles[:, 0] | nibbles[:, 1] << 4).transpose(0, 2, 1)
    target[:, 416 : 416 + 4 * width] = packed.reshape(count, 4 * width)


# --- keeping ----------------------------------------------------------------------------------------------


def write_graph(blobs: BlobWriter, graph: StoredGraph, layout: Layout) -> None:
    """Store a graph in its own layout, or a compact one in the other: its rows are made while they are stored."""
    book, curve = graph.book, graph.curve
    shape = _shape_of(graph, layout)
    blobs.write("head", _HEAD.pack(_MAGIC, *shape, len(book.centres), len(graph.entries), graph.effort))
    blobs.write("mean", book.mean)
    blobs.write("centres", book.centres)
    blobs.write("signs", np.packbits(book.signs > 0))
    blobs.write("entries", graph.entries)
    blobs.write("curve", _curve_table(curve))
    records, links = _whole(graph.records), _whole(graph.links)
    blobs.write_rows("records", records)
    if layout == graph.layout:
        return blobs.write_rows("links", links)
    neighbours = links.view("<i4")

    def made(first: int, stop: int) -> Bytes:
        return link_rows(neighbours[first:stop], records, book.width, layout)

    return blobs.write_rows("links", MadeRows(graph.count, shape[-1], made))


def links_bytes(graph: StoredGraph, layout: Layout) -> int:
    """Return the bytes of all links in a layout."""
    return graph.count * _link_bytes(graph.book.width, graph.degree, layout)


def _whole(rows: MappedRows) -> Bytes:
    """Return all rows, without a copy if they are one piece."""
    pieces = list(rows.pieces())
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _shape_of(graph: StoredGraph, layout: Layout) -> tuple[int, ...]:
    book, row_bytes = graph.book, _link_bytes(graph.book.width, graph.degree, layout)
    return book.dim, book.width, ROUNDS, graph.degree, LAYOUTS.index(layout), graph.count, row_bytes


def read_graph(blobs: BlobReader, metric: Metric, dim: int, count: int) -> StoredGraph:
    """Return what `write_graph` stored for `count` vectors of `dim` coordinates.

    Raises
    ------
    CorruptionError
        If it is anything else.
    """
    head = blobs.read("head")
    if len(head) != _HEAD.size or not head.startswith(_MAGIC):
        raise _wrong("head", "is of another form")
    width = _HEAD.unpack(head)[2]
    degree, number, entries, effort = (_HEAD.unpack(head)[place] for place in (4, 5, 9, 10))
    cells = _HEAD.unpack(head)[8]
    known = (
        may_be_width(dim, width)
        and 1 <= degree <= 1_024
        and degree % BLOCK == 0
        and number < len(LAYOUTS)
        and 1 <= cells <= MAX_CELLS
    )
    if not known or not 1 <= entries <= _MOST_ENTRIES or not 1 <= effort < 1 << 31:
        raise _wrong("head", "names what is not possible")
    layout = LAYOUTS[number]
    row_bytes = _link_bytes(width, degree, layout)
    if head != _HEAD.pack(_MAGIC, dim, width, ROUNDS, degree, number, count, row_bytes, cells, entries, effort):
        raise _wrong("head", "belongs to other vectors")
    book = _read_book(blobs, metric, dim, width, cells)
    starts = blobs.array("entries", "<i4", (entries,))
    if int(starts.min()) < 0 or int(starts.max()) >= count:
        raise _wrong("entries", "names vectors that do not exist")
    records = blobs.rows("records", np.uint8, _record_bytes(width), count)
    links = blobs.rows("links", np.uint8, row_bytes, count)
    return StoredGraph(book, records, links, starts, degree, layout, effort, _read_curve(blobs))


def _read_book(blobs: BlobReader, metric: Metric, dim: int, width: int, cells: int) -> CodeBook:
    flags = np.unpackbits(blobs.array("signs", np.uint8, (ROUNDS * width // 8,)))
    signs = flags.reshape(ROUNDS, width).astype(np.float32) * 2 - 1
    mean, centres = blobs.array("mean", "<f4", (dim,)), blobs.array("centres", "<f4", (cells, dim))
    if not all((np.abs(part) <= _LARGEST).all() for part in (mean, centres)):
        raise _wrong("centres", "holds impossible numbers")
    return CodeBook(metric, mean, centres, signs)


def _curve_table(curve: EffortCurve | None) -> npt.NDArray[np.float64]:
    """Return a curve as rows of effort, recall and deviation, behind one of its numbers of queries and neighbours."""
    if curve is None:
        return np.zeros((1, 3))
    spread = np.zeros(len(curve.efforts)) if curve.deviations is None else curve.deviations
    told = np.stack([curve.efforts.astype(np.float64), curve.recalls, spread], axis=1)
    return np.concatenate([[[curve.queries, curve.k, 0]], told])


def _read_curve(blobs: BlobReader) -> EffortCurve | None:
    told: npt.NDArray[Any] = blobs.array("curve", "<f8", (-1, 3))
    if not len(told) or not np.isfinite(told).all() or len(told) > _MOST_EFFORTS:
        raise _wrong("curve", "is no curve")
    if len(told) == 1:
        return None
    possible = (told >= 0).all() and (told[1:, 1:] <= 1).all() and (told[:, 0] < 1 << 31).all()
    if not possible or not (np.diff(told[1:, 0]) >= 1).all() or min(told[0, 0], told[0, 1], told[1, 0]) < 1:
        raise _wrong("curve", "is no curve")
    efforts, shares = told[1:, 0].astype(np.int64), np.ascontiguousarray(told[1:, 1:].T)
    return EffortCurve(efforts, shares[0], int(told[0, 0]), int(told[0, 1]), shares[1])


def _wrong(blob: str, problem: str) -> CorruptionError:
    return CorruptionError(f"the blob {blob!r} of a graph {problem}", what="index blob", where=blob)
