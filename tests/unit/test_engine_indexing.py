"""Making, growing and dropping indexes; codes in the commit that seals; the hooks around all that."""

import contextlib
import logging
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import vecdb
from tests.indextypes import DIM, NONE, CopiesType, Listener, Plugin, able, fail, registry, rows
from vecdb.engine import housekeeping, indexing, upkeep
from vecdb.errors import (
    CollectionMissingError,
    CorruptionError,
    ExistsError,
    ParameterError,
    PluginContractError,
    PluginError,
    ReadOnlyError,
    SpaceMissingError,
    TransactionError,
    UnknownNameError,
)
from vecdb.storage.indexes import IndexEntry, IndexPart, index_from_plain, index_to_plain

WIDE = 16_384
"""So wide that 15 vectors fill a block."""


def wide(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, WIDE)).astype(np.float32)


# --- making -----------------------------------------------------------------------------------------------


def test_what_create_index_says(case):
    it = case(CopiesType())
    info = it.c.create_index("s", "acme.copies", m=5, seed=7)
    assert (info.space, info.kind, info.params, info.seed, info.available) == ("s", "acme.copies", {"m": 5}, 7, True)
    assert (info.coverage, info.parts, info.reason) == (1.0, 1, None)
    assert "tests.indextypes.Plugin" in info.provided_by and info.stats == {"vectors": 400, "gone": 0}
    assert info.bytes == 2 * 65536 and it.c.indexes == [info]
    assert it.db.commits()[-1].changes == ("c: create index acme.copies of space s",)
    assert it.c.stats()["spaces"]["s"]["index_coverage"] == 1.0


def test_an_index_of_nothing(case):
    type_ = CopiesType("acme.copies", able("exact", "add"))
    it = case(type_, count=0)
    info = it.index()
    assert (info.parts, info.coverage, info.bytes) == (0, 1.0, 0) and "build" not in type_.calls
    assert it.c.search(rows(1)[0]).ids == []
    assert it.c.optimize() == 0
    it.write(range(30))
    assert it.c.indexes[0].coverage == 0.0
    it.same()
    it.c.optimize()
    assert it.c.indexes[0].coverage == 1.0
    it.c.delete(list(range(30)))
    it.same()
    it.c.optimize()
    assert it.c.indexes[0].coverage in (0.0, 1.0)
    assert it.db.check().ok


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (UnknownNameError, lambda c: c.create_index("s", "acme.other")),
        (UnknownNameError, lambda c: c.create_index("s", None)),
        (SpaceMissingError, lambda c: c.create_index("t", "acme.copies")),
        (ParameterError, lambda c: c.create_index("s", "acme.copies", m=0)),
        (ParameterError, lambda c: c.create_index("s", "acme.copies", m="3")),
        (ParameterError, lambda c: c.create_index("s", "acme.copies", n=3)),
        (ParameterError, lambda c: c.create_index("s", "acme.copies", seed=-1)),
        (ParameterError, lambda c: c.create_index("s", "acme.copies", seed=1 << 63)),
        (ParameterError, lambda c: c.create_index("s", "acme.copies", seed=1.5)),
        (ParameterError, lambda c: c.create_index("s", "acme.dot")),
        (ParameterError, lambda c: c.create_index("s", "acme.narrow")),
        (SpaceMissingError, lambda c: c.drop_index("t", "acme.copies")),
        (UnknownNameError, lambda c: c.drop_index("s", "acme.copies")),
        (UnknownNameError, lambda c: c.drop_index("s", None)),
    ],
)
def test_arguments_that_cannot_be(case, error, call):
    types = (
        CopiesType(),
        CopiesType("acme.dot", able("exact", metrics=("dot",))),
        CopiesType("acme.narrow", able("exact", max_dim=DIM - 1)),
    )
    it = case(*types)
    seq = it.db.seq
    with pytest.raises(error):
        call(it.c)
    assert it.db.seq == seq and it.c.indexes == [] and "build" not in types[0].calls


