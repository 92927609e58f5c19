"""Orders by one number a record, largest first: all of vecdb's own policies are of this form.

Equal numbers are ordered by the record's noise, so that ties are no bias toward old records, and then by ordinal.
Invariant: a record's place among others depends on their facts alone, so an order goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts.backfill import BackfillFacts, BackfillPolicy, Fact
from vecdb.contracts.params import Param

__all__ = ["hybrid_policy", "novelty_policy", "random_policy", "traffic_policy", "uncertainty_policy"]

Scores = npt.NDArray[np.float64]
Scorer = Callable[[BackfillFacts, Mapping[str, Any]], Scores]


@dataclass(frozen=True, slots=True)
class RankedPolicy:
    """A policy that embeds the records with the largest numbers first."""

    name: str
    needs: frozenset[Fact]
    score: Scorer
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def order(self, facts: BackfillFacts, params: Mapping[str, Any]) -> npt.NDArray[np.int64]:
        """Rank the pending records; see `vecdb.contracts.BackfillPolicy.order`."""
        rows = np.flatnonzero(facts.pending)
        scores = self.score(facts, params)[rows]
        return rows[np.lexsort((facts.noise[rows], -scores))].astype(np.int64)


def _numbers(fact: npt.NDArray[Any] | None, name: str) -> Scores:
    if fact is None:
        raise ValueError(f"the fact {name!r} is missing")  # the engine collects what a policy says that it needs
    return fact.astype(np.float64)


def random_policy() -> BackfillPolicy:
    """Return the control: any order is worth what it gains over this one."""
    return RankedPolicy("random", frozenset(), lambda facts, params: np.zeros(len(facts.pending)))


def novelty_policy() -> BackfillPolicy:
    """Return the default: records far from those that the transform was fitted on, whose bridged scores say least."""
    return RankedPolicy("novelty", frozenset({"novelty"}), lambda facts, params: _numbers(facts.novelty, "novelty"))


def traffic_policy() -> BackfillPolicy:
    """Return the order by how often records were among the hits of bridged searches."""
    return RankedPolicy("traffic", frozenset({"traffic"}), lambda facts, params: _numbers(facts.traffic, "traffic"))


def uncertainty_policy() -> BackfillPolicy:
    """Return the order by the transform's own estimate of its error.

    FastFill (Jaeckle et al., ICLR 2023, section 4.3) ranks by a predicted variance; here it is whatever the transform
    predicts.
    """
    return RankedPolicy(
        "uncertainty", frozenset({"uncertainty"}), lambda facts, params: _numbers(facts.uncertainty, "uncertainty")
    )


def hybrid_policy() -> BackfillPolicy:
    """Return the order by novelty, raised for what bridged searches return."""
    weight = Param("float", 1.0, "How much the logarithm of the hits raises the novelty.", low=0.0, high=1000.0)
    return RankedPolicy("hybrid", frozenset({"novelty", "traffic"}), _raised, {"weight": weight})


def _raised(facts: BackfillFacts, params: Mapping[str, Any]) -> Scores:
    hits = _numbers(facts.traffic, "traffic")
    return _numbers(facts.novelty, "novelty") * (1.0 + float(params["weight"]) * np.log1p(hits))
