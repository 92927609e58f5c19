"""The few things numba cannot say by itself: arrays at bare addresses, float16, prefetching, byte shuffles.

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
from numba.core import cgutils, config
from numba.core.registry import cpu_target
from numba.extending import intrinsic

__all__ = [
    "bytes_at",
    "codes_at",
    "count_bits",
    "floats_at",
    "half_to_single",
    "halves_at",
    "keys_at",
    "longs_at",
    "move_words",
    "not_above",
    "plane_sum",
    "prefetch",
    "table_sums",
    "words_at",
]

SHUFFLES = {
    64: "llvm.x86.avx512.pshuf.b.512",
    32: "llvm.x86.avx2.pshuf.b",
    16: "llvm.x86.ssse3.pshuf.b.128",
}
"""The byte shuffle of each x86 vector width in bytes; arm64 has one of 16."""
_ARM_SHUFFLE = "llvm.aarch64.neon.tbl1.v16i8"


def _compiled_for() -> frozenset[str]:
    """Return the features that kernels are compiled for: this CPU's, unless NUMBA_CPU_NAME or its like say otherwise.

    An instruction beyond them does not compile: LLVM ends the process.
    """
    features = str(cpu_target.target_context.codegen().magic_tuple()[2])
    return frozenset(word[1:] for word in features.split(",") if word.startswith("+"))


def _has_half_conversion() -> bool:
    """Whether the CPU converts float16 itself; the library routine LLVM would call instead is not always there."""
    triple = binding.get_process_triple()
    if triple.startswith(("x86", "i686", "i386")):
        return "f16c" in _compiled_for()
    return bool(triple.startswith(("aarch64", "arm64")))


def shuffle_width() -> int:
    """Return the widest byte shuffle of this CPU in bytes; 0 where there is none and tables are looked up singly."""
    triple = binding.get_process_triple()
    if triple.startswith(("aarch64", "arm64")):
        return 16
    if not triple.startswith(("x86", "i686", "i386")):
        return 0
    features = _compiled_for()
    for width, feature in ((64, "avx512bw"), (32, "avx2"), (16, "ssse3")):
        if feature in features:
            return width
    return 0


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

    def bytes_at(address: int, length: int) -> npt.NDArray[np.uint8]:
        """Uint8 array of `length` at `address`."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * length).from_address(int(address)))

    def longs_at(address: int, length: int) -> npt.NDArray[np.int64]:
        """Int64 array of `length` at `address`."""
        return np.ctypeslib.as_array((ctypes.c_int64 * length).from_address(int(address)))

    def keys_at(address: int, length: int) -> npt.NDArray[np.uint64]:
        """Uint64 array of `length` at `address`."""
        return np.ctypeslib.as_array((ctypes.c_uint64 * length).from_address(int(address)))

    def count_bits(word: np.uint64) -> int:
        """Number of bits of `word` that are set."""
        return int(word).bit_count()

    def codes_at(address: int, length: int) -> npt.NDArray[np.int8]:
        """Int8 array of `length` at `address`."""
        return np.ctypeslib.as_array((ctypes.c_int8 * length).from_address(int(address)))

    def first_bit(word: np.uint64) -> int:
        """Place of the lowest bit of `word` that is set; it is not zero."""
        return (int(word) & -int(word)).bit_length() - 1

    def bits_of(address: int, plane: int) -> np.uint64:
        """Bit `plane` of each of 64 bytes at `address`, the first one lowest."""
        return np.uint64(int(np.packbits(bytes_at(address, 64) >> plane & 1, bitorder="little").view(np.uint64)[0]))

    def count_below(address: int, key: np.uint64) -> int:
        """How many of 32 uint64 at `address` are less than `key`."""
        return int((keys_at(address, 32) < key).sum())

    def not_above(address: int, floor: np.float32) -> np.uint64:
        """Which of 32 float32 at `address` are not greater than `floor`, as bits, the first one lowest; NaN is not."""
        below = ~(floats_at(address, 32) > floor)
        return np.uint64(int(np.packbits(below, bitorder="little").view(np.uint32)[0]))

    def plane_sum(code: int, planes: int, words: int) -> int:
        """Sum of the numbers whose bits lie in planes, over the bits of a code; see `make_plane_sum`."""
        bits = keys_at(code, words)
        found = [int(np.bitwise_count(bits & keys_at(planes + 8 * words * plane, words)).sum()) for plane in range(6)]
        return sum(count << plane for plane, count in enumerate(found)) - 31 * int(np.bitwise_count(bits).sum())

    def move_words(to: int, source: int, count: int) -> None:
        """Copy `count` words of 8 bytes, which may overlap."""
        keys_at(to, count)[:] = keys_at(source, count).copy()

    def butterflies(address: int) -> None:
        """Walsh-Hadamard transform of 16 float32 at `address` in place, not normalised."""
        row = floats_at(address, 16)
        for half in (1, 2, 4, 8):
            pairs = row.reshape(-1, 2, half)
            row[:] = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)

    def words_at(address: int, length: int) -> npt.NDArray[np.int32]:
        """Int32 array of `length` at `address`."""
        return np.ctypeslib.as_array((ctypes.c_int32 * length).from_address(int(address)))

    def half_to_single(bits: np.uint16) -> np.float32:
        """Return the float32 of the float16 with these bits."""
        return np.float32(np.uint16(bits).view(np.float16))

    def prefetch(address: int) -> None:
        """Ask for the cache line at `address`; any address is allowed."""

    def table_sums(codes: int, table: int, groups: int, out: int) -> None:
        """Add up table entries for the 32 rows of a block of codes; see `make_table_sums`."""
        nibbles = np.ctypeslib.as_array((ctypes.c_uint8 * (groups * 16)).from_address(int(codes))).reshape(groups, 16)
        entries = np.ctypeslib.as_array((ctypes.c_uint8 * (groups * 16)).from_address(int(table))).reshape(groups, 16)
        sums = np.ctypeslib.as_array((ctypes.c_int32 * 32).from_address(int(out)))
        both = np.concatenate([nibbles & 15, nibbles >> 4], axis=1)
        sums[:] = np.take_along_axis(entries, both, axis=1).sum(axis=0, dtype=np.int32)

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
    _word_pointer = _pointer_to(types.int32)
    _code_pointer = _pointer_to(types.int8)

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

    _byte_pointer = _pointer_to(types.uint8)
    _long_pointer = _pointer_to(types.int64)
    _key_pointer = _pointer_to(types.uint64)

    @njit  # type: ignore[untyped-decorator]
    def bytes_at(address: int, length: int) -> npt.NDArray[np.uint8]:
        """Uint8 array of `length` at `address`."""
        array: npt.NDArray[np.uint8] = carray(_byte_pointer(address), (length,))
        return array

    @njit  # type: ignore[untyped-decorator]
    def longs_at(address: int, length: int) -> npt.NDArray[np.int64]:
        """Int64 array of `length` at `address`."""
        array: npt.NDArray[np.int64] = carray(_long_pointer(address), (length,))
        return array

    @njit  # type: ignore[untyped-decorator]
    def keys_at(address: int, length: int) -> npt.NDArray[np.uint64]:
        """Uint64 array of `length` at `address`."""
        array: npt.NDArray[np.uint64] = carray(_key_pointer(address), (length,))
        return array

    @intrinsic  # type: ignore[untyped-decorator]
    def count_bits(typing_context: Any, word: Any) -> Any:
        """Number of bits of `word` that are set; LLVM has a path for every CPU."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.ctpop(args[0])

        return types.int64(types.uint64), generate

    @njit  # type: ignore[untyped-decorator]
    def codes_at(address: int, length: int) -> npt.NDArray[np.int8]:
        """Int8 array of `length` at `address`."""
        array: npt.NDArray[np.int8] = carray(_code_pointer(address), (length,))
        return array

    @intrinsic  # type: ignore[untyped-decorator]
    def first_bit(typing_context: Any, word: Any) -> Any:
        """Place of the lowest bit of `word` that is set; it is not zero."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], ir.IntType(1)(1))

        return types.int64(types.uint64), generate

    def _splat_of(builder: Any, value: Any, count: int) -> Any:
        """Emit a vector of one value."""
        empty = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
        first = builder.insert_element(empty, value, ir.IntType(32)(0))
        return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), count), None))

    def _vector_at(builder: Any, address: Any, scalar: Any, count: int) -> Any:
        """Emit a load of a vector that is aligned as its components are."""
        value = builder.load(builder.inttoptr(address, ir.VectorType(scalar, count).as_pointer()))
        value.align = 1
        return value

    @intrinsic  # type: ignore[untyped-decorator]
    def bits_of(typing_context: Any, address: Any, plane: Any) -> Any:
        """Bit `plane` of each of 64 bytes at `address`, the first one lowest."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = _vector_at(builder, args[0], ir.IntType(8), 64)
            bit = builder.shl(ir.IntType(8)(1), builder.trunc(args[1], ir.IntType(8)))
            masked = builder.and_(values, _splat_of(builder, bit, 64))
            return builder.bitcast(builder.icmp_unsigned("!=", masked, ir.Constant(values.type, None)), ir.IntType(64))

        return types.uint64(types.int64, types.int64), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def count_below(typing_context: Any, address: Any, key: Any) -> Any:
        """How many of 32 uint64 at `address` are less than `key`."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = _vector_at(builder, args[0], ir.IntType(64), 32)
            below = builder.icmp_unsigned("<", values, _splat_of(builder, args[1], 32))
            return builder.zext(builder.ctpop(builder.bitcast(below, ir.IntType(32))), ir.IntType(64))

        return types.int64(types.int64, types.uint64), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def not_above(typing_context: Any, address: Any, floor: Any) -> Any:
        """Which of 32 float32 at `address` are not greater than `floor`, as bits, the first one lowest; NaN is not."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = _vector_at(builder, args[0], ir.FloatType(), 32)
            below = builder.fcmp_unordered("<=", values, _splat_of(builder, args[1], 32))
            return builder.zext(builder.bitcast(below, ir.IntType(32)), ir.IntType(64))

        return types.uint64(types.int64, types.float32), generate

    @njit  # type: ignore[untyped-decorator]
    def _plane_sum_by_words(code: int, planes: int, words: int) -> int:
        """`plane_sum` for CPUs that count the bits of one word at a time."""
        bits, of = keys_at(code, words), keys_at(planes, 6 * words)
        total = 0
        for word in range(words):
            for plane in range(6):
                total += count_bits(bits[word] & of[words * plane + word]) << plane
            total -= 31 * count_bits(bits[word])
        return total

    def _emit_plane_sum(builder: Any, args: Any) -> Any:
        """Emit a loop over eight words at a time; what is behind the last is not read."""
        code, planes, words = args
        eight, lanes = ir.VectorType(ir.IntType(64), 8), ir.IntType(64)
        load = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(eight, [eight.as_pointer(), ir.IntType(32), ir.VectorType(ir.IntType(1), 8), eight]),
            "llvm.masked.load.v8i64.p0v8i64",
        )
        count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(eight, [eight]), "llvm.ctpop.v8i64")
        reduce_function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lanes, [eight]), "llvm.vector.reduce.add.v8i64"
        )
        total = cgutils.alloca_once_value(builder, ir.Constant(eight, None))
        places = ir.Constant(eight, list(range(8)))
        steps = builder.lshr(builder.add(words, lanes(7)), lanes(3))
        with cgutils.for_range(builder, steps) as loop:
            first = builder.mul(loop.index, lanes(8))
            there = builder.icmp_unsigned(
                "<", builder.add(places, _splat_of(builder, first, 8)), _splat_of(builder, words, 8)
            )

            def at(address: Any) -> Any:
                pointer = builder.inttoptr(builder.add(address, builder.mul(first, lanes(8))), eight.as_pointer())
                return builder.call(load, [pointer, ir.IntType(32)(8), there, ir.Constant(eight, None)])

            bits = at(code)
            ones = builder.call(count, [bits])
            sums = builder.sub(ones, builder.shl(ones, _splat(lanes, 5, 8)))
            for plane in range(6):
                offset = builder.mul(words, lanes(8 * plane))
                found = builder.call(count, [builder.and_(bits, at(builder.add(planes, offset)))])
                sums = builder.add(sums, builder.shl(found, _splat(lanes, plane, 8)))
            builder.store(builder.add(builder.load(total), sums), total)
        return builder.call(reduce_function, [builder.load(total)])

    def make_plane_sum(wide: bool) -> Any:
        """Return the function that adds up numbers that lie in bit planes, over the bits of a code.

        ``plane_sum(code, planes, words)``: addresses of words of 64 bits, and of six planes of as many words, the
        lowest bits first; a number is what its six bits say, less 31. Bits of the code that belong to no number are 0.

        Parameters
        ----------
        wide : bool
            Whether the CPU counts the bits of eight words at once.
        """
        if not wide:
            return _plane_sum_by_words

        @intrinsic  # type: ignore[untyped-decorator]
        def by_eight(typing_context: Any, code: Any, planes: Any, words: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return _emit_plane_sum(builder, args)

            return types.int64(types.int64, types.int64, types.int64), generate

        return by_eight

    @intrinsic  # type: ignore[untyped-decorator]
    def move_words(typing_context: Any, to: Any, source: Any, count: Any) -> Any:
        """Copy `count` words of 8 bytes, which may overlap."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointers = [builder.inttoptr(each, ir.IntType(64).as_pointer()) for each in args[:2]]
            cgutils.raw_memmove(builder, *pointers, args[2], 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def butterflies(typing_context: Any, address: Any) -> Any:
        """Walsh-Hadamard transform of 16 float32 at `address` in place, not normalised."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = _vector_at(builder, args[0], ir.FloatType(), 16)
            lanes = ir.VectorType(ir.IntType(32), 16)
            for half in (1, 2, 4, 8):
                other = builder.shuffle_vector(values, values, ir.Constant(lanes, [at ^ half for at in range(16)]))
                both = builder.fadd(other, values), builder.fsub(other, values)
                chosen = ir.Constant(lanes, [at + 16 if at & half else at for at in range(16)])
                values = builder.shuffle_vector(*both, chosen)
            target = builder.inttoptr(args[0], values.type.as_pointer())
            builder.store(values, target).align = 4
            return context.get_dummy_value()

        return types.void(types.int64), generate

    @njit  # type: ignore[untyped-decorator]
    def words_at(address: int, length: int) -> npt.NDArray[np.int32]:
        """Int32 array of `length` at `address`."""
        array: npt.NDArray[np.int32] = carray(_word_pointer(address), (length,))
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

    @njit  # type: ignore[untyped-decorator]
    def _single_sums(codes: int, table: int, groups: int, out: int) -> None:
        """`table_sums` for a CPU without a byte shuffle: one look-up at a time."""
        nibbles = carray(_byte_pointer(codes), (groups * 16,))
        entries = carray(_byte_pointer(table), (groups * 16,))
        sums = carray(_word_pointer(out), (32,))
        sums[:] = 0
        for group in range(groups):
            for row in range(16):
                code = nibbles[group * 16 + row]
                sums[row] += entries[group * 16 + (code & 15)]
                sums[row + 16] += entries[group * 16 + (code >> 4)]

    def make_table_sums(width: int) -> Any:
        """Return the function that adds up table entries for the 32 rows of a block of codes.

        ``table_sums(codes, table, groups, out)``: addresses of ``groups * 16`` bytes of codes, of as many of table
        entries, and of 32 int32 for the sums. Byte j of a group holds the code of row j in its low four bits and that
        of row j + 16 in its high four, and a row's sum is that of ``table[group][code]`` over all groups. `groups` is
        a multiple of 4 and at most 1,024, the sums are exact whatever `width` is.

        Parameters
        ----------
        width : {64, 32, 16, 0}
            Bytes shuffled at once; 0 looks each entry up.
        """
        if not width:
            return _single_sums
        name = SHUFFLES[width] if binding.get_process_triple().startswith(("x86", "i686", "i386")) else _ARM_SHUFFLE

        @intrinsic  # type: ignore[untyped-decorator]
        def sums(typing_context: Any, codes: Any, table: Any, groups: Any, out: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                _emit_table_sums(builder, width, name, args)
                return context.get_dummy_value()

            return types.void(types.int64, types.int64, types.int64, types.int64), generate

        return sums

    def _splat(kind: Any, value: int, count: int) -> Any:
        return ir.Constant(ir.VectorType(kind, count), [value] * count)

    def _emit_table_sums(builder: Any, width: int, name: str, args: Any) -> None:
        """Emit a loop over groups that shuffles, and adds bytes as 16-bit numbers whose upper half is summed apart.

        Adding a pair of bytes as one 16-bit number adds the odd byte's carry-free sum times 256 to the even one's;
        both are told apart at the end, since the sum of 256 bytes stays below 2**16.
        """
        codes, table, groups, out = args
        bytes_type, pairs_type = ir.VectorType(ir.IntType(8), width), ir.VectorType(ir.IntType(16), width // 2)
        shuffle = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(bytes_type, [bytes_type, bytes_type]), name
        )
        totals = [cgutils.alloca_once_value(builder, ir.Constant(pairs_type, None)) for _ in range(4)]
        low, eight = _splat(ir.IntType(8), 15, width), _splat(ir.IntType(16), 8, width // 2)

        def load(address: Any, offset: Any) -> Any:
            value = builder.load(builder.inttoptr(builder.add(address, offset), bytes_type.as_pointer()))
            value.align = 1
            return value

        def increase(total: Any, value: Any) -> None:
            builder.store(builder.add(builder.load(total), value), total)

        steps = builder.udiv(groups, ir.Constant(groups.type, width // 16))
        with cgutils.for_range(builder, steps) as loop:
            offset = builder.mul(loop.index, ir.Constant(groups.type, width))
            packed, entries = load(codes, offset), load(table, offset)
            upper = builder.lshr(builder.bitcast(packed, pairs_type), _splat(ir.IntType(16), 4, width // 2))
            for half, nibbles in enumerate((packed, builder.bitcast(upper, bytes_type))):
                found = builder.bitcast(builder.call(shuffle, [entries, builder.and_(nibbles, low)]), pairs_type)
                increase(totals[2 * half], found)
                increase(totals[2 * half + 1], builder.lshr(found, eight))
        for half in range(2):
            _emit_half(builder, width, [builder.load(total) for total in totals[2 * half : 2 * half + 2]], out, half)

    def _emit_half(builder: Any, width: int, totals: Any, out: Any, half: int) -> None:
        """Emit the sums of 16 rows: even and odd ones are parted, lanes of 16 bytes added, order restored."""
        both, odd = totals
        even = builder.sub(both, builder.shl(odd, _splat(ir.IntType(16), 8, width // 2)))
        words = ir.VectorType(ir.IntType(32), 8)
        parts = []
        for values in (even, odd):
            total = None
            for lane in range(width // 16):
                places = ir.Constant(words, list(range(8 * lane, 8 * lane + 8)))
                part = builder.zext(
                    builder.shuffle_vector(values, ir.Constant(values.type, ir.Undefined), places), words
                )
                total = part if total is None else builder.add(total, part)
            parts.append(total)
        mixed = ir.Constant(ir.VectorType(ir.IntType(32), 16), [at for pair in range(8) for at in (pair, 8 + pair)])
        pointer = ir.VectorType(ir.IntType(32), 16).as_pointer()
        target = builder.inttoptr(builder.add(out, ir.Constant(out.type, 64 * half)), pointer)
        builder.store(builder.shuffle_vector(*parts, mixed), target).align = 4

    table_sums = make_table_sums(shuffle_width())
    plane_sum = make_plane_sum("avx512vpopcntdq" in _compiled_for())
