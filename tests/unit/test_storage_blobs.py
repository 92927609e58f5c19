"""Named blobs in pieces: what goes in comes out, and nothing else is believed."""

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from vecdb.contracts.blobs import as_bytes
from vecdb.engine.blobstore import BlobCollector, StoredBlobs
from vecdb.errors import CorruptionError, PluginContractError
from vecdb.storage import blobs, indexes
from vecdb.storage.blobs import (
    MAX_BLOBS,
    BlobData,
    BlobLine,
    drop_blobs,
    prove_blobs,
    read_blob,
    stored_bytes_of,
    write_blobs,
)
from vecdb.storage.env import Environment
from vecdb.storage.format import BLOCK_CLASSES
from vecdb.storage.indexes import ORDINALS, IndexPart
from vecdb.storage.state import create_header

ROOMS = [blobs.room(each) for each in BLOCK_CLASSES]
LENGTHS = sorted({0, 1, 7, *(room + more for room in ROOMS for more in (-1, 0, 1)), 2 * ROOMS[-1], 2 * ROOMS[-1] + 1})


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    path = tmp_path_factory.mktemp("blobs") / "b.vecdb"
    env = Environment(path, readonly=False, durability="relaxed", map_size=None, timeout=1.0, create=create_header)
    env.open()
    yield env
    env.close()


@contextlib.contextmanager
def writing(env):
    """Yield a write transaction that is thrown away."""
    tx = env.begin_write()
    try:
        yield tx
    finally:
        env.abort(tx)


def content(length, seed=0):
    return np.random.default_rng((length, seed)).bytes(length)


@pytest.mark.parametrize("length", LENGTHS)
def test_round_trip_at_the_boundaries_of_pieces(env, length):
    with writing(env) as tx:
        lines = write_blobs(
            tx, 5, [BlobData("x", memoryview(content(length))), BlobData("y", memoryview(content(length, 1)))]
        )
        assert lines == (BlobLine("x", length), BlobLine("y", length))
        assert [read_blob(tx, 5, place, line) for place, line in enumerate(lines)] == [
            content(length),
            content(length, 1),
        ]
        count = prove_blobs(tx, 5, lines)
        assert count == tx.entries("blobs")["entries"] == 2 * -(-length // ROOMS[-1])
        stored = sum(len(bytes(value)) + 16 for _, value in tx.range("blobs", b""))
        assert stored == stored_bytes_of(lines)
        assert all(len(bytes(value)) + 16 in BLOCK_CLASSES for _, value in tx.range("blobs", b""))
        assert drop_blobs(tx, 5) == count and not tx.entries("blobs")["entries"]


@given(lengths=st.lists(st.integers(0, 300_000), max_size=5))
def test_a_set_of_any_blobs(env, lengths):
    with writing(env) as tx:
        lines = write_blobs(
            tx, 9, [BlobData(str(place), memoryview(content(length))) for place, length in enumerate(lengths)]
        )
        assert [read_blob(tx, 9, *each) for each in enumerate(lines)] == [content(length) for length in lengths]


def test_sets_do_not_touch_each_other(env):
    with writing(env) as tx:
        sets = {
            number: write_blobs(tx, number, [BlobData("x", memoryview(content(10, number)))])
            for number in (1, 2, 1 << 40)
        }
        drop_blobs(tx, 2)
        assert read_blob(tx, 1, 0, sets[1][0]) == content(10, 1)
        assert read_blob(tx, 1 << 40, 0, sets[1 << 40][0]) == content(10, 1 << 40)
        with pytest.raises(CorruptionError, match="has lost its piece 0"):
            read_blob(tx, 2, 0, sets[2][0])


LONG = 2 * ROOMS[-1] + 500


def stored(tx):
    return {bytes(key): bytes(value) for key, value in tx.range("blobs", b"")}


def test_a_missing_a_misplaced_a_damaged_and_a_cut_piece(env):
    with writing(env) as tx:
        (line,) = write_blobs(tx, 5, [BlobData("x", memoryview(content(LONG)))])
        pieces = list(stored(tx).items())
        assert len(pieces) == 3

        def refused(key, value, match):
            before = bytes(tx.get("blobs", key))
            if value is None:
                tx.delete("blobs", key)
            else:
                tx.put("blobs", key, value)
            for attempt in (lambda: read_blob(tx, 5, 0, line), lambda: prove_blobs(tx, 5, [line])):
                with pytest.raises(CorruptionError, match=match) as caught:
                    attempt()
                assert caught.value.what == "index blob"
            tx.put("blobs", key, before)

        for key, value in pieces:
            refused(key, None, "has lost its piece")
            refused(key, value[:-1], "checksum")
            refused(key, b"", "checksum")
            refused(key, value[:9] + bytes([value[9] ^ 1]) + value[10:], "checksum")
        refused(pieces[0][0], pieces[1][1], "checksum")
        for name, (key, value) in (("longer", pieces[0]), ("shorter", pieces[2])):
            wrong = blobs.seal(key, value[8:-1] if name == "shorter" else value[8:] + b"x")
            refused(key, wrong, "wrong length")
        assert read_blob(tx, 5, 0, line) == content(LONG)


@pytest.mark.parametrize("length", [LONG + (1 << 20), 1 << 40, 1 << 62, (1 << 63) - 1])
def test_a_claimed_length_that_is_a_lie_allocates_nothing(env, length):
    with writing(env) as tx:
        write_blobs(tx, 5, [BlobData("x", memoryview(content(LONG)))])
        line = BlobLine("x", length)
        tracemalloc.start()
        try:
            with pytest.raises(CorruptionError):
                read_blob(tx, 5, 0, line)
            with pytest.raises(CorruptionError):
                StoredBlobs(tx, IndexPart(5, 1, 0, 1, 1, (line,))).array("x", np.uint8, (-1,))
            assert stored_bytes_of([line]) > length
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1 << 20
        with pytest.raises(CorruptionError):
            prove_blobs(tx, 5, [line])


# --- as plugins see them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "é", "#ordinals", "x" * 65, "a/b", "a\n", None, 3, b"a", ("a",), object()]
)
def test_names_that_no_blob_may_have(name):
    collector = BlobCollector()
    with pytest.raises(PluginContractError, match="a blob is named") as caught:
        collector.write(name, b"x")
    assert caught.value.rule == "blobs" and collector.blobs == []


