"""Small worlds in which it is known what an upgrade is worth: topics, documents around them, queries around these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """The same documents and queries by an old and a new model, and which document answers which query."""

    old: F32
    new: F32
    queries: vecdb.QuerySet
    relevant: list[Any]

    def collection(self, db: vecdb.Database, name: str = "docs") -> vecdb.Collection:
        """Return a collection that holds the old vectors, and a space for the new ones."""
        docs = db.create_collection(name)
        docs.add_space("old", dim=self.old.shape[1], model="old")
        docs.add_space("new", dim=self.new.shape[1], model="new")
        docs.upsert(self.ids, vectors={"old": self.old}, trust=True)
        return docs

    @property
    def ids(self) -> list[str]:
        return [f"d{row}" for row in range(len(self.old))]

    def pairs(self, count: int) -> tuple[list[str], F32]:
        """Return the first documents with their new vectors."""
        return self.ids[:count], self.new[:count]


def unit(rows: npt.NDArray[Any]) -> F32:
    made: F32 = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def world(
    kind: str, *, documents: int = 700, queries: int = 150, dim: int = 24, hard: float = 0.55, seed: int = 0
) -> World:
    """Return a world of a kind.

    "rotation": both models say the same in other axes. "noise": the old one adds noise. "cut": the old one has a
    quarter of the columns. "unrelated": each sees what the other does not, the old one less clearly.
    """
    random = np.random.default_rng(seed)
    topics = random.normal(size=(40, dim))
    meaning = topics[random.integers(0, 40, documents)] + 0.8 * random.normal(size=(documents, dim))
    answers = random.permutation(documents)[:queries]
    asked = meaning[answers] + hard * random.normal(size=(queries, dim))
    rotation = np.linalg.qr(random.normal(size=(dim, dim)))[0]

    def old(rows: npt.NDArray[Any]) -> F32:
        turned = rows @ rotation
        if kind == "noise":
            turned = turned + 0.75 * random.normal(size=rows.shape)
        if kind == "cut":
            turned = turned[:, : dim // 4]
        return unit(turned)

    relevant = [f"d{row}" for row in answers.tolist()]
    other, asked_other = meaning, asked
    if kind == "unrelated":
        other = random.normal(size=(documents, dim))
        asked_other = other[answers] + 0.9 * random.normal(size=(queries, dim))
    asked_sets = vecdb.QuerySet(old=old(asked_other), new=unit(asked), relevant=relevant)
    return World(old(other), unit(meaning), asked_sets, relevant)
