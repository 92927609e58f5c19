"""The identity profile on made-up models: what is refused, what never is, and what survives storage."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vecdb.engine import identity_fit, identity_numbers
from vecdb.engine.identity import (
    JUDGED_ROWS,
    MIN_BATCH,
    MIN_DIM,
    MIN_ROWS,
    WINDOW,
    Cusum,
    Profile,
    explain,
    fit_profile,
)
from vecdb.errors import CorruptionError, DimensionError, NonFiniteError, ParameterError
from vecdb.kernels import loader

DIM = 96
FIELDS = (
    *("format", "metric", "rows", "dim", "loud_axes", "quiet_axes", "mean", "loud", "quiet", "signs", "limits"),
    *("norms", "norm_counts", "similarity_counts"),
)


class Model:
    """A made-up model: a random basis with falling variances, a mean, and topics that lie in the loud half."""

    def __init__(self, seed, dim=DIM, mean=0.5):
        rng = np.random.default_rng(seed)
        self.basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        self.scale = np.geomspace(1.0, 0.03, dim)
        self.mean = mean * self.basis[:3].sum(axis=0)
        self.topics = rng.standard_normal((30, dim)) * self.scale @ self.basis

    def embed(self, topics, seed):
        rng = np.random.default_rng(seed)
        own = rng.standard_normal((len(topics), len(self.scale))) * self.scale @ self.basis
        rows = self.mean + self.topics[topics] + own
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def batch(self, count, seed, topic=None):
        chosen = np.random.default_rng([seed, 1]).integers(0, 30, count)
        return self.embed(chosen if topic is None else np.full(count, topic), seed)


@cache
def profile_of(seed=0, rows=MIN_ROWS, mean=0.5, metric="cosine"):
    return fit_profile(Model(seed, mean=mean).batch(rows, 99), metric)


# --- batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mean", [0.0, 0.5, 3.0])
def test_a_models_own_batches_are_accepted_and_anothers_refused(seed, mean):
    profile = profile_of(seed, mean=mean)
    own, other = Model(seed, mean=mean), Model(seed + 100, mean=mean)
    assert profile.discriminates
    for turn in range(60):
        assert profile.judge(own.batch(64, turn)).ok
        assert profile.judge(own.batch(MIN_BATCH, turn, topic=turn % 30)).ok
        assert not profile.judge(other.batch(64, turn)).ok
        assert not profile.judge(other.batch(MIN_BATCH, turn, topic=turn % 30)).ok


@pytest.mark.parametrize("turn", ["rotation", "permutation", "flips"])
def test_its_own_vectors_turned_are_refused(turn):
    rng = np.random.default_rng(5)
    family = {
        "rotation": identity_fit._rotation,
        "permutation": identity_fit._permutation,
        "flips": identity_fit._flips,
    }
    for seed in range(40):
        turned = family[turn](DIM, rng)(Model(0).batch(64, seed).astype(np.float64))
        assert not profile_of().judge(turned.astype(np.float32)).ok


def test_noise_is_refused():
    rng = np.random.default_rng(2)
    assert not any(profile_of().judge(rng.standard_normal((64, DIM))).ok for _ in range(40))


def test_a_topic_that_was_never_seen_is_accepted():
    model = Model(3)
    sample = model.embed(np.random.default_rng(0).integers(0, 15, MIN_ROWS), 0)
    profile = fit_profile(sample, "cosine")
    assert profile.discriminates
    assert all(profile.judge(model.batch(64, topic, topic=topic)).ok for topic in range(15, 30))


@pytest.mark.parametrize("foreign", [0.5, 0.75, 0.9])
def test_a_batch_of_which_half_is_foreign_is_refused(foreign):
    for seed in range(20):
        rows = Model(0).batch(64, seed)
        rows[: int(64 * foreign)] = Model(50).batch(int(64 * foreign), seed)
        verdict = profile_of().judge(rows)
        assert not verdict.ok and verdict.numbers["odd_rows"] > verdict.limits["odd_rows"]


def test_a_few_strange_rows_do_not_refuse_a_batch():
    for seed in range(20):
        rows = Model(0).batch(64, seed)
        rows[:8] = Model(50).batch(8, seed)
        assert profile_of().judge(rows).ok


def test_near_duplicates_are_judged_as_rows():
    batch = np.repeat(Model(0).batch(1, 4), 64, axis=0)
    verdict = profile_of().judge(batch)
    assert verdict.ok and "near-duplicates" in verdict.note
    assert verdict.numbers["spread"] < 1e-9


def test_copies_of_one_row_are_refused_only_where_foreign_rows_lie():
    """One row says little: of native ones some lie below the limit that several rows are held to."""
    profile = profile_of()
    limits = profile.limits
    native, foreign = Model(0).batch(1, 4), Model(50).batch(1, 4)
    doubtful = 0
    for share in np.linspace(0, 1, 201):
        row = (1 - share) * native + share * foreign
        verdict = profile.judge(np.repeat(row, 64, axis=0))
        score = verdict.numbers["score"]
        assert verdict.limits["score"] == min(limits.row_limit, limits.row_foreign)
        assert verdict.ok == (score >= verdict.limits["score"])
        doubtful += limits.row_foreign <= score < limits.row_limit
        apart = profile.judge(np.repeat(np.concatenate([row, native]), 32, axis=0))
        assert share < 0.3 or (apart.limits["score"] == limits.row_limit and "near-duplicates" in apart.note)
    assert doubtful and not verdict.ok


def test_copies_of_a_few_rows_are_accepted():
    for seed in range(60):
        rows = Model(0).batch(1 + seed % 12, seed)
        assert profile_of().judge(np.repeat(rows, 64, axis=0)).ok


def test_a_large_batch_is_judged_by_evenly_spaced_rows():
    batch = Model(0).batch(5000, 1)
    picked = np.linspace(0, 4999, JUDGED_ROWS).astype(int)
    assert profile_of().judge(batch).numbers == profile_of().judge(batch[picked]).numbers


@given(seed=st.integers(0, 1000), count=st.integers(MIN_BATCH, 100))
def test_the_order_of_rows_does_not_change_a_verdict(seed, count):
    batch = Model(0).batch(count, seed)
    shuffled = batch[np.random.default_rng(seed).permutation(count)]
    first, second = profile_of().judge(batch), profile_of().judge(shuffled)
    assert first.ok == second.ok
    assert first.numbers == pytest.approx(second.numbers, rel=1e-6, abs=1e-6)


@given(seed=st.integers(0, 1000), factor=st.floats(1e-3, 1e3))
def test_length_means_nothing_in_a_cosine_space(seed, factor):
    batch = Model(seed % 2).batch(64, seed)
    scores = [profile_of().judge(rows).numbers["score"] for rows in (batch, batch * np.float32(factor))]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize("shape", [(64, DIM - 1), (64,), (2, 32, DIM)])
def test_a_batch_of_another_width_is_refused(shape):
    with pytest.raises(DimensionError) as caught:
        profile_of().judge(np.ones(shape, dtype=np.float32))
    assert caught.value.expected == DIM and caught.value.got == shape


def test_a_batch_too_small_to_be_judged_is_refused():
    with pytest.raises(ParameterError):
        profile_of().judge(Model(0).batch(MIN_BATCH - 1, 0))


# --- norms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_norms_are_part_of_the_identity_where_they_are_used(metric):
    sample = Model(0).batch(MIN_ROWS, 99) * np.random.default_rng(1).uniform(8, 12, (MIN_ROWS, 1))
    profile = fit_profile(sample.astype(np.float32), metric)
    assert 2 < profile.norm_range[0] < 8 and 12 < profile.norm_range[1] < 40
    verdict = profile.judge(Model(0).batch(64, 1))
    assert not verdict.ok and "median norm" in explain(verdict)
    assert profile.judge(Model(0).batch(64, 1) * 10).ok


def test_norms_that_vary_wildly_tell_nothing():
    sample = Model(0).batch(MIN_ROWS, 99) * np.exp(3 * np.random.default_rng(1).standard_normal((MIN_ROWS, 1)))
    assert fit_profile(sample.astype(np.float32), "dot").norm_range == (0.0, float("inf"))


def test_zero_rows_are_left_out():
    sample = Model(0).batch(MIN_ROWS, 99)
    sample[::3] = 0
    profile = fit_profile(sample, "dot")
    batch = Model(0).batch(90, 3)
    batch[::3] = 0
    assert profile.discriminates and profile.judge(batch).ok
    assert profile.judge(np.zeros((64, DIM))).ok


# --- spaces without discrimination --------------------------------------------------------------------------


def degenerate_spaces():
    """Yield (name, generator of n rows) of geometries that no embedding model has, but users have."""
    rng = np.random.default_rng(7)
    for dim in (1, 2, 3, 8, MIN_DIM - 1, MIN_DIM, MIN_DIM + 1, 33, 64, 150):
        yield f"gaussian {dim}", lambda n, dim=dim: rng.standard_normal((n, dim))
        yield f"falling {dim}", lambda n, dim=dim: rng.standard_normal((n, dim)) * np.linspace(3, 0.1, dim)
        yield f"shifted {dim}", lambda n, dim=dim: rng.standard_normal((n, dim)) + 5
    few = rng.standard_normal((10, 40))
    centres = 2 * rng.standard_normal((40, 48))
    flat = rng.standard_normal((5, 48))
    yield "one row", lambda n: np.repeat(few[:1], n, axis=0)
    yield "ten rows", lambda n: few[rng.integers(0, 10, n)]
    yield "one-hot", lambda n: np.eye(60)[rng.integers(0, 60, n)]
    yield "uneven one-hot", lambda n: np.eye(60)[np.minimum(59, rng.geometric(0.08, n))]
    yield "rank 5", lambda n: rng.standard_normal((n, 5)) @ flat
    yield "integers", lambda n: rng.integers(-3, 4, (n, 48))
    yield "counts", lambda n: rng.poisson(np.geomspace(0.05, 5, 80), (n, 80))
    yield "constant column", lambda n: np.column_stack([np.full(n, 7.0), rng.standard_normal((n, 40))])
    yield "clusters", lambda n: centres[rng.integers(0, 40, n)] + 0.3 * rng.standard_normal((n, 48))
    yield "zeros", lambda n: np.zeros((n, 20))
    yield "mostly zeros", lambda n: rng.standard_normal((n, 32)) * (rng.random((n, 1)) < 0.3)
    yield "huge", lambda n: 1e37 * rng.standard_normal((n, 32))
    yield "tiny", lambda n: 1e-38 * rng.standard_normal((n, 32))


@pytest.mark.parametrize(
    ("name", "rows"), list(degenerate_spaces()), ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_no_native_batch_of_a_degenerate_space_is_refused(name, rows, metric):
    profile = fit_profile(rows(MIN_ROWS).astype(np.float32), metric)
    pool = rows(1500).astype(np.float32)
    state, rng = Cusum(), np.random.default_rng(11)
    for turn in range(25):
        nearest = np.argsort(np.abs(pool.astype(np.float64) - pool[turn]).sum(axis=1), kind="stable")[:40]
        few = np.repeat(pool[rng.choice(len(pool), 1 + turn % 5)], 40, axis=0)
        for batch in (pool[rng.choice(len(pool), 64)], pool[nearest], few):
            verdict = profile.judge(batch)
            assert verdict.ok, explain(verdict)
    for place in range(300):
        state, alarm = profile.step(state, pool[place : place + 1])
        assert not alarm
    assert sum(profile.query_warning(row) is not None for row in pool[:300]) <= 2
    assert Profile.from_state(profile.to_state()).limits == profile.limits


def test_a_space_without_discrimination_says_so():
    profile = fit_profile(np.random.default_rng(0).standard_normal((MIN_ROWS, 50)), "cosine")
    verdict = profile.judge(np.ones((64, 50)))
    assert not profile.discriminates
    assert verdict.ok and "does not tell models apart" in explain(verdict)
    assert profile.query_warning(np.ones(50)) is None
    assert profile.step(Cusum(), np.ones((31, 50))) == (Cusum(0.0, 31), False)


@settings(max_examples=15)
@given(
    block=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 60), st.integers(1, 24)),
        elements=st.floats(-100, 100, width=32, allow_nan=False),
    ),
    metric=st.sampled_from(["cosine", "dot", "l2"]),
)
def test_no_finite_sample_or_batch_raises(block, metric):
    sample = np.resize(block, (MIN_ROWS, block.shape[1]))
    profile = fit_profile(sample, metric)
    verdict = profile.judge(sample[:200])
    assert all(np.isfinite(value) for value in verdict.numbers.values())
    assert explain(verdict).endswith(".")


def test_wide_spaces_are_judged_by_their_loud_axes():
    dim = identity_numbers.QUIET_MAX_DIM + 76
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((100, dim)) * np.linspace(2, 0.5, 100)[:, None]

    def rows(count):
        noise = 0.3 * rng.standard_normal((count, dim))
        return (rng.standard_normal((count, 100)) @ factors + noise).astype(np.float32)

    profile = fit_profile(rows(MIN_ROWS), "cosine")
    assert len(profile.axes.quiet) == 0 and len(profile.axes.loud) == 64
    assert profile.judge(rows(64)).ok
    assert not profile.judge(rows(64)[:, ::-1]).ok


# --- rows one at a time -------------------------------------------------------------------------------------


def rows_to_alarm(profile, rows, size=1):
    state = Cusum()
    for start in range(0, len(rows), size):
        state, alarm = profile.step(state, rows[start : start + size])
        if alarm:
            return start + size
    return None


@pytest.mark.parametrize("size", [1, 3, 31])
def test_foreign_rows_raise_the_alarm_within_the_window(size):
    for seed in range(20):
        found = rows_to_alarm(profile_of(), Model(50).batch(2 * WINDOW, seed, topic=seed), size)
        assert found is not None and found <= WINDOW + size - 1


def test_foreign_rows_after_many_native_ones_raise_it_as_fast():
    state, profile = Cusum(), profile_of()
    for row in Model(0).batch(500, 1):
        state, alarm = profile.step(state, row[None])
        assert not alarm
    assert rows_to_alarm(profile, Model(50).batch(WINDOW, 1)) is not None
    for row in Model(50).batch(WINDOW, 1):
        state, alarm = profile.step(state, row[None])
        if alarm:
            break
    assert alarm and state.level == 0.0


def test_native_streams_raise_none_sorted_or_not():
    model, topics = Model(0), np.random.default_rng(0).integers(0, 30, 1500)
    assert rows_to_alarm(profile_of(), model.embed(topics, 1)) is None
    assert rows_to_alarm(profile_of(), model.embed(np.sort(topics), 1)) is None


@given(cut=st.integers(0, 60), seed=st.integers(0, 50))
def test_the_sum_does_not_depend_on_how_rows_are_grouped(cut, seed):
    rows = np.vstack([Model(0).batch(30, seed), Model(50).batch(30, seed)])
    whole, whole_alarm = profile_of().step(Cusum(), rows)
    first, first_alarm = profile_of().step(Cusum(), rows[:cut])
    second, second_alarm = profile_of().step(first, rows[cut:])
    assert second.rows == whole.rows == 60
    assert (first_alarm or second_alarm) == whole_alarm
    if not whole_alarm:
        assert second.level == pytest.approx(whole.level, abs=1e-5)


def test_the_state_is_two_plain_numbers():
    state, _ = profile_of().step(Cusum(), Model(0).batch(5, 0))
    assert [type(each) for each in state] == [float, int]
    assert Cusum(*tuple(state)) == state


def test_queries_are_warned_about_only_if_foreign():
    own, other = Model(0).batch(1000, 5), Model(50).batch(200, 5)
    assert sum(profile_of().query_warning(row) is not None for row in own) == 0
    warnings = [profile_of().query_warning(row) for row in other]
    assert sum(each is not None for each in warnings) > 150
    assert "another model" in next(each for each in warnings if each)
    assert profile_of().query_warning(np.zeros(DIM)) is None


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1.0, 1e14])
def test_one_query_is_judged_as_among_many(compiled, scale, monkeypatch):
    """A single query takes a short way, compiled or not; only rounding may part it from the long one."""
    if compiled:
        assert loader.request() is None and loader.wait()
    else:
        monkeypatch.setenv("VECDB_KERNELS", "0")
    profile = profile_of()
    rows = np.concatenate([Model(0).batch(60, 5), Model(50).batch(60, 5)]).astype(np.float32) * np.float32(scale)
    unit, _ = identity_numbers.unit_rows(rows)
    scores = profile.limits.score(profile.screen.rows(unit))
    for row, score in zip(rows, scores, strict=True):
        assert profile.limits.score_of(profile.screen.row_evidence(row)) == pytest.approx(float(score), abs=1e-4)
    many = profile.query_warnings(rows)
    clear = np.abs(scores - profile.limits.row_limit) > 1e-3
    assert [profile.query_warning(row) is None for row in rows[clear]] == [
        said is None for said, sure in zip(many, clear, strict=True) if sure
    ]
    assert profile.query_warnings(rows[:1]) == [profile.query_warning(rows[0])]


def test_one_sided_columns_count_for_a_single_query():
    positive = np.abs(Model(0).batch(MIN_ROWS, 5)).astype(np.float32)
    profile = fit_profile(positive, "cosine")
    assert profile.screen.axes.one_sided
    for row in (positive[3], -positive[3]):
        expected = profile.screen.rows(identity_numbers.unit_rows(row[None])[0])[0]
        np.testing.assert_allclose(profile.screen.row_evidence(row), expected, atol=1e-4)


# --- fitting ------------------------------------------------------------------------------------------------


def test_the_same_sample_and_seed_give_the_same_profile():
    sample = Model(0).batch(MIN_ROWS, 1)
    assert fit_profile(sample, "cosine", seed=4).to_state() == fit_profile(sample.copy(), "cosine", seed=4).to_state()


def test_fitting_leaves_the_sample_and_global_generators_alone():
    sample = Model(0).batch(MIN_ROWS, 1)
    kept, before = sample.copy(), np.random.get_state()[1].copy()
    sample.flags.writeable = False
    fit_profile(sample, "l2")
    assert np.array_equal(sample, kept)
    assert np.array_equal(np.random.get_state()[1], before)


def test_too_few_rows_are_refused():
    with pytest.raises(ParameterError):
        fit_profile(np.ones((MIN_ROWS - 1, 20)), "cosine")


def test_a_sample_that_is_not_a_matrix_is_refused():
    with pytest.raises(DimensionError):
        fit_profile(np.ones(MIN_ROWS), "cosine")


def test_a_sample_with_nan_is_refused():
    sample = np.ones((MIN_ROWS, 20))
    sample[5, 5] = np.nan
    with pytest.raises(NonFiniteError):
        fit_profile(sample, "cosine")


def test_histograms_count_the_sample():
    sample = Model(0).batch(MIN_ROWS, 1) * np.random.default_rng(0).uniform(1, 2, (MIN_ROWS, 1))
    profile = fit_profile(sample, "dot")
    assert profile.norm_counts.sum() == MIN_ROWS
    assert profile.norm_edges == pytest.approx((1, 2), abs=0.01)
    assert profile.similarity_counts.sum() == 4096


# --- the numbers --------------------------------------------------------------------------------------------


def plain_evidence(rows, axes):
    """The numbers of a batch, written down as defined."""
    mean = rows.mean(axis=0)
    shares = []
    for basis in (axes.loud, axes.quiet):
        part = sum(float(axis @ (row - mean)) ** 2 for axis in basis for row in rows)
        total = sum(float((row - mean) @ (row - mean)) for row in rows)
        shares.append(np.log((part / total * len(mean) / len(basis) + 0.02) / 1.02))
    alignment = mean @ axes.mean / np.linalg.norm(mean) / np.linalg.norm(axes.mean)
    return np.array([alignment, 0.0, shares[0], -shares[1]])


def plain_row_evidence(rows, axes):
    """The numbers of single rows, one row and one axis at a time; the space's columns change sign."""
    direction = axes.mean / np.linalg.norm(axes.mean)
    numbers = []
    for row in rows:
        beside = row - (row @ direction) * direction
        shares = [sum(float(axis @ beside) ** 2 for axis in basis) / len(basis) for basis in (axes.loud, axes.quiet)]
        loud, quiet = (np.log((share * len(row) / (beside @ beside) + 0.02) / 1.02) for share in shares)
        numbers.append([row @ direction, 0.0, loud, -quiet])
    return np.array(numbers)


