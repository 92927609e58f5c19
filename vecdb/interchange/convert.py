"""From the numbers of a file to the numbers of a space.

Rule: float16 and float32 pass with every bit; every other number type is cast to float32. ``normalise`` then divides
each row by its Euclidean norm in float32, exactly as ``x / numpy.linalg.norm(x, axis=1, keepdims=True)`` does, which
is how int8 rows with a scale of their own are decoded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import DTypeError, ZeroVectorError

__all__ = ["as_vectors"]

_EXACT = (np.dtype(np.float32), np.dtype(np.float16))


def as_vectors(rows: npt.NDArray[Any], *, normalise: bool, where: str) -> npt.NDArray[Any]:
    """Return rows as a C-contiguous float16 or float32 array in this machine's byte order.

    Parameters
    ----------
    rows : ndarray of a number type, shape (n, d)
    normalise : bool
        Divide each row by its norm after the cast to float32.
    where : str
        For messages: the file or column.

    Raises
    ------
    DTypeError
        Objects, text, bool or complex numbers.
    ZeroVectorError
        ``normalise`` and a row of norm zero.
    """
    if rows.dtype.kind not in "fiu" or rows.dtype.itemsize > 8:
        raise DTypeError(
            f"{where} holds {rows.dtype}, expected float32, float16 or another plain number type.",
            hint="convert it with numpy first; objects are never stored.",
            expected="float32 or float16",
            got=str(rows.dtype),
            where=where,
        )
    native = rows.dtype.newbyteorder("=")
    if normalise or native not in _EXACT:
        return _float32(rows, normalise=normalise, where=where)
    return np.ascontiguousarray(rows, dtype=native)


def _float32(rows: npt.NDArray[Any], *, normalise: bool, where: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, which the collection refuses by row
        plain = np.ascontiguousarray(rows, dtype=np.float32)
    if not normalise:
        return plain
    norms = np.linalg.norm(plain, axis=1, keepdims=True)
    if not norms.all():
        row = int(np.flatnonzero(norms[:, 0] == 0)[0])
        raise ZeroVectorError(
            f"{where}: row {row} is all zeros and has no direction.", hint="leave it out.", row=row, where=where
        )
    unit: npt.NDArray[np.float32] = plain / norms
    return unit
