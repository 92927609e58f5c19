"""The kinds with a closed form against plain numpy: columns, shift, Procrustes, ridge and what restores them."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, planted_data, rows_of
from vecdb.errors import CorruptionError, FitError
from vecdb.transforms.columns import Columns, identity_type, pad_type, truncate_type
from vecdb.transforms.pairs import centred
from vecdb.transforms.procrustes import ProcrustesType, polar_factor
from vecdb.transforms.restore import RESTORES, Finish, finished, finishes, flattened
from vecdb.transforms.ridge import RidgeType
from vecdb.transforms.ridgepath import GRID, ridge_path, seeded_grid
from vecdb.transforms.shift import ShiftType

PROCRUSTES, RIDGE, SHIFT = ProcrustesType(), RidgeType(), ShiftType()
SEEDS = st.integers(0, 10_000)
WIDTHS = st.sampled_from([(6, 6), (5, 9), (9, 5), (1, 3), (3, 1), (8, 8)])


# --- identity, pad, truncate ------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 9), SEEDS)
def test_columns_are_copied_and_the_others_are_zero(d, e, seed):
    rows = np.random.default_rng(seed).standard_normal((4, d)).astype(np.float32)
    mapped = Columns(d, e).apply(rows)
    for i in range(4):
        for j in range(e):
            assert mapped[i, j] == (rows[i, j] if j < d else 0)


@pytest.mark.parametrize(
    ("kind", "d", "e", "isometry"),
    [
        (identity_type(), 4, 4, "exact"),
        (pad_type(), 4, 4, "exact"),
        (pad_type(), 4, 6, "semi"),
        (truncate_type(), 6, 6, "exact"),
        (truncate_type(), 6, 4, "none"),
    ],
)
def test_what_a_copy_of_columns_claims(kind, d, e, isometry):
    made = kind.fit(data_of(np.ones((1, d)), np.ones((1, e))), {})
    assert made.isometry == isometry and made.lipschitz == 1.0 and made.direction == "both"
    assert (made.inverse() is None) == (d != e)


@pytest.mark.parametrize(("kind", "d", "e"), [(identity_type(), 4, 5), (pad_type(), 5, 4), (truncate_type(), 4, 5)])
def test_other_widths_are_refused_at_the_fit_and_when_loaded(kind, d, e):
    with pytest.raises(FitError, match=f"{kind.name} from {d} to {e} columns"):
        kind.fit(data_of(np.ones((1, d)), np.ones((1, e))), {})
    with pytest.raises(CorruptionError):
        kind.load({"source_dim": d, "target_dim": e})


@pytest.mark.parametrize("damage", [{"source_dim": 0}, {"target_dim": 1 << 40}, {"source_dim": True}, {}])
def test_damaged_columns_are_refused(damage):
    with pytest.raises(CorruptionError):
        pad_type().load({"target_dim": 4, **damage})


def test_columns_need_no_pair():
    assert identity_type().fit(data_of(np.ones((0, 3)), np.ones((0, 3))), {}).source_dim == 3


# --- shift ------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 20))
def test_shift_is_the_difference_of_the_means(seed, count):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((count, 4)), rng.standard_normal((count, 4))
    made = fitted(SHIFT, data_of(X, Y))
    delta = [sum(Y[i, j] - X[i, j] for i in range(count)) / count for j in range(4)]
    rows = rng.standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_allclose(made.apply(rows), rows + np.array(delta), atol=1e-5)
    np.testing.assert_allclose(made.inverse().apply(made.apply(rows)), rows, atol=1e-5)
    assert made.isometry == "none" and made.direction == "gallery"


# --- procrustes -------------------------------------------------------------------------------------------


@given(SEEDS, WIDTHS)
def test_no_other_orthonormal_map_fits_better(seed, widths):
    rng = np.random.default_rng(seed)
    pairs = centred(rng.standard_normal((30, widths[0])), rng.standard_normal((30, widths[1])))
    W = polar_factor(pairs)
    small = W @ W.T if widths[0] <= widths[1] else W.T @ W
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-9)
    gain = np.sum((pairs.A @ W) * pairs.B)
    np.testing.assert_allclose(gain, np.linalg.svd(pairs.A.T @ pairs.B, compute_uv=False).sum(), rtol=1e-6)
    for _ in range(10):
        assert np.sum((pairs.A @ orthonormal(*widths, rng)) * pairs.B) <= gain + 1e-9


@given(SEEDS, st.sampled_from([(6, 6), (5, 9)]), st.sampled_from(["query", "gallery"]), st.integers(0, 6))
def test_a_pure_rotation_is_found_from_as_many_pairs_as_columns(seed, widths, role, more):
    """Uncentred from d pairs, centred (they lose one) from d + 1, whatever the role."""
    rng = np.random.default_rng(seed)
    W = orthonormal(*widths, rng)
    rows = rows_of(20, widths[0], rng).astype(np.float32)
    spread = rng.standard_normal((widths[0] + 1 + more, widths[0]))
    assume(max(np.linalg.cond(spread[1:]), np.linalg.cond(spread - spread.mean(0))) < 100)  # pairs are float32
    bare = fitted(PROCRUSTES, data_of(spread[1:], spread[1:] @ W, role=role), center=False, scale="none")
    np.testing.assert_allclose(bare.apply(rows), rows @ W, atol=2e-4)
    assert bare.isometry == ("exact" if widths[0] == widths[1] else "semi")
    between = fitted(PROCRUSTES, data_of(spread, spread @ W, role=role), scale="none", mean="keep")
    np.testing.assert_allclose(between.apply(rows), rows @ W, atol=2e-4)
    assert between.isometry == "none"


@given(SEEDS, st.integers(3, 5))
def test_what_no_pair_determines_is_mapped_as_a_copy_of_the_columns(seed, count):
    """Fewer pairs than columns: what is orthogonal to all of them keeps its place as far as it can."""
    rng = np.random.default_rng(seed)
    X = np.zeros((count, 8))
    X[:, :3] = rng.standard_normal((count, 3))
    made = fitted(PROCRUSTES, data_of(X, X), center=False, scale="none")
    rows = rows_of(5, 8, rng).astype(np.float32)
    np.testing.assert_allclose(made.apply(rows), rows, atol=1e-4)
    assert made.isometry == "exact"


@given(SEEDS)
def test_a_reflection_is_used_only_where_it_may_be(seed):
    rng = np.random.default_rng(seed)
    data = planted_data(orthonormal(5, 5, rng, proper=False), 40, rng)
    loose = fitted(PROCRUSTES, data, center=False, scale="none")
    strict = fitted(PROCRUSTES, data, center=False, scale="none", reflect=False)
    assert np.linalg.det(loose.W) < 0 < np.linalg.det(strict.W)
    assert strict.isometry == "exact"
    proper = planted_data(orthonormal(5, 5, rng, proper=True), 40, rng)
    both = [fitted(PROCRUSTES, proper, center=False, scale="none", reflect=may) for may in (True, False)]
    np.testing.assert_allclose(both[0].W, both[1].W, atol=1e-6)


@given(SEEDS)
def test_no_proper_rotation_fits_better_than_the_strict_one(seed):
    rng = np.random.default_rng(seed)
    pairs = centred(rng.standard_normal((20, 3)), rng.standard_normal((20, 3)))
    gain = np.sum((pairs.A @ polar_factor(pairs, proper=True)) * pairs.B)
    for _ in range(20):
        assert np.sum((pairs.A @ orthonormal(3, 3, rng, proper=True)) * pairs.B) <= gain + 1e-9


SCALES = {
    "none": lambda A, B, W: 1.0,
    "ls": lambda A, B, W: np.trace((A @ W).T @ B) / np.sum((A @ W) ** 2),
    "variance": lambda A, B, W: np.sqrt(np.sum(B**2) / np.sum((A @ W) ** 2)),
}


@given(SEEDS, WIDTHS, st.sampled_from([*SCALES, "unit"]))
def test_each_scale_is_its_formula(seed, widths, scale):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((30, widths[0])), 3 * rng.standard_normal((30, widths[1])) + 1
    made = fitted(PROCRUSTES, data_of(X, Y), scale=scale)
    A, B = X - X.mean(0), Y - Y.mean(0)
    W = polar_factor(centred(X, Y))
    mapped = A @ W
    if scale == "unit":
        mapped *= np.linalg.norm(B, axis=1).mean() / np.linalg.norm(mapped, axis=1, keepdims=True)
    else:
        mapped *= SCALES[scale](A, B, W)
    np.testing.assert_allclose(made.apply(X.astype(np.float32)), mapped + Y.mean(0), atol=2e-3)
    assert made.isometry == "none"


def test_a_scaled_or_centred_map_is_never_called_an_isometry():
    """Centring, a factor, a row factor: each is enough, even if the pairs are a pure rotation."""
    data = planted_data(orthonormal(4, 4, np.random.default_rng(1)), 30, np.random.default_rng(2))
    for params in ({}, {"scale": "none"}, {"center": False, "scale": "unit"}, {"center": False, "scale": "ls"}):
        assert fitted(PROCRUSTES, data, **params).isometry == "none"
    assert fitted(PROCRUSTES, data, center=False).isometry == "exact"


def test_procrustes_is_undone_unless_rows_were_scaled():
    data = planted_data(orthonormal(4, 4, np.random.default_rng(1)), 30, np.random.default_rng(2))
    rows = data.source[:5]
    for params in ({"scale": "none"}, {"scale": "ls"}, {"center": False}):
        made = fitted(PROCRUSTES, data, **params)
        np.testing.assert_allclose(made.inverse().apply(made.apply(rows)), rows, atol=1e-5)
    assert fitted(PROCRUSTES, data, scale="unit").inverse() is None


# --- ridge ------------------------------------------------------------------------------------------------


@given(SEEDS, WIDTHS, st.floats(1e-3, 10.0))
def test_ridge_is_the_solution_of_its_normal_equations(seed, widths, penalty):
    rng = np.random.default_rng(seed)
    pairs = centred(rng.standard_normal((40, widths[0])), rng.standard_normal((40, widths[1])))
    gram = pairs.A.T @ pairs.A
    scale = np.trace(gram) / len(gram)
    wanted = np.linalg.solve(gram + penalty * scale * np.eye(len(gram)), pairs.A.T @ pairs.B)
    np.testing.assert_allclose(ridge_path(pairs).weights(penalty), wanted, atol=1e-8)


@given(SEEDS, st.floats(1e-3, 10.0))
def test_left_out_residuals_are_those_of_a_fit_without_the_pair(seed, penalty):
    """The penalty is fixed in absolute terms; centres are fitted without the pair, too."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((15, 4)), rng.standard_normal((15, 3))
    path = ridge_path(centred(X, Y))
    absolute = penalty * np.mean(path.values**2)
    found = path.left_out(penalty)
    for out in range(15):
        A, B = np.delete(X, out, 0), np.delete(Y, out, 0)
        mx, my = A.mean(0), B.mean(0)
        W = np.linalg.solve((A - mx).T @ (A - mx) + absolute * np.eye(4), (A - mx).T @ (B - my))
        np.testing.assert_allclose(found[out], Y[out] - (my + (X[out] - mx) @ W), atol=1e-8)
    np.testing.assert_allclose(path.press(penalty), np.sum(found**2) / 15)


