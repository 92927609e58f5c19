"""The reservoir against a plain re-enactment: split invariance, uniformity, the cost of what it accepts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.engine import reservoir as module
from vecdb.engine.reservoir import MAX_SEEN, Reservoir
from vecdb.errors import CorruptionError, ParameterError


def by_hand(capacity, writes):
    """The same acceptances applied one row at a time to a Python list."""
    slots, seen = [], 0
    for first, count in writes:
        accepted = {}
        if seen + count > capacity:
            times, places = module._accepted(capacity, max(seen, capacity), seen + count)
            accepted = dict(zip(times.tolist(), places.tolist(), strict=True))
        for offset in range(count):
            if seen < capacity:
                slots.append(first + offset)
            elif seen in accepted:
                slots[accepted[seen]] = first + offset
            seen += 1
    return slots


@given(
    capacity=st.integers(1, 40),
    writes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 300)), max_size=8),
)
def test_it_is_what_replacing_row_by_row_gives(capacity, writes):
    sample = Reservoir.empty(capacity)
    for first, count in writes:
        sample = sample.add(first, count)
    assert sample.ordinals.tolist() == by_hand(capacity, writes)
    assert sample.seen == sum(count for _, count in writes)


@given(capacity=st.integers(1, 100), cuts=st.lists(st.integers(0, 5000), max_size=20))
def test_the_way_rows_are_split_into_writes_does_not_matter(capacity, cuts):
    bounds = [0, *sorted(cuts), 5000]
    split = Reservoir.empty(capacity)
    for start, stop in pairwise(bounds):
        split = split.add(start, stop - start)
    assert np.array_equal(split.ordinals, Reservoir.empty(capacity).add(0, 5000).ordinals)


@given(capacity=st.integers(1, 200), count=st.integers(0, 20_000))
def test_ordinals_are_distinct_and_were_offered(capacity, count):
    sample = Reservoir.empty(capacity).add(7, count)
    assert len(sample.ordinals) == min(capacity, count)
    assert len(np.unique(sample.ordinals)) == len(sample.ordinals)
    assert sample.ordinals.dtype == np.uint64
    if count:
        assert sample.ordinals.min() >= 7 and sample.ordinals.max() < 7 + count


def test_every_row_has_the_same_chance():
    # one reservoir is one draw; capacities differ so that the draws are independent
    shares = np.zeros(10)
    for capacity in range(500, 900):
        ordinals = Reservoir.empty(capacity).add(0, 10_000).ordinals.astype(np.int64)
        shares += np.bincount(ordinals // 1000, minlength=10) / capacity
    expected = 40.0
    deviation = np.sqrt(400 * 0.1 * 0.9 / 700)
    assert np.abs(shares - expected).max() < 5 * deviation


def test_late_and_early_rows_are_equally_likely_in_a_long_life():
    ordinals = Reservoir.empty(4096).add(0, 50_000_000).ordinals
    halves = np.bincount((ordinals.astype(np.int64) // 25_000_000), minlength=2)
    assert abs(int(halves[0]) - 2048) < 5 * 32


def test_slots_are_spread_evenly():
    slots = module._accepted(64, 64, 1_000_000)[1]
    counts = np.bincount(slots, minlength=64)
    assert counts.min() > 0
    expected = len(slots) / 64
    assert np.square(counts - expected).sum() / expected < 63 + 5 * np.sqrt(2 * 63)


def test_the_number_accepted_is_that_of_the_theory():
    times = module._accepted(1000, 1000, 1_000_000)[0]
    expected = 1000 * np.log(1000)
    assert abs(len(times) - expected) < 5 * np.sqrt(expected)
    assert (np.diff(times) > 0).all()


def test_adding_nothing_gives_the_same_object():
    sample = Reservoir.empty(10).add(0, 5)
    assert sample.add(5, 0) is sample


def test_the_reservoir_before_an_addition_is_unchanged():
    before = Reservoir.empty(10).add(0, 100)
    kept = before.ordinals.copy()
    before.add(100, 10_000)
    assert np.array_equal(before.ordinals, kept)


def test_a_gigantic_addition_costs_what_it_accepts():
    sample = Reservoir.empty(100).add(0, 1 << 60)
    assert sample.seen == 1 << 60 and len(sample.ordinals) == 100
    assert sample.ordinals.max() > 1 << 55


@pytest.mark.parametrize("capacity", [0, -1, 1 << 25])
def test_a_capacity_out_of_bounds_is_refused(capacity):
    with pytest.raises(ParameterError) as caught:
        Reservoir.empty(capacity)
    assert caught.value.got == capacity


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, -1), (MAX_SEEN, 1), (0, MAX_SEEN + 1)])
def test_impossible_additions_are_refused(first, count):
    with pytest.raises(ParameterError):
        Reservoir.empty(10).add(first, count)


@given(capacity=st.integers(1, 50), count=st.integers(0, 500))
def test_it_survives_storage(capacity, count):
    sample = Reservoir.empty(capacity).add(3, count)
    again = Reservoir.from_bytes(capacity, sample.seen, sample.to_bytes())
    assert np.array_equal(again.add(3 + count, 1000).ordinals, sample.add(3 + count, 1000).ordinals)


@pytest.mark.parametrize(
    ("capacity", "seen", "data"),
    [
        (10, 5, bytes(39)),
        (10, 50, bytes(81)),
        (0, 0, b""),
        (10, -1, b""),
        (True, 0, b""),
        (10, 0, ""),
        (1 << 30, 0, b""),
    ],
)
def test_damaged_bytes_are_named(capacity, seen, data):
    with pytest.raises(CorruptionError):
        Reservoir.from_bytes(capacity, seen, data)
