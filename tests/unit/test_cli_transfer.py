"""``vecdb import`` and ``vecdb export``: what they make, say, refuse and continue."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.cli import main

ROOT = Path(__file__).resolve().parents[2]
ROWS = 20
X = np.random.default_rng(0).standard_normal((ROWS, 3)).astype(np.float16)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder with records and vectors; it is the current one, so that names in messages are short."""
    records = [{"id": n, "text": f"t{n}", "year": 2000 + n, "tag": "x"} for n in range(ROWS)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "docs.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "both.npz", f=X[:, :2], i=np.round(X * 20).astype(np.int8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def ok(capsys, *arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    return out, err


BASIC = ("import", "n.vecdb", "docs", "--records", "docs.jsonl.gz", "--vectors", "s=x.npy")


def test_everything_is_made_and_said(capsys, source):
    out, err = ok(capsys, *BASIC, "--text", "text", "--model", "s=model one", "--metric", "dot", "--fields", "year")
    assert err.splitlines() == [
        "making database n.vecdb",
        "making collection docs",
        "making space s: 3 wide, dot, float32, model model one",
    ]
    assert out.splitlines() == ["20 rows: 20 records inserted, 0 updated", "the collection has 20 records"]
    with vecdb.open("n.vecdb", mode="r") as db:
        docs = db.collection("docs")
        assert docs.spaces["s"].model == "model one"
        records = list(docs.scan(vectors="all"))
        assert [record.id for record in records] == list(range(ROWS))
        assert records[3].metadata == {"year": 2003} and records[3].text == "t3"
        assert np.array_equal([record.vectors["s"] for record in records], X.astype(np.float32))
    assert ok(capsys, *BASIC)[1] == ""


def test_json_is_one_document_and_notes_go_elsewhere(capsys, source):
    out, err = ok(capsys, *BASIC, "--json")
    assert out.count("\n") == 1
    facts = json.loads(out)
    assert facts == {
        "rows": 20, "inserted": 20, "updated": 0, "resumed": 0, "seq": facts["seq"], "records": 20, "spaces": {"s": 3},
    }  # fmt: skip
    assert err.count("making") == 3


def test_a_positional_source_and_several_spaces(capsys, source):
    ok(
        capsys, "import", "n.vecdb", "docs", "docs.jsonl.gz",
        "--vectors", "a=both.npz::f", "--vectors", "b=both.npz::i",
        "--dtype", "a=float16", "--metric", "b=l2", "--model", "same", "--revision", "b=2", "--role", "document",
        "--normalise", "--batch", "6",
    )  # fmt: skip
    with vecdb.open("n.vecdb", mode="r") as db:
        spaces = db.collection("docs").spaces
        assert (spaces["a"].dtype, spaces["a"].metric, spaces["a"].model, spaces["a"].revision) == (
            "float16", "cosine", "same", "",
        )  # fmt: skip
        assert (spaces["b"].dtype, spaces["b"].metric, spaces["b"].revision) == ("float32", "l2", "2")
        assert {space.role for space in spaces.values()} == {"document"}
        vectors = np.array([record.vectors["b"] for record in db.collection("docs").scan(vectors=["b"])])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_a_further_space_for_existing_records(capsys, source):
    ok(capsys, *BASIC, "--text", "text")
    out, err = ok(
        capsys, "import", "n.vecdb", "docs", "--vectors", "t=both.npz::f", "--ids-from", "docs.jsonl.gz", "--existing"
    )
    assert err == "making space t: 2 wide, cosine, float32, model not named\n"
    assert "0 records inserted, 20 updated" in out
    with vecdb.open("n.vecdb", mode="r") as db:
        (record,) = db.collection("docs").get([7], vectors="all")
        assert record.spaces == ("s", "t") and record.text == "t7" and record.metadata["year"] == 2007


def test_vectors_inside_the_records_and_numbered_ones(capsys, source):
    (source / "inline.jsonl").write_text('{"name": "a", "v": [1, 2]}\n{"name": "b", "v": null}\n')
    ok(capsys, "import", "n.vecdb", "in", "inline.jsonl", "--id", "name", "--vectors", "s=@v")
    ok(capsys, "import", "n.vecdb", "number", "inline.jsonl", "--number", "--vectors", "s=@v", "--fields", "")
    ok(capsys, "import", "n.vecdb", "alone", "--vectors", "s=x.npy")
    with vecdb.open("n.vecdb", mode="r") as db:
        assert [(r.id, r.metadata, r.spaces) for r in db.collection("in").scan()] == [("a", {}, ("s",)), ("b", {}, ())]
        assert [(r.id, r.metadata) for r in db.collection("number").scan()] == [(0, {}), (1, {})]
        assert len(db.collection("alone")) == ROWS


def test_round_trip_through_every_format(capsys, source):
    ok(capsys, *BASIC, "--text", "text")
    ok(capsys, "export", "n.vecdb", "docs", "out")
    ok(capsys, "import", "copy.vecdb", "docs", "out")
    again = ("--text", "text", "--vectors", "s=@s", "--model", "m")
    for name in ("out.parquet", "out.arrow", "out.jsonl", "out.jsonl.gz"):
        ok(capsys, "export", "n.vecdb", "docs", name)
        ok(capsys, "import", "copy.vecdb", name, name, *again)
    with vecdb.open("n.vecdb", mode="r") as old, vecdb.open("copy.vecdb", mode="r") as new:
        expected = [
            (r.id, r.text, r.metadata, r.vectors["s"].tobytes()) for r in old.collection("docs").scan(vectors="all")
        ]
        assert len(new.collections()) == 5
        for name in new.collections():
            found = new.collection(name).scan(vectors="all")
            assert [(r.id, r.text, r.metadata, r.vectors["s"].tobytes()) for r in found] == expected


def test_export_says_what_it_wrote(capsys, source):
    ok(capsys, *BASIC, "--text", "text")
    out, err = ok(capsys, "export", "n.vecdb", "docs", "out", "--where", '{"year": {"$lt": 2005}}')
    assert (out, err) == ("out (directory): 5 records, 5 vectors of s\n", "")
    facts = json.loads(ok(capsys, "export", "n.vecdb", "docs", "o.npz", "--space", "s", "--json")[0])
    assert facts == {"path": "o.npz", "format": "npz", "records": 20, "vectors": {"s": 20}, "seq": facts["seq"]}
    assert "vectors" not in ok(capsys, "export", "n.vecdb", "docs", "o.jsonl", "--no-vectors")[0]
    ok(capsys, "export", "n.vecdb", "docs", "o.jsonl", "--overwrite")
    assert '"s":[' in (source / "o.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["docs.jsonl.gz", "--records", "docs.jsonl.gz"], 2, "one of SOURCE"),
        (["--ids-from", "docs.jsonl.gz", "--vectors", "s=x.npy"], 2, "--existing"),
        (["docs.jsonl.gz", "--vectors", "x.npy"], 2, "SPACE=VALUE"),
        (["docs.jsonl.gz", "--vectors", "s=x.npy", "--vectors", "s=x.npy"], 2, "twice"),
        (["docs.jsonl.gz", "--vectors", "s=x.npy", "--model", "t=m"], 2, "'t'"),
        (["docs.jsonl.gz", "--vectors", "s=x.npy", "--model", "s=m", "--model", "t=m"], 2, "'t'"),
        (["docs.jsonl.gz", "--vectors", "s=x.npy", "--metric", "taxi"], 2, "taxi"),
        (["docs.jsonl.gz", "--vectors", "s=x.npy", "--dtype", "uint8"], 2, "uint8"),
        (["docs.jsonl.gz", "--vectors", "s=x.npy", "--batch", "0"], 2, "--batch"),
        (["docs.jsonl.gz", "--vectors", "s=missing.npy"], 3, "missing.npy"),
        (["missing.jsonl", "--vectors", "s=x.npy"], 3, "missing.jsonl"),
        (["docs.jsonl.gz", "--vectors", "s=both.npz"], 4, "f, i"),
        (["docs.jsonl.gz", "--id", "key", "--vectors", "s=x.npy"], 4, "line 1"),
        (["docs.jsonl.gz", "--vectors", "s=@nothing"], 3, "nothing"),
        (["docs.csv"], 4, "docs.csv"),
        (["."], 4, "manifest.json"),
        ([], 2, "nothing to import"),
        (["docs.jsonl.gz", "--vectors", "s=x.npy", "--role", "s=reader"], 2, "reader"),
        (["x.npy"], 2, "--vectors SPACE=FILE"),
    ],
)
def test_what_is_refused(capsys, source, arguments, code, problem):
    found, out, err = run(capsys, "import", "n.vecdb", "docs", *arguments)
    assert (found, out) == (code, "")
    last = err.splitlines()[-1]
    assert last.startswith("vecdb: error: ") and problem in last and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["missing.jsonl"],
        ["docs.csv"],
        ["."],
        ["docs.jsonl.gz", "--vectors", "s=missing.npy"],
        ["docs.jsonl.gz", "--vectors", "s=both.npz"],
        ["docs.jsonl.gz", "--vectors", "s=x.npy", "--metric", "taxi"],
    ],
)
def test_a_call_that_cannot_work_makes_no_database(capsys, source, arguments):
    before = sorted(os.listdir())
    assert run(capsys, "import", "n.vecdb", "docs", *arguments)[0] in (2, 3, 4)
    assert sorted(os.listdir()) == before


