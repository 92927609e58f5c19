"""vecdb's own kinds of transform, registered through the same hook as anybody else's.

One family a file; formulas, options, sources and when to use which: docs/reference/transforms.md.
"""

from __future__ import annotations

from vecdb.contracts.transform import TransformType
from vecdb.hookspecs import hookimpl
from vecdb.transforms.columns import identity_type, pad_type, truncate_type
from vecdb.transforms.procrustes import ProcrustesType
from vecdb.transforms.ridge import RidgeType
from vecdb.transforms.shift import ShiftType

__all__ = ["vecdb_register_transforms"]


@hookimpl
def vecdb_register_transforms() -> list[TransformType]:
    """Return vecdb's own kinds of transform."""
    return [identity_type(), pad_type(), truncate_type(), ShiftType(), ProcrustesType(), RidgeType()]
