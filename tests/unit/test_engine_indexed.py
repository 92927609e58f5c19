"""Searching through indexes: which part answers, what is scanned beside it, what a plugin cannot do to an answer."""

from types import SimpleNamespace

import numpy as np
import pytest

import vecdb
from tests.indextypes import DIM, CopiesType, able, fail, rows
from vecdb.engine import indexed
from vecdb.errors import CorruptionError, PluginContractError, PluginError


def test_an_index_answers_and_what_it_does_not_cover_is_scanned(case):
    it = case(CopiesType())
    it.index()
    plan = it.same()
    assert (plan["method"], plan["index"], plan["parts"], plan["covered"]) == ("index", "acme.copies", 1, 400)
    assert (plan["nominated"], plan["rows_scanned"], plan["completed_by_scan"]) == (5, 0, 0)
    it.write(range(400, 430), seed=1)
    assert it.same()["rows_scanned"] == 30
    it.same(rows(3, 5))
    it.same(k=1000)
    it.same(offset=7, min_score=-8.0)
    found = it.c.search(k=5, like=3)
    assert found.ids == it.c.search(k=5, like=3, exact=True).ids


@pytest.mark.parametrize("abilities", [("exact",), ("exact", "filtered"), ("exact", "filtered", "complete")])
def test_conditions_and_the_past(case, abilities):
    it = case(CopiesType("acme.copies", able(*abilities)))
    it.index()
    it.db.tag("then")
    it.c.delete(where={"g": {"$in": [1, 2]}})
    it.write(range(0, 400, 3), seed=4)
    for where in (None, {"g": 3}, {"g": {"$ne": 3}}, {"g": {"$gte": 2}}, {"g": 77}):
        for as_of in (None, "then"):
            it.same(where=where, as_of=as_of)


def test_a_filter_after_the_search_asks_for_more(case):
    it = case(CopiesType("acme.copies", able("exact")), count=1000)
    it.index()
    plan = it.same(where={"g": {"$lt": 5}}, k=5)
    assert plan["method"] == "index" and plan["covered"] == 1000 and plan["rows_scanned"] == 0
    assert it.same(where={"g": 3}, k=5)["method"] in ("index", "exact scan")


class _Curve:
    """An index whose recall is known to grow with effort."""

    def __init__(self, most):
        self.most = most

    def choose(self, part, recall, k):
        return indexed.SCAN if recall > self.most else indexed.Choice(round(1000 * recall))


@pytest.mark.parametrize(
    ("share", "recall", "most", "effort"),
    [(1.0, 0.9, 1.0, 900), (0.6, 0.9, 1.0, 900), (0.4, 0.9, 1.0, 950), (0.4, 0.9, 0.92, 900), (0.4, 0.95, 0.92, None)],
)
def test_a_condition_that_leaves_little_is_asked_with_half_the_loss(share, recall, most, effort):
    question = SimpleNamespace(effort=None, recall=recall, k=10)
    assert indexed.effort_for(question, _Curve(most), None, share).effort == effort


def test_an_effort_that_is_given_is_taken():
    assert indexed.effort_for(SimpleNamespace(effort=7, recall=0.9, k=10), _Curve(1.0), None, 0.1).effort == 7
    assert (
        indexed.effort_for(SimpleNamespace(effort=None, recall=None, k=10), _Curve(1.0), None, 0.1) is indexed.DEFAULT
    )


def test_few_matches_are_scanned(case, monkeypatch):
    it = case(CopiesType())
    it.index()
    monkeypatch.setattr(indexed, "SCAN_BELOW", 2000)
    plan = it.same(where={"g": 3})
    assert (plan["method"], plan["rows_scanned"]) == ("exact scan", 40) and "acme.copies" not in str(plan)


def test_too_few_without_complete_are_completed_by_a_scan(case):
    type_ = CopiesType("acme.half", able("filtered"), half=True)
    it = case(type_, count=20)
    it.index()
    plan = it.same(k=15)  # ten of them are never nominated
    assert plan["completed_by_scan"] == 1 and plan["rows_scanned"] == 20
    plan = dict(it.c.search(rows(3, 7), 15, explain=True).plan)
    assert plan["completed_by_scan"] == 3
    assert dict(it.c.search(rows(1, 7)[0], 5, explain=True).plan)["completed_by_scan"] == 0


