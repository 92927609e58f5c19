"""A writer killed anywhere loses nothing that it acknowledged and leaves nothing half."""

from __future__ import annotations

import random

import pytest

import vecdb
from vecdb.storage.failpoints import NAMES
from vecdb.testing.crash import Kill, Lives, Outcome, Trial, do_chore, run_child, verify, write_step
from vecdb.testing.processes import Child
from vecdb.testing.workload import Workload

MIGRATING = {name for name in NAMES if name.startswith("migrate.")}
STORED = {"index.stored", "index.staged", "transform.stored", "correction.stored", "relevance.stored"}
JOINT = {name for name in NAMES if name.startswith("joint.")}
ELSEWHERE = {"create.half"} | STORED | MIGRATING | JOINT
"""Failpoints with tests of their own: below, and in files beside this one."""
OFTEN = ("write.begin", "write.applied", "commit.before", "commit.after")


def every_kind_of_work(db, workload, acknowledge):
    """Some steps, then each chore, over and over."""
    for turn in range(1, 200):
        for _ in range(6):
            write_step(db, workload, acknowledge)
        do_chore(db, turn, db.path)


def hold(trial, kill):
    outcome = trial.run(kill)
    assert trial.check(outcome) == []
    return outcome


@pytest.mark.parametrize("retention", [0.0, 600.0])
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_random_kills(tmp_path, retention, durability):
    trial = Trial(tmp_path / "killed.vecdb", Workload(int(retention) + 7), retention, durability)
    trial.create()
    lives = Lives(f"{retention} {durability}", 0.0, 0.15)
    for _ in range(25):
        lives.learn(hold(trial, lives.kill()))
    assert trial.workload.number > 0


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_random_kills(tmp_path, seed):
    """Short and long lives, so that kills hit openings, commits, upkeep and closing."""
    retention, durability = (0.0, 600.0)[seed % 2], ("full", "relaxed")[seed % 3 > 0]
    trial = Trial(tmp_path / "killed.vecdb", Workload(100 + seed), retention, durability)
    trial.create()
    lives = [Lives(f"{seed} {longest}", 0.0, longest) for longest in (0.02, 0.1, 0.4)]
    chance = random.Random(seed)
    for _ in range(100):
        kind = chance.choice(lives)
        kind.learn(hold(trial, kind.kill()))
    assert trial.workload.number > 20


@pytest.mark.parametrize("name", sorted({*NAMES} - ELSEWHERE))
def test_each_failpoint(tmp_path, name):
    for how in ("exit", "pause"):
        die_at(tmp_path / f"{how}.vecdb", name, 1, how, seed=len(name))


@pytest.mark.full
@pytest.mark.parametrize("name", sorted({*NAMES} - ELSEWHERE))
def test_each_failpoint_twenty_times(tmp_path, name):
    visits = random.Random(name)
    for turn in range(20):
        often = 30 if name in OFTEN else 4
        die_at(tmp_path / f"{turn}.vecdb", name, visits.randint(1, often), ("exit", "pause")[turn % 2], seed=turn)


def die_at(path, name, visit, how, seed):
    """Kill a writer there twice, the second time on what the first left; then write on to prove the file works."""
    trial = Trial(path, Workload(seed), write=every_kind_of_work)
    trial.create()
    for _ in range(2):
        outcome = hold(trial, Kill(failpoint=name, visit=visit, how=how))
        assert outcome.killed, f"{name} was not visited {visit} times"
    with trial.open() as db:
        for _ in range(3):
            write_step(db, trial.workload, lambda number: None)
        db.compact()
        assert verify(db, trial.workload, trial.workload.number, db.seq - trial.base) == []


@pytest.mark.parametrize("how", ["exit", "pause"])
def test_a_file_that_was_half_created_is_created_by_the_next_opener(tmp_path, how):
    path = tmp_path / "young.vecdb"
    outcome = run_child(lambda _: vecdb.open(path), Kill(failpoint="create.half", how=how))
    assert outcome.killed and path.exists()
    with pytest.raises(vecdb.NotADatabaseError):
        vecdb.open(path, mode="r")
    trial = Trial(path, Workload(1))
    trial.create()
    with trial.open() as db:
        write_step(db, trial.workload, lambda number: None)
        assert verify(db, trial.workload, 1, db.seq - trial.base) == []


def test_an_unpublished_bulk_load_leaves_no_file(tmp_path):
    path = tmp_path / "load.vecdb"

    def load(acknowledge):
        with vecdb.open(path, durability="bulk") as db:
            workload = Workload(3)
            workload.prepare(db)
            for _ in range(1000):
                write_step(db, workload, acknowledge)

    outcome = run_child(load, Kill(failpoint="commit.before", visit=8))
    assert outcome.killed and outcome.acknowledged
    assert not path.exists()
    with vecdb.open(path, durability="bulk") as db:
        Workload(3).prepare(db)
    with vecdb.open(path, mode="r") as db:
        assert db.check().ok


def test_a_transaction_is_all_or_nothing(tmp_path):
    """Killed between the operations of a transaction, none of them is there."""
    path = tmp_path / "t.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("c").add_space("s", dim=2)

    def write(link):
        with vecdb.open(path) as db:
            c = db.collection("c")
            with db.transaction():
                c.upsert(["a"], {"s": [[1, 0]]})
                c.upsert(["b"], {"s": [[0, 1]]})
                link.send("both")
                link.receive()

    with Child(write) as child:
        assert child.receive() == "both"
        child.kill()
    with vecdb.open(path) as db:
        assert len(db.collection("c")) == 0 and db.check().ok
        db.collection("c").upsert(["a"], {"s": [[1, 0]]})


def test_an_injected_error_at_each_step_of_a_commit_changes_nothing(tmp_path):
    """An OSError in the middle of a commit rolls it back, and the same process writes on."""
    for name in ("write.begin", "write.applied", "commit.before", "seal.before", "seal.half"):
        trial = Trial(tmp_path / f"{name}.vecdb", Workload(5))
        trial.create()

        def write(acknowledge, trial=trial):
            with trial.open() as db:
                for turn in range(40):
                    step = trial.workload.next_step()
                    try:
                        step.write(db)
                    except OSError:
                        assert verify(db, trial.workload, turn, db.seq - trial.base) == []
                        step.write(db)
                        acknowledge(1)
                        return
                    trial.workload.take(step)

        outcome = run_child(write, Kill(failpoint=name, visit=3, how="raise"))
        assert outcome.error == "" and outcome.acknowledged == 1, (name, outcome)


def test_lives_grow_where_nothing_gets_done_and_stay_where_something_does():
    idle, busy = Outcome(0, True), Outcome(3, True)
    lives = Lives(1, 0.1, 0.2)
    for _ in range(50):
        assert 0.1 <= lives.kill().after <= 0.2
        lives.learn(idle)
        lives.learn(busy)
    for turn in range(100):
        assert 0.1 <= lives.kill().after <= 0.2 * 2 ** min(6, turn // 5)
        lives.learn(idle)
    assert lives.kill().after >= 6.4  # and no longer than 64 times
    assert [Lives("x", 0, 1).kill() for _ in range(2)] == [Lives("x", 0, 1).kill()] * 2
