"""Loaded parts of indexes: what cannot be used is scanned and says so; what is not named any more is let go."""

import contextlib
import gc
import logging
import threading
import types
import weakref

import pytest

import vecdb
from tests.indextypes import NONE, Copies, CopiesType, able, fail, registry, rows
from vecdb.engine import parts
from vecdb.engine.view import CollectionView


def plan_of(c, **options):
    return dict(c.search(rows(1, 99)[0], 5, explain=True, **options).plan)


def test_without_its_plugin_an_index_is_scanned_named_and_left_alone(case, caplog):
    it = case(CopiesType())
    it.index()
    it.db.close()
    with caplog.at_level(logging.WARNING, "vecdb"), vecdb.open(it.path, plugins=NONE) as db:
        c = db.collection("c")
        found = c.search(rows(1, 99)[0], 5, explain=True)
        assert found.ids == c.search(rows(1, 99)[0], 5, exact=True).ids
        (note,) = found.plan["notes"]
        assert "acme.copies" in note and "unavailable" in note and "tests.indextypes.Plugin" in note
        (info,) = c.indexes
        assert (info.available, info.reason, info.coverage, info.parts) == (False, note, 0.0, 1)
        assert info.bytes > 0 and info.params == {"m": 3} and info.stats == {}
        (told,) = db.stats()["collections"]["c"]["indexes"]
        assert told["kind"] == "acme.copies" and not told["available"]
        c.upsert([9000], {"s": rows(1)})
        c.delete([5])
        for _ in range(3):
            c.optimize()
            plan_of(c)
        assert [info.bytes for info in c.indexes] == [info.bytes]
        assert sum("its vectors are scanned" in record.message for record in caplog.records) == 1
        db.compact()
        assert db.check().ok
    it.reopen()
    assert it.same()["covered"] == 400
    assert 0.99 < it.c.indexes[0].coverage < 1.0


def test_a_plugin_that_is_registered_later_is_found(case):
    it = case(CopiesType())
    it.index()
    it.db.close()
    late = vecdb.PluginRegistry(entry_points=False)
    with vecdb.open(it.path, plugins=late) as db:
        assert "index" not in plan_of(db.collection("c"))
        from tests.indextypes import Plugin

        late.register(Plugin(CopiesType()))
        assert plan_of(db.collection("c"))["index"] == "acme.copies"


def test_two_plugins_that_claim_the_type_make_it_unavailable(case, monkeypatch):
    from vecdb.errors import PluginConflictError

    it = case(CopiesType())
    it.index()
    real = it.registry.find

    def find(kind, name):
        if name == "acme.copies":
            raise PluginConflictError("two plugins claim it", kind=kind, name=name)
        return real(kind, name)

    monkeypatch.setattr(it.registry, "find", find)
    it.write([1])
    assert "two plugins claim it" in plan_of(it.c)["notes"][0]
    assert it.c.optimize() >= 0
    assert "two plugins claim it" in it.c.indexes[0].reason


def test_another_version_of_the_stored_form_is_rebuilt(case):
    it = case(CopiesType())
    it.index()
    it.reopen(CopiesType(version=2))
    plan = plan_of(it.c)
    assert plan["method"] == "exact scan"
    assert "stored by version 1" in plan["notes"][0] and "has version 2" in plan["notes"][0]
    assert not it.c.indexes[0].available and it.c.indexes[0].coverage == 0.0
    assert it.c.optimize() >= 1
    assert it.same()["covered"] == 400 and it.c.indexes[0].available
    it.reopen(CopiesType())
    assert "stored by version 2" in plan_of(it.c)["notes"][0]


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), vecdb.CorruptionError("bad")])
def test_a_load_that_fails_is_never_fatal_and_tried_once(case, error):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    type_.faults["load"] = fail(error)
    it.reopen()
    before = type_.calls["load"]
    for _ in range(3):
        assert "is damaged" in plan_of(it.c)["notes"][0]
    assert not it.c.indexes[0].available and type_.calls["load"] == before + 1
    it.write([1, 2, 3])
    it.db.stats()
    type_.faults.clear()
    assert it.c.optimize() >= 1
    assert it.same()["index"] == "acme.copies"


def test_a_load_that_returns_no_index_is_never_fatal(case):
    type_ = CopiesType("acme.copies", able("exact", "encodes_segments"))
    it = case(type_)
    it.index()
    type_.load = lambda *given: object()
    it.reopen()
    assert "breaks rule index" in plan_of(it.c)["notes"][0]
    assert "breaks rule index" in it.c.indexes[0].reason
    it.write([1, 2, 3])
    assert it.db.check().ok


