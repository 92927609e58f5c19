"""What conditions select, remembered with a state: the same answers as found anew, forgotten with the state."""

import numpy as np
import pytest

import vecdb
from vecdb.engine import remembering
from vecdb.engine.remembering import known_as
from vecdb.engine.search import Allowed
from vecdb.engine.view import CollectionView


class State:
    def __init__(self):
        self.derived = {}


def allowed(size=1_000, ones=3):
    return Allowed(np.arange(size) < ones, ones, (), {})


@pytest.fixture
def docs(tmp_path):
    rng = np.random.default_rng(3)
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=8)
        docs.upsert([f"r{i}" for i in range(60)], {"m": rng.normal(size=(60, 8))}, [{"n": i % 5} for i in range(60)])
        yield docs


@pytest.fixture
def selections(monkeypatch):
    """How often a condition was really evaluated."""
    made = []
    real = CollectionView.select
    monkeypatch.setattr(CollectionView, "select", lambda self, condition: made.append(1) or real(self, condition))
    return made


QUERY = np.ones(8, np.float32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": "1"}, {"a": 1}),
        ({"a": None}, {"a": "null"}),
        ({}, {"a": 0}),
    ],
)
def test_different_conditions_are_known_by_different_texts(one, other):
    assert known_as(one) != known_as(other)


def test_what_json_cannot_write_is_not_remembered():
    assert known_as({"a": np.float32(1.0)}) is None
    assert known_as({"a": {"$in": np.arange(3)}}) is None
    assert known_as({"a": b"x"}) is None


@pytest.mark.parametrize("where", [{1: 2}, {True: 2}, {None: 2}, {"$or": [{"a": 1}, {1: 2}]}, {"a": {1.5: 2}}])
def test_names_that_json_would_make_strings_of_are_not_remembered(where):
    assert known_as(where) is None


def test_a_long_condition_is_not_remembered():
    assert known_as({"a": {"$in": list(range(2_000))}}) is None


def test_a_condition_is_evaluated_once_while_nothing_is_written(docs, selections):
    first = docs.search(QUERY, k=60, where={"n": 2})
    again = docs.search(QUERY, k=60, where={"n": 2})
    assert first.ids == again.ids and len(first.ids) == 12
    assert len(selections) == 1


def test_another_condition_is_another_selection(docs, selections):
    ids = [docs.search(QUERY, k=60, where={"n": n}).ids for n in range(5)]
    assert len({id for each in ids for id in each}) == 60
    assert len(selections) == 5


def test_new_metadata_is_seen_at_once(docs, selections):
    before = docs.search(QUERY, k=60, where={"n": 2}).ids
    docs.set_metadata(["r2"], [{"n": 4}])
    after = docs.search(QUERY, k=60, where={"n": 2}).ids
    assert set(before) - set(after) == {"r2"}
    assert len(selections) == 2


def test_deleted_and_new_records_are_seen_at_once(docs):
    docs.search(QUERY, k=60, where={"n": 2})
    docs.delete(["r7"])
    assert "r7" not in docs.search(QUERY, k=60, where={"n": 2}).ids
    docs.upsert("new", {"m": QUERY}, {"n": 2})
    assert docs.search(QUERY, k=60, where={"n": 2}).ids[0] == "new"


def test_the_past_is_evaluated_anew(docs, selections):
    seq = docs.search(QUERY, k=1).seq
    docs.search(QUERY, k=60, where={"n": 2})
    docs.set_metadata(["r2"], [{"n": 4}])
    assert "r2" in docs.search(QUERY, k=60, where={"n": 2}, as_of=seq).ids
    assert "r2" not in docs.search(QUERY, k=60, where={"n": 2}).ids
    assert len(selections) == 3


def test_a_record_that_is_asked_with_is_left_out_all_the_same(docs):
    assert "r2" in docs.search(QUERY, k=60, where={"n": 2}).ids
    assert "r2" not in docs.search(like="r2", k=60, where={"n": 2}).ids
    assert "r2" in docs.search(QUERY, k=60, where={"n": 2}).ids


def test_two_spaces_have_selections_of_their_own(docs):
    docs.add_space("w", dim=4)
    docs.set_vectors("w", ["r2", "r3"], np.eye(4)[:2])
    assert len(docs.search(QUERY, k=60, space="m", where={"n": 2})) == 12
    assert docs.search(np.ones(4), k=60, space="w", where={"n": 2}).ids == ["r2"]


@pytest.mark.parametrize("kind", ["rabitq", "graph", "ivf"])
def test_answers_through_an_index_are_those_of_a_scan(docs, kind):
    docs.create_index("m", kind)
    rng = np.random.default_rng(5)
    for query in rng.normal(size=(20, 8)).astype(np.float32):
        for where in ({"n": 1}, {"n": {"$gte": 1}}, {"n": 9}):
            hits = docs.search(query, k=60, where=where)
            exact = docs.search(query, k=60, where=where, exact=True)
            assert hits.ids == exact.ids
            assert hits.scores.tobytes() == exact.scores.tobytes()
    docs.delete(["r1"])
    assert "r1" not in docs.search(QUERY, k=60, where={"n": 1}).ids


def test_the_oldest_masks_go_first(monkeypatch):
    monkeypatch.setattr(remembering, "MOST_BYTES", 20_000)
    state, made = State(), []

    def ask(name):
        return remembering.selected(state, 1, name, lambda: made.append(name) or allowed())

    for name in "abcabcd":
        ask(name)
    assert made == list("abcd")  # three fit, and the fourth pushes out the first
    ask("b"), ask("c"), ask("d")
    assert made == list("abcd")
    ask("a")
    assert made == list("abcda")


def test_a_mask_beyond_all_bounds_is_not_kept(monkeypatch):
    monkeypatch.setattr(remembering, "MOST_BYTES", 2_500)
    state, made = State(), []
    for _ in range(2):
        remembering.selected(state, 1, "a", lambda: made.append(1) or allowed(size=5_000))
    assert len(made) == 2
