"""A migration killed anywhere goes on, ends as if it had not been killed, and can be taken back to the last bit."""

from __future__ import annotations

import os
import random
import shutil
import time

import numpy as np
import pytest

import vecdb
from vecdb.engine.migration import ending
from vecdb.errors import StateError
from vecdb.storage.failpoints import NAMES
from vecdb.storage.migrations import StoredMigration, read_migrations
from vecdb.testing.crash import Kill, Lives, run_child
from vecdb.testing.processes import Child

COUNT, OLD, NEW, BATCH = 240, 8, 12, 8
RNG = np.random.default_rng(11)
X = RNG.standard_normal((COUNT, OLD)).astype(np.float32)
Y = (X @ RNG.standard_normal((OLD, NEW))).astype(np.float32)
BAD = {"17", "130"}
"""Texts that the new model cannot embed."""


@pytest.fixture(autouse=True)
def small_commits(monkeypatch):
    monkeypatch.setattr(ending, "UNDO_ROWS", 16)


def embed(texts):
    time.sleep(0.002)  # a model takes its time: kills find a migration at work
    return [None if text in BAD else Y[int(text)] for text in texts]


def opened(path, **options):
    return vecdb.open(path, **{"durability": "relaxed", "automatic": False, **options})


def make(path):
    with opened(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=OLD)
        docs.add_space("new", dim=NEW)
        docs.upsert(range(COUNT), {"old": X}, texts=[str(place) for place in range(COUNT)])
        docs.set_vectors("new", range(5), Y[:5])
        db.compact()


def begin_or_go_on(docs):
    active = docs.migrations and docs.migrations[-1].active
    return docs.migration(embed) if active else docs.migrate("old", "new", embed, batch=BATCH, seed=4)


def migrating(path, call=lambda m: m.run()):
    """Return the work of a child: go on with the migration, a step at a time."""

    def work(acknowledge):
        with opened(path) as db:
            m = begin_or_go_on(db.collection("docs"))
            acknowledge(1)
            call(m)
            acknowledge(2)

    return work


def state_of(path):
    """Return everything that a migration decides: vectors, their order, versions, and what it knows of itself."""
    with opened(path) as db:
        report = db.check()
        assert report.ok, report.problems
        docs = db.collection("docs")
        records = [
            (record.id, record.version, record.text, {name: v.tobytes() for name, v in record.vectors.items()})
            for record in docs.scan(vectors="all")
        ]
        with db._read() as snapshot:
            (*_, last) = read_migrations(snapshot.tx, docs._number)
        known = (last.state, last.paused, last.done, len(last.written), last.failed)
        return records, [docs.vector_order(name) for name in docs.spaces], known


