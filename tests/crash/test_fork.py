"""Fork in the middle of anything: parent and child are both right afterwards, and neither disturbs the other.

Each scenario runs in a process of its own, so that a deadlock is a failure with a stack and not a hang of the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest

import vecdb
from vecdb.testing.processes import PATIENCE, Child, call_in_child

ROWS = np.random.default_rng(0).standard_normal((600, 512)).astype(np.float32)
"""More than a block of them, so that reads go to the map."""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "forked.vecdb"
    with vecdb.open(file) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=512, metric="l2")
        docs.upsert(list(range(600)), {"s": ROWS}, metadata=[{"n": number} for number in range(600)], trust=True)
    return file


def read(db):
    """Read in every way; raise if anything is not as written."""
    docs = db.collection("docs")
    assert docs.search(ROWS[5], k=1).ids == [5]
    assert docs.count({"n": {"$lt": 10}}) == 10
    records = docs.get(list(range(0, 600, 50)), vectors="s")
    for record in records:
        assert record.vectors["s"].tobytes() == ROWS[record.id].tobytes()
    return len(docs)


def write(db, key):
    db.collection("docs").upsert([key], {"s": ROWS[:1]}, trust=True)
    assert key in db.collection("docs")


def both(db, name="child"):
    """Fork; let both sides read and write at once; return the child's answer."""

    def work(_):
        read(db)
        write(db, name)
        return read(db)

    with Child(work) as child:
        read(db)
        write(db, f"parent of {name}")
        read(db)
        return child.result()


def opened(path):
    """Return the database, opened with patience: others write all the time, and their disk may be slow."""
    return vecdb.open(path, timeout=PATIENCE)


def in_own_process(scenario):
    assert call_in_child(scenario, timeout=2 * PATIENCE) == "done"


class Busy:
    """A thread that does something over and over until the block ends."""

    def __init__(self, work):
        self.errors = []
        self.turns = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,))

    def _run(self, work):
        try:
            while not self._stop.is_set():
                work(self.turns)
                self.turns += 1
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self):
        self._thread.start()
        while not self.turns and not self.errors:
            time.sleep(0.001)
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        assert not self.errors, self.errors


def test_both_sides_go_on(path):
    def scenario():
        with opened(path) as db:
            read(db)
            both(db)
            assert {"child", "parent of child"} <= {record.id for record in db.collection("docs").scan()}
            assert db.check().ok
        return "done"

    in_own_process(scenario)


def test_twenty_forks_in_a_row(path):
    def scenario():
        with opened(path) as db:
            for turn in range(20):
                both(db, f"child {turn}")
            assert len(db.collection("docs")) == 640
            assert db.stats()["readers"] <= 4
            assert db.check().ok
        return "done"

    in_own_process(scenario)


def test_a_child_of_a_child(path):
    def scenario():
        with opened(path) as db:

            def middle(_):
                both(db, "grandchild")
                return read(db)

            with Child(middle) as child:
                write(db, "top")
                child.result()
            assert len(db.collection("docs")) == 603
        return "done"

    in_own_process(scenario)


@pytest.mark.parametrize("what", ["read", "write", "scan", "optimize", "compact", "open and close", "open others"])
def test_while_another_thread_works(path, what):
    def scenario():
        with opened(path) as db:
            docs = db.collection("docs")

            def reopen(turn):
                with vecdb.open(path) as second:
                    assert len(second.collection("docs")) >= 600

            def open_others(turn):
                with vecdb.open(path.with_name(f"other-{turn}.vecdb")) as other:
                    other.create_collection("c")

            def compact(turn):
                try:
                    db.compact(timeout=0.2)
                except vecdb.LockedError:  # the children have the file open
                    time.sleep(0.01)

            work = {
                "read": lambda turn: read(db),
                "write": lambda turn: docs.upsert(
                    [f"t{turn % 50}"], {"s": ROWS[turn % 600 : turn % 600 + 1]}, trust=True
                ),
                "scan": lambda turn: sum(1 for _ in docs.scan(vectors="s")),
                "optimize": lambda turn: (docs.upsert(["o"], {"s": ROWS[:1]}, trust=True), db.optimize()),
                "compact": compact,
                "open and close": reopen,
                "open others": open_others,
            }[what]
            with Busy(work):
                for turn in range(6):
                    both(db, f"child {turn}")
            assert db.check().ok
            assert sum(f"child {turn}" in docs for turn in range(6)) == 6
        return "done"

    in_own_process(scenario)


