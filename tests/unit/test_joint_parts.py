"""The parts of joint spaces: rows and queries, what the file says, what is proven, and what cannot be used."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from tests.unit.test_engine_transforms import rotation
from tests.unit.test_joint_spaces import NEW, OLD, World, agree
from vecdb.engine.joint import checking, following, nominating
from vecdb.engine.joint.rows import MARK, WEIGHT
from vecdb.errors import CorruptionError, ParameterError, PluginMissingError, SpaceMissingError
from vecdb.interchange import export_data, import_data
from vecdb.storage.joints import JointEntry, joint_from_plain, joint_of, joint_to_plain
from vecdb.storage.state import Catalog, CollectionEntry, catalog_from_plain, catalog_to_plain
from vecdb.types import Space


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.vecdb"


@pytest.fixture
def db(path):
    with vecdb.open(path, automatic=False) as opened:
        yield opened


@pytest.fixture
def eager(monkeypatch):
    monkeypatch.setattr(nominating, "SMALL", 0)


def maps_of(docs):
    with docs._view() as view:
        return following.load_maps(view, view.entry.joints[0], docs.database.plugins)


# --- rows and queries ---


def test_one_side_is_lifted_above_the_other_in_the_order_of_its_class(db):
    world = World(db, new=100)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    maps = maps_of(world.docs)
    rows = {"new": maps.rows(world.new, "new"), "old": maps.rows(world.old, "old")}
    assert maps.dim == rows["new"].shape[1] == maps.width + 1
    for side, other in (("new", "old"), ("old", "new")):
        asked = maps.asked(world.queries, "new", side)
        assert ((asked @ rows[side].T).max(1) > (asked @ rows[other].T).max(1)).all()
    asked = maps.asked(world.queries, "new", "new")
    np.testing.assert_allclose(asked @ rows["new"].T - MARK * WEIGHT, world.queries @ world.new.T, atol=1e-5)
    asked = maps.asked(world.old_queries, "old", "old")
    np.testing.assert_allclose(asked @ rows["old"].T - MARK * WEIGHT, world.old_queries @ world.old.T, atol=1e-5)


def test_old_rows_are_asked_in_the_order_of_their_bridged_scores(db):
    world = World(db)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    maps = maps_of(world.docs)
    scores = maps.asked(world.queries, "new", "old") @ maps.rows(world.old, "old").T
    for query, mine in zip(world.queries, scores, strict=True):
        hits = world.docs.search(query, k=300, space="new", exact=True)
        told = {hit.id: hit.raw_score for hit in hits}
        np.testing.assert_allclose(mine - WEIGHT * MARK, [told[id] for id in world.ids], atol=1e-4)


def test_a_query_has_the_same_bits_in_any_company(db):
    world = World(db)
    world.docs.add_joint_space("joint", "up")
    maps = maps_of(world.docs)
    for side in ("new", "old"):
        together = maps.asked(world.queries, "new", side)
        alone = [maps.asked(query[None], "new", side)[0] for query in world.queries]
        np.testing.assert_array_equal(together, np.stack(alone))


# --- what the file says ---

NUMBERS = st.integers(1, 2**32 - 1)


@given(st.lists(NUMBERS, min_size=4, max_size=4, unique=True), st.floats(0.01, 10), st.floats(0.01, 10))
def test_an_entry_survives_the_catalog(numbers, mark, weight):
    entry = JointEntry(*numbers, mark, weight)
    assert joint_from_plain(joint_to_plain(entry)) == entry
    spaces = {str(number): Space(str(number), 3, id=number) for number in numbers[:3]}
    catalog = Catalog({"a": CollectionEntry(1, "a", spaces, joints=(entry,))})
    found = catalog_from_plain(catalog_to_plain(catalog))
    assert found.collections["a"].joints == (entry,)
    assert [space.id for space in found.collections["a"].given_spaces] == numbers[1:3]
    assert joint_of((entry,), numbers[0]) == entry and joint_of((entry,), numbers[1]) is None


@pytest.mark.parametrize(
    "plain",
    [
        [[1, 2, 3], [0.5, 0.5]],
        [[1, 1, 3, 4], [0.5, 0.5]],
        [[1, 2, 3, 4], [0.5, 0.0]],
        [[1, 2, 3, 4], [float("nan"), 0.5]],
        [[1, 2, 3, 4], [0.5]],
        [[1, 2, 3, -4], [0.5, 0.5]],
        [[1, 2, 3, "4"], [0.5, 0.5]],
        "joint",
        [[1, 2, 3, 4], ["x", 0.5]],
    ],
)
def test_a_damaged_entry_is_corruption(plain):
    stored = catalog_to_plain(Catalog({"a": CollectionEntry(1, "a")}))
    stored["collections"][0] += [[], {"joints": [plain]}]
    with pytest.raises(CorruptionError):
        catalog_from_plain(stored)


def test_a_collection_without_joint_spaces_is_written_as_before_there_were_any():
    stored = catalog_to_plain(Catalog({"a": CollectionEntry(1, "a")}))
    assert stored["collections"][0] == [1, "a", [], []]


# --- what is proven ---


def problems(docs):
    with docs._view() as view:
        return list(checking.problems(view.snapshot, view.entry, view.entry.joints[0], docs.database.plugins))


def test_check_finds_rows_of_other_vectors(db, monkeypatch):
    world = World(db, new=100)
    world.docs.add_joint_space("joint", "up", dtype="float32")
    assert problems(world.docs) == []
    monkeypatch.setattr("vecdb.engine.joint.following.follow", lambda write, pending, follower: None)
    world.docs.set_vectors("old", world.ids[200:203], world.old[:3])
    assert "3 of 200 old rows" in problems(world.docs)[0]
    world.docs.set_vectors("new", world.ids[210:214], world.new[:4])
    assert "4 rows" in problems(world.docs)[0]
    report = db.check()
    assert not report.ok and "joint" in report.problems[0]


def test_check_finds_a_joint_space_that_lost_its_transform(db, monkeypatch):
    world = World(db, new=100)
    world.docs.add_joint_space("joint", "up")
    with world.docs._view() as view:
        lost = JointEntry(view.entry.joints[0].space, 1, 2, 10_000, MARK, WEIGHT)
        told = list(checking.problems(view.snapshot, view.entry, lost, None))
    assert "lost" in told[0]


# --- what cannot be used ---


def test_where_the_transform_cannot_be_used_writes_go_on_and_rows_wait(path, eager, monkeypatch, caplog):
    with vecdb.open(path, automatic=False) as db:
        world = World(db, new=100)
        world.docs.add_joint_space("joint", "up", dtype="float32")

    def refuse(*arguments):
        raise PluginMissingError("no plugin provides it", kind="transform", name="bt2")

    with vecdb.open(path, automatic=False) as db, monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(following, "load_maps", refuse)
        docs = db.collection("docs")
        docs.set_vectors("new", world.ids[100:110], world.new[100:110])
        told = docs.joint_spaces["joint"]
        assert (told.rows, told.waiting) == (290, 10)
        assert "without a row" in caplog.text
    with vecdb.open(path, automatic=False) as db:
        world.db, world.docs = db, db.collection("docs")
        agree(world, world.queries[:4], "new")  # the long way
        assert world.docs.add_joint_space("joint", "up").waiting == 0
        agree(world, world.queries[:4], "new")
        assert db.check().ok


def test_spaces_that_are_not_compared_by_the_cosine_are_refused(db):
    rng = np.random.default_rng(0)
    docs = db.create_collection("docs")
    docs.add_space("old", dim=OLD, metric="dot")
    docs.add_space("new", dim=NEW, metric="dot")
    new = rng.standard_normal((100, NEW)).astype(np.float32)
    docs.upsert(list(range(100)), {"new": new, "old": (new @ rotation(NEW, 0))[:, :OLD]})
    docs.fit_transform("new", "old", "bt2", name="up")
    with pytest.raises(ParameterError, match="cosine"):
        docs.add_joint_space("joint", "up")


def test_a_joint_space_may_be_dropped_and_made_again(db, eager):
    world = World(db, new=100)
    world.docs.add_joint_space("joint", "up")
    world.docs.drop_space("joint")
    assert not world.docs.joint_spaces and [each.name for each in world.docs.transforms] == ["up"]
    with pytest.raises(SpaceMissingError):
        world.docs.search(world.queries[0], space="new", spaces=["joint"])
    made = world.docs.add_joint_space("joint", "up", dtype="float32")
    assert (made.rows, made.waiting) == (300, 0)
    agree(world, world.queries, "new")
    assert db.check().ok


def test_an_old_query_over_new_vectors_of_another_width_is_answered(db):
    world = World(db, new=300)
    hits = world.docs.search(world.old_queries, space="old", spaces=["old", "new"])
    assert all(hit.origin == "bridged:up" for each in hits for hit in each)
    near = [world.ids[place] in each.ids for place, each in enumerate(hits)]
    assert np.mean(near) > 0.3  # chance gives .03


def test_an_export_leaves_rows_out_that_are_made_of_others(db, tmp_path):
    world = World(db, new=100)
    world.docs.add_joint_space("joint", "up")
    export_data(world.docs, str(tmp_path / "out"))
    with vecdb.open(tmp_path / "b.vecdb", automatic=False) as other:
        docs = other.create_collection("docs")
        import_data(docs, str(tmp_path / "out"))
        assert list(docs.spaces) == ["old", "new"]
        assert docs.add_joint_space("joint", "up").rows == 300
        assert other.check().ok
