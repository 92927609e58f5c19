"""Whatever indexes a database has, and whatever happens to it: exact types answer what a scan answers, bit by bit."""

import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import vecdb
from tests.indextypes import NONE, CopiesType, able, registry
from vecdb.engine import indexed, upkeep
from vecdb.testing.stateful import in_memory

SPACES = {"s": (3, "l2", "float32"), "cos": (5, "cosine", "float16"), "wide": (16_384, "dot", "float32")}
"""15 vectors of `wide` fill a block, so that writes seal; the others are sealed by upkeep only."""
TYPES = (
    CopiesType("acme.plain", able("exact")),
    CopiesType("acme.filtered", able("exact", "filtered")),
    CopiesType("acme.complete", able("exact", "filtered", "complete")),
    CopiesType("acme.grows", able("exact", "filtered", "add")),
    CopiesType("acme.forgets", able("exact", "filtered", "complete", "add", "remove")),
    CopiesType("acme.codes", able("exact", "encodes_segments")),
    CopiesType("acme.all", able("exact", "filtered", "complete", "add", "remove", "encodes_segments")),
    CopiesType("acme.half", able("filtered", "add", "remove", "encodes_segments"), half=True),
)
OWN = ("flat", "ivf", "rabitq")
"""Without kernels, vecdb's own types answer from the vectors, so their lives are told apart by nothing but errors."""
KINDS = (*OWN, *(each.name for each in TYPES))
REGISTRY = registry(*TYPES)
IDS = st.lists(st.integers(0, 60), min_size=1, max_size=20, unique=True)
SEEDS = st.integers(0, 40)
WHERES = (None, {"g": 1}, {"g": {"$ne": 1}}, {"g": {"$in": [0, 3]}}, {"g": 99})


@pytest.fixture(autouse=True)
def small_scale(monkeypatch):
    """Indexes are asked where a scan would be quicker, and grow by a few vectors."""
    monkeypatch.setenv("VECDB_KERNELS", "0")
    monkeypatch.setattr(indexed, "how_many", how_many)
    monkeypatch.setattr(upkeep, "GROW_FROM", 3)


def how_many(part, question, count, matches, effort, *, restricted):
    if not restricted or part.provided.thing.capabilities.filtered:
        return question.k
    return question.k + 2


def vector(space, seed):
    """Few different vectors, so that scores tie."""
    dim = SPACES[space][0]
    return np.random.default_rng(seed).integers(-2, 3, dim).astype(np.float32) + (seed % 3 == 0) * 0.25 + 0.125


