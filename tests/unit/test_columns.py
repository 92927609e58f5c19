"""Column chunks: forms, limits, alignment, and bytes that no encoder wrote."""

import json
import random

import numpy as np
import pytest

from vecdb.engine.order import parse_order
from vecdb.engine.where import parse
from vecdb.errors import CorruptionError, MetadataError, ParameterError
from vecdb.storage import columns
from vecdb.storage.columns import MISSING, OPAQUE, ColumnChunk, Tag, encode_columns
from vecdb.storage.columns.layout import HEADER, pack_array


def rows_of(count, start=0):
    return np.arange(start, start + count, dtype=np.uint64)


def open_of(*metadatas):
    return ColumnChunk.open(encode_columns(rows_of(len(metadatas)), metadatas))


def never():
    raise AssertionError("no record may be read")


# --- forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "tag", "dtype"),
    [
        ([1, -128, 127], Tag.INT, "int8"),
        ([1, 128], Tag.INT, "int16"),
        ([1, -32_769], Tag.INT, "int32"),
        ([2**63 - 1, -(2**63)], Tag.INT, "int64"),
        ([0.5, float("inf")], Tag.FLOAT, "float64"),
    ],
)
def test_numbers_of_one_type_are_one_array_as_narrow_as_they_allow(values, tag, dtype):
    column = open_of(*({"a": value} for value in values)).column("a")
    array = column.values.ints if tag is Tag.INT else column.values.floats
    assert column.places is None and column.values.tags is None
    assert column.values.kinds == {tag}
    assert array.dtype == dtype and array.tolist() == values
    assert not array.flags.writeable


def test_texts_are_codes_into_a_sorted_dictionary():
    strings = open_of({"a": "b"}, {"a": "é"}, {"a": ""}, {"a": "b"}).column("a").values.strings
    assert strings.codes.tolist() == [1, 2, 0, 1]
    assert strings.codes.dtype == np.uint8
    assert strings.entries() == [b"", b"b", "é".encode()]
    assert [strings.find(key) for key in (b"", b"b", b"c")] == [0, 1, -1]
    assert (strings.left(b"b"), strings.right(b"b")) == (1, 2)


def test_a_dictionary_is_sorted_by_code_point():
    texts = ["\U0001f600", "\uffff", "z", "Z", "é", ""]
    chunk = open_of(*({"a": text} for text in texts))
    assert chunk.column("a").values.strings.entries() == [text.encode() for text in sorted(texts)]


@pytest.mark.parametrize("count", [255, 256, 257, 300])
def test_many_distinct_texts_widen_the_codes(count):
    chunk = open_of(*({"a": f"{number:04d}"} for number in range(count)))
    assert chunk.values("a") == [f"{number:04d}" for number in range(count)]
    assert parse({"a": {"$gte": f"{count - 1:04d}"}}).mask(chunk, never).sum() == 1
    assert parse({"a": {"$lte": "9"}}).mask(chunk, never).all()


@pytest.mark.parametrize("needle", ["", "1", "01", "0299", "x", "é", "é0", "00é"])
def test_substrings_never_reach_over_two_entries(needle):
    texts = [f"é{number:04d}" for number in range(300)]
    strings = open_of(*({"a": text} for text in texts)).column("a").values.strings
    assert strings.containing(needle.encode()).tolist() == [needle in text for text in texts]


@pytest.mark.parametrize("count", [0, 1, 16, 17, 200])
def test_wanted_texts_are_found_by_look_up_or_by_a_pass(count):
    strings = open_of(*({"a": f"{number:04d}"} for number in range(0, 300, 2))).column("a").values.strings
    keys = frozenset(f"{number:04d}".encode() for number in range(count))
    assert strings.among(keys).tolist() == [entry in keys for entry in strings.entries()]


def test_every_mix_of_types_is_kept():
    mixed = [None, True, 1, 1.5, "s", [1, "x", None, [2], {"z": 1}], {"b": 2}, [], False]
    chunk = open_of(*({"a": value} for value in mixed), {})
    expected = [None, True, 1, 1.5, "s", [1, "x", None, OPAQUE, OPAQUE], OPAQUE, [], False, MISSING]
    assert list(map(repr, chunk.values("a"))) == list(map(repr, expected))
    assert chunk.values("a.b") == [MISSING] * 6 + [2] + [MISSING] * 3
    assert chunk.column("a").values.kinds == frozenset(Tag)


