"""Calling an application's encoder: retries, a limit of its rate, records it cannot embed, answers that are no vectors.

An encoder is somebody else's code, often behind a network. Invariant: what comes out of here has one finite row of the
right width for each record that is not listed as failed; an encoder that fails altogether is an `EncoderError`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.errors import DimensionError, EncoderError, ParameterError
from vecdb.types import Id, Record, Space

_MISTAKES = (NameError, AttributeError, ImportError, SyntaxError)
"""What no retry can cure: the encoder itself is wrong."""
_PROBES = 3


@dataclass(frozen=True, slots=True)
class EncodeRules:
    """How an encoder is called.

    Attributes
    ----------
    inputs : {"texts", "records"}
        What it is given: the records' texts, or `Record` objects.
    retries : int
        Further attempts after one that raised.
    wait : float
        Seconds before the first of them; doubled before each next one.
    rate : float or None
        Records per second at most.
    sleep, clock : callable
    """

    inputs: str = "texts"
    retries: int = 3
    wait: float = 0.5
    rate: float | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder made of some records.

    Attributes
    ----------
    places : list of int
        Which of them have a vector.
    vectors : ndarray of float32, shape (len(places), dim)
    failures : dict of int to str
        Which have none, and why.
    """

    places: list[int]
    vectors: npt.NDArray[Any]
    failures: dict[int, str]


@dataclass(slots=True)
class _Row:
    """One record on its way through the encoder."""

    place: int
    id: Id
    given: Any


