"""In which order records are embedded, and whether the canary keeps the promise of the transform."""

from types import SimpleNamespace

import numpy as np
import pytest

import vecdb
from vecdb import hookimpl
from vecdb.engine.migration import order, traffic
from vecdb.errors import PluginContractError, StateError

COUNT, DIM = 500, 12
RNG = np.random.default_rng(21)
X = RNG.standard_normal((COUNT, DIM)).astype(np.float32)
Y = (X @ np.linalg.qr(RNG.standard_normal((DIM, DIM)))[0] + 0.15 * RNG.standard_normal((COUNT, DIM))).astype(np.float32)
TEXTS = [str(place) for place in range(COUNT)]


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


def embed(texts):
    return Y[[int(text) for text in texts]]


class Watched:
    """An encoder that notes what it embeds, in order."""

    def __init__(self, call=embed):
        self.call = call
        self.seen = []

    def __call__(self, texts):
        self.seen += map(int, texts)
        return self.call(texts)


class Policy:
    """A policy of a plugin, which may break its contract."""

    def __init__(self, name="acme.last", needs=(), rank=None):
        self.parameters = {}
        self.name = name
        self.needs = frozenset(needs)
        self.rank = rank or (lambda facts: np.flatnonzero(facts.pending)[::-1].astype(np.int64))

    def order(self, facts, params):
        return self.rank(facts)


class Plugin:
    def __init__(self, *policies):
        self.policies = policies

    @hookimpl
    def vecdb_register_backfill_policies(self):
        return list(self.policies)


def opened(tmp_path, *policies):
    return vecdb.open(tmp_path / "a.vecdb", durability="relaxed", automatic=False, plugins=[Plugin(*policies)])


def fill(db, pairs=0):
    docs = db.create_collection("docs")
    docs.add_space("old", dim=DIM)
    docs.add_space("new", dim=DIM)
    docs.upsert(range(COUNT), {"old": X}, texts=TEXTS)
    if pairs:
        docs.set_vectors("new", range(pairs), Y[:pairs])
    return docs


@pytest.fixture
def docs(tmp_path):
    with opened(tmp_path) as db:
        yield fill(db)


def novelty_of(places, anchors):
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[places][:, None, :] - unit[anchors][None, :, :], axis=2)
    return np.sort(distances, axis=1)[:, :5].mean(axis=1)


def test_the_canary_is_random_and_first(docs):
    encode = Watched()
    m = docs.migrate("old", "new", encode, canary=0.1, batch=25)
    m.run()
    shares = []
    for seed in range(1, 5):
        docs.migration().rollback()
        again = Watched()
        docs.migrate("old", "new", again, "random", canary=0.1, seed=seed).run(30)
        shares.append(set(again.seen))
    assert all(20 < len(share) < 40 for share in shares) and len(set.union(*shares)) > 60
    assert len(set(encode.seen[:30])) == 30 and sorted(encode.seen) == list(range(COUNT))


def test_novelty_goes_by_the_distance_to_what_is_known_in_both_spaces(docs):
    encode = Watched()
    docs.set_vectors("new", range(60), Y[:60])
    docs.migrate("old", "new", encode, canary=0.0).run()
    wanted = np.arange(60, COUNT)[np.argsort(-novelty_of(np.arange(60, COUNT), np.arange(60)), kind="stable")]
    assert np.mean(np.array(encode.seen) == wanted) > 0.98  # float32 may exchange neighbours that are all but equal


def test_novelty_goes_by_the_pairs_of_the_fit_where_they_are_known(docs):
    docs.set_vectors("new", range(200), Y[:200])
    docs.fit_transform("new", "old", "procrustes", pairs=list(range(30)))
    encode = Watched()
    docs.migrate("old", "new", encode, canary=0.0).run()
    wanted = np.arange(200, COUNT)[np.argsort(-novelty_of(np.arange(200, COUNT), np.arange(30)), kind="stable")]
    assert np.mean(np.array(encode.seen) == wanted) > 0.98


def test_the_canary_stands_for_the_fit_where_nothing_else_does(docs):
    encode = Watched()
    docs.migrate("old", "new", encode, canary=0.1).run()
    first = next(
        count for count in range(20, 90) if np.isclose(novelty_of([encode.seen[count]], encode.seen[:count])[0], 1, 0.5)
    )
    canary = [record for record in encode.seen[:first]]
    assert 20 <= len(canary) < 90
    found = novelty_of(np.array(encode.seen[90:]), np.array(encode.seen[:40]))
    assert np.corrcoef(found, np.arange(len(found)))[0, 1] < -0.5


