"""Timing things in turn, and the rows in which a benchmark tells what it found.

What is compared runs in alternation, the order turning by one each round, so that a change of the machine's speed
meets everyone. A ratio is the median of the ratios within each round, never a quotient of numbers from different runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Bench:
    """What a benchmark is given.

    Attributes
    ----------
    quick : bool
        Tiny sizes: shows that everything runs, measures nothing.
    folder : Path
        Empty, and removed afterwards.
    shared : Path or None
        The real data sets.
    rounds : int or None
        Repetitions, instead of the benchmark's own number.
    """

    quick: bool
    folder: Path
    shared: Path | None = None
    rounds: int | None = None

    def size(self, full: int, quick: int) -> int:
        """Return a size for this run."""
        return quick if self.quick else full

    def repetitions(self, full: int) -> int:
        """Return how often to repeat."""
        return self.rounds or (2 if self.quick else full)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each round: on the wall, and of this process on the processor."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The median on the wall."""
        return median(self.wall)

    def quartiles(self) -> tuple[float, float]:
        """Return the first and third quartile on the wall."""
        if len(self.wall) < 2:
            return self.wall[0], self.wall[0]
        first, _, third = quantiles(self.wall, n=4, method="inclusive")
        return first, third

    def over(self, other: Timing) -> float:
        """Return how many times as long as `other` this took, as the median over the rounds."""
        return median(own / theirs for own, theirs in zip(self.wall, other.wall, strict=True))


def once(work: Work) -> tuple[float, float]:
    """Return the wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Yield each name once a round, the order turning by one from round to round."""
    for number in range(rounds):
        for place in range(len(names)):
            yield names[(number + place) % len(names)]


def alternate(works: Mapping[str, Work], rounds: int, *, warm: int = 1) -> dict[str, Timing]:
    """Run everything in turn, `warm` rounds unmeasured first, and return the timings."""
    for name in turns(list(works), warm):
        works[name]()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for name in turns(list(works), rounds):
        found[name].append(once(works[name]))
    return {name: Timing(*zip(*pairs, strict=True)) for name, pairs in found.items()}


# --- results ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """What a ratio should reach: at least, or at most, a limit."""

    limit: float
    at_least: bool = True

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is on the right side."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit


def at_least(limit: float) -> Bar:
    """Return the bar for ratios where more is better."""
    return Bar(limit)


def at_most(limit: float) -> Bar:
    """Return the bar for ratios where less is better."""
    return Bar(limit, at_least=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One number that was measured.

    Attributes
    ----------
    case : str
        The data and what was asked of it.
    system : str
        Who was measured.
    value : float or None
        None if the system is not here; `note` says why.
    unit : str
    ratio : float or None
        Against `against`, in the same run.
    bar : Bar or None
        What the ratio should reach.
    low, high : float or None
        Quartiles of the value over the rounds.
    cpu : float or None
        The value per second of processor instead of wall.
    """

    case: str
    system: str
    value: float | None
    unit: str
    ratio: float | None = None
    against: str = ""
    bar: Bar | None = None
    low: float | None = None
    high: float | None = None
    cpu: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the bar was "held" or "missed"; empty without one."""
        if self.bar is None or self.ratio is None:
            return ""
        return "held" if self.bar.holds(self.ratio) else "missed"

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self) | {"bar": None if self.bar is None else str(self.bar), "verdict": self.verdict}


def rate(case: str, system: str, timing: Timing, amount: float, unit: str, **more: Any) -> Row:
    """Return the row of something done `amount` times in each round, per second."""
    first, third = timing.quartiles()
    cpu = median(timing.cpu)
    return Row(
        case,
        system,
        amount / timing.seconds,
        unit,
        low=amount / third,
        high=amount / first,
        cpu=amount / cpu if cpu > 0 else None,
        **more,
    )


def duration(case: str, system: str, timing: Timing, **more: Any) -> Row:
    """Return the row of something that takes milliseconds."""
    first, third = timing.quartiles()
    return Row(case, system, 1e3 * timing.seconds, "ms", low=1e3 * first, high=1e3 * third, **more)


def missing(case: str, system: str, reason: str) -> Row:
    """Return the row of a system that is not here."""
    return Row(case, system, None, "", note=reason)


@dataclass(slots=True)
class Outcome:
    """The rows of one benchmark, and what a reader of them should know."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *rows: Row) -> None:
        """Append rows."""
        self.rows += rows

    def check(self) -> None:
        """Raise `ValueError` if a number is not finite."""
        for row in self.rows:
            for number in (row.value, row.ratio, row.low, row.high, row.cpu):
                if number is not None and not math.isfinite(number):
                    raise ValueError(f"{row.case}: {row.system} has the number {number}")

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        self.check()
        return {"rows": [row.to_json() for row in self.rows], "notes": self.notes}
