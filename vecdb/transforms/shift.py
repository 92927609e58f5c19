"""`shift`: add the difference of the means, for fine-tuned continuations of one model.

QDC, "Exploiting Document-Query Drift Compensation" (CoLLAs 2025), section 4: a mean shift is what a continued training
leaves of a drift. Between models of different families it is worth nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.contracts import Affine, FitData, Param, State, TransformCapabilities, state_array
from vecdb.contracts.transform import Direction, Isometry
from vecdb.transforms.affine import load_direction
from vecdb.transforms.pairs import Rows32, checked_rows, fit_pairs
from vecdb.transforms.provenance import Facts, facts_of, load_facts

__all__ = ["ShiftMap", "ShiftType"]


@dataclass(frozen=True, slots=True, eq=False)
class ShiftMap:
    """``f(x) = x + delta``."""

    delta: Rows32
    direction: Direction
    fit: Facts

    @property
    def source_dim(self) -> int:
        return len(self.delta)

    @property
    def target_dim(self) -> int:
        return len(self.delta)

    @property
    def isometry(self) -> Isometry:
        return "none"

    @property
    def lipschitz(self) -> float:
        return 1.0

    def apply(self, vectors: Rows32) -> Rows32:
        return checked_rows(vectors, self.source_dim) + self.delta

    def affine(self) -> Affine:
        return Affine(np.eye(self.source_dim), self.delta.astype(np.float64))

    def inverse(self) -> ShiftMap:
        return ShiftMap(-self.delta, self.direction, self.fit)

    def companion(self) -> None:
        return None

    def uncertainty(self, vectors: Rows32) -> None:
        return None

    def state(self) -> State:
        return {"delta": self.delta, "direction": self.direction, "fit": dict(self.fit)}


@dataclass(frozen=True, slots=True)
class ShiftType:
    """The difference of the means of the pairs."""

    name: str = "shift"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(min_pairs=1, affine=True, invertible=True, row_wise=True, deterministic=True)
    )
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def fit(self, data: FitData, params: Mapping[str, Any]) -> ShiftMap:
        X, Y = fit_pairs(data, self.capabilities.min_pairs, owner=self.name)
        delta = (Y.mean(0) - X.mean(0)).astype(np.float32)
        delta.flags.writeable = False
        return ShiftMap(delta, data.role, facts_of(data))

    def load(self, state: State) -> ShiftMap:
        return ShiftMap(state_array(state, "delta", np.float32, (None,)), load_direction(state), load_facts(state))
