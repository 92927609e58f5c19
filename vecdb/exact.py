"""Exact search over vector blocks by whichever path is at hand, with the same bits from each.

Owns the choice between the numpy path and the compiled one.
Invariant: positions and scores do not depend on the path, the batch, or the cut into blocks.
Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb import scan_numpy
from vecdb.blocks import VectorBlocks
from vecdb.errors import DimensionError, ParameterError, StateError
from vecdb.kernels import loader
from vecdb.scan_numpy import Found

__all__ = ["Found", "Path", "ScanFacts", "rescore", "rescore_each", "search"]

Path: TypeAlias = Literal["auto", "numpy", "numba"]

_PATHS = ("auto", "numpy", "numba")
_WARM_AFTER = 100_000 * 384
"""Vector components that numpy may scan in this process before the compiled path is asked for."""

_TOGETHER = 64
"""Queries whose candidates are scored in one call: their pools are as wide as the longest."""

_scanned_by_numpy = 0


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """What an exact search did.

    Attributes
    ----------
    path : {"numpy", "numba"}
    rows_scanned : int
        Row and query pairs that were looked at.
    rescored : int
        Rows whose canonical score was computed in the end, over all queries.
    complete : bool
        False if `stop` ended the scan early; what is returned is then the best of the rows scanned.
    """

    path: Literal["numpy", "numba"]
    rows_scanned: int
    rescored: int
    complete: bool

    def facts(self) -> dict[str, Any]:
        """Return the same for a plan."""
        return {
            "method": "exact scan",
            "path": self.path,
            "rows_scanned": self.rows_scanned,
            "rescored": self.rescored,
            "complete": self.complete,
        }


def search(
    blocks: VectorBlocks,
    queries: npt.NDArray[np.float32],
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
    stop: Callable[[], bool] | None = None,
    path: Path = "auto",
) -> tuple[list[Found], ScanFacts]:
    """Return the true top k of every query.

    Parameters
    ----------
    blocks : VectorBlocks
    queries : ndarray of float32, shape (q, d)
        As `arrays.as_query` returns them.
    k : int
        At least 1; may exceed the number of rows.
    allowed : ndarray of bool, shape (n,), optional
        Rows that may be returned.
    stop : callable, optional
        Asked at least every 64 MB of vectors; a true answer ends the scan.
    path : {"auto", "numpy", "numba"}, default "auto"
        "auto" is numba as soon as it is loaded, which is asked for once scanning pays for it.

    Returns
    -------
    found : list of (positions int64 (m,), scores float32 (m,)), one per query
        Best first; m = min(k, allowed rows). Scores are canonical (cosine, inner product, minus distance) and equal
        ones are ordered by position.
    facts : ScanFacts

    Raises
    ------
    ParameterError
        If k, path or the shape of `allowed` is impossible.
    DimensionError
        If the queries are of another width.
    StateError
        ``path="numba"`` and the kernels cannot be loaded.
    """
    queries = _checked(blocks, queries, k)
    if allowed is not None and (allowed.shape != (blocks.count,) or allowed.dtype != np.bool_):
        got = f"{allowed.dtype} {allowed.shape}"
        expected = f"bool ({blocks.count},)"
        raise ParameterError(f"allowed is {got}, expected {expected}.", name="allowed", got=got, allowed=expected)
    chosen = _choose(path, blocks.count * blocks.dim * len(queries))
    best = _finder(chosen)(blocks, queries, k, allowed=allowed, stop=stop)
    return best.found, ScanFacts(chosen, best.rows_scanned, best.rescored, best.complete)


def rescore(
    blocks: VectorBlocks,
    query: npt.NDArray[np.float32],
    positions: npt.ArrayLike,
    k: int,
    path: Path = "auto",
) -> Found:
    """Return the best k of the rows at `positions` by canonical score; for candidates from any index.

    Parameters, order and errors as in `scan_numpy.top_k`; the compiled routine is used where it is loaded.
    """
    query = _checked(blocks, query[None], k)[0]
    if path == "numba" or (path == "auto" and loader.ready()):
        from vecdb.kernels import canonical  # numba is loaded by now, never by importing this module

        return canonical.top_k(blocks.metric, query, blocks, positions, k)
    return scan_numpy.top_k(blocks.metric, query, blocks, positions, k)


def rescore_each(
    blocks: VectorBlocks,
    queries: npt.NDArray[np.float32],
    positions: Sequence[npt.NDArray[np.int64]],
    k: int,
    path: Path = "auto",
) -> list[Found]:
    """Return `rescore` of each query among its own candidates, in few compiled calls.

    Parameters
    ----------
    blocks : VectorBlocks
    queries : ndarray of float32, shape (q, d)
    positions : sequence of q ndarrays of int64
        Distinct in each.
    k, path
        As in `rescore`.
    """
    if len(positions) == 1:
        return [rescore(blocks, queries[0], positions[0], k, path)]
    queries = _checked(blocks, queries, k)
    if len(positions):
        blocks.checked_positions(np.concatenate(positions))
    if path == "numba" or (path == "auto" and loader.ready()):
        from vecdb.kernels import canonical  # as in `rescore`

        found: list[Found] = []
        for start in range(0, len(positions), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            found += canonical.top_k_each(blocks.metric, queries[part], blocks, positions[part], k)
        return found
    return [
        scan_numpy.top_k(blocks.metric, query, blocks, own, k) for query, own in zip(queries, positions, strict=True)
    ]


def _checked(blocks: VectorBlocks, queries: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    """Return contiguous queries; a width that differs would make compiled code read beyond the rows."""
    if k < 1:
        raise ParameterError(f"k is {k}, expected at least 1.", name="k", got=k, allowed=">= 1")
    if queries.ndim != 2 or queries.shape[1] != blocks.dim:
        raise DimensionError(
            f"queries have shape {queries.shape}, expected (q, {blocks.dim}).",
            expected=blocks.dim,
            got=queries.shape,
            where="exact search",
        )
    return np.ascontiguousarray(queries, dtype=np.float32)


def _choose(path: Path, components: int) -> Literal["numpy", "numba"]:
    if path not in _PATHS:
        raise ParameterError(
            f"path is {path!r}, expected one of {_PATHS}.", name="path", got=path, allowed=", ".join(_PATHS)
        )
    if path == "numba":
        _require_kernels()
        return "numba"
    if path == "auto":
        if loader.ready():
            return "numba"
        _count(components)
    return "numpy"


def _count(components: int) -> None:
    """Ask for the compiled path once the work done without it would have paid for loading it."""
    global _scanned_by_numpy
    _scanned_by_numpy += components  # a lost update between threads only delays the request
    if _scanned_by_numpy > _WARM_AFTER:
        loader.request()


def _require_kernels() -> None:
    loader.request()
    if not loader.wait():
        error = loader.failure()
        reason = f"they could not be loaded ({error})" if error else "VECDB_KERNELS=0 switches them off"
        raise StateError(
            f"path='numba' needs the compiled kernels: {reason}.", hint="Use path='auto' or path='numpy'."
        ) from error


_compiled: Callable[..., scan_numpy.Best] | None = None


def _finder(path: Literal["numpy", "numba"]) -> Callable[..., scan_numpy.Best]:
    global _compiled
    if path == "numpy":
        return scan_numpy.best
    if _compiled is None:
        from vecdb.kernels.nominate import best  # as in `rescore`; kept, because every search would feel the import

        _compiled = best
    return _compiled
