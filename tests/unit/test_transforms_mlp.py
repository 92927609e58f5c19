"""The network beside ridge regression: its gradients, its start, when it is used; and Adam."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, planted_data, rows_of
from vecdb.errors import CancelledError, CorruptionError
from vecdb.testing.planted import unit
from vecdb.transforms.adam import Adam, cosine_rate
from vecdb.transforms.judge import judge_of
from vecdb.transforms.mlp import MlpType, _error, _gradients, gelu, gelu_slope, train
from vecdb.transforms.ridge import RidgeType, choose_ridge

MLP, RIDGE = MlpType(), RidgeType()
SEEDS = st.integers(0, 10_000)


def bent(seed, *, role="gallery", count=700, kept=250, width=5, strength=6.0):
    """Return pairs of which the target bends the source far more than a line can follow."""
    rng = np.random.default_rng(seed)
    X = rows_of(count + kept, width, rng)
    M = orthonormal(width, 8, rng)
    Y = unit(np.tanh(strength * (X @ M)) * np.abs(X @ orthonormal(width, 8, rng)) ** 0.5 + 0.1)
    return data_of(X[:count], Y[:count], kept=(X[count:], Y[count:]), role=role)


# --- pieces -----------------------------------------------------------------------------------------------


@given(st.floats(-20, 20))
def test_gelu_is_x_times_the_normal_distribution(x):
    exact = x * 0.5 * (1 + math.erf(x / math.sqrt(2)))
    assert gelu(np.array([x]))[0] == pytest.approx(exact, abs=1e-3)
    step = 1e-6
    slope = (gelu(np.array([x + step])) - gelu(np.array([x - step])))[0] / (2 * step)
    assert gelu_slope(np.array([x]))[0] == pytest.approx(slope, abs=1e-6)


@given(SEEDS)
def test_gradients_are_those_of_the_error(seed):
    rng = np.random.default_rng(seed)
    Z, residuals = rng.standard_normal((7, 3)), rng.standard_normal((7, 4))
    weights = [rng.standard_normal((3, 5)), rng.standard_normal(5), rng.standard_normal((5, 4))]
    found = _gradients(Z, residuals, weights)
    for each, gradient in zip(weights, found, strict=True):
        place = tuple(rng.integers(0, size) for size in each.shape)
        was = each[place]
        values = []
        for step in (1e-6, -1e-6):
            each[place] = was + step
            values.append(_error(Z, residuals, weights) / 4)
        each[place] = was
        assert gradient[place] == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


def test_adam_follows_its_formulas():
    """Three steps by hand: moments, their corrections, decay apart from the gradient."""
    value, first, second = 1.0, 0.0, 0.0
    array = np.array([1.0])
    adam = Adam([array], decay=0.5)
    for step, gradient in enumerate([0.3, -0.2, 0.7], start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        value *= 1 - 0.01 * 0.5
        value -= 0.01 * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        adam.step([np.array([gradient])], 0.01)
    assert array[0] == pytest.approx(value, abs=1e-9)


@given(SEEDS)
def test_adam_finds_the_bottom_of_a_bowl(seed):
    rng = np.random.default_rng(seed)
    bottom, array = rng.standard_normal(4), np.zeros(4)
    adam = Adam([array])
    for step in range(600):
        adam.step([2 * (array - bottom)], 0.05 * cosine_rate(step, 600))
    np.testing.assert_allclose(array, bottom, atol=0.02)


def test_the_rate_falls_along_half_a_cosine():
    rates = [cosine_rate(step, 10) for step in range(11)]
    assert rates[0] == 1.0 and rates[-1] == pytest.approx(0.05) and rates[5] == pytest.approx(0.525)
    assert (np.diff(rates) < 0).all() and cosine_rate(0, 0) == 1.0


# --- the fit ----------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(SEEDS, st.sampled_from(["query", "gallery"]), st.sampled_from(["auto", "none", "unit", "global", "clip"]))
def test_it_is_never_worse_than_ridge_on_the_kept_back_pairs(seed, role, restore):
    rng = np.random.default_rng(seed)
    data = planted_data(orthonormal(6, 7, rng), 120, rng, noise=0.6, kept=80, role=role)
    made, plain = fitted(MLP, data, restore=restore, epochs=5), fitted(RIDGE, data, restore=restore)
    judge = judge_of(data)
    assert judge.score(made.apply(judge.rows)) >= judge.score(plain.apply(judge.rows)) - 1e-9
    if not made.fit["network"]:
        np.testing.assert_allclose(made.apply(data.source), plain.apply(data.source), atol=1e-6)
        assert made.W1.shape[1] == 1 and not made.W2.any()


@pytest.mark.parametrize("seed", range(2))
def test_what_a_line_cannot_follow_is_followed(seed):
    data = bent(seed)
    made = fitted(MLP, data, hidden=64, epochs=200, patience=30, rate=5e-3)
    plain = fitted(RIDGE, data)
    kept = data.validation
    errors = [np.mean(np.sum((unit(each.apply(kept.source)) - kept.target) ** 2, axis=1)) for each in (made, plain)]
    assert made.fit["network"] and made.fit["epoch"] > 5
    assert errors[0] < 0.7 * errors[1]


def test_training_starts_at_the_linear_map_and_stops_where_the_tenth_aside_says():
    rng = np.random.default_rng(1)
    data = planted_data(orthonormal(5, 5, rng), 60, rng, noise=0.8)
    params = {"penalty": 0.0, "restore": "none", "mean": "keep", "hidden": 32, "patience": 2, "decay": 0.0}
    found = choose_ridge(data, params, owner="mlp", least=3)
    network, epoch = train(found, data, {**params, "epochs": 0, "rate": 0.1})
    assert epoch == 0 and not network.W2.any()
    network, epoch = train(found, data, {**params, "epochs": 40, "rate": 1.0})
    assert epoch == 0 and not network.W2.any()  # a rate that only does harm


def test_groups_are_kept_aside_whole():
    rng = np.random.default_rng(1)
    W = orthonormal(5, 5, rng)
    for groups in (np.arange(60) // 20, np.zeros(60, np.int64)):
        made = fitted(MLP, planted_data(W, 60, rng, noise=0.4, groups=groups), epochs=2)
        assert np.isfinite(made.apply(rows_of(3, 5, rng).astype(np.float32))).all()


def test_the_same_generator_gives_the_same_network():
    pairs = bent(1, count=200)
    one, same, other = (
        fitted(MLP, data_of(pairs.source, pairs.target, seed=seed), hidden=16, epochs=3) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one.W2, same.W2)
    assert not np.array_equal(one.W1, other.W1)


def test_it_can_be_cancelled_between_passes():
    calls = iter(range(100))
    data = bent(1, count=100, kept=30)
    with pytest.raises(CancelledError):
        fitted(MLP, replace(data, cancel=lambda: next(calls) > 5), epochs=50, patience=50)


def test_its_bound_covers_the_network():
    data = bent(1)
    made = fitted(MLP, data, hidden=64, epochs=60, patience=30, rate=5e-3, restore="none")
    assert made.fit["network"] and made.fit["restore"] in ("none", "unit", "global")
    if made.lipschitz is not None:
        rng = np.random.default_rng(1)
        one, other = (rng.standard_normal((300, 5)).astype(np.float32) for _ in range(2))
        grown = np.linalg.norm(made.apply(one) - made.apply(other), axis=1) / np.linalg.norm(one - other, axis=1)
        assert grown.max() <= made.lipschitz


@pytest.mark.parametrize(
    "lie",
    [
        {"base": None},
        {"base": {}},
        {"W1": np.zeros((4, 3), np.float32)},
        {"W2": np.zeros((9, 9), np.float32)},
        {"b1": np.zeros(0, np.float32)},
    ],
)
def test_a_damaged_state_is_refused(lie):
    made = fitted(MLP, bent(1, count=60, kept=30), hidden=4, epochs=1)
    with pytest.raises(CorruptionError):
        MLP.load({**made.state(), **lie})
