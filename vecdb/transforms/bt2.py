"""`bt2`: basis transformation with extra dimensions. New vectors keep all they have, old ones stay as they are.

Zhou et al., "BT^2: Backward-compatible training with basis transformation" (ICCV 2023), section 3, after the fact and
on stored vectors: a contraction from the new columns to the old ones, dilated to a map that keeps every inner product
of the new model (`dilation`). Formulas: docs/reference/transforms.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Pairs, Param, State, TransformCapabilities
from vecdb.transforms.affine import Formula, spectral_norm
from vecdb.transforms.dilation import JointMap, dilate, joint_map, load_joint
from vecdb.transforms.pairs import Rows64, centred, fit_pairs, go_on
from vecdb.transforms.procrustes import WIDTHS, polar_factor
from vecdb.transforms.restore import Finish, finished
from vecdb.transforms.ridge import choose_ridge

__all__ = ["Bt2Type", "Contraction", "contraction_of", "towards_old"]

_LEAST = 3


class Contraction(NamedTuple):
    """``s(q, x) = <q M, x> + <pull, x>`` up to a factor: M of norm 1, float64, shape (d_new, d_old)."""

    M: Rows64
    pull: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bt2Type:
    """Old vectors ``[x; 0]``, new vectors ``y [M, (I - M M')^(1/2)]``."""

    name: str = "bt2"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            min_pairs=_LEAST, widths=WIDTHS, affine=True, row_wise=True, deterministic=True, joint=True
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "contraction": Param(
                "str",
                "clip",
                "What maps new columns to old ones: ridge regression with its singular values cut at their median"
                " (clip), all made 1 (polar) or divided by the largest (ridge), or the rotation that fits best"
                " (procrustes).",
                choices=("clip", "polar", "ridge", "procrustes"),
            ),
            "columns": Param(
                "int", -1, "Extra columns at most; -1: all that keep the new model's inner products.", -1, 65_536
            ),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> JointMap:
        upgrade = towards_old(data)
        found = contraction_of(upgrade, params["contraction"], owner=self.name)
        go_on(data, 3, 4)
        columns = None if params["columns"] < 0 else params["columns"]
        return joint_map(dilate(found.M, columns), found.pull, data, contraction=params["contraction"])

    def load(self, state: State) -> JointMap:
        return load_joint(state)


def towards_old(data: FitData) -> FitData:
    """Return the data as those of a map of queries from the new space to the old one, whichever side was asked for."""
    if data.role == "query":
        return data
    kept = data.validation
    turned = None if kept is None else Pairs(kept.target, kept.source, kept.labels, kept.groups)
    return replace(
        data,
        source_space=data.target_space,
        target_space=data.source_space,
        source=data.target,
        target=data.source,
        role="query",
        validation=turned,
    )


def contraction_of(upgrade: FitData, kind: str, *, owner: str) -> Contraction:
    """Return the contraction of another kind of map of queries.

    Parameters
    ----------
    upgrade : FitData
        Of `towards_old`.
    kind : {"clip", "polar", "ridge", "procrustes"}
    owner : str
        Name of the kind, for messages.

    Raises
    ------
    FitError, NonFiniteError, CancelledError
    """
    if kind == "procrustes":
        pairs = centred(*fit_pairs(upgrade, _LEAST, owner=owner))
        return _contracted(finished(polar_factor(pairs), pairs, Finish("none", mean=False)))
    restore = "none" if kind == "ridge" else kind
    found = choose_ridge(upgrade, {"penalty": 0.0, "restore": restore, "mean": "drop"}, owner=owner, least=_LEAST)
    return _contracted(found.formula())


def _contracted(formula: Formula) -> Contraction:
    """Divide a map of queries by its norm: the factor is one of all scores, which calibration takes up."""
    size = spectral_norm(formula.W) or 1.0
    return Contraction(formula.W / size, (formula.b + formula.shift) / size)
