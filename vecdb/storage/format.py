"""Bytes on disk: keys, checksums, values, blocks. Pure functions between bytes and Python values.

The only module that imports msgpack and xxhash. Byte tables: docs/explanation/storage-design.md. Invariant: whatever
bytes come in, only `CorruptionError` (or `FormatVersionError`) comes out, and no size is trusted before it is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash

from vecdb.errors import CorruptionError, MetadataError
from vecdb.storage.idkeys import id_value, pieces
from vecdb.types import MAX_METADATA_BYTES, Id

FORMAT_VERSION: Final = 1
LMDB_ENGINE: Final = 0
"""Which of py-lmdb's two engines writes the file (0 is LMDB 0.9, data format 1); passed explicitly at every open."""

Buffer = bytes | bytearray | memoryview

# --- keys: big-endian, so that LMDB's byte order is numeric order -----------------------------------------

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_U32U64 = struct.Struct(">IQ")
_I64_SHIFT = 1 << 63


def u32(number: int) -> bytes:
    return _U32.pack(number)


def u64(number: int) -> bytes:
    return _U64.pack(number)


def u32_u64(first: int, second: int) -> bytes:
    return _U32U64.pack(first, second)


def read_u64(data: Buffer) -> int:
    try:
        return int(_U64.unpack(data)[0])
    except struct.error as error:
        raise CorruptionError(f"a stored number has {len(data)} bytes, expected 8", what="number") from error


def split_u32_u64(data: Buffer) -> tuple[int, int]:
    return _U32U64.unpack(data)


# --- checksummed values -----------------------------------------------------------------------------------

_DIGEST = struct.Struct("<Q")
_hash = xxhash.xxh3_64_intdigest


def checksum(data: Buffer, seed: int = 0) -> int:
    """Return the XXH3-64 of `data`; of the seed the lower 64 bits count."""
    return int(xxhash.xxh3_64_intdigest(data, seed & 0xFFFF_FFFF_FFFF_FFFF))


def seal(key: bytes, payload: Buffer) -> bytes:
    """Prefix `payload` with a checksum that covers its key too, so a misplaced value is caught."""
    return _DIGEST.pack(xxhash.xxh3_64_intdigest(payload, xxhash.xxh3_64_intdigest(key))) + payload


def seal_all(keys: Sequence[bytes], payloads: Sequence[bytes]) -> list[bytes]:
    """Return `seal` of each key and payload."""
    hashed = xxhash.xxh3_64_intdigest
    digests = map(hashed, payloads, map(hashed, keys))
    return list(map(add, map(_DIGEST.pack, digests), payloads))


def unseal(key: bytes, value: Buffer, what: str) -> memoryview:
    """Return the payload of a sealed value, or raise `CorruptionError`."""
    view = memoryview(value)
    if len(view) < 8 or _DIGEST.unpack_from(view)[0] != xxhash.xxh3_64_intdigest(
        view[8:], xxhash.xxh3_64_intdigest(key)
    ):
        raise CorruptionError(
            f"{what} at key {key.hex()} does not match its checksum",
            hint="Run `vecdb check`, and restore from a backup.",
            what=what,
            where=key.hex(),
        )
    return view[8:]


def unseal_all(keys: Sequence[bytes], values: Sequence[bytes], what: str) -> list[bytes]:
    """Return `unseal` of each value."""
    hashed = xxhash.xxh3_64_intdigest
    payloads = [value[8:] for value in values]
    digests = map(_DIGEST.pack, map(hashed, payloads, map(hashed, keys)))
    if not all(map(bytes.startswith, values, digests)):
        for key, value in zip(keys, values, strict=True):
            unseal(key, value, what)  # raises at the one that is damaged
    return payloads


def pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(data: Buffer, what: str) -> Any:
    """Decode msgpack with every length bounded by the input's own size."""
    size = len(data)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise CorruptionError(f"{what} cannot be decoded: {error}", what=what) from error


