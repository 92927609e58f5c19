"""The index contract: what an index type declares, what it is given, and what it must return.

An index is derived: the engine keeps the records, and gives every index, foreign ones too, the vectors that it does not
cover yet, deletions, ``where``, ``as_of``, crash safety, exact final scores and a rebuild when it is damaged. An index
only nominates candidates. The numbered rules: docs/reference/index-contract.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.effort import EffortCurve
from vecdb.contracts.params import Param
from vecdb.types import CancelCheck, Metric, Progress, Space

if TYPE_CHECKING:
    from vecdb.blocks import VectorBlocks

__all__ = [
    "Candidates",
    "GrowingIndex",
    "InPlace",
    "Index",
    "IndexCapabilities",
    "IndexType",
    "MeasuredIndex",
    "Prepared",
    "PreparingIndex",
    "ProvingIndex",
    "SegmentEncoder",
    "VectorView",
]

Positions = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class IndexCapabilities:
    """What an index type can do. Each default is the careful one: what is not declared is not relied upon.

    Attributes
    ----------
    metrics : frozenset of {"cosine", "dot", "l2"}
        Spaces of other metrics are refused before the plugin is asked.
    exact : bool
        The true best k are always among the candidates.
    filtered : bool
        `Index.search` understands `allowed`. Otherwise the engine asks for more and drops what is not allowed.
    lists : bool
        With `filtered`: few allowed vectors are found by looking at the code of each, which takes the less the fewer
        they are. Otherwise they are scanned by the engine.
    complete : bool
        At least ``min(k, allowed)`` candidates are always returned; fewer are then a broken rule. Otherwise the engine
        answers a query that got too few by an exact scan.
    add, remove : bool
        The index has the methods of that name.
    encodes_segments : bool
        The index has `encode_segment`.
    deterministic : bool
        The same view, parameters and seed give the same answers.
    measured : bool
        The index has `effort_curve`: it knows its recall by effort. Otherwise the engine measures it.
    part_from : int
        With `encodes_segments`: fewer vectors than this are not worth a build. What is sealed is covered by what
        `encode_segment` writes, until so many vectors, or a tenth of the largest built part, wait for one. 0: parts
        are all of one kind.
    proves : bool
        The index has `problems`, which `Database.check` asks.
    prepares : bool
        The index has `prepare`: the same wishes again, without settling them again.
    min_recall_at_10 : float or None
        Recall@10 that the default effort reaches on the sets of the conformance kit; None promises nothing.
    max_dim : int or None
        Widest space that can be indexed.
    """

    metrics: frozenset[Metric]
    exact: bool = False
    filtered: bool = False
    lists: bool = False
    complete: bool = False
    add: bool = False
    remove: bool = False
    encodes_segments: bool = False
    deterministic: bool = False
    measured: bool = False
    part_from: int = 0
    proves: bool = False
    prepares: bool = False
    min_recall_at_10: float | None = None
    max_dim: int | None = None


class Candidates(NamedTuple):
    """What a search nominates.

    Attributes
    ----------
    positions : ndarray of int64, shape (q, m)
        Positions in the view, best first, -1 behind the last; m may be smaller or larger than k.
    scores : ndarray of float32, shape (q, m)
        The index's own scores, higher is better, -inf where the position is -1. Exact scores are computed by the
        engine; these only order.
    """

    positions: Positions
    scores: Matrix

    @classmethod
    def ordered(cls, positions: npt.ArrayLike, scores: npt.ArrayLike) -> Candidates:
        """Return what a library found as the contract asks for it.

        Parameters
        ----------
        positions : array_like of int, shape (q, m)
            Distinct in each row; negative where nothing was found.
        scores : array_like of float, shape (q, m)
            Higher is better; without meaning where nothing was found.

        Returns
        -------
        Candidates
            Each row sorted by (score descending, position ascending), with -1 and -inf behind the last.
        """
        places, values = np.array(positions, np.int64), np.array(scores, np.float32)
        nothing = places < 0
        if not nothing.any() and (values[:, 1:] < values[:, :-1]).all():
            return cls(places, values)  # libraries mostly answer in order
        places[nothing], values[nothing] = -1, -np.inf
        order = np.lexsort((places, -values, nothing), axis=-1)
        return cls(np.take_along_axis(places, order, -1), np.take_along_axis(values, order, -1))


Prepared = Callable[[Matrix], Candidates]
"""Answers one query, float32 (1, dim), as `Index.search` would; see `PreparingIndex`."""


class InPlace(NamedTuple):
    """The vectors where they lie in the file.

    Attributes
    ----------
    blocks : VectorBlocks
        Read-only, in scan order, with one scale a row.
    places : ndarray of int64, shape (count,), or None
        Where each position lies in `blocks`, ascending; -1 for a vector that is no longer there. None: position p
        lies at ``first + p``.
    first : int
    """

    blocks: VectorBlocks
    places: Positions | None
    first: int


class VectorView(Protocol):
    """The vectors that an index covers, numbered 0 to ``count - 1`` by age. Made by the engine.

    Attributes
    ----------
    space : Space
        Name, width, metric, stored dtype and model of the vectors.
    count : int
    dim : int
    metric : {"cosine", "dot", "l2"}
    ordinals : ndarray of uint64, shape (count,)
        The engine's lasting number of each vector, ascending; positions are not lasting, ordinals are.
    """

    @property
    def space(self) -> Space: ...
    @property
    def count(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def ordinals(self) -> npt.NDArray[np.uint64]: ...

    def chunks(self, rows: int = 8_192) -> Iterator[tuple[Positions, Matrix]]:
        """Yield all vectors in order as (positions, vectors): float32 copies of at most `rows` rows each.

        Vectors that were removed from the file since are left out (while an index is built, none is).
        """
        ...

    def gather(self, positions: npt.ArrayLike) -> Matrix:
        """Return float32 copies of the vectors at `positions`, shape (c, dim).

        Raises
        ------
        PluginContractError
            If a position lies outside the view, or its vector was removed from the file.
        """
        ...

    def in_place(self, *, verify: bool = True) -> AbstractContextManager[InPlace]:
        """Give the vectors where they lie, until the end of the ``with`` block; keep nothing of it afterwards.

        Held while an index is built, it keeps the space of vectors deleted meanwhile from being used again: leave it
        between steps.

        Parameters
        ----------
        verify : bool, default True
            Compare all vectors with their checksums first. False reads nothing: call `verify` with the positions of
            the vectors that were looked at before what they led to is returned.

        Raises
        ------
        CorruptionError
            A vector is damaged.
        """
        ...

    def verify(self, positions: npt.ArrayLike) -> None:
        """Compare the vectors at `positions` with their checksums; each is compared once in a process.

        Raises
        ------
        CorruptionError
            One is damaged.
        PluginContractError
            As `gather`.
        """
        ...


@runtime_checkable
class Index(Protocol):
    """A built index over one view. Several threads may search it at once."""

    def search(
        self, queries: Matrix, k: int, *, allowed: Bools | None, effort: int | None, view: VectorView
    ) -> Candidates:
        """Nominate candidates for each query.

        Parameters
        ----------
        queries : ndarray of float32, shape (q, dim)
            C-contiguous, read-only, finite; not of zero norm in a cosine space, and not normalised.
        k : int
            At least 1; may exceed the number of vectors.
        allowed : ndarray of bool, shape (count,), or None
            Positions that may be returned; None: all. Always None without the capability `filtered`.
        effort : int or None
            Wish for more or less work, in candidates examined per query; None: the index's own default.
        view : VectorView
            The covered vectors, readable until the call returns. Those that are not `allowed` may be gone.

        Returns
        -------
        Candidates
            For each query distinct positions, sorted by (score descending, position ascending).
        """
        ...

    def dump(self, blobs: BlobWriter) -> None:
        """Write everything that `IndexType.load` needs."""
        ...

    def stats(self) -> Mapping[str, int | float | str]:
        """Return facts for people; no work."""
        ...


@runtime_checkable
class IndexType(Protocol):
    """A kind of index, registered under a name; stateless.

    Attributes
    ----------
    name : str
        Lower case; with a prefix, ``"acme.ivfpq"``, unless it is part of vecdb.
    version : int
        Of the stored form. An index stored by another version is rebuilt.
    capabilities : IndexCapabilities
    parameters : mapping of str to Param
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def capabilities(self) -> IndexCapabilities: ...
    @property
    def parameters(self) -> Mapping[str, Param]: ...

    def build(
        self,
        view: VectorView,
        params: Mapping[str, Any],
        *,
        seed: int,
        progress: Progress,
        cancel: CancelCheck,
    ) -> Index:
        """Build an index over `view`.

        Parameters
        ----------
        view : VectorView
            At least one vector.
        params : mapping
            Every declared parameter, checked.
        seed : int
            The only source of randomness, ``0 <= seed < 2**63``.
        progress : callable
            ``progress(done, total)``, at least once and at the end with ``done == total``.
        cancel : callable
            Asked between steps: a true answer ends the build with `CancelledError`.
        """
        ...

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> Index:
        """Return the index that `dump` wrote; `view` has the same positions as then.

        Raises
        ------
        CorruptionError
            If the blobs are not what `dump` writes. Nothing stored may be trusted: sizes and numbers are checked
            before they are followed, and nothing is unpickled.
        """
        ...


