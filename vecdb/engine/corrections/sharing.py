"""Corrected scans by several threads: groups of queries for many, stretches of rows for few.

Each stretch answers with its own best k, and the best of those are the best of all: the answer is the same bits for any
number of threads. A dynamic correction looks at the best raw row of all, so that its rows are not divided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vecdb import corrections
from vecdb.blocks import VectorBlocks
from vecdb.corrections import Adjustment, Corrected
from vecdb.engine.pool import share
from vecdb.engine.scanning import LEAST, MANY, stretches, together
from vecdb.exact import ScanFacts
from vecdb.kernels import loader

F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Stop = Callable[[], bool]


def scan(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    adjustment: Adjustment,
    *,
    allowed: Bools | None,
    matches: int,
    stop: Stop | None,
    threads: int,
) -> tuple[list[Corrected], ScanFacts]:
    """Return what `corrections.search` returns, found by up to `threads` threads; `matches` rows are allowed."""
    wanted = min(threads, matches * blocks.dim * len(queries) // LEAST)
    if wanted >= 2 and loader.ready():  # the path without kernels is numpy's, which has threads of its own
        if len(queries) >= MANY * wanted:
            return _by_query(blocks, queries, k, adjustment, allowed, stop, wanted)
        if adjustment.switch is None:
            return _by_row(blocks, queries, k, adjustment, allowed, stop, wanted)
    return corrections.search(blocks, queries, k, adjustment, allowed=allowed, stop=stop)


def _by_query(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    adjustment: Adjustment,
    allowed: Bools | None,
    stop: Stop | None,
    threads: int,
) -> tuple[list[Corrected], ScanFacts]:
    cuts = np.linspace(0, len(queries), threads + 1).astype(np.int64).tolist()
    parts = [slice(start, end) for start, end in pairwise(cuts)]
    done = share(
        [
            partial(corrections.search, blocks, queries[part], k, adjustment.take(part), allowed=allowed, stop=stop)
            for part in parts
        ]
    )
    return [found for part, _ in done for found in part], together([facts for _, facts in done])


def _by_row(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    adjustment: Adjustment,
    allowed: Bools | None,
    stop: Stop | None,
    threads: int,
) -> tuple[list[Corrected], ScanFacts]:
    work, firsts = [], []
    for start, end in stretches(blocks, threads):
        first, last = int(blocks.starts[start]), int(blocks.starts[end])
        mine = replace(adjustment, table=adjustment.table[first:last])
        mask = None if allowed is None else allowed[first:last]
        firsts.append(first)
        work.append(partial(corrections.search, blocks.slice(start, end), queries, k, mine, allowed=mask, stop=stop))
    done = share(work)
    found = [_best([part[row] for part, _ in done], firsts, k) for row in range(len(queries))]
    return found, together([facts for _, facts in done])


def _best(parts: list[Corrected], firsts: list[int], k: int) -> Corrected:
    positions = np.concatenate([part[0] + first for part, first in zip(parts, firsts, strict=True)])
    corrected, raw = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    order = np.lexsort((positions, -corrected))[:k]
    return positions[order], corrected[order], raw[order]