def test_while_another_thread_is_in_a_transaction(path):
    """The fork waits for the transaction's end; the transaction commits, and the child sees it."""

    def scenario():
        with opened(path) as db:
            docs = db.collection("docs")
            inside, forking = threading.Event(), threading.Event()

            def transact():
                with db.transaction():
                    docs.upsert(["in transaction"], {"s": ROWS[:1]}, trust=True)
                    inside.set()
                    forking.wait()
                    time.sleep(0.1)
                    docs.upsert(["late"], {"s": ROWS[:1]}, trust=True)

            thread = threading.Thread(target=transact)
            thread.start()
            inside.wait()
            forking.set()
            both(db)
            thread.join()
            assert "in transaction" in docs and "late" in docs and "child" in docs
            assert db.check().ok
        return "done"

    in_own_process(scenario)


def test_while_another_threads_transaction_opens_and_closes_databases(path):
    """Neither the fork nor the transaction waits for what the other holds."""

    def scenario():
        with opened(path) as db:
            inside, forking = threading.Event(), threading.Event()

            def transact():
                with db.transaction():
                    db.collection("docs").upsert(["x"], {"s": ROWS[:1]}, trust=True)
                    inside.set()
                    forking.wait()
                    time.sleep(0.1)
                    with vecdb.open(path.with_name("other.vecdb")) as other:
                        other.create_collection("c")

            thread = threading.Thread(target=transact)
            thread.start()
            inside.wait()
            forking.set()
            both(db)
            thread.join()
        return "done"

    in_own_process(scenario)


def test_a_transaction_from_before_the_fork(path):
    """It raises in the child, whatever is done with it there, and commits in the parent."""

    def scenario():
        with opened(path) as db:
            docs = db.collection("docs")
            kinds = []

            def child(_):
                try:
                    docs.upsert(["of the child"], {"s": ROWS[:1]}, trust=True)
                except vecdb.ForkedError as error:
                    kinds.append(type(error).__name__)
                return kinds

            with db.transaction():
                docs.upsert(["before"], {"s": ROWS[:1]}, trust=True)
                with Child(child) as forked:
                    docs.upsert(["after"], {"s": ROWS[:1]}, trust=True)
                    answer = forked.result()
                assert "before" in docs
            assert "before" in docs and "after" in docs and db.check().ok
            return answer

    assert call_in_child(scenario, timeout=2 * PATIENCE) == ["ForkedError"]


def test_the_block_of_a_transaction_left_in_the_child_raises_there(path):
    """The child of a fork inside ``with db.transaction()`` gets `ForkedError` at its end, and can write afterwards."""

    def scenario():
        with opened(path) as db:
            docs = db.collection("docs")
            receive, send = os.pipe()
            said = b""
            pid = -1
            try:
                with db.transaction():
                    docs.upsert(["before"], {"s": ROWS[:1]}, trust=True)
                    pid = os.fork()
            except BaseException as error:
                said = type(error).__name__.encode()
            if pid == 0:
                try:
                    read(db)
                    write(db, "child")
                    os.write(send, said + b" and wrote")
                except BaseException as error:
                    os.write(send, said + b" then " + repr(error).encode())
                finally:
                    os._exit(0)
            os.close(send)
            os.waitpid(pid, 0)
            assert said == b""
            answer = os.read(receive, 4096).decode()
            assert "before" in docs and "child" in docs and db.check().ok
            return answer

    assert call_in_child(scenario, timeout=2 * PATIENCE) == "ForkedError and wrote"


