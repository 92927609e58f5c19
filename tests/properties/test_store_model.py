"""The store against a dict of records (vecdb/testing/model.py), driven by Hypothesis' state machine."""

import random

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.engine.where import parse
from vecdb.scan_numpy import canonical_scores
from vecdb.testing import stateful
from vecdb.testing.model import Write, holds, score
from vecdb.testing.stateful import IDS, SMALL, WIDE, StoreSteps, store_machine
from vecdb.testing.strategies import conditions, metadata


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


@pytest.fixture(autouse=True)
def no_budget(monkeypatch):
    """The model forgets nothing inside the window: thirty filled blocks in a row are more history than is kept."""
    monkeypatch.setattr("vecdb.storage.writetx.HISTORY_FLOOR", 1 << 40)


def cases(machine, examples, steps):
    class Case(machine.TestCase):
        settings = hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )

    return Case


TestStore = cases(store_machine(SMALL), 30, 30)
TestStoreWithoutHistory = cases(store_machine(SMALL, retention=0), 15, 30)
TestStoreOfFullBlocks = cases(store_machine(WIDE), 6, 30)
TestStoreOfFullBlocksWithoutHistory = cases(store_machine(WIDE, retention=0), 6, 30)


def long_cases(kinds, retention, parts):
    """Parts of 100 examples of 50 steps: each ends in some minutes, and workers share them (``--dist load``)."""
    made = {}
    for part in range(parts):
        name = f"TestStoreLong{'Wide' if kinds is WIDE else ''}{'' if retention else 'WithoutHistory'}{part}"
        machine = store_machine(kinds, retention=retention)
        if hypothesis.settings.default.derandomize:  # the parts would all draw the same
            machine = hypothesis.seed(part)(machine)
        made[name] = pytest.mark.full(type(name, (cases(machine, 100, 50),), {"__module__": __name__}))
    return made


globals().update(long_cases(SMALL, 600.0, 5))
globals().update(long_cases(SMALL, 0.0, 2))
globals().update(long_cases(WIDE, 600.0, 1))
globals().update(long_cases(WIDE, 0.0, 1))


# --- the model is held against what it must not be wrong about --------------------------------------------


@given(conditions, st.lists(metadata, max_size=4))
def test_the_models_conditions_select_what_the_stores_do(where, records):
    assert [holds(where, record) for record in records] == [parse(where).matches(record) for record in records]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@given(seed=st.integers(0, 2**32), dim=st.sampled_from([1, 2, 7, 8, 9, 64, 100]), half=st.booleans())
def test_the_models_scores_are_the_canonical_ones_bit_by_bit(metric, seed, dim, half):
    rng = np.random.default_rng(seed)
    query = rng.standard_normal(dim).astype(np.float32)
    rows = (rng.standard_normal((5, dim)) * 10.0 ** rng.integers(-3, 4)).astype(np.float16 if half else np.float32)
    expected = canonical_scores(metric, query, rows).astype(np.float32)
    assert np.array([score(metric, query, row) for row in rows]).tobytes() == expected.tobytes()


def fill(steps, count=8, seed=0):
    ids = list(IDS[:count])
    write = Write(
        ids, {"cos": range(seed, seed + count), "half": range(count)}, [{"n": place} for place in range(count)]
    )
    steps.change(stateful.upserting(write))


def test_a_long_history_of_filled_blocks_is_read_at_every_seq():
    """Overwriting seals, kills and repacks blocks under states that are still kept."""
    steps = StoreSteps(WIDE)
    try:
        for seed in range(6):
            fill(steps, seed=seed)
            steps.tag(f"t{seed}", None)
        steps.optimize()
        for place in range(steps.seq + 1):
            steps.look_back(place)
        for seed in range(4):
            steps.untag(f"t{seed}")
        steps.compact("tags")
        for place in range(steps.seq + 1):
            steps.look_back(place)
        for key in IDS:
            steps.history(key)
    finally:
        steps.close()


def test_steps_can_be_driven_without_hypothesis():
    steps, choose = StoreSteps(SMALL), random.Random(7)
    try:
        for number in range(60):
            fill(steps, count=choose.randint(1, 12), seed=number % 40)
            steps.change(stateful.deleting([choose.choice(IDS)], missing_ok=True))
            steps.look_back(choose.randint(0, 200))
    finally:
        steps.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda steps: steps.db.collection("things").delete(["a"]),
        lambda steps: steps.db.collection("things").set_metadata(["a"], [{"n": 99}]),
        lambda steps: steps.db.collection("things").set_vectors("cos", ["a"], [[9, 9, 9, 9, 9]]),
        lambda steps: steps.db.collection("things").add_space("dot", dim=3),
        lambda steps: steps.db.tag("other"),
    ],
)
def test_a_difference_behind_the_models_back_is_seen(damage):
    steps = StoreSteps(SMALL)
    fill(steps)
    damage(steps)
    steps.past[steps.seq + 1] = steps.past[steps.seq]
    steps.seq += 1
    with pytest.raises(AssertionError):
        steps.close()
