"""The words of exploring a collection: how lists are widened or spread, and what is found by neighbours.

Plain values, like those of `types`. What they mean: docs/how-to/explore.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vecdb.types import Id

__all__ = ["MMR", "Feedback", "Group", "Mixture"]


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
    mean: float = 0.75
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

    clusters: int = 5
    candidates: int = 100
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
