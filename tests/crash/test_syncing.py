"""Exports, backups, compactions and bulk loads are durable before they have their name; a missing sync is caught."""

from __future__ import annotations

import os

import numpy as np
import pytest

import vecdb
from vecdb.interchange import export_data, exporting, npyfile, recordwriters
from vecdb.storage import copying
from vecdb.testing.syncing import unsynced

ROWS = np.random.default_rng(1).standard_normal((40, 8)).astype(np.float32)
FORMATS = [("out", None), ("out.jsonl", None), ("out.jsonl.gz", None), ("out.npz", None), ("out.parquet", None)]


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "x.vecdb") as opened:
        docs = opened.create_collection("docs")
        docs.add_space("s", dim=8, metric="dot")
        docs.upsert(list(range(40)), {"s": ROWS}, [{"n": n} for n in range(40)], trust=True)
        yield opened


def exported(db, target, **how):
    return unsynced(target, lambda: export_data(db.collection("docs"), target, **how))


@pytest.mark.parametrize(("name", "format"), FORMATS)
def test_an_export_is_durable_before_it_has_its_name(db, tmp_path, name, format):
    target = tmp_path / name
    assert exported(db, target, format=format) == []
    assert exported(db, target, format=format, overwrite=True) == []


def test_backup_compaction_and_bulk_load_are_durable_too(db, tmp_path):
    assert unsynced(tmp_path / "copy.vecdb", lambda: db.backup(tmp_path / "copy.vecdb")) == []
    assert unsynced(db.path, db.compact) == []

    def load():
        with vecdb.open(tmp_path / "bulk.vecdb", "x", durability="bulk") as loaded:
            loaded.create_collection("docs").add_space("s", dim=8)

    assert unsynced(tmp_path / "bulk.vecdb", load) == []


def test_a_backup_replaces_nothing_that_was_made_meanwhile(db, tmp_path, monkeypatch):
    target = tmp_path / "copy.vecdb"
    real = copying._copy

    def slowly(*arguments):
        real(*arguments)
        target.write_text("somebody else's")

    monkeypatch.setattr(copying, "_copy", slowly)
    for linked in (True, False):
        target.unlink(missing_ok=True)
        if not linked:
            monkeypatch.setattr(os, "link", lambda source, target: (_ for _ in ()).throw(PermissionError("no links")))
        with pytest.raises(vecdb.ExistsError, match="meanwhile"):
            db.backup(target)
        assert target.read_text() == "somebody else's"
        assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.vecdb"]


def test_a_backup_where_there_are_no_hard_links(db, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda source, target: (_ for _ in ()).throw(PermissionError("no links")))
    assert unsynced(tmp_path / "copy.vecdb", lambda: db.backup(tmp_path / "copy.vecdb")) == []
    with vecdb.open(tmp_path / "copy.vecdb", mode="r") as copied:
        assert len(copied.collection("docs")) == 40


def test_a_backup_into_a_folder_that_is_missing(db, tmp_path):
    with pytest.raises(vecdb.FileAccessError, match="not a directory") as caught:
        db.backup(tmp_path / "missing" / "copy.vecdb")
    assert caught.value.hint


# --- the same with bugs planted ---------------------------------------------------------------------------


def skip(*arguments):
    """Stand in for a sync that somebody forgot."""
    for argument in arguments:
        if hasattr(argument, "flush"):
            argument.flush()


def test_an_export_whose_files_are_not_synced(db, tmp_path, monkeypatch):
    for module in (npyfile, recordwriters):
        monkeypatch.setattr(module, "flush_to_disk", skip)
    found = exported(db, tmp_path / "out")
    assert found and all("before it was published" in problem for problem in found)


def test_an_export_whose_directory_is_not_synced(db, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "sync_directory", skip)
    inside, name = exported(db, tmp_path / "out")
    assert "before it was published" in inside and "the name" in name


def test_a_file_that_is_changed_after_it_was_synced(db, tmp_path, monkeypatch):
    real = exporting._publish

    def late(temporary, path):
        with open(os.path.join(temporary, "manifest.json"), "a", encoding="utf-8") as stream:
            stream.write(" ")
        real(temporary, path)

    monkeypatch.setattr(exporting, "_publish", late)
    [problem] = exported(db, tmp_path / "out")
    assert "manifest.json" in problem


def test_a_backup_that_is_not_synced(db, tmp_path, monkeypatch):
    monkeypatch.setattr(copying.platform, "sync_file", skip)
    [problem] = unsynced(tmp_path / "copy.vecdb", lambda: db.backup(tmp_path / "copy.vecdb"))
    assert "before it was published" in problem


def test_work_that_publishes_nothing_proves_nothing(tmp_path):
    [problem] = unsynced(tmp_path / "nothing", lambda: None)
    assert "was not published" in problem
