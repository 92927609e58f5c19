"""Writing through the facade: every method, every option, and bad input that must leave nothing behind."""

import contextlib
import datetime
import decimal

import numpy as np
import pytest

import vecdb
from vecdb import errors
from vecdb.errors import (
    ConflictError,
    DimensionError,
    DTypeError,
    DuplicateIdError,
    IdError,
    MetadataError,
    NonFiniteError,
    ParameterError,
    RecordExistsError,
    RecordMissingError,
    SpaceMissingError,
    VectorRangeError,
    WhereError,
    ZeroVectorError,
)

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "news.vecdb", durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("cos", dim=3)
        docs.add_space("half", dim=2, metric="l2", dtype="float16")
        docs.add_space("dot", dim=2, metric="dot")
        docs.upsert(
            ["a", "b", 1],
            vectors={"cos": np.eye(3), "half": [[1, 2], None, [3, 4]]},
            metadata=[{"n": 1}, {"n": 2, "s": "x"}, {}],
            texts=["first", None, "third"],
        )
        yield db


@pytest.fixture
def docs(db):
    return db.collection("docs")


def contents(docs):
    return [
        (record.id, record.version, record.metadata, record.text, {k: v.tobytes() for k, v in record.vectors.items()})
        for record in docs.scan(vectors="all")
    ]


@contextlib.contextmanager
def nothing_stored(db, error):
    """The block raises exactly this error, and nothing of it is in the file."""
    docs = db.collection("docs")
    before, seq = contents(docs), db.seq
    with pytest.raises(error) as caught:
        yield caught
    assert type(caught.value) is error
    assert caught.value.message and str(caught.value)
    assert db.seq == seq and contents(docs) == before
    report = db.check()
    assert report.ok, report.problems


# --- what each method does --------------------------------------------------------------------------------


def test_upsert_tells_new_from_known_and_counts_versions(db, docs):
    result = docs.upsert(["a", "new"], metadata=[{"n": 9}, {}])
    assert (result.seq, result.inserted, result.updated, result.deleted) == (db.seq, 1, 1, 0)
    assert [record.version for record in docs.get(["a", "new", "b"])] == [2, 1, 1]


def test_upsert_replaces_the_whole_record(docs):
    docs.upsert(["a"], vectors={"dot": [[5, 6]]})
    [record] = docs.get("a", vectors="all")
    assert (record.metadata, record.text, record.spaces) == ({}, None, ("dot",))
    assert docs.search([1, 0, 0], space="cos", k=9).ids == ["b", 1]


def test_merge_keeps_what_is_not_given(docs):
    docs.upsert(["b", "new"], vectors={"half": [[7, 8], [9, 9]]}, metadata=[{"t": True}, {"n": 3}], merge=True)
    b, new = docs.get(["b", "new"], vectors="all")
    assert b.metadata == {"n": 2, "s": "x", "t": True} and b.spaces == ("cos", "half")
    assert b.vectors["half"].tolist() == [7, 8] and b.vectors["cos"].tolist() == [0, 1, 0]
    assert new.metadata == {"n": 3}
    docs.upsert(["a"], texts=["other"], merge=True)
    assert docs.get("a")[0].text == "other" and docs.get("a")[0].metadata == {"n": 1}
    docs.upsert(["a"], merge=True)
    assert docs.get("a")[0].text == "other" and docs.get("a")[0].version == 3


def test_none_in_a_merge_is_not_given(docs):
    docs.upsert(["a", "b"], metadata=[None, {"m": 1}], texts=[None, "new"], merge=True)
    a, b = docs.get(["a", "b"])
    assert (a.metadata, a.text, a.version) == ({"n": 1}, "first", 2)
    assert (b.metadata, b.text) == ({"n": 2, "s": "x", "m": 1}, "new")
    docs.upsert("a", texts="", merge=True)
    assert docs.get("a")[0].text == ""
    docs.upsert("a", metadata={"n": 1})  # replacing is how a text goes
    assert docs.get("a")[0].text is None


