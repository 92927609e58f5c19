"""Files of every released format open and give the answers they always gave, bit for bit."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

import vecdb
from vecdb.storage.format import FORMAT_VERSION, pack_sealed, unpack_sealed
from vecdb.storage.state import HEADER

HERE = Path(__file__).resolve().parent
GOLDEN = sorted(HERE.joinpath("golden").glob("format-*.vecdb.gz"))


def load_tool():
    spec = importlib.util.spec_from_file_location("make_golden", HERE.parent.parent / "tools" / "make_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_golden = load_tool()


@pytest.fixture(params=GOLDEN, ids=lambda packed: packed.name.partition(".")[0])
def golden(request, tmp_path):
    """A copy of a golden file, and the answers it must give."""
    path = tmp_path / "golden.vecdb"
    with gzip.open(request.param) as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    packed = request.param.with_name(request.param.name.replace(".vecdb.gz", ".json.gz"))
    return path, json.loads(gzip.decompress(packed.read_bytes()))


def ask(db):
    return json.loads(json.dumps(make_golden.answers(db)))


def same(found, expected):
    """Compare part by part: the whole is too long to be read."""
    assert found.keys() == expected.keys()
    for part in expected:
        assert found[part] == expected[part], part


def test_there_is_a_golden_file_of_this_format():
    assert f"format-{FORMAT_VERSION}.vecdb.gz" in [packed.name for packed in GOLDEN]


@pytest.mark.parametrize("mode", ["r", "a"])
def test_it_answers_as_it_always_did(golden, mode):
    path, expected = golden
    before = path.read_bytes()
    with vecdb.open(path, mode=mode) as db:
        same(ask(db), expected)
        assert db.check().ok
    assert path.read_bytes() == before


def test_it_answers_the_same_after_a_backup_and_after_compaction(golden):
    path, expected = golden
    with vecdb.open(path, retention=10.0**9) as db:
        db.backup(path.with_name("copy.vecdb"))
        db.compact()
        found = ask(db)
        for part in ("records", "counts", "searches", "spaces", "tags", "other"):
            assert found[part] == expected[part], part
    with vecdb.open(path.with_name("copy.vecdb")) as copy:
        same(ask(copy), expected)


def test_it_can_be_written_on(golden):
    path, expected = golden
    with vecdb.open(path, retention=10.0**9) as db:
        docs = db.collection("docs")
        docs.upsert(["today"], {"cos": make_golden.drawn(1, 1, 48)}, trust=True)
        docs.delete([1])
        assert db.seq == expected["seq"] + 2 and db.check().ok
        records = json.loads(json.dumps(make_golden._records(docs, "first")))
        assert records == expected["records"]["first"]


def test_the_tool_makes_a_file_with_the_same_content(tmp_path):
    """What the current code writes of the same data gives the same answers, but for its identity."""
    target = make_golden.make(tmp_path, force=False)
    path = tmp_path / "new.vecdb"
    path.write_bytes(gzip.decompress(target.read_bytes()))
    with gzip.open(HERE / "golden" / f"format-{FORMAT_VERSION}.json.gz") as packed:
        expected = json.load(packed)
    with vecdb.open(path, mode="r") as db:
        found = ask(db)
    for part in ("records", "counts", "searches", "spaces", "tags", "other"):
        assert found[part] == expected[part], part
    with pytest.raises(SystemExit, match="exists"):
        make_golden.make(tmp_path, force=False)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, 99, "1", None])
def test_another_format_is_refused(golden, version, monkeypatch):
    """A newer file is not touched, and the error says what to do."""
    path, _ = golden
    with vecdb.open(path) as db:

        def write(write_tx):
            header = unpack_sealed(HEADER, write_tx.tx.get("meta", HEADER), "header")
            write_tx.tx.put("meta", HEADER, pack_sealed(HEADER, {**header, "format": version}))

        db._write(write)
    before = path.read_bytes()
    for mode in ("r", "a"):
        with pytest.raises(vecdb.FormatVersionError, match=re.escape(f"format {version}")) as caught:
            vecdb.open(path, mode=mode)
        assert caught.value.found == version
    assert path.read_bytes() == before
