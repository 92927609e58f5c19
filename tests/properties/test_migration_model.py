"""Versions and migrations against a plain model: any order of writes, runs, pauses, reopenings, and both ends."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import vecdb
from vecdb.engine.migration import ending
from vecdb.errors import StateError

DIM, TEXTS = 5, 40
RNG = np.random.default_rng(8)
TABLES = RNG.standard_normal((6, TEXTS, DIM)).astype(np.float32)
"""By model and text: what each model makes of it."""
BAD = 7
"""A text that no new model can embed."""
ids = st.integers(0, 11)
numbers = st.integers(0, TEXTS - 1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")
    monkeypatch.setattr(ending, "UNDO_ROWS", 3)


def vector(space, text):
    return TABLES[int(space[1:]), text]


def encoder(space):
    def embed(texts):
        return [None if int(text) == BAD else vector(space, int(text)) for text in texts]

    return embed


@dataclass
class Record:
    """A record of the model: its text, and by space the text that its vector was made of."""

    text: int
    vectors: dict[str, int]
    version: int = 1


@dataclass
class Running:
    """A migration of the model."""

    source: str
    target: str
    mine: set = field(default_factory=set)
    paused: bool = False
    started: bool = False


class Migrations(RuleBasedStateMachine):
    """One collection through several models."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "a.vecdb"
        self.records: dict[int, Record] = {}
        self.running: Running | None = None
        self.spaces = ["v0"]
        self.made = 1
        self.begun = None

    def open(self):
        self.db = vecdb.open(self.path, durability="relaxed", automatic=False)

    @initialize()
    def create(self):
        self.open()
        self.docs.add_space("v0", dim=DIM)

    @property
    def docs(self):
        return self.db.create_collection("docs", exist_ok=True)

    def teardown(self):
        assert self.db.check().ok
        self.db.close()
        self.folder.cleanup()

    # --- writes ---

    def write(self, id, text, spaces, merge=False):
        known = self.records.get(id)
        kept = dict(known.vectors) if merge and known else {}
        if merge and known and self.running and known.text != text:
            given = {self.running.source, self.running.target} & set(spaces)
            if len(given) == 1:
                for other in {self.running.source, self.running.target} - given:
                    kept.pop(other, None)
        self.docs.upsert([id], {name: vector(name, text)[None] for name in spaces}, texts=[str(text)], merge=merge)
        self.records[id] = Record(text, {**kept, **dict.fromkeys(spaces, text)}, known.version + 1 if known else 1)
        if self.running and (self.running.target in spaces or self.running.target not in self.records[id].vectors):
            self.running.mine.discard(id)

    @rule(id=ids, text=numbers, merge=st.booleans(), which=st.sets(st.integers(0, 9), max_size=2))
    def upsert(self, id, text, merge, which):
        self.write(id, text, sorted({self.spaces[each % len(self.spaces)] for each in which}), merge)

    @rule(many=st.dictionaries(ids, numbers, min_size=4))
    def fill(self, many):
        for id, text in many.items():
            self.write(id, text, [self.spaces[0]])

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def delete(self, data):
        id = data.draw(st.sampled_from(sorted(self.records)))
        self.docs.delete([id])
        del self.records[id]
        if self.running:
            self.running.mine.discard(id)

    @precondition(lambda self: self.records)
    @rule(data=st.data(), which=st.integers(0, 9))
    def set_vector(self, data, which):
        id, space = data.draw(st.sampled_from(sorted(self.records))), self.spaces[which % len(self.spaces)]
        record = self.records[id]
        self.docs.set_vectors(space, [id], vector(space, record.text)[None])
        record.vectors[space] = record.text
        record.version += 1
        if self.running and space == self.running.target:
            self.running.mine.discard(id)

    # --- migrations ---

    @precondition(lambda self: self.running is None and self.made < 6)
    @rule(batch=st.integers(1, 4), policy=st.sampled_from(["novelty", "random"]), canary=st.sampled_from([0.0, 0.3]))
    def begin(self, batch, policy, canary):
        if len(self.spaces) == 1:
            self.spaces.append(f"v{self.made}")
            self.docs.add_space(self.spaces[1], dim=DIM)
            self.made += 1
        source, target = self.spaces
        self.begun = {record.id: record for record in self.docs.scan(vectors="all")}
        self.docs.migrate(source, target, encoder(target), policy, batch, canary=canary)
        self.running = Running(source, target)

    def handle(self):
        return self.docs.migration(encoder(self.running.target))

    def waiting(self):
        running = self.running
        return {
            id
            for id, record in self.records.items()
            if running.source in record.vectors and running.target not in record.vectors
        }

    @precondition(lambda self: self.running)
    @rule(limit=st.one_of(st.none(), st.integers(0, 6)))
    def run(self, limit):
        if self.running.paused:
            with pytest.raises(StateError):
                self.handle().run(limit)
            return
        before = self.waiting()
        status = self.handle().run(limit)
        self.running.started = True
        found = {record.id for record in self.docs.scan() if self.running.target in record.spaces} & before
        able = {id for id in before if self.records[id].text != BAD}
        assert found <= able and (limit is None or len(found) <= limit)
        if limit is None:
            assert found == able and status.state == "complete"
        for id in found:
            self.records[id].vectors[self.running.target] = self.records[id].text
        self.running.mine |= found

    @precondition(lambda self: self.running)
    @rule(paused=st.booleans())
    def pause_or_resume(self, paused):
        handle = self.handle()
        (handle.pause if paused else handle.resume)()
        self.running.paused = paused

    @precondition(lambda self: self.running)
    @rule()
    def rollback(self):
        status = self.handle().rollback()
        running, self.running = self.running, None
        for id in running.mine:
            del self.records[id].vectors[running.target]
        alone = {i for i, r in self.records.items() if running.target in r.vectors and running.source not in r.vectors}
        assert set(status.only_new) == alone
        for id, before in self.begun.items():
            now = self.records.get(id)
            if now is not None and now.version == before.version:
                assert tuple(sorted(now.vectors)) == tuple(sorted(before.spaces))

    @precondition(lambda self: self.running)
    @rule(leave=st.booleans())
    def finish(self, leave):
        if not self.running.started or (self.waiting() and not leave):
            with pytest.raises(StateError):
                self.handle().finish(leave_missing=leave)
            return
        self.handle().finish(leave_missing=leave)
        running, self.running = self.running, None
        self.spaces = [running.target]
        for record in self.records.values():
            record.vectors.pop(running.source, None)

    # --- the file ---

    @rule()
    def reopen(self):
        self.db.close()
        self.open()

    @rule()
    def compact(self):
        self.db.compact()

    # --- what is always true ---

    @invariant()
    def the_collection_is_what_the_model_says(self):
        found = {record.id: record for record in self.docs.scan(vectors="all")}
        assert found.keys() == self.records.keys()
        for id, record in self.records.items():
            stored = found[id]
            assert (stored.text, stored.version) == (str(record.text), record.version)
            assert {name: v.tobytes() for name, v in stored.vectors.items()} == {
                name: vector(name, text).tobytes() for name, text in record.vectors.items()
            }

    @invariant()
    def the_status_is_what_the_model_says(self):
        known = self.docs.migrations
        assert sum(status.active for status in known) == (self.running is not None)
        if self.running is None:
            assert self.db.tags() == {}
            return
        status = known[-1]
        assert status.pending == len(self.waiting()) and bool(status.paused) == self.running.paused
        assert set(status.only_new) == {
            id
            for id, record in self.records.items()
            if self.running.target in record.vectors and self.running.source not in record.vectors
        }
        begun = {record.id: record for record in self.docs.scan(vectors="all", as_of=status.tag)}
        assert begun.keys() == self.begun.keys()
        for id, before in self.begun.items():
            assert begun[id].text == before.text and begun[id].spaces == before.spaces


@pytest.mark.parametrize("examples", [12, pytest.param(400, marks=pytest.mark.full)])
def test_migrations_against_a_model(examples):
    settings = hypothesis.settings(max_examples=examples, stateful_step_count=25)
    run_state_machine_as_test(Migrations, settings=settings)
