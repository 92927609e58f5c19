"""The way in for an index file of Faiss: its ids and its vectors.

The file is read by Faiss, which trusts it: read files of your own. The index itself is not taken over: a file does not
hold the factory string that it was made with, and building it again is what proves that it fits the vectors.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError, ParameterError
from vecdb.types import Metric
from vecdb_faiss.library import exact_kinds, library

__all__ = ["Existing", "read_index"]


class Existing(NamedTuple):
    """What an index file holds.

    Attributes
    ----------
    ids : ndarray of int64, shape (n,)
        Ids, in the order of insertion, or list by list for inverted lists.
    vectors : ndarray of float32, shape (n, dim)
    metric : {"dot", "l2"}
        Inner product of vectors of unit length is what vecdb calls "cosine".
    exact : bool
        Whether `vectors` are those that went in; False if the index kept codes of them.
    """

    ids: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    metric: Metric
    exact: bool


def read_index(path: str | os.PathLike[str], *, approximate: bool = False) -> Existing:
    """Read a file that ``faiss.write_index`` wrote.

    Parameters
    ----------
    path : path
    approximate : bool, default False
        Whether vectors decoded from codes (PQ, SQ, transforms, ...) are good enough.

    Raises
    ------
    CorruptionError
        Faiss cannot read it.
    ParameterError
        It compares by another metric, or keeps codes and `approximate` is false, or keeps nothing to decode.

    Examples
    --------
    ::

        old = vecdb_faiss.read_index("old.faiss")
        docs.add_space("mini", dim=old.vectors.shape[1], metric="cosine")
        docs.upsert(old.ids.tolist(), vectors={"mini": old.vectors})
        docs.create_index("mini", "faiss.factory", factory="HNSW32,Flat")
    """
    faiss, where = library(), os.fspath(path)
    os.stat(where)  # a missing file is an OSError, not a damaged one
    try:
        whole = faiss.read_index(where)  # owns its parts: it must live as long as they are used
    except RuntimeError as error:
        raise CorruptionError(f"faiss cannot read {where}: {error}", what="faiss file", where=where) from error
    index = faiss.downcast_index(whole)
    metrics: dict[int, Metric] = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "dot"}
    if index.metric_type not in metrics:
        raise _no_way(where, f"it compares by metric {index.metric_type}", "inner product or L2")
    labels = None
    if isinstance(index, (faiss.IndexIDMap, faiss.IndexIDMap2)):
        labels, index = faiss.vector_to_array(index.id_map), faiss.downcast_index(index.index)
    exact = isinstance(index, (*exact_kinds(), faiss.IndexRefineFlat))
    if not exact and not approximate:
        raise _no_way(where, f"{type(index).__name__} keeps codes, not the vectors", "approximate=True, or the source")
    ids, vectors = _contents(faiss, index, where)
    return Existing(ids if labels is None else labels[ids], vectors, metrics[whole.metric_type], exact)


def _contents(faiss: Any, index: Any, where: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    if isinstance(index, faiss.IndexRefineFlat):
        return _contents(faiss, faiss.downcast_index(index.refine_index), where)
    try:
        if not isinstance(index, faiss.IndexIVF):
            return np.arange(index.ntotal), index.reconstruct_n(0, index.ntotal)
        lists = (_ids_of(faiss, index.invlists, number) for number in range(index.nlist))
        ids = np.concatenate([np.empty(0, np.int64), *lists])
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # ids need not be consecutive
        return ids, index.reconstruct_batch(ids)
    except RuntimeError as error:
        raise _no_way(where, f"{type(index).__name__} cannot decode its vectors", "another kind") from error


def _ids_of(faiss: Any, lists: Any, number: int) -> npt.NDArray[np.int64]:
    size = lists.list_size(number)
    return np.array(faiss.rev_swig_ptr(lists.get_ids(number), size), np.int64) if size else np.empty(0, np.int64)


def _no_way(where: str, problem: str, allowed: str) -> ParameterError:
    return ParameterError(
        f"the vectors of {where} cannot be taken over: {problem}",
        hint="Read the vectors where they came from.",
        name="path",
        got=where,
        allowed=allowed,
    )
