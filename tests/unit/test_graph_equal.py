"""Equal rows: what counts as equal, the tree they form, and that they crowd nobody out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.graphs import METRICS, built, check_form, gaussian, geometry, view_of
from vecdb.indexes.graph_equal import Groups, group_equal, hang_equal
from vecdb.indexes.graph_lists import Tuning
from vecdb.indexes.graph_partition import Shape
from vecdb.indexes.graph_rows import lend_rows

SMALL = Tuning(shape=Shape(least=10, wanted=40, most=90, fans=(3, 2), leaders=16), near=8)


def groups_of(rows, metric="l2", chosen=None, **options):
    chosen = np.arange(len(rows), dtype=np.int32) if chosen is None else chosen
    with lend_rows(view_of(rows, metric, **options)) as lent:
        return group_equal(lent, chosen)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 120),
    dim=st.integers(1, 6),
    levels=st.integers(1, 4),
    metric=st.sampled_from(["dot", "l2"]),
    dtype=st.sampled_from(["float32", "float16"]),
    seed=st.integers(0, 2**30),
)
def test_groups_are_the_rows_that_are_equal(count, dim, levels, metric, dtype, seed):
    rows = np.random.default_rng(seed).integers(0, levels, (count, dim)).astype(np.float32)
    groups = groups_of(rows, metric, dtype=dtype)
    expected: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        expected.setdefault(row.tobytes(), []).append(place)
    assert sorted(groups.members.tolist()) == list(range(count))
    for place, (begin, size) in enumerate(zip(groups.begins.tolist(), groups.sizes.tolist(), strict=True)):
        group = groups.members[begin : begin + size].tolist()
        assert groups.members[place] in group and group == expected[rows[group[0]].tobytes()]
    assert groups.firsts().tolist() == sorted(group[0] for group in expected.values())


def test_both_zeros_are_equal_and_so_are_multiples_under_cosine():
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 4.0], [1.0, 0.0]], np.float32)
    assert groups_of(rows, "l2").firsts().tolist() == [0, 2, 3]
    assert groups_of(rows, "cosine").firsts().tolist() == [0, 3]


def test_the_order_of_coordinates_and_rows_counts():
    rows = np.array([[1, 2, 3], [3, 2, 1], [2, 1, 3], [1, 2, 3]], np.float32)
    chosen = np.array([1, 2, 3], np.int32)
    assert groups_of(rows).firsts().tolist() == [0, 1, 2]
    assert groups_of(rows, chosen=chosen).firsts().tolist() == [1, 2, 3]


@pytest.mark.parametrize("size", [1, 2, 5, 6, 30, 500])
@pytest.mark.parametrize("degree", [1, 2, 3, 8])
def test_a_group_is_a_tree_below_its_first(size, degree):
    """Two groups, of which the first rows have a neighbour each."""
    members = np.arange(size + 3, dtype=np.int32)
    begins = np.array([0] * size + [size] * 3)
    groups = Groups(members, begins, np.array([size] * size + [3] * 3))
    neighbours = np.full((size + 3, degree), -1, np.int32)
    neighbours[0, 0], neighbours[size, 0] = size, 0
    hang_equal(groups, neighbours)
    seen, todo = {0}, [0]
    while todo:
        listed = [other for other in neighbours[todo.pop()].tolist() if other >= 0]
        assert len(set(listed)) == len(listed)
        fresh = set(listed) - seen
        seen |= fresh
        todo += fresh
    assert seen >= set(range(size))
    room = [row for row in range(size) if (neighbours[row] == -1).any()]
    assert all(size in neighbours[row] for row in room), "whoever has room has the neighbours of the first"
    if degree == 8:
        assert (neighbours[:size] == size).any(axis=1).all()


def test_rows_without_equals_keep_their_lists():
    groups = groups_of(gaussian(50))
    neighbours = np.arange(200, dtype=np.int32).reshape(50, 4)
    hang_equal(groups, neighbours)
    assert (neighbours == np.arange(200).reshape(50, 4)).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("distinct", [1, 20, 200])
def test_every_group_is_found(metric, distinct):
    """Searches near each group come to as many of its rows as they ask for."""
    rng = np.random.default_rng(0)
    kinds = gaussian(distinct, 10)
    rows = kinds[np.concatenate([np.arange(distinct), rng.integers(0, distinct, 2_000)])]
    graph = built(view_of(rows, metric), degree=16, tuning=SMALL)
    check_form(graph, rows, metric)
    wide = geometry(rows, metric)
    found = []
    for row in range(0, distinct, max(1, distinct // 20)):
        distances = ((wide - wide[row]) ** 2).sum(axis=1)
        seen = set(graph.entries.tolist())
        pool, expanded = sorted(seen, key=distances.__getitem__)[:40], set()
        while todo := [other for other in pool if other not in expanded]:
            expanded.add(todo[0])
            fresh = {other for other in graph.neighbours[todo[0]].tolist() if other >= 0} - seen
            seen |= fresh
            pool = sorted({*pool, *fresh}, key=distances.__getitem__)[:40]
        found.append(distances[pool[5]] <= np.sort(distances)[5] + 1e-9)
    assert np.mean(found) >= 0.9
