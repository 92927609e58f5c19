"""Searches from examples, with feedback, diversified, grouped: against plain oracles, for every metric."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from tests.unit.test_bridge_answers import World
from vecdb import MMR, Feedback, Mixture
from vecdb.errors import (
    DimensionError,
    ParameterError,
    RecordMissingError,
    SpaceMismatchError,
    VectorMissingError,
    ZeroVectorError,
)

METRICS = ("cosine", "dot", "l2")
D = 8


def scores_of(metric, query, rows):
    query, rows = np.asarray(query, np.float64), np.asarray(rows, np.float64)
    if metric == "cosine":
        return rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    return rows @ query if metric == "dot" else -np.linalg.norm(rows - query, axis=1)


def unit(metric, rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows


class Store:
    """A collection of one space, and the same as plain arrays; a record's id is its place."""

    def __init__(self, db, metric="cosine", n=150, seed=0, name="docs", groups=6):
        rng = np.random.default_rng(seed)
        self.metric = metric
        self.rows = (rng.standard_normal((n, D)) + 1.5 * rng.standard_normal((8, D))[rng.integers(0, 8, n)]).astype(
            "f4"
        )
        self.group = [int(g) for g in np.minimum(rng.geometric(0.3, n), groups)]
        self.docs = db.create_collection(name)
        self.docs.add_space("s", dim=D, metric=metric)
        metadata = [{"n": i, "even": i % 2 == 0, "deep": {"group": g}} for i, g in enumerate(self.group)]
        self.docs.upsert(list(range(n)), {"s": self.rows}, metadata=metadata)
        self.queries = rng.standard_normal((5, D)).astype("f4")

    def ranking(self, query, allowed=None):
        scores = scores_of(self.metric, query, self.rows).astype(np.float32)
        places = np.arange(len(self.rows)) if allowed is None else np.asarray(sorted(allowed), int)
        return places[np.lexsort((places, -scores[places]))].tolist(), scores

    def rocchio(self, parts):
        """Return the weighted query of ``[(weight, vectors)]``, written out."""
        total = sum(weight for weight, rows in parts if len(rows))
        return sum(weight * unit(self.metric, rows).mean(axis=0) for weight, rows in parts if len(rows)) / total


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


@pytest.fixture(params=METRICS)
def store(db, request):
    return Store(db, request.param)


# --- several records to be like ---


def test_several_likes_are_one_search_each(store):
    found = store.docs.search(like=[3, 9, 3], k=7)
    assert found.scores.shape == (3, 7)
    for id, hits in zip([3, 9, 3], found, strict=True):
        alone = store.docs.search(like=id, k=7)
        assert hits.ids == alone.ids and hits.scores.tolist() == alone.scores.tolist()
        assert id not in hits.ids
    one = store.docs.search(like=[3], k=7)
    assert isinstance(one, vecdb.HitsBatch) and one[0].ids == found[0].ids
    assert store.docs.search(like=np.array([3, 9]), k=7).ids == found.ids[:2]


def test_several_likes_must_all_be_there(store):
    with pytest.raises(RecordMissingError):
        store.docs.search(like=[3, 999])
    with pytest.raises(ParameterError, match="names no record"):
        store.docs.search(like=[])
    with pytest.raises(ParameterError, match="either a query or like"):
        store.docs.search(store.queries[0], like=[3])


# --- examples ---


