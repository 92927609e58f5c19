"""Addressing of rows: scan order, gathering, address tables, and what may not enter them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.blocks import VectorBlocks, row_scales
from vecdb.errors import CorruptionError


def rows_of(n, d=3, dtype=np.float32):
    return np.arange(1, n * d + 1, dtype=dtype).reshape(n, d)


def blocks_of(*heights, d=3, dtype=np.float32, metric="dot"):
    return VectorBlocks.from_parts(metric, d, np.split(rows_of(sum(heights), d, dtype), np.cumsum(heights)[:-1]))


def test_starts_count_and_sizes():
    blocks = blocks_of(2, 0, 3)
    assert blocks.starts.tolist() == [0, 2, 2, 5]
    assert (blocks.count, len(blocks), blocks.dtype, blocks.row_bytes) == (5, 3, np.float32, 16)
    assert blocks_of(2, dtype=np.float16).row_bytes == 10
    empty = VectorBlocks.from_parts("l2", 7, [])
    assert (empty.count, len(empty), empty.dtype) == (0, 0, np.float32)
    assert empty.scan_table.tolist() == [[0, 0, 0]]


@given(
    heights=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    picks=st.lists(st.integers(0, 10**6), max_size=200),
    dtype=st.sampled_from([np.float32, np.float16]),
)
def test_gather_copies_the_rows_asked_for(heights, picks, dtype):
    blocks = blocks_of(*heights, dtype=dtype)
    if not blocks.count:
        return
    whole = rows_of(blocks.count, dtype=dtype)
    positions = np.array(picks, dtype=np.int64) % blocks.count
    assert np.array_equal(blocks.gather(positions), whole[positions])
    assert blocks.gather(positions).dtype == dtype
    assert np.array_equal(blocks.gather_scales(positions), row_scales("dot", whole)[positions])


def test_gathered_rows_are_owned():
    blocks = blocks_of(4)
    rows = blocks.gather([1])
    rows[:] = 0
    assert blocks.matrices[0][1].tolist() == [4, 5, 6]


@pytest.mark.parametrize("bad", [[5], [-1], [0, 2**62]])
def test_positions_outside_are_damage_not_an_index_error(bad):
    with pytest.raises(CorruptionError, match="outside the 5 rows") as caught:
        blocks_of(2, 3).gather(bad)
    assert caught.value.what == "candidate positions"
    with pytest.raises(CorruptionError):
        blocks_of(5).checked_positions([[1, 2]])


def test_address_tables_point_at_the_first_component():
    blocks = blocks_of(2, 3)
    assert blocks.addresses.dtype == np.uint64
    assert blocks.addresses.tolist() == [matrix.ctypes.data for matrix in blocks.matrices]
    assert blocks.scale_addresses.tolist() == [scale.ctypes.data for scale in blocks.scales]
    assert blocks.scan_table[:, 2].tolist() == [0, 2, 5]
    assert blocks.scan_table[:2, 0].tolist() == blocks.addresses.tolist()
    assert blocks.addresses is blocks.addresses


def test_slice_renumbers_positions_and_keeps_the_tables():
    blocks = blocks_of(2, 3, 1, 4)
    assert blocks.slice(1, 3).count == 4
    blocks.addresses, blocks.scale_addresses  # noqa: B018  # computed once, then cut
    part = blocks.slice(1, 3)
    assert part.starts.tolist() == [0, 3, 4]
    assert "addresses" in part.__dict__
    assert part.addresses.tolist() == [matrix.ctypes.data for matrix in part.matrices]
    assert np.array_equal(part.gather([0, 3]), blocks.gather([2, 5]))
    assert blocks.slice(2, 2).count == 0


def test_join_puts_parts_behind_each_other():
    first, empty, second = blocks_of(2, 1), VectorBlocks.from_parts("dot", 3, []), blocks_of(4)
    joined = VectorBlocks.join([first, empty, second])
    assert joined.starts.tolist() == [0, 2, 3, 7]
    assert np.array_equal(joined.gather(range(7)), np.concatenate([rows_of(3), rows_of(4)]))
    for part in (first, second):
        part.addresses, part.scale_addresses  # noqa: B018  # as above
    again = VectorBlocks.join([first, second])
    assert "addresses" in again.__dict__
    assert again.addresses.tolist() == joined.addresses.tolist()
    assert VectorBlocks.join([empty]).count == 0
    assert VectorBlocks.join([empty, second]) is second


def test_join_refuses_parts_of_different_spaces():
    with pytest.raises(CorruptionError):
        VectorBlocks.join([blocks_of(2), blocks_of(2, metric="l2")])
    with pytest.raises(CorruptionError):
        VectorBlocks.join([blocks_of(2), blocks_of(2, dtype=np.float16)])


def test_layouts_that_a_bare_address_would_misread_are_refused():
    good = rows_of(4)
    scales = [np.ones(4, dtype=np.float32)]
    unaligned = np.frombuffer(b"\0" * 49, dtype=np.uint8)[1:].view(np.float32).reshape(4, 3)
    for bad in (
        np.asfortranarray(good),
        rows_of(8)[::2],
        good.astype(np.float64),
        good.astype(">f4"),
        good[:, :2].copy(),
        good[0],
        unaligned,
    ):
        with pytest.raises(CorruptionError):
            VectorBlocks.from_parts("dot", 3, [bad], scales)
    with pytest.raises(CorruptionError):
        VectorBlocks.from_parts("dot", 3, [good], [np.ones(4)])
    with pytest.raises(CorruptionError):
        VectorBlocks.from_parts("dot", 3, [good], [np.ones(3, dtype=np.float32)])
    with pytest.raises(CorruptionError):
        VectorBlocks.from_parts("dot", 3, [good], [])
    with pytest.raises(CorruptionError):
        VectorBlocks.from_parts("dot", 3, [good, good.astype(np.float16)])


def test_row_scales_are_rounded_once_from_float64():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float16):
        rows = rng.standard_normal((50, 37)).astype(dtype)
        norms = np.array([np.sqrt(sum(float(c) ** 2 for c in row)) for row in rows])
        for metric, exact in (("cosine", 1 / norms), ("dot", norms), ("l2", norms**2)):
            scales = row_scales(metric, rows)
            assert scales.dtype == np.float32
            np.testing.assert_allclose(scales, exact, rtol=2**-23)


def test_row_scales_at_the_ends_of_the_range():
    rows = np.array([[1e-45, 0], [1e15, 1e15], [0, 0]], dtype=np.float32)
    assert row_scales("cosine", rows).tolist()[0] == np.inf
    assert row_scales("cosine", rows)[2] == np.inf
    assert np.isfinite(row_scales("l2", rows)).all()
    assert row_scales("dot", np.empty((0, 4), dtype=np.float32)).shape == (0,)
