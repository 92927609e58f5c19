"""Reading and searching through the facade: every method, option and error, now and in the past."""

import os
import pickle

import numpy as np
import pytest

import vecdb
from vecdb import errors
from vecdb.errors import ParameterError, SpaceMissingError, WhereError


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "news.vecdb", durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("cos", dim=2)
        docs.add_space("l2", dim=2, metric="l2", dtype="float16")
        docs.upsert(
            ["a", "b", 1, "1"],
            vectors={"cos": [[1, 0], [1, 1], [0, 1], [-1, 0]], "l2": [[0, 0], [3, 4], None, [0, 1]]},
            metadata=[{"n": 1, "s": "x"}, {"n": 2}, {"n": None}, {}],
            texts=["first", None, "third", ""],
        )
        yield db


@pytest.fixture
def docs(db):
    return db.collection("docs")


def ids(records):
    return [record.id for record in records]


# --- get, count, contains ---------------------------------------------------------------------------------


def test_get_returns_records_in_the_order_asked_for(docs):
    records = docs.get(["1", "a", 1, "a"])
    assert ids(records) == ["1", "a", 1, "a"]
    assert [record.text for record in records] == ["", "first", "third", "first"]
    assert records[1].vectors == {} and records[1].spaces == ("cos", "l2") and records[2].spaces == ("cos",)
    assert docs.get([]) == [] and ids(docs.get(1)) == [1] and ids(docs.get(np.array([1]))) == [1]
    assert pickle.loads(pickle.dumps(records)) == records


def test_get_with_vectors(docs):
    [a, one] = docs.get(["a", 1], vectors="all")
    assert sorted(a.vectors) == ["cos", "l2"] and list(one.vectors) == ["cos"]
    assert a.vectors["l2"].dtype == np.float16 and a.vectors["cos"].tolist() == [1, 0]
    assert list(docs.get("a", vectors="l2")[0].vectors) == ["l2"]
    assert list(docs.get("a", vectors=["l2"])[0].vectors) == ["l2"]
    assert docs.get("a", vectors=())[0].vectors == {}


def test_ids_that_are_not_there(docs):
    with pytest.raises(errors.RecordMissingError, match="'zz'") as caught:
        docs.get(["a", "zz", 7])
    assert caught.value.ids == ["zz", 7]
    found = docs.get(["zz", "a", 7], missing_ok=True)
    assert found[0] is None and found[2] is None and found[1].id == "a"
    assert "a" in docs and 1 in docs and "1" in docs and 7 not in docs and "" not in docs
    assert None not in docs and 1.5 not in docs and True not in docs


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"vectors": "nope"}, SpaceMissingError),
        ({"vectors": ["cos", "nope"]}, SpaceMissingError),
        ({"vectors": [["cos"]]}, SpaceMissingError),
        ({"vectors": 5}, ParameterError),
        ({"as_of": 99}, errors.SnapshotExpiredError),
        ({"as_of": -1}, errors.SnapshotExpiredError),
        ({"as_of": "nope"}, errors.TagMissingError),
        ({"as_of": 1.0}, ParameterError),
        ({"as_of": True}, ParameterError),
    ],
)
def test_options_that_name_nothing(docs, options, error):
    with pytest.raises(error):
        docs.get("a", **options)
    with pytest.raises(error):
        list(docs.scan(**options))
    if "as_of" in options:
        with pytest.raises(error):
            docs.count(**options)
        with pytest.raises(error):
            docs.search([1, 0], space="cos", **options)


def test_count_and_len(docs):
    assert len(docs) == docs.count() == docs.count({}) == docs.count(None) == 4
    assert docs.count({"n": {"$gte": 1}}) == 2
    assert docs.count({"n": {"$exists": True}}) == 3
    assert docs.count({"$or": [{"n": 2}, {"s": "x"}]}) == 2


@pytest.mark.parametrize("where", [[], "", 0, 5, "n", [("n", 1)], {"n": {"$near": 1}}, {"$all": []}, {"n": {"$in": 1}}])
def test_conditions_that_are_none(docs, where):
    for call in (
        lambda: docs.count(where),
        lambda: list(docs.scan(where)),
        lambda: docs.search([1, 0], space="cos", where=where),
        lambda: docs.delete(where=where),
    ):
        with pytest.raises(WhereError):
            call()
    assert len(docs) == 4


# --- scan -------------------------------------------------------------------------------------------------


