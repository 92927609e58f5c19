"""`vecdb plan-upgrade`, `compat-matrix`, `transforms`: what they print, in which form, and with which exit code."""

import json

import numpy as np
import pytest

import vecdb
from tests.unit.upgrades import world
from vecdb.cli import main

MADE = world("noise", documents=400, queries=100)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with vecdb.open("x.vecdb", automatic=False) as db:
        docs = MADE.collection(db)
        docs.set_vectors("new", MADE.ids[:350], MADE.new[:350], trust=True)
    np.save("old.npy", MADE.queries.old)
    np.save("new.npy", MADE.queries.new)
    np.save("rows.npy", MADE.new[:300])
    for name, entries in (("relevant", MADE.relevant), ("ids", MADE.ids[:300])):
        (tmp_path / f"{name}.json").write_text(json.dumps(entries), "utf-8")
    (tmp_path / "relevant.txt").write_text("\n".join(MADE.relevant), "utf-8")
    return "x.vecdb"


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


QUERIES = ("--old-queries", "old.npy", "--new-queries", "new.npy", "--relevant", "relevant.json")
QUICK = ("--kind", "procrustes", "--splits", "2")


def test_a_plan_is_printed_written_and_applied(run, path, tmp_path):
    plan = ("plan-upgrade", path, "docs", "old", "new", *QUERIES, *QUICK)
    code, out, err = run(*plan, "--report", "plan.html")
    assert code == 0, err
    assert "Decision: BRIDGE" in out and "procrustes" in out
    assert (tmp_path / "plan.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert json.loads(run("transforms", path, "docs", "--json")[1]) == {"transforms": []}
    code, out, _ = run(*plan, "--apply", "--json")
    found = json.loads(out)
    assert code == 0 and found["decision"] == "bridge" and len(found["stored"]) == 2
    names = {each["name"] for each in json.loads(run("transforms", path, "docs", "--json")[1])["transforms"]}
    assert names == set(found["stored"])
    corrected = json.loads(run("corrections", path, "docs", "--json")[1])["corrections"]
    assert [each["name"] for each in corrected] == found["corrections"]


def test_answers_may_stand_one_a_line_and_pairs_in_files(run, path):
    lines = ("--old-queries", "old.npy", "--new-queries", "new.npy", "--relevant", "relevant.txt")
    given = ("--pairs", "rows.npy", "--pair-ids", "ids.json", "--old-bank", "old.npy", "--new-bank", "new.npy")
    code, out, err = run("plan-upgrade", path, "docs", "old", "new", *lines, *given, *QUICK, "--json")
    assert code == 0, err
    found = json.loads(out)["findings"]
    assert found["pairs"] == 300 and found["mode"] == "answers"


def test_transforms_are_listed_and_dropped(run, path):
    assert "no transforms" in run("transforms", path, "docs")[1]
    with vecdb.open(path) as db:
        db.collection("docs").fit_transform("new", "old", "procrustes", name="bridge")
    code, out, _ = run("transforms", path, "docs")
    assert code == 0 and "bridge" in out and "procrustes" in out
    assert "no transforms" in run("transforms", path, "docs", "--drop", "bridge")[1]
    assert run("transforms", path, "docs", "--drop", "bridge")[0] != 0


def test_the_matrix_is_printed(run, path):
    files = ("--queries", "old=old.npy", "--queries", "new=new.npy", "--relevant", "relevant.json")
    code, out, err = run("compat-matrix", path, "docs", *files)
    assert code == 0, err
    assert "AC" in out and "-" in out
    found = json.loads(run("compat-matrix", path, "docs", *files, "--json")[1])
    assert found["spaces"] == ["old", "new"] and found["values"][1][0] is None


@pytest.mark.parametrize(
    ("code", "said", "arguments"),
    [
        (2, "belong together", ("plan-upgrade", "x.vecdb", "docs", "old", "new", "--pairs", "rows.npy")),
        (2, "--new-queries", ("plan-upgrade", "x.vecdb", "docs", "old", "new", "--relevant", "relevant.json")),
        (2, "does not exist", ("plan-upgrade", "x.vecdb", "docs", "old", "new", "--new-queries", "no.npy")),
        (2, "SPACE=VALUE", ("compat-matrix", "x.vecdb", "docs", "--queries", "old", "--relevant", "relevant.json")),
    ],
)
def test_what_cannot_be_asked_is_said(run, path, code, said, arguments):
    got, _, err = run(*arguments)
    assert got == code and said in err