@pytest.mark.parametrize("value", ["\ud800", 1 << 70, -(1 << 70), float("inf"), float("nan"), "x" * 5000])
def test_parameters_that_cannot_be_stored(case, value):
    from vecdb.contracts import Param

    kind = type(value).__name__
    default = {"str": "", "int": 0, "float": 0.0}[kind]
    it = case(CopiesType(parameters={"p": Param(kind, default, "Anything.")}))
    with pytest.raises(ParameterError, match="'p'"):
        it.c.create_index("s", "acme.copies", p=value)
    assert it.c.indexes == [] and it.db.check().ok


def test_one_index_of_a_kind(case):
    it = case(CopiesType())
    it.index()
    with pytest.raises(ExistsError, match="has an index"):
        it.index()
    it.c.drop_index("s", "acme.copies")
    assert it.index().available


def test_not_in_a_transaction_and_not_read_only(case):
    it = case(CopiesType())
    with it.db.transaction():
        for call in (it.index, it.c.optimize):
            with pytest.raises(TransactionError):
                call()
    it.index()
    with it.db.transaction():
        it.c.drop_index("s", "acme.copies")
    assert it.c.indexes == []
    it.index()
    it.reopen(mode="r")
    for call in (it.index, it.c.optimize, lambda: it.c.drop_index("s", "acme.copies")):
        with pytest.raises(ReadOnlyError):
            call()
    it.same()


@pytest.mark.parametrize("method", ["build", "dump"])
@pytest.mark.parametrize("error", [ValueError("odd"), vecdb.DimensionError("odd")])
def test_a_plugin_that_fails_stores_nothing(case, method, error):
    type_ = CopiesType(faults={method: fail(error)})
    it = case(type_)
    with pytest.raises(PluginError, match=rf"tests\.indextypes\.Plugin.*failed in {method}.*odd"):
        it.index()
    assert it.c.indexes == [] and it.db.check().ok and it.db.stats()
    type_.faults.clear()
    assert it.index().available


@pytest.mark.parametrize("name", [1, "A b", "#ordinals"])
def test_a_blob_name_that_cannot_be_leaves_the_file_readable(case, name):
    type_ = CopiesType(faults={"dump": lambda blobs: blobs.write(name, b"x")})
    it = case(type_)
    with pytest.raises(PluginContractError, match="a blob is named"):
        it.index()
    type_.faults.clear()
    it.reopen()
    assert it.db.check().ok and it.index().available


def test_a_build_over_what_others_drop(case):
    it = case(CopiesType())

    def breaking(act):
        return lambda **given: act()

    it.types[0].faults["build"] = breaking(lambda: it.c.drop_space("s"))
    with pytest.raises(SpaceMissingError, match="was dropped while its index was built"):
        it.index()
    it.c.add_space("s", dim=DIM, metric="l2")
    it.write(range(50))
    it.types[0].faults["build"] = breaking(lambda: it.c.rename_space("s", "t"))
    with pytest.raises(SpaceMissingError):
        it.index()
    it.c.rename_space("t", "s")
    it.types[0].faults["build"] = breaking(lambda: it.db.drop_collection("c"))
    with pytest.raises(CollectionMissingError):
        it.index()
    assert it.db.check().ok


def test_auto_asks_the_plugins(case):
    answers = [None]

    class Chooser:
        @vecdb.hookimpl
        def vecdb_choose_index(self, space, count):
            answers.append((space.name, count))
            return answers[0]

    it = case(CopiesType())
    assert it.c.create_index("s", "auto").kind == "flat"
    it.registry.register(Chooser())
    answers[0] = ("acme.copies", {"m": 4})
    info = it.c.create_index("s", "auto")
    assert (info.kind, info.params, answers[-1]) == ("acme.copies", {"m": 4}, ("s", 400))
    it.c.drop_index("s", "acme.copies")
    assert it.c.create_index("s", "auto", m=6).params == {"m": 6}
    for wrong in ("acme.copies", ("acme.copies",), ("acme.copies", 3), 7):
        answers[0] = wrong
        with pytest.raises(PluginError, match="vecdb_choose_index"):
            it.c.create_index("s", "auto")
    answers[0] = ("acme.nothing", {})
    with pytest.raises(UnknownNameError):
        it.c.create_index("s", "auto")


