"""Recall against rate as SVG: no library, small files, colours that follow the reader's light or dark theme.

The horizontal axis is -log10(1 - recall), so that 0.9, 0.99 and 0.999 are equally far apart; the vertical one is the
logarithm of the rate. vecdb's curves are thick, its points that ask for a recall are diamonds. Every curve is named at
its end, and the names are moved apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tools.bench.compare.arithmetic import Point, frontier

WIDTH, HEIGHT = 860, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 34, 46
_END = 0.9995
_TICKS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_OWN = ("#d1495b", "#e07a1f", "#b8336a", "#7a3fb0", "#c9a227")
_OTHERS = ("#1f77b4", "#2a9d8f", "#5b7f3b", "#17806d", "#6b7280", "#3d5a98", "#8d6e63", "#00838f", "#4e8d9c")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_STYLE = """
text { font: 12px sans-serif; fill: #24292f; } .title { font-size: 14px; font-weight: 600; }
.grid { stroke: #d0d7de; stroke-width: 1; } .line { fill: none; stroke-width: 1.4; } .own { stroke-width: 3; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .grid { stroke: #3d444d; } }
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: its name, its points, and the points that ask for a recall."""

    name: str
    points: Sequence[Point]
    asked: Sequence[Point] = ()

    @property
    def own(self) -> bool:
        """Whether it is vecdb's."""
        return self.name.startswith("vecdb")


@dataclass(frozen=True, slots=True)
class _Scale:
    """From recall and rate to places."""

    low: float
    high: float
    least: float
    most: float

    def x(self, recall: float) -> float:
        """Return the place of a recall."""
        share = (_stretch(recall) - _stretch(self.low)) / (_stretch(self.high) - _stretch(self.low))
        return _LEFT + min(1.0, max(0.0, share)) * (WIDTH - _LEFT - _RIGHT)

    def y(self, rate: float) -> float:
        """Return the place of a rate."""
        share = math.log(rate / self.least) / math.log(self.most / self.least)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _stretch(recall: float) -> float:
    return -math.log10(1 - min(recall, _END))


def plot(title: str, unit: str, series: Sequence[Series], clock: str = "cpu") -> str:
    """Return an SVG of curves; points below a recall of 0.8 are left out."""
    shown = [each for each in (_visible(each, clock) for each in series) if each.points or each.asked]
    rates = [point.rate(clock) for each in shown for point in (*each.points, *each.asked)] or [1.0, 10.0]
    scale = _Scale(0.8, _END, min(rates) / 1.2, max(rates) * 1.2)
    parts = [*_frame(title, unit, scale), *_curves(shown, scale, clock)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title><style>{_STYLE}</style>", *parts, "</svg>", ""])


def _visible(series: Series, clock: str) -> Series:
    best = [point for point in frontier(series.points, clock) if point.recall >= 0.8]
    beyond = sum(point.recall >= _END for point in best)
    best = best[: len(best) - max(0, beyond - 1)]  # what lies at the edge would be drawn on top of each other
    return Series(series.name, best, [point for point in series.asked if point.recall >= 0.8])


def _frame(title: str, unit: str, scale: _Scale) -> Iterator[str]:
    bottom = HEIGHT - _BOTTOM
    yield f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>'
    for recall in _TICKS:
        x = scale.x(recall)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{recall:g}</text>'
    for rate in _decimal_ticks(scale.least, scale.most):
        y = scale.y(rate)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{rate:,.0f}</text>'
    yield f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">recall@10</text>'
    middle = (_TOP + bottom) / 2
    turned = f'transform="rotate(-90 14 {middle:.0f})" x="14" y="{middle:.0f}"'
    yield f'<text {turned} text-anchor="middle">{escape(unit)}</text>'


def _decimal_ticks(least: float, most: float) -> Iterator[float]:
    for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1):
        for digit in (1, 2, 5):
            if least <= digit * 10.0**power <= most:
                yield digit * 10.0**power


def _curves(series: Sequence[Series], scale: _Scale, clock: str) -> Iterator[str]:
    looks = _looks(series)
    labels = _apart({each.name: scale.y(_end(each).rate(clock)) for each in series})
    for each in series:
        colour, dash = looks[each.name]
        places = [(scale.x(point.recall), scale.y(point.rate(clock))) for point in each.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        kind = "line own" if each.own else "line"
        yield f'<polyline class="{kind}" stroke="{colour}" stroke-dasharray="{dash}" points="{path}"/>'
        yield from (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 if each.own else 2}" fill="{colour}"/>' for x, y in places
        )
        for point in each.asked:
            yield _diamond(scale.x(point.recall), scale.y(point.rate(clock)), colour)
        x, y = scale.x(_end(each).recall), scale.y(_end(each).rate(clock))
        to, at = WIDTH - _RIGHT + 8, labels[each.name]
        way = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to}" y2="{at:.1f}"'
        yield f'<line {way} stroke="{colour}" stroke-width="0.5" opacity="0.6"/>'
        weight = ' font-weight="600"' if each.own else ""
        yield f'<text x="{to + 3}" y="{at + 4:.1f}" style="fill:{colour}"{weight}>{escape(each.name)}</text>'


def _end(series: Series) -> Point:
    return max([*series.points, *series.asked], key=lambda point: point.recall)


def _looks(series: Sequence[Series]) -> Mapping[str, tuple[str, str]]:
    looks, counts = {}, [0, 0]
    for each in series:
        colours = _OWN if each.own else _OTHERS
        number = counts[each.own]
        looks[each.name] = (colours[number % len(colours)], _DASHES[number // len(colours) % len(_DASHES)])
        counts[each.own] += 1
    return looks


def _apart(wanted: Mapping[str, float], gap: float = 15.0) -> Mapping[str, float]:
    """Return places at least `gap` apart in the order of the wanted ones, inside the picture where they fit."""
    order = sorted(wanted, key=wanted.__getitem__)
    found: dict[str, float] = {}
    above = -math.inf
    for name in order:
        above = found[name] = max(wanted[name], above + gap, float(_TOP))
    below = HEIGHT - 4.0
    for name in reversed(order):
        below = found[name] = min(found[name], below)
        below -= gap
    return found


def _diamond(x: float, y: float, colour: str) -> str:
    corners = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 6:.1f},{y:.1f}"
    return f'<polygon points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>'
