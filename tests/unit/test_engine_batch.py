"""Writes as checked values (vecdb/engine/batch.py), small arguments (names.py), spaces and rules of writing."""

import threading

import numpy as np
import pytest

from vecdb import errors
from vecdb.engine import names, queries, spaces
from vecdb.engine.batch import id_list, make_batch, space_batch, unique_keys, upsert_arguments
from vecdb.engine.operations import WriteRules, rules_for
from vecdb.engine.search import check_include, check_k
from vecdb.storage.state import CollectionEntry
from vecdb.types import Space

COS = Space("cos", 3, id=1)
HALF = Space("half", 2, "l2", "float16", id=2)
SPACES = {"cos": COS, "half": HALF}


def batch(ids, vectors=None, metadata=None, texts=None):
    return make_batch(ids, vectors, metadata, texts, SPACES, "docs")


# --- batches ----------------------------------------------------------------------------------------------


def test_a_batch_keeps_the_callers_order():
    made = batch(["b", 1, "a"], {"half": [[1, 2], None, [3, 4]]}, [{"n": 1}, None, {}], ["x", None, ""])
    assert made.ids == ("b", 1, "a") and len(made) == 3 and len(set(made.keys)) == 3
    assert made.metadatas == ({"n": 1}, {}, {}) and made.texts == ("x", None, "")
    [part] = made.vectors
    assert part.space == HALF and part.places.tolist() == [0, 2]
    assert part.vectors.dtype == np.float16 and part.scales.tolist() == [5, 25]


def test_what_is_not_given_is_none():
    made = batch(["a"])
    assert made.metadatas is None and made.texts is None and made.vectors == ()
    assert batch([]).ids == () and batch("a", {"cos": None}).vectors == ()


@pytest.mark.parametrize(
    ("ids", "expected", "single"),
    [
        ("ab", ("ab",), True),
        (5, (5,), True),
        (np.int8(5), (5,), True),
        (["a"], ["a"], False),
        (range(2), (0, 1), False),
        (np.array(["x", "y"], dtype=object), ("x", "y"), False),
        ((key for key in "ab"), ("a", "b"), False),
    ],
)
def test_lists_of_ids(ids, expected, single):
    found, one = id_list(ids)
    assert list(found) == list(expected) and one is single


def test_ids_that_stand_twice_are_named():
    with pytest.raises(errors.DuplicateIdError) as caught:
        unique_keys(["a", 1, "1", 1])
    assert (caught.value.id, caught.value.first, caught.value.second) == (1, 1, 3)


def test_one_vector_only_for_one_id():
    assert space_batch(COS, [1, 2, 3], 1, True).vectors.shape == (1, 3)
    for values, count, single in (([1, 2, 3], 1, False), ([[1, 2, 3]], 2, False), ([None, None], 1, False)):
        with pytest.raises(errors.DimensionError):
            space_batch(COS, values, count, single)
    assert space_batch(COS, [None, None], 2, False).vectors.shape == (0, 3)


def test_arguments_of_a_batch_of_many():
    assert upsert_arguments({"ids": [1], "texts": None}) == {"ids": [1], "texts": None}
    for wrong in ({}, {"vectors": {}}, {"ids": [], "vector": {}}, [], "ids"):
        with pytest.raises(errors.ParameterError):
            upsert_arguments(wrong)


@pytest.mark.parametrize(
    ("given", "expected"), [(3, (3, 3)), ([0, None], (0, None)), ((1, 2), (1, 2)), (np.array([1, 2]), (1, 2))]
)
def test_expected_versions(given, expected):
    made = batch(["a", "b"])
    assert rules_for(WriteRules(), given, made).versions == expected
    assert rules_for(WriteRules(), None, made).versions is None


# --- small arguments --------------------------------------------------------------------------------------


def test_numbers_and_counts():
    for value in (0, 1.5, np.float32(2), np.int64(3), float("inf")):
        names.check_number("x", value, 0)
    for value in (-1, float("nan"), "1", None, True, 1j, np.float64("nan")):
        with pytest.raises(errors.ParameterError) as caught:
            names.check_number("x", value, 0)
        assert caught.value.name == "x"
    assert names.check_count("x", np.int16(4), 2) == 4 and type(names.check_count("x", np.int16(4), 2)) is int
    for value in (1, 2.0, True, "3", None):
        with pytest.raises(errors.ParameterError):
            names.check_count("x", value, 2)


def test_time_outs_are_ones_that_locks_understand():
    assert names.check_timeout(3) == 3.0
    assert threading.Lock().acquire(timeout=names.check_timeout(float("inf")))


def test_options_and_names():
    names.check_option("metric", "l2", ("dot", "l2"))
    with pytest.raises(errors.ParameterError, match="Did you mean 'cosine'"):
        names.check_option("metric", "cosin", ("cosine", "l2"))
    assert names.check_name("tag", "é v2.1 $%/") == "é v2.1 $%/"


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names.check_path("x.vecdb") == tmp_path / "x.vecdb" == names.check_path(tmp_path / "y" / ".." / "x.vecdb")


def test_k_and_include():
    assert check_k(10_000, allow_large=False) == 10_000 and check_k(np.int8(1), allow_large=False) == 1
    assert check_k(10_001, allow_large=True) == 10_001
    assert check_include(()) == frozenset() and check_include("text") == {"text"}
    assert check_include(["vectors", "metadata"]) == {"vectors", "metadata"}


def test_spaces_are_checked_before_they_are_stored():
    made = spaces.make_space("s", np.int64(5), "dot", "float16", "m", "1", "query")
    assert made == Space("s", 5, "dot", "float16", "m", "1", "query") and type(made.dim) is int
    with pytest.raises(errors.DimensionError):
        spaces.make_space("s", 0, "dot", "float16", "m", "1", "query")


# --- queries ----------------------------------------------------------------------------------------------


def test_the_space_of_a_query():
    entry = CollectionEntry(1, "docs", SPACES)
    assert queries.choose_space(entry, "half") is HALF
    assert queries.choose_space(CollectionEntry(1, "docs", {"cos": COS}), None) is COS
    for spaces_there in ({}, SPACES):
        with pytest.raises(errors.SpaceMismatchError):
            queries.choose_space(CollectionEntry(1, "docs", spaces_there), None)


def test_queries_that_name_their_space():
    assert queries.named({"cos": [1]}, None) == ("cos", [1], {}) == queries.named({"cos": [1]}, "cos")
    assert queries.named({"a": 1, "b": 2}, None) == ("b", 2, {"a": 1})  # the scale is that of the last one
    assert queries.named({"a": 1, "b": 2}, "a") == ("a", 1, {"b": 2})
    for q, space in (({}, None), ({}, "a"), ({"a": 1}, "b")):
        with pytest.raises(errors.ParameterError):
            queries.named(q, space)


def test_what_is_text():
    assert queries.is_text("x") and queries.is_text(["x", "y"]) and queries.is_text(("x",))
    assert not any(map(queries.is_text, ([], [1.0], ["x", 1], np.array(["x"]), None, b"x")))


def test_encoders_get_a_list_and_return_a_row_for_each():
    seen = []

    def encode(texts):
        seen.append(texts)
        return np.ones((len(texts), 3), np.float64)

    assert queries.encode("x", COS, {1: encode}).shape == (1, 3)
    assert queries.encode(("x", "y"), COS, {1: encode}).shape == (2, 3)
    assert seen == [["x"], ["x", "y"]]
    with pytest.raises(errors.SpaceMismatchError):
        queries.encode("x", HALF, {1: encode})