@given(seed=st.integers(0, 500))
def test_batch_numbers_are_as_defined(seed):
    unit, _ = identity_numbers.unit_rows(Model(seed % 3).batch(MIN_BATCH, seed))
    profile = profile_of()
    whole, rows = profile.screen.batches(unit)
    assert whole == pytest.approx(plain_evidence(unit, profile.axes), abs=1e-5)
    assert rows == pytest.approx(plain_row_evidence(unit, profile.axes), abs=1e-4)
    assert profile.screen.rows(unit) == pytest.approx(rows, abs=1e-5)


@pytest.mark.parametrize("distance", [1e-3, 1e-6])
def test_rows_that_hardly_differ_are_measured_as_exactly(distance):
    rng, axes = np.random.default_rng(5), profile_of().axes
    unit, _ = identity_numbers.unit_rows(Model(0).batch(1, 5) + distance * rng.standard_normal((40, axes.dim)))
    whole = identity_numbers.Screen.of(axes).batches(unit)[0]
    assert whole == pytest.approx(plain_evidence(unit, axes), abs=1e-4)
    gram = (unit - unit.mean(axis=0)) @ (unit - unit.mean(axis=0)).T
    found = identity_numbers.variety(unit)
    assert found.independent == pytest.approx(np.trace(gram) ** 2 / np.square(gram).sum(), rel=1e-4)
    assert found.spread == pytest.approx(np.trace(gram) / 40, rel=1e-4) and found.weights.sum() == pytest.approx(1)


