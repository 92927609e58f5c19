"""Pictures of a report as SVG text: axes, lines, intervals. Plain strings; nothing is loaded to draw them.

Invariant: only numbers and words of this module and escaped names get into the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from vecdb.evaluation import Estimate
from vecdb.upgrade.findings import Findings, Mixing, Native, Shift

__all__ = ["advantages", "backfill", "learning", "nested", "scores"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 430, 240, 56, 34, 14
_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where numbers lie in a picture: ranges of both axes, and the left margin."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: int = _LEFT
    height: int = _HEIGHT
    logarithmic: bool = False

    def across(self, value: float) -> float:
        low, high = self.x
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.left + (value - low) / ((high - low) or 1.0) * (_WIDTH - self.left - 14)

    def up(self, value: float) -> float:
        low, high = self.y
        return self.height - _BOTTOM - (value - low) / ((high - low) or 1.0) * (self.height - _BOTTOM - _TOP)


def _picture(frame: _Frame, parts: Iterable[str], label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{frame.height}" role="img" '
        f'aria-label="{escape(label)}" font-family="system-ui, sans-serif" font-size="11">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, words: str, anchor: str = "middle", colour: str = "#445") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def _rule(one: Point, other: Point, colour: str = "#cbd2da", width: float = 1.0, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{one[0]:.1f}" y1="{one[1]:.1f}" x2="{other[0]:.1f}" y2="{other[1]:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dashed}/>'
    )


def _line(frame: _Frame, points: Sequence[Point], colour: str) -> str:
    at = " ".join(f"{frame.across(x):.1f},{frame.up(y):.1f}" for x, y in points)
    return f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _dots(frame: _Frame, points: Sequence[Point], colour: str) -> str:
    return "".join(
        f'<circle cx="{frame.across(x):.1f}" cy="{frame.up(y):.1f}" r="3.2" fill="{colour}"/>' for x, y in points
    )


def _axes(frame: _Frame, ticks: Sequence[float], shown: Callable[[float], str]) -> list[str]:
    """Return both axes: rules at round heights, and the given places along the bottom."""
    parts = []
    for height in _round_steps(*frame.y):
        level = frame.up(height)
        parts.append(_rule((frame.left, level), (_WIDTH - 14, level), "#e4e8ee"))
        parts.append(_text(frame.left - 6, level + 4, f"{height:g}", "end"))
    for tick in ticks:
        parts.append(_text(frame.across(tick), frame.height - _BOTTOM + 16, shown(tick)))
    return parts


def _round_steps(low: float, high: float) -> list[float]:
    """Return about five round numbers between two."""
    span = max(high - low, 1e-9)
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, int(high / step + 1e-9) + 1)]


def _legend(names: Sequence[str], left: float) -> list[str]:
    return [
        _text(left, _TOP + 8 + 14 * place, name, "start", _COLOURS[place % len(_COLOURS)])
        for place, name in enumerate(names)
    ]


def _around(values: Sequence[float], *, least: float | None = None) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    room = 0.12 * ((high - low) or max(abs(high), 1e-3))
    return (low - room if least is None else min(least, low)), high + room


# --- the pictures -----------------------------------------------------------------------------------------


def advantages(found: Findings) -> str:
    """Return every advantage with its interval, and the retention, beside the line at 1."""
    bars: list[tuple[str, Estimate]] = [(str(each.arm), each.advantage) for each in found.arms if each.advantage]
    bars += [("staying, corrected", found.correction)] if found.correction else []
    if found.native is not None:
        bars += [("retention", found.native.retention)]
        bars += [("gain of re-embedding", found.native.gain)] if found.native.gain else []
    ends = [number for _, bar in bars for number in (bar.low, bar.high)]
    height = _TOP + _BOTTOM + 22 * max(len(bars), 1)
    frame = _Frame(_around([*ends, 1.0]), (0, 1), 190, height)
    one = frame.across(1.0)
    parts = [_rule((one, _TOP), (one, height - _BOTTOM), "#555", dash="4 3")]
    parts += [_text(frame.across(tick), height - _BOTTOM + 16, f"{tick:g}") for tick in _round_steps(*frame.x)]
    for place, (name, bar) in enumerate(bars):
        level = _TOP + 11 + 22 * place
        colour = _COLOURS[0] if bar.low > 1 else _COLOURS[1] if bar.high < 1 else "#718096"
        parts.append(_text(184, level + 4, name, "end"))
        parts.append(_rule((frame.across(bar.low), level), (frame.across(bar.high), level), colour, 3))
        parts.append(f'<circle cx="{frame.across(bar.value):.1f}" cy="{level}" r="4.5" fill="{colour}"/>')
    return _picture(frame, parts, "advantage and retention with intervals")


def nested(native: Native, rows: int) -> str:
    """Return retention and gain over the size of the gallery, carried on to the whole collection."""
    retention = [(float(each.size), each.retention) for each in native.nested]
    gain = [(float(each.size), each.gain) for each in native.nested if each.gain is not None]
    gain = [point for point in gain if math.isfinite(point[1])]
    further = [[(float(rows), value)] if value is not None else [] for value in native.at_full_size]
    values = [value for _, value in (*retention, *gain, *further[0], *further[1])]
    frame = _Frame((retention[0][0], float(max(rows, native.size))), _around(values), logarithmic=True)
    parts = _axes(frame, [retention[0][0], float(native.size), *([float(rows)] if rows > native.size else [])], _count)
    for points, carried, colour in ((retention, further[0], _COLOURS[0]), (gain, further[1], _COLOURS[1])):
        parts += [_line(frame, points, colour), _dots(frame, points, colour)] if points else []
        if points and carried and rows > native.size:
            ends = [(frame.across(x), frame.up(y)) for x, y in (points[-1], carried[0])]
            parts.append(_rule(ends[0], ends[1], colour, 1.5, "5 4"))
    return _picture(frame, parts + _legend(["retention", "gain"], _LEFT + 8), "retention and gain by gallery size")


def learning(found: Findings) -> str:
    """Return what the chosen map is worth by the number of pairs."""
    points = [(float(pairs), value) for pairs, value in found.learning]
    frame = _Frame((points[0][0], points[-1][0]), _around([value for _, value in points]), logarithmic=True)
    parts = _axes(frame, [x for x, _ in points], _count)
    return _picture(
        frame, [*parts, _line(frame, points, _COLOURS[0]), _dots(frame, points, _COLOURS[0])], "learning curve"
    )


def backfill(mixing: Mixing) -> str:
    """Return what one list is worth by the share of native rows, for each calibration."""
    values = [value for _, curve in mixing.curves for value in curve]
    frame = _Frame((0.0, 1.0), _around(values))
    parts = _axes(frame, mixing.shares, lambda share: f"{share:.0%}")
    for (_, curve), colour in zip(mixing.curves, _COLOURS, strict=False):
        points = list(zip(mixing.shares, curve, strict=True))
        parts += [_line(frame, points, colour), _dots(frame, points, colour)]
    return _picture(frame, parts + _legend([name for name, _ in mixing.curves], _LEFT + 8), "backfill curve")


def scores(shift: Shift) -> str:
    """Return the distributions of native, bridged and calibrated scores."""
    curves = (shift.native, shift.raw, shift.calibrated)
    middles = [(one + other) / 2 for one, other in zip(shift.edges, shift.edges[1:], strict=False)]
    frame = _Frame(
        (shift.edges[0], shift.edges[-1]), _around([value for curve in curves for value in curve], least=0.0)
    )
    parts = _axes(frame, _round_steps(*frame.x), lambda score: f"{score:g}")
    parts += [
        _line(frame, list(zip(middles, curve, strict=True)), colour)
        for curve, colour in zip(curves, _COLOURS, strict=False)
    ]
    names = ["native", "bridged", "bridged, calibrated"]
    return _picture(frame, parts + _legend(names, _LEFT + 8), "score distributions")


def _count(value: float) -> str:
    return f"{value:,.0f}"
