"""`auto`: several kinds are fitted, and kept-back pairs choose.

Every candidate is fitted on the same data and judged by the same queries (`judge`). The candidates stand in an order of
preference, and one gives way only to another that is clearly better: what is known of them in general counts for as
much as what a few hundred kept-back pairs can say. The result is a map of the chosen kind, stored and applied as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.transforms.affine import AffineMap, load_affine
from vecdb.transforms.distill import DistillType
from vecdb.transforms.judge import best_of, judge_of
from vecdb.transforms.pairs import go_on
from vecdb.transforms.procrustes import WIDTHS, ProcrustesType
from vecdb.transforms.ridge import RidgeType

__all__ = ["AutoType", "candidates_of"]

_FEW = 2
"""Pairs for each source column; with fewer, and none kept back, only a rotation is determined well enough."""


class _Kind(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Param]: ...
    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap: ...


def candidates_of(data: FitData) -> list[_Kind]:
    """Return the kinds among which `auto` chooses, in their order of preference."""
    usual: list[_Kind] = [RidgeType(), ProcrustesType()]
    return [DistillType(), *usual] if data.role == "query" else usual


@dataclass(frozen=True, slots=True)
class AutoType:
    """The best of `distill`, `ridge` and `procrustes` for queries, of `ridge` and `procrustes` for stored vectors."""

    name: str = "auto"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(min_pairs=3, widths=WIDTHS, affine=True, row_wise=True, deterministic=True)
    )
    parameters: Mapping[str, Param] = field(default_factory=dict)
    candidates: Callable[[FitData], list[_Kind]] = candidates_of

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        judge, candidates = judge_of(data), self.candidates(data)
        if judge is None:
            few = len(data.source) < _FEW * data.source.shape[1]
            return _fitted(candidates[-1 if few else 0], data)
        made = []
        for place, kind in enumerate(candidates):
            go_on(data, place, len(candidates))
            made.append(_fitted(kind, _quiet(data)))
        chosen, score = best_of(judge, made, lambda each: each.apply(np.ascontiguousarray(judge.rows)))
        return replace(chosen, fit={**chosen.fit, "judged": score})

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def _quiet(data: FitData) -> FitData:
    """Return the data with a progress of their own to nobody: steps of one candidate say nothing of the whole."""
    return replace(data, progress=lambda done, total: None)


def _fitted(kind: _Kind, data: FitData) -> AffineMap:
    made = kind.fit(data, {name: param.default for name, param in kind.parameters.items()})
    return replace(made, fit={**made.fit, "kind": kind.name})
