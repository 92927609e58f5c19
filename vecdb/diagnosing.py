"""What a collection says of the health of its spaces: `Collection.health`.

A part of `Collection` in a file of its own: everything is loaded when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vecdb.engine import reading
from vecdb.engine.names import check_count
from vecdb.engine.queries import choose_space
from vecdb.engine.view import Past
from vecdb.errors import ArgumentError, ParameterError
from vecdb.lazy import LazyModule
from vecdb.storage.idkeys import id_key
from vecdb.storage.state import CollectionEntry
from vecdb.types import CancelCheck, Id

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.engine.checkup import sample as sampling
    from vecdb.health import checkup
    from vecdb.health.values import SpaceHealth
else:
    sampling = LazyModule("vecdb.engine.checkup.sample")
    checkup = LazyModule("vecdb.health.checkup")

__all__ = ["Diagnosing"]

_MOST_SAMPLED = 50_000


class Diagnosing:
    """The part of `Collection` that looks at the health of spaces."""

    if TYPE_CHECKING:
        name: str
        _database: Database

        @property
        def _key(self) -> tuple[int, str]: ...
        def _entry(self) -> CollectionEntry: ...

    def health(
        self,
        space: str | None = None,
        *,
        sample: int = 4_000,
        queries: int = 1_000,
        k: int = 10,
        labels: str | None = None,
        pairs: Sequence[tuple[Id, Id]] | None = None,
        seed: int = 0,
        as_of: int | str | None = None,
        cancel: CancelCheck | None = None,
    ) -> SpaceHealth:
        """Measure the health of a space: how its vectors lie, and what its indexes find of them.

        Parameters
        ----------
        space : str, optional
            May be left out where the collection has exactly one.
        sample : int, default 4000
            Vectors drawn at random, at most 50,000, and of wide spaces at most 16,777,216 components (but 200 vectors);
            time grows with its square.
        queries : int, default 1000
            How many of them are compared with all vectors, fewer (but at least 100) where that would cost more than
            some seconds.
        k : int, default 10
            Neighbours of hubness and recall, at most 100.
        labels : str, optional
            A metadata field, or dotted path: how separate its values are as classes.
        pairs : sequence of (id, id), optional
            Records that belong together, such as a question and its answer: how far to the front each finds its
            partner. Of more than 1,000 that many are drawn.
        seed : int, default 0
            Of everything random.
        as_of : int or str, optional
            A seq or tag: look at that state.
        cancel : callable, optional

        Returns
        -------
        SpaceHealth
            A frozen value; ``print`` it, or take ``as_dict()`` or ``to_json()``.

        Raises
        ------
        SpaceMissingError, SpaceMismatchError, ParameterError, SnapshotExpiredError, TagMissingError, CancelledError
        ArgumentError
            A pair is not two ids.

        Notes
        -----
        Nothing is written. Memory is that of a few copies of the sample, whatever the size of the collection.
        """
        wishes = checkup.Wishes(
            _bounded("sample", sample, _MOST_SAMPLED),
            _bounded("queries", queries, _MOST_SAMPLED),
            _bounded("k", k, 100),
            check_count("seed", seed, 0),
            _field(labels),
            [_pair(each, place) for place, each in enumerate(pairs or ())],
        )
        hold = self._database._opened().reader.hold()
        with self._open_past(as_of, None) as view:
            reading.reach_back(hold, view)
            chosen = choose_space(view.entry, space)
            reader = sampling.Reader(self._open_past, hold, view.seq, Past(view.seq), cancel)
            others = [each for each in view.entry.spaces.values() if each.id != chosen.id]
        return checkup.examine(reader, self.name, chosen, others, wishes, self._database._registry)

    def _open_past(self, seq: int | str | None, past: Past | None) -> reading.OpenView:
        return reading.OpenView(self._database._read(), self._key, seq, past)


def _bounded(name: str, value: int, most: int) -> int:
    number = check_count(name, value, 1)
    if number > most:
        raise ParameterError(
            f"{name} is {number}, expected at most {most}", name=name, got=number, allowed=f"<= {most}"
        )
    return number


def _field(labels: object) -> str | None:
    if labels is None or (isinstance(labels, str) and labels):
        return labels
    raise ParameterError(f"labels is {labels!r}, expected the name of a metadata field", name="labels", got=labels)


def _pair(pair: object, place: int) -> tuple[bytes, bytes]:
    """Return the typed ids of a pair."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ArgumentError(f"pairs[{place}] is {pair!r}, expected two ids", hint="pairs=[(question, answer), ...]")
    return id_key(pair[0]), id_key(pair[1])
