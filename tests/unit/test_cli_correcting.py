"""`vecdb fit-correction`, `corrections` and `search --correction`: what they print, and with which exit code."""

import json

import numpy as np
import pytest

import vecdb
from vecdb.cli import main

ROWS = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
BANK = np.random.default_rng(1).standard_normal((20, 8)).astype(np.float32)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with vecdb.open("x.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=8)
        docs.upsert(range(60), {"s": ROWS})
    np.save("bank.npy", BANK)
    return "x.vecdb"


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_correction_is_fitted_listed_used_and_dropped(path, run):
    code, out, _ = run("corrections", path, "docs")
    assert code == 0 and "no corrections" in out
    code, out, _ = run("fit-correction", path, "docs", "fair", "bank.npy", "--param", "neighbours=3", "--json")
    (found,) = json.loads(out)["corrections"]
    assert code == 0 and found["params"] == {"neighbours": 3} and (found["bank"], found["rows"]) == (20, 60)
    code, out, _ = run("search", path, "docs", "--like", 7, "-k", 5, "--correction", "fair", "--json")
    with vecdb.open(path, mode="r") as db:
        hits = db.collection("docs").search(like=7, k=5, correction="fair")
    assert code == 0 and [hit["id"] for hit in json.loads(out)["hits"]] == hits.ids
    more = ("--param", "dynamic=false", "--param", "banks=query")
    code, out, _ = run("fit-correction", path, "docs", "dual", "bank.npy", "--kind", "dbnorm", *more)
    assert code == 0 and "fair" in out and "dual" in out
    code, out, _ = run("corrections", path, "docs", "--drop", "fair")
    assert code == 0 and "fair" not in out and "dual" in out


def test_what_is_wrong_is_one_line_with_a_hint(path, run):
    code, _, err = run("search", path, "docs", "--like", 7, "--correction", "fair")
    assert code != 0 and "no correction 'fair'" in err and "fit_correction" in err
    code, _, err = run("fit-correction", path, "docs", "fair", "bank.npy", "--kind", "nope")
    assert code != 0 and "csls" in err
    code, _, err = run("fit-correction", path, "docs", "fair", "bank.npy", "--param", "neighbours=many")
    assert code != 0 and "neighbours" in err