# --- upkeep -----------------------------------------------------------------------------------------------


def test_an_index_with_add_grows_and_one_without_gets_parts(case, monkeypatch):
    monkeypatch.setattr(upkeep, "GROW_FROM", 20)
    grows, parts = CopiesType("acme.grows", able("exact", "add")), CopiesType("acme.parts", able("exact"))
    it = case(grows, parts)
    it.index("acme.grows")
    it.index("acme.parts")
    for turn in range(1, 5):
        it.write(range(1000 * turn, 1000 * turn + 30), seed=turn)
        it.c.optimize()
        found = {info.kind: info for info in it.c.indexes}
        assert (found["acme.grows"].parts, found["acme.grows"].coverage) == (1, 1.0)
        assert (found["acme.parts"].parts, found["acme.parts"].coverage) == (1 + turn if turn < 3 else turn - 2, 1.0)
        it.same()
    assert it.c.optimize() == 0 and it.db.check().ok
    it.write(range(9000, 9005))
    it.c.optimize()
    found = {info.kind: info.coverage for info in it.c.indexes}
    assert found["acme.grows"] == 1.0 > found["acme.parts"]


def test_a_third_dead_is_rebuilt(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    it.c.delete(list(range(100)))
    it.c.optimize()
    assert type_.calls["build"] == 1
    it.c.delete(list(range(100, 130)))
    it.c.optimize()
    assert type_.calls["build"] == 2 and it.c.indexes[0].stats["vectors"] == 270
    it.same()


def test_everything_dead_leaves_an_index_without_parts(case):
    it = case(CopiesType(), retention=0.0)
    it.index()
    it.c.delete(list(range(400)))
    it.c.optimize()
    assert it.c.indexes[0].parts == 0 and it.db.check().ok
    it.write(range(50))
    it.c.optimize()
    assert it.c.indexes[0].parts == 1
    it.same()


@pytest.mark.parametrize("method", ["build", "add", "dump"])
def test_upkeep_that_fails_keeps_what_was_there(case, method):
    type_ = CopiesType("acme.copies", able("exact", *(["add"] if method != "build" else [])))
    it = case(type_)
    it.index()
    if method == "build":
        it.c.delete(list(range(200)))
    it.write(range(1000, 1030))
    type_.faults[method] = fail(OSError("odd"))
    with pytest.raises(PluginError, match=f"failed in {method}"):
        it.c.optimize()
    it.same()
    assert it.c.indexes[0].parts == 1 and it.db.check().ok
    type_.faults.clear()
    it.c.optimize()
    assert it.c.indexes[0].coverage == 1.0


def test_an_index_that_was_dropped_meanwhile_is_not_missed(case, caplog):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    it.c.delete(list(range(200)))
    type_.faults["build"] = lambda **given: it.c.drop_index("s", "acme.copies")
    with caplog.at_level(logging.WARNING, "vecdb"):
        it.c.optimize()
    assert it.c.indexes == [] and it.db.check().ok and not caplog.records


def test_upkeep_of_what_changed_since_it_looked(case, caplog):
    """Blobs of a part that is gone are no damage."""
    first, second = CopiesType("acme.first"), CopiesType("acme.second")
    it = case(first, second)
    it.index("acme.first")
    it.index("acme.second")
    it.c.delete(list(range(200)))
    first.faults["build"] = lambda **given: it.c.drop_index("s", "acme.second")
    with caplog.at_level(logging.WARNING, "vecdb"):
        it.c.optimize()
    assert [info.kind for info in it.c.indexes] == ["acme.first"] and not caplog.records
    assert second.calls["build"] == 1


@pytest.mark.parametrize("how", ["drop_space", "drop_collection"])
def test_upkeep_of_what_others_drop_does_not_fail(case, how):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    it.c.delete(list(range(200)))
    type_.faults["build"] = lambda **given: it.c.drop_space("s") if how == "drop_space" else it.db.drop_collection("c")
    it.db.optimize()
    assert it.db.check().ok


def test_a_part_that_another_replaced_is_not_read_any_more(case, monkeypatch):
    """Between looking and growing somebody else is quicker: the blobs of the old part are gone."""
    type_ = CopiesType("acme.copies", able("exact", "add"))
    it = case(type_)
    it.c.delete([3])
    it.index()
    it.write(range(1000, 1030))
    real, turns = upkeep._condition, []

    def condition(*given):
        found = real(*given)
        if not turns:
            turns.append(1)
            vecdb_optimize(it.path, CopiesType("acme.copies", able("exact", "add")))
        return found

    monkeypatch.setattr(upkeep, "_condition", condition)
    it.c.optimize()
    assert it.c.indexes[0].coverage == 1.0 and it.db.check().ok


def test_another_process_that_was_quicker_wins(case):
    type_ = CopiesType()
    it = case(type_)
    it.index()
    it.c.delete(list(range(200)))
    quick = CopiesType()
    type_.faults["build"] = lambda **given: it.db and vecdb_optimize(it.path, quick)
    it.c.optimize()
    assert (type_.calls["build"], quick.calls["build"]) == (2, 1)
    assert it.c.indexes[0].parts == 1 and it.db.check().ok
    it.same()


def vecdb_optimize(path, type_):
    with vecdb.open(path, plugins=registry(type_)) as db:
        db.collection("c").optimize()


# --- codes in the commit that seals -----------------------------------------------------------------------


@pytest.fixture
def codes(tmp_path, monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")
    type_ = CopiesType("acme.codes", able("exact", "encodes_segments"))
    with vecdb.open(tmp_path / "w.vecdb", plugins=registry(type_), durability="relaxed") as db:
        c = db.create_collection("c")
        c.add_space("s", dim=WIDE, metric="dot")
        c.upsert(range(16), {"s": wide(16)}, trust=True)
        c.create_index("s", "acme.codes")
        yield c, type_


def agree(c):
    query = wide(1, 77)[0]
    found = c.search(query, 6, explain=True)
    assert found.ids == c.search(query, 6, exact=True).ids
    return dict(found.plan)


def test_a_commit_that_seals_stores_a_part(codes):
    c, type_ = codes
    c.upsert(range(100, 110), {"s": wide(10, 1)}, trust=True)
    assert c.indexes[0].parts == 1 and c.indexes[0].coverage < 1
    c.upsert(range(200, 230), {"s": wide(30, 2)}, trust=True)
    assert c.indexes[0].parts == 2 and type_.calls["encode_segment"] == 1
    assert agree(c)["parts"] == 2
    with c.database.transaction():
        for turn in range(3):
            c.upsert(range(1000 * turn + 300, 1000 * turn + 316), {"s": wide(16, turn)}, trust=True)
    assert c.indexes[0].parts >= 3
    c.upsert_many(({"ids": range(first, first + 20), "vectors": {"s": wide(20)}} for first in (9000, 9020)), trust=True)
    parts = c.indexes[0].parts
    assert parts >= 4
    with vecdb.open(c.database.path, plugins=registry(type_), durability="relaxed") as other:
        other.collection("c").upsert(range(7000, 7020), {"s": wide(20, 6)}, trust=True)
    assert c.indexes[0].parts == parts + 1
    agree(c)
    assert c.database.check().ok


def test_parts_whose_vectors_have_all_left_the_file_go_with_the_next_one(tmp_path, monkeypatch):
    """While records are replaced again and again, and upkeep has no time, parts do not pile up."""
    monkeypatch.setenv("VECDB_KERNELS", "0")
    type_ = CopiesType("acme.codes", able("exact", "encodes_segments"))
    with vecdb.open(
        tmp_path / "w.vecdb", plugins=registry(type_), durability="relaxed", retention=0, automatic=False
    ) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=WIDE, metric="dot")
        c.upsert(range(16), {"s": wide(16)}, trust=True)
        c.create_index("s", "acme.codes")
        for turn in range(12):
            c.upsert(range(30), {"s": wide(30, turn)}, trust=True)
            step = housekeeping._settle_step(c._entry(), next(iter(c._entry().spaces.values())), 0.0)
            db._store.writer.maintain(step, timeout=10)
        assert type_.calls["encode_segment"] == 12
        assert c.indexes[0].parts <= 3  # the built one, whose style the codes have, and the newest
        agree(c)
        assert db.check().ok
    with vecdb.open(tmp_path / "w.vecdb", plugins=registry(type_)) as db:
        agree(db.collection("c"))


def test_a_transaction_that_is_rolled_back_stores_none(codes):
    c, _ = codes

    def roll_back():
        with c.database.transaction():
            c.upsert(range(100, 140), {"s": wide(40, 1)}, trust=True)
            raise KeyError

    with pytest.raises(KeyError):
        roll_back()
    assert c.indexes[0].parts == 1 and c.database.check().ok
    agree(c)


@pytest.mark.parametrize(
    "error",
    [ValueError("odd"), vecdb.CancelledError("odd"), CorruptionError("odd"), PluginContractError("odd", rule="x")],
)
def test_a_plugin_that_fails_there_never_fails_the_write(codes, caplog, error):
    c, type_ = codes
    type_.faults["encode_segment"] = fail(error)
    with caplog.at_level(logging.WARNING, "vecdb"):
        c.upsert(range(100, 130), {"s": wide(30, 1)}, trust=True)
        with c.database.transaction():
            c.upsert(range(200, 230), {"s": wide(30, 2)}, trust=True)
    assert len(c) == 76 and c.indexes[0].parts == 1
    assert "has no codes of seq" in caplog.text and "odd" in caplog.text
    tried = type_.calls["encode_segment"]
    c.set_metadata([100], [{"n": 1}])
    assert type_.calls["encode_segment"] == tried  # only commits that seal try
    type_.faults.clear()
    c.upsert(range(300, 330), {"s": wide(30, 3)}, trust=True)
    assert c.indexes[0].parts == 2 and agree(c)["parts"] == 2
    assert c.database.check().ok


def test_a_plugin_that_is_missing_there_never_fails_the_write(codes):
    c, _ = codes
    path = c.database.path
    c.database.close()
    with vecdb.open(path, plugins=NONE, durability="relaxed") as db:
        db.collection("c").upsert(range(100, 130), {"s": wide(30, 1)}, trust=True)
        assert db.check().ok
    broken = CopiesType("acme.codes", able("exact", "encodes_segments"))
    broken.load = lambda *given: 3
    with vecdb.open(path, plugins=registry(broken), durability="relaxed") as db:
        db.collection("c").upsert(range(200, 230), {"s": wide(30, 1)}, trust=True)
        assert db.check().ok and db.collection("c").indexes[0].parts == 1


def test_parts_that_commits_add_during_a_rebuild_stay(codes):
    c, type_ = codes
    c.delete(list(range(8)))
    type_.faults["build"] = lambda **given: c.upsert(range(500, 540), {"s": wide(40, 3)}, trust=True)
    c.optimize()
    info = c.indexes[0]
    assert type_.calls["build"] == 2 and info.parts == 2 and info.coverage > 0.7
    agree(c)
    assert c.database.check().ok


# --- the catalog ------------------------------------------------------------------------------------------


GOOD = [3, 2, "acme.copies", {"m": 3}, 7, "acme 1.0", [[9, 1, 0, 5, 4, [["a", 10], ["#ordinals", 16]]]]]


def test_the_catalog_keeps_an_index():
    entry = index_from_plain(GOOD)
    assert entry.parts[0] == IndexPart(9, 1, 0, 5, 4, entry.parts[0].blobs) and not entry.parts[0].is_gapless
    assert index_to_plain(entry) == GOOD and entry.stop == 5 and IndexEntry(1, 1, "x").stop == 0


def changed(place, value, part=None):
    plain = [*GOOD[:6], [list(GOOD[6][0])]]
    if part is None:
        plain[place] = value
    else:
        plain[6][0][part] = value
    return plain


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        GOOD[:6],
        [*GOOD, 1],
        [*GOOD, False],
        [*GOOD, True, True],
        changed(0, -1),
        changed(0, "1"),
        changed(1, 1.5),
        changed(2, 7),
        changed(3, [1]),
        changed(3, {1: 2}),
        changed(3, {"m": [1]}),
        changed(4, None),
        changed(5, None),
        changed(6, None),
        changed(6, [[1]]),
        changed(6, [GOOD[6][0], GOOD[6][0]]),
        changed(6, 0, part=3),
        changed(6, 0, part=4),
        changed(6, 6, part=4),
        changed(6, 9, part=2),
        changed(6, [["a"]], part=5),
        changed(6, [[1, 2]], part=5),
        changed(6, [["a", -2]], part=5),
        changed(6, [["a", "b"]], part=5),
        changed(6, [["a", 1]] * 5000, part=5),
        changed(6, 7, part=5),
    ],
)
def test_a_malformed_index_makes_the_catalog_corrupt(tmp_path, plain):
    with pytest.raises((TypeError, ValueError, CorruptionError)):
        index_from_plain(plain)
    from vecdb.storage import indexes, state

    path = tmp_path / "m.vecdb"
    with vecdb.open(path, plugins=NONE) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=DIM, metric="l2")
        c.upsert([1], {"s": rows(1)})
        c.create_index("s", "flat")
    with pytest.MonkeyPatch.context() as patch:
        for module in (indexes, state):
            if hasattr(module, "index_to_plain"):
                patch.setattr(module, "index_to_plain", lambda index: plain)
        with vecdb.open(path, plugins=NONE) as db:
            db.create_collection("d")
    with pytest.raises(CorruptionError), vecdb.open(path, plugins=NONE) as db:
        db.collections()


