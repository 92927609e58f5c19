"""Which models work together: every version's queries over every version's vectors.

``C[i, j]`` is what queries of space i are worth over the vectors of space j, through stored transforms where these
differ. Average compatibility (AC) counts how often a newer model over older vectors beats the older model by itself;
average multi-model accuracy (AM) is the mean of the lower triangle (CoReS; Biondi et al., TPAMI 2023, section 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.errors import ArgumentError, ParameterError, RecordMissingError, SpaceMismatchError
from vecdb.evaluation import Estimate, Judged, joined, measure, near_duplicates, predict_mean, ranks_of
from vecdb.types import Id, Space
from vecdb.upgrade.ledger import MEASURES

if TYPE_CHECKING:
    from vecdb.collection import Collection

__all__ = ["CompatibilityMatrix", "compatibility_matrix"]

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CompatibilityMatrix:
    """What queries of each space are worth over the vectors of each.

    Attributes
    ----------
    spaces : tuple of str
        In the order of the versions, the oldest first.
    metric : str
    values : tuple of tuples of Estimate or None
        ``values[i][j]``: queries of space i over vectors of space j; None where no transform leads there.
    through : tuple of tuples of str
        "native", "queries mapped", "records mapped", or "" where nothing leads.
    vectors : tuple of int
        How many vectors each space has.
    queries : int
    ac : float
        Average compatibility, 0 to 1: the share of pairs of versions in which the newer model's queries over the older
        one's vectors are better than the older model by itself. What nothing leads to does not count as compatible.
    am : float
        Mean of what is known of the lower triangle, the diagonal included.
    """

    spaces: tuple[str, ...]
    metric: str
    values: tuple[tuple[Estimate | None, ...], ...]
    through: tuple[tuple[str, ...], ...]
    vectors: tuple[int, ...]
    queries: int
    ac: float
    am: float

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "spaces": list(self.spaces),
            "metric": self.metric,
            "values": [[None if each is None else each.as_dict() for each in row] for row in self.values],
            "through": [list(row) for row in self.through],
            "vectors": list(self.vectors),
            "queries": self.queries,
            "ac": self.ac,
            "am": self.am,
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.metric} of {self.queries:,} queries; rows: queries of, columns: over the vectors of"
        width = max(map(len, self.spaces))
        cells = [[("-" if each is None else f"{each.value:.3f}") for each in row] for row in self.values]
        columns = [max(len(name), 5) for name in self.spaces]
        yield " ".join([" " * width, *(name.rjust(size) for name, size in zip(self.spaces, columns, strict=True))])
        for name, row in zip(self.spaces, cells, strict=True):
            yield " ".join([name.ljust(width), *(cell.rjust(size) for cell, size in zip(row, columns, strict=True))])
        yield f"AC {self.ac:.3f} (newer queries over older vectors better than the older model), AM {self.am:.3f}"


def compatibility_matrix(
    collection: Collection,
    queries: Mapping[str, Any],
    relevant: Sequence[Any],
    groups: Sequence[Any] | None,
    metric: str,
) -> CompatibilityMatrix:
    """Return the matrix; arguments as in `Collection.compatibility_matrix`."""
    if metric not in MEASURES[:3]:
        allowed = list(MEASURES[:3])
        raise ParameterError(
            f"metric is {metric!r}, expected one of {allowed}", name="metric", got=metric, allowed=allowed
        )
    spaces = _chosen(collection, queries)
    asked = {space.name: _asked(queries[space.name], space) for space in spaces}
    _refuse_uneven(asked, relevant, groups)
    clusters = _clusters(asked[spaces[-1].name], groups)
    stored = {space.name: _stored(collection, space) for space in spaces}
    values: list[list[Estimate | None]] = []
    through: list[list[str]] = []
    for one in spaces:
        found = [_cell(collection, one, other, asked[one.name], stored[other.name], relevant) for other in spaces]
        values.append([_estimate(ranks, metric, clusters) for ranks, _ in found])
        through.append([way for _, way in found])
    names = tuple(space.name for space in spaces)
    counts = tuple(len(stored[name][0]) for name in names)
    table = tuple(map(tuple, values))
    return CompatibilityMatrix(
        names, metric, table, tuple(map(tuple, through)), counts, len(relevant), _ac(table), _am(table)
    )


def _chosen(collection: Collection, queries: Mapping[str, Any]) -> list[Space]:
    known = collection.spaces
    unknown = [name for name in queries if name not in known]
    if unknown or len(queries) < 1:
        raise ArgumentError(
            f"queries are of {list(queries)}, expected some of the spaces {list(known)}",
            hint="Give the same queries as each model embeds them: queries={'old': Q_old, 'new': Q_new}.",
        )
    return [space for name, space in known.items() if name in queries]


def _asked(given: Any, space: Space) -> F32:
    return as_matrix(given, space.dim, metric=space.metric, where=f"queries of space {space.name!r}")


def _refuse_uneven(asked: Mapping[str, F32], relevant: Sequence[Any], groups: Sequence[Any] | None) -> None:
    sizes = {name: len(rows) for name, rows in asked.items()} | {"relevant": len(relevant)}
    sizes |= {} if groups is None else {"groups": len(groups)}
    if len(set(sizes.values())) > 1 or not len(relevant):
        raise ArgumentError(f"queries have {sizes}, expected as many of each, one at least")


def _clusters(rows: F32, groups: Sequence[Any] | None) -> npt.NDArray[np.int64]:
    near = near_duplicates(rows)
    return near if groups is None else joined(near, list(groups))


def _stored(collection: Collection, space: Space) -> tuple[dict[Id, int], F32]:
    """Return the rows of the records with a vector in a space, and their vectors."""
    rows: dict[Id, int] = {}
    vectors = []
    for record in collection.scan(vectors=[space.name]):
        if space.name in record.vectors:
            rows[record.id] = len(rows)
            vectors.append(record.vectors[space.name])
    made = np.array(vectors, np.float32) if vectors else np.zeros((0, space.dim), np.float32)
    return rows, made


def _cell(
    collection: Collection,
    one: Space,
    other: Space,
    asked: F32,
    stored: tuple[dict[Id, int], F32],
    relevant: Sequence[Any],
) -> tuple[tuple[npt.NDArray[np.int64], Judged] | None, str]:
    """Return ranks and judgements of queries of one space over the vectors of another, and the way there."""
    rows, vectors = stored
    judged = _judged(relevant, rows)
    if not judged.count:
        return None, ""
    if one.id == other.id:
        return (ranks_of(asked, vectors, judged, one.metric), judged), "native"
    try:
        mapped = collection.transform(asked, one.name, other.name, direction="query")
        return (ranks_of(mapped, vectors, judged, other.metric), judged), "queries mapped"
    except SpaceMismatchError:
        pass  # stored vectors may have a way, where queries have none
    try:
        moved = collection.transform(vectors, other.name, one.name, direction="gallery")
    except SpaceMismatchError:
        return None, ""
    return (ranks_of(asked, moved, judged, one.metric), judged), "records mapped"


def _judged(relevant: Sequence[Any], rows: Mapping[Id, int]) -> Judged:
    entries: list[dict[int, float]] = []
    for entry in relevant:
        graded = entry if isinstance(entry, Mapping) else dict.fromkeys(_several(entry), 1.0)
        plain = {(id.item() if isinstance(id, np.generic) else id): grade for id, grade in graded.items()}
        entries.append({rows[id]: float(grade) for id, grade in plain.items() if id in rows})
    return Judged.of(entries)


def _several(entry: Any) -> list[Any]:
    return [entry] if isinstance(entry, str) or np.ndim(entry) == 0 else list(entry)


def _estimate(
    found: tuple[npt.NDArray[np.int64], Judged] | None, metric: str, clusters: npt.NDArray[np.int64]
) -> Estimate | None:
    if found is None:
        return None
    return predict_mean(measure(*found).of(metric), clusters)


def _ac(values: tuple[tuple[Estimate | None, ...], ...]) -> float:
    """Return 1 less the share of pairs in which a newer model over older vectors is not above the older one."""
    newer = [(i, j) for i in range(len(values)) for j in range(i)]
    if not newer:
        return 1.0
    good = 0
    for i, j in newer:
        cross, own = values[i][j], values[j][j]
        good += cross is not None and own is not None and cross.value > own.value
    return good / len(newer)


def _am(values: tuple[tuple[Estimate | None, ...], ...]) -> float:
    known = [each.value for i, row in enumerate(values) for each in row[: i + 1] if each is not None]
    if not known:
        raise RecordMissingError(
            "no relevant record has a vector in any of the spaces",
            hint="relevant holds ids of the collection: one for each query, a list, or a mapping from id to grade.",
        )
    return float(np.mean(known))
