"""One store for each file and process, and the lock of its writer (vecdb/storage/handles.py, lockfile.py)."""

import json
import os
import subprocess
import sys
import threading

import pytest

import vecdb
from vecdb import errors
from vecdb.storage import handles
from vecdb.storage.lockfile import LockFile


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.vecdb"


def test_handles_of_one_file_share_a_store_whatever_name_led_to_it(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with vecdb.open(path) as first:
        os.symlink(path, tmp_path / "other.vecdb")
        with vecdb.open("x.vecdb") as second, vecdb.open(tmp_path / "other.vecdb") as third:
            assert first._store is second._store is third._store
            assert len(handles.open_stores()) == 1
    assert handles.open_stores() == []


def test_a_file_that_was_replaced_is_another_file(path):
    with vecdb.open(path) as old:
        old.create_collection("old")
        for suffix in ("", "-lock"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with vecdb.open(path) as new:
            assert new._store is not old._store and new.collections() == [] and new.uuid != old.uuid
            assert old.collections() == ["old"]


def test_a_failed_opening_leaves_nothing_open(path):
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(errors.NotADatabaseError):
        vecdb.open(path)
    assert handles.open_stores() == []
    path.unlink()
    vecdb.open(path).close()


def test_many_threads_open_and_close(path):
    with vecdb.open(path) as db:
        db.create_collection("docs")
    failures = []

    def work(number):
        try:
            for turn in range(5):
                with vecdb.open(path, timeout=180) as db:
                    db.collection("docs").upsert([number * 100 + turn])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and handles.open_stores() == []
    with vecdb.open(path) as db:
        assert len(db.collection("docs")) == 30 and db.seq == 31 and db.check().ok


def test_many_threads_write_through_one_handle(path):
    with vecdb.open(path, timeout=180) as db:
        docs = db.create_collection("docs")
        seqs, refused = [], []

        def work(number):
            for turn in range(20):
                seqs.append(docs.upsert([(number * 100 + turn)]).seq)
                try:
                    docs.insert([number * 100])
                except errors.RecordExistsError as error:
                    refused.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seqs) == list(range(2, 122)) and len(refused) == 120
        assert len(docs) == 120 and db.seq == 121 and db.check().ok


HOLDER = """
import sys, vecdb
db = vecdb.open(sys.argv[1])
with db.transaction():
    print("held", flush=True)
    sys.stdin.readline()
db.close()
"""


def test_another_process_that_writes_is_named(path):
    with vecdb.open(path, timeout=0.2) as db:
        docs = db.create_collection("docs")
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "held\n"
            for call in (lambda: docs.upsert(["a"]), lambda: db.transaction().__enter__(), db.optimize):
                with pytest.raises(errors.LockedError) as caught:
                    call()
                assert f"process {holder.pid}" in caught.value.holder and caught.value.waited >= 0.2
            assert len(docs) == 0 and docs.count() == 0  # readers wait for nobody
            with pytest.raises(errors.LockedError) as caught:
                db.compact()
            assert str(holder.pid) in caught.value.holder
        finally:
            holder.communicate("\n", timeout=180)
        assert docs.upsert(["a"]).inserted == 1
        db.compact()


def test_a_lock_says_who_holds_it(tmp_path):
    first, second = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    with first.held(1):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        with pytest.raises(errors.LockedError, match="held by process") as caught, second.held(0.05):
            pass
        assert f"process {os.getpid()}" in caught.value.holder and caught.value.path == str(tmp_path / "lock")
    with second.held(0):
        pass
    with pytest.raises(KeyError), first.held(0):
        raise KeyError
    with second.held(0):
        pass
    for lock in (first, second, second):
        lock.abandon()
    with first.held(0):
        pass
    first.abandon()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"pid": "x", "host": 1, "since": "never"}', b"\xff" * 300])
def test_a_lock_of_somebody_who_left_no_name(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    first, second = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    with first.held(1):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(errors.LockedError, match="left no name"), second.held(0):
            pass
    first.abandon()
    second.abandon()


def test_a_lock_in_a_folder_that_is_gone(tmp_path):
    with pytest.raises(errors.FileAccessError), LockFile(tmp_path / "gone" / "lock").held(0):
        pass
