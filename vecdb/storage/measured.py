"""What the catalog keeps of the measuring of an index part: recall by effort, and local dimension. Values only.

Shares are kept in millionths, so that everything stored is a number that can be checked. Invariant of what was read:
efforts ascend, shares lie between 0 and 1. Byte tables: docs/explanation/storage-design.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from vecdb.storage.format import stored_numbers

MILLION: Final = 1_000_000
MAX_POINTS: Final = 256
MAX_CURVES: Final = 16


@dataclass(frozen=True, slots=True)
class StoredCurve:
    """Recall by effort as it was measured.

    Attributes
    ----------
    source : str
        What was asked: "members", "held out" or "recorded".
    k : int
    queries : int
    points : tuple of (effort, recall, deviation)
        The last two in millionths; a deviation of `MILLION` says that it is not known.
    """

    source: str
    k: int
    queries: int
    points: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a part.

    Attributes
    ----------
    curves : tuple of StoredCurve
    dimension : int
        Local intrinsic dimension in thousandths; 0: not known.
    recorded : int
        How many queries had been recorded when it was measured.
    """

    curves: tuple[StoredCurve, ...] = ()
    dimension: int = 0
    recorded: int = 0


NOTHING: Final = Measured()


def measured_to_plain(measured: Measured) -> list[Any]:
    curves = [
        [curve.source, curve.k, curve.queries, [number for point in curve.points for number in point]]
        for curve in measured.curves
    ]
    return [measured.dimension, measured.recorded, curves]


def measured_from_plain(plain: Any) -> Measured:
    """Invert `measured_to_plain`; anything of a wrong shape raises what the catalog turns into `CorruptionError`."""
    dimension, recorded, curves = plain
    if len(curves) > MAX_CURVES:
        raise ValueError("an index part with too many curves")
    numbers = stored_numbers([dimension, recorded], "catalog")
    return Measured(tuple(_curve(curve) for curve in curves), *numbers)


def _curve(plain: Sequence[Any]) -> StoredCurve:
    source, k, queries, numbers = plain
    if not isinstance(source, str):
        raise TypeError("a curve without a source")
    k, queries = stored_numbers([k, queries], "catalog")
    flat = stored_numbers(numbers, "catalog")
    points = tuple(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))
    ascending = all(before[0] < after[0] for before, after in pairwise(points))
    sound = all(point[0] > 0 and max(point[1:]) <= MILLION for point in points)
    if not (0 < len(points) <= MAX_POINTS and ascending and sound and k and queries):
        raise ValueError("an impossible curve of recall by effort")
    return StoredCurve(source, k, queries, points)
