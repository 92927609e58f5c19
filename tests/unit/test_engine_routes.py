"""The short way of a search: when it is taken, that it answers as the long one does, and what sends a query back."""

import numpy as np
import pytest

from tests.indextypes import CopiesType, able, rows
from vecdb.contracts import Candidates
from vecdb.engine import indexed, routes
from vecdb.errors import CorruptionError, PluginContractError, PluginError
from vecdb.kernels import loader
from vecdb.storage.format import u64


@pytest.fixture(autouse=True)
def kernels():
    loader.request()
    if not loader.wait():
        pytest.skip("the short way needs the compiled kernels, which are switched off")


@pytest.fixture
def taken(monkeypatch):
    """Counts the answers that came the short way."""
    answers, real = [], routes.Route.answer

    def answer(self, *given):
        found = real(self, *given)
        answers.append(found is not None)
        return found

    monkeypatch.setattr(routes.Route, "answer", answer)
    return answers


def ready(case, type_=None, **options):
    it = case(type_ or CopiesType("acme.copies", able("exact", "filtered", "complete")), **options)
    it.index()
    it.c.search(rows(1, 7)[0], exact=True)  # every vector is proved
    return it


def test_a_plain_search_takes_the_short_way_and_answers_the_same(case, taken, monkeypatch):
    it = ready(case)
    queries = rows(20, 5)
    wanted = [it.c.search(query, 7, exact=True) for query in queries]
    it.c.search(queries[0], 7)
    monkeypatch.setattr(indexed, "search", lambda *given: pytest.fail("the long way was taken"))
    for query, exact in zip(queries, wanted, strict=True):
        found = it.c.search(query, 7)
        assert (found.ids, found.scores.tobytes(), found.complete) == (exact.ids, exact.scores.tobytes(), True)
        assert [hit.distance for hit in found] == [hit.distance for hit in exact]
    assert taken == [True] * 21


def test_the_long_way_is_for_everything_else(case, taken):
    it = ready(case)
    queries = rows(3, 5)
    it.c.search(queries, 5)
    it.c.search(queries[0], 5, explain=True)
    it.c.search(queries[0], 5, where={"g": 3})
    it.c.search(queries[0], 5, timeout=60)
    it.c.search(queries[0], 5, cancel=lambda: False)
    it.c.search(queries[0], 5, exact=True)
    it.c.search(like=3, k=5)
    assert taken == []


def test_deaths_are_respected_and_births_end_the_short_way(case, taken):
    it = ready(case)
    it.same()
    assert taken == [True, True]
    it.c.delete(it.c.search(rows(1, 99)[0], 3).ids)
    it.same()
    it.same()
    assert taken[-2:] == [True, True]
    it.write(range(400, 410), seed=3)
    before = len(taken)
    assert it.same()["rows_scanned"] == 10
    assert len(taken) == before
    it.c.optimize()


def test_a_filterless_type_goes_the_long_way_once_vectors_died(case, taken):
    it = ready(case, CopiesType("acme.copies", able("exact")))
    it.same()
    assert taken == [True, True]
    it.c.delete([3])
    it.same()
    assert taken == [True, True]


def test_the_past_is_not_answered_with_what_is_remembered_of_the_present(case):
    it = ready(case)
    it.db.tag("then")
    it.same()
    it.c.delete([each for each in range(0, 400, 3)])
    for as_of in (None, "then", None, "then"):
        it.same(as_of=as_of)
        it.same(as_of=as_of, k=50)


def test_every_k_effort_and_recall_has_a_route_of_its_own_and_they_stay_few(case, monkeypatch):
    monkeypatch.setattr(routes, "_MOST", 3)
    it = ready(case)
    for k in (1, 2, 3, 4, 5, 400, 1, 2):
        it.same(k=k)
    it.same(k=3, effort=50)
    it.same(k=3, offset=2)
    it.same(k=3, min_score=-5.0)


def test_a_dropped_index_is_not_asked_again(case, taken):
    it = ready(case)
    it.same()
    it.c.drop_index("s", "acme.copies")
    it.c.search(rows(1, 99)[0])
    assert taken == [True, True]


