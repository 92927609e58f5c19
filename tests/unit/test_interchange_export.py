"""Exports: the loss-free directory, the common formats, and what happens to those that were changed."""

import gzip
import hashlib
import json
import math
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from vecdb.errors import (
    ArgumentError,
    DiskFullError,
    ExistsError,
    ExtraMissingError,
    FileAccessError,
    FormatVersionError,
    ParameterError,
    SourceError,
    SpaceMissingError,
    TagMissingError,
    VecdbError,
)
from vecdb.interchange import export_data, import_data, inspect_source, to_arrow, to_pandas
from vecdb.interchange.manifest import space_files
from vecdb.interchange.vectorfiles import open_vectors

X = np.arange(18, dtype=np.float32).reshape(6, 3) + 1
Y = (np.arange(12, dtype=np.float16).reshape(6, 2) - 5.5) * np.float16(1.0009765625)
IDS = ["a", 1, "1", -5, "ü/ñ", 2**62]
METADATA = [
    {"n": 1, "tags": ["x", "y"], "deep": {"a": [1, {"b": None}]}},
    {"n": -0.0, "nan": math.nan, "inf": [math.inf, -math.inf]},
    {},
    {"n": 2**63 - 1, "text": "hides nothing here"},
    {"unicode": "\u2028 \x00 \x1b[31m ü", "": "empty key"},
    {"t": True, "none": None, "f": 0.1},
]
TEXTS = ["one", None, "", "three\nlines\r\n", "四", "six"]


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "x.vecdb") as opened:
        yield opened


@pytest.fixture
def docs(db):
    collection = db.create_collection("docs")
    collection.add_space("s", dim=3, metric="dot", model="model one", revision="1", role="document")
    collection.add_space("half/ü", dim=2, metric="l2", dtype="float16")
    second = [None if n == 2 else row for n, row in enumerate(Y)]
    collection.upsert(IDS, {"s": X, "half/ü": second}, METADATA, TEXTS)
    return collection


@pytest.fixture
def plain(db):
    """A collection whose ids are of one type and whose metadata fits columns."""
    collection = db.create_collection("plain")
    collection.add_space("s", dim=3, metric="dot")
    metadata = [{"n": n, "word": f"w{n}", "tags": ["t"] * n, "mixed": n if n % 2 else "x"} for n in range(6)]
    collection.upsert(list("abcdef"), {"s": [None if n == 2 else row for n, row in enumerate(X)]}, metadata, TEXTS)
    return collection


def everything(collection):
    """All that a record holds, in a form that compares bits."""
    return [
        (
            type(record.id),
            record.id,
            repr(record.metadata),
            record.text,
            {space: (row.dtype.str, row.tobytes()) for space, row in record.vectors.items()},
        )
        for record in collection.scan(vectors="all")
    ]


def identity(collection):
    return [(s.name, s.dim, s.metric, s.dtype, s.model, s.revision, s.role) for s in collection.spaces.values()]


# --- the directory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_a_directory_brings_everything_back(db, docs, tmp_path, batch):
    result = export_data(docs, tmp_path / "out")
    assert (result.format, result.records, result.vectors, result.seq) == (
        "directory",
        6,
        {"s": 6, "half/ü": 5},
        db.seq,
    )
    back = db.create_collection("back")
    imported = import_data(back, tmp_path / "out", batch=batch)
    assert (imported.rows, imported.inserted) == (6, 6)
    assert everything(back) == everything(docs)
    assert identity(back) == identity(docs)
    assert back.search(X[1], 6, space="s").ids == docs.search(X[1], 6, space="s").ids


