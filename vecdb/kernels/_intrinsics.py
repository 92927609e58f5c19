"""The few things numba cannot say by itself: arrays at bare addresses, float16, prefetching.

Each has a pure Python stand-in of the same meaning, used when NUMBA_DISABLE_JIT=1 so that kernels can be stepped
through and their lines counted. Invariant: nothing here checks an address; the caller's `VectorBlocks` keeps the
memory alive and proved its layout.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.ir as ir
import numpy as np
import numpy.typing as npt
from llvmlite import binding
from numba import carray, njit, types
from numba.core import config
from numba.extending import intrinsic

__all__ = ["floats_at", "half_to_single", "halves_at", "prefetch"]


def _has_half_conversion() -> bool:
    """Whether the CPU converts float16 itself; the library routine LLVM would call instead is not always there."""
    triple = binding.get_process_triple()
    if triple.startswith(("x86", "i686", "i386")):
        return bool(binding.get_host_cpu_features().get("f16c", False))
    return bool(triple.startswith(("aarch64", "arm64")))


def half_bits_to_single(bits: int) -> np.float32:
    """Return the float32 of the float16 with these bits, by exact integer and float32 arithmetic alone.

    The portable path for CPUs without the conversion; a float16 is ``mantissa * 2**(exponent - 25)``.
    """
    exponent = (bits >> 10) & 31
    mantissa = bits & 1023
    if exponent == 31:
        value = np.float32(np.nan) if mantissa else np.float32(np.inf)
    elif exponent == 0:
        value = np.float32(mantissa) * np.float32(2.0**-24)
    else:
        value = np.float32((mantissa | 1024) << exponent) * np.float32(2.0**-25)
    return np.float32(-value) if bits & 0x8000 else value


if config.DISABLE_JIT:

    def floats_at(address: int, length: int) -> npt.NDArray[np.float32]:
        """Float32 array of `length` at `address`."""
        return np.ctypeslib.as_array((ctypes.c_float * length).from_address(int(address)))

    def halves_at(address: int, length: int) -> npt.NDArray[np.uint16]:
        """Float16 bits of `length` at `address`, as uint16."""
        return np.ctypeslib.as_array((ctypes.c_uint16 * length).from_address(int(address)))

    def half_to_single(bits: np.uint16) -> np.float32:
        """Return the float32 of the float16 with these bits."""
        return np.float32(np.uint16(bits).view(np.float16))

    def prefetch(address: int) -> None:
        """Ask for the cache line at `address`; any address is allowed."""

else:

    def _pointer_to(scalar: Any) -> Any:
        @intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
        def pointer(typing_context: Any, address: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

            return types.CPointer(scalar)(types.int64), generate

        return pointer

    _float_pointer = _pointer_to(types.float32)
    _half_pointer = _pointer_to(types.uint16)

    @njit  # type: ignore[untyped-decorator]
    def floats_at(address: int, length: int) -> npt.NDArray[np.float32]:
        """Float32 array of `length` at `address`."""
        array: npt.NDArray[np.float32] = carray(_float_pointer(address), (length,))
        return array

    @njit  # type: ignore[untyped-decorator]
    def halves_at(address: int, length: int) -> npt.NDArray[np.uint16]:
        """Float16 bits of `length` at `address`, as uint16."""
        array: npt.NDArray[np.uint16] = carray(_half_pointer(address), (length,))
        return array

    @intrinsic  # type: ignore[untyped-decorator]
    def prefetch(typing_context: Any, address: Any) -> Any:
        """Ask for the cache line at `address`; any address is allowed."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte_pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            function = builder.module.declare_intrinsic(
                "llvm.prefetch", [byte_pointer], ir.FunctionType(ir.VoidType(), [byte_pointer, word, word, word])
            )
            read, keep, data = word(0), word(3), word(1)
            builder.call(function, [builder.inttoptr(args[0], byte_pointer), read, keep, data])
            return context.get_dummy_value()

        return types.void(types.int64), generate

    if _has_half_conversion():

        @intrinsic  # type: ignore[untyped-decorator]
        def half_to_single(typing_context: Any, bits: Any) -> Any:
            """Return the float32 of the float16 with these bits."""

            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

            return types.float32(types.uint16), generate

    else:
        half_to_single = njit(half_bits_to_single)
