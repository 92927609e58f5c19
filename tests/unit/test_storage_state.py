"""What the file says of itself: header, catalog, counters, counts (vecdb/storage/state.py), and records by id."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import CorruptionError, FormatVersionError, NotADatabaseError
from vecdb.storage import state
from vecdb.storage.env import Environment
from vecdb.storage.format import encode_record, pack_body, pack_sealed, u64
from vecdb.storage.history import (
    changes_after,
    forget_collection,
    forget_commit,
    images_of,
    read_image,
    write_change,
    write_image,
)
from vecdb.storage.idkeys import id_key
from vecdb.storage.records import (
    find_row,
    find_rows,
    id_place,
    id_places,
    iterate_rows,
    read_metadatas,
    read_record,
    record_key,
    stored_bytes,
)
from vecdb.storage.state import (
    CATALOG,
    HEADER,
    STATE,
    Catalog,
    CollectionEntry,
    CollectionState,
    Counters,
    SpaceCounts,
    Tag,
    collection_key,
)
from vecdb.storage.tx import ascending
from vecdb.types import Space


@pytest.fixture
def tx(tmp_path):
    env = Environment(
        tmp_path / "x.vecdb",
        readonly=False,
        durability="relaxed",
        map_size=None,
        timeout=5.0,
        create=state.create_header,
    )
    env.open()
    tx = env.begin_write()
    yield tx
    env.abort(tx)
    env.close()
    env.writer_lock.abandon()


SPACES = {
    space.name: space for space in (Space("a", 3, id=1), Space("b", 65_536, "l2", "float16", "m", "2", "query", 9))
}
CATALOG_VALUE = Catalog(
    {"docs": CollectionEntry(4, "docs", SPACES), "é": CollectionEntry(2, "é")},
    {"t": Tag(7, 1.5)},
    next_collection=5,
    next_space=10,
)


def test_a_new_file(tx):
    assert state.read_counters(tx) == Counters()
    assert state.read_catalog(tx) == Catalog()
    header = state.read_header(tx, "x")
    assert header["magic"] == "vecdb" and header["format"] == 1


def test_values_survive(tx):
    counters = Counters(9, 7, 3, 100, 200, 12345)
    state.write_counters(tx, counters)
    assert state.read_counters(tx) == counters
    state.write_catalog(tx, CATALOG_VALUE)
    assert state.read_catalog(tx) == CATALOG_VALUE
    assert list(state.read_catalog(tx).collections["docs"].spaces) == ["a", "b"]
    counts = CollectionState(9, 50, 40, 7, {1: SpaceCounts(30, 20, 5, 25, 2, 10, (1.5, 3.0)), 9: SpaceCounts()})
    state.write_collection(tx, 4, counts)
    assert state.read_collection(tx, 4) == counts
    with pytest.raises(CorruptionError):
        state.read_collection(tx, 5)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        5,
        [],
        {},
        {"next": [1, 1], "tags": {}, "collections": [[1]]},
        {"next": [1], "tags": {}, "collections": [[1, "x", [[]]]]},
        {"next": [1, 1], "tags": {"t": 5}, "collections": []},
        {"next": [1, 1], "tags": {}, "collections": [[1, "x", [["s", 3, "manhattan", "float32", "", "", "both", 1]]]]},
        {"next": [1, 1], "tags": {}, "collections": [[1, "x", [["s", 0, "l2", "float32", "", "", "both", 1]]]]},
        {"next": [1, 1], "tags": {}, "collections": [[1, "x", [["s", 70_000, "l2", "float32", "", "", "both", 1]]]]},
        {"next": [1, 1], "tags": {}, "collections": [[1, "x", [["s", "3", "l2", "float32", "", "", "both", 1]]]]},
        {"next": [1, 1], "tags": {}, "collections": [[1, "x", [["s", 3, "l2", "object", "", "", "both", 1]]]]},
    ],
)
def test_catalogs_of_a_wrong_shape(tx, plain):
    tx.put("meta", CATALOG, pack_sealed(CATALOG, plain))
    with pytest.raises(CorruptionError):
        state.read_catalog(tx)


@pytest.mark.parametrize("plain", [None, [], [1, 2], {"seq": 1}, "x"])
def test_counters_of_a_wrong_shape(tx, plain):
    tx.put("meta", STATE, pack_sealed(STATE, plain))
    with pytest.raises(CorruptionError):
        state.read_counters(tx)


@pytest.mark.parametrize(
    "plain", [None, [], [1, 2, 3, 4], [1, 2, 3, 4, [[1, [1]]]], [1, 2, 3, 4, [1]], [1, 2, 3, 4, 5]]
)
def test_counts_of_a_wrong_shape(tx, plain):
    key = collection_key(3)
    tx.put("meta", key, pack_sealed(key, plain))
    with pytest.raises(CorruptionError):
        state.read_collection(tx, 3)


def test_lost_values(tx):
    for key, read in ((STATE, state.read_counters), (CATALOG, state.read_catalog)):
        tx.delete("meta", key)
        with pytest.raises(CorruptionError):
            read(tx)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (None, NotADatabaseError),
        ({"magic": "other", "format": 1}, NotADatabaseError),
        ("vecdb", NotADatabaseError),
        ({"magic": "vecdb", "format": 2, "uuid": "x"}, FormatVersionError),
        ({"magic": "vecdb", "uuid": "x"}, FormatVersionError),
    ],
)
def test_headers_of_something_else(tx, header, error):
    if header is None:
        tx.delete("meta", HEADER)
    else:
        tx.put("meta", HEADER, pack_sealed(HEADER, header))
    with pytest.raises(error):
        state.read_header(tx, "x")


# --- records and ids --------------------------------------------------------------------------------------


def put(tx, collection, row, key, text="t", version=1):
    place = record_key(collection, row)
    value = encode_record(place, version, {1: row}, id_key(key), pack_body({"row": row}, text, 0))
    tx.put("records", place, value)
    tx.put("ids", id_place(collection, id_key(key)), u64(row))
    return value


def test_records_are_found_by_id_and_by_row(tx):
    for row, key in enumerate(["a", "é", 5, "5", -1]):
        put(tx, 7, row, key)
        put(tx, 8, row + 100, key)
    keys = [id_key(key) for key in ("5", "nope", 5, "a", -1, "5")]
    assert find_rows(tx, 7, keys) == [3, None, 2, 0, 4, 3]
    assert find_rows(tx, 8, keys[:1]) == [103] and find_rows(tx, 7, []) == [] and find_row(tx, 9, keys[0]) is None
    assert read_record(tx, 7, 2).id == 5 and read_record(tx, 8, 103).content() == ({"row": 103}, "t")
    assert [row for row, _, _ in iterate_rows(tx, 7)] == [0, 1, 2, 3, 4]
    assert [row for row, _, _ in iterate_rows(tx, 8, 103)] == [103, 104]


def test_ids_put_together_in_any_order_are_found_together(tx):
    rng = np.random.default_rng(0)
    for collection in range(1, 40):  # each lies behind the one before it, so that the first batch is appended
        numbers = rng.permutation(30)[: rng.integers(0, 30)].tolist()
        half = len(numbers) // 2
        for part in (numbers[:half], sorted(numbers[half:])):
            keys = id_places(collection, [id_key(number) for number in part])
            tx.put_all("ids", keys, [u64(number + collection) for number in part])
        asked = rng.permutation(60)[: rng.integers(0, 20)].tolist()
        found = find_rows(tx, collection, [id_key(number) for number in asked])
        assert found == [number + collection if number in numbers else None for number in asked]


@given(st.lists(st.binary(max_size=3)))
def test_what_ascends(keys):
    assert ascending(keys) == (keys == sorted(set(keys)))


def test_whether_keys_lie_between(tx):
    for key in (b"b", b"d"):
        tx.put("ids", key, b"x")
    for first, last, there in ((b"a", b"aa", 0), (b"a", b"b", 1), (b"c", b"c", 0), (b"c", b"z", 1), (b"e", b"z", 0)):
        assert tx.any_between("ids", first, last) == bool(there)


def test_metadata_of_many_records(tx):
    for row in range(6):
        put(tx, 7, row, row)
    assert read_metadatas(tx, 7, [4, 0, 5]) == [{"row": 4}, {"row": 0}, {"row": 5}] and read_metadatas(tx, 7, []) == []
    with pytest.raises(CorruptionError, match="row 6 is missing"):
        read_metadatas(tx, 7, [1, 6, 2])
    tx.put("records", record_key(7, 2), stored_bytes(tx, 7, 3))
    with pytest.raises(CorruptionError, match="checksum"):
        read_metadatas(tx, 7, [1, 2])


def test_a_run_of_keys_is_listed_and_deleted(tx):
    keys = [b"a1", b"b1", b"b2", b"b3", b"c1"]
    for key in keys:
        tx.put("columns", key, b"x")
    assert tx.keys("columns", b"b") == keys[1:4] and tx.keys("columns", b"d") == []
    tx.delete_run("columns", keys[1:4])
    tx.delete_run("columns", [])
    assert tx.keys("columns", b"") == [b"a1", b"c1"]


def test_damaged_records_and_ids(tx):
    value = put(tx, 7, 1, "a")
    for read in (read_record, stored_bytes):
        with pytest.raises(CorruptionError):
            read(tx, 7, 2)
    tx.put("records", record_key(7, 2), value)  # a sound record in another's place
    with pytest.raises(CorruptionError):
        read_record(tx, 7, 2)
    tx.put("ids", id_place(7, id_key("a")), b"short")
    with pytest.raises(CorruptionError):
        find_row(tx, 7, id_key("a"))


# --- history ----------------------------------------------------------------------------------------------


def test_the_first_image_of_a_commit_wins(tx):
    first, second = put(tx, 7, 1, "a", "one"), put(tx, 7, 1, "a", "two", 2)
    assert write_image(tx, 7, 1, 5, first) > len(first)
    assert write_image(tx, 7, 1, 5, second) == 0
    write_image(tx, 7, 1, 6, second)
    assert read_image(tx, 7, 1, 5) == first and images_of(tx, 7, 1) == [(5, first), (6, second)]
    for collection, row, seq in ((7, 1, 4), (7, 2, 5), (8, 1, 5)):
        with pytest.raises(CorruptionError):
            read_image(tx, collection, row, seq)


def test_changes_are_listed_and_forgotten(tx):
    value = put(tx, 7, 1, "a")
    for seq in (3, 5, 6):
        write_image(tx, 7, 1, seq, value)
        write_change(tx, 7, seq, CollectionState(1, 10 + seq, seq, 0, {1: SpaceCounts(seq, 2)}), [1], 100)
    write_change(tx, 8, 4, CollectionState(), [], 7)
    found = changes_after(tx, 7, 3)
    assert [(change.seq, change.next_row, change.live, change.rows.tolist()) for change in found] == [
        (5, 15, 5, [1]),
        (6, 16, 6, [1]),
    ]
    assert found[0].spaces == {1: (5, 2)}
    assert forget_commit(tx, 7, 3) == 100 and forget_commit(tx, 7, 3) == 0
    assert [seq for seq, _ in images_of(tx, 7, 1)] == [5, 6]
    assert forget_collection(tx, 7) == 200
    assert changes_after(tx, 7, 0) == [] and images_of(tx, 7, 1) == [] and len(changes_after(tx, 8, 0)) == 1


def test_history_beyond_its_budget_is_forgotten_inside_the_window(tmp_path, monkeypatch):
    """Untagged history takes at most a floor, or half of the data; a tag keeps what it names."""
    import numpy as np

    import vecdb

    with vecdb.open(tmp_path / "x.vecdb", durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=64, metric="l2")
        for turn in range(20):
            docs.upsert(range(50), {"s": np.full((50, 64), turn + 1.0)}, trust=True)
        assert db.stats()["oldest_seq"] == 0
        monkeypatch.setattr("vecdb.storage.writetx.HISTORY_FLOOR", 1_000)
        monkeypatch.setattr("vecdb.storage.writetx.WriteTx._data_bytes", lambda self: 0)
        for turn in range(5):
            docs.upsert(range(50), {"s": np.full((50, 64), turn + 50.0)}, trust=True)
        assert db.stats()["oldest_seq"] > 0
        kept = db.tag("kept")
        for turn in range(30):
            docs.upsert(range(50), {"s": np.full((50, 64), turn + 90.0)}, trust=True)
        assert db.stats()["oldest_seq"] <= kept and docs.count(as_of="kept") == 50
