"""What is learnt about a joint space: turning, bounded contractions, prototypes, and `oca` and `bt2` as kinds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, rows_of
from vecdb.errors import CancelledError, CorruptionError, FitError
from vecdb.testing.fitting import damaged_states
from vecdb.testing.planted import unit
from vecdb.transforms.bt2 import Bt2Type, free_values
from vecdb.transforms.contraction import Contraction, bounded, contraction_of, learnt
from vecdb.transforms.dilation import dilate
from vecdb.transforms.distill import centres_of, lessons_of
from vecdb.transforms.listwise import Course
from vecdb.transforms.oca import OcaType, aligned
from vecdb.transforms.prototypes import cell_lesson, cells_of, class_lesson, means_of
from vecdb.transforms.stiefel import Turning, cayley, completed, generator

BT2, OCA = Bt2Type(), OcaType()
SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(5, 5), (7, 3), (6, 1), (1, 1)])
WIDTHS = [(8, 8), (6, 9), (9, 6)]


def off(Q):
    """Return how far the columns of Q are from orthonormal."""
    return np.abs(Q.T @ Q - np.eye(Q.shape[1])).max()


# --- turning ----------------------------------------------------------------------------------------------


@given(SEEDS, SHAPES, st.floats(0.0, 50.0))
def test_a_turned_matrix_keeps_orthonormal_columns_however_far_it_is_turned(seed, shape, size):
    rng = np.random.default_rng(seed)
    Q = orthonormal(*shape, rng)
    turned = cayley(Q, generator(Q, size * rng.standard_normal(shape)))
    assert off(turned) < 1e-10


@given(SEEDS, SHAPES)
def test_a_small_turn_follows_the_generator_and_lowers_what_it_descends(seed, shape):
    rng = np.random.default_rng(seed)
    Q, wanted = orthonormal(*shape, rng), rng.standard_normal(shape)
    skew = generator(Q, wanted)  # of the linear function <wanted, Q>
    np.testing.assert_allclose(skew, -skew.T)
    step = 1e-5
    turned = cayley(Q, step * skew)
    np.testing.assert_allclose(turned, Q - step * skew @ Q, atol=1e-8)
    assert (wanted * turned).sum() <= (wanted * Q).sum() + 1e-12


def test_descent_finds_the_rotation_of_two_sets_and_stays_orthonormal_at_every_step():
    rng = np.random.default_rng(1)
    wanted = orthonormal(6, 4, rng, proper=None)
    X = rng.standard_normal((50, 6))
    Q, turning = orthonormal(6, 4, np.random.default_rng(2)), Turning(6)
    errors = []
    for step in range(300):
        gradient = X.T @ (X @ Q - X @ wanted) / len(X)
        Q = turning.step(Q, gradient, 0.2 * (1.0 - step / 300))
        errors.append(off(Q))
    assert max(errors) < 1e-12
    assert np.abs(Q - wanted).max() < 0.02


def test_without_a_gradient_nothing_turns():
    Q = orthonormal(5, 3, np.random.default_rng(1))
    assert np.array_equal(Turning(5).step(Q, np.zeros((5, 3)), 0.3), Q)


@given(SEEDS, st.sampled_from([(3, 5, 5), (3, 5, 8), (4, 4, 4), (1, 1, 3)]))
def test_rows_are_completed_to_an_orthogonal_matrix(seed, sizes):
    m, c, n = sizes
    rows = orthonormal(m, c, np.random.default_rng(seed))
    Q = completed(rows, n)
    np.testing.assert_allclose(Q @ Q.T, np.eye(n), atol=1e-12)
    np.testing.assert_array_equal(Q[:m, :c], rows)
    assert not Q[:m, c:].any()


# --- bounded contractions ---------------------------------------------------------------------------------


@given(SEEDS, st.sampled_from(WIDTHS), st.integers(-1, 20))
def test_a_bounded_contraction_needs_no_more_columns_than_it_may(seed, widths, columns):
    d_new, d_old = widths
    M = np.random.default_rng(seed).standard_normal((d_new, d_old))
    free = free_values(d_new, d_old, columns)
    factors = bounded(M, free)
    values = np.linalg.svd(factors.product(), compute_uv=False)
    assert values.max() <= 1 + 1e-9 and (values < 1 - 1e-9).sum() <= free
    assert off(factors.U) < 1e-12 and off(factors.V) < 1e-12
    extra = dilate(factors.product()).E.shape[1] - d_old
    assert columns < 0 or extra <= max(columns, d_new - d_old, 0)


def test_a_bounded_contraction_keeps_the_directions_that_the_map_is_weakest_in():
    factors = bounded(np.diag([8.0, 4.0, 2.0, 1.0]), 2)
    np.testing.assert_allclose(factors.values, [1.0, 1.0, 2 / 3, 1 / 3])
    np.testing.assert_allclose(bounded(np.zeros((3, 2)), 2).values, 0.0)


def upgrade(seed=0, *, d_old=8, d_new=8, count=200, kept=60, noise=0.5, labels=False, role="query", **options):
    """Return pairs of an old model that sees the new one's columns unevenly, in clusters that may be labels."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((7, d_new))
    classes = rng.integers(0, 7, count + kept)
    new = unit(centres[classes] + 0.7 * rng.standard_normal((count + kept, d_new))).astype(float)
    scales = np.linspace(1.5, 0.3, d_new)[:, None]
    old = unit(new @ (scales * orthonormal(d_new, d_old, rng)) + noise * rng.standard_normal((count + kept, d_old)) / 4)
    sides = (new, old) if role == "query" else (old, new)
    held = tuple(side[count:] for side in sides) if kept else None
    given = classes[:count] if labels else None
    return data_of(sides[0][:count], sides[1][:count], role=role, kept=held, labels=given, seed=seed, **options)


