"""A collection with graphs through inserts, updates, deletions, tags, optimising, packing and reopening.

What no approximation may touch is held after every step: as many hits as there are matches, only matches, each with its
exact score, in order; and all of the true ones where a walk goes through the whole graph.
"""

import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import vecdb
from tests.indextypes import NONE
from vecdb.engine import indexed
from vecdb.indexes.graph import GraphType
from vecdb.kernels import loader
from vecdb.testing.stateful import in_memory

DIM = 1_024
"""So wide that 240 vectors fill a block: writes seal."""
LAYOUTS = ("compact", "fast")
WHERES = (None, {"g": 1}, {"g": {"$ne": 1}}, {"g": 99})


@pytest.fixture(autouse=True)
def small_scale(monkeypatch):
    """Graphs are asked where a scan would be quicker."""
    vecdb.warmup()
    assert loader.ready() or not loader.enabled()
    monkeypatch.setattr(indexed, "how_many", lambda part, question, *_, **__: question.k)


def vectors(count, seed):
    """Near a curved surface, half of them on a coarse grid so that there are copies."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(1).standard_normal((4, DIM))
    points = rng.standard_normal((count, 4))
    points[::2] = np.round(points[::2])
    return (np.tanh(points @ shape) + 0.1).astype(np.float32)


class Graphs(RuleBasedStateMachine):
    @initialize(metric=st.sampled_from(["cosine", "dot", "l2"]), layout=st.sampled_from(LAYOUTS))
    def begin(self, metric, layout):
        self.folder = tempfile.TemporaryDirectory(dir=in_memory())
        self.path = Path(self.folder.name) / "a.vecdb"
        self.layout = layout
        self.groups = {}
        self.next = 0
        self.tags = {}
        self.open()
        self.things = self.db.create_collection("things")
        self.things.add_space("s", dim=DIM, metric=metric)
        self.insert(130, 0)
        self.things.create_index("s", "graph", layout=layout)

    def open(self):
        self.db = vecdb.open(self.path, durability="relaxed", plugins=NONE)
        if self.next:
            self.things = self.db.collection("things")

    @rule(count=st.sampled_from([1, 40, 260]), seed=st.integers(0, 9))
    def insert(self, count, seed):
        ids = list(range(self.next, self.next + count))
        self.next += count
        self.write(ids, seed)

    @rule(share=st.sampled_from([0.05, 0.5]), seed=st.integers(0, 9))
    def update(self, share, seed):
        self.write(self.some(share, seed), seed + 100)

    def write(self, ids, seed):
        groups = [(number + seed) % 4 for number in ids]
        self.things.upsert(ids, {"s": vectors(len(ids), seed)}, metadata=[{"g": group} for group in groups], trust=True)
        self.groups.update(zip(ids, groups, strict=True))

    def some(self, share, seed):
        alive = sorted(self.groups)
        most = max(1, int(share * len(alive)))
        return np.random.default_rng(seed).choice(alive, most, replace=False).tolist() if alive else []

    @rule(share=st.sampled_from([0.02, 0.4, 0.9]), seed=st.integers(0, 9))
    def delete(self, share, seed):
        for number in (gone := self.some(share, seed)):
            del self.groups[number]
        self.things.delete(gone)

    @rule(name=st.sampled_from(["one", "two"]))
    def tag(self, name):
        if name not in self.tags:
            self.db.tag(name)
            self.tags[name] = dict(self.groups)

    @rule()
    def optimize(self):
        self.db.optimize()

    @rule()
    def build_anew(self):
        self.things.drop_index("s", "graph")
        if self.groups:
            self.things.create_index("s", "graph", layout=self.layout, seed=self.next)
        else:
            self.insert(20, 3)
            self.things.create_index("s", "graph", layout=self.layout)

    @rule(compact=st.booleans())
    def reopen(self, compact):
        if compact:
            self.db.compact()
        self.db.close()
        self.open()

    @rule(
        seed=st.integers(0, 50), where=st.sampled_from(WHERES), k=st.sampled_from([1, 10, 60]), when=st.integers(0, 2)
    )
    def ask(self, seed, where, k, when):
        past = sorted(self.tags)[when] if when < len(self.tags) else None
        query = vectors(2, 200 + seed)[1]
        options = {"where": where, "as_of": past, "include": ()}
        for effort in (None, 1, 20, 5_000):
            found = self.things.search(query, k, effort=effort, **options)
            every = self.things.search(query, 5_000, exact=True, **options)
            exact = dict(zip(every.ids, every.scores.tolist(), strict=True))
            assert len(found.ids) == min(k, len(exact))
            assert [exact[each] for each in found.ids] == found.scores.tolist()
            assert sorted(found.scores.tolist(), reverse=True) == found.scores.tolist()
            known = self.groups if past is None else self.tags[past]
            assert set(exact) == {number for number, group in known.items() if matches(group, where)}
        whole = self.things.search(query, k, effort=5_000, explain=True, **options)
        if where is None and past is None and whole.plan["covered"] == len(self.groups):
            assert whole.scores.tolist() == every.scores.tolist()[:k]

    @invariant()
    def sound(self):
        if hasattr(self, "things"):
            report = self.db.check()
            assert report.ok, report.problems

    def teardown(self):
        if hasattr(self, "db"):
            self.db.close()
            self.folder.cleanup()


def matches(group, where):
    return where is None or {"g": group} == where or ("$ne" in str(where) and group != 1)


def cases(examples, steps):
    class Case(Graphs.TestCase):
        settings = hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )

    return Case


TestGraphs = cases(6, 12)


@pytest.mark.full
class TestGraphsLong(cases(60, 30)):
    pass


def test_the_life_of_a_graph_goes_on_in_the_kit():
    """The kit's own lives, which need no database."""
    from vecdb.testing import datasets
    from vecdb.testing.index_life import Ask, Reload, live

    steps = [Ask(seed=1, k=5), Reload(), Ask(seed=2, k=40, share=0.5), Ask(seed=3, k=200)]
    for metric in ("cosine", "l2"):
        assert live(GraphType(), metric, datasets.gaussian(150, 6, 1), 150, steps) == 9
