"""The verdict on real embeddings: no where bridging loses, yes on old models that are known to be bridged well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tools.evaluate.corpus import Corpus, Model, load_corpus
from tools.evaluate.verdicts import control

pytestmark = pytest.mark.shared_data

QUERIES, DOCUMENTS, PAIRS = 300, 3_000, 1_800


@pytest.fixture(scope="module")
def debian(shared_data: Path) -> Corpus:
    return load_corpus(shared_data / "debian")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as database:
        yield database


def planned(db: vecdb.Database, corpus: Corpus, old: Model, new: Model, **given: Any) -> vecdb.UpgradePlan:
    """Plan an upgrade over some documents, of which the answers and others are known to both models."""
    asked = np.arange(800, 800 + QUERIES)  # training queries: the test part is for the reporting command
    answers = corpus.judged.take(asked).rows
    others = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(old.docs)), answers))
    rows = np.concatenate([np.unique(answers), others])[:DOCUMENTS]
    docs = db.create_collection("docs")
    docs.add_space("old", dim=old.docs.shape[1])
    docs.add_space("new", dim=new.docs.shape[1])
    docs.upsert(rows.tolist(), vectors={"old": old.docs[rows]})
    queries = vecdb.QuerySet(
        old=old.queries[asked],
        new=new.queries[asked],
        relevant=answers.tolist(),
        groups=[corpus.sources[row] for row in answers],
    )
    pairs = rows[:PAIRS].tolist(), new.docs[rows[:PAIRS]]
    kinds = given.pop("kinds", ["procrustes"])
    return docs.plan_upgrade("old", "new", pairs=pairs, queries=queries, kinds=kinds, splits=2, **given)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("wl256", "mini6"),
        *(pytest.param(*pair, marks=pytest.mark.full) for pair in (("mini6", "e5s"), ("use3", "wl256"))),
    ],
)
def test_bridges_that_lose_are_refused(db: vecdb.Database, debian: Corpus, old: str, new: str) -> None:
    plan = planned(db, debian, debian.model(old), debian.model(new))
    assert plan.decision != "bridge"
    assert plan.report.findings.advantage.high < 1.0


def test_a_noised_old_model_is_bridged(db: vecdb.Database, debian: Corpus) -> None:
    new = debian.model("mini6")
    plan = planned(db, debian, control(new, "noised"), new)
    assert plan.decision == "bridge"
    assert plan.report.findings.native.gain.low > 1.0


def test_a_cut_old_model_is_bridged(db: vecdb.Database, debian: Corpus) -> None:
    new = debian.model("mini6")
    plan = planned(db, debian, control(new, "cut"), new, kinds=["procrustes", "truncate"])
    assert plan.decision == "bridge"
    assert plan.report.findings.best.arm.kind == "truncate"


@pytest.mark.full
def test_a_turned_old_model_is_as_good(db: vecdb.Database, debian: Corpus) -> None:
    new = debian.model("mini6")
    plan = planned(db, debian, control(new, "turned"), new)
    found = plan.report.findings
    assert plan.decision.startswith("stay")
    assert found.native.retention.value == pytest.approx(1.0, abs=0.002)


@pytest.mark.full
def test_two_stages_are_between_bridging_and_re_embedding(db: vecdb.Database, debian: Corpus) -> None:
    found = planned(db, debian, debian.model("wl256"), debian.model("mini6")).report.findings
    stages = {(each.by, each.depth): each.worth.value for each in found.stages}
    assert found.native.bridged.mrr.value < stages["bridge", 50] <= stages["bridge", 100] <= stages["bridge", 200]
    assert stages["bridge", 200] <= found.native.reembedded.mrr.value + 1e-9
    assert stages["old", 50] > stages["bridge", 50]
    assert 0 < found.native.retention.value < 1 < found.native.gain.value
