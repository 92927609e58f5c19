"""What a database says of its own health: `Database.report`.

A part of `Database` in a file of its own: everything is loaded when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from vecdb.lazy import LazyModule
from vecdb.types import CancelCheck, Progress

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.database import Database
    from vecdb.health import report as reports
    from vecdb.health.report import CollectionHealth, HealthReport
    from vecdb.health.values import SpaceHealth
else:
    reports = LazyModule("vecdb.health.report")

__all__ = ["Reporting"]

_SIZES = ("file_bytes", "live_bytes", "reclaimable_bytes", "history_bytes")


class Reporting:
    """The part of `Database` that looks at the health of everything in it."""

    def report(
        self,
        collections: Sequence[str] | str | None = None,
        *,
        sample: int = 4_000,
        labels: str | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> HealthReport:
        """Measure the health of all spaces; ``report.save("page.html")`` writes one page with pictures.

        Parameters
        ----------
        collections : sequence of str, or str, optional
            Default: all.
        sample, labels, seed
            As in `Collection.health`, for every space.
        progress : callable, optional
            Called as ``progress(spaces so far, all of them)``.
        cancel : callable, optional

        Returns
        -------
        HealthReport
            A frozen value; ``print`` it, or take ``to_html()``, ``to_json()`` or ``as_dict()``.

        Raises
        ------
        CollectionMissingError, ParameterError, CancelledError
        """
        database = cast("Database", self)
        names = database.collections() if collections is None else collections
        chosen = [database.collection(name) for name in ([names] if isinstance(names, str) else names)]
        facts = database.stats()
        hold = database._opened().reader.hold()  # all spaces are looked at in one state, whatever is written meanwhile
        seq = database.seq
        wishes: dict[str, Any] = {"sample": sample, "labels": labels, "seed": seed, "as_of": seq, "cancel": cancel}
        total, done = sum(len(docs.spaces) for docs in chosen), 0
        found = []
        for docs in chosen:
            spaces = []
            for name in docs.spaces:
                spaces.append(docs.health(name, **wishes))
                done += 1
                if progress is not None:
                    progress(done, total)
            found.append(_collection(docs, tuple(spaces), seq))
        del hold
        sizes = {name: facts[name] for name in _SIZES}
        return reports.HealthReport(str(database.path), seq, sizes, tuple(found))


def _collection(docs: Collection, spaces: tuple[SpaceHealth, ...], seq: int) -> CollectionHealth:
    return reports.CollectionHealth(
        docs.name,
        docs.count(as_of=seq),
        spaces,
        docs.transforms,
        docs.migrations,
        docs.relevance_filters,
        docs.corrections,
    )
