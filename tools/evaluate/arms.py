"""One kind, one pair of models, one draw: fit it, rank all old documents for the new queries, and measure.

Queries are mapped and asked over the old documents; or the old documents are mapped and asked by the new queries; or
both are mapped into a joint space. What is asked and stored is what the engine would ask and store: directions in
cosine spaces, inner products and row biases in joint ones.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.evaluate.corpus import F32, Model
from vecdb.contracts import FitData, settle_params
from vecdb.evaluation import Judged, Measures, csls_bias, measure, scores_between
from vecdb.transforms.auto import candidates_of
from vecdb.types import Metric

__all__ = ["Arm", "Once", "Ranked", "arms_for", "ranked", "remembering", "stay_and_reembed"]

_BLOCK = 256
"""Queries that are scored at once: 37 MB for 36,000 documents."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A kind with settings, and the side that it maps."""

    name: str
    kind: str
    role: str
    params: dict[str, Any]
    labels: bool = False


@dataclass(frozen=True, slots=True)
class Ranked:
    """What one fit is worth: for each test query, alone and with hubness correction; and the seconds of the fit."""

    measures: Measures
    corrected: Measures
    seconds: float
    facts: dict[str, Any]


_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "procrustes": {
        "procrustes, centred": {"scale": "none", "mean": "keep"},
        "procrustes": {},
    },
    "ridge": {"ridge, plain": {"restore": "none", "mean": "keep"}, "ridge": {}},
    "bt2": {
        "bt2": {},
        "bt2, learned, 32 columns": {"fit": "learned", "columns": 32},
    },
}
"""Kinds that are tried in several ways; the first of two is the default of other tools."""


def arms_for(registry: Any, kinds: list[str] | None = None) -> list[Arm]:
    """Return the arms of every kind that is fitted on pairs, or of those named, each for the sides it can map."""
    found = []
    for name in sorted(registry.names("transform"), key=lambda each: each == "auto"):  # of what others have fitted
        able = registry.find("transform", name).thing.capabilities
        if "pairs" not in able.requires or (kinds is not None and name not in kinds):
            continue
        roles = ["query"] if able.joint else sorted(able.directions, reverse=True)
        for words, params in _SETTINGS.get(name, {name: {}}).items():
            found += [Arm(words, name, role, params, labels=name == "oca") for role in roles]
    return found


@dataclass(frozen=True, slots=True)
class Once:
    """A kind that fits the same data once: what `auto` tries has been fitted for its own arm.

    Attributes
    ----------
    kind : TransformType
    made : dict
        Of one draw: fitted transforms by kind and role.
    """

    kind: Any
    made: dict[tuple[str, str], Any]

    @property
    def name(self) -> str:
        """The kind's own."""
        return str(self.kind.name)

    @property
    def parameters(self) -> Any:
        """The kind's own."""
        return self.kind.parameters

    def fit(self, data: FitData, params: dict[str, Any]) -> Any:
        """Return the transform of this draw for the data's role."""
        key = self.name, data.role
        if key not in self.made:
            self.made[key] = self.kind.fit(data, params)
        return self.made[key]


def remembering(thing: Any, arm: Arm, made: dict[tuple[str, str], Any]) -> Any:
    """Return a kind as it is to be fitted: once a draw with its usual parameters, `auto` from what others fitted."""
    if thing.name == "auto":
        return replace(thing, candidates=lambda data: [Once(each, made) for each in candidates_of(data)])
    return thing if arm.params or arm.labels else Once(thing, made)


def ranked(thing: Any, arm: Arm, data: FitData, models: tuple[Model, Model], asked: Any, judged: Judged) -> Ranked:
    """Fit an arm and ask its ranking of all old documents.

    Parameters
    ----------
    thing : TransformType
        Or what `remembering` makes of one.
    arm : Arm
    data : FitData
    models : tuple of Model
        The old one and the new one.
    asked : tools.evaluate.protocol.Queries
    judged : Judged
        Of the test queries.
    """
    old, new = models
    start = time.perf_counter()
    made = thing.fit(data, settle_params(arm.kind, thing.parameters, arm.params))
    seconds = time.perf_counter() - start
    queries = np.concatenate([new.queries[asked.test], new.queries[asked.fit]])
    rows, bias = old.docs, None
    metric: Metric = "cosine"
    if arm.role == "gallery":
        rows = made.apply(old.docs)
    else:
        queries = made.apply(queries)
    other = made.companion()
    if other is not None:
        rows, metric = other.apply(old.docs), "dot" if thing.name != "relative" else "cosine"
        bias = made.affine().row_bias if made.affine() is not None else None
    added = None if bias is None else bias(old.docs)
    return Ranked(
        *_both(queries, rows, len(asked.test), judged, metric, added), seconds, dict(getattr(made, "fit", {}))
    )


def _both(
    queries: F32, rows: F32, test: int, judged: Judged, metric: Metric, bias: F32 | None
) -> tuple[Measures, Measures]:
    """Return the measures of the first `test` queries, alone and with the bias of the others as a bank."""
    if bias is not None:  # one more column: the bank's scores have the bias, too
        ones = np.ones((len(queries), 1), np.float32)
        rows, queries = np.concatenate([rows, bias[:, None]], 1), np.concatenate([queries, ones], 1)
    correction = csls_bias(queries[test:], rows, metric)
    alone, corrected = np.ones(judged.count, np.int64), np.ones(judged.count, np.int64)
    for start in range(0, test, _BLOCK):
        block = slice(start, min(start + _BLOCK, test))
        table = scores_between(queries[block], rows, metric)
        _count(table, judged, block, alone)
        table += correction
        _count(table, judged, block, corrected)
    return measure(alone, judged), measure(corrected, judged)


def _count(table: F32, judged: Judged, block: slice, ranks: npt.NDArray[np.int64]) -> None:
    """Add to the ranks of a block's judgements the rows that come before them, ties by the smaller row."""
    first, last = judged.starts[[block.start, block.stop]]
    owners = judged.owners[first:last]
    for place in range(first, last):
        scores, row = table[owners[place - first] - block.start], judged.rows[place]
        ranks[place] += int((scores > scores[row]).sum()) + int((scores[:row] == scores[row]).sum())


def stay_and_reembed(models: tuple[Model, Model], asked: Any, judged: Judged) -> dict[str, Ranked]:
    """Return what keeping the old model, and embedding everything with the new one, are worth."""
    found = {}
    for name, model in zip(("stay", "re-embed"), models, strict=True):
        queries = np.concatenate([model.queries[asked.test], model.queries[asked.fit]])
        both = _both(queries, model.docs, len(asked.test), judged, "cosine", None)
        found[name] = Ranked(*both, 0.0, {})
    return found
