"""The command that measures corrections of hubs: ranks, floors, a run on a small folder, and what is told of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.unit.test_evaluate import DOCS, TEST, TRAIN, written
from tools.evaluate import hubness
from tools.evaluate.corpus import load_corpus
from tools.evaluate.report import markers
from vecdb.evaluation import occurrences, skewness


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("hubness") / "small")


def test_ranks_count_from_one_and_a_missing_answer_is_zero():
    found = [[3, 1, 2], [5, 4], []]
    assert hubness.ranks_in(found, np.array([1, 5, 7])).tolist() == [2, 1, 0]


def test_the_floor_is_the_skewness_of_chance():
    rng = np.random.default_rng(0)
    random = [skewness(occurrences(rng.integers(0, 5_000, (400, 10)), 5_000)) for _ in range(40)]
    assert np.mean(random) == pytest.approx(hubness.floor_of(400, 10, 5_000), abs=0.05)


def test_queries_are_clustered_by_the_source_of_their_answer(folder):
    corpus = load_corpus(folder)
    asked = hubness.asked_of(corpus, corpus.model("a"))
    assert len(asked.queries) == TEST
    together = asked.clusters[:, None] == asked.clusters[None, :]
    assert (together == (asked.answers[:, None] // 2 == asked.answers[None, :] // 2)).all()


def test_a_folder_without_test_queries_is_refused(tmp_path):
    corpus = load_corpus(written(tmp_path / "bare", splits=False))
    with pytest.raises(SystemExit, match="no test queries"):
        hubness.asked_of(corpus, corpus.model("a"))


def test_a_run_measures_every_arm_once_and_agrees_with_numpy(folder, tmp_path, capsys, monkeypatch):
    out, page = tmp_path / "numbers.json", tmp_path / "page.md"
    page.write_text("\n".join(["before", *markers("hubness"), "after"]), "utf-8")
    monkeypatch.setattr(hubness, "_ROUNDS", 1)
    arguments = [str(folder), "--model", "a", "--bank", "20", str(TRAIN), "--out", str(out), "--write-docs", str(page)]
    assert hubness.main(arguments) == 0
    told = json.loads(out.read_text("utf-8"))["small, a"]
    assert set(told["arms"]) == {f"{arm.name} {bank}" for arm in hubness.ARMS for bank in (20, TRAIN)}
    assert told["raw"]["rows"] == DOCS and told["raw"]["recall_gain"]["value"] == 0.0
    for bank in (20, TRAIN):
        assert told["arms"][f"csls {bank}"]["recall"] == pytest.approx(told["numpy"][str(bank)], abs=0.021)
    assert all(row["batch_rate"] > 0 and row["fit_seconds"] > 0 for row in told["arms"].values())
    assert 0.9 <= told["index"]["found"] <= 1.0 and told["index"]["bank"] == TRAIN
    text = page.read_text("utf-8")
    assert text.startswith("before") and "| csls | 20 |" in text and text.endswith("after")
    capsys.readouterr()
    assert hubness.main(arguments) == 0  # nothing is measured again
    assert "csls" in capsys.readouterr().out and json.loads(out.read_text("utf-8"))["small, a"] == told


def test_a_gain_outside_its_interval_is_bold():
    assert hubness._gain({"value": 0.03, "low": 0.01, "high": 0.05}) == "**+0.030 [+0.010, +0.050]**"
    assert hubness._gain({"value": 0.03, "low": -0.01, "high": 0.05}) == "+0.030 [-0.010, +0.050]"
