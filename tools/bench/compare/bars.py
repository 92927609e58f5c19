"""The bars of the comparison: which ratio is held against which peer, and whether it is.

Rates are queries per second of processor time, all threads of the process together, at an equal recall; the ratio on
the wall stands beside it. A ratio that cannot be formed, because one of the two was not measured, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from tools.bench.compare.arithmetic import Verdict, bracket, ratio_through, rounds_ratio
from tools.bench.compare.record import curves, points
from tools.bench.compare.sets import CONDITIONS

Found = Mapping[str, Mapping[str, Any]]
"""The records of a set by "peer:variant"."""
ANCHOR = "hnswlib:m16"
TARGETS = (0.95, 0.99)
_SPEED = (
    ("vecdb:graph-fast", "hnswlib:m16", 3.0),
    ("vecdb:graph-fast", "faiss:hnsw16", 3.0),
    ("vecdb:graph-compact", "hnswlib:m16", 2.0),
    ("vecdb:graph-compact", "faiss:hnsw16", 2.0),
    ("vecdb:graph-fast", "qdrant-edge:hnsw-int8", 2.0),
    ("vecdb:graph-fast", "rabitqlib:symqg32", 1.0),
)
_NO_INDEX = ("vecdb:rabitq", "hnswlib:m16", 1.3)
_SMALL = 100_000
_GRAPHS = ("vecdb:graph-fast", "vecdb:graph-compact")
_OWN = ("vecdb:graph-fast", "vecdb:graph-compact", "vecdb:rabitq", "vecdb:ivf", "vecdb:exact")


@dataclass(frozen=True, slots=True)
class Claim:
    """One ratio beside its bar; `wall` is the same ratio on the wall where `ratio` is of processor time."""

    what: str
    own: str
    against: str
    ratio: float
    bar: float
    wall: float | None = None
    at_least: bool = True

    @property
    def verdict(self) -> str:
        """Held or missed."""
        return Verdict(self.ratio, self.bar, self.at_least).text


def claims(found: Found, rows: int) -> Iterator[Claim]:
    """Yield every bar that the records of a set of so many rows can speak about."""
    yield from _speed(found, rows)
    yield from _sizes(found)
    yield from _filters(found)
    yield from _cold(found)
    yield from _inserts(found)


def speed(found: Found, own: str, against: str, target: float, clock: str) -> float | None:
    """Return how many times as fast single calls are at a recall."""
    if own not in found or against not in found:
        return None
    anchor = curves(found[ANCHOR]) if ANCHOR in found else {}
    return ratio_through(curves(found[own]), curves(found[against]), anchor, target, clock)


def _speed(found: Found, rows: int) -> Iterator[Claim]:
    asked = [(own, against, bar, target) for own, against, bar in _SPEED for target in TARGETS]
    if rows <= _SMALL:
        asked.append((*_NO_INDEX, 0.99))
    for own, against, bar, target in asked:
        ratio = speed(found, own, against, target, "cpu")
        if ratio is not None:
            wall = speed(found, own, against, target, "wall")
            yield Claim(f"single calls at recall {target}", own, against, ratio, bar, wall)


def _sizes(found: Found) -> Iterator[Claim]:
    theirs = (found.get("hnswlib:m16") or {}).get("built")
    for own in _GRAPHS:
        mine = (found.get(own) or {}).get("built")
        if not mine or not theirs:
            continue
        cpu, wall = (mine["build"][clock] / theirs["build"][clock] for clock in (1, 0))
        alike = mine.get("threads") == theirs.get("threads")
        yield Claim("build time", own, "hnswlib:m16", cpu, 0.25, wall if alike else None, at_least=False)
        if own == "vecdb:graph-compact":
            share = mine["index"] / theirs["index"]
            yield Claim("bytes beside the raw vectors", own, "hnswlib:m16", share, 1 / 6, at_least=False)


# --- filters ----------------------------------------------------------------------------------------------


def filtered(record: Mapping[str, Any], condition: str, clock: str = "cpu") -> tuple[float | None, float]:
    """Return the rate of the fastest way to a recall of 0.95 under a condition in the last run, and the best recall."""
    for run in sorted(record["runs"], reverse=True):
        measured = record["runs"][run].get("filter", {}).get(condition)
        known = list(points(measured, "single")) if measured else []
        if known:
            fast = [point.rate(clock) for point in known if point.recall >= 0.95]
            return (max(fast) if fast else None), max(point.recall for point in known)
    return None, 0.0


def _filters(found: Found) -> Iterator[Claim]:
    for condition in CONDITIONS:
        rates = {name: filtered(record, condition.name)[0] for name, record in found.items()}
        known = {name: rate for name, rate in rates.items() if rate}
        mine = [name for name in _OWN if name in known]
        theirs = [name for name in known if not name.startswith("vecdb:")]
        if not mine or not theirs:
            continue
        own, best = max(mine, key=known.__getitem__), max(theirs, key=known.__getitem__)
        wall = [filtered(found[name], condition.name, "wall")[0] or 0.0 for name in (own, best)]
        what = f"{condition.name}, recall >= 0.95"
        yield Claim(what, own, best, known[own] / known[best], 1.0, wall[0] / wall[1])


# --- processes and inserts --------------------------------------------------------------------------------


def last(record: Mapping[str, Any], phase: str) -> Any:
    """Return what the last run that has a phase found in it; None without one."""
    runs = [run for run in sorted(record["runs"], reverse=True) if record["runs"][run].get(phase)]
    return record["runs"][runs[0]][phase] if runs else None


def _cold(found: Found) -> Iterator[Claim]:
    for own in _OWN:
        for against in ("hnswlib:m16", "sqlite-vec:f32"):
            mine, theirs = (last(found[name], "cold") if name in found else None for name in (own, against))
            if mine and theirs:
                ratio = 1 / rounds_ratio(mine[: len(theirs)], theirs[: len(mine)])
                yield Claim("new process: open and first query", own, against, ratio, 1.5, at_least=False)


def insert_rate(record: Mapping[str, Any], size: str) -> float | None:
    """Return the rows a second of durable batches of a size, on the wall."""
    taken = (last(record, "insert") or {}).get(size)
    return 1 / median(wall for wall, _ in taken) if taken else None


def _inserts(found: Found) -> Iterator[Claim]:
    for size in ("1", "1000"):
        rates = {name: insert_rate(found[name], size) for name in ("sqlite-vec:f32", "lancedb:flat") if name in found}
        known = {name: rate for name, rate in rates.items() if rate}
        for own in ("vecdb:exact", *_GRAPHS):
            mine = insert_rate(found[own], size) if own in found else None
            if mine and known:
                best = max(known, key=known.__getitem__)
                yield Claim(f"durable inserts, {size} a batch", own, best, mine / known[best], 1.0)


# --- growth -----------------------------------------------------------------------------------------------


def growth(small: Found, large: Found, times: float) -> Iterator[Claim]:
    """Yield what `times` as many rows cost a query at recall 0.95, and a build; bars are scaled from ten times."""
    for own in _GRAPHS:
        if own not in small or own not in large:
            continue
        before, after = (_seconds_at(records[own]) for records in (small, large))
        if before and after:
            limit = 2.0 ** _decades(times)
            yield Claim(f"query, rows x {times:.3g}", own, own, after / before, limit, at_least=False)
        built = [(records[own].get("built") or {}).get("build") for records in (small, large)]
        if built[0] and built[1]:
            limit = 13.0 ** _decades(times)
            yield Claim(f"build, rows x {times:.3g}", own, own, built[1][1] / built[0][1], limit, at_least=False)


def _decades(times: float) -> float:
    from math import log10

    return log10(times)


def _seconds_at(record: Mapping[str, Any], target: float = 0.95) -> float | None:
    known = curves(record)
    for run in sorted(known, reverse=True):
        place = bracket(known[run], target)
        if place is not None:
            return median(place.seconds("cpu"))
    return None