@pytest.mark.parametrize("name", ["a", "x" * 64, "a.b_c-9", "0", np.str_("numpy")])
def test_names_that_a_blob_may_have(name):
    collector = BlobCollector()
    collector.write(name, b"x")
    assert type(collector.blobs[0][0]) is str


def test_a_name_twice_and_too_many():
    collector = BlobCollector()
    collector.write("a", b"")
    with pytest.raises(PluginContractError, match="written twice"):
        collector.write("a", b"")
    for place in range(1, MAX_BLOBS):
        collector.write(str(place), b"")
    with pytest.raises(PluginContractError, match=f"more than {MAX_BLOBS}"):
        collector.write("z", b"")


@pytest.mark.parametrize(
    "data",
    [
        "text",
        None,
        5,
        [1, 2],
        np.arange(6).reshape(2, 3).T,
        np.arange(6)[::2],
        np.array([None]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, [("a", "i4"), ("b", "O")]),
    ],
)
def test_data_that_are_not_plain_contiguous_bytes(data):
    with pytest.raises(PluginContractError, match="the blob 'a' is given") as caught:
        BlobCollector().write("a", data)
    assert caught.value.rule == "blobs"


@pytest.mark.parametrize(
    "data",
    [
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abc"),
        b"",
        np.arange(6).reshape(2, 3),
        np.zeros((0, 3)),
        np.zeros((2, 0)),
        np.float16([1, 2]),
        np.array(7.0),
        np.array([True]),
        np.arange(3, dtype=np.uint64),
        np.zeros(2, ">f4"),
    ],
)
def test_data_that_are(data):
    collector = BlobCollector()
    collector.write("a", data)
    assert bytes(collector.blobs[0][1]) == (data.tobytes() if isinstance(data, np.ndarray) else bytes(data))
    assert as_bytes(data).format == "B"


@pytest.fixture
def reader(env):
    with writing(env) as tx:
        numbers = np.arange(12, dtype=np.float32)
        items = [
            BlobData("numbers", as_bytes(numbers)),
            BlobData("empty", memoryview(b"")),
            BlobData(ORDINALS, memoryview(b"12345678")),
        ]
        lines = write_blobs(tx, 5, items)
        yield StoredBlobs(tx, IndexPart(5, 1, 0, 20, 2, lines))


