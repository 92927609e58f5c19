"""Norms, scores, copies, classes, pairs, drift, versions and the map: against packages, plain loops and known answers.

The constants were computed on the same points by scikit-learn 1.9.1 (silhouettes) and dcor 0.7 (energy distance).
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_health_measures import points
from vecdb.evaluation import top_k
from vecdb.evaluation.health.classes import classes, silhouettes
from vecdb.evaluation.health.distributions import duplicates, histogram, norms, scores
from vecdb.evaluation.health.drift import drift, energies, steps_of, tables
from vecdb.evaluation.health.evalrank import evalrank, ranks_among
from vecdb.evaluation.health.plane import plane
from vecdb.evaluation.health.versions import cka, overlaps, versions

SILHOUETTE = {"cosine": 0.6529915756682617, "l2": 0.5122721107413105}
ENERGY, BETWEEN = 10.499284696772012, 31.016252776536696


def clusters():
    random = np.random.default_rng(7)
    random.standard_normal((5, 12))
    return points("clusters"), random.integers(0, 5, 400)


def neighbours(rows, k, metric="l2"):
    return top_k(rows, rows, k, metric, leave_out=np.arange(len(rows)))[0]


# --- distributions ----------------------------------------------------------------------------------------


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60))
def test_a_histogram_holds_every_value_once(values):
    made = histogram(np.array(values), -1.0, 1.0, bins=7)
    assert math.isclose(sum(made.shares), 1) and len(made.edges) == 8
    assert made.shares[0] >= sum(value <= -1 for value in values) / len(values) - 1e-12


def test_a_histogram_of_one_value_has_a_width():
    made = histogram(np.full(5, 3.0), 3.0, 3.0)
    assert made.edges[-1] > made.edges[0] and sum(made.shares) == pytest.approx(1)


def test_norms_are_lengths():
    rows = np.array([[3.0, 4.0], [0, 0], [6, 8]])
    found = norms(rows)
    assert (found.mean.value, found.zero, found.quantiles[0], found.quantiles[-1]) == (5, 1, 0, 10)
    assert found.deviation == pytest.approx(np.std([5, 0, 10]))
    assert norms(np.empty((0, 2))) is None


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_neighbours_in_clusters_stand_out_from_random_pairs(metric):
    rows, _ = clusters()
    _, best = top_k(rows, rows, 10, metric, leave_out=np.arange(len(rows)))
    found = scores(rows, best, metric, k=10)
    assert found.above.value > 0.8
    assert found.random.edges == found.nearest.edges == found.last.edges
    every = [sum(each.shares) for each in (found.random, found.nearest, found.last)]
    assert every == pytest.approx([1, 1, 1])


def test_scores_of_random_pairs_are_those_of_all_pairs():
    rows = points("isotropic")
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(len(rows), dtype=bool)]
    made = scores(rows, np.array([[1.0], [-1.0]]), "cosine")
    middles = (np.array(made.random.edges[1:]) + np.array(made.random.edges[:-1])) / 2
    assert np.array(made.random.shares) @ middles == pytest.approx(pairs.mean(), abs=0.02)


@pytest.mark.parametrize("best", [np.empty((3, 0)), np.full((3, 2), -np.inf)])
def test_scores_without_neighbours_are_nothing(best):
    assert scores(np.eye(3), best, "cosine") is None
    assert scores(np.eye(1), np.ones((1, 1)), "cosine") is None


def test_copies_are_found_where_all_vectors_point_one_way():
    random = np.random.default_rng(0)
    rows = random.standard_normal((200, 16)) + 20  # cosines of 0.99 between any two
    rows[50:60] = rows[:10] + 0.01 * random.standard_normal((10, 16))
    rows[60:65] = rows[10:15]
    nearest = rows[neighbours(rows, 1)[:, 0]]
    found = duplicates(rows, nearest, rows.mean(axis=0))
    assert found.near.value == pytest.approx(30 / 200) and found.same.value == pytest.approx(10 / 200)
    assert duplicates(rows[:0], rows[:0], rows.mean(axis=0)) is None


def test_copies_of_the_mean_are_copies():
    rows = np.ones((4, 3))
    assert duplicates(rows, rows, rows.mean(axis=0)).near.value == 1


# --- classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_silhouettes_are_those_of_the_published_package(metric):
    rows, numbers = clusters()
    numbers[0] = 9  # a class of one
    assert silhouettes(rows, numbers, metric).mean() == pytest.approx(SILHOUETTE[metric], rel=1e-5)


@given(st.integers(0, 1_000), st.integers(4, 40), st.integers(2, 5))
def test_silhouettes_are_what_their_definition_says(seed, n, kinds):
    random = np.random.default_rng(seed)
    rows, numbers = random.standard_normal((n, 3)), random.integers(0, kinds, n)
    numbers[:2] = 0, 1
    away = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1))
    expected = []
    for row in range(n):
        mine = (numbers == numbers[row]) & (np.arange(n) != row)
        others = [away[row, numbers == kind].mean() for kind in set(numbers.tolist()) - {int(numbers[row])}]
        inside = away[row, mine].mean() if mine.any() else None
        expected.append(0.0 if inside is None else (min(others) - inside) / max(inside, min(others)))
    assert silhouettes(rows, numbers, "l2") == pytest.approx(expected, abs=1e-4)


def test_labels_that_follow_the_geometry_are_told_from_labels_dealt_at_random():
    rows, numbers = clusters()
    found = neighbours(rows, 10)
    names = [f"c{each}" for each in numbers]
    names[3] = None
    seen = classes("topic", names, rows, found, "l2")
    assert seen.silhouette.value > 0.4 and seen.agreement.value > 0.9
    assert (seen.labelled, seen.classes, seen.field, seen.k) == (399, 5, "topic", 10)
    assert sum(size for _, size in seen.sizes) == 399 and seen.sizes[0][1] >= seen.sizes[-1][1]
    dealt = classes("topic", np.random.default_rng(0).permutation(numbers).tolist(), rows, found, "l2")
    assert dealt.agreement.low < dealt.chance < dealt.agreement.high
    assert abs(dealt.silhouette.value) < 0.1


def test_chance_is_the_share_of_pairs_with_one_label():
    rows, numbers = clusters()
    seen = classes("topic", numbers.tolist(), rows, neighbours(rows, 3), "cosine")
    pairs = numbers[:, None] == numbers[None]
    assert seen.chance == pytest.approx((pairs.sum() - 400) / (400 * 399))


@pytest.mark.parametrize("labels", [[None] * 6, ["a"] * 6, list(range(6)), ["a", "a", "b", None, None, None]])
def test_fewer_than_two_classes_are_none(labels):
    rows = np.random.default_rng(0).standard_normal((6, 3))
    assert classes("topic", labels, rows, neighbours(rows, 2), "l2") is None


def test_true_is_not_one():
    rows = np.random.default_rng(0).standard_normal((8, 3))
    assert classes("x", [True, True, 1, 1, 1, True, 1, 1], rows, neighbours(rows, 2), "l2").classes == 2


# --- pairs ------------------------------------------------------------------------------------------------


def plain_ranks(queries, partners, background, score, owners):
    ranks = []
    for place, query in enumerate(queries):
        gallery, seen = [], set()
        for number, vector in zip(owners[1].tolist(), partners, strict=True):
            if number not in seen and number != owners[0][place]:
                gallery.append(vector)
            seen.add(number)
        gallery += list(background)
        own = score(query, partners[place])
        ranks.append(1 + sum(score(query, other) > own + 1e-9 for other in gallery))
    return ranks


SCORES = {
    "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    "dot": lambda a, b: a @ b,
    "l2": lambda a, b: -np.linalg.norm(a - b),
}


@given(st.integers(0, 500), st.sampled_from(sorted(SCORES)))
def test_ranks_are_what_counting_says(seed, metric):
    random = np.random.default_rng(seed)
    queries, background = random.standard_normal((6, 4)), random.standard_normal((20, 4))
    partners = queries + 0.5 * random.standard_normal((6, 4))
    owners = np.array([[0, 1, 2, 3, 4, 10], [10, 11, 12, 12, 13, 14]])
    partners[3] = partners[2]
    queries[5] = partners[0]  # the record 10 is a partner and a query
    expected = plain_ranks(queries, partners, background, SCORES[metric], owners)
    assert ranks_among(queries, partners, background, metric, owners=owners).tolist() == expected


@pytest.mark.parametrize("metric", sorted(SCORES))
def test_equal_scores_do_not_come_before_the_partner(metric):
    random = np.random.default_rng(1)
    queries = random.standard_normal((4, 64)).astype(np.float32) * 7
    partners = queries * np.float32(1.0)
    background = np.concatenate([partners] * 5)
    assert (ranks_among(queries, partners, background, metric) >= 1).all()
    if metric != "dot":
        assert ranks_among(queries, partners, background, metric).tolist() == [1, 1, 1, 1]


def test_pairs_that_know_each_other_are_first_and_others_by_chance():
    random = np.random.default_rng(0)
    queries, background = random.standard_normal((100, 32)), random.standard_normal((400, 32))
    near = evalrank(queries, queries + 0.1 * random.standard_normal((100, 32)), background, "cosine")
    assert near.mrr.value == 1 and near.hits1.value == 1 and near.background == 500
    apart = evalrank(queries, random.standard_normal((100, 32)), background, "cosine")
    by_chance = sum(1 / rank for rank in range(1, 501)) / 500
    assert apart.mrr.low < by_chance < apart.mrr.high + 0.02
    assert apart.hits10.low < 10 / 500 < apart.hits10.high
    assert evalrank(queries[:0], queries[:0], background, "cosine") is None


# --- drift ------------------------------------------------------------------------------------------------


def test_the_energy_distance_is_that_of_the_published_package():
    rows, numbers = clusters()
    numbers[0] = 0  # as it was given to the package
    away = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1)).astype(np.float32)
    groups = (numbers != 0).astype(np.int64)
    sizes = np.bincount(groups)
    (table,) = tables(away, [groups], 2)
    for found in (*energies(table, sizes), *steps_of(table, sizes)):
        assert found == pytest.approx(ENERGY / BETWEEN, rel=1e-5)


def test_energies_of_points_that_are_all_alike_are_nothing():
    table = tables(np.zeros((4, 4), np.float32), [np.array([0, 0, 1, 1])], 2)[0]
    assert energies(table, np.array([2, 2])).tolist() == [0.0, 0.0]


@given(st.integers(0, 500), st.integers(2, 4))
def test_energies_are_what_their_definition_says(seed, groups):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((30, 3))
    numbers = random.permutation(np.arange(30) % groups)
    away = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1))

    def plain(one, other):
        between = away[np.ix_(one, other)].mean()
        within = [away[np.ix_(each, each)].sum() / (len(each) * (len(each) - 1)) for each in (one, other)]
        return (2 * between - sum(within)) / (2 * between)

    own = [np.flatnonzero(numbers == place) for place in range(groups)]
    rest = [np.flatnonzero(numbers != place) for place in range(groups)]
    (table,) = tables(away.astype(np.float32), [numbers], groups)
    sizes = np.bincount(numbers)
    assert energies(table, sizes) == pytest.approx([plain(*each) for each in zip(own, rest, strict=True)], abs=1e-5)
    expected = [plain(one, other) for one, other in pairwise(own)]
    assert steps_of(table, sizes) == pytest.approx(expected, abs=1e-5)


def test_the_step_says_when_things_changed():
    rows = np.random.default_rng(0).standard_normal((1_000, 8))
    rows[600:] += 1
    found = drift(rows, ages(1_000), 1_000, "l2")
    assert found.change == 6 and len(found.drifted) == 10  # all differ from the rest: half is old, half is new
    assert max(found.steps) == found.steps[5] > 3 * found.step_limit > 0
    still = drift(rows[:600], ages(600), 600, "l2")
    assert still.change is None and not still.drifted


def ages(n):
    return np.arange(n)


def test_no_drift_is_found_where_there_is_none():
    alarms = 0
    for seed in range(20):
        rows = np.random.default_rng(seed).standard_normal((300, 6))
        alarms += bool(drift(rows, ages(300), 300, "l2", windows=5, seed=seed).drifted)
    assert alarms <= 4  # 1 in 20 is what the limit allows


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_window_that_lies_elsewhere_is_named(metric):
    rows = np.random.default_rng(0).standard_normal((1_000, 8)) + 1
    rows[700:800] += 2 * np.array([1, -1] * 4)
    found = drift(rows, ages(1_000) * 10, 10_000, metric, windows=10)
    assert found.drifted == (7,) or 7 in found.drifted
    worst = max(found.windows, key=lambda each: each.coefficient)
    assert (worst.first, worst.stop, worst.sampled) == (7_000, 8_000, 100)
    assert worst.p == pytest.approx(1 / 201) and worst.coefficient > found.limit > 0
    assert found.change in (7, 8) and len(found.steps) == 9
    assert [each.stop for each in found.windows[:-1]] == [each.first for each in found.windows[1:]]


def test_drift_of_few_is_nothing_and_of_many_takes_a_part():
    rows = np.random.default_rng(0).standard_normal((5_000, 3))
    assert drift(rows[:39], ages(39), 39, "l2") is None
    assert len(drift(rows[:70], ages(70), 70, "l2").windows) == 3
    found = drift(rows, ages(5_000), 5_000, "l2")
    assert sum(each.sampled for each in found.windows) == 2_000
    assert drift(rows, ages(5_000), 5_000, "l2") == found
    alike = drift(np.ones((100, 3)), ages(100), 100, "l2")
    assert not alike.drifted and alike.steps == (0.0,) * 4


# --- versions ---------------------------------------------------------------------------------------------


def plain_cka(left, right):
    """The paper's equation for linear kernels, in features rather than in kernels."""
    left, right = left - left.mean(0), right - right.mean(0)
    across = np.linalg.norm(left.T @ right) ** 2
    return across / np.linalg.norm(left.T @ left) / np.linalg.norm(right.T @ right)


