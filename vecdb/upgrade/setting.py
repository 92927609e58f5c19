"""What queries are judged by: known answers, or, without them, what the new model itself finds nearest.

Invariant: documents and real queries are never pooled; a document that asks is not among the rows that answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.errors import FitError
from vecdb.evaluation import Judged, top_k
from vecdb.upgrade.material import Material, Questions
from vecdb.upgrade.parts import Part
from vecdb.upgrade.sides import Setting

__all__ = ["Judging", "judging_of"]

Integers = npt.NDArray[np.int64]

FEWEST = 20
"""Fewer queries with answers decide nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Judging:
    """How each split is judged.

    Attributes
    ----------
    mode : {"answers", "queries", "documents"}
    settings : tuple of Setting
        One for each split, or one for all of them.
    columns : tuple of ndarray of int64
        The columns of the ledger that the queries of each setting are.
    clusters : ndarray of int64
        Of all columns.
    notes : tuple of str
    """

    mode: str
    settings: tuple[Setting, ...]
    columns: tuple[Integers, ...]
    clusters: Integers
    notes: tuple[str, ...] = ()

    def of(self, split: int) -> tuple[Setting, Integers, slice]:
        """Return the setting of a split, its columns, and the splits that it stands for."""
        if len(self.settings) == 1:
            return self.settings[0], self.columns[0], slice(None)
        return self.settings[split], self.columns[split], slice(split, split + 1)


def judging_of(material: Material, parts: list[Part]) -> Judging:
    """Return how to judge with what there is.

    Raises
    ------
    FitError
        Neither queries nor pairs kept back are enough.
    """
    asked = material.questions
    if asked is not None and asked.judged is not None and int(asked.judged.answered.sum()) >= FEWEST:
        return _by_answers(material, asked, asked.judged)
    if asked is not None and asked.count >= FEWEST and asked.new is not None:
        return _by_neighbours(material, asked)
    return _by_documents(material, parts)


def _by_answers(material: Material, asked: Questions, judged: Judged) -> Judging:
    known = asked.take(np.flatnonzero(judged.answered))
    there = np.flatnonzero(material.places >= 0)
    natives, first = np.unique(material.places[there], return_index=True)
    setting = Setting(material.gallery, natives, material.Y[there[first]], known, material.bank)
    left = judged.queries - known.count
    notes = (f"{left} queries have no answer with an old vector and judge nothing",) if left else ()
    return Judging("answers", (setting,), (np.arange(known.count),), known.clusters, notes)


def _by_neighbours(material: Material, asked: Questions) -> Judging:
    new = asked.new
    assert new is not None
    nearest, _ = top_k(new, material.Y, 1, material.target.metric)
    known = Questions(asked.old, new, Judged.of(nearest[:, 0].tolist()), asked.clusters)
    setting = Setting(material.X, np.arange(len(material.X)), material.Y, known, _unjudged(material))
    return Judging("queries", (setting,), (np.arange(asked.count),), asked.clusters)


def _by_documents(material: Material, parts: list[Part]) -> Judging:
    settings, columns = [], []
    for part in parts:
        asking = part.test
        if len(asking) < FEWEST:
            raise FitError(
                f"{len(asking)} pairs are left to judge by, expected {FEWEST} or more",
                hint="Give queries with answers, or more pairs.",
                pairs=len(material.X),
                needed=FEWEST * 10,
            )
        others = np.setdiff1d(np.arange(len(material.X)), asking)
        nearest, _ = top_k(material.Y[asking], material.Y[others], 1, material.target.metric)
        judged = Judged.of(nearest[:, 0].tolist())
        asked = Questions(material.X[asking], material.Y[asking], judged, material.groups[asking])
        settings.append(Setting(material.X[others], np.arange(len(others)), material.Y[others], asked, None))
        columns.append(asking)
    return Judging("documents", tuple(settings), tuple(columns), material.groups)


def _unjudged(material: Material) -> Questions | None:
    """Return the bank without its answers, which name rows of the collection."""
    bank = material.bank
    return None if bank is None else Questions(bank.old, bank.new, None, bank.clusters)