def test_batches_measured_together_are_those_measured_alone():
    unit = np.array([identity_numbers.unit_rows(Model(0).batch(MIN_BATCH, seed))[0] for seed in range(5)])
    screen = profile_of().screen
    together = screen.batches(unit)
    for place, batch in enumerate(unit):
        for one, many in zip(screen.batches(batch), together, strict=True):
            assert many[place] == pytest.approx(one, abs=1e-5)


def test_signs_are_kept_by_native_rows_and_not_by_flipped_ones():
    rows = np.abs(np.random.default_rng(0).standard_normal((500, 32)))
    unit, _ = identity_numbers.unit_rows(rows)
    axes = identity_numbers.fit_axes(unit, seed=0)
    assert axes.signs.tolist() == [1.0] * 32
    flips = np.random.default_rng(1).choice([-1.0, 1.0], 32)
    screen = identity_numbers.Screen.of(axes)
    assert screen.batches(unit)[0][1] == 1.0
    assert abs(screen.batches(unit * flips)[0][1]) < 0.5
    assert np.allclose(screen.rows(-unit)[:, 1], -1.0)


def test_axes_are_orthonormal_and_ordered():
    unit, _ = identity_numbers.unit_rows(Model(0).batch(MIN_ROWS, 1))
    axes = identity_numbers.fit_axes(unit, seed=0)
    stack = np.vstack([axes.loud, axes.quiet])
    assert np.allclose(stack @ stack.T, np.eye(len(stack)), atol=2e-3)
    energy = np.square((unit - axes.mean) @ axes.loud.T).sum(axis=0)
    assert (np.diff(energy) <= 1e-6 * energy[0]).all()