@given(st.integers(0, 500))
def test_cka_of_kernels_is_that_of_features(seed):
    random = np.random.default_rng(seed)
    left, right = random.standard_normal((60, 4)), random.standard_normal((60, 7))
    assert versions("x", left, right, ("l2", "dot"), k=3).cka == pytest.approx(plain_cka(left, right))
    turned = left @ np.linalg.qr(random.standard_normal((4, 4)))[0] * 3 + 5
    assert versions("x", left, turned, ("l2", "l2"), k=3).cka == pytest.approx(1)
    assert cka(np.zeros((3, 3)), np.eye(3)) == 0


@given(st.integers(0, 500))
def test_overlaps_are_those_of_sets(seed):
    random = np.random.default_rng(seed)
    first, second = (np.array([random.choice(30, 5, replace=False) for _ in range(30)]) for _ in range(2))
    expected = [len(set(a) & set(b)) / 5 for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    assert overlaps(first, second).tolist() == expected
    dealt = random.permutation(30)
    mapped = [len({int(dealt[x]) for x in first[i]} & set(second[dealt[i]].tolist())) / 5 for i in range(30)]
    assert overlaps(first, second, dealt).tolist() == mapped


def test_a_rotation_is_the_same_space_and_another_model_is_not():
    random = np.random.default_rng(0)
    rows = points("clusters")
    turned = rows @ np.linalg.qr(random.standard_normal((12, 12)))[0]
    same = versions("turned", rows, turned, ("cosine", "cosine"))
    assert same.overlap.value > 0.99 and same.cka == pytest.approx(1) and abs(same.cosine.value) < 0.5
    other = versions("other", rows, random.standard_normal((400, 5)), ("cosine", "l2"))
    assert other.overlap.low < other.overlap_by_chance and other.cosine is None
    assert other.cka < 2 * other.cka_by_chance and other.other == "other" and other.records == 400
    revised = versions("revised", rows, rows + 0.01 * random.standard_normal(rows.shape), ("cosine", "cosine"))
    assert revised.cosine.value > 0.99
    assert versions("few", rows[:29], turned[:29], ("cosine", "cosine"), k=3) is None


# --- the map ----------------------------------------------------------------------------------------------


def test_the_map_shows_the_two_widest_directions():
    random = np.random.default_rng(0)
    rows = random.standard_normal((200, 10)) * np.array([9, 5, *[0.1] * 8])
    found = plane(rows, tuple("ab" * 100), "letter")
    placed = np.array(found.points)
    assert abs(np.corrcoef(placed[:, 0], rows[:, 0])[0, 1]) > 0.999
    assert abs(np.corrcoef(placed[:, 1], rows[:, 1])[0, 1]) > 0.99
    values = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    assert found.explained == pytest.approx(tuple(values[:2] / values.sum()))
    assert found.groups[:2] == ("a", "b") and plane(rows, tuple("ab" * 100), "letter") == found


def test_the_map_of_too_little_is_nothing():
    assert plane(np.eye(2)) is None and plane(np.ones((5, 3))) is None
    assert len(plane(np.eye(3)).points) == 3
    assert plane(np.arange(5.0)[:, None]).explained == pytest.approx((1, 0))
