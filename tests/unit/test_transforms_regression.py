"""Reduced-rank regression and CCA against plain numpy, and against what they must not be mistaken for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, planted_data, rows_of
from vecdb.errors import CorruptionError
from vecdb.transforms.cca import CcaType, cca_weights
from vecdb.transforms.lowrank import SHARE, LowRankType, reduced_rank
from vecdb.transforms.pairs import centred
from vecdb.transforms.ridgepath import ridge_path

LOWRANK, CCA = LowRankType(), CcaType()
SEEDS = st.integers(0, 10_000)


def some_pairs(seed, d=7, e=6, count=50, slope=1.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((count, d)) * np.geomspace(1, 1 / slope, d)
    return centred(X, X @ rng.standard_normal((d, e)) + 0.3 * rng.standard_normal((count, e)))


# --- lowrank ----------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 6))
def test_no_map_of_that_rank_fits_better(seed, rank):
    """Without a penalty reduced-rank regression is the least-squares map among those of its rank (Izenman, 1975)."""
    pairs = some_pairs(seed)
    path = ridge_path(pairs)
    W = reduced_rank(path, 0.0, rank=rank)
    assert np.linalg.matrix_rank(W, tol=1e-8) == rank
    error = np.sum((pairs.A @ W - pairs.B) ** 2)
    values = np.linalg.svd(pairs.A @ path.weights(0.0), compute_uv=False)
    best = np.sum((pairs.A @ path.weights(0.0) - pairs.B) ** 2) + np.sum(values[rank:] ** 2)
    np.testing.assert_allclose(error, best, rtol=1e-8)
    rng = np.random.default_rng(seed + 1)
    for _ in range(10):
        other = rng.standard_normal((7, rank)) @ rng.standard_normal((rank, 6))
        assert np.sum((pairs.A @ other - pairs.B) ** 2) >= error


def test_cutting_the_decomposition_of_the_map_is_worse():
    """The error of two other tools: on a source of unequal directions the cut map loses what matters."""
    pairs = some_pairs(3, d=16, e=16, count=400, slope=30.0)
    W = ridge_path(pairs).weights(0.0)
    U, values, Vt = np.linalg.svd(W)
    cut = (U[:, :4] * values[:4]) @ Vt[:4]
    errors = [np.sum((pairs.A @ each - pairs.B) ** 2) for each in (cut, reduced_rank(ridge_path(pairs), 0.0, rank=4))]
    assert errors[1] < 0.9 * errors[0]


@given(SEEDS)
def test_the_default_rank_carries_its_share(seed):
    path = ridge_path(some_pairs(seed, d=9, e=9, slope=20.0))
    fitted_values = path.pairs.A @ path.weights(0.1)
    values = np.linalg.svd(fitted_values, compute_uv=False) ** 2
    rank = np.linalg.matrix_rank(reduced_rank(path, 0.1, rank=0), tol=1e-8)
    shares = np.cumsum(values) / values.sum()
    assert shares[rank - 1] >= SHARE - 1e-9 and (rank == 1 or shares[rank - 2] < SHARE)


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 9), st.sampled_from(["auto", "none", "global", "unit", "clip", "polar"]))
def test_the_factors_are_the_map(seed, rank, restore):
    rng = np.random.default_rng(seed)
    data = planted_data(orthonormal(8, 10, rng), 60, rng, noise=0.3, kept=30)
    made = fitted(LOWRANK, data, rank=rank, restore=restore)
    assert made.left.shape == (8, min(rank, 8)) and made.inner.W.shape == (min(rank, 8), 10)
    rows = data.validation.source
    np.testing.assert_allclose(made.affine().apply(rows), made.apply(rows), atol=1e-5)
    assert made.fit["rank"] == min(rank, 8) and made.inverse() is None and made.isometry == "none"
    if made.lipschitz is not None:
        np.testing.assert_allclose(made.lipschitz, np.linalg.svd(made.left @ made.inner.W, compute_uv=False)[0], 1e-4)


def test_a_planted_map_of_low_rank_is_found_by_that_rank():
    rng = np.random.default_rng(1)
    M = rng.standard_normal((8, 2)) @ rng.standard_normal((2, 9))
    X = rng.standard_normal((300, 8))
    made = fitted(LOWRANK, data_of(X, X @ M), rank=2, restore="none", penalty=1e-6)
    np.testing.assert_allclose(made.apply(X.astype(np.float32)), X @ M, atol=1e-2)


@pytest.mark.parametrize(
    "lie",
    [
        {"lipschitz": -1.0},
        {"lipschitz": -0.5},
        {"lipschitz": 1e9},
        {"left": np.ones((8, 5), np.float32)},
        {"inner": None},
        {"inner": {}},
    ],
)
def test_a_damaged_state_is_refused(lie):
    rng = np.random.default_rng(1)
    made = fitted(LOWRANK, planted_data(orthonormal(8, 8, rng), 60, rng), rank=3, restore="none")
    with pytest.raises(CorruptionError):
        LOWRANK.load({**made.state(), **lie})


def test_a_bound_where_rows_are_scaled_is_refused():
    rng = np.random.default_rng(1)
    made = fitted(LOWRANK, planted_data(orthonormal(8, 8, rng), 60, rng), rank=3, restore="unit")
    assert made.lipschitz is None
    with pytest.raises(CorruptionError):
        LOWRANK.load({**made.state(), "lipschitz": 1.0})


# --- cca --------------------------------------------------------------------------------------------------


def root(C, power):
    values, axes = np.linalg.eigh(C)
    return (axes * values**power) @ axes.T


@given(SEEDS, st.sampled_from([(5, 5), (5, 7), (7, 5)]), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_the_map_is_its_formula(seed, widths, power):
    pairs = some_pairs(seed, *widths)
    n, shrink = pairs.pairs, 1e-3
    Cx, Cy = pairs.A.T @ pairs.A / n, pairs.B.T @ pairs.B / n
    Cx += shrink * np.linalg.eigvalsh(Cx)[-1] * np.eye(len(Cx))
    Cy += shrink * np.linalg.eigvalsh(Cy)[-1] * np.eye(len(Cy))
    Wx, Wy = root(Cx, -0.5), root(Cy, -0.5)
    U, S, Vt = np.linalg.svd(Wx @ (pairs.A.T @ pairs.B / n) @ Wy, full_matrices=False)
    wanted = Wx @ U @ np.diag(S**power) @ Vt @ np.linalg.inv(Wy)
    np.testing.assert_allclose(cca_weights(pairs, power, shrink), wanted, atol=1e-8)


@given(SEEDS)
def test_with_power_one_it_is_ridge_regression_where_all_directions_are_kept(seed):
    """``Cxx^-1 Cxy``: whitening and undoing it cancels; the width of the target must not cut anything."""
    pairs = some_pairs(seed, 5, 5)
    plain = np.linalg.lstsq(pairs.A, pairs.B, rcond=None)[0]
    np.testing.assert_allclose(cca_weights(pairs, 1.0, 1e-9), plain, atol=1e-5)


@given(SEEDS)
def test_with_power_zero_a_rotation_between_differently_stretched_spaces_is_found(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((400, 6)) * np.geomspace(1, 0.2, 6)
    R = orthonormal(6, 6, rng)
    pairs = centred(X, X @ R)
    np.testing.assert_allclose(pairs.A @ cca_weights(pairs, 0.0, 1e-9), pairs.B, atol=1e-4)


def test_rows_in_fewer_directions_than_columns_stay_finite():
    rng = np.random.default_rng(1)
    X = np.zeros((40, 6))
    X[:, :2] = rng.standard_normal((40, 2))
    made = fitted(CCA, data_of(X, rows_of(40, 6, rng)))
    assert np.isfinite(made.apply(X.astype(np.float32))).all()


@pytest.mark.parametrize("restore", ["unit", "clip", "none", "global"])
@pytest.mark.parametrize("role", ["query", "gallery"])
def test_its_lengths_are_restored_like_those_of_the_others(restore, role):
    rng = np.random.default_rng(1)
    data = planted_data(orthonormal(6, 8, rng), 80, rng, noise=0.4, role=role)
    made = fitted(CCA, data, restore=restore, mean="keep")
    residuals = made.apply(data.source) - data.target.mean(0)
    norms, wanted = np.linalg.norm(residuals, axis=1), np.linalg.norm(data.target - data.target.mean(0), axis=1)
    if restore in ("unit", "clip"):
        np.testing.assert_allclose(norms, wanted.mean(), rtol=1e-4)
    elif restore == "global":
        np.testing.assert_allclose((norms**2).mean(), (wanted**2).mean(), rtol=1e-4)
    else:
        assert (norms**2).mean() < (wanted**2).mean()
