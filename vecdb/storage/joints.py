"""What the catalog says of joint spaces: which two spaces the rows of a third one are made from, and how. Values only.

A joint space is an ordinary space whose rows no caller writes: each is made from the vector that its record has in the
new space, else in the old one, in the commit that changes that. It goes with either space and with its transform.
Design: docs/explanation/bridging.md; bytes: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vecdb.storage.format import stored_numbers


@dataclass(frozen=True, slots=True)
class JointEntry:
    """A joint space in the catalog.

    Attributes
    ----------
    space : int
        Number of the space that holds the rows.
    old, new : int
        Numbers of the spaces that they are made from.
    transform : int
        Number of the joint transform.
    mark : float
        In the column that says from which of the two a row was made.
    weight : float
        In the same column of a query: what is added for the one, and taken away for the other, is their product.
    """

    space: int
    old: int
    new: int
    transform: int
    mark: float
    weight: float


def joint_to_plain(entry: JointEntry) -> list[Any]:
    return [[entry.space, entry.old, entry.new, entry.transform], [entry.mark, entry.weight]]


def joint_from_plain(plain: Any) -> JointEntry:
    """Invert `joint_to_plain`; a wrong shape raises what the catalog turns into `CorruptionError`."""
    numbers, sizes = plain
    space, old, new, transform = stored_numbers(numbers, "catalog", 4)
    mark, weight = map(float, sizes)
    if len({space, old, new}) < 3 or not all(math.isfinite(size) and size > 0.0 for size in (mark, weight)):
        raise ValueError(f"an impossible joint space {space}")
    return JointEntry(space, old, new, transform, mark, weight)


def joint_of(joints: Sequence[JointEntry], space: int) -> JointEntry | None:
    """Return what is known of a space if it is a joint one."""
    return next((each for each in joints if each.space == space), None)
