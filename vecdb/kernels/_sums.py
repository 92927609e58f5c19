"""Sums of float64 products in the canonical order: eight lanes one after the other, then one fixed tree.

`lane_sums` is emitted as vectors of eight, because a loop over lanes keeps them in memory and waits for it. Every CPU
gets the same additions in the same order, whatever the width of its registers. Invariant: nothing here checks an
address.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

__all__ = ["lane_sums"]

_LANES = 8

if config.DISABLE_JIT:
    import ctypes

    def lane_sums(left: int, right: int, count: int) -> tuple[float, float]:
        """Return the sum of left times right, and of the squares of right: `count` float64, a multiple of eight."""
        first, second = (np.ctypeslib.as_array((ctypes.c_double * count).from_address(int(at))) for at in (left, right))
        found = []
        for products in (first * second, second * second):
            lanes = np.zeros(_LANES)
            for part in products.reshape(-1, _LANES):
                lanes += part
            found.append(float((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])))
            found[-1] += float((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
        return found[0], found[1]

else:
    _EIGHT = ir.VectorType(ir.DoubleType(), _LANES)

    def _tree(builder: Any, lanes: Any) -> Any:
        """Emit ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))."""
        of = [builder.extract_element(lanes, ir.IntType(32)(place)) for place in range(_LANES)]
        fours = [builder.fadd(of[place], of[place + 4]) for place in range(4)]
        return builder.fadd(builder.fadd(fours[0], fours[2]), builder.fadd(fours[1], fours[3]))

    @intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
    def lane_sums(typing_context: Any, left: Any, right: Any, count: Any) -> Any:
        """Return the sum of left times right, and of the squares of right: `count` float64, a multiple of eight."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            nothing = ir.Constant(_EIGHT, None)
            products, squares = (cgutils.alloca_once_value(builder, nothing) for _ in range(2))
            with cgutils.for_range(builder, builder.lshr(args[2], ir.IntType(64)(3))) as loop:
                inside = builder.mul(loop.index, ir.IntType(64)(8 * _LANES))

                def eight(address: Any) -> Any:
                    value = builder.load(builder.inttoptr(builder.add(address, inside), _EIGHT.as_pointer()))
                    value.align = 8
                    return value

                one, other = eight(args[0]), eight(args[1])
                for total, product in ((products, (one, other)), (squares, (other, other))):
                    builder.store(builder.fadd(builder.load(total), builder.fmul(*product)), total)
            sums = [_tree(builder, builder.load(total)) for total in (products, squares)]
            return context.make_tuple(builder, signature.return_type, sums)

        return types.UniTuple(types.float64, 2)(types.int64, types.int64, types.int64), generate