def test_statistics_that_fail_do_not_hide_the_index(case, caplog):
    type_ = CopiesType(faults={"stats": fail(KeyError("x"))})
    it = case(type_)
    info = it.index()
    assert info.available and info.stats == {} and "failed in stats" in info.reason
    assert it.db.stats()["collections"]["c"]["indexes"][0]["coverage"] == 1.0
    type_.faults.clear()
    assert it.c.indexes[0].stats == {"vectors": 400, "gone": 0}


# --- memory and threads -----------------------------------------------------------------------------------


@pytest.fixture
def loaded(monkeypatch):
    """Every index that was made, as long as somebody holds it."""
    alive = weakref.WeakSet()
    real = Copies.__init__

    def init(self, *given):
        real(self, *given)
        alive.add(self)

    monkeypatch.setattr(Copies, "__init__", init)
    monkeypatch.setattr(Copies, "__hash__", object.__hash__)

    def count():
        gc.collect()
        return len(alive)

    return count


@pytest.mark.parametrize("how", ["drop_index", "drop_space", "drop_collection", "rebuild", "close"])
def test_what_is_not_named_any_more_is_let_go(case, loaded, how):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    it.same()
    assert loaded() == 1
    if how == "drop_index":
        it.c.drop_index("s", "acme.copies")
    elif how == "drop_space":
        it.c.drop_space("s")
    elif how == "drop_collection":
        it.db.drop_collection("c")
    elif how == "rebuild":
        it.c.delete(list(range(300)))
        it.c.optimize()
        it.same()
        assert loaded() == 1
        return
    else:
        it.db.close()
    if not it.db.closed:
        assert it.db.seq
        assert it.db.stats()
    assert loaded() == 0


def test_what_a_registry_loaded_goes_with_it(case, loaded):
    it = case(CopiesType())
    it.index()
    it.same()
    for _ in range(3):
        with vecdb.open(it.path, plugins=registry(CopiesType())) as other:
            assert plan_of(other.collection("c"))["index"] == "acme.copies"
            assert loaded() == 2
        del other
        assert loaded() == 1


def test_handles_with_and_without_the_plugin_do_not_disturb_each_other(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    with vecdb.open(it.path, plugins=NONE) as other:
        for _ in range(3):
            assert plan_of(it.c)["index"] == "acme.copies"
            assert "index" not in plan_of(other.collection("c"))
    assert type_.calls["load"] == 1


def test_a_part_is_loaded_once_whatever_is_written(case):
    type_ = CopiesType()
    it = case(type_, retention=0.0)
    it.index()
    it.reopen()
    before = type_.calls["load"]
    for turn in range(3):
        it.same()
        it.write([turn])
    it.db.compact()
    it.same()
    assert type_.calls["load"] == before + 1


def test_a_file_that_went_back_in_time_is_not_believed(case):
    from vecdb.storage.snapshot import Caches

    caches = Caches()
    caches.indexes = {"loaded": types.SimpleNamespace(unmap=lambda: None)}
    caches._version = 7
    assert caches.without_map().indexes is caches.indexes
    later = caches.without_map()
    later.keep_indexes_from(7)
    assert later.indexes
    later.keep_indexes_from(6)
    assert not later.indexes


def test_threads_load_a_part_once(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    it.reopen()
    before = type_.calls["load"]
    gate, errors = threading.Barrier(8), []
    type_.faults["load"] = lambda **given: threading.Event().wait(0.05)

    def search():
        try:
            gate.wait()
            it.same()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and type_.calls["load"] == before + 1


def test_a_plugin_may_search_while_it_loads_and_another_thread_wants_the_file(case):
    """Loading holds a lease and a lock; a close in another thread waits for both and blocks neither."""
    type_ = CopiesType()
    it = case(type_)
    it.index()
    it.reopen()
    closing = threading.Thread(target=it.db.close)

    def load(**given):
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        with contextlib.suppress(vecdb.errors.ClosedError):
            it.c.search(rows(1)[0], exact=True)

    type_.faults["load"] = load
    assert len(it.c.search(rows(1)[0])) == 10
    closing.join(60)
    assert not closing.is_alive() and it.db.closed


def test_choosing_again_costs_nothing_but_a_look(case):
    it = case(CopiesType())
    it.index()
    it.same()
    with it.db._read() as snapshot:
        entry = snapshot.state.catalog.collections["c"]
        view = CollectionView(snapshot, entry)
        first = parts.choose(view, entry.spaces["s"], it.registry)
        assert parts.choose(view, entry.spaces["s"], it.registry) is first and first.parts


def test_a_reader_of_an_older_commit_uses_its_own_parts(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    with it.db._read() as snapshot:
        it.c.delete(list(range(300)))
        it.c.optimize()
        it.same()
        entry = snapshot.state.catalog.collections["c"]
        view = CollectionView(snapshot, entry)
        old = parts.choose(view, entry.spaces["s"], it.registry)
        assert old.covered == 400 and it.same()["covered"] == 100
        assert parts.choose(view, entry.spaces["s"], it.registry).covered == 400
