"""Two stages: bridged candidates ranked by native vectors, which are stored or made for the occasion."""

import numpy as np
import pytest

import vecdb
from tests.unit.test_bridge_answers import D, World
from vecdb.errors import DimensionError, ParameterError, ReadOnlyError


class Model:
    """The new model: knows the vector of each text, and counts what it is asked."""

    def __init__(self, world):
        self.vectors = {f"text {i}": vector for i, vector in enumerate(world.new)}
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        return np.stack([self.vectors[text] for text in texts])


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


def told(db, new=0, noise=0.6, **more):
    world = World(db, new=new, noise=noise, **more)
    world.docs.upsert(world.ids, texts=[f"text {i}" for i in range(len(world.ids))], merge=True)
    world.fit()
    return world, Model(world)


def test_candidates_are_ranked_by_native_scores(db):
    world, model = told(db)
    bridged = world.docs.search(world.queries, space="new", k=50)
    found = world.docs.search(world.queries, space="new", rerank="native", encode=model, candidates=50, explain=True)
    for query, one, two in zip(world.queries, bridged, found, strict=True):
        scores = {id: float(world.new[int(id[1:])] @ query) for id in one.ids}
        wanted = sorted(one.ids, key=lambda id: -scores[id])[:10]
        assert two.ids == wanted and two.complete
        np.testing.assert_allclose(two.scores, [scores[id] for id in wanted], atol=1e-6)
        assert {(hit.space, hit.origin) for hit in two} == {("new", "encoded")}
        assert {hit.id: hit.raw_score for hit in two} == {hit.id: hit.raw_score for hit in one if hit.id in two.ids}
    assert len(model.asked) == len(set(model.asked)) == found.plan["encoded"]
    assert found.plan["rerank"] == "native" and found.plan["candidates"] == 50
    assert len(world.docs.search(world.queries, space="new", spaces="native").ids[0]) == 0  # nothing was stored


def test_with_as_many_candidates_as_records_it_is_the_native_ranking(db):
    world, model = told(db, new=150)
    found = world.docs.search(world.queries, space="new", rerank="native", encode=model, candidates=400)
    assert set(model.asked) == {f"text {i}" for i in range(150, 400)}
    world.have_new(range(400))
    native = world.docs.search(world.queries, space="new", spaces="native")
    assert [hits.ids for hits in found] == [hits.ids for hits in native]
    np.testing.assert_array_equal(found.scores, native.scores)


def test_written_back_they_are_native_from_then_on(db):
    world, model = told(db)
    arguments = {"space": "new", "rerank": "native", "encode": model, "candidates": 30}
    hits = world.docs.search(world.queries[0], writeback=True, **arguments)
    assert len(model.asked) == 30
    stored = world.docs.search(world.queries[0], space="new", spaces="native", k=100)
    assert len(stored) == 30 and stored.ids[:10] == hits.ids
    assert stored.scores[:10].tolist() == hits.scores.tolist()
    assert db.check().ok


def test_a_record_that_changed_meanwhile_is_not_written_to(db):
    world, model = told(db)

    def slow(texts):
        made = model(texts)
        world.docs.upsert(["r0"], texts=["another"], merge=True)
        world.docs.delete(["r1"], missing_ok=True)
        return made

    query = world.new[0] + world.new[1]
    hits = world.docs.search(query, space="new", rerank="native", encode=slow, candidates=400, k=400, writeback=True)
    assert {"r0", "r1"} <= set(hits.ids)
    stored = world.docs.search(query, space="new", spaces="native", k=400).ids
    assert "r0" not in stored and "r1" not in stored and len(stored) == 398


def test_records_without_a_text_keep_their_score(db):
    world, model = told(db)
    world.docs.upsert(["r0"], {"old": world.old[:1]})
    plain = world.docs.search(world.new[0], space="new", k=400)
    bridged = {hit.id: hit.score for hit in plain}
    hits = world.docs.search(world.new[0], space="new", rerank="native", encode=model, k=400, explain=True)
    assert {hit.id: (hit.origin, hit.score) for hit in hits}["r0"] == ("bridged:up", bridged["r0"])
    assert hits.plan["without_text"] == 1 and "text 0" not in model.asked


def test_offset_and_least_score_apply_to_native_scores(db):
    world, model = told(db)
    arguments = {"space": "new", "rerank": "native", "encode": model, "candidates": 60}
    everything = world.docs.search(world.queries[0], k=60, **arguments)
    assert world.docs.search(world.queries[0], k=5, offset=7, **arguments).ids == everything.ids[7:12]
    least = float(everything.scores[9])
    assert world.docs.search(world.queries[0], k=60, min_score=least, **arguments).ids == everything.ids[:10]
    some = world.docs.search(world.queries[0], k=60, where={"even": True}, **arguments)
    assert all(int(id[1:]) % 2 == 0 for id in some.ids)


def test_the_old_encoder_finds_candidates_for_the_new_one(db):
    world, model = told(db)
    hits = world.docs.search(
        {"old": world.old[:20], "new": world.new[:20]}, rerank="native", encode=model, candidates=20, k=1
    )
    assert [found.ids[0] for found in hits] == world.ids[:20]


def test_the_encoder_of_the_space_serves(db):
    world, model = told(db)
    world.docs.set_encoder("new", model)
    assert world.docs.search("text 5", space="new", rerank="native").ids[0] == "r5"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"rerank": "natives"}, ParameterError),
        ({"rerank": "native"}, ParameterError),
        ({"rerank": "native", "encode": 5}, ParameterError),
        ({"rerank": "native", "candidates": 0, "encode": len}, ParameterError),
        ({"writeback": True}, ParameterError),
        ({"encode": len}, ParameterError),
        ({"rerank": "native", "encode": lambda texts: np.ones((len(texts), D - 1))}, DimensionError),
        ({"rerank": "native", "encode": lambda texts: np.ones((len(texts) + 1, D))}, ParameterError),
    ],
)
def test_wrong_wishes_and_wrong_encoders_are_refused(db, arguments, error):
    world, _ = told(db)
    with pytest.raises(error):
        world.docs.search(world.queries[0], space="new", **arguments)
    assert world.docs.stats()["spaces"]["new"]["vectors"] == 0


def test_readers_do_not_write(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as db:
        _, model = told(db)
    with vecdb.open(tmp_path / "a.vecdb", mode="r") as db:
        docs = db.collection("docs")
        query = next(iter(model.vectors.values()))
        with pytest.raises(ReadOnlyError):
            docs.search(query, space="new", rerank="native", encode=model, writeback=True)
        assert docs.search(query, space="new", rerank="native", encode=model).ids[0] == "r0"
