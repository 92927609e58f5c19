"""Rows in pieces: found by a shift where they lie, read only when touched, and never believed unseen."""

import contextlib
import ctypes
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.contracts.blobs import MadeRows, row_bytes_of
from vecdb.contracts.rows import MappedRows
from vecdb.engine.blobstore import BlobCollector, StoredBlobs
from vecdb.errors import CorruptionError, PluginContractError
from vecdb.storage import blobs
from vecdb.storage import rows as layout
from vecdb.storage.blobs import (
    BlobLine,
    drop_blobs,
    prove_blobs,
    read_blob,
    stored_bytes_of,
    stored_rows,
    write_blobs,
)
from vecdb.storage.env import Environment
from vecdb.storage.format import CHUNK
from vecdb.storage.indexes import IndexEntry, IndexPart, index_from_plain, index_to_plain
from vecdb.storage.state import create_header


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "r.vecdb"
    env = Environment(path, readonly=False, durability="relaxed", map_size=None, timeout=1.0, create=create_header)
    env.open()
    yield env
    env.close()


@contextlib.contextmanager
def writing(env):
    tx = env.begin_write()
    try:
        yield tx
    finally:
        env.abort(tx)


def content(count, width, dtype=np.uint8, seed=0):
    data = np.random.default_rng((count, width, seed)).bytes(count * width * np.dtype(dtype).itemsize)
    return np.frombuffer(data, dtype).reshape(count, width)


def stored(tx, array, number=5):
    """Store rows; return a reader of them and their line."""
    collector = BlobCollector()
    collector.write("head", b"x")
    collector.write_rows("rows", array)
    lines = write_blobs(tx, number, collector.blobs)
    return StoredBlobs(tx, IndexPart(number, 1, 0, 1, 1, lines)), lines[1]


def read_by_address(mapped, row):
    """Return the bytes of a row as a kernel finds them."""
    address = mapped.table[row >> mapped.shift] + (row & ((1 << mapped.shift) - 1)) * mapped.row_bytes
    return ctypes.string_at(int(address), mapped.row_bytes)


