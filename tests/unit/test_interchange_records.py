"""Records from JSON lines, dicts and tables: what becomes id, text, metadata and vectors, however it is cut."""

import contextlib
import datetime
import decimal
import gzip
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import DimensionError, DTypeError, ParameterError, SourceError, VecdbError, VectorMissingError
from vecdb.interchange.arrowtables import ArrowFileRecords
from vecdb.interchange.chunks import Block, Chunk, Fields, Limits, NumberedRecords, stack
from vecdb.interchange.records import JsonLines, PlainRecords
from vecdb.interchange.sources import open_sources
from vecdb.interchange.tables import TableRecords, as_columns

EVERYTHING = Limits(rows=10**9, nbytes=1 << 40)
VECTORS = np.arange(18, dtype=np.float32).reshape(6, 3)
DATES = [datetime.date(2024, 1, day) for day in range(1, 7)]
COLUMNS = {"key": list("abcdef"), "body": ["t", None, "u", "v", None, "w"], "size": [1, 2, None, 4, 5, 6], "day": DATES}
FIELDS = Fields(id="key", text="body", vectors={"s": "emb"}, nulls=False)


def whole(source, limits=EVERYTHING, start=0):
    """Everything a source yields, as plain records in order."""
    found = []
    for chunk in source.chunks(start, limits):
        assert chunk.first == start + len(found)
        vectors = {space: block.spread(len(chunk.ids)) for space, block in chunk.vectors.items()}
        for place, key in enumerate(chunk.ids):
            record = {"id": key, "metadata": chunk.metadata[place] if chunk.metadata else {}}
            if chunk.texts is not None:
                record["text"] = chunk.texts[place]
            for space, rows in vectors.items():
                record[space] = None if rows[place] is None else np.asarray(rows[place]).tolist()
            found.append(record)
    return found


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


# --- JSON lines and dicts ---------------------------------------------------------------------------------

RECORDS = [
    {"id": 7, "text": "seven", "year": 1, "tags": ["a"], "v": [1, 2.5]},
    {"id": "7", "year": None, "v": None},
    {"text": "no year", "id": "x", "deep": {"a": [1, {"b": None}]}},
]


def both(tmp_path, fields):
    return JsonLines(write_jsonl(tmp_path / "r.jsonl", RECORDS), fields), PlainRecords(RECORDS, fields)


def test_fields_get_their_meaning(tmp_path):
    for source in both(tmp_path, Fields(text="text", vectors={"s": "v"})):
        assert whole(source) == [
            {"id": 7, "text": "seven", "metadata": {"year": 1, "tags": ["a"]}, "s": [1, 2.5]},
            {"id": "7", "text": None, "metadata": {"year": None}, "s": None},
            {"id": "x", "text": "no year", "metadata": {"deep": {"a": [1, {"b": None}]}}, "s": None},
        ]


def test_chosen_fields_and_left_out_nulls(tmp_path):
    for source in both(tmp_path, Fields(metadata=("year", "missing"), nulls=False)):
        assert [record["metadata"] for record in whole(source)] == [{"year": 1}, {}, {}]
    for source in both(tmp_path, Fields(metadata=())):
        assert [record["metadata"] for record in whole(source)] == [{}, {}, {}]


def test_records_without_ids_are_numbered(tmp_path):
    for source in both(tmp_path, Fields(id=None)):
        assert [record["id"] for record in whole(source, Limits(1, 1), start=1)] == [1, 2]
        assert whole(source)[0]["metadata"]["id"] == 7


@given(st.integers(1, 7), st.integers(1, 3000), st.integers(0, 12))
def test_cutting_changes_nothing(rows, nbytes, start):
    records = [{"id": n, "v": [n, n + 0.5] if n % 3 else None, "pad": "x" * (n * 7)} for n in range(12)]
    source = PlainRecords(records, Fields(vectors={"s": "v"}))
    everything = whole(source)
    assert whole(source, Limits(rows, nbytes, 8), start) == everything[start:]
    assert all(len(chunk.ids) <= rows for chunk in source.chunks(start, Limits(rows, nbytes)))