def test_a_chunk_is_bare_only_if_every_record_is():
    assert open_of({}, {}).bare and open_of().bare
    assert not open_of({}, {"a": None}).bare and not open_of({"a": {}}).bare


def test_a_path_that_no_record_has():
    chunk = open_of({"a": 1})
    assert chunk.covers("b") and chunk.column("b") is None and chunk.values("b") == [MISSING]


def test_columns_are_decoded_on_first_use_and_kept():
    chunk = open_of({"a": 1, "b": 2})
    assert chunk.column("a") is chunk.column("a")


def test_sentinels_name_themselves():
    assert repr(MISSING) == "MISSING" and repr(OPAQUE) == "OPAQUE"


# --- rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows", [[], [0], [7], [5, 6, 7], [0, 2, 300], [0, 2**32], [2**63, 2**64 - 1], [2**64 - 2, 2**64 - 1]]
)
def test_rows_come_back(rows):
    array = np.array(rows, dtype=np.uint64)
    chunk = ColumnChunk.open(encode_columns(array, [{"a": row % 5} for row in rows]))
    assert chunk.rows.dtype == np.uint64 and chunk.rows.tolist() == rows
    assert len(chunk) == len(rows)
    assert parse({"a": {"$exists": True}}).mask(chunk, never).tolist() == [True] * len(rows)


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (np.array([2, 1], np.uint64), 2),
        (np.array([1, 1], np.uint64), 2),
        (np.array([1], np.int64), 1),
        (np.array([1], np.uint64), 2),
        (np.array([[1]], np.uint64), 1),
        (np.arange(16_385, dtype=np.uint64), 16_385),
    ],
)
def test_rows_are_checked_before_anything_is_encoded(rows, count):
    with pytest.raises(ParameterError, match="rows"):
        encode_columns(rows, [{}] * count)


@pytest.mark.parametrize("value", [2**63, "\ud800", b"x", (1,), {1, 2}, [b"x"], np.float32(1)])
def test_values_that_no_metadata_has_are_refused(value):
    with pytest.raises(MetadataError, match="'a'") as caught:
        encode_columns(rows_of(1), [{"a": value}])
    assert caught.value.path == "a"


# --- limits -----------------------------------------------------------------------------------------------


def test_the_most_frequent_paths_are_kept_and_the_rest_is_marked():
    metadatas = [{"common": place, f"rare{place:03d}": place, "deep": {"er": "x"}} for place in range(300)]
    chunk = open_of(*metadatas)
    assert chunk.overflow and len(chunk.paths) == columns.MAX_PATHS
    assert {"common", "deep", "deep.er"} < set(chunk.paths)
    assert chunk.covers("rare000") and chunk.values("rare000")[:2] == [0, MISSING]
    assert not chunk.covers("rare299") and not chunk.covers("never-seen")

    calls = []

    def fetch():
        calls.append(1)
        return metadatas

    condition = parse({"rare299": 299})
    assert condition.uncovered(chunk) == ("rare299",)
    assert condition.mask(chunk, fetch).tolist() == [place == 299 for place in range(300)]
    assert len(calls) == 1
    assert parse_order("-rare299").keys(chunk, fetch) == [parse_order("-rare299").key(each) for each in metadatas]
    assert parse({"common": 7, "deep.er": "x"}).mask(chunk, never).sum() == 1


def test_exactly_as_many_paths_as_are_kept_is_no_overflow():
    chunk = open_of({f"p{number}": 1 for number in range(columns.MAX_PATHS)})
    assert not chunk.overflow and chunk.covers("other")


def test_a_column_that_would_be_too_large_is_left_to_the_records(monkeypatch):
    monkeypatch.setattr("vecdb.storage.columns.encode.MAX_COLUMN_BYTES", 1_000)
    metadatas = [{"body": "x" * 600 + str(place), "kind": "note"} for place in range(3)]
    chunk = open_of(*metadatas)
    assert not chunk.covers("body") and "body" not in chunk.paths
    assert chunk.covers("kind") and chunk.covers("other") and not chunk.overflow
    assert parse({"body": {"$contains": "x1"}, "kind": "note"}).mask(chunk, lambda: metadatas).tolist() == [0, 1, 0]