def stored_numbers(values: Any, what: str, count: int | None = None) -> tuple[int, ...]:
    """Return decoded values that must all be ints from 0 to 2^63 - 1, `count` of them."""
    if isinstance(values, (list, tuple)) and (count is None or len(values) == count):
        for value in values:
            if type(value) is not int or not 0 <= value < _I64_SHIFT:
                break
        else:
            return tuple(values)
    raise CorruptionError(f"{what} does not hold the numbers that it should", what=what)


def pack_sealed(key: bytes, value: Any) -> bytes:
    return seal(key, pack(value))


def unpack_sealed(key: bytes, value: Buffer, what: str) -> Any:
    return unpack(unseal(key, value, what), what)


# --- records ----------------------------------------------------------------------------------------------

_RECORD = struct.Struct("<IBH")
_REF = struct.Struct("<IQ")


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as stored; `body` is packed metadata and text, decoded only when asked for."""

    version: int
    refs: Mapping[int, int]
    """Space number -> ordinal of the record's vector in it."""
    key: bytes
    body: bytes

    @property
    def id(self) -> Id:
        return id_value(self.key)

    def content(self) -> tuple[dict[str, Any], str | None]:
        return _content(self.body)


EMPTY_BODY: Final = pack(({}, None))


def _content(body: Buffer) -> tuple[dict[str, Any], str | None]:
    if body == EMPTY_BODY:
        return {}, None
    plain = unpack(body, "record")
    if not isinstance(plain, list) or len(plain) != 2 or type(plain[0]) is not dict:
        raise CorruptionError("a record holds something else than metadata and text", what="record")
    return plain[0], plain[1]


def pack_body(metadata: Mapping[str, Any], text: str | None, position: int) -> bytes:
    """Pack what a record carries; at most 1 MB together."""
    return pack_bodies([metadata], [text], [position])[0]


def pack_bodies(
    metadatas: Sequence[Mapping[str, Any]], texts: Sequence[str | None], positions: Iterable[int]
) -> list[bytes]:
    """Return `pack_body` of each record; `positions` are for messages."""
    packb = msgpack.Packer(use_bin_type=True).pack
    bodies = []
    for metadata, text, position in zip(metadatas, texts, positions, strict=True):
        try:
            body = EMPTY_BODY if text is None and not metadata else packb((metadata, text))
        except (ValueError, TypeError, OverflowError) as error:
            raise MetadataError(
                f"metadata of record {position} cannot be stored: {error}", position=position
            ) from error
        if len(body) > MAX_METADATA_BYTES:
            raise MetadataError(
                f"metadata and text of record {position} take {len(body)} bytes, expected at most {MAX_METADATA_BYTES}",
                hint="Keep large payloads beside the database and store their path.",
                position=position,
            )
        bodies.append(body)
    return bodies


def encode_record(place: bytes, version: int, refs: Mapping[int, int], key: bytes, body: bytes) -> bytes:
    """Return the sealed value of the record at `place` (its key in the records table)."""
    return encode_records([place], [version], [pack_refs(refs)], [key], [body])[0]


def pack_refs(refs: Mapping[int, int]) -> bytes:
    """Return the references of one record as they are stored."""
    return b"".join(_REF.pack(*ref) for ref in refs.items())


def consecutive_refs(firsts: Sequence[tuple[int, int]], count: int) -> list[bytes]:
    """Return the references of `count` records whose vectors were appended together: (space, first ordinal) each."""
    if count == 1:
        return [b"".join(_REF.pack(*first) for first in firsts)]
    refs = np.empty((count, len(firsts)), np.dtype([("space", "<u4"), ("ordinal", "<u8")]))
    for column, (space, first) in enumerate(firsts):
        refs["space"][:, column] = space
        refs["ordinal"][:, column] = np.arange(first, first + count, dtype=np.uint64)
    return pieces(refs.tobytes(), _REF.size * len(firsts)) if firsts else [b""] * count