@pytest.mark.parametrize("key", ["solo", 7, np.int64(8), np.str_("np")])
def test_a_single_record_needs_no_lists(docs, key):
    docs.upsert(key, vectors={"cos": [1, 2, 3]}, metadata={"n": 1}, texts="text")
    [record] = docs.get(key, vectors=["cos"])
    assert (record.id, record.text, record.metadata) == (key, "text", {"n": 1})
    assert type(record.id) in (str, int) and record.vectors["cos"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("ids", [("x", "y"), np.array(["x", "y"]), iter(["x", "y"]), {"x": 1, "y": 2}.keys()])
def test_ids_come_in_many_containers(docs, ids):
    assert docs.upsert(ids).inserted == 2
    assert docs.get(["x", "y"])[1].id == "y"


def test_ids_one_and_the_word_one_are_two(docs):
    docs.upsert(["1"], texts=["word"])
    assert docs.get([1, "1"])[0].text == "third" and docs.get("1")[0].text == "word"
    docs.upsert([-(2**63), 2**63 - 1, "x" * 480, "é" * 240])
    assert docs.get([-(2**63), "é" * 240])[0].id == -(2**63)


def test_metadata_is_a_copy_of_plain_values(docs):
    given = {"n": np.int64(3), "tags": ("a", "b"), "deep": {"x": np.float32(0.5)}, "none": None, "b": np.True_}
    docs.upsert(["m"], metadata=[given])
    given["n"] = 4
    wanted = {"n": 3, "tags": ["a", "b"], "deep": {"x": 0.5}, "none": None, "b": True}
    assert docs.get("m")[0].metadata == wanted
    docs.get("m")[0].metadata["n"] = 5
    assert docs.get("m")[0].metadata == wanted


def test_vectors_are_copied_and_cast(docs):
    matrix = np.array([[1, 2, 3]], dtype=np.float64)
    docs.upsert(["v"], vectors={"cos": matrix, "half": None})
    matrix[:] = 0
    [record] = docs.get("v", vectors="all")
    assert record.vectors["cos"].tolist() == [1, 2, 3] and record.vectors["cos"].dtype == np.float32
    record.vectors["cos"][:] = 9
    assert docs.get("v", vectors="all")[0].vectors["cos"].tolist() == [1, 2, 3]
    docs.set_vectors("half", ["v"], [[0.1, 2**-20]])
    assert docs.get("v", vectors="half")[0].vectors["half"].tobytes() == np.float16([0.1, 2**-20]).tobytes()


def test_insert_takes_new_records_only(db, docs):
    assert docs.insert(["x"], vectors={"cos": [[1, 1, 1]]}, metadata=[{"n": 5}], texts=["t"]).inserted == 1
    with nothing_stored(db, RecordExistsError) as caught:
        docs.insert(["y", "b", "a"])
    assert caught.value.ids == ["b", "a"] and caught.value.collection == "docs"


def test_if_version(db, docs):
    docs.upsert(["a", "new", "b"], if_version=[1, 0, None])
    docs.upsert(["a"], if_version=2)
    docs.upsert(["a"], if_version=np.int64(3))
    docs.upsert(["a"], if_version=np.array([4]))
    with nothing_stored(db, ConflictError) as caught:
        docs.upsert(["b", "a"], if_version=[2, 3])
    assert (caught.value.id, caught.value.expected, caught.value.found) == ("a", 3, 5)
    with nothing_stored(db, ConflictError):
        docs.upsert(["a"], if_version=0)
    with nothing_stored(db, ConflictError):
        docs.upsert(["nowhere"], if_version=1)


@pytest.mark.parametrize("bad", [-1, True, "1", 1.0, [1], [1, 2, 3], [1, True], [1, -1], object()])
def test_if_version_that_is_no_version(db, docs, bad):
    with nothing_stored(db, ParameterError):
        docs.upsert(["a", "b"], if_version=bad)


def test_set_vectors_changes_nothing_else(docs):
    assert docs.set_vectors("dot", ["b", "a"], [[1, 2], [3, 4]]).updated == 2
    assert docs.set_vectors("dot", "a", [5, 6]).updated == 1
    a, b = docs.get(["a", "b"], vectors="all")
    assert a.vectors["dot"].tolist() == [5, 6] and b.vectors["dot"].tolist() == [1, 2]
    assert (a.metadata, a.text, a.spaces) == ({"n": 1}, "first", ("cos", "half", "dot")) and a.version == 3
    assert docs.search([1, 0], space="dot", k=9).ids == ["a", "b"]


def test_set_metadata_replaces_or_merges(docs):
    docs.set_metadata(["b"], [{"z": 1}])
    assert docs.get("b")[0].metadata == {"z": 1}
    docs.set_metadata("b", {"y": 2}, merge=True)
    assert docs.get("b")[0].metadata == {"z": 1, "y": 2}
    assert docs.get("b", vectors="all")[0].vectors["cos"].tolist() == [0, 1, 0]
    assert docs.count({"z": 1}) == 1 and docs.count({"n": 2}) == 0


def test_what_needs_existing_records(db, docs):
    for call in (
        lambda: docs.set_vectors("cos", ["a", "zz"], np.ones((2, 3))),
        lambda: docs.set_metadata(["zz"], [{}]),
        lambda: docs.delete(["a", "zz"]),
        lambda: docs.delete(["1"]),
    ):
        with nothing_stored(db, RecordMissingError) as caught:
            call()
        assert caught.value.collection == "docs"


def test_delete_by_id_and_by_condition(docs):
    assert docs.delete(["a", "zz"], missing_ok=True).deleted == 1
    assert docs.delete("b").deleted == 1
    assert docs.delete(where={"n": 1}).deleted == 0
    assert docs.delete(where={"n": {"$exists": False}}).deleted == 1
    assert len(docs) == 0 and docs.search([1, 1, 1], space="cos").ids == []
    docs.upsert(["a"], vectors={"cos": [[1, 1, 1]]})
    assert docs.get("a")[0].version == 1 and docs.search([1, 1, 1], space="cos").ids == ["a"]


def test_erased_records_cannot_be_read_again(tmp_path, db, docs):
    secret = "a very particular phrase that is nowhere else"
    docs.upsert(["s"], texts=[secret])
    seq = db.seq
    docs.delete(["s"], erase=True)
    with pytest.raises(errors.SnapshotExpiredError):
        docs.get("s", as_of=seq)
    assert docs.history("s") == []
    db.compact()
    assert secret.encode() not in (tmp_path / "news.vecdb").read_bytes()


def test_upsert_many_is_one_commit_a_batch(db, docs):
    seen, seq = [], db.seq
    batches = ({"ids": range(start, start + 10), "metadata": [{"n": 0}] * 10} for start in (100, 110, 105))
    result = docs.upsert_many(batches, progress=lambda done, total: seen.append((done, total)))
    assert (result.inserted, result.updated, result.seq) == (20, 10, seq + 3)
    assert seen == [(10, None), (20, None), (30, None)] and len(docs) == 23
    assert docs.upsert_many([]).seq == db.seq
    docs.upsert_many([{"ids": ["a"], "texts": ["merged"]}], merge=True)
    assert docs.get("a")[0].metadata == {"n": 1}


def test_upsert_many_keeps_what_it_committed(db, docs):
    def broken():
        yield {"ids": ["x"]}
        raise KeyError("source")

    with pytest.raises(KeyError):
        docs.upsert_many(broken())
    assert "x" in docs
    answers = iter([False, True])
    with pytest.raises(errors.CancelledError):
        docs.upsert_many([{"ids": ["y"]}, {"ids": ["z"]}], cancel=lambda: next(answers))
    assert "y" in docs and "z" not in docs and db.check().ok


@pytest.mark.parametrize("batches", [5, None, [5], ["ab"], [{}], [{"vectors": {}}], [{"ids": ["q"], "vector": 1}]])
def test_batches_that_are_none(db, docs, batches):
    with nothing_stored(db, ParameterError):
        docs.upsert_many(batches)


def test_empty_writes_are_possible(db, docs):
    before = contents(docs)
    assert docs.upsert([]).inserted == 0
    assert docs.upsert([], vectors={"cos": []}, metadata=[], texts=[]).updated == 0
    assert docs.delete([]).deleted == 0
    assert contents(docs) == before and db.check().ok


# --- spaces -----------------------------------------------------------------------------------------------


def test_spaces_are_described(docs):
    space = docs.add_space("full", dim=7, metric="dot", model="m", revision="2", dtype="float16", role="query")
    assert docs.spaces["full"] == space and list(docs.spaces) == ["cos", "half", "dot", "full"]
    assert (space.dim, space.metric, space.model, space.revision) == (7, "dot", "m", "2")
    assert (space.dtype, space.role) == ("float16", "query") and space.id > docs.spaces["dot"].id


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dim": 0}, DimensionError),
        ({"dim": 65_537}, DimensionError),
        ({"dim": 3.0}, DimensionError),
        ({"dim": True}, DimensionError),
        ({"dim": "3"}, DimensionError),
        ({"dim": 3, "metric": "cosin"}, ParameterError),
        ({"dim": 3, "metric": ["cosine"]}, ParameterError),
        ({"dim": 3, "dtype": "float64"}, ParameterError),
        ({"dim": 3, "role": "other"}, ParameterError),
        ({"dim": 3, "model": None}, ParameterError),
        ({"dim": 3, "revision": "x" * 1001}, ParameterError),
        ({"dim": 3, "encode": "model"}, ParameterError),
    ],
)
def test_spaces_that_cannot_be(db, docs, options, error):
    with nothing_stored(db, error):
        docs.add_space("new", **options)
    assert list(docs.spaces) == ["cos", "half", "dot"]