def test_examples_make_one_query_after_rocchio(store):
    cases = [
        ({"positive": [3, 5]}, None, [(0.75, [3, 5])]),
        ({"positive": [3, 5], "negative": [8]}, None, [(0.75, [3, 5]), (-0.15, [8])]),
        ({"positive": [3], "negative": [8, 9], "weights": (0.0, 1.0, 0.5)}, None, [(1.0, [3]), (-0.5, [8, 9])]),
        ({"positive": [3]}, 0, [(0.75, [3])]),
        ({"negative": [8]}, 0, [(-0.15, [8])]),
    ]
    for given_, query, parts in cases:
        weights = [(weight, store.rows[places]) for weight, places in parts]
        if query is not None:
            weights.append((1.0, store.queries[query : query + 1]))
        used = {place for _, places in parts for place in places}
        ranked, scores = store.ranking(store.rocchio(weights), set(range(150)) - used)
        hits = store.docs.search(None if query is None else store.queries[query], k=10, **given_)
        assert hits.ids == ranked[:10]
        np.testing.assert_allclose(hits.scores, scores[ranked[:10]], rtol=2e-5, atol=2e-6)


def test_vectors_are_examples_too_and_are_nobody(store):
    by_id = store.docs.search(positive=[3, 5], k=20)
    by_vector = store.docs.search(positive=[store.rows[3], store.rows[5]], k=150)
    assert len(by_vector) == 150
    assert [id for id in by_vector.ids if id not in (3, 5)][:20] == by_id.ids
    mixed = store.docs.search(positive=[3, store.rows[5].tolist()], k=5)
    assert 3 not in mixed.ids
    assert store.docs.search(positive=store.rows[[3, 5]], k=150).ids == by_vector.ids


def test_an_example_given_twice_counts_twice(store):
    twice = store.docs.search(positive=[3, 3, 5], k=5)
    by_hand = store.rocchio([(1.0, store.rows[[3, 3, 5]])])
    assert twice.ids == store.ranking(by_hand, set(range(150)) - {3, 5})[0][:5]


def test_examples_join_every_query_of_a_batch(store):
    found = store.docs.search(store.queries, positive=[3], negative=[4], k=6)
    for query, hits in zip(store.queries, found, strict=True):
        alone = store.docs.search(query, positive=[3], negative=[4], k=6)
        assert hits.ids == alone.ids and hits.scores.tolist() == alone.scores.tolist()


def test_no_examples_are_no_change(store):
    plain = store.docs.search(store.queries[0], k=5)
    assert store.docs.search(store.queries[0], positive=[], negative=[], k=5).scores.tolist() == plain.scores.tolist()
    with pytest.raises(ParameterError, match="either a query or like"):
        store.docs.search(positive=[], k=5)


def test_examples_respect_conditions_deletions_offsets_and_the_past(store):
    before = store.docs.search(positive=[3, 4], k=150)
    assert len(before) == 148 and before.complete
    even = store.docs.search(positive=[3, 4], where={"even": True}, k=5, offset=2)
    assert even.ids == [id for id in before.ids if id % 2 == 0][2:7]
    store.docs.delete(before.ids[:3])
    assert store.docs.search(positive=[3, 4], k=5).ids == before.ids[3:8]
    assert store.docs.search(positive=[3, 4], k=150, as_of=before.seq).ids == before.ids
    with pytest.raises(RecordMissingError):
        store.docs.search(positive=[before.ids[0]])


def test_examples_that_are_none_are_refused(db):
    store = Store(db)
    refuse = [
        ({"positive": 3}, ParameterError),
        ({"positive": "a"}, ParameterError),
        ({"positive": [0.5] * D}, ParameterError),
        ({"positive": [[0.5] * (D + 1)]}, DimensionError),
        ({"positive": [[0.0] * D]}, ZeroVectorError),
        ({"negative": [3]}, ParameterError),
        ({"positive": [3], "weights": (1, 2)}, ParameterError),
        ({"positive": [3], "weights": (1, -2, 0)}, ParameterError),
        ({"positive": [3], "negative": [4], "weights": (1, 0.5, 0.5)}, ParameterError),
        ({"positive": [3], "like": 4}, ParameterError),
        ({"weights": (1, 1, 1), "like": 4}, ParameterError),
        ({"positive": [3], "rerank": "native", "encode": len}, ParameterError),
        ({"positive": [999]}, RecordMissingError),
    ]
    for given_, error in refuse:
        with pytest.raises(error):
            store.docs.search(**given_)
    store.docs.upsert(["bare"])
    with pytest.raises(VectorMissingError, match="is an example"):
        store.docs.search(positive=["bare"])


