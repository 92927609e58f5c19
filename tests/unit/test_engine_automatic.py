"""The automatic policy of indexes: who gets one, who never again, and a thread that ends when it is told to."""

import logging
import os
import threading
import time

import numpy as np
import pytest

import vecdb
from tests.indextypes import CopiesType, able, fail, rows
from vecdb.engine import automatic, indexing, upkeep
from vecdb.engine.automatic import Keeper
from vecdb.errors import ExistsError, LockedError, PluginError, UnknownNameError
from vecdb.storage.state import CollectionEntry, SpaceCounts


@pytest.fixture
def eager(monkeypatch):
    """Small spaces get an index, and nobody waits for a pause."""
    monkeypatch.setattr(indexing, "AUTOMATIC_FROM", 200)
    monkeypatch.setattr(indexing, "AUTOMATIC_COMPONENTS", 1)
    monkeypatch.setattr(indexing, "CODES_UP_TO", 1_000)
    monkeypatch.setattr(automatic, "PAUSE", 0.01)
    monkeypatch.setattr(automatic, "_NEW", 100)
    monkeypatch.setattr(upkeep, "GROW_FROM", 100)


class Chooser:
    """A plugin that chooses an index type."""

    def __init__(self, *answers):
        self.answers = list(answers)

    @vecdb.hookimpl
    def vecdb_choose_index(self, space, count):
        return self.answers[min(len(self.answers) - 1, count // 1_000)]


def settled(it, condition, seconds=30):
    """Wait until a condition holds and the thread has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        keeper = it.db._keeper
        if condition() and (keeper is None or keeper._thread is None):
            return True
        time.sleep(0.005)
    return False


def kinds(it):
    return [(info.kind, info.automatic) for info in it.c.indexes]


def seal(it):
    """What is written in a test lies in the tail: an index covers what is sealed."""
    from vecdb.engine import housekeeping

    it.db._store.writer.maintain(housekeeping.sealing(it.c._entry(), "s"), timeout=10)


# --- the automatic index ----------------------------------------------------------------------------------


def test_optimize_gives_a_space_an_index_that_is_seen_and_can_be_dropped_for_good(case, eager):
    it = case(CopiesType(), count=400, automatic=False)
    assert it.c.indexes == []
    assert it.c.optimize() > 0 and kinds(it) == [("rabitq", True)]
    assert it.c.indexes[0].coverage == 1.0 and it.c.optimize() == 0
    it.same()
    it.reopen()
    assert kinds(it) == [("rabitq", True)]
    it.c.drop_index("s", "rabitq")
    it.c.optimize()
    it.reopen()
    it.write(range(1000, 1400))
    it.db.optimize()
    assert it.c.indexes == [] and it.db.check().ok
    assert it.c.create_index("s", "rabitq").automatic is False
    it.c.drop_index("s", "rabitq")
    it.c.optimize()
    assert it.c.indexes == []


def test_small_spaces_get_none(case):
    it = case(CopiesType(), count=3_000)
    it.c.optimize()
    assert it.c.indexes == []


def test_an_index_made_by_hand_takes_the_place_of_the_automatic_one(case, eager):
    it = case(CopiesType(), automatic=False)
    it.c.optimize()
    assert kinds(it) == [("rabitq", True)]
    it.index()
    assert kinds(it) == [("acme.copies", False)]
    it.c.optimize()
    assert kinds(it) == [("acme.copies", False)] and it.db.check().ok


def test_an_automatic_index_gives_way_to_one_of_its_own_kind(case, eager):
    it = case(CopiesType(), automatic=False)
    it.c.optimize()
    it.c.create_index("s", "rabitq", bits=4)
    assert kinds(it) == [("rabitq", False)] and it.c.indexes[0].params["bits"] == 4
    with pytest.raises(ExistsError):
        it.c.create_index("s", "rabitq")
    it.c.optimize()
    assert kinds(it) == [("rabitq", False)] and it.db.check().ok


def test_the_kind_changes_when_the_space_has_grown(case, eager):
    it = case(CopiesType("acme.small"), CopiesType("acme.large"), automatic=False)
    it.registry.register(Chooser(("acme.small", {}), ("acme.large", {"m": 4})))
    it.c.optimize()
    assert kinds(it) == [("acme.small", True)]
    it.write(range(1_000, 1_900))
    it.c.optimize()
    assert kinds(it) == [("acme.large", True)] and it.c.indexes[0].params == {"m": 4}
    assert it.c.optimize() == 0 and it.db.check().ok


def test_a_plugin_that_chooses_nonsense_fails_optimize_by_name(case, eager):
    it = case(CopiesType(), automatic=False)
    it.registry.register(Chooser(("acme.nothing", {})))
    with pytest.raises(UnknownNameError, match=r"acme\.nothing"):
        it.c.optimize()


def test_a_choice_that_fails_does_not_keep_other_indexes_waiting(case, eager):
    it = case(CopiesType("acme.copies", able("exact", "add")))
    it.c.add_space("other", dim=6, metric="l2")
    it.c.set_vectors("other", range(400), rows(400), trust=True)
    it.index()
    it.write(range(1000, 1100))
    it.registry.register(Chooser("rabitq"))
    with pytest.raises(PluginError, match="vecdb_choose_index"):
        it.c.optimize()
    assert [(info.kind, info.coverage) for info in it.c.indexes] == [("acme.copies", 1.0)]


def test_large_spaces_choose_a_graph(case, monkeypatch):
    it = case(CopiesType(), count=10, automatic=False)
    shop = it.db._workshop(it.c._key, None, None)
    space = it.c.spaces["s"]
    assert indexing.choose_kind(shop, space, 10**6, {})[0] == "graph"
    assert indexing.choose_kind(shop, space, 10**5, {}) is None  # of six components, which are scanned at once
    wide = vecdb.Space("w", 384, "cosine", "float32", "", "", "both", 9)
    assert [indexing.choose_kind(shop, wide, count, {}) for count in (4_000, 5_000, 6_000)][:2] == [None, None]
    assert indexing.choose_kind(shop, wide, 6_000, {"x": 1}) == ("rabitq", {"x": 1})
    assert indexing.choose_kind(shop, wide, 100_001, {}) == ("graph", {})


def test_dropping_a_space_forgets_that_it_declined(case, eager):
    it = case(CopiesType(), automatic=False)
    it.c.optimize()
    it.c.drop_index("s", "rabitq")
    it.c.drop_space("s")
    assert it.c._entry().declined == frozenset()


# --- in the background ------------------------------------------------------------------------------------


def test_writing_brings_an_index_and_keeps_it_up_to_date(case, eager):
    it = case(CopiesType(), count=400)
    seal(it)
    it.write([400])
    assert settled(it, lambda: kinds(it) == [("rabitq", True)])
    seq = it.db.seq
    it.write(range(1000, 1300), seed=3)
    seal(it)
    it.write([1300])
    assert settled(it, lambda: it.c.indexes[0].coverage > 0.99)
    assert it.db.seq == seq + 2 and it.db.check().ok
    it.same()


def test_the_switch_turns_it_off(case, eager):
    it = case(CopiesType(), automatic=False)
    seal(it)
    it.write([400])
    assert it.db._keeper is None and it.c.indexes == []


def test_a_transaction_is_looked_at_when_it_ends(case, eager):
    it = case(CopiesType(), count=1)
    with it.db.transaction():
        it.write(range(1, 400))
        assert it.db._keeper is None or it.db._keeper._thread is None
    seal(it)
    it.write([400])
    assert settled(it, lambda: kinds(it) == [("rabitq", True)])


def waiting_type(started):
    """A type whose build goes on until it is cancelled."""

    def build(cancel, **given):
        started.set()
        until = time.monotonic() + 30
        while not cancel() and time.monotonic() < until:
            time.sleep(0.002)

    return CopiesType("acme.slow", faults={"build": build})


def test_searches_and_writes_do_not_wait_and_closing_ends_it(case, eager):
    started = threading.Event()
    it = case(waiting_type(started))
    it.registry.register(Chooser(("acme.slow", {})))
    seal(it)
    it.write([400])
    assert started.wait(20)
    it.write(range(500, 520))
    assert it.c.search(rows(1)[0], 3).ids[0] == 0 and len(it.c) == 421
    keeper = it.db._keeper
    assert keeper._thread is not None
    it.db.close()
    assert keeper._thread is None
    it.reopen(CopiesType("acme.slow"))
    assert it.c.indexes == [] and it.db.check().ok


def test_what_is_made_by_hand_is_not_made_twice(case, eager):
    started = threading.Event()
    it = case(waiting_type(started), CopiesType("acme.hand"))
    it.registry.register(Chooser(("acme.slow", {})))
    seal(it)
    it.write([400])
    assert started.wait(20)
    it.index("acme.hand")
    assert kinds(it) == [("acme.hand", False)] and it.db._keeper._thread is None
    built = it.types[0].calls["build"]
    it.write(range(1000, 1300))
    seal(it)
    it.write([1300])
    assert settled(it, lambda: it.c.indexes[0].coverage > 0.9)
    assert it.types[0].calls["build"] == built and kinds(it) == [("acme.hand", False)]


def test_compaction_ends_it_and_it_goes_on_later(case, eager):
    started = threading.Event()
    it = case(waiting_type(started))
    it.registry.register(Chooser(("acme.slow", {})))
    seal(it)
    it.write([400])
    assert started.wait(20)
    it.db.compact()
    it.types[0].faults.clear()
    it.write([401])
    assert settled(it, lambda: kinds(it) == [("acme.slow", True)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_ends_it_and_both_sides_go_on(case, eager):
    started = threading.Event()
    it = case(waiting_type(started))
    it.registry.register(Chooser(("acme.slow", {})))
    seal(it)
    it.write([400])
    assert started.wait(20)
    child = os.fork()
    if not child:
        os._exit(0 if len(it.c.search(rows(1)[0], 3).ids) == 3 and it.db._keeper._thread is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    it.types[0].faults.clear()
    it.write([401])
    assert settled(it, lambda: kinds(it) == [("acme.slow", True)])


def test_what_fails_there_is_logged_and_harms_nobody(case, eager, caplog):
    it = case(CopiesType(faults={"build": fail(OSError("odd"))}))
    it.registry.register(Chooser(("acme.copies", {})))
    with caplog.at_level(logging.WARNING, "vecdb"):
        seal(it)
        it.write([400])
        assert settled(it, lambda: "odd" in caplog.text)
    assert it.c.indexes == [] and it.c.search(rows(1)[0], 1).ids == [0]


# --- the thread -------------------------------------------------------------------------------------------


ENTRY = CollectionEntry(1, "c", {})


def counts(sealed, dead=0):
    return {7: SpaceCounts(next_ordinal=sealed, live=sealed - dead, dead=dead, tail_start=sealed)}


def ended(keeper, seconds=20):
    until = time.monotonic() + seconds
    while keeper._thread is not None and time.monotonic() < until:
        time.sleep(0.002)
    return keeper._thread is None


def test_it_looks_after_what_grew_or_died_and_not_after_small_changes(monkeypatch):
    monkeypatch.setattr(automatic, "PAUSE", 0.0)
    done = []
    keeper = Keeper(lambda key, cancel: done.append(key))
    for left, times in (
        (counts(500), 0),
        (counts(2_000), 1),
        (counts(2_500), 1),
        (counts(3_100), 2),
        (counts(3_100, 1_100), 3),
    ):
        keeper.look(ENTRY, left)
        assert ended(keeper) and len(done) == times, left
    keeper.stop()
    keeper.look(ENTRY, counts(90_000))
    assert keeper._thread is None and len(done) == 3
    keeper.go_on()
    keeper.look(ENTRY, counts(90_000))
    assert ended(keeper) and len(done) == 4


def test_it_waits_for_a_pause_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(automatic, "PAUSE", 0.2)
    monkeypatch.setattr(automatic, "PATIENCE", 0.5)
    done = threading.Event()
    keeper = Keeper(lambda key, cancel: done.set())
    keeper.look(ENTRY, counts(10_000))
    assert not done.is_set()
    until = time.monotonic() + 30
    while not done.is_set() and time.monotonic() < until:
        keeper.look(ENTRY, counts(10_000))
        time.sleep(0.01)
    assert done.is_set() and ended(keeper)


def test_a_lock_that_is_held_puts_it_off_until_the_next_commit(monkeypatch):
    monkeypatch.setattr(automatic, "PAUSE", 0.0)
    tries = []

    def work(key, cancel):
        tries.append(key)
        raise LockedError("held", path="x", holder="y", waited=0.0)

    keeper = Keeper(work)
    for turn in range(1, 3):
        keeper.look(ENTRY, counts(5_000))
        assert ended(keeper) and len(tries) == turn


def test_patience_ends_with_the_thread():
    def never(work):
        raise LockedError("held", path="x", holder="y", waited=0.0)

    asked = iter([False, False, True])
    with pytest.raises(vecdb.CancelledError):
        automatic.patiently(never, lambda: next(asked), 60.0)(lambda write: True)
    with pytest.raises(LockedError):
        automatic.patiently(never, lambda: False, 0.0)(lambda write: True)
    assert automatic.patiently(lambda work: True, lambda: False, 1.0)(lambda write: True)


def test_an_approximate_automatic_index_keeps_exact_searches_exact(case, eager):
    it = case(CopiesType("acme.half", able("filtered"), half=True), automatic=False)
    it.registry.register(Chooser(("acme.half", {})))
    it.c.optimize()
    query = rows(1, 9)[0]
    distances = np.linalg.norm(rows(400) - query, axis=1)
    assert it.c.search(query, 10, exact=True).ids == np.argsort(distances, kind="stable")[:10].tolist()
