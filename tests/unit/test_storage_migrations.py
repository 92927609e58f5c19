"""What the file keeps of migrations: it comes back as it was, and damage is named, never believed."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from vecdb.errors import CorruptionError
from vecdb.storage import migrations as stored
from vecdb.storage import state
from vecdb.storage.env import Environment
from vecdb.storage.format import pack_sealed, unpack_sealed
from vecdb.storage.migrations import (
    MAX_FAILURES,
    MAX_TRAFFIC,
    STATES,
    StoredMigration,
    active_migration,
    find_migration,
    held_tags,
    migrations_key,
    read_migrations,
    tag_of,
    write_migrations,
)

ONE = StoredMigration(
    1, 2, 3, ("old", "new"), "encode", "texts", "novelty", {"weight": 1.0}, 256, 0.03, 0, 5, 100, 7, 1.5
)


class Table:
    """As much of a transaction as one value needs."""

    def __init__(self):
        self.values = {}

    def get(self, table, key):
        return self.values.get((table, key))

    def put(self, table, key, value):
        self.values[table, key] = value


texts = st.text(max_size=20)
counts = st.integers(0, 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
ranges = st.lists(st.integers(0, 2**40), unique=True, max_size=8).map(
    lambda numbers: tuple(zip(sorted(numbers)[::2], sorted(numbers)[1::2], strict=False))
)
entries = st.builds(
    StoredMigration,
    st.integers(1, 2**32 - 1),
    counts,
    counts,
    st.tuples(texts, texts),
    texts,
    texts,
    texts,
    st.dictionaries(texts, st.one_of(st.booleans(), floats, texts, st.integers(-(2**63), 2**63 - 1)), max_size=3),
    counts,
    floats,
    counts,
    counts,
    counts,
    counts,
    floats,
    st.sampled_from(STATES),
    texts,
    ranges,
    counts,
    floats,
    st.lists(st.tuples(counts, counts, texts), max_size=4).map(tuple),
    st.dictionaries(texts, floats, max_size=3),
    floats,
    st.lists(st.tuples(counts, counts), max_size=4).map(tuple),
)


@given(entries, st.integers(1, 2**32 - 1))
def test_what_was_written_is_read(entry, collection):
    table = Table()
    assert read_migrations(table, collection) == ()
    write_migrations(table, collection, [entry])
    assert read_migrations(table, collection) == (entry,)
    assert (active_migration(table, collection) is not None) == entry.active
    assert bool(held_tags(table, [collection])) == entry.active
    assert read_migrations(table, collection - 1) == ()


def test_the_active_one_is_the_last():
    table = Table()
    over, running = replace(ONE, state="rolled back"), replace(ONE, number=2)
    write_migrations(table, 9, [over, running])
    assert active_migration(table, 9) == running and held_tags(table, [8, 9]) == {"before-migration-9-2": 9}
    assert find_migration([over, running], 1) == over and find_migration([over], 5) is None
    assert tag_of(9, 2) == "before-migration-9-2"
    write_migrations(table, 9, [running, over])
    with pytest.raises(CorruptionError, match="several"):
        read_migrations(table, 9)


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 0},
        {"number": -1},
        {"source": "old"},
        {"batch": 2.5},
        {"state": "half way"},
        {"paused": None},
        {"names": ("old",)},
        {"names": 5},
        {"policy": 7},
        {"params": [1]},
        {"canary": float("nan")},
        {"time": "now"},
        {"written": ((5, 5),)},
        {"written": ((9, 12), (3, 5))},
        {"written": ((3, 8), (7, 9))},
        {"written": ((1, 2, 3),)},
        {"written": 5},
        {"failed": ((1, 2),)},
        {"failed": ((-1, 2, "why"),)},
        {"measured": {"found": "much"}},
        {"measured": []},
        {"traffic": ((1, 2, 3),)},
        {"traffic": 7},
    ],
)
def test_what_cannot_be_is_damage(changes):
    table, key = Table(), migrations_key(1)
    plain = [changes.get(each.name, getattr(ONE, each.name)) for each in fields(StoredMigration)]
    table.values["meta", key] = pack_sealed(key, [plain])
    with pytest.raises(CorruptionError):
        read_migrations(table, 1)


@pytest.mark.parametrize("plain", [5, [5], [[]], {"a": 1}, [[1] * 30], None])
def test_other_shapes_are_damage(plain):
    table, key = Table(), migrations_key(1)
    table.values["meta", key] = pack_sealed(key, plain)
    with pytest.raises(CorruptionError):
        read_migrations(table, 1)


def test_a_value_of_another_collection_is_damage():
    table = Table()
    write_migrations(table, 1, [ONE])
    table.values["meta", migrations_key(2)] = table.values["meta", migrations_key(1)]
    with pytest.raises(CorruptionError):
        read_migrations(table, 2)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30))
def test_ranges_hold_what_was_written_and_nothing_else(steps):
    """Batches of the migration with those of others between them."""
    entry, place, mine = ONE, 0, []
    for count, others in steps:
        entry = entry.with_written(place, count, 0.25)
        mine += range(place, place + count)
        place += count + others
    assert [number for first, stop in entry.written for number in range(first, stop)] == mine
    assert entry.done == len(mine) and entry.seconds == 0.25 * len(steps)
    flat = [number for each in entry.written for number in each]
    assert flat == sorted(set(flat))


def test_failures_are_counted_and_bounded():
    entry = ONE.with_failures({5: "empty"}).with_failures({5: "empty again", 6: "x" * 5000})
    assert (
        entry.failed[0] == (5, 2, "empty again") and entry.failed[1][:2] == (6, 1) and len(entry.failed[1][2]) == 1000
    )
    assert len(ONE.with_failures({number: "" for number in range(5000)}).failed) == MAX_FAILURES


def test_traffic_keeps_those_with_the_most_hits():
    entry = ONE.with_traffic({5: 2, 6: 1}).with_traffic({6: 4, 9: 1})
    assert entry.traffic == ((6, 5), (5, 2), (9, 1))
    full = ONE.with_traffic({row: row for row in range(1, 5000)})
    assert len(full.traffic) == MAX_TRAFFIC and full.traffic[0] == (4999, 4999)


def test_states_are_what_they_say():
    assert [replace(ONE, state=each).active for each in STATES] == [True] * 5 + [False] * 2


# --- in a file --------------------------------------------------------------------------------------------


def test_check_misses_the_tag_of_an_active_migration(tmp_path):
    path = tmp_path / "a.vecdb"
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=2)
        docs.add_space("new", dim=2)
        docs.upsert(["a"], {"old": np.ones((1, 2))}, texts=["a"])
        docs.migrate("old", "new")
        assert db.check().ok and db.check().counts["migrations"] == 1
    env = Environment(path, readonly=False, durability="full", map_size=None, timeout=5.0, create=None)
    env.open()
    tx = env.begin_write()
    catalog = state.read_catalog(tx)
    state.write_catalog(tx, replace(catalog, tags={}))
    env.commit(tx)
    env.close()
    with vecdb.open(path) as db:
        assert any("has lost its spaces or its tag" in problem for problem in db.check().problems)


def test_check_finds_a_damaged_entry(tmp_path):
    path = tmp_path / "a.vecdb"
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=2)
        docs.add_space("new", dim=2)
        docs.migrate("old", "new")
        number = docs._number
    env = Environment(path, readonly=False, durability="full", map_size=None, timeout=5.0, create=None)
    env.open()
    tx = env.begin_write()
    key = migrations_key(number)
    plain = unpack_sealed(key, tx.get("meta", key), "migrations")
    plain[0][0] = "first"
    tx.put("meta", key, pack_sealed(key, plain))
    env.commit(tx)
    env.close()
    with vecdb.open(path) as db:
        assert any("migration" in problem for problem in db.check().problems)
        with pytest.raises(CorruptionError):
            db.collection("docs").migration()
        assert db.collection("docs").count() == 0  # the rest of the file is as it was
    assert stored.ACTIVE[0] == "prepared"
