"""Storing the corrections that a plan found to be worth it, so that searches can use what was measured.

A plan measures every way with and without csls. Where the corrected way was the better one, its bank is stored: of old
queries for staying, of new ones for the bridge, whose queries then take the same way as those to come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.engine.corrections import fitting
from vecdb.types import Id, Space
from vecdb.upgrade.findings import Findings, Worth
from vecdb.upgrade.material import Material
from vecdb.verdicts import CorrectionInfo, QuerySet

if TYPE_CHECKING:
    from vecdb.collection import Collection

__all__ = ["store_corrections"]

KIND = "csls"
"""What plans measure by."""


def store_corrections(
    collection: Collection, material: Material, findings: Findings, asked: Sequence[QuerySet], *, bridge: bool = True
) -> tuple[CorrectionInfo, ...]:
    """Store the corrections that were better than none.

    Parameters
    ----------
    collection : Collection
    material : Material
    findings : Findings
    asked : sequence of QuerySet
        The bank, where there is one, then the queries; the first with vectors of a space serves it.
    bridge : bool, default True
        Whether that of the best map is stored, too.

    Returns
    -------
    tuple of CorrectionInfo
        For staying, for the best map, or neither.
    """
    best = findings.best
    ways = (
        (material.source, findings.staying, findings.staying_corrected, "old"),
        (material.target, best.plain, best.corrected, "new"),
    )
    infos = []
    for space, plain, corrected, side in ways[: 2 if bridge else 1]:
        given = next((each for each in asked if getattr(each, side) is not None), None)
        if given is not None and _is_better(corrected, plain, findings.metric):
            assert corrected is not None  # it would not be better
            infos.append(_stored(collection, space, getattr(given, side), given.relevant, corrected))
    return tuple(infos)


def _is_better(corrected: Worth | None, plain: Worth | None, metric: str) -> bool:
    if corrected is None or plain is None:
        return False
    return corrected.of(metric).value > plain.of(metric).value


def _stored(
    collection: Collection, space: Space, bank: Any, relevant: Sequence[Any] | None, worth: Worth
) -> CorrectionInfo:
    answers = None if relevant is None else [_known(collection, entry) for entry in relevant]
    quality = {"mrr": worth.mrr.value, "recall@10": worth.recall.value}
    name = _free_name(collection, f"{space.name}-{KIND}")
    return collection._put_correction(fitting.wish(name, KIND, space, bank, answers, quality=quality))


def _known(collection: Collection, entry: Any) -> list[Id]:
    """Return the records of the collection that answer a query; others were left out of the measurement, too."""
    if entry is None:
        return []
    if isinstance(entry, Mapping):
        several = [id for id, grade in entry.items() if grade > 0]
    else:
        several = [entry] if isinstance(entry, str) or np.ndim(entry) == 0 else list(entry)
    plain = [id.item() if isinstance(id, np.generic) else id for id in several]
    return [id for id in plain if id in collection]


def _free_name(collection: Collection, name: str) -> str:
    taken = {info.name for info in collection.corrections}
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(other for other in numbered if other not in taken)
