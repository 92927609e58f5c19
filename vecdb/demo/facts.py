"""What the demonstration found out, as frozen values. No I/O; nothing here is a constant of the demonstration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Answer", "Built", "Crash", "DemoReport", "Quality", "Stage", "Travel", "Upgrade"]


@dataclass(frozen=True, slots=True)
class Built:
    """The database after it was filled.

    Attributes
    ----------
    records : int
    spaces : dict of str to int
        Width of each space.
    commits : int
        How many commits filled it.
    seconds : float
        From creating the file to the last commit on disk.
    file_bytes : int
    """

    records: int
    spaces: dict[str, int]
    commits: int
    seconds: float
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One search.

    Attributes
    ----------
    query : str
        What was asked, in words.
    space : str
    where : mapping or None
    matches : int
        Records that satisfy `where`.
    ids, scores, labels : tuple
        The hits, best first; a label is a record's text or facts, for people.
    milliseconds : float
    exact : bool
        Whether plain Python and numpy count the same matches and give the same best scores.
    """

    query: str
    space: str
    where: Mapping[str, Any] | None
    matches: int
    ids: tuple[str, ...]
    scores: tuple[float, ...]
    labels: tuple[str, ...]
    milliseconds: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """All questions of the sample asked at once in one space.

    Attributes
    ----------
    space : str
    queries : int
    first, in_ten : int
        Questions with a right text as the first hit, and among the first ten.
    exact : int
        Questions with the same best scores as the numpy product.
    milliseconds : float
        For the whole batch.
    """

    space: str
    queries: int
    first: int
    in_ten: int
    exact: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Travel:
    """Records deleted, and a search in the time before.

    Attributes
    ----------
    tag : str
        Name of the state before the deletion.
    seq : int
        Its commit.
    deleted : int
    records_then, records_now : int
    first_then, first_now : str
        First hit of the same query at the tag and now.
    query : str
    where : mapping
        What was deleted.
    same : bool
        Whether the search at the tag gave the same ids and the same score bits as before the deletion.
    """

    tag: str
    seq: int
    deleted: int
    records_then: int
    records_now: int
    first_then: str
    first_now: str
    query: str
    where: Mapping[str, Any]
    same: bool

    @property
    def ok(self) -> bool:
        """The past is whole and the deleted records are gone from the present."""
        return self.same and self.records_then - self.records_now == self.deleted > 0


@dataclass(frozen=True, slots=True)
class Stage:
    """The questions asked at one stage of an upgrade.

    Attributes
    ----------
    label : str
    first, in_ten : int
        Questions whose right text came first, or among ten.
    questions : int
    native : float
        Share of the hits that vectors of the asking model answered.
    """

    label: str
    first: int
    in_ten: int
    questions: int
    native: float


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A change of the model and back.

    Attributes
    ----------
    old, new : str
        The spaces.
    records : int
    decision : str
        What `plan_upgrade` said.
    stages : tuple of Stage
    promised, found : float
        Share of the nearest neighbours that the bridge was said to find, and that it found on the canary.
    state : str
        Of the migration once everything was embedded.
    rate : float
        Records per second, the time of the model itself (which is none here) included.
    exact : bool
        Whether the best score of each question equalled a plain numpy product once everything was embedded.
    same : bool
        Whether the old model's answers after the rollback had the ids and the score bits of those before.
    problems : tuple of str
        What `Database.check` found at the end.
    seconds : float
    """

    old: str
    new: str
    records: int
    decision: str
    stages: tuple[Stage, ...]
    promised: float
    found: float
    state: str
    rate: float
    exact: bool
    same: bool
    problems: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """The migration came to its end, its answers are right, and it could be undone."""
        return self.state == "complete" and self.exact and self.same and not self.problems


@dataclass(frozen=True, slots=True)
class Crash:
    """A second process killed in the middle of a commit.

    Attributes
    ----------
    commits : int
        Commits that the process had acknowledged.
    acknowledged : int
        Records in them.
    found : int
        Acknowledged records that are there after reopening with the right text and every vector bit.
    unfinished : int
        Records of the commit during which the process was killed.
    unfinished_found : int
        How many of those are visible.
    signal : int
        What ended the process (9 is SIGKILL).
    problems : tuple of str
        What `Database.check` found.
    checked : dict of str to int
        What it looked at.
    rewritten : int
        Records that are there after the unfinished commit was simply repeated.
    reopen_milliseconds : float
        Opening the file after the crash, up to the first count.
    """

    commits: int
    acknowledged: int
    found: int
    unfinished: int
    unfinished_found: int
    signal: int
    problems: tuple[str, ...]
    checked: dict[str, int]
    rewritten: int
    reopen_milliseconds: float

    @property
    def ok(self) -> bool:
        """Everything acknowledged is there, nothing of the unfinished commit is, and the file is sound."""
        kept = self.found == self.acknowledged > 0 and self.unfinished_found == 0 < self.unfinished
        return kept and not self.problems and self.rewritten == self.unfinished


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Every figure of one run.

    Attributes
    ----------
    path : str
    kept : bool
        Whether the file is still there.
    built, answers, quality, travel, upgrade, crash
        The parts, in the order in which they were shown.
    seconds : float
    """

    path: str
    kept: bool
    built: Built
    answers: tuple[Answer, ...]
    quality: tuple[Quality, ...]
    travel: Travel
    upgrade: Upgrade
    crash: Crash
    seconds: float

    @property
    def claims(self) -> dict[str, bool]:
        """What the demonstration set out to show, and whether it held."""
        return {
            "every answer equals a plain numpy product": all(answer.exact for answer in self.answers)
            and all(quality.exact == quality.queries for quality in self.quality),
            "a search in the past gives the old answer, bit for bit": self.travel.ok,
            "a model was changed, and changed back to the last bit": self.upgrade.ok,
            "every acknowledged record survived the kill": self.crash.found == self.crash.acknowledged > 0,
            "nothing of the half commit is visible": self.crash.unfinished_found == 0 < self.crash.unfinished,
            "the file is sound and takes new writes": self.crash.ok,
        }

    @property
    def ok(self) -> bool:
        """Whether every claim held."""
        return all(self.claims.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values that JSON can hold, `claims` and `ok` included."""
        return {**asdict(self), "claims": self.claims, "ok": self.ok}
