"""The report of a plan: text for people, a dict and JSON for programs, one HTML page with pictures.

Everything shown stands in `Findings`; nothing is computed here but layout. The page needs no network and no script.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from vecdb.evaluation import Estimate
from vecdb.types import Space
from vecdb.upgrade.decide import Verdict
from vecdb.upgrade.findings import Findings, Native, Worth

__all__ = ["UpgradeReport"]

_JUDGED = {
    "answers": "known answers of {queries:,} queries",
    "queries": "what the new model finds nearest to {queries:,} queries without answers",
    "documents": "what the new model finds nearest to {queries:,} records that stand in for queries",
}


class UpgradeReport:
    """What a plan found, and what it advises.

    Attributes
    ----------
    collection : str
    source, target : Space
        The old and the new model.
    findings : Findings
        Every number.
    verdict : Verdict
        Decision, rule and reason.
    """

    def __init__(self, collection: str, source: Space, target: Space, findings: Findings, verdict: Verdict) -> None:
        self.collection = collection
        self.source = source
        self.target = target
        self.findings = findings
        self.verdict = verdict

    @property
    def decision(self) -> str:
        """One of "stay", "stay, corrected", "bridge", "bridge + rerank", "dual query" and "backfill"."""
        return self.verdict.decision

    @property
    def provisional(self) -> bool:
        """Whether it was decided without known answers of real queries."""
        return self.verdict.provisional

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def __repr__(self) -> str:
        return f"<UpgradeReport {self.source.name!r} to {self.target.name!r}: {self.decision}>"

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values; what was not measured is None."""
        made = {
            "collection": self.collection,
            "source": self.source.name,
            "target": self.target.name,
            **asdict(self.verdict),
            "findings": asdict(self.findings),
        }
        plain = _plain(made)
        assert isinstance(plain, dict)
        return plain

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return `as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=indent, allow_nan=False)

    def to_html(self) -> str:
        """Return one page with tables and pictures, complete in itself."""
        from vecdb.upgrade.page import page_of  # most plans are read as text

        return page_of(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to a file: ``.html``, ``.json``, anything else as text."""
        suffix = os.path.splitext(os.fspath(path))[1].lower()
        forms = {".html": self.to_html, ".htm": self.to_html, ".json": self.to_json}
        text = forms.get(suffix, self.__str__)()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")


def _plain(value: Any) -> Any:
    """Return a value without tuples and without numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


# --- text -------------------------------------------------------------------------------------------------


def _lines(report: UpgradeReport) -> Iterator[str]:
    found, verdict = report.findings, report.verdict
    yield f"Upgrade of {report.collection!r} from {report.source.name!r} to {report.target.name!r}"
    yield ""
    yield f"Decision: {verdict.decision.upper()}{' (provisional)' if verdict.provisional else ''}"
    yield f"Rule:     {verdict.rule}"
    yield f"Why:      {verdict.why}"
    yield ""
    yield (
        f"Judged by {judged_by(found)}, over {found.rows:,} old vectors. Ratios are of {found.metric}; "
        "in brackets what new queries will show in 95 of 100 cases."
    )
    yield f"{found.pairs:,} records are known to both models; each of {found.splits} splits fitted on {found.fitted:,}."
    yield ""
    yield from table(rows_of_arms(found))
    if found.native is not None:
        yield ""
        yield from _native_lines(found, found.native)
    if found.stages:
        yield ""
        yield "Two stages: candidates first, then the order of the new model"
        yield from table(rows_of_stages(found))
    yield ""
    yield from _curves(found)
    for note in found.notes:
        yield f"Note: {note}."


def judged_by(found: Findings) -> str:
    """Return how queries were judged, in words."""
    return _JUDGED[found.mode].format(queries=found.queries)


def rows_of_arms(found: Findings) -> list[list[str]]:
    """Return the table of what was compared over the whole collection, its head first."""
    head = ["over the whole collection", "mrr", "recall@10", "ndcg@10", "@50", "@100", "@200", "advantage"]
    rows = [head]
    for name, worth in (("staying", found.staying), ("staying, corrected", found.staying_corrected)):
        if worth is not None:
            shown = "1" if name == "staying" else str(found.correction)
            rows.append([name, *_cells(worth), shown])
    for each in found.arms:
        tried = "" if each.splits == found.splits else ", one split"
        rows.append([f"{each.arm}{tried}", *_cells(each.plain), number(each.advantage)])
        rows.append(["  corrected", *_cells(each.corrected), ""])
    return rows


def rows_of_native(native: Native) -> list[list[str]]:
    """Return the table of what was compared on the records that both models know."""
    rows = [["over these", "mrr", "recall@10", "ndcg@10", "@50", "@100", "@200"]]
    for name, worth in (("staying", native.staying), ("bridged", native.bridged), ("re-embedded", native.reembedded)):
        if worth is not None:
            rows.append([name, *_cells(worth)])
    return rows


def rows_of_stages(found: Findings) -> list[list[str]]:
    """Return the table of two-stage answers."""
    rows = [["candidates of", "depth", found.metric, "advantage"]]
    names = {"bridge": "the bridge", "old": "the old model"}
    return rows + [[names[each.by], str(each.depth), str(each.worth), number(each.advantage)] for each in found.stages]


def rows_of_nested(native: Native) -> list[list[str]]:
    """Return retention and gain as galleries grow."""
    rows = [["gallery", "retention", "gain", "advantage"]]
    return rows + [
        [f"{each.size:,}", f"{each.retention:.3f}", number(each.gain), number(each.advantage)] for each in native.nested
    ]


def number(value: Estimate | float | None) -> str:
    """Return a number or an interval; a dash for what was not measured."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return str(value) if isinstance(value, Estimate) else f"{value:.3f}"


def _cells(worth: Worth) -> list[str]:
    return [f"{each.value:.3f}" for each in (worth.mrr, worth.recall, worth.ndcg)] + [
        f"{each:.3f}" for each in worth.candidates
    ]


def table(rows: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a table whose first column is words and whose others are numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *others = (cell.ljust(widths[0]) if not at else cell.rjust(widths[at]) for at, cell in enumerate(row))
        yield "  ".join([first, *others]).rstrip()


def _native_lines(found: Findings, native: Native) -> Iterator[str]:
    yield f"Over the {native.size:,} records that both models know ({native.queries:,} queries have an answer there)"
    yield from table(rows_of_native(native))
    yield f"retention {native.retention} (bridged by re-embedded), gain {number(native.gain)} (re-embedded by staying)"
    if native.neighbours is not None:
        yield f"of the new model's ten nearest records {native.neighbours:.3f} are among the bridge's ten"
    yield from table(rows_of_nested(native))
    if native.size < found.rows:
        retention, gain = (number(value) for value in native.at_full_size)
        yield f"carried on to {found.rows:,} vectors: retention {retention}, gain {gain}"


def _curves(found: Findings) -> Iterator[str]:
    if found.learning:
        yield f"With more pairs ({found.best.arm}): " + ", ".join(
            f"{at:,}: {value:.3f}" for at, value in found.learning
        )
    if found.shift is not None:
        yield (
            f"Bridged scores are {found.shift.before:.2f} from native ones before calibration and "
            f"{found.shift.after:.2f} after (largest distance of the distributions)."
        )
    if found.mixing is not None:
        yield f"While records are re-embedded at random, calibrated by {found.mixing.chosen!r}: " + ", ".join(
            f"{share:.0%}: {value:.3f}" for share, value in found.mixing.curve
        )