def test_spaces_renamed_and_dropped(db, docs):
    with nothing_stored(db, errors.ExistsError):
        docs.add_space("cos", dim=3)
    with nothing_stored(db, errors.ExistsError):
        docs.rename_space("cos", "half")
    for call in (docs.drop_space, lambda name: docs.rename_space(name, "x"), lambda name: docs.set_encoder(name, len)):
        with nothing_stored(db, SpaceMissingError) as caught:
            call("nope")
        assert caught.value.available == ["cos", "half", "dot"]
    docs.rename_space("cos", "cos")
    docs.rename_space("cos", "kos")
    assert list(docs.spaces) == ["kos", "half", "dot"]
    assert docs.get("a", vectors="kos")[0].vectors["kos"].tolist() == [1, 0, 0]
    docs.drop_space("half")
    assert docs.get("a", vectors="all")[0].spaces == ("kos",)
    docs.add_space("half", dim=4)
    assert docs.get("a")[0].spaces == ("kos",) and docs.search([1, 1, 1, 1], space="half").ids == []
    docs.upsert(["a"], vectors={"half": [[1, 1, 1, 1]]}, merge=True)
    docs.delete(["b"])
    assert db.check().ok


# --- bad input --------------------------------------------------------------------------------------------


class Odd:
    pass


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (["x", ""], IdError),
        (["x" * 481], IdError),
        (["é" * 241], IdError),
        (["\ud800"], IdError),
        ([2**63], IdError),
        ([-(2**63) - 1], IdError),
        ([True], IdError),
        (True, IdError),
        ([np.bool_(1)], IdError),
        ([1.0], IdError),
        ([None], IdError),
        (None, IdError),
        ([b"x"], IdError),
        (b"x", IdError),
        ([("a",)], IdError),
        ({"x": 1}, IdError),
        (1.5, IdError),
        (np.array(5), IdError),
        (np.array([[1, 2]]), IdError),
        (np.array([1.5]), IdError),
        (np.array([True]), IdError),
        ([Odd()], IdError),
        (["x", "y", "x"], DuplicateIdError),
        ([1, np.int32(1)], DuplicateIdError),
    ],
)
def test_bad_ids(db, docs, ids, error):
    for call in (docs.upsert, docs.insert, docs.delete):
        if ids is None and call == docs.delete:
            continue
        with nothing_stored(db, error):
            call(ids)
    if error is DuplicateIdError:
        with pytest.raises(DuplicateIdError) as caught:
            docs.upsert(ids)
        assert caught.value.second == len(ids) - 1 and caught.value.first == 0


