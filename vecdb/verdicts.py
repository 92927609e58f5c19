"""The words of judging models and answers: what is given to a plan, what a doctor finds, what filters are.

Plain values, like those of `types`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vecdb.types import Id

__all__ = ["CorrectionInfo", "Diagnosis", "FilterInfo", "JointSpace", "QuerySet"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Whether a space seems to hold vectors of more than one model.

    Attributes
    ----------
    space : str
    vectors : int
    models : int or None
        How many models it seems to hold; None: it cannot be told.
    stretches : tuple of (int, int, id, id)
        In order of age, what looks like one model: the number of the model (from 0), how many vectors, the first and
        the last record.
    mixed : tuple of int
        Sizes of the parts where vectors of two models alternate, else empty.
    note : str
    """

    space: str
    vectors: int
    models: int | None
    stretches: tuple[tuple[int, int, Id, Id], ...]
    mixed: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class FilterInfo:
    """One stored relevance filter of a collection as this process sees it.

    Attributes
    ----------
    name : str
    space : str
        The space whose queries it judges.
    kind : str
        Registered name of its type.
    params : dict
    threshold : float or None
        Hits of at least this relevance are kept; None where it cannot be used here.
    revision : int
        How often it was fitted, `refit_relevance` included.
    seed : int
    pool : int
        Best candidates of each query that it was fitted on.
    queries, positives, missed : int
        Calibration queries, relevant records among the candidates, and relevant ones that are no candidates.
    correction : str or None
        The score correction that it was fitted with; searches have to use the same.
    report : dict
        What was measured on queries that the fit has not seen, each value with ``low`` and ``high``.
    stale : bool
        Whether searches refuse it: what answers them is not what it was fitted on; `reason` says why.
    available : bool
        Whether it can be used here; if not, `reason` says why.
    reason : str or None
    created : float
        Seconds since 1970.
    provided_by : str
        What provided its type when it was fitted.
    bytes : int
    """

    name: str
    space: str
    kind: str
    params: Mapping[str, Any]
    threshold: float | None
    revision: int
    seed: int
    pool: int
    queries: int
    positives: int
    missed: int
    correction: str | None
    report: Mapping[str, Any]
    stale: bool
    available: bool
    reason: str | None
    created: float
    provided_by: str
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class QuerySet:
    """Queries as two models embed them, and what answers them; whatever is missing is skipped, and said.

    Attributes
    ----------
    old, new : array_like of shapes (q, d) and (q, e), or None
        The same queries by the old and by the new model.
    relevant : sequence, or None
        For each query the id of the record that answers it, a list of ids, or a mapping from id to grade (above 0).
    groups : sequence of hashables, or None
        Queries that belong together (one user, one source): they are resampled together.
    """

    old: Any = None
    new: Any = None
    relevant: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None


@dataclass(frozen=True, slots=True)
class CorrectionInfo:
    """One stored correction of scores.

    Attributes
    ----------
    name : str
    space : str
        In which its queries are asked.
    kind : str
    params : dict
    seed : int
    bank, gallery, own : int
        Queries of the bank, stored rows that it was compared with beside, and known answers that were left out.
    rows : int
        Rows whose numbers are stored; those of others are computed when they are searched.
    quality : dict
        What was measured of it.
    created : float
        Seconds since 1970.
    bytes : int
    """

    name: str
    space: str
    kind: str
    params: dict[str, Any]
    seed: int
    bank: int
    gallery: int
    own: int
    rows: int
    quality: dict[str, Any]
    created: float
    bytes: int


@dataclass(frozen=True, slots=True)
class JointSpace:
    """A joint space of a collection.

    Attributes
    ----------
    name : str
    old, new : str
        Spaces that its rows are made from.
    transform : str
    dim : int
        Columns of a row: those of the transform, and one.
    rows : int
        Records that have one.
    waiting : int
        Records that have a vector in either space and no row yet. While there are any, searches go the long way;
        `add_joint_space` with the same arguments goes on.
    """

    name: str
    old: str
    new: str
    transform: str
    dim: int
    rows: int
    waiting: int
