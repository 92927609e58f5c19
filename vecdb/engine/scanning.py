"""Exact scans by several threads: stretches of rows for few queries, groups of queries for many.

Each stretch answers with its own best k by canonical scores, and the best of those are the best of all, whatever the
cut: the answer is the same bits for any number of threads. Small scans stay in the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.engine.pool import share
from vecdb.exact import Found, ScanFacts
from vecdb.kernels import loader

Bools = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
Stop = Callable[[], bool]

LEAST: Final = 4 << 20
"""Components a thread is given at least: a millisecond of scanning, against a tenth for handing it over."""
MANY: Final = 8
"""Queries for each thread from which they are divided rather than the rows: products of matrices like them many."""


def scan(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    *,
    allowed: Bools | None = None,
    matches: int | None = None,
    stop: Stop | None = None,
    threads: int = 1,
) -> tuple[list[Found], ScanFacts]:
    """Return what `exact.search` returns, found by up to `threads` threads.

    Parameters
    ----------
    blocks, queries, k, allowed, stop
        As in `exact.search`; `stop` is then asked by several threads.
    matches : int, optional
        How many rows are allowed.
    threads : int, default 1
    """
    rows = blocks.count if matches is None else matches
    wanted = min(threads, rows * blocks.dim * len(queries) // LEAST)
    if wanted < 2 or not loader.ready():  # the path without kernels is numpy's, which has threads of its own
        return exact.search(blocks, queries, k, allowed=allowed, stop=stop)
    if len(queries) >= MANY * wanted:
        return _by_query(blocks, queries, k, allowed, stop, wanted)
    return _by_row(blocks, queries, k, allowed, stop, wanted)


def _by_query(
    blocks: VectorBlocks, queries: F32, k: int, allowed: Bools | None, stop: Stop | None, threads: int
) -> tuple[list[Found], ScanFacts]:
    cuts = np.linspace(0, len(queries), threads + 1).astype(np.int64).tolist()
    work = [
        partial(exact.search, blocks, queries[start:end], k, allowed=allowed, stop=stop)
        for start, end in pairwise(cuts)
    ]
    done = share(work)
    return [found for part, _ in done for found in part], together([facts for _, facts in done])


def _by_row(
    blocks: VectorBlocks, queries: F32, k: int, allowed: Bools | None, stop: Stop | None, threads: int
) -> tuple[list[Found], ScanFacts]:
    work, firsts = [], []
    for start, end in stretches(blocks, threads):
        first, last = int(blocks.starts[start]), int(blocks.starts[end])
        mask = None if allowed is None else allowed[first:last]
        firsts.append(first)
        work.append(partial(exact.search, blocks.slice(start, end), queries, k, allowed=mask, stop=stop))
    done = share(work)
    found = [_best([part[row] for part, _ in done], firsts, k) for row in range(len(queries))]
    return found, together([facts for _, facts in done])


def stretches(blocks: VectorBlocks, threads: int) -> list[tuple[int, int]]:
    """Return ranges of blocks, each with about as many rows; fewer than `threads` where there are few blocks."""
    shares = np.arange(1, threads)[:, None] * (blocks.count / threads)
    cuts = [0, *np.abs(blocks.starts - shares).argmin(axis=1).tolist(), len(blocks)]
    return [(start, end) for start, end in pairwise(cuts) if end > start]


def _best(parts: list[Found], firsts: list[int], k: int) -> Found:
    positions = np.concatenate([positions + first for (positions, _), first in zip(parts, firsts, strict=True)])
    scores = np.concatenate([scores for _, scores in parts])
    order = np.lexsort((positions, -scores))[:k]
    return positions[order], scores[order]


def together(facts: list[ScanFacts]) -> ScanFacts:
    """Return what several parts of a scan did, as one."""
    return ScanFacts(
        facts[0].path,
        sum(each.rows_scanned for each in facts),
        sum(each.rescored for each in facts),
        all(each.complete for each in facts),
    )