def test_the_files_are_what_the_format_says(docs, tmp_path):
    out = tmp_path / "out"
    export_data(docs, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "half%2F%C3%BC.npy",
        "half%2F%C3%BC.rows.npy",
        "manifest.json",
        "records.jsonl.gz",
        "s.npy",
        "s.rows.npy",
    ]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["format"] == "vecdb-export/1"
    assert (manifest["collection"], manifest["records"]) == ("docs", 6)
    assert manifest["spaces"][0]["model"] == "model one"
    for name, facts in manifest["files"].items():
        content = (out / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert np.load(out / "s.npy").tobytes() == X.tobytes()
    assert np.load(out / "half%2F%C3%BC.npy").dtype == np.float16
    assert np.load(out / "half%2F%C3%BC.rows.npy").tolist() == [0, 1, 3, 4, 5]
    lines = [json.loads(line) for line in gzip.decompress((out / "records.jsonl.gz").read_bytes()).splitlines()]
    assert lines[1]["metadata"]["nan"] == {"$float": "NaN"}
    assert [line["id"] for line in lines] == IDS
    assert "text" not in lines[1] and lines[2]["text"] == ""


def test_the_same_content_gives_the_same_bytes(docs, tmp_path):
    for name in ("one", "two"):
        export_data(docs, tmp_path / name)
        export_data(docs, tmp_path / f"{name}.npz", spaces=["s"], where={"n": 1})
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_part_of_a_collection(db, docs, tmp_path):
    export_data(docs, tmp_path / "out", spaces=["s"], where={"n": {"$exists": True}})
    back = db.create_collection("back")
    import_data(back, tmp_path / "out")
    assert [record.id for record in back.scan()] == ["a", 1, -5]
    assert list(back.spaces) == ["s"]
    assert np.array_equal([r.vectors["s"] for r in back.scan(vectors="all")], X[[0, 1, 3]])


def test_an_empty_collection_and_no_spaces(db, docs, tmp_path):
    empty = db.create_collection("empty")
    export_data(empty, tmp_path / "empty")
    export_data(docs, tmp_path / "bare", spaces=[])
    back = db.create_collection("back")
    assert import_data(back, tmp_path / "empty").rows == 0
    assert import_data(back, tmp_path / "bare").rows == 6
    assert not back.spaces


def test_an_export_can_be_inspected(docs, tmp_path):
    export_data(docs, tmp_path / "out")
    facts = inspect_source(tmp_path / "out")
    assert facts.rows == 6
    assert facts.widths == {"s": (3, np.dtype(np.float32)), "half/ü": (2, np.dtype(np.float16))}


def test_the_past_can_be_exported(db, docs, tmp_path):
    db.tag("before")
    docs.delete(["a"])
    assert export_data(docs, tmp_path / "now").records == 5
    assert export_data(docs, tmp_path / "then", as_of="before").records == 6
    assert export_data(docs, tmp_path / "seq", as_of=db.tags()["before"]).records == 6
    with pytest.raises(TagMissingError, match="'nope'; there are before"):
        export_data(docs, tmp_path / "x", as_of="nope")


def test_progress_counts_records(docs, tmp_path):
    seen = []
    export_data(docs, tmp_path / "out", progress=lambda *now: seen.append(now))
    assert seen[-1] == (6, 6)


def test_importing_twice_updates_and_keeps_the_spaces(db, docs, tmp_path):
    export_data(docs, tmp_path / "out")
    result = import_data(docs, tmp_path / "out", resume=False)
    assert (result.inserted, result.updated) == (0, 6)
    assert len(docs) == 6


def test_a_space_with_another_identity_is_refused(db, docs, tmp_path):
    export_data(docs, tmp_path / "out")
    other = db.create_collection("other")
    other.add_space("s", dim=3, metric="cosine", model="another")
    with pytest.raises(ExistsError, match=r"'s' with another identity: metric 'cosine', export 'dot'; model") as caught:
        import_data(other, tmp_path / "out")
    assert (caught.value.kind, caught.value.name) == ("space", "s")
    assert list(other.spaces) == ["s"] and len(other) == 0


@pytest.mark.parametrize(
    "given",
    [{"vectors": {"s": X}}, {"text": "t"}, {"metadata": []}, {"existing": True}, {"merge": True}, {"normalise": True}],
)
def test_an_export_says_itself_what_is_what(db, docs, tmp_path, given):
    export_data(docs, tmp_path / "out")
    with pytest.raises(ParameterError, match="no meaning for an export"):
        import_data(db.create_collection("back"), tmp_path / "out", **given)


def test_file_names_of_spaces_never_meet():
    names = ["a", "A", "a.rows", "records", "manifest", "..", "../up", ".hidden", "x" * 300, "x" * 299 + "y", "CON/1"]
    pairs = space_files(names)
    files = [file.casefold() for pair in pairs.values() for file in pair]
    assert len(set(files)) == len(files) == 2 * len(names)
    assert all("/" not in file and not file.startswith(".") and len(file) < 200 for file in files)
    assert not set(files) & {"manifest.json", "records.jsonl.gz"}
    assert pairs["a"] == ("a.npy", "a.rows.npy")


# --- targets ----------------------------------------------------------------------------------------------


def leftovers(folder):
    return [path.name for path in folder.iterdir() if ".partial" in path.name or ".old" in path.name]


@pytest.mark.parametrize("name", ["out", "out.jsonl", "out.npz"])
def test_an_existing_target_is_replaced_only_on_purpose(plain, tmp_path, name):
    target = tmp_path / name
    export_data(plain, target)
    first = target.stat().st_ino
    with pytest.raises(ExistsError, match="exists already"):
        export_data(plain, target)
    assert target.stat().st_ino == first
    export_data(plain, target, overwrite=True)
    assert target.stat().st_ino != first
    assert not leftovers(tmp_path)


def test_a_directory_that_is_no_export_is_never_replaced(plain, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    with pytest.raises(ExistsError, match="is not an export"):
        export_data(plain, tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious" / "file").exists()


def test_a_symbolic_link_is_not_followed(plain, tmp_path):
    (tmp_path / "aim").write_text("untouched")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "aim")
    with pytest.raises(ExistsError):
        export_data(plain, tmp_path / "link.jsonl")
    export_data(plain, tmp_path / "link.jsonl", overwrite=True)
    assert (tmp_path / "aim").read_text() == "untouched"
    assert not (tmp_path / "link.jsonl").is_symlink()


def test_a_failing_export_leaves_nothing(plain, tmp_path):
    with pytest.raises(FileAccessError, match="cannot write"):
        export_data(plain, tmp_path / "missing" / "out")

    def fail(done, total):
        raise RuntimeError("stop")

    for name in ("out", "out.npz", "out.parquet"):
        with pytest.raises(RuntimeError, match="stop"):
            export_data(plain, tmp_path / name, progress=fail)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named(plain, tmp_path, monkeypatch):
    real = os.fsync

    def full(descriptor):
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"no space left to write .*out"):
        export_data(plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("name", ["out", "out.jsonl.gz", "out.npz", "out.npy", "out.fvecs", "out.parquet", "out.arrow"])
def test_every_file_is_on_disk_before_it_has_its_name(plain, tmp_path, monkeypatch, name):
    """Without the syncs a power cut could leave a complete name over missing bytes."""
    real, synced = os.fsync, set()

    def remember(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        assert not (tmp_path / name).exists() or os.fstat(descriptor).st_ino == tmp_path.stat().st_ino
        real(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    export_data(plain, tmp_path / name)
    target = tmp_path / name
    files = [target, *target.iterdir()] if target.is_dir() else [target]
    assert {path.stat().st_ino for path in files} | {tmp_path.stat().st_ino} <= synced


def test_replacing_an_export_never_leaves_none(plain, tmp_path, monkeypatch):
    """If the new files cannot be made durable, the old ones are still there."""
    export_data(plain, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    plain.delete(["a"])

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileAccessError, match="Input/output error"):
        export_data(plain, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("given", "error", "problem"),
    [
        ({"format": "csv"}, ParameterError, "format is 'csv'"),
        ({"spaces": ["nope"]}, SpaceMissingError, "no space 'nope'"),
        ({"format": "npy", "spaces": []}, ParameterError, "one space, 0 are chosen"),
        ({"format": "npz"}, ParameterError, "ids of both types"),
        ({"format": "parquet"}, ParameterError, "ids of both types"),
        ({"format": "jsonl"}, ParameterError, "metadata field 'text'"),
    ],
)
def test_calls_that_make_no_sense(docs, tmp_path, given, error, problem):
    with pytest.raises(error, match=problem):
        export_data(docs, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists() and not leftovers(tmp_path)


# --- the common formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_jsonl_can_be_imported_again(db, plain, tmp_path, name):
    export_data(plain, tmp_path / name)
    assert (tmp_path / name).read_bytes()[:2] == (b"\x1f\x8b" if name.endswith("gz") else b'{"')
    back = db.create_collection("back")
    back.add_space("s", dim=3, metric="dot")
    import_data(back, tmp_path / name, text="text", vectors={"s": "@s"})
    assert everything(back) == everything(plain)


def test_jsonl_without_vectors(plain, tmp_path):
    export_data(plain, tmp_path / "out.jsonl", spaces=[])
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0]) == {
        "id": "a",
        "text": "one",
        "n": 0,
        "word": "w0",
        "tags": [],
        "mixed": "x",
    }


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
def test_tables_can_be_imported_again(db, plain, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    export_data(plain, path)
    back = db.create_collection("back")
    back.add_space("s", dim=3, metric="dot")
    import_data(back, path, text="text", vectors={"s": "@s"}, metadata=["n", "word", "tags"])
    for old, new in zip(plain.scan(vectors="all"), back.scan(vectors="all"), strict=True):
        assert (new.id, new.text) == (old.id, old.text)
        assert new.metadata == {key: old.metadata[key] for key in ("n", "word", "tags")}
        assert {s: v.tobytes() for s, v in new.vectors.items()} == {s: v.tobytes() for s, v in old.vectors.items()}


def test_types_of_columns(plain, tmp_path):
    export_data(plain, tmp_path / "out.parquet")
    schema = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "out.parquet")}
    assert schema["n"] == "int64" and schema["word"] == "string" and schema["mixed"] == "string"
    assert schema["tags"].startswith("list<") and schema["s"].startswith("fixed_size_list<")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["mixed"].to_pylist()[:2] == ['"x"', "1"]
    assert table["s"].to_pylist()[2] is None


def test_names_that_meet_get_a_prefix(db):
    docs = db.create_collection("names")
    docs.upsert([1], metadata=[{"id": "x", "text": 5}])
    assert to_arrow(docs).to_pylist() == [{"id": 1, "text": None, "metadata.id": "x", "metadata.text": 5}]
    assert list(to_pandas(docs).columns) == ["id", "text", "metadata.id", "metadata.text"]


def test_npz_and_single_arrays(plain, tmp_path):
    export_data(plain, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert set(found) == {"ids", "s", "s.rows"}
        assert found["ids"].tolist() == list("abcdef")
        assert found["s"].tobytes() == np.delete(X, 2, axis=0).tobytes()
        assert found["s.rows"].tolist() == [0, 1, 3, 4, 5]
    export_data(plain, tmp_path / "all.npz", where={"n": {"$gt": 2}})
    with np.load(tmp_path / "all.npz", allow_pickle=False) as found:
        assert set(found) == {"ids", "s"}
    for name in ("out.npy", "out.fvecs"):
        result = export_data(plain, tmp_path / name)
        source = open_vectors(str(tmp_path / name))
        assert source.read(0, source.rows).tobytes() == np.delete(X, 2, axis=0).tobytes()
        assert (result.records, result.vectors) == (6, {"s": 5})
        source.close()


def test_integer_ids_stay_numbers(db, tmp_path):
    docs = db.create_collection("numbers")
    docs.upsert([3, -7], metadata=[{"a": 1}, {}])
    export_data(docs, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert found["ids"].tolist() == [3, -7] and found["ids"].dtype == np.int64
    assert to_arrow(docs)["id"].type == pa.int64()


def test_tables_in_memory(plain):
    table = to_arrow(plain, where={"n": {"$lt": 4}})
    assert table["id"].to_pylist() == list("abcd")
    frame = to_pandas(plain, spaces=["s"])
    assert isinstance(frame, pd.DataFrame)
    assert frame["word"].tolist() == [f"w{n}" for n in range(6)]
    assert frame["s"][2] is None and frame["s"][1].tolist() == X[1].tolist()
    assert to_arrow(plain, spaces=[]).column_names == ["id", "text", "n", "word", "tags", "mixed"]


def test_a_missing_extra_is_named(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    for action in (to_arrow, to_pandas, lambda docs: export_data(docs, tmp_path / "o.parquet")):
        with pytest.raises(ExtraMissingError, match="pip install"):
            action(plain)


# --- hostile exports --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """One export that the hostile tests copy."""
    folder = tmp_path_factory.mktemp("pristine")
    with vecdb.open(folder / "x.vecdb") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=3, metric="dot")
        docs.upsert(list(range(6)), {"s": [None if n == 2 else row for n, row in enumerate(X)]})
        export_data(docs, folder / "out")
    return folder / "out"


def change(folder, edit):
    """Change the manifest; sizes and checksums of the files are made right again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def npy(array):
    def write(folder, name):
        np.save(folder / name, array)

    return write


def set_space(**values):
    return lambda manifest: manifest["spaces"][0].update(values)


MANIFESTS = {
    "no object": lambda m: m.clear(),
    "records missing": lambda m: m.pop("records"),
    "records negative": lambda m: m.update(records=-1),
    "records a float": lambda m: m.update(records=6.0),
    "records huge": lambda m: m.update(records=2**60),
    "records too few": lambda m: m.update(records=5),
    "records too many": lambda m: m.update(records=7),
    "spaces a dict": lambda m: m.update(spaces={}),
    "a space twice": lambda m: m["spaces"].append(m["spaces"][0]),
    "metric unknown": set_space(metric="manhattan"),
    "dtype unknown": set_space(dtype="object"),
    "role a list": set_space(role=["both"]),
    "dim a str": set_space(dim="3"),
    "dim zero": set_space(dim=0),
    "dim wrong": set_space(dim=4),
    "count wrong": set_space(count=4),
    "model a number": set_space(model=5),
    "path up": set_space(vectors="../s.npy"),
    "path absolute": set_space(vectors="/etc/passwd"),
    "path not listed": set_space(vectors="t.npy"),
    "files a list": lambda m: m.update(files=[]),
    "file name up": lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": ""}}),
    "file name hidden": lambda m: m["files"].update({".x": {"bytes": 1, "sha256": ""}}),
    "file missing": lambda m: m["files"].update({"x": {"bytes": 1, "sha256": ""}}),
    "bytes wrong": lambda m: m["files"]["s.npy"].update(bytes=1),
    "checksum wrong": lambda m: m["files"]["s.npy"].update(sha256="00"),
    "checksum a number": lambda m: m["files"]["s.npy"].update(sha256=0),
    "rows and vectors swapped": set_space(vectors="s.rows.npy", rows="s.npy"),
}


def refused(folder, tmp_path, error=VecdbError):
    with vecdb.open(tmp_path / "victim.vecdb") as db:
        docs = db.create_collection("docs")
        with pytest.raises(error) as caught:
            import_data(docs, folder, batch=1)
        return str(caught.value), [record.id for record in docs.scan()]


@pytest.fixture
def export(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("edit", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_manifests_that_lie_are_refused(export, tmp_path, edit):
    change(export, edit)
    message, ids = refused(export, tmp_path, ArgumentError)
    assert str(export) in message
    assert not ids or "records" in message  # the count is known to be wrong only at the end


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 5000])
def test_manifests_that_are_none_are_refused(export, tmp_path, text):
    (export / "manifest.json").write_text(text)
    message, ids = refused(export, tmp_path, SourceError)
    assert "manifest.json" in message and not ids


def test_a_newer_format_is_named(export, tmp_path):
    change(export, lambda m: m.update(format="vecdb-export/2"))
    message, _ = refused(export, tmp_path, FormatVersionError)
    assert "vecdb-export/2" in message


FILES = {
    "vectors cut off": ("s.npy", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "vectors changed": ("s.npy", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f")),
    "records cut off": ("records.jsonl.gz", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "records gone": ("records.jsonl.gz", lambda path: path.unlink()),
    "rows gone": ("s.rows.npy", lambda path: path.unlink()),
    "a link": ("s.npy", lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x")))),
}


@pytest.mark.parametrize(("name", "damage"), FILES.values(), ids=FILES.keys())
def test_damaged_files_store_nothing(export, tmp_path, name, damage):
    damage(export / name)
    message, ids = refused(export, tmp_path, SourceError)
    assert name in message and not ids


ROWS = {
    "twice": [0, 1, 1, 3, 4],
    "twice, later": [0, 4, 3, 5, 3],
    "beyond the end": [0, 1, 3, 4, 6],
    "beyond the end, first": [6, 1, 3, 4, 5],
    "negative": [-1, 1, 3, 4, 5],
    "negative, later": [0, 1, 3, 4, -5],
    "huge": [0, 1, 3, 4, 2**63 - 1],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
def test_rows_that_are_no_distinct_lines_are_refused(export, tmp_path, rows):
    np.save(export / "s.rows.npy", np.array(rows, np.int64))
    change(export, lambda m: None)
    message, ids = refused(export, tmp_path, SourceError)
    assert "s.rows.npy" in message and not ids


@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.parametrize("rows", [[4, 3, 2, 1, 0], [0, 4, 1, 3, 5], [1, 2, 3, 5, 0], [5, 0, 1, 2, 3]])
def test_rows_say_how_old_each_vector_is(export, tmp_path, rows, batch):
    np.save(export / "s.rows.npy", np.array(rows, np.int64))
    change(export, lambda m: None)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        docs = db.create_collection("docs")
        seen = []
        result = import_data(docs, export, batch=batch, progress=lambda *now: seen.append(now))
        assert (result.rows, result.inserted, result.updated, result.resumed) == (6, 6, 0, 0)
        assert docs.vector_order("s") == rows
        assert [record.id for record in docs.scan()] == list(range(6))
        present = docs.get(rows, vectors="s")
        assert np.array_equal([record.vectors["s"] for record in present], np.load(export / "s.npy"))
        assert seen[-1][0] == seen[-1][1] > 6


def test_a_vector_that_comes_later_and_is_refused_is_named_with_its_file(export, tmp_path):
    np.save(export / "s.rows.npy", np.array([0, 4, 1, 3, 5], np.int64))
    vectors = np.load(export / "s.npy")
    vectors[3, 1] = np.nan
    np.save(export / "s.npy", vectors)
    change(export, lambda m: None)
    message, ids = refused(export, tmp_path, vecdb.NonFiniteError)
    assert "s.npy, row 3 " in message and len(ids) == 6


@pytest.mark.parametrize("array", [np.arange(5, dtype=np.int32), np.arange(4), np.arange(10).reshape(5, 2)])
def test_rows_of_another_shape_are_refused(export, tmp_path, array):
    np.save(export / "s.rows.npy", array)
    change(export, lambda m: None)
    message, ids = refused(export, tmp_path, SourceError)
    assert "s.rows.npy" in message and not ids


@pytest.mark.parametrize(
    "line", ["{}", "[]", '{"id": 1}', '{"id": 3, "metadata": 5}', '{"id": null, "metadata": {}}', "{"]
)
def test_records_that_are_none_are_named_with_their_line(export, tmp_path, line):
    lines = gzip.decompress((export / "records.jsonl.gz").read_bytes()).decode().splitlines()
    lines[3] = line
    (export / "records.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    change(export, lambda m: None)
    message, ids = refused(export, tmp_path)
    assert "line 4" in message and ids == [0, 1, 2]


@given(st.data())
def test_a_changed_byte_anywhere_is_found_or_harmless(pristine, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    shutil.copytree(pristine, folder / "out")
    name = data.draw(st.sampled_from(sorted(path.name for path in pristine.iterdir())))
    content = bytearray((folder / "out" / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "out" / name).write_bytes(content)
    with vecdb.open(folder / "x.vecdb") as db:
        docs = db.create_collection("docs")
        try:
            import_data(docs, folder / "out")
        except VecdbError:
            assert len(docs) == 0
        else:  # the manifest's words for people: names, models, the seq
            assert name == "manifest.json"