def encode_records(
    places: Sequence[bytes],
    versions: Iterable[int],
    refs: Sequence[bytes],
    keys: Sequence[bytes],
    bodies: Sequence[bytes],
) -> list[bytes]:
    """Return the sealed values of the records at `places`; `refs` as packed by `pack_refs` or `consecutive_refs`."""
    counts = [len(packed) // _REF.size for packed in refs]
    heads = map(_RECORD.pack, versions, counts, map(len, keys))
    return seal_all(places, list(map(b"".join, zip(heads, refs, keys, bodies, strict=True))))


def decode_record(place: bytes, value: Buffer) -> StoredRecord:
    data = unseal(place, value, "record")
    return decode_record_payload(data)


def decode_record_payload(data: memoryview) -> StoredRecord:
    try:
        version, count, length = _RECORD.unpack_from(data)
        start = _RECORD.size + count * _REF.size
        refs = dict(_REF.unpack_from(data, _RECORD.size + place * _REF.size) for place in range(count))
    except struct.error as error:
        raise CorruptionError("a record is shorter than its header says", what="record") from error
    if start + length > len(data):
        raise CorruptionError("a record is shorter than its header says", what="record")
    return StoredRecord(version, refs, bytes(data[start : start + length]), bytes(data[start + length :]))


def decode_ids(places: Sequence[bytes], values: Sequence[Buffer]) -> list[Id]:
    """Return only the id of the record at each place; what hits without metadata need.

    One loop without calls of ours: after a scan, which empties the caches, each of them is felt.
    """
    ids: list[Id] = []
    for place, value in zip(places, values, strict=True):
        payload = memoryview(value)[8:]
        if len(payload) < _RECORD.size or _DIGEST.unpack_from(value)[0] != _hash(payload, _hash(place)):
            unseal(place, value, "record")  # says what is wrong
            raise CorruptionError("a record is shorter than its header says", what="record")
        _, count, length = _RECORD.unpack_from(payload)
        start = _RECORD.size + count * _REF.size
        key = bytes(payload[start : start + length])
        number = length == 9 and key[:1] == b"i" and len(key) == 9
        ids.append(_U64.unpack_from(key, 1)[0] - _I64_SHIFT if number else id_value(key))
    return ids


def decode_metadata(place: bytes, value: Buffer) -> dict[str, Any]:
    """Return only the metadata of the record at `place`."""
    return _metadata_in(unseal(place, value, "record"))


def decode_metadatas(places: Sequence[bytes], values: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return `decode_metadata` of each record; what sealing columns needs of thousands."""
    return list(map(_metadata_in, unseal_all(places, values, "record")))


def _metadata_in(payload: Buffer) -> dict[str, Any]:
    try:
        _, count, length = _RECORD.unpack_from(payload)
    except struct.error as error:
        raise CorruptionError("a record is shorter than its header says", what="record") from error
    return _content(payload[_RECORD.size + count * _REF.size + length :])[0]


# --- vector blocks ----------------------------------------------------------------------------------------

BLOCK_CLASSES: Final = (64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20)
"""Allocation classes in bytes; the value is 16 shorter because LMDB puts 16 bytes before it on its first page."""
CHUNK: Final = 16 << 10
"""Bytes under one checksum: what a random access has to verify."""
_MAP_OFFSET: Final = 16
_BLOCK_MAGIC: Final = b"VBLK"
_VECTORS_KIND: Final = 1
_BLOCK = struct.Struct("<4sBBHIIIIQQQII")
_BLOCK_FIXED: Final = _BLOCK.size + 8
_AUX_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class BlockRef:
    """What a segment says of one block."""

    id: int
    size_class: int
    rows: int
    first: int
    last: int
    """Smallest and largest ordinal in it."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block's parts as views into its bytes (the memory map); valid only under the lease they were read in."""

    ref: BlockRef
    payload: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint64]
    vectors: npt.NDArray[Any]
    rows: npt.NDArray[np.uint64]
    scales: npt.NDArray[np.float32]
    deltas: npt.NDArray[np.uint32]


def header_bytes(size_class: int) -> int:
    """Bytes before the payload, padded so that the payload starts on a 64-byte boundary of the map."""
    chunks = -(-(size_class - _MAP_OFFSET) // CHUNK)
    used = _MAP_OFFSET + _BLOCK_FIXED + 8 * chunks
    return -(-used // 64) * 64 - _MAP_OFFSET


def block_capacity(size_class: int, row_bytes: int) -> int:
    """How many rows of `row_bytes` a block of this class holds (0 where not even one fits)."""
    return max(0, (size_class - _MAP_OFFSET - header_bytes(size_class) - 8) // (row_bytes + _AUX_BYTES))


def smallest_class(rows: int, row_bytes: int) -> int:
    """Return the smallest block class that holds `rows`."""
    for size_class in BLOCK_CLASSES:
        if block_capacity(size_class, row_bytes) >= rows:
            return size_class
    raise AssertionError(f"{rows} rows of {row_bytes} bytes exceed a block")


def _layout(header: int, rows: int, row_bytes: int) -> tuple[int, int, int, int]:
    """Offsets of record rows, scales, ordinal deltas, and the end, within a block's value."""
    record_rows = header + -(-rows * row_bytes // 8) * 8
    scales = record_rows + 8 * rows
    deltas = scales + 4 * rows
    return record_rows, scales, deltas, deltas + 4 * rows


def _chunk_digests(block_id: int, payload: memoryview) -> list[int]:
    return [
        xxhash.xxh3_64_intdigest(payload[start : start + CHUNK], (block_id << 8 | index) & 0xFFFF_FFFF_FFFF_FFFF)
        for index, start in enumerate(range(0, len(payload), CHUNK))
    ]


def encode_block(
    ref: BlockRef,
    space: int,
    vectors: npt.NDArray[Any],
    rows: npt.NDArray[np.uint64],
    scales: npt.NDArray[np.float32],
    ordinals: npt.NDArray[np.uint64],
) -> bytearray:
    """Return the value of a vector block; `vectors` (rows, dim) little-endian float32 or float16, C order."""
    row_bytes = vectors.shape[1] * vectors.itemsize
    header = header_bytes(ref.size_class)
    value = bytearray(ref.size_class - _MAP_OFFSET)
    at_rows, at_scales, at_deltas, end = _layout(header, ref.rows, row_bytes)
    if end > len(value):
        raise AssertionError("rows exceed the block")
    space_for = np.frombuffer(value, np.uint8)
    space_for[header : header + ref.rows * row_bytes] = vectors.reshape(-1).view(np.uint8)
    space_for[at_rows:at_scales] = np.ascontiguousarray(rows, "<u8").view(np.uint8)
    space_for[at_scales:at_deltas] = np.ascontiguousarray(scales, "<f4").view(np.uint8)
    space_for[at_deltas:end] = (ordinals - np.uint64(ref.first)).astype("<u4").view(np.uint8)
    digests = _chunk_digests(ref.id, memoryview(value)[header:])
    _BLOCK.pack_into(
        value,
        0,
        _BLOCK_MAGIC,
        FORMAT_VERSION,
        _VECTORS_KIND,
        header,
        len(value),
        end - header,
        space,
        ref.rows,
        ref.id,
        ref.first,
        ref.last,
        row_bytes,
        0,
    )
    struct.pack_into(f"<{len(digests)}Q", value, _BLOCK_FIXED, *digests)
    struct.pack_into("<Q", value, _BLOCK.size, _header_digest(value, header))
    return value


def _header_digest(value: Buffer, header: int) -> int:
    view = memoryview(value)
    return int(xxhash.xxh3_64_intdigest(bytes(view[: _BLOCK.size]) + bytes(view[_BLOCK_FIXED:header])))


def open_block(value: memoryview, ref: BlockRef, space: int, dim: int, dtype: str) -> Block:
    """Check a block's header against what the segment says and return views of its parts (payload unverified)."""
    expected = ref.size_class - _MAP_OFFSET
    header = header_bytes(ref.size_class)
    row_bytes = dim * np.dtype(dtype).itemsize
    end = _layout(header, ref.rows, row_bytes)[3]
    if len(value) != expected or end > expected:
        raise _damaged(ref, "has a wrong length")
    fields = _BLOCK.unpack_from(value)
    wanted = (
        _BLOCK_MAGIC,
        FORMAT_VERSION,
        _VECTORS_KIND,
        header,
        expected,
        end - header,
        space,
        ref.rows,
        ref.id,
        ref.first,
        ref.last,
        row_bytes,
        0,
    )
    if fields != wanted or struct.unpack_from("<Q", value, _BLOCK.size)[0] != _header_digest(value, header):
        raise _damaged(ref, "has a damaged header or lies in the wrong place")
    return _views(value, ref, dim, dtype, header)


def _views(value: memoryview, ref: BlockRef, dim: int, dtype: str, header: int) -> Block:
    row_bytes = dim * np.dtype(dtype).itemsize
    at_rows, at_scales, at_deltas, _ = _layout(header, ref.rows, row_bytes)
    payload = np.frombuffer(value, np.uint8, offset=header)
    return Block(
        ref,
        payload,
        np.frombuffer(value, "<u8", -(-len(payload) // CHUNK), _BLOCK_FIXED),
        np.frombuffer(value, np.dtype(dtype).newbyteorder("<"), ref.rows * dim, header).reshape(ref.rows, dim),
        np.frombuffer(value, "<u8", ref.rows, at_rows),
        np.frombuffer(value, "<f4", ref.rows, at_scales),
        np.frombuffer(value, "<u4", ref.rows, at_deltas),
    )


def verify_chunks(block: Block, indices: Iterable[int]) -> None:
    """Raise `CorruptionError` unless these chunks of the payload match their checksums."""
    data, first, digest = block.payload.data, block.ref.id << 8, xxhash.xxh3_64_intdigest
    digests = block.digests.tolist()
    for index in indices:
        piece = data[index * CHUNK : (index + 1) * CHUNK]
        if digest(piece, (first | index) & 0xFFFF_FFFF_FFFF_FFFF) != digests[index]:
            raise _damaged(block.ref, f"does not match the checksum of its chunk {index}")


def _damaged(ref: BlockRef, problem: str) -> CorruptionError:
    return CorruptionError(
        f"vector block {ref.id} (ordinals {ref.first} to {ref.last}) {problem}",
        hint="Run `vecdb check`, and restore from a backup.",
        what="vector block",
        where=str(ref.id),
    )


# --- tail chunks: the rows of one small commit ------------------------------------------------------------

_TAIL = struct.Struct("<II")


def encode_tail(
    key: bytes, vectors: npt.NDArray[Any], rows: npt.NDArray[np.uint64], scales: npt.NDArray[np.float32]
) -> bytes:
    parts = (
        _TAIL.pack(len(rows), vectors.shape[1] * vectors.itemsize),
        np.ascontiguousarray(rows, "<u8").tobytes(),
        np.ascontiguousarray(scales, "<f4").tobytes(),
        vectors.tobytes(),
    )
    return seal(key, b"".join(parts))


def decode_tail(
    key: bytes, value: Buffer, dim: int, dtype: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Return (vectors, record rows, scales) as unaligned views."""
    data = unseal(key, value, "tail chunk")
    row_bytes = dim * np.dtype(dtype).itemsize
    if len(data) < _TAIL.size:
        raise CorruptionError("a tail chunk is too short", what="tail chunk", where=key.hex())
    count, width = _TAIL.unpack_from(data)
    at_vectors = _TAIL.size + 12 * count
    if width != row_bytes or at_vectors + count * row_bytes != len(data):
        raise CorruptionError("a tail chunk has a wrong length", what="tail chunk", where=key.hex())
    vectors = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), count * dim, at_vectors).reshape(count, dim)
    return (
        vectors,
        np.frombuffer(data, "<u8", count, _TAIL.size),
        np.frombuffer(data, "<f4", count, _TAIL.size + 8 * count),
    )


# --- arrays of numbers ------------------------------------------------------------------------------------


def pack_numbers(numbers: Sequence[int] | npt.NDArray[np.uint64]) -> bytes:
    return np.asarray(numbers, dtype="<u8").tobytes()


def unpack_numbers(data: Buffer, what: str) -> npt.NDArray[np.uint64]:
    if len(data) % 8:
        raise CorruptionError(f"{what} has a length of {len(data)}, expected a multiple of 8", what=what)
    return np.frombuffer(bytes(data), "<u8").astype(np.uint64, copy=False)
