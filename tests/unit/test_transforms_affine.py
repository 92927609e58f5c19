"""The affine map as an object: its formula, its inverse, its claims, its state; and the predicted error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fits import data_of, orthonormal, rows_of
from vecdb.contracts import Transform
from vecdb.errors import CorruptionError
from vecdb.testing.fitting import damaged_states, digest, restored
from vecdb.transforms.affine import AffineMap, Formula, load_affine, spectral_norm, turned
from vecdb.transforms.errorhead import fit_head

RNG = np.random.default_rng(5)
DATA = data_of(rows_of(40, 6, RNG), rows_of(40, 6, RNG), role="query")
ROWS = rows_of(12, 6, RNG).astype(np.float32)


def formula_of(seed, *, d=6, e=6, length=0.0):
    rng = np.random.default_rng(seed)
    return Formula(rng.standard_normal((d, e)), rng.standard_normal(e), rng.standard_normal(e), length)


def by_hand(formula, row):
    residual = [sum(row[i] * formula.W[i, j] for i in range(len(row))) + formula.b[j] for j in range(len(formula.b))]
    if formula.length:
        size = sum(part * part for part in residual) ** 0.5
        residual = [part * formula.length / size for part in residual]
    return [part + away for part, away in zip(residual, formula.shift, strict=True)]


@given(st.integers(0, 500), st.sampled_from([0.0, 0.3, 2.0]), st.integers(1, 7))
def test_the_map_is_its_formula_row_by_row(seed, length, e):
    formula = formula_of(seed, e=e, length=length)
    made = AffineMap.of(formula, DATA)
    wanted = [by_hand(formula, row) for row in ROWS.astype(np.float64)]
    np.testing.assert_allclose(formula.apply(ROWS), wanted, atol=1e-9)
    np.testing.assert_allclose(made.apply(ROWS), wanted, atol=2e-5)
    np.testing.assert_allclose(made.affine().apply(ROWS), wanted, atol=2e-5)
    assert (made.source_dim, made.target_dim) == (6, e)
    assert isinstance(made, Transform)


def test_a_row_at_the_centre_stays_finite():
    made = AffineMap.of(Formula(np.eye(3), np.zeros(3), np.ones(3), 0.5), DATA)
    np.testing.assert_array_equal(made.apply(np.zeros((1, 3), np.float32)), np.ones((1, 3)))
    assert np.isfinite(made.row_scale(np.zeros((1, 3), np.float32))).all()


@given(st.integers(0, 500))
def test_the_bound_is_the_largest_stretch(seed):
    formula = formula_of(seed)
    made = AffineMap.of(formula, DATA)
    values = np.sqrt(np.linalg.eigvalsh(formula.W @ formula.W.T))
    np.testing.assert_allclose(made.lipschitz, values[-1])
    assert spectral_norm(formula.W) == made.lipschitz
    assert AffineMap.of(formula_of(seed, length=1.0), DATA).lipschitz is None


@given(st.integers(0, 500), st.sampled_from(["query", "gallery"]))
def test_an_exact_isometry_is_undone_by_its_transpose_on_the_other_side(seed, role):
    W = orthonormal(6, 6, np.random.default_rng(seed))
    data = data_of(DATA.source, DATA.target, role=role)
    made = AffineMap.of(Formula(W, np.zeros(6), np.zeros(6)), data, isometry="exact")
    back = made.inverse()
    np.testing.assert_array_equal(back.W, made.W.T)
    assert back.direction != made.direction and back.isometry == "exact"
    np.testing.assert_allclose(back.apply(made.apply(ROWS)), ROWS, atol=1e-6)
    np.testing.assert_array_equal(back.inverse().W, made.W)


@given(st.integers(0, 500))
def test_an_affine_map_is_undone_only_where_that_means_something(seed):
    rng = np.random.default_rng(seed)
    W = 0.7 * orthonormal(6, 6, rng)
    made = AffineMap.of(Formula(W, rng.standard_normal(6), np.zeros(6)), DATA, reversible=True)
    back = made.inverse()
    np.testing.assert_allclose(back.apply(made.apply(ROWS)), ROWS, atol=1e-5)
    np.testing.assert_allclose(made.apply(back.apply(ROWS)), ROWS, atol=1e-5)
    assert back.direction == made.direction
    np.testing.assert_allclose(back.lipschitz, 1 / 0.7, rtol=1e-5)
    assert AffineMap.of(Formula(W, np.zeros(6), np.zeros(6)), DATA).inverse() is None


def test_what_float32_cannot_undo_has_no_inverse():
    W = np.diag([1.0, 1, 1, 1, 1, 1e-5])
    assert AffineMap.of(Formula(W, np.zeros(6), np.zeros(6)), DATA, reversible=True).inverse() is None
    unit = Formula(np.eye(6), np.zeros(6), np.ones(6), 1.0)
    assert AffineMap.of(unit, DATA, reversible=True).inverse() is None
    wide = Formula(np.eye(6, 8), np.zeros(8), np.zeros(8))
    assert AffineMap.of(wide, DATA, reversible=True).inverse() is None


def test_arrays_cannot_be_written():
    made = AffineMap.of(formula_of(1), DATA)
    for array in (made.W, made.b, made.shift):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(("direction", "other"), [("query", "gallery"), ("gallery", "query"), ("both", "both")])
def test_turned(direction, other):
    assert turned(direction) == other


# --- state ------------------------------------------------------------------------------------------------


def some_maps():
    head = fit_head(DATA.source.astype(float), DATA.target.astype(float), np.ones(40))
    yield AffineMap.of(formula_of(2), DATA, head=head)
    yield AffineMap.of(formula_of(3, length=0.4), DATA, reversible=True, chosen={"penalty": 1.0})
    W = orthonormal(6, 8, RNG)
    yield AffineMap.of(Formula(W, np.zeros(8), np.zeros(8)), DATA, isometry="semi", direction="both")


@pytest.mark.parametrize("made", list(some_maps()))
def test_a_state_gives_the_same_map(made):
    again = load_affine(restored(made.state()))
    assert digest(again) == digest(made)
    np.testing.assert_array_equal(again.apply(ROWS), made.apply(ROWS))
    for name in ("direction", "isometry", "lipschitz", "length", "reversible", "fit"):
        assert getattr(again, name) == getattr(made, name)
    assert (again.head is None) == (made.head is None)


@pytest.mark.parametrize("made", list(some_maps()))
def test_damage_is_refused_whatever_it_hits(made):
    for _, state in damaged_states(made.state()):
        with pytest.raises(CorruptionError):
            load_affine(state)


EXACT = AffineMap.of(Formula(np.eye(6), np.zeros(6), np.zeros(6)), DATA, isometry="exact")
STRETCHED = AffineMap.of(Formula(2 * np.eye(6), np.zeros(6), np.zeros(6)), DATA)
UNIT = AffineMap.of(formula_of(4, length=0.4), DATA)


@pytest.mark.parametrize(
    ("made", "lie"),
    [
        (STRETCHED, {"isometry": "exact"}),
        (STRETCHED, {"isometry": "semi"}),
        (STRETCHED, {"lipschitz": 1.0}),
        (STRETCHED, {"lipschitz": 9.0}),
        (STRETCHED, {"lipschitz": -1.0}),
        (STRETCHED, {"length": -0.5}),
        (STRETCHED, {"length": 0.5}),
        (STRETCHED, {"shift": np.ones(6, np.float32)}),
        (EXACT, {"b": np.ones(6, np.float32)}),
        (EXACT, {"W": np.zeros((6, 6), np.float32), "lipschitz": 0.0}),
        (EXACT, {"W": np.eye(6, 8, dtype=np.float32), "b": np.zeros(8, "f4"), "shift": np.zeros(8, "f4")}),
        (EXACT, {"W": np.eye(6, 5, dtype=np.float32), "b": np.zeros(5, "f4"), "shift": np.zeros(5, "f4")}),
        (UNIT, {"lipschitz": 1.0}),
        (UNIT, {"isometry": "exact"}),
        (UNIT, {"direction": "sideways"}),
        (UNIT, {"isometry": "roughly"}),
        (UNIT, {"W": np.zeros((0, 6), np.float32)}),
    ],
)
def test_claims_that_the_arrays_do_not_bear_are_refused(made, lie):
    with pytest.raises(CorruptionError):
        load_affine({**made.state(), **lie})


# --- the predicted error ----------------------------------------------------------------------------------


def planted_errors(seed, count=600, width=8):
    """Return rows whose error grows with their distance from the centre, and those errors."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, width)) * rng.uniform(0.2, 2.0, (count, 1))
    return rows, 0.01 * np.exp((rows**2).sum(1) / width) * rng.uniform(0.5, 2.0, count)


