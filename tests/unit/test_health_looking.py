"""What a look at a space reads and asks: samples, neighbours and facts of records, against plain numpy."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from vecdb.engine.checkup import asking, sample
from vecdb.engine.view import Past
from vecdb.errors import CancelledError
from vecdb.evaluation.health.hubs import Hubness
from vecdb.evaluation.health.sure import whole
from vecdb.evaluation.intervals import Estimate
from vecdb.health import remarks
from vecdb.health.values import IndexHealth, plain

METRICS = ("cosine", "dot", "l2")
D = 5


def vectors(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


class World:
    """A space with deleted, replaced and late vectors, and the living ones as plain arrays, the oldest first."""

    def __init__(self, path, metric="l2", n=60):
        self.db = vecdb.open(path, automatic=False)
        self.docs = self.db.create_collection("docs")
        self.docs.add_space("a", dim=D, metric=metric)
        self.docs.add_space("b", dim=D, metric=metric)
        alive = {}
        for start, seed in ((0, 0), (n // 2, 1)):  # two commits
            for row, vector in zip(range(start, start + n // 2), vectors(n // 2, seed), strict=True):
                alive[row] = vector
            ids = list(range(start, start + n // 2))
            self.docs.upsert(ids, {"a": vectors(n // 2, seed)}, [{"n": id, "deep": {"s": str(id % 3)}} for id in ids])
        if n >= 20:
            self.docs.delete([3, 4, n - 1])
            self.docs.upsert([5, 6], {"a": vectors(2, 2)})
            self.docs.set_vectors("b", list(range(7, 17)), vectors(10, 3))
            for gone in (3, 4, n - 1, 5, 6):
                del alive[gone]
            alive |= {5: vectors(2, 2)[0], 6: vectors(2, 2)[1]}
        self.ids = list(alive)
        self.rows = np.array([alive[id] for id in self.ids], np.float32).reshape(-1, D)
        self.space, self.other = (self.docs._entry().spaces[name] for name in "ab")

    def reader(self, cancel=None):
        hold = self.db._opened().reader.hold()
        return sample.Reader(self.docs._open_past, hold, self.db.seq, Past(self.db.seq), cancel)

    def ask(self, drawn, reader=None, **wishes):
        given_ = {"queries": 20, "k": 4, "recall_at": 4, "seed": 1, "registry": self.db._registry} | wishes
        return asking.ask(reader or self.reader(), drawn, **given_)


@pytest.fixture(params=METRICS)
def world(tmp_path, request):
    made = World(tmp_path / "x.vecdb", request.param)
    yield made
    made.db.close()


@pytest.fixture
def one(tmp_path):
    made = World(tmp_path / "x.vecdb")
    yield made
    made.db.close()


# --- samples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10, 57, 1_000])
def test_a_sample_is_some_of_the_living_vectors_in_order_of_age(one, size):
    drawn = sample.draw(one.reader(), one.space, size, seed=4)
    assert drawn.vectors == len(one.ids) == 57 and len(drawn) == min(size, 57)
    assert np.array_equal(drawn.rows, one.rows[drawn.ages])
    assert (np.diff(drawn.ages) > 0).all() and (np.diff(drawn.ordinals.astype(np.int64)) > 0).all()
    found = sample.labels(one.reader(), drawn, "n")
    assert found == [None if one.ids[age] in (5, 6) else one.ids[age] for age in drawn.ages]  # replaced without facts


def test_a_seed_names_a_sample_and_every_vector_is_drawn_as_often(one):
    counts = np.zeros(57, np.int64)
    for seed in range(120):
        drawn = sample.draw(one.reader(), one.space, 19, seed)
        counts[drawn.ages] += 1
    assert np.array_equal(drawn.ages, sample.draw(one.reader(), one.space, 19, 119).ages)
    assert counts.sum() == 120 * 19 and counts.min() > 15 and counts.max() < 70


def test_chunks_change_nothing(one, monkeypatch):
    whole_ = sample.draw(one.reader(), one.space, 40, 0)
    monkeypatch.setattr(sample, "_CHUNK", 7)
    assert np.array_equal(sample.draw(one.reader(), one.space, 40, 0).rows, whole_.rows)


# --- neighbours -------------------------------------------------------------------------------------------


def plain_scores(metric, query, rows):
    query, rows = query.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        return -np.sqrt(((rows - query) ** 2).sum(1))
    products = rows @ query
    return products / np.linalg.norm(rows, axis=1) / np.linalg.norm(query) if metric == "cosine" else products


@pytest.mark.parametrize("batch", [128, 7])
def test_neighbours_are_the_best_of_all_living_vectors_but_the_query(world, batch, monkeypatch):
    monkeypatch.setattr(asking, "_BATCH", batch)
    drawn = sample.draw(world.reader(), world.space, 30, 0)
    asked = world.ask(drawn)
    assert asked.scores.shape == (20, 4) and len(set(asked.places.tolist())) == 20 and not asked.answers
    for number, place in enumerate(asked.places):
        own = int(drawn.ages[place])
        scores = plain_scores(world.space.metric, world.rows[own], world.rows)
        scores[own] = -np.inf
        order = np.argsort(-scores)
        assert asked.scores[number] == pytest.approx(scores[order[:4]], abs=1e-5)
        wanted = world.rows[order[0]].astype(np.float64)
        assert asked.nearest[number] == pytest.approx(wanted, abs=1e-5) or world.space.metric == "cosine"
        if world.space.metric == "cosine":  # which length is stored is the storage's business
            found = asked.nearest[number] / np.linalg.norm(asked.nearest[number])
            assert found == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-5)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_of_little_all_that_there_is_is_found(tmp_path, n):
    made = World(tmp_path / "x.vecdb", n=n)
    try:
        asked = made.ask(sample.draw(made.reader(), made.space, 100, 0), k=9)
        assert asked.scores.shape == (n, max(0, n - 1)) and asked.nearest.shape == (n, D)
        assert np.isfinite(asked.scores).all() and (np.diff(asked.scores, axis=1) <= 0).all()
    finally:
        made.db.close()


def test_an_index_is_asked_without_the_query_itself(one):
    one.docs.create_index("a", "flat")
    asked = one.ask(sample.draw(one.reader(), one.space, 30, 0), recall_at=3)
    ((number, answers),) = asked.answers.items()
    assert len(answers) == 20 and asked.notes == {}
    assert np.array_equal(np.stack(answers), asked.scores[:, :3])
    assert [entry.id for entry, _ in asking.index_entries(one.reader(), one.space)] == [number]
    assert asking.index_entries(one.reader(), one.other) == []


@given(st.integers(0, 5_000), st.integers(1, 10**9), st.integers(1, 4_096), st.integers(1, 100_000))
def test_asking_is_bounded_but_never_fewer_than_a_hundred(drawn, more, dim, wanted):
    class Drawn:
        vectors = drawn + more
        space = SimpleNamespace(dim=dim)

        def __len__(self):
            return drawn

    found = asking.affordable(Drawn(), wanted)
    assert min(drawn, wanted, 100) <= found <= min(drawn, wanted)
    assert found <= 100 or found * (drawn + more) * dim <= 2.5e11


# --- the past, and being stopped --------------------------------------------------------------------------


def test_what_was_drawn_is_asked_at_its_commit_whatever_is_written_meanwhile(one):
    reader = one.reader()
    drawn = sample.draw(reader, one.space, 30, 0)
    before = one.ask(drawn, reader)
    facts = sample.labels(reader, drawn, "deep.s")
    one.docs.delete(one.ids[:40])
    one.docs.upsert(range(100, 130), {"a": vectors(30, 9)})
    after = one.ask(drawn, reader)
    assert np.array_equal(before.scores, after.scores) and np.array_equal(before.nearest, after.nearest)
    assert sample.labels(reader, drawn, "deep.s") == facts
    assert sample.draw(one.reader(), one.space, 100, 0).vectors == 47


@pytest.mark.parametrize("step", range(6))
def test_a_look_can_be_stopped_at_every_step(one, step):
    looks = iter(range(100))
    with pytest.raises(CancelledError):
        one.docs.health("a", labels="n", pairs=[(7, 8)], cancel=lambda: next(looks) == step)
    assert next(looks) == step + 1  # it did stop there
    assert one.docs.health("a").vectors == 57


# --- facts of records -------------------------------------------------------------------------------------


def test_vectors_of_ids_and_of_another_space_are_those_of_their_records(one):
    from vecdb.storage.idkeys import id_key

    rows, found = sample.vectors_of(one.reader(), one.space, [id_key(id) for id in (5, 3, 10, "nobody", 10)])
    assert [row is None for row in rows] == [False, True, False, True, False] and rows[2] == rows[4]
    assert np.array_equal(found, one.rows[[one.ids.index(id) for id in (5, 10, 10)]])
    drawn = sample.draw(one.reader(), one.space, 100, 0)
    for size in (100, 4):
        places, there = sample.shared(one.reader(), drawn, one.other, size, seed=0)
        ids = [one.ids[drawn.ages[place]] for place in places]
        assert len(ids) == min(size, 10) and set(ids) <= set(range(7, 17))
        assert np.array_equal(there, vectors(10, 3)[[id - 7 for id in ids]])


def test_births_are_the_commits_that_wrote_the_vectors(one):
    drawn = sample.draw(one.reader(), one.space, 100, 0)
    seqs = sample.births(one.reader(), one.space, drawn.ordinals.tolist())
    by_id = dict(zip((one.ids[age] for age in drawn.ages), seqs, strict=True))
    first, second, replaced = by_id[0], by_id[31], by_id[5]
    assert first is not None and first < second < replaced == by_id[6]
    assert all(by_id[id] == (first if id < 30 else second) for id in one.ids if id not in (5, 6))


# --- what is said -----------------------------------------------------------------------------------------


def health(**found):
    return vecdb.SpaceHealth("c", "s", "", "cosine", "float32", 2, 1, 100, 100, 10, 0, **found)


@pytest.mark.parametrize(("low", "said"), [(1.5, False), (1.51, True)])
def test_hubs_are_spoken_of_when_they_are_beyond_doubt(low, said):
    hubs = Hubness(10, Estimate(9.0, low, 20.0, 100), 0.5, whole(0.0, 100), 0.0, 50, (1,), 100, 100)
    assert ("there are hubs" in " ".join(health(hubness=hubs).remarks)) is said
    hidden = dataclasses.replace(hubs, antihubs=Estimate(0.3, low / 10, 0.4, 100), antihub_floor=0.0505)
    assert ("of no other" in " ".join(health(hubness=hidden).remarks)) is said


@pytest.mark.parametrize(("high", "said"), [(remarks.FOUND, False), (0.89, True)])
def test_an_index_is_blamed_only_when_it_surely_misses(high, said):
    index = IndexHealth("ivf", Estimate(0.5, 0.4, high, 50), 10)
    assert ("finds 50%" in " ".join(health(indexes=(index,)).remarks)) is said
    assert health(indexes=(dataclasses.replace(index, recall=None),)).remarks == ()


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.integers(), inner),
        max_leaves=8,
    )
)
def test_plain_values_are_what_json_has(value):
    import json

    assert json.loads(json.dumps(plain(value), allow_nan=False)) == plain(value)
