"""The intrinsics over words and registers against plain Python: exact, whatever path the CPU takes."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from vecdb.kernels import _intrinsics


def at(array):
    return array.__array_interface__["data"][0]


def compiled(function, *types):
    names = ", ".join(f"a{place}" for place in range(len(types)))
    scope = {"function": function}
    exec(f"def run({names}):\n    return function({names})\n", scope)
    return njit(scope["run"])


@pytest.mark.parametrize("seed", range(4))
def test_registers(seed):
    rng = np.random.default_rng(seed)
    keys = np.sort(rng.integers(0, 1 << 63, 40, dtype=np.uint64) << np.uint64(1))
    below = compiled(_intrinsics.count_below, 0, 0)
    for key in (keys[0], keys[3], keys[31], np.uint64(2**64 - 1), np.uint64(0)):
        assert below(at(keys), key) == int((keys[:32] < key).sum())
    values = rng.standard_normal(32).astype(np.float32)
    values[3], values[5] = np.nan, np.inf
    floor = np.float32(values[7])
    expected = sum(1 << place for place in range(32) if not values[place] > floor)
    assert int(compiled(_intrinsics.not_above, 0, 0)(at(values), floor)) == expected
    numbers = rng.integers(0, 64, 64).astype(np.uint8)
    bits = compiled(_intrinsics.bits_of, 0, 0)
    for plane in range(6):
        assert int(bits(at(numbers), plane)) == sum((int(number) >> plane & 1) << place
                                                    for place, number in enumerate(numbers.tolist()))  # fmt: skip
    first = compiled(_intrinsics.first_bit, 0)
    assert [first(np.uint64(word)) for word in (1, 12, 1 << 63)] == [0, 2, 63]


@pytest.mark.parametrize("shift", [-3, -1, 0, 1, 5])
def test_words_move_over_themselves(shift):
    words = np.arange(40, dtype=np.uint64)
    expected = words.copy()
    expected[10 + shift : 30 + shift] = words[10:30].copy()
    compiled(_intrinsics.move_words, 0, 0, 0)(at(words) + 8 * (10 + shift), at(words) + 80, 20)
    assert np.array_equal(words, expected)


def test_butterflies_are_a_transform():
    row = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    matrix = np.array([[1.0]])
    for _ in range(4):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    expected = matrix @ row
    compiled(_intrinsics.butterflies, 0)(at(row))
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("words", [1, 6, 8, 9, 17])
@pytest.mark.parametrize("wide", [False, True])
def test_sums_over_the_bits_of_a_code(words, wide):
    if wide and "avx512vpopcntdq" not in _intrinsics._compiled_for():
        pytest.skip("this CPU counts the bits of one word at a time")
    rng = np.random.default_rng(words)
    numbers = rng.integers(0, 63, 64 * words)
    signs = rng.random(64 * words) < 0.5
    pack = [np.packbits(numbers >> plane & 1, bitorder="little").view(np.uint64) for plane in range(6)]
    planes, code = np.concatenate(pack), np.packbits(signs, bitorder="little").view(np.uint64)
    found = compiled(_intrinsics.make_plane_sum(wide), 0, 0, 0)(at(code), at(planes), words)
    assert found == int((numbers[signs] - 31).sum())