def test_each_part_must_have_enough_for_itself(case, monkeypatch):
    """Candidates of one part do not make up for those that another lost when they were filtered."""
    monkeypatch.setattr(
        indexed, "how_many", lambda part, question, count, matches, effort, *, restricted: question.k + 2
    )
    it = case(CopiesType(), count=0)
    query = np.zeros(DIM, np.float32)
    near, far = rows(300, 1) * 0.1, rows(300, 2) * 50
    for base, vectors, wanted in ((0, near, lambda place: place % 40 == 0), (1000, far, lambda place: True)):
        it.c.upsert(
            [base + place for place in range(300)],
            {"s": vectors},
            metadata=[{"w": bool(wanted(place))} for place in range(300)],
            trust=True,
        )
        if base:
            monkeypatch.setattr("vecdb.engine.upkeep.GROW_FROM", 1)
            it.c.optimize()
        else:
            it.index()
    assert it.c.indexes[0].parts == 2
    plan = it.same(query, k=4, where={"w": True})
    assert plan["parts"] == 2 and plan["completed_by_scan"] == 1


def test_what_died_but_can_still_be_read_is_not_removed_from_an_index(case, monkeypatch):
    type_ = CopiesType("acme.all", able("exact", "filtered", "complete", "add", "remove"))
    it = case(type_, count=300)
    it.index()
    it.db.tag("then")
    it.c.delete(list(range(40)))
    it.write(range(1000, 1010), seed=3)
    assert it.c.optimize() and type_.calls["add"] == 1 and "remove" not in type_.calls
    for place in range(0, 40, 7):
        query = rows(300)[place]
        assert it.same(query, as_of="then")["covered"] == 310
        assert it.c.search(query, 1, as_of="then").ids == [place]
    it.db.untag("then")
    it.db.compact(keep="nothing")
    it.write(range(2000, 2010), seed=3)
    assert it.c.optimize() and type_.calls["remove"] == 1
    it.same()
    assert it.c.indexes[0].stats["gone"] == 40


def test_repacked_blocks_do_not_disturb_an_index(case):
    it = case(CopiesType("acme.copies", able("exact", "filtered")), retention=0.0)
    it.index()
    for turn in range(4):
        it.c.delete([each for each in range(400) if each % 8 == turn])
        it.write(range(500 + 10 * turn, 510 + 10 * turn), seed=turn)
        it.db.compact()
        for where in (None, {"g": {"$ne": 3}}):
            assert it.same(where=where)["index"] == "acme.copies"
    assert it.db.check().ok


def test_the_index_that_covers_most_is_used_the_newest_of_equals(case):
    it = case(CopiesType("acme.one"), CopiesType("acme.two"))
    it.index("acme.one")
    it.index("acme.two")
    assert it.same()["index"] == "acme.two"
    it.c.drop_index("s", "acme.two")
    assert it.same()["index"] == "acme.one"
    it.write(range(400, 420))
    it.index("acme.two")
    assert it.same()["index"] == "acme.two"
    assert [info.kind for info in it.c.indexes] == ["acme.one", "acme.two"]


# --- what plugins cannot do -------------------------------------------------------------------------------