def test_a_chunk_that_would_be_too_large_keeps_what_fits(monkeypatch):
    monkeypatch.setattr("vecdb.storage.columns.encode.MAX_COLUMNS_BYTES", 1_000)
    chunk = open_of({"a": "x" * 600, "b": "y" * 600, "c": 1})
    assert [chunk.covers(path) for path in "abc"] == [True, False, True]


def test_records_without_the_long_path_settle_it_without_reading_records(monkeypatch):
    monkeypatch.setattr("vecdb.storage.columns.encode.MAX_COLUMN_BYTES", 1_000)
    chunk = open_of({"body": "x" * 2_000, "kind": "note"})
    assert not parse({"body": {"$contains": "x"}, "kind": "other"}).mask(chunk, never).any()
    assert parse({"$or": [{"body": "x"}, {"kind": "note"}]}).mask(chunk, never).all()


# --- where the bytes lie -----------------------------------------------------------------------------------

SAMPLE = [
    {
        "int": place - 2,
        "float": place / 3,
        "text": "abcé"[place % 4] * place,
        "flag": place % 2 == 0,
        "mixed": [None, True, 3, 2.5, "x", [1, "y", None, {}], {"in": place}][place % 7],
        "list": ["a", "b"][: place % 3],
        "nulls": None,
        "nest": {"deep": {"er": [place, [place]]}},
        **({"rare": place} if place % 3 == 0 else {}),
    }
    for place in range(20)
]
SAMPLE_ROWS = np.cumsum(np.arange(3, 23), dtype=np.uint64)


@pytest.mark.parametrize("shift", range(9))
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_any_alignment_and_any_buffer_will_do(shift, kind):
    raw = encode_columns(SAMPLE_ROWS, SAMPLE)
    plain = ColumnChunk.open(raw)
    moved = ColumnChunk.open(memoryview(kind(bytes(shift) + raw))[shift:])
    assert moved.rows.tolist() == SAMPLE_ROWS.tolist()
    assert [moved.values(path) for path in moved.paths] == [plain.values(path) for path in plain.paths]
    assert not moved.column("int").values.ints.flags.writeable


def test_the_same_metadata_gives_the_same_bytes():
    assert encode_columns(SAMPLE_ROWS, SAMPLE) == encode_columns(SAMPLE_ROWS, SAMPLE)


def test_bytes_after_the_last_body_are_not_read():
    assert ColumnChunk.open(encode_columns(SAMPLE_ROWS, SAMPLE) + bytes(16)).values("nulls") == [None] * 20


# --- bytes that no encoder wrote -----------------------------------------------------------------------------

CONDITIONS = [
    parse({path: {operator: operand}})
    for path in ("int", "float", "text", "flag", "mixed", "list", "nulls", "nest.deep.er", "rare", "mixed.in", "gone")
    for operator, operand in [
        ("$eq", 1),
        ("$lt", 2.5),
        ("$gte", "b"),
        ("$contains", "b"),
        ("$in", [None, True, 1, "a"]),
    ]
]
ORDER = parse_order(["mixed", "-text"])


def use(raw):
    """Ask everything of a chunk; whatever comes back must have the right shape."""
    chunk = ColumnChunk.open(raw)
    for condition in CONDITIONS:
        mask = condition.mask(chunk, lambda: [{}] * len(chunk))
        assert mask.dtype == bool and mask.shape == (len(chunk),)
    assert len(ORDER.keys(chunk, lambda: [{}] * len(chunk))) == len(chunk)
    for path in chunk.paths:
        assert len(chunk.values(path)) == len(chunk)


def survives(raw):
    """Whether damaged bytes were answered; the only other outcome is the one error."""
    try:
        use(raw)
    except CorruptionError:
        return False
    return True


def test_every_truncation_is_noticed():
    raw = encode_columns(SAMPLE_ROWS, SAMPLE)
    use(raw)
    for size in range(len(raw) - 8):  # the last bytes may be padding
        assert not survives(raw[:size])


def test_no_flipped_bit_does_harm():
    raw = bytearray(encode_columns(SAMPLE_ROWS, SAMPLE))
    picker = random.Random(1)
    for _ in range(600):
        place, bit = picker.randrange(len(raw)), 1 << picker.randrange(8)
        raw[place] ^= bit
        survives(bytes(raw))
        raw[place] ^= bit