BAD_VECTORS = [
    ("cos", [[1, 2]], DimensionError),
    ("cos", [[1, 2, 3, 4]], DimensionError),
    ("cos", [[1, 2, 3]] * 2, DimensionError),
    ("cos", [], DimensionError),
    ("cos", [[1, 2, 3], None], DimensionError),
    ("cos", [1, 2, 3], DimensionError),
    ("cos", 5, DimensionError),
    ("cos", np.ones((1, 1, 3)), DimensionError),
    ("cos", [[1, 2], [1, 2, 3]], DimensionError),
    ("cos", "abc", DTypeError),
    ("cos", [["1", "2", "3"]], DTypeError),
    ("cos", np.array([[1, 2, Odd()]], dtype=object), DTypeError),
    ("cos", np.array([[1, 2, 3]], dtype=complex), DTypeError),
    ("cos", np.array([[True, False, True]]), DTypeError),
    ("cos", np.zeros((1, 3), "datetime64[s]"), DTypeError),
    ("cos", [[1, NAN, 3]], NonFiniteError),
    ("cos", [[1, INF, 3]], NonFiniteError),
    ("cos", [[1, -INF, 3]], NonFiniteError),
    ("cos", [[0, 0, 0]], ZeroVectorError),
    ("cos", [[1e16, 0, 0]], VectorRangeError),
    ("half", [[1, 70_000]], VectorRangeError),
    ("half", [[1, NAN]], NonFiniteError),
]


