"""Joint spaces under kill: no record has the row of another vector, and filling goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from vecdb.engine.joint import making, nominating
from vecdb.testing.crash import Kill, run_child

OLD, NEW, COUNT = 8, 10, 120


def vectors(seed, count=COUNT):
    made = np.random.default_rng(seed).standard_normal((count, NEW)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def make(path, *, joined):
    new = vectors(1)
    with vecdb.open(path, automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=OLD)
        docs.add_space("new", dim=NEW)
        docs.upsert(range(COUNT), {"old": new[:, :OLD]})
        docs.fit_transform("new", "old", "bt2", pairs=(new, new[:, :OLD]), name="up")
        if joined:
            docs.add_joint_space("joint", "up")


def work(path):
    """Give and take new vectors, delete and write records, from where the last life stopped."""

    def run(acknowledge):
        with vecdb.open(path, automatic=False) as db:
            docs = db.collection("docs")
            first = max((record.metadata.get("step", 0) for record in docs.scan()), default=0) + 1
            for step in range(first, first + 20):
                place = 7 * step % (COUNT - 10)
                ids, rows = list(range(place, place + 10)), vectors(step, 10)
                marks = [{"step": step}] * 10
                if step % 3:
                    docs.upsert(ids, {"new": rows}, marks, merge=step % 2 == 0)
                else:
                    docs.upsert(ids, {"old": rows[:, :OLD]}, marks)
                docs.delete([place + 9], missing_ok=True)
                acknowledge(step)

    return run


def fill(path):
    def run(acknowledge):
        making.FILL_ROWS = 25
        with vecdb.open(path, automatic=False) as db:
            db.collection("docs").add_joint_space("joint", "up")
            acknowledge(1)

    return run


def verify(path, monkeypatch):
    """Return how many records wait for a row; all that have one have the right one, and searches find what they did."""
    monkeypatch.setattr(nominating, "SMALL", 0)
    with vecdb.open(path, automatic=False) as db:
        report = db.check()
        assert report.ok, report.problems
        docs = db.collection("docs")
        if "joint" not in docs.joint_spaces:
            return None
        for query in vectors(5, 3):
            exact = docs.search(query, space="new", exact=True)
            found = docs.search(query, space="new", spaces=["joint"])
            assert len(set(found.ids) & set(exact.ids)) >= 9  # rows are rounded
        return docs.joint_spaces["joint"].waiting


@pytest.mark.parametrize("how", ["exit", "pause"])
@pytest.mark.parametrize("name", ["joint.followed", "write.applied", "commit.before", "commit.after"])
def test_rows_follow_or_nothing_was_written(tmp_path, monkeypatch, name, how):
    path = tmp_path / "killed.vecdb"
    make(path, joined=True)
    for visit in (2, 5):
        outcome = run_child(work(path), Kill(failpoint=name, visit=visit, how=how))
        assert outcome.killed and outcome.error == ""
        assert verify(path, monkeypatch) == 0


@pytest.mark.parametrize("name", ["joint.added", "joint.filled", "write.applied", "commit.before", "commit.after"])
def test_filling_goes_on_where_it_stopped(tmp_path, monkeypatch, name):
    path = tmp_path / "killed.vecdb"
    make(path, joined=False)
    visits = (1,) if name == "joint.added" else (1, 2)
    for visit in visits:
        outcome = run_child(fill(path), Kill(failpoint=name, visit=visit, how="exit"))
        assert outcome.killed and outcome.error == ""
        waiting = verify(path, monkeypatch)
        assert waiting is None or waiting > 0
    outcome = run_child(fill(path), Kill(failpoint="compact.copied", visit=1, how="exit"))
    assert (outcome.acknowledged, outcome.error) == (1, "")
    assert verify(path, monkeypatch) == 0


def test_a_write_that_fails_on_the_way_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "failed.vecdb"
    make(path, joined=True)

    def run(acknowledge):
        with vecdb.open(path, automatic=False) as db:
            docs = db.collection("docs")
            seq = db.seq
            with pytest.raises(Exception, match="injected"):
                docs.set_vectors("new", range(10), vectors(3, 10))
            assert db.seq == seq and docs.joint_spaces["joint"].waiting == 0
            docs.set_vectors("new", range(10), vectors(3, 10))
            acknowledge(1)

    outcome = run_child(run, Kill(failpoint="joint.followed", how="raise"))
    assert (outcome.acknowledged, outcome.error) == (1, "")
    assert verify(path, monkeypatch) == 0