@pytest.mark.parametrize("columns", [0, 3, -1])
def test_what_is_learnt_is_a_contraction_with_as_many_free_values_as_it_may_have(columns):
    data = upgrade()
    start = contraction_of(data, "clip", owner="bt2")
    lessons = lessons_of(data, centres_of(data), "mean")
    found = learnt(
        start, free_values(8, 8, columns), lessons, Course(15, 0.1, 1.5, 64, 500), ("cosine", "cosine"), data
    )
    values = np.linalg.svd(found.M, compute_uv=False)
    assert isinstance(found, Contraction) and values.max() <= 1 + 1e-12
    assert (values < 1 - 1e-9).sum() <= free_values(8, 8, columns)
    assert np.abs(found.M - bounded(start.M, free_values(8, 8, columns)).product()).max() > 1e-3


def test_learning_ranks_old_vectors_more_like_the_teachers_than_the_start_does():
    gains = []
    for seed in range(3):
        data = upgrade(seed, count=300, kept=0)
        one, other = (
            fitted(BT2, replace(data, rng=np.random.default_rng(seed)), fit="learned", columns=2, steps=s)
            for s in (0, 80)
        )
        truth = (data.source @ data.source.T).astype(float)
        np.fill_diagonal(truth, -1)

        def nearest_found(made, truth=truth, data=data):
            old = made.companion().apply(data.target)
            table = made.apply(data.source) @ old.T + made.affine().row_bias(data.target)
            np.fill_diagonal(table, -np.inf)
            best = truth.argmax(1)
            return np.mean(1 / (table >= table[np.arange(len(table)), best][:, None]).sum(1))

        gains.append(nearest_found(other) - nearest_found(one))
    assert np.mean(gains) > 0


# --- prototypes -------------------------------------------------------------------------------------------


def test_cells_are_numbered_without_gaps_and_hold_the_nearest_rows():
    rng = np.random.default_rng(3)
    centres = 5.0 * np.eye(4, 6)
    rows = (centres[np.repeat(np.arange(4), 30)] + 0.1 * rng.standard_normal((120, 6))).astype(np.float32)
    places = cells_of(rows, 12, rng)
    assert set(places) == set(range(places.max() + 1)) and places.max() < 12
    for place in range(places.max() + 1):
        assert len(set(np.repeat(np.arange(4), 30)[places == place])) == 1
    assert cells_of(rows[:3], 10, rng).max() <= 2


def test_means_are_those_of_the_rows_of_each_place():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    places = np.array([1, 0, 1, 2, 2, 2])
    np.testing.assert_allclose(means_of(rows, places), [rows[1], rows[[0, 2]].mean(0), rows[3:].mean(0)])


def test_labels_teach_where_at_least_two_classes_are_known():
    data = upgrade(labels=True)
    centres = centres_of(data)
    lesson = class_lesson(data, centres)
    assert len(lesson.bank.old) == 7 and len(lesson.asked.new) == 200 and lesson.teacher == "label"
    some = np.array(data.labels)
    some[some != 3] = -1
    assert class_lesson(replace(data, labels=some), centres) is None
    assert class_lesson(replace(data, labels=None), centres) is None
    some = np.array(data.labels)
    some[::2] = -1
    assert len(class_lesson(replace(data, labels=some), centres).asked.new) == 100
    assert len(cell_lesson(data, centres, 5).bank.old) <= 5


# --- the kinds --------------------------------------------------------------------------------------------


def made_by(kind, data, **params):
    usual = {"steps": 12, **({"fit": "learned"} if kind is BT2 else {})}
    return fitted(kind, data, **{**usual, **params})


