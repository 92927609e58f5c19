"""The tables of a comparison as Markdown: rates at a recall, what an index costs, filters, inserts, bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from tools.bench.compare import bars
from tools.bench.compare.arithmetic import bracket
from tools.bench.compare.bars import Claim, Found
from tools.bench.compare.record import curves
from tools.bench.compare.sets import CONDITIONS

_MIB = 2**20


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def label(name: str) -> str:
    """Return "peer:variant" as a cell; vecdb's own stand out."""
    text = name.replace(":", " ")
    return f"**{text}**" if name.startswith("vecdb:") else text


def rate_at(record: Mapping[str, Any], target: float, phase: str, how: str, clock: str) -> float | None:
    """Return the rate of a record at a recall in the last run that reached it."""
    known = curves(record, phase, how)
    for run in sorted(known, reverse=True):
        place = bracket(known[run], target, clock)
        if place is not None:
            return place.rate(clock)
    return None


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value / _MIB:,.1f}"


def rates(found: Found) -> str:
    """Return the rates of all that was measured, the fastest at a recall of 0.95 first."""
    head = ["index", "0.90", "0.95", "0.99", "0.95 wall", "0.95 batch", "0.99 batch", "0.95 batch, all threads", "most"]
    order = sorted(_measured(found), key=lambda name: -(rate_at(found[name], 0.95, "curve", "single", "cpu") or 0))
    return table(head, (_rates_of(name, found[name]) for name in order))


def _rates_of(name: str, record: Mapping[str, Any]) -> list[str]:
    single = [rate_at(record, target, "curve", "single", "cpu") for target in (0.9, 0.95, 0.99)]
    batch = [rate_at(record, target, "curve", "batch", "cpu") for target in (0.95, 0.99)]
    wall = rate_at(record, 0.95, "curve", "single", "wall")
    together = rate_at(record, 0.95, "threads", "batch", "wall")
    known = curves(record)
    most = max(point.recall for point in known[max(known)])
    return [label(name), *(_rate(each) for each in (*single, wall, *batch, together)), f"{most:.4f}"]


def costs(found: Found) -> str:
    """Return what each index costs to build, to keep and to open."""
    head = ["index", "version", "records CPU s", "build CPU s", "threads", "build peak MiB", "index MiB", "files MiB"]
    head += ["resident MiB", "of it own MiB", "cold s"]
    return table(head, (_costs_of(name, found[name]) for name in sorted(found) if found[name].get("built")))


def _costs_of(name: str, record: Mapping[str, Any]) -> list[str]:
    built, cold = record["built"], bars.last(record, "cold")
    seconds = [f"{built[part][1]:.1f}" for part in ("store", "build")]
    sizes = [_mib(built.get(size)) for size in ("peak", "index", "disk")]
    memory = [_mib(each) for each in _grown(record)]
    threads = str(built.get("threads", 1))
    return [
        label(name),
        record["version"],
        *seconds,
        threads,
        *sizes,
        *memory,
        "" if not cold else f"{median(cold):.3f}",
    ]


def _grown(record: Mapping[str, Any]) -> list[float | None]:
    """Return what opening and asking added to the memory of a process: all that is resident, and its own."""
    memory = (bars.last(record, "memory") or {}).get("curve", {})
    kinds = ("resident", "anonymous")
    return [memory[kind] - memory["before"][kind] if kind in memory else None for kind in kinds]


def filters(found: Found) -> str:
    """Return the rate at the first recall of 0.95 under each condition, or the best recall that was reached."""
    names = [name for name in _named(found) if bars.last(found[name], "filter")]
    rows = []
    for name in names:
        cells = [_filter_cell(*bars.filtered(found[name], condition.name)) for condition in CONDITIONS]
        if any(cells):
            rows.append([label(name), *cells])
    return table(["index", *(condition.name for condition in CONDITIONS)], rows) if rows else ""


def _filter_cell(rate: float | None, best: float) -> str:
    return _rate(rate) if rate is not None else f"(recall {best:.3f})" if best else ""


def inserts(found: Found) -> str:
    """Return the rates of durable inserts."""
    rows = []
    for name in _named(found):
        taken = [bars.insert_rate(found[name], size) for size in ("1", "1000")]
        if any(taken):
            rows.append([label(name), *(_rate(each) for each in taken)])
    return table(["index", "1 row a batch, rows/s", "1,000 rows a batch, rows/s"], rows) if rows else ""


def asked(found: Found) -> str:
    """Return what asking for a recall gave."""
    rows = []
    for name in _named(found):
        known = curves(found[name], asked=True)
        for point in known[max(known)] if known else ():
            rows.append([label(name), f"`{point.setting}`", f"{point.recall:.4f}", _rate(point.rate("cpu"))])
    return table(["index", "asked", "recall@10", "queries/CPU s"], rows) if rows else ""


def verdicts(claims: Iterable[Claim]) -> str:
    """Return bars and whether they are held."""
    head = ["what", "vecdb", "against", "ratio", "wall", "bar", ""]
    return table(head, (_verdict_of(claim) for claim in claims))


def _verdict_of(claim: Claim) -> list[str]:
    bar = f"{'>=' if claim.at_least else '<='} {claim.bar:.3g}"
    wall = "" if claim.wall is None else f"{claim.wall:.2f}"
    against = "itself" if claim.against == claim.own else claim.against.replace(":", " ")
    return [claim.what, claim.own.partition(":")[2], against, f"{claim.ratio:.2f}", wall, bar, claim.verdict]


def absent(found: Found) -> Iterator[str]:
    """Yield a sentence for each index that could not be measured, with the reason."""
    for name in _named(found):
        record = found[name]
        errors = bars.last(record, "errors") or {}
        reason = record.get("absent") or (errors.get("build") if record.get("built") is None else errors.get("curve"))
        if reason:
            yield f"{label(name)} was not measured: {reason}."


def _measured(found: Found) -> list[str]:
    return [name for name in _named(found) if curves(found[name])]


def _named(found: Found) -> list[str]:
    return sorted(found, key=lambda name: (not name.startswith("vecdb:"), name))
