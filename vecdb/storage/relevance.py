"""What the catalog says of stored relevance filters, and how their blobs are read. Values only.

A filter is one set of blobs: its state, the queries that it was calibrated on, and what was judged of them. A set is
written and named in one commit, never changed, and removed in the commit that stops naming it; a filter that is fitted
again gets a new set and keeps its name. Byte tables: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError
from vecdb.storage.blobs import BlobLine, read_blob
from vecdb.storage.format import stored_numbers
from vecdb.storage.idkeys import id_value
from vecdb.storage.states import unpack_state
from vecdb.storage.tx import Tx
from vecdb.types import Id

F32 = npt.NDArray[np.float32]
Basis = tuple[tuple[int, ...], ...]

STATE: Final = "state"
QUERIES: Final = "queries"
JUDGED: Final = "judged"
_BLOBS: Final = (STATE, QUERIES, JUDGED)


@dataclass(frozen=True, slots=True)
class FilterEntry:
    """A stored relevance filter in the catalog.

    Attributes
    ----------
    set : int
        Number of its blobs, never reused.
    name : str
        Unique in its collection.
    space : int
        Number of the space whose queries it judges.
    kind : str
        Registered name of its type.
    version : int
        Of the type's stored state.
    revision : int
        How often it was fitted, this time included.
    seed : int
    pool : int
        Candidates of each query that it was fitted on.
    queries, positives, missed : int
        Calibration queries, relevant records in their pools, and those that no pool holds.
    correction : int
        Set of the score correction that the scores were made with, 0 for none.
    asked, width : int
        The space that the calibration queries are vectors of, and their width. A migration that is finished leaves a
        filter to the new space; its queries are still those of the old one, which is gone.
    owner : str
        The distribution that provided the type when it was fitted; for messages only.
    digest : str
        `vecdb.contracts.state_digest` of the state.
    created : float
        Seconds since 1970.
    basis : tuple of tuple of int
        The classes of vectors that answered: each the number of a space, and the sets of the transforms that lead
        there.
    params, report : mapping
        Plain values: parameters, and what was measured on queries that were kept back.
    lines : tuple of BlobLine
    """

    set: int
    name: str
    space: int
    kind: str
    version: int
    revision: int = 1
    seed: int = 0
    pool: int = 0
    queries: int = 0
    positives: int = 0
    missed: int = 0
    correction: int = 0
    asked: int = 0
    width: int = 0
    owner: str = ""
    digest: str = ""
    created: float = 0.0
    basis: Basis = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[BlobLine, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Judgements:
    """What is known of the calibration queries.

    Attributes
    ----------
    relevant : tuple of tuple of ids, or None
        Of each query; None: nothing was judged.
    ignore : tuple of tuple of ids
        Neither relevant nor not.
    negatives : tuple of tuple of ids, or None
        Not relevant; None: every other candidate counts as not relevant.
    groups : ndarray of int64, shape (q,)
        Queries that belong together.
    """

    relevant: tuple[tuple[Id, ...], ...] | None
    ignore: tuple[tuple[Id, ...], ...]
    negatives: tuple[tuple[Id, ...], ...] | None
    groups: npt.NDArray[np.int64]


# --- in the catalog ---------------------------------------------------------------------------------------

_NUMBERS: Final = (
    "set",
    "space",
    "version",
    "revision",
    "seed",
    "pool",
    "queries",
    "positives",
    "missed",
    "correction",
    "asked",
    "width",
)
_TEXTS: Final = ("name", "kind", "owner", "digest")


def filter_to_plain(entry: FilterEntry) -> list[Any]:
    numbers, texts = ([getattr(entry, name) for name in names] for names in (_NUMBERS, _TEXTS))
    lines = [[line.name, line.length] for line in entry.lines]
    facts = [dict(entry.params), dict(entry.report)]
    return [numbers, texts, entry.created, [list(each) for each in entry.basis], facts, lines]


def filter_from_plain(plain: Any) -> FilterEntry:
    """Invert `filter_to_plain`; a wrong shape raises what the catalog turns into `CorruptionError`."""
    numbers, texts, created, basis, facts, lines = plain
    named: dict[str, Any] = dict(zip(_NUMBERS, stored_numbers(numbers, "catalog", len(_NUMBERS)), strict=True))
    named |= dict(zip(_TEXTS, _typed(texts, str, len(_TEXTS)), strict=True))
    params, report = _typed(facts, dict, 2)
    sound = type(created) is float and math.isfinite(created) and type(basis) is type(lines) is list
    if not sound or len(lines) > len(_BLOBS):
        raise ValueError(f"an impossible relevance filter {named['name']!r}")
    known = tuple(BlobLine(_blob(blob), *stored_numbers([length], "catalog")) for blob, length in lines)
    classes = tuple(tuple(stored_numbers(each, "catalog")) for each in basis)
    return FilterEntry(**named, created=created, basis=classes, params=params, report=report, lines=known)


def _typed(values: Any, kind: type, count: int) -> list[Any]:
    if type(values) is not list or len(values) != count or any(type(value) is not kind for value in values):
        raise TypeError(f"a relevance filter without its {count} {kind.__name__}s")
    return values


def _blob(name: Any) -> str:
    if name not in _BLOBS:
        raise ValueError(f"a relevance filter with a blob {name!r}")
    return str(name)


# --- reading ----------------------------------------------------------------------------------------------


def read_filter_state(tx: Tx, entry: FilterEntry) -> dict[str, Any]:
    """Return the stored state, its checksums checked; whoever loads it compares `FilterEntry.digest`.

    Raises
    ------
    CorruptionError
    """
    return unpack_state(_read(tx, entry, STATE), f"state of relevance filter {entry.name!r}")


def read_filter_queries(tx: Tx, entry: FilterEntry) -> F32:
    """Return the calibration queries, shape (q, width).

    Raises
    ------
    CorruptionError
    """
    data = _read(tx, entry, QUERIES)
    if len(data) != 4 * entry.width * entry.queries:
        raise _damaged(entry, "calibration queries of a wrong length")
    rows = np.frombuffer(data, "<f4").reshape(entry.queries, entry.width).astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        raise _damaged(entry, "calibration queries that are not finite")
    return rows


def read_judgements(tx: Tx, entry: FilterEntry) -> Judgements:
    """Return what was judged of the calibration queries.

    Raises
    ------
    CorruptionError
    """
    stored = unpack_state(_read(tx, entry, JUDGED), f"judgements of relevance filter {entry.name!r}")
    groups = stored.get("groups")
    if not isinstance(groups, np.ndarray) or groups.dtype != np.int64 or groups.shape != (entry.queries,):
        raise _damaged(entry, "judgements without groups")
    relevant, ignore, negatives = (_ids(entry, stored.get(name)) for name in ("relevant", "ignore", "negatives"))
    if ignore is None:
        raise _damaged(entry, "judgements that are not complete")
    return Judgements(relevant, ignore, negatives, groups)


def _ids(entry: FilterEntry, lists: Any) -> tuple[tuple[Id, ...], ...] | None:
    if lists is None:
        return None
    sound = type(lists) is list and len(lists) == entry.queries and all(type(each) is list for each in lists)
    if not sound or any(type(key) is not bytes for each in lists for key in each):
        raise _damaged(entry, "judgements that are no ids")
    return tuple(tuple(id_value(key) for key in each) for each in lists)


def _read(tx: Tx, entry: FilterEntry, name: str) -> bytes:
    for place, line in enumerate(entry.lines):
        if line.name == name:
            return read_blob(tx, entry.set, place, line)
    raise _damaged(entry, f"no blob {name!r}")


def _damaged(entry: FilterEntry, problem: str) -> CorruptionError:
    return CorruptionError(
        f"relevance filter {entry.name!r} has {problem}",
        hint="Fit it again with fit_relevance().",
        what="relevance filter",
        where=entry.name,
    )