def test_power_iteration_finds_the_axes_of_the_decomposition():
    unit, _ = identity_numbers.unit_rows(Model(0).batch(MIN_ROWS, 1))
    centred = unit - unit.mean(axis=0)
    found = np.square(centred @ identity_numbers._loud_axes(centred, 20, 0).T).sum()
    exact = np.linalg.eigvalsh(centred.T @ centred)[-20:].sum()
    assert found == pytest.approx(exact, rel=0.01)


@given(rows=hnp.arrays(np.float32, (7, 5), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_unit_rows_have_unit_length_or_are_zero(rows):
    unit, norms = identity_numbers.unit_rows(rows)
    lengths = np.linalg.norm(unit, axis=1)
    assert np.allclose(lengths, np.where(rows.any(axis=1), 1.0, 0.0))
    assert norms == pytest.approx(np.linalg.norm(rows.astype(np.float64), axis=1), rel=1e-6, abs=1e-300)


@given(count=st.integers(1, 20))
def test_variety_counts_orthogonal_directions(count):
    rows = np.vstack([np.eye(40)[:count], -np.eye(40)[:count]])
    found = identity_numbers.variety(rows)
    assert found.independent == pytest.approx(count)
    assert found.spread == pytest.approx(1.0)
    assert found.weights.tolist() == [1.0] * (2 * count)


@given(copies=st.lists(st.integers(1, 9), min_size=2, max_size=8))
def test_the_weights_of_a_batch_count_distinct_rows(copies):
    rows = np.repeat(np.eye(8)[: len(copies)], copies, axis=0)
    assert identity_numbers.variety(rows).weights.sum() == pytest.approx(len(copies))


@pytest.mark.parametrize("dim", [16, 31, 384, 1000])
def test_constructed_foreigners_are_isometries(dim):
    rng = np.random.default_rng(dim)
    rows = rng.standard_normal((6, dim))
    for family in (identity_fit._rotation, identity_fit._permutation, identity_fit._flips):
        turned = family(dim, rng)(rows)
        assert np.allclose(turned @ turned.T, rows @ rows.T)
        assert not np.allclose(turned, rows)


def test_folds_hold_whole_topics_out():
    unit, _ = identity_numbers.unit_rows(Model(0).batch(MIN_ROWS, 1))
    folds = identity_fit._folds(unit, np.random.default_rng(0))
    assert set(folds) == {0, 1, 2, 3}
    assert np.bincount(folds).min() > MIN_ROWS // 16


# --- stored form ------------------------------------------------------------------------------------------


def test_a_stored_profile_judges_with_the_same_numbers():
    sample = np.abs(Model(0).batch(MIN_ROWS, 1)) * 3
    for profile in (profile_of(), fit_profile(sample, "dot")):
        again = Profile.from_state(profile.to_state())
        assert again.to_state() == profile.to_state()
        for seed in range(10):
            batch = Model(seed % 2).batch(64, seed)
            assert again.judge(batch) == profile.judge(batch)
            assert again.step(Cusum(), batch) == profile.step(Cusum(), batch)
            assert again.query_warning(batch[0]) == profile.query_warning(batch[0])


def test_the_state_is_plain_and_small():
    state = fit_profile(np.random.default_rng(0).standard_normal((MIN_ROWS, 384)), "cosine").to_state()
    assert tuple(state) == FIELDS
    assert {type(value) for value in state.values()} <= {int, str, bytes}
    assert sum(len(value) for value in state.values() if isinstance(value, bytes)) < 200_000


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_or_mistyped_field_is_damage(name):
    state = profile_of().to_state()
    for wrong in (None, [], 1.5, "x", b"", b"x" * 17, -1, 1 << 70, True):
        with pytest.raises(CorruptionError):
            Profile.from_state({**state, name: wrong})
    del state[name]
    with pytest.raises(CorruptionError):
        Profile.from_state(state)


@pytest.mark.parametrize("name", ["mean", "loud", "quiet", "limits", "norms"])
def test_values_that_are_not_finite_are_damage(name):
    state = profile_of().to_state()
    kind = {"loud": "<f4", "quiet": "<f2"}.get(name, "<f8")
    numbers = np.frombuffer(state[name], dtype=kind).copy()
    numbers[1] = np.nan
    with pytest.raises(CorruptionError):
        Profile.from_state({**state, name: numbers.tobytes()})


@given(data=st.data())
def test_changed_bytes_are_damage_or_a_profile_that_works(data):
    state = profile_of().to_state()
    name = data.draw(st.sampled_from([key for key, value in state.items() if isinstance(value, bytes)]))
    changed = bytearray(state[name])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        profile = Profile.from_state({**state, name: bytes(changed)})
    except CorruptionError:
        return
    batch = Model(0).batch(64, 1)
    explain(profile.judge(batch))
    profile.step(Cusum(), batch[:3])
    profile.query_warning(batch[0])
