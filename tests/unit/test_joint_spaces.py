"""Joint spaces: one index over the vectors of two models, kept up to date by every commit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from tests.unit.test_engine_transforms import rotation, unit
from vecdb.engine.joint import nominating
from vecdb.errors import (
    CancelledError,
    ExistsError,
    ParameterError,
    RecordMissingError,
    SpaceMissingError,
    TransactionError,
    UnknownNameError,
)

OLD, NEW = 12, 16


class World:
    """A collection of two models whose widths differ, with a joint transform, and everything in it as plain arrays."""

    def __init__(self, db, n=300, new=0, seed=0, noise=0.2):
        rng = np.random.default_rng(seed)
        self.db, self.docs = db, db.create_collection("docs")
        self.docs.add_space("old", dim=OLD)
        self.docs.add_space("new", dim=NEW)
        self.ids = [f"r{i}" for i in range(n)]
        self.new = unit(rng.standard_normal((n, NEW)))
        self.old = unit((self.new @ rotation(NEW, seed))[:, :OLD] + noise * rng.standard_normal((n, OLD)))
        self.docs.upsert(self.ids[new:], {"old": self.old[new:]}, metadata=[{"n": i} for i in range(new, n)])
        self.docs.upsert(self.ids[:new], {"new": self.new[:new]}, metadata=[{"n": i} for i in range(new)])
        self.docs.fit_transform("new", "old", "bt2", pairs=(self.new, self.old), name="up")
        self.queries = unit(self.new[:12] + 0.3 * rng.standard_normal((12, NEW)))
        self.old_queries = unit(self.old[:12] + 0.3 * rng.standard_normal((12, OLD)))

    def rows(self):
        """Return the joint row of each record that has one, by id."""
        found = self.docs.get(self.ids, vectors="joint", missing_ok=True)
        return {each.id: each.vectors["joint"] for each in found if each is not None and "joint" in each.vectors}


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


@pytest.fixture
def eager(monkeypatch):
    """Let even small classes be named by joint spaces."""
    monkeypatch.setattr(nominating, "SMALL", 0)


def same(one, other):
    assert one.ids == other.ids
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal([hit.raw_score for hit in one], [hit.raw_score for hit in other])


def agree(world, queries, space, **more):
    """The index of the joint space and exact scans of both spaces give the same hits, bit for bit."""
    for query in queries:
        joint = world.docs.search(query, space=space, spaces=["joint"], **more)
        same(joint, world.docs.search(query, space=space, exact=True, **more))


def test_rows_are_made_of_the_new_vector_else_of_the_old_one_which_stays_as_it_is(db):
    world = World(db, new=100)
    made = world.docs.add_joint_space("joint", "up", dtype="float32")
    assert isinstance(made, vecdb.JointSpace) and world.docs.joint_spaces == {"joint": made}
    assert (made.old, made.new, made.transform, made.rows, made.waiting) == ("old", "new", "up", 300, 0)
    rows = world.rows()
    for place, id in enumerate(world.ids):
        if place < 100:
            np.testing.assert_allclose(rows[id][:-1] @ rows["r0"][:-1], world.new[place] @ world.new[0], atol=1e-5)
            assert rows[id][-1] < 0
        else:
            np.testing.assert_allclose(rows[id][:OLD], world.old[place], rtol=1e-6)
            assert not rows[id][OLD:-1].any() and rows[id][-1] > 0


@pytest.mark.parametrize("new", [0, 100, 300])
@pytest.mark.parametrize("kind", [None, "flat"])
def test_both_models_get_the_answers_of_the_two_spaces_bit_for_bit(db, eager, new, kind):
    world = World(db, new=new)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    if kind:
        world.docs.create_index("joint", kind)
    agree(world, world.queries, "new")
    agree(world, world.old_queries, "old")
    agree(world, world.queries[:3], "new", where={"n": {"$lt": 150}})
    agree(world, world.queries[:3], "new", k=5, offset=3)


def test_rows_follow_in_the_same_commit(db, eager):
    world = World(db)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    world.docs.set_vectors("new", world.ids[:80], world.new[:80])
    assert all(row[-1] < 0 for row in list(world.rows().values())[:80])
    agree(world, world.queries, "new")
    world.docs.delete(world.ids[10:20])
    world.docs.upsert(world.ids[:5], {"old": world.old[:5]})  # replaces: the new vectors are gone
    world.docs.upsert(["more"], {"new": world.new[:1]}, metadata=[{"n": 1}])
    told = world.docs.joint_spaces["joint"]
    assert (told.rows, told.waiting) == (291, 0)
    assert all(world.rows()[id][-1] > 0 for id in world.ids[:5])
    agree(world, world.queries, "new")
    assert db.check().ok


def test_what_cannot_be_joined_is_refused(db):
    world = World(db)
    world.docs.fit_transform("new", "old", "ridge", pairs=(world.new, world.old), name="plain")
    cut = {"columns": 1}
    world.docs.fit_transform("new", "old", "bt2", pairs=(world.new, world.old), name="cut", params=cut)
    with pytest.raises(UnknownNameError):
        world.docs.add_joint_space("joint", "nothing")
    for name in ("plain", "cut"):
        with pytest.raises(ParameterError):
            world.docs.add_joint_space("joint", name)
    dim = world.docs.add_joint_space("joint", "up").dim
    with pytest.raises(ParameterError, match="joint space"):
        world.docs.set_vectors("joint", world.ids[:1], np.ones((1, dim), np.float32))


def test_a_search_names_one_joint_space_and_may_name_other_spaces(db, eager):
    world = World(db, new=100)
    world.docs.add_space("third", dim=4)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    world.docs.fit_transform("new", "old", "oca", pairs=(world.new, world.old), name="other")
    world.docs.add_joint_space("second", "other")
    with pytest.raises(ParameterError, match="joint spaces"):
        world.docs.search(world.queries[0], space="new", spaces=["joint", "second"])
    both = {"old": world.old_queries[0], "new": world.queries[0]}
    same(world.docs.search(both, spaces=["joint"]), world.docs.search(both, spaces=["old", "new"], exact=True))
    plan = world.docs.search(world.queries[0], space="new", spaces=["joint"], explain=True).plan
    assert [each["nominated_by"] for each in plan["classes"]] == ["joint", "joint"]
    assert plan["classes"][0]["share"] + plan["classes"][1]["share"] == pytest.approx(1.0)


def test_a_joint_space_is_no_class_of_other_searches(db):
    world = World(db, new=100)
    before = [world.docs.search(query, space="new") for query in world.queries]
    world.docs.add_joint_space("joint", "up")
    for query, hits in zip(world.queries, before, strict=True):
        again = world.docs.search(query, space="new")
        same(again, hits)
        assert again.complete


def test_a_query_has_the_same_answer_alone_and_in_a_batch(db, eager):
    world = World(db, n=1_500, new=700)
    world.docs.add_joint_space("joint", "up")
    world.docs.create_index("joint", "graph")
    together = world.docs.search(world.queries, space="new", spaces=["joint"])
    for query, hits in zip(world.queries, together, strict=True):
        same(world.docs.search(query, space="new", spaces=["joint"]), hits)


def test_a_record_is_not_its_own_answer(db, eager):
    world = World(db, new=100)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    for id in (world.ids[3], world.ids[200]):
        hits = world.docs.search(like=id, space="new", spaces=["joint"])
        assert id not in hits.ids
        same(hits, world.docs.search(like=id, space="new", exact=True))
    assert "joint" not in world.docs.get(world.ids[3], vectors="all")[0].vectors


def test_small_classes_and_corrected_searches_go_the_usual_way(db):
    world = World(db, new=100)
    world.docs.add_joint_space("joint", "up")
    hits = world.docs.search(world.queries[0], space="new", spaces=["joint"], explain=True)
    assert all("nominated_by" not in each for each in hits.plan["classes"])
    same(hits, world.docs.search(world.queries[0], space="new"))


# --- the past, files, processes ---


def test_the_past_is_answered_by_the_rows_of_then(db, eager):
    world = World(db, new=50)
    db.tag("bare")
    world.docs.add_joint_space("joint", "up", dtype="float32")
    db.tag("begun")
    expected = [world.docs.search(query, space="new", exact=True) for query in world.queries]
    world.docs.set_vectors("new", world.ids[100:200], world.new[100:200])
    world.docs.delete(world.ids[:20])
    agree(world, world.queries, "new", as_of="begun")
    agree(world, world.queries, "new", as_of="bare")
    for query, hits in zip(world.queries, expected, strict=True):
        same(world.docs.search(query, space="new", spaces=["joint"], as_of="begun"), hits)
    assert db.check().ok


def test_it_is_there_after_reopening_compacting_and_by_another_handle(tmp_path, eager):
    path = tmp_path / "a.vecdb"
    with vecdb.open(path, automatic=False) as db:
        world = World(db, new=100)
        world.docs.add_joint_space("joint", "up", dtype="float32")
        expected = [world.docs.search(query, space="new", spaces=["joint"]) for query in world.queries]
    with vecdb.open(path, automatic=False) as db:
        docs = db.collection("docs")
        docs.set_vectors("new", world.ids[100:110], world.new[100:110])
        docs.upsert(world.ids[100:110], {"old": world.old[100:110]}, metadata=[{"n": n} for n in range(100, 110)])
        docs.rename_space("joint", "one")
        assert (docs.joint_spaces["one"].rows, docs.joint_spaces["one"].waiting) == (300, 0)
        db.compact()
        docs.optimize()
        for query, hits in zip(world.queries, expected, strict=True):
            assert docs.search(query, space="new", spaces=["one"]).ids == hits.ids
        assert db.check().ok
    with vecdb.open(path, mode="r") as db:
        found = db.collection("docs").search(world.queries[0], space="new", spaces=["one"])
        assert found.ids == expected[0].ids


def test_filling_that_is_interrupted_goes_on_and_searches_go_the_long_way_meanwhile(db, eager, monkeypatch):
    monkeypatch.setattr("vecdb.engine.joint.making.FILL_ROWS", 64)
    world = World(db, new=100)
    answers = iter([False, False, True])
    with pytest.raises(CancelledError):
        world.docs.add_joint_space("joint", "up", dtype="float32", cancel=lambda: next(answers))
    told = world.docs.joint_spaces["joint"]
    assert (told.rows, told.waiting) == (128, 172)
    agree(world, world.queries[:3], "new")
    world.docs.set_vectors("new", world.ids[250:260], world.new[250:260])  # rows of what changes are made at once
    assert world.docs.joint_spaces["joint"].waiting == 162
    seen = []
    told = world.docs.add_joint_space("joint", "up", progress=lambda done, total: seen.append((done, total)))
    assert (told.rows, told.waiting) == (300, 0) and seen[-1] == (300, 300)
    agree(world, world.queries, "new")
    assert db.check().ok


def test_transactions_are_followed_operation_by_operation(db, eager):
    world = World(db, new=100)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    with db.transaction():
        world.docs.upsert("x", {"old": world.old[0]})
        world.docs.set_vectors("new", ["x"], world.new[:1])
        world.docs.delete(["x"])
        world.docs.upsert("x", {"new": world.new[1]}, metadata={"n": 7})
        world.docs.set_metadata(["x"], [{"n": 8}])
        with pytest.raises(TransactionError):
            world.docs.add_joint_space("more", "up")
    told = world.docs.joint_spaces["joint"]
    assert (told.rows, told.waiting) == (301, 0)
    agree(world, world.queries, "new")
    with pytest.raises(RecordMissingError):
        delete_and_fail(world)
    assert world.docs.joint_spaces["joint"].rows == 301
    assert db.check().ok


def delete_and_fail(world):
    with world.db.transaction():
        world.docs.delete(world.ids[:50])
        world.docs.delete(["nobody"])


def test_it_goes_with_its_transform_and_with_either_space(db):
    world = World(db, new=100)
    for drop in (lambda: world.docs.drop_transform("up"), lambda: world.docs.drop_space("old")):
        if "up" not in {each.name for each in world.docs.transforms}:
            world.docs.fit_transform("new", "old", "bt2", pairs=(world.new, world.old), name="up")
        world.docs.add_joint_space("joint", "up")
        world.docs.create_index("joint", "flat")
        drop()
        assert "joint" not in world.docs.spaces and not world.docs.joint_spaces and not world.docs.indexes
        assert db.check().ok
    with pytest.raises(SpaceMissingError):
        world.docs.search(world.queries[0], space="new", spaces=["joint"])


def test_a_second_joint_space_of_a_transform_or_a_taken_name_is_refused(db):
    world = World(db)
    world.docs.add_joint_space("joint", "up")
    with pytest.raises(ParameterError, match="has a joint space"):
        world.docs.add_joint_space("more", "up")
    world.docs.fit_transform("new", "old", "bt2", pairs=(world.new, world.old), name="again")
    with pytest.raises(ExistsError):
        world.docs.add_joint_space("joint", "again")
    with pytest.raises(ParameterError, match="joint space"):
        world.docs.migrate("old", "joint", encode=lambda texts: None)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_rows_may_be_rounded_and_sources_too(db, eager, dtype):
    rng = np.random.default_rng(1)
    docs = db.create_collection("docs")
    docs.add_space("old", dim=OLD, dtype="int8")
    docs.add_space("new", dim=NEW, dtype="float16")
    new = unit(rng.standard_normal((200, NEW)))
    old = unit((new @ rotation(NEW, 1))[:, :OLD])
    docs.upsert(list(range(100)), {"old": old[:100]})
    docs.fit_transform("old", "new", "bt2", pairs=(old, new), name="up", direction="gallery")
    docs.add_joint_space("joint", "up", dtype=dtype)
    docs.upsert(list(range(50, 150)), {"new": new[50:150]}, merge=True)
    assert docs.joint_spaces["joint"].rows == 150
    assert db.check().ok
    found = [docs.search(query, space="new", spaces=["joint"]).ids for query in new[:20]]
    exact = [docs.search(query, space="new", exact=True).ids for query in new[:20]]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]) > 0.97


# --- migrations ---


def test_a_migration_moves_rows_from_side_to_side_and_a_rollback_moves_them_back(db, eager):
    world = World(db)
    world.docs.set_metadata(world.ids, [{"n": n} for n in range(300)])
    texts = [f"text {n}" for n in range(300)]
    world.docs.upsert(world.ids, {"old": world.old}, texts=texts)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    blocks = [record.vectors["old"].tobytes() for record in world.docs.scan(vectors="old")]
    rows = {text: row for text, row in zip(texts, world.new, strict=True)}
    migration = world.docs.migrate("old", "new", encode=lambda some: np.stack([rows[text] for text in some]), batch=40)
    migration.run(limit=150)
    told = world.docs.joint_spaces["joint"]
    assert (told.rows, told.waiting) == (300, 0)
    assert sum(row[-1] < 0 for row in world.rows().values()) == 150
    agree(world, world.queries, "new")
    agree(world, world.old_queries[:4], "old")
    assert [record.vectors["old"].tobytes() for record in world.docs.scan(vectors="old")] == blocks
    assert db.check().ok
    migration.rollback()
    assert all(row[-1] > 0 for row in world.rows().values())
    agree(world, world.queries, "new")
    assert db.check().ok
    again = world.docs.migrate("old", "new", encode=lambda some: np.stack([rows[text] for text in some]))
    again.run()
    agree(world, world.queries, "new")
    again.finish()
    assert not world.docs.joint_spaces and db.check().ok


# --- anything that can happen ---


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["old", "new", "both", "merge", "delete", "text", "tx"]), st.integers(0, 30)),
        max_size=14,
    )
)
def test_whatever_is_written_every_record_has_the_row_of_its_vector(tmp_path_factory, steps):
    with vecdb.open(tmp_path_factory.mktemp("joint") / "a.vecdb", automatic=False) as db:
        world = World(db, n=40, new=10)
        world.docs.add_joint_space("joint", "up", dtype="float32")
        for what, place in steps:
            write(world, what, place)
        told = world.docs.joint_spaces["joint"]
        holders = [each for each in world.docs.scan() if {"old", "new"} & set(each.spaces)]
        assert (told.rows, told.waiting) == (len(holders), 0)
        assert set(world.rows()) == {each.id for each in holders}
        report = db.check()
        assert report.ok, report.problems


def write(world, what, place):
    """Do one thing to some records."""
    some = slice(place, place + 5)
    ids, old, new = world.ids[some], world.old[some], world.new[some]
    if what == "both":
        world.docs.upsert(ids, {"old": old, "new": new})
    elif what == "merge":
        world.docs.upsert(ids, {"new": new}, merge=True)
    elif what == "delete":
        world.docs.delete(ids, missing_ok=True)
    elif what == "text":
        world.docs.upsert(ids, texts=["a"] * len(ids))  # no vectors at all
    elif what == "tx":
        with world.db.transaction():
            world.docs.upsert(ids, {"old": old})
            world.docs.upsert(ids[:2], {"new": new[:2]}, merge=True)
            world.docs.delete(ids[1:3])
    else:
        world.docs.upsert(ids, {what: old if what == "old" else new})
