"""The command that measures relevance filters, on a small folder: every arm, every table, and going on where it was."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from tools.evaluate import filters, relevance
from tools.evaluate.corpus import load_corpus
from tools.evaluate.filterpools import judged_pool, part_of, roles_of


def folder(path, seed, dim=8, documents=400, queries=240):
    path.mkdir()
    rng = np.random.default_rng(seed)
    docs = rng.standard_normal((documents, dim)) + 2 * np.eye(dim)[seed % dim]
    rel = rng.permutation(documents)[:queries]
    asked = docs[rel] + rng.uniform(0.1, 1.2, (queries, 1)) * rng.standard_normal((queries, dim))
    np.save(path / "one.docs.f16.npy", docs.astype(np.float16))
    np.save(path / "one.queries.f16.npy", asked.astype(np.float16))
    with gzip.open(path / "docs.jsonl.gz", "wt") as file:
        for row in range(documents):
            file.write(json.dumps({"id": row, "source": f"s{row // 2}", "section": f"c{row % 5}"}) + "\n")
    with gzip.open(path / "queries.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"qid": n, "rel": int(row)}) + "\n" for n, row in enumerate(rel))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("corpora")
    return folder(base / "home", 1), folder(base / "away", 5)


def test_pools_know_answers_and_leave_out_what_has_their_source(folders):
    corpus = load_corpus(folders[0])
    roles = roles_of(corpus)
    assert not len(roles.nothing) and not set(roles.fit.tolist()) & set(roles.test.tolist())
    part = part_of(corpus, corpus.model("one"), roles.fit)
    answers = corpus.judged.rows[corpus.judged.starts[roles.fit]]
    for row, answer in enumerate(answers.tolist()):
        assert set(part.found[row][part.labels[row]].tolist()) <= {answer}
        assert set(part.found[row][part.ignore[row]].tolist()) <= {answer ^ 1}
        lost = answer not in part.found[row]
        assert lost == any(int(query) == row for query, _ in part.missed.tolist())
    assert (np.diff(part.scores, axis=1) <= 0).all()
    assert judged_pool(part).used.sum() == (~part.ignore).sum()


def test_everything_is_measured_written_and_not_measured_again(folders, tmp_path, monkeypatch, capsys):
    few = {name: filters.ARMS[name] for name in ("threshold", "calibrated, Platt", "conformal, 0.1")}
    few["cosine-adapter"] = ("cosine-adapter", {"steps": 20, "networks": 2})
    monkeypatch.setattr(filters, "ARMS", few)
    monkeypatch.setattr(filters, "_RESAMPLES", 10)
    monkeypatch.setattr(filters, "_SPLITS", 3)
    out, page = tmp_path / "n.json", tmp_path / "page.md"
    page.write_text("a\n<!-- generated: relevance -->\n<!-- end of generated: relevance -->\nb\n")
    wishes = [str(folders[0]), "--other", str(folders[1]), "--out", str(out), "--write-docs", str(page)]
    assert relevance.main(wishes) == 0
    capsys.readouterr()
    text = page.read_text()
    for word in (
        "PR-AUC",
        "ECE, top 1",
        "no hit",
        "outlier, knn",
        "background of all queries",
        "beta-binomial",
        "| away |",
    ):
        assert word in text, word
    before = json.loads(out.read_text())
    monkeypatch.setattr(filters, "ARMS", {})
    assert relevance.main(wishes) == 0
    assert json.loads(out.read_text()) == before
    arms = {row["name"]: row for row in before["runs"]["home"]["models"]["one"]["arms"]}
    same = arms["calibrated, Platt"]["against"]["raw score"]["pr_auc"]
    assert (same["value"], same["low"], same["high"]) == pytest.approx((0.0, 0.0, 0.0), abs=1e-3)  # float32 ties


def test_the_band_is_that_of_drawn_beta_binomials():
    rng = np.random.default_rng(0)
    lost = rng.binomial(500, rng.beta(30, 271, 200_000))
    low, high = filters.beta_binomial_band(300, 500, 0.1)
    assert (low, high) == pytest.approx(tuple(1 - np.quantile(lost, [0.975, 0.025]) / 500), abs=0.004)
