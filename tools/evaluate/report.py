"""Measurements as tables of a page, between markers, and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["markdown", "markers", "write_page"]

_WIDE = 100.0
_USUAL = ("procrustes, centred", "ridge, plain")
_HEAD = ("kind", "side", "recall@10", "MRR", "advantage", "retention", "all", "all, corrected")


def markdown(document: Mapping[str, Any]) -> str:
    """Return all measured pairs of models for a page."""
    parts = []
    for corpus, settings in document["runs"].items():
        measured = [each for each in settings.values() if each.get("arms")]
        parts += [f"### {corpus}", _summary(measured), *map(_pair, measured)]
    return "\n\n".join(parts)


def _summary(measured: Sequence[Mapping[str, Any]]) -> str:
    """Return one line for each pair of models: recall@10 of both ends, of other tools' defaults, and of the best."""
    head = ("old", "new", "staying", "re-embedded", *_USUAL, "auto, queries", "best", "which")
    lines = [head, ("---",) * len(head)]
    for found in measured:
        arms = {(row["name"], row["role"]): row for row in found["arms"]}
        best = max(found["arms"], key=lambda row: float(row["recall"]["value"]))
        wanted = [arms.get((name, "query")) for name in (*_USUAL, "auto")]
        values = [_of(row["recall"]) if row else "" for row in wanted]
        ends = [_of(found[name]["recall"]) for name in ("stay", "re-embed")]
        side = "queries" if best["role"] == "query" else "stored"
        lines.append((found["old"], found["new"], *ends, *values, _of(best["recall"]), f"{best['name']}, {side}"))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _pair(found: Mapping[str, Any]) -> str:
    stay, again = found["stay"], found["re-embed"]
    draws = f"{found['seeds']} draw{'s' * (found['seeds'] != 1)}"
    ends = [
        f"{name}: {_of(each['recall'])} (MRR {_of(each['mrr'])}, corrected {_of(each['corrected'])})"
        for name, each in (("Staying", stay), ("re-embedded", again))
    ]
    words = (
        f"#### {found['old']} to {found['new']}\n\n{found['documents']:,} documents, {found['pairs']:,} pairs fitted on"
        f" ({draws}), {found['kept']:,} kept back, {found['queries']:,} queries without answers, {found['test']:,}"
        f" judged. {ends[0]}; {ends[1]}."
    )
    best_first = sorted(found["arms"], key=lambda row: -float(row["recall"]["value"]))
    lines = [_HEAD, ("---",) * len(_HEAD), *(_cells(row) for row in best_first)]
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
    )


def _of(estimate: Mapping[str, float], *, interval: bool = False) -> str:
    value = f"{estimate['value']:.3f}"
    if interval and not estimate["high"] < _WIDE * max(estimate["value"], 1e-9):
        return value  # of next to nothing: an interval on the logarithm has no bounds
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