# --- feedback ---


def test_feedback_moves_the_query_to_the_mean_of_its_answers(store):
    for rule in (Feedback(), Feedback(3, 1.0, 2.0, 2), Feedback(1, 0.0, 1.0)):
        found = store.docs.search(store.queries, feedback=rule, k=8)
        for query, hits in zip(store.queries, found, strict=True):
            moved = query
            for _ in range(rule.rounds):
                best = store.ranking(moved)[0][: rule.documents]
                moved = store.rocchio([(rule.query, query[None]), (rule.mean, store.rows[best])]).astype("f4")
            assert hits.ids == store.ranking(moved)[0][:8]
    assert store.docs.search(store.queries[0], feedback=True).ids == store.docs.search(store.queries[0], feedback=5).ids
    plain = store.docs.search(store.queries[0])
    assert store.docs.search(store.queries[0], feedback=False).scores.tolist() == plain.scores.tolist()


def test_feedback_learns_from_what_satisfies_the_condition(store):
    hits = store.docs.search(store.queries[0], feedback=3, where={"even": True}, k=5, min_score=-1e9, explain=True)
    even = [i for i in range(150) if i % 2 == 0]
    best = store.ranking(store.queries[0], even)[0][:3]
    moved = store.rocchio([(1.0, store.queries[:1]), (0.25, store.rows[best])]).astype("f4")
    assert hits.ids == store.ranking(moved, even)[0][:5]
    assert hits.plan["feedback"] == 3
    nothing = store.docs.search(store.queries[0], feedback=3, where={"n": -1})
    assert len(nothing) == 0 and nothing.complete


@pytest.mark.parametrize(
    "wrong", ["yes", 0, Feedback(0), Feedback(rounds=11), Feedback(query=-1), Feedback(query=0, mean=0)]
)
def test_feedback_that_makes_no_sense_is_refused(db, wrong):
    with pytest.raises(ParameterError):
        Store(db).docs.search([1.0] * D, feedback=wrong)


# --- maximal marginal relevance ---


def plain_mmr(metric, scores, rows, k, trade):
    chosen = []
    while len(chosen) < min(k, len(rows)):
        values = {}
        for place in range(len(rows)):
            if place not in chosen:
                like = [float(scores_of(metric, rows[c], rows[place : place + 1])[0]) for c in chosen]
                values[place] = trade * float(scores[place]) - ((1 - trade) * max(like) if like else 0.0)
        best = max(values.values())
        chosen.append(min(place for place, value in values.items() if value == best))
    return chosen


def test_mmr_is_carbonell_and_goldstein(store):
    for trade in (0.0, 0.3, 0.7, 1.0):
        rule = MMR(trade, 30)
        found = store.docs.search(store.queries, k=6, diversify=rule, explain=True)
        assert found.plan["diversify"] == "mmr" and found.plan["candidates"] == 30
        for query, hits in zip(store.queries, found, strict=True):
            ranked, scores = store.ranking(query)
            pool = ranked[:30]
            wanted = plain_mmr(store.metric, scores[pool], store.rows[pool], 6, trade)
            assert hits.ids == [pool[place] for place in wanted]
            np.testing.assert_allclose(hits.scores, scores[hits.ids], rtol=2e-5, atol=2e-6)


def test_mmr_with_nothing_but_relevance_is_the_plain_search(store):
    plain = store.docs.search(store.queries, k=6, offset=2)
    spread = store.docs.search(store.queries, k=6, offset=2, diversify=MMR(1.0))
    assert plain.ids == spread.ids and plain.scores.tolist() == spread.scores.tolist()
    assert [hit.metadata for hit in plain[0]] == [hit.metadata for hit in spread[0]]
    every = store.docs.search(store.queries[0], k=150, diversify="mmr", include=("vectors",))
    assert sorted(every.ids) == list(range(150))
    assert np.array_equal(every[0].vectors["s"], store.rows[every[0].id]) and every[0].metadata is None


