"""Ranking distillation: the loss and its gradient, who teaches whom, and `distill` as a kind."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, planted_data, rows_of
from vecdb.errors import CancelledError, FitError, NonFiniteError
from vecdb.testing.planted import unit
from vecdb.transforms.distill import DistillType, centres_of, lessons_of
from vecdb.transforms.listwise import (
    Asked,
    Bank,
    Course,
    Lesson,
    Score,
    _judgement,
    deviation,
    divergence,
    learn,
    softmax,
    taught,
)
from vecdb.transforms.ridge import RidgeType

DISTILL = DistillType()
SEEDS = st.integers(0, 10_000)
COSINE = ("cosine", "cosine")


def lesson_of(seed, *, d=4, e=3, asked=6, stored=9, teacher="mean", centre=0.1, bias=0.3):
    """Return a lesson between random vectors, with everything that a score can have."""
    rng = np.random.default_rng(seed)

    def drawn(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    crowd = Asked(unit(drawn(asked, d)), unit(drawn(asked, e)), np.float32(centre) * drawn(d), 1)
    bank = Bank(unit(drawn(stored, e)), unit(drawn(stored, d)), drawn(stored, e), np.float32(bias) * drawn(stored))
    return taught(crowd, bank, teacher, COSINE)


def score_of(seed, d=4, e=3):
    rng = np.random.default_rng(seed + 1)
    return Score(rng.standard_normal((d, e)).astype(np.float32), rng.standard_normal((2, e)).astype(np.float32))


def loss_by_hand(W, b, lesson, target, rows, columns, scale):
    """Return the mean cross-entropy, list by list, in float64."""
    total = 0.0
    for place, row in enumerate(rows):
        mapped = (lesson.asked.new[row].astype(float) - lesson.asked.centre) @ W + b
        scores = np.array([mapped @ lesson.bank.centred[c] + lesson.bank.bias[c] for c in columns]) / scale
        total -= (target[place] * (scores - np.log(np.exp(scores).sum()))).sum()
    return total / len(rows)


# --- the loss ---------------------------------------------------------------------------------------------


@given(SEEDS, st.floats(0.5, 4.0))
@settings(max_examples=30)
def test_the_loss_is_the_cross_entropy_of_the_lists_and_its_gradients_are_the_slopes(seed, scale):
    lesson, score = lesson_of(seed), score_of(seed)
    rows, columns = np.array([0, 2, 5]), np.array([1, 2, 4, 8])
    target = softmax(np.random.default_rng(seed).standard_normal((3, 4)).astype(np.float32))
    loss, by_W, by_b = divergence(score, lesson, target, rows, columns, scale)
    W, b = score.W.astype(float), score.b[1].astype(float)

    def at(W, b):
        return loss_by_hand(W, b, lesson, target, rows, columns, scale)

    assert loss == pytest.approx(at(W, b), rel=1e-4)
    step = 1e-5
    for i, j in ((0, 0), (3, 2), (1, 1)):
        away = np.zeros_like(W)
        away[i, j] = step
        assert by_W[i, j] == pytest.approx((at(W + away, b) - at(W - away, b)) / (2 * step), rel=2e-3, abs=2e-4)
    for j in range(3):
        away = np.zeros_like(b)
        away[j] = step
        assert by_b[j] == pytest.approx((at(W, b + away) - at(W, b - away)) / (2 * step), rel=2e-3, abs=2e-4)


@given(SEEDS, st.floats(-1e4, 1e4))
def test_softmax_is_a_distribution_whatever_is_added_to_a_row(seed, offset):
    table = np.random.default_rng(seed).standard_normal((4, 7)).astype(np.float32)
    found = softmax(table.copy())
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)
    moved = softmax(table + np.round(np.float32(offset)))
    np.testing.assert_allclose(moved, found, atol=2e-2 if abs(offset) > 100 else 1e-3)


def test_the_deviation_is_that_within_rows_and_never_zero():
    table = np.array([[1.0, 3.0], [11.0, 13.0]])
    assert deviation(table) == 1.0
    assert deviation(3 * table) == 3.0
    assert deviation(np.array([[5.0, 5.0], [9.0, 9.0]])) == 1.0


# --- who teaches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["mean", "new", "old"])
@pytest.mark.parametrize("asked_known", [True, False])
@pytest.mark.parametrize("stored_known", [True, False])
def test_a_teacher_judges_by_vectors_that_are_known(wanted, asked_known, stored_known):
    whole = lesson_of(1)
    asked = whole.asked if asked_known else replace(whole.asked, old=None)
    bank = whole.bank if stored_known else replace(whole.bank, new=None)
    found = taught(asked, bank, wanted, COSINE)
    possible = {"new": stored_known, "old": asked_known}
    if wanted != "mean" and not possible[wanted]:
        assert found is None
        return
    if not any(possible.values()):
        assert found is None
        return
    both = wanted == "mean" and all(possible.values())
    assert found.teacher == ("mean" if both else wanted if wanted != "mean" else "new" if stored_known else "old")


def test_an_empty_bank_teaches_nothing():
    whole = lesson_of(1)
    nothing = Bank(whole.bank.old[:0], None, whole.bank.centred[:0], whole.bank.bias[:0])
    assert taught(whole.asked, nothing, "mean", COSINE) is None


@given(SEEDS)
def test_both_judgements_keep_their_shares_whatever_their_scales(seed):
    lesson = lesson_of(seed)
    asked, bank = lesson.asked, lesson.bank
    longer = taught(asked, replace(bank, old=100 * bank.old), "mean", ("dot", "dot"))
    shorter = taught(asked, bank, "mean", ("dot", "dot"))
    assert longer.spread[1] == pytest.approx(100 * shorter.spread[1], rel=1e-3)
    assert longer.spread[2] == pytest.approx(shorter.spread[2], rel=1e-3)


def test_learning_lowers_the_loss_and_leaves_the_start_alone():
    lesson, start = lesson_of(3, asked=40, stored=60), score_of(3)
    before = start.W.copy()
    data = data_of(np.eye(4)[:3], np.eye(4)[:3])
    course = Course(steps=60, rate=0.1, temperature=1.5, batch=40, rows=60)
    learnt = learn(start, [lesson], course, COSINE, data)
    assert np.array_equal(before, start.W)
    rows, columns = np.arange(40), np.arange(60)
    scores = 0.65 * (unit(lesson.asked.new) @ unit(lesson.bank.new).T) / lesson.spread[0]
    scores += 0.35 * (unit(lesson.asked.old) @ unit(lesson.bank.old).T) / lesson.spread[1]
    target = softmax((scores / lesson.spread[2] / 1.5).astype(np.float32))
    mapped = (lesson.asked.new - lesson.asked.centre) @ start.W + start.b[1]
    scale = 1.5 * deviation(mapped @ lesson.bank.centred.T + lesson.bank.bias)
    worse, better = (divergence(each, lesson, target, rows, columns, scale)[0] for each in (start, learnt))
    assert better < worse


@given(SEEDS)
def test_the_mean_of_both_is_nearer_to_the_new_models_judgement_and_of_deviation_one(seed):
    lesson = lesson_of(seed, asked=30, stored=40)
    table = _judgement(lesson, slice(None), slice(None), COSINE)
    new = lesson.asked.new @ lesson.bank.new.T / lesson.spread[0]
    old = lesson.asked.old @ lesson.bank.old.T / lesson.spread[1]
    np.testing.assert_allclose(table, (0.65 * new + 0.35 * old) / lesson.spread[2], rtol=2e-4, atol=2e-5)
    assert deviation(table) == pytest.approx(1.0, rel=1e-4)
    apart = table - table.mean(1, keepdims=True)
    near, far = (float((apart * (each - each.mean(1, keepdims=True))).sum()) for each in (new, old))
    assert near > far


# --- the kind ---------------------------------------------------------------------------------------------


def bent(seed=0, *, count=260, kept=60, asked=80, d=12, e=8, queries=True, across=True, stored=True, **options):
    """Return pairs of which the old model sees but some columns of the new one, through a bend and noise."""
    rng = np.random.default_rng(seed)
    new = rows_of(count + kept + 2 * asked + 100, d, rng, clusters=12)
    W = orthonormal(d, e, rng)
    old = unit(np.tanh(3 * new @ W) + 0.25 * rng.standard_normal((len(new), e)) / np.sqrt(e)).astype(np.float64)
    parts = np.split(np.arange(len(new)), np.cumsum([count, kept, asked, asked]))
    fit, held, ask, test, rest = parts
    data = data_of(
        new[fit],
        old[fit],
        role="query",
        kept=(new[held], old[held]),
        queries=new[ask] if queries else None,
        across=old[ask[: asked // 2]] if queries and across else None,
        stored=old[rest] if stored else None,
        seed=seed,
        **options,
    )
    return data, (new[test], old[test])


def overlap(mapped, old_queries, stored, k=5):
    """Return how much of the old model's own top k the mapped queries find."""
    mine = np.argsort(-(mapped @ stored.T), axis=1)[:, :k]
    true = np.argsort(-(old_queries @ stored.T), axis=1)[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(mine, true, strict=True)]))


