"""Tiles of products against plain ones, for every size of a tile, wherever the numbers lie."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from numba.core import config

from vecdb.kernels import _tiles

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="intrinsics exist with the JIT only")


def multiplying(height, width):
    tile_products = _tiles.make_tile_products(height, width)

    @numba.njit
    def run(rows, stride, panel, depth, out):
        tile_products(rows.ctypes.data, stride, panel.ctypes.data, depth, out.ctypes.data)

    return run


@pytest.fixture(scope="module", params=[(8, 32), (4, 16), (1, 4)], ids=lambda size: f"{size[0]}x{size[1]}")
def tile(request):
    return *request.param, multiplying(*request.param)


@pytest.mark.parametrize("depth", [0, 1, 3, 16, 400])
def test_products_are_those_of_plain_loops(tile, depth):
    height, width, run = tile
    rng = np.random.default_rng(depth)
    rows, panel = rng.integers(-9, 9, (height, depth)), rng.integers(-9, 9, (depth, width))
    out = np.full(height * width + 2, 7, np.float32)
    run(rows.astype(np.float32).reshape(-1), 4 * depth, panel.astype(np.float32).reshape(-1), depth, out[1:])
    assert out[1:-1].reshape(height, width).tolist() == (rows @ panel).tolist()  # whole numbers: exact
    assert out[0] == out[-1] == 7, "nothing is written beside the tile"


def test_rows_may_lie_apart(tile):
    height, width, run = tile
    rng = np.random.default_rng(0)
    rows, panel = rng.standard_normal((height, 50)).astype(np.float32), rng.standard_normal((20, width)).astype("f4")
    out = np.empty((height, width), np.float32)
    run(rows.reshape(-1)[3:], 200, panel.reshape(-1), 20, out.reshape(-1))
    np.testing.assert_allclose(out, rows[:, 3:23] @ panel, rtol=1e-4, atol=1e-5)


def test_a_product_does_not_depend_on_what_else_a_tile_holds(tile):
    height, width, run = tile
    rng = np.random.default_rng(0)
    rows, panel = rng.standard_normal((height, 33)).astype(np.float32), rng.standard_normal((33, width)).astype("f4")
    one, other = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    run(rows.reshape(-1), 132, panel.reshape(-1), 33, one.reshape(-1))
    rows[1:], panel[:, 1:] = np.nan, np.inf
    run(rows.reshape(-1), 132, panel.reshape(-1), 33, other.reshape(-1))
    assert one[0, 0].tobytes() == other[0, 0].tobytes()


def test_numbers_that_are_none_come_through(tile):
    height, width, run = tile
    rows, panel = np.zeros((height, 2), np.float32), np.ones((2, width), np.float32)
    rows[0] = np.inf, -np.inf
    out = np.empty((height, width), np.float32)
    run(rows.reshape(-1), 8, panel.reshape(-1), 2, out.reshape(-1))
    assert np.isnan(out[0]).all() and not out[1:].any()


@pytest.mark.parametrize(("features", "size"), [({"avx512f": True}, (8, 32)), ({"avx2": True}, (4, 16)), ({}, (4, 16))])
def test_the_size_of_a_tile_follows_the_processor(monkeypatch, features, size):
    monkeypatch.setattr(_tiles.binding, "get_host_cpu_features", lambda: features)
    assert _tiles.tile_size() == size


def test_the_tile_of_this_processor_works():
    run = multiplying(_tiles.TILE_ROWS, _tiles.TILE_COLUMNS)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((_tiles.TILE_ROWS, 64)).astype("f4")
    panel = rng.standard_normal((64, _tiles.TILE_COLUMNS)).astype("f4")
    out = np.empty((_tiles.TILE_ROWS, _tiles.TILE_COLUMNS), np.float32)
    run(rows.reshape(-1), 256, panel.reshape(-1), 64, out.reshape(-1))
    np.testing.assert_allclose(out, rows @ panel, rtol=1e-4, atol=1e-5)


# --- which rows of a tile are close -------------------------------------------------------------------------


def close(width, products, norms, limits, norm, limit):
    close_ones = _tiles.make_close_ones(width)

    @numba.njit
    def run(products, norms, limits, norm, limit, out):
        near, bounds = norms.ctypes.data, limits.ctypes.data
        return close_ones(products.ctypes.data, near, bounds, np.float32(norm), np.float32(limit), out.ctypes.data)

    out = np.full(width + 1, 7, np.float32)
    word = int(run(*(np.array(each, np.float32) for each in (products, norms, limits)), norm, limit, out))
    assert out[-1] == 7, "nothing is written beside the distances"
    return word, out[:-1]


@pytest.mark.parametrize("width", [4, 16, 32, 64])
def test_close_ones_are_the_bits_of_what_is_below_either_limit(width):
    rng = np.random.default_rng(width)
    products, norms = rng.integers(-9, 9, width), rng.integers(0, 9, width)
    for limit in (-np.inf, 0.0, 7.0, np.inf):
        limits = rng.choice([-np.inf, 3.0, np.inf], width)
        word, found = close(width, products, norms, limits, 5.0, limit)
        distances = 5.0 + norms - 2.0 * products
        assert found.tolist() == distances.tolist()
        wanted = (distances < limit) | (distances < limits)
        assert [bool(word >> bit & 1) for bit in range(width)] == wanted.tolist() and not word >> width


def test_what_is_no_number_is_not_close():
    word, found = close(16, np.full(16, np.nan), np.zeros(16), np.full(16, np.inf), 0.0, np.inf)
    assert word == 0 and np.isnan(found).all()


def test_a_distance_at_its_limit_is_not_close():
    assert close(16, np.zeros(16), np.ones(16), np.full(16, 2.0), 1.0, 2.0)[0] == 0
    assert close(16, np.zeros(16), np.ones(16), np.full(16, np.nextafter(2, 3, dtype="f4")), 1.0, 2.0)[0] == 0xFFFF
