"""The backfill contract: in which order the records of a migration get their vectors from the new model.

A policy ranks; the engine embeds, writes, counts, and keeps the place. A policy is a function of the facts alone, so
that a migration which was killed goes on as if it had not been. The numbered rules:
docs/reference/backfill-contract.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param

__all__ = ["BACKFILL_FACTS", "BackfillFacts", "BackfillPolicy", "noise_of"]

Fact: TypeAlias = Literal["novelty", "traffic", "uncertainty"]
BACKFILL_FACTS: tuple[Fact, ...] = ("novelty", "traffic", "uncertainty")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class BackfillFacts:
    """What is known of the n records of a migration; row i of every array is the same record. Arrays are read-only.

    Attributes
    ----------
    ordinals : ndarray of uint64, shape (n,)
        The lasting number of each record's vector, ascending.
    pending : ndarray of bool, shape (n,)
        Records still to be ordered. Those that are done are not, nor is the random canary, which the engine embeds
        before any policy has a say.
    noise : ndarray of float64, shape (n,)
        Uniform in [0, 1), fixed for a record and a migration (`noise_of`): the only randomness of a policy.
    novelty : ndarray of float32, shape (n,), or None
        Mean distance to the five nearest records that the transform was fitted on.
    traffic : ndarray of int64, shape (n,), or None
        How often the record was among the hits of a bridged search.
    uncertainty : ndarray of float32, shape (n,), or None
        `Transform.uncertainty`.
    """

    ordinals: npt.NDArray[np.uint64]
    pending: npt.NDArray[np.bool_]
    noise: npt.NDArray[np.float64]
    novelty: npt.NDArray[np.float32] | None = None
    traffic: npt.NDArray[np.int64] | None = None
    uncertainty: npt.NDArray[np.float32] | None = None


@runtime_checkable
class BackfillPolicy(Protocol):
    """An order for the records of a migration, registered under a name; stateless.

    Attributes
    ----------
    name : str
        Lower case; with a prefix, ``"acme.newest"``, unless it is part of vecdb.
    needs : frozenset of {"novelty", "traffic", "uncertainty"}
        Facts without which it cannot order; the engine collects those and refuses where it cannot. Others may be
        None.
    parameters : mapping of str to Param
    """

    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> frozenset[Fact]: ...
    @property
    def parameters(self) -> Mapping[str, Param]: ...

    def order(self, facts: BackfillFacts, params: Mapping[str, Any]) -> npt.NDArray[np.int64]:
        """Rank the pending records.

        The engine takes batches from the front and asks again when the facts have changed. Asked again with the same
        facts, but fewer pending, a policy returns what it would have returned before, without those.

        Parameters
        ----------
        facts : BackfillFacts
        params : mapping
            Every declared parameter, checked.

        Returns
        -------
        ndarray of int64, shape (number pending,)
            Each row that is pending, once, first to be embedded first.
        """
        ...


def noise_of(ordinals: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """Return the `BackfillFacts.noise` of records: a hash of ordinal and seed, the same for a record in any company.

    Parameters
    ----------
    ordinals : ndarray of uint64, shape (n,)
    seed : int
        ``0 <= seed < 2**63``.

    Returns
    -------
    ndarray of float64, shape (n,)
        Uniform in [0, 1). The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
        generators", 2014, section 3), applied to ``mix(seed) + ordinal * golden``.
    """
    start = _mix(np.asarray([seed], dtype=np.uint64))
    mixed = _mix(start + ordinals.astype(np.uint64) * _GOLDEN)
    uniform: npt.NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = values + _GOLDEN  # arrays of uint64 wrap around without a warning
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
