"""Imports into real databases: what is stored, what is refused, and what stays when something is refused."""

import gzip
import json
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest

import vecdb
from vecdb.errors import (
    CancelledError,
    DimensionError,
    DTypeError,
    DuplicateIdError,
    ExtraMissingError,
    IdError,
    MetadataError,
    NonFiniteError,
    ParameterError,
    RecordMissingError,
    SourceError,
    SpaceMissingError,
    VecdbError,
    ZeroVectorError,
)
from vecdb.interchange import from_table, import_data, inspect_source

ROWS = 25


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "x.vecdb") as opened:
        yield opened


@pytest.fixture
def docs(db):
    collection = db.create_collection("docs")
    collection.add_space("s", dim=3, metric="dot", model="m")
    return collection


def vectors(rows=ROWS, dim=3, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def records(rows=ROWS):
    return [{"id": f"r{n}" if n % 2 else n, "text": f"text {n}", "n": n, "list": [n, None]} for n in range(rows)]


@pytest.fixture
def files(tmp_path):
    """A file of records and one of vectors."""
    lines = "".join(json.dumps(record) + "\n" for record in records())
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    np.save(tmp_path / "v.npy", vectors())
    return str(tmp_path / "r.jsonl.gz"), str(tmp_path / "v.npy")


def stored(collection, space="s"):
    return [
        (record.id, record.text, record.metadata, record.vectors[space].tolist() if space in record.vectors else None)
        for record in collection.scan(vectors="all")
    ]


def expected(rows=ROWS):
    found = zip(records(rows), vectors(rows), strict=True)
    return [(r["id"], r["text"], {"n": r["n"], "list": r["list"]}, v.tolist()) for r, v in found]


# --- what is stored ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 25, 1000, None])
def test_files_become_records_in_their_order(docs, files, batch):
    seen = []
    result = import_data(
        docs, files[0], vectors={"s": files[1]}, text="text", batch=batch, progress=lambda *now: seen.append(now)
    )
    assert stored(docs) == expected()
    assert (result.rows, result.inserted, result.updated, result.resumed) == (ROWS, ROWS, 0, 0)
    assert seen[0] == (0, ROWS) and seen[-1] == (ROWS, ROWS)
    assert seen == sorted(seen)


def test_each_batch_is_one_commit(db, docs, files):
    before = db.seq
    result = import_data(docs, files[0], vectors={"s": files[1]}, batch=10)
    assert result.seq == db.seq == before + 3


def test_the_checkpoint_is_gone_when_the_import_is_complete(tmp_path, docs, files):
    import_data(docs, files[0], vectors={"s": files[1]}, batch=10)
    assert not list(tmp_path.glob("*.json")) and not list(tmp_path.glob("*.tmp"))


def test_dicts_tables_and_arrays(db, docs):
    by_hand = [record | {"v": row.tolist()} for record, row in zip(records(), vectors(), strict=True)]
    import_data(docs, by_hand, vectors={"s": "@v"}, text="text")
    assert stored(docs) == expected()
    table = pd.DataFrame({"id": range(4), "a": list("wxyz"), "v": list(vectors(4))})
    other = db.create_collection("table")
    other.add_space("s", dim=3, metric="dot")
    from_table(other, table, vectors={"s": "v"}, metadata=["a"])
    assert stored(other) == [(n, None, {"a": "wxyz"[n]}, vectors(4)[n].tolist()) for n in range(4)]
    third = db.create_collection("array")
    third.add_space("s", dim=3, metric="dot")
    import_data(third, vectors(5))
    assert [(record[0], record[3]) for record in stored(third)] == list(enumerate(vectors(5).tolist()))


def test_an_iterator_is_streamed(docs):
    import_data(docs, ({"id": n, "v": [n, 1, 2]} for n in range(ROWS)), vectors={"s": "@v"}, batch=4)
    assert [record[0] for record in stored(docs)] == list(range(ROWS))


@pytest.mark.parametrize("suffix", ["npy", "npz", "fvecs"])
def test_a_vector_file_alone_is_for_the_only_space(tmp_path, docs, suffix):
    path = tmp_path / f"v.{suffix}"
    if suffix == "npy":
        np.save(path, vectors())
    elif suffix == "npz":
        np.savez(path, vectors())
    else:
        width = np.full((ROWS, 1), 3, "<i4").view("<f4")
        path.write_bytes(np.hstack([width, vectors()]).tobytes())
    import_data(docs, path, batch=10)
    assert [(record[0], record[3]) for record in stored(docs)] == list(enumerate(vectors().tolist()))


def test_ids_may_be_given_beside_vectors(docs):
    import_data(docs, vectors={"s": vectors(3)}, ids=["a", 1, "1"])
    assert [record[0] for record in stored(docs)] == ["a", 1, "1"]


def test_several_spaces_and_missing_vectors(docs):
    docs.add_space("t", dim=2, dtype="float16", metric="l2")
    lines = [{"id": n, "v": None if n % 3 == 0 else [n, n, n]} for n in range(9)]
    half = np.arange(18, dtype=np.float16).reshape(9, 2)
    import_data(docs, lines, vectors={"s": "@v", "t": half}, batch=4)
    for n, record in enumerate(docs.scan(vectors="all")):
        assert set(record.spaces) == ({"t"} if n % 3 == 0 else {"s", "t"})
        assert record.vectors["t"].tobytes() == half[n].tobytes()


def test_a_batch_without_any_vector(docs):
    import_data(docs, [{"id": n, "v": [1, 2, 3] if n == 3 else None} for n in range(4)], vectors={"s": "@v"}, batch=2)
    assert [record.spaces for record in docs.scan()] == [(), (), (), ("s",)]


def test_int8_is_decoded_by_its_norm(docs):
    raw = np.array([[127, -3, 4], [0, 5, 0]], np.int8)
    import_data(docs, vectors={"s": raw}, normalise=True)
    unit = raw.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert np.array([record[3] for record in stored(docs)], np.float32).tobytes() == unit.tobytes()


def test_normalise_may_name_spaces(docs):
    docs.add_space("t", dim=3, metric="dot")
    import_data(docs, vectors={"s": [[3, 4, 0]], "t": [[3, 4, 0]]}, normalise=["t"])
    (record,) = docs.scan(vectors="all")
    assert record.vectors["s"].tolist() == [3, 4, 0]
    assert record.vectors["t"].tolist() == [np.float32(0.6), np.float32(0.8), 0]
    with pytest.raises(ParameterError, match="'nope'"):
        import_data(docs, vectors={"s": [[1, 2, 3]]}, normalise=["nope"])


def test_float16_values_are_kept_in_a_float32_space(docs):
    half = vectors().astype(np.float16)
    import_data(docs, vectors={"s": half})
    assert np.array_equal([record[3] for record in stored(docs)], half.astype(np.float32))


def test_a_further_space_for_existing_records(docs, files, tmp_path):
    import_data(docs, files[0], vectors={"s": files[1]}, text="text")
    docs.add_space("t", dim=2, metric="dot")
    np.save(tmp_path / "t.npy", vectors(ROWS, 2, 5))
    result = import_data(
        docs, files[0], vectors={"t": str(tmp_path / "t.npy")}, metadata=[], existing=True, batch=10, resume=False
    )
    assert stored(docs) == expected()
    assert [record[3] for record in stored(docs, "t")] == vectors(ROWS, 2, 5).tolist()
    assert (result.inserted, result.updated) == (0, ROWS)


def test_existing_refuses_records_that_are_not_there(docs, files):
    import_data(docs, files[0], vectors={"s": files[1]})
    with pytest.raises(RecordMissingError, match="nobody"):
        import_data(
            docs, [{"id": 0, "v": [1, 2, 3]}, {"id": "nobody", "v": [1, 2, 3]}], vectors={"s": "@v"}, existing=True
        )
    assert stored(docs)[0][3] == vectors()[0].tolist()


def test_merge_keeps_what_is_not_given(docs):
    import_data(docs, [{"id": 1, "a": 1, "t": "text", "v": [1, 2, 3]}], text="t", vectors={"s": "@v"})
    import_data(docs, [{"id": 1, "b": 2}], merge=True)
    assert stored(docs) == [(1, "text", {"a": 1, "b": 2}, [1, 2, 3])]
    import_data(docs, [{"id": 1, "b": 2}])
    assert stored(docs) == [(1, None, {"b": 2}, None)]


def test_importing_again_updates(docs, files):
    import_data(docs, files[0], vectors={"s": files[1]})
    result = import_data(docs, files[0], vectors={"s": vectors(seed=9)}, resume=False)
    assert (result.inserted, result.updated) == (0, ROWS)
    assert [record[3] for record in stored(docs)] == vectors(seed=9).tolist()


def test_facts_without_importing(files):
    facts = inspect_source(files[0], vectors={"s": files[1]})
    assert facts.rows == ROWS
    assert facts.widths == {"s": (3, np.float32)}


def test_nothing_to_import(docs, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    result = import_data(docs, tmp_path / "empty.jsonl")
    assert (result.rows, len(docs)) == (0, 0)


# --- what is refused --------------------------------------------------------------------------------------


def with_line(tmp_path, number, line):
    """A file of 20 records whose line `number` is something else."""
    lines = [json.dumps({"id": n, "v": [n, 1.0, 2.0]}) for n in range(20)]
    lines[number - 1] = line
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{", SourceError),
        ('"text"', SourceError),
        ('{"name": 1}', SourceError),
        ('{"id": true, "v": [1, 2, 3]}', IdError),
        ('{"id": 1.5, "v": [1, 2, 3]}', IdError),
        ('{"id": "", "v": [1, 2, 3]}', IdError),
        ('{"id": null, "v": [1, 2, 3]}', IdError),
        ('{"id": 9223372036854775808, "v": [1, 2, 3]}', IdError),
        ('{"id": "x", "a.b": 1, "v": [1, 2, 3]}', MetadataError),
        ('{"id": "x", "$a": 1, "v": [1, 2, 3]}', MetadataError),
        ('{"id": "x", "n": 9223372036854775808, "v": [1, 2, 3]}', MetadataError),
        ('{"id": "x", "v": [NaN, 2, 3]}', NonFiniteError),
        ('{"id": "x", "v": [1e300, 2, 3]}', VecdbError),
        ('{"id": 11, "v": [1, 2, 3]}', DuplicateIdError),
    ],
)
def test_a_bad_record_is_named_with_its_line_and_earlier_batches_stay(tmp_path, docs, line, error):
    path = with_line(tmp_path, 13, line)
    with pytest.raises(error, match=r"bad\.jsonl.*line 13") as caught:
        import_data(docs, path, vectors={"s": "@v"}, batch=5)
    assert [record.id for record in docs.scan()] == list(range(10))
    given = {name: getattr(caught.value, name) for name in caught.value.fields}
    assert {given.get(name) for name in ("row", "line", "position", "second", "first")} & {12, 13}


@pytest.mark.parametrize("value", ['"abc"', "[1, 2]", "[[1, 2, 3]]", '["a", "b", "c"]', "[1, null, 3]", "[]", "7"])
def test_bad_vectors_in_a_field_store_nothing_of_their_batch(tmp_path, docs, value):
    path = with_line(tmp_path, 13, f'{{"id": 12, "v": {value}}}')
    with pytest.raises((DimensionError, DTypeError), match=r"bad\.jsonl.*row 1[012]"):
        import_data(docs, path, vectors={"s": "@v"}, batch=5)
    assert len(docs) == 10


def test_a_zero_vector_in_a_cosine_space_is_named(db):
    docs = db.create_collection("cosine")
    docs.add_space("s", dim=2)
    x = np.ones((9, 2), np.float32)
    x[7] = 0
    with pytest.raises(ZeroVectorError, match="row 7") as caught:
        import_data(docs, vectors={"s": x}, batch=3)
    assert (caught.value.row, len(docs)) == (7, 6)


def test_ids_that_come_twice_in_different_batches_are_found(tmp_path, docs):
    path = with_line(tmp_path, 13, '{"id": 2, "v": [1, 2, 3]}')
    with pytest.raises(DuplicateIdError, match=r"row 12, line 13: id 2 came before") as caught:
        import_data(docs, path, vectors={"s": "@v"}, batch=5)
    assert (caught.value.id, caught.value.second) == (2, 12)
    assert docs.get([2], vectors="all")[0].vectors["s"].tolist() == [2, 1, 2]


def test_ids_of_somebody_else_are_no_duplicates(tmp_path, docs):
    """The import began with an empty collection, failed at once, and others wrote before it was run again."""
    path = with_line(tmp_path, 3, "{")
    with pytest.raises(SourceError, match="line 3"):
        import_data(docs, path, batch=5)
    docs.upsert([1], metadata=[{"mine": True}])
    with pytest.raises(SourceError, match="line 3"):
        import_data(docs, path, batch=1)
    assert [record.metadata for record in docs.get([0, 1])] == [{"v": [0, 1.0, 2.0]}, {"v": [1, 1.0, 2.0]}]


def test_an_import_in_a_transaction_is_all_or_nothing(tmp_path, db, docs, files):
    with pytest.raises(ZeroDivisionError), db.transaction():
        import_data(docs, files[0], vectors={"s": files[1]}, batch=10, progress=lambda done, _: 1 / (20 - done))
    assert len(docs) == 0
    with db.transaction():
        result = import_data(docs, files[0], vectors={"s": files[1]}, text="text", batch=10)
    assert (result.resumed, result.inserted) == (0, ROWS)
    assert stored(docs) == expected()
    assert not list(tmp_path.glob("*.json"))


def test_rows_are_counted_over_records_without_vectors(docs):
    lines = [{"id": n, "v": [n, 0, 0] if n % 2 else None} for n in range(10)]
    lines[9]["v"] = [0, 0, 0]
    with pytest.raises(ZeroVectorError, match="row 9") as caught:
        import_data(docs, lines, vectors={"s": "@v"}, normalise=True, batch=4)
    assert caught.value.row == 9
    import_data(docs, [{"id": n} for n in range(10)])
    lines[9]["v"] = [float("nan"), 0, 0]
    with pytest.raises(NonFiniteError, match="row 9") as caught:
        import_data(docs, lines, vectors={"s": "@v"}, existing=True, batch=4)
    assert caught.value.row == 9


def test_different_lengths_store_nothing(docs, files):
    with pytest.raises(SourceError, match=r"24 vectors, but .* 25 records"):
        import_data(docs, files[0], vectors={"s": vectors(24)}, batch=5)
    assert len(docs) == 0


def test_a_wrong_width_stores_nothing(docs, files):
    with pytest.raises(DimensionError, match="4"):
        import_data(docs, files[0], vectors={"s": vectors(dim=4)})
    assert len(docs) == 0


@pytest.mark.parametrize(
    ("given", "error", "problem"),
    [
        ({"vectors": {"t": [[1, 2, 3]]}}, SpaceMissingError, "no space 't'; it has s"),
        ({"vectors": {"s": [[1, 2, 3]]}, "batch": 0}, ParameterError, "batch is 0"),
        ({"vectors": {"s": [[1, 2, 3]]}, "batch_bytes": 1}, ParameterError, "batch_bytes is 1"),
        ({}, VecdbError, "no records to import"),
        ({"source": "docs.csv"}, SourceError, "known suffixes"),
        ({"source": "missing.jsonl"}, VecdbError, "cannot read"),
    ],
)
def test_calls_that_make_no_sense(docs, given, error, problem):
    with pytest.raises(error, match=problem):
        import_data(docs, **given)


def test_an_array_needs_the_only_space(docs):
    docs.add_space("t", dim=3)
    with pytest.raises(ParameterError, match="exactly one"):
        import_data(docs, vectors())


def test_a_directory_that_is_no_export(docs, tmp_path):
    with pytest.raises(SourceError, match=r"without manifest\.json"):
        import_data(docs, tmp_path)


def test_cancelling_keeps_what_is_committed(docs, files):
    done = []
    with pytest.raises(CancelledError, match="10 rows are committed"):
        import_data(
            docs,
            files[0],
            vectors={"s": files[1]},
            batch=5,
            progress=lambda now, _: done.append(now),
            cancel=lambda: bool(done) and done[-1] >= 10,
        )
    assert len(docs) == 10
    assert import_data(docs, files[0], vectors={"s": files[1]}, batch=5).resumed == 10


def test_without_pyarrow_the_extra_is_named(docs, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissingError, match=r"vecdb\[arrow\]") as caught:
        import_data(docs, tmp_path / "x.parquet")
    assert (caught.value.package, caught.value.extra) == ("pyarrow", "arrow")


# --- memory -----------------------------------------------------------------------------------------------


def peak_of(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_source(tmp_path):
    """Three times the rows may not cost noticeably more; Python's allocations, numpy's included, are counted.

    Both sizes are above one chunk of columns (16,384 records), which upkeep makes at a time whatever the size. Nothing
    is built beside: an index takes memory for each of its rows, on a thread whose pace is the machine's.
    """
    db, peaks = vecdb.open(tmp_path / "m.vecdb", automatic=False), []
    for rows in (20_000, 60_000):
        docs = db.create_collection(f"c{rows}")
        docs.add_space("s", dim=64, metric="dot")
        np.save(tmp_path / "v.npy", np.ones((rows, 64), np.float32))
        lines = (json.dumps({"id": n, "pad": "x" * 200}) for n in range(rows))
        (tmp_path / "r.jsonl").write_text("\n".join(lines))
        source, beside = str(tmp_path / "r.jsonl"), {"s": str(tmp_path / "v.npy")}
        peaks.append(
            peak_of(lambda to=docs, a=source, b=beside: import_data(to, a, vectors=b, batch_bytes=1 << 18, trust=True))
        )
    db.close()
    assert peaks[1] < 1.5 * peaks[0]