# --- hooks ------------------------------------------------------------------------------------------------


def test_each_opening_and_each_commit_is_told_once(tmp_path):
    listener = Listener()
    given = registry(CopiesType("acme.codes", able("exact", "add")), plugins=[listener])
    with vecdb.open(tmp_path / "h.vecdb", plugins=given) as db:
        assert listener.opened == [db] and listener.committed == []
        c = db.create_collection("c")
        c.add_space("s", dim=DIM, metric="l2")
        c.upsert(range(50), {"s": rows(50)})
        assert listener.committed == [1, 2, 3]
        with db.transaction():
            c.delete([1])
            c.upsert([2], {"s": rows(1)})
            assert listener.committed == [1, 2, 3]
        assert listener.committed == [1, 2, 3, 4]
        with contextlib.suppress(KeyError), db.transaction():
            c.delete([3])
            raise KeyError
        with db.transaction():
            pass
        with db.transaction():
            c.get([5])
        assert listener.committed == [1, 2, 3, 4] and db.seq == 4
        c.create_index("s", "acme.codes")
        c.upsert([60], {"s": rows(1)})
        c.optimize()
        db.compact()
        c.drop_index("s", "acme.codes")
        assert listener.committed == list(range(1, db.seq + 1)) and listener.opened == [db]
        c.upsert_many({"ids": [turn], "vectors": {"s": rows(1)}} for turn in range(3))
        assert listener.committed == list(range(1, db.seq + 1))
        with vecdb.open(tmp_path / "h.vecdb", plugins=given) as other:
            assert listener.opened == [db, other]


