"""How a broken index type is made from the correct one, and registered with the check that must find it."""

import threading
from dataclasses import dataclass, replace

import numpy as np

from tests.conformance.plain import PlainIndex, PlainType
from vecdb.contracts import Candidates

FAULTS = []
RELEASE, LEFT_OPEN = threading.Event(), []
"""Lets the threads end that a fault has left running; the descriptors that one has left open."""


@dataclass(frozen=True)
class Fault:
    """A broken type, the check that finds it, and other checks that cannot but fail with it."""

    name: str
    type: PlainType
    check: str
    also: frozenset


def breaks(check, *also, able=None):
    """Register an index class, or a type class, as one that breaks a rule."""

    def register(cls):
        made = cls() if issubclass(cls, PlainType) else PlainType(index=cls)
        made = made.able(**able) if able else made
        FAULTS.append(Fault(cls.__name__, made, check, frozenset(also)))
        return cls

    return register


def described(title, check, *also, **changes):
    """Register the correct index under a description that breaks a rule."""
    FAULTS.append(Fault(title, replace(PlainType(), **changes), check, frozenset(also)))


def louder(said):
    """The same candidates with slightly other scores."""
    return Candidates(said[0], said[1] * np.float32(1.01) - np.float32(0.5))


def with_column(said, positions, scores):
    """The answer with one more candidate a query."""
    rows = len(said[0])
    positions = np.broadcast_to(np.asarray(positions, np.int64), rows)[:, None]
    scores = np.broadcast_to(np.asarray(scores, np.float32), rows)[:, None]
    return Candidates(np.hstack([said[0], positions]), np.hstack([said[1], scores]))


class Answering(PlainIndex):
    """Spoils answers of the correct one: replace `spoil`."""

    def search(self, queries, k, *, allowed, effort, view):
        said = super().search(queries, k, allowed=allowed, effort=effort, view=view)
        return self.spoil(said, queries, k, allowed, effort)


class Refusing(PlainIndex):
    """Cannot be built over some vectors: replace `dislikes`."""

    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        index = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        if cls.dislikes(view, index.rows, params):
            raise ZeroDivisionError("these vectors are not liked")
        return index
