"""`ridge`: the linear map of least squared error, shrunk as far as retrieval on kept-back pairs asks for.

PRESS seeds a grid of 15 penalties (`ridgepath`), the kept-back pairs choose among them and among the ways to undo the
shrinkage (`restore`); the left-out residuals teach the map what its errors are (`errorhead`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.transforms.affine import AffineMap, Formula, load_affine
from vecdb.transforms.errorhead import ErrorHead, fit_head
from vecdb.transforms.judge import Judge, best_of, judge_of
from vecdb.transforms.pairs import Centred, Rows64, centred, fit_pairs, go_on
from vecdb.transforms.procrustes import WIDTHS
from vecdb.transforms.provenance import Facts
from vecdb.transforms.restore import MEAN, Finish, Restore, finished, finishes
from vecdb.transforms.ridgepath import RidgePath, ridge_path, seeded_grid

__all__ = ["PENALTY", "RESTORE", "RidgeChoice", "RidgeType", "choose_ridge", "head_of"]

Bend: TypeAlias = Callable[[RidgePath, float], Rows64]
_RESTORES: tuple[Restore, ...] = ("clip", "unit", "none", "global", "polar")
PENALTY = Param(
    "float",
    0.0,
    "Relative to the mean squared singular value; 0: chosen by retrieval on the kept-back pairs, by left-out error"
    " where there are none.",
    low=0.0,
    high=1e6,
)
RESTORE = Param(
    "str",
    "auto",
    "What undoes the shrinkage: one factor (global), one for each row (unit), the singular values cut at their median"
    " (clip) or all made 1 (polar), none; auto: chosen by retrieval on the kept-back pairs, clip where there are none.",
    choices=("auto", *_RESTORES),
)


@dataclass(frozen=True, slots=True)
class RidgeChoice:
    """A decomposition, the penalty and the finish that were chosen on it, and by which score (-1: by none)."""

    path: RidgePath
    penalty: float
    how: Finish
    judged: float
    bend: Bend

    def formula(self) -> Formula:
        """Return the map."""
        return finished(self.bend(self.path, self.penalty), self.path.pairs, self.how)

    def facts(self) -> Facts:
        """Return what was chosen, by name."""
        how = self.how
        return {"penalty": self.penalty, "restore": how.restore, "mean": how.mean, "judged": self.judged}


@dataclass(frozen=True, slots=True)
class RidgeType:
    """``y = (x - m_x) (A'A + penalty)^-1 A'B + m_y``, restored."""

    name: str = "ridge"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(min_pairs=3, widths=WIDTHS, affine=True, row_wise=True, deterministic=True)
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "penalty": PENALTY,
            "restore": RESTORE,
            "mean": MEAN,
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        found = choose_ridge(data, params, owner=self.name, least=self.capabilities.min_pairs)
        formula = found.formula()
        return AffineMap.of(formula, data, head=head_of(found, formula), chosen=found.facts())

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def choose_ridge(
    data: FitData, params: Mapping[str, Any], *, owner: str, least: int, bend: Bend = RidgePath.weights
) -> RidgeChoice:
    """Fit ridge regression and choose what `params` leave open: penalty first, then the finish.

    Parameters
    ----------
    data : FitData
    params : mapping
        With ``penalty``, ``restore`` and ``mean``.
    owner : str
        Name of the kind, for messages.
    least : int
        Fewest pairs.
    bend : callable, optional
        Returns the linear part for a path and a penalty; default: the regression itself.

    Raises
    ------
    FitError, NonFiniteError, CancelledError
    """
    pairs = centred(*fit_pairs(data, least, owner=owner))
    path = ridge_path(pairs)
    grid = np.array([params["penalty"]]) if params["penalty"] else seeded_grid(path)
    go_on(data, 1, 3)
    choices = finishes(data, params["restore"], params["mean"], "clip", _RESTORES)
    judge = judge_of(data)
    if judge is None:
        return RidgeChoice(path, float(grid[len(grid) // 2]), choices[0], -1.0, bend)
    penalty, how, score = _judged(partial(bend, path), path.pairs, grid.tolist(), choices, judge)
    go_on(data, 2, 3)
    return RidgeChoice(path, penalty, how, score, bend)


def _judged(
    part: Callable[[float], Rows64], pairs: Centred, penalties: list[float], choices: list[Finish], judge: Judge
) -> tuple[float, Finish, float]:
    """Choose the penalty under the usual finish, nearest to the seed first, then the finish under that penalty."""

    def mapped(penalty: float, how: Finish) -> Rows64:
        return finished(part(penalty), pairs, how).apply(judge.rows)

    middle = penalties[len(penalties) // 2]
    order = sorted(penalties, key=lambda each: abs(np.log(each / middle)))
    penalty, score = best_of(judge, order, lambda each: mapped(each, choices[0]))
    if len(choices) == 1:
        return penalty, choices[0], score
    how, score = best_of(judge, choices, lambda each: mapped(penalty, each))
    return penalty, how, score


def head_of(found: RidgeChoice, formula: Formula) -> ErrorHead | None:
    """Return a model of the map's squared error, None where its rows do not lie at their targets (mean dropped)."""
    if not found.how.mean:
        return None
    pairs = found.path.pairs
    vectors, target = pairs.A + pairs.before, pairs.B + pairs.after
    mapped = formula.apply(vectors)
    left_out = found.path.left_out(found.penalty)
    inside = pairs.B - pairs.A @ found.path.weights(found.penalty)
    inflation = np.linalg.norm(left_out, axis=1) / np.maximum(np.linalg.norm(inside, axis=1), 1e-9)
    squared = ((mapped - target) ** 2).sum(1) * inflation**2
    return fit_head(vectors, mapped, squared)