def test_scan_returns_records_in_record_order(docs):
    assert ids(docs.scan()) == ["a", "b", 1, "1"]
    assert ids(docs.scan({"n": {"$exists": True}}, limit=2)) == ["a", "b"]
    assert ids(docs.scan(limit=0)) == [] and ids(docs.scan(limit=9)) == ["a", "b", 1, "1"]
    docs.upsert(["a"])
    assert ids(docs.scan()) == ["a", "b", 1, "1"]
    docs.delete(["a"])
    docs.upsert(["a"])
    assert ids(docs.scan()) == ["b", 1, "1", "a"]
    [record] = docs.scan({"n": 2}, vectors="cos")
    assert record.vectors["cos"].tolist() == [1, 1]


def test_scan_in_an_order(docs):
    assert ids(docs.scan(order_by="n")) == [1, "a", "b", "1"]
    assert ids(docs.scan(order_by="-n")) == ["b", "a", 1, "1"]
    assert ids(docs.scan(order_by=["-s", "-n"], limit=2)) == ["a", "b"]
    assert ids(docs.scan({"n": {"$gte": 1}}, order_by="-n")) == ["b", "a"]


@pytest.mark.parametrize("options", [{"limit": -1}, {"limit": 1.0}, {"limit": True}, {"order_by": 5}, {"order_by": []}])
def test_options_of_scan(docs, options):
    with pytest.raises(ParameterError):
        docs.scan(**options)


def test_a_scan_reads_one_seq_whatever_is_written_meanwhile(docs):
    docs.upsert(range(2, 2000), metadata=[{"n": 5}] * 1998)
    for scan in (docs.scan(), docs.scan({"n": 5}), docs.scan(order_by="n")):
        first = next(scan)
        seen = [first.id, *(record.id for record in _with_writes(scan, docs))]
        assert len(seen) == len(set(seen)) and len(seen) in (2002, 1998)
        docs.upsert(range(1500, 2000), metadata=[{"n": 5}] * 500)


def _with_writes(scan, docs):
    for place, record in enumerate(scan):
        if place == 100:
            docs.delete(range(1500, 2000))
            docs.upsert(["new"])
            docs.delete(["new"])
        yield record


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_iterators_and_transactions_do_not_cross_a_fork(db, docs):
    docs.upsert(range(2, 2000))
    scan = docs.scan()
    next(scan)
    reader, writer = os.pipe()
    with db.transaction():
        docs.upsert(["inside"])
        child = os.fork()
        if child == 0:
            said = []
            for call in (lambda: next(scan), lambda: docs.upsert(["child"]), lambda: len(docs)):
                try:
                    call()
                    said.append("nothing")
                except errors.VecdbError as error:
                    said.append(type(error).__name__)
            os.write(writer, " ".join(said).encode())
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        assert answers.read() == "ForkedError ForkedError ForkedError"
    assert "inside" in docs and "child" not in docs and len(list(scan)) == 2001 and db.check().ok


# --- history ----------------------------------------------------------------------------------------------


def test_history_of_a_record(db, docs):
    docs.set_metadata(["a"], [{"n": 5}])
    docs.delete(["a"])
    docs.upsert(["other"])
    docs.upsert(["a"], texts=["again"])
    found = docs.history("a")
    assert [version.seq for version in found] == [4, 5, 6, 8]
    assert [version.record and version.record.metadata for version in found] == [{"n": 1, "s": "x"}, {"n": 5}, None, {}]
    assert [version.record.version for version in found if version.record] == [1, 2, 1]
    assert docs.history("never") == []
    db.tag("t")
    db.compact()
    assert [(version.seq, version.record.text) for version in docs.history("a")] == [(8, "again")]
    with pytest.raises(errors.IdError):
        docs.history(1.5)


def test_as_of_reads_every_kind_of_state(db, docs):
    db.tag("four")
    docs.upsert(["a"], vectors={"cos": [[0, -1]]}, metadata=[{"n": 9}])
    docs.delete(["b"])
    docs.upsert(["late"], vectors={"cos": [[1, 0]]}, metadata=[{"n": 1}])
    docs.delete(["a"])
    for as_of in ("four", 4):
        assert ids(docs.scan(as_of=as_of)) == ["a", "b", 1, "1"] and docs.count(as_of=as_of) == 4
        assert docs.get("a", vectors="cos", as_of=as_of)[0].vectors["cos"].tolist() == [1, 0]
        assert docs.count({"n": 1}, as_of=as_of) == 1 and ids(docs.scan(order_by="-n", as_of=as_of))[0] == "b"
        assert docs.search([1, 0], space="cos", as_of=as_of).ids == ["a", "b", 1, "1"]
        assert docs.search(like="a", space="cos", as_of=as_of).ids == ["b", 1, "1"]
        with pytest.raises(errors.RecordMissingError):
            docs.get("late", as_of=as_of)
    assert docs.search([1, 0], space="cos").ids == ["late", 1, "1"]
    at_right_angles = docs.search([1, 0], space="cos", as_of=7).ids[:2]
    assert at_right_angles == [1, "a"]  # the older vector first
    assert docs.search([1, 0], space="cos", as_of=4).seq == 4


