"""The words of vecdb as frozen values: spaces, records, hits, results. No I/O, no behaviour beyond access.

Everything here is plain data that can be pickled and compared. Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from vecdb.int8rows import stored_columns

if TYPE_CHECKING:
    from vecdb.explored import Group

__all__ = [
    "MAX_DIM",
    "MAX_ID_BYTES",
    "MAX_K",
    "MAX_METADATA_BYTES",
    "METRICS",
    "CancelCheck",
    "CheckReport",
    "Commit",
    "Hit",
    "HitColumns",
    "Hits",
    "HitsBatch",
    "Id",
    "IndexInfo",
    "Metric",
    "MigrationStatus",
    "Plan",
    "Progress",
    "Record",
    "RecordVersion",
    "Space",
    "TransformInfo",
    "Where",
    "WriteResult",
]

Id: TypeAlias = str | int
Metric: TypeAlias = Literal["cosine", "dot", "l2"]
Where: TypeAlias = Mapping[str, Any]
Progress: TypeAlias = Callable[["int", "int | None"], object]
"""Called as ``progress(done, total)``; `total` is None where it is not known."""
CancelCheck: TypeAlias = Callable[[], bool]
"""Asked between steps; a true answer stops the work with `CancelledError`."""

METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")
MAX_DIM = 65_536
MAX_ID_BYTES = 480
MAX_METADATA_BYTES = 1 << 20
MAX_K = 10_000


@dataclass(frozen=True, slots=True)
class Space:
    """One embedding model's output: every vector belongs to exactly one space.

    Attributes
    ----------
    name : str
    dim : int
        Width, 1 to 65,536.
    metric : {"cosine", "dot", "l2"}
    dtype : {"float32", "float16", "int8"}
        How vectors are stored: as given, rounded to float16, or as int8 with one step for each vector.
    model, revision : str
        Which model made the vectors; recorded, compared by people and tools.
    role : {"document", "query", "both"}
        What the stored vectors were embedded as; (model, role) is the unit of compatibility.
    id : int
        Number inside the file; never reused.
    """

    name: str
    dim: int
    metric: Metric = "cosine"
    dtype: Literal["float32", "float16", "int8"] = "float32"
    model: str = ""
    revision: str = ""
    role: Literal["document", "query", "both"] = "both"
    id: int = 0

    @property
    def returned(self) -> Literal["float32", "float16"]:
        """Element type of the vectors that `get`, `scan` and exports return: float32 for int8 spaces."""
        return "float16" if self.dtype == "float16" else "float32"

    @property
    def columns(self) -> int:
        """How many elements of `dtype` a stored vector takes: `dim`, more for int8, whose step stands there too."""
        return stored_columns(self.dim) if self.dtype == "int8" else self.dim


@dataclass(frozen=True, slots=True)
class Record:
    """A stored record as `get` and `scan` return it; arrays are copies that the caller owns.

    Attributes
    ----------
    id : str or int
    metadata : dict
    text : str or None
    version : int
        1 when first written, one more with each change.
    vectors : mapping of str to ndarray of shape (dim,)
        Only the spaces that were asked for and that the record has; in the space's stored dtype.
    spaces : tuple of str
        Every space in which the record has a vector.
    """

    id: Id
    metadata: dict[str, Any]
    text: str | None
    version: int
    vectors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)  # a mapping proxy cannot be pickled
    spaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. `score` is higher-is-better, `distance` lower-is-better (table in the README).

    `space` is the one whose vector answered, `origin` how the query got there: "native", "bridged:NAME" with the
    transforms of the path, "mapped:NAME" where the vector is an image that they made. `raw_score` is the score before
    it was brought on the scale of the whole list, or corrected; a corrected hit has the distance of its raw score.
    """

    id: Id
    score: float
    distance: float
    metadata: dict[str, Any] | None = None
    text: str | None = None
    space: str = ""
    origin: str = "native"
    relevance: float | None = None
    raw_score: float | None = None
    vectors: Mapping[str, npt.NDArray[Any]] | None = None


class Plan(Mapping[str, Any]):
    """How a search was answered: a mapping for programs, a readable line for people."""

    __slots__ = ("_facts",)

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)

    def __getitem__(self, key: str) -> Any:
        return self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return "Plan(" + ", ".join(f"{key}={value!r}" for key, value in self._facts.items()) + ")"

    def __str__(self) -> str:
        return "; ".join(f"{key}: {value}" for key, value in self._facts.items())


