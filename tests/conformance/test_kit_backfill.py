"""The kit for backfill policies: sound ones pass, and each rule catches the one that breaks it, alone and by name."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from tests.conformance.broken import Changed, broken_rules
from tests.conformance.filters import POLICIES
from vecdb.contracts import BackfillFacts, Param, noise_of
from vecdb.testing import parametrize_with_checks
from vecdb.testing.backfill_checks import CHECKS


@parametrize_with_checks(POLICIES, "backfill policy")
def test_sound_policies_pass(backfill_policy, check):
    check(backfill_policy)


by_noise, novelty, traffic, hybrid = POLICIES


class Ordering(Changed):
    """A policy whose order is changed: change(order, facts)."""

    def order(self, facts, params):
        return self.change(self.inner.order(facts, params), facts)


class Counting(Changed):
    """Turns its order round at every second call."""

    calls = 0

    def order(self, facts, params):
        type(self).calls += 1
        return self.inner.order(facts, params)[:: 1 if self.calls % 2 else -1].copy()


def writing(order, facts):
    lender = facts.pending.base
    if isinstance(lender, np.ndarray) and lender.flags.writeable:
        lender[0] = False
    return order


def drawing(order, facts):
    random.random()
    return order


def reshuffled(order, facts):
    return order[np.random.default_rng(1).permutation(len(order))]


def done_first(order, facts):
    return np.concatenate([np.flatnonzero(~facts.pending), order]).astype(np.int64)


def not_empty(order, facts):
    return order if len(order) != 1 else order[:0]


BROKEN = {
    "needs luck": ("D1", Changed(novelty, needs=["novelty"])),
    "undescribed": ("D1", Changed(novelty, parameters={"a": Param("int", 1, "")})),
    "forgets the last": ("O1", Ordering(novelty, change=lambda order, facts: order[: max(1, len(order) - 1)])),
    "int32": ("O1", Ordering(novelty, change=lambda order, facts: order.astype(np.int32))),
    "canary first": ("O2", Ordering(novelty, change=done_first)),
    "another order each time": ("O3", Counting(novelty)),
    "shuffles what is left": ("O4", Ordering(novelty, change=reshuffled)),
    "forgets the only one": ("O5", Ordering(novelty, change=not_empty)),
    "needs more than it says": ("O6", Changed(hybrid, needs=frozenset({"novelty"}))),
    "writes into the facts": ("O7", Ordering(novelty, change=writing)),
    "shared randomness": ("O8", Ordering(novelty, change=drawing)),
}
ALSO = {
    "forgets the last": {"O4", "O6"},
    "another order each time": {"O4"},
    "canary first": {"O4", "O5"},
    "forgets the only one": {"O4"},
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_catches_the_one_that_breaks_it(name):
    number, thing = BROKEN[name]
    random.seed(1)
    found = broken_rules(thing, "backfill policy")
    assert number in found
    assert found <= {number} | ALSO.get(name, set())  # an order that forgets somebody is no tail of itself either


def test_there_is_a_broken_policy_for_every_rule():
    assert {number for number, _ in BROKEN.values()} == {check.number for check in CHECKS}


def test_a_policy_that_ranks_by_novelty_does():
    ordinals = np.arange(5, dtype=np.uint64)
    facts = BackfillFacts(
        ordinals, np.ones(5, bool), noise_of(ordinals, 3), novelty=np.array([0.1, 0.9, 0.5, 0.7, 0.3], np.float32)
    )
    assert novelty.order(facts, {}).tolist() == [1, 3, 2, 4, 0]
    facts = replace(facts, pending=np.array([True, False, True, True, True]))
    assert novelty.order(facts, {}).tolist() == [3, 2, 4, 0]
