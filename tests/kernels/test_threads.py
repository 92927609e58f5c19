"""Several threads search at once: kernels hold no lock and share no scratch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.kernels.oracle import METRICS, cut, hard_rows, same_bits, true_top
from vecdb import exact
from vecdb.kernels import _jit


@pytest.mark.parametrize("metric", METRICS)
def test_four_threads_get_the_same_answers(metric):
    rng = np.random.default_rng(0)
    rows, queries = hard_rows(rng, 3_000, 32), hard_rows(rng, 48, 32)
    blocks = cut(metric, rows, rng)
    groups = [queries[start : start + size] for start, size in ((0, 1), (1, 1), (2, 5), (7, 9), (16, 1), (17, 20))]

    def search(group):
        return exact.search(blocks, group, 10, path="numba")[0]

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(search, groups * 10))
    for group, found in zip(groups * 10, answers, strict=True):
        for query, answer in zip(group, found, strict=True):
            assert same_bits(answer, true_top(metric, query, rows, 10))


def test_threads_that_prepare_one_kernel_compile_it_once(tmp_path, monkeypatch):
    from numba import types

    monkeypatch.setenv("VECDB_CACHE_DIR", str(tmp_path))
    compiled = []
    original = _jit._jitted
    monkeypatch.setattr(_jit, "_jitted", lambda *args: compiled.append(1) or original(*args))

    def fill(out):
        for place in range(out.shape[0]):
            out[place] = place

    declared = _jit.Kernel(fill, ((_jit.write(types.int64),),), fill, False)
    outs = [np.empty(50, dtype=np.int64) for _ in range(8)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(declared, outs))
    assert len(compiled) == 1
    assert all(out.tolist() == list(range(50)) for out in outs)
