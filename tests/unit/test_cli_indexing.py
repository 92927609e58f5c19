"""`vecdb index` and `vecdb optimize`: what they print, in which form, and with which exit code."""

import json

import pytest

import vecdb
from tests.indextypes import DIM, NONE, CopiesType, able, fail, registry, rows
from vecdb import registry as registries
from vecdb.cli import main
from vecdb.contracts import Param

PARAMETERS = {
    "m": Param("int", 3, "A number.", low=1, high=9),
    "word": Param("str", "x", "A word."),
    "share": Param("float", 0.5, "A share."),
    "fast": Param("bool", False, "A switch."),
}


@pytest.fixture
def type_(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")
    type_ = CopiesType("acme.copies", able("exact", "add"), parameters=PARAMETERS)
    given = registry(type_)
    monkeypatch.setattr(registries, "default_registry", lambda *setting: given)
    return type_


@pytest.fixture
def path(tmp_path, type_):
    path = tmp_path / "x.vecdb"
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=DIM, metric="l2")
        docs.upsert(range(50), {"s": rows(50)})
    return str(path)


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def as_json(run, *arguments):
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_an_index_is_made_listed_and_dropped(run, path):
    code, out, _ = run("index", path, "docs")
    assert code == 0 and "no indexes" in out
    code, out, _ = run("index", path, "docs", "s", "acme.copies", "--param", "m=5", "--seed", "9")
    assert code == 0 and "acme.copies" in out
    (info,) = as_json(run, "index", path, "docs")["indexes"]
    assert (info["space"], info["kind"], info["seed"], info["available"]) == ("s", "acme.copies", 9, True)
    assert info["params"] == {"m": 5, "word": "x", "share": 0.5, "fast": False}
    assert info["coverage"] == 1.0 and info["parts"] == 1 and info["reason"] is None
    code, out, _ = run("index", path, "docs", "s", "acme.copies", "--drop")
    assert code == 0 and "no indexes" in out
    assert as_json(run, "index", path, "docs") == {"indexes": []}


def test_parameters_are_read_as_they_are_declared(run, path):
    words = ["--param", "m=4", "--param", "word=12", "--param", "share=1", "--param", "fast=true"]
    (info,) = as_json(run, "index", path, "docs", "s", "acme.copies", *words)["indexes"]
    assert info["params"] == {"m": 4, "word": "12", "share": 1.0, "fast": True}


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (2, ["docs", "s"], "name the kind"),
        (2, ["docs", "s", "acme.copies", "--param", "m"], "m"),
        (2, ["docs", "s", "acme.copies", "--param", "m=10"], "'m' of index type 'acme.copies'"),
        (2, ["docs", "s", "acme.copies", "--param", "m=x"], "'m' of index type 'acme.copies'"),
        (2, ["docs", "s", "acme.copies", "--param", "share=nan"], "'share'"),
        (2, ["docs", "s", "acme.copies", "--param", "other=1"], "other"),
        (2, ["docs", "s", "acme.copies", "--seed", "-1"], "seed"),
        (2, ["docs", "s", "auto", "--param", "m=1"], "auto"),
        (3, ["docs", "s", "acme.copy"], "acme.copies"),
        (3, ["docs", "s", "acme.copy", "--param", "m=1"], "acme.copies"),
        (3, ["docs", "t", "acme.copies"], "no space 't'"),
        (3, ["other"], "no collection 'other'"),
        (3, ["docs", "s", "acme.copies", "--drop"], "has no index"),
    ],
)
def test_what_cannot_be_is_refused(run, path, code, arguments, said):
    found, out, err = run("index", path, *arguments)
    assert (found, out) == (code, "") and said in err and "Traceback" not in err
    with vecdb.open(path, mode="r") as db:
        assert db.collection("docs").indexes == []


def test_an_index_twice_and_a_file_that_is_not_there(run, path, tmp_path):
    assert run("index", path, "docs", "s", "acme.copies")[0] == 0
    code, _, err = run("index", path, "docs", "s", "acme.copies")
    assert code != 0 and "has an index" in err and "Traceback" not in err
    for command in (["index", tmp_path / "no.vecdb", "docs"], ["optimize", tmp_path / "no.vecdb"]):
        assert run(*command)[0] == 3
    assert not (tmp_path / "no.vecdb").exists()


def test_without_the_plugin_the_reason_is_shown_and_dropping_works(run, path, monkeypatch):
    run("index", path, "docs", "s", "acme.copies")
    monkeypatch.setattr(registries, "default_registry", lambda *setting: NONE)
    code, out, _ = run("index", path, "docs")
    assert code == 0 and "unavailable" in out
    (info,) = as_json(run, "index", path, "docs")["indexes"]
    assert not info["available"] and "unavailable" in info["reason"]
    assert run("optimize", path)[0] == 0
    assert run("index", path, "docs", "s", "acme.copies", "--drop")[0] == 0
    assert as_json(run, "index", path, "docs") == {"indexes": []}


def test_optimize(run, path):
    run("index", path, "docs", "s", "acme.copies")
    with vecdb.open(path) as db:
        db.collection("docs").upsert(range(100, 140), {"s": rows(40)})
    code, out, _ = run("optimize", path, "docs")
    assert code == 0 and "steps had something to do" in out
    assert as_json(run, "optimize", path) == {"steps": 0}
    assert as_json(run, "index", path, "docs")["indexes"][0]["coverage"] == 1.0
    assert run("optimize", path, "other")[0] == 3


def test_a_plugin_that_fails_is_named(run, path, type_):
    type_.faults["build"] = fail(ValueError("odd"))
    code, out, err = run("index", path, "docs", "s", "acme.copies")
    assert code not in (0, 2) and out == "" and "failed in build" in err and "odd" in err and "Traceback" not in err


def test_odd_statistics_are_still_json(run, path, type_):
    type_.faults["stats"] = fail(ValueError("odd"))
    (info,) = as_json(run, "index", path, "docs", "s", "acme.copies")["indexes"]
    assert info["available"] and "failed in stats" in info["reason"] and info["stats"] == {}
    type_.faults.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.indextypes.Copies.stats", lambda self: {"x": float("nan"), "y": float("inf")})
        as_json(run, "index", path, "docs")
