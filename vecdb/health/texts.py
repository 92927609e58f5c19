"""The health of a space as text for people: one line for each number, with its interval and how to read it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vecdb.evaluation.intervals import Estimate
from vecdb.health.values import IndexHealth, SpaceHealth

__all__ = ["lines_of", "number", "text_of"]


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
    rows = [*_geometry(health), *(_index(each) for each in health.indexes)]
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, value, reading in rows:
        yield f"  {name.ljust(width)}  {value.ljust(24)}  {reading}".rstrip()
    for note in health.notes:
        yield f"Note: {note}."


def _geometry(health: SpaceHealth) -> Iterator[tuple[str, str, str]]:
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


def _index(index: IndexHealth) -> tuple[str, str, str]:
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