def test_duplicates_come_late_with_mmr(db):
    store = Store(db)
    store.docs.upsert([f"copy{i}" for i in range(5)], {"s": np.repeat(store.queries[:1], 5, axis=0)})
    ids = store.docs.search(store.queries[0], k=5, diversify=MMR(0.5)).ids
    assert sum(str(id).startswith("copy") for id in ids) == 1
    assert store.docs.search(store.queries[0], k=5).ids == [f"copy{i}" for i in range(5)]


# --- mixture of clusters ---


@settings(max_examples=150)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 300), st.floats(0, 1))
def test_shares_are_whole_sum_up_and_keep_to_the_quota(sizes, k, smoothing):
    from vecdb.engine.exploring.mixture import shares

    wide = np.array(sizes, np.int64)
    k = min(k, int(wide.sum()))
    got = shares(wide, k, smoothing)
    assert got.sum() == k and (got >= 0).all() and (got <= wide).all()
    if smoothing == 0:
        assert (np.abs(got - k * wide / wide.sum()) < 1 + 1e-6).all()  # the quota rule of largest remainders


def plain_clusters(rows, count):
    """k-means as it is told: started from the farthest, nearest centre first, until nothing moves."""
    rows = np.asarray(rows, np.float64)
    chosen = [0]
    while len(chosen) < min(count, len(rows)):
        far = [min(((row - rows[c]) ** 2).sum() for c in chosen) for row in rows]
        if max(far) <= 0:
            break
        chosen.append(far.index(max(far)))
    centres, owner = [rows[c] for c in chosen], None
    for _ in range(51):
        new = [min(range(len(centres)), key=lambda c: (((row - centres[c]) ** 2).sum(), c)) for row in rows]
        if new == owner:
            break
        owner = new
        centres = [
            rows[[o == c for o in owner]].mean(axis=0) if c in owner else centres[c] for c in range(len(centres))
        ]
    first = list(dict.fromkeys(owner))
    return [first.index(o) for o in owner]


@settings(max_examples=40)
@given(st.integers(1, 25), st.integers(1, 6), st.integers(0, 10_000))
def test_clusters_are_those_of_plain_k_means(n, count, seed):
    from vecdb.engine.exploring.mixture import clusters

    rows = np.random.default_rng(seed).standard_normal((n, 3)).astype("f4")
    assert clusters(rows, count).tolist() == plain_clusters(rows, count)


def test_equal_vectors_are_one_cluster():
    from vecdb.engine.exploring.mixture import choose, clusters

    assert clusters(np.ones((5, 3), "f4"), 4).tolist() == [0] * 5
    assert choose(np.ones(5, "f4"), np.ones((5, 3), "f4"), 3, 4, 0.5) == [0, 1, 2]
    assert choose(np.empty(0, "f4"), np.empty((0, 3), "f4"), 3, 4, 0.5) == []


def test_mixture_gives_each_cluster_its_share(store):
    for rule in (Mixture(4, 60), Mixture(3, 40, 1.0), "mixture"):
        made = Mixture() if rule == "mixture" else rule
        found = store.docs.search(store.queries, k=10, diversify=rule)
        for query, hits in zip(store.queries, found, strict=True):
            ranked, scores = store.ranking(query)
            pool = ranked[: made.candidates]
            owner = plain_clusters(unit(store.metric, store.rows[pool]).astype("f4"), made.clusters)
            counts = {c: sum(owner[pool.index(id)] == c for id in hits.ids) for c in set(owner)}
            for c in counts:  # the best of each cluster, in the order of scores
                mine = [id for place, id in enumerate(pool) if owner[place] == c]
                assert [id for id in hits.ids if id in mine] == mine[: counts[c]]
            if made.smoothing == 1:
                room = [owner.count(c) for c in counts]
                assert max(counts.values()) - min(counts.values()) <= 1 or min(room) < 4
            assert (np.diff(hits.scores) <= 0).all() and len(hits) == 10
            assert hits.ids == sorted(hits.ids, key=lambda id: (-scores[id], id))


