"""Vectors of a directory export, put into the order of their age, which is the order in which equal scores rank.

An export reads records in record order. Where vectors were replaced or added later that is not the order of their age;
then the files of the space are written once more. Memory: while one space is looked at, the ids of its records.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError
from vecdb.interchange.npyfile import NpyWriter, flush_to_disk
from vecdb.interchange.vectorfiles import open_vectors
from vecdb.types import Id

__all__ = ["places_by_age", "reorder"]

_PIECE_BYTES = 4 << 20


def places_by_age(order: Sequence[Id], ids: Sequence[Id], lines: Sequence[int]) -> npt.NDArray[np.int64] | None:
    """Return where the oldest vector stands in the file, the next, and so on; None if they stand like that already.

    Parameters
    ----------
    order : sequence of str or int
        Ids of all records of the collection that have a vector, the oldest vector first.
    ids : sequence of str or int
        Id of each exported record, by line; a part of the collection where there is a condition.
    lines : sequence of int
        Line of each vector in the file, ascending.
    """
    if len(order) == len(lines) and all(one == ids[line] for one, line in zip(order, lines, strict=True)):
        return None
    place_of = {ids[line]: place for place, line in enumerate(lines)}
    places = np.array([place_of[one] for one in order if one in place_of], dtype=np.int64)
    if len(places) != len(lines):
        raise CorruptionError(
            f"{len(lines):,} records have a vector, but only {len(places):,} of these vectors have an age.",
            hint="run check.",
            what="order of vectors",
        )
    return None if bool((places[1:] > places[:-1]).all()) else places


def reorder(vectors: str, rows: str, places: npt.NDArray[np.int64], lines: npt.NDArray[np.int64]) -> None:
    """Rewrite the two files of a space so that row i is what was row ``places[i]``."""
    source = open_vectors(vectors)
    try:
        piece = max(1, _PIECE_BYTES // (source.dim * source.dtype.itemsize))
        writer = NpyWriter(f"{vectors}.new", source.dtype, source.dim)
        try:
            for start, stop in _runs(places, piece):
                writer.append(source.read(start, stop))
            writer.finish(flush_to_disk)
        finally:
            writer.close()
    finally:
        source.close()
    os.replace(f"{vectors}.new", vectors)
    _write_lines(rows, lines[places])


def _runs(places: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Cut the places into ranges of consecutive ones, of at most `most`."""
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(places)], strict=True):
        first = int(places[start])
        for begin in range(first, first + stop - start, most):
            yield begin, min(begin + most, first + stop - start)


def _write_lines(path: str, lines: npt.NDArray[np.int64]) -> None:
    writer = NpyWriter(f"{path}.new", np.int64, None)
    try:
        writer.append(lines)
        writer.finish(flush_to_disk)
    finally:
        writer.close()
    os.replace(f"{path}.new", path)
