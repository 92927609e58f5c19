"""Relevance filters under kill: the one that was acknowledged is there and whole, a refit is the old one or the new.

A filter is a state, its queries and its judgements: they come and go together, and no blob lies about without a name.
"""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from vecdb.testing.crash import Kill, run_child

DIM, COUNT, ASKED = 4, 60, 40
POINTS = ["relevance.stored", "write.applied", "commit.before", "commit.after"]


def vectors(seed, count=COUNT):
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def queries(seed):
    return (vectors(1)[:ASKED] + 0.1 * vectors(seed, ASKED)).astype(np.float32)


def make(path, *, fitted=False):
    with vecdb.open(path, automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=DIM)
        docs.upsert(range(COUNT), {"m": vectors(1)})
        if fitted:
            fit(docs, "kept", 0)


def fit(docs, name, number):
    answers = [[row] for row in range(ASKED)]
    docs.fit_relevance(name, "threshold", queries=queries(2 + number), relevant_ids=answers, pool=20, seed=number)


def storing(path):
    """Store and drop filters in turn, from where the last life stopped."""

    def run(acknowledge):
        with vecdb.open(path, automatic=False) as db:
            docs = db.collection("docs")
            first = max((info.seed for info in docs.relevance_filters), default=0) + 1
            for number in range(first, first + 30):
                fit(docs, f"filter {number}", number)
                acknowledge(number)
                for info in docs.relevance_filters:
                    if info.seed < number - 1:
                        docs.drop_relevance(info.name)

    return run


def refitting(path):
    """Fit one filter again and again, each time with another seed; the number of the revision is what counts."""

    def run(acknowledge):
        with vecdb.open(path, automatic=False) as db:
            docs = db.collection("docs")
            for _ in range(30):
                seed = docs.relevance_filters[0].revision + 1
                acknowledge(docs.refit_relevance("kept", seed=seed).revision)

    return run


def usable(db, docs):
    """Everything that is named can be loaded, searched with and fitted again."""
    assert db.check().ok
    for info in docs.relevance_filters:
        assert (info.available, info.stale, info.queries) == (True, False, ASKED), info.reason
        found = docs.search(vectors(1)[0], relevance=info.name)
        assert len(found) + found.dropped == 10
        assert all(hit.relevance >= np.float32(info.threshold) for hit in found)


def verify_stored(path, least):
    with vecdb.open(path, automatic=False) as db:
        docs = db.collection("docs")
        usable(db, docs)
        known = sorted(info.seed for info in docs.relevance_filters)
        assert known[-1] >= least if known else not least
        assert len(known) <= 3 and len({info.name for info in docs.relevance_filters}) == len(known)
        return known[-1] if known else 0


def verify_refitted(path, least):
    with vecdb.open(path, automatic=False) as db:
        docs = db.collection("docs")
        usable(db, docs)
        (info,) = docs.relevance_filters
        assert info.revision >= least and info.seed == (info.revision if info.revision > 1 else 0)
        return info.revision


@pytest.mark.parametrize("how", ["exit", "pause"])
@pytest.mark.parametrize("name", POINTS)
def test_each_failpoint(tmp_path, name, how):
    path = tmp_path / "killed.vecdb"
    make(path)
    done = 0
    for visit in (1, 3):
        outcome = run_child(storing(path), Kill(failpoint=name, visit=visit, how=how))
        assert outcome.killed and outcome.error == ""
        now = verify_stored(path, max(done, outcome.acknowledged))
        assert now <= max(done, outcome.acknowledged) + 1
        done = now


@pytest.mark.parametrize("name", POINTS)
def test_a_filter_that_is_fitted_again_is_the_old_one_or_the_new(tmp_path, name):
    path = tmp_path / "killed.vecdb"
    make(path, fitted=True)
    done = 1
    for visit in (1, 2):
        outcome = run_child(refitting(path), Kill(failpoint=name, visit=visit, how="exit"))
        assert outcome.killed and outcome.error == ""
        reached = max(done, outcome.acknowledged)
        now = verify_refitted(path, reached)
        assert now == reached + (name == "commit.after")
        done = now


@pytest.mark.parametrize("again", [False, True])
def test_a_write_that_fails_on_the_way_leaves_what_was_there(tmp_path, again):
    path = tmp_path / "failed.vecdb"
    make(path, fitted=again)

    def run(acknowledge):
        with vecdb.open(path, automatic=False) as db:
            docs = db.collection("docs")
            before = docs.relevance_filters
            with pytest.raises(Exception, match="injected"):
                docs.refit_relevance("kept", seed=9) if again else fit(docs, "lost", 1)
            assert docs.relevance_filters == before
            usable(db, docs)
            fit(docs, "more", 2)
            acknowledge(1)

    outcome = run_child(run, Kill(failpoint="relevance.stored", how="raise"))
    assert (outcome.acknowledged, outcome.error) == (1, "")
    assert verify_stored(path, 2) == 2
