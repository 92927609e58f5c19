"""What was found about the health of a space: frozen values, as text, dict and JSON.

Invariant: everything is plain numbers, words and tuples of them; what could not be measured is None, and the notes say
why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from vecdb.engine.checkup.asking import Curve
from vecdb.evaluation.health.classes import Classes
from vecdb.evaluation.health.dimension import Dimension
from vecdb.evaluation.health.distributions import Duplicates, Norms, Scores
from vecdb.evaluation.health.drift import Drift
from vecdb.evaluation.health.evalrank import EvalRank
from vecdb.evaluation.health.hubs import Hubness
from vecdb.evaluation.health.isotropy import Cosines, Isotropy
from vecdb.evaluation.health.plane import Plane
from vecdb.evaluation.health.versions import Versions
from vecdb.evaluation.intervals import Estimate

__all__ = ["IndexHealth", "SpaceHealth", "plain"]


@dataclass(frozen=True, slots=True)
class IndexHealth:
    """What an index finds of the true neighbours.

    Attributes
    ----------
    kind : str
    recall : Estimate or None
        Share of the `k` true neighbours that a search finds with the index's default effort, over sampled vectors;
        None where it could not be asked, and `note` says why.
    k : int
    curves : tuple of Curve
        Recall by effort, as measured when the index was built.
    note : str
    """

    kind: str
    recall: Estimate | None
    k: int
    curves: tuple[Curve, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class SpaceHealth:
    """The health of one space at one commit; ``print`` it, or take `as_dict` or `to_json`.

    Attributes
    ----------
    collection, space, model, metric, dtype : str
    dim : int
    seq : int
        The commit that was read.
    vectors : int
        Living vectors.
    sampled, asked : int
        Vectors that were drawn, and how many of them were compared with all others.
    seed : int
    isotropy : Isotropy or None
    cosines : Cosines or None
    dimension : Dimension or None
    hubness : Hubness or None
        Within the sample: k-occurrence depends on how many rows there are.
    duplicates : Duplicates or None
    norms : Norms or None
    scores : Scores or None
    classes : Classes or None
        Where a metadata field was named.
    evalrank : EvalRank or None
        Where pairs were given.
    drift : Drift or None
        Between stretches of vectors in order of age.
    versions : tuple of Versions
        Against each other space of the collection that holds the same records.
    plane : Plane or None
        A map of some of the sample in two dimensions.
    indexes : tuple of IndexHealth
    notes : tuple of str
        What was not measured, and why.
    """

    collection: str
    space: str
    model: str
    metric: str
    dtype: str
    dim: int
    seq: int
    vectors: int
    sampled: int
    asked: int
    seed: int
    isotropy: Isotropy | None = None
    cosines: Cosines | None = None
    dimension: Dimension | None = None
    hubness: Hubness | None = None
    duplicates: Duplicates | None = None
    norms: Norms | None = None
    scores: Scores | None = None
    classes: Classes | None = None
    evalrank: EvalRank | None = None
    drift: Drift | None = None
    versions: tuple[Versions, ...] = ()
    plane: Plane | None = None
    indexes: tuple[IndexHealth, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        from vecdb.health.texts import text_of  # most callers read numbers

        return text_of(self)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What stands out, and what can be done about it; empty where nothing does."""
        from vecdb.health.remarks import remarks_of

        return remarks_of(self)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values; what was not measured is None."""
        made = plain(self)
        assert isinstance(made, dict)
        return made | {"remarks": list(self.remarks)}

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return `as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """Return a value without classes, tuples, and numbers that JSON does not have."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
