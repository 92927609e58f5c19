"""`identity`, `pad` and `truncate`: maps that copy columns and learn nothing; `truncate` is Matryoshka truncation.

Kusupati et al., "Matryoshka Representation Learning" (NeurIPS 2022), section 3: the first columns of such a model are
an embedding by themselves. No pair is needed, and none is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.contracts import Affine, FitData, Param, State, TransformCapabilities, state_value
from vecdb.contracts.transform import Direction, Isometry, Width
from vecdb.errors import CorruptionError, FitError
from vecdb.transforms.pairs import Rows32, checked_rows, go_on
from vecdb.types import MAX_DIM

__all__ = ["Columns", "ColumnsType", "identity_type", "pad_type", "truncate_type"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Copies the columns that both widths have; the others are zero."""

    source_dim: int
    target_dim: int

    @property
    def direction(self) -> Direction:
        return "both"

    @property
    def isometry(self) -> Isometry:
        if self.source_dim > self.target_dim:
            return "none"
        return "exact" if self.source_dim == self.target_dim else "semi"

    @property
    def lipschitz(self) -> float:
        return 1.0

    def apply(self, vectors: Rows32) -> Rows32:
        rows = checked_rows(vectors, self.source_dim)
        mapped = np.zeros((len(rows), self.target_dim), np.float32)
        width = min(self.source_dim, self.target_dim)
        mapped[:, :width] = rows[:, :width]
        return mapped

    def affine(self) -> Affine:
        return Affine(np.eye(self.source_dim, self.target_dim), np.zeros(self.target_dim))

    def inverse(self) -> Columns | None:
        return self if self.source_dim == self.target_dim else None

    def companion(self) -> None:
        return None

    def uncertainty(self, vectors: Rows32) -> None:
        return None

    def state(self) -> State:
        return {"source_dim": self.source_dim, "target_dim": self.target_dim}


@dataclass(frozen=True, slots=True)
class ColumnsType:
    """One of the three kinds: they differ in the widths that they are for."""

    name: str
    capabilities: TransformCapabilities
    version: int = 1
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def fit(self, data: FitData, params: Mapping[str, Any]) -> Columns:
        go_on(data, 0, 1)
        source, target = data.source.shape[1], data.target.shape[1]
        if _width(source, target) not in self.capabilities.widths:
            raise FitError(
                f"{self.name} from {source} to {target} columns; it is for a target that is"
                f" {' or '.join(sorted(self.capabilities.widths))}",
                hint="Choose among identity, pad and truncate by the widths of the spaces.",
            )
        return Columns(source, target)

    def load(self, state: State) -> Columns:
        made = Columns(state_value(state, "source_dim", int), state_value(state, "target_dim", int))
        for name in ("source_dim", "target_dim"):
            if not 1 <= getattr(made, name) <= MAX_DIM:
                raise CorruptionError(f"{name} of a stored state is out of range", what="state", where=name)
        if _width(made.source_dim, made.target_dim) not in self.capabilities.widths:
            raise CorruptionError(f"a stored {self.name} has other widths", what="state", where="target_dim")
        return made


def _width(source: int, target: int) -> Width:
    return "equal" if source == target else "wider" if target > source else "narrower"


def _able(*widths: Width, isometry: Isometry, invertible: bool = False) -> TransformCapabilities:
    return TransformCapabilities(
        requires=frozenset(),
        min_pairs=0,
        widths=frozenset(widths),
        isometry=isometry,
        affine=True,
        invertible=invertible,
        row_wise=True,
        deterministic=True,
    )


def identity_type() -> ColumnsType:
    """Return the kind for two spaces of one width that are the same."""
    return ColumnsType("identity", _able("equal", isometry="exact", invertible=True))


def pad_type() -> ColumnsType:
    """Return the kind that puts zeros behind a vector: ``[x; 0]``."""
    return ColumnsType("pad", _able("equal", "wider", isometry="semi", invertible=True))


def truncate_type() -> ColumnsType:
    """Return the kind that keeps the first columns: ``x[:e]``."""
    return ColumnsType("truncate", _able("equal", "narrower", isometry="none", invertible=True))