class GrowingIndex(Index, Protocol):
    """An index with the capability `add`, `remove` or both; each is called by one thread, and not during a search."""

    def add(self, view: VectorView, start: int, *, progress: Progress, cancel: CancelCheck) -> None:
        """Take in positions ``start`` to ``view.count - 1``; those before it are known, and keep their numbers."""
        ...

    def remove(self, positions: Positions) -> None:
        """Forget vectors; their positions are never allowed again, and are not used anew.

        Some of them may have been removed before: they stay removed.
        """
        ...


class SegmentEncoder(Index, Protocol):
    """An index with the capability `encodes_segments`."""

    def encode_segment(self, view: VectorView, blobs: BlobWriter) -> None:
        """Write what `IndexType.load` needs for an index over `view` alone, in the style of this index.

        Called inside the commit that seals the vectors of `view`, so it must be quick: a pass over them.
        """
        ...


class MeasuredIndex(Index, Protocol):
    """An index with the capability `measured`."""

    def effort_curve(self) -> EffortCurve | None:
        """Return the recall@10 that queries like the vectors get, by effort; no work.

        It is what was measured against exact answers for vectors that were not in the index then, and is kept with
        it: a loaded index returns the same. None where too few vectors were there to measure; the engine then does.
        """
        ...


class ProvingIndex(Index, Protocol):
    """An index with the capability `proves`."""

    def problems(self, view: VectorView) -> Sequence[str]:
        """Look through the whole index for what checksums cannot show, and return what is wrong, a line each.

        An index of a graph, for one, shows that every vector can be reached. It may take as long as reading everything.
        """
        ...


class PreparingIndex(Index, Protocol):
    """An index with the capability `prepares`."""

    def prepare(self, k: int, *, allowed: Bools | None, effort: int | None, view: VectorView) -> Prepared | None:
        """Return a search of which everything but the query is settled, or None: not for these wishes, or not yet.

        It answers as `search` does with the same wishes, bit for bit, for any number of threads at once. It may read
        vectors in place, and need not prove them again: all of them were compared with their checksums before it is
        asked for. The engine lets go of it before the file is mapped anew, or anything about the vectors changes.

        Parameters
        ----------
        k, allowed, effort, view
            As in `search`; what `view` gives stays readable for as long as what is returned is held.
        """
        ...
