"""A graph of hnswlib as named blobs, and everything that must hold before hnswlib may follow a stored number.

hnswlib trusts what it loads: a link to a node that is not there, or to one that does not reach up to the layer, is a
read outside of its memory. So every size, count, level and link is checked here, in numpy, and a checksum of our own
covers the vectors. Nothing is unpickled: the state is a dict of numbers and arrays that is put together from the blobs.

Blobs: ``head`` (`HEAD`), ``nodes`` (per node: number of links u16, deleted u8, unused u8, 2 M links u32, vector f32,
label u64), ``levels`` (i32 per node), ``links`` (for each node with a level L > 0, L times: number u32, M links u32).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import BlobReader, BlobWriter
from vecdb.errors import CorruptionError

__all__ = ["damaged", "read", "removed", "write"]

HEAD = struct.Struct("<8sIIQQQqIIII")
"""Magic, dim, M, ef_construction, nodes, seed, top layer, entry node, checksums of the three arrays."""
MAGIC = b"vhnsw\x00\x00\x01"
State = dict[str, Any]
Bytes = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int32]


def write(blobs: BlobWriter, state: State) -> None:
    """Write the state that ``hnswlib.Index.__getstate__`` returns."""
    nodes, levels = state["data_level0"].view(np.uint8), state["element_levels"]
    levels, links = levels[: state["cur_element_count"]].astype("<i4"), state["link_lists"].view(np.uint8)
    head = HEAD.pack(
        MAGIC,
        state["dim"],
        state["M"],
        state["ef_construction"],
        state["cur_element_count"],
        state["seed"],
        state["max_level"],
        state["enterpoint_node"],
        *(zlib.crc32(each) for each in (nodes, levels, links)),
    )
    for name, data in (("head", head), ("nodes", nodes), ("levels", levels), ("links", links)):
        blobs.write(name, data)


def read(blobs: BlobReader, space: str, dim: int, count: int, params: Mapping[str, Any]) -> State:
    """Return a state that hnswlib can load without harm.

    Parameters
    ----------
    blobs : BlobReader
    space : {"cosine", "ip", "l2"}
    dim, count : int
        Of the view.
    params : mapping
        Declared parameters, settled.

    Raises
    ------
    CorruptionError
        Anything does not fit; the message says what.
    """
    m = params["M"]
    raw = blobs.read("head")
    _require(len(raw) == HEAD.size, "head", f"{len(raw)} bytes, expected {HEAD.size}")
    magic, *shape, seed, top, entry, _, _, _ = HEAD.unpack(raw)
    _require(magic == MAGIC, "head", f"mark {magic!r}, expected {MAGIC!r}")
    efc = max(params["ef_construction"], m)  # as hnswlib does
    _require(shape == [dim, m, efc, count], "head", f"dim, M, ef_construction, nodes {shape}")
    nodes = blobs.array("nodes", np.uint8, (count, 4 + 8 * m + 4 * dim + 8))
    levels: Levels = blobs.array("levels", "<i4", (count,))
    _require(levels.min() >= 0 and levels.max() == top and 0 <= top < 256, "levels", f"not 0 to {top}")
    _require(entry < count and levels[entry] == top, "head", f"node {entry} is not on the top layer {top}")
    links = blobs.array("links", np.uint8, (int(levels.sum(dtype=np.int64)) * (4 + 4 * m),))
    sums = HEAD.unpack(raw)[-3:]
    parts: dict[str, Any] = {"nodes": nodes, "levels": levels, "links": links}
    for (name, each), expected in zip(parts.items(), sums, strict=True):
        _require(zlib.crc32(each) == expected, name, "its checksum does not fit")
    _check_lowest(nodes, m)
    _check_upper(links.view("<u4").reshape(-1, 1 + m), levels, m)
    facts = {"space": space, "dim": dim, "M": m, "ef_construction": efc, "seed": seed}
    return facts | _arrays(nodes, levels, links) | _derived(m, nodes) | {"max_level": top, "enterpoint_node": entry}


def _check_lowest(nodes: Bytes, m: int) -> None:
    counts = np.ascontiguousarray(nodes[:, :2]).view("<u2")[:, 0]
    targets = np.ascontiguousarray(nodes[:, 4 : 4 + 8 * m]).view("<u4")
    labels = np.ascontiguousarray(nodes[:, -8:]).view("<u8")[:, 0]
    _require(counts.max() <= 2 * m, "nodes", f"{counts.max()} links of a node, expected at most {2 * m}")
    _require(not (nodes[:, 2] > 1).any(), "nodes", "a mark that is neither there nor deleted")
    used = np.arange(2 * m) < counts[:, None]
    _require(targets.max(where=used, initial=0) < len(nodes), "nodes", "a link to a node that is not there")
    _require(np.array_equal(labels, np.arange(len(nodes))), "nodes", "labels that are not the positions")


def _check_upper(rows: npt.NDArray[np.uint32], levels: Levels, m: int) -> None:
    """Check the upper layers; each row is one node in one of them, node after node, from layer 1 upwards."""
    layer = np.arange(len(rows)) - np.repeat(np.cumsum(levels, dtype=np.int64) - levels, levels) + 1
    counts, targets = rows[:, 0], rows[:, 1:]
    _require(counts.max(initial=0) <= m, "links", f"{counts.max(initial=0)} links, expected at most {m}")
    used = np.arange(m) < counts[:, None]
    _require(targets.max(where=used, initial=0) < len(levels), "links", "a link to a node that is not there")
    reach = levels[np.where(used, targets, 0)] >= layer[:, None]
    _require(bool((reach | ~used).all()), "links", "a link to a node that is not in that layer")


def _arrays(nodes: Bytes, levels: Levels, links: Bytes) -> State:
    return {
        "data_level0": nodes.reshape(-1).view(np.int8),
        "element_levels": levels,
        "link_lists": links.view(np.int8),
        "label_lookup_external": np.arange(len(nodes), dtype=np.uint64),
        "label_lookup_internal": np.arange(len(nodes), dtype=np.uint32),
    }


def _derived(m: int, nodes: Bytes) -> State:
    """Return what follows from the rest; hnswlib compares it with what it derives itself."""
    count, row = nodes.shape
    return {
        "ser_version": 1,
        "index_inited": True,
        "ep_added": True,
        "num_threads": 1,
        "offset_level0": 0,
        "max_elements": count,
        "cur_element_count": count,
        "size_data_per_element": row,
        "label_offset": row - 8,
        "offset_data": 4 + 8 * m,
        "max_M": m,
        "max_M0": 2 * m,
        "mult": 1 / math.log(m),
        "ef": 10,
        "has_deletions": bool(nodes[:, 2].any()),
        "size_links_per_element": 4 + 4 * m,
        "allow_replace_deleted": False,
    }


def removed(state: State) -> npt.NDArray[np.int64]:
    """Return the nodes of a state that are marked as deleted."""
    marks = state["data_level0"].reshape(state["cur_element_count"], -1)[:, 2]
    return np.flatnonzero(marks)


def damaged(where: str, problem: str) -> CorruptionError:
    """Return the error for blob `where`."""
    return CorruptionError(
        f"the stored graph of hnswlib.hnsw is damaged: {problem}",
        hint="The engine builds the index anew from its vectors.",
        what="index blob",
        where=where,
    )


def _require(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise damaged(where, problem)
