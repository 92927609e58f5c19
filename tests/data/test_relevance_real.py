"""Relevance filters on real queries of two models: stored, used, refused, fitted again, and worth what they say."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from tools.evaluate.corpus import load_corpus

pytestmark = pytest.mark.shared_data

ASKED, DOCUMENTS = 700, 8_000


@pytest.fixture(scope="module")
def world(shared_data, tmp_path_factory):
    """Eight thousand descriptions, the answers of training queries among them, and queries of another domain."""
    corpus, away = load_corpus(shared_data / "debian"), load_corpus(shared_data / "cranfield")
    answers = corpus.judged.rows[corpus.judged.starts[:ASKED]]
    rest = np.setdiff1d(np.arange(len(corpus.sources)), answers)
    rows = np.concatenate([answers, np.random.default_rng(0).choice(rest, DOCUMENTS - ASKED, replace=False)])
    models = {name: corpus.model(name) for name in ("use3", "mini6")}
    with vecdb.open(tmp_path_factory.mktemp("real") / "a.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("use3", dim=512)
        docs.upsert(rows.tolist(), {"use3": models["use3"].docs[rows]})
        asked = {name: model.queries[:ASKED] for name, model in models.items()}
        yield docs, asked, answers.tolist(), models["mini6"].docs[rows], rows.tolist(), away.model("use3").queries


def test_the_adapter_is_worth_more_than_raw_scores_beyond_doubt_and_knows_how_sure_it_is(world):
    docs, asked, answers, *_ = world
    info = docs.fit_relevance("a", "cosine-adapter", queries=asked["use3"], relevant_ids=answers)
    report = info.report
    assert report["pr_auc"]["low"] > report["raw"]["pr_auc"]["high"]
    assert report["precision_at_95"]["value"] > report["raw"]["precision_at_95"]["value"]
    assert report["ece_top10"]["value"] < 0.05 and report["brier_skill_top1"]["low"] > 0
    hits = docs.search(asked["use3"][:50], k=10, relevance="a")
    assert hits.dropped.mean() > 7 and (hits.counts + hits.dropped == 10).all()


def test_an_outlier_filter_refuses_another_domain_and_accepts_its_own(world):
    docs, asked, *_, foreign = world
    docs.fit_relevance("o", "outlier", queries=asked["use3"][:500])
    own = docs.search(asked["use3"][500:], k=1, relevance="o").counts.mean()
    assert own > 0.9 and docs.search(foreign, k=1, relevance="o").counts.mean() < 0.2


def test_after_an_upgrade_a_filter_is_refused_and_fitted_again_through_the_bridge(world):
    docs, asked, answers, new, rows, _ = world
    docs.fit_relevance("c", "calibrated", space="use3", queries=asked["use3"], relevant_ids=answers)
    old = docs.relevance_filters[-1]
    docs.add_space("mini6", dim=384)
    docs.fit_transform("mini6", "use3", "ridge", pairs=(new[700:4_700], stored(docs, rows[700:4_700])))
    with pytest.raises(vecdb.StaleError, match="queries of space 'use3'"):
        docs.search(asked["mini6"][0], space="mini6", relevance="c")
    info = docs.refit_relevance("c", space="mini6", queries=asked["mini6"])
    assert info.revision == 2 and not info.stale and info.threshold != old.threshold
    hits = docs.search(asked["mini6"][:20], space="mini6", k=5, relevance="c")
    assert all(hit.origin.startswith("bridged:") for found in hits for hit in found)
    assert info.report["brier_skill_top10"]["value"] > 0 and info.report["ece_top10"]["value"] < 0.06


def stored(docs, ids):
    return np.stack([record.vectors["use3"] for record in docs.get(ids, vectors=["use3"])])