def test_the_grid_has_fifteen_values_around_the_one_of_least_left_out_error():
    rng = np.random.default_rng(4)
    path = ridge_path(centred(rng.standard_normal((60, 8)), rng.standard_normal((60, 8))))
    grid = seeded_grid(path)
    assert len(grid) == 15 and (np.diff(grid) > 0).all()
    assert path.press(grid[7]) == min(path.press(each) for each in GRID)


@settings(max_examples=20)
@given(SEEDS, st.sampled_from([(7, 7), (5, 9), (9, 5)]), st.sampled_from(["query", "gallery"]))
def test_an_affine_map_is_found_from_enough_pairs(seed, widths, role):
    rng = np.random.default_rng(seed)
    M, away = rng.standard_normal(widths), rng.standard_normal(widths[1])
    X = rng.standard_normal((200, widths[0]))
    made = fitted(RIDGE, data_of(X, X @ M + away, role=role), restore="none", mean="keep")
    rows = rng.standard_normal((10, widths[0])).astype(np.float32)
    size = np.abs(rows @ M + away).max()
    np.testing.assert_allclose(made.apply(rows) / size, (rows @ M + away) / size, atol=0.02)


def test_a_given_penalty_is_used():
    rng = np.random.default_rng(4)
    data = planted_data(orthonormal(6, 6, rng), 60, rng, noise=0.5)
    assert fitted(RIDGE, data, penalty=0.25).fit["penalty"] == 0.25
    strong = fitted(RIDGE, data, penalty=1e5, restore="none", mean="keep")
    np.testing.assert_allclose(strong.apply(data.source), np.tile(data.target.mean(0), (60, 1)), atol=1e-2)


