"""Parts of a picture as SVG text: axes, lines, dots, steps, intervals.

Colours are classes that the page gives values for (`page.STYLE`), so that a picture can be read on light and on dark
ground; series differ in shape or dash as well, not in colour alone. Nothing is loaded to draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vecdb.drawing.words import safe, short

__all__ = [
    "BOTTOM",
    "HEIGHT",
    "LEFT",
    "SERIES",
    "TOP",
    "WIDTH",
    "Frame",
    "Point",
    "around",
    "axes",
    "band",
    "below",
    "count",
    "dots",
    "interval",
    "legend",
    "line",
    "marker",
    "picture",
    "powers",
    "round_steps",
    "rule",
    "speck",
    "steps",
    "text",
]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 260, 58, 44, 16, 14
SERIES = 7
"""Series that have a look of their own; the next one begins anew."""
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "12 4", "1 4")
_LETTER, _ROW, _NAME = 6.1, 15, 34
"""Width of a letter and height of a row of a legend, and letters of a name."""
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """Where numbers lie in a picture: ranges of both axes and the margin on the left."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: int = LEFT
    height: int = HEIGHT
    logarithmic: bool = False
    rising: bool = False
    """Whether the upright axis is logarithmic."""
    top: int = TOP

    def across(self, value: float) -> float:
        """Return the place of a value along the bottom."""
        return self.left + _share(self.x, value, self.logarithmic) * (WIDTH - self.left - RIGHT)

    def up(self, value: float) -> float:
        """Return the height of a value, counted from the top."""
        return self.height - BOTTOM - _share(self.y, value, self.rising) * (self.height - BOTTOM - self.top)


def _share(ends: tuple[float, float], value: float, logarithmic: bool) -> float:
    low, high = ends
    if logarithmic:
        low, high, value = (math.log(max(each, 1e-300)) for each in (low, high, value))
    return min(1.02, max(-0.02, (value - low) / ((high - low) or 1.0)))


def picture(frame: Frame, parts: Iterable[str], label: str) -> str:
    """Return a whole picture; `label` says to those who cannot see it what it shows, numbers included."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {frame.height}" width="{WIDTH}" '
        f'height="{frame.height}" role="img" aria-label="{safe(label)}">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, words: str, anchor: str = "middle", kind: str = "muted", most: int = 60) -> str:
    """Return words; `kind` is a class: "ink", "muted", or "t0", "t1", ... in the colour of a series."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{short(words, most)}</text>'


