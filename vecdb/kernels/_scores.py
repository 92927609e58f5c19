"""Estimated scores of a block of 32 rows from their sums of look-ups, in vectors of sixteen, with a mask of the good.

What a compiler makes of the plain loop depends on what it can prove of six addresses; here the vector instructions are
written down. Each function has a pure Python stand-in of the same meaning, used when NUMBA_DISABLE_JIT=1. Invariant:
nothing here checks an address.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from vecdb.kernels._intrinsics import floats_at, words_at

__all__ = ["block_scores", "lowest_bit"]

_HALF = 16

if config.DISABLE_JIT:

    def block_scores(
        sums: int, factors: int, bases: int, bend: Any, step: Any, middle: Any, floor: Any, out: int
    ) -> int:
        """Write scores and return which are not below the floor; see the compiled form."""
        numbers = floats_at(factors, 64)
        centred = (words_at(sums, 32) - np.int32(middle)).astype(np.float32) * np.float32(step)
        values = floats_at(out, 32)
        values[:] = floats_at(bases, 32) + np.float32(bend) * numbers[:32] + numbers[32:] * centred
        good = ~(values <= np.float32(floor))
        return int(np.packbits(good, bitorder="little").view("<u4")[0])

    def lowest_bit(mask: int) -> int:
        """Return the number of the lowest bit that is set."""
        return (int(mask) & -int(mask)).bit_length() - 1

else:
    _FLOATS = ir.VectorType(ir.FloatType(), _HALF)
    _INTS = ir.VectorType(ir.IntType(32), _HALF)

    @intrinsic  # type: ignore[untyped-decorator]
    def block_scores(
        typing_context: Any,
        sums: Any,
        factors: Any,
        bases: Any,
        bend: Any,
        step: Any,
        middle: Any,
        floor: Any,
        out: Any,
    ) -> Any:
        """Write the scores of 32 rows to `out`; return a mask of those that are not below the floor, NaN among them.

        All but the numbers are addresses: sums as 32 int32; factors as 32 offsets and 32 slopes, bases and `out` as 32
        float32. A score is ``base + bend * offset + slope * step * (sum - middle)``.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _emit_scores(builder, args)

        word, real, whole = types.int64, types.float32, types.int32
        return types.int64(word, word, word, real, real, whole, real, word), generate

    def _emit_scores(builder: Any, args: Any) -> Any:
        sums, factors, bases, bend, step, middle, floor, out = args
        wide = [_spread(builder, value) for value in (bend, step, middle, floor)]
        masks = []
        for half in range(2):
            begin = 4 * _HALF * half
            total = builder.sub(_load(builder, sums, begin, _INTS), wide[2])
            scaled = builder.fmul(builder.sitofp(total, _FLOATS), wide[1])
            known = _fma(
                builder, wide[0], _load(builder, factors, begin, _FLOATS), _load(builder, bases, begin, _FLOATS)
            )
            score = _fma(builder, scaled, _load(builder, factors, 128 + begin, _FLOATS), known)
            builder.store(score, _place(builder, out, begin, _FLOATS)).align = 4
            good = builder.fcmp_unordered(">", score, wide[3])
            masks.append(builder.zext(builder.bitcast(good, ir.IntType(_HALF)), ir.IntType(64)))
        return builder.or_(masks[0], builder.shl(masks[1], ir.Constant(ir.IntType(64), _HALF)))

    def _spread(builder: Any, value: Any) -> Any:
        """Return a vector of one number."""
        kind = ir.VectorType(value.type, _HALF)
        single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), _HALF), [0] * _HALF)
        return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), first)

    def _place(builder: Any, address: Any, offset: int, kind: Any) -> Any:
        return builder.inttoptr(builder.add(address, ir.Constant(address.type, offset)), kind.as_pointer())

    def _load(builder: Any, address: Any, offset: int, kind: Any) -> Any:
        value = builder.load(_place(builder, address, offset, kind))
        value.align = 4
        return value

    def _fma(builder: Any, left: Any, right: Any, added: Any) -> Any:
        """Return the product plus a number; fused or not, as the CPU is quick at."""
        shape = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        function = cgutils.get_or_insert_function(builder.module, shape, f"llvm.fmuladd.v{_HALF}f32")
        return builder.call(function, [left, right, added])

    @intrinsic  # type: ignore[untyped-decorator]
    def lowest_bit(typing_context: Any, mask: Any) -> Any:
        """Return the number of the lowest bit that is set in an int64 other than 0."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

        return types.int64(types.int64), generate