class Indexes(RuleBasedStateMachine):
    retention = 600.0

    @initialize(kind=st.sampled_from(KINDS), space=st.sampled_from(sorted(SPACES)))
    def begin(self, kind, space):
        self.folder = tempfile.TemporaryDirectory(dir=in_memory())
        self.path = Path(self.folder.name) / "indexes.vecdb"
        self.tags = 0
        self.open(REGISTRY)
        things = self.db.create_collection("things")
        for name, (dim, metric, dtype) in SPACES.items():
            things.add_space(name, dim=dim, metric=metric, dtype=dtype)
        self.write(list(range(25)), 1)
        self.create_index(space, kind)

    def open(self, plugins):
        self.db = vecdb.open(self.path, retention=self.retention, durability="relaxed", plugins=plugins)

    @property
    def things(self):
        return self.db.collection("things")

    def write(self, ids, seed):
        vectors = {name: [vector(name, seed + 7 * place) for place in range(len(ids))] for name in SPACES}
        self.things.upsert(ids, vectors, metadata=[{"g": (place + seed) % 4} for place in ids], trust=True)

    @rule(ids=IDS, seed=SEEDS)
    def upsert(self, ids, seed):
        self.write(ids, seed)

    @rule(ids=IDS, seed=SEEDS, gone=IDS, commit=st.booleans())
    def transaction(self, ids, seed, gone, commit):
        class Stop(Exception):
            pass

        try:
            with self.db.transaction():
                self.write(ids, seed)
                self.compare_now()
                self.things.delete(gone, missing_ok=True)
                self.write(ids[::2], seed + 1)
                if not commit:
                    raise Stop
        except Stop:
            pass

    @rule(ids=IDS)
    def delete(self, ids):
        self.things.delete(ids, missing_ok=True)

    @rule(where=st.sampled_from(WHERES[1:]))
    def delete_where(self, where):
        self.things.delete(where=where)

    @rule(space=st.sampled_from(sorted(SPACES)), seed=SEEDS)
    def set_vectors(self, space, seed):
        ids = [record.id for record in self.things.scan(limit=5)]
        self.things.set_vectors(space, ids, [vector(space, seed + each) for each in range(len(ids))], trust=True)

    @rule(space=st.sampled_from(sorted(SPACES)), kind=st.sampled_from(KINDS))
    def create_index(self, space, kind):
        if any((info.space, info.kind) == (space, kind) for info in self.things.indexes):
            return
        try:
            info = self.things.create_index(space, kind, seed=3)
        except vecdb.errors.UnknownNameError:
            assert self.db.plugins is NONE and kind not in OWN
            return
        assert (info.space, info.kind, info.available) == (space, kind, True)

    @rule(place=st.integers(0, 9))
    def drop_index(self, place):
        infos = self.things.indexes
        if infos:
            info = infos[place % len(infos)]
            self.things.drop_index(info.space, info.kind)

    @rule()
    def optimize(self):
        self.things.optimize()
        assert self.things.optimize() == 0 or self.db.plugins is NONE

    @rule(ids=IDS, gone=IDS, seed=SEEDS)
    def grow(self, ids, gone, seed):
        """Indexes take in what is new and forget what died, while a tag keeps the state before."""
        self.tag()
        self.things.delete(gone[:5], missing_ok=True)
        self.write([100 + place for place in ids], seed)
        self.optimize()
        for as_of in self.db.tags():
            self.same(vector("s", seed), 40, space="s", as_of=as_of)

    @rule(keep=st.sampled_from(["tags", "window", "nothing"]))
    def compact(self, keep):
        self.db.compact(keep=keep)

    @rule(plugins=st.sampled_from([REGISTRY, REGISTRY, NONE]))
    def reopen(self, plugins):
        self.db.close()
        self.open(plugins)

    @rule()
    def tag(self):
        if len(self.db.tags()) < 4:
            self.tags += 1
            self.db.tag(f"t{self.tags}")

    @rule(place=st.integers(0, 3))
    def untag(self, place):
        names = sorted(self.db.tags())
        if names:
            self.db.untag(names[place % len(names)])

    @rule(space=st.sampled_from(sorted(SPACES)), seed=SEEDS, k=st.integers(1, 30), offset=st.integers(0, 4))
    def search(self, space, seed, k, offset):
        query = vector(space, seed)
        for as_of in (None, *self.db.tags()):
            for where in WHERES:
                self.same(query, k, space=space, where=where, offset=offset, as_of=as_of)
            self.same(np.stack([query, -query, vector(space, seed + 1)]), k, space=space, as_of=as_of)
        self.same(query, k, space=space, min_score=-3.0)
        first = next(iter(self.things.scan(limit=1)), None)
        if first is not None:
            self.same(None, k, space=space, like=first.id)

    def same(self, query, k, **options):
        found = self.things.search(query, k, explain=True, **options)
        wanted = self.things.search(query, k, exact=True, **options)
        notes = str(found.plan)
        if "acme.half" not in notes:
            assert found.ids == wanted.ids, (options, notes)
            assert np.array_equal(found.scores, wanted.scores), (options, notes)
        else:
            self.plausible(found, wanted)

    @staticmethod
    def plausible(found, wanted):
        """An approximate answer is as long as an exact one, sorted, and its scores are the canonical ones."""
        for mine, true in zip(np.atleast_2d(found.scores), np.atleast_2d(wanted.scores), strict=True):
            mine, true = mine[np.isfinite(mine)], true[np.isfinite(true)]
            assert (np.diff(mine) <= 0).all() and (mine <= true[: len(mine)]).all()

    def compare_now(self):
        for name in SPACES:
            self.same(vector(name, 5), 4, space=name)

    @invariant()
    def sound(self):
        if hasattr(self, "db"):
            self.compare_now()
            infos = self.things.indexes
            for info in infos:
                assert 0.0 <= info.coverage <= 1.0
                assert info.available == (info.kind in OWN or self.db.plugins is REGISTRY)

    def teardown(self):
        if hasattr(self, "db"):
            try:
                report = self.db.check()
                assert report.ok, report.problems
            finally:
                self.db.close()
                self.folder.cleanup()


class IndexesWithoutHistory(Indexes):
    retention = 0.0


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


TestIndexes = cases(Indexes, 12, 20)
TestIndexesWithoutHistory = cases(IndexesWithoutHistory, 12, 20)


@pytest.mark.full
class TestIndexesLong(cases(Indexes, 200, 50)):
    pass


@pytest.mark.full
class TestIndexesWithoutHistoryLong(cases(IndexesWithoutHistory, 200, 50)):
    pass