def test_the_error_of_a_ridge_is_predicted_at_its_size():
    rng = np.random.default_rng(4)
    data = planted_data(orthonormal(8, 8, rng), 400, rng, noise=0.6, kept=200)
    made = fitted(RIDGE, data, restore="none")
    kept = data.validation
    errors = ((made.apply(kept.source) - kept.target) ** 2).sum(1)
    assert 0.8 < made.uncertainty(kept.source).mean() / errors.mean() < 1.25


def test_a_map_without_the_mean_predicts_no_error():
    rng = np.random.default_rng(4)
    data = planted_data(orthonormal(8, 8, rng), 60, rng, role="query")
    assert fitted(RIDGE, data, mean="drop").uncertainty(data.source) is None
    assert fitted(RIDGE, data, mean="keep").uncertainty(data.source) is not None


# --- restoring --------------------------------------------------------------------------------------------


@given(SEEDS, WIDTHS)
def test_clipping_divides_by_the_median_and_cuts_at_one(seed, widths):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal(widths)
    before = np.linalg.svd(W, compute_uv=False)
    after = np.linalg.svd(flattened(W), compute_uv=False)
    np.testing.assert_allclose(after, np.sort(np.minimum(before / np.median(before), 1))[::-1], atol=1e-9)
    full = flattened(W, full=True)
    np.testing.assert_allclose(np.linalg.svd(full, compute_uv=False), 1, atol=1e-9)


