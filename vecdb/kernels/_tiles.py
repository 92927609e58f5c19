"""Tiles of matrix products with their sums in registers: the one thing a compiler does not find in plain loops.

``tile_products(rows, stride, panel, depth, out)`` multiplies TILE_ROWS rows, `stride` bytes apart, with a panel of
TILE_COLUMNS columns that is stored one axis after the other, and writes the products row by row. All are float32 at
bare addresses; the sums of a product are added up in the order of the axes, so they do not depend on what else a tile
holds. ``close_ones(products, norms, limits, norm, limit, out)`` turns a row of a tile into squared distances and tells
which of them are below a limit, as the bits of a word: what is far is never looked at one by one.
The vectors are LLVM's own, which it splits to fit the processor; the size of a tile is chosen to fill the
registers and no more. Invariant: nothing here checks an address.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.ir as ir
import numpy as np
from llvmlite import binding
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

__all__ = ["TILE_COLUMNS", "TILE_ROWS", "close_ones", "tile_products"]


def tile_size() -> tuple[int, int]:
    """Return rows and columns of a tile on this processor: 32 registers of 64 bytes, or 16 of 32, or the like."""
    return (8, 32) if binding.get_host_cpu_features().get("avx512f", False) else (4, 16)


TILE_ROWS, TILE_COLUMNS = tile_size()


def make_tile_products(height: int, width: int) -> Any:
    """Return `tile_products` for tiles of so many rows and columns."""

    @intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
    def products(typing_context: Any, rows: Any, stride: Any, panel: Any, depth: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _emit_tile(builder, height, width, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), generate

    return products


def _emit_tile(builder: Any, height: int, width: int, args: Any) -> None:
    rows, stride, panel, depth, out = args
    integer, vector = rows.type, ir.VectorType(ir.FloatType(), width)
    sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * width)) for _ in range(height)]
    name, kind = f"llvm.fmuladd.v{width}f32", ir.FunctionType(vector, [vector] * 3)
    multiply_add = builder.module.declare_intrinsic(name, (), kind)

    def at(start: Any, step: Any, number: Any, pointed: Any) -> Any:
        return builder.inttoptr(builder.add(start, builder.mul(step, number)), pointed.as_pointer())

    with cgutils.for_range(builder, depth) as loop:
        columns = builder.load(at(panel, loop.index, integer(4 * width), vector), align=4)
        first = builder.add(rows, builder.mul(loop.index, integer(4)))
        for row in range(height):
            value = builder.load(at(first, stride, integer(row), ir.FloatType()), align=4)
            product = builder.call(multiply_add, [_splat(builder, value, vector), columns, builder.load(sums[row])])
            builder.store(product, sums[row])
    for row in range(height):
        builder.store(builder.load(sums[row]), at(out, integer(4 * width), integer(row), vector), align=4)


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    undefined, word = ir.Constant(vector, ir.Undefined), ir.IntType(32)
    places = ir.Constant(ir.VectorType(word, vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(undefined, value, word(0)), undefined, places)


def make_close_ones(width: int) -> Any:
    """Return `close_ones` for rows of so many columns, at most 64."""

    @intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
    def close(typing_context: Any, products: Any, norms: Any, limits: Any, norm: Any, limit: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _emit_close(builder, width, args)

        return types.uint64(*[types.int64] * 3, types.float32, types.float32, types.int64), generate

    return close


def _emit_close(builder: Any, width: int, args: Any) -> Any:
    products, norms, limits, norm, limit, out = args
    vector = ir.VectorType(ir.FloatType(), width)

    def load(address: Any) -> Any:
        return builder.load(builder.inttoptr(address, vector.as_pointer()), align=4)

    twice = builder.fmul(load(products), ir.Constant(vector, [2.0] * width))
    distances = builder.fsub(builder.fadd(load(norms), _splat(builder, norm, vector)), twice)
    builder.store(distances, builder.inttoptr(out, vector.as_pointer()), align=4)
    of_row = builder.fcmp_ordered("<", distances, _splat(builder, limit, vector))
    of_columns = builder.fcmp_ordered("<", distances, load(limits))
    return builder.zext(builder.bitcast(builder.or_(of_row, of_columns), ir.IntType(width)), ir.IntType(64))


if config.DISABLE_JIT:

    def _floats(address: int, *shape: int) -> Any:
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(int(address))).reshape(shape)

    def close_ones(products: int, norms: int, limits: int, norm: float, limit: float, out: int) -> np.uint64:
        """Write squared distances of a row of a tile; return which are below the limit, or below those of columns."""
        found, bounds = _floats(out, TILE_COLUMNS), _floats(limits, TILE_COLUMNS)
        found[:] = norm + _floats(norms, TILE_COLUMNS) - 2 * _floats(products, TILE_COLUMNS)
        bits = np.flatnonzero((found < limit) | (found < bounds))
        return np.uint64(sum(1 << int(bit) for bit in bits))

    def tile_products(rows: int, stride: int, panel: int, depth: int, out: int) -> None:
        """Multiply TILE_ROWS rows with a panel of TILE_COLUMNS columns."""
        left = np.stack([_floats(rows + place * stride, depth) for place in range(TILE_ROWS)])
        _floats(out, TILE_ROWS, TILE_COLUMNS)[:] = left @ _floats(panel, depth, TILE_COLUMNS)

else:
    close_ones = make_close_ones(TILE_COLUMNS)
    tile_products = make_tile_products(TILE_ROWS, TILE_COLUMNS)
