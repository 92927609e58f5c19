"""vecdb's own kinds of transform, registered through the same hook as anybody else's.

One family a file; formulas, options, sources and when to use which: docs/reference/transforms.md.
"""

from __future__ import annotations

from vecdb.contracts.transform import TransformType
from vecdb.hookspecs import hookimpl
from vecdb.transforms.auto import AutoType
from vecdb.transforms.bt2 import Bt2Type
from vecdb.transforms.cca import CcaType
from vecdb.transforms.columns import identity_type, pad_type, truncate_type
from vecdb.transforms.distill import DistillType
from vecdb.transforms.hadamard import HadamardType
from vecdb.transforms.lowrank import LowRankType
from vecdb.transforms.mlp import MlpType
from vecdb.transforms.nullspace import NullspaceType
from vecdb.transforms.oca import OcaType
from vecdb.transforms.procrustes import ProcrustesType
from vecdb.transforms.relative import RelativeType
from vecdb.transforms.ridge import RidgeType
from vecdb.transforms.shift import ShiftType
from vecdb.transforms.simplex import SimplexType
from vecdb.transforms.spectral import AbttType, PcaType, WhitenType

__all__ = ["vecdb_register_transforms"]


@hookimpl
def vecdb_register_transforms() -> list[TransformType]:
    """Return vecdb's own kinds of transform, the simple ones first."""
    between: list[TransformType] = [ShiftType(), ProcrustesType(), RidgeType(), LowRankType(), CcaType(), MlpType()]
    between += [DistillType(), AutoType()]
    between += [Bt2Type(), OcaType(), RelativeType(), SimplexType()]
    within: list[TransformType] = [WhitenType(), PcaType(), AbttType(), NullspaceType(), HadamardType()]
    return [identity_type(), pad_type(), truncate_type(), *between, *within]
