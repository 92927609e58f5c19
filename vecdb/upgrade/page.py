"""A report as one HTML page: tables, and pictures where people would rather look. No script, no network.

Text that comes from a database is escaped; pictures are in `pictures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from vecdb.upgrade import pictures
from vecdb.upgrade import report as texts

if TYPE_CHECKING:
    from vecdb.upgrade.findings import Findings
    from vecdb.upgrade.report import UpgradeReport

__all__ = ["page_of"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2330; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: 6px solid #2b6cb0; background: #eef4fb; padding: .6rem 1rem; }
.verdict b { font-size: 1.3rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #dde3ea; font-weight: normal; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; vertical-align: top; }
figcaption { font-size: .85rem; color: #556; max-width: 27rem; }
"""


def page_of(report: UpgradeReport) -> str:
    """Return the page."""
    title = f"Upgrade of {report.collection} from {report.source.name} to {report.target.name}"
    body = "\n".join(_body(report, title))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>"
    )


def _body(report: UpgradeReport, title: str) -> Iterator[str]:
    found, verdict = report.findings, report.verdict
    provisional = " (provisional)" if verdict.provisional else ""
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="verdict"><b>{escape(verdict.decision)}</b>{provisional}<br>{escape(verdict.why)}.<br>'
    yield f"<small>Rule: {escape(verdict.rule)}</small></p>"
    yield (
        f"<p>Judged by {escape(texts.judged_by(found))}, over {found.rows:,} old vectors; {found.pairs:,} records are "
        f"known to both models. Ratios are of {escape(found.metric)}, intervals those of new queries.</p>"
    )
    yield "<h2>Over the whole collection</h2>" + _table(texts.rows_of_arms(found))
    yield _figure(pictures.advantages(found), "Advantage: bridged by staying. Right of 1 the bridge is better.")
    if found.native is not None:
        yield f"<h2>Over the {found.native.size:,} records that both models know</h2>"
        yield _table(texts.rows_of_native(found.native)) + _table(texts.rows_of_nested(found.native))
        yield _figure(pictures.nested(found.native, found.rows), "Retention and gain as the gallery grows.")
    if found.stages:
        yield "<h2>Two stages</h2>" + _table(texts.rows_of_stages(found))
    yield from _pictures(found)
    if found.notes:
        yield "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in found.notes) + "</ul>"


def _pictures(found: Findings) -> Iterator[str]:
    yield "<h2>More</h2>"
    if len(found.learning) > 1:
        yield _figure(pictures.learning(found), f"{escape(found.metric)} by the number of pairs fitted on.")
    if found.shift is not None:
        caption = (
            "Scores of native rows, of bridged rows, and of bridged rows after calibration: distance "
            f"{found.shift.before:.2f} before, {found.shift.after:.2f} after."
        )
        yield _figure(pictures.scores(found.shift), caption)
    if found.mixing is not None:
        caption = f"{escape(found.metric)} of one list while records are re-embedded; used: {found.mixing.chosen}."
        yield _figure(pictures.backfill(found.mixing), caption)


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _table(rows: list[list[str]]) -> str:
    head, *rest = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rest]
    return "<table>" + "".join(lines) + "</table>"
