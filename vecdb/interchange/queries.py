"""Vectors for a query: a file or the bytes of a pipe, whole and in memory."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import SourceError
from vecdb.interchange.chunks import stack
from vecdb.interchange.codec import loads
from vecdb.interchange.convert import as_vectors
from vecdb.interchange.lines import reading
from vecdb.interchange.npyfile import check_length, read_header
from vecdb.interchange.vectorfiles import SUFFIXES, check_matrix, open_vectors

__all__ = ["MAX_BYTES", "read_vectors"]

MAX_BYTES = 256 << 20
"""Most that is read for one query or batch of queries."""


def read_vectors(source: str | os.PathLike[str] | bytes, *, normalise: bool = False) -> npt.NDArray[Any]:
    """Read vectors to search with.

    Parameters
    ----------
    source : path or bytes
        A vector file as for `import_data`, a file of JSON (``[0.1, ...]`` or a list of such lists), or the bytes of a
        ``.npy`` file or of JSON. At most 256 MiB.
    normalise : bool, default False
        Divide each row by its norm.

    Returns
    -------
    ndarray of float16 or float32
        Shape (d,) if the source holds one vector that is not in a list of vectors, else (n, d).

    Raises
    ------
    SourceError, DTypeError, DimensionError, ZeroVectorError, FileAccessError
    """
    if isinstance(source, bytes):
        return _from_bytes(source, "input", normalise)
    path = os.fspath(source)
    suffix = os.path.splitext(path.partition("::")[0])[1].lower()
    if (suffix in SUFFIXES and suffix != ".npy") or suffix == ".npz":
        return _from_file(path, normalise)
    with reading(path), open(path, "rb") as stream:
        return _from_bytes(stream.read(MAX_BYTES + 1), path, normalise)


def _from_file(path: str, normalise: bool) -> npt.NDArray[Any]:
    source = open_vectors(path)
    try:
        _check_size(source.rows * source.dim * source.dtype.itemsize, path)
        return as_vectors(source.read(0, source.rows), normalise=normalise, where=path)
    finally:
        source.close()


def _from_bytes(data: bytes, name: str, normalise: bool) -> npt.NDArray[Any]:
    _check_size(len(data), name)
    rows = _npy(data, name) if data[:1] == b"\x93" else _json(data, name)
    if rows.ndim == 1:
        check_matrix((1, *rows.shape), name)
        row: npt.NDArray[Any] = as_vectors(rows[np.newaxis], normalise=normalise, where=name)[0]
        return row
    check_matrix(rows.shape, name)
    return as_vectors(rows, normalise=normalise, where=name)


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise SourceError(
            f"{name} holds more than {MAX_BYTES:,} bytes of vectors.", hint="search in several calls.", path=name
        )


def _npy(data: bytes, name: str) -> npt.NDArray[Any]:
    stream = io.BytesIO(data)
    header = read_header(stream, name)
    check_length(header, len(data) - header.offset, name)
    flat = np.frombuffer(data, dtype=header.dtype, offset=header.offset)
    array: npt.NDArray[Any] = flat.reshape(header.shape, order="F" if header.fortran else "C")
    return array


def _json(data: bytes, name: str) -> npt.NDArray[Any]:
    found = loads(data, path=name)
    if isinstance(found, list) and found and isinstance(found[0], list):
        return stack(found, name, 0).rows
    if not isinstance(found, list):
        raise SourceError(
            f"{name} holds a {type(found).__name__}, expected a list of numbers.",
            hint="write [0.1, 0.2, ...].",
            path=name,
        )
    row: npt.NDArray[Any] = stack([found], name, 0).rows[0]
    return row
