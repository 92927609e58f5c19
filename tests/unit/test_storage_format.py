"""Bytes on disk: what is written is read back, and nothing else is accepted (vecdb/storage/format.py)."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import CorruptionError, IdError, MetadataError
from vecdb.storage import format as fmt
from vecdb.storage import idkeys
from vecdb.storage.format import BLOCK_CLASSES, CHUNK, BlockRef

INT64 = st.integers(-(2**63), 2**63 - 1)
IDS = INT64 | st.text(min_size=1, max_size=120)


# --- keys -------------------------------------------------------------------------------------------------


@given(IDS)
def test_ids_survive_as_keys(value):
    key = idkeys.id_key(value)
    assert idkeys.id_value(key) == value and type(idkeys.id_value(key)) is type(value)
    assert idkeys.id_value(memoryview(key)) == value and len(key) <= 481


@given(INT64, INT64)
def test_keys_of_ints_sort_like_the_ints(left, right):
    assert (idkeys.id_key(left) < idkeys.id_key(right)) == (left < right)


@given(IDS, IDS)
def test_keys_of_different_ids_differ(left, right):
    assert (idkeys.id_key(left) == idkeys.id_key(right)) == (left == right and type(left) is type(right))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_numbers_survive_as_keys(first, second):
    assert fmt.split_u32_u64(fmt.u32_u64(first, second)) == (first, second)
    assert fmt.read_u64(fmt.u64(second)) == second
    assert fmt.u32_u64(first, second)[:4] == fmt.u32(first)


@pytest.mark.parametrize("key", [b"", b"s", b"i", b"i1234567", b"i123456789", b"x1", b"s\xff", b"s" + b"x" * 481])
def test_keys_that_no_id_has(key):
    with pytest.raises(CorruptionError):
        idkeys.id_value(key)


@pytest.mark.parametrize("value", ["", "x" * 481, "\udcff", 2**63, -(2**63) - 1, True, None, 1.0, b"a", ()])
def test_ids_that_cannot_be(value):
    with pytest.raises(IdError) as caught:
        idkeys.id_key(value, 7)
    assert caught.value.position == 7 and "position 7" in str(caught.value)


# --- sealed values ----------------------------------------------------------------------------------------


@given(st.binary(max_size=40), st.binary(max_size=200), st.data())
def test_a_seal_covers_key_and_every_bit(key, payload, data):
    value = fmt.seal(key, payload)
    assert bytes(fmt.unseal(key, value, "x")) == payload
    damaged = bytearray(value)
    damaged[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for where, what in (
        (key, bytes(damaged)),
        (key + b"\0", value),
        (key, value[:-1]),
        (key, b""),
        (key, value + b"\0"),
    ):
        with pytest.raises(CorruptionError):
            fmt.unseal(where, what, "x")


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=30)), min_size=1, max_size=6), st.data())
def test_many_seals_are_as_strict_as_one(pairs, data):
    keys, payloads = zip(*pairs, strict=True)
    values = fmt.seal_all(keys, payloads)
    assert values == list(map(fmt.seal, keys, payloads))
    assert fmt.unseal_all(keys, values, "x") == list(payloads)
    at = data.draw(st.integers(0, len(values) - 1))
    damaged = bytearray(values[at])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for bad in (bytes(damaged), b"", values[at][:7], values[at] + b"\0"):
        with pytest.raises(CorruptionError) as caught:
            fmt.unseal_all(keys, [*values[:at], bad, *values[at + 1 :]], "x")
        assert caught.value.where == keys[at].hex()


@given(st.binary(max_size=300))
def test_arbitrary_bytes_decode_or_are_refused(data):
    with contextlib.suppress(CorruptionError):
        fmt.unpack(data, "x")


@pytest.mark.parametrize(
    "data", [b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 5000, b"\xc1", b"\x01\x01"]
)
def test_lengths_are_not_believed(data):
    with pytest.raises(CorruptionError):
        fmt.unpack(data, "x")


# --- records ----------------------------------------------------------------------------------------------


@given(
    version=st.integers(1, 2**32 - 1),
    refs=st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), max_size=4),
    key=IDS,
    metadata=st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | INT64 | st.text(max_size=5), max_size=4),
    text=st.none() | st.text(max_size=20),
)
def test_records_survive(version, refs, key, metadata, text):
    place = b"place"
    value = fmt.encode_record(place, version, refs, idkeys.id_key(key), fmt.pack_body(metadata, text, 0))
    record = fmt.decode_record(place, value)
    assert (record.version, dict(record.refs), record.id) == (version, refs, key)
    assert record.content() == (metadata, text)
    with pytest.raises(CorruptionError):
        fmt.decode_record(b"elsewhere", value)


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=12),
            st.integers(1, 2**32 - 1),
            st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), max_size=3),
            IDS,
            st.dictionaries(st.text(max_size=3), INT64, max_size=2),
            st.none() | st.text(max_size=5),
        ),
        max_size=6,
    )
)
def test_records_written_together_are_those_written_alone(records):
    places, versions, refs, ids, metadatas, texts = zip(*records, strict=True) if records else [()] * 6
    keys, bodies = idkeys.id_keys(ids), fmt.pack_bodies(metadatas, texts, range(len(ids)))
    together = fmt.encode_records(places, versions, [fmt.pack_refs(each) for each in refs], keys, bodies)
    assert together == [
        fmt.encode_record(place, version, ref, idkeys.id_key(key), fmt.pack_body(metadata, text, 0))
        for place, version, ref, key, metadata, text in records
    ]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**40)), max_size=3), st.integers(0, 5))
def test_references_of_vectors_appended_together(firsts, count):
    assert fmt.consecutive_refs(firsts, count) == [
        b"".join(fmt.pack_refs({space: first + place}) for space, first in firsts) for place in range(count)
    ]


@given(st.binary(max_size=80))
def test_record_payloads_of_any_bytes_are_records_or_refused(payload):
    with contextlib.suppress(CorruptionError):
        fmt.decode_record_payload(memoryview(payload)).content()


def test_a_body_holds_at_most_a_megabyte():
    fmt.pack_body({"x": "y" * ((1 << 20) - 20)}, None, 3)
    with pytest.raises(MetadataError) as caught:
        fmt.pack_body({"x": "y" * (1 << 20)}, None, 3)
    assert caught.value.position == 3
    with pytest.raises(MetadataError) as caught:
        fmt.pack_bodies([{}, {"n": 1 << 70}], [None, "x"], [5, 9])
    assert caught.value.position == 9


# --- vector blocks ----------------------------------------------------------------------------------------


def block(rows=5, dim=7, dtype="float32", size_class=BLOCK_CLASSES[0], number=9, space=3):
    rng = np.random.default_rng(rows)
    vectors = rng.standard_normal((rows, dim)).astype(dtype)
    owners = rng.integers(0, 2**63, rows).astype(np.uint64)
    scales = rng.random(rows).astype(np.float32)
    ordinals = np.cumsum(rng.integers(1, 5, rows)).astype(np.uint64) + np.uint64(2**40)
    ref = BlockRef(number, size_class, rows, int(ordinals[0]), int(ordinals[-1]))
    return ref, vectors, owners, scales, ordinals, fmt.encode_block(ref, space, vectors, owners, scales, ordinals)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("size_class", BLOCK_CLASSES)
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (5, 7), (33, 100)])
def test_blocks_survive(rows, dim, dtype, size_class):
    ref, vectors, owners, scales, ordinals, value = block(rows, dim, dtype, size_class)
    assert len(value) == size_class - 16
    found = fmt.open_block(memoryview(bytes(value)), ref, 3, dim, dtype)
    assert found.vectors.tobytes() == vectors.tobytes() and found.rows.tobytes() == owners.tobytes()
    assert found.scales.tobytes() == scales.tobytes()
    assert (np.uint64(ref.first) + found.deltas).tolist() == ordinals.tolist()
    for index in range(len(found.digests)):
        fmt.verify_chunks(found, [index])


@pytest.mark.parametrize("size_class", BLOCK_CLASSES)
@pytest.mark.parametrize("row_bytes", [2, 4, 28, 1536, 16_384])
def test_a_block_holds_as_many_rows_as_it_says(size_class, row_bytes):
    rows, dim = fmt.block_capacity(size_class, row_bytes), row_bytes // 2
    assert fmt.header_bytes(size_class) % 64 == 48  # on a 64-byte boundary of the map, 16 bytes into a page
    if rows:
        assert fmt.smallest_class(rows, row_bytes) <= size_class
        ref, *_, value = block(rows, dim, "float16", size_class)
        assert fmt.open_block(memoryview(value), ref, 3, dim, "float16").vectors.shape == (rows, dim)


def test_the_widest_vector_fits_a_block():
    assert fmt.block_capacity(BLOCK_CLASSES[-1], 65_536 * 4) == 3
    with pytest.raises(AssertionError):
        fmt.smallest_class(4, 65_536 * 4)


def open_and_verify(value, ref):
    found = fmt.open_block(memoryview(value), ref, 3, 7, "float32")
    for index in range(len(found.digests)):
        fmt.verify_chunks(found, [index])


def test_every_flipped_bit_of_a_block_is_seen():
    ref, *_, value = block(20, 7)
    sound = bytes(value)
    rng = np.random.default_rng(5)
    places = [*range(600), *rng.integers(600, len(sound), 200).tolist()]
    for place in places:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(CorruptionError):
            open_and_verify(damaged, ref)


def test_a_block_in_another_place_is_seen():
    ref, *_, value = block()
    for other in (
        BlockRef(ref.id + 1, ref.size_class, ref.rows, ref.first, ref.last),
        BlockRef(ref.id, BLOCK_CLASSES[1], ref.rows, ref.first, ref.last),
        BlockRef(ref.id, ref.size_class, ref.rows - 1, ref.first, ref.last),
        BlockRef(ref.id, ref.size_class, 10**9, ref.first, ref.last),
        BlockRef(ref.id, ref.size_class, ref.rows, ref.first - 1, ref.last),
    ):
        with pytest.raises(CorruptionError):
            fmt.open_block(memoryview(value), other, 3, 7, "float32")
    for space, dim, dtype in ((4, 7, "float32"), (3, 6, "float32"), (3, 7, "float16")):
        with pytest.raises(CorruptionError):
            fmt.open_block(memoryview(value), ref, space, dim, dtype)
    for length in (0, 10, len(value) - 1):
        with pytest.raises(CorruptionError):
            fmt.open_block(memoryview(value)[:length], ref, 3, 7, "float32")


def test_chunks_are_verified_one_by_one():
    ref, *_, value = block(100, 100)
    value[fmt.header_bytes(ref.size_class) + CHUNK + 5] ^= 1
    found = fmt.open_block(memoryview(value), ref, 3, 100, "float32")
    fmt.verify_chunks(found, [0])
    with pytest.raises(CorruptionError, match="chunk 1"):
        fmt.verify_chunks(found, [1])


# --- tails and numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [0, 1, 9])
def test_tails_survive(rows, dtype):
    rng = np.random.default_rng(rows)
    vectors = rng.standard_normal((rows, 5)).astype(dtype)
    owners, scales = rng.integers(0, 99, rows).astype(np.uint64), rng.random(rows).astype(np.float32)
    value = fmt.encode_tail(b"k", vectors, owners, scales)
    found = fmt.decode_tail(b"k", value, 5, dtype)
    assert [part.tobytes() for part in found] == [vectors.tobytes(), owners.tobytes(), scales.tobytes()]
    if rows:
        for key, dim in ((b"other", 5), (b"k", 4)):
            with pytest.raises(CorruptionError):
                fmt.decode_tail(key, value, dim, dtype)


@pytest.mark.parametrize("payload", [b"", b"1234", struct.pack("<II", 2**32 - 1, 20), struct.pack("<II", 1, 20)])
def test_tails_that_lie_about_their_length(payload):
    with pytest.raises(CorruptionError):
        fmt.decode_tail(b"k", fmt.seal(b"k", payload), 5, "float32")


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_numbers_survive(numbers):
    assert fmt.unpack_numbers(fmt.pack_numbers(np.array(numbers, np.uint64)), "x").tolist() == numbers


def test_numbers_of_a_wrong_length():
    with pytest.raises(CorruptionError):
        fmt.unpack_numbers(b"1234567", "x")
