"""The way in for an index file of USearch: its keys, its vectors, and the parameters to build the same index again.

The file is read with numpy alone and checked like everything foreign. Its graph is not taken over: it numbers its nodes
in its own order, and building it again is what proves that it fits the vectors that the database holds.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError, ParameterError
from vecdb_usearch import layout

__all__ = ["Existing", "read_index"]


class Existing(NamedTuple):
    """What an index file holds.

    Attributes
    ----------
    ids : ndarray of int64, shape (n,)
        Keys, in the order of insertion; removed ones are left out.
    vectors : ndarray of float32, shape (n, dim)
        As they were stored; rounded if the index held them as bf16 or f16.
    metric : {"cosine", "dot", "l2"}
    params : dict
        For ``create_index(space, "usearch.hnsw", **params)``.
    """

    ids: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    metric: str
    params: dict[str, Any]


def read_index(path: str | os.PathLike[str]) -> Existing:
    """Read a file that ``usearch.index.Index.save`` wrote.

    Raises
    ------
    CorruptionError
        It is no such file, or an incomplete one.
    ParameterError
        It is whole, but vecdb has no such metric, or it holds i8 codes, which are not the vectors any more.
    OSError
        It cannot be read.

    Examples
    --------
    ::

        old = vecdb_usearch.read_index("old.usearch")
        docs.add_space("mini", dim=old.vectors.shape[1], metric=old.metric)
        docs.upsert(old.ids.tolist(), vectors={"mini": old.vectors})
        docs.create_index("mini", "usearch.hnsw", **old.params)
    """
    where = os.fspath(path)
    raw = np.memmap(path, np.uint8, "r") if os.stat(path).st_size else np.empty(0, np.uint8)
    parts = layout.parse(raw, where)
    if parts.metric not in layout.METRICS.values() or parts.scalar == "i8":
        raise ParameterError(
            f"{where} holds {parts.scalar} vectors compared by {parts.metric}; they cannot be taken over",
            hint="Read the vectors where they came from.",
            name="path",
            got=where,
            allowed="f64, f32, f16 or bf16 vectors compared by cosine, inner product or Euclidean distance",
        )
    keys = parts.keys
    there = keys != layout.REMOVED
    if there.any() and int(keys[there].max()) >= 1 << 63:
        raise CorruptionError(f"{where} has a key of 2**63 or more, which is no id", what="usearch index", where=where)
    scalar = parts.scalar if parts.scalar in ("f32", "f16") else "f32"
    params = {"connectivity": parts.links, "dtype": scalar}
    return Existing(keys[there].astype(np.int64), _floats(parts)[there], parts.metric, params)


def _floats(parts: layout.Layout) -> npt.NDArray[np.float32]:
    raw = np.ascontiguousarray(parts.vectors)
    if parts.scalar == "bf16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view({"f64": "<f8", "f32": "<f4", "f16": "<f2"}[parts.scalar]).astype(np.float32)
