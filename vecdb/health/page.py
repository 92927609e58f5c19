"""The report on a database as one HTML page: what stands out first, then every space with its numbers and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vecdb.drawing.page import document, figure, listed, table
from vecdb.drawing.words import safe
from vecdb.health import pictures
from vecdb.health.report import judges_of, upgrades_of
from vecdb.health.texts import number, rows_of

if TYPE_CHECKING:
    from vecdb.health.report import CollectionHealth, HealthReport
    from vecdb.health.values import SpaceHealth

__all__ = ["page_of"]


def page_of(report: HealthReport) -> str:
    """Return the page."""
    return document(f"Health of {report.path}", _body(report))


def _body(report: HealthReport) -> Iterator[str]:
    yield f"<h1>Health of {safe(report.path)}</h1>"
    sizes = "; ".join(f"{name.replace('_', ' ')}: {value:,}" for name, value in report.sizes.items())
    yield f"<p>Commit {report.seq}. {safe(sizes)}. Numbers in brackets are 95 % intervals.</p>"
    remarks = [
        f"{space.collection}, {space.space}: {remark}."
        for each in report.collections
        for space in each.spaces
        for remark in space.remarks
    ]
    yield listed(remarks, "remarks") or "<p>Nothing stands out.</p>"
    if report.collections:
        yield table(list(_overview(report)), caption="All spaces", words=True)
    for each in report.collections:
        yield from _collection(each)


def _overview(report: HealthReport) -> Iterator[list[str]]:
    yield [
        "space",
        "model",
        "vectors",
        "IsoScore",
        "local dimension",
        "hubness (by chance)",
        "near-duplicates",
        "recall",
    ]
    for each in report.collections:
        for space in each.spaces:
            yield [f"{space.collection}, {space.space}", space.model, f"{space.vectors:,}", *_short_numbers(space)]


def _short_numbers(space: SpaceHealth) -> Iterator[str]:
    yield "" if space.isotropy is None else f"{space.isotropy.score.value:.3f}"
    yield "" if space.dimension is None else f"{space.dimension.mle.value:.1f}"
    yield "" if space.hubness is None else f"{space.hubness.skewness.value:.2f} ({space.hubness.floor:.2f})"
    yield "" if space.duplicates is None else f"{100 * space.duplicates.near.value:.1f} %"
    yield "; ".join(f"{each.kind} {each.recall.value:.3f}" for each in space.indexes if each.recall is not None)


def _collection(found: CollectionHealth) -> Iterator[str]:
    yield f"<h2>Collection {safe(found.name)}</h2><p>{found.records:,} records.</p>"
    upgrades = upgrades_of(found)
    if upgrades:
        yield "<h3>Upgrades</h3>" + listed(upgrades)
    judges = judges_of(found)
    if judges:
        yield "<h3>Relevance filters and corrections</h3>" + listed(judges)
    for space in found.spaces:
        yield from _space(space)


def _space(space: SpaceHealth) -> Iterator[str]:
    yield f"<h3>Space {safe(space.space)}</h3>"
    model = f"model {space.model}, " if space.model else ""
    drawn = f"{space.sampled:,} sampled, {space.asked:,} compared with all"
    kind = f"{model}{space.dim} columns, {space.metric}, {space.dtype}"
    yield f"<p>{space.vectors:,} vectors; {safe(kind)}; {drawn}.</p>"
    yield listed(space.remarks, "remarks")
    rows = list(rows_of(space))
    if rows:
        yield table([["", "value", "how to read it"], *rows], words=True)
    yield '<div class="figures">' + "".join(_figures(space)) + "</div>"
    yield listed(f"{note}." for note in space.notes)


def _figures(space: SpaceHealth) -> Iterator[str]:
    yield from _of_vectors(space)
    yield from _of_use(space)


def _of_vectors(space: SpaceHealth) -> Iterator[str]:
    if space.scores is not None:
        caption = "Scores: the further neighbours stand off from random pairs, the more a threshold can do."
        yield figure(pictures.score_spread(space.scores), caption)
    if space.hubness is not None:
        caption = "k-occurrence: a curve that runs out far to the right of chance has hubs."
        yield figure(pictures.occurrences(space.hubness), caption)
    if space.dimension is not None:
        used = None if space.isotropy is None else space.isotropy.dimensions
        caption = (
            f"Intrinsic dimension, of {space.dim} columns. The box holds half of the vectors, the line nine of ten."
        )
        yield figure(pictures.dimensions(space.dimension, space.dim, used), caption)
    if space.norms is not None and space.sampled > 1:
        yield figure(pictures.lengths(space.norms), f"Norms of stored vectors, mean {number(space.norms.mean)}.")


def _of_use(space: SpaceHealth) -> Iterator[str]:
    curves = pictures.recalls(space.indexes)
    if curves is not None:
        yield figure(curves, "Recall against effort, as measured when indexes were built.")
    if space.drift is not None:
        caption = (
            "Drift over commits: windows of vectors in order of age. Grey is what chance gives against all others."
        )
        yield figure(pictures.drifting(space.drift), caption)
    common = pictures.neighbours(space.versions)
    if common is not None:
        yield figure(common, "Nearest records that other models name, too; the dashed mark is what chance gives.")
    if space.plane is not None:
        caption = f"Map of {len(space.plane.points):,} vectors by {space.plane.by}: the plane in which they vary most."
        yield figure(pictures.mapped(space.plane), caption)