class HitColumns(NamedTuple):
    """Hits by column, as a search finds them; `Hits` makes `Hit` objects of them when they are looked at.

    Attributes
    ----------
    ids : list of str or int
    scores : ndarray of float32, shape (k,)
    nearest : float or None
        What the scores are subtracted from to get distances: 1 for cosine, 0 for dot and l2. None: the hits say it.
    space : str
    metadata, texts, vectors : list or None
        None where they were not asked for.
    origin : str
    marks : list of (space, origin) or None
        Of each hit, where they are not all of one space and origin.
    raws : ndarray of float32, shape (k,), or None
        Scores before calibration or correction; None: the scores.
    relevance : ndarray of float32, shape (k,), or None
        What a relevance filter says of each hit.
    measured : ndarray of float32, shape (k,), or None
        What distances are made of where it is not the scores.
    """

    ids: list[Id]
    scores: npt.NDArray[np.float32]
    nearest: float | None
    space: str = ""
    metadata: list[dict[str, Any]] | None = None
    texts: list[str | None] | None = None
    vectors: list[Mapping[str, npt.NDArray[Any]]] | None = None
    origin: str = "native"
    marks: list[tuple[str, str]] | None = None
    raws: npt.NDArray[np.float32] | None = None
    relevance: npt.NDArray[np.float32] | None = None
    measured: npt.NDArray[np.float32] | None = None

    @property
    def distances(self) -> npt.NDArray[np.float32]:
        """Lower is better, shape (k,)."""
        return np.float32(self.nearest or 0.0) - (self.scores if self.measured is None else self.measured)

    def hits(self) -> tuple[Hit, ...]:
        """Return the hits one by one."""
        nothing = [None] * len(self.ids)
        columns = (self.ids, self.scores.tolist(), self.distances.tolist(), self.metadata or nothing)
        marks = [(self.space, self.origin)] * len(self.ids) if self.marks is None else self.marks
        raws = columns[1] if self.raws is None else self.raws.tolist()
        judged = nothing if self.relevance is None else self.relevance.tolist()
        rest = (judged, self.texts or nothing, self.vectors or nothing, marks, raws)
        return tuple(
            Hit(id, score, distance, metadata, text, space, origin, sure, raw, vectors)
            for id, score, distance, metadata, sure, text, vectors, (space, origin), raw in zip(
                *columns, *rest, strict=True
            )
        )

    def take(self, places: Sequence[int]) -> HitColumns:
        """Return some of the hits, in this order."""
        chosen: dict[str, Any] = {}
        for name in ("ids", "metadata", "texts", "vectors", "marks"):
            column = getattr(self, name)
            chosen[name] = None if column is None else [column[place] for place in places]
        for name in ("scores", "raws", "relevance", "measured"):
            array = getattr(self, name)
            chosen[name] = None if array is None else array[list(places)]
        return self._replace(**chosen)


