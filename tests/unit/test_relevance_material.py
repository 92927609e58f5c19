"""What a relevance filter is fitted on: judgements as callers write them, pools against a plain oracle, splits."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.engine.relevance.fitting import KEPT_FROM, split_queries
from vecdb.engine.relevance.material import Pool, given_judgements, make_pool
from vecdb.errors import CancelledError, IdError, ParameterError, UnknownNameError
from vecdb.types import HitColumns, Hits, HitsBatch
from vecdb.verdicts import FilterInfo

# --- judgements -------------------------------------------------------------------------------------------


def test_answers_are_ids_lists_mappings_or_nothing():
    found = given_judgements(6, ["a", ["b", 3], {"c": 2, "d": 0}, None, [], np.int64(7)], None, "pool", None)
    assert found.relevant == (("a",), ("b", 3), ("c",), (), (), (7,))
    assert found.ignore == ((),) * 6 and found.negatives is None
    arrays = given_judgements(2, np.array([4, 5]), [[1], [2]], [[8], [9, 10]], None)
    assert (arrays.relevant, arrays.ignore, arrays.negatives) == (((4,), (5,)), ((1,), (2,)), ((8,), (9, 10)))


def test_queries_of_one_answer_or_one_group_belong_together():
    found = given_judgements(5, ["a", "b", "a", "c", None], None, "pool", None)
    assert found.groups.tolist() == [0, 1, 0, 2, 3]
    joined = given_judgements(5, ["a", "b", "a", "c", None], None, "pool", ["x", "y", "z", "y", None])
    assert joined.groups.tolist() == [0, 1, 0, 1, 2]
    assert given_judgements(3, None, None, "pool", None).groups.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "wishes"),
    [
        ("relevant_ids", {"relevant": ["a"]}),
        ("relevant_ids", {"relevant": "ab"}),
        ("relevant_ids", {"relevant": {"a": 1, "b": 2}}),
        ("relevant_ids", {"relevant": 3}),
        ("relevant_ids[1]", {"relevant": ["a", 1.5]}),
        ("relevant_ids[0]", {"relevant": [b"a", "b"]}),
        ("relevant_ids[1]", {"relevant": ["a", True]}),
        ("ignore_ids", {"ignore": [["a"]]}),
        ("negatives", {"negatives": "others"}),
        ("negatives", {"negatives": [["a"]]}),
        ("relevant_ids[1]", {"relevant": ["a", {"b": "high"}]}),
        ("relevant_ids[0]", {"relevant": [{"a": None}, "b"]}),
        ("relevant_ids[0]", {"relevant": [{"a": float("nan")}, "b"]}),
        ("groups", {"groups": [1]}),
        ("groups", {"groups": 2}),
        ("groups", {"groups": "ab"}),
        ("groups", {"groups": {1: "a", 2: "b"}}),
        ("groups", {"groups": (group for group in (1, 2))}),
        ("groups[1]", {"groups": ["a", ["b"]]}),
    ],
)
def test_what_is_no_judgement_is_refused_by_name(name, wishes):
    given_ = {"relevant": ["a", "b"], "ignore": None, "negatives": "pool", "groups": None} | wishes
    with pytest.raises(ParameterError) as caught:
        given_judgements(2, **given_)
    assert caught.value.name == name


def test_ids_that_are_none_are_refused():
    with pytest.raises(IdError):
        given_judgements(1, [[""]], None, "pool", None)


# --- pools ------------------------------------------------------------------------------------------------


class Store:
    """Fixed scores for each query: a search over them."""

    def __init__(self, scores):
        self.scores, self.asked = scores, []

    def __call__(self, queries, k):
        self.asked.append((len(queries), k))
        rows = []
        for number in queries[:, 0].astype(int):
            order = np.argsort(-self.scores[number], kind="stable")[:k]
            rows.append(Hits(HitColumns(order.tolist(), self.scores[number][order], 1.0), seq=1))
        return HitsBatch(rows, k=k, seq=1)


@st.composite
def asked(draw):
    count, records = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    ids = st.lists(st.integers(0, records + 1), max_size=3)
    lists = st.lists(ids, min_size=count, max_size=count)
    return (
        np.random.default_rng(draw(st.integers(0, 99))).random((count, records)).astype(np.float32),
        draw(lists),
        draw(st.none() | lists),
        draw(st.just("pool") | lists),
        draw(st.integers(1, 12)),
    )


@settings(max_examples=150, deadline=None)
@given(asked())
def test_every_candidate_has_the_label_that_was_given_and_no_answer_is_lost(case):
    scores, relevant, ignore, negatives, depth = case
    count, records = scores.shape
    judged = given_judgements(count, relevant, ignore, negatives, None)
    queries = np.arange(count, dtype=np.float32)[:, None]
    pool = make_pool(Store(scores), queries, judged, depth, records, lambda *_: None, lambda: False)
    assert pool.scores.shape == (count, min(depth, records))
    for row in range(count):
        order = np.argsort(-scores[row], kind="stable")[:depth].tolist()
        assert pool.ids[row] == order
        for column, id in enumerate(order):
            if id in relevant[row]:
                label = 1
            elif negatives == "pool" or id in negatives[row]:
                label = 0
            else:
                label = -1
            assert pool.labels[row, column] == label
            assert pool.ignore[row, column] == (ignore is not None and id in ignore[row] and id not in relevant[row])
        lost = sorted(float(scores[row, id]) for id in set(relevant[row]) - set(order) if id < records)
        assert sorted(score for query, score in pool.missed.tolist() if query == row) == pytest.approx(lost)


def test_nothing_judged_means_no_labels():
    judged = given_judgements(2, None, None, "pool", None)
    pool = make_pool(
        Store(np.eye(2, 4, dtype=np.float32)),
        np.eye(2, 1, dtype=np.float32),
        judged,
        3,
        4,
        lambda *_: None,
        lambda: False,
    )
    assert pool.labels is None and not len(pool.missed) and not pool.ignore.any()


def test_queries_are_asked_in_blocks_and_between_them_the_caller_is_asked():
    scores = np.random.default_rng(0).random((300, 5)).astype(np.float32)
    judged, told = given_judgements(300, [[0]] * 300, None, "pool", None), []
    store = Store(scores)
    make_pool(
        store, np.arange(300.0)[:, None], judged, 5, 5, lambda done, total: told.append((done, total)), lambda: False
    )
    assert told == [(128, 300), (256, 300), (300, 300)]
    assert [size for size, _ in store.asked] == [128, 128, 44]
    with pytest.raises(CancelledError):
        make_pool(store, np.arange(300.0)[:, None], judged, 5, 5, lambda *_: None, lambda: len(told) > 0)


def test_an_answer_beyond_the_deepest_search_scores_less_than_everything_found(monkeypatch):
    monkeypatch.setattr("vecdb.engine.relevance.material.MAX_K", 3)
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]], np.float32)
    judged = given_judgements(1, [[4]], None, "pool", None)
    pool = make_pool(Store(scores), np.zeros((1, 1)), judged, 2, 5, lambda *_: None, lambda: False)
    assert len(pool.missed) == 1 and pool.missed[0, 1] < 0.7 and pool.missed[0, 1] == pytest.approx(0.7)


def test_part_of_a_pool_has_its_own_numbers():
    whole = Pool(
        np.arange(6.0, dtype=np.float32).reshape(3, 2),
        [[1], [2], [3]],
        np.array([[0.1], [0.2], [0.3]], np.float32),
        np.array([[1], [0], [1]], np.int8),
        np.zeros((3, 1), bool),
        np.array([[0, 0.5], [2, 0.7]], np.float32),
        np.array([4, 5, 6]),
    )
    some = whole.take(np.array([2, 1]))
    assert some.ids == [[3], [2]] and some.labels.ravel().tolist() == [1, 0] and some.groups.tolist() == [6, 5]
    assert some.missed.tolist() == [[0.0, pytest.approx(0.7)]]


# --- from outside -----------------------------------------------------------------------------------------


def test_queries_that_are_one_group_are_all_fitted_on_and_wrong_wishes_are_named(tmp_path):
    rows = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=4)
        docs.upsert(range(60), {"m": rows})
        given_ = {"queries": rows[:40], "relevant_ids": [[7]] * 40}  # one answer: none may be kept back from the others
        info = docs.fit_relevance("one", "threshold", **given_)
        assert (info.report["fitted_on"], info.report["measured_on"]) == (40, 0)
        for wrong in ([1], "by", 3):
            with pytest.raises(ParameterError, match="expected a mapping"):
                docs.fit_relevance("two", "threshold", **given_, params=wrong)
        for wrong in ("none", ["none"], 3):
            with pytest.raises(UnknownNameError):
                docs.fit_relevance("two", "threshold", **given_, correction=wrong)
        assert docs.relevance_filters == (info,)


# --- splits -----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 60), min_size=1, max_size=150), st.integers(0, 9))
def test_a_quarter_of_the_queries_is_kept_back_and_no_group_is_split(keys, seed):
    groups = np.unique(keys, return_inverse=True)[1]
    fit, kept = split_queries(groups, seed)
    assert sorted([*fit.tolist(), *kept.tolist()]) == list(range(len(groups)))
    assert not set(groups[fit]) & set(groups[kept])
    assert len(fit)
    if len(groups) < KEPT_FROM:
        assert not len(kept)
    elif len(kept):
        assert len(kept) >= 0.25 * len(groups) - 1
    else:
        assert np.bincount(groups).max() > 0.75 * len(groups) - 1
    again = split_queries(groups, seed)
    assert np.array_equal(fit, again[0]) and np.array_equal(kept, again[1])


# --- hits -------------------------------------------------------------------------------------------------


def columns(count):
    scores = np.linspace(0.9, 0.1, count).astype(np.float32)
    facts = [{"n": place} for place in range(count)]
    return HitColumns([f"r{place}" for place in range(count)], scores, 1.0, "m", facts, raws=scores / 2)


@given(st.integers(0, 8), st.data())
def test_judged_hits_keep_everything_else(count, data):
    kept = sorted(data.draw(st.sets(st.integers(0, max(count - 1, 0)), max_size=count))) if count else []
    said = np.linspace(0.8, 0.2, count).astype(np.float32)
    plain = Hits(columns(count), seq=3, plan=None, warnings=("careful",))
    for hits in (plain, Hits(list(plain), seq=3, warnings=("careful",))):
        found = hits.judged(said, kept, count - len(kept))
        assert found.ids == [f"r{place}" for place in kept] and found.dropped == count - len(kept)
        assert [hit.relevance for hit in found] == pytest.approx([float(said[place]) for place in kept])
        assert [hit.metadata for hit in found] == [{"n": place} for place in kept]
        assert found.scores.tolist() == plain.scores[kept].tolist()
        assert [hit.raw_score for hit in found] == pytest.approx((plain.scores[kept] / 2).tolist())
        assert (found.seq, found.warnings, found.complete) == (3, ("careful",), True)
        assert found.distances.tolist() == pytest.approx(plain.distances[kept].tolist())
        assert [hit.relevance for hit in pickle.loads(pickle.dumps(found))] == [hit.relevance for hit in found]
    assert [hit.relevance for hit in plain] == [None] * count


def test_groups_lose_what_was_dropped():
    from vecdb.explored import Group

    hits = Hits(columns(4), seq=1)
    hits.groups = (Group("a", ("r0", "r1")), Group("b", ("r2",)), Group(None, ("r3",)))
    found = hits.judged(np.ones(4, np.float32), [1, 3], 2)
    assert found.groups == (Group("a", ("r1",)), Group(None, ("r3",)))


def test_a_description_is_a_plain_value():
    facts = dict.fromkeys(FilterInfo.__slots__, 1)
    assert pickle.loads(pickle.dumps(FilterInfo(**facts))) == FilterInfo(**facts)
    assert SimpleNamespace(**facts).stale == 1