def test_line_numbers_count_blank_lines(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('\n{"id": 1}\n\n\n{"id": 2}\n')
    (chunk,) = JsonLines(str(path), Fields()).chunks(0, EVERYTHING)
    assert chunk.lines == [2, 5]
    assert JsonLines(str(path), Fields()).count() == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", "holds a list, expected an object"),
        ("3", "holds a int, expected an object"),
        ('{"name": 1, "b": 2}', "has no field 'id'; it has 'name', 'b'"),
        ("{}", "it has none"),
        ('{"id": 1', "not valid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, problem):
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(f'{{"id": 0}}\n{line}\n'.encode()))
    with pytest.raises(SourceError, match=r"r\.jsonl\.gz, line 2,") as caught:
        whole(JsonLines(str(path), Fields()))
    assert problem in caught.value.message
    assert caught.value.line == 2


def test_widths_are_found_at_the_first_vector(tmp_path):
    for source in both(tmp_path, Fields()):
        assert source.width("v") == (2, np.float64)
        with pytest.raises(VectorMissingError, match="'nothing'"):
            source.width("nothing")


def test_an_iterator_of_dicts_is_read_once():
    source = PlainRecords(iter(RECORDS), Fields())
    assert source.rows is None and source.fingerprint() is None
    with pytest.raises(SourceError, match="only once"):
        source.width("v")
    assert len(whole(source)) == 3
    with pytest.raises(SourceError, match="record 1 is a int"):
        whole(PlainRecords([{"id": 1}, 5], Fields()))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ([[1, 2], [1, 2, 3]], DimensionError),
        ([[1, 2], []], DimensionError),
        ([[[1]], None], DimensionError),
        ([3.0], DimensionError),
        ([["a", "b"]], DTypeError),
        ([[1, None]], DTypeError),
        ([[1, [2]]], DTypeError),
        ([[True, False]], DTypeError),
    ],
)
def test_columns_that_hold_no_vectors(values, error):
    with pytest.raises(error, match=r"x: row 1\d"):
        stack(values, "x", 10)


def test_numbered_records_and_given_ids():
    assert [record["id"] for record in whole(NumberedRecords(5), Limits(2, 100), 1)] == [1, 2, 3, 4]
    assert [record["id"] for record in whole(NumberedRecords(3, np.array([5, 6, 7])))] == [5, 6, 7]
    assert [record["id"] for record in whole(NumberedRecords(2, ["a", 1]))] == ["a", 1]


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, 9))
def test_the_rest_of_a_chunk_keeps_its_vectors(present, count):
    at = np.flatnonzero(present)
    block = Block(at[:, np.newaxis] * 1.0, None if all(present) else at, "x")
    chunk = Chunk(5, list(range(len(present))), vectors={"s": block}, lines=[n + 10 for n in range(len(present))])
    rest = chunk.after(count)
    wanted = [[float(place)] if there else None for place, there in enumerate(present)][count:]
    assert [None if row is None else row.tolist() for row in rest.vectors["s"].spread(len(rest.ids))] == wanted
    assert (rest.first, rest.ids) == (5 + count, chunk.ids[count:])
    assert rest.lines == chunk.lines[count:]


# --- tables -----------------------------------------------------------------------------------------------

EXPECTED = [
    {
        "id": key,
        "text": body,
        "metadata": {"day": day.isoformat()} | ({} if size is None else {"size": size}),
        "s": None if key == "d" else row.tolist(),
    }
    for key, body, size, day, row in zip(*COLUMNS.values(), VECTORS, strict=True)
]
EMBEDDED = [None if key == "d" else row.tolist() for key, row in zip("abcdef", VECTORS, strict=True)]


def arrow_table(kind=None):
    kind = pa.list_(pa.float32(), 3) if kind is None else kind
    return pa.table({**COLUMNS, "emb": pa.array(EMBEDDED, type=kind)})


