"""`python -m tools.evaluate.verdicts` on a small folder of the layout: ranks once, judges often, writes its table."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tools.evaluate import verdicts
from tools.evaluate.corpus import load_corpus
from vecdb.upgrade.ledger import Ledger

DOCUMENTS, QUERIES, DIM = 420, 150, 24


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a folder with a model, and one that adds noise to it."""
    random = np.random.default_rng(0)
    meaning = random.normal(size=(DOCUMENTS, DIM))
    answers = random.permutation(DOCUMENTS)[:QUERIES]
    asked = meaning[answers] + 0.6 * random.normal(size=(QUERIES, DIM))
    for name, noise in (("mini6", 0.0), ("weak", 0.6)):
        for part, rows in (("docs", meaning), ("queries", asked)):
            made = rows + noise * random.normal(size=rows.shape)
            made /= np.linalg.norm(made, axis=1, keepdims=True)
            np.save(tmp_path / f"{name}.{part}.f16.npy", made.astype(np.float16))
    _write(tmp_path / "docs.jsonl.gz", [{"id": row, "source": f"s{row // 2}"} for row in range(DOCUMENTS)])
    split = ["train"] * 30 + ["test"] * (QUERIES - 30)
    _write(
        tmp_path / "queries.jsonl.gz",
        [{"qid": row, "rel": int(answers[row]), "split": split[row]} for row in range(QUERIES)],
    )
    for name, value in (("PAIRS", 250), ("DOCUMENTS", 400), ("PLANNED", 50)):
        monkeypatch.setattr(verdicts, name, value)
    return tmp_path


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(row) for row in rows))


def test_cases_are_all_pairs_and_the_controls(folder: Path) -> None:
    names = [case.name for case in verdicts.cases(load_corpus(folder), [])]
    assert names == ["mini6:weak", "weak:mini6", "turned:mini6", "noised:mini6", "cut:mini6"]


def test_controls_are_what_their_names_say(folder: Path) -> None:
    model = load_corpus(folder).model("mini6")
    turned = verdicts.control(model, "turned").docs
    assert turned[:50] @ turned[:50].T == pytest.approx(model.docs[:50] @ model.docs[:50].T, abs=1e-5)
    assert not np.allclose(turned, model.docs, atol=0.1)
    assert verdicts.control(model, "cut").docs.shape[1] == min(64, DIM)
    noised = verdicts.control(model, "noised").docs
    assert np.linalg.norm(noised, axis=1) == pytest.approx(np.ones(DOCUMENTS), abs=1e-5)


def test_the_command_ranks_once_and_writes_its_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "page.md"
    page.write_text("a\n<!-- generated: verdicts -->\nold\n<!-- end of generated: verdicts -->\nz\n", "utf-8")
    store = folder / "store"
    common = [str(folder), "--store", str(store), "--case", "weak:mini6", "--kinds", "procrustes", "--trials", "5"]
    assert verdicts.main([*common, "--write-docs", str(page), "--json", str(folder / "n.json")]) == 0
    first = capsys.readouterr()
    assert "ranked in" in first.err and "| weak:mini6 |" in first.out
    text = page.read_text("utf-8")
    assert text.startswith("a\n<!--") and text.endswith("-->\nz\n") and "| weak:mini6 |" in text and "old\n" not in text
    (row,) = json.loads((folder / "n.json").read_text("utf-8"))
    assert row["trials"] == 5 and 0 <= row["covered"] <= 1 and sum(row["decisions"].values()) == pytest.approx(1.0)
    assert row["advantage"] == pytest.approx(row["truth"], rel=0.3)
    assert verdicts.main(common) == 0
    again = capsys.readouterr()
    assert again.err == "" and again.out == first.out


def test_plans_and_judgements_share_no_cluster() -> None:
    clusters = np.random.default_rng(1).integers(0, 300, 900)
    planned = verdicts._whole_clusters(clusters, np.random.default_rng(2))
    assert 550 < planned.sum() <= verdicts.PLANNED
    assert not set(clusters[planned].tolist()) & set(clusters[~planned].tolist())


def test_a_bridge_that_loses_later_is_false() -> None:
    def trial(decision: str, truth: float) -> dict[str, object]:
        numbers = {"advantage": 1.0, "width": 1.1, "true_gain": 1.1, "covered": True, "gain_covered": False}
        return {**numbers, "decision": decision, "truth": truth, "kind": "ridge"}

    rows = [trial("bridge", 0.9), trial("bridge", 0.99), trial("stay", 1.1), trial("stay", 0.5)]
    found = verdicts.summary("x", rows)
    assert (found["false_bridge"], found["false_stay"]) == (0.25, 0.25)
    assert found["decisions"] == {"bridge": 0.5, "stay": 0.5}


def test_a_kept_ledger_is_the_one_that_was_made(folder: Path) -> None:
    corpus = load_corpus(folder)
    (case,) = verdicts.cases(corpus, ["weak:mini6"])
    arms = [arm for arm in verdicts.ARMS if arm.kind == "procrustes"]
    registry = __import__("vecdb").PluginRegistry(entry_points=False)
    made: Ledger = verdicts.kept(folder, corpus, case, registry, arms)
    again = verdicts.kept(folder, corpus, case, registry, arms)
    assert (
        set(made.values)
        == set(again.values)
        == {(name, fixed) for name in ("stay", "new", "procrustes:query") for fixed in (False, True)}
    )
    for key in made.values:
        assert np.array_equal(made.values[key], again.values[key], equal_nan=True)
