"""Joint spaces: the dilation, what it keeps and what dropping columns costs, and `bt2` as a kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, planted_data, rows_of
from vecdb.errors import CorruptionError
from vecdb.testing.fitting import damaged_states
from vecdb.testing.planted import unit
from vecdb.transforms.bt2 import Bt2Type, towards_old
from vecdb.transforms.contraction import contraction_of
from vecdb.transforms.dilation import dilate, joint_map, load_joint
from vecdb.transforms.procrustes import ProcrustesType
from vecdb.transforms.ridge import RidgeType

BT2 = Bt2Type()
SEEDS = st.integers(0, 10_000)
WIDTHS = st.sampled_from([(6, 6), (5, 9), (9, 5), (1, 4), (4, 1)])
KINDS = ["clip", "polar", "ridge", "procrustes"]


def contraction(seed, d_new, d_old, *, ones=0):
    """Return a matrix with singular values in [0, 1], the first `ones` of them 1."""
    rng = np.random.default_rng(seed)
    r = min(d_new, d_old)
    values = np.sort(rng.uniform(0, 0.95, r))[::-1]
    values[:ones] = 1.0
    return orthonormal(d_new, r, rng) @ np.diag(values) @ orthonormal(r, d_old, rng)


# --- the dilation -----------------------------------------------------------------------------------------


@given(SEEDS, WIDTHS, st.integers(0, 4))
def test_a_dilation_keeps_all_inner_products_and_begins_with_the_contraction(seed, widths, ones):
    M = contraction(seed, *widths, ones=ones)
    E, dropped = dilate(M)
    np.testing.assert_allclose(E @ E.T, np.eye(widths[0]), atol=1e-9)
    np.testing.assert_allclose(E[:, : widths[1]], M, atol=1e-12)
    below = (np.linalg.svd(M, compute_uv=False) < 1 - 1e-6).sum()
    assert E.shape[1] - widths[1] == below + max(widths[0] - widths[1], 0)
    assert dropped == 0.0


@given(SEEDS, WIDTHS, st.integers(0, 9))
def test_dropping_columns_costs_no_inner_product_more_than_it_says(seed, widths, columns):
    M = contraction(seed, *widths)
    E, dropped = dilate(M, columns)
    assert E.shape[1] <= widths[1] + columns
    rows = rows_of(30, widths[0], np.random.default_rng(seed))
    lost = rows @ rows.T - (rows @ E) @ (rows @ E).T
    assert np.abs(lost).max() <= dropped + 1e-9
    assert (lost.diagonal() >= -1e-9).all()


def test_the_columns_that_matter_least_are_dropped():
    M = np.diag([1.0, 0.9, 0.5, 0.1])
    for columns, dropped in ((3, 0.0), (2, 1 - 0.81), (1, 1 - 0.25), (0, 1 - 0.01)):
        found = dilate(M, columns)
        assert found.E.shape == (4, 4 + columns)
        np.testing.assert_allclose(found.dropped, dropped)


def test_a_rotation_needs_no_column_and_a_wider_model_the_difference():
    rng = np.random.default_rng(1)
    assert dilate(orthonormal(6, 6, rng)).E.shape == (6, 6)
    assert dilate(orthonormal(9, 6, rng)).E.shape == (9, 9)
    assert dilate(orthonormal(6, 9, rng)).E.shape == (6, 9)
    assert dilate(np.zeros((4, 3))).E.shape == (4, 7)


def test_singular_values_that_rounding_put_above_one_are_cut():
    E, _ = dilate((1 + 1e-12) * np.eye(3))
    np.testing.assert_allclose(E @ E.T, np.eye(3), atol=1e-11)


# --- the map ----------------------------------------------------------------------------------------------


def joint(seed=1, role="query", columns=None, d_new=6, d_old=5):
    rng = np.random.default_rng(seed)
    widths = (d_new, d_old) if role == "query" else (d_old, d_new)
    data = data_of(rows_of(20, widths[0], rng), rows_of(20, widths[1], rng), role=role)
    found = dilate(contraction(seed, d_new, d_old), columns)
    return joint_map(found, rng.standard_normal(d_old), data), found


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_each_side_goes_its_way_into_the_joint_space(role):
    made, found = joint(role=role)
    new, old = (made, made.companion()) if role == "query" else (made.companion(), made)
    rng = np.random.default_rng(2)
    y, x = rows_of(7, 6, rng).astype(np.float32), rows_of(7, 5, rng).astype(np.float32)
    np.testing.assert_allclose(new.apply(y), y @ found.E, atol=1e-6)
    padded = old.apply(x)
    np.testing.assert_array_equal(padded[:, :5], x)
    assert not padded[:, 5:].any() and padded.shape == new.apply(y).shape
    np.testing.assert_allclose(new.apply(y) @ padded.T, (y @ found.E[:, :5]) @ x.T, atol=1e-6)
    assert (new.direction, old.direction) == ("both", "gallery")
    assert new.isometry == old.isometry == "semi"


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_scores_of_old_rows_have_their_bias_on_the_side_that_was_asked_for(role):
    made, _ = joint(role=role)
    x = rows_of(7, 5, np.random.default_rng(2)).astype(np.float32)
    np.testing.assert_allclose(made.affine().row_bias(x), x @ made.pull, atol=1e-6)
    assert made.companion().affine().row_bias is None
    again = made.companion().companion()
    assert again.main and again.side == made.side


def test_without_all_columns_it_is_no_isometry_but_old_vectors_still_are_kept():
    made, _ = joint(columns=2)
    assert made.isometry == "none" and made.companion().isometry == "semi" and made.lipschitz == 1.0


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_a_rotation_without_extra_columns_is_undone(role):
    rng = np.random.default_rng(1)
    data = data_of(rows_of(20, 4, rng), rows_of(20, 4, rng), role=role)
    made = joint_map(dilate(orthonormal(4, 4, rng)), np.zeros(4), data)
    rows = data.source
    assert made.isometry == "exact"
    np.testing.assert_allclose(made.inverse().apply(made.apply(rows)), rows, atol=1e-6)
    assert joint()[0].inverse() is None


@pytest.mark.parametrize("made", [joint()[0], joint(role="gallery")[0], joint(columns=2)[0]])
def test_states_come_back_and_damaged_ones_do_not(made):
    again = load_joint(made.state())
    for name in ("side", "main", "whole", "isometry", "direction", "fit"):
        assert getattr(again, name) == getattr(made, name)
    for _, state in damaged_states(made.state()):
        with pytest.raises(CorruptionError):
            load_joint(state)


@pytest.mark.parametrize(
    ("columns", "lie"),
    [
        (None, {"E": np.eye(6, 11, dtype=np.float32) * np.float32(0.9)}),
        (2, {"whole": True}),
        (2, {"E": np.full((6, 7), 0.37, np.float32)}),
        (None, {"side": "left"}),
        (None, {"pull": np.zeros(40, np.float32)}),
    ],
)
def test_claims_that_the_matrix_does_not_bear_are_refused(columns, lie):
    with pytest.raises(CorruptionError):
        load_joint({**joint(columns=columns)[0].state(), **lie})


# --- bt2 --------------------------------------------------------------------------------------------------


def upgrade(seed, role, *, d_old=8, d_new=8, noise=0.5, count=150):
    """Return pairs of an old model and a new one, with room for things that the old one cannot say."""
    rng = np.random.default_rng(seed)
    new = rows_of(count + 60, d_new, rng)
    old = unit(new @ orthonormal(d_new, d_old, rng) + noise * rng.standard_normal((count + 60, d_old)) / 3 + 0.2)
    sides = (new, old) if role == "query" else (old, new)
    kept = tuple(side[count:] for side in sides)
    return data_of(sides[0][:count], sides[1][:count], role=role, kept=kept)


@settings(max_examples=12)
@given(SEEDS, st.sampled_from(["query", "gallery"]), st.sampled_from(KINDS), st.sampled_from([(8, 8), (6, 9), (9, 6)]))
def test_new_with_new_ranks_exactly_as_the_new_model_does(seed, role, kind, widths):
    data = upgrade(seed, role, d_old=widths[0], d_new=widths[1])
    made = fitted(BT2, data, contraction=kind)
    new = made if role == "query" else made.companion()
    native = towards_old(data).source
    joint_rows = new.apply(native).astype(np.float64)
    np.testing.assert_allclose(joint_rows @ joint_rows.T, native.astype(np.float64) @ native.T, atol=2e-6)
    assert new.isometry in ("semi", "exact")


@settings(max_examples=12)
@given(SEEDS, st.sampled_from(["query", "gallery"]), st.sampled_from(KINDS))
def test_old_rows_are_ranked_as_by_the_map_that_the_contraction_came_from(seed, role, kind):
    data = upgrade(seed, role)
    made = fitted(BT2, data, contraction=kind)
    new, old = (made, made.companion()) if role == "query" else (made.companion(), made)
    ways = towards_old(data)
    if kind == "procrustes":
        other = fitted(ProcrustesType(), ways, scale="none", mean="drop")
    else:
        other = fitted(RidgeType(), ways, restore="none" if kind == "ridge" else kind, mean="drop")
    scores = new.apply(ways.source) @ old.apply(ways.target).T + made.affine().row_bias(ways.target)
    wanted = other.apply(ways.source) @ ways.target.T
    # The same up to one factor for all.
    factor = np.sum(scores * wanted) / np.sum(wanted * wanted)
    np.testing.assert_allclose(scores, factor * wanted, atol=1e-4 * np.abs(scores).max())


def test_the_role_does_not_matter_to_the_fit():
    one, other = (fitted(BT2, upgrade(3, role)) for role in ("query", "gallery"))
    np.testing.assert_allclose(one.E, other.E, atol=1e-6)
    np.testing.assert_allclose(one.pull, other.pull, atol=1e-6)
    assert (one.side, other.side) == ("new", "old")


@pytest.mark.parametrize(("columns", "whole"), [(-1, True), (0, False), (2, False), (60, True)])
def test_extra_columns_are_bounded(columns, whole):
    made = fitted(BT2, upgrade(3, "query"), columns=columns)
    extra = made.target_dim - 8
    assert made.whole == whole and extra == made.fit["extra"]
    assert columns < 0 or extra <= columns
    assert (made.fit["dropped"] > 0) == (not whole)


def test_the_rotation_that_fits_best_needs_no_column_between_equal_widths():
    assert fitted(BT2, upgrade(3, "query"), contraction="procrustes").target_dim == 8
    assert fitted(BT2, upgrade(3, "query"), contraction="polar").target_dim == 8


@given(SEEDS)
def test_a_contraction_has_norm_one(seed):
    data = planted_data(orthonormal(5, 7, np.random.default_rng(seed)), 60, np.random.default_rng(seed), noise=0.4)
    for kind in KINDS:
        found = contraction_of(towards_old(data), kind, owner="bt2")
        assert found.M.shape == (7, 5)
        np.testing.assert_allclose(np.linalg.svd(found.M, compute_uv=False)[0], 1, atol=1e-9)


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_turning_data_towards_the_old_space_keeps_pairs_together(role):
    data = upgrade(1, role, d_old=5, d_new=7)
    ways = towards_old(data)
    assert ways.role == "query" and ways.source.shape[1] == 7 and ways.target.shape[1] == 5
    assert ways.source_space.dim == 7 and ways.validation.source.shape[1] == 7
    twice = data if role == "query" else None
    assert twice is None or ways is twice
