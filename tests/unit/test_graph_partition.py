"""Leaves: every row is in some, near rows share one, none is too large, and the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.graphs import HARD, gaussian, quiet, view_of
from vecdb.indexes.graph_partition import Shape, make_leaves
from vecdb.indexes.graph_rows import lend_rows

SMALL = Shape(least=8, wanted=40, most=90, fans=(3, 2), leaders=16)


def leaves_of(rows, shape=SMALL, chosen=None, seed=0, metric="l2", threads=1):
    chosen = np.arange(len(rows), dtype=np.int32) if chosen is None else chosen
    with lend_rows(view_of(rows, metric)) as lent:
        return make_leaves(lent, chosen, shape, seed, quiet(threads)), chosen


def check(leaves, chosen, shape):
    sizes = np.diff(leaves.starts)
    assert sizes.min() >= 1 and sizes.max() <= shape.most and leaves.starts[-1] == len(leaves.members)
    assert len(set(leaves.homes.tolist())) == len(leaves.homes)  # each membership has a place of its own
    assert leaves.slots == shape.fans[0] * shape.fans[1]
    assert (chosen[leaves.homes // leaves.slots] == leaves.members).all()
    assert sorted(leaves.order().tolist()) == list(range(len(chosen)))


@pytest.mark.parametrize("name", HARD)
def test_hard_sets_are_divided(name):
    leaves, chosen = leaves_of(HARD[name](2_000))
    check(leaves, chosen, SMALL)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 400),
    least=st.integers(1, 20),
    wanted=st.integers(20, 60),
    most=st.integers(60, 100),
    fans=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    leaders=st.integers(5, 40),
    levels=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_any_shape_divides_any_rows(count, least, wanted, most, fans, leaders, levels, seed):
    shape = Shape(least, wanted, most, fans, leaders)
    rows = np.random.default_rng(seed).integers(0, levels, (count, 3)).astype(np.float32)
    leaves, chosen = leaves_of(rows, shape, seed=seed)
    check(leaves, chosen, shape)


def test_some_rows_may_be_chosen():
    rows = gaussian(1_000)
    chosen = np.random.default_rng(1).permutation(1_000)[:300].astype(np.int32)
    leaves, _ = leaves_of(rows, chosen=chosen)
    check(leaves, chosen, SMALL)
    assert set(leaves.members.tolist()) == set(chosen.tolist())


def test_few_rows_are_one_leaf():
    leaves, _ = leaves_of(gaussian(90))
    assert leaves.starts.tolist() == [0, 90]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_near_rows_share_leaves(metric):
    rows = gaussian(3_000, 8)
    leaves, _ = leaves_of(rows, metric=metric)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    asked = np.arange(0, 3_000, 50)
    if metric == "l2":
        distances = ((rows[asked, None] - rows[None]) ** 2).sum(axis=2)
    elif metric == "cosine":
        distances = -(unit[asked] @ unit.T)
    else:
        distances = -(rows[asked] @ rows.T)
        distances -= 0.5 * (rows**2).sum(axis=1) * 0  # the additional coordinate leaves the order of products
    distances[np.arange(len(asked)), asked] = np.inf
    of_row = [set() for _ in range(3_000)]
    for leaf, (first, last) in enumerate(zip(leaves.starts[:-1], leaves.starts[1:], strict=True)):
        for member in leaves.members[first:last].tolist():
            of_row[member].add(leaf)
    nearest = distances.argmin(axis=1)
    share = np.mean([bool(of_row[row] & of_row[near]) for row, near in zip(asked.tolist(), nearest, strict=True)])
    assert share > (0.85 if metric != "dot" else 0.5)


def test_the_seed_decides_and_threads_do_not():
    rows = gaussian(9_000)
    one, two, three = (leaves_of(rows, seed=seed, threads=threads)[0] for seed, threads in ((0, 1), (0, 4), (1, 1)))
    assert one.members.tobytes() == two.members.tobytes() and one.homes.tobytes() == two.homes.tobytes()
    assert one.members.tobytes() != three.members.tobytes()


def test_rows_that_leaders_do_not_tell_apart_are_cut():
    leaves, chosen = leaves_of(np.ones((5_000, 4), np.float32))
    check(leaves, chosen, SMALL)


def test_small_cells_are_joined():
    """Four hundred clusters of two or three rows: their cells are too small to be leaves of their own."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((400, 6))[rng.integers(0, 400, 1_000)] * 1e3).astype(np.float32)
    leaves, chosen = leaves_of(rows, Shape(least=20, wanted=60, most=120, fans=(1, 1), leaders=400))
    check(leaves, chosen, Shape(fans=(1, 1), most=120))
    assert len(leaves.starts) - 1 < 60
