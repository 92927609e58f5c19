"""What a database says of its own health: `Database.report`.

A part of `Database` in a file of its own: everything is loaded when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from vecdb.errors import CancelledError
from vecdb.lazy import LazyModule
from vecdb.types import CancelCheck, Progress

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.database import Database
    from vecdb.health import report as reports
    from vecdb.health.report import CollectionHealth, HealthReport
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
        wishes: dict[str, Any] = {"sample": sample, "labels": labels, "seed": seed, "cancel": cancel}
        total, done = sum(len(docs.spaces) for docs in chosen), 0
        found = []
        for docs in chosen:
            spaces = []
            for name in docs.spaces:
                if cancel is not None and cancel():
                    raise CancelledError("the report was told to stop")
                spaces.append(docs.health(name, **wishes))
                done += 1
                if progress is not None:
                    progress(done, total)
            found.append(_collection(docs, tuple(spaces)))
        facts = database.stats()
        sizes = {name: facts[name] for name in _SIZES}
        return reports.HealthReport(str(database.path), database.seq, sizes, tuple(found))


def _collection(docs: Collection, spaces: tuple[Any, ...]) -> CollectionHealth:
    return reports.CollectionHealth(docs.name, len(docs), spaces, docs.transforms, docs.migrations)