def test_rankings_are_nearer_to_the_teachers_than_those_of_least_squares():
    gains = []
    for seed in range(3):
        data, (new, old) = bent(seed)
        stored = np.concatenate([data.target, data.stored]).astype(np.float64)
        found = fitted(DISTILL, data, teacher="old", steps=150)
        ridge = fitted(RidgeType(), replace(data, rng=np.random.default_rng(0)))
        rows = new.astype(np.float32)
        gains.append(overlap(found.apply(rows), old, stored) - overlap(ridge.apply(rows), old, stored))
    assert np.mean(gains) > 0.0


@pytest.mark.parametrize("parts", [{}, {"queries": False}, {"across": False}, {"stored": False}])
def test_whatever_is_known_is_fitted_on(parts):
    data, _ = bent(**parts)
    found = fitted(DISTILL, data, steps=5)
    assert found.direction == "query" and found.isometry == "none"
    assert found.fit["queries"] == (0 if parts.get("queries") is False else 80)
    assert np.isfinite(found.apply(data.validation.source)).all()


@pytest.mark.parametrize("count", [20, 80])
def test_few_queries_and_the_old_models_word_alone_count_for_less(count):
    data, _ = bent()
    data = replace(data, queries=data.queries[:count], queries_across=data.queries_across[:10])
    lessons = lessons_of(data, centres_of(data), "mean")
    found = {(each.asked.place, each.teacher, len(each.asked.new), len(each.bank.old)): each.weight for each in lessons}
    share = count / 8000
    assert found == {
        (0, "mean", 260, 260): 1.0,
        (0, "old", 260, 100): 0.1,
        (1, "mean", 10, 260): pytest.approx(share),
        (1, "old", 10, 100): pytest.approx(0.1 * share),
        (1, "new", count - 10, 260): pytest.approx(share),
        (1, "mean", 10, 10): pytest.approx(share),
    }
    assert lessons[-1].asked.place == 1 and lessons[0].asked.place == 0