def test_metrics_other_than_cosine_measure_by_distance(tmp_path):
    with opened(tmp_path) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=DIM, metric="l2")
        docs.add_space("new", dim=DIM, metric="l2")
        docs.upsert(range(COUNT), {"old": X}, texts=TEXTS)
        docs.set_vectors("new", range(20), Y[:20])
        encode = Watched()
        docs.migrate("old", "new", encode, canary=0.0).run()
        distances = np.linalg.norm(X[20:, None, :] - X[None, :20, :], axis=2)
        wanted = 20 + np.argsort(-np.sort(distances, axis=1)[:, :5].mean(axis=1), kind="stable")
        assert np.mean(np.array(encode.seen) == wanted) > 0.98


def test_uncertainty_needs_a_transform_that_predicts_it(docs):
    m = docs.migrate("old", "new", embed, "uncertainty", canary=0.0)
    with pytest.raises(StateError, match="needs to know uncertainty"):
        m.run()
    assert m.status().done == 0


def test_uncertainty_is_the_transforms_own(docs):
    docs.set_vectors("new", range(150), Y[:150])
    made = docs.fit_transform("old", "new", "ridge", direction="gallery")
    encode = Watched()
    docs.migrate("old", "new", encode, "uncertainty", canary=0.0).run()
    errors = np.linalg.norm(docs.transform(X, "old", "new", direction="gallery") - _unit(Y), axis=1)
    assert made.available and sorted(encode.seen) == list(range(150, COUNT))
    assert errors[encode.seen[:120]].mean() > errors[encode.seen[-120:]].mean() * 0.95


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- traffic ----------------------------------------------------------------------------------------------


def test_traffic_counts_the_hits_of_bridged_searches(docs):
    docs.set_vectors("new", range(330), Y[:330])
    docs.fit_transform("new", "old", "procrustes")
    docs.search(Y[400], k=5, space="new")  # before there is a migration nobody counts
    encode = Watched()
    m = docs.migrate("old", "new", encode, "traffic", batch=10, canary=0.0)
    wanted = []
    for _ in range(3):
        wanted = [hit.id for hit in docs.search(Y[400], k=20, space="new") if hit.origin != "native"]
    docs.search(Y[400:420], k=20, space="new")
    docs.search(X[450], k=20, space="old", spaces="native")
    assert 2 <= len(wanted) < 20
    m.run(len(wanted))
    assert set(wanted) <= {*encode.seen, *wanted} and len(set(encode.seen) & set(wanted)) >= len(wanted) // 2
    m.run()
    assert sorted(encode.seen) == list(range(330, COUNT))


def test_traffic_is_remembered_by_the_file_and_changes_the_order(docs, tmp_path):
    docs.set_vectors("new", range(330), Y[:330])
    docs.fit_transform("new", "old", "procrustes")
    encode = Watched()
    m = docs.migrate("old", "new", encode, "traffic", batch=5, canary=0.0)
    m.run(5)
    found = [hit.id for hit in docs.search(Y[430], k=40, space="new") if hit.origin != "native"]
    m.run(0)  # nothing is embedded, but what was counted is kept
    docs.database._traffic.clear()
    again = Watched()
    docs.migration(again).run(len(found))
    assert set(again.seen) == set(found)


def test_the_hybrid_raises_novelty_by_traffic(docs):
    docs.set_vectors("new", range(330), Y[:330])
    docs.fit_transform("new", "old", "procrustes")
    m = docs.migrate("old", "new", embed, "hybrid", canary=0.0, params={"weight": 1000.0})
    found = [hit.id for hit in docs.search(Y[430], k=40, space="new") if hit.origin != "native"]
    encode = Watched()
    docs.migration(encode).run(len(found))
    assert set(encode.seen) == set(found) and m.status().done == len(found)


def test_hits_of_deleted_records_are_forgotten(docs):
    docs.set_vectors("new", range(330), Y[:330])
    docs.fit_transform("new", "old", "procrustes")
    m = docs.migrate("old", "new", embed, "traffic", canary=0.0)
    found = [hit.id for hit in docs.search(Y[430], k=10, space="new") if hit.origin != "native"]
    docs.delete(found)
    assert found and m.run().pending == 0


def test_counts_are_bounded(monkeypatch):
    monkeypatch.setattr(traffic, "MOST", 10)
    counts = traffic.Traffic()
    for number in range(30):
        counts.note([[SimpleNamespace(id=place, origin="bridged:x") for place in {0, 1, number}]])
        counts.note([[SimpleNamespace(id=-5, origin="native")]])
    kept = counts.drain()
    assert len(kept) <= 10 and kept[0] == kept[1] == 30 and -5 not in kept and counts.drain() == {}


# --- policies of plugins ----------------------------------------------------------------------------------