def tables():
    rows = [None if row is None else np.array(row, np.float32) for row in EMBEDDED]
    sizes = pd.array(COLUMNS["size"], dtype="Int64")
    yield "dict", {**COLUMNS, "emb": rows}
    yield "arrow", arrow_table()
    yield "arrow batch", arrow_table().to_batches()[0]
    yield "arrow chunks", pa.concat_tables([arrow_table().slice(0, 2), arrow_table().slice(2)])
    yield "arrow lists", arrow_table(pa.list_(pa.float32()))
    yield "arrow large lists", arrow_table(pa.large_list(pa.float32()))
    yield "pandas", pd.DataFrame({**COLUMNS, "size": sizes, "emb": rows})
    yield "polars array", pl.DataFrame({**COLUMNS, "emb": pl.Series(EMBEDDED, dtype=pl.Array(pl.Float32, 3))})
    yield "polars list", pl.DataFrame({**COLUMNS, "emb": pl.Series(EMBEDDED, dtype=pl.List(pl.Float32))})


@pytest.mark.parametrize(("name", "table"), list(tables()), ids=[name for name, _ in tables()])
@pytest.mark.parametrize(("rows", "start"), [(100, 0), (1, 0), (4, 0), (2, 3)])
def test_every_kind_of_table_gives_the_same_records(name, table, rows, start):
    source = TableRecords(as_columns(table), FIELDS)
    found = whole(source, Limits(rows, 1 << 30), start)
    assert json.loads(json.dumps(found)) == EXPECTED[start:]
    assert source.rows == source.count() == 6
    assert source.width("emb")[0] == 3


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "stream.arrow"])
@pytest.mark.parametrize(("rows", "start"), [(100, 0), (1, 2), (4, 0), (2, 5)])
def test_arrow_files_give_the_same_records(tmp_path, suffix, rows, start):
    path = str(tmp_path / f"t.{suffix}")
    table = arrow_table()
    if suffix == "parquet":
        pq.write_table(table, path, row_group_size=4)
    else:
        new = pa.ipc.new_stream if suffix.startswith("stream") else pa.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    source = ArrowFileRecords(path, FIELDS)
    assert json.loads(json.dumps(whole(source, Limits(rows, 1 << 30), start))) == EXPECTED[start:]
    assert source.count() == 6
    assert source.width("emb") == (3, np.float32)
    assert source.fingerprint()["size"] > 0


def test_nulls_can_be_kept():
    source = TableRecords(as_columns(arrow_table()), Fields(id="key", metadata=("size",), nulls=True))
    assert [record["metadata"]["size"] for record in whole(source)] == [1, 2, None, 4, 5, 6]


def test_half_floats_stay_half():
    column = pa.array([np.float16(1.5), np.float16(2)], type=pa.float16())
    table = pa.table({"id": [1], "emb": pa.FixedSizeListArray.from_arrays(column, 2)})
    (chunk,) = TableRecords(as_columns(table), Fields(vectors={"s": "emb"})).chunks(0, EVERYTHING)
    assert chunk.vectors["s"].rows.dtype == np.float16


def test_a_matrix_column_of_a_dict_is_not_taken_apart():
    (chunk,) = TableRecords(as_columns({"id": [1, 2], "v": VECTORS[:2]}), Fields(vectors={"s": "v"})).chunks(
        0, EVERYTHING
    )
    assert chunk.vectors["s"].rows.base is not None and chunk.vectors["s"].at is None


def test_values_of_tables_become_plain():
    table = pd.DataFrame({"id": [1], "when": [pd.Timestamp("2024-05-06T07:08:09")], "n": [np.int64(3)], "x": [np.nan]})
    (record,) = whole(TableRecords(as_columns(table), Fields(nulls=False)))
    assert record["metadata"] == {"when": "2024-05-06T07:08:09", "n": 3}
    nested = pa.table({"id": [1], "s": [{"d": DATES[0], "l": [DATES[1]]}], "m": [decimal.Decimal("1.5")]})
    (record,) = whole(TableRecords(as_columns(nested), Fields()))
    assert record["metadata"]["s"] == {"d": "2024-01-01", "l": ["2024-01-02"]}