def test_queries_that_both_models_know_are_ranked_among_themselves():
    data, _ = bent()
    lesson = lessons_of(data, centres_of(data), "mean")[-1]
    assert np.array_equal(lesson.bank.old, data.queries_across) and np.array_equal(lesson.bank.new, data.queries[:40])
    np.testing.assert_allclose(lesson.bank.centred.mean(0), 0.0, atol=1e-6)
    unknown = lessons_of(replace(data, queries_across=None), centres_of(data), "mean")
    assert all(len(each.bank.old) != 40 for each in unknown)


def test_without_a_step_it_is_ridge_regression_for_records_and_says_so():
    data, _ = bent(queries=False)
    found = fitted(DISTILL, data, steps=0)
    ridge = fitted(RidgeType(), data, restore="clip", mean="drop")
    rows = data.validation.source
    np.testing.assert_allclose(unit(found.apply(rows)), unit(ridge.apply(rows)), atol=1e-4)


def test_real_queries_are_centred_by_themselves():
    data, _ = bent()
    moved = np.ascontiguousarray(unit(data.queries + 0.8), np.float32)
    found = fitted(DISTILL, replace(data, queries=moved, validation=None), steps=0)
    mapped = found.apply(moved)
    assert np.linalg.norm(mapped.mean(0)) < 0.05 * np.linalg.norm(mapped, axis=1).mean() + 1e-3
    assert found.fit["distilled"] is True and found.fit["judged"] == -1.0


