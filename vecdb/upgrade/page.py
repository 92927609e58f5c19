"""A report as one HTML page: tables, and pictures where people would rather look. No script, no network.

Text that comes from a database is escaped; how pages look is in vecdb/drawing, pictures are in `pictures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vecdb.drawing.page import document, figure, listed, table
from vecdb.drawing.words import safe
from vecdb.upgrade import pictures
from vecdb.upgrade import report as texts

if TYPE_CHECKING:
    from vecdb.upgrade.findings import Findings
    from vecdb.upgrade.report import UpgradeReport

__all__ = ["page_of"]


def page_of(report: UpgradeReport) -> str:
    """Return the page."""
    title = f"Upgrade of {report.collection} from {report.source.name} to {report.target.name}"
    return document(title, _body(report, title))


def _body(report: UpgradeReport, title: str) -> Iterator[str]:
    found, verdict = report.findings, report.verdict
    provisional = " (provisional)" if verdict.provisional else ""
    yield f"<h1>{safe(title)}</h1>"
    yield (
        f'<p class="verdict"><b>{safe(verdict.decision)}</b>{provisional}<br>{safe(verdict.why)}.<br>'
        f"<small>Rule: {safe(verdict.rule)}</small></p>"
    )
    yield (
        f"<p>Judged by {safe(texts.judged_by(found))}, over {found.rows:,} old vectors; {found.pairs:,} records are "
        f"known to both models. Ratios are of {safe(found.metric)}, intervals those of new queries.</p>"
    )
    yield "<h2>Over the whole collection</h2>" + table(texts.rows_of_arms(found))
    yield figure(pictures.advantages(found), "Advantage: bridged by staying. Right of 1 the bridge is better.")
    if found.native is not None:
        yield f"<h2>Over the {found.native.size:,} records that both models know</h2>"
        yield table(texts.rows_of_native(found.native)) + table(texts.rows_of_nested(found.native))
        yield figure(pictures.nested(found.native, found.rows), "Retention and gain as the gallery grows.")
    if found.stages:
        yield "<h2>Two stages</h2>" + table(texts.rows_of_stages(found))
    more = "".join(_more(found))
    if more:
        yield f'<h2>More</h2><div class="figures">{more}</div>'
    if found.notes:
        yield "<h2>Notes</h2>" + listed(found.notes)


def _more(found: Findings) -> Iterator[str]:
    if len(found.learning) > 1:
        yield figure(pictures.learning(found), f"{found.metric} by the number of pairs fitted on.")
    if found.shift is not None:
        caption = (
            "Scores of native rows, of bridged rows, and of bridged rows after calibration: distance "
            f"{found.shift.before:.2f} before, {found.shift.after:.2f} after."
        )
        yield figure(pictures.scores(found.shift), caption)
    if found.mixing is not None:
        caption = f"{found.metric} of one list while records are re-embedded; used: {found.mixing.chosen}."
        yield figure(pictures.backfill(found.mixing), caption)
