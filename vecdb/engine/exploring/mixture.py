"""A mixture of clusters: candidates in clusters, and each cluster its share of the list.

A. El-Kishky, T. Markovich, K. Leung, F. Portman, A. Haghighi and Y. Xiao, kNN-Embed: locally smoothed embedding
mixtures for multi-interest candidate retrieval, 2022, sections 3 and 4. Clusters are those of k-means in float64,
started from the candidates that lie farthest apart (T. Gonzalez, Clustering to minimize the maximum intercluster
distance, 1985), the first being the best candidate: nothing is drawn, so equal candidates give equal clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

ROUNDS: Final = 50
"""Rounds of k-means at most; candidates are few, and it stands still long before."""


def distances(rows: F64, centres: F64) -> F64:
    """Return squared Euclidean distances, shape (n, c); one centre after the other, each row by itself."""
    return np.stack([np.einsum("ij,ij->i", rows - centre, rows - centre) for centre in centres], axis=1)


def _starts(rows: F64, count: int) -> F64:
    chosen = [0]
    nearest = distances(rows, rows[:1])[:, 0]
    while len(chosen) < count:
        far = int(np.argmax(nearest))
        if nearest[far] <= 0:
            break
        chosen.append(far)
        np.minimum(nearest, distances(rows, rows[far : far + 1])[:, 0], out=nearest)
    return rows[chosen]


def clusters(vectors: F32, count: int) -> Places:
    """Return the cluster of each row, numbered in the order of their first rows.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n, dim), n at least 1
        Of unit length where directions are compared.
    count : int
        At most; fewer where there are not so many different rows. Equal distances go to the earlier centre.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    rows = vectors.astype(np.float64)
    centres = _starts(rows, min(count, len(rows)))
    owner = np.argmin(distances(rows, centres), axis=1)
    for _ in range(ROUNDS):
        centres = np.stack(
            [rows[owner == c].mean(axis=0) if (owner == c).any() else centres[c] for c in range(len(centres))]
        )
        before, owner = owner, np.argmin(distances(rows, centres), axis=1)
        if np.array_equal(before, owner):
            break
    _, first, numbered = np.unique(owner, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbered].astype(np.int64)


def shares(sizes: Places, k: int, smoothing: float, room: Places | None = None) -> Places:
    """Return how many of k places each cluster gets: largest remainders, never more than it can fill.

    Parameters
    ----------
    sizes : ndarray of int64, shape (c,)
        Of each cluster, at least 1.
    k : int
        At most ``room.sum()``.
    smoothing : float
        0: in proportion to sizes, 1: all alike.
    room : ndarray of int64, shape (c,), optional
        What each can fill; default its size.

    Returns
    -------
    ndarray of int64, shape (c,)
        Sums to k. Equal remainders go to the earlier cluster.
    """
    places = np.zeros(len(sizes), np.int64)
    most = sizes if room is None else room
    while (left := k - int(places.sum())) > 0:
        free = most - places
        open_ = free > 0
        wanted = np.where(open_, (1.0 - smoothing) * sizes / sizes[open_].sum() + smoothing / open_.sum(), 0.0) * left
        whole = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), free)
        places += whole
        left -= int(whole.sum())
        order = np.lexsort((np.arange(len(sizes)), -(wanted - np.floor(wanted + 1e-9))))
        for cluster in [c for c in order.tolist() if most[c] > places[c]][:left]:
            places[cluster] += 1
    return places


def choose(scores: F32, vectors: F32, k: int, count: int, smoothing: float) -> list[int]:
    """Return the places of the chosen candidates, best score first.

    Parameters
    ----------
    scores : ndarray of float32, shape (n,)
        Of the candidates, best first.
    vectors : ndarray of float32, shape (n, dim)
    k, count, smoothing
        Hits, clusters, and how alike their shares are.

    Returns
    -------
    list of min(k, n) ints
    """
    if not len(scores):
        return []
    owner = clusters(vectors, count)
    wanted = shares(np.bincount(owner), min(k, len(scores)), smoothing)
    chosen = [np.flatnonzero(owner == c)[:share] for c, share in enumerate(wanted.tolist())]
    return [int(place) for place in np.sort(np.concatenate(chosen))]


def deal(lists: Sequence[Sequence[int]], sizes: Places, k: int, smoothing: float) -> list[tuple[int, int]]:
    """Return which places of several ranked lists make up one, each record once.

    A list gets its share and fills it with its best that no list before took; what a list cannot fill goes to the
    others, one after the other.

    Parameters
    ----------
    lists : sequence of sequences of int
        Record rows, best first.
    sizes : ndarray of int64, shape (c,)
        What the shares are in proportion to.
    k, smoothing
        As in `shares`.

    Returns
    -------
    list of (list, place)
        At most `k`; fewer only if the lists hold no more records.
    """
    room = np.array([len(rows) for rows in lists], np.int64)
    wanted = shares(sizes, min(k, int(room.sum())), smoothing, room)
    taken: set[int] = set()
    dealt: list[tuple[int, int]] = []
    for quota in (wanted.tolist(), [k] * len(lists)):  # the second time whoever has more
        for number, rows in enumerate(lists):
            for place, row in enumerate(rows):
                if quota[number] <= 0 or len(dealt) >= k:
                    break
                if row not in taken:
                    taken.add(row)
                    dealt.append((number, place))
                    quota[number] -= 1
    return dealt
