"""What a collection says of its models: whether a new one is worth it, and which work together.

Part of `Collection`, in a file of its own because most programs never use it: everything is loaded when it is first
asked for. Arguments are settled in `vecdb.upgrade`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from vecdb.lazy import LazyModule
from vecdb.storage.snapshot import find_space
from vecdb.types import CancelCheck, Progress

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.engine import examining
    from vecdb.storage.state import CollectionEntry
    from vecdb.upgrade import matrix, plan
    from vecdb.upgrade.matrix import CompatibilityMatrix
    from vecdb.upgrade.plan import UpgradePlan
    from vecdb.verdicts import Diagnosis, QuerySet
else:
    examining = LazyModule("vecdb.engine.examining")
    matrix = LazyModule("vecdb.upgrade.matrix")
    plan = LazyModule("vecdb.upgrade.plan")

__all__ = ["Judging"]


class Judging:
    """The part of `Collection` that judges models."""

    if TYPE_CHECKING:

        def _entry(self) -> CollectionEntry: ...

    def plan_upgrade(
        self,
        source: str,
        target: str,
        *,
        pairs: Any = None,
        queries: QuerySet | None = None,
        bank: QuerySet | None = None,
        groups: Sequence[Hashable] | None = None,
        kinds: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
        directions: Sequence[Literal["query", "gallery"]] = ("query", "gallery"),
        splits: int = 5,
        metric: Literal["auto", "mrr", "recall@10", "ndcg@10"] = "auto",
        expected_queries: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> UpgradePlan:
        """Measure what changing from one model to another is worth, before anything is touched.

        Parameters
        ----------
        source, target : str
            The space of the old model, whose vectors the collection holds, and that of the new one.
        pairs : tuple, optional
            Records that both models know: ``(ids, Y)`` with the new vectors of these records, or ``(X, Y)``. Default:
            the records that have vectors in both spaces. A few thousand, the answers of the queries among them; at
            least 40; of more than 20,000 the answers and a random rest are used.
        queries : QuerySet, optional
            Queries as both models embed them, and their answers. What is missing is skipped, and said: staying needs
            `old`, answers make the difference between a verdict and a provisional one.
        bank : QuerySet, optional
            Other queries: maps that use queries are fitted with them, and hubs are found by them. Without them each
            half of `queries` serves as the other's bank, and maps are fitted on documents alone.
        groups : sequence, optional
            For each pair what it belongs to (its source): pairs of one group are never in two parts. Near-duplicates
            belong together anyway.
        kinds : sequence of str, or mapping from str to parameters, optional
            Kinds of transform to try. Default: identity, truncate, procrustes, ridge and distill, those that suit the
            widths.
        directions : sequence of {"query", "gallery"}, default both
            Maps of queries, maps of stored vectors.
        splits : int, default 5
            How often the pairs are split anew and maps fitted again; at least 2.
        metric : {"auto", "mrr", "recall@10", "ndcg@10"}, default "auto"
            What ratios are of. "auto": nDCG@10 where queries have several or graded answers, else MRR.
        expected_queries : int, optional
            The intervals are those of so many new queries. Default: as many as were given.
        seed : int, default 0
        progress, cancel : callable, optional

        Returns
        -------
        UpgradePlan
            ``plan.report`` is the evidence, ``plan.apply()`` stores the maps. Nothing was stored yet.

        Raises
        ------
        SpaceMissingError, RecordMissingError, VectorMissingError
        FitError
            Too few pairs, or no kind can be fitted on them.
        DimensionError, DTypeError, NonFiniteError, ZeroVectorError, ArgumentError
            Something given does not fit the spaces.
        ParameterError, UnknownNameError
        CancelledError, PluginError
        """
        entry = self._entry()
        return plan.plan_upgrade(
            cast("Collection", self),
            (find_space(entry, source), find_space(entry, target)),
            pairs=pairs,
            queries=queries,
            bank=bank,
            groups=groups,
            kinds=kinds,
            directions=directions,
            splits=splits,
            metric=metric,
            expected=expected_queries,
            seed=seed,
            progress=progress,
            cancel=cancel,
        )

    def compatibility_matrix(
        self,
        queries: Mapping[str, Any],
        relevant: Sequence[Any],
        *,
        groups: Sequence[Any] | None = None,
        metric: Literal["mrr", "recall@10", "ndcg@10"] = "mrr",
    ) -> CompatibilityMatrix:
        """Measure the queries of every model over the vectors of every model.

        Parameters
        ----------
        queries : mapping from str to array_like of shape (q, dim)
            The same queries as each model embeds them, by space; spaces without queries are left out.
        relevant : sequence
            For each query the id of the record that answers it, a list of ids, or a mapping from id to grade.
        groups : sequence, optional
            Queries that belong together, for the intervals.
        metric : {"mrr", "recall@10", "ndcg@10"}, default "mrr"

        Returns
        -------
        CompatibilityMatrix
            Versions are in the order in which their spaces were added; between two spaces the stored transforms are
            used, queries mapped rather than records. Each column is over the records that have a vector in its space.

        Raises
        ------
        ArgumentError, ParameterError, DimensionError, NonFiniteError, ZeroVectorError
        RecordMissingError
            No relevant record has a vector in any of the spaces.
        """
        return matrix.compatibility_matrix(cast("Collection", self), queries, relevant, groups, metric)

    def doctor(self, space: str | None = None, *, seed: int = 0, cancel: CancelCheck | None = None) -> list[Diagnosis]:
        """Say whether spaces seem to hold vectors of more than one model, and where one gives way to another.

        For vectors that came from somewhere without model names. What is compared is geometry: a revision of the same
        model is not promised to be noticed, a new topic is no new model.

        Parameters
        ----------
        space : str, optional
            Default: every space but joint ones, which hold vectors of two models on purpose.
        seed : int, default 0
        cancel : callable, optional
            Asked between spaces.

        Returns
        -------
        list of Diagnosis
            One for each space; fewer than 2,128 vectors, or less than 16 columns, cannot be told. All vectors of a
            space are read into memory.

        Raises
        ------
        SpaceMissingError, CancelledError
        """
        entry = self._entry()
        chosen = entry.given_spaces if space is None else [find_space(entry, space)]
        return [examining.diagnose(cast("Collection", self), each, seed, cancel) for each in chosen]
