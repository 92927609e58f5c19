"""What a plan is made from, in arrays: old vectors, pairs, queries; read once, checked, at unit length where due.

Invariant: vectors of cosine spaces have norm 1, all arrays are read-only float32, judgements name rows of `gallery`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.errors import ArgumentError, FitError, RecordMissingError, VectorMissingError
from vecdb.evaluation import Judged, joined, near_duplicates
from vecdb.types import Id, Space
from vecdb.verdicts import QuerySet

if TYPE_CHECKING:
    from vecdb.collection import Collection

__all__ = ["Material", "Questions", "gather"]

F32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

FEWEST_PAIRS = 40
MOST_PAIRS = 20_000
MOST_COMPARED = 8_000
"""Pairs whose near-duplicates are looked for: the time grows with the square."""
_CHUNK = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Queries, as far as they are known.

    Attributes
    ----------
    old, new : ndarray of float32, shapes (q, d) and (q, e), or None
    judged : Judged or None
        Rows that answer them.
    clusters : ndarray of int64, shape (q,)
        Queries that belong together.
    """

    old: F32 | None
    new: F32 | None
    judged: Judged | None
    clusters: Integers

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.clusters)

    def take(self, which: npt.NDArray[Any]) -> Questions:
        """Return some of them: a mask or numbers."""
        return Questions(
            None if self.old is None else self.old[which],
            None if self.new is None else self.new[which],
            None if self.judged is None else self.judged.take(which),
            self.clusters[which],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Everything that a plan reads.

    Attributes
    ----------
    source, target : Space
        The old and the new model.
    gallery : ndarray of float32, shape (n, d)
        Every vector of the source space.
    X, Y : ndarray of float32, shapes (p, d) and (p, e)
        Records known in both.
    places : ndarray of int64, shape (p,)
        Their rows in the gallery; -1: not in the collection.
    ids : tuple of ids
        Of the pairs, empty where they are not of the collection.
    groups : ndarray of int64, shape (p,)
        Pairs that must not be split.
    questions, bank : Questions or None
        To judge by; without answers, to correct and to fit by.
    notes : tuple of str
        What was missing or left out.
    """

    source: Space
    target: Space
    gallery: F32
    X: F32
    Y: F32
    places: Integers
    ids: tuple[Id, ...]
    groups: Integers
    questions: Questions | None = None
    bank: Questions | None = None
    notes: tuple[str, ...] = ()


def gather(
    collection: Collection,
    spaces: tuple[Space, Space],
    pairs: Any,
    questions: QuerySet | None,
    bank: QuerySet | None,
    groups: Sequence[Hashable] | None,
) -> Material:
    """Read the collection at one seq, and check everything that was given.

    Raises
    ------
    FitError
        Fewer than 40 pairs.
    ArgumentError, DimensionError, RecordMissingError, VectorMissingError
    """
    source, target = spaces
    ids, gallery, both, natives = _read(collection, source, target, wanted=pairs is None)
    rows = {id: row for row, id in enumerate(ids)}
    X, Y, places, names = (
        (gallery[both], natives, both, tuple(ids[row] for row in both.tolist()))
        if pairs is None
        else _given(pairs, source, target, gallery, rows)
    )
    if len(X) < FEWEST_PAIRS:
        raise FitError(
            f"there are {len(X)} records known in {source.name!r} and {target.name!r}, expected {FEWEST_PAIRS} or more",
            hint="Embed a few thousand records with the new model, those that answer your queries among them: "
            "pairs=(ids, Y).",
            pairs=len(X),
            needed=FEWEST_PAIRS,
        )
    if groups is not None and len(groups) != len(X):
        raise ArgumentError(f"groups are {len(groups)}, expected one for each of {len(X)} pairs")
    made = Material(source, target, gallery, X, Y, places, names, np.arange(len(X)))
    return _grouped(_with_questions(made, questions, bank, rows), groups)


def _grouped(made: Material, groups: Sequence[Hashable] | None) -> Material:
    """Return it with its pairs grouped, and not more of them than a plan needs: the answers, and a random rest."""
    keep, notes = _enough(made), made.notes
    if len(keep) < len(made.X):
        notes = (
            *notes,
            f"{len(made.X) - len(keep):,} of {len(made.X):,} pairs were left out: {MOST_PAIRS:,} are enough",
        )
    X, Y = made.X[keep], made.Y[keep]
    for rows in (X, Y):
        rows.flags.writeable = False
    ids = tuple(made.ids[row] for row in keep.tolist()) if made.ids else ()
    given = None if groups is None else [groups[row] for row in keep.tolist()]
    return replace(made, X=X, Y=Y, places=made.places[keep], ids=ids, groups=_groups(X, Y, given), notes=notes)


def _enough(made: Material) -> Integers:
    """Return which pairs are used."""
    if len(made.X) <= MOST_PAIRS:
        return np.arange(len(made.X))
    judged = None if made.questions is None else made.questions.judged
    lot = np.random.default_rng(len(made.X)).random(len(made.X))
    if judged is not None:
        lot[np.isin(made.places, judged.rows) & (made.places >= 0)] -= 1.0
    return np.sort(np.argsort(lot, kind="stable")[:MOST_PAIRS])


# --- the collection ---------------------------------------------------------------------------------------


def _read(collection: Collection, source: Space, target: Space, *, wanted: bool) -> tuple[list[Id], F32, Integers, F32]:
    """Return ids and vectors of the source, and, if `wanted`, rows and vectors of those that have the target, too."""
    ids: list[Id] = []
    both: list[int] = []
    old, new = _Growing(source.dim), _Growing(target.dim)
    names = [source.name, target.name] if wanted else [source.name]
    for record in collection.scan(vectors=names):
        vector = record.vectors.get(source.name)
        if vector is None:
            continue
        if wanted and target.name in record.vectors:
            both.append(len(ids))
            new.add(record.vectors[target.name])
        ids.append(record.id)
        old.add(vector)
    return ids, _ready(old.rows(), source), np.array(both, np.int64), _ready(new.rows(), target)


class _Growing:
    """Rows that come one by one, kept in chunks."""

    def __init__(self, dim: int) -> None:
        self._full: list[F32] = []
        self._chunk = np.empty((_CHUNK, dim), np.float32)
        self._count = 0

    def add(self, row: npt.NDArray[Any]) -> None:
        if self._count == _CHUNK:
            self._full.append(self._chunk)
            self._chunk, self._count = np.empty_like(self._chunk), 0
        self._chunk[self._count] = row
        self._count += 1

    def rows(self) -> F32:
        return np.concatenate([*self._full, self._chunk[: self._count]])


def _ready(rows: F32, space: Space) -> F32:
    """Return rows at unit length where the space is one of directions, read-only."""
    made = np.array(rows, np.float32, order="C")
    if space.metric == "cosine":
        made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
    made.flags.writeable = False
    return made


def _vectors(given: Any, space: Space, where: str) -> F32:
    return _ready(as_matrix(given, space.dim, metric=space.metric, where=where), space)


# --- pairs ------------------------------------------------------------------------------------------------


def _given(
    pairs: Any, source: Space, target: Space, gallery: F32, rows: Mapping[Id, int]
) -> tuple[F32, F32, Integers, tuple[Id, ...]]:
    if not isinstance(pairs, (tuple, list)) or len(pairs) != 2:
        raise ArgumentError(f"pairs are {type(pairs).__name__}, expected (ids, Y) or (X, Y)")
    Y = _vectors(pairs[1], target, f"pairs: vectors of space {target.name!r}")
    if np.ndim(pairs[0]) == 2:
        X, places, names = _vectors(pairs[0], source, f"pairs: vectors of space {source.name!r}"), None, ()
    else:
        ids = pairs[0].tolist() if isinstance(pairs[0], np.ndarray) else list(pairs[0])
        places, names = np.array([_row_of(id, rows, source) for id in ids], np.int64), tuple(ids)
        X = gallery[places] if len(places) else gallery[:0]
    if len(X) != len(Y):
        raise ArgumentError(f"pairs hold {len(X)} records and {len(Y)} vectors of {target.name!r}, expected as many")
    return X, Y, np.full(len(X), -1, np.int64) if places is None else places, names


def _row_of(id: Id, rows: Mapping[Id, int], source: Space) -> int:
    found = rows.get(id)
    if found is None:
        raise VectorMissingError(
            f"pairs name {id!r}, which is no record with a vector in space {source.name!r}",
            hint="Pairs are records that both models have embedded.",
        )
    return found


def _groups(X: F32, Y: F32, given: Sequence[Hashable] | None) -> Integers:
    """Return the given groups joined with near-duplicates, these among the first pairs only."""
    some = min(len(X), MOST_COMPARED)
    near = np.arange(len(X))
    near[:some] = near_duplicates(X[:some], Y[:some])
    near[some:] += some
    return near if given is None else joined(near, list(given))


# --- queries ----------------------------------------------------------------------------------------------


def _with_questions(
    made: Material, questions: QuerySet | None, bank: QuerySet | None, rows: Mapping[Id, int]
) -> Material:
    notes: list[str] = []
    asked = None if questions is None else _questions(made, questions, rows, "queries", notes)
    kept = None if bank is None else _questions(made, bank, rows, "bank", notes)
    if asked is None:
        notes.append("no queries were given: documents stand in for them, and the verdict is provisional")
    elif asked.new is None:
        raise ArgumentError(
            "queries have no vectors of the new model, which is what is to be judged",
            hint="vecdb.QuerySet(new=..., old=..., relevant=...); what else is missing is skipped.",
        )
    return replace(made, questions=asked, bank=kept, notes=tuple(notes))


def _questions(
    made: Material, given: QuerySet, rows: Mapping[Id, int], what: str, notes: list[str]
) -> Questions | None:
    old = None if given.old is None else _vectors(given.old, made.source, f"{what}: old")
    new = None if given.new is None else _vectors(given.new, made.target, f"{what}: new")
    judged = None if given.relevant is None else _judged(given.relevant, rows, what, notes)
    sizes = {
        name: size
        for name, size in (
            ("old", None if old is None else len(old)),
            ("new", None if new is None else len(new)),
            ("relevant", None if judged is None else judged.queries),
            ("groups", None if given.groups is None else len(given.groups)),
        )
        if size is not None
    }
    if len(set(sizes.values())) > 1:
        raise ArgumentError(f"{what} have {sizes}, expected as many of each")
    if (old is None and new is None) or not next(iter(sizes.values())):
        return None
    missing = [name for name in ("old", "new", "relevant") if name not in sizes]
    if missing and what == "queries":
        notes.append(f"queries without {' and '.join(missing)}: {_LACKS[missing[0]]}")
    vectors = new if new is not None else old
    assert vectors is not None
    return Questions(old, new, judged, _clusters(vectors, judged, given.groups))


_LACKS = {
    "old": "what staying is worth was not measured",
    "new": "what the new model is worth was not measured",
    "relevant": "the new model's own nearest records stand in for answers",
}


def _judged(relevant: Sequence[Any], rows: Mapping[Id, int], what: str, notes: list[str]) -> Judged:
    dropped: list[Id] = []
    entries = [dict(_rows_of(entry, rows, dropped)) for entry in relevant]
    if dropped and len(dropped) >= sum(len(entry) for entry in entries) + len(dropped):
        raise RecordMissingError(
            f"none of the records that {what} name as relevant has an old vector; the first is {dropped[0]!r}",
            hint="relevant holds ids of the collection: one for each query, a list, or a mapping from id to grade.",
        )
    if dropped:
        notes.append(f"{len(dropped)} relevant records of {what} have no old vector and were left out")
    return Judged.of(entries)


def _rows_of(entry: Any, rows: Mapping[Id, int], dropped: list[Id]) -> Iterator[tuple[int, float]]:
    if entry is None:
        return
    if isinstance(entry, Mapping):
        graded = list(entry.items())
    else:
        several = [entry] if isinstance(entry, str) or np.ndim(entry) == 0 else entry
        graded = [(id, 1.0) for id in several]
    for id, grade in graded:
        key = id.item() if isinstance(id, np.generic) else id
        if key in rows:
            yield rows[key], float(grade)
        else:
            dropped.append(key)


def _clusters(vectors: F32, judged: Judged | None, given: Sequence[Any] | None) -> Integers:
    """Return queries that belong together: those said so, those with one first answer, those nearly the same."""
    groupings: list[Any] = [near_duplicates(vectors) if len(vectors) <= MOST_COMPARED else np.arange(len(vectors))]
    if given is not None:
        groupings.append(list(given))
    if judged is not None and judged.count:
        first = judged.rows[np.minimum(judged.starts[:-1], judged.count - 1)]
        groupings.append([int(row) if known else None for row, known in zip(first, judged.answered, strict=True)])
    return joined(*groupings)
