"""Fitting a transform on a collection's own records, or on given ones, ready to be stored.

What the fit sees, what it is chosen by and what is kept to calibrate scores are three parts of the pairs. What is said
of its quality was measured on the part that it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.contracts.params import settle_params
from vecdb.contracts.quiet import never, silent
from vecdb.contracts.transform import FitData, Pairs, Role, Transform
from vecdb.engine import transformborder as border
from vecdb.engine.names import check_count, check_option
from vecdb.engine.pairing import PairSet, Split, directed, split_pairs
from vecdb.engine.transforms import REFERENCE_ROWS, NewTransform
from vecdb.errors import ParameterError, PluginError
from vecdb.registry import PluginRegistry, Provided
from vecdb.types import CancelCheck, Metric, Progress, Space

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Wish:
    """What `Collection.fit_transform` was asked for.

    Attributes
    ----------
    source, target : Space
    kind : str
        "auto" is what plugins choose, else the kind of that name.
    direction : {"query", "gallery"}
    params : mapping
    name : str or None
    seed : int
    queries : array_like or None
        Unlabelled queries, in the space that is asked in.
    queries_across : array_like or None
        The first of them, in the other space.
    stored : ndarray of float32 or None
        Vectors without partners in the space of what is stored.
    progress, cancel : callable
    """

    source: Space
    target: Space
    kind: str = "ridge"
    direction: Role = "query"
    params: Mapping[str, Any] | None = None
    name: str | None = None
    seed: int = 0
    queries: Any = None
    queries_across: Any = None
    stored: F32 | None = None
    progress: Progress = silent
    cancel: CancelCheck = never


def fit_transform(wish: Wish, pairs: PairSet, registry: PluginRegistry) -> NewTransform:
    """Fit a transform and measure it on pairs that it has not seen.

    Raises
    ------
    UnknownNameError, ParameterError, FitError, CancelledError
    PluginError, PluginContractError
    """
    check_option("direction", wish.direction, ("query", "gallery"))
    seed = check_count("seed", wish.seed, 0)
    kind, params = _chosen(wish, len(pairs), registry)
    provided = registry.find("transform", kind)
    settled = settle_params(f"transform {provided.name!r}", provided.thing.parameters, params)
    split = split_pairs(pairs, reference=REFERENCE_ROWS, seed=seed)
    made = border.fit(provided, fit_data(wish, split), settled)
    reference = split.reference
    return NewTransform(
        wish.source,
        wish.target,
        provided,
        made,
        settled,
        seed,
        wish.name,
        (reference.source, reference.target),
        measured(provided, made, wish, reference) if split.held_out else {},
        {"pairs": "given" if not pairs.ids else "records", "held_out": split.held_out, "role": wish.direction},
        split.fit.ids,
        len(split.fit),
    )


def _chosen(wish: Wish, pairs: int, registry: PluginRegistry) -> tuple[str, Mapping[str, Any]]:
    """Return the kind and the parameters that are meant: for "auto", plugins are asked first."""
    params = dict(wish.params or {})
    answer = None
    if wish.kind == "auto":
        answer = registry.choose("vecdb_choose_transform", source=wish.source, target=wish.target, pairs=pairs)
    if answer is None:
        return wish.kind, params
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        raise PluginError(
            f"a plugin answered vecdb_choose_transform with {answer!r}, expected a kind and its parameters",
            hint="Name the kind of transform instead of 'auto'.",
        )
    return answer[0], {**answer[1], **params}


def fit_data(wish: Wish, split: Split) -> FitData:
    """Return what a plugin is given: rows of norm 1 in cosine spaces, read-only."""
    source, target = wish.source, wish.target
    kept, kept_in = split.validation, target if wish.direction == "query" else source
    queries, across = _queries(wish)
    return FitData(
        source,
        target,
        lent(split.fit.source, source.metric),
        lent(split.fit.target, target.metric),
        wish.direction,
        np.random.default_rng(wish.seed),
        queries=queries,
        validation=None if kept is None else Pairs(lent(kept.source, source.metric), lent(kept.target, target.metric)),
        queries_across=across,
        stored=None if wish.stored is None or not len(wish.stored) else lent(wish.stored, kept_in.metric),
        progress=wish.progress,
        cancel=wish.cancel,
    )


def _queries(wish: Wish) -> tuple[F32 | None, F32 | None]:
    """Return the queries in the space that is asked in, and as far as they are known in the other one."""
    asked, other = (wish.source, wish.target) if wish.direction == "query" else (wish.target, wish.source)
    found, across = (
        None if given is None else as_matrix(given, space.dim, metric=space.metric, where=f"queries in {space.name!r}")
        for given, space in ((wish.queries, asked), (wish.queries_across, other))
    )
    if across is not None and len(across) > (0 if found is None else len(found)):
        raise ParameterError(
            f"queries_across has {len(across)} rows, expected at most as many as queries"
            f" ({0 if found is None else len(found)})",
            hint="Row i of both is the same query; those that the other model has embedded come first.",
            name="queries_across",
            got=len(across),
        )
    return (
        None if found is None else lent(found, asked.metric),
        None if across is None else lent(across, other.metric),
    )


def lent(rows: F32, metric: Metric) -> F32:
    """Return rows as plugins see them: directed, and read-only."""
    shown = directed(rows, metric).view()
    shown.flags.writeable = False
    return shown


def measured(provided: Provided, made: Transform, wish: Wish, kept: PairSet) -> dict[str, float]:
    """Return what pairs that the fit has not seen say of a transform.

    ``matched`` is how often the mapped vector of a record is nearer to that record's own vector than to those of the
    others; it says nothing of real queries, whose answers are other records. Joint transforms are not measured.
    """
    if provided.thing.capabilities.joint or not len(kept):
        return {}
    mapped = border.apply(provided, made, directed(kept.source, wish.source.metric), wish.target.dim)
    one, other = directed(mapped, wish.target.metric), directed(kept.target, wish.target.metric)
    table = one.astype(np.float64) @ other.astype(np.float64).T
    if wish.target.metric == "l2":
        table -= 0.5 * (other.astype(np.float64) ** 2).sum(1)
    own = np.diagonal(table)
    return {"matched": float((table.argmax(1) == np.arange(len(table))).mean()), "own_score": float(own.mean())}