def test_shares_know_what_a_list_can_fill():
    from vecdb.engine.exploring.mixture import shares

    assert shares(np.array([9, 1]), 10, 0.0, np.array([4, 20])).tolist() == [4, 6]
    assert shares(np.array([9, 1]), 10, 0.0, np.array([20, 20])).tolist() == [9, 1]


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.integers(0, 20), max_size=12, unique=True), min_size=1, max_size=4),
    st.integers(1, 30),
    st.floats(0, 1),
)
def test_lists_are_dealt_without_a_record_twice_and_never_too_few(lists, k, smoothing):
    from vecdb.engine.exploring.mixture import deal

    dealt = deal(lists, np.ones(len(lists), np.int64), k, smoothing)
    rows = [lists[number][place] for number, place in dealt]
    assert len(set(rows)) == len(rows) == min(k, len({row for each in lists for row in each}))


def test_several_interests_are_not_their_mean(store):
    """Two far examples: their mean lies where neither is; a mixture asks for the neighbours of both."""
    far = int(np.argmin(scores_of("cosine", store.rows[3], store.rows)))
    mixed = store.docs.search(positive=[3, far], diversify=Mixture(2), k=10, explain=True)
    used = {3, far}
    one, one_scores = store.ranking(store.rows[3], set(range(150)) - used)
    other, other_scores = store.ranking(store.rows[far], set(range(150)) - used)
    if store.metric != "dot":  # there the lists may overlap
        wanted = {id: one_scores[id] for id in one[:5]} | {id: other_scores[id] for id in other[:5]}
        assert set(mixed.ids) == set(wanted) and mixed.plan["clusters"] == (1, 1)
        assert mixed.ids == sorted(wanted, key=lambda id: (-wanted[id], id))
    assert len(set(mixed.ids)) == 10 and (np.diff(mixed.scores) <= 0).all()
    every = store.docs.search(positive=[3, far], diversify=Mixture(2), k=150)
    assert sorted([*every.ids, 3, far]) == list(range(150))
    shifted = store.docs.search(positive=[3, far], diversify=Mixture(2), k=8, offset=2)
    assert shifted.ids == store.docs.search(positive=[3, far], diversify=Mixture(2), k=10).ids[2:]
    with pytest.raises(ParameterError, match="feedback"):
        store.docs.search(positive=[3, far], diversify="mixture", feedback=True)


@pytest.mark.parametrize(
    "wrong", ["max", 3, MMR(1.5), MMR(candidates=0), Mixture(1), Mixture(smoothing=-1), Mixture(candidates=20_000)]
)
def test_a_spread_that_makes_no_sense_is_refused(db, wrong):
    with pytest.raises(ParameterError):
        Store(db).docs.search([1.0] * D, diversify=wrong)


# --- groups ---


def plain_groups(ranked, value, k, per_group, offset=0):
    groups = {}
    for id in ranked:
        groups.setdefault(value(id), []).append(id)
    chosen = list(groups.items())[offset : offset + k]  # dicts keep the order of the best hits
    return [(name, tuple(ids[:per_group])) for name, ids in chosen]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(METRICS),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(1, 4),
    st.integers(0, 1000),
)
def test_groups_are_those_of_the_whole_ranking(tmp_path_factory, metric, k, per_group, offset, filtered, groups, seed):
    with vecdb.open(tmp_path_factory.mktemp("g") / "a.vecdb", automatic=False) as db:
        store = Store(db, metric, n=400, seed=seed, groups=groups)
        where = {"even": True} if filtered else None
        found = store.docs.search(
            store.queries, k=k, offset=offset, group_by="deep.group", per_group=per_group, where=where
        )
        assert found.scores.shape == (5, k * per_group)
        allowed = [i for i in range(400) if not filtered or i % 2 == 0]
        for query, hits in zip(store.queries, found, strict=True):
            ranked, _ = store.ranking(query, allowed)
            wanted = plain_groups(ranked, lambda id: store.group[id], k, per_group, offset)
            assert [(group.value, group.ids) for group in hits.groups] == wanted
            assert hits.ids == [id for _, ids in wanted for id in ids] and hits.complete


