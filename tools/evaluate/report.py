"""Measurements as tables of a page, between markers, and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["markdown", "markers", "write_page"]

_HEAD = ("kind", "side", "recall@10", "MRR", "advantage", "retention", "all", "all, corrected", "fit, s")


def markdown(document: Mapping[str, Any]) -> str:
    """Return all measured pairs of models for a page."""
    parts = []
    for corpus, settings in document["runs"].items():
        parts.append(f"### {corpus}")
        parts += [_pair(each) for each in settings.values() if each.get("arms")]
    return "\n\n".join(parts)


def _pair(found: Mapping[str, Any]) -> str:
    stay, again = found["stay"], found["re-embed"]
    words = (
        f"#### {found['old']} to {found['new']}\n\n{found['documents']:,} documents, {found['pairs']:,} pairs fitted on"
        f" ({found['seeds']} draws), {found['kept']:,} kept back, {found['queries']:,} queries without answers,"
        f" {found['test']:,} judged. Staying: {_of(stay['recall'])} (MRR {_of(stay['mrr'])}, corrected"
        f" {_of(stay['corrected'])}); re-embedded: {_of(again['recall'])} (MRR {_of(again['mrr'])}, corrected"
        f" {_of(again['corrected'])})."
    )
    lines = [_HEAD, ("---",) * len(_HEAD), *(_cells(row) for row in found["arms"])]
    return words + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    side = {"query": "queries", "gallery": "stored"}[row["role"]]
    name = f"{row['name']} ({row['chosen']})" if row["kind"] == "auto" else row["name"]
    ratios = [_of(row[each], interval=True) for each in ("advantage", "retention")]
    return (
        name,
        side,
        _of(row["recall"]),
        _of(row["mrr"]),
        *ratios,
        _of(row["everyone"]),
        _of(row["corrected"]),
        f"{row['seconds']:.1f}",
    )


def _of(estimate: Mapping[str, float], *, interval: bool = False) -> str:
    value = f"{estimate['value']:.3f}"
    return f"{value} [{estimate['low']:.2f}, {estimate['high']:.2f}]" if interval else value


def markers(name: str) -> tuple[str, str]:
    """Return the lines of a page between which a generated part of that name stands."""
    return f"<!-- generated: {name} -->", f"<!-- end of generated: {name} -->"


def write_page(page: Path, name: str, made: str) -> None:
    """Put a generated part between its markers of a page.

    Raises
    ------
    SystemExit
        The page has no such markers.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = markers(name)
    if begin not in text or end not in text:
        raise SystemExit(f"{page} has no markers {begin} and {end}")
    before, rest = text.split(begin, 1)
    page.write_text(f"{before}{begin}\n{made}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")
