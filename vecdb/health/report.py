"""The report on a database: the health of all its spaces, its upgrades, its sizes; as text, dict, JSON or one page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vecdb.health.values import SpaceHealth, plain
from vecdb.types import MigrationStatus, TransformInfo
from vecdb.verdicts import CorrectionInfo, FilterInfo

__all__ = ["CollectionHealth", "HealthReport"]


@dataclass(frozen=True, slots=True)
class CollectionHealth:
    """What a report says of one collection.

    Attributes
    ----------
    name : str
    records : int
    spaces : tuple of SpaceHealth
    transforms : tuple of TransformInfo
        Ways between models, with what they were measured to be worth.
    migrations : tuple of MigrationStatus
        Changes of the model, under way and done.
    filters : tuple of FilterInfo
        Stored relevance filters, with what they were measured to be worth.
    corrections : tuple of CorrectionInfo
    """

    name: str
    records: int
    spaces: tuple[SpaceHealth, ...]
    transforms: tuple[TransformInfo, ...] = ()
    migrations: tuple[MigrationStatus, ...] = ()
    filters: tuple[FilterInfo, ...] = ()
    corrections: tuple[CorrectionInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The health of a database.

    Attributes
    ----------
    path : str
    seq : int
        The commit that was read.
    sizes : dict of str to int
        Bytes of the file, living and reclaimable.
    collections : tuple of CollectionHealth
    """

    path: str
    seq: int
    sizes: Mapping[str, int]
    collections: tuple[CollectionHealth, ...]

    def __str__(self) -> str:
        parts = [f"{self.path}, commit {self.seq}, {self.sizes['file_bytes']:,} bytes"]
        for each in self.collections:
            parts.append(f"\nCollection {each.name!r}: {each.records:,} records")
            parts += [str(space) for space in each.spaces]
            parts += [f"Upgrade: {line}" for line in upgrades_of(each)]
            parts += [f"Judging hits: {line}" for line in judges_of(each)]
        return "\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values; what was not measured is None."""
        made = plain(self)
        assert isinstance(made, dict)
        return made

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return `as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=indent, allow_nan=False)

    def to_html(self) -> str:
        """Return one page with tables and pictures, complete in itself: no script, no network."""
        from vecdb.health.page import page_of  # who reads numbers needs no pictures

        return page_of(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to a file: ``.html``, ``.json``, anything else as text."""
        suffix = os.path.splitext(os.fspath(path))[1].lower()
        forms = {".html": self.to_html, ".htm": self.to_html, ".json": self.to_json}
        with open(path, "w", encoding="utf-8") as file:
            file.write(forms.get(suffix, self.__str__)() + "\n")


def upgrades_of(found: CollectionHealth) -> list[str]:
    """Return one sentence for each stored transform and each migration."""
    moved = (
        f"migration {each.number} from {each.source} to {each.target}: {each.state}, {each.share:.0%} done"
        for each in found.migrations
    )
    return [*(_transform(each) for each in found.transforms), *moved]


def _transform(each: TransformInfo) -> str:
    worth = f", retention {each.quality['retention']:.3f}" if "retention" in each.quality else ""
    way = f"{each.kind} {each.source} to {each.target}, {each.direction} side"
    return (
        f"{each.name}: {way}, fitted on {each.pairs:,} pairs{worth}{'' if each.available else ', not available here'}"
    )


def judges_of(found: CollectionHealth) -> list[str]:
    """Return one sentence for each relevance filter and each correction."""
    made = []
    for each in found.filters:
        worth = ", ".join(f"{name} {_measured(value)}" for name, value in each.report.items() if _measured(value))
        state = f"; {each.reason}" if each.reason else ""
        made.append(
            f"relevance filter {each.name}: {each.kind} in {each.space}, {each.queries:,} queries. {worth}{state}"
        )
    return made + [
        f"correction {each.name}: {each.kind} in {each.space}, bank of {each.bank:,} queries"
        for each in found.corrections
    ]


def _measured(value: Any) -> str:
    """Return a number with its interval; nothing for what is not measured, or is none."""
    if not isinstance(value, Mapping) or not isinstance(value.get("value"), float):
        return ""
    low, high = value.get("low"), value.get("high")
    interval = f" [{low:.3f}, {high:.3f}]" if isinstance(low, float) and isinstance(high, float) else ""
    return f"{value['value']:.3f}{interval}"
