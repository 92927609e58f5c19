"""Pairs into what maps are fitted on, what chooses, what calibrates and what judges; again for each split.

Invariant: no group is in two parts, and, where there are pairs enough, no answer of a query that judges is a pair that
a map was fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Pairs, Transform
from vecdb.contracts.transform import Role
from vecdb.engine import transformborder as border
from vecdb.evaluation import split
from vecdb.registry import Provided
from vecdb.types import CancelCheck, Space
from vecdb.upgrade.material import Material

__all__ = ["Arm", "Part", "fit_arm", "part_of"]

F32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

REFERENCE = 256
"""Rows that a stored map keeps to calibrate scores by."""
STORED = 8_000
"""Old vectors without partners that a fit may learn from."""
_VALIDATION, _TEST = 0.12, 0.12
_HELD = 0.5
"""Of the pairs: more answers than this are not kept out of the fits."""


@dataclass(frozen=True, slots=True, order=True)
class Arm:
    """A way to bridge: a kind of map, and what it maps."""

    kind: str
    role: Role

    def __str__(self) -> str:
        return f"{self.kind} ({'queries' if self.role == 'query' else 'records'} mapped)"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One split of the pairs: rows of `Material.X`.

    Attributes
    ----------
    fit, validation, reference, test : ndarray of int64
    seed : int
    """

    fit: Integers
    validation: Integers
    reference: Integers
    test: Integers
    seed: int

    def smaller(self, share: float) -> Part:
        """Return it with a part of the pairs to fit on."""
        return Part(
            self.fit[: max(int(len(self.fit) * share), 1)], self.validation, self.reference, self.test, self.seed
        )


def part_of(material: Material, seed: int) -> Part:
    """Return the split of the pairs for a seed."""
    count = len(material.X)
    reference = min(max(1.15 * REFERENCE / count, 0.02), 0.2)
    shares = {"fit": 1.0 - _VALIDATION - _TEST - reference, "validation": _VALIDATION, "reference": reference}
    parts = split(material.groups, {**shares, "test": _TEST}, seed=seed)
    held = holding_answers(material)
    if held is not None:
        parts = {name: rows[~held[rows]] for name, rows in parts.items()}
        parts["test"] = np.sort(np.concatenate([parts["test"], np.flatnonzero(held)]))
    order = np.random.default_rng(seed).permutation(len(parts["fit"]))
    return Part(parts["fit"][order], parts["validation"], parts["reference"], parts["test"], seed)


def holding_answers(material: Material) -> npt.NDArray[np.bool_] | None:
    """Return which pairs share a group with an answer; None where keeping them out would leave too little."""
    asked = material.questions
    if asked is None or asked.judged is None:
        return None
    answers = np.isin(material.places, asked.judged.rows) & (material.places >= 0)
    held = np.isin(material.groups, material.groups[answers])
    return held if held.any() and held.mean() <= _HELD else None


def spaces_of(material: Material, role: Role) -> tuple[Space, Space]:
    """Return what a map for this role leads from and to: queries of the new model go to the old one."""
    pair = material.source, material.target
    return pair if role == "gallery" else (pair[1], pair[0])


def fit_arm(
    material: Material, part: Part, arm: Arm, provided: Provided, params: Mapping[str, Any], cancel: CancelCheck
) -> Transform:
    """Fit the map of an arm on one split.

    Raises
    ------
    ParameterError, FitError, CancelledError, PluginError, PluginContractError
    """
    sides = (material.X, material.Y) if arm.role == "gallery" else (material.Y, material.X)
    source, target = spaces_of(material, arm.role)
    bank = material.bank
    kept = [_lent(side[part.validation]) for side in sides]
    X, Y = (_lent(side[part.fit]) for side in sides)
    data = FitData(
        source,
        target,
        X,
        Y,
        arm.role,
        np.random.default_rng(part.seed),
        queries=None if bank is None else bank.new,
        queries_across=None if bank is None or bank.new is None else bank.old,
        groups=_lent(material.groups[part.fit]),
        validation=Pairs(kept[0], kept[1], None, _lent(material.groups[part.validation])) if len(kept[0]) else None,
        stored=_stored(material, part),
        cancel=cancel,
    )
    return border.fit(provided, data, params)


def _stored(material: Material, part: Part) -> F32 | None:
    """Return old vectors of records whose new ones no part but the judging one knows, as many as a fit may read."""
    places = material.places[np.concatenate([part.fit, part.validation, part.reference])]
    others = np.setdiff1d(np.arange(len(material.gallery)), places[places >= 0])
    if not len(others):
        return None
    if len(others) > STORED:
        others = np.sort(np.random.default_rng(part.seed).choice(others, STORED, replace=False))
    found: F32 = _lent(material.gallery[others])
    return found


def _lent(rows: npt.NDArray[Any]) -> Any:
    lent = np.ascontiguousarray(rows)
    if lent.flags.writeable:
        lent.flags.writeable = False
    return lent