def test_a_search_that_raises_names_the_plugin_and_leaves_the_database_usable(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    type_.faults["search"] = fail(ZeroDivisionError("nought"))
    with pytest.raises(PluginError, match=r"Plugin.*failed in search of index type 'acme.copies'.*nought"):
        it.c.search(rows(1)[0])
    assert len(it.c.search(rows(1)[0], exact=True)) == 10
    it.write([1, 2])
    assert it.db.check().ok
    type_.faults.clear()
    it.same()


def test_a_broken_answer_is_refused_and_the_next_one_is_fine(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    type_.answer = lambda found: found._replace(scores=found.scores[:, ::-1].copy())
    with pytest.raises(PluginContractError) as caught:
        it.c.search(rows(1)[0])
    assert (caught.value.rule, caught.value.plugin) == ("search-order", "tests.indextypes.Plugin")
    type_.answer = lambda found: found
    it.same()


def test_a_plugin_cannot_write_to_what_the_search_relies_on(case):
    seen = {}
    type_ = CopiesType("acme.copies", able("exact", "filtered"))
    type_.faults["search"] = lambda **given: seen.update(given)
    it = case(type_, retention=0.0)
    it.index()
    it.c.delete(list(range(0, 400, 9)))
    query = rows(1)[0]
    it.same(query, where={"g": {"$ne": 1}})
    for array in (seen["queries"], seen["allowed"]):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert query.flags.writeable


def test_a_plugin_that_keeps_its_view_is_refused_not_crashed(case):
    kept = []
    type_ = CopiesType()
    type_.faults["search"] = lambda view, **given: kept.append(view)
    type_.faults["load"] = lambda view, **given: kept.append(view)
    it = case(type_)
    it.index()
    it.same()
    assert len(kept) == 4  # one of the load, three of searches
    it.db.close()
    for view in kept:
        for use in (
            lambda view=view: view.gather([0]),
            lambda view=view: next(view.chunks()),
            lambda view=view: view.ordinals,
            lambda view=view: view.in_place().__enter__(),
        ):
            with pytest.raises(PluginContractError, match="after the call"):
                use()


def test_a_plugin_may_ask_the_database_while_it_searches(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    asked = []

    def ask(**given):
        asked.append(it.c.search(rows(1)[0], exact=True).ids)
        asked.append(it.c.get([3])[0].id)
        it.c.set_metadata([3], [{"n": len(asked)}])

    type_.faults["search"] = ask
    it.c.search(rows(1)[0])
    assert asked[1] == 3 and it.c.get([3])[0].metadata["n"] == 2
    type_.faults["search"] = lambda **given: it.db.close()
    with pytest.raises(vecdb.VecdbError):
        it.c.search(rows(1)[0])


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_the_view_of_a_search(case, metric):
    seen = []

    def look(view, **given):
        assert (view.count, view.dim, view.metric, view.space.name) == (400, DIM, metric, "s")
        assert view.ordinals.tolist() == list(range(400))
        assert np.array_equal(view.gather([3, 1, 3]), rows(400)[[3, 1, 3]])
        assert view.gather(np.empty(0, np.int64)).shape == (0, DIM)
        with view.in_place() as here:
            assert here.places is None and here.first == 0 and here.blocks.count == 400
        for wrong in ([400], [-1], [[1]], [0.5]):
            with pytest.raises(PluginContractError, match="positions"):
                view.gather(wrong)
        seen.append(1)

    type_ = CopiesType(faults={"search": look})
    it = case(type_, metric=metric)
    it.index()
    it.same()
    assert seen


def test_vectors_that_were_given_back_are_left_out_of_a_view(case):
    seen = []

    def look(view, allowed, **given):
        with view.in_place() as here:
            gone = np.flatnonzero(here.places < 0)
            assert not here.places.flags.writeable
        there = np.concatenate([positions for positions, _ in view.chunks(50)])
        assert sorted([*gone.tolist(), *there.tolist()]) == list(range(view.count))
        assert not allowed[gone].any()
        with pytest.raises(PluginContractError, match="no longer in the file"):
            view.gather(gone[:1])
        seen.append(len(gone))

    type_ = CopiesType("acme.copies", able("exact", "filtered"))
    it = case(type_, retention=0.0)
    it.index()
    it.c.delete(list(range(0, 100)))
    it.db.compact()
    type_.faults["search"] = look
    it.same()
    assert seen[0] == 100


# --- damage -----------------------------------------------------------------------------------------------


def test_where_vectors_lie_is_looked_up_once_for_many_commits(case, monkeypatch):
    from vecdb.engine import views

    it = case(CopiesType("acme.copies", able("exact", "filtered")), retention=0.0)
    it.index()
    it.c.delete(list(range(100)))
    it.db.compact()
    it.same()
    asked = []
    real = views._places
    monkeypatch.setattr(views, "_places", lambda *given: asked.append(1) or real(*given))
    for turn in range(3):
        it.write([1000 + turn])
        it.same()
    assert not asked
    it.c.delete(list(range(100, 200)))
    it.db.compact()
    it.same()
    assert asked == [1]


def test_a_part_that_covers_what_is_not_sealed_is_damage(case):
    from vecdb.engine.view import CollectionView
    from vecdb.engine.views import find_places
    from vecdb.storage.indexes import IndexPart

    it = case(CopiesType())
    with it.db._read() as snapshot:
        entry = snapshot.state.catalog.collections["c"]
        view = CollectionView(snapshot, entry)
        for stop in (401, 1 << 60):
            with pytest.raises(CorruptionError, match="not sealed"):
                find_places(view, view.space(entry.spaces["s"]), IndexPart(99, 1, 0, stop, stop))


def test_check_asks_an_index_that_can_what_is_wrong_with_it(case):
    type_ = CopiesType("acme.copies", able("exact", "proves"))
    it = case(type_)
    it.index()
    assert it.db.check().ok and type_.calls["problems"] == 1

    def load(blobs, view, params):
        index = CopiesType.load(type_, blobs, view, params)
        index.vectors = index.vectors.copy()
        index.vectors[7] += 1
        return index

    type_.load = load
    report = it.db.check()
    assert not report.ok and report.problems[0].endswith("row 7 is another")
    type_.faults["problems"] = fail(ValueError("lost"))
    with pytest.raises(PluginError, match="in problems of index type"):
        it.db.check()
