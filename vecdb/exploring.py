"""What the neighbours in a collection say: everything above a score, labels by vote, labels that spread.

Part of `Collection`, in a file of its own because most programs never use it: everything is loaded when it is first
asked for. Design: docs/how-to/explore.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from vecdb.engine import queries, reading, search
from vecdb.engine.names import check_count, check_number, check_option
from vecdb.errors import ParameterError
from vecdb.lazy import LazyModule
from vecdb.types import CancelCheck, Hit, Hits, HitsBatch, Id, Progress, Where, WriteResult

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.engine.exploring import labels, picking, ranges, votes
    from vecdb.engine.exploring import wishes as checking
    from vecdb.engine.search import SearchRequest
    from vecdb.engine.view import CollectionView, Past
    from vecdb.explored import ClassifierQuality, LabelProposals, Prediction
    from vecdb.storage.state import CollectionEntry
else:
    checking = LazyModule("vecdb.engine.exploring.wishes")
    labels = LazyModule("vecdb.engine.exploring.labels")
    picking = LazyModule("vecdb.engine.exploring.picking")
    ranges = LazyModule("vecdb.engine.exploring.ranges")
    votes = LazyModule("vecdb.engine.exploring.votes")

__all__ = ["Exploring"]

_STREAMED = frozenset({"space", "where", "as_of", "include", "spaces"})


class Exploring:
    """The part of `Collection` that asks neighbours."""

    if TYPE_CHECKING:
        _database: Database
        search: Callable[..., Any]
        upsert: Callable[..., WriteResult]

        @property
        def _key(self) -> tuple[int, str]: ...
        def _entry(self) -> CollectionEntry: ...

    # --- ranges ---

    @overload
    def range_search(
        self, q: Any = None, *, min_score: float, limit: None = None, like: Id | None = None, **options: Any
    ) -> Iterator[Hit]: ...
    @overload
    def range_search(
        self, q: Any = None, *, min_score: float, limit: int, like: Id | None = None, **options: Any
    ) -> Hits | HitsBatch: ...
    def range_search(
        self, q: Any = None, *, min_score: float, limit: int | None = None, like: Id | None = None, **options: Any
    ) -> Iterator[Hit] | Hits | HitsBatch:
        """Return every record that scores at least `min_score`: exactly, with any metric.

        Parameters
        ----------
        q : array_like of shape (dim,) or (n, dim), str, list of str, or mapping
            As in `search`; several queries, and a mapping, need a `limit`.
        min_score : float
            For l2 spaces minus the largest distance.
        limit : int, optional
            Return `Hits`, best first, at most so many; if there are more, ``complete`` is False. Without it hits are
            streamed as they are read, the oldest vector first, at one seq, in memory for a few thousand vectors.
        like : str or int, optional
            Instead of `q`, as in `search`.
        **options
            Without a limit: space, where, as_of, include, and ``spaces="native"`` where transforms are stored. With
            one: what `search` takes, except for how much may be missed.

        Raises
        ------
        ParameterError
            A stream was asked for with several queries, or over several spaces: what scores of bridged vectors are
            worth is only known once they are in one list.
        SnapshotExpiredError
            If the iteration outlives the history that is kept, as in `scan`.
        """
        check_number("min_score", min_score, -math.inf)
        refuse = _refuse("range_search", options)
        refuse({"recall", "effort", "exact", "k", "offset", "allow_large"}, "it is exact and returns all")
        if limit is None:
            refuse(options.keys() - _STREAMED, "a stream reads what one query of one space scores; pass limit=")
            return self._stream(q, like, float(min_score), **options)
        count = check_count("limit", limit, 1)
        found = self.search(q, count + 1, like=like, min_score=min_score, exact=True, allow_large=True, **options)
        if isinstance(found, Hits):
            return picking.within(found, count)
        return HitsBatch([picking.within(hits, count) for hits in found], k=count, seq=found.seq, plan=found.plan)

    def _stream(
        self,
        q: Any,
        like: Id | None,
        min_score: float,
        *,
        space: str | None = None,
        where: Where | None = None,
        as_of: int | str | None = None,
        include: Sequence[str] = ("metadata", "text"),
        spaces: str | None = None,
    ) -> Iterator[Hit]:
        condition, shown = queries.condition(where), search.check_include(include)
        if isinstance(q, Mapping):
            raise ParameterError(
                "a stream of all records above a score takes one query in one space",
                hint="Pass limit=, or the vector and space=.",
                name="q",
                got=sorted(map(str, q)),
            )
        encoded = q
        if queries.is_text(q):
            encoded = queries.encode(q, queries.choose_space(self._entry(), space), self._database._encoders)

        def settled(view: CollectionView) -> SearchRequest:
            named = queries.choose_space(view.entry, space)
            ranges.refuse_bridges(view, spaces)
            asked = queries.settle(view, named, encoded, like, text=isinstance(q, str))
            return ranges.request_of(asked, condition, min_score, shown)

        return ranges.stream(self._open_committed, as_of, settled, self._database._opened().reader.hold())

    def _open_committed(self, seq: int | str | None, past: Past | None) -> reading.OpenView:
        return reading.OpenView(self._database._read(), self._key, seq, past)

    # --- labels by vote ---

    @overload
    def classify(self, q: Any, field: str, *, k: int = 10, **options: Any) -> Prediction | list[Prediction]: ...
    @overload
    def classify(
        self, q: None = None, field: str = ..., *, like: Id | Sequence[Id], k: int = 10, **options: Any
    ) -> Prediction | list[Prediction]: ...
    def classify(
        self,
        q: Any = None,
        field: str = "",
        *,
        like: Id | Sequence[Id] | None = None,
        k: int = 10,
        weights: Literal["distance", "uniform"] = "distance",
        where: Where | None = None,
        **options: Any,
    ) -> Prediction | list[Prediction]:
        """Let the nearest records that have a value in a metadata field vote on it.

        Parameters
        ----------
        q : array_like of shape (dim,) or (n, dim), str, list of str, or mapping
            As in `search`.
        field : str
            Dotted path; its values are str, numbers or bools. Records without one have no vote.
        like : str or int, or a list of them, optional
            Instead of `q`: records, none of which votes for itself.
        k : int, default 10
            Neighbours that vote, 1 to 10,000.
        weights : {"distance", "uniform"}, default "distance"
            "distance": 1 for the nearest, 0 for the farthest, in proportion of their scores between (Dudani, 1976).
        where : mapping, optional
            Who may vote.
        **options
            What `search` takes: space, as_of, exact, recall, effort, spaces and so on.

        Returns
        -------
        Prediction, or a list of them
            Equal votes go to the label whose first neighbour is nearer.

        Raises
        ------
        ParameterError
            The field holds lists or dicts, or an argument makes no sense.
        """
        path = checking.check_field("field", field)
        check_option("weights", weights, votes.WEIGHTS)
        refuse = _refuse("classify", options)
        refuse({"include", "group_by", "per_group", "diversify", "relevance", "rerank"}, "every neighbour votes")
        voters = _with_label(where, path)
        found = self.search(q, k, like=like, where=voters, include=("metadata",), **options)
        if isinstance(found, Hits):
            return self._vote(found, path, weights)
        return [self._vote(hits, path, weights) for hits in found]

    @staticmethod
    def _vote(hits: Hits, path: str, weights: str) -> Prediction:
        known = [labels.check_label(labels.value_of(hit.metadata or {}, path), path) for hit in hits]
        return votes.vote(hits.ids, known, votes.weights_of(hits.scores, weights))

    def measure_classifier(
        self,
        field: str,
        *,
        k: int = 10,
        weights: Literal["distance", "uniform"] = "distance",
        apart: str | None = None,
        sample: int = 1_000,
        seed: int = 0,
        space: str | None = None,
        where: Where | None = None,
        as_of: int | str | None = None,
        **options: Any,
    ) -> ClassifierQuality:
        """Measure `classify` on records whose label is known: each is left out, and the others vote.

        Parameters
        ----------
        field, k, weights, where, **options
            As in `classify`.
        apart : str, optional
            Another field: records with the same value there do not vote either. Near copies of one source make a
            classifier look better than it is.
        sample : int, default 1000
            So many labelled records, drawn at random, or all if there are fewer.
        seed : int, default 0
        space : str, optional
        as_of : int or str, optional
            Default: the newest state; all is read at one seq.
        """
        path = checking.check_field("field", field)
        other = None if apart is None else checking.check_field("apart", apart)
        count, seed = check_count("sample", sample, 1), check_count("seed", seed, 0)
        with reading.OpenView(self._database._read(), self._key, as_of) as view:
            named = queries.choose_space(view.entry, space)
            chosen = labels.sample_of(
                view, named, queries.condition(_with_label(where, path)), path, other, count, seed
            )
            seq = view.seq
        told = []
        for id, _, group in chosen:
            voters = where if group is None else {"$and": [where or {}, {other: {"$ne": group}}]}
            asked: dict[str, Any] = {
                "like": id,
                "k": k,
                "weights": weights,
                "where": voters,
                "space": named.name,
                "as_of": seq,
            }
            told.append(cast("Prediction", self.classify(None, path, **asked, **options)))
        return labels.quality_of([truth for _, truth, _ in chosen], told, seq)

    # --- labels that spread ---

    def propagate_labels(
        self,
        field: str,
        *,
        space: str | None = None,
        where: Where | None = None,
        k: int = 10,
        alpha: float = 0.9,
        min_confidence: float = 0.0,
        holdout: float = 0.0,
        seed: int = 0,
        write: bool = False,
        exact: bool = False,
        recall: float | None = None,
        as_of: int | str | None = None,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> LabelProposals:
        """Spread the values of a metadata field from the records that have one to their neighbours.

        Learning with local and global consistency (D. Zhou et al., NIPS 2003, section 2) over the graph of the `k`
        nearest neighbours of each vector of a space.

        Parameters
        ----------
        field : str
            Dotted path; its values are str, numbers or bools.
        space : str, optional
            May be left out where the collection has exactly one; bridged vectors take no part.
        where : mapping, optional
            Which records take part, as givers and takers.
        k : int, default 10
            Neighbours, 1 to 1,000.
        alpha : float, default 0.9
            How far labels go, above 0 and below 1.
        min_confidence : float, default 0.0
            Leave out proposals below this.
        holdout : float, default 0.0
            Share of the labels that is hidden once to measure how often the right one comes back, below 1.
        seed : int, default 0
            Which ones.
        write : bool, default False
            Store the proposals as metadata, in one commit. If a record changed meanwhile nothing is stored.
        exact, recall
            As in `search`, for finding neighbours.
        as_of : int or str, optional
            Not with `write`.
        progress, cancel : callable, optional

        Raises
        ------
        ConflictError
            `write`, and a record changed meanwhile.
        ParameterError
            The field holds lists or dicts, or an argument makes no sense.
        CancelledError
        """
        path = checking.check_field("field", field)
        check_number("alpha", alpha, 1e-6, 1 - 1e-6)
        check_number("min_confidence", min_confidence, 0.0, 1.0)
        check_number("holdout", holdout, 0.0, 0.999)
        seed = check_count("seed", seed, 0)
        search.check_tuning(recall, None, None)
        if write and as_of is not None:
            raise ParameterError("labels of a past state cannot be written", name="write", got=True, allowed=False)
        neighbours = checking.bounded("k", k, 1, 1_000)
        database = self._database
        if write:
            database._writable()
        threads, scanned = database._settings.threads, exact or recall == 1.0
        rule = labels.Rule(
            path, neighbours, float(alpha), float(min_confidence), float(holdout), seed, scanned, recall, threads,
            progress, cancel,
        )  # fmt: skip
        condition = queries.condition(where)
        with reading.OpenView(database._read(), self._key, as_of) as view:
            named = queries.choose_space(view.entry, space)
            selection = None if condition is None else view.select(condition)
            found = labels.spread(view, named, selection, rule, lambda: database._registry)
        if not write or not len(found.proposals):
            return found.proposals
        ids = [proposal.id for proposal in found.proposals]
        written = self.upsert(ids, metadata=found.changes, merge=True, if_version=found.versions)
        return replace(found.proposals, written=written)


def _with_label(where: Where | None, path: str) -> dict[str, Any]:
    has = {path: {"$exists": True, "$ne": None}}
    return has if not where else {"$and": [dict(where), has]}


def _refuse(method: str, options: Mapping[str, Any]) -> Callable[[Iterable[str], str], None]:
    """Return what refuses options that a method cannot have, saying why."""

    def refuse(unfit: Iterable[str], why: str) -> None:
        for name in sorted(set(unfit) & options.keys()):
            raise ParameterError(f"{method} takes no {name}: {why}", name=name, got=options[name])

    return refuse
