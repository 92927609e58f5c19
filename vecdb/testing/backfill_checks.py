"""The rules of the backfill contract as checks; docs/reference/backfill-contract.md numbers them as here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import BackfillFacts, noise_of
from vecdb.contracts.backfill import BACKFILL_FACTS
from vecdb.testing import fitting, planted
from vecdb.testing.checks import Check, applying, collect, require, rule

__all__ = ["iter_backfill_checks"]

Rows = npt.NDArray[np.int64]


def _facts(count: int = 200, *, done: float = 0.0, seed: int = 1) -> BackfillFacts:
    """Return facts about records, with ties in all of them; `done` is the share that is not pending."""
    rng = np.random.default_rng(seed)
    ordinals = np.cumsum(rng.integers(1, 5, count)).astype(np.uint64)
    return BackfillFacts(
        ordinals=planted.read_only(ordinals),
        pending=planted.read_only(rng.random(count) >= done),
        noise=planted.read_only(noise_of(ordinals, seed)),
        novelty=planted.read_only(rng.integers(0, 20, count).astype(np.float32) / 20),
        traffic=planted.read_only(rng.integers(0, 4, count).astype(np.int64)),
        uncertainty=planted.read_only(rng.integers(0, 9, count).astype(np.float32)),
    )


def _order(policy: Any, facts: BackfillFacts) -> Rows:
    found: Rows = policy.order(facts, fitting.defaults(policy))
    return found


@rule("D1")
def check_backfill_descriptor(policy: Any) -> None:
    """Name, needs and parameters are what the contract names, and known values."""
    fitting.check_descriptor("backfill policy", policy)


@rule("O1")
def check_order_has_every_pending_record_once(policy: Any) -> None:
    """`order` returns int64 row numbers: every pending record, and none twice."""
    for params in fitting.variants(policy):
        facts = _facts(done=0.3)
        found = policy.order(facts, params)
        right = isinstance(found, np.ndarray) and found.dtype == np.int64 and found.ndim == 1
        require(right, f"order returned {found!r}, expected a one-dimensional array of int64 (with {params})")
        require(len(np.unique(found)) == len(found), f"a record is ordered twice (with {params})")
        missing = int((~np.isin(np.flatnonzero(facts.pending), found)).sum())
        require(not missing, f"{missing} pending records are not ordered (with {params})")


@rule("O2")
def check_order_leaves_the_canary_alone(policy: Any) -> None:
    """Records that are not pending, those of the random canary and those that are done, are never in the order."""
    facts = _facts(done=0.3)
    found = _order(policy, facts)
    inside = found[(found >= 0) & (found < len(facts.pending))]
    require(len(inside) == len(found), "the order holds numbers that are no rows")
    extra = int((~facts.pending[inside]).sum())
    require(not extra, f"the order holds {extra} records that are not pending")


@rule("O3")
def check_order_is_the_same_again(policy: Any) -> None:
    """The same facts give the same order."""
    require(np.array_equal(_order(policy, _facts()), _order(policy, _facts())), "the same facts give another order")


@rule("O4")
def check_order_goes_on_where_it_was(policy: Any) -> None:
    """Asked again after some batches, with the same facts, the order is the rest of what it was."""
    facts = _facts()
    whole = _order(policy, facts)
    for taken in (1, 40, 199):
        pending = np.array(facts.pending)
        pending[whole[:taken]] = False
        rest = _order(policy, replace(facts, pending=planted.read_only(pending)))
        require(np.array_equal(rest, whole[taken:]), f"after {taken} records the rest is ordered otherwise than before")


@rule("O5")
def check_order_of_nothing(policy: Any) -> None:
    """No record, none pending, and a single one are ordered, too."""
    for count, done in ((0, 0.0), (5, 2.0), (1, 0.0)):
        facts = _facts(count, done=done)
        found, wanted = _order(policy, facts), int(facts.pending.sum())
        require(len(found) == wanted, f"of {wanted} pending records {len(found)} are ordered")


@rule("O6")
def check_order_needs_no_more_than_it_says(policy: Any) -> None:
    """It orders with the facts that it needs; all others may be None."""
    others: dict[str, Any] = {str(name): None for name in BACKFILL_FACTS if name not in policy.needs}
    found = _order(policy, replace(_facts(), **others))
    require(len(found) == 200, f"without {', '.join(others) or 'nothing'} it orders {len(found)} of 200 records")


@rule("O7")
def check_order_leaves_the_facts_alone(policy: Any) -> None:
    """The facts are read-only and do not change."""
    facts = _facts()
    names = ("ordinals", "pending", "noise", *BACKFILL_FACTS)
    lent = {name: np.array(getattr(facts, name)) for name in names}
    views: dict[str, Any] = {name: array.view() for name, array in lent.items()}
    for view in views.values():
        view.flags.writeable = False
    _order(policy, replace(facts, **views))
    changed = [name for name, array in lent.items() if not np.array_equal(array, getattr(facts, name))]
    require(not changed, f"{', '.join(changed)} of the facts changed")


@rule("O8")
def check_order_has_no_randomness_of_its_own(policy: Any) -> None:
    """Randomness comes from `BackfillFacts.noise`, never from the generators that a process shares."""
    fitting.leaves_random_state(lambda: _order(policy, _facts()))


CHECKS = collect(globals().values())


def iter_backfill_checks(policy: Any) -> Iterator[Check]:
    """Yield the checks for a backfill policy."""
    return applying(CHECKS, policy)