def test_states_before_a_space_or_a_collection_existed_are_empty(db):
    other = db.create_collection("other")
    born = db.seq
    other.add_space("s", dim=2)
    other.upsert(["a"], vectors={"s": [[1, 2]]})
    for as_of in range(born + 2):
        assert other.search([1, 2], as_of=as_of).ids == [] and other.count(as_of=as_of) == 0
    assert other.search([1, 2], as_of=born + 2).ids == ["a"]


# --- search -----------------------------------------------------------------------------------------------


def test_hits_carry_what_was_asked_for(docs):
    hits = docs.search([1, 0], 2, space="cos")
    assert hits.ids == ["a", "b"] and hits.complete and hits.reason is None and hits.plan is None
    assert hits.scores.dtype == hits.distances.dtype == np.float32
    assert hits.scores.tolist() == [1, np.float32(np.sqrt(0.5))]
    np.testing.assert_array_equal(hits.distances, np.float32(1) - hits.scores)
    first = hits[0]
    assert (first.id, first.metadata, first.text, first.space) == ("a", {"n": 1, "s": "x"}, "first", "cos")
    assert (first.origin, first.relevance, first.vectors) == ("native", None, None)
    assert first.score == first.raw_score == 1.0
    assert pickle.loads(pickle.dumps(list(hits))) == list(hits)
    bare = docs.search([1, 0], 1, space="cos", include=())[0]
    assert bare.metadata is None and bare.text is None and bare.vectors is None
    full = docs.search([1, 0], 1, space="cos", include=["vectors", "text"])[0]
    assert full.metadata is None and full.text == "first" and full.vectors["cos"].tolist() == [1, 0]
    assert docs.search([1, 0], 1, space="cos", include="text")[0].text == "first"


@pytest.mark.parametrize(
    ("metric", "scores", "distances"),
    [("cosine", [1.0, 0.0], [0.0, 1.0]), ("dot", [2.0, 0.0], [-2.0, 0.0]), ("l2", [-1.0, -5.0], [1.0, 5.0])],
)
def test_scores_and_distances_of_each_metric(docs, metric, scores, distances):
    docs.add_space("m", dim=2, metric=metric)
    docs.upsert(["x", "y"], vectors={"m": [[2, 0], [0, 5]] if metric != "l2" else [[2, 0], [1, 5]]})
    hits = docs.search([1, 0], space="m")
    assert hits.scores.tolist() == scores and hits.distances.tolist() == distances
    assert not np.signbit(hits.distances[hits.distances == 0]).any()


def test_k_offset_and_min_score(docs):
    everything = docs.search([1, 0], space="cos")
    assert everything.ids == ["a", "b", 1, "1"]
    assert docs.search([1, 0], 10_000, space="cos").ids == everything.ids
    assert docs.search([1, 0], np.int64(2), space="cos", offset=np.int64(1)).ids == ["b", 1]
    assert (
        docs.search([1, 0], space="cos", offset=4).ids == []
        and docs.search([1, 0], space="cos", offset=10**9).ids == []
    )
    assert docs.search([1, 0], space="cos", min_score=0.5).ids == ["a", "b"]
    assert docs.search([1, 0], 1, space="cos", min_score=everything.scores[1], offset=1).ids == ["b"]
    assert docs.search([1, 0], space="cos", min_score=-float("inf")).ids == everything.ids
    assert docs.search([1, 0], 20_000, space="cos", allow_large=True).ids == everything.ids


def test_equal_scores_are_ordered_by_age(docs):
    docs.add_space("t", dim=1, metric="dot")
    docs.upsert(range(100, 120), vectors={"t": np.ones((20, 1))})
    docs.set_vectors("t", [100], [[1.0]])
    assert docs.search([1.0], 20, space="t").ids == [*range(101, 120), 100]