def rule(one: Point, other: Point, kind: str = "grid", width: float = 1.0, dash: str = "") -> str:
    """Return a straight line between two places."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{one[0]:.1f}" y1="{one[1]:.1f}" x2="{other[0]:.1f}" y2="{other[1]:.1f}"'
    return f'<line {ends} class="{kind}" stroke-width="{width:g}"{dashed}/>'


def line(frame: Frame, points: Sequence[Point], series: int = 0, *, plain: bool = False) -> str:
    """Return a line through points in the look of a series; `plain` without its dashes."""
    known = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not known:
        return ""
    at = " ".join(f"{frame.across(x):.1f},{frame.up(y):.1f}" for x, y in known)
    dash = "" if plain else _DASHES[series % SERIES]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{at}" fill="none" class="s{series % SERIES}" stroke-width="2"{dashed}/>'


def steps(frame: Frame, edges: Sequence[float], shares: Sequence[float], series: int = 0) -> str:
    """Return a histogram: its area, lightly filled, and its outline."""
    points: list[Point] = [(edges[0], 0.0)]
    for place, share in enumerate(shares):
        points += [(edges[place], share), (edges[place + 1], share)]
    points.append((edges[-1], 0.0))
    at = " ".join(f"{frame.across(x):.1f},{frame.up(y):.1f}" for x, y in points)
    return f'<polygon points="{at}" class="a{series % SERIES}"/>' + line(frame, points, series, plain=series == 0)


def dots(frame: Frame, points: Sequence[Point], series: int = 0, size: float = 3.4) -> str:
    """Return a mark at each point, in the shape of a series."""
    known = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    return "".join(marker(frame.across(x), frame.up(y), series, size) for x, y in known)


def marker(x: float, y: float, series: int = 0, size: float = 3.4) -> str:
    """Return one mark: circle, square, triangle, diamond, then these again as outlines."""
    kind = f"f{series % SERIES}" if series % SERIES < 4 else f"o{series % SERIES}"
    shape = series % 4
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" class="{kind}"/>'
    if shape == 1:
        side = 1.8 * size
        corner = f'x="{x - side / 2:.1f}" y="{y - side / 2:.1f}"'
        return f'<rect {corner} width="{side:.1f}" height="{side:.1f}" class="{kind}"/>'
    reach = 1.3 * size
    corners = [(0, -reach), (reach, 0.8 * reach), (-reach, 0.8 * reach)]
    if shape == 3:
        corners = [(0, -reach), (reach, 0), (0, reach), (-reach, 0)]
    at = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{at}" class="{kind}"/>'


def speck(frame: Frame, point: Point) -> str:
    """Return a small grey mark, for what is only ground to others."""
    return f'<circle cx="{frame.across(point[0]):.1f}" cy="{frame.up(point[1]):.1f}" r="1.8" class="speck"/>'


def interval(frame: Frame, level: float, ends: tuple[float, float, float], series: int = 0) -> str:
    """Return value, low and high of `ends` as a mark on a bar that lies at a height of the picture."""
    value, low, high = ends
    parts = ""
    if math.isfinite(low) and math.isfinite(high):
        parts = rule((frame.across(low), level), (frame.across(high), level), f"s{series % SERIES}", 3)
    return parts + (marker(frame.across(value), level, series, 4.4) if math.isfinite(value) else "")


def band(frame: Frame, low: float, high: float) -> str:
    """Return a shaded stretch of heights over the whole width: what chance gives."""
    top, bottom = frame.up(high), frame.up(low)
    wide = WIDTH - RIGHT - frame.left
    return f'<rect x="{frame.left}" y="{top:.1f}" width="{wide}" height="{max(1.0, bottom - top):.1f}" class="band"/>'


def axes(
    frame: Frame,
    ticks: Sequence[float],
    shown: Callable[[float], str],
    *,
    names: tuple[str, str] = ("", ""),
    heights: Sequence[float] | None = None,
    level: Callable[[float], str] = "{:g}".format,
) -> list[str]:
    """Return both axes: rules at round heights, the given places along the bottom, and what both axes are."""
    parts = []
    for height in round_steps(*frame.y) if heights is None else heights:
        at = frame.up(height)
        parts.append(rule((frame.left, at), (WIDTH - RIGHT, at)))
        parts.append(text(frame.left - 6, at + 4, level(height), "end"))
    for tick in ticks:
        words, at = shown(tick), frame.across(tick)
        at = min(at, WIDTH - 2 - _LETTER * len(words) / 2)  # the last one stays inside
        parts.append(text(at, frame.height - BOTTOM + 16, words))
    if names[0]:
        parts.append(text((frame.left + WIDTH - RIGHT) / 2, frame.height - 8, names[0]))
    if names[1]:
        parts.append(text(4, 11, names[1], "start"))
    return parts


def legend(names: Sequence[str], *, first: int = 0, y: float = 26) -> list[str]:
    """Return the names of series beside their marks, in rows above the picture: see `below`."""
    parts = []
    for place, (x, row) in enumerate(_places(names)):
        series, level = first + place, y + _ROW * row
        parts.append(marker(x + 5, level - 4, series, 3.6))
        parts.append(text(x + 13, level, names[place], "start", f"t{series % SERIES}", _NAME))
    return parts


def below(names: Sequence[str]) -> int:
    """Return the top margin that a legend of these names takes, that of the upright axis included."""
    rows = 1 + max((row for _, row in _places(names)), default=-1)
    return TOP + 6 + _ROW * rows


def _places(names: Sequence[str]) -> list[tuple[float, int]]:
    """Return where the names of a legend begin: as many in a row as there is room for."""
    places, x, row = [], 4.0, 0
    for name in names:
        wide = 26 + _LETTER * min(len(name), _NAME)
        if x > 4 and x + wide > WIDTH:
            x, row = 4.0, row + 1
        places.append((x, row))
        x += wide
    return places


def round_steps(low: float, high: float) -> list[float]:
    """Return about five round numbers between two."""
    span = max(high - low, 1e-9)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def powers(low: float, high: float, base: int = 10) -> list[float]:
    """Return the powers of a base between two positive numbers."""
    start = math.ceil(math.log(low, base) - 1e-9)
    return [float(base) ** each for each in range(start, math.floor(math.log(high, base) + 1e-9) + 1)]


def around(values: Sequence[float], *, least: float | None = None) -> tuple[float, float]:
    """Return a range that holds all finite values and some room; `least` is where it begins at the latest."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    room = 0.12 * ((high - low) or max(abs(high), 1e-3))
    return (low - room if least is None else min(least, low)), high + room


def count(value: float) -> str:
    """Return a number of things."""
    return f"{value:,.0f}"