def test_a_plugin_that_is_loaded_by_a_search_is_told_of_the_database(case, monkeypatch):
    from vecdb import registry as registries

    it = case(CopiesType())
    it.index()
    it.db.close()
    listener, plugin = Listener(), Plugin(CopiesType())
    points = [(registries._Source("one"), lambda: listener), (registries._Source("two"), lambda: plugin)]
    monkeypatch.setattr(registries, "_installed", lambda allow: iter(points))
    with vecdb.open(it.path, mode="r", plugins=vecdb.PluginRegistry(allow=["one", "two"])) as db:
        assert listener.opened == []
        assert dict(db.collection("c").search(rows(1)[0], explain=True).plan)["index"] == "acme.copies"
        assert listener.opened == [db]


def test_hooks_that_raise_are_logged_and_harmless(tmp_path, caplog):
    class Bad:
        @vecdb.hookimpl
        def vecdb_database_opened(self, database):
            raise ValueError("opened badly")

        @vecdb.hookimpl
        def vecdb_committed(self, database, seq):
            if seq == 3:
                database.close()
            raise ValueError(f"committed badly {seq}")

    bad = registry(plugins=[Bad()])
    with caplog.at_level(logging.ERROR, "vecdb"), vecdb.open(tmp_path / "h.vecdb", plugins=bad) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=DIM, metric="l2")
        assert db.seq == 2
        c.upsert([1], {"s": rows(1)})
        assert db.closed
    for text in ("opened badly", "committed badly 1", "committed badly 3", "Bad' failed in vecdb_committed"):
        assert text in caplog.text
    with vecdb.open(tmp_path / "h.vecdb", plugins=NONE) as db:
        assert db.collection("c").get([1])[0].id == 1