@pytest.mark.parametrize(("space", "vectors", "error"), BAD_VECTORS)
def test_bad_vectors(db, docs, space, vectors, error):
    for call in (
        lambda: docs.upsert(["x"], vectors={space: vectors}),
        lambda: docs.insert(["x"], vectors={"dot": [[1, 1]], space: vectors}),
        lambda: docs.set_vectors(space, ["a"], vectors),
        lambda: docs.upsert_many([{"ids": ["x"], "vectors": {space: vectors}}]),
    ):
        with nothing_stored(db, error) as caught:
            call()
        assert space in caught.value.where


def test_errors_name_the_row(db, docs):
    matrix = np.ones((50, 3))
    matrix[33, 1] = NAN
    with nothing_stored(db, NonFiniteError) as caught:
        docs.upsert(range(50), vectors={"cos": matrix})
    assert (caught.value.row, caught.value.column) == (33, 1)
    matrix[33] = 0
    with nothing_stored(db, ZeroVectorError) as caught:
        docs.upsert(range(50), vectors={"cos": matrix})
    assert caught.value.row == 33
    with nothing_stored(db, DimensionError) as caught:
        docs.upsert(range(2), vectors={"cos": np.ones((2, 4))})
    assert (caught.value.expected, caught.value.got) == (3, 4)


@pytest.mark.parametrize("vectors", [{"nope": [[1, 2, 3]]}, {5: [[1, 2, 3]]}, {"cos": [[1, 2, 3]], "nope": None}])
def test_unknown_spaces(db, docs, vectors):
    with nothing_stored(db, SpaceMissingError):
        docs.upsert(["x"], vectors=vectors)
    with nothing_stored(db, SpaceMissingError):
        docs.set_vectors(next(name for name in vectors if name != "cos"), ["a"], [[1, 2, 3]])


@pytest.mark.parametrize("vectors", [[[1, 2, 3]], [], "", "cos", 5, np.ones((1, 3))])
def test_vectors_without_a_space(db, docs, vectors):
    with nothing_stored(db, errors.ArgumentError):
        docs.upsert(["x"], vectors=vectors)


DEEP = {}
for _ in range(40):
    DEEP = {"d": DEEP}
CYCLE = {}
CYCLE["me"] = CYCLE


@pytest.mark.parametrize(
    "metadata",
    [
        {"x": Odd()},
        {"x": b"bytes"},
        {"x": {1, 2}},
        {"x": datetime.datetime(2024, 1, 1)},
        {"x": decimal.Decimal(1)},
        {"x": np.ones(3)},
        {"x": 2**63},
        {"x": 1j},
        {"x": "\ud800"},
        {1: "x"},
        {"a.b": 1},
        {"$set": 1},
        {"deep": {"a.b": 1}},
        DEEP,
        CYCLE,
        {"x": "y" * (1 << 20)},
        {"x": ["y" * 1000] * 1100},
        "text",
        5,
        ["x"],
    ],
)
def test_bad_metadata(db, docs, metadata):
    with nothing_stored(db, MetadataError):
        docs.upsert(["x", "y"], metadata=[{}, metadata])
    with nothing_stored(db, MetadataError):
        docs.set_metadata(["a", "b"], [{}, metadata])
    with nothing_stored(db, MetadataError) as caught:
        docs.upsert(["a", "b"], metadata=[{"n": 5}, metadata], merge=True)
    assert caught.value.position == 1