def test_no_random_damage_does_harm():
    raw = encode_columns(SAMPLE_ROWS, SAMPLE)
    picker = random.Random(2)
    outcomes = set()
    for _ in range(600):
        damaged = bytearray(raw)
        for _ in range(picker.randint(1, 6)):
            place = picker.randrange(len(damaged))
            span = picker.choice([1, 2, 4, 8])
            damaged[place : place + span] = picker.choice([b"\x00", b"\xff", b"\x01", picker.randbytes(1)]) * span
        if picker.random() < 0.2:
            del damaged[picker.randrange(len(damaged)) :]
        outcomes.add(survives(bytes(damaged)))
    assert outcomes == {True, False}


def test_random_bytes_are_no_chunk():
    picker = random.Random(3)
    for size in (0, 1, 23, 24, 25, 100, 1_000):
        assert not survives(picker.randbytes(size))
        assert not survives(b"vcol\x01\x00\x00\x00" + picker.randbytes(size))


def chunk_with(directory, body=b"", *, records=3, first=0, flags=0, version=1, size=None):
    raw = directory if isinstance(directory, bytes) else json.dumps(directory).encode()
    header = HEADER.pack(b"vcol", version, flags, records, len(raw) if size is None else size, first)
    return header + raw + bytes(-len(raw) % 8) + body


