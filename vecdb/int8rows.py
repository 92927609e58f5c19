"""Rows of int8: a code for each component and one float32 step for the row; a component is ``code * step``.

Stored as int8, shape (n, columns): the codes, zeros up to a multiple of four, and the four bytes of the step
(little-endian). The quantiser is symmetric (codes -127 to 127) and idempotent: quantising what `dequantise` returns
gives the same bytes, so exports and copies lose nothing more. Bytes: docs/explanation/storage-design.md.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["dequantise", "quantise", "relative_errors", "stored_columns"]

F32 = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
LARGEST: Final = 127
_STEP_BYTES: Final = 4
_CHUNK: Final = 1 << 18
"""Components worked on at a time."""


def stored_columns(dim: int) -> int:
    """Return the bytes of a row of `dim` components: the step lies on a multiple of four."""
    return -(-dim // 4) * 4 + _STEP_BYTES


def quantise(rows: F32) -> Codes:
    """Return rows as int8.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
        Finite, magnitudes up to 1e15.

    Returns
    -------
    ndarray of int8, shape (n, `stored_columns` (d))
        The largest component of a row in magnitude is 127 steps; a row whose step is below the range of float32
        becomes zero.
    """
    count, dim = rows.shape
    stored = np.zeros((count, stored_columns(dim)), np.int8)
    for part in _parts(count, dim):
        chunk = rows[part]
        step = _steps(np.abs(chunk).max(axis=1))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            codes = np.rint(chunk / step[:, None])
        codes[step == 0] = 0
        stored[part, :dim] = np.clip(codes, -LARGEST, LARGEST, out=codes)
        stored[part, -_STEP_BYTES:] = step.astype("<f4").view(np.int8).reshape(-1, _STEP_BYTES)
    return stored


def dequantise(stored: npt.NDArray[Any], dim: int) -> F32:
    """Return the float32 rows, shape (n, `dim`), that stored ones stand for; products rounded once."""
    rows = stored[:, :dim].astype(np.float32)
    rows *= np.ascontiguousarray(stored[:, -_STEP_BYTES:]).view("<f4").astype(np.float32, copy=False)
    return rows


def relative_errors(rows: npt.NDArray[Any], kept: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return ``|x - kept| / |x|`` of each row, shape (n,); 0 for rows of zeros."""
    errors = np.zeros(len(rows), np.float64)
    for part in _parts(*rows.shape):
        wide = rows[part].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        wide -= kept[part]
        lost = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        np.divide(lost, norms, out=errors[part], where=norms > 0)
    return errors


def _steps(largest: F32) -> F32:
    """Return the step for rows whose largest magnitude this is.

    Several steps may give the same 127-fold, rounded; of those the smallest is taken, so that the largest magnitude of
    a quantised row leads back to its step.
    """
    step = (largest.astype(np.float64) / LARGEST).astype(np.float32)
    top = step * np.float32(LARGEST)
    for _ in range(2):
        lower = np.nextafter(step, np.float32(0))
        step = np.where(lower * np.float32(LARGEST) == top, lower, step)
    return step


def _parts(count: int, dim: int) -> list[slice]:
    height = max(1, _CHUNK // max(1, dim))
    return [slice(start, min(start + height, count)) for start in range(0, count, height)]
