"""Kernels as plain Python: the same code steps through without the JIT, on the stand-ins of the intrinsics."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.kernels.oracle import METRICS

SEARCH = """
import numpy as np
from tests.kernels.oracle import DTYPES, METRICS, cut, hard_rows, same_bits, true_top
from vecdb.kernels import loader
from vecdb.kernels.nominate import best
import vecdb.kernels._jit as jit
assert jit.config.DISABLE_JIT
np.seterr(all="ignore")  # compiled code does not warn of infinities; plain numpy scalars do
for metric in METRICS:
    for dtype in DTYPES:
        rng = np.random.default_rng(1)
        rows, queries = hard_rows(rng, 90, 11, dtype), hard_rows(rng, 6, 11)[:3]
        blocks = cut(metric, rows, rng)
        for allowed in (None, rng.random(90) < 0.1, rng.random(90) < 0.9):
            for group in (queries[:1], queries):
                for query, found in zip(group, best(blocks, group, 4, allowed=allowed).found):
                    assert same_bits(found, true_top(metric, query, rows, 4, allowed))
crowd = np.ones((1_500, 2), dtype=np.float32)
blocks = cut("dot", crowd, np.random.default_rng(0))
for group in (crowd[:1], crowd[:3]):
    assert best(blocks, group, 3).found[0][0].tolist() == [0, 1, 2]
assert all(kernel.prepare() for kernel in jit.KERNELS.values())
assert jit.warmup()
loader.request()
assert not loader.wait() and "NUMBA_DISABLE_JIT" in str(loader.failure())
print("done")
"""


def run_plain(*command):
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1", PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def test_the_twins_agree_without_the_jit():
    ran = run_plain(
        "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--noconftest", "tests/kernels/test_twins.py"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_search_without_the_jit():
    ran = run_plain("-W", "error", "-c", SEARCH)
    assert ran.returncode == 0 and ran.stdout.endswith("done\n"), ran.stdout + ran.stderr


def test_the_portable_half_conversion_is_exact():
    from vecdb.kernels._intrinsics import half_bits_to_single

    bits = np.arange(1 << 16, dtype=np.uint16)
    expected = bits.view(np.float16).astype(np.float32)
    portable = np.array([half_bits_to_single(int(pattern)) for pattern in bits])
    finite = np.isfinite(expected)
    assert portable.dtype == np.float32
    assert portable[finite].tobytes() == expected[finite].tobytes()
    assert np.array_equal(portable, expected, equal_nan=True)


@pytest.mark.parametrize("metric", METRICS)
def test_the_portable_half_conversion_compiles(metric):
    """What CPUs without the conversion instruction run."""
    import numba

    from vecdb.kernels._intrinsics import half_bits_to_single

    compiled = numba.njit(half_bits_to_single)
    for pattern in (0, 1, 0x3C00, 0xBC00, 0x7BFF, 0x8001):
        assert compiled(np.uint16(pattern)) == half_bits_to_single(pattern)
