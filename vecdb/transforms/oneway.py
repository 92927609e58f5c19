"""What maps that are built around an affine one have in common: they lead one way, and know no error of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vecdb.contracts.transform import Direction, Isometry
from vecdb.transforms.affine import AffineMap
from vecdb.transforms.pairs import Rows32

__all__ = ["OneWay"]


class OneWay:
    """A map into the space that its affine part, `inner`, leads to."""

    __slots__ = ()

    inner: AffineMap

    @property
    def target_dim(self) -> int:
        return self.inner.target_dim

    @property
    def direction(self) -> Direction:
        return self.inner.direction

    @property
    def isometry(self) -> Isometry:
        return "none"

    @property
    def fit(self) -> Mapping[str, Any]:
        """What the fit says of itself."""
        return self.inner.fit

    def inverse(self) -> None:
        return None

    def companion(self) -> None:
        return None

    def uncertainty(self, vectors: Rows32) -> None:
        return None