@pytest.mark.parametrize(
    "directory",
    [
        b"",
        b"[",
        b"\xff\xff",
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"rows": [0, 0], "columns": [["a", 0, ' + b"9" * 5_000 + b"]]}",
        [],
        {},
        {"rows": None, "columns": []},
        {"rows": [0], "columns": []},
        {"rows": [0, 0], "columns": 5},
        {"rows": [0, 0], "columns": [["a", 0]]},
        {"rows": [0, 0], "columns": [["a", 0, 1, 2]]},
        {"rows": [0, 0], "columns": [["a", -8, 8]]},
        {"rows": [0, 0], "columns": [["a", 0, 10_000]]},
        {"rows": [0, 0], "columns": [["a", 0.0, 8]]},
        {"rows": [0, 0], "columns": [["a", True, 8]]},
        {"rows": [0, 0], "columns": [["a", 0, 8], ["a", 0, 8]]},
        {"rows": [0, 0], "columns": [[f"p{number}", 0, 8] for number in range(257)]},
        {"rows": [0, 8], "columns": []},
    ],
)
def test_a_directory_out_of_shape_is_damage(directory):
    with pytest.raises(CorruptionError) as caught:
        ColumnChunk.open(chunk_with(directory, bytes(64)))
    assert caught.value.what == "columns" and caught.value.where


@pytest.mark.parametrize(
    "given",
    [{"version": 2}, {"flags": 2}, {"records": 16_385}, {"size": 2**32 - 1}, {"first": 2**64 - 2}],
)
def test_a_header_out_of_range_is_damage(given):
    with pytest.raises(CorruptionError):
        ColumnChunk.open(chunk_with({"rows": [0, 0], "columns": []}, **given))


def u8(*numbers):
    return pack_array(np.array(numbers, np.uint8))


def i8(*numbers):
    return pack_array(np.array(numbers, np.int8))


def floats(*numbers):
    return pack_array(np.array(numbers, np.float64))


ALL = u8()
NULL, BOOL, INT, FLOAT, STR, LIST, DICT = range(1, 8)


def test_a_column_written_by_hand_is_read():
    body = ALL + u8(INT, STR) + u8(STR, INT, STR) + i8(-5) + u8(1, 0) + u8(0, 1, 2) + u8(*b"pq")
    chunk = ColumnChunk.open(chunk_with({"rows": [0, 0], "columns": [["a", 0, len(body)]]}, body))
    assert chunk.values("a") == ["q", -5, "p"]


@pytest.mark.parametrize(
    "body",
    [
        b"\x00" * 7,  # shorter than a block's header
        b"\x63\x00\x00\x00\x00\x00\x00\x00",  # an unknown dtype
        b"\x01\x00\x00\x00\xff\xff\xff\xff",  # more numbers than there are bytes
        u8(1, 0) + u8(INT) + i8(1, 2),  # places fall
        u8(0, 3) + u8(INT) + i8(1, 2),  # a place past the records
        i8(0) + u8(INT) + i8(1),  # signed places
        ALL + u8(),  # values without a type
        ALL + u8(8) + i8(1, 2, 3),  # an unknown type
        ALL + u8(0) + u8(0, 0, 0),  # no type is 0
        ALL + u8(STR, INT) + u8(INT, STR, INT),  # types fall
        ALL + u8(INT, FLOAT) + u8(INT, FLOAT, STR) + i8(1) + floats(1),  # a tag that is not listed
        ALL + u8(INT) + i8(1, 2),  # fewer ints than records
        ALL + u8(INT) + i8(1, 2, 3, 4),  # more ints than records
        ALL + u8(INT) + u8(1, 2, 3),  # ints without a sign
        ALL + u8(FLOAT) + i8(1, 2, 3),  # floats that are ints
        ALL + u8(BOOL) + u8(0, 1, 2),  # a bool that is 2
        ALL + u8(INT) + i8(1, 2, 3) + i8(0),  # something after the end
        ALL + u8(STR) + u8(0, 0, 1) + u8(0, 1) + u8(65),  # a code past the dictionary
        ALL + u8(STR) + u8(0, 0, 0) + u8() + u8(65),  # no ends
        ALL + u8(STR) + u8(0, 0, 0) + u8(1, 1) + u8(65),  # the first entry does not begin at 0
        ALL + u8(STR) + u8(0, 0, 0) + u8(0, 2, 1) + u8(65),  # ends fall
        ALL + u8(STR) + u8(0, 0, 0) + u8(0, 2) + u8(65),  # ends past the texts
        ALL + u8(STR) + u8(0, 0, 0) + u8(0, 1) + pack_array(np.array([65], np.uint16)),  # texts of wide numbers
        ALL + u8(LIST) + u8(0, 1, 1) + u8(INT) + i8(1),  # too few ends of lists
        ALL + u8(LIST) + u8(0, 1, 1, 2) + u8(LIST) + u8(0, 0, 0),  # lists inside lists
        ALL + u8(LIST) + pack_array(np.array([0, 0, 0, 2**62], np.uint64)) + u8(NULL),  # nulls that nobody paid for
        ALL + u8(LIST) + pack_array(np.array([0, 0, 0, 2**64 - 1], np.uint64)) + u8(NULL),
        ALL + u8(LIST) + u8(0, 0, 0, 0) + u8(INT) + i8(),  # types without members
    ],
)
def test_a_column_out_of_shape_is_damage(body):
    chunk = ColumnChunk.open(chunk_with({"rows": [0, 0], "columns": [["a", 0, len(body)]]}, body))
    with pytest.raises(CorruptionError, match="path 'a'"):
        chunk.values("a")


def test_text_that_is_not_utf8_is_damage_when_it_is_shown():
    body = ALL + u8(STR) + u8(0, 0, 0) + u8(0, 1) + u8(255)
    chunk = ColumnChunk.open(chunk_with({"rows": [0, 0], "columns": [["a", 0, len(body)]]}, body))
    assert not parse({"a": "x"}).mask(chunk, never).any()
    with pytest.raises(CorruptionError, match="UTF-8"):
        chunk.values("a")


def test_a_dictionary_of_nothing_but_empty_texts_can_be_searched():
    body = ALL + u8(STR) + u8(0, 9, 19) + u8(*[0] * 21) + u8()
    chunk = ColumnChunk.open(chunk_with({"rows": [0, 0], "columns": [["a", 0, len(body)]]}, body))
    assert parse({"a": {"$contains": ""}}).mask(chunk, never).all()
    assert not parse({"a": {"$contains": "x"}}).mask(chunk, never).any()


@pytest.mark.parametrize(
    "gaps",
    [
        u8(0, 1),
        u8(1, 2, 3),
        u8(0, 0, 1),
        i8(0, 1, 2),
        u8(0, 1, 2) + u8(),
        pack_array(np.array([0, 1, 2**64 - 1], np.uint64)),
    ],
)
def test_rows_out_of_shape_are_damage(gaps):
    with pytest.raises(CorruptionError, match="rows"):
        ColumnChunk.open(chunk_with({"rows": [0, len(gaps)], "columns": []}, gaps, first=5))
