"""Corrections on real queries: what a bank of them is worth, and that the scan agrees with scoring everything."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from tools.evaluate.corpus import load_corpus
from tools.evaluate.hubness import asked_of, ranks_in

pytestmark = pytest.mark.full


def test_a_bank_of_800_queries_finds_more_answers_and_the_ranking_is_the_plain_one(tmp_path, shared_data):
    corpus = load_corpus(shared_data / "debian")
    model = corpus.model("mini6")
    asked, bank = asked_of(corpus, model), model.queries[:800]
    queries, answers = asked.queries[:400], asked.answers[:400]
    with vecdb.open(tmp_path / "real.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("mini6", dim=384)
        docs.upsert(range(len(model.docs)), {"mini6": model.docs}, trust=True)
        docs.fit_correction("fair", bank=bank)
        found = {name: docs.search(queries, k=10, correction=name, include=()) for name in (None, "fair")}
    recalls = {name: float((ranks_in(hits.ids, answers) > 0).mean()) for name, hits in found.items()}
    assert recalls["fair"] > recalls[None] + 0.01
    near = np.sort(np.partition(model.docs @ bank.T, 790, axis=1)[:, 790:], axis=1)
    table = queries[:100] @ model.docs.T - 0.5 * near.mean(axis=1)
    best = -np.sort(-table, axis=1)[:, :10]
    assert np.abs(best - found["fair"].scores[:100]).max() < 3e-6