def test_unknown_columns_are_named():
    with pytest.raises(SourceError, match="no column 'nope', 'wrong'; it has 'id', 'x'"):
        TableRecords(as_columns({"id": [1], "x": [2]}), Fields(text="nope", metadata=("wrong",)))


@pytest.mark.parametrize(
    ("table", "error", "problem"),
    [
        ({"id": [1, 2], "x": [1]}, SourceError, "different lengths"),
        (pd.DataFrame([[1, 2]], columns=["id", "id"]), SourceError, "same name"),
        (pa.table([[1], [2]], names=["id", "id"]), SourceError, "same name"),
        (pl.LazyFrame({"id": [1]}), DTypeError, "collect"),
    ],
)
def test_tables_that_cannot_be_read(table, error, problem):
    with pytest.raises(error, match=problem):
        as_columns(table)


@pytest.mark.parametrize(
    ("column", "error", "problem"),
    [
        (pa.array([1.0, 2.0]), DTypeError, "of type double, expected lists"),
        (pa.array([[1.0], [1.0, 2.0]]), DimensionError, "row 1 has 2 numbers, expected 1"),
        (pa.array([[1.0, None], [1.0, 2.0]]), DTypeError, "null inside a vector"),
        (pa.array(["a", "b"]), DTypeError, "of type string"),
    ],
)
def test_arrow_columns_that_hold_no_vectors(column, error, problem):
    source = TableRecords(as_columns(pa.table({"id": [1, 2], "v": column})), Fields(vectors={"s": "v"}))
    with pytest.raises(error, match=problem):
        whole(source)


def test_empty_tables_and_columns_of_nulls():
    empty = TableRecords(as_columns(arrow_table().slice(0, 0)), FIELDS)
    assert whole(empty) == []
    nothing = pa.table({"id": [1], "v": pa.array([None], type=pa.list_(pa.float32(), 3))})
    source = TableRecords(as_columns(nothing), Fields(vectors={"s": "v"}))
    assert whole(source)[0]["s"] is None
    with pytest.raises(VectorMissingError, match="'v'"):
        source.width("v")


@given(st.data())
def test_damaged_arrow_files_give_records_or_a_typed_error(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(["parquet", "arrow"]))
    path = tmp_path_factory.mktemp("flip") / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(arrow_table(), path, row_group_size=4)
    else:
        with pa.ipc.new_file(str(path), arrow_table().schema) as writer:
            writer.write_table(arrow_table())
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(VecdbError):
        found = whole(ArrowFileRecords(str(path), FIELDS))
        assert all(set(record) == {"id", "text", "metadata", "s"} for record in found)


# --- from arguments to sources ----------------------------------------------------------------------------


def opened(source, **given):
    arguments = {"vectors": {}, "ids": "id", "text": None, "metadata": None, **given}
    return open_sources(source, **arguments)


def test_lengths_are_compared_before_anything_is_read(tmp_path):
    np.save(tmp_path / "x.npy", VECTORS)
    sources = opened(write_jsonl(tmp_path / "r.jsonl", RECORDS), vectors={"s": str(tmp_path / "x.npy")})
    with pytest.raises(SourceError, match=r"x\.npy holds 6 vectors, but .*r\.jsonl holds 3 records"):
        sources.check_counts()
    assert sources.facts().rows == 6
    assert sources.facts().widths == {"s": (3, np.float32)}
    sources.close()


@pytest.mark.parametrize(
    ("source", "given", "problem"),
    [
        (None, {}, "no records to import"),
        (None, {"vectors": {"s": VECTORS}, "text": "t"}, "no records to import"),
        (None, {"vectors": {"s": VECTORS}, "ids": [1, 2]}, "2 ids are given for 6 vectors"),
        (RECORDS, {"ids": [1, 2, 3]}, "ids are given as values"),
        (RECORDS, {"metadata": "year"}, "metadata is a str"),
        (17, {}, "a int cannot be imported"),
        ("x.csv", {}, "known suffixes"),
    ],
)
def test_arguments_that_make_no_sense(source, given, problem):
    with pytest.raises((SourceError, ParameterError, VecdbError), match=problem):
        opened(source, **given)