def old_answers(path):
    with opened(path) as db:
        found = db.collection("docs").search(X[:30], k=20, space="old", include=())
        return [hits.ids for hits in found], found.scores.tobytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A file before its migration, and what a migration that nobody killed makes of it."""
    base = tmp_path_factory.mktemp("base") / "base.vecdb"
    done = base.with_name("done.vecdb")
    make(base)
    shutil.copy(base, done)
    migrating(done)(lambda number: None)
    return base, state_of(done)


def reading(path):
    """Return the work of a reader: every status and every scan is of one commit, whole."""

    def work(link):
        looked = 0
        with opened(path, mode="r") as db:
            docs = db.collection("docs")
            while not looked or (os.getppid() == parent and not (path.parent / "enough").exists()):
                for status in docs.migrations[-1:]:
                    assert status.done + 5 + status.pending == COUNT or not status.active
                    seen = 0
                    for record in docs.scan(vectors="all", as_of=status.seq):
                        assert np.array_equal(record.vectors["old"], X[record.id])
                        seen += "new" in record.vectors
                        assert "new" not in record.vectors or np.array_equal(record.vectors["new"], Y[record.id])
                    assert seen == COUNT - status.pending or not status.active
                looked += 1
                time.sleep(0.002)
        return looked

    parent = os.getpid()
    return work


def kill_until_done(path, draw, call=lambda m: m.run()):
    """Kill child after child at moments that `draw` returns, until one gets to the end; return how many died."""
    died = 0
    while True:
        kill = draw(died)
        outcome = run_child(migrating(path, call), kill)
        assert outcome.error == ""
        died += outcome.killed
        if not outcome.killed:
            return died


def one_life(path, undisturbed, seed):
    """Kill a whole migration and a whole rollback; return how often."""
    base, wanted = undisturbed
    shutil.copy(base, path)
    answers, size = old_answers(path), path.stat().st_size
    forward, backward = Lives(f"{seed} forward", 0.0, 0.08), Lives(f"{seed} backward", 0.0, 0.04)
    enough = path.parent / "enough"
    enough.unlink(missing_ok=True)
    with Child(reading(path)) as reader:
        died = kill_until_done(path, lambda number: _soon(forward, number))
        assert old_answers(path) == answers
        enough.touch()
        assert reader.result() > 0
    assert state_of(path) == wanted
    with opened(path) as db:
        db.collection("docs").migration().resume()
    died += kill_until_done(path, lambda number: _soon(backward, number), lambda m: m.rollback())
    assert_as_before(path, base, answers, size)
    return died


def _soon(lives, number):
    """Return when the next child dies; the thirtieth may live."""
    return lives.kill() if number < 30 else Kill()


def assert_as_before(path, base, answers, size):
    assert old_answers(path) == answers
    with opened(path) as db, opened(base) as fresh:
        docs, was = db.collection("docs"), fresh.collection("docs")
        assert docs.migrations[-1].state == "rolled back" and db.tags() == {} and db.check().ok
        for record, before in zip(docs.scan(vectors="all"), was.scan(vectors="all"), strict=True):
            assert (record.id, record.version, record.spaces) == (before.id, before.version, before.spaces)
            assert all(np.array_equal(record.vectors[name], before.vectors[name]) for name in before.vectors)
        db.compact()
    assert abs(path.stat().st_size - size) <= 0.05 * size
    assert old_answers(path) == answers


def test_random_kills(tmp_path, undisturbed):
    died, turn = 0, 0
    while died < 8:
        died += one_life(tmp_path / f"{turn}.vecdb", undisturbed, turn)
        turn += 1


@pytest.mark.full
@pytest.mark.parametrize("part", range(10))
def test_five_hundred_random_kills(tmp_path, undisturbed, part):
    died, turn = 0, 0
    while died < 50:
        died += one_life(tmp_path / f"{turn}.vecdb", undisturbed, f"{part} {turn}")
        turn += 1


HOW = ("exit", pytest.param("pause", marks=pytest.mark.full))
FORWARD = ("migrate.begun", "migrate.batch", "write.begin", "write.applied", "commit.before", "commit.after")
BACKWARD = ("migrate.undoing", "migrate.undone", "write.applied", "commit.before", "commit.after")


def die_at(path, undisturbed, name, visits, call):
    """Kill a migration, then its rollback or its end, at visits of a failpoint."""
    base, wanted = undisturbed
    shutil.copy(base, path)
    answers, size = old_answers(path), path.stat().st_size
    if call == "run":
        died = 0
        for visit, how in visits:
            died += run_child(migrating(path), Kill(failpoint=name, visit=visit, how=how)).killed
        assert died
    migrating(path)(lambda number: None)
    assert state_of(path) == wanted
    if call == "rollback":
        for visit, how in visits:
            outcome = run_child(migrating(path, lambda m: m.rollback()), Kill(failpoint=name, visit=visit, how=how))
            assert outcome.killed and outcome.error == ""
            assert old_answers(path) == answers
    with opened(path) as db:
        if db.collection("docs").migrations[-1].active:
            db.collection("docs").migration().rollback()
    assert_as_before(path, base, answers, size)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", FORWARD)
def test_each_failpoint_of_a_run(tmp_path, undisturbed, name, how):
    visits = [(1, how)] if name == "migrate.begun" else [(1, how), (4, how)]
    die_at(tmp_path / "killed.vecdb", undisturbed, name, visits, "run")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", BACKWARD)
def test_each_failpoint_of_a_rollback(tmp_path, undisturbed, name, how):
    visits = [(1, how)] if name in ("migrate.undone", "commit.after") else [(1, how), (2, how)]
    die_at(tmp_path / "killed.vecdb", undisturbed, name, visits[:1] if name == "migrate.undone" else visits, "rollback")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["migrate.finished", "write.applied", "commit.before", "commit.after"])
def test_each_failpoint_of_the_end(tmp_path, undisturbed, name, how):
    path = tmp_path / "killed.vecdb"
    shutil.copy(undisturbed[0], path)
    migrating(path)(lambda number: None)
    outcome = run_child(migrating(path, lambda m: m.finish(leave_missing=True)), Kill(failpoint=name, how=how))
    assert outcome.killed and outcome.error == ""
    with opened(path) as db:
        docs = db.collection("docs")
        over = docs.migrations[-1].state == "finished"
        assert over == (name == "commit.after") == ("old" not in docs.spaces) and db.check().ok
        if not over:
            docs.migration().finish(leave_missing=True)
        assert list(docs.spaces) == ["new"] and db.tags() == {} and db.check().ok
        assert docs.search(Y[40], k=1).ids == [40]


# --- the harness itself -----------------------------------------------------------------------------------


def takes_old_vectors_too(monkeypatch):
    real = ending._take_away

    def take(write, pending, target, rows, ordinals):
        real(write, pending, target, rows, ordinals)
        write.kill(pending, next(number for number in pending.spaces if number != target.id), [3])

    monkeypatch.setattr(ending, "_take_away", take)


def leaves_the_last_batches(monkeypatch):
    real = StoredMigration.with_written

    def forgetful(self, first, count, seconds):
        return real(self, first, count, seconds) if self.done < 200 else self

    monkeypatch.setattr(StoredMigration, "with_written", forgetful)


@pytest.mark.parametrize("bug", [takes_old_vectors_too, leaves_the_last_batches])
def test_the_harness_finds_a_bug(tmp_path, undisturbed, monkeypatch, bug):
    bug(monkeypatch)
    with pytest.raises((AssertionError, StateError)):  # here, or in the reader beside it
        one_life(tmp_path / "planted.vecdb", undisturbed, 0)


def test_every_failpoint_of_migrations_is_here():
    assert {name for name in NAMES if name.startswith("migrate.")} <= {*FORWARD, *BACKWARD, "migrate.finished"}


@pytest.mark.full
@pytest.mark.parametrize("name", sorted({*FORWARD, *BACKWARD}))
def test_each_failpoint_twenty_times(tmp_path, undisturbed, name):
    chance = random.Random(name)
    for turn in range(20):
        visit, how = (
            chance.randint(1, 1 if name in ("migrate.begun", "migrate.undone") else 12),
            ("exit", "pause")[turn % 2],
        )
        call = "run" if name in FORWARD and (name not in BACKWARD or turn % 3) else "rollback"
        die_at(tmp_path / f"{turn}.vecdb", undisturbed, name, [(visit, how)], call)
