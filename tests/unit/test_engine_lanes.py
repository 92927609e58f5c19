"""The lane of the commonest search: when it is taken, that its answer is the long way's, and what ends it."""

import ast
import gc
import inspect
import json
import textwrap
from contextlib import suppress

import numpy as np
import pytest

import vecdb
from vecdb.engine import lanes
from vecdb.engine.lanes import are_usual, wish
from vecdb.errors import (
    CollectionMissingError,
    DimensionError,
    NonFiniteError,
    ParameterError,
    SpaceMissingError,
    VecdbError,
    WhereError,
    ZeroVectorError,
)
from vecdb.kernels import loader

ROWS = np.random.default_rng(11).normal(size=(300, 8)).astype(np.float32)
QUERIES = np.random.default_rng(12).normal(size=(40, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def kernels():
    loader.request()
    if not loader.wait():
        pytest.skip("lanes need the compiled kernels, which are switched off")


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=8)
        docs.upsert(
            [f"r{i}" for i in range(300)], {"m": ROWS}, [{"n": i % 5} for i in range(300)], [str(i) for i in range(300)]
        )
        yield db


@pytest.fixture
def docs(db):
    return db.collection("docs")


@pytest.fixture
def taken(monkeypatch):
    """Whether each search found its lane."""
    answers, real = [], lanes.answer

    def answer(*given):
        found = real(*given)
        answers.append(found is not None)
        return found

    monkeypatch.setattr(lanes, "answer", answer)
    return answers


def told(hits):
    return json.dumps([[h.id, h.score, h.distance, h.metadata, h.text, h.space, h.origin, h.raw_score] for h in hits])


def same(one, other):
    assert (one.seq, one.complete, one.reason, one.warnings) == (
        other.seq,
        other.complete,
        other.reason,
        other.warnings,
    )
    assert one.scores.tobytes() == other.scores.tobytes() and told(one) == told(other)


# --- what a lane is for ---


def test_every_argument_of_search_has_its_place_here():
    """A new argument must be carried by a lane, or keep searches that have it out of lanes."""
    carried = {"self", "q", "k", "space", "exact", "recall", "effort", "include", "where"}
    without_effect = {"allow_stale"}  # on the filter that `relevance` names
    kept_out = _names_before_the_lane()
    for name, parameter in inspect.signature(vecdb.Collection.search).parameters.items():
        if name not in carried | without_effect:
            assert name in kept_out, f"{name} is ignored by lanes: see Collection.search"
            assert parameter.default in (None, 0, False)


def _names_before_the_lane():
    """Names that are looked at before, or by, the call that decides whether a search has a lane."""
    function = ast.parse(textwrap.dedent(inspect.getsource(vecdb.Collection.search))).body[0]
    calls = [node.lineno for node in ast.walk(function) if isinstance(node, ast.Attribute) and node.attr == "wish"]
    return {
        node.id
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and node.lineno <= calls[0]
    }


@pytest.mark.parametrize(
    ("offset", "prior", "usual"),
    [
        (0, 0.0, True),
        (0, 0, True),
        (1, 0.0, False),
        (0, 0.5, False),
        (0, np.zeros(3), False),
        (np.zeros(3), 0.0, False),
        ("", 0.0, False),
        (False, 0.0, False),
        (0.0, 0.0, False),
        (0, False, False),
        (0, None, False),
    ],
)
def test_unusual_numbers(offset, prior, usual):
    assert are_usual(offset, prior, (None, None)) is usual


@pytest.mark.parametrize("given", [0, False, "", (), np.ones(3), np.zeros(0)])
def test_what_is_not_none_was_asked_for(given):
    assert are_usual(0, 0.0, (None,), ())
    assert not are_usual(0, 0.0, (None,), (None, given, None))


@pytest.mark.parametrize("name", ["explain", "allow_large", "writeback"])
@pytest.mark.parametrize("value", [0, 0.0, True, np.False_])
def test_flags_that_are_not_plainly_false_take_no_lane(docs, taken, name, value):
    docs.search(QUERIES[0], k=3)
    assert docs.search(QUERIES[0], k=3).ids and taken == [False, True]
    with suppress(VecdbError):
        docs.search(QUERIES[0], k=3, **{name: value})
    assert taken == [False, True]


@pytest.mark.parametrize(
    "numbers",
    [
        (None, True, False, None, None),
        (None, np.int64(3), False, None, None),
        (None, 3, 0, None, None),
        (None, 3, False, 1, None),
        (None, 3, False, None, True),
        (7, 3, False, None, None),
    ],
)
def test_values_of_other_types_are_for_the_long_way(numbers):
    assert wish(1, (*numbers, ()), None) is None


def test_a_condition_that_has_no_text_is_for_the_long_way():
    assert wish(1, (None, 3, False, None, None, ()), {"n": np.int64(2)}) is None
    assert wish(1, (None, 3, False, None, None, ["text"]), None) is None
    assert wish(1, (None, 3, False, None, None, ()), {1: 2}) is None
    assert wish(1, (None, 3, False, None, None, ()), {"n": 2}).where == '{"n": 2}'


@pytest.mark.parametrize(
    "asked",
    [{"where": {1: 1}}, {"where": {True: 1}}, {"include": (["text"],)}, {"offset": 0.0}, {"offset": False}],
    ids=str,
)
def test_what_is_wrong_is_refused_beside_a_lane_for_what_looks_alike(docs, taken, asked):
    docs.set_metadata(["r0", "r1"], [{"1": 1, "true": 1}] * 2)
    for where in (None, {"1": 1}, {"true": 1}):
        for _ in range(2):
            docs.search(QUERIES[0], where=where)
        assert taken[-1]
    with pytest.raises((ParameterError, WhereError)):
        docs.search(QUERIES[0], **asked)


# --- answers ---

WAYS = [
    {},
    {"k": 3},
    {"include": ()},
    {"include": ("text", "vectors")},
    {"where": {"n": 2}},
    {"space": "m"},
    {"exact": True},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kind", [None, "rabitq", "graph", "ivf"])
def test_the_lane_answers_as_the_long_way_does(docs, taken, kind, way, monkeypatch):
    if kind is not None:
        docs.create_index("m", kind)
    docs.search(QUERIES[0], exact=True)
    first = [docs.search(query, **way) for query in QUERIES]
    again = [docs.search(query, **way) for query in QUERIES]
    assert taken[-1]
    with monkeypatch.context() as patched:
        patched.setattr(lanes, "answer", lambda *given: None)
        wanted = [docs.search(query, **way) for query in QUERIES]
    for one, two, three in zip(first, again, wanted, strict=True):
        same(one, three)
        same(two, three)


@pytest.mark.parametrize("kind", [None, "rabitq", "graph", "ivf"])
def test_the_second_plain_search_takes_the_lane(docs, taken, kind):
    if kind is not None:
        docs.create_index("m", kind)
    docs.search(QUERIES[0], exact=True)
    docs.search(QUERIES[0])
    docs.search(QUERIES[1])
    assert taken == [False, False, True]


def test_metrics_other_than_cosine(db, taken, monkeypatch):
    for metric in ("dot", "l2"):
        docs = db.create_collection(metric)
        docs.add_space("m", dim=8, metric=metric)
        docs.upsert([f"r{i}" for i in range(300)], {"m": ROWS})
        docs.search(QUERIES[0])
        for query in QUERIES:
            same(docs.search(query), docs.search(query, offset=0, min_score=-1e9))
        assert taken[-1]


# --- what ends a lane ---


def test_whatever_is_committed_is_seen(docs, taken):
    docs.search(QUERIES[0])
    assert docs.search(QUERIES[0]).ids[0] != "new"
    docs.upsert("new", {"m": QUERIES[0]}, {"n": 9})
    assert docs.search(QUERIES[0]).ids[0] == "new"
    docs.set_metadata(["new"], [{"n": 1}])
    assert docs.search(QUERIES[0])[0].metadata == {"n": 1}
    docs.delete(["new"])
    assert docs.search(QUERIES[0]).ids[0] != "new"
    assert taken == [False, True, False, False, False]


def test_another_handle_and_a_space_renamed(db, docs):
    docs.search(QUERIES[0])
    docs.search(QUERIES[0], space="m")
    with vecdb.open(db.path) as other:
        other.collection("docs").rename_space("m", "w")
    assert docs.search(QUERIES[0])[0].space == "w"
    with pytest.raises(SpaceMissingError):
        docs.search(QUERIES[0], space="m")


def test_a_collection_that_was_dropped(db, docs):
    docs.search(QUERIES[0])
    docs.search(QUERIES[0])
    db.drop_collection("docs")
    with pytest.raises(CollectionMissingError):
        docs.search(QUERIES[0])


def test_bad_queries_are_refused_as_before(docs):
    docs.search(QUERIES[0])
    for bad, error in (
        (np.zeros(8, np.float32), ZeroVectorError),
        (np.full(8, np.nan, np.float32), NonFiniteError),
        (np.ones(7, np.float32), DimensionError),
        (np.ones((0, 8), np.float32), DimensionError),
    ):
        with pytest.raises(error):
            docs.search(bad)
    with pytest.raises(ParameterError):
        docs.search(QUERIES[0], k=True)
    with pytest.raises(ParameterError):
        docs.search(QUERIES[0], offset=-1)


def test_queries_of_other_forms_get_the_same_answer(docs):
    docs.search(QUERIES[0])
    wanted = docs.search(QUERIES[0])
    for query in (QUERIES[0].astype(np.float64), QUERIES[0].tolist(), np.repeat(QUERIES[0], 2)[::2]):
        same(docs.search(query), wanted)
    assert docs.search(QUERIES[:1]).ids == [wanted.ids]


def test_an_index_that_is_made_or_dropped(docs, taken):
    docs.search(QUERIES[0])
    docs.create_index("m", "graph")
    exact = docs.search(QUERIES[0], exact=True)
    for _ in range(3):
        same(docs.search(QUERIES[0]), exact)
    assert taken[-1]
    docs.drop_index("m", "graph")
    assert docs.search(QUERIES[0]).ids == docs.search(QUERIES[0], exact=True).ids


def test_a_plugin_registered_meanwhile_sends_a_query_the_long_way(db, docs, taken):
    docs.create_index("m", "rabitq")
    docs.search(QUERIES[0])
    docs.search(QUERIES[0])
    assert taken[-1]
    db._registry.changes += 1
    docs.search(QUERIES[0])
    assert not taken[-1]
    docs.search(QUERIES[0])
    assert taken[-1]


def test_kernels_switched_off(docs, taken, monkeypatch):
    docs.search(QUERIES[0])
    monkeypatch.setattr(loader, "ready", lambda: False)
    docs.search(QUERIES[0])
    assert taken == [False, False]


def test_queries_are_recorded_on_every_way(db, docs):
    for query in QUERIES[:20]:
        docs.search(query)
    kept = db._settings.recorder._kept
    assert [len(each) for each in kept.values()] == [20]
    assert np.array_equal(np.stack(next(iter(kept.values()))), QUERIES[:20])


def test_the_lanes_of_a_state_are_bounded(docs, monkeypatch):
    monkeypatch.setattr(lanes, "_MOST", 4)
    for k in range(1, 12):
        docs.search(QUERIES[0], k=k)
    with docs.database._read() as snapshot:
        assert 1 <= len(snapshot.state.derived["lanes"][docs.database._guard]) <= 4


def test_the_lanes_of_a_handle_go_with_it(db, docs, taken):
    docs.search(QUERIES[0])
    with vecdb.open(db.path) as other:
        for _ in range(2):
            other.collection("docs").search(QUERIES[0])
        with docs.database._read() as snapshot:
            assert len(snapshot.state.derived["lanes"]) == 2
    del other
    gc.collect()
    with docs.database._read() as snapshot:
        assert len(snapshot.state.derived["lanes"]) == 1
    docs.search(QUERIES[0])
    assert taken == [False, False, True, True]


def test_an_older_state_keeps_nothing(db, docs):
    docs.search(QUERIES[0])
    with docs.database._read() as snapshot:
        before = snapshot.state
    docs.set_metadata(["r1"], [{"n": 7}])
    docs.search(QUERIES[0])
    assert before.derived == {}


def test_the_past_has_no_lane(docs, taken, monkeypatch):
    seq = docs.search(QUERIES[0]).seq
    docs.upsert("new", {"m": QUERIES[0]})
    monkeypatch.setattr(lanes, "keep", lambda *given: pytest.fail("a lane was kept"))
    assert "new" not in docs.search(QUERIES[0], as_of=seq).ids
    assert taken == [False]


def test_a_narrow_condition_is_scanned_from_its_lane(docs, taken, monkeypatch):
    docs.create_index("m", "graph")
    wanted = [docs.search(query, k=4, where={"n": 3}, exact=True) for query in QUERIES]
    docs.search(QUERIES[0], k=4, where={"n": 3})
    for query, exact in zip(QUERIES, wanted, strict=True):
        same(docs.search(query, k=4, where={"n": 3}), exact)
    assert taken[-len(QUERIES) :] == [True] * len(QUERIES)


def test_a_lane_verifies_what_it_scans(docs, monkeypatch):
    asked, real = [], lanes.verify
    monkeypatch.setattr(lanes, "verify", lambda *given: asked.append(given[3]) or real(*given))
    docs.search(QUERIES[0])
    docs.search(QUERIES[0], where={"n": 3})
    assert asked == [300, 60]


# --- through a transform ---


@pytest.fixture
def bridged(db):
    """A collection that is asked in a new space and answers with old vectors."""
    from tests.unit.test_bridge_answers import World

    world = World(db, n=300, name="bridged")
    world.fit()
    return world


def test_a_bridged_query_begins_with_its_map(bridged, taken):
    docs = bridged.docs
    for wishes in ({}, {"include": ()}, {"k": 3, "exact": True}):
        long = [docs.search(query, space="new", explain=True, **wishes) for query in bridged.queries]
        taken.clear()
        for query, expected in zip(bridged.queries, long, strict=True):
            hits = docs.search(query, space="new", **wishes)
            same(hits, expected)
            assert hits[0].origin == "bridged:up" and hits[0].space == "old"
        assert taken == [False] + [True] * 19
    native = [docs.search(query, space="old") for query in bridged.old[:4]]
    again = [docs.search(query, space="old") for query in bridged.old[:4]]
    assert taken[-4:] == [True] * 4
    for one, other in zip(native, again, strict=True):
        same(one, other)


def test_a_bridged_lane_takes_the_index_and_notes_both_queries(bridged, taken, db):
    docs = bridged.docs
    docs.create_index("old", "graph")
    for query in bridged.queries[:3]:
        docs.search(query, space="new")
    recorder = db._settings.recorder
    recorder.forget()
    long = docs.search(bridged.queries[5], space="new", explain=True)
    kept = {space: [row.tolist() for row in rows] for space, rows in recorder._kept.items()}
    recorder.forget()
    taken.clear()
    same(docs.search(bridged.queries[5], space="new"), long)
    assert taken == [True]
    assert {space: [row.tolist() for row in rows] for space, rows in recorder._kept.items()} == kept


def test_what_changes_the_way_ends_the_lane(bridged, taken, db):
    docs, query = bridged.docs, bridged.queries[0]
    for _ in range(2):
        docs.search(query, space="new")
    assert taken[-1]
    docs.fit_transform("new", "old", "procrustes", pairs=(bridged.new, bridged.old), name="better")
    docs.drop_transform("up")
    hits = docs.search(query, space="new")
    assert not taken[-1] and hits[0].origin == "bridged:better"
    docs.search(query, space="new")
    assert taken[-1]
    bridged.have_new([4, 5])  # two classes from now on
    mixed = docs.search(query, space="new", k=300)
    assert {hit.origin for hit in mixed} == {"native", "bridged:better"} and not taken[-1]


def test_hits_of_a_bridged_lane_count_as_traffic(bridged, taken, db):
    from vecdb.engine.migration.traffic import Traffic

    for _ in range(3):
        bridged.docs.search(bridged.queries[0], space="new", k=4)
    counted = db._traffic[bridged.docs._number] = Traffic()
    hits = bridged.docs.search(bridged.queries[0], space="new", k=4)
    assert taken[-1] and counted.drain() == dict.fromkeys(hits.ids, 1)
    bridged.docs.search(bridged.old[0], space="old", k=4)
    bridged.docs.search(bridged.old[0], space="old", k=4)
    assert taken[-1] and counted.drain() == {}


@pytest.mark.parametrize("indexed", [(), ("old",), ("old", "new")])
@pytest.mark.parametrize("new", [40, 150, 290])
def test_a_half_migrated_store_has_a_lane_with_the_same_list(db, taken, new, indexed):
    from tests.unit.test_bridge_answers import World
    from vecdb.engine.migration.traffic import Traffic

    world = World(db, n=300, new=new, name="mixed")
    world.fit()
    docs = world.docs
    for space in indexed:
        docs.create_index(space, "flat")
    for wishes in ({}, {"include": ()}, {"k": 40, "exact": True}):
        long = [docs.search(query, space="new", explain=True, **wishes) for query in world.queries]
        taken.clear()
        counted = db._traffic[docs._number] = Traffic()
        for query, expected in zip(world.queries, long, strict=True):
            same(docs.search(query, space="new", **wishes), expected)
        assert taken == [False] + [True] * 19
        bridged = [hit.id for hits in long for hit in hits if hit.origin != "native"]
        assert sum(counted.drain().values()) == len(bridged) > 0
    batch = docs.search(world.queries, space="new")
    for hits, query in zip(batch, world.queries, strict=True):
        same(hits, docs.search(query, space="new"))
    assert taken[-1]
    world.have_new(range(300))
    assert {hit.origin for hit in docs.search(world.queries[0], space="new")} == {"native"} and not taken[-1]


def test_wishes_that_change_the_list_stay_out_of_the_lane(db, taken):
    from tests.unit.test_bridge_answers import World

    world = World(db, n=300, new=100, name="mixed")
    world.fit()
    docs, query = world.docs, world.queries[3]
    plain = docs.search(query, space="new")
    same(docs.search(query, space="new"), plain)
    assert taken[-1]
    taken.clear()
    for unusual in ({"calibration": "rrf"}, {"prior": 0.5}, {"spaces": "native"}, {"spaces": ["new", "old"]}):
        same(docs.search(query, space="new", **unusual), docs.search(query, space="new", **unusual))
    assert taken == []
    narrow = docs.search(query, space="new", where={"even": True})
    same(docs.search(query, space="new", where={"even": True}), narrow)
    assert all(int(hit.id[1:]) % 2 == 0 for hit in narrow) and taken == [False, False]
    same(docs.search(query, space="new"), plain)
    assert taken[-1]


@pytest.mark.parametrize(("kind", "direction"), [("bt2", "query"), ("ridge", "gallery"), ("relative", "query")])
def test_vectors_that_are_mapped_on_the_fly_have_no_lane(db, taken, kind, direction):
    """A lane scans stored vectors with the mapped query: of a joint space that query has another width."""
    from tests.unit.test_bridge_answers import World

    world = World(db, n=300, new=100, name="folded")
    ends = ("new", "old", world.new, world.old) if direction == "query" else ("old", "new", world.old, world.new)
    world.docs.fit_transform(ends[0], ends[1], kind, pairs=(ends[2], ends[3]), direction=direction, name="up")
    long = [world.docs.search(query, space="new", explain=True) for query in world.queries]
    for query, expected in zip(world.queries, long, strict=True):
        for _ in range(2):
            same(world.docs.search(query, space="new"), expected)
    assert not any(taken) and {hit.origin for hits in long for hit in hits} == {"native", "bridged:up"}


@pytest.mark.parametrize("wrong", [{"cancel": 3}, {"prior": float("nan")}, {"calibration": "zz"}, {"calibration": []}])
def test_wishes_that_cannot_be_are_refused_where_nothing_is_bridged_too(docs, wrong):
    for _ in range(2):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            docs.search(QUERIES[0], **wrong)
