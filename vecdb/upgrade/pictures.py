"""Pictures of a report on an upgrade: what is drawn of which finding. Parts of pictures are in vecdb/drawing.

Every function returns the SVG text of one picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vecdb.drawing import svg
from vecdb.evaluation import Estimate
from vecdb.upgrade.findings import Findings, Mixing, Native, Shift

__all__ = ["advantages", "backfill", "learning", "nested", "scores"]

_NAMES = 190
"""Left margin where names stand beside bars."""
_ROW = 22
_BETTER, _WORSE, _OPEN = 0, 1, 6
"""Series of a bar that lies right of 1, left of it, or on it."""


def advantages(found: Findings) -> str:
    """Return every advantage with its interval, and the retention, beside the line at 1."""
    bars = _bars(found)
    ends = [number for _, bar in bars for number in (bar.low, bar.high, bar.value)]
    height = svg.TOP + svg.BOTTOM + _ROW * max(len(bars), 1)
    frame = svg.Frame(svg.around([*ends, 1.0]), (0, 1), _NAMES, height)
    one = frame.across(1.0)
    parts = svg.axes(frame, svg.round_steps(*frame.x), "{:g}".format, names=("ratio", ""), heights=())
    parts.append(svg.rule((one, svg.TOP), (one, height - svg.BOTTOM), "line", dash="4 3"))
    for place, (name, bar) in enumerate(bars):
        level = svg.TOP + _ROW / 2 + _ROW * place
        parts.append(svg.text(_NAMES - 6, level + 4, name, "end", most=29))
        parts.append(svg.interval(frame, level, (bar.value, bar.low, bar.high), _side_of_one(bar)))
    said = "; ".join(f"{name} {bar}" for name, bar in bars)
    return svg.picture(frame, parts, f"advantage and retention with intervals: {said}")


def _bars(found: Findings) -> list[tuple[str, Estimate]]:
    bars: list[tuple[str, Estimate]] = [(str(each.arm), each.advantage) for each in found.arms if each.advantage]
    bars += [("staying, corrected", found.correction)] if found.correction else []
    if found.native is not None:
        bars += [("retention", found.native.retention)]
        bars += [("gain of re-embedding", found.native.gain)] if found.native.gain else []
    return bars


def _side_of_one(bar: Estimate) -> int:
    return _BETTER if bar.low > 1 else _WORSE if bar.high < 1 else _OPEN


def nested(native: Native, rows: int) -> str:
    """Return retention and gain over the size of the gallery, carried on to the whole collection."""
    retention = [(float(each.size), each.retention) for each in native.nested]
    gain = [(float(each.size), each.gain) for each in native.nested if each.gain is not None]
    gain = [point for point in gain if math.isfinite(point[1])]
    further = [[(float(rows), value)] if value is not None else [] for value in native.at_full_size]
    values = [value for _, value in (*retention, *gain, *further[0], *further[1])]
    names = ["retention", "gain"] if gain else ["retention"]
    across = retention[0][0], float(max(rows, native.size))
    frame = svg.Frame(across, svg.around(values), logarithmic=True, top=svg.below(names))
    ticks = [retention[0][0], float(native.size), *([float(rows)] if rows > native.size else [])]
    parts = svg.axes(frame, ticks, svg.count, names=("records in the gallery", "ratio"))
    for place, (points, carried) in enumerate(((retention, further[0]), (gain, further[1]))):
        parts += [svg.line(frame, points, place, plain=True), svg.dots(frame, points, place)] if points else []
        if points and carried and rows > native.size:
            one, other = ((frame.across(x), frame.up(y)) for x, y in (points[-1], carried[0]))
            parts.append(svg.rule(one, other, f"s{place}", 1.5, "5 4"))
    return svg.picture(frame, parts + svg.legend(names), "retention and gain by gallery size")


def learning(found: Findings) -> str:
    """Return what the chosen map is worth by the number of pairs."""
    points = [(float(pairs), value) for pairs, value in found.learning]
    frame = svg.Frame((points[0][0], points[-1][0]), svg.around([value for _, value in points]), logarithmic=True)
    parts = svg.axes(frame, [x for x, _ in points], svg.count, names=("pairs fitted on", found.metric))
    label = "learning curve: " + ", ".join(f"{pairs:,} pairs {value:.3f}" for pairs, value in found.learning)
    return svg.picture(frame, [*parts, svg.line(frame, points), svg.dots(frame, points)], label)


def backfill(mixing: Mixing) -> str:
    """Return what one list is worth by the share of native rows, for each calibration."""
    values = [value for _, curve in mixing.curves for value in curve]
    names = [name for name, _ in mixing.curves]
    frame = svg.Frame((0.0, 1.0), svg.around(values), top=svg.below(names))
    parts = svg.axes(frame, mixing.shares, "{:.0%}".format, names=("share of records re-embedded", "worth"))
    for place, (_, curve) in enumerate(mixing.curves):
        parts += _curve(frame, list(zip(mixing.shares, curve, strict=True)), place)
    return svg.picture(frame, parts + svg.legend(names), f"backfill curve by calibration: {', '.join(names)}")


def _curve(frame: svg.Frame, points: Sequence[svg.Point], place: int) -> list[str]:
    return [svg.line(frame, points, place), svg.dots(frame, points, place)]


def scores(shift: Shift) -> str:
    """Return the distributions of native, bridged and calibrated scores."""
    curves = (shift.native, shift.raw, shift.calibrated)
    names = ("native", "bridged", "bridged, calibrated")
    highest = svg.around([value for curve in curves for value in curve], least=0.0)
    frame = svg.Frame((shift.edges[0], shift.edges[-1]), highest, top=svg.below(names))
    parts = svg.axes(frame, svg.round_steps(*frame.x), "{:g}".format, names=("score", "share of scores"))
    parts += [svg.steps(frame, shift.edges, curve, place) for place, curve in enumerate(curves)]
    label = f"score distributions: distance to native {shift.before:.2f} before calibration, {shift.after:.2f} after"
    return svg.picture(frame, parts + svg.legend(names), label)