def test_directions_that_a_map_does_not_have_stay_away():
    """The median is over those it has: a map of rank 2 of 8 is not judged by its zeros."""
    rng = np.random.default_rng(1)
    W = rng.standard_normal((8, 2)) @ rng.standard_normal((2, 8))
    for full in (False, True):
        values = np.linalg.svd(flattened(W, full=full), compute_uv=False)
        assert (values[2:] < 1e-9).all() and values[0] == pytest.approx(1) and values[1] > 0.1
    np.testing.assert_array_equal(flattened(np.zeros((3, 3))), np.zeros((3, 3)))


@given(SEEDS, st.sampled_from(RESTORES), st.booleans())
def test_what_every_finish_keeps(seed, restore, mean):
    """With the mean: "unit" and what includes it bring residuals to the target's mean length, "global" on average."""
    rng = np.random.default_rng(seed)
    pairs = centred(rng.standard_normal((40, 5)), 2 * rng.standard_normal((40, 6)) + 1)
    W = ridge_path(pairs).weights(0.5)
    formula = finished(W, pairs, Finish(restore, mean))
    residuals = formula.apply(pairs.A + pairs.before) - (pairs.after if mean else 0)
    norms = np.linalg.norm(residuals, axis=1)
    if mean and restore in ("unit", "clip", "polar"):
        np.testing.assert_allclose(norms, pairs.length, rtol=1e-9)
    elif restore in ("global", "clip", "polar", "unit"):
        np.testing.assert_allclose((norms**2).sum(), (pairs.B**2).sum(), rtol=1e-9)
    elif restore == "ls":
        np.testing.assert_allclose(np.sum(residuals * (pairs.B - residuals)), 0, atol=1e-9)
    else:
        np.testing.assert_allclose(residuals, pairs.A @ W, atol=1e-9)


def test_a_map_of_nothing_is_restored_to_nothing():
    pairs = centred(np.random.default_rng(1).standard_normal((10, 3)), np.zeros((10, 3)))
    for restore in RESTORES:
        assert np.isfinite(finished(np.zeros((3, 3)), pairs, Finish(restore, True)).apply(pairs.A)).all()


@pytest.mark.parametrize(
    ("role", "metric", "mean", "first"),
    [
        ("query", "cosine", "auto", False),
        ("query", "dot", "auto", False),
        ("query", "l2", "auto", True),
        ("gallery", "cosine", "auto", True),
        ("query", "cosine", "keep", True),
        ("gallery", "cosine", "drop", False),
    ],
)
def test_when_the_mean_is_dropped(role, metric, mean, first):
    data = data_of(np.ones((2, 3)), np.ones((2, 3)), role=role, metric=metric)
    found = finishes(data, "auto", mean, "unit", ("none", "unit", "clip"))
    assert found[0].mean == first
    both = role == "query" and mean == "auto" and metric != "l2"
    assert {each.mean for each in found} == ({True, False} if both else {first})
    assert len(set(found)) == len(found)


def test_without_the_mean_lengths_are_not_told_apart():
    data = data_of(np.ones((2, 3)), np.ones((2, 3)), role="query")
    found = finishes(data, "auto", "drop", "clip", ("clip", "unit", "none", "global", "polar"))
    assert [each.restore for each in found] == ["clip", "global", "polar"]
    assert [each.restore for each in finishes(data, "none", "drop", "clip", RESTORES)] == ["none"]
