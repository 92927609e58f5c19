"""Migrations from the command line: start, watch, interrupt, go on, end either way."""

import json

import numpy as np
import pytest

import vecdb
from vecdb.cli import main
from vecdb.cli.codes import EXIT_CODES

COUNT = 120
X = np.random.default_rng(2).standard_normal((COUNT, 6)).astype(np.float32)
MODULE = """
import numpy as np

def embed(texts):
    return np.stack([np.random.default_rng(int(text)).standard_normal(4) for text in texts])

def of_records(records):
    return embed([record.text for record in records])

def down(texts):
    raise ConnectionError("no route")

def wide(texts):
    return np.ones((len(texts), 5))

class Models:
    small = staticmethod(embed)

NUMBER = 5
"""


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """A module of the caller's, in the working directory."""
    monkeypatch.setenv("VECDB_KERNELS", "0")
    (tmp_path / "models_for_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "news.vecdb"
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=6)
        docs.add_space("new", dim=4)
        docs.upsert(range(COUNT), {"old": X}, texts=[str(place) for place in range(COUNT)])
    return path


def run(capsys, action, path, *arguments):
    code = main(["migrate", action, str(path), "docs", *map(str, arguments)])
    captured = capsys.readouterr()
    assert code in EXIT_CODES
    return code, captured.out, captured.err


def run_json(capsys, action, path, *arguments):
    code, out, err = run(capsys, action, path, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


EMBED = ("--encode", "models_for_tests:embed")


def test_from_start_to_finish(capsys, path):
    code, out, _ = run(capsys, "start", path, "old", "new", *EMBED, "--limit", 30, "--batch", 10)
    assert code == 0 and "migration 1 from old to new: backfilling" in out and "25.0% of 120 records" in out
    known = run_json(capsys, "status", path)["migrations"]
    assert [(each["done"], each["pending"], each["state"]) for each in known] == [(30, 90, "backfilling")]
    assert run_json(capsys, "resume", path, *EMBED)["state"] == "complete"
    assert run_json(capsys, "finish", path)["state"] == "finished"
    with vecdb.open(path, mode="r") as db:
        assert list(db.collection("docs").spaces) == ["new"]
    assert run_json(capsys, "status", path, "--all")["migrations"][0]["state"] == "finished"


def test_pause_resume_and_rollback(capsys, path):
    code, out, _ = run(capsys, "start", path, "old", "new")
    assert code == 0 and "prepared" in out
    code, out, _ = run(capsys, "pause", path, "--reason", "the quota is spent")
    assert code == 0 and "paused: the quota is spent" in out
    assert run_json(capsys, "resume", path)["paused"] == ""
    assert run_json(capsys, "resume", path, "--encode", "models_for_tests:Models.small", "--limit", 50)["done"] == 50
    assert run_json(capsys, "rollback", path)["state"] == "rolled back"
    with vecdb.open(path, mode="r") as db:
        assert all(record.spaces == ("old",) for record in db.collection("docs").scan())


def test_records_policies_and_parameters(capsys, path):
    found = run_json(
        capsys, "start", path, "old", "new", "--encode", "models_for_tests:of_records", "--records",
        "--policy", "random", "--seed", 3, "--canary", 0.1, "--rate", 100000, "--retries", 0, "--trust",
    )  # fmt: skip
    assert found["state"] == "complete" and found["policy"] == "random"
    run_json(capsys, "rollback", path)
    code, _, err = run(capsys, "start", path, "old", "new", "--policy", "novelty", "--param", "weight=2")
    assert code == 2 and "weight" in err
    code, _, err = run(capsys, "start", path, "old", "new", "--policy", "hybrid", "--param", "weight=much")
    assert code == 2 and "expected float" in err
    code, _, err = run(capsys, "start", path, "old", "new", "--policy", "unknown")
    assert code == 3 and "unknown" in err


def test_what_is_left_out_is_listed(capsys, path):
    with vecdb.open(path) as db:
        docs = db.collection("docs")
        docs.upsert(["silent"], {"old": X[:1]})
        docs.upsert(["young"], {"new": X[:1, :4]}, texts=["5"])
    _, out, _ = run(capsys, "start", path, "old", "new", *EMBED)
    assert "1 records could not be embedded" in out and "'silent': the record has no text" in out
    assert "1 records have a vector of the new model alone" in out and "'young'" in out
    code, _, err = run(capsys, "finish", path)
    assert code == 4 and "leave 1 records" in err
    assert run_json(capsys, "finish", path, "--leave-missing")["state"] == "finished"


@pytest.mark.parametrize(
    ("encode", "code", "words"),
    [
        ("models_for_tests", 2, "MODULE:CALLABLE"),
        (":embed", 2, "MODULE:CALLABLE"),
        ("no_such_module:embed", 2, "cannot load"),
        ("models_for_tests:no_such_name", 2, "cannot load"),
        ("models_for_tests:NUMBER", 2, "is a int"),
        ("models_for_tests:down", 8, "no route"),
        ("models_for_tests:wide", 4, "5"),
    ],
)
def test_encoders_that_are_none(capsys, path, encode, code, words):
    found, out, err = run(capsys, "start", path, "old", "new", "--encode", encode, "--retries", 0)
    assert found == code and words in err and out == ""


def test_without_a_migration_there_is_nothing_to_do(capsys, path):
    for action in ("status", "pause", "resume", "finish", "rollback"):
        code, _, err = run(capsys, action, path)
        assert code == 4 and "never migrated" in err
    run(capsys, "start", path, "old", "new")
    code, _, err = run(capsys, "start", path, "old", "new")
    assert code == 4 and "being migrated" in err
