"""Opening under circumstances: second names, directories one cannot write to, older files, slow closings."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest

import vecdb
from vecdb import errors, registry
from vecdb.storage import env as env_module
from vecdb.storage import handles, lockfile
from vecdb.storage.lockfile import hold_data_file, make_table, table_path
from vecdb.testing.processes import Child, call_in_child

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
ROWS = np.eye(4, dtype=np.float32)


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


def make(path, **options):
    with vecdb.open(path, **options) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=4)
        docs.upsert(["a", "b"], {"s": ROWS[:2]}, [{"n": 1}, {"n": 2}])
    return path


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "x.vecdb")


def answers(db):
    docs = db.collection("docs")
    return docs.search(ROWS[1], 2).ids, docs.count({"n": 1}), [record.id for record in docs.scan(vectors="all")]


# --- hard links -------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(lockfile, "_PUBLISHING", 0.05)


@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_file_with_a_second_name_is_refused_under_either(path, hasty, mode):
    """Each name would have lock files of its own."""
    other = path.with_name("other.vecdb")
    os.link(path, other)
    for name in (path, other):
        with pytest.raises(errors.FileAccessError, match="second name") as caught:
            vecdb.open(name, mode=mode)
        assert "backup" in caught.value.hint
    other.unlink()
    with vecdb.open(path, mode=mode) as db:
        assert answers(db) == (["b", "a"], 1, ["a", "b"])


def test_a_second_name_that_is_given_up_is_waited_for(path, monkeypatch):
    """So does a finished copy get its name: the temporary one goes a moment later."""
    monkeypatch.setattr(lockfile, "_PUBLISHING", 60.0)
    other = path.with_name("other.vecdb")
    os.link(path, other)
    timer = threading.Timer(0.05, other.unlink)
    timer.start()
    with vecdb.open(path) as db:
        assert not other.exists() and len(db.collection("docs")) == 2
    timer.join()


def test_a_second_name_in_one_process_is_the_same_store(path):
    with vecdb.open(path) as db:
        other = path.with_name("other.vecdb")
        os.link(path, other)
        with vecdb.open(other) as second:
            assert second._store is db._store
        other.unlink()


# --- the table of readers ---------------------------------------------------------------------------------


def without_table(path):
    for suffix in ("-lock", "-writer"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return path


def test_a_foreign_file_gets_no_lock_files(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"plain text " * 2000)
    with pytest.raises(errors.NotADatabaseError):
        vecdb.open(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_copied_file_gets_its_table_when_it_is_opened(path, tmp_path):
    copy = tmp_path / "copy.vecdb"
    shutil.copy(path, copy)
    with vecdb.open(copy, mode="r") as db:
        assert table_path(copy).exists() and len(db.collection("docs")) == 2


@posix
def test_a_table_is_made_by_whoever_has_the_file_alone(path):
    """Someone may be reading without one, and would not be seen by a writer who made it then."""
    without_table(path)
    held = hold_data_file(path, readonly=True, timeout=1.0)
    try:
        with pytest.raises(errors.LockedError) as caught:
            vecdb.open(path, timeout=0.05)
        assert caught.value.waited >= 0.05 and not table_path(path).exists()
    finally:
        os.close(held)
    with vecdb.open(path, timeout=1.0) as db:
        assert answers(db)[1] == 1


@posix
def test_many_make_the_table_at_once(path):
    without_table(path)

    def work(link):
        link.receive()
        with vecdb.open(path) as db:
            db.collection("docs").upsert([os.getpid()], {"s": ROWS[:1]})
        return os.getpid()

    children = [Child(work) for _ in range(5)]
    try:
        for child in children:
            child.send("go")
        pids = {child.result() for child in children}
    finally:
        for child in children:
            child.close()
    with vecdb.open(path) as db:
        assert {record.id for record in db.collection("docs").scan()} == {"a", "b", *pids} and db.check().ok


def test_a_swapped_file_is_noticed_while_the_table_is_made(path, tmp_path, monkeypatch):
    other = make(tmp_path / "other.vecdb")
    without_table(path)
    held = hold_data_file(path, readonly=False, timeout=1.0)
    real = os.open

    def swapping(name, *arguments):
        if Path(name) == table_path(path):
            os.replace(other, path)
        return real(name, *arguments)

    monkeypatch.setattr(lockfile.os, "open", swapping)
    assert make_table(path, held, readonly=False, timeout=1.0) is False
    os.close(held)
    monkeypatch.undo()
    with vecdb.open(path) as db:
        assert len(db.collection("docs")) == 2


@posix
class TestWithoutWriteAccess:
    """As a user who may read and not write; root may do everything, so a child becomes somebody else."""

    @pytest.fixture
    def place(self):
        folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
        try:
            folder.chmod(0o755)
            path = without_table(make(folder / "x.vecdb"))
            path.chmod(0o644)
            yield path
        finally:
            folder.chmod(0o755)
            shutil.rmtree(folder)

    def as_somebody(self, work, path):
        def lesser():
            path.parent.chmod(0o555)
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            return work()

        return call_in_child(lesser)

    def test_reading_needs_no_lock_files(self, place):
        def work():
            with vecdb.open(place, mode="r") as db:
                assert db.stats()["readers"] == 0 and db.check().ok
                return answers(db)

        for _ in range(2):
            assert self.as_somebody(work, place) == [["b", "a"], 1, ["a", "b"]]
        assert list(place.parent.iterdir()) == [place]

    def test_several_read_at_once_and_nobody_begins_to_write(self, place):
        def outer():
            with vecdb.open(place, mode="r") as db, Child(reading) as other:
                assert other.receive() == [["b", "a"], 1, ["a", "b"]]
                found = answers(db)
                other.send("end")
                other.result()
                return found

        def reading(link):
            with vecdb.open(place, mode="r") as db:
                link.send(answers(db))
                link.receive()

        assert self.as_somebody(outer, place) == [["b", "a"], 1, ["a", "b"]]

        def holding(link):
            place.parent.chmod(0o555)
            if os.geteuid() == 0:
                os.setuid(65534)
            with vecdb.open(place, mode="r") as db:
                link.send(answers(db)[0])
                link.receive()

        with Child(holding) as reader:
            reader.receive()
            place.parent.chmod(0o755)
            with pytest.raises(errors.LockedError, match=f"process {reader.pid}"):
                vecdb.open(place, timeout=0.05)
            reader.send("end")
            reader.result()
        with vecdb.open(place) as db:
            db.collection("docs").upsert(["c"])

    def test_writing_is_refused(self, place):
        def work():
            try:
                vecdb.open(place)
            except errors.FileAccessError as error:
                return [str(error), error.hint]

        said, hint = self.as_somebody(work, place)
        assert "x.vecdb" in said and "directory" in hint

    def test_a_new_file_is_refused(self, place):
        def work():
            with pytest.raises(errors.FileAccessError):
                vecdb.open(place.with_name("new.vecdb"))
            return sorted(entry.name for entry in place.parent.iterdir())

        assert self.as_somebody(work, place) == ["x.vecdb"]


# --- files of older versions ------------------------------------------------------------------------------


def older(path, drop=b"blobs"):
    """Take a table away, as if it had not been thought of yet."""
    env = lmdb.open(str(path), subdir=False, max_dbs=20, lib_version=0)
    with env.begin(write=True) as tx:
        tx.drop(env.open_db(drop, tx))
    env.close()
    return path


def test_a_file_from_before_indexes_is_completed_by_a_writer(path):
    older(path)
    with pytest.raises(errors.FormatVersionError, match="older vecdb and has no table blobs") as caught:
        vecdb.open(path, mode="r")
    assert "mode='a'" in caught.value.hint and "blobs" in caught.value.supported
    with vecdb.open(path) as db:
        assert answers(db) == (["b", "a"], 1, ["a", "b"]) and db.check().ok
        db.collection("docs").create_index("s", "flat")
    with vecdb.open(path, mode="r") as db:
        assert db.collection("docs").indexes and db.check().ok


@pytest.mark.parametrize("drop", [b"records", b"meta"])
def test_a_file_that_lacks_more_is_not_a_database(path, drop):
    older(path, drop)
    with pytest.raises(errors.NotADatabaseError, match="not a vecdb database"):
        vecdb.open(path)


def test_an_lmdb_file_of_somebody_else_is_not_completed(tmp_path):
    path = tmp_path / "theirs.mdb"
    env = lmdb.open(str(path), subdir=False, max_dbs=20, lib_version=0)
    with env.begin(write=True) as tx:
        for name in (*env_module.TABLES[:-1], "more"):
            env.open_db(name.encode(), tx)
    env.close()
    before = path.read_bytes()
    with pytest.raises(errors.NotADatabaseError):
        vecdb.open(path)
    assert path.read_bytes() == before


# --- closing ----------------------------------------------------------------------------------------------


class Reading:
    """A thread that reads `db` until the block ends."""

    def __init__(self, db):
        self._db = db
        self._leave = threading.Event()
        self._inside = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self):
        with self._db._read():
            self._inside.set()
            self._leave.wait(60)

    def __enter__(self):
        self._thread.start()
        assert self._inside.wait(60)
        return self

    def __exit__(self, *_):
        self._leave.set()
        self._thread.join()


def closing(db):
    thread = threading.Thread(target=db.close)
    thread.start()
    while not any(store.closed for store in handles.open_stores()):
        threading.Event().wait(0.001)
    return thread


def test_while_one_file_waits_for_its_readers_others_open_and_close(path, tmp_path):
    db = vecdb.open(path)
    with Reading(db):
        thread = closing(db)
        make(tmp_path / "other.vecdb")
        assert thread.is_alive()
    thread.join()
    assert handles.open_stores() == []


def test_a_file_that_is_being_closed_is_opened_anew_afterwards(path):
    db = vecdb.open(path)
    found = []
    with Reading(db):
        thread = closing(db)

        def again():
            with vecdb.open(path) as second:
                found.append(answers(second))

        waiting = threading.Thread(target=again)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive() and not found
    thread.join()
    waiting.join()
    assert found == [(["b", "a"], 1, ["a", "b"])] and handles.open_stores() == []


def test_a_thread_that_reads_a_file_under_closing_cannot_open_it_again(path):
    db = vecdb.open(path)
    with db._read():
        thread = closing(db)
        with pytest.raises(errors.StateError, match="is being closed"):
            vecdb.open(path)
    thread.join()


def test_a_closing_that_fails_leaves_the_file_free(path, monkeypatch):
    db = vecdb.open(path)
    monkeypatch.setattr(db._store.writer, "close", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        db.close()
    assert handles.open_stores() == []
    with vecdb.open(path) as again:
        assert answers(again)[1] == 1


@posix
def test_a_child_forked_while_another_thread_closes_opens_the_file(path):
    def scenario():
        db = vecdb.open(path)
        reading = Reading(db).__enter__()
        thread = closing(db)
        threading.Timer(0.1, lambda: reading.__exit__()).start()  # the fork waits for the reader, too
        with Child(lambda _: answers(vecdb.open(path))) as child:
            found = child.result()
        thread.join()
        with vecdb.open(path) as again:
            return found == list(answers(again)) or [found, answers(again)]

    assert call_in_child(scenario)


# --- registries and forks ---------------------------------------------------------------------------------


@posix
def test_a_child_forked_while_a_plugin_is_registered_can_use_the_registry():
    """The fork waits for no registration: its thread may be waiting for what the fork holds."""

    def scenario():
        given = registry.PluginRegistry(entry_points=False)
        inside, leave = threading.Event(), threading.Event()

        def hold():
            with given._lock, registry._default_lock:
                inside.set()
                leave.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        inside.wait(60)
        with Child(lambda _: [*given.names("index type"), *registry.default_registry("").names("index type")]) as child:
            found = child.result()
        leave.set()
        holder.join()
        return found == 2 * given.names("index type")

    assert call_in_child(scenario) is True


@posix
def test_what_was_being_loaded_at_the_fork_is_loaded_in_the_child(monkeypatch):
    loads = []
    monkeypatch.setattr(registry, "_installed", lambda allow: loads.append(1) or [])

    def scenario():
        given = registry.PluginRegistry(allow=["acme"])
        inside, leave = threading.Event(), threading.Event()

        def hold():
            with given._lock:
                given._loaded = True  # as `load` does before it begins
                inside.set()
                leave.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        inside.wait(60)
        with Child(lambda _: (given.names("index type"), len(loads))) as child:
            names, times = child.result()
        leave.set()
        holder.join()
        return "flat" in names and times

    assert call_in_child(scenario) == 1


@posix
def test_a_fork_from_inside_a_registration(monkeypatch):
    """The lock is its own thread's: it is not waited for, and both sides go on."""

    def scenario():
        given = registry.PluginRegistry(entry_points=False)
        with given._lock, Child(lambda _: given.names("index type")) as child:
            return child.result() == given.names("index type")

    assert call_in_child(scenario) is True