@pytest.mark.parametrize("small", [1 << 28, 0])
def test_what_is_scored_was_proved_first_and_in_the_end_everything(case, taken, monkeypatch, small):
    monkeypatch.setattr(routes, "_SMALL", small)
    it = case(CopiesType("acme.copies", able("exact", "filtered", "complete")))
    it.index()
    for turn in range(2 * routes._OFTEN):
        found = it.c.search(rows(1, turn)[0], 5)
        assert taken[-1:] == [True]
        with it.db._read() as snapshot:
            view = snapshot.space(it.c._number, it.c._entry().spaces["s"])
            assert view.all_sound == (turn >= routes._OFTEN and small > 0)
        assert found.ids == [hit.id for hit in it.c.search(rows(1, turn)[0], 5, explain=True)]


def test_a_damaged_vector_is_never_scored(case, taken):
    it = case(CopiesType("acme.copies", able("exact", "filtered", "complete")), count=3000)
    it.c.optimize()
    it.index()
    it.reopen()
    flip_a_vector(it)

    def ask_often():
        for turn in range(400):
            it.c.search(rows(1, turn)[0], 5)

    with pytest.raises(CorruptionError):
        ask_often()


def flip_a_vector(it):
    with it.db._read() as snapshot:
        blocks = snapshot.space(it.c._number, it.c._entry().spaces["s"]).open_blocks(snapshot.tx)
        key = u64(blocks[0].ref.id)
    env = it.db._store.env
    tx = env.begin_write()
    value = bytearray(tx.get("blocks", key))
    value[len(value) // 2] ^= 1
    tx.put("blocks", key, bytes(value))
    env.commit(tx)
    env.refresh()


class Told:
    """An index whose answers are changed before they are given."""

    def __init__(self, index, change):
        self._index = index
        self._change = change

    def __getattr__(self, name):
        return getattr(self._index, name)

    def search(self, queries, k, **options):
        positions, scores = (np.array(part) for part in self._index.search(queries, k, **options))
        self._change(positions, scores)
        return Candidates(positions, scores)


class Spoiled(CopiesType):
    """Breaks a rule once it is told to."""

    broken = staticmethod(lambda positions, scores: None)

    def load(self, blobs, view, params):
        return Told(super().load(blobs, view, params), lambda *answer: self.broken(*answer))


def twice(positions, scores):
    positions[0, 1], scores[0, 1] = positions[0, 0], scores[0, 0]


def outside(positions, scores):
    positions[0, 0] = 1 << 40


def unknown(positions, scores):
    scores[0, 0] = np.nan


@pytest.mark.parametrize(
    ("broken", "rule"), [(twice, "search-duplicates"), (outside, "search-unknown"), (unknown, "search-nan")]
)
def test_a_rule_that_is_broken_is_named(case, taken, broken, rule):
    type_ = Spoiled("acme.copies", able("exact", "filtered", "complete"))
    it = ready(case, type_)
    it.same()
    type_.broken = broken
    with pytest.raises(PluginContractError) as caught:
        it.c.search(rows(1, 99)[0], 5)
    assert caught.value.rule == rule
    assert taken == [True, True, False]


def test_an_error_of_a_plugin_names_it(case):
    type_ = Spoiled("acme.copies", able("exact", "filtered", "complete"))
    it = ready(case, type_)
    it.same()
    type_.broken = lambda positions, scores: 1 / 0
    with pytest.raises(PluginError, match=r"acme\.copies.*ZeroDivisionError"):
        it.c.search(rows(1, 99)[0], 5)


def test_an_index_that_finds_too_few_is_completed(case, taken):
    it = ready(case, CopiesType("acme.half", able("filtered"), half=True), count=20)
    found = it.c.search(rows(1, 7)[0], 15)
    assert len(found) == 15 and taken == [False]
    assert found.ids == it.c.search(rows(1, 7)[0], 15, exact=True).ids


def test_a_plugin_cannot_write_to_the_query(case):
    type_ = CopiesType("acme.copies", able("exact", "filtered", "complete"))
    it = ready(case, type_)
    query = rows(1, 99)[0]
    it.same(query)
    kept = query.copy()
    it.c.search(query, 5)
    assert query.flags.writeable and query.tobytes() == kept.tobytes()


class Prepared(Told):
    """Prepares searches, and counts what it was asked for."""

    def __init__(self, index, change, counts):
        super().__init__(index, change)
        self._counts = counts

    def prepare(self, k, *, allowed, effort, view):
        self._counts["prepared"] += 1
        if self._counts["refuses"]:
            return None

        def ask(query):
            self._counts["asked"] += 1
            positions, scores = self._index.search(query, k, allowed=allowed, effort=effort, view=view)
            self._change(positions, scores)
            return self._counts["shape"](Candidates(positions, scores))

        return ask

    def search(self, queries, k, **options):
        return self._index.search(queries, k, **options)


class Preparing(Spoiled):
    """Has the capability `prepares`."""

    def build(self, view, params, **options):
        return self._shown(CopiesType.build(self, view, params, **options))

    def load(self, blobs, view, params):
        return self._shown(CopiesType.load(self, blobs, view, params))

    def _shown(self, index):
        self.counts = {"prepared": 0, "asked": 0, "refuses": False, "shape": lambda answer: answer}
        return Prepared(index, lambda *answer: self.broken(*answer), self.counts)


@pytest.fixture
def preparing(case):
    type_ = Preparing("acme.copies", able("exact", "filtered", "complete", "prepares"))
    return ready(case, type_), type_


def test_what_was_prepared_is_asked_from_then_on(preparing, taken):
    it, type_ = preparing
    for turn in range(5):
        query = rows(1, turn)[0]
        found, exact = it.c.search(query, 5), it.c.search(query, 5, exact=True)
        assert (found.ids, found.scores.tobytes()) == (exact.ids, exact.scores.tobytes())
    assert (type_.counts["prepared"], type_.counts["asked"]) == (1, 4)
    it.c.search(rows(1, 9)[0], 6)
    assert (type_.counts["prepared"], type_.counts["asked"]) == (2, 4)


def test_a_commit_ends_what_was_prepared(preparing):
    it, type_ = preparing
    for _ in range(3):
        it.same()
    before = type_.counts["asked"]
    it.c.delete(it.c.search(rows(1, 99)[0], 3).ids)
    prepared = type_.counts["prepared"]
    for _ in range(3):
        it.same()
    assert type_.counts["prepared"] == prepared + 1 and type_.counts["asked"] > before


def test_an_index_may_refuse_to_prepare_and_is_asked_again_later(preparing, taken):
    it, type_ = preparing
    it.same()
    type_.counts["refuses"] = True
    it.c.search(rows(1, 7)[0], 4)
    it.c.search(rows(1, 8)[0], 4)
    assert type_.counts["prepared"] == 3
    type_.counts["refuses"] = False
    it.c.search(rows(1, 8)[0], 4)
    it.c.search(rows(1, 8)[0], 4)
    assert type_.counts["prepared"] == 4 and all(taken)


@pytest.mark.parametrize(
    ("broken", "rule"), [(twice, "search-duplicates"), (outside, "search-unknown"), (unknown, "search-nan")]
)
def test_a_rule_that_a_prepared_search_breaks_is_named(preparing, broken, rule):
    it, type_ = preparing
    it.same()
    type_.broken = broken
    with pytest.raises(PluginContractError) as caught:
        it.c.search(rows(1, 99)[0], 5)
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    "shape",
    [
        tuple,
        lambda answer: answer.positions,
        lambda answer: Candidates(answer.positions.astype(np.int32), answer.scores),
        lambda answer: Candidates(answer.positions, answer.scores.astype(np.float64)),
        lambda answer: Candidates(answer.positions[0], answer.scores[0]),
        lambda answer: Candidates(answer.positions[:, ::2], answer.scores),
        lambda answer: Candidates(np.repeat(answer.positions, 2, axis=0), np.repeat(answer.scores, 2, axis=0)),
        lambda answer: Candidates(answer.positions.astype(">i8"), answer.scores),
    ],
)
def test_other_arrays_of_a_prepared_search_are_refused_or_taken_as_they_are(preparing, shape):
    it, type_ = preparing
    it.same()
    wanted = it.c.search(rows(1, 99)[0], 5).ids
    type_.counts["shape"] = shape
    if shape is tuple:
        assert it.c.search(rows(1, 99)[0], 5).ids == wanted
    else:
        with pytest.raises(PluginContractError):
            it.c.search(rows(1, 99)[0], 5)


def test_an_error_of_a_prepared_search_names_the_plugin(preparing):
    it, type_ = preparing
    it.same()
    type_.broken = lambda positions, scores: 1 / 0
    with pytest.raises(PluginError, match=r"acme\.copies.*ZeroDivisionError"):
        it.c.search(rows(1, 99)[0], 5)