@pytest.mark.parametrize("seed", range(3))
def test_a_head_ranks_rows_that_it_has_not_seen_by_their_error(seed):
    rows, errors = planted_errors(seed)
    head = fit_head(rows[:400], rows[:400], errors[:400])
    found = head.errors(rows[400:].astype(np.float32), rows[400:].astype(np.float32))
    order, truth = (np.argsort(np.argsort(each)) for each in (found, errors[400:]))
    assert np.corrcoef(order, truth)[0, 1] > 0.6
    assert 0.3 < found.mean() / errors[400:].mean() < 3.0


def test_a_head_is_finite_and_positive_whatever_it_is_asked():
    rows, errors = planted_errors(7)
    head = fit_head(rows, rows, errors)
    strange = np.concatenate([np.zeros((1, 8)), 1e6 * np.ones((1, 8)), 1e-9 * np.ones((1, 8))]).astype(np.float32)
    found = head.errors(strange, strange)
    assert found.dtype == np.float32 and np.isfinite(found).all() and (found > 0).all()
    assert head.errors(strange[:0], strange[:0]).shape == (0,)


def test_a_head_of_pairs_without_error_predicts_next_to_none():
    rows, _ = planted_errors(7)
    head = fit_head(rows, rows, np.zeros(len(rows)))
    assert (head.errors(rows.astype(np.float32), rows.astype(np.float32)) < 1e-6).all()


@pytest.mark.parametrize("count", [3, 4, 7])
def test_a_head_can_be_fitted_on_few_rows(count):
    rows, errors = planted_errors(1, count=count)
    found = fit_head(rows, rows, errors).errors(rows.astype(np.float32), rows.astype(np.float32))
    assert np.isfinite(found).all()


def test_the_spread_of_a_stored_head_is_positive():
    made = next(some_maps())
    state = made.state()
    state["head"] = {**state["head"], "spread": np.zeros((3, 2), np.float32)}
    with pytest.raises(CorruptionError):
        load_affine(state)