def test_a_batch_answers_like_single_queries(docs):
    queries = np.array([[1, 0], [0, 1], [-1, -1]], np.float32)
    batch = docs.search(queries, 3, space="l2", where={"n": {"$exists": True}})
    assert len(batch) == 3 and batch.counts.tolist() == [2, 2, 2] and batch.complete
    assert batch.scores.shape == batch.distances.shape == (3, 3)
    assert np.isneginf(batch.scores[:, 2]).all() and np.isposinf(batch.distances[:, 2]).all()
    for query, hits, row in zip(queries, batch, batch.scores, strict=True):
        single = docs.search(query, 3, space="l2", where={"n": {"$exists": True}})
        assert hits.ids == single.ids and hits.scores.tobytes() == single.scores.tobytes() == row[:2].tobytes()
    assert docs.search(queries[:1], 3, space="l2").ids == [docs.search(queries[0], 3, space="l2").ids]
    assert docs.search(queries.tolist(), 3, space="l2").ids == docs.search(queries, 3, space="l2").ids


def test_the_space_may_be_named_in_several_ways(db, docs):
    expected = docs.search([1, 0], space="cos").ids
    assert docs.search({"cos": [1, 0]}).ids == docs.search({"cos": [1, 0]}, space="cos").ids == expected
    with pytest.raises(errors.SpaceMismatchError) as caught:
        docs.search([1, 0])
    assert caught.value.available == ["cos", "l2"]
    empty = db.create_collection("empty")
    with pytest.raises(errors.SpaceMismatchError):
        empty.search([1, 0])
    empty.add_space("only", dim=2)
    assert empty.search([1, 0]).ids == [] and empty.search([[1, 0], [0, 1]]).ids == [[], []]


def test_search_from_a_record(docs):
    assert docs.search(like="a", space="cos").ids == ["b", 1, "1"]
    assert docs.search(like="a", space="cos", k=1).ids == ["b"]
    assert docs.search(like="a", space="cos", where={"n": {"$exists": False}}).ids == ["1"]
    with pytest.raises(errors.RecordMissingError):
        docs.search(like="zz", space="cos")
    with pytest.raises(errors.VectorMissingError) as caught:
        docs.search(like=1, space="l2")
    assert (caught.value.id, caught.value.space) == (1, "l2")
    for bad in (True, 1.5, ""):
        with pytest.raises(errors.IdError):
            docs.search(like=bad, space="cos")


def test_text_queries_need_an_encoder(db, docs):
    with pytest.raises(errors.SpaceMismatchError, match="encoder"):
        docs.search("words", space="cos")
    docs.set_encoder("cos", lambda texts: np.array([[len(text), 1] for text in texts]))
    assert docs.search("a long one", space="cos").ids[0] == "a"
    batch = docs.search(["a long one", ""], space="cos")
    assert [hits.ids[0] for hits in batch] == ["a", 1]
    assert docs.search({"cos": "a long one"}).ids[0] == "a"
    docs.rename_space("cos", "kos")
    assert docs.search("a long one", space="kos").ids[0] == "a"
    docs.set_encoder("kos", None)
    with pytest.raises(errors.SpaceMismatchError):
        docs.search("words", space="kos")
    for encode, error in (
        (lambda texts: np.ones((2, 2)), ParameterError),
        (lambda texts: np.ones((len(texts), 3)), errors.DimensionError),
        (lambda texts: ["x"], errors.DTypeError),
        (lambda texts: [[float("nan"), 1]], errors.NonFiniteError),
    ):
        docs.set_encoder("kos", encode)
        with pytest.raises(error):
            docs.search("words", space="kos")
    with pytest.raises(ParameterError):
        docs.set_encoder("kos", 5)
    other = docs.add_space("new", dim=2, encode=lambda texts: np.ones((len(texts), 2)))
    assert docs.search("words", space=other.name).ids == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ParameterError),
        ({"q": [1, 0], "like": "a"}, ParameterError),
        ({"q": []}, errors.DimensionError),
        ({"q": np.empty((0, 2))}, errors.DimensionError),
        ({"q": [1, 0, 0]}, errors.DimensionError),
        ({"q": [[1, 0], [1]]}, errors.DimensionError),
        ({"q": 5}, errors.DimensionError),
        ({"q": np.ones((1, 1, 2))}, errors.DimensionError),
        ({"q": [0, 0]}, errors.ZeroVectorError),
        ({"q": [float("nan"), 0]}, errors.NonFiniteError),
        ({"q": [1e30, 0]}, errors.VectorRangeError),
        ({"q": [object(), 0]}, errors.DTypeError),
        ({"q": b"xy"}, errors.DTypeError),
        ({"q": {"cos": [1, 0], "l2": [[1, 0], [0, 1]]}}, ParameterError),
        ({"q": {}}, ParameterError),
        ({"q": {"l2": [1, 0]}}, ParameterError),
        ({"q": [1, 0], "k": 0}, ParameterError),
        ({"q": [1, 0], "k": -3}, ParameterError),
        ({"q": [1, 0], "k": 10_001}, ParameterError),
        ({"q": [1, 0], "k": 2.0}, ParameterError),
        ({"q": [1, 0], "k": True}, ParameterError),
        ({"q": [1, 0], "k": None}, ParameterError),
        ({"q": [1, 0], "space": "nope"}, SpaceMissingError),
        ({"q": [1, 0], "space": 5}, SpaceMissingError),
        ({"q": [1, 0], "space": ["cos"]}, SpaceMissingError),
        ({"q": [1, 0], "offset": -1}, ParameterError),
        ({"q": [1, 0], "offset": 0.5}, ParameterError),
        ({"q": [1, 0], "min_score": "x"}, ParameterError),
        ({"q": [1, 0], "min_score": float("nan")}, ParameterError),
        ({"q": [1, 0], "recall": 0}, ParameterError),
        ({"q": [1, 0], "recall": 1.1}, ParameterError),
        ({"q": [1, 0], "effort": 0}, ParameterError),
        ({"q": [1, 0], "timeout": -1}, ParameterError),
        ({"q": [1, 0], "include": ["ids"]}, ParameterError),
        ({"q": [1, 0], "include": 5}, ParameterError),
        ({"q": [1, 0], "include": [["text"]]}, ParameterError),
        ({"q": [1, 0], "where": {"n": {"$x": 1}}}, WhereError),
    ],
)
def test_bad_searches(db, docs, arguments, error):
    with pytest.raises(error) as caught:
        docs.search(**{"space": "cos", **arguments})
    assert type(caught.value) is error
    assert db.check().ok


