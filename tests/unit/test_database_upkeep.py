"""The database as an application keeps it in order: compaction, backup, optimize, statistics, check, durability."""

import os
import pickle

import numpy as np
import pytest

import vecdb
from vecdb import errors


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "news.vecdb"


@pytest.fixture
def db(path):
    with vecdb.open(path) as db:
        yield db


def make(path, count=3, **options):
    with vecdb.open(path, **options) as db:
        docs = db.create_collection("docs")
        docs.upsert(range(count))


def test_compaction_gives_space_back_and_keeps_what_it_is_told(path):
    rng = np.random.default_rng(0)
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("wide", dim=512, metric="dot")
        docs.upsert(range(10_000), vectors={"wide": rng.standard_normal((10_000, 512), dtype=np.float32)}, trust=True)
        db.tag("full")
        docs.delete(range(1000, 10_000))
        assert docs.count(as_of="full") == 10_000
        sizes = db.compact()
        assert docs.count(as_of="full") == 10_000 and sizes["bytes_after"] > 10_000 * 2048
        db.untag("full")
        kept = db.compact(keep="window")
        assert docs.count(as_of=3) == 10_000 and kept["bytes_after"] > 10_000 * 2048
        sizes = db.compact()
        assert sizes["bytes_after"] == path.stat().st_size <= 0.15 * kept["bytes_after"]
        with pytest.raises(errors.SnapshotExpiredError):
            docs.count(as_of=3)
        assert len(docs) == 1000 and db.check().ok
        db.tag("again")
        db.compact(keep="nothing")
        assert db.tags() == {}


@pytest.mark.parametrize("options", [{"keep": "all"}, {"timeout": -1}, {"timeout": "1"}])
def test_options_of_compact(db, options):
    with pytest.raises(errors.ParameterError):
        db.compact(**options)


def test_backup(db, tmp_path):
    docs = db.create_collection("docs")
    docs.upsert(["a"])
    seen = []
    size = db.backup(tmp_path / "copy.vecdb", progress=lambda done, total: seen.append((done, total)))
    assert size == (tmp_path / "copy.vecdb").stat().st_size and seen == [(size, size)]
    docs.upsert(["b"])
    with vecdb.open(tmp_path / "copy.vecdb") as copy:
        assert [record.id for record in copy.collection("docs").scan()] == ["a"]
    with pytest.raises(errors.ExistsError):
        db.backup(tmp_path / "copy.vecdb")
    with pytest.raises(errors.FileAccessError):
        db.backup(tmp_path / "nowhere" / "copy.vecdb")
    with pytest.raises(errors.ParameterError):
        db.backup(5)
    assert sorted(file.name for file in tmp_path.glob("copy*")) in (
        ["copy.vecdb"],
        ["copy.vecdb", "copy.vecdb-lock"],
        ["copy.vecdb", "copy.vecdb-lock", "copy.vecdb-writer"],
    )


def test_optimize_reports_progress_and_can_be_cancelled(db):
    docs = db.create_collection("docs")
    docs.add_space("tiny", dim=2)
    docs.upsert(["a"], vectors={"tiny": [[1, 2]]})
    with pytest.raises(errors.CancelledError):
        db.optimize(cancel=lambda: True)
    assert docs.stats()["spaces"]["tiny"]["tail"] == 1
    seen = []
    assert db.optimize(progress=lambda done, total: seen.append((done, total))) == 2  # the tail and the columns
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert docs.stats()["spaces"]["tiny"]["tail"] == 0 and db.optimize() == 0
    assert db.seq == 3


def test_statistics(db):
    docs = db.create_collection("docs")
    docs.add_space("tiny", dim=2, model="m")
    docs.upsert(["a", "b", "c"], vectors={"tiny": [[1, 2], None, [2, 1]]})
    docs.delete(["a"])
    stats = db.stats()
    assert stats["seq"] == 4 and stats["tags"] == 0 and stats["oldest_seq"] == 0
    assert stats["file_bytes"] == db.path.stat().st_size
    assert 0 < stats["live_bytes"] <= stats["file_bytes"]
    assert stats["collections"]["docs"] == docs.stats()
    assert docs.stats()["records"] == 2
    space = docs.stats()["spaces"]["tiny"]
    assert (space["vectors"], space["dead"], space["tail"], space["sealed"]) == (1, 1, 2 - 0, 0)
    assert (space["model"], space["dim"], space["metric"], space["dtype"]) == ("m", 2, "cosine", "float32")


def test_check_reports_progress_and_counts(db):
    docs = db.create_collection("docs")
    docs.upsert(["a", "b"])
    seen = []
    report = db.check(progress=lambda done, total: seen.append((done, total)))
    assert report.ok and report.problems == () and report.counts["records"] == 2
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert pickle.loads(pickle.dumps(report)) == report


def test_upkeep_that_fails_after_a_write_does_not_look_like_the_writes_failure(db, monkeypatch, caplog):
    docs = db.create_collection("docs")
    docs.add_space("tiny", dim=2)
    for error in (errors.LockedError("busy"), errors.DiskFullError("full")):

        def refuse(*_, error=error, **__):
            raise error

        monkeypatch.setattr(db._store.writer, "maintain", refuse)
        docs.upsert(range(600), vectors={"tiny": np.ones((600, 2))})
        docs.delete(range(600))
    assert len(docs) == 0
    assert "full" in caplog.text


def test_durability_bulk_appears_whole_when_it_is_closed(path):
    db = vecdb.open(path, durability="bulk")
    db.create_collection("docs").upsert(["a"])
    assert not path.exists()
    with pytest.raises(errors.VecdbError):
        vecdb.open(path, durability="bulk")
    db.close()
    assert sorted(os.listdir(path.parent)) == ["news.vecdb"]
    with vecdb.open(path) as db:
        assert len(db.collection("docs")) == 1
    with pytest.raises(errors.ExistsError):
        vecdb.open(path, durability="bulk")


def test_relaxed_durability_reads_the_same(path):
    make(path, durability="relaxed")
    with vecdb.open(path) as db:
        assert len(db.collection("docs")) == 3


def test_opening_without_automatic_upkeep(path):
    with vecdb.open(path, automatic=False, retention=0) as db:
        docs = db.create_collection("docs")
        docs.add_space("tiny", dim=2)
        docs.upsert(range(2000), vectors={"tiny": np.ones((2000, 2))}, trust=True)
        docs.delete(range(1000))
        docs.optimize()
        docs.delete(range(1000, 2000))
        assert docs.stats()["spaces"]["tiny"]["dead"] == 1000
        db.optimize()
        assert docs.stats()["spaces"]["tiny"]["dead"] == 0
