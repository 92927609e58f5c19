"""Joint spaces: one index over the vectors of two models, kept up to date by every commit."""

import numpy as np
import pytest

import vecdb
from tests.unit.test_engine_transforms import rotation, unit
from vecdb.engine.joint import nominating
from vecdb.errors import ParameterError, UnknownNameError

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
    assert (made.old, made.new, made.transform, made.rows, made.waiting) == ("old", "new", "up", 300, 0)
    rows = world.rows()
    for place, id in enumerate(world.ids):
        if place < 100:
            np.testing.assert_allclose(rows[id][:-2] @ rows["r0"][:-2], world.new[place] @ world.new[0], atol=1e-5)
            assert rows[id][-1] < 0
        else:
            np.testing.assert_allclose(rows[id][:OLD], world.old[place], rtol=1e-6)
            assert not rows[id][OLD:-2].any() and rows[id][-1] > 0


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
