"""Choosing by retrieval: whose nearest record must come first, over which records, and when a choice gives way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, planted_data, rows_of
from vecdb.testing.planted import unit
from vecdb.transforms.judge import FEWEST, MOST_ASKED, MOST_KEPT, best_of, judge_of, similarities
from vecdb.transforms.procrustes import ProcrustesType
from vecdb.transforms.ridge import RidgeType

SEEDS = st.integers(0, 10_000)


def kept_data(seed, role, *, count=60, queries=0, metric="cosine", widths=(5, 7)):
    rng = np.random.default_rng(seed)
    X, Y = rows_of(count, widths[0], rng), rows_of(count, widths[1], rng)
    asked = rows_of(queries, widths[0 if role == "query" else 1], rng) if queries else None
    return data_of(X[:5], Y[:5], role=role, kept=(X, Y), queries=asked, metric=metric)


def score_of(query, record, metric):
    if metric == "l2":
        return -sum((a - b) ** 2 for a, b in zip(query, record, strict=True))
    product = sum(a * b for a, b in zip(query, record, strict=True))
    return product if metric == "dot" else product / (np.linalg.norm(query) * np.linalg.norm(record))


@given(SEEDS, st.sampled_from(["query", "gallery"]), st.sampled_from(["cosine", "dot", "l2"]), st.sampled_from([0, 25]))
def test_the_score_is_the_mean_reciprocal_rank_of_what_the_new_model_finds_nearest(seed, role, metric, queries):
    data = kept_data(seed, role, count=24, queries=queries, metric=metric)
    judge, kept = judge_of(data), data.validation
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((5, 7))
    new, old = (kept.source, kept.target) if role == "query" else (kept.target, kept.source)
    asked = data.queries if queries else new
    total = 0.0
    for place, query in enumerate(asked):
        bridged = query @ W if role == "query" else query
        records = old if role == "query" else old @ W
        others = [i for i in range(24) if queries or i != place]
        truth = max(others, key=lambda i: score_of(query, new[i], metric))
        own = score_of(bridged, records[truth], metric)
        total += 1 / sum(score_of(bridged, records[i], metric) >= own - 1e-7 for i in others)
    np.testing.assert_allclose(judge.score(judge.rows @ W), total / len(asked), atol=1e-3)


def test_a_map_that_makes_all_records_alike_is_the_worst_there_is():
    """Ties count against the map: with everything equal the record comes last."""
    judge = judge_of(kept_data(1, "gallery"))
    assert judge.score(np.ones((60, 7), np.float32)) == pytest.approx(1 / 59)


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_the_true_map_gets_everything_right(role):
    rng = np.random.default_rng(2)
    W = orthonormal(6, 6, rng)
    data = planted_data(W, 10, rng, kept=50, role=role)
    judge = judge_of(data)
    assert judge.score(judge.rows @ W) == 1.0
    assert judge.score(judge.rows @ orthonormal(6, 6, rng)) < 0.9


def test_too_little_is_no_judge():
    assert judge_of(data_of(np.ones((3, 2)), np.ones((3, 2)))) is None
    assert judge_of(kept_data(1, "query", count=FEWEST - 1)) is None
    assert judge_of(kept_data(1, "query", count=FEWEST)).masked
    assert judge_of(kept_data(1, "query", count=40, queries=FEWEST - 1)).masked
    assert not judge_of(kept_data(1, "query", count=40, queries=FEWEST)).masked


def test_what_is_compared_is_bounded():
    judge = judge_of(kept_data(1, "query", count=4 * MOST_KEPT, queries=3 * MOST_ASKED))
    assert len(judge.rows) <= MOST_ASKED and len(judge.other) <= MOST_KEPT
    judge = judge_of(kept_data(1, "gallery", count=2 * MOST_KEPT))
    assert len(judge.other) <= MOST_ASKED and len(judge.rows) <= MOST_KEPT


class Scripted:
    """A judge that answers with given reciprocal ranks."""

    def __init__(self, **ranks):
        self.ranks = {name: np.array(values, np.float64) for name, values in ranks.items()}

    def reciprocal_ranks(self, mapped):
        return self.ranks[mapped]


def chosen(*order, **ranks):
    return best_of(Scripted(**ranks), order, lambda each: each)


def test_the_first_of_equals_is_chosen():
    assert chosen("one", "two", one=[1, 0.5], two=[0.5, 1]) == ("one", 0.75)


def test_a_clear_winner_is_chosen_wherever_it_stands():
    assert chosen("one", "two", one=[0.1] * 50, two=[0.9] * 50) == ("two", pytest.approx(0.9))


def test_a_small_gain_over_few_queries_does_not_displace_what_comes_first():
    noisy = np.random.default_rng(1).uniform(0, 1, 50)
    other = np.random.default_rng(2).uniform(0, 1, 50)
    other += noisy.mean() - other.mean() + 0.05
    assert chosen("one", "two", one=noisy, two=other)[0] == "one"
    assert chosen("one", "two", one=np.tile(noisy, 400), two=np.tile(other, 400))[0] == "two"


@given(SEEDS, st.sampled_from(["cosine", "dot", "l2"]))
def test_similarities_order_as_scores_do(seed, metric):
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((3, 4)), rng.standard_normal((9, 4))
    table = similarities(one, other, metric)
    assert table.dtype == np.float32
    for i in range(3):
        exact = [score_of(one[i], other[j], metric) for j in range(9)]
        assert table[i].argmax() == np.argmax(exact)
        assert np.corrcoef(table[i], exact)[0, 1] > 0.999999


# --- what the kinds choose --------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["query", "gallery"])
@pytest.mark.parametrize("kind", [ProcrustesType(), RidgeType()], ids=lambda kind: kind.name)
def test_on_a_rotation_of_an_anisotropic_space_the_plain_map_is_chosen(kind, role):
    """What helps real models (rows to one length, the mean dropped) would harm here; the kept-back pairs say so."""
    rng = np.random.default_rng(8)
    X = unit(rng.standard_normal((900, 12)) * np.geomspace(2.0, 0.3, 12) + 0.9)
    W = orthonormal(12, 12, rng)
    Y = X @ W
    made = fitted(kind, data_of(X[:500], Y[:500], kept=(X[500:], Y[500:]), role=role))
    assert made.fit["mean"] is True and made.fit["restore"] in ("none", "ls", "global")
    rows = X[500:510]
    mapped = made.apply(rows)
    np.testing.assert_allclose(unit(mapped), rows @ W, atol=0.02)


def test_without_kept_back_pairs_the_usual_finish_is_taken():
    rng = np.random.default_rng(8)
    for role, mean in (("query", False), ("gallery", True)):
        data = planted_data(orthonormal(6, 6, rng), 60, rng, noise=0.3, role=role)
        one, other = fitted(ProcrustesType(), data).fit, fitted(RidgeType(), data).fit
        assert (one["restore"], one["mean"], one["judged"]) == ("unit" if mean else "global", mean, -1.0)
        assert (other["restore"], other["mean"], other["judged"]) == ("clip", mean, -1.0)


def test_a_setting_is_not_chosen_again():
    rng = np.random.default_rng(8)
    data = planted_data(orthonormal(6, 6, rng), 60, rng, noise=0.3, kept=60, role="query")
    made = fitted(RidgeType(), data, restore="polar", mean="keep", penalty=0.5).fit
    assert (made["restore"], made["mean"], made["penalty"]) == ("polar", True, 0.5)