def test_one_group_that_holds_nearly_everything_hides_no_other(db):
    docs = db.create_collection("docs")
    docs.add_space("s", dim=2)
    angles = np.linspace(0, 1.5, 3_000)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    metadata = [{"g": "big" if i < 2_990 else f"small{i % 5}"} for i in range(3_000)]
    docs.upsert(list(range(3_000)), {"s": vectors}, metadata=metadata)
    hits = docs.search([1.0, 0.0], k=6, group_by="g", explain=True)
    assert [group.value for group in hits.groups] == ["big", *(f"small{i}" for i in range(5))]
    assert hits.plan["questions"] == 2 and hits.plan["groups"] == 6
    few = docs.search([1.0, 0.0], k=100, group_by="g", per_group=2)
    assert len(few.groups) == 6 and len(few) == 12 and few.complete


def test_values_are_grouped_as_conditions_compare_them(db):
    docs = db.create_collection("docs")
    docs.add_space("s", dim=2)
    values = [1, 1.0, True, "1", None, float("nan"), float("nan"), [1, 2], [1, 2.0], [2, 1], {"a": 1}, {"a": True}]
    metadata = [{"v": value} for value in values] + [{}]
    docs.upsert(list(range(13)), {"s": [[1.0, i / 50] for i in range(13)]}, metadata=metadata)
    groups = docs.search([1.0, 0.0], k=20, group_by="v", per_group=9).groups
    assert [group.ids for group in groups] == [
        (0, 1), (2,), (3,), (4, 12), (5, 6), (7, 8), (9,), (10,), (11,)
    ]  # fmt: skip
    assert groups[3].value is None and groups[1].value is True


def test_groups_follow_changes_of_metadata_and_read_the_past(store):
    first = store.docs.search(store.queries[0], k=3, group_by="deep.group")
    best = first.ids[0]
    store.docs.set_metadata([best], [{"deep": {"group": "new"}}])
    now = store.docs.search(store.queries[0], k=3, group_by="deep.group")
    assert now.groups[0].value == "new" and now.groups[0].ids == (best,)
    then = store.docs.search(store.queries[0], k=3, group_by="deep.group", as_of=first.seq)
    assert then.groups == first.groups
    store.docs.delete([best])
    assert best not in store.docs.search(store.queries[0], k=3, group_by="deep.group").ids
    assert store.docs.search(store.queries[0], k=3, group_by="deep.group", as_of=now.seq).groups == now.groups


def test_groups_that_a_least_score_leaves_empty_are_none(store):
    plain = store.docs.search(store.queries[0], k=150)
    least = float(plain.scores[3])
    hits = store.docs.search(store.queries[0], k=50, group_by="n", min_score=least)
    assert hits.ids == plain.ids[:4] and hits.complete


def test_a_time_out_between_questions_is_said(db, monkeypatch):
    from vecdb.engine.exploring import grouping

    store = Store(db, n=400, groups=2)
    monkeypatch.setattr(grouping, "time", SimpleNamespace(monotonic=lambda: float("inf")))
    hits = store.docs.search(store.queries[0], k=3, group_by="deep.group", per_group=20, timeout=60.0)
    assert not hits.complete and "time-out" in hits.reason and len(hits) > 0
    assert store.docs.search(store.queries[0], k=3, group_by="deep.group", per_group=20).complete


