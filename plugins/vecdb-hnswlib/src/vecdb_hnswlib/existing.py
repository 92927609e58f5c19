"""The way in for an index file of hnswlib: its ids, its vectors, and the parameters to build the same index again.

The file is read with numpy alone, never by hnswlib, which would trust it. Its graph is not taken over: it numbers its
nodes in its own order, and building it again is what proves that it fits the vectors that the database holds.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError

__all__ = ["Existing", "read_index"]

HEAD = struct.Struct("<6QiI3QdQ")
"""Lowest layer's offset, capacity, nodes, bytes a node, offsets of label and vector, top layer, entry node, most links
above and in the lowest layer, M, level factor, ef_construction."""


class Existing(NamedTuple):
    """What an index file holds.

    Attributes
    ----------
    ids : ndarray of int64, shape (n,)
        Labels, in the order of insertion; elements that are marked as deleted are left out.
    vectors : ndarray of float32, shape (n, dim)
        As hnswlib stored them: of unit length in an index of its space "cosine".
    params : dict
        For ``create_index(space, "hnswlib.hnsw", **params)``.
    """

    ids: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    params: dict[str, Any]


def read_index(path: str | os.PathLike[str]) -> Existing:
    """Read a file that ``hnswlib.Index.save_index`` wrote.

    Parameters
    ----------
    path : path
        The file does not say which space (metric) it is for; its maker knows.

    Raises
    ------
    CorruptionError
        It is no such file, or an incomplete one.
    OSError
        It cannot be read.

    Examples
    --------
    ::

        old = vecdb_hnswlib.read_index("old.bin")
        docs.add_space("mini", dim=old.vectors.shape[1], metric="cosine")
        docs.upsert(old.ids.tolist(), vectors={"mini": old.vectors})
        docs.create_index("mini", "hnswlib.hnsw", **old.params)
    """
    with Path(path).open("rb") as file:
        raw, size = file.read(HEAD.size), os.fstat(file.fileno()).st_size
        if len(raw) < HEAD.size:
            raise _damaged(path, f"{size} bytes, fewer than its head")
        level0, _, count, row, label_at, vector_at, _, _, _, most, m, _, efc = HEAD.unpack(raw)
        if level0 or row != label_at + 8 or vector_at != 4 + 4 * most or label_at <= vector_at or label_at % 4:
            raise _damaged(path, "its head is not that of a float32 index")
        if HEAD.size + count * (row + 4) > size:
            raise _damaged(path, f"{size} bytes are too few for {count} elements of {row}")
        nodes = np.fromfile(file, np.uint8, count * row).reshape(count, row)
    nodes = nodes[(nodes[:, 2] & 1) == 0]
    labels = np.ascontiguousarray(nodes[:, label_at:]).view("<u8")[:, 0]
    if len(labels) and int(labels.max()) >= 1 << 63:
        raise _damaged(path, f"label {int(labels.max())} is no id: ids are below 2**63")
    vectors = np.ascontiguousarray(nodes[:, vector_at:label_at]).view("<f4")
    return Existing(labels.astype(np.int64), vectors.astype(np.float32, copy=False), {"M": m, "ef_construction": efc})


def _damaged(path: str | os.PathLike[str], problem: str) -> CorruptionError:
    return CorruptionError(
        f"{os.fspath(path)} is not a whole index file of hnswlib: {problem}",
        hint="Save it with hnswlib.Index.save_index.",
        what="hnswlib file",
        where=os.fspath(path),
    )
