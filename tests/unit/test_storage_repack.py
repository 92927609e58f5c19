"""Which blocks are worth rewriting, and how rows are cut into blocks (storage/repack.py)."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.storage.format import BLOCK_CLASSES, BlockRef, block_capacity, smallest_class
from vecdb.storage.repack import WIDEST, cut, plan, usual_class

KB, MB = 1 << 10, 1 << 20
WIDTHS = st.sampled_from([2, 64, 768, 1536, 4096, 16_384, 65_536, 262_144])


def refs_of(rows, width=1536, size_class=None):
    """Full neighbours, or blocks of the smallest class that holds each."""
    refs, first = [], 0
    for number, count in enumerate(rows):
        refs.append(BlockRef(number + 1, size_class or smallest_class(count, width), count, first, first + count - 1))
        first += count
    return refs


def bytes_of(counts, width):
    return sum(smallest_class(count, width) for count in counts)


# --- classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "width", "expected"),
    [
        (0, 1536, 256 * KB),
        (20_000, 1536, 256 * KB),
        (64 * MB // 1536 + 1, 1536, MB),
        (0, 2, 256 * KB),
        (0, 32_768, 512 * KB),  # seven of 256 KB leave an eighth
        (0, 65_536, MB),
        (0, 262_144, MB),
    ],
)
def test_small_spaces_have_small_blocks(stored, width, expected):
    assert usual_class(stored, width) == expected


@given(st.integers(0, 10**9), WIDTHS)
def test_the_usual_class_holds_vectors_of_every_width(stored, width):
    size_class = usual_class(stored, width)
    assert size_class in BLOCK_CLASSES and block_capacity(size_class, width) >= 1


@pytest.mark.parametrize(
    ("rows", "largest", "expected"),
    [
        (0, MB, []),
        (1, MB, [64 * KB]),
        (675, MB, [MB]),
        (676, MB, [MB, 64 * KB]),
        (600, MB, [MB]),  # nine tenths of it
        (400, MB, [512 * KB, 128 * KB]),
        (163, 256 * KB, [256 * KB]),
        (400, 256 * KB, [256 * KB, 256 * KB, 128 * KB]),
    ],
)
def test_rows_are_cut_into_blocks(rows, largest, expected):
    counts = cut(rows, 1536, largest)
    assert [smallest_class(count, 1536) for count in counts] == expected and sum(counts) == rows


@given(st.integers(0, 5000), WIDTHS, st.sampled_from([2, 4]))
def test_a_cut_wastes_at_most_a_quarter_of_its_last_block_above_the_smallest(rows, width, place):
    largest = BLOCK_CLASSES[place]
    if not block_capacity(largest, width):
        return
    counts = cut(rows, width, largest)
    sizes = [smallest_class(count, width) for count in counts]
    assert sum(counts) == rows and all(size <= largest for size in sizes)
    assert all(count == block_capacity(size, width) for count, size in zip(counts[:-1], sizes, strict=False))
    assert all(later <= earlier for earlier, later in pairwise(sizes))
    if counts and sizes[-1] > BLOCK_CLASSES[0] and block_capacity(sizes[-1] // 2, width):
        assert 4 * counts[-1] >= 3 * block_capacity(sizes[-1], width)


# --- plans ------------------------------------------------------------------------------------------------


def chosen(rows, dead, **rules):
    given_rules = {"largest": 256 * KB, "threshold": 0.2, "most": 4 * MB, **rules}
    stretches = plan(refs_of(rows), np.array(dead, np.int64), 1536, **given_rules)
    return [(stretch.start, stretch.stop) for stretch in stretches]


def test_nothing_dead_nothing_rewritten():
    assert chosen([163] * 6, [0] * 6) == [] and chosen([], []) == []


def test_a_block_alone_that_would_stay_as_large_is_left():
    assert chosen([163] * 5, [0, 0, 60, 0, 0]) == []
    assert chosen([163] * 5, [0, 0, 85, 0, 0]) == [(2, 3)]  # half the size now


def test_neighbours_are_rewritten_together_where_that_saves_a_block():
    assert chosen([163] * 8, [0, 0, 55, 55, 55, 0, 0, 0]) == [(2, 5)]
    [(start, stop)] = chosen([163] * 10, [33] * 10)
    assert stop - start >= 5


def test_blocks_without_survivors_cost_nothing():
    assert chosen([163] * 5, [163, 0, 163, 0, 163], most=0) == [(0, 1), (2, 3), (4, 5)]


def test_the_best_comes_first_when_not_all_may_be_written():
    assert chosen([163] * 6, [82, 82, 0, 0, 160, 0], most=64 * KB) == [(4, 5)]


@given(
    st.lists(st.tuples(st.integers(1, 700), st.floats(0, 1)), min_size=1, max_size=30),
    st.sampled_from([256 * KB, MB]),
    st.floats(0.05, 0.6),
    st.integers(0, 8 * MB),
)
def test_a_plan_keeps_its_rules(blocks, largest, threshold, most):
    width = 1480
    rows = [count for count, _ in blocks]
    dead = np.array([int(count * share) for count, share in blocks], np.int64)
    refs = refs_of(rows, width)
    stretches = plan(refs, dead, width, largest=largest, threshold=threshold, most=most)
    assert all(before.stop <= after.start for before, after in pairwise(stretches))
    assert sum(stretch.written for stretch in stretches) <= most
    inside = {place for stretch in stretches for place in range(stretch.start, stretch.stop)}
    assert inside >= {place for place, count in enumerate(rows) if dead[place] == count}
    for stretch in stretches:
        assert 0 < stretch.stop - stretch.start <= WIDEST
        old = sum(ref.size_class for ref in refs[stretch.start : stretch.stop])
        live = sum(rows[stretch.start : stretch.stop]) - int(dead[stretch.start : stretch.stop].sum())
        assert bytes_of(cut(live, width, largest), width) <= stretch.written <= (1 - threshold) * old


@given(st.lists(st.integers(0, 163), min_size=1, max_size=9), st.integers(0, 2 * MB))
def test_nothing_that_pays_is_left_out_for_nothing(dead, most):
    """Against every stretch there is: what was not taken did not pay, did not fit, or lay across what was taken."""
    refs, counts = refs_of([163] * len(dead)), np.array(dead, np.int64)
    stretches = plan(refs, counts, 1536, largest=256 * KB, threshold=0.2, most=most)
    left = most - sum(stretch.written for stretch in stretches)
    taken = {place for stretch in stretches for place in range(stretch.start, stretch.stop)}
    for start in range(len(dead)):
        for stop in range(start + 1, len(dead) + 1):
            live = sum(163 - count for count in dead[start:stop])
            full, rest = divmod(live, 163)
            written = full * 256 * KB + (smallest_class(rest, 1536) if rest else 0)
            pays = written <= 0.8 * (stop - start) * 256 * KB
            assert not pays or written > left or taken & set(range(start, stop))
