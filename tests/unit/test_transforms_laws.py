"""What fits owe to symmetry: turning, moving, stretching, repeating or reordering the pairs changes nothing else.

A fit that depends on the basis, on the order of the pairs or on their number has a fault that no comparison of its
formula with itself shows.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, rows_of
from vecdb.transforms.bt2 import Bt2Type
from vecdb.transforms.cca import CcaType
from vecdb.transforms.distill import DistillType, centres_of, lessons_of
from vecdb.transforms.hadamard import HadamardType
from vecdb.transforms.lowrank import LowRankType
from vecdb.transforms.oca import OcaType
from vecdb.transforms.procrustes import ProcrustesType
from vecdb.transforms.relative import RelativeType
from vecdb.transforms.ridge import RidgeType
from vecdb.transforms.shift import ShiftType
from vecdb.transforms.simplex import SimplexType
from vecdb.transforms.spectral import AbttType, PcaType, WhitenType

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(6, 6), (5, 8), (8, 5)])

# Kinds whose fit is a formula of the pairs, with every way they restore lengths.
CLOSED = [
    *((ProcrustesType(), {"scale": scale}) for scale in ("none", "ls", "variance", "unit")),
    (ProcrustesType(), {"center": False, "scale": "none"}),
    *((RidgeType(), {"penalty": 0.3, "restore": each}) for each in ("none", "global", "unit", "clip", "polar")),
    (LowRankType(), {"rank": 3, "penalty": 0.1, "restore": "none"}),
    (LowRankType(), {"rank": 2, "penalty": 0.1, "restore": "unit"}),
    (CcaType(), {"restore": "none"}),
    (CcaType(), {"power": 0.5, "restore": "unit"}),
]
NAMES = [f"{kind.name}-{'-'.join(str(value) for value in params.values())}" for kind, params in CLOSED]
closed = pytest.mark.parametrize(("kind", "params"), CLOSED, ids=NAMES)
few = settings(max_examples=8, deadline=None)


def sides(seed, shape, count=70):
    """Return rows of two models that agree but for noise, not centred, and rows to map."""
    rng = np.random.default_rng(seed)
    source = rows_of(count + 9, shape[0], rng) + 0.2
    target = source @ orthonormal(*shape, rng) + 0.15 * rng.standard_normal((count + 9, shape[1])) + 0.4
    return source[:count], target[:count], source[count:]


def mapped(kind, params, source, target, rows, **options):
    """Fit on pairs in spaces of distances, whose rows have any length, and map."""
    data = data_of(source, target, metric="l2", **options)
    return fitted(kind, data, **params).apply(np.ascontiguousarray(rows, np.float32)).astype(np.float64)


# --- the pairs are a set ----------------------------------------------------------------------------------


@closed
@given(SEEDS, SHAPES)
@few
def test_the_order_of_the_pairs_does_not_matter(kind, params, seed, shape):
    source, target, rows = sides(seed, shape)
    order = np.random.default_rng(seed).permutation(len(source))
    one = mapped(kind, params, source, target, rows)
    other = mapped(kind, params, source[order], target[order], rows)
    np.testing.assert_allclose(one, other, atol=2e-4)


@closed
@given(SEEDS, SHAPES)
@few
def test_pairs_that_are_given_twice_count_as_given_once(kind, params, seed, shape):
    source, target, rows = sides(seed, shape)
    one = mapped(kind, params, source, target, rows)
    other = mapped(kind, params, np.tile(source, (2, 1)), np.tile(target, (2, 1)), rows)
    np.testing.assert_allclose(one, other, atol=2e-4)


# --- the basis does not matter ----------------------------------------------------------------------------


@closed
@given(SEEDS, SHAPES)
@few
def test_a_turned_source_is_mapped_to_the_same_place(kind, params, seed, shape):
    source, target, rows = sides(seed, shape)
    turn = orthonormal(shape[0], shape[0], np.random.default_rng(seed + 1))
    one = mapped(kind, params, source, target, rows)
    other = mapped(kind, params, source @ turn, target, rows @ turn)
    np.testing.assert_allclose(one, other, atol=3e-4)


@closed
@given(SEEDS, SHAPES)
@few
def test_a_turned_target_is_met_where_it_was_turned_to(kind, params, seed, shape):
    source, target, rows = sides(seed, shape)
    turn = orthonormal(shape[1], shape[1], np.random.default_rng(seed + 2))
    one = mapped(kind, params, source, target, rows)
    other = mapped(kind, params, source, target @ turn, rows)
    np.testing.assert_allclose(one @ turn, other, atol=3e-4)


# --- origin and unit do not matter ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "params"), [pair for pair in CLOSED if pair[1].get("center", True)])
@given(SEEDS, SHAPES)
@few
def test_moved_spaces_are_mapped_alike(kind, params, seed, shape):
    source, target, rows = sides(seed, shape)
    rng = np.random.default_rng(seed + 3)
    away, there = rng.standard_normal(shape[0]), rng.standard_normal(shape[1])
    one = mapped(kind, params, source, target, rows)
    other = mapped(kind, params, source + away, target + there, rows + away)
    np.testing.assert_allclose(one + there, other, atol=3e-4)


SCALED = [pair for pair in CLOSED if not (pair[0].name == "procrustes" and pair[1]["scale"] == "none")]


@pytest.mark.parametrize(("kind", "params"), SCALED)
@given(SEEDS, SHAPES, st.sampled_from([0.1, 7.0]))
@few
def test_a_stretched_target_is_met_where_it_was_stretched_to(kind, params, seed, shape, factor):
    source, target, rows = sides(seed, shape)
    one = mapped(kind, params, source, target, rows)
    other = mapped(kind, params, source, factor * target, rows)
    np.testing.assert_allclose(factor * one, other, atol=3e-4 * max(factor, 1))


@pytest.mark.parametrize(("kind", "params"), SCALED)
@given(SEEDS, SHAPES, st.sampled_from([0.1, 7.0]))
@few
def test_a_stretched_source_is_mapped_to_the_same_place(kind, params, seed, shape, factor):
    source, target, rows = sides(seed, shape)
    one = mapped(kind, params, source, target, rows)
    other = mapped(kind, params, factor * source, target, factor * rows)
    np.testing.assert_allclose(one, other, atol=3e-4)


@given(SEEDS, SHAPES)
@few
def test_shift_moves_with_its_spaces(seed, shape):
    source, target, rows = sides(seed, (shape[0], shape[0]))
    away = np.random.default_rng(seed).standard_normal(shape[0])
    one = mapped(ShiftType(), {}, source, target, rows)
    np.testing.assert_allclose(mapped(ShiftType(), {}, source + away, target, rows + away), one, atol=1e-5)
    np.testing.assert_allclose(mapped(ShiftType(), {}, source, target + away, rows), one + away, atol=1e-5)


# --- one model --------------------------------------------------------------------------------------------


def alone(kind, source, rows, **params):
    data = data_of(source, source[:0], metric="l2")
    return fitted(kind, data, **params).apply(np.ascontiguousarray(rows, np.float32)).astype(np.float64)


@pytest.mark.parametrize("kind", [WhitenType(), PcaType(), AbttType(), HadamardType()], ids=lambda kind: kind.name)
@given(SEEDS)
@few
def test_within_a_model_distances_after_the_map_do_not_depend_on_the_basis_or_the_origin(kind, seed):
    rng = np.random.default_rng(seed)
    source = (rows_of(90, 6, rng) @ np.diag([2.0, 1.5, 1.1, 0.8, 0.5, 0.3])) + 0.3
    rows, turn, away = source[:8], orthonormal(6, 6, rng), rng.standard_normal(6)

    def distances(found):
        return np.linalg.norm(found[:, None] - found[None], axis=2)

    one = distances(alone(kind, source, rows))
    np.testing.assert_allclose(distances(alone(kind, source @ turn, rows @ turn)), one, atol=1e-3)
    np.testing.assert_allclose(distances(alone(kind, source + away, rows + away)), one, atol=1e-3)


@given(SEEDS)
@few
def test_whitened_rows_have_the_identity_as_their_covariance_whatever_they_were(seed):
    rng = np.random.default_rng(seed)
    stretched = orthonormal(5, 5, rng) @ np.diag(rng.uniform(0.7, 1.5, 5)) @ orthonormal(5, 5, rng)
    source = rng.standard_normal((300, 5)) @ stretched + rng.standard_normal(5)
    found = alone(WhitenType(), source, source)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(5), atol=2e-2)


@given(SEEDS)
@few
def test_classes_go_to_the_same_vertices_whatever_the_basis_of_the_model(seed):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, 80)
    source = rng.standard_normal((4, 6))[classes] + 0.3 * rng.standard_normal((80, 6))
    turn = orthonormal(6, 6, rng)
    found = []
    for rows in (source, source @ turn):
        data = data_of(rows, np.zeros((80, 6)), labels=classes, metric="l2")
        found.append(fitted(SimplexType(), data).apply(rows.astype(np.float32)))
    np.testing.assert_allclose(found[0], found[1], atol=2e-4)


# --- joint spaces -----------------------------------------------------------------------------------------


def joint_scores(kind, new, old, rows, stored, **params):
    """Return the scores of old rows for new ones in the joint space."""
    made = fitted(kind, data_of(new, old, role="query"), **params)
    asked = made.apply(np.ascontiguousarray(rows, np.float32)).astype(np.float64)
    kept = made.companion().apply(np.ascontiguousarray(stored, np.float32)).astype(np.float64)
    form = made.affine()
    bias = 0.0 if form is None or form.row_bias is None else form.row_bias(np.ascontiguousarray(stored, np.float32))
    return asked @ kept.T + bias


def models(seed, count=80, d_new=6, d_old=6):
    rng = np.random.default_rng(seed)
    new = rows_of(count, d_new, rng)
    old = new @ orthonormal(d_new, d_old, rng) + 0.3 * rng.standard_normal((count, d_old)) / np.sqrt(d_old)
    return new, old / np.linalg.norm(old, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (Bt2Type(), {"contraction": "clip"}),
        (Bt2Type(), {"contraction": "polar"}),
        (Bt2Type(), {"contraction": "procrustes"}),
        (RelativeType(), {}),
    ],
)
@given(SEEDS)
@few
def test_scores_in_a_joint_space_do_not_depend_on_either_basis(kind, params, seed):
    new, old = models(seed)
    rng = np.random.default_rng(seed + 1)
    turns = orthonormal(6, 6, rng), orthonormal(6, 6, rng)
    one = joint_scores(kind, new, old, new[:7], old[:9], **params)
    other = joint_scores(kind, new @ turns[0], old @ turns[1], new[:7] @ turns[0], old[:9] @ turns[1], **params)
    np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.parametrize("kind", [Bt2Type(), OcaType()], ids=["bt2", "oca"])
@given(SEEDS, st.sampled_from([(6, 6), (7, 5), (5, 7)]))
@few
def test_new_vectors_among_each_other_never_notice_the_joint_space(kind, seed, widths):
    new, old = models(seed, d_new=widths[0], d_old=widths[1])
    params = {"steps": 2, "columns": 9} if kind.name == "oca" else {}
    made = fitted(kind, data_of(new, old, role="query"), **params)
    found = made.apply(new.astype(np.float32)).astype(np.float64)
    np.testing.assert_allclose(found @ found.T, new @ new.T, atol=3e-6)


# --- ranking distillation ---------------------------------------------------------------------------------


@given(SEEDS, st.floats(0.1, 10.0))
@few
def test_a_teacher_is_divided_by_its_deviation_so_that_lengths_of_vectors_teach_nothing(seed, factor):
    new, old = models(seed)
    plain = data_of(new, old, role="query", metric="dot")
    longer = data_of(factor * new, old, role="query", metric="dot")
    one, other = (lessons_of(data, centres_of(data), "new")[0] for data in (plain, longer))
    np.testing.assert_allclose(other.spread[0], factor**2 * one.spread[0], rtol=1e-3)


@given(SEEDS)
@few
def test_distilled_rankings_do_not_depend_on_where_the_spaces_lie(seed):
    new, old = models(seed)
    away = np.random.default_rng(seed).standard_normal(6)
    found = []
    for moved in (new, new + away):
        data = data_of(moved, old, role="query", metric="dot")
        made = fitted(DistillType(), data, teacher="old", steps=10, batch=100)
        found.append(made.apply(np.ascontiguousarray(moved[:9], np.float32)) @ old.T)
    one, other = (table - table.mean(1, keepdims=True) for table in found)
    np.testing.assert_allclose(one, other, atol=5e-3 * np.abs(one).max())
