"""Corrections under kill: the one that was acknowledged is there and whole, and no blob lies about without a name."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from vecdb.testing.crash import Kill, run_child

DIM = 8


def vectors(seed):
    return np.random.default_rng(seed).standard_normal((60, DIM)).astype(np.float32)


def make(path):
    with vecdb.open(path, automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=DIM)
        docs.upsert(range(60), {"old": vectors(1)})


def work(path):
    """Store and drop corrections in turn, from where the last life stopped."""

    def run(acknowledge):
        with vecdb.open(path, automatic=False) as db:
            docs = db.collection("docs")
            first = max((info.seed for info in docs.corrections), default=0) + 1
            for number in range(first, first + 30):
                docs.fit_correction(f"map {number}", bank=vectors(3), seed=number)
                acknowledge(number)
                for info in docs.corrections:
                    if info.seed < number - 1:
                        docs.drop_correction(info.name)

    return run


def verify(path, least):
    with vecdb.open(path, automatic=False) as db:
        assert db.check().ok
        docs = db.collection("docs")
        known = sorted(info.seed for info in docs.corrections)
        assert not known or known[-1] >= least
        assert len(known) <= 3 and all(info.rows == 60 for info in docs.corrections)
        for info in docs.corrections:
            assert len(docs.search(vectors(2)[0], correction=info.name)) == 10
        return known[-1] if known else 0


@pytest.mark.parametrize("how", ["exit", "pause"])
@pytest.mark.parametrize("name", ["correction.stored", "write.applied", "commit.before", "commit.after"])
def test_each_failpoint(tmp_path, name, how):
    path = tmp_path / "killed.vecdb"
    make(path)
    done = 0
    for visit in (1, 3):
        outcome = run_child(work(path), Kill(failpoint=name, visit=visit, how=how))
        assert outcome.killed and outcome.error == ""
        done = verify(path, max(done, outcome.acknowledged))


def test_a_write_that_fails_on_the_way_stores_nothing(tmp_path):
    path = tmp_path / "failed.vecdb"
    make(path)

    def run(acknowledge):
        with vecdb.open(path, automatic=False) as db:
            docs = db.collection("docs")
            with pytest.raises(Exception, match="injected"):
                docs.fit_correction("lost", bank=vectors(3))
            assert docs.corrections == () and db.check().ok
            docs.fit_correction("kept", bank=vectors(3))
            acknowledge(1)

    outcome = run_child(run, Kill(failpoint="correction.stored", how="raise"))
    assert (outcome.acknowledged, outcome.error) == (1, "")
    assert verify(path, 0) == 0  # its seed
