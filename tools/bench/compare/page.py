"""The comparison in docs/explanation/performance.md: between its own markers, with a picture for each set."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.bench.compare import bars, plots, tables
from tools.bench.compare.bars import Found
from tools.bench.compare.child import ROOT
from tools.bench.compare.record import curves, latest
from tools.bench.compare.sets import SOURCES

PAGE = ROOT / "docs" / "explanation" / "performance.md"
PLOTS = "plots"
BEGIN, END = "<!-- generated: comparison -->", "<!-- end of generated: comparison -->"
_GROWTH = ("gen30k", "gen100k", "gen300k", "gen1m")
_UNIT = "queries per second of processor time"


def text(store: Path, names: Sequence[str]) -> str:
    """Return the tables of sets."""
    return "\n\n".join(part for name in names for part in section(store, name))


def section(store: Path, name: str) -> Iterator[str]:
    """Yield the parts of a set's section; nothing if nothing was measured."""
    found = latest(store, name)
    if not found or name not in SOURCES:
        return
    shape = set_facts(store, name)
    yield f"### {name}: {shape['rows']:,} x {shape['dim']}"
    yield f"{SOURCES[name].about}."
    if picture(name, found):
        yield f"![Recall against rate, {name}]({PLOTS}/{picture_name(name)})"
    if any(curves(record) for record in found.values()):
        yield tables.rates(found)
    claims = list(bars.claims(found, shape["rows"]))
    if claims:
        yield tables.verdicts(claims)
    yield tables.costs(found)
    yield from (part for part in (tables.asked(found), tables.filters(found), tables.inserts(found)) if part)
    yield from tables.absent(found)


def growing(store: Path) -> Iterator[str]:
    """Yield what more rows cost, from the generated sets."""
    known = [(name, latest(store, name)) for name in _GROWTH]
    here = [(name, found) for name, found in known if found]
    claims = []
    for (small, before), (large, after) in itertools.pairwise(here):
        times = set_facts(store, large)["rows"] / set_facts(store, small)["rows"]
        claims += list(bars.growth(before, after, times))
    if claims:
        yield "### Growth"
        yield "What more rows of the same kind cost; bars for a tenfold set are scaled to the step."
        yield tables.verdicts(claims)


def set_facts(store: Path, name: str) -> dict[str, Any]:
    """Return the shape of a set."""
    facts: dict[str, Any] = json.loads((store / "sets" / name / "set.json").read_text(encoding="utf-8"))
    return facts


def picture_name(name: str) -> str:
    """Return the file name of a set's picture."""
    return f"recall-{name}.svg"


def picture(name: str, found: Found) -> str:
    """Return the SVG of a set; empty without a curve."""
    series = []
    for label in sorted(found, key=lambda each: (not each.startswith("vecdb:"), each)):
        known, asked = curves(found[label]), curves(found[label], asked=True)
        if known and any(point.recall >= 0.8 for point in known[max(known)]):
            run = max(known)
            series.append(plots.Series(label.replace(":", " "), known[run], asked.get(run, ())))
    return plots.plot(f"{name}: single calls, one thread", _UNIT, series) if series else ""


def write(store: Path, page: Path = PAGE) -> None:
    """Put all sets that were measured into the page, and their pictures beside it.

    Raises
    ------
    ValueError
        The page has no markers.
    """
    content = page.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no markers {BEGIN} ... {END}")
    names = [name for name in SOURCES if name != "tiny"]
    parts = [part for name in names for part in section(store, name)] + list(growing(store))
    folder = page.parent / PLOTS
    folder.mkdir(exist_ok=True)
    for name in names:
        if svg := picture(name, latest(store, name)):
            (folder / picture_name(name)).write_text(svg, encoding="utf-8")
    body = "\n\n".join(parts) or "Nothing has been measured yet."
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")
