"""A mixture of clusters: candidates in clusters, and each cluster its share of the list.

A. El-Kishky, T. Markovich, K. Leung, F. Portman, A. Haghighi and Y. Xiao, kNN-Embed: locally smoothed embedding
mixtures for multi-interest candidate retrieval, 2022, sections 3 and 4. Clusters are those of k-means in float64,
started from the candidates that lie farthest apart (T. Gonzalez, Clustering to minimize the maximum intercluster
distance, 1985), the first being the best candidate: nothing is drawn, so equal candidates give equal clusters.
"""

from __future__ import annotations

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


def shares(sizes: Places, k: int, smoothing: float) -> Places:
    """Return how many of k places each cluster gets: largest remainders, never more than it has.

    Parameters
    ----------
    sizes : ndarray of int64, shape (c,)
        Rows of each cluster.
    k : int
        At most ``sizes.sum()``.
    smoothing : float
        0: in proportion to sizes, 1: all alike.

    Returns
    -------
    ndarray of int64, shape (c,)
        Sums to k. Equal remainders go to the earlier cluster.
    """
    places = np.zeros(len(sizes), np.int64)
    while (left := k - int(places.sum())) > 0:
        room = sizes - places
        open_ = room > 0
        wanted = np.where(open_, (1.0 - smoothing) * sizes / sizes[open_].sum() + smoothing / open_.sum(), 0.0) * left
        whole = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), room)
        places += whole
        left -= int(whole.sum())
        order = np.lexsort((np.arange(len(sizes)), -(wanted - np.floor(wanted + 1e-9))))
        for cluster in [c for c in order.tolist() if sizes[c] > places[c]][:left]:
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
