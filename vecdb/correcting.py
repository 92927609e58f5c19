"""What a collection offers against hubs: corrections of scores that are fitted once and chosen by name.

Part of `Collection`, in a file of its own: everything is loaded when it is first asked for. The work is done by
vecdb/engine/corrections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vecdb.engine import queries
from vecdb.lazy import LazyModule

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.engine.corrections import fitting, stored
    from vecdb.engine.reading import OpenView
    from vecdb.storage.state import CollectionEntry
    from vecdb.verdicts import CorrectionInfo
else:
    fitting = LazyModule("vecdb.engine.corrections.fitting")
    stored = LazyModule("vecdb.engine.corrections.stored")

__all__ = ["Correcting"]


class Correcting:
    """The part of `Collection` that is about hubs."""

    if TYPE_CHECKING:
        _database: Database

        @property
        def _key(self) -> tuple[int, str]: ...
        def _entry(self) -> CollectionEntry: ...
        def _view(self, as_of: int | str | None = None) -> OpenView: ...

    @property
    def corrections(self) -> tuple[CorrectionInfo, ...]:
        """The stored corrections in the order they were stored."""
        return stored.describe(self._entry())

    def fit_correction(
        self,
        name: str,
        kind: str = "csls",
        *,
        bank: Any,
        space: str | None = None,
        relevant_ids: Sequence[Any] | None = None,
        seed: int = 0,
        **params: Any,
    ) -> CorrectionInfo:
        """Fit a correction of scores and store it; `search(correction=name)` uses it.

        Rows that are near to everything crowd out the right answers of other queries. A correction learns from a bank
        of queries how near each row is to queries in general, and takes that off its scores.

        Parameters
        ----------
        name : str
        kind : {"csls", "inverted-softmax", "dbnorm", "mutual-proximity", "fnorm"}, default "csls"
            docs/explanation/hubness.md says what each does to a score.
        bank : array_like of shape (b, dim)
            Queries like those to come, as the space's model embeds them: some hundreds, 20,000 at most. Documents are
            no substitute. Answers are not needed.
        space : str, optional
            In which the queries are asked. May be left out where the collection has exactly one.
        relevant_ids : sequence, optional
            For each query of the bank the id of its answer, a list of ids, or None. A query says nothing of its own
            answers, which would else be punished for being right.
        seed : int, default 0
            For the rows that a gallery bank is drawn from.
        **params
            Parameters of the kind; those left out have their defaults.

        Returns
        -------
        CorrectionInfo
            What a row gets is stored for all rows there are, and computed for new ones when they are first searched.

        Raises
        ------
        UnknownNameError, ParameterError
            No such kind, or parameters that it does not have.
        DimensionError, DTypeError, NonFiniteError, ZeroVectorError, ArgumentError, IdError
            The bank does not fit the space, or `relevant_ids` does not fit the bank.
        FitError
            The bank is empty or too large, or there are no rows to compare with.
        RecordMissingError
            An answer is no record.
        ExistsError
            `name` is taken.
        """
        database = self._database
        database._writable()
        chosen = queries.choose_space(self._entry(), space)
        return self._put_correction(fitting.wish(name, kind, chosen, bank, relevant_ids, seed=seed, params=params))

    def _put_correction(self, wished: fitting.Wish) -> CorrectionInfo:
        with self._view() as view:
            fitted = fitting.fit(view, wished)
        operation = stored.put_correction(self._key, fitted.entry, wished.space, fitted.state, fitted.table)
        entry = self._database._write(operation)
        return stored.info_of(entry, {space.id: space.name for space in self._entry().spaces.values()})

    def drop_correction(self, name: str) -> None:
        """Remove a correction.

        Raises
        ------
        UnknownNameError
        """
        self._database._write(stored.drop_correction(self._key, name))