@dataclass(slots=True)
class Encoder:
    """An application's callable, as a migration uses it.

    Parameters
    ----------
    call : callable
        ``list[str] -> array`` or ``list[Record] -> array``, of shape (n, dim); None in the place of a row says that
        the record could not be embedded.
    space : Space
        Whose vectors it makes.
    rules : EncodeRules
    """

    call: Callable[[list[Any]], Any]
    space: Space
    rules: EncodeRules = field(default_factory=EncodeRules)
    _free_at: float = 0.0

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Embed records.

        Raises
        ------
        EncoderError
            It raised for every record, retries included.
        DimensionError, DTypeError
            It returned another number of rows than it was given records, or rows of another width or type.
        """
        failures: dict[int, str] = {}
        rows = []
        for place, record in enumerate(records):
            given = record.text if self.rules.inputs == "texts" else record
            if given is None:
                failures[place] = "the record has no text"
            else:
                rows.append(_Row(place, record.id, given))
        found: dict[int, npt.NDArray[Any]] = {}
        if rows:
            self._embed(rows, found, failures)
        places = sorted(found)
        vectors = np.stack([found[place] for place in places]) if places else np.empty((0, self.space.dim), np.float32)
        return Encoded(places, vectors, failures)

    def _embed(self, rows: list[_Row], found: dict[int, npt.NDArray[Any]], failures: dict[int, str]) -> None:
        answer, error = self._patiently(rows)
        if error is None:
            self._take(rows, answer, found, failures)
            return
        if len(rows) == 1 or not self._works_at_all(rows):
            raise self._broken(rows, error) from error
        self._divide(rows, found, failures)

    def _divide(self, rows: list[_Row], found: dict[int, npt.NDArray[Any]], failures: dict[int, str]) -> None:
        """Find the records of a batch at which the encoder fails, by halves."""
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            answer, error = self._once(half)
            if error is None:
                self._take(half, answer, found, failures)
            elif len(half) == 1:
                failures[half[0].place] = f"{type(error).__name__}: {error}"
            else:
                self._divide(half, found, failures)

    def _works_at_all(self, rows: list[_Row]) -> bool:
        """Whether it embeds one of a few records by itself: else it is down, and no record is to blame."""
        places = np.unique(np.linspace(0, len(rows) - 1, _PROBES).astype(int)).tolist()
        return any(self._once([rows[place]])[1] is None for place in places)

    def _patiently(self, rows: list[_Row]) -> tuple[Any, Exception | None]:
        pause = self.rules.wait
        for _ in range(self.rules.retries):
            answer, error = self._once(rows)
            if error is None or isinstance(error, _MISTAKES):
                return answer, error
            self.rules.sleep(pause)
            pause *= 2
        return self._once(rows)

    def _once(self, rows: list[_Row]) -> tuple[Any, Exception | None]:
        self._keep_to_rate(len(rows))
        try:
            return self.call([row.given for row in rows]), None
        except Exception as error:  # whatever an application's code may raise; reported by the callers above
            return None, error

    def _keep_to_rate(self, count: int) -> None:
        if self.rules.rate is None:
            return
        now = self.rules.clock()
        if now < self._free_at:
            self.rules.sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + count / self.rules.rate

    def _broken(self, rows: list[_Row], error: Exception) -> EncoderError:
        return EncoderError(
            f"the encoder of space {self.space.name!r} failed for all of {len(rows)} records: "
            f"{type(error).__name__}: {error}",
            hint="What was committed stays; call run() again when it works.",
            space=self.space.name,
            ids=[row.id for row in rows],
        )

    # --- its answers ---

    def _take(
        self, rows: list[_Row], answer: Any, found: dict[int, npt.NDArray[Any]], failures: dict[int, str]
    ) -> None:
        """Sort an answer into vectors and failures."""
        answers = answer if isinstance(answer, np.ndarray) else _as_rows(answer, self.space)
        if len(answers) != len(rows):
            raise DimensionError(
                f"the encoder of space {self.space.name!r} returned {len(answers)} vectors for {len(rows)} records",
                hint="It must return one row for each record, None where it has none.",
                expected=len(rows),
                got=len(answers),
                where=f"encoder of space {self.space.name!r}",
            )
        there = [place for place in range(len(rows)) if answers[place] is not None]
        for row in (rows[place] for place in range(len(rows)) if answers[place] is None):
            failures[row.place] = "the encoder returned no vector"
        if there:
            chosen = answers if len(there) == len(rows) else [answers[place] for place in there]
            self._keep_sound([rows[place] for place in there], chosen, found, failures)

    def _keep_sound(
        self, rows: list[_Row], given: Any, found: dict[int, npt.NDArray[Any]], failures: dict[int, str]
    ) -> None:
        where = f"what the encoder of space {self.space.name!r} returned"
        matrix = _finite(given)
        bad = ~np.isfinite(matrix).all(axis=1) if matrix is not None else np.zeros(len(rows), np.bool_)
        if matrix is not None and self.space.metric == "cosine":
            bad |= ~matrix.any(axis=1)
        for place in np.flatnonzero(bad).tolist():
            failures[rows[place].place] = "the encoder returned a vector of zeros, or one that is not finite"
        kept = given if not bad.any() else [given[place] for place in np.flatnonzero(~bad).tolist()]
        if len(kept):
            vectors = as_matrix(kept, self.space.dim, metric=self.space.metric, dtype="float32", where=where)
            sound = [row for place, row in enumerate(rows) if not bad[place]]
            found.update((row.place, vector) for row, vector in zip(sound, vectors, strict=True))


def _finite(given: Any) -> npt.NDArray[Any] | None:
    """Return the answer as a matrix of numbers; None leaves the complaint to the door of all arrays."""
    try:
        matrix: npt.NDArray[Any] = np.asarray(given)
    except (TypeError, ValueError):
        return None
    return matrix if matrix.ndim == 2 and matrix.dtype.kind in "fiu" else None


def _as_rows(answer: Any, space: Space) -> Any:
    """Return an answer as something with a length and places."""
    if hasattr(answer, "__array__"):
        converted: Any = np.asarray(answer)
        return converted if converted.ndim else [answer]
    if isinstance(answer, (list, tuple)):
        return answer
    raise DimensionError(
        f"the encoder of space {space.name!r} returned a {type(answer).__name__}, expected an array of shape "
        f"(n, {space.dim})",
        expected=f"(n, {space.dim})",
        got=type(answer).__name__,
        where=f"encoder of space {space.name!r}",
    )


def check_rules(inputs: Any, retries: Any, wait: Any, rate: Any) -> EncodeRules:
    """Return the rules if their values are acceptable."""
    from vecdb.engine.names import check_count, check_number, check_option

    check_option("inputs", inputs, ("texts", "records"))
    check_number("retry_wait", wait, 0)
    if rate is not None:
        check_number("rate", rate, 1e-6)
    return EncodeRules(inputs, check_count("retries", retries, 0), float(wait), rate)


def check_callable(name: str, call: Any) -> None:
    """Refuse what is not callable; None stands for no encoder."""
    if call is not None and not callable(call):
        raise ParameterError(
            f"{name} is a {type(call).__name__}, expected a callable", name=name, got=call, allowed="callable"
        )