def test_the_plan_says_what_was_done(docs):
    hits = docs.search([1, 0], 2, space="cos", where={"n": {"$gte": 1}}, explain=True, recall=0.9, effort=5, exact=True)
    assert hits.plan["method"] == "exact scan" and hits.plan["space"] == "cos" and hits.plan["allowed"] == 2
    assert hits.plan["path"] == "numpy" and hits.plan["complete"] and "exact scan" in str(hits.plan)
    assert docs.search([[1, 0]], 2, space="cos", explain=True).plan["allowed"] == 4


def test_a_search_that_is_stopped(docs):
    docs.add_space("wide", dim=2048, metric="dot")
    docs.upsert(range(100, 600), vectors={"wide": np.ones((500, 2048), np.float32)}, trust=True)
    hits = docs.search(np.ones(2048), 5, space="wide", timeout=0)
    assert not hits.complete and "time-out" in hits.reason
    assert not docs.search(np.ones((2, 2048)), 5, space="wide", timeout=0).complete
    assert docs.search(np.ones(2048), 5, space="wide", timeout=1000).complete
    with pytest.raises(errors.CancelledError):
        docs.search(np.ones(2048), 5, space="wide", cancel=lambda: True)
    assert docs.search(np.ones(2048), 5, space="wide", cancel=lambda: False).complete


def test_never_fewer_hits_than_matches(docs):
    rng = np.random.default_rng(3)
    docs.add_space("r", dim=8, metric="l2")
    docs.upsert(
        range(1000, 3000), vectors={"r": rng.standard_normal((2000, 8))}, metadata=[{"m": i % 50} for i in range(2000)]
    )
    docs.delete(range(1000, 1500))
    docs.set_vectors("r", range(1500, 1600), rng.standard_normal((100, 8)))
    for where, matches in (({"m": 7}, 30), ({"m": {"$lt": 25}}, 750), ({"m": 99}, 0), (None, 1500)):
        for k in (1, 10, 30, 2000):
            hits = docs.search(rng.standard_normal(8), k, space="r", where=where)
            assert len(hits) == min(k, matches) and len(set(hits.ids)) == len(hits)
            assert (np.diff(hits.scores) <= 0).all()


def test_representations(docs):
    assert "Hits 4" in repr(docs.search([1, 0], space="cos")) and "2 queries" in repr(
        docs.search([[1, 0], [0, 1]], space="cos")
    )