def test_reading_back(reader):
    assert reader.names() == ["numbers", "empty"]
    assert (reader.size("numbers"), reader.size("empty")) == (48, 0)
    assert reader.read("empty") == b"" and len(reader.read("numbers")) == 48
    for shape in ((12,), (3, 4), (3, -1), (-1, 2), (1, 12, 1)):
        found = reader.array("numbers", np.float32, shape)
        assert np.array_equal(found.ravel(), np.arange(12)) and not found.flags.writeable
    assert reader.array("empty", np.int64, (0, 3)).shape == (0, 3)
    assert reader.array("numbers", np.uint8, (48,)).dtype == np.uint8


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (np.float32, (13,)),
        (np.float32, (11,)),
        (np.float64, (12,)),
        (np.float32, (-1, -1)),
        (np.float32, (5, -1)),
        (np.float32, (0, -1)),
        (np.float32, ()),
        (np.float32, (1 << 62, 1 << 62)),
        (np.float32, (-2, -6)),
    ],
)
def test_an_array_that_does_not_fit_is_damage(reader, dtype, shape):
    with pytest.raises(CorruptionError, match="which is not"):
        reader.array("numbers", dtype, shape)


def test_no_objects_and_nothing_of_the_engine(reader):
    with pytest.raises(PluginContractError, match="as objects"):
        reader.array("numbers", object, (6,))
    for name in (ORDINALS, "other"):
        for ask in (reader.size, reader.read, lambda name: reader.array(name, np.uint8, (-1,))):
            with pytest.raises(CorruptionError, match="is not there"):
                ask(name)


def test_the_most_blobs_with_gaps_can_be_read_again(tmp_path):
    """The engine's own blob comes on top of those of the plugin; a catalog that refuses it would lose everything."""
    from tests.indextypes import CopiesType, registry

    class Many(CopiesType):
        def build(self, view, params, **options):
            index = super().build(view, params, **options)
            index.dump = lambda blobs: [blobs.write(str(place), b"") for place in range(MAX_BLOBS)]
            return index

    path = tmp_path / "m.vecdb"
    with vecdb.open(path, plugins=registry(Many())) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=2, metric="l2")
        c.upsert([1, 2, 3], {"s": np.eye(3, 2) + 1})
        c.delete([2])
        c.create_index("s", "acme.copies")
    with vecdb.open(path, mode="r", plugins=registry(Many())) as db:
        assert db.collection("c").indexes[0].parts == 1
        assert db.check().ok


# --- ordinals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ordinals", "first", "stop"),
    [
        ([0, 1, 2], 0, 3),
        ([5, 6], 5, 7),
        ([5, 7], 5, 9),
        ([0], 0, 1 << 20),
        ([3, (1 << 32) + 2], 3, (1 << 32) + 3),
        ([3, (1 << 33)], 3, (1 << 33) + 1),
        ([1 << 62], 0, (1 << 62) + 1),
    ],
)
def test_ordinals_of_a_part(env, ordinals, first, stop):
    numbers = np.array(ordinals, np.uint64)
    with writing(env) as tx:
        items = (
            [] if len(numbers) == stop - first else [BlobData(ORDINALS, indexes.pack_ordinals(numbers, first, stop))]
        )
        if items:
            assert len(items[0][1]) == len(numbers) * (4 if stop - first <= 1 << 32 else 8)
        part = IndexPart(5, 1, first, stop, len(numbers), write_blobs(tx, 5, items))
        found = indexes.part_ordinals(tx, part)
        assert found.dtype == np.uint64 and found.tolist() == ordinals


@pytest.mark.parametrize(
    ("stored", "count", "match"),
    [([0, 0], 2, "ascend"), ([2, 1], 2, "ascend"), ([0, 9], 2, "ascend"), ([0, 1, 2], 2, "length"), ([], 2, "length")],
)
def test_ordinals_that_cannot_be(env, stored, count, match):
    with writing(env) as tx:
        items = [BlobData(ORDINALS, memoryview(np.array(stored, "<u4").tobytes()))]
        with pytest.raises(CorruptionError, match=match):
            indexes.part_ordinals(tx, IndexPart(5, 1, 10, 19, count, write_blobs(tx, 5, items)))
        with pytest.raises(CorruptionError, match="has no blob"):
            indexes.part_ordinals(tx, IndexPart(5, 1, 10, 19, count))
