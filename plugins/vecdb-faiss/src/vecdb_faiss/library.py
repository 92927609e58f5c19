"""Faiss itself: imported on first use, with one thread, and asked with parameters that belong to one call.

Faiss also has `ParameterSpace`, which writes into the index; several threads search one index here, each with its own
effort, so everything that differs between searches travels with the call instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import PluginLoadError

__all__ = ["exact_kinds", "library", "one_thread", "search_parameters", "selector_of"]

EF_SEARCH = 64
"""Candidates that a graph examines per query where nobody says how many."""


def library() -> Any:
    """Return the module faiss.

    Raises
    ------
    PluginLoadError
        It cannot be imported.
    """
    try:
        import faiss
    except ImportError as error:
        raise PluginLoadError(
            f"faiss.factory needs the package faiss-cpu, which cannot be imported: {error}",
            hint="Install it: python -m pip install 'faiss-cpu>=1.10'",
            plugin="faiss",
            distribution="vecdb-faiss",
        ) from error
    return faiss


def exact_kinds() -> tuple[Any, ...]:
    """Return the classes of indexes that keep vectors and rank by them."""
    faiss = library()
    return faiss.IndexFlat, faiss.IndexHNSWFlat, faiss.IndexIVFFlat, faiss.IndexNSGFlat


@contextmanager
def one_thread() -> Iterator[Any]:
    """Give Faiss one OpenMP thread inside the ``with`` block; the number is a setting of the calling thread alone."""
    faiss = library()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)


def selector_of(allowed: npt.NDArray[np.bool_]) -> Any:
    """Return the selector for positions that may be answers; it keeps its bits alive."""
    return library().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def search_parameters(index: Any, k: int, effort: int | None, share: float, selector: Any) -> Any:
    """Return the parameters of one search, nested as the index is.

    Parameters
    ----------
    index : faiss.Index
    k : int
    effort : int or None
        Candidates to examine per query that may be answers; None: `EF_SEARCH` for a graph, the square
        root of the number of lists.
    share : float
        How many of the vectors may be answers, above 0 and at most 1.
    selector : faiss.IDSelector or None
    """
    faiss = library()
    index = faiss.downcast_index(index)
    chosen = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexPreTransform):
        inner = search_parameters(index.index, k, effort, share, selector)
        return faiss.SearchParametersPreTransform(index_params=inner, **chosen)
    if isinstance(index, faiss.IndexRefine):
        inner = search_parameters(index.base_index, k, effort, share, selector)
        return faiss.IndexRefineSearchParameters(base_index_params=inner, k_factor=index.k_factor, **chosen)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=_probes(index, k, effort, share), **chosen)
    if isinstance(index, faiss.IndexHNSW):
        wanted = math.ceil(max(k, effort or EF_SEARCH) / share)
        return faiss.SearchParametersHNSW(efSearch=min(wanted, max(index.ntotal, 1)), **chosen)
    return faiss.SearchParameters(**chosen) if chosen else None


def _probes(index: Any, k: int, effort: int | None, share: float) -> int:
    """Return how many lists hold that many candidates, were they equally long."""
    per_list = max(index.ntotal / index.nlist * share, 1e-9)
    wanted = max(k, effort or 0) / per_list
    if effort is None:
        wanted = max(wanted, math.sqrt(index.nlist))
    return int(min(max(1, math.ceil(wanted)), index.nlist))
