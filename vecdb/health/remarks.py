"""What stands out in the health of a space, in sentences: each has a named limit and says what can be done.

Nothing here is a verdict; a limit says from where on people have had trouble, not that there is some.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vecdb.health.values import SpaceHealth

__all__ = ["remarks_of"]

NARROW: Final = 0.5
"""Mean cosine of two random vectors from which scores are called squeezed together."""
HUBS: Final = 1.0
"""Skewness above its floor."""
HIDDEN: Final = 0.1
"""Share of rows never found, above what chance gives."""
COPIES: Final = 0.05
"""Share of near-duplicates."""
FOUND: Final = 0.9
"""Recall of an index."""
MOVED: Final = 0.02
"""Energy coefficient of a window that is also above its limit."""


def remarks_of(health: SpaceHealth) -> tuple[str, ...]:
    """Return what stands out."""
    return tuple((*_geometry(health), *_contents(health), *_indexes(health), *_drift(health)))


def _geometry(health: SpaceHealth) -> Iterator[str]:
    if health.cosines is not None and health.cosines.mean.value > NARROW:
        yield (
            f"vectors fill a narrow cone: two drawn at random have a cosine of {health.cosines.mean.value:.2f}. Only "
            "differences of scores mean something; fit a threshold to this space rather than guessing one"
        )
    hubs = health.hubness
    if hubs is not None and hubs.skewness.low > hubs.floor + HUBS:
        yield (
            f"there are hubs: one vector is among the {hubs.k} nearest of {hubs.largest:,} others, the skewness is "
            f"{hubs.skewness.value:.1f} where chance gives {hubs.floor:.1f}. A correction fitted on queries may help"
        )
    if hubs is not None and hubs.antihubs.low > hubs.antihub_floor + HIDDEN:
        yield f"{hubs.antihubs.value:.0%} of the vectors are among the {hubs.k} nearest of no other"


def _contents(health: SpaceHealth) -> Iterator[str]:
    if health.duplicates is not None and health.duplicates.near.low > COPIES:
        yield (
            f"{health.duplicates.near.value:.0%} of the vectors have a near-duplicate: they take places in results "
            "from other records, and belong on one side of any split"
        )
    if health.norms is not None and health.norms.zero:
        yield f"{health.norms.zero:,} of {health.sampled:,} sampled vectors are zero"


def _indexes(health: SpaceHealth) -> Iterator[str]:
    for index in health.indexes:
        if index.recall is not None and index.recall.high < FOUND:
            yield (
                f"index {index.kind} finds {index.recall.value:.0%} of the {index.k} nearest vectors with its default "
                "effort; search with recall= or effort="
            )


def _drift(health: SpaceHealth) -> Iterator[str]:
    found = health.drift
    if found is None:
        return
    moved = [each for each in found.windows if each.coefficient > max(MOVED, found.limit)]
    if found.change is not None and len(moved) > 1:
        start = found.windows[found.change].first + 1
        step = f"energy coefficient {max(found.steps):.3f}, by chance up to {found.step_limit:.3f}"
        yield (
            f"{len(moved)} of {len(found.windows)} windows differ from the others; the largest step ({step}) lies near "
            f"vector {start:,} in order of age"
        )
        return
    for window in moved:
        yield (
            f"vectors {window.first + 1:,} to {window.stop:,} in order of age lie elsewhere than the others "
            f"(energy coefficient {window.coefficient:.3f}, by chance up to {found.limit:.3f})"
        )