def test_a_vector_file_goes_into_the_only_space(capsys, source):
    with vecdb.open("n.vecdb") as db:
        db.create_collection("docs").add_space("s", dim=3)
    ok(capsys, "import", "n.vecdb", "docs", "x.npy")
    assert json.loads(ok(capsys, "collections", "n.vecdb", "--json")[0])["collections"][0]["records"] == ROWS


def test_nothing_is_made_without_leave(capsys, source):
    assert run(capsys, *BASIC, "--no-create")[0] == 3
    assert not (source / "n.vecdb").exists()
    vecdb.open("n.vecdb").close()
    assert run(capsys, *BASIC, "--no-create")[0] == 3
    with vecdb.open("n.vecdb") as db:
        db.create_collection("docs")
    code, _, err = run(capsys, *BASIC, "--no-create")
    assert code == 3 and "no space 's'" in err
    with vecdb.open("n.vecdb") as db:
        db.collection("docs").add_space("s", dim=3)
    ok(capsys, *BASIC, "--no-create")


def test_a_bulk_import_makes_a_new_file(capsys, source):
    ok(capsys, *BASIC, "--durability", "bulk")
    assert json.loads(ok(capsys, "collections", "n.vecdb", "--json")[0])["collections"][0]["records"] == ROWS
    assert run(capsys, *BASIC, "--durability", "bulk")[0] == 4


