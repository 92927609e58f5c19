"""Pictures of the health of a space: what is drawn of which number. Parts of pictures are in vecdb/drawing.

Every function returns the SVG text of one picture, or None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vecdb.drawing import svg
from vecdb.evaluation.health.dimension import Dimension
from vecdb.evaluation.health.distributions import Histogram, Norms, Scores
from vecdb.evaluation.health.drift import Drift
from vecdb.evaluation.health.hubs import Hubness
from vecdb.evaluation.health.plane import OTHER, Plane
from vecdb.evaluation.health.versions import Versions
from vecdb.health.values import IndexHealth

__all__ = ["dimensions", "drifting", "lengths", "mapped", "neighbours", "occurrences", "recalls", "score_spread"]

_LABELS = 150
"""Left margin where names stand beside bars."""


def score_spread(found: Scores) -> str:
    """Return the distributions of scores of random pairs and of neighbours."""
    histograms = (found.random, found.nearest, found.last)
    names = ("random pairs", "nearest neighbour", f"neighbour at place {found.k}")
    highest = 1.1 * max(max(each.shares) for each in histograms)
    frame = svg.Frame(_ends(found.random), (0.0, highest), top=svg.below(names))
    parts = svg.axes(frame, svg.round_steps(*frame.x), "{:g}".format, names=("score", "share of pairs"))
    parts += [svg.steps(frame, each.edges, each.shares, place) for place, each in enumerate(histograms)]
    label = "Score distributions. " + "; ".join(
        f"{name}: middle {_middle(each):.3g}" for name, each in zip(names, histograms, strict=True)
    )
    return svg.picture(frame, parts + svg.legend(names), label)


def _ends(found: Histogram) -> tuple[float, float]:
    return found.edges[0], found.edges[-1]


def _middle(found: Histogram) -> float:
    """Return about the median of a histogram."""
    reached = 0.0
    for place, share in enumerate(found.shares):
        reached += share
        if reached >= 0.5:
            return (found.edges[place] + found.edges[place + 1]) / 2
    return found.edges[-1]


def occurrences(found: Hubness) -> str:
    """Return how many rows are found at least so often, beside what chance gives."""
    seen = _at_least(found.counts, found.rows)
    chance = _by_chance(found, len(seen))
    least = 0.5 / found.rows
    names = ("measured", "drawn by chance")
    across = 1.0, float(max(10, len(seen)))
    frame = svg.Frame(across, (least, 1.0), logarithmic=True, rising=True, top=svg.below(names))
    shares = svg.powers(least, 1.0)
    parts = svg.axes(
        frame,
        [*svg.powers(1.0, 0.8 * across[1]), across[1]],
        svg.count,
        names=(f"times among the {found.k} nearest", "share of vectors found at least so often"),
        heights=shares,
        level=_percent,
    )
    parts.append(svg.line(frame, [point for point in chance if point[1] >= least], 1))
    parts.append(svg.line(frame, seen, 0))
    parts.append(svg.dots(frame, [seen[-1]], 0))
    label = (
        f"How often vectors are found: skewness {found.skewness.value:.2f}, by chance {found.floor:.2f}; the most "
        f"frequent {found.largest} times; never {found.antihubs.value:.1%}"
    )
    return svg.picture(frame, parts + svg.legend(names), label)


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _at_least(counts: Sequence[int], rows: int) -> list[svg.Point]:
    """Return (times, share of rows found at least so often) for 1, 2, ... times."""
    points, left = [], rows - counts[0]
    for times in range(1, len(counts)):
        points.append((float(times), left / rows))
        left -= counts[times]
    return points or [(1.0, 0.5 / rows)]


def _by_chance(found: Hubness, longest: int) -> list[svg.Point]:
    """Return the same for binomial counts."""
    draws, chance = found.queries - 1, found.k / max(1, found.rows - 1)
    share, points = 1.0, []
    for times in range(1, min(longest, draws) + 1):
        share -= _binomial(draws, chance, times - 1)
        points.append((float(times), max(share, 0.0)))
    return points


def _binomial(draws: int, chance: float, times: int) -> float:
    logs = math.lgamma(draws + 1) - math.lgamma(times + 1) - math.lgamma(draws - times + 1)
    return math.exp(logs + times * math.log(chance) + (draws - times) * math.log1p(-chance))


def dimensions(found: Dimension, width: int, used: float | None) -> str:
    """Return the estimates of dimension with their intervals, and how they vary from place to place."""
    ends = [*found.local, found.mle.high, found.two_nn.high, *([used] if used else [])]
    known = [each for each in ends if math.isfinite(each)]
    frame = svg.Frame((0.0, 1.08 * max(known)), (0, 1), _LABELS, 200)
    parts = [svg.rule((frame.across(tick), svg.TOP), (frame.across(tick), 200 - svg.BOTTOM)) for tick in _ticks(frame)]
    parts += svg.axes(frame, _ticks(frame), "{:g}".format, names=("dimensions", ""), heights=())
    level = svg.TOP + 22
    for place, (name, ends3) in enumerate(
        (
            (f"MLE, {found.neighbours} neighbours", (found.mle.value, found.mle.low, found.mle.high)),
            ("TwoNN, 2 neighbours", (found.two_nn.value, found.two_nn.low, found.two_nn.high)),
        )
    ):
        parts.append(svg.text(_LABELS - 8, level + 4, name, "end"))
        parts.append(svg.interval(frame, level, ends3, place))
        level += 30
    low, lower, middle, upper, high = (frame.across(each) for each in found.local)
    parts.append(svg.text(_LABELS - 8, level + 4, "around single vectors", "end"))
    parts.append(svg.rule((low, level), (high, level), "s2", 1.5))
    parts.append(
        f'<rect x="{lower:.1f}" y="{level - 7}" width="{max(1.0, upper - lower):.1f}" height="14" class="a2"/>'
    )
    parts.append(svg.rule((middle, level - 7), (middle, level + 7), "s2", 2.5))
    if used:
        parts.append(svg.text(_LABELS - 8, level + 34, "equal dimensions used", "end"))
        parts.append(svg.marker(frame.across(used), level + 30, 3, 4.4))
    estimates = f"{found.mle.value:.1f} by maximum likelihood, {found.two_nn.value:.1f} by TwoNN"
    label = f"Local dimension {estimates}, of {width} columns"
    return svg.picture(frame, parts, label)


def _ticks(frame: svg.Frame) -> list[float]:
    return svg.round_steps(*frame.x)


def recalls(indexes: Sequence[IndexHealth]) -> str | None:
    """Return recall against effort of every curve that was measured."""
    curves = [
        (f"{index.kind}, recall@{curve.k}, {curve.source}", curve.points)
        for index in indexes
        for curve in index.curves
        if curve.points
    ][: svg.SERIES]
    if not curves:
        return None
    efforts = [float(effort) for _, points in curves for effort, _ in points]
    values = [recall for _, points in curves for _, recall in points]
    low, high = min(efforts), max(efforts)
    names = [name for name, _ in curves]
    across, upright = (low, high if high > low else 2 * low), (max(0.0, min(values) - 0.05), 1.02)
    frame = svg.Frame(across, upright, logarithmic=True, top=svg.below(names))
    ticks = [each for each in svg.powers(low, high, 2) if each >= low]
    ticks = ticks[:: max(1, math.ceil(len(ticks) / 8))] or [low]
    parts = svg.axes(frame, ticks, svg.count, names=("effort, candidates", "recall"))
    for place, (_, points) in enumerate(curves):
        known = [(float(effort), recall) for effort, recall in points]
        parts += [svg.line(frame, known, place), svg.dots(frame, known, place, 2.6)]
    label = "Recall against effort. " + "; ".join(f"{name}: up to {max(r for _, r in p):.3f}" for name, p in curves)
    return svg.picture(frame, parts + svg.legend(names), label)


def drifting(found: Drift) -> str:
    """Return the distance of each window from all others and from the one before, with what chance gives."""
    names = ("from all others", "from the one before")
    values = [window.coefficient for window in found.windows]
    lowest = min(0.0, *values, *found.steps, found.chance[0]) * 1.1
    highest = 1.15 * max(*values, *found.steps, found.limit, found.step_limit, 1e-4)
    frame = svg.Frame((0.0, float(found.windows[-1].stop)), (lowest, highest), left=66, top=svg.below(names))
    ticks = [0.0, *(float(window.stop) for window in found.windows)]
    kept = ticks[:: max(1, math.ceil(len(ticks) / 6))]
    parts = [svg.band(frame, *found.chance)]
    parts += svg.axes(frame, kept, svg.count, names=(_commits(found), "energy coefficient"), level=_level)
    limit = frame.up(found.limit)
    parts.append(svg.rule((frame.left, limit), (svg.WIDTH - svg.RIGHT, limit), "line", 1.2, "4 3"))
    parts.append(svg.text(frame.left + 4, limit - 4, "limit of chance", "start"))
    middles = [(window.first + window.stop) / 2 for window in found.windows]
    edges = [float(window.first) for window in found.windows[1:]]
    for place, points in enumerate((zip(middles, values, strict=True), zip(edges, found.steps, strict=True))):
        known = list(points)
        parts += [svg.line(frame, known, place), svg.dots(frame, known, place, 3.6)]
    said = ", ".join(f"{value:.4f}" for value in values)
    label = f"Drift over windows from old to new: {said}; by chance below {found.limit:.4f}"
    return svg.picture(frame, parts + svg.legend(names), label)


def _level(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e-12 or abs(value) >= 1e-3 else f"{value:.0e}"


def _commits(found: Drift) -> str:
    known = [seq for window in found.windows if window.seq is not None for seq in window.seq]
    first, last = (min(known), max(known)) if known else (0, 0)
    log = "" if not known else f", commit {last}" if first == last else f", commits {first} to {last}"
    return f"vectors, oldest first{log}"


def mapped(found: Plane) -> str:
    """Return the map of a sample; what belongs to no group lies underneath, in grey."""
    names = sorted(set(found.groups) - {OTHER}, key=_group_order)
    across = svg.around([x for x, _ in found.points])
    upright = svg.around([y for _, y in found.points])
    frame = svg.Frame(across, upright, left=svg.RIGHT, height=380, top=svg.below([*names, OTHER]))
    groups = found.groups or (OTHER,) * len(found.points)
    parts = [svg.speck(frame, point) for point, group in zip(found.points, groups, strict=True) if group == OTHER]
    for place, name in enumerate(names):
        own = [point for point, group in zip(found.points, groups, strict=True) if group == name]
        parts.append(svg.dots(frame, own, place, 2.6))
    first, second = (f"{100 * share:.1f} %" for share in found.explained)
    parts.append(svg.text(svg.WIDTH / 2, frame.height - 10, f"widest direction, {first} of the variance; up {second}"))
    label = f"Map of {len(found.points)} vectors by {found.by or 'place'}, showing {first} and {second} of the variance"
    return svg.picture(frame, [*parts, *svg.legend(names)], label)


_QUARTERS = ("oldest quarter", "second quarter", "third quarter", "newest quarter")


def _group_order(name: str) -> tuple[int, str]:
    """Return the place of a group in the legend: quarters by age."""
    return (_QUARTERS.index(name), name) if name in _QUARTERS else (len(_QUARTERS), name)


def lengths(found: Norms) -> str:
    """Return the distribution of norms."""
    frame = svg.Frame(_ends(found.spread), (0.0, 1.1 * max(found.spread.shares)), height=200)
    ticks = svg.round_steps(*frame.x)
    parts = svg.axes(frame, ticks, _short, names=("norm", "share of vectors"))
    parts.append(svg.steps(frame, found.spread.edges, found.spread.shares, 0))
    low, high = found.quantiles[0], found.quantiles[-1]
    return svg.picture(frame, parts, f"Norms from {low:.4g} to {high:.4g}, mean {found.mean.value:.4g}")


def _short(value: float) -> str:
    return f"{value:.6g}"


def neighbours(found: Sequence[Versions]) -> str | None:
    """Return how many neighbours other spaces have in common with this one, beside what chance gives."""
    if not found:
        return None
    height = svg.TOP + svg.BOTTOM + 30 * len(found)
    frame = svg.Frame((0.0, 1.0), (0, 1), _LABELS, height)
    ticks = svg.round_steps(0.0, 1.0)
    parts = [svg.rule((frame.across(tick), svg.TOP), (frame.across(tick), height - svg.BOTTOM)) for tick in ticks]
    parts += svg.axes(frame, ticks, "{:.0%}".format, names=("of the nearest records in common", ""), heights=())
    for place, each in enumerate(found):
        level = svg.TOP + 16 + 30 * place
        parts.append(svg.text(_LABELS - 8, level + 4, each.other, "end", most=22))
        parts.append(svg.interval(frame, level, (each.overlap.value, each.overlap.low, each.overlap.high), 0))
        chance = frame.across(each.overlap_by_chance)
        parts.append(svg.rule((chance, level - 8), (chance, level + 8), "line", 2, "3 2"))
    said = "; ".join(f"{each.other} {each.overlap.value:.0%}" for each in found)
    return svg.picture(frame, parts, f"Nearest records in common with other spaces: {said}")