def test_metadata_that_grows_too_large_only_by_merging(db, docs):
    docs.upsert(["big"], metadata=[{"x": "y" * 700_000}])
    with nothing_stored(db, MetadataError):
        docs.upsert(["a", "big"], metadata=[{"n": 2}, {"z": "y" * 700_000}], merge=True)
    with nothing_stored(db, MetadataError):
        docs.upsert(["big"], texts=["y" * 700_000], merge=True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"metadata": [{}]}, ParameterError),
        ({"metadata": [{}] * 3}, ParameterError),
        ({"metadata": {}}, MetadataError),
        ({"metadata": 5}, ParameterError),
        ({"texts": ["x"]}, ParameterError),
        ({"texts": "xy"}, MetadataError),
        ({"texts": 5}, ParameterError),
        ({"texts": ["x", 5]}, MetadataError),
        ({"texts": ["x", b"y"]}, MetadataError),
        ({"texts": ["x", "\ud800"]}, MetadataError),
        ({"texts": ["x", "y" * (1 << 20)]}, MetadataError),
    ],
)
def test_columns_that_do_not_fit_the_ids(db, docs, arguments, error):
    with nothing_stored(db, error):
        docs.upsert(["x", "y"], **arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ParameterError),
        ({"ids": ["a"], "where": {"n": 1}}, ParameterError),
        ({"where": {}}, WhereError),
        ({"where": []}, WhereError),
        ({"where": 5}, WhereError),
        ({"where": {"n": {"$near": 1}}}, WhereError),
        ({"where": {"$nor": []}}, WhereError),
        ({"where": {"n": {"$gt": [1]}}}, WhereError),
        ({"where": {"n": {"$in": 5}}}, WhereError),
        ({"where": {"$and": []}}, WhereError),
        ({"where": {5: 1}}, WhereError),
    ],
)
def test_deleting_what_is_not_named(db, docs, arguments, error):
    with nothing_stored(db, error):
        docs.delete(**arguments)


def test_an_error_in_the_second_space_stores_nothing_of_the_first(db, docs):
    with nothing_stored(db, ZeroVectorError):
        docs.upsert(["x", "y"], vectors={"dot": np.ones((2, 2)), "cos": [[1, 1, 1], [0, 0, 0]]})


# --- another model's vectors ------------------------------------------------------------------------------


def model(seed, count, dim=64):
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(seed + 100).standard_normal((8, dim))
    return (rng.standard_normal((count, 8)) @ base + 0.1 * rng.standard_normal((count, dim))).astype(np.float32)


def test_batches_of_another_model_are_refused_once_the_space_is_known(db, docs):
    docs.add_space("m", dim=64)
    assert docs.upsert(range(2000), vectors={"m": model(1, 2000)}).unverified == 2000
    assert docs.upsert(range(2000, 2100), vectors={"m": model(1, 2100)[2000:]}).unverified == 0
    with nothing_stored(db, errors.WrongModelError) as caught:
        docs.upsert(range(5000, 5100), vectors={"m": model(2, 100)})
    assert caught.value.space == "m" and caught.value.numbers
    with nothing_stored(db, errors.WrongModelError):
        docs.set_vectors("m", range(100), model(2, 100))
    assert docs.upsert([9000], vectors={"m": model(1, 1)}).unverified == 1
    docs.upsert(range(5000, 5100), vectors={"m": model(2, 100)}, trust=True)
    with vecdb.open(db.path, durability="relaxed") as again, pytest.raises(errors.WrongModelError):
        again.collection("docs").upsert(range(6000, 6100), vectors={"m": model(2, 100)})