def test_a_database_closed_by_another_thread_before_the_hook_is_told(case, monkeypatch):
    listener = Listener()
    it = case(CopiesType())
    it.registry.register(listener)
    real = it.db._commit

    def commit(*given):
        result = real(*given)
        it.db.close()
        return result

    monkeypatch.setattr(it.db, "_commit", commit)
    it.c.upsert([1], {"s": rows(1)})
    assert it.db.closed and listener.committed == []


def test_threads_that_open_at_once_are_each_told_once(tmp_path):
    listener = Listener()
    given = registry(plugins=[listener])
    gate, made = threading.Barrier(6), []

    def work():
        gate.wait()
        with vecdb.open(tmp_path / "h.vecdb", plugins=given) as db:
            made.append(db)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(listener.opened) == len(set(map(id, listener.opened))) == 6


@pytest.mark.parametrize("plugins", ["acme", b"acme", 7, object()])
def test_plugins_that_are_none(tmp_path, plugins):
    with pytest.raises(ParameterError, match="plugins is"):
        vecdb.open(tmp_path / "h.vecdb", plugins=plugins)
    assert not (tmp_path / "h.vecdb").exists()


def test_plugins_as_several_objects(tmp_path, monkeypatch):
    monkeypatch.setenv("VECDB_PLUGINS", "")
    type_ = CopiesType()
    for plugins in ([Plugin(type_)], (each for each in [Plugin(type_)]), {Plugin(type_)}):
        with vecdb.open(tmp_path / "h.vecdb", plugins=plugins) as db:
            assert "acme.copies" in db.plugins.names("index type")
    with vecdb.open(tmp_path / "h.vecdb") as db:
        assert "flat" in db.plugins.names("index type") and "acme.copies" not in db.plugins.names("index type")
    for wrong in (["acme"], [None], [7]):
        with pytest.raises(vecdb.VecdbError, match="plugin"):
            vecdb.open(tmp_path / "h.vecdb", plugins=wrong)


@pytest.mark.parametrize(("dtype", "large"), [("float32", "graph"), ("float16", "graph"), ("int8", "ivf")])
def test_what_a_large_space_gets_can_read_its_vectors(dtype, large):
    """A graph walks over vectors where they lie, which it cannot do with int8."""
    shop = SimpleNamespace(registry=SimpleNamespace(choose=lambda hook, **facts: None))
    space = SimpleNamespace(dim=384, dtype=dtype)
    assert indexing.choose_kind(shop, space, indexing.CODES_UP_TO, {}) == ("rabitq", {})
    assert indexing.choose_kind(shop, space, indexing.CODES_UP_TO + 1, {}) == (large, {})
    assert indexing.choose_kind(shop, space, 10, {}) is None
