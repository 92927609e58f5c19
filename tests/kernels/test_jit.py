"""The decorator: declared signatures and no others, read-only inputs, flags, warmup."""

from __future__ import annotations

import importlib

import numba
import numpy as np
import pytest
from numba import types

from vecdb.kernels import _jit, reference
from vecdb.kernels._jit import FASTMATH, KERNELS, Kernel, kernel_modules, read, write

for name in kernel_modules():
    importlib.import_module(f"vecdb.kernels.{name}")


def declare(python, *signatures, strict=False):
    return Kernel(python, signatures, reference.widen, strict)


def double(values, out):
    for place in range(values.shape[0]):
        out[place] = values[place] * 2.0


@pytest.fixture
def doubler(tmp_path, monkeypatch):
    monkeypatch.setenv("VECDB_CACHE_DIR", str(tmp_path))
    return declare(double, (read(types.float32), write(types.float32)))


def test_nothing_is_compiled_before_the_first_call(doubler):
    assert doubler._compiled is None
    out = np.empty(2, dtype=np.float32)
    doubler(np.array([1, 2], dtype=np.float32), out)
    assert out.tolist() == [2, 4]
    assert len(doubler._compiled.overloads) == 1


def test_read_only_and_writable_inputs_share_one_compilation(doubler):
    out = np.empty(2, dtype=np.float32)
    values = np.array([1, 2], dtype=np.float32)
    doubler(values, out)
    values.setflags(write=False)
    doubler(values, out)
    assert len(doubler._compiled.overloads) == 1


@pytest.mark.parametrize(
    "stray",
    [
        np.ones(2),
        np.ones(2, dtype=np.float16),
        np.ones(4, dtype=np.float32)[::2],
        np.ones((2, 2), dtype=np.float32),
        [1.0, 2.0],
    ],
)
def test_a_stray_argument_is_a_type_error_not_a_compilation(doubler, stray):
    with pytest.raises(TypeError):
        doubler(stray, np.empty(2, dtype=np.float32))
    assert len(doubler._compiled.overloads) == 1


def test_a_read_only_output_is_refused(doubler):
    out = np.empty(2, dtype=np.float32)
    out.setflags(write=False)
    with pytest.raises(TypeError):
        doubler(np.ones(2, dtype=np.float32), out)


def test_every_kernel_accepts_its_declared_signatures_only():
    for declared in KERNELS.values():
        declared.prepare()
        assert set(declared._compiled.overloads) == set(declared.signatures)
        assert not declared._compiled._can_compile
        assert declared._compiled.targetoptions["nogil"] is True
        assert declared._compiled.targetoptions["fastmath"] == (False if declared.strict else FASTMATH)
        with pytest.raises(TypeError):
            declared(*[object()] * len(declared.signatures[0]))


def test_every_input_is_typed_read_only_or_written_to():
    """A declared array is either an input (any kind accepted) or an output; no third kind by oversight."""
    for declared in KERNELS.values():
        for signature in declared.signatures:
            arrays = [argument for argument in signature if isinstance(argument, types.Array)]
            assert all(argument.layout == "C" for argument in arrays)
            assert any(not argument.mutable for argument in arrays)


def test_fast_math_keeps_nan_checks():
    @numba.njit(fastmath=FASTMATH)
    def is_nan(value):
        return value != value

    assert is_nan(np.float32(np.nan)) and not is_nan(np.float32(1.0))


def test_the_flags_never_assume_finite_numbers():
    assert not FASTMATH & {"nnan", "ninf", "fast"}


def test_warmup_prepares_everything_and_reports_progress():
    seen = []
    done = _jit.warmup(lambda count, total: seen.append((count, total)))
    assert sorted(warmed.kernel for warmed in done) == sorted(KERNELS)
    assert seen == [(count, len(KERNELS)) for count in range(1, len(KERNELS) + 1)]
    assert all(warmed.from_cache and warmed.seconds >= 0 for warmed in _jit.warmup())
    assert [warmed.kernel for warmed in _jit.warmup(modules=["half"])] == ["half.widen"]


def test_kernels_know_their_documentation_and_source():
    for name, declared in KERNELS.items():
        assert declared.name == name and declared.__doc__ and declared.python.__doc__ == declared.__doc__
