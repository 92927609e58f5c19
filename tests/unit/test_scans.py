"""Scans that outlive what they read: chunks, history that is held for them, and who else may forget it."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

import pytest

import vecdb
from vecdb import errors
from vecdb.engine.view import Past
from vecdb.storage.writetx import read_log


@pytest.fixture
def docs(tmp_path):
    with vecdb.open(tmp_path / "news.vecdb", durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.upsert(["a", "b", 1, "1"], metadata=[{"n": 1}, {"n": 2}, {"n": None}, {}])
        yield docs


def _change_a_lot(docs):
    docs.delete(range(100, 200), missing_ok=True)
    docs.upsert(range(1500, 2000), metadata=[{"late": True}] * 500)
    docs.upsert(["x"])
    docs.delete(["x"])
    docs.upsert([150], metadata=[{"born": "again"}])


@pytest.mark.parametrize("retention", [0, 600])
@pytest.mark.parametrize("options", [{}, {"order_by": "n"}, {"where": {"n": {"$gte": 0}}}], ids=str)
def test_a_process_keeps_what_its_own_scans_need(tmp_path, retention, options):
    """Also without retention: history is kept for as long as an iterator needs it, and no longer."""
    with vecdb.open(tmp_path / "short.vecdb", retention=retention) as db:
        docs = db.create_collection("docs")
        docs.upsert(range(2000), metadata=[{"n": n} for n in range(2000)])
        scan = docs.scan(**options)
        unstarted = docs.scan(**options)
        seen = [next(scan)]
        for _ in range(3):
            _change_a_lot(docs)
            seen += [next(scan) for _ in range(300)]
        seen += scan
        assert [(record.id, record.metadata) for record in seen] == [(n, {"n": n}) for n in range(2000)]
        assert [record.metadata["n"] for record in unstarted] == list(range(2000))
        abandoned = docs.scan(**options)
        next(abandoned)
        del abandoned
        docs.upsert(["y"])
        if not retention:
            assert db._opened().reader.window(0.0) == 0.0
            with pytest.raises(errors.SnapshotExpiredError):
                docs.count(as_of=db.seq - 1)
        assert db.check().ok


def test_a_scan_of_the_past_reaches_back(tmp_path):
    """A hold covers the age of the state that is read, not only of the scan."""
    with vecdb.open(tmp_path / "past.vecdb", retention=600) as db:
        docs = db.create_collection("docs")
        docs.upsert(range(1500))
        seq = db.seq
        _change_a_lot(docs)
        with db._read() as snapshot:
            written = read_log(snapshot.tx, seq + 1)[0]
        scan = docs.scan(as_of=seq)
        assert db._opened().reader.window(0.0) >= time.time() - written
        first = next(scan)
        db._opened().writer.retention = 0.0
        docs.upsert(["later"])
        assert [first.id, *(record.id for record in scan)] == list(range(1500))


def test_a_scan_that_another_process_outruns(tmp_path):
    """A process knows nothing of the readings of others: without retention, its commits leave no history for them."""
    path = tmp_path / "short.vecdb"
    with vecdb.open(path, retention=0) as db:
        docs = db.create_collection("docs")
        docs.upsert(range(2000))
        scan, finished = docs.scan(), docs.scan(limit=512)
        next(scan), next(finished)
        script = "import sys, vecdb; vecdb.open(sys.argv[1], retention=0).collection('docs').upsert(['x'])"
        subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=120)
        assert len(list(finished)) == 511  # all that it needs is read
        with pytest.raises(errors.SnapshotExpiredError):
            list(scan)


@pytest.mark.parametrize("options", [{}, {"limit": 1024}, {"where": {"n": {"$gte": 0}}}], ids=str)
def test_a_scan_opens_one_snapshot_for_each_chunk(docs, options, monkeypatch):
    docs.upsert(range(1024 - 4), metadata=[{"n": n} for n in range(1020)])
    opened = []
    original = type(docs.database)._read
    monkeypatch.setattr(type(docs.database), "_read", lambda *args, **more: opened.append(1) or original(*args, **more))
    assert len(list(docs.scan(**options))) == (1022 if "where" in options else 1023)
    assert len(opened) == 3  # one to find the seq, and one for each 512 records


def test_a_reading_looks_at_each_commit_once(docs, monkeypatch):
    """Going back is not done anew for every chunk."""
    docs.upsert(range(3000))
    seen = []
    original = Past.undo
    monkeypatch.setattr(Past, "undo", lambda past, changes, upto: seen.extend(changes) or original(past, changes, upto))
    scan = docs.scan()
    assert [next(scan).id for _ in range(4)] == ["a", "b", 1, "1"]
    for turn in range(4):
        docs.upsert([turn, f"new {turn}"])
        docs.delete([2000 + turn])
        list(itertools.islice(scan, 512))
    assert [change.seq for change in seen] == sorted({change.seq for change in seen}) and len(seen) == 8
    assert [record.id for record in scan] == list(range(2049, 3000))
