"""Everything above a score, labels by vote, labels that spread: against plain oracles, for every metric."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from tests.unit.test_bridge_answers import World
from tests.unit.test_exploring import METRICS, D, Store, scores_of
from vecdb.engine.exploring import labels as labelling
from vecdb.engine.exploring import propagation, ranges, votes
from vecdb.errors import (
    CancelledError,
    ConflictError,
    ParameterError,
    ReadOnlyError,
    RecordMissingError,
    SpaceMismatchError,
)


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


@pytest.fixture(params=METRICS)
def store(db, request):
    return Store(db, request.param)


# --- ranges ---


@pytest.fixture
def small_stretches(monkeypatch):
    monkeypatch.setattr(ranges, "STRETCH", 7)


def test_a_range_is_every_record_above_the_score(store, small_stretches):
    for query in store.queries:
        whole = store.docs.search(query, k=150)
        for place in (0, 40, 149):
            least = float(whole.scores[place])
            wanted = [id for id, score in zip(whole.ids, whole.scores, strict=True) if score >= np.float32(least)]
            streamed = list(store.docs.range_search(query, min_score=least))
            assert [hit.id for hit in streamed] == sorted(wanted)  # the oldest first
            scores = dict(zip(whole.ids, whole.scores.tolist(), strict=True))
            assert [hit.score for hit in streamed] == [scores[hit.id] for hit in streamed]
            listed = store.docs.range_search(query, min_score=least, limit=150)
            assert listed.ids == wanted and listed.complete
    assert list(store.docs.range_search(store.queries[0], min_score=1e9)) == []


def test_hits_of_a_range_are_those_of_a_search(store, small_stretches):
    [hit] = [hit for hit in store.docs.search(store.queries[0], k=150) if hit.id == 11]
    include = ("metadata", "text", "vectors")
    streamed = {hit.id: hit for hit in store.docs.range_search(store.queries[0], min_score=-1e9, include=include)}
    found = streamed[11]
    assert (found.score, found.distance, found.space, found.origin) == (hit.score, hit.distance, "s", "native")
    assert found.metadata == hit.metadata and np.array_equal(found.vectors["s"], store.rows[11])
    bare = next(store.docs.range_search(store.queries[0], min_score=-1e9, include=()))
    assert bare.metadata is None and bare.vectors is None


def test_more_than_the_limit_is_said(store):
    hits = store.docs.range_search(store.queries[0], min_score=-1e9, limit=20)
    assert hits.ids == store.docs.search(store.queries[0], k=20).ids
    assert not hits.complete and "more than 20" in hits.reason
    batch = store.docs.range_search(store.queries, min_score=-1e9, limit=150)
    assert batch.complete and batch.counts.tolist() == [150] * 5
    assert not store.docs.range_search(store.queries, min_score=-1e9, limit=149).complete


def test_a_range_respects_conditions_deletions_the_past_and_what_it_is_like(store, small_stretches):
    seq = store.docs.search(store.queries[0]).seq
    store.docs.delete(list(range(0, 150, 3)))
    store.docs.upsert(["new"], {"s": store.rows[:1]}, metadata=[{"even": True}])

    def ids(**given_):
        return [hit.id for hit in store.docs.range_search(min_score=-1e9, **given_)]

    q = store.queries[0]
    assert ids(q=q) == [*(i for i in range(150) if i % 3), "new"]
    assert ids(q=q, where={"even": True}) == [*(i for i in range(150) if i % 3 and i % 2 == 0), "new"]
    assert ids(q=q, where={"even": "no"}) == []
    assert ids(q=q, as_of=seq) == list(range(150))
    assert ids(q=q, as_of=seq, where={"even": False}) == list(range(1, 150, 2))
    assert ids(like=1) == [*(i for i in range(150) if i % 3 and i != 1), "new"]


def test_what_is_written_meanwhile_does_not_show(store, small_stretches):
    stream = store.docs.range_search(store.queries[0], min_score=-1e9)
    first = [next(stream).id for _ in range(10)]
    store.docs.delete([140, 20])
    store.docs.upsert(["new"], {"s": store.rows[:1]})
    store.docs.upsert([77], {"s": store.rows[:1]})
    rest = {hit.id: hit.score for hit in stream}
    assert first + list(rest) == list(range(150))
    assert rest[77] == pytest.approx(scores_of(store.metric, store.queries[0], store.rows[77:78])[0], rel=1e-5)


def test_a_range_over_an_index_misses_nothing(db, small_stretches):
    store = Store(db, n=600)
    store.docs.create_index("s", "rabitq")
    store.docs.delete([5])
    whole = store.docs.search(store.queries[0], k=600, exact=True)
    least = float(whole.scores[100])
    assert sorted(whole.ids[:101]) == [hit.id for hit in store.docs.range_search(store.queries[0], min_score=least)]


def test_ranges_over_several_spaces_need_a_limit(db):
    world = World(db, n=200, new=60)
    world.fit(count=150)
    q = world.queries[0]
    with pytest.raises(ParameterError, match="reads one space"):
        world.docs.range_search(q, min_score=0.0, space="new")
    plain = world.docs.search(q, k=200, space="new")
    least = float(plain.scores[50])
    found = world.docs.range_search(q, min_score=least, space="new", limit=200)
    assert found.ids == plain.ids[: len(found)] and len(found) == 51
    native = list(world.docs.range_search(q, min_score=-1.0, space="new", spaces="native"))
    assert {hit.id for hit in native} == set(world.ids[:60])


def test_ranges_that_make_no_sense_are_refused_at_once(db):
    store = Store(db)
    q = store.queries[0]
    for given_ in (
        {"q": store.queries},
        {"q": {"s": q}},
        {"q": q, "like": 3},
        {},
        {"q": q, "limit": 0},
        {"q": q, "min_score": "high"},
        {"q": q, "k": 3},
        {"q": q, "limit": 5, "effort": 3},
        {"q": q, "correction": "csls"},
        {"q": q, "nonsense": 1},
        {"q": q, "spaces": "all"},
    ):
        with pytest.raises(ParameterError):
            store.docs.range_search(**{"min_score": 0.0, **given_})
    with pytest.raises(RecordMissingError):
        store.docs.range_search(like=999, min_score=0.0)
    with pytest.raises(SpaceMismatchError, match="no encoder"):
        store.docs.range_search("text", min_score=0.0)
    store.docs.set_encoder("s", lambda texts: [[1.0] * D] * len(texts))
    assert len(list(store.docs.range_search("text", min_score=-1e9))) == 150


# --- votes ---


def plain_vote(labels, scores, how):
    if how == "uniform" or scores[0] == scores[-1]:
        weights = [1.0] * len(labels)
    else:
        weights = [(s - scores[-1]) / (scores[0] - scores[-1]) for s in scores]
    table = {}
    for label, weight in zip(labels, weights, strict=True):
        table[label] = table.get(label, 0.0) + weight
    return {label: weight / sum(weights) for label, weight in table.items()}


@pytest.mark.parametrize("how", ["distance", "uniform"])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_neighbours_vote_by_distance(store, how, k):
    found = store.docs.classify(store.queries, "deep.group", k=k, weights=how)
    for query, told in zip(store.queries, found, strict=True):
        ranked, scores = store.ranking(query)
        wanted = plain_vote([store.group[id] for id in ranked[:k]], scores[ranked[:k]].astype(float), how)
        assert list(told.neighbours) == ranked[:k]
        assert dict(told.probabilities) == pytest.approx(wanted, abs=1e-5)
        assert told.label == told.probabilities[0][0] and told.probability == pytest.approx(
            max(wanted.values()), abs=1e-5
        )
        assert sum(share for _, share in told.probabilities) == pytest.approx(1)
    alone = store.docs.classify(store.queries[0], "deep.group", k=k, weights=how)
    assert alone == found[0]


def test_only_who_has_a_label_votes(db):
    docs = db.create_collection("docs")
    docs.add_space("s", dim=2)
    labels = ["a", None, "b", "b", "b"]
    metadata = [{"l": label} for label in labels] + [{}]
    docs.upsert(list(range(6)), {"s": [[1.0, i / 10] for i in range(6)]}, metadata=metadata)
    told = docs.classify([1.0, 0.0], "l", k=3)
    assert told.neighbours == (0, 2, 3) and told.label == "a"
    assert docs.classify([1.0, 0.0], "l", k=3, weights="uniform").label == "b"
    assert docs.classify(like=0, field="l", k=3).neighbours == (2, 3, 4)
    assert [p.label for p in docs.classify(like=[0, 1], field="l", k=3)] == ["b", "b"]
    assert docs.classify([1.0, 0.0], "l", where={"l": "b"}, k=3).neighbours == (2, 3, 4)
    nobody = docs.classify([1.0, 0.0], "other")
    assert (nobody.label, nobody.probability, nobody.probabilities, nobody.neighbours) == (None, 0.0, (), ())


def test_labels_of_different_types_are_different_labels(db):
    docs = db.create_collection("docs")
    docs.add_space("s", dim=2)
    docs.upsert(list(range(4)), {"s": [[1.0, 0.0]] * 4}, metadata=[{"l": v} for v in (1, True, 1.0, "1")])
    told = docs.classify([1.0, 0.0], "l", k=4)
    assert told.label == 1 and told.probabilities == ((1, 0.5), (True, 0.25), ("1", 0.25))


def test_fields_that_are_no_labels_are_refused(db):
    docs = db.create_collection("docs")
    docs.add_space("s", dim=2)
    docs.upsert([0, 1], {"s": [[1.0, 0.0]] * 2}, metadata=[{"l": ["a"]}, {"l": {"b": 1}}])
    for call in (
        lambda: docs.classify([1.0, 0.0], "l"),
        lambda: docs.measure_classifier("l"),
        lambda: docs.propagate_labels("l"),
        lambda: docs.classify([1.0, 0.0]),
        lambda: docs.classify([1.0, 0.0], "x", weights="best"),
        lambda: docs.classify([1.0, 0.0], "x", k=0),
        lambda: docs.classify([1.0, 0.0], "x", include=()),
        lambda: docs.classify([1.0, 0.0], "x", group_by="n"),
    ):
        with pytest.raises(ParameterError):
            call()


def test_a_classifier_is_measured_by_leaving_records_out(store):
    found = store.docs.measure_classifier("deep.group", k=5)
    right, errors = 0, []
    for i in range(150):
        ranked, scores = store.ranking(store.rows[i], set(range(150)) - {i})
        told = plain_vote([store.group[id] for id in ranked[:5]], scores[ranked[:5]].astype(float), "distance")
        best = max(told, key=lambda label: (round(told[label], 12), -[store.group[r] for r in ranked[:5]].index(label)))
        right += best == store.group[i]
        errors.append(sum((told.get(g, 0) - (g == store.group[i])) ** 2 for g in set(store.group)))
    assert found.accuracy.trials == 150 and found.labels == len(set(store.group))
    assert found.accuracy.value == pytest.approx(right / 150, abs=1.5 / 150)  # a tie in the last bits may go either way
    assert found.brier == pytest.approx(np.mean(errors), abs=1e-3)
    assert found.majority == max(store.group.count(g) for g in set(store.group)) / 150
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    fewer = store.docs.measure_classifier("deep.group", k=5, sample=40, seed=3)
    assert fewer.accuracy.trials == 40 and fewer == store.docs.measure_classifier("deep.group", k=5, sample=40, seed=3)
    for seed in (-1, 1.5, "x"):
        with pytest.raises(ParameterError):
            store.docs.measure_classifier("deep.group", sample=40, seed=seed)


def test_near_copies_of_one_source_do_not_vouch_for_each_other(db):
    docs = db.create_collection("docs")
    docs.add_space("s", dim=4)
    rng = np.random.default_rng(0)
    base = rng.standard_normal((40, 4))
    vectors = np.repeat(base, 2, axis=0) + 1e-3 * rng.standard_normal((80, 4))
    metadata = [{"l": int(i // 2) % 7, "source": int(i // 2)} for i in range(80)]
    docs.upsert(list(range(80)), {"s": vectors}, metadata=metadata)
    assert docs.measure_classifier("l", k=1).accuracy.value == 1.0
    honest = docs.measure_classifier("l", k=1, apart="source")
    assert honest.accuracy.value < 0.5
    nothing = docs.measure_classifier("none")
    assert nothing.accuracy.trials == 0 and math.isnan(nothing.accuracy.value)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_intervals_hold_what_they_are_about(hits, more):
    found = votes.share(hits, hits + more)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for bound in (found.low, found.high):  # where the score test just rejects
        if 0 < bound < 1:
            assert abs(found.value - bound) == pytest.approx(
                1.95996 * math.sqrt(bound * (1 - bound) / found.trials), rel=1e-4
            )


# --- labels that spread ---


def plain_spread(neighbours, scores, labels, count, alpha):
    """Zhou et al. with dense matrices."""
    n = len(labels)
    known = scores[neighbours >= 0]
    W = np.zeros((n, n))
    for i in range(n):
        for j, s in zip(neighbours[i], scores[i], strict=True):
            if j >= 0:
                W[i, j] += math.exp((s - known.max()) / known.std()) / 2
                W[j, i] += math.exp((s - known.max()) / known.std()) / 2
    root = np.sqrt(np.maximum(W.sum(axis=1), 1e-300))
    S = W / root[:, None] / root[None]
    Y = (labels[:, None] == np.arange(count)).astype(float)
    return (1 - alpha) * np.linalg.solve(np.eye(n) - alpha * S, Y)


@settings(max_examples=40)
@given(st.integers(3, 40), st.integers(1, 6), st.integers(1, 4), st.floats(0.05, 0.99), st.integers(0, 10_000))
def test_labels_spread_as_zhou_says(n, k, count, alpha, seed):
    rng = np.random.default_rng(seed)
    k = min(k, n - 1)
    neighbours = np.stack([rng.choice(np.delete(np.arange(n), i), k, replace=False) for i in range(n)])
    neighbours[rng.random((n, k)) < 0.1] = -1
    scores = rng.standard_normal((n, k))
    if (neighbours >= 0).sum() < 2:
        return
    labels = rng.integers(-1, count, n)
    found = propagation.propagate(propagation.affinity(neighbours, scores), labels, count, alpha)
    np.testing.assert_allclose(found, plain_spread(neighbours, scores, labels, count, alpha), atol=1e-6)


def test_what_no_label_reaches_gets_none():
    graph = propagation.affinity(np.array([[1], [0], [3], [2]]), np.ones((4, 1)))
    reached = propagation.propagate(graph, np.array([0, -1, -1, -1]), 2, 0.9)
    found, confidence = propagation.decide(reached)
    assert found.tolist() == [0, 0, -1, -1] and confidence.tolist() == [1.0, 1.0, 0.0, 0.0]
    empty = propagation.affinity(np.empty((0, 3), np.int64), np.empty((0, 3)))
    assert propagation.propagate(empty, np.empty(0, np.int64), 0, 0.9).shape == (0, 0)
    assert propagation.decide(np.zeros((2, 0)))[0].tolist() == [-1, -1]


class Islands:
    """Three far islands of points, one label on each; some points know theirs."""

    def __init__(self, db, metric="cosine", known=2):
        rng = np.random.default_rng(0)
        centres = 4 * np.eye(3, 6)
        self.truth = [f"island{i % 3}" for i in range(60)]
        rows = np.stack([centres[i % 3] + 0.3 * rng.standard_normal(6) for i in range(60)])
        self.docs = db.create_collection("docs")
        self.docs.add_space("s", dim=6, metric=metric)
        metadata = [{"n": i, "a": {"b": self.truth[i], "c": i}} if i < 3 * known else {"n": i} for i in range(60)]
        self.docs.upsert([f"p{i}" for i in range(60)], {"s": rows}, metadata=metadata, texts=["t"] * 60)


@pytest.mark.parametrize("metric", METRICS)
def test_labels_spread_over_their_islands_and_nothing_is_written(db, metric):
    world = Islands(db, metric)
    before = world.docs.get(["p0", "p30"])
    found = world.docs.propagate_labels("a.b", k=5, holdout=0.5)
    assert len(found) == 54 and found.labelled == 6 and found.unreached == 0 and found.written is None
    assert all(world.truth[int(each.id[1:])] == each.label and each.confidence > 0.8 for each in found)
    assert found.accuracy.trials == 3 and found[:2] == found.proposals[:2] and found[0].id == "p6"
    assert world.docs.get(["p0", "p30"]) == before
    assert len(world.docs.propagate_labels("a.b", k=5, min_confidence=1.0)) <= 54
    assert found == world.docs.propagate_labels("a.b", k=5, holdout=0.5)


def test_labels_are_written_only_when_asked_and_in_one_commit(db):
    world = Islands(db)
    commits = len(db.commits())
    found = world.docs.propagate_labels("a.b", k=5, write=True)
    assert found.written.updated == 54 and len(db.commits()) == commits + 1
    record = world.docs.get(["p30"])[0]
    assert record.metadata == {"n": 30, "a": {"b": "island0"}} and record.text == "t" and record.spaces == ("s",)
    assert world.docs.get(["p0"])[0].metadata == {"n": 0, "a": {"b": "island0", "c": 0}}
    again = world.docs.propagate_labels("a.b", k=5, write=True)
    assert len(again) == 0 and again.written is None and again.labelled == 60


def test_a_record_that_changes_meanwhile_stops_the_writing(db, monkeypatch):
    world = Islands(db)
    plain = labelling.spread

    def meddled(*given_):
        found = plain(*given_)
        world.docs.set_metadata(["p30"], [{"new": True}], merge=True)
        return found

    monkeypatch.setattr(labelling, "spread", meddled)
    with pytest.raises(ConflictError):
        world.docs.propagate_labels("a.b", k=5, write=True)
    assert "a" not in world.docs.get(["p20"])[0].metadata


def test_conditions_choose_who_gives_and_takes(db):
    world = Islands(db)
    seq = world.docs.search([1.0] * 6).seq
    some = world.docs.propagate_labels("a.b", k=5, where={"n": {"$lt": 30}})
    assert [each.id for each in some] == [f"p{i}" for i in range(6, 30)]
    world.docs.delete(["p0", "p3"])  # all that is known of island0
    now = world.docs.propagate_labels("a.b", k=5)
    assert {each.label for each in now} <= {"island1", "island2"} and now.unreached > 0
    then = world.docs.propagate_labels("a.b", k=5, as_of=seq)
    assert len(then) == 54 and then.seq == seq


def test_an_index_may_find_the_neighbours(db):
    world = Islands(db)
    before = world.docs.propagate_labels("a.b", k=5)
    world.docs.create_index("s", "flat")
    steps = []
    found = world.docs.propagate_labels("a.b", k=5, progress=lambda done, total: steps.append((done, total)))
    assert found.proposals == before.proposals and steps == [(60, 60)]
    with pytest.raises(CancelledError):
        world.docs.propagate_labels("a.b", cancel=lambda: True)


def test_spreads_that_make_no_sense_are_refused(db, tmp_path):
    docs = Islands(db).docs
    for given_ in (
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"k": 0},
        {"min_confidence": 2},
        {"holdout": 1.0},
        {"holdout": 0.5, "seed": -1},
        {"seed": "x"},
        {"recall": 2.0},
        {"write": True, "as_of": 1},
        {"field": ""},
    ):
        with pytest.raises(ParameterError):
            docs.propagate_labels(**{"field": "a.b", **given_})
    db.backup(tmp_path / "b.vecdb")
    with vecdb.open(tmp_path / "b.vecdb", mode="r") as copy, pytest.raises(ReadOnlyError):
        copy.collection("docs").propagate_labels("a.b", write=True)


@given(st.sampled_from(["a", "a.b", "a.b.c"]))
def test_a_change_touches_nothing_else(path):
    metadata = {"a": {"b": {"x": 1}, "y": 2}, "z": 3}
    changed = {**metadata, **labelling.change(metadata, path, 9)}
    assert labelling.value_of(changed, path) == 9 and changed["z"] == 3
    if path != "a":
        assert changed["a"]["y"] == 2
    if path == "a.b.c":
        assert changed["a"]["b"]["x"] == 1