@pytest.mark.parametrize("kind", [BT2, OCA], ids=["bt2", "oca"])
@pytest.mark.parametrize("role", ["query", "gallery"])
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("labels", [False, True])
def test_new_vectors_keep_their_inner_products_and_old_ones_are_not_touched(kind, role, widths, labels):
    data = upgrade(d_old=widths[0], d_new=widths[1], role=role, labels=labels)
    columns = max(widths[1] - widths[0], 0) + 2  # what a wider model needs is never dropped
    made = made_by(kind, data, columns=columns)
    new, old = (made, made.companion()) if role == "query" else (made.companion(), made)
    asked, stored = (data.source, data.target) if role == "query" else (data.target, data.source)
    mapped = new.apply(asked).astype(float)
    gram = made.E.astype(float) @ made.E.T.astype(float)
    assert np.abs(gram - np.eye(len(gram))).max() < 1e-5
    np.testing.assert_allclose(mapped @ mapped.T, asked.astype(float) @ asked.T, atol=2e-6)
    assert new.isometry in ("semi", "exact") and made.whole
    padded = old.apply(stored)
    assert np.array_equal(padded[:, : widths[0]], stored) and not padded[:, widths[0] :].any()


@given(SEEDS, st.integers(0, 9))
@settings(max_examples=10)
def test_the_layer_has_no_more_columns_than_it_was_widened_by(seed, columns):
    made = made_by(OCA, upgrade(seed), columns=columns, steps=3)
    assert made.target_dim <= 8 + columns and made.whole and made.fit["extra"] <= columns


def test_without_room_the_layer_is_a_rotation():
    made = made_by(OCA, upgrade(), columns=0)
    assert made.isometry == "exact" and made.target_dim == 8
    rows = upgrade().source
    np.testing.assert_allclose(made.inverse().apply(made.apply(rows)), rows, atol=1e-5)


@pytest.mark.parametrize("kind", [BT2, OCA], ids=["bt2", "oca"])
def test_new_vectors_find_old_ones_of_their_own_class(kind):
    data = upgrade(labels=True, count=300, kept=0)
    made = made_by(kind, data, columns=4, steps=60)
    table = made.apply(data.source) @ made.companion().apply(data.target).T + made.affine().row_bias(data.target)
    np.fill_diagonal(table, -np.inf)
    found = data.labels[table.argmax(1)] == data.labels
    assert found.mean() > 0.6  # 1 of 7 by chance


def test_the_temperature_is_chosen_by_kept_back_pairs_or_given():
    data = upgrade(labels=True)
    chosen = made_by(OCA, data)
    assert chosen.fit["temperature"] in (0.5, 0.25, 1.0) and chosen.fit["judged"] > 0
    given = made_by(OCA, data, temperature=0.7)
    assert given.fit["temperature"] == 0.7 and given.fit["judged"] == -1.0
    assert made_by(OCA, replace(data, validation=None)).fit["temperature"] == 0.5


def test_prototypes_are_classes_where_there_are_labels_and_cells_where_there_are_none():
    assert made_by(OCA, upgrade(labels=True)).fit["prototypes"] == 7
    assert made_by(OCA, upgrade(), cells=5).fit["prototypes"] <= 5


def test_the_block_of_the_layer_starts_as_the_contraction_where_there_is_room():
    data = upgrade()
    start = contraction_of(data, "clip", owner="oca").M
    lesson = cell_lesson(data, centres_of(data), 5)
    block = aligned(start, 8, lesson, Course(0, 0.1, 1.0, 10, 100), data)
    np.testing.assert_allclose(block, bounded(start, 8).product(), atol=1e-12)


@pytest.mark.parametrize("kind", [BT2, OCA], ids=["bt2", "oca"])
def test_states_fits_and_refusals(kind):
    data = upgrade()
    made = made_by(kind, data)
    again = kind.load(made.state())
    assert np.array_equal(made.apply(data.source), again.apply(data.source))
    same = made_by(kind, upgrade())
    assert np.array_equal(made.E, same.E)
    for _, state in damaged_states(made.state()):
        with pytest.raises(CorruptionError):
            kind.load(state)
    with pytest.raises(FitError):
        made_by(kind, replace(data, source=data.source[:2], target=data.target[:2]))
    steps = []
    with pytest.raises(CancelledError):
        made_by(kind, replace(data, cancel=lambda: len(steps) > 9, progress=lambda *step: steps.append(step)))


def test_unit_rows_stay_unit_rows():
    made = made_by(OCA, upgrade(d_old=6, d_new=9))
    rows = rows_of(30, 9, np.random.default_rng(5)).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(made.apply(rows), axis=1), 1.0, atol=1e-5)