class Hits(Sequence[Hit]):
    """The answer to one query: a sequence of `Hit`, best first.

    Attributes
    ----------
    ids : list of str or int
    scores, distances : ndarray of float32, shape (k,)
    complete : bool
        False if fewer than ``min(k, matches)`` hits are returned; `reason` then says why.
    reason : str or None
    plan : Plan or None
        With ``explain=True``: what was done and what it cost.
    warnings : tuple of str
    dropped : int
        Hits that a relevance filter removed.
    groups : tuple of Group or None
        With `group_by`: the groups in the order of their best hits.
    seq : int
        The commit that was read.
    """

    __slots__ = (
        "_columns",
        "_distances",
        "_hits",
        "_warnings",
        "complete",
        "dropped",
        "groups",
        "ids",
        "plan",
        "reason",
        "scores",
        "seq",
    )

    def __init__(
        self,
        hits: Sequence[Hit] | HitColumns,
        *,
        seq: int,
        complete: bool = True,
        reason: str | None = None,
        plan: Plan | None = None,
        warnings: tuple[str, ...] | Callable[[], tuple[str, ...]] = (),
        dropped: int = 0,
    ) -> None:
        self._columns = hits if isinstance(hits, HitColumns) else _by_column(hits)
        self._hits: tuple[Hit, ...] | None = None if isinstance(hits, HitColumns) else tuple(hits)
        self._distances: npt.NDArray[np.float32] | None = None
        self.ids: list[Id] = list(self._columns.ids)  # copies: what a caller does to them must not reach the hits
        self.scores = self._columns.scores.copy()
        self.seq = seq
        self.complete = complete
        self.reason = reason
        self.plan = plan
        self._warnings = warnings
        self.dropped = dropped
        self.groups: tuple[Group, ...] | None = None

    @property
    def columns(self) -> HitColumns:
        """The hits by column; what is done to them is seen by the hits."""
        return self._columns

    @property
    def distances(self) -> npt.NDArray[np.float32]:
        """Lower is better: what belongs to the scores, made when it is first asked for."""
        if self._distances is None:
            given = self._hits is not None and self._columns.nearest is None
            own = [hit.distance for hit in self._hits or ()] if given else self._columns.distances
            self._distances = np.array(own, dtype=np.float32)
        return self._distances

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the caller should know of the query; found when it is first asked for."""
        if not isinstance(self._warnings, tuple):
            self._warnings = self._warnings()
        return self._warnings

    def judged(self, relevance: npt.NDArray[np.float32], kept: Sequence[int], dropped: int) -> Hits:
        """Return the hits at the places `kept`, each with its relevance; `dropped` more count as such."""
        if self._hits is not None and self._columns.nearest is None:
            some: Any = [replace(self._hits[place], relevance=float(relevance[place])) for place in kept]
        else:
            some = self._columns._replace(relevance=relevance).take(kept)
        found = Hits(some, seq=self.seq, complete=self.complete, reason=self.reason, plan=self.plan)
        found._warnings, found.dropped = self._warnings, self.dropped + dropped
        if self.groups is not None:
            left = (replace(each, ids=tuple(id for id in each.ids if id in found.ids)) for each in self.groups)
            found.groups = tuple(each for each in left if each.ids)
        return found

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        self._warnings = self.warnings  # what is pickled waits for nothing
        return None, {name: getattr(self, name) for name in self.__slots__}

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        if self._hits is None:
            self._hits = self._columns.hits()
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._columns.ids)

    def __repr__(self) -> str:
        shown = ", ".join(f"{id!r}: {score:.4f}" for id, score in zip(self.ids[:5], self.scores[:5], strict=True))
        more = f", ... {len(self) - 5} more" if len(self) > 5 else ""
        return f"<Hits {len(self)} [{shown}{more}]{'' if self.complete else ' incomplete: ' + str(self.reason)}>"


def _by_column(hits: Sequence[Hit]) -> HitColumns:
    """Return the columns that can be asked for as a whole."""
    return HitColumns([hit.id for hit in hits], np.array([hit.score for hit in hits], dtype=np.float32), None)


class HitsBatch(Sequence[Hits]):
    """The answers to several queries, in their order.

    Attributes
    ----------
    ids : list of lists
    scores, distances : ndarray of float32, shape (n, k)
        Padded with -inf (scores) and +inf (distances) where a query has fewer hits.
    counts, dropped : ndarray of int64, shape (n,)
    complete, seq, plan : as in `Hits`
    """

    __slots__ = ("_distances", "_rows", "complete", "counts", "ids", "plan", "scores", "seq")

    def __init__(self, rows: Sequence[Hits], *, k: int, seq: int, plan: Plan | None = None) -> None:
        self._rows = tuple(rows)
        self.ids: list[list[Id]] = [row.ids for row in self._rows]
        self.counts = np.array([len(row) for row in self._rows], dtype=np.int64)
        self.scores = np.full((len(self._rows), k), -np.inf, dtype=np.float32)
        self._distances: npt.NDArray[np.float32] | None = None
        for place, row in enumerate(self._rows):
            self.scores[place, : len(row)] = row.scores
        self.complete = all(row.complete for row in self._rows)
        self.seq = seq
        self.plan = plan

    @property
    def distances(self) -> npt.NDArray[np.float32]:
        """Lower is better: what belongs to the scores, made when it is first asked for."""
        if self._distances is None:
            found = np.full(self.scores.shape, np.inf, dtype=np.float32)
            for place, row in enumerate(self._rows):
                found[place, : len(row)] = row.distances
            self._distances = found
        return self._distances

    @property
    def dropped(self) -> npt.NDArray[np.int64]:
        """How many hits a relevance filter removed of each."""
        return np.array([row.dropped for row in self._rows], dtype=np.int64)

    @overload
    def __getitem__(self, index: int) -> Hits: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hits, ...]: ...
    def __getitem__(self, index: int | slice) -> Hits | tuple[Hits, ...]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<HitsBatch {len(self)} queries, {int(self.counts.sum())} hits>"


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """One index of a collection as this process sees it.

    Attributes
    ----------
    space, kind : str
        The space that it is over, and the registered name of its type.
    params : dict
        Every parameter of the type.
    seed : int
    available : bool
        Whether all of it can be used here; if not, `reason` says why and what it covers is scanned.
    reason : str or None
    provided_by : str
        Plugin and distribution that provide the type, or did when it was last built.
    coverage : float
        Share of the living vectors that searches find through it, 0 to 1; the others are scanned.
    parts : int
    bytes : int
        What it takes in the file.
    stats : dict
        What the index tells of itself, and what was measured: recall by effort, local dimension.
    automatic : bool
        Whether it was made without being asked for; `drop_index` takes it away for good.
    """

    space: str
    kind: str
    params: Mapping[str, Any]
    seed: int
    available: bool
    reason: str | None
    provided_by: str
    coverage: float
    parts: int
    bytes: int
    stats: Mapping[str, Any]
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class TransformInfo:
    """One stored transform of a collection as this process sees it.

    Attributes
    ----------
    name : str
    source, target : str
        Spaces it maps between: from the one that is asked in to the one that is stored for a map of queries, from
        stored vectors to the space that is asked in for a map of those.
    kind : str
        Registered name of its type.
    direction : {"query", "gallery", "both"}
    isometry : {"none", "semi", "exact"}
    affine : bool
        Whether it folds into a search.
    joint : bool
        Whether its result lies in a third space.
    lipschitz : float or None
    params : dict
    seed : int
    pairs, reference : int
        How many it was fitted on, and how many known in both spaces are kept to calibrate scores by.
    quality : dict
        What was measured of it; ``retention`` decides which path is taken.
    provenance : dict
        Where it comes from.
    created : float
        Seconds since 1970.
    available : bool
        Whether it can be used here; if not, `reason` says why.
    reason : str or None
    provided_by : str
        What provided its type when it was stored.
    bytes : int
    """

    name: str
    source: str
    target: str
    kind: str
    direction: Literal["query", "gallery", "both"]
    isometry: Literal["none", "semi", "exact"]
    affine: bool
    joint: bool
    lipschitz: float | None
    params: Mapping[str, Any]
    seed: int
    pairs: int
    reference: int
    quality: Mapping[str, Any]
    provenance: Mapping[str, Any]
    created: float
    available: bool
    reason: str | None
    provided_by: str
    bytes: int


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did: the commit's seq, and how many records were new or already there."""

    seq: int
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unverified: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """One line of the commit log."""

    seq: int
    time: float
    changes: tuple[str, ...]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """Where a migration stands, at one seq.

    Attributes
    ----------
    number : int
        Counted from 1 in each collection.
    source, target : str
        Names of the spaces.
    state : str
        "prepared", "bridging" (the random canary is embedded), "backfilling", "complete" (nothing waits), "rolling
        back", "finished" or "rolled back".
    paused : str
        Why it stands still; empty while it may go on.
    via, policy : str
    total : int
        Records that have, or wait for, a vector of the migration.
    done : int
        Vectors that it wrote.
    pending : int
        Records with a vector in the source space and none in the target space, those that failed included.
    failures : tuple of (id, reason)
        Records that could not be embedded so far.
    only_new : tuple of str or int
        Records with a vector in the target space alone: a rollback leaves them as they are, without an old vector.
    seconds : float
        Spent on embedding and writing.
    rate : float
        Records per second, 0.0 where nothing was done yet.
    remaining : float or None
        Seconds that the pending records will take at this rate; None where it is not known.
    measured : mapping of str to float
        What the canary showed.
    begun_seq : int
        The state that a rollback restores; readable with ``as_of=tag`` while the migration is active.
    tag : str
    began, ended : float
        Seconds since 1970; `ended` is 0.0 while it is active.
    seq : int
        The commit that was looked at.
    """

    number: int
    source: str
    target: str
    state: str
    paused: str
    via: str
    policy: str
    total: int
    done: int
    pending: int
    failures: tuple[tuple[Id, str], ...]
    only_new: tuple[Id, ...]
    seconds: float
    rate: float
    remaining: float | None
    measured: Mapping[str, float]
    begun_seq: int
    tag: str
    began: float
    ended: float
    seq: int

    @property
    def share(self) -> float:
        """Share of the records that have their new vector."""
        return 1.0 if not self.total else (self.total - self.pending) / self.total

    @property
    def active(self) -> bool:
        """Whether it is neither finished nor rolled back."""
        return self.state not in ("finished", "rolled back")


@dataclass(frozen=True, slots=True)
class RecordVersion:
    """One state of a record in its kept history; `record` is None where it was deleted."""

    seq: int
    record: Record | None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` proved. `problems` is empty for a sound file."""

    ok: bool
    problems: tuple[str, ...]
    counts: Mapping[str, int]
    seconds: float
