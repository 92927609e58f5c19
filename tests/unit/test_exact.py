"""The chooser between the paths of exact search: same bits, honest facts, nothing loaded before it pays."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.oracle import DTYPES, METRICS, cut, hard_rows, same_bits, true_top
from vecdb import exact
from vecdb.errors import CorruptionError, DimensionError, ParameterError, StateError
from vecdb.kernels import loader


@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(METRICS),
    d=st.integers(1, 50),
    n=st.integers(1, 400),
    q=st.sampled_from([1, 2, 5]),
    k=st.sampled_from([1, 7, 500]),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
    dtype=st.sampled_from(DTYPES),
)
def test_every_path_gives_the_same_bits(seed, metric, d, n, q, k, share, dtype):
    rng = np.random.default_rng(seed)
    rows, queries = hard_rows(rng, n, d, dtype), hard_rows(rng, 5, d)[:q]
    allowed = None if share is None else rng.random(n) < share
    blocks, recut = cut(metric, rows, rng), cut(metric, rows, rng)
    with_numpy, _ = exact.search(blocks, queries, k, allowed, path="numpy")
    with_numba, _ = exact.search(recut, queries, k, allowed, path="numba")
    for place, query in enumerate(queries):
        expected = true_top(metric, query, rows, k, allowed)
        assert same_bits(with_numpy[place], expected)
        assert same_bits(with_numba[place], expected)
        alone, _ = exact.search(blocks, queries[place : place + 1], k, allowed, path="numba")
        assert same_bits(alone[0], expected)


@pytest.mark.parametrize("path", ["numpy", "numba"])
def test_facts(path):
    rng = np.random.default_rng(0)
    blocks = cut("cosine", hard_rows(rng, 100, 8), rng)
    found, facts = exact.search(blocks, hard_rows(rng, 4, 8)[:3], 5, path=path)
    assert (facts.path, facts.rows_scanned, facts.complete) == (path, 300, True)
    assert facts.rescored >= 15 and [len(positions) for positions, _ in found] == [5, 5, 5]
    _, stopped = exact.search(blocks, hard_rows(rng, 4, 8)[:3], 5, path=path, stop=lambda: True)
    assert not stopped.complete and stopped.rows_scanned == 0


@pytest.mark.parametrize("path", ["numpy", "numba"])
def test_rescoring_candidates_of_an_index(path):
    rng = np.random.default_rng(1)
    rows = hard_rows(rng, 50, 12)
    blocks = cut("l2", rows, rng)
    query = rng.standard_normal(12).astype(np.float32)
    assert same_bits(exact.rescore(blocks, query, np.arange(50)[::-1], 6, path), true_top("l2", query, rows, 6))
    with pytest.raises(CorruptionError):
        exact.rescore(blocks, query, [50], 6, path)


def test_impossible_arguments():
    rng = np.random.default_rng(2)
    blocks, query = cut("dot", hard_rows(rng, 10, 3), rng), np.ones((1, 3), dtype=np.float32)
    with pytest.raises(ParameterError, match="k is 0"):
        exact.search(blocks, query, 0)
    with pytest.raises(ParameterError, match="allowed is"):
        exact.search(blocks, query, 1, np.ones(9, dtype=bool))
    with pytest.raises(ParameterError, match="allowed is"):
        exact.search(blocks, query, 1, np.ones(10, dtype=np.int8))
    with pytest.raises(ParameterError, match="path is"):
        exact.search(blocks, query, 1, path="gpu")
    for wrong in (np.ones((1, 4), dtype=np.float32), np.ones((1, 2), dtype=np.float32), query[0]):
        for path in ("numpy", "numba"):
            with pytest.raises(DimensionError):
                exact.search(blocks, wrong, 1, path=path)
    with pytest.raises(DimensionError):
        exact.rescore(blocks, np.ones(4, dtype=np.float32), [1], 1, "numba")
    with pytest.raises(ParameterError):
        exact.rescore(blocks, query[0], [1], 0, "numba")


@pytest.mark.parametrize("path", ["numpy", "numba"])
def test_queries_in_any_layout(path):
    rng = np.random.default_rng(5)
    rows = hard_rows(rng, 60, 7)
    blocks, queries = cut("l2", rows, rng), np.asfortranarray(rng.standard_normal((4, 7)).astype(np.float32))
    found, _ = exact.search(blocks, queries, 3, path=path)
    for answer, query in zip(found, queries, strict=True):
        assert same_bits(answer, true_top("l2", query, rows, 3))
        assert same_bits(exact.rescore(blocks, query, np.arange(60), 3, path), answer)


def test_the_compiled_path_is_asked_for_once_it_pays(monkeypatch):
    asked = []
    monkeypatch.setattr(loader, "ready", lambda: False)
    monkeypatch.setattr(loader, "request", lambda: asked.append(1))
    monkeypatch.setattr(exact, "_scanned_by_numpy", 0)
    monkeypatch.setattr(exact, "_WARM_AFTER", 100)
    rng = np.random.default_rng(3)
    blocks = cut("dot", hard_rows(rng, 10, 3), rng)
    query = np.ones((1, 3), dtype=np.float32)
    for _ in range(3):
        assert exact.search(blocks, query, 1)[1].path == "numpy"
    assert not asked
    exact.search(blocks, query, 1)
    assert asked


def test_numba_by_name_says_why_it_cannot(monkeypatch):
    rng = np.random.default_rng(4)
    blocks = cut("dot", hard_rows(rng, 10, 3), rng)
    query = np.ones((1, 3), dtype=np.float32)
    monkeypatch.setenv("VECDB_KERNELS", "0")
    with pytest.raises(StateError, match="VECDB_KERNELS=0"):
        exact.search(blocks, query, 1, path="numba")
    assert exact.search(blocks, query, 1)[1].path == "numpy"


def test_importing_and_searching_with_numpy_leaves_numba_out():
    program = """
import sys, numpy as np
from vecdb import exact
from vecdb.blocks import VectorBlocks
rows = np.eye(50, dtype=np.float32)
found, facts = exact.search(VectorBlocks.from_parts("cosine", 50, [rows]), rows[:2], 3)
assert facts.path == "numpy" and found[1][0][0] == 1
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, env=dict(os.environ), timeout=120)
