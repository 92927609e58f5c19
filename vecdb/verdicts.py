"""The words of judging models: what is given to a plan, what a doctor finds. Plain values, like those of `types`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vecdb.types import Id

__all__ = ["Diagnosis", "QuerySet"]


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