@pytest.mark.crash
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_import_that_was_stopped_continues(capsys, source, how):
    rows = 3000
    lines = "".join(json.dumps({"id": n, "pad": "x" * 50}) + "\n" for n in range(rows))
    (source / "docs.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    np.save(source / "x.npy", np.random.default_rng(1).standard_normal((rows, 3)))
    command = (*BASIC, "--batch", "20", "--trust")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, "-m", "vecdb", *command], env=environment, stdout=-1, stderr=-1, text=True
    ) as child:
        wait_for_progress(source, child)
        child.send_signal(how)
        _, err = child.communicate(timeout=180)
    assert child.returncode == (-how if how == signal.SIGKILL else 130)
    if how == signal.SIGINT:
        assert "run the same command again" in err and "Traceback" not in err
    facts = json.loads(ok(capsys, *command, "--json")[0])
    assert facts["rows"] == facts["records"] == rows
    assert 0 < facts["resumed"] < rows
    with vecdb.open("n.vecdb", mode="r") as db:
        records = list(db.collection("docs").scan())
        assert [record.id for record in records] == list(range(rows))
        assert {record.version for record in records} == {1}


def wait_for_progress(folder, child):
    """Return when a few batches are committed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        for path in folder.glob("n.vecdb.import-*.json"):
            if json.loads(path.read_text())["done"]["rows"] >= 60:
                return
        time.sleep(0.002)
    pytest.fail(f"the import ended before it was stopped: {child.returncode}")
