"""The door for arrays: what comes in, what is borrowed, and what is refused with which words."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vecdb.arrays import FLOAT32_LIMIT, as_matrix, as_query
from vecdb.errors import (
    ArgumentError,
    DimensionError,
    DTypeError,
    NonFiniteError,
    VectorRangeError,
    ZeroVectorError,
)

LARGEST = float(np.float32(FLOAT32_LIMIT))
ROWS = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)


def matrix(x, dim=3, **options):
    return as_matrix(x, dim, **({"metric": "dot", "where": "vectors of space 'm'"} | options))


class Subclass(np.ndarray):
    """Any subclass; the plain array under it is taken."""


class WithArray:
    """What PyTorch and friends look like to numpy."""

    def __init__(self, rows):
        self.rows = rows

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype=dtype)


class WithDlpack:
    """An exporter that offers DLPack alone."""

    def __init__(self, rows):
        self.rows = rows

    def __dlpack__(self, **options):
        return self.rows.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.rows.__dlpack_device__()


# --- what is accepted -------------------------------------------------------------------------------------

INPUTS = {
    "lists": ROWS.tolist(),
    "tuples": tuple(map(tuple, ROWS.tolist())),
    "list of arrays": list(ROWS),
    "float64": ROWS.astype(np.float64),
    "longdouble": ROWS.astype(np.longdouble),
    "float16": ROWS.astype(np.float16),
    "int8": ROWS.astype(np.int8),
    "uint64": ROWS.astype(np.uint64),
    "big endian": ROWS.astype(">f4"),
    "big endian float64": ROWS.astype(">f8"),
    "Fortran order": np.asfortranarray(ROWS),
    "strided": np.repeat(ROWS, 2, axis=1)[:, ::2],
    "reversed": ROWS[::-1][::-1],
    "unaligned": np.frombuffer(b"\0" + ROWS.tobytes(), dtype=np.uint8)[1:].view(np.float32).reshape(2, 3),
    "a subclass of ndarray": ROWS.view(Subclass),
    "unmasked masked array": np.ma.masked_array(ROWS),
    "__array__": WithArray(ROWS),
    "__dlpack__": WithDlpack(ROWS),
    "object array of numbers in rows": np.array([list(row) for row in ROWS.tolist()] + [None], dtype=object)[:2],
    "pandas frame": pd.DataFrame(ROWS),
    "pandas column of arrays": pd.Series(list(ROWS)),
    "pandas column of lists": pd.Series(ROWS.tolist()),
    "Polars frame": pl.DataFrame(ROWS, schema=["a", "b", "c"]),
    "Polars array column": pl.Series(ROWS.tolist(), dtype=pl.Array(pl.Float32, 3)),
    "Polars list column": pl.Series(ROWS.tolist(), dtype=pl.List(pl.Float32)),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_accepted_forms(name, dtype):
    result = matrix(INPUTS[name], dtype=dtype)
    assert type(result) is np.ndarray and result.dtype == dtype and result.dtype.isnative
    assert result.flags.c_contiguous and result.flags.aligned
    assert result.tolist() == ROWS.tolist()


def test_arrow_column_of_vectors():
    pa = pytest.importorskip("pyarrow")
    column = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 3)
    assert matrix(column).tolist() == ROWS.tolist()
    assert matrix(pa.chunked_array([column])).tolist() == ROWS.tolist()


def test_no_vectors_at_all():
    assert matrix([]).shape == (0, 3)
    assert matrix(np.empty((0, 3))).shape == (0, 3)
    assert matrix(np.empty((0, 3)), allow_single=True, metric="cosine").shape == (0, 3)


def test_a_single_vector_only_where_it_is_meant():
    assert matrix([1, 2, 3], allow_single=True).tolist() == [[1, 2, 3]]
    with pytest.raises(DimensionError, match=r"shape \(3,\), expected \(n, 3\)\."):
        matrix([1, 2, 3])


def test_float32_in_order_is_borrowed_even_if_read_only():
    rows = ROWS.copy()
    rows.setflags(write=False)
    assert matrix(rows) is rows
    half = ROWS.astype(np.float16)
    assert matrix(half, dtype="float16") is half
    assert not np.shares_memory(matrix(np.asfortranarray(ROWS)), ROWS)


def test_input_is_never_changed():
    rows = np.asfortranarray(ROWS.astype(np.float64))
    before = rows.copy()
    matrix(rows)
    assert np.array_equal(rows, before)


@given(
    rows=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-LARGEST, LARGEST, width=32, allow_subnormal=True),
    ),
    order=st.sampled_from(["C", "F", "stride", "swap"]),
)
def test_float32_bits_stay(rows, order):
    """-0.0 and denormals included."""
    given_rows = {
        "C": rows,
        "F": np.asfortranarray(rows),
        "stride": np.repeat(rows, 2, axis=0)[::2],
        "swap": rows.astype(">f4"),
    }[order]
    assert matrix(given_rows, dim=rows.shape[1]).tobytes() == rows.tobytes()


def test_float64_goes_to_float16_in_one_rounding():
    """Through float32 this value would be rounded twice and end one step higher."""
    value = 1.0 + 2**-11 + 2**-40
    assert float(np.float16(np.float32(value))) == 1.0
    assert matrix([[value]], dim=1, dtype="float16")[0, 0] == np.float16(1 + 2**-10)


def test_memory_is_bounded_by_chunks():
    rows = np.ones((4_000, 512), dtype=np.float32)
    tracemalloc.start()
    try:
        matrix(rows, dim=512, metric="cosine")
        borrowed = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        matrix(rows, dim=512, metric="cosine", dtype="float16")
        converted = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert borrowed < rows.nbytes / 8
    assert converted < rows.nbytes / 2 + rows.nbytes / 8


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        [["a", "b", "c"]],
        [[b"a", b"b", b"c"]],
        [[1, None, 3]],
        [[1j, 2, 3]],
        [[True, False, True]],
        [["1", "2", "3"]],
        np.array([["2020-01-01"] * 3], dtype="datetime64[D]"),
        np.array([[object()] * 3]),
        np.zeros((2, 3), dtype="V4"),
        "text",
        None,
        object(),
        {"a": 1},
        {1, 2, 3},
        pd.Series(["a", "b"]),
        pd.Series([["a", "b", "c"]]),
    ],
)
def test_what_is_no_array_of_real_numbers(bad):
    with pytest.raises((DTypeError, DimensionError)) as caught:
        matrix(bad)
    assert type(caught.value) is DTypeError
    assert caught.value.where == "vectors of space 'm'" and "vectors of space 'm'" in str(caught.value)
    assert "real numbers" in str(caught.value)


def test_an_object_that_fails_to_convert_keeps_its_reason():
    class Stubborn:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("tensor lives on another device")

    with pytest.raises(DTypeError, match="another device") as caught:
        matrix(Stubborn())
    assert isinstance(caught.value.__cause__, RuntimeError) and caught.value.got == "Stubborn"


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (np.ones((2, 4)), 4),
        (np.ones((2, 0)), 0),
        (np.ones((2, 3, 1)), (2, 3, 1)),
        (np.float32(1.0), ()),
        (3.5, ()),
        ([[1, 2, 3], [4, 5]], "rows of different lengths"),
        (pd.Series([[1, 2, 3], [4, 5]]), "rows of different lengths"),
    ],
)
def test_wrong_shapes(bad, got):
    with pytest.raises(DimensionError) as caught:
        matrix(bad)
    assert caught.value.got == got
    assert "3" in str(caught.value) and "vectors of space 'm'" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("source", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_bad_component_is_named(dtype, source, value):
    rows = np.ones((5_000, 50), dtype=source)
    rows[3_777, 21] = rows[4_000, 0] = value
    with pytest.raises(NonFiniteError, match=r"row 3777, column 21 is -?(nan|inf)") as caught:
        matrix(rows, dim=50, dtype=dtype)
    assert (caught.value.row, caught.value.column) == (3_777, 21)


@pytest.mark.parametrize(
    ("value", "source", "dtype", "limit"),
    [
        (1.1e15, np.float32, "float32", 1e15),
        (-1e300, np.float64, "float32", 1e15),
        (1e39, np.float64, "float32", 1e15),
        (2**62, np.int64, "float32", 1e15),
        (65_520, np.float32, "float16", 65_504.0),
        (-70_000, np.int32, "float16", 65_504.0),
        (1e300, np.float64, "float16", 65_504.0),
    ],
)
def test_components_out_of_range(value, source, dtype, limit):
    rows = np.ones((4, 3), dtype=source)
    rows[2, 1] = value
    with pytest.raises(VectorRangeError) as caught:
        matrix(rows, dtype=dtype)
    assert (caught.value.row, caught.value.column, caught.value.limit) == (2, 1, limit)


def test_the_limits_themselves_are_fine():
    assert matrix([[1e15, -1e15, 0]]).tolist() == [[np.float32(1e15), -np.float32(1e15), 0]]
    assert matrix([[65_504, -65_504, 0]], dtype="float16").tolist() == [[65_504, -65_504, 0]]


COMPONENTS = st.sampled_from([0.0, -0.0, 1e-45, 1.0, 3e14, 9.4e14, -1e15, 1.1e15, -3e38, np.inf, np.nan])


@given(rows=st.lists(st.lists(COMPONENTS, min_size=3, max_size=3), min_size=1, max_size=6), cosine=st.booleans())
def test_one_sum_of_squares_finds_what_looking_at_every_component_does(rows, cosine):
    given = np.array(rows, np.float32)
    limit = np.float32(1e15)
    flat = [(number, column) for number in range(len(rows)) for column in range(3)]
    odd = [place for place in flat if not np.isfinite(given[place])]
    large = [place for place in flat if abs(given[place]) > limit]
    zero = [number for number in range(len(rows)) if cosine and not given[number].any()]
    expected = NonFiniteError if odd else VectorRangeError if large else ZeroVectorError if zero else None
    if expected is None:
        assert matrix(given, metric="cosine" if cosine else "dot") is given
        return
    with pytest.raises(expected) as caught:
        matrix(given, metric="cosine" if cosine else "dot")
    place = (*odd, *large)[:1] or [(zero[0], None)]
    assert (caught.value.row, getattr(caught.value, "column", None)) == place[0]


def test_a_large_row_does_not_hide_behind_many_components():
    rows = np.full((2, 65_536), 1e15, np.float32)
    assert matrix(rows, dim=65_536) is rows
    rows[1, 60_000] = np.nextafter(np.float32(1e15), np.float32(np.inf))
    with pytest.raises(VectorRangeError) as caught:
        matrix(rows, dim=65_536)
    assert (caught.value.row, caught.value.column) == (1, 60_000)


def test_nan_is_reported_before_range():
    with pytest.raises(NonFiniteError):
        matrix([[1e30, 1, np.nan]])


def test_masked_components_are_missing_not_numbers():
    masked = np.ma.masked_array(ROWS, mask=[[0, 0, 0], [0, 1, 0]])
    with pytest.raises(NonFiniteError, match="row 1, column 1 is masked") as caught:
        matrix(masked)
    assert (caught.value.row, caught.value.column) == (1, 1)
    with pytest.raises(NonFiniteError, match="row 0, column 2"):
        as_query(np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 0, 1]), 3, metric="dot")


def test_zero_vectors_only_where_direction_matters():
    rows = np.ones((3_000, 40), dtype=np.float32)
    rows[2_222] = 0.0
    rows[2_222, 3] = -0.0
    with pytest.raises(ZeroVectorError, match="row 2222 has zero norm") as caught:
        matrix(rows, dim=40, metric="cosine")
    assert caught.value.row == 2_222
    assert matrix(rows, dim=40, metric="l2") is rows
    rows[2_222, 7] = 1e-45  # the smallest float32: its square underflows, its direction does not
    assert matrix(rows, dim=40, metric="cosine") is rows


def test_a_row_that_float16_rounds_away():
    rows = np.full((2, 3), 1e-9, dtype=np.float32)
    rows[0] = 1.0
    assert matrix(rows, metric="cosine").shape == (2, 3)
    with pytest.raises(ZeroVectorError, match="row 1 has zero norm as float16"):
        matrix(rows, metric="cosine", dtype="float16")
    assert matrix(rows, metric="dot", dtype="float16")[1].tolist() == [0, 0, 0]


@given(
    x=st.one_of(
        st.recursive(
            st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.none(), st.booleans(), st.complex_numbers()),
            lambda inner: st.lists(inner, max_size=4),
            max_leaves=12,
        ),
        hnp.arrays(
            st.sampled_from([np.float64, np.int64, np.complex64, bool]), hnp.array_shapes(max_dims=3, max_side=4)
        ),
    )
)
def test_anything_is_either_good_vectors_or_an_argument_error(x):
    try:
        result = matrix(x, metric="cosine", dtype="float16")
    except ArgumentError:
        return
    assert result.dtype == np.float16 and result.ndim == 2 and result.shape[1] == 3
    assert np.isfinite(result).all() and result.any(axis=1).all()


# --- queries ----------------------------------------------------------------------------------------------


def test_queries_know_whether_they_were_single():
    queries, single = as_query([1, 2, 3], 3, metric="cosine")
    assert single and queries.shape == (1, 3) and queries.dtype == np.float32
    queries, single = as_query(ROWS, 3, metric="cosine")
    assert not single and queries is ROWS
    queries, single = as_query(ROWS[:1].astype(np.float16), 3, metric="dot")
    assert not single and queries.dtype == np.float32


@pytest.mark.parametrize("empty", [[], np.empty(0), np.empty((0, 3)), [[]]])
def test_an_empty_query_is_an_error(empty):
    with pytest.raises(DimensionError, match="query"):
        as_query(empty, 3, metric="dot")


def test_queries_are_held_to_the_same_rules():
    for bad, error in (
        ([1, 2], DimensionError),
        ([[[1, 2, 3]]], DimensionError),
        ([0, 0, 0], ZeroVectorError),
        ([1, np.nan, 0], NonFiniteError),
        ([1e16, 0, 0], VectorRangeError),
        (["a", "b", "c"], DTypeError),
        (1.0, DimensionError),
    ):
        with pytest.raises(error, match="query"):
            as_query(bad, 3, metric="cosine")
    with pytest.raises(DimensionError, match="query for 'docs'"):
        as_query([1, 2], 3, metric="cosine", where="query for 'docs'")


# --- the short way of a plain query -------------------------------------------------------------------------


@given(
    values=st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=40),
    metric=st.sampled_from(["cosine", "dot", "l2"]),
)
def test_a_plain_query_is_judged_as_any_other(values, metric):
    """One vector of float32 takes a short way; the same numbers as a matrix of one row go the long way."""
    query = np.array(values, np.float32)
    outcomes = []
    for given_as in (query, query[None]):
        try:
            matrix, single = as_query(given_as, len(query), metric=metric)
        except ArgumentError as error:
            outcomes.append(type(error))
        else:
            outcomes.append((matrix.tobytes(), matrix.shape, matrix.dtype))
            assert single == (given_as.ndim == 1)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("size", [1, 384, 65_536])
def test_the_short_way_lets_no_component_pass_that_is_too_large(size):
    query = np.zeros(size, np.float32)
    query[-1] = np.nextafter(np.float32(FLOAT32_LIMIT), np.float32(np.inf))
    with pytest.raises(VectorRangeError):
        as_query(query, size, metric="dot")
    query[-1] = FLOAT32_LIMIT
    assert as_query(query, size, metric="dot")[0].tobytes() == query.tobytes()


def test_the_short_way_borrows_and_leaves_strange_layouts_to_the_long_one():
    query = np.ones(8, np.float32)
    assert np.shares_memory(as_query(query, 8, metric="dot")[0], query)
    for strange in (np.ones(16, np.float32)[::2], np.ones(8, ">f4"), np.ma.masked_array(np.ones(8, np.float32))):
        matrix, single = as_query(strange, 8, metric="dot")
        assert single and matrix.dtype == np.float32 and matrix.flags.c_contiguous and matrix.dtype.isnative
