"""The health of a space as text for people: one line for each number, with its interval and how to read it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vecdb.evaluation.intervals import Estimate
from vecdb.health.values import IndexHealth, SpaceHealth

__all__ = ["lines_of", "number", "percent", "rows_of", "text_of"]

Row = tuple[str, str, str]


def text_of(health: SpaceHealth) -> str:
    """Return the report of one space."""
    return "\n".join(lines_of(health))


def lines_of(health: SpaceHealth) -> Iterator[str]:
    """Yield the report line by line."""
    model = f", model {health.model}" if health.model else ""
    kind = f"{health.dim} columns, {health.metric}, {health.dtype}{model}"
    yield f"Space {health.space!r} of {health.collection!r}: {kind}"
    drawn = f"{health.sampled:,} sampled, {health.asked:,} compared with all"
    yield f"{health.vectors:,} vectors at commit {health.seq}; {drawn}"
    rows = list(rows_of(health))
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, value, reading in rows:
        yield f"  {name.ljust(width)}  {value.ljust(24)}  {reading}".rstrip()
    for remark in health.remarks:
        yield f"Remark: {remark}."
    for note in health.notes:
        yield f"Note: {note}."


def rows_of(health: SpaceHealth) -> Iterator[Row]:
    """Yield name, value and reading of every number."""
    yield from _geometry(health)
    yield from _contents(health)
    yield from _judged(health)
    yield from (_index(each) for each in health.indexes)
    yield from _drift(health)


def _geometry(health: SpaceHealth) -> Iterator[Row]:
    if health.isotropy is not None:
        reading = (
            f"0 one line, 1 all directions alike; as {health.isotropy.dimensions:.1f} equal dimensions of {health.dim}"
        )
        yield "IsoScore", number(health.isotropy.score), reading
    if health.cosines is not None:
        yield "mean cosine of two", number(health.cosines.mean), f"spread {health.cosines.spread:.3f}"
    if health.dimension is not None:
        yield "local dimension, MLE", number(health.dimension.mle, 1), f"over {health.dimension.neighbours} neighbours"
        yield "local dimension, TwoNN", number(health.dimension.two_nn, 1), "over the first two"
    if health.hubness is not None:
        hubs = health.hubness
        yield (
            f"hubness, skewness @{hubs.k}",
            number(hubs.skewness, 2),
            f"by chance {hubs.floor:.2f}; most found {hubs.largest:,} times",
        )
        yield "never found", percent(hubs.antihubs), f"by chance {100 * hubs.antihub_floor:.2g} %"


def _contents(health: SpaceHealth) -> Iterator[Row]:
    if health.duplicates is not None:
        found = health.duplicates
        reading = f"cosine above {found.threshold:g} without the mean; identical {percent(found.same)}"
        yield "near-duplicates", percent(found.near), reading
    if health.norms is not None:
        low, high = health.norms.quantiles[1], health.norms.quantiles[-2]
        yield "norms", number(health.norms.mean), f"9 of 10 between {low:.3g} and {high:.3g}"
    if health.scores is not None:
        reading = f"random pairs that score less than half of the neighbours at place {health.scores.k} do"
        yield "neighbours stand out", percent(health.scores.above), reading


def _judged(health: SpaceHealth) -> Iterator[Row]:
    if health.classes is not None:
        found = health.classes
        yield (
            f"{found.field}: silhouette",
            number(found.silhouette),
            f"{found.classes:,} classes, {found.labelled:,} vectors",
        )
        chance = f"of the {found.k} nearest, by chance {100 * found.chance:.1f} %"
        yield f"{found.field}: neighbours agree", percent(found.agreement), chance
    if health.evalrank is not None:
        ranked = health.evalrank
        reading = f"{ranked.pairs:,} pairs among {ranked.background:,}; first for {percent(ranked.hits1)}"
        yield "EvalRank, MRR", number(ranked.mrr), reading


def _drift(health: SpaceHealth) -> Iterator[Row]:
    if health.drift is not None:
        worst = max(health.drift.windows, key=lambda each: each.coefficient)
        reading = f"window {worst.first + 1:,} to {worst.stop:,}; by chance up to {health.drift.limit:.4f}"
        yield "drift, largest of windows", f"{worst.coefficient:.4f}", reading
        place = max(range(len(health.drift.steps)), key=health.drift.steps.__getitem__)
        after = f"after vector {health.drift.windows[place].stop:,}; by chance up to {health.drift.step_limit:.4f}"
        yield "drift, largest step", f"{health.drift.steps[place]:.4f}", after
    for each in health.versions:
        beside = f"of {each.k} in common, by chance {100 * each.overlap_by_chance:.1f} %; CKA {each.cka:.2f}"
        yield f"neighbours as in {each.other}", percent(each.overlap), beside + _same(each.cosine)


def _same(cosine: Estimate | None) -> str:
    return "" if cosine is None else f"; cosine of both vectors {cosine.value:.3f}"


def _index(index: IndexHealth) -> Row:
    if index.recall is None:
        return f"index {index.kind}", "not measured", index.note
    return f"index {index.kind}, recall@{index.k}", number(index.recall), "default effort, against an exact scan"


def number(estimate: Estimate, digits: int = 3) -> str:
    """Return a number and its interval."""
    if not math.isfinite(estimate.value):
        return "not known"
    if not math.isfinite(estimate.low) or estimate.low == estimate.high:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def percent(estimate: Estimate) -> str:
    """Return a share in percent with its interval."""
    if not math.isfinite(estimate.value):
        return "not known"
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