@pytest.mark.parametrize("row_bytes", [1, 3, 48, 60, 64, 128, 1000, 1 << 14, (1 << 14) + 1, 700_000, 1 << 20])
def test_rows_at_the_boundaries_of_pieces(env, row_bytes):
    per_piece = 1 << layout.shift_of(row_bytes)
    assert per_piece * row_bytes <= 1 << 20 < 2 * per_piece * row_bytes
    for count in sorted({0, 1, per_piece - 1, per_piece, per_piece + 1}):
        array = content(count, row_bytes)
        with writing(env) as tx:
            reader, line = stored(tx, array)
            assert line == BlobLine("rows", array.nbytes, row_bytes)
            mapped = reader.rows("rows", np.uint8, row_bytes, count)
            assert (mapped.count, mapped.width, mapped.row_bytes, mapped.nbytes) == (
                count,
                row_bytes,
                row_bytes,
                array.nbytes,
            )
            assert len(mapped.table) == -(-count // per_piece)
            for row in {0, count // 2, count - 1} if count else ():
                assert read_by_address(mapped, row) == array[row].tobytes()
            assert np.array_equal(mapped.array(), array)
            assert read_blob(tx, 5, 1, line) == array.tobytes() == reader.read("rows")
            pieces = [bytes(value) for _, value in tx.range("blobs", b"") if bytes(value)[8:12] == b"VROW"]
            assert all((len(piece) + 16) % 4096 == 0 for piece in pieces)
            assert sum(len(piece) + 16 for piece in pieces) == stored_bytes_of([line])
            assert prove_blobs(tx, 5, [BlobLine("head", 1), line]) == 1 + len(pieces)
            drop_blobs(tx, 5)
            assert not tx.entries("blobs")["entries"]


@given(
    count=st.integers(0, 3000),
    width=st.integers(1, 700),
    dtype=st.sampled_from([np.uint8, np.int32, np.float32, np.float16]),
    seed=st.integers(0, 99),
)
def test_any_rows(env, count, width, dtype, seed):
    array = content(count, width, dtype, seed)
    with writing(env) as tx:
        reader, _ = stored(tx, array)
        mapped = reader.rows("rows", dtype, width, count)
        assert not count or not mapped.sound
        chosen = np.random.default_rng(seed).integers(0, max(1, count), 20 if count else 0)
        assert mapped.take(chosen).tobytes() == array[chosen].tobytes()
        assert mapped.array().tobytes() == array.tobytes() and mapped.sound


def test_pieces_begin_on_a_boundary_of_the_map_and_never_move():
    """A kernel relies on both; LMDB copies pages that hold several small values when one of them changes."""
    for array in (content(1, 1), content(3, 5), content(40_000, 64)):
        value = layout.encode_rows(b"key", array.shape[1], memoryview(array[: 1 << 14]).cast("B"))
        assert len(value) + 16 >= 4096, "small values would share a page"
        payload, _ = layout.open_piece(b"key", memoryview(value), array.shape[1], min(len(array), 1 << 14))
        start = np.frombuffer(payload, np.uint8).ctypes.data - np.frombuffer(value, np.uint8).ctypes.data
        assert start == layout.head_bytes(len(payload)) and (16 + start) % 64 == 0


def test_only_what_is_touched_is_compared(env):
    array = content(50_000, 64)
    with writing(env) as tx:
        reader, line = stored(tx, array)
        found = stored_rows(tx, 5, 1, line)
        compared = []
        whole = found._compare
        found._compare = lambda chunks: (compared.extend(chunks.tolist()), whole(chunks))
        rows = np.array([0, 255, 256, 20_000, 0], np.int64)
        found.verify_rows(rows)
        assert compared == [0, 1, 64 + (20_000 - 16_384) * 64 // CHUNK]
        found.verify_rows(rows)
        assert len(compared) == 3 and not found.sound
        found.verify_rows(np.arange(0, 40_000))
        assert found.sound and sorted(compared) == list(range(-(-array.nbytes // CHUNK)))
        found.verify()
        assert reader.rows("rows", np.uint8, 64, 50_000).table.dtype == np.int64


def test_a_row_over_two_chunks_needs_both(env):
    array = content(400, 1000)
    with writing(env) as tx:
        _, line = stored(tx, array)
        found = stored_rows(tx, 5, 1, line)
        found.verify_rows(np.array([16]))  # bytes 16,000 to 16,999
        assert found._proved.nonzero()[0].tolist()[:2] == [0, 1]


def pieces_of(tx):
    return {bytes(key): bytes(value) for key, value in tx.range("blobs", b"") if bytes(value)[8:12] == b"VROW"}


def test_damage_anywhere_is_found_when_it_is_met(env):
    array = content(20_000, 100)
    with writing(env) as tx:
        reader, line = stored(tx, array)
        pieces = list(pieces_of(tx).items())
        assert len(pieces) == 3

        def opens():
            return reader.rows("rows", np.uint8, 100, 20_000)

        def proves():
            return prove_blobs(tx, 5, [BlobLine("head", 1), line])

        def refused(key, value, match, *attempts):
            before = bytes(tx.get("blobs", key))
            if value is None:
                tx.delete("blobs", key)
            else:
                tx.put("blobs", key, value)
            for attempt in attempts:
                with pytest.raises(CorruptionError, match=match) as caught:
                    attempt()
                assert caught.value.what == "index blob"
            tx.put("blobs", key, before)

        for place, (key, value) in enumerate(pieces):
            refused(key, None, "missing|lost its piece", opens, proves)
            refused(key, value[:-1], "wrong length", opens, proves)
            refused(key, b"", "wrong length", opens, proves)
            for at in (0, 8, 12, 16, 20, 24, 31):
                broken = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
                refused(key, broken, "damaged header", opens, proves)
            head = layout.head_bytes(min(8192, 20_000 - place * 8192) * 100)
            broken = value[:head] + bytes([value[head] ^ 1]) + value[head + 1 :]
            refused(key, broken, "checksum of its chunk 0", lambda: opens().verify(), proves)
            refused(key, broken, "chunk 0", lambda place=place: opens().verify_rows([place * 8192]))
            refused(key, broken, "chunk 0", lambda: opens().array())
        refused(pieces[0][0], pieces[1][1], "wrong place", opens, proves)
        assert np.array_equal(opens().array(), array)


def test_chunks_that_changed_places_are_found(env):
    array = content(20_000, 64)
    with writing(env) as tx:
        reader, _ = stored(tx, array)
        key, value = next(iter(pieces_of(tx).items()))
        head = layout.head_bytes(1 << 20)
        swapped = value[:head] + value[head + CHUNK : head + 2 * CHUNK] + value[head : head + CHUNK]
        tx.put("blobs", key, swapped + value[len(swapped) :])
        mapped = reader.rows("rows", np.uint8, 64, 20_000)
        with pytest.raises(CorruptionError, match="chunk 0"):
            mapped.verify_rows([0])
        with pytest.raises(CorruptionError, match="chunk 1"):
            mapped.verify_rows([300])
        mapped.verify_rows([600])


@pytest.mark.parametrize(
    ("length", "row_bytes"),
    [
        (6400 + (1 << 30), 64),
        (1 << 60, 64),
        (6400, 1 << 21),
        (6401, 64),
        (6400, 640),
        (6400, 32),
        (1 << 62, 1),
        (0, 64),
    ],
)
def test_lengths_that_are_a_lie_allocate_nothing(env, length, row_bytes):
    with writing(env) as tx:
        stored(tx, content(100, 64))
        line = BlobLine("rows", length, row_bytes)
        tracemalloc.start()
        try:
            if length:
                with pytest.raises(CorruptionError):
                    stored_rows(tx, 5, 1, line)
                with pytest.raises(CorruptionError):
                    read_blob(tx, 5, 1, line)
            assert stored_bytes_of([line]) >= length
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_what_is_asked_for_must_be_what_was_stored(env):
    with writing(env) as tx:
        reader, _ = stored(tx, content(100, 16, np.int32))
        assert reader.rows("rows", np.float32, 16, 100).count == 100
        for dtype, width, count in ((np.int32, 15, 100), (np.int32, 16, 99), (np.int32, 16, 101), (np.int32, 8, 200)):
            with pytest.raises(CorruptionError, match="in rows of 64"):
                reader.rows("rows", dtype, width, count)
        for name in ("head", "other"):
            with pytest.raises(CorruptionError):
                reader.rows(name, np.int32, 16, 100)
        with pytest.raises(PluginContractError, match="objects"):
            reader.rows("rows", object, 8, 100)


def test_rows_of_ones_own_outlive_the_lease(env):
    array = content(30_000, 60)
    with writing(env) as tx:
        collector = BlobCollector()
        collector.write_rows("rows", array)
        part = IndexPart(5, 1, 0, 1, 1, write_blobs(tx, 5, collector.blobs))
        mapped = StoredBlobs(tx, part, own=True).rows("rows", np.uint8, 60, 30_000)
    assert mapped.sound and mapped.array().tobytes() == array.tobytes()
    assert read_by_address(mapped, 29_999) == array[-1].tobytes()


def test_rows_of_an_array():
    array = content(10, 6, np.float32)
    mapped = MappedRows.of(array)
    assert (mapped.count, mapped.width, mapped.dtype, mapped.sound) == (10, 6, np.float32, True)
    assert mapped.table.tolist() == [array.ctypes.data] and read_by_address(mapped, 7) == array[7].tobytes()
    mapped.verify()
    mapped.verify_rows([3])
    assert all(not piece.flags.writeable for piece in mapped.pieces())
    for wrong in (array[:, ::2], array[0], array.T):
        with pytest.raises(ValueError, match="C-contiguous"):
            MappedRows.of(wrong)
    assert MappedRows.of(np.empty((0, 3), np.uint8)).array().shape == (0, 3)


def test_rows_that_are_not_there_cannot_be_verified(env):
    with writing(env) as tx:
        reader, _ = stored(tx, content(100, 64))
        mapped = reader.rows("rows", np.uint8, 64, 100)
        for wrong in ([100], [-1], [3, 1 << 40]):
            with pytest.raises(IndexError):
                mapped.verify_rows(wrong)
        mapped.verify_rows([])


@pytest.mark.parametrize(
    "rows",
    [
        b"abc",
        None,
        [[1, 2]],
        np.arange(6),
        np.zeros((2, 3, 4)),
        np.zeros((2, 0)),
        np.zeros((3, 4)).T,
        np.array([[None]]),
        np.zeros((1, (1 << 20) + 1), np.uint8),
    ],
)
def test_what_cannot_be_stored_as_rows(rows):
    collector = BlobCollector()
    with pytest.raises(PluginContractError, match="the blob 'a' is given as rows") as caught:
        collector.write_rows("a", rows)
    assert caught.value.rule == "blobs" and collector.blobs == []
    with pytest.raises((TypeError, ValueError)):
        row_bytes_of(rows)


@given(st.integers(0, 3_000), st.integers(1, 4_000))
def test_rows_that_are_made_are_stored_as_those_that_are_there(count, width):
    rows, asked = content(count, width), []

    def make(first, stop):
        asked.append((first, stop))
        return rows[first:stop]

    whole, parts = BlobCollector(), BlobCollector()
    whole.write_rows("rows", rows)
    parts.write_rows("rows", MadeRows(count, width, make))
    assert asked == [] and blobs.lines_of(whole.blobs) == blobs.lines_of(parts.blobs)
    values = [[(piece.key, piece.make()) for piece in blobs.pieces_of(5, each.blobs)] for each in (whole, parts)]
    assert values[0] == values[1]
    assert all((stop - first) * width <= max(width, layout.MOST_BYTES) for first, stop in asked)
    assert sum(stop - first for first, stop in asked) == count


@pytest.mark.parametrize(
    "rows",
    [
        MadeRows(3, 0, lambda first, stop: np.zeros(0)),
        MadeRows(3, (1 << 20) + 1, lambda first, stop: np.zeros(0)),
        MadeRows(-1, 8, lambda first, stop: np.zeros(0)),
        MadeRows(3, 8, None),
    ],
)
def test_what_makes_no_rows(rows):
    collector = BlobCollector()
    with pytest.raises(PluginContractError, match="the blob 'a' is given as rows") as caught:
        collector.write_rows("a", rows)
    assert caught.value.rule == "blobs" and collector.blobs == []


def test_a_name_is_taken_once_whatever_it_names():
    collector = BlobCollector()
    collector.write_rows("a", np.zeros((2, 2)))
    for again in (lambda: collector.write("a", b""), lambda: collector.write_rows("a", np.zeros((1, 1)))):
        with pytest.raises(PluginContractError, match="written twice"):
            again()
    with pytest.raises(PluginContractError, match="a blob is named"):
        collector.write_rows("A", np.zeros((1, 1)))


def test_lines_of_rows_in_the_catalog():
    lines = (BlobLine("head", 5), BlobLine("rows", 640, 64))
    index = IndexEntry(1, 2, "acme.x", {}, 0, "", (IndexPart(9, 1, 0, 10, 10, lines),))
    plain = index_to_plain(index)
    assert plain[6][0][5] == [["head", 5], ["rows", 640, 64]]
    assert index_from_plain(plain) == index
    plain[6][0][5] = [["rows", 640, -1]]
    with pytest.raises((TypeError, ValueError, CorruptionError)):
        index_from_plain(plain)
