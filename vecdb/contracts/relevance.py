"""The relevance contract: from the scores of an answer to how likely each hit is one, so that an answer may be empty.

A filter judges candidates that a search has found; the engine drops those below the threshold. It belongs to a space:
after an upgrade it is fitted again, or its scores are brought to its scale, or it is stale. The numbered rules:
docs/reference/relevance-contract.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.contracts.quiet import never, silent
from vecdb.contracts.state import State
from vecdb.types import CancelCheck, Progress, Space

__all__ = [
    "MOST_SHOWN",
    "RELEVANCE_NEEDS",
    "SCOPES",
    "TRANSFERS",
    "RelevanceCapabilities",
    "RelevanceData",
    "RelevanceFilter",
    "RelevanceFilterType",
]

Matrix = npt.NDArray[np.float32]
Scope: TypeAlias = Literal["score", "query", "vectors"]
Transfer: TypeAlias = Literal["refit", "rescore", "none"]
Need: TypeAlias = Literal["labels", "groups", "sample"]

SCOPES: tuple[Scope, ...] = ("score", "query", "vectors")
"""From the least that a filter looks at to the most."""
TRANSFERS: tuple[Transfer, ...] = ("none", "rescore", "refit")
RELEVANCE_NEEDS: tuple[Need, ...] = ("labels", "groups", "sample")
MOST_SHOWN = 1_000
"""Best candidates that a filter may want to be shown."""


@dataclass(frozen=True, slots=True)
class RelevanceCapabilities:
    """What a kind of filter looks at and promises. Each default is the careful one.

    Attributes
    ----------
    scope : {"score", "query", "vectors"}
        What `RelevanceFilter.relevance` is given: the scores, the queries as well, or the candidates' vectors as well.
    monotone : bool
        For one query a candidate of higher score is never less relevant, so filtering does not reorder.
    transfer : {"none", "rescore", "refit"}
        After an upgrade. "refit": fit again on the stored queries, scored through the bridge. "rescore": it may
        judge bridged scores as it is, once they are calibrated to the space's scale. "none": refused as stale.
    requires : frozenset of {"labels", "groups", "sample"}
        Parts of `RelevanceData` without which there is no fit.
    deterministic : bool
        The same data, parameters and state of `RelevanceData.rng` give the same filter.
    depth : int
        Best candidates of a query that it wants to be shown, though the caller asks for fewer: it judges one by the
        company of the others. At most 1,000.
    """

    scope: Scope = "vectors"
    monotone: bool = False
    transfer: Transfer = "none"
    requires: frozenset[Need] = frozenset({"labels"})
    deterministic: bool = False
    depth: int = 0


@dataclass(frozen=True, slots=True)
class RelevanceData:
    """What a filter is fitted on: the pool, the best m candidates of each of q queries.

    Arrays are C-contiguous, read-only and lent until `fit` returns; in a cosine space every vector has norm 1.

    Attributes
    ----------
    space : Space
    queries : ndarray of float32, shape (q, d)
    scores : ndarray of float32, shape (q, m)
        Not increasing along a row; -inf behind the last candidate.
    ordinals : ndarray of uint64, shape (q, m)
        The lasting number of each candidate; 0 behind the last.
    labels : ndarray of int8, shape (q, m), or None
        1: relevant, 0: not relevant, -1: not judged.
    ignore : ndarray of bool, shape (q, m)
        Candidates that count as neither, and places behind the last.
    missed : ndarray of float32, shape (p, 2), or None
        Relevant records that are not in the pool: number of the query, and the exact score.
    vectors : callable or None
        ``vectors(row)``: float32, shape (m, d), those of a query's candidates, zeros behind the last. None without
        the scope "vectors".
    sample : ndarray of float32, shape (s, d), or None
        Vectors of random records.
    groups : ndarray of int64, shape (q,), or None
        Queries of one group belong together and must not be split.
    count : int
        Vectors in the space.
    rng : numpy.random.Generator
        The only source of randomness.
    progress, cancel : callable
        As in `vecdb.contracts.FitData`.
    """

    space: Space
    queries: Matrix
    scores: Matrix
    ordinals: npt.NDArray[np.uint64]
    ignore: npt.NDArray[np.bool_]
    count: int
    rng: np.random.Generator
    labels: npt.NDArray[np.int8] | None = None
    missed: Matrix | None = None
    vectors: Callable[[int], Matrix] | None = None
    sample: Matrix | None = None
    groups: npt.NDArray[np.int64] | None = None
    progress: Progress = silent
    cancel: CancelCheck = never


@runtime_checkable
class RelevanceFilter(Protocol):
    """A fitted filter. It never changes, and several threads may ask it at once.

    Attributes
    ----------
    threshold : float
        Candidates of at least this relevance are kept unless the caller says otherwise, ``0 < threshold <= 1``.
    """

    @property
    def threshold(self) -> float: ...

    def relevance(self, scores: Matrix, queries: Matrix | None, vectors: Matrix | None, *, count: int) -> Matrix:
        """Judge candidates; each query by itself.

        Parameters
        ----------
        scores : ndarray of float32, shape (q, m)
            Read-only, in any order; -inf where a query has no candidate. q and m may be 0.
        queries : ndarray of float32, shape (q, d), or None
            None with the scope "score".
        vectors : ndarray of float32, shape (q, m, d), or None
            Those of the candidates, zeros where there is none. None unless the scope is "vectors".
        count : int
            Vectors that were searched.

        Returns
        -------
        ndarray of float32, shape (q, m)
            Between 0 and 1; 0 where there is no candidate. New.
        """
        ...

    def state(self) -> State:
        """Return everything that `RelevanceFilterType.load` needs, as plain values and arrays."""
        ...


@runtime_checkable
class RelevanceFilterType(Protocol):
    """A kind of relevance filter, registered under a name; stateless.

    Attributes
    ----------
    name : str
        Lower case; with a prefix, ``"acme.platt"``, unless it is part of vecdb.
    version : int
        Of the stored state. A filter stored by another version is stale.
    capabilities : RelevanceCapabilities
    parameters : mapping of str to Param
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def capabilities(self) -> RelevanceCapabilities: ...
    @property
    def parameters(self) -> Mapping[str, Param]: ...

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> RelevanceFilter:
        """Fit a filter.

        Raises
        ------
        FitError
            Too few judged candidates, or only relevant ones, or none that is.
        CancelledError
            `RelevanceData.cancel` said stop.
        """
        ...

    def load(self, state: State) -> RelevanceFilter:
        """Return the filter whose `RelevanceFilter.state` this is.

        Raises
        ------
        CorruptionError
            If it is not what `state` returns.
        """
        ...
