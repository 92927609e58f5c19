"""The words of exploring a collection: how lists are widened or spread, and what is found by neighbours.

Plain values, like those of `types`. What they mean: docs/how-to/explore.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from vecdb.types import Id, WriteResult

__all__ = [
    "MMR",
    "ClassifierQuality",
    "Feedback",
    "Group",
    "LabelProposal",
    "LabelProposals",
    "Mixture",
    "Prediction",
    "Share",
]


@dataclass(frozen=True, slots=True)
class Feedback:
    """Pseudo-relevance feedback: the best hits are taken for relevant, and the query moves towards them.

    The new query is ``(query * q + documents' mean * mean) / (query + mean)``: Rocchio's formula without a negative
    part (J. Rocchio, Relevance feedback in information retrieval, 1971; for dense vectors: H. Li et al., Pseudo
    relevance feedback with deep language models and dense retrievers, 2022, section 3.2).

    Attributes
    ----------
    documents : int
        How many of the best native vectors are taken for relevant, 1 to 1,000.
    query, mean : float
        Weights of the query and of their mean, not negative, not both 0.
    rounds : int
        How often it is done, 1 to 10.
    """

    documents: int = 5
    query: float = 1.0
    mean: float = 0.25
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class MMR:
    """Maximal marginal relevance: each hit is the best of what is not like the hits before it.

    The next hit is the candidate with the largest ``trade * score - (1 - trade) * similarity to the most similar hit
    so far``; both are scores of the space's metric (J. Carbonell and J. Goldstein, The use of MMR, SIGIR 1998,
    section 2). Equal values go by rank.

    Attributes
    ----------
    trade : float
        1: relevance alone, 0: difference alone.
    candidates : int
        How many of the best are chosen from, at least ``k + offset``.
    """

    trade: float = 0.7
    candidates: int = 100


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of clusters: each cluster of the candidates gets its share of the list.

    Candidates are put into clusters by k-means; a cluster gets places in proportion to ``(1 - smoothing) * its share of
    the candidates + smoothing / clusters``, and fills them with its best (A. El-Kishky et al., kNN-Embed: locally
    smoothed embedding mixtures for multi-interest candidate retrieval, 2022, sections 3 and 4). With several positive
    examples these are the ones in clusters, and each cluster's centre asks for its own part of the list.

    Attributes
    ----------
    clusters : int
        2 to 1,000; fewer where there are not so many different vectors.
    candidates : int
        How many of the best are chosen from, at least ``k + offset``.
    smoothing : float
        0: as many places as a cluster has candidates, 1: all clusters alike.
    """

    clusters: int = 3
    candidates: int = 50
    smoothing: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Hits of one value of the field that was grouped by.

    Attributes
    ----------
    value : object
        None for records without the field and for those where it is null.
    ids : tuple of str or int
        Best first.
    """

    value: Any
    ids: tuple[Id, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the neighbours of a query say of a field.

    Attributes
    ----------
    label : object
        The value with most votes; None where no neighbour has one.
    probability : float
        Its share of the votes, 0 to 1.
    probabilities : tuple of (label, float)
        Of every value that a neighbour has, the largest first; they sum to 1.
    neighbours : tuple of str or int
        Who voted, nearest first.
    """

    label: Any
    probability: float
    probabilities: tuple[tuple[Any, float], ...]
    neighbours: tuple[Id, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of trials, and Wilson's interval of 95 % around it.

    Attributes
    ----------
    value, low, high : float
        NaN where nothing was tried.
    trials : int
    """

    value: float
    low: float
    high: float
    trials: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.trials}"


@dataclass(frozen=True, slots=True)
class ClassifierQuality:
    """How often the neighbours of labelled records, each left out in its turn, say what is known.

    Attributes
    ----------
    accuracy : Share
    majority : float
        What always saying the most frequent label would reach among the same records.
    brier : float
        Mean squared error of the probabilities, summed over labels: 0 to 2, lower is better.
    labels : int
        Different labels among the records that were left out.
    seq : int
    """

    accuracy: Share
    majority: float
    brier: float
    labels: int
    seq: int


@dataclass(frozen=True, slots=True)
class LabelProposal:
    """A label for a record that has none; `confidence` is its share of all that reached the record, 0 to 1."""

    id: Id
    label: Any
    confidence: float


@dataclass(frozen=True, slots=True)
class LabelProposals(Sequence[LabelProposal]):
    """Labels that spread from labelled records to others, in the order of the records' vectors.

    Attributes
    ----------
    field : str
    proposals : tuple of LabelProposal
    labelled : int
        Records whose labels were spread.
    unreached : int
        Records without a label that none reached, or none with enough confidence.
    accuracy : Share or None
        Of labels that were hidden to see whether they come back; None where none were.
    seq : int
        The state that was read.
    written : WriteResult or None
    """

    field: str
    proposals: tuple[LabelProposal, ...]
    labelled: int
    unreached: int
    accuracy: Share | None
    seq: int
    written: WriteResult | None = None

    @overload
    def __getitem__(self, index: int) -> LabelProposal: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LabelProposal, ...]: ...
    def __getitem__(self, index: int | slice) -> LabelProposal | tuple[LabelProposal, ...]:
        return self.proposals[index]

    def __len__(self) -> int:
        return len(self.proposals)
