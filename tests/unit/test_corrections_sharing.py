"""Corrected scans by several threads: the same bits as by one, however rows and queries are divided."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.blocks import VectorBlocks
from vecdb.corrections import Adjustment, search
from vecdb.engine import scanning
from vecdb.engine.corrections import sharing
from vecdb.kernels import loader

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((900, 16)).astype(np.float32)
ROWS[450:600] = ROWS[:150]  # ties across stretches


@pytest.fixture(autouse=True)
def small_shares(monkeypatch):
    loader.request()
    if not loader.wait():
        pytest.skip("compiled kernels cannot be loaded here")
    monkeypatch.setattr(sharing, "LEAST", 1_000)
    assert scanning.LEAST > 1_000


def adjustment(form, queries):
    if form == "proximity":
        table = np.column_stack([RNG.standard_normal(900) * 0.1, RNG.random(900) + 0.1]).astype(np.float32)
        return Adjustment("proximity", table, None, np.column_stack([np.zeros(queries), np.ones(queries)]))
    bias = np.round(RNG.standard_normal((900, 1)), 1).astype(np.float32)
    bias[450:600] = bias[:150]
    return Adjustment("bias", bias, RNG.random(900) < 0.5 if form == "dynamic" else None)


@pytest.mark.parametrize("form", ["bias", "dynamic", "proximity"])
@pytest.mark.parametrize("queries", [1, 3, 40])
@pytest.mark.parametrize("masked", [False, True])
def test_any_number_of_threads_gives_the_same_bits(form, queries, masked):
    blocks = VectorBlocks.from_parts("cosine", 16, [ROWS[at : at + 100] for at in range(0, 900, 100)])
    asked, fixed = RNG.standard_normal((queries, 16)).astype(np.float32), adjustment(form, queries)
    allowed = RNG.random(900) < 0.6 if masked else None
    alone, _ = search(blocks, asked, 12, fixed, allowed=allowed)
    for threads in (1, 2, 4):
        found, facts = sharing.scan(blocks, asked, 12, fixed, allowed=allowed, matches=900, stop=None, threads=threads)
        assert facts.complete and len(found) == queries
        for one, other in zip(found, alone, strict=True):
            assert all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_a_scan_that_one_thread_stopped_is_not_complete():
    blocks = VectorBlocks.from_parts("cosine", 16, [ROWS[at : at + 100] for at in range(0, 900, 100)])
    fixed = adjustment("bias", 2)
    _, facts = sharing.scan(blocks, ROWS[:2], 5, fixed, allowed=None, matches=900, stop=lambda: True, threads=4)
    assert not facts.complete
