"""When an index takes what in, merges, or is built anew: decided from counts alone, and bounded whatever is written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.indextypes import CopiesType, able, fail, rows
from vecdb.contracts import Param
from vecdb.engine import encoding, measuring, upkeep
from vecdb.engine.upkeep import MAX_CODED, MAX_PARTS, Condition, Step, due
from vecdb.errors import PluginError
from vecdb.storage.indexes import IndexPart

GRAPH = able("exact", "encodes_segments", part_from=65_536)
CODES = able("exact", "encodes_segments")
PLAIN = able("exact")


def parts(*counts):
    """Parts of these counts; a negative one is encoded."""
    made, first = [], 0
    for place, count in enumerate(counts):
        made.append(IndexPart(place, 1, first, first + abs(count), abs(count), (), count < 0))
        first += abs(count)
    return made


def fine(uncovered=0):
    return Condition(False, 0.0, uncovered)


@pytest.mark.parametrize("abilities", [GRAPH, CODES, PLAIN])
def test_what_is_worn_is_built_anew(abilities):
    assert due(abilities, (), fine()) == Step("build", 0)
    for condition in (Condition(True, 0.0, 0), Condition(False, 0.31, 0)):
        assert due(abilities, parts(1_000, 50), condition) == Step("build", 0)


@pytest.mark.parametrize("abilities", [GRAPH, CODES, PLAIN])
def test_few_uncovered_ones_are_scanned(abilities):
    assert due(abilities, parts(100_000), fine(1_000)) is None


def test_a_graph_waits_for_a_tenth_and_for_what_is_worth_a_build():
    assert due(GRAPH, parts(100_000), fine(2_000)) == Step("encode", 1)
    assert due(GRAPH, parts(100_000, -60_000), fine(2_000)) == Step("encode", 2)
    assert due(GRAPH, parts(100_000, -60_000), fine(6_000)).how == "build"
    assert due(GRAPH, parts(1_000_000, -90_000), fine(6_000)) == Step("encode", 2)
    assert due(GRAPH, parts(1_000_000, -90_000), fine(11_000)) == Step("build", 1)
    assert due(GRAPH, parts(1_000_000, 120_000, -60_000), fine(41_000)) == Step("build", 1)
    assert due(GRAPH, parts(-5_000), fine()) == Step("build", 0)


def test_parts_are_merged_into_larger_ones_before_there_are_too_many():
    assert due(GRAPH, parts(1_000_000, 400_000, 150_000), fine(110_000)) == Step("build", 0)
    assert due(GRAPH, parts(2_000_000, 700_000, 300_000), fine(210_000)) == Step("build", 0)
    assert due(GRAPH, parts(9_000_000, 2_500_000, 1_200_000), fine(900_000)) == Step("build", 0)
    assert due(GRAPH, parts(9_000_000, 4_000_000, 1_900_000), fine(900_000)) == Step("build", 2)


def test_a_type_that_adds_lets_the_last_part_grow():
    growing = able("exact", "encodes_segments", "add", part_from=65_536)
    assert due(growing, parts(100_000, -60_000), fine(6_000)) == Step("grow", 0)
    assert due(growing, parts(10_000, -60_000), fine(6_000)) == Step("build", 0)


def test_codes_are_made_anew_once_they_have_doubled():
    assert due(CODES, parts(10_000, -5_000, -4_000), fine(900)) is None
    assert due(CODES, parts(10_000, -5_000, -4_000), fine(1_100)) == Step("build", 0)
    assert due(CODES, parts(100, -90), fine(20)) is None


def test_small_codes_are_merged_with_those_behind_them():
    assert due(CODES, parts(100_000, -20_000, -1_000), fine(1_500)) == Step("encode", 2)
    many = parts(100_000, -30_000, *[-500] * MAX_CODED)
    step = due(CODES, many, fine())
    assert step.how == "encode" and 1 <= step.kept < len(many) - 1


@given(
    batches=st.lists(st.integers(1, 40_000), min_size=1, max_size=60),
    kind=st.sampled_from(
        [GRAPH, CODES, PLAIN, able("exact", "add"), able("exact", "encodes_segments", "add", part_from=65_536)]
    ),
    optimize_every=st.integers(1, 5),
)
def test_whatever_is_written_upkeep_ends_with_few_parts_that_cover_nearly_everything(batches, kind, optimize_every):
    """A model of parts: commits encode what they seal, upkeep takes steps until none is due."""
    known: list[int] = []
    uncovered = 0
    for turn, batch in enumerate(batches):
        if kind.encodes_segments and known:
            known.append(-batch)
        else:
            uncovered += batch
        if turn % optimize_every:
            continue
        taken = set()
        while (step := due(kind, parts(*known), fine(uncovered))) is not None and step not in taken:
            taken.add(step)
            moved = sum(map(abs, known[step.kept :])) + uncovered
            known[step.kept :] = [-moved if step.how == "encode" else moved]
            uncovered = 0
        assert due(kind, parts(*known), fine(uncovered)) is None, (known, uncovered)
        assert sum(count > 0 for count in known) <= MAX_PARTS
        assert sum(count < 0 for count in known) <= MAX_CODED
        assert uncovered < max(upkeep.GROW_FROM, upkeep.GROW_SHARE * max(known)) or not known


# --- in a database ----------------------------------------------------------------------------------------


def test_one_index_that_fails_does_not_keep_others_waiting(case, caplog):
    bad, good = CopiesType("acme.bad", able("exact", "add")), CopiesType("acme.good", able("exact", "add"))
    it = case(bad, good)
    it.index("acme.bad")
    it.index("acme.good")
    it.write(range(1000, 1030))
    bad.faults["add"] = fail(OSError("odd"))
    with pytest.raises(PluginError, match=r"acme\.bad"):
        it.c.optimize()
    assert {info.kind: info.coverage == 1.0 for info in it.c.indexes} == {"acme.bad": False, "acme.good": True}
    assert "acme.bad" in caplog.text


def test_a_plugin_that_cannot_load_what_it_built_is_asked_once_each_time(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    it.reopen()
    type_.faults["load"] = fail(ValueError("never"))
    built = type_.calls["build"]
    it.c.optimize()
    assert type_.calls["build"] == built + 1
    it.same()


def test_many_small_codes_are_made_anew_by_the_commits_themselves(case, monkeypatch):
    monkeypatch.setattr("vecdb.engine.housekeeping.after_write", lambda *given: None)
    type_ = CopiesType("acme.codes", able("exact", "encodes_segments"))
    it = case(type_, count=3_000)
    it.index()
    seen = []
    for turn in range(1, 40):
        it.write(range(10_000 * turn, 10_000 * turn + 2_800), seed=turn)  # more than a block: it is sealed at once
        seen.append(it.c.indexes[0].parts)
    assert max(seen) > encoding.MAX_SMALL and max(seen) < 39
    it.same()
    it.c.optimize()
    assert it.c.indexes[0].parts <= MAX_CODED + 1 and it.db.check().ok
    it.same()


def test_two_kinds_of_parts(case, monkeypatch):
    """Codes cover what is written until a built part is worth it; at most three of those."""
    monkeypatch.setattr(upkeep, "GROW_FROM", 50)
    type_ = CopiesType("acme.graph", able("exact", "encodes_segments", part_from=300))
    it = case(type_, count=1_000)
    it.index()
    for turn in range(1, 12):
        it.write(range(10_000 * turn, 10_000 * turn + 100), seed=turn)
        it.c.optimize()
        assert it.c.indexes[0].coverage == 1.0 and it.c.optimize() == 0
        it.same()
    assert 3 <= type_.calls["build"] <= 5 and type_.calls["encode_segment"] >= 6
    assert it.c.indexes[0].parts <= MAX_PARTS + MAX_CODED
    it.reopen()
    it.same()
    assert it.db.check().ok


# --- measuring --------------------------------------------------------------------------------------------


@pytest.fixture
def measured(case, monkeypatch):
    """An approximate index over enough vectors to be measured; `half` finds every second one."""
    monkeypatch.setattr(measuring, "MEASURE_FROM", 300)
    type_ = CopiesType("acme.half", able("filtered", "encodes_segments"), half=True)
    it = case(type_, count=600)
    it.index()
    return it


def curves(it):
    with it.db._read() as snapshot:
        entry = snapshot.state.catalog.collections["c"]
        return [[(c.source, c.k, c.queries) for c in part.measured.curves] for part in entry.indexes[0].parts]


def test_what_is_measured_is_kept_and_shown(measured):
    assert curves(measured) == [[("members", 10, 600), ("members", 100, 256)]]
    stats = measured.c.indexes[0].stats
    assert any(name.startswith("recall@10 (600 members)") for name in stats) and 2 < stats["local_dimension"] < 12
    measured.reopen()
    assert curves(measured) == [[("members", 10, 600), ("members", 100, 256)]]


def test_half_of_the_neighbours_is_half_the_recall(measured):
    with measured.db._read() as snapshot:
        points = snapshot.state.catalog.collections["c"].indexes[0].parts[0].measured.curves[0].points
    assert all(0.4 < point[1] / 1e6 < 0.6 for point in points)


def test_a_recall_that_is_not_reached_is_scanned_and_one_that_is_not(measured):
    query = rows(1, 99)[0]
    plan = dict(measured.c.search(query, 5, recall=0.95, explain=True).plan)
    assert plan["method"] == "exact scan" and plan["scanned_for_recall"] == 600 and plan["recall"] == 0.95
    measured.same(query, recall=0.95)
    plan = dict(measured.c.search(query, 5, recall=0.2, explain=True).plan)
    assert plan["method"] == "index" and plan["effort"] == 16 and plan["measured_on"] == "members"
    assert 0.4 < plan["expected_recall"] < 0.6
    plan = dict(measured.c.search(query, 5, effort=33, explain=True).plan)
    assert plan["effort"] == 33 and 0.4 < plan["expected_recall"] < 0.6
    plan = dict(measured.c.search(query, 5, explain=True).plan)
    assert "effort" not in plan and "expected_recall" not in plan


def test_a_recall_without_a_curve_is_scanned(case):
    it = case(CopiesType("acme.half", able(), half=True))
    it.index()
    it.same(recall=0.5)
    assert it.c.search(rows(1)[0], 5, explain=True).plan["method"] == "index"


def test_exact_types_reach_any_recall_unmeasured(case):
    it = case(CopiesType())
    it.index()
    plan = it.same(recall=0.999)
    assert plan["method"] == "index" and plan["expected_recall"] == 1.0


def test_recorded_queries_are_measured_once_there_are_enough(measured):
    for query in rows(199, 5):
        measured.c.search(query, 3)
    assert measured.c.optimize() == 0
    measured.c.search(rows(1, 6)[0], 3)
    assert measured.c.optimize() == 1
    assert curves(measured) == [
        [("members", 10, 600), ("members", 100, 256), ("recorded", 10, 200), ("recorded", 100, 200)]
    ]
    for query in rows(300, 7):
        measured.c.search(query, 3)
    assert measured.c.optimize() == 0


def test_measuring_can_be_cancelled_and_stores_nothing(case, monkeypatch):
    import vecdb

    monkeypatch.setattr(measuring, "MEASURE_FROM", 300)
    type_ = CopiesType("acme.half", able("filtered"), half=True)
    it = case(type_, count=600)
    asked = iter([False, False, True])
    with pytest.raises(vecdb.CancelledError):
        it.c.create_index("s", "acme.half", cancel=lambda: next(asked, True))
    assert it.c.indexes == []


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_the_dimension_of_a_plane_is_two(case, monkeypatch, metric):
    monkeypatch.setattr(measuring, "MEASURE_FROM", 300)
    type_ = CopiesType("acme.half", able("filtered"), half=True)
    it = case(type_, count=0, metric=metric)
    flat = np.random.default_rng(1).standard_normal((3_000, 2))
    spread = np.zeros((3_000, 6), np.float32)
    spread[:, :2], spread[:, 2] = flat * 0.2, 1.0
    it.c.upsert(range(3_000), {"s": spread}, trust=True)
    it.index()
    known = it.c.indexes[0].stats.get("local_dimension")
    assert known is None if metric == "dot" else known == pytest.approx(2.0, abs=0.3)


def test_copies_of_one_vector_are_measured_without_a_dimension(case, monkeypatch):
    monkeypatch.setattr(measuring, "MEASURE_FROM", 300)
    it = case(CopiesType("acme.half", able("filtered"), half=True), count=0)
    it.c.upsert(range(400), {"s": np.ones((400, 6), np.float32)}, trust=True)
    it.index()
    assert "local_dimension" not in it.c.indexes[0].stats
    plan = it.c.search(np.ones(6, np.float32), 5, recall=0.9, explain=True).plan
    assert plan["method"] == "index" and plan["expected_recall"] == 1.0


def test_vectors_that_died_are_not_asked_for(measured):
    measured.c.delete(list(range(0, 150)))
    measured.c.optimize()
    assert measured.c.search(rows(1)[0], 5, recall=0.2, explain=True).plan["method"] == "index"


def test_a_newer_version_of_a_type_may_have_other_parameters(case):
    given = []
    it = case(CopiesType())
    it.c.create_index("s", "acme.copies", m=5)
    newer = CopiesType(
        version=2, parameters={"m": Param("int", 3, "A number.", low=1), "n": Param("int", 7, "New.", low=1)}
    )
    newer.faults["build"] = lambda params, **more: given.append(dict(params))
    it.reopen(newer)
    it.c.optimize()
    assert given == [{"m": 5, "n": 7}] and it.c.indexes[0].params == {"m": 5, "n": 7}
    assert it.c.indexes[0].available
    it.same()
