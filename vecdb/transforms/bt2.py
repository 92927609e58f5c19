"""`bt2`: basis transformation with extra dimensions. New vectors keep all they have, old ones stay as they are.

Zhou et al., "BT^2: Backward-compatible training with basis transformation" (ICCV 2023), section 3, after the fact and
on stored vectors: a contraction from the new columns to the old ones (`contraction`), dilated to a map that keeps every
inner product of the new model (`dilation`). Formulas: docs/reference/transforms.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vecdb.contracts import FitData, Pairs, Param, State, TransformCapabilities
from vecdb.transforms.contraction import Contraction, contraction_of, learnt
from vecdb.transforms.dilation import JointMap, dilate, joint_map, load_joint
from vecdb.transforms.distill import DISTILL, centres_of, lessons_of
from vecdb.transforms.listwise import Course, Lesson
from vecdb.transforms.pairs import go_on
from vecdb.transforms.procrustes import WIDTHS
from vecdb.transforms.prototypes import class_lesson

__all__ = ["COLUMNS", "Bt2Type", "towards_old"]

_LEAST = 3
COLUMNS = Param("int", -1, "Extra columns at most; -1: all that keep the new model's inner products.", -1, 65_536)


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
            "fit": Param(
                "str",
                "dilation",
                "Where the contraction comes from: another kind of map (dilation), or learnt from it by how it ranks,"
                " within the bound on the columns (learned).",
                choices=("dilation", "learned"),
            ),
            "contraction": Param(
                "str",
                "clip",
                "What maps new columns to old ones: ridge regression with its singular values cut at their median"
                " (clip), all made 1 (polar) or divided by the largest (ridge), the rotation that fits best"
                " (procrustes), or the map that ranks best (distill).",
                choices=("clip", "polar", "ridge", "procrustes", "distill"),
            ),
            "columns": COLUMNS,
            "steps": Param("int", 100, "Steps of the learned fit.", 0, 1_000_000),
            "rate": Param("float", 0.05, "Angle of a step of the learned fit, in radians.", 0.0, 1.0),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> JointMap:
        upgrade = towards_old(data)
        found = contraction_of(upgrade, params["contraction"], owner=self.name)
        go_on(data, 3, 4)
        columns = None if params["columns"] < 0 else params["columns"]
        if params["fit"] == "learned":
            found = _learned(upgrade, found, params)
        chosen = {"contraction": params["contraction"], "learned": params["fit"] == "learned"}
        return joint_map(dilate(found.M, columns), found.pull, data, **chosen)

    def load(self, state: State) -> JointMap:
        return load_joint(state)


def _learned(upgrade: FitData, start: Contraction, params: Mapping[str, Any]) -> Contraction:
    centres = centres_of(upgrade)
    lessons: list[Lesson] = lessons_of(upgrade, centres, "mean")
    classes = class_lesson(upgrade, centres)
    course = Course(params["steps"], params["rate"], DISTILL["temperature"], DISTILL["batch"], DISTILL["rows"])
    metrics = upgrade.source_space.metric, upgrade.target_space.metric
    taught = lessons if classes is None else [lessons[0], classes, *lessons[1:]]
    return learnt(
        start, free_values(len(start.M), len(start.pull), params["columns"]), taught, course, metrics, upgrade
    )


def free_values(d_new: int, d_old: int, columns: int) -> int:
    """Return how many singular values may be below 1 for so many extra columns (-1: as many as there are)."""
    most = min(d_new, d_old)
    return most if columns < 0 else min(most, max(0, columns - max(d_new - d_old, 0)))


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
