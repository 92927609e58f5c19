"""The one door through which arrays of callers enter: shape, element type, finiteness and range are settled here.

Invariant: what leaves is C-contiguous, aligned, native float32 (or float16 for storage) without NaN, infinity or
out-of-range components, and in cosine spaces without rows of zero norm; bits of acceptable float32 input are never
changed. Everything is refused before anything is stored. Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from vecdb.errors import (
    DimensionError,
    DTypeError,
    NonFiniteError,
    VectorRangeError,
    ZeroVectorError,
)
from vecdb.types import Metric

__all__ = ["FLOAT16_LIMIT", "FLOAT32_LIMIT", "as_matrix", "as_query", "refuse_zero_rows"]

FLOAT32_LIMIT = 1e15
"""Largest magnitude of a component: squared distances at 65,536 dimensions then still fit float32."""
FLOAT16_LIMIT = 65504.0
"""Largest finite float16."""

_PLAIN = np.dtype(np.float32)
_IN_ORDER = 0x0001 | 0x0100
"""NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED, which one look at ``flags.num`` tells."""
_CLEAR = 0.9 * FLOAT32_LIMIT**2
"""Below this sum of squares, in float32, no component of a row exceeds the limit."""
_CHUNK_ELEMENTS = 1 << 16  # a float32 chunk of 256 KB stays in the second-level cache between the passes over it
_EXPECTED = "real numbers (float or integer arrays)"
_SMALL_FLOATS = ("bfloat16", "float8")


def as_matrix(
    x: object,
    dim: int,
    *,
    metric: Metric,
    where: str,
    dtype: Literal["float32", "float16"] = "float32",
    allow_single: bool = False,
) -> npt.NDArray[Any]:
    """Return `x` as vectors that may be stored, or raise.

    Parameters
    ----------
    x : array_like of real numbers, shape (n, dim)
        Lists, numpy arrays of any real dtype, byte order and stride, objects with ``__array__`` or ``__dlpack__``
        (PyTorch, JAX), pandas, Polars and Arrow columns of vectors. ``[]`` is zero vectors.
    dim : int
        Width of the space.
    metric : {"cosine", "dot", "l2"}
        Cosine spaces refuse zero vectors.
    where : str
        What the array is, for messages: ``"vectors of space 'minilm'"``.
    dtype : {"float32", "float16"}, default "float32"
        Element type of the result.
    allow_single : bool, default False
        Accept shape (dim,) as one row.

    Returns
    -------
    ndarray of `dtype`, shape (n, dim)
        C-contiguous. Borrowed (and possibly read-only) if `x` already has this form, otherwise owned.

    Raises
    ------
    DimensionError
        Wrong width or number of axes, or rows of different lengths.
    DTypeError
        Objects, text, booleans, complex numbers, dates.
    NonFiniteError
        NaN, infinity or a masked element.
    VectorRangeError
        A magnitude above 1e15 (float32) or 65504 (float16).
    ZeroVectorError
        Cosine only: a row without direction, also if only the cast to float16 made it so.
    """
    source = _materialise(x, dim, where)
    if source.ndim == 1 and allow_single and source.shape[0]:
        source = source.reshape(1, -1)
    if source.ndim == 1 and source.shape[0] == 0 and not allow_single:
        source = source.reshape(0, dim)
    if source.ndim != 2:
        _raise_axes(source, dim, where, allow_single)
    if source.shape[1] != dim:
        raise DimensionError(
            f"{where}: vectors have {source.shape[1]} dimensions, expected {dim}.",
            hint="Each vector needs the width of its space; check which model made it.",
            expected=dim,
            got=source.shape[1],
            where=where,
        )
    return _converted(source, np.dtype(dtype), where, directed=metric == "cosine")


def as_query(x: object, dim: int, *, metric: Metric, where: str = "query") -> tuple[npt.NDArray[np.float32], bool]:
    """Return `x` as float32 query rows, and whether it was a single vector.

    Parameters
    ----------
    x : array_like of real numbers, shape (dim,) or (q, dim)
    dim, metric, where
        As in `as_matrix`.

    Returns
    -------
    queries : ndarray of float32, shape (q, dim)
        C-contiguous, borrowed where possible.
    single : bool
        True if `x` had one axis.

    Raises
    ------
    DimensionError
        Also if there is no query at all.
    DTypeError, NonFiniteError, VectorRangeError, ZeroVectorError
        As in `as_matrix`.
    """
    if type(x) is np.ndarray and x.shape == (dim,) and is_plain_query(x):
        return x.reshape(1, dim), True
    source = _materialise(x, dim, where)
    if source.ndim in (1, 2) and source.shape[0] == 0:
        raise DimensionError(
            f"{where}: the query is empty, expected {dim} dimensions.",
            hint="Pass one vector of shape (dim,) or several of shape (q, dim).",
            expected=dim,
            got=source.shape,
            where=where,
        )
    return as_matrix(source, dim, metric=metric, where=where, allow_single=True), source.ndim == 1


def is_plain_query(x: npt.NDArray[Any]) -> bool:
    """Whether one product proves that a vector may be used as it is: the commonest query, and the check is felt.

    A float32 sum of squares is off by less than 0.5 % (65,536 components), so within these limits every component is
    finite and at most `FLOAT32_LIMIT`, and one is not zero. Whatever lies outside goes the long way. `vdot`, because
    unlike `dot` it does not warn when the sum overflows.
    """
    if (x.dtype is not _PLAIN and x.dtype != _PLAIN) or x.flags.num & _IN_ORDER != _IN_ORDER:
        return False
    return 1e-30 < float(np.vdot(x, x)) < 0.99 * FLOAT32_LIMIT * FLOAT32_LIMIT


# --- from any object to a real array ----------------------------------------------------------------------


def _materialise(x: object, dim: int, where: str) -> npt.NDArray[Any]:
    """Turn `x` into a plain ndarray of a real dtype; bytes of numpy input are not copied."""
    if "numpy.ma" in sys.modules and isinstance(x, np.ma.MaskedArray):  # naming np.ma would import it
        _refuse_masked(x, where)
        x = x.data
    try:
        source = _as_plain(x)
        if source.dtype == object and source.ndim == 1 and source.size and not np.isscalar(source[0]):
            source = np.asarray(source.tolist())  # a column of vectors: pandas, Arrow and Polars lists
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        _raise_unreadable(x, dim, where, error)
    if source.dtype.kind in "fiu":
        return source
    name = source.dtype.name  # numpy makes it up anew each time
    if source.dtype.kind == "V" and source.dtype.names is None and name.startswith(_SMALL_FLOATS):
        return source.astype(np.float32)
    return _raise_dtype(name, where)


def _as_plain(x: object) -> npt.NDArray[Any]:
    if isinstance(x, np.ndarray) or hasattr(x, "__array__") or not hasattr(x, "__dlpack__"):
        return np.asarray(x)
    return np.from_dlpack(x)


def _refuse_masked(x: np.ma.MaskedArray[Any, Any], where: str) -> None:
    places = np.argwhere(np.ma.getmaskarray(x))
    if len(places):
        row, column = _row_and_column(places[0])
        raise NonFiniteError(
            f"{where}: row {row}, column {column} is masked; every component must be a number.",
            row=row,
            column=column,
            where=where,
        )


def _row_and_column(place: npt.NDArray[Any]) -> tuple[int, int]:
    return (int(place[0]), int(place[-1])) if len(place) > 1 else (0, int(place[-1]) if len(place) else 0)


def _raise_unreadable(x: object, dim: int, where: str, error: Exception) -> NoReturn:
    if isinstance(error, ValueError) and "inhomogeneous" in str(error):
        raise DimensionError(
            f"{where}: rows have different lengths, expected {dim} components in each.",
            hint="Each vector needs the width of its space.",
            expected=dim,
            got="rows of different lengths",
            where=where,
        ) from error
    got = type(x).__name__
    raise DTypeError(
        f"{where}: a {got} could not be read as an array ({error}); expected {_EXPECTED}.",
        hint="Convert it to a numpy array first.",
        expected=_EXPECTED,
        got=got,
        where=where,
    ) from error


def _raise_dtype(name: str, where: str) -> NoReturn:
    raise DTypeError(
        f"{where}: element type {name} cannot be used for vectors, expected {_EXPECTED}.",
        hint="Convert to float32 explicitly if that is what you mean.",
        expected=_EXPECTED,
        got=name,
        where=where,
    )


def _raise_axes(source: npt.NDArray[Any], dim: int, where: str, allow_single: bool) -> NoReturn:
    wanted = f"(n, {dim})" + (f" or ({dim},)" if allow_single else "")
    raise DimensionError(
        f"{where}: the array has shape {source.shape}, expected {wanted}.",
        hint="Reshape it: one row per vector.",
        expected=wanted,
        got=source.shape,
        where=where,
    )


# --- conversion and the checks, chunk by chunk ------------------------------------------------------------


def _converted(source: npt.NDArray[Any], dtype: np.dtype[Any], where: str, *, directed: bool) -> npt.NDArray[Any]:
    """Cast to `dtype` where needed; every chunk is checked right after it was touched. `directed` rows are not zero.

    One sum of squares a row finds nearly everything that may be wrong: NaN and infinity pass through it, no component
    exceeds its square root, and it vanishes for zeros. What it cannot clear is looked at closely.
    """
    borrow = source.dtype == dtype and source.dtype.isnative and source.flags.c_contiguous and source.flags.aligned
    result = source if borrow else np.empty(source.shape, dtype=dtype)
    undirected: list[slice] = []
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for rows in _chunks(source.shape):
            if not borrow:
                result[rows] = source[rows]
            wide = result[rows].astype(np.float32, copy=False)
            squares = np.einsum("ij,ij->i", wide, wide)
            if dtype != np.float32 or not float(squares.max()) < _CLEAR:
                _check_range(source[rows], wide, dtype, rows.start, where)
            if directed and not squares.min():
                undirected.append(rows)
    for rows in undirected:  # a value out of range in a later row is told first
        _refuse_zero_rows(result[rows], rows.start, where)
    return result


def _check_range(
    source: npt.NDArray[Any], wide: npt.NDArray[np.float32], dtype: np.dtype[Any], first_row: int, where: str
) -> None:
    limit = FLOAT32_LIMIT if dtype == np.float32 else FLOAT16_LIMIT
    if dtype != np.float32:  # what is infinite as float16 may be finite as it came
        wide = source.astype(np.float32)
    if not (-limit <= float(wide.min()) and float(wide.max()) <= limit):  # NaN fails both comparisons
        _raise_component(source, first_row, limit, where)


def _chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _CHUNK_ELEMENTS // max(1, shape[1]))
    for start in range(0, shape[0] if shape[1] else 0, step):
        yield slice(start, min(start + step, shape[0]))


def _raise_component(chunk: npt.NDArray[Any], first_row: int, limit: float, where: str) -> NoReturn:
    """Name the first NaN or infinity of the chunk, else the first component beyond `limit`."""
    finite = np.isfinite(chunk)
    bad = ~finite if not finite.all() else np.abs(chunk.astype(np.float32)) > np.float32(limit)
    place = np.unravel_index(int(np.argmax(bad)), chunk.shape)
    row, column = first_row + int(place[0]), int(place[1])
    value = chunk[place]
    if not np.isfinite(value):
        raise NonFiniteError(
            f"{where}: row {row}, column {column} is {value}; every component must be finite.",
            hint="Drop or repair the vector; a model that returns NaN usually got empty or broken input.",
            row=row,
            column=column,
            where=where,
        )
    raise VectorRangeError(
        f"{where}: row {row}, column {column} is {value}; magnitudes up to {limit:g} can be stored.",
        hint="Scale the vectors down, or use dtype='float32' for the space." if limit == FLOAT16_LIMIT else None,
        row=row,
        column=column,
        limit=limit,
        where=where,
    )


def refuse_zero_rows(vectors: npt.NDArray[Any], where: str, rounded_to: str) -> None:
    """Raise `ZeroVectorError` for a row of which rounding left nothing; `rounded_to` names the type."""
    _refuse_zero_rows(vectors, 0, where, rounded_to)


def _refuse_zero_rows(vectors: npt.NDArray[Any], first_row: int, where: str, rounded_to: str = "") -> None:
    """Refuse a row of plain zeros; a sum of squares alone may have vanished below the range of float32."""
    rounded_to = rounded_to or (vectors.dtype.name if vectors.dtype != np.float32 else "")
    for row in np.flatnonzero(~vectors.any(axis=1)):
        raise ZeroVectorError(
            f"{where}: row {first_row + int(row)} has zero norm{' as ' + rounded_to if rounded_to else ''};"
            " a cosine space needs a direction.",
            hint="Leave the record without a vector in this space, or use metric='dot' or 'l2'.",
            row=first_row + int(row),
            where=where,
        )