def test_a_policy_of_a_plugin(tmp_path):
    with opened(tmp_path, Policy()) as db:
        docs, encode = fill(db), Watched()
        docs.migrate("old", "new", encode, "acme.last", canary=0.0, batch=100).run()
        assert encode.seen == list(range(COUNT))[::-1]


def test_it_is_asked_again_for_what_was_written_meanwhile(tmp_path):
    asked = []

    def rank(facts):
        asked.append(int(facts.pending.sum()))
        return np.flatnonzero(facts.pending)

    with opened(tmp_path, Policy(rank=rank)) as db:
        docs = fill(db)

        def writing(texts):
            if "3" in texts:
                docs.upsert(["late"], {"old": X[:1]}, texts=["0"])
            return embed(texts)

        assert docs.migrate("old", "new", writing, "acme.last", canary=0.0).run().pending == 0
    assert asked == [COUNT, 1]


@pytest.mark.parametrize(
    "rank",
    [
        lambda facts: np.flatnonzero(facts.pending)[1:],
        lambda facts: np.zeros(int(facts.pending.sum()), np.int64),
        lambda facts: np.arange(len(facts.pending) + 1),
        lambda facts: np.flatnonzero(facts.pending).astype(np.float64),
        lambda facts: [],
    ],
)
def test_an_order_that_is_none_is_refused(tmp_path, rank):
    with opened(tmp_path, Policy(rank=rank)) as db:
        docs = fill(db)
        m = docs.migrate("old", "new", embed, "acme.last", canary=0.0)
        with pytest.raises(PluginContractError, match=r"acme\.last") as caught:
            m.run()
        assert caught.value.rule == "O1" and m.status().done == 0


def test_facts_cannot_be_changed(tmp_path):
    def rank(facts):
        facts.noise[0] = 1.0
        return np.flatnonzero(facts.pending)

    with opened(tmp_path, Policy(rank=rank)) as db:
        docs = fill(db)
        with pytest.raises(ValueError, match="read-only"):
            docs.migrate("old", "new", embed, "acme.last", canary=0.0).run()


def test_a_fact_that_nothing_says_is_asked_for_in_vain(tmp_path, monkeypatch):
    monkeypatch.delitem(order.COLLECT, "novelty")
    with opened(tmp_path, Policy(needs=("novelty",))) as db:
        docs = fill(db)
        with pytest.raises(StateError, match="needs to know novelty"):
            docs.migrate("old", "new", embed, "acme.last").run()


# --- the canary -------------------------------------------------------------------------------------------


@pytest.fixture
def bridged(tmp_path):
    with opened(tmp_path) as db:
        docs = fill(db, pairs=330)
        docs.fit_transform("new", "old", "procrustes")
        yield docs


def test_a_canary_that_keeps_the_promise(bridged):
    m = bridged.migrate("old", "new", embed, canary=0.5)
    status = m.run()
    assert status.state == "complete" and status.paused == ""
    assert status.measured["rows"] >= 31 and abs(status.measured["found"] - status.measured["promised"]) < 0.2


def test_a_canary_that_misses_it_pauses(bridged):
    """The encoder embeds something else than the records' texts: right model, wrong answers."""
    m = bridged.migrate("old", "new", lambda texts: embed(texts)[::-1], canary=0.5)
    status = m.run()
    assert status.state == "backfilling" and "misses the promise" in status.paused
    assert status.measured["found"] < 0.5 * status.measured["promised"]
    assert 0 < status.done < 200 and status.pending > 50
    with pytest.raises(StateError, match="misses the promise"):
        m.run()
    m.resume()  # somebody looked, and wants it all the same
    assert m.run().state == "complete"


def test_without_enough_rows_nothing_is_judged(bridged):
    status = bridged.migrate("old", "new", lambda texts: embed(texts)[::-1], canary=0.02).run()
    assert status.state == "complete" and status.measured == {}


@pytest.mark.parametrize("direction", ["query", "gallery"])
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_any_map_and_metric_is_judged(tmp_path, direction, metric):
    with opened(tmp_path) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=DIM, metric=metric)
        docs.add_space("new", dim=DIM, metric=metric)
        docs.upsert(range(COUNT), {"old": X}, texts=TEXTS)
        docs.set_vectors("new", range(330), Y[:330])
        spaces = ("new", "old") if direction == "query" else ("old", "new")
        docs.fit_transform(*spaces, "ridge", direction=direction)
        good = docs.migrate("old", "new", embed, canary=0.5).run()
        assert good.paused == "" and good.measured["promised"] > 0.3
        docs.migration().rollback()
        assert docs.migrate("old", "new", lambda texts: embed(texts)[::-1], canary=0.5).run().paused
