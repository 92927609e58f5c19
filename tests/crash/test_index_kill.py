"""Indexes under kill, full disks, forks, other processes and damage: old parts or new ones, and never a record less."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading

import numpy as np
import pytest

import vecdb
from tests.indextypes import NONE, CopiesType, MappedType, able, registry
from vecdb.engine import indexed, upkeep
from vecdb.errors import ClosedError, DiskFullError, ExistsError, ForkedError
from vecdb.storage import blobs, staging
from vecdb.testing.crash import Kill, Lives, run_child
from vecdb.testing.processes import Child, call_in_child

DIM = 48
KEPT = 60
TYPES = (
    CopiesType("acme.copies", able("exact", "filtered", "complete", "add", "remove")),
    CopiesType("acme.codes", able("exact", "filtered", "encodes_segments")),
)


@pytest.fixture(autouse=True)
def small_scale(monkeypatch):
    monkeypatch.setattr(indexed, "SCAN_BELOW", 0)
    monkeypatch.setattr(upkeep, "GROW_FROM", 5)


def rows(numbers):
    return np.stack([np.random.default_rng(number).standard_normal(DIM) for number in numbers]).astype(np.float32)


def opened(path, **options):
    given = {"durability": "relaxed", "retention": 0.0, **options}
    return vecdb.open(path, plugins=registry(*TYPES), **given)


def make(path, count=KEPT):
    with opened(path) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=DIM, metric="l2")
        c.upsert(range(count), {"s": rows(range(count))}, metadata=[{"step": 0}] * count, trust=True)


def step(c, number):
    """Write one batch; some steps are about indexes too."""
    ids = list(range(KEPT * number, KEPT * number + KEPT))
    c.upsert(ids, {"s": rows(ids)}, metadata=[{"step": number}] * KEPT, trust=True)
    c.delete(where={"step": {"$lt": number}})
    known = {info.kind for info in c.indexes}
    if number % 5 == 1:
        for kind in {"acme.copies", "acme.codes"} - known:
            c.create_index("s", kind)
    elif number % 5 == 4:
        for kind in known:
            c.drop_index("s", kind)
    else:
        c.optimize()


def work(path):
    def run(acknowledge):
        with opened(path) as db:
            c = db.collection("c")
            number = max(c.scan(), key=lambda record: record.id).id // KEPT
            for place in range(number + 1, number + 400):
                step(c, place)
                acknowledge(place)

    return run


def verify(path, acknowledged):
    """Hold what a killed writer left: every acknowledged record, a sound file, and searches that agree with a scan."""
    with opened(path) as db:
        report = db.check()
        assert report.ok, report.problems
        c = db.collection("c")
        found = sorted(record.id for record in c.scan())
        newest = found[-1] // KEPT
        assert newest in (acknowledged, acknowledged + 1)
        assert found == list(range(found[0], KEPT * newest + KEPT)) and found[0] % KEPT == 0
        same(c)
        db.optimize()
        same(c)
        return newest


def same(c):
    for query in rows([3, 7]):
        found = c.search(query, 9, explain=True)
        wanted = c.search(query, 9, exact=True)
        assert found.ids == wanted.ids and found.scores.tobytes() == wanted.scores.tobytes(), found.plan
    for info in c.indexes:
        assert 0.0 <= info.coverage <= 1.0 and info.available


def test_random_kills(tmp_path):
    path = tmp_path / "killed.vecdb"
    make(path)
    lives, done = Lives(5, 0.02, 0.25), 0
    for _ in range(20):
        outcome = run_child(work(path), lives.kill())
        lives.learn(outcome)
        assert outcome.error == ""
        done = verify(path, max(done, outcome.acknowledged))
    assert done > 5


@pytest.mark.parametrize("how", ["exit", "pause"])
@pytest.mark.parametrize("name", ["write.begin", "write.applied", "commit.before", "commit.after", "index.stored"])
def test_each_failpoint(tmp_path, name, how):
    path = tmp_path / "killed.vecdb"
    make(path)
    done = 0
    for visit in (1, 2, 3, 5, 8, 13) if name != "index.stored" else (1, 2, 3, 4):
        outcome = run_child(work(path), Kill(failpoint=name, visit=visit, how=how))
        assert outcome.killed and outcome.error == ""
        done = verify(path, max(done, outcome.acknowledged))


@pytest.mark.parametrize("how", ["exit", "pause"])
@pytest.mark.parametrize("name", ["index.staged", "index.stored", "commit.before", "commit.after"])
def test_a_kill_while_a_part_is_stored_in_several_commits(tmp_path, monkeypatch, name, how):
    """What was staged is no damage, and goes with the next commit; the file never grows by it twice."""
    monkeypatch.setattr(staging, "STEP_BYTES", 1)
    path = tmp_path / "killed.vecdb"
    make(path)
    done, left = 0, 0
    for visit in (1, 2, 3, 4, 6, 9):
        outcome = run_child(work(path), Kill(failpoint=name, visit=visit, how=how))
        assert outcome.killed and outcome.error == ""
        with opened(path) as db, db._read() as snapshot:
            left += bool(staging.staged_set(snapshot.tx))
        done = verify(path, max(done, outcome.acknowledged))
        with opened(path) as db, db._read() as snapshot:
            assert not staging.staged_set(snapshot.tx)
    assert left or name == "commit.after"


BUILT_IN = [("graph", {"layout": "compact"}), ("graph", {"layout": "fast"}), ("rabitq", {}), ("ivf", {})]


@pytest.mark.parametrize(("kind", "params"), BUILT_IN, ids=str)
def test_kills_around_a_built_in_index(tmp_path, monkeypatch, kind, params):
    """Indexes are built, dropped and built again while the process is killed: records stay, and searches answer."""
    monkeypatch.setattr(staging, "STEP_BYTES", 1)
    path = tmp_path / "killed.vecdb"
    make(path)

    def build(acknowledge):
        with opened(path) as db:
            c = db.collection("c")
            number = max(c.scan(), key=lambda record: record.id).id // KEPT
            for place in range(number + 1, number + 40):
                ids = list(range(KEPT * place, KEPT * place + KEPT))
                c.upsert(ids, {"s": rows(ids)}, metadata=[{"step": place}] * KEPT, trust=True)
                c.delete(where={"step": {"$lt": place}})
                for info in c.indexes:
                    c.drop_index("s", info.kind)
                c.create_index("s", kind, **params)
                acknowledge(place)

    done = 0
    for name, visit in (("index.stored", 1), ("commit.before", 3), ("commit.after", 4), ("index.stored", 3)):
        outcome = run_child(build, Kill(failpoint=name, visit=visit))
        assert outcome.killed and outcome.error == ""
        with opened(path) as db:
            c = db.collection("c")
            assert db.check().ok
            newest = max(record.id for record in c.scan()) // KEPT
            told = max(done, outcome.acknowledged)
            assert newest in (told, told + 1)
            done = newest
            for query in rows([3, 7]):
                found, wanted = c.search(query, 9, effort=1_000), c.search(query, 9, exact=True)
                assert found.ids == wanted.ids and found.scores.tobytes() == wanted.scores.tobytes()


def test_an_error_while_a_part_is_stored_changes_nothing(tmp_path):
    path = tmp_path / "killed.vecdb"
    make(path)

    def write(acknowledge):
        with opened(path) as db:
            c = db.collection("c")
            with pytest.raises(OSError, match="injected"):
                c.create_index("s", "acme.copies")
            assert c.indexes == [] and db.check().ok
            c.create_index("s", "acme.copies")
            same(c)
            acknowledge(1)

    outcome = run_child(write, Kill(failpoint="index.stored", how="raise"))
    assert (outcome.acknowledged, outcome.error) == (1, "")


def test_a_full_disk_while_a_part_is_stored(tmp_path):
    path = tmp_path / "full.vecdb"
    make(path, 2000)

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with opened(path, durability="full") as db:
            c = db.collection("c")
            c.create_index("s", "acme.copies")
            part = c.indexes[0].bytes
            c.upsert(range(5000, 5600), {"s": rows(range(600))}, trust=True)
            limit = path.stat().st_size + 4096
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            refused = 0
            for attempt in (lambda: c.create_index("s", "acme.codes"), c.optimize):
                try:
                    attempt()
                except DiskFullError:
                    refused += 1
                same(c)
                assert db.check().ok
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            c.optimize()
            same(c)
            assert c.indexes[0].coverage == 1.0
            return [refused, part]

    refused, part = call_in_child(fill)
    assert refused and part > 2000 * DIM * 4
    with opened(path) as db:
        assert db.check().ok
        same(db.collection("c"))


# --- others at the same time ------------------------------------------------------------------------------


def test_two_processes_build_the_same_index(tmp_path):
    path = tmp_path / "two.vecdb"
    make(path)

    def build(link):
        with opened(path) as db:
            c = db.collection("c")
            slow = registry(CopiesType("acme.copies", able("exact"), faults={"build": lambda **given: wait(link)}))
            with vecdb.open(path, durability="relaxed", retention=0.0, plugins=slow) as mine:
                try:
                    mine.collection("c").create_index("s", "acme.copies")
                except ExistsError:
                    return "was there"
            return [info.parts for info in c.indexes]

    def wait(link):
        link.send("building")
        link.receive()

    with Child(build) as one, Child(build) as two:
        for child in (one, two):
            assert child.receive() == "building"
        for child in (one, two):
            child.send("go")
        assert sorted([one.result(), two.result()], key=str) == [[1], "was there"]
    with opened(path) as db:
        assert db.check().ok
        same(db.collection("c"))


@pytest.mark.parametrize("retention", [0.0, 600.0])
def test_an_index_is_built_while_others_write_delete_and_repack(tmp_path, retention):
    path = tmp_path / "busy.vecdb"
    make(path, 3000)
    stop = threading.Event()
    errors = []
    with opened(path, retention=retention) as db:
        c = db.collection("c")

        def write():
            try:
                turn = 0
                while not stop.is_set():
                    turn += 1
                    first = 3000 + 100 * turn
                    c.upsert(range(first, first + 100), {"s": rows(range(100)) + turn}, trust=True)
                    c.delete([each for each in range(100 * turn, 100 * turn + 100)], missing_ok=True)
                    if turn % 4 == 0:
                        db.optimize()
            except BaseException as error:
                errors.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(4):
                for each in TYPES:
                    c.create_index("s", each.name)
                    same_now(c)
                c.optimize()
                same_now(c)
                for each in TYPES:
                    c.drop_index("s", each.name)
        finally:
            stop.set()
            writer.join()
        assert not errors
        assert db.check().ok


def same_now(c):
    """Compare at one commit, which others leave behind."""
    c.database.tag("now")
    try:
        found = c.search(rows([3])[0], 9, as_of="now")
        assert found.ids == c.search(rows([3])[0], 9, exact=True, as_of="now").ids
    finally:
        c.database.untag("now")


def test_vectors_are_repacked_under_a_build(tmp_path):
    """The build starts again and holds what it reads; the second time nothing moves."""
    path = tmp_path / "moved.vecdb"
    make(path, 3000)
    with opened(path) as db:
        c = db.collection("c")
        turns = []

        def disturb(**given):
            turns.append(1)
            if len(turns) == 1:
                c.delete(list(range(2000)))
                db.optimize()

        type_ = CopiesType("acme.slow", able("exact"), faults={"build": disturb})
        with vecdb.open(path, durability="relaxed", retention=0.0, plugins=registry(type_)) as mine:
            mine.collection("c").create_index("s", "acme.slow")
            assert len(turns) == 2
            assert mine.collection("c").search(rows([3])[0], explain=True).plan["covered"] == 1000
            # the same under optimize(), whose commit may need the file alone
            turns.clear()
            c.upsert(range(9000, 9010), {"s": rows(range(10))}, trust=True)
            mine.collection("c").optimize()
            assert mine.check().ok


def test_upkeep_that_begins_again_can_still_enlarge_the_file(tmp_path):
    """What is built under one lease is stored after it: a map that grows waits for leases."""
    path = tmp_path / "grown.vecdb"
    turns = []

    def scenario():
        type_ = CopiesType("acme.slow", able("exact"))
        with vecdb.open(path, retention=0.0, durability="relaxed", map_size=1 << 20, plugins=registry(type_)) as db:
            c = db.create_collection("c")
            c.add_space("s", dim=512, metric="l2")
            vectors = np.random.default_rng(0).standard_normal((1500, 512)).astype(np.float32)
            c.upsert(range(700), {"s": vectors[:700]}, trust=True)
            c.create_index("s", "acme.slow")
            c.upsert(range(1000, 1800), {"s": vectors[700:]}, trust=True)
            c.delete(range(400))

            def disturb(**given):
                turns.append(1)
                if len(turns) == 1:
                    c.delete(range(400, 690))
                    c.delete(range(1000, 1300))
                    db.optimize()

            type_.faults["build"] = disturb
            c.optimize()
            type_.faults.clear()
            assert len(turns) >= 2
            found = c.search(vectors[690], 5)
            assert found.ids == c.search(vectors[690], 5, exact=True).ids and db.check().ok
            return "fine"

    assert call_in_child(scenario) == "fine"


def test_a_fork_during_a_build(tmp_path):
    path = tmp_path / "forked.vecdb"
    make(path)
    codes = []

    def fork(**given):
        child = os.fork()
        if not child:
            try:
                with vecdb.open(path, retention=0.0, durability="relaxed", plugins=NONE) as mine:
                    mine.collection("c").upsert([77_000], {"s": rows([1])}, trust=True)
                    os._exit(0 if len(mine.collection("c").search(rows([3])[0], 3)) == 3 else 1)
            finally:
                os._exit(2)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    for moment in ("build", "load", "dump", "stats"):
        type_ = CopiesType("acme.forks", able("exact"), faults={"build": fork} if moment == "build" else {})
        type_.faults = {moment: fork} if moment in ("build", "dump") else {}
        with vecdb.open(path, retention=0.0, durability="relaxed", plugins=registry(type_)) as db:
            c = db.collection("c")
            c.create_index("s", "acme.forks")
            same(c)
            c.drop_index("s", "acme.forks")
    assert codes == [0, 0]


def test_a_close_during_a_build(tmp_path):
    path = tmp_path / "closed.vecdb"
    make(path)
    type_ = CopiesType("acme.slow", able("exact"))
    db = vecdb.open(path, retention=0.0, durability="relaxed", plugins=registry(type_))
    type_.faults["build"] = lambda **given: db.close()
    with pytest.raises(ClosedError):
        db.collection("c").create_index("s", "acme.slow")
    with opened(path) as again:
        assert again.collection("c").indexes == [] and again.check().ok


def test_a_cancelled_build_stores_nothing(tmp_path):
    path = tmp_path / "cancelled.vecdb"
    make(path)
    with opened(path) as db:
        c = db.collection("c")
        with pytest.raises(vecdb.CancelledError):
            c.create_index("s", "acme.copies", cancel=lambda: True)
        assert c.indexes == [] and db.check().ok
        c.create_index("s", "acme.copies")
        c.upsert(range(500, 600), {"s": rows(range(100))}, trust=True)
        with pytest.raises(vecdb.CancelledError):
            c.optimize(cancel=lambda: True)
        same(c)


# --- damage -----------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_any_piece_costs_speed_and_nothing_else(tmp_path):
    path = tmp_path / "damaged.vecdb"
    make(path, 6000)
    with opened(path) as db:
        c = db.collection("c")
        c.delete(list(range(0, 6000, 7)))  # gaps: the engine's own blob is there too
        c.create_index("s", "acme.copies")
        with db._read() as snapshot:
            pieces = [bytes(value) for _, value in snapshot.tx.range("blobs", b"")]
    image = path.read_bytes()
    chance = random.Random(1)
    assert len(pieces) == 3
    for piece in pieces:
        start = image.index(piece[:64])
        payload = len(piece.rstrip(b"\0"))
        for place in {0, 8, payload - 1, chance.randrange(payload)}:
            damaged = bytearray(image)
            damaged[start + place] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            with opened(path) as db:
                c = db.collection("c")
                plan = dict(c.search(rows([3])[0], 9, explain=True).plan)
                same_scan(c)
                assert plan["method"] == "exact scan" and "damaged" in plan["notes"][0], (place, plan)
                assert not c.indexes[0].available and "damaged" in c.indexes[0].reason
                report = db.check()
                assert not report.ok and "index blob" in str(report.problems)
                assert c.optimize() >= 1
                assert db.check().ok and c.indexes[0].available
                same(c)


def test_a_flipped_bit_in_mapped_rows_costs_speed_and_nothing_else(tmp_path):
    """Opening reads none of the rows, so damage shows in the search that meets it, which is right all the same."""
    path = tmp_path / "damaged.vecdb"
    types = registry(MappedType("acme.mapped", able("exact", "filtered", "complete", "add", "encodes_segments")))
    with vecdb.open(path, plugins=types, durability="relaxed") as db:
        c = db.create_collection("c")
        c.add_space("s", dim=DIM, metric="l2")
        c.upsert(list(range(9000)), {"s": rows(range(9000))}, metadata=[{"g": n // 100} for n in range(9000)])
        c.optimize()
        c.create_index("s", "acme.mapped")
        with db._read() as snapshot:
            pieces = [bytes(value) for _, value in snapshot.tx.range("blobs", b"")]
    image = path.read_bytes()
    pieces = [piece for piece in pieces if piece[8:12] == b"VROW"]
    assert len(pieces) > 2
    for piece, place in ((pieces[0], 0), (pieces[0], 40), (pieces[0], 5000), (pieces[0], 300_000)):
        damaged = bytearray(image)
        damaged[image.index(piece[:64]) + place] ^= 4
        path.write_bytes(damaged)
        with vecdb.open(path, plugins=types, durability="relaxed") as db:
            c = db.collection("c")
            far = {"g": {"$gte": 85}}
            plan = dict(c.search(rows([3])[0], 9, where=far, explain=True).plan)
            if place > 40:  # a search that does not come near does not read the damage
                assert plan["method"] == "index" and not plan.get("notes"), plan
            plan = dict(c.search(rows([3])[0], 9, explain=True).plan)
            same_scan(c)
            assert plan["method"] == "exact scan" and "damaged" in plan["notes"][0], (place, plan)
            assert not c.indexes[0].available and "damaged" in c.indexes[0].reason
            report = db.check()
            assert not report.ok and "index" in str(report.problems)
            assert c.optimize() >= 1
            assert db.check().ok and c.indexes[0].available
            same(c)


def test_mapped_rows_grow_and_survive_compaction(tmp_path):
    types = registry(MappedType("acme.mapped", able("exact", "filtered", "complete", "add", "remove")))
    with vecdb.open(tmp_path / "m.vecdb", plugins=types, durability="relaxed", retention=0.0) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=DIM, metric="l2")
        c.create_index("s", "acme.mapped")
        for start in range(0, 3000, 750):
            c.upsert(list(range(start, start + 750)), {"s": rows(range(start, start + 750))})
            c.delete(list(range(start, start + 750, 5)))
            c.optimize()
            same(c)
        db.compact()
        same(c)
        assert db.check().ok and dict(c.indexes[0].stats)["vectors"] >= 2400


def same_scan(c):
    assert c.search(rows([3])[0], 9).ids == c.search(rows([3])[0], 9, exact=True).ids


def test_a_lost_and_an_unknown_piece_are_reported(tmp_path):
    path = tmp_path / "lost.vecdb"
    make(path)
    with opened(path) as db:
        c = db.collection("c")
        c.create_index("s", "acme.copies")

        def spoil(write):
            key = next(bytes(key) for key, _ in write.tx.range("blobs", b""))
            write.tx.delete("blobs", key)
            return True

        db._opened().writer.maintain(spoil, timeout=1.0)
        assert "has lost its piece 0" in str(db.check().problems)
    with opened(path) as db:
        c = db.collection("c")
        assert c.optimize() >= 1 and db.check().ok
        db._opened().writer.maintain(
            lambda write: blobs.write_blobs(write.tx, 1 << 50, [blobs.BlobData("x", memoryview(b"abc"))]) is not None,
            timeout=1.0,
        )
        assert "3 pieces of blobs are stored, the catalog names 2" in str(db.check().problems)


# --- what else happens to a file --------------------------------------------------------------------------


def test_backup_compaction_and_dropping(tmp_path):
    path = tmp_path / "kept.vecdb"
    make(path, 500)
    with opened(path) as db:
        c = db.collection("c")
        for each in TYPES:
            c.create_index("s", each.name)
        c.rename_space("s", "t")
        assert [info.space for info in c.indexes] == ["t", "t"]
        db.compact()
        assert c.search(rows([3])[0], explain=True).plan["method"] == "index"
        db.backup(tmp_path / "copy.vecdb")
        assert entries(db) == 4  # two blobs each; an empty one takes no piece
        c.drop_index("t", "acme.codes")
        same(c)
        c.drop_space("t")
        assert entries(db) == 0 and c.indexes == [] and db.check().ok
    with opened(tmp_path / "copy.vecdb") as db:
        c = db.collection("c")
        assert [info.kind for info in c.indexes] == ["acme.copies", "acme.codes"]
        same(c)
        db.drop_collection("c")
        assert entries(db) == 0 and db.check().ok


def entries(db):
    with db._read() as snapshot:
        return snapshot.tx.entries("blobs")["entries"]


@pytest.mark.parametrize("moment", ["build", "search", "load"])
def test_a_fork_while_a_plugin_reads(tmp_path, moment):
    """The parent goes on as if nothing had happened; the child is told that it cannot use this file."""
    path = tmp_path / "forked.vecdb"
    make(path)
    codes, it = [], []

    def fork(view, **given):
        with view.in_place() as here:
            before = here.blocks.count
            child = os.fork()
            if not child:
                try:
                    for attempt in (lambda: it[0].collection("c"), lambda: opened(path).seq, lambda: it[0].check()):
                        with pytest.raises(ForkedError, match="the thread that forked"):
                            attempt()
                    it[0].close()
                    os._exit(0)
                finally:
                    os._exit(2)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            assert here.blocks.count == before

    type_ = CopiesType("acme.forks", able("exact"))

    def scenario():
        with vecdb.open(path, retention=0.0, durability="relaxed", plugins=registry(type_)) as db:
            it.append(db)
            c = db.collection("c")
            type_.faults = {moment: fork}
            c.create_index("s", "acme.forks")
            same(c)
            c.upsert([99_000], {"s": rows([5])}, trust=True)
            assert len(c) == KEPT + 1
        with opened(path) as db:
            assert db.check().ok
        return codes

    assert set(call_in_child(scenario)) == {0}


def test_a_child_that_leaves_the_read_of_its_parent(tmp_path):
    """Leaving the block in the child must not end the parent's read, whose pages would be used again."""
    path = tmp_path / "forked.vecdb"
    make(path, 500)

    def scenario():
        with Child(lambda link: churn(path, link)) as other, opened(path) as db:
            with db._read():
                child = os.fork()
                if child:
                    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                    other.send("write")
                    assert other.result() > 4
                    assert db._opened().env.facts()["oldest_reader_lag"] > 4
            if not child:
                os._exit(0)
            same(db.collection("c"))
            return "fine"

    assert call_in_child(scenario) == "fine"


def churn(path, link):
    link.receive()
    with opened(path) as db:
        for turn in range(5):
            db.collection("c").upsert(range(500), {"s": rows(range(500)) + turn}, trust=True)
        return db.seq
