"""The bytes that USearch saves, and everything that must hold before USearch may follow a number in them.

Read with numpy alone. In order: rows u32 and bytes a row u32, the vectors, a head of 64 bytes, the head of the graph,
the level of each node (i16), and the nodes one behind the other: key u64, level i16, then for each layer from the
lowest one a number of links u32 and room for the links, u32 each. USearch itself checks that the bytes suffice, but
follows levels and links as they stand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError

__all__ = ["REMOVED", "SCALARS", "Layout", "check_graph", "parse"]

REMOVED = (1 << 64) - 1
"""Key of a node whose vector was removed."""
SCALARS: dict[int, tuple[str, int]] = {4: ("bf16", 2), 10: ("f64", 8), 11: ("f32", 4), 12: ("f16", 2), 23: ("i8", 1)}
"""Number in the file -> name and bytes of a component."""
METRICS: dict[int, str] = {ord("i"): "dot", ord("c"): "cosine", ord("e"): "l2"}
_HEAD = struct.Struct("<7s3H4B3Q?")
_GRAPH = struct.Struct("<5Q")
_KEY_AND_LEVEL = 10
_AT_ONCE = 16_384
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in the bytes of an index.

    Attributes
    ----------
    count, dim : int
    scalar : str
        Type of the components.
    metric : str
        "cosine", "dot", "l2", or a number for one that vecdb does not have.
    links, links_base : int
        Most links of a node in an upper layer and in the lowest one.
    top, entry : int
        The highest layer, and where a search begins.
    vectors : ndarray of uint8, shape (count, bytes of a row)
    levels : ndarray of int64, shape (count,)
    nodes : ndarray of uint8
        All nodes.
    offsets : ndarray of int64, shape (count,)
        Where each begins in `nodes`.
    """

    count: int
    dim: int
    scalar: str
    metric: str
    links: int
    links_base: int
    top: int
    entry: int
    vectors: Bytes
    levels: Indices
    nodes: Bytes
    offsets: Indices

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """Key of each node."""
        found: npt.NDArray[np.uint64] = _rows(self.nodes, self.offsets, 8).view("<u8")[:, 0]
        return found


def parse(raw: Bytes, where: str) -> Layout:
    """Cut the bytes of an index into its parts; every length is checked before it is used.

    Parameters
    ----------
    raw : ndarray of uint8
    where : str
        What the bytes are, for messages.

    Raises
    ------
    CorruptionError
        Anything does not fit.
    """
    rows, width = struct.unpack("<2I", _take(raw, 0, 8, where))
    at = 8 + rows * width
    _require(at + 64 + _GRAPH.size <= len(raw), where, f"{len(raw)} bytes are too few for {rows} vectors of {width}")
    magic, major, _, _, metric, scalar, key, slot, _, _, dim, multi = _HEAD.unpack(_take(raw, at, _HEAD.size, where))
    _require((magic, major) == (b"usearch", 2), where, f"no head of USearch 2: {magic!r} {major}")
    _require((key, slot, multi) == (14, 15, False), where, "keys or links of another kind")
    name, size = SCALARS.get(scalar, ("", 0))
    _require(bool(name) and width == dim * size, where, f"{width} bytes a row for {dim} components of type {scalar}")
    count, links, links_base, top, entry = _GRAPH.unpack(_take(raw, at + 64, _GRAPH.size, where))
    at += 64 + _GRAPH.size
    _require(count == rows and at + 2 * count <= len(raw), where, f"{count} nodes for {rows} vectors")
    _require(2 <= links <= links_base < 1 << 20, where, f"{links} and {links_base} links a node")
    levels = np.frombuffer(_take(raw, at, 2 * count, where), "<i2").astype(np.int64)
    _require(not len(levels) or levels.min() >= 0, where, "a level below 0")
    nodes = raw[at + 2 * count :]
    ends = np.cumsum(_KEY_AND_LEVEL + 4 + 4 * links_base + (4 + 4 * links) * levels)
    _require((int(ends[-1]) if count else 0) == len(nodes), where, f"{len(nodes)} bytes of nodes")
    offsets = np.concatenate([np.zeros(min(1, count), np.int64), ends[:-1]])
    vectors = raw[8 : 8 + rows * width].reshape(rows, width)
    words = METRICS.get(metric, f"metric {metric}")
    return Layout(count, dim, name, words, links, links_base, top, entry, vectors, levels, nodes, offsets)


def check_graph(layout: Layout, where: str) -> None:
    """Check that every link leads to a node that is there and reaches up to the layer of the link.

    Raises
    ------
    CorruptionError
        One does not, or the entry or a level is wrong.
    """
    levels, offsets = layout.levels, layout.offsets
    _require(layout.entry < layout.count and levels[layout.entry] == layout.top, where, "an entry below the top layer")
    for part in _parts(offsets):
        written = _rows(layout.nodes, offsets[part] + 8, 2).view("<i2")[:, 0]
        _require(np.array_equal(written, levels[part]), where, "a node of another level than is listed")
    behind = offsets + _KEY_AND_LEVEL
    _check_layer(layout, 0, behind, layout.links_base, where)
    for layer in range(1, int(levels.max()) + 1):
        at = behind[levels >= layer] + 4 + 4 * layout.links_base + (layer - 1) * (4 + 4 * layout.links)
        _check_layer(layout, layer, at, layout.links, where)


def _check_layer(layout: Layout, layer: int, at: Indices, most: int, where: str) -> None:
    for part in _parts(at):
        rows = _rows(layout.nodes, at[part], 4 + 4 * most).view("<u4")
        counts, targets = rows[:, 0], rows[:, 1:]
        _require(counts.max() <= most, where, f"{counts.max()} links in layer {layer}, expected at most {most}")
        used = np.arange(most) < counts[:, None]
        _require(targets.max(where=used, initial=0) < layout.count, where, "a link to a node that is not there")
        reach = layout.levels[np.where(used, targets, 0)] >= layer
        _require(bool((reach | ~used).all()), where, f"a link to a node that is not in layer {layer}")


def _parts(array: Indices) -> Iterator[slice]:
    return (slice(start, start + _AT_ONCE) for start in range(0, len(array), _AT_ONCE))


def _rows(raw: Bytes, at: Indices, width: int) -> Bytes:
    """Return `width` bytes from each place, C-contiguous."""
    if not len(at):
        return np.empty((0, width), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(raw, width)
    return np.ascontiguousarray(windows[at])


def _take(raw: Bytes, at: int, size: int, where: str) -> bytes:
    _require(at + size <= len(raw), where, f"{len(raw)} bytes, expected at least {at + size}")
    return raw[at : at + size].tobytes()


def _require(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise CorruptionError(f"{where} is not a whole index of USearch: {problem}", what="usearch index", where=where)
