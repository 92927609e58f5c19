"""The byte shuffle adds up exactly what a plain loop does, whatever its width, up to the largest sums there can be."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numba
import numpy as np
import pytest
from numba.core import config

from vecdb.kernels import _intrinsics

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="intrinsics exist with the JIT only")

WIDTHS = [width for width in (64, 32, 16, 0) if width <= _intrinsics.shuffle_width()]


def summing(width):
    table_sums = _intrinsics.make_table_sums(width)

    @numba.njit
    def run(codes, table, groups, out):
        table_sums(codes.ctypes.data, table.ctypes.data, groups, out.ctypes.data)

    return run


def plain(codes, table):
    nibbles = np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.int64)
    return np.take_along_axis(table.astype(np.int64), nibbles, axis=1).sum(axis=0)


@pytest.fixture(scope="module", params=WIDTHS, ids=lambda width: f"width{width}")
def run(request):
    return summing(request.param)


@pytest.mark.parametrize("groups", [4, 8, 96, 100, 256])
@pytest.mark.parametrize("filling", ["random", "largest", "smallest"])
def test_sums_are_exact(run, groups, filling):
    rng = np.random.default_rng(groups)
    codes = rng.integers(0, 256, (groups, 16), dtype=np.uint8)
    table = rng.integers(0, 249, (groups, 16), dtype=np.uint8)
    if filling != "random":
        table[:] = 248 if filling == "largest" else 0
    out = np.full(34, -7, np.int32)
    run(codes.reshape(-1), table.reshape(-1), groups, out[1:33])
    assert out[1:33].tolist() == plain(codes, table).tolist()
    assert out[0] == out[33] == -7, "nothing is written beside the 32 sums"


def test_unaligned_codes_and_tables_are_read(run):
    rng = np.random.default_rng(1)
    bytes_ = rng.integers(0, 249, 3 + 8 * 16, dtype=np.uint8)
    codes, table = bytes_[3:], rng.integers(0, 249, 1 + 8 * 16, dtype=np.uint8)[1:]
    out = np.empty(32, np.int32)
    run(codes, table, 8, out)
    assert out.tolist() == plain(codes.reshape(8, 16), table.reshape(8, 16)).tolist()


@pytest.mark.parametrize(
    ("features", "width", "half"),
    [("", 0, "0"), ("+ssse3", 16, "0"), ("+ssse3,+avx,+avx2,+f16c,-avx512bw", 32, "1")],
)
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="features of x86")
def test_kernels_are_made_for_the_processor_that_numba_is_told(features, width, half):
    """LLVM ends the process at an instruction that the target does not have."""
    program = (
        "from vecdb.kernels import _intrinsics, _jit\n"
        "print(_intrinsics.shuffle_width(), int(_intrinsics._has_half_conversion()))\n"
        "_jit.warmup(modules=['half'])\n"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), NUMBA_CPU_NAME="x86-64")
    environment["NUMBA_CPU_FEATURES"] = features
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.split()) == (0, [str(width), half]), ran.stderr


def test_this_machine_shuffles_at_the_width_that_is_chosen():
    assert _intrinsics.shuffle_width() in (0, 16, 32, 64)
    assert len(WIDTHS) > 1 or _intrinsics.shuffle_width() == 0
