"""Index types through drawn lives, and the strategies that draw them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.plain import PlainIndex, PlainType
from tests.conformance.projected import ProjectedType
from vecdb.errors import PluginContractError
from vecdb.indexes import FlatType, IvfType, RabitqType
from vecdb.kernels import loader
from vecdb.testing import datasets
from vecdb.testing.index_life import Ask, Grow, Reload, Remove, live
from vecdb.testing.strategies import index_steps, queries_for, spaces, vectors
from vecdb.types import METRICS, Space


def by_default(index_type, **values):
    """The type with other defaults: what is drawn has no parameters."""
    changed = {name: replace(index_type.parameters[name], default=value) for name, value in values.items()}
    return replace(index_type, parameters={**index_type.parameters, **changed})


CODES = [
    RabitqType(),
    by_default(RabitqType(), bits=4),
    IvfType(),
    by_default(IvfType(), lists=3, bits=2),
    by_default(IvfType(), bits=8),
]
TYPES = [FlatType(), *CODES, PlainType(), PlainType().able(add=False, remove=False), ProjectedType()]


@pytest.fixture(scope="module", autouse=True)
def kernels():
    """Codes are searched by kernels; while these are loaded, the vectors answer."""
    loader.request()
    assert loader.wait() or not loader.enabled()


@pytest.mark.parametrize("index_type", TYPES, ids=lambda index_type: index_type.name)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), steps=index_steps(), metric=st.sampled_from(METRICS))
def test_every_type_keeps_its_promises_through_a_life(index_type, data, steps, metric):
    rows = data.draw(vectors(data.draw(st.integers(1, 12)), max_rows=120, kinds=[*datasets.SETS, "near ties"]))
    start = data.draw(st.integers(1, len(rows)))
    asked = live(index_type, metric, rows, start, steps)
    assert asked == 3 * sum(isinstance(step, Ask) for step in steps)


def broken(**methods):
    return PlainType(index=type("Broken", (PlainIndex,), methods))


def forgets_removals(self, positions):
    return None


def one_too_many(self, query, k, mask):
    positions, scores = PlainIndex.find(self, query, k, mask)
    return np.append(positions, len(self.rows)), np.append(scores, np.float32(-1e30))


def worst(self, query, k, mask):
    there = np.flatnonzero(mask)
    scores = self.scores(query, self.rows[there])
    order = np.lexsort((there, -scores))[-k:]
    return there[order], scores[order]


def twice(self, query, k, mask):
    return tuple(np.repeat(part, 2) for part in PlainIndex.find(self, query, k, mask))


def backwards(self, query, k, mask):
    return tuple(part[::-1] for part in PlainIndex.find(self, query, k, mask))


def fewer(self, query, k, mask):
    positions, scores = PlainIndex.find(self, query, k, mask)
    return positions[:3], scores[:3]


@pytest.mark.parametrize(
    ("methods", "rule"),
    [
        ({"find": one_too_many}, "check_positions_are_known"),
        ({"find": worst}, "check_exact"),
        ({"find": fewer}, "check_complete"),
        ({"find": twice}, "check_no_position_twice"),
        ({"find": backwards}, "check_best_first"),
        ({"scores": lambda self, q, rows: np.full(len(rows), np.inf, np.float32)}, "check_scores_are_numbers"),
    ],
)
def test_a_broken_type_does_not_get_through_its_life(methods, rule):
    steps = [Grow(20), Ask(seed=3, k=10), Reload(), Remove(seed=1, share=0.5), Ask(seed=4, k=20, share=0.5)]
    with pytest.raises(PluginContractError) as caught:
        live(broken(**methods), "l2", datasets.gaussian(80, 6, 1), 50, steps)
    assert caught.value.rule == rule
    assert "Ask(seed=3" in caught.value.problem


def test_what_was_removed_is_not_allowed_to_come_back():
    unfiltered = broken(remove=forgets_removals).able(filtered=False)
    steps = [Remove(seed=1, share=0.5), Ask(seed=2, k=30)]
    assert live(unfiltered, "l2", datasets.gaussian(40, 4, 1), 40, steps) == 3  # the engine drops them
    filtered = broken(search=lambda self, queries, k, **_: PlainIndex.search(
        self, queries, k, allowed=None, effort=None, view=None), remove=forgets_removals)  # fmt: skip
    with pytest.raises(PluginContractError, match="check_only_what_is_allowed"):
        live(filtered, "l2", datasets.gaussian(40, 4, 1), 40, steps)


# --- what is drawn ---


@given(spaces(max_dim=9))
def test_spaces_are_spaces(space):
    assert isinstance(space, Space)
    assert 1 <= space.dim <= 9 and space.name and space.metric in METRICS


@given(data=st.data(), dim=st.integers(1, 20))
def test_vectors_are_finite_and_none_is_zero_and_so_are_queries(data, dim):
    rows = data.draw(vectors(dim, min_rows=2, max_rows=30))
    assert rows.dtype == np.float32 and rows.shape[1] == dim and 2 <= len(rows) <= 30
    assert np.isfinite(rows).all() and rows.any(axis=1).all()
    queries = data.draw(queries_for(rows))
    assert queries.dtype == np.float32 and queries.shape[1] == dim
    assert np.isfinite(queries).all() and queries.any(axis=1).all()


@pytest.mark.parametrize("name", [*datasets.SETS, *datasets.HOSTILE])
def test_sets_are_what_they_are_called_and_always_the_same(name):
    make = (datasets.SETS | datasets.HOSTILE)[name]
    rows = make(300, 12, 5)
    assert rows.dtype == np.float32 and rows.shape == (300, 12) and rows.flags.c_contiguous
    assert np.array_equal(rows, make(300, 12, 5))
    assert not np.array_equal(rows, make(300, 12, 6))
    assert np.isfinite(rows).all()
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    claims = {
        "duplicated": len(np.unique(rows, axis=0)) < 200,
        "sorted": (np.diff(rows[:, 0]) >= 0).all(),
        "extreme": lengths.min() < 1e-25 and lengths.max() > 1e10,
        "denormal": (np.abs(rows) < np.finfo(np.float32).tiny).all() and rows.all(),
        "near ties": np.ptp(rows, axis=0).max() < 1e-5,
        "low-dimensional": np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[4:].max() < lengths.sum(),
    }
    assert claims.get(name, True)


def in_how_many_lists(metric, rows):
    """How often each row is among the ten nearest of another."""
    scores = datasets.oracle_scores(metric, rows, rows)
    np.fill_diagonal(scores, -np.inf)
    return np.bincount(np.concatenate([datasets.best(row, 10) for row in scores]), minlength=len(rows))


@pytest.mark.parametrize("metric", METRICS)
def test_hubs_are_neighbours_of_very_many(metric):
    hubs, plain = (in_how_many_lists(metric, make(600, 24, 1)) for make in (datasets.hubs, datasets.gaussian))
    assert hubs.max() > 100
    assert metric == "dot" or hubs.max() > 2 * plain.max()


def test_the_oracle_is_right_where_it_can_be_seen():
    rows = np.array([[3.0, 4.0], [0.0, 2.0], [3.0, 4.0]], np.float32)
    query = np.array([[0.0, 1.0]], np.float32)
    assert datasets.oracle_scores("dot", query, rows).tolist() == [[4.0, 2.0, 4.0]]
    assert datasets.oracle_scores("cosine", query, rows).tolist() == [[0.8, 1.0, 0.8]]
    assert datasets.oracle_scores("l2", query, rows).tolist() == [[-np.sqrt(18), -1.0, -np.sqrt(18)]]
    assert datasets.best(datasets.oracle_scores("dot", query, rows)[0], 2).tolist() == [0, 2]