@pytest.mark.parametrize("wrong", [3, "", "-n", "a$b"])
def test_a_field_that_is_none_is_refused(db, wrong):
    with pytest.raises(ParameterError, match=r"group_by|order_by"):
        Store(db).docs.search([1.0] * D, group_by=wrong)


def test_what_does_not_combine_is_refused(db):
    docs = Store(db).docs
    for given_ in (
        {"group_by": "n", "diversify": "mmr"},
        {"per_group": 2},
        {"group_by": "n", "per_group": 0},
        {"group_by": "n", "rerank": "native"},
    ):
        with pytest.raises(ParameterError):
            docs.search([1.0] * D, **given_)


# --- with an index, bridged, in one call with others ---


def test_an_index_changes_nothing_but_what_it_misses(db):
    store = Store(db, n=600)
    wishes = [{"diversify": "mmr"}, {"diversify": "mixture"}, {"group_by": "deep.group"}, {"feedback": True}]
    before = [store.docs.search(store.queries, k=5, **wish) for wish in wishes]
    store.docs.create_index("s", "flat")
    for wish, expected in zip(wishes, before, strict=True):
        found = store.docs.search(store.queries, k=5, **wish)
        assert found.ids == expected.ids and found.scores.tolist() == expected.scores.tolist()


@pytest.mark.parametrize("new", [0, 60, 200])
def test_bridged_lists_are_grouped_and_spread_as_any(db, new):
    world = World(db, n=200, new=new)
    world.fit(count=150)
    plain = world.docs.search(world.queries, k=200, space="new")
    found = world.docs.search(world.queries, k=4, space="new", group_by="even", per_group=3)
    for whole, hits in zip(plain, found, strict=True):
        wanted = plain_groups(whole.ids, lambda id: int(id[1:]) % 2 == 0, 4, 3)
        assert [(group.value, group.ids) for group in hits.groups] == wanted
    spread = world.docs.search(world.queries, k=5, space="new", diversify=MMR(1.0))
    assert spread.ids == [hits.ids[:5] for hits in plain]
    assert [hit.origin for hit in spread[0]] == [hit.origin for hit in plain[0]][:5]
    mixed = world.docs.search(world.queries[0], k=5, space="new", diversify="mixture", explain=True)
    assert mixed.plan["compared_in"] == ("new" if new == 200 else "old")


def test_feedback_of_a_bridged_query_needs_native_vectors(db):
    world = World(db, n=200)
    world.fit(count=150)
    with pytest.raises(SpaceMismatchError, match="feedback"):
        world.docs.search(world.queries[0], space="new", feedback=True)
    world.have_new(range(50))
    found = world.docs.search(world.queries[0], space="new", feedback=3, calibration="reference")
    native = world.docs.search(world.queries[0], space="new", k=3, spaces="native").ids
    rows = world.new[[int(id[1:]) for id in native]]
    moved = (world.queries[0] + 0.25 * unit("cosine", rows).mean(axis=0)) / 1.25
    assert found.ids == world.docs.search(moved, space="new", calibration="reference").ids


def test_examples_meet_where_all_have_vectors(db):
    world = World(db, n=200, new=50)
    world.fit(count=150)
    young = world.docs.search(positive=["r3", "r4"], space="new")
    assert {"r3", "r4"}.isdisjoint(young.ids)
    old = world.docs.search(positive=["r3", "r100"], space="new")
    by_hand = (world.old[3] + world.old[100]) / 2
    first = [id for id in world.docs.search(by_hand, space="old").ids if id not in ("r3", "r100")]
    assert old.ids[:3] == first[:3]
    with pytest.raises(VectorMissingError):
        world.docs.search(world.queries[0], positive=["r100"], space="new")
    with pytest.raises(ParameterError, match="several spaces"):
        world.docs.search({"new": world.queries[0], "old": world.queries[0]}, positive=["r3"])