def test_an_iterator_from_before_the_fork(path):
    def scenario():
        with opened(path) as db:
            scan = db.collection("docs").scan(vectors="s")
            first = next(scan)

            def child(_):
                try:
                    next(scan)
                except vecdb.ForkedError as error:
                    return type(error).__name__

            with Child(child) as forked:
                rest = list(scan)
                answer = forked.result()
            assert [first.id, *(record.id for record in rest)] == list(range(600))
            return answer

    assert call_in_child(scenario, timeout=2 * PATIENCE) == "ForkedError"


def test_an_iterator_at_the_end_of_its_chunk_is_refused_in_the_child_too(path):
    """Also where the next record would have to be read from the file first."""

    def scenario():
        with opened(path) as db:
            scan = db.collection("docs").scan()
            for _ in range(512):
                next(scan)

            def child(_):
                try:
                    next(scan)
                except vecdb.ForkedError as error:
                    return type(error).__name__

            with Child(child) as forked:
                return forked.result()

    assert call_in_child(scenario, timeout=2 * PATIENCE) == "ForkedError"


@pytest.mark.parametrize("end", ["exit at once", "close", "collect garbage"])
def test_the_end_of_a_child_does_not_disturb_the_parent(path, end):
    """A child that merely dropped an inherited read transaction once freed the parent's reader slot."""

    def scenario():
        import gc

        with opened(path) as db:
            docs = db.collection("docs")
            scan = docs.scan(vectors="s")
            next(scan)
            before = db.seq

            def child(_):
                if end == "close":
                    read(db)
                    db.close()
                if end == "collect garbage":
                    globals().clear()
                    gc.collect()
                return "gone"

            with Child(child) as forked:
                forked.result()
            for turn in range(30):
                write(db, f"w{turn}")
            for record in scan:
                assert record.vectors["s"].tobytes() == ROWS[record.id].tobytes()
            assert len(list(docs.scan(as_of=before))) == 600
            assert db.check().ok
        return "done"

    in_own_process(scenario)


def test_a_database_opened_in_the_child_only(path):
    def scenario():
        import vecdb as module

        def child(_):
            with module.open(path) as db:
                return read(db)

        with Child(child) as forked:
            return forked.result()

    assert call_in_child(scenario) == 600


def test_closing_in_the_child_leaves_the_parents_locks(path):
    """Another process is still refused when it wants the file for itself."""

    def scenario():
        with opened(path) as db:
            read(db)

            def child(_):
                db.close()

            with Child(child) as forked:
                forked.result()
            read(db)

            def stranger(link):
                link.receive()
                with vecdb.open(path) as own:
                    try:
                        own.compact(timeout=0.1)
                    except vecdb.LockedError as error:
                        return error.holder

            with Child(stranger) as forked:
                read(db)  # the fork closed the file: it is locked from the next use on
                forked.send("go")
                assert f"process {os.getpid()}" in forked.result()
            read(db)
            return "done"

    in_own_process(scenario)


def _worker(arguments):
    path, number = arguments
    with opened(path) as db:
        write(db, f"worker {number}")
        return read(db) >= 601


def test_multiprocessing_with_fork(path):
    def scenario():
        context = multiprocessing.get_context("fork")
        with opened(path) as db:
            read(db)
            with context.Pool(3) as pool:
                assert all(pool.map(_worker, [(str(path), number) for number in range(12)]))
            assert sum(f"worker {number}" in db.collection("docs") for number in range(12)) == 12
        return "done"

    in_own_process(scenario)


def test_while_the_kernels_load(path, with_kernels):
    """A fork waits for the step under way, and both sides end up with working kernels."""

    def scenario():
        os.environ.pop("VECDB_KERNELS", None)
        with opened(path) as db:
            read(db)  # the first search asks for the kernels
            for turn in range(3):
                both(db, f"child {turn}")
        return "done"

    in_own_process(scenario)