def test_the_start_is_kept_where_learning_makes_it_clearly_worse():
    data, _ = bent(kept=250, queries=False, stored=False)
    away = fitted(DISTILL, data, rate=10.0, steps=1, batch=1)
    assert away.fit["distilled"] is False
    ridge = fitted(RidgeType(), data, restore="clip", mean="drop")
    assert np.array_equal(away.apply(data.source), ridge.apply(data.source))


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_rotation_is_ranked_as_one_in_every_metric(metric):
    rng = np.random.default_rng(4)
    data = planted_data(orthonormal(8, 8, rng), 200, rng, kept=50, role="query", metric=metric)
    found = fitted(DISTILL, data, steps=100)
    mapped, stored = found.apply(data.validation.source), data.validation.target
    table = mapped @ stored.T - (0.5 * (stored * stored).sum(1) if metric == "l2" else 0.0)
    assert (table.argmax(1) == np.arange(len(stored))).mean() > 0.9


def test_in_spaces_of_distances_mapped_queries_lie_among_the_stored_vectors():
    rng = np.random.default_rng(5)
    source = 2.0 + rows_of(250, 6, rng)
    target = 3.0 * source @ orthonormal(6, 6, rng) + 5.0
    data = data_of(source[:200], target[:200], kept=(source[200:], target[200:]), role="query", metric="l2")
    found = fitted(DISTILL, data, steps=50)
    gaps = np.linalg.norm(found.apply(data.validation.source) - data.validation.target, axis=1)
    spread = np.linalg.norm(data.target - data.target.mean(0), axis=1).mean()
    assert np.median(gaps) < 0.5 * spread


def test_the_same_generator_gives_the_same_map_and_another_seed_another():
    same = [fitted(DISTILL, bent(seed=1)[0], steps=4, batch=16).W for _ in range(2)]
    assert np.array_equal(*same)
    other = fitted(DISTILL, replace(bent(seed=1)[0], rng=np.random.default_rng(99)), steps=4, batch=16).W
    assert not np.array_equal(same[0], other)


def test_it_stops_when_told_to_and_refuses_what_cannot_be_fitted():
    data, _ = bent()
    asked = []
    with pytest.raises(CancelledError):
        fitted(DISTILL, replace(data, cancel=lambda: len(asked) > 8, progress=lambda *steps: asked.append(steps)))
    with pytest.raises(FitError):
        fitted(DISTILL, replace(data, source=data.source[:2], target=data.target[:2]))
    for name in ("stored", "queries_across"):
        spoilt = np.array(getattr(data, name))
        spoilt[1, 2] = np.nan
        with pytest.raises(NonFiniteError) as caught:
            fitted(DISTILL, replace(data, **{name: spoilt}))
        assert caught.value.where == name


def test_a_lesson_knows_its_parts():
    lesson = lesson_of(2, teacher="old")
    assert isinstance(lesson, Lesson) and lesson.teacher == "old"
    assert lesson.spread[0] == lesson.spread[1]
