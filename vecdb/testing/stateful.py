"""A Hypothesis state machine that drives a database and a model side by side, for this store and what is built on it.

`store_machine` makes the class for ``TestCase``; `StoreSteps` does the steps and knows nothing of Hypothesis, so a
script can drive it from any source of choices. Every step ends with both sides compared; the model is
vecdb/testing/model.py. Hypothesis is imported when a machine is made.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

import vecdb
from vecdb.errors import ExtraMissingError, SnapshotExpiredError, VecdbError
from vecdb.testing.model import Entry, State, Write
from vecdb.types import Id, Metric, Record, WriteResult

__all__ = ["IDS", "SMALL", "WIDE", "StoreSteps", "in_memory", "store_machine"]

IDS: tuple[Id, ...] = ("a", "b", "c", "d", "é", "1", 1, 2, 3, -7, 2**63 - 1, "x" * 480)
Kind = tuple[int, Metric, Literal["float32", "float16"]]
SMALL: Mapping[str, Kind] = {
    "cos": (5, "cosine", "float32"),
    "half": (8, "l2", "float16"),
    "dot": (3, "dot", "float32"),
}
"""Narrow spaces: every vector stays in the tail until something seals it."""
WIDE: Mapping[str, Kind] = {
    "cos": (65_536, "cosine", "float32"),
    "half": (20_000, "l2", "float16"),
    "dot": (16_384, "dot", "float32"),
}
"""Spaces so wide that 3, 26 or 15 vectors fill a block, so that a few writes seal, repack and merge."""

_ROOM = 1 << 30

T = TypeVar("T")
Change = Callable[["StoreSteps", vecdb.Collection, State], State]


class _RolledBack(Exception):
    """Leaves a transaction without committing it."""


class StoreSteps:
    """One database, its model, and the steps that change both.

    Parameters
    ----------
    kinds : mapping of str to (dim, metric, dtype), default `SMALL`
        The spaces. The last is not there at the beginning: steps add, rename and drop it.
    retention : float, default 600.0
        As in `vecdb.open`.

    Attributes
    ----------
    past : dict of int to State
        Every state that can still be read, by seq.
    tags : dict of str to int
    """

    def __init__(self, kinds: Mapping[str, Kind] = SMALL, retention: float = 600.0) -> None:
        self.kinds = kinds
        self.retention = retention
        self._folder = tempfile.TemporaryDirectory(dir=in_memory())
        self._path = Path(self._folder.name) / "model.vecdb"
        self.tags: dict[str, int] = {}
        self.horizon = 0
        self.seq = 0
        self.past: dict[int, State] = {0: State()}
        self._open()
        self.db.create_collection("things")
        self._committed(State())
        for name in list(kinds)[:-1]:
            self.add_space(name)

    def _open(self) -> None:
        self.db = vecdb.open(self._path, retention=self.retention, durability="relaxed")

    @property
    def state(self) -> State:
        """The newest state."""
        return self.past[self.seq]

    def close(self) -> None:
        """Compare everything once more, prove the file, and remove it."""
        try:
            self.compare()
            self.everything_sound()
        finally:
            self.db.close()
            self._folder.cleanup()

    # --- changes: each is one commit, or an error of the same class on both sides ---

    def _committed(self, state: State) -> None:
        self.seq += 1
        self.past[self.seq] = state
        if self.retention == 0:
            self._forget(min(self.tags.values(), default=self.seq))

    def _forget(self, horizon: int) -> None:
        self.horizon = max(self.horizon, horizon)
        self.past = {seq: state for seq, state in self.past.items() if seq >= self.horizon}

    def change(self, change: Change) -> None:
        """Do a change in a commit of its own."""
        with suppress(VecdbError):
            self._committed(change(self, self.db.collection("things"), self.state))
            self._compare_past(max(self.horizon, self.seq - 1))
        self.newest_agrees()

    def transaction(self, changes: Sequence[Change], *, commit: bool) -> None:
        """Do changes in one transaction; one that is refused leaves the others alone."""
        state, done = self.state, 0
        with suppress(_RolledBack), self.db.transaction():
            things = self.db.collection("things")
            for change in changes:
                with suppress(VecdbError):
                    state, done = change(self, things, state), done + 1
                self._compare_records(things, state, None)
                self._compare_search(things, self.state, 3, None)
                self._compare_past(self.seq)
            if not commit:
                raise _RolledBack
        if commit and done:
            self._committed(state)
            self._compare_past(max(self.horizon, self.seq - 1))
        self.newest_agrees()

    def both(self, call: Callable[[], T], change: Callable[[], State]) -> tuple[T, State]:
        """Do the same to both sides and return both results; they must agree on errors, which are raised."""
        try:
            after = change()
        except VecdbError as error:
            try:
                call()
            except type(error):
                raise error from None
            raise AssertionError(f"expected {type(error).__name__}: {error}") from error
        return call(), after

    def add_space(self, name: str) -> None:
        """Add a space that is named in `kinds`."""
        dim, metric, dtype = self.kinds[name]

        def change(_: StoreSteps, things: vecdb.Collection, state: State) -> State:
            return self.both(
                lambda: things.add_space(name, dim=dim, metric=metric, dtype=dtype),
                lambda: state.add_space(name, dim, metric, dtype),
            )[1]

        self.change(change)

    # --- upkeep: nothing that can be read changes, but for history ---

    def reopen(self) -> None:
        """Close the database and open it again."""
        self.db.close()
        self._open()
        self.compare()

    def optimize(self) -> None:
        """Seal, repack and merge what can be."""
        self.db.optimize()
        self.compare()

    def compact(self, keep: Literal["tags", "window", "nothing"]) -> None:
        """Rewrite the file."""
        self.db.compact(keep=keep)
        if keep == "nothing":
            for name in list(self.tags):
                del self.tags[name]
                self._committed(self.state)
        if keep != "window":
            self._forget(min(self.tags.values(), default=self.seq))
        self.compare()

    def tag(self, name: str, seq: int | None) -> None:
        """Name a commit, or meet the error that says why not."""
        wanted = self.seq if seq is None else seq
        if name in self.tags:
            expect(vecdb.errors.ExistsError if self.horizon <= wanted else SnapshotExpiredError, self.db.tag, name, seq)
        elif wanted < self.horizon:
            expect(SnapshotExpiredError, self.db.tag, name, seq)
        else:
            assert self.db.tag(name, seq) == wanted
            self.tags[name] = wanted
            self._committed(self.state)
        self.newest_agrees()

    def untag(self, name: str) -> None:
        """Remove a tag, or meet the error that says there is none."""
        if name not in self.tags:
            return expect(vecdb.errors.TagMissingError, self.db.untag, name)
        self.db.untag(name)
        del self.tags[name]
        self._committed(self.state)
        return self.newest_agrees()

    # --- comparing ---

    def newest_agrees(self) -> None:
        """Compare what costs little."""
        assert self.db.seq == self.seq
        assert self.db.tags() == self.tags
        stats = self.db.stats()
        assert stats["oldest_seq"] == self.horizon
        assert stats["collections"]["things"]["records"] == len(self.state.records)

    def compare(self) -> None:
        """Compare every record of the newest state, and a search in each space."""
        self.newest_agrees()
        things = self.db.collection("things")
        self._compare_records(things, self.state, None)
        self._compare_search(things, self.state, 1, None)

    def look_back(self, place: int) -> None:
        """Compare a state of the past, by seq and by the tags that name it."""
        seq = place % (self.seq + 1)
        if seq < self.horizon:
            expect(SnapshotExpiredError, self.db.collection("things").count, as_of=seq)
        else:
            self._compare_past(seq)

    def _compare_past(self, seq: int) -> None:
        things = self.db.collection("things")
        seen = self.state.seen_as_of(self.past[seq])
        if list(things.spaces) == list(seen.spaces):  # not so inside a transaction that changed them
            self._compare_records(things, seen, seq)
        for name in (name for name, tagged in self.tags.items() if tagged == seq):
            assert [record.id for record in things.scan(as_of=name)] == [key for key, _ in seen.in_order()]
        self._compare_search(things, seen, seq, seq)

    def _compare_records(self, things: vecdb.Collection, state: State, as_of: int | None) -> None:
        """Compare every record by id and in order, vectors bit by bit."""
        assert list(things.spaces) == list(state.spaces)
        assert things.count(as_of=as_of) == len(state.records)
        for key, record in zip(IDS, things.get(IDS, vectors="all", missing_ok=True, as_of=as_of), strict=True):
            same_record(record, state, key)
        scanned = list(things.scan(vectors="all", as_of=as_of))
        assert [record.id for record in scanned] == [key for key, _ in state.in_order()]
        for record in scanned:
            same_record(record, state, record.id)

    def _compare_search(self, things: vecdb.Collection, state: State, seed: int, as_of: int | None) -> None:
        for name in state.spaces if as_of is None else self.state.spaces:
            self.search(name, seed, None, k=4, state=state, as_of=as_of)

    def search(
        self,
        space: str,
        seed: int,
        where: Mapping[str, Any] | None,
        *,
        k: int = 3,
        offset: int = 0,
        state: State | None = None,
        as_of: int | None = None,
    ) -> None:
        """Compare the hits of one query, of a batch that holds it, and of ``like=``: ids, and scores bit by bit."""
        state = self.state if state is None else state
        if space not in state.spaces:
            return expect(vecdb.errors.SpaceMissingError, self.db.collection("things").search, [1.0], space=space)
        things, query = self.db.collection("things"), state.space(space).vector(seed).astype(np.float32)
        options: dict[str, Any] = {"space": space, "where": where, "offset": offset, "as_of": as_of}
        wanted = state.search(space, query, where)[offset : offset + k]
        same_hits(things.search(query, k, **options), wanted)
        batch = things.search(np.stack([-query, query]), k, **options)
        same_hits(batch[1], wanted)
        assert batch.scores.shape == (2, k)
        return self._compare_like(things, state, space, IDS[seed % len(IDS)], k, options)

    def _compare_like(
        self, things: vecdb.Collection, state: State, space: str, key: Id, k: int, options: dict[str, Any]
    ) -> None:
        try:
            query = state.vector(key, space).astype(np.float32)
        except VecdbError as error:
            return expect(type(error), things.search, k=k, like=key, **options)
        wanted = state.search(space, query, options["where"], without=key)
        return same_hits(things.search(k=k, like=key, **options), wanted[options["offset"] : options["offset"] + k])

    def select(self, where: Mapping[str, Any], place: int) -> None:
        """Compare what a condition selects, now and in the past."""
        seq = max(self.horizon, place % (self.seq + 1))
        things = self.db.collection("things")
        for as_of in (None, seq):
            wanted = self.past[self.seq if as_of is None else seq].matching(where)
            assert [record.id for record in things.scan(where, as_of=as_of)] == wanted
            assert things.count(where, as_of=as_of) == len(wanted)
            assert [record.id for record in things.scan(where, limit=2, as_of=as_of)] == wanted[:2]

    def history(self, key: Id) -> None:
        """Compare every kept state of a record."""
        found = self.db.collection("things").history(key)
        wanted = self._history(key)
        assert [version.seq for version in found] == [seq for seq, _ in wanted]
        for version, (_, entry) in zip(found, wanted, strict=True):
            assert (version.record is None) == (entry is None)
            if version.record is not None and entry is not None:
                same_content(version.record, entry, self.state)

    def _history(self, key: Id) -> list[tuple[int, Entry | None]]:
        before = self.past[self.horizon].records.get(key)
        versions: list[tuple[int, Entry | None]] = [(self.horizon, before)] if before is not None else []
        for seq in range(self.horizon + 1, self.seq + 1):
            entry = self.past[seq].records.get(key)
            if entry is not before:
                versions.append((seq, entry))
            before = entry
        return versions

    def everything_sound(self) -> None:
        """Prove the whole file."""
        report = self.db.check()
        assert report.ok, report.problems


def in_memory() -> str | None:
    """Return a folder without a disk behind it, if there is one with room: no step here is about durability."""
    folder = Path("/dev/shm")
    with suppress(OSError):
        if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > _ROOM:
            return str(folder)
    return None


# --- one record, one answer, one error --------------------------------------------------------------------


def same_record(record: Record | None, state: State, key: Id) -> None:
    """Compare a record with the model's, vectors bit by bit."""
    entry = state.records.get(key)
    assert (record is None) == (entry is None), key
    if record is None or entry is None:
        return
    assert record.id == key and type(record.id) is type(key)
    same_content(record, entry, state)
    assert sorted(record.vectors) == sorted(record.spaces)
    for name, vector in record.vectors.items():
        wanted = entry.vectors[state.spaces[name].number][1]
        assert vector.dtype == wanted.dtype and vector.tobytes() == wanted.tobytes(), (key, name)


def same_content(record: Record, entry: Entry, state: State) -> None:
    """Compare everything but the vectors."""
    assert record.version == entry.version
    assert record.metadata == dict(entry.metadata)
    assert record.text == entry.text
    assert record.spaces == tuple(name for name, space in state.spaces.items() if space.number in entry.vectors)


def same_hits(hits: Any, wanted: Sequence[tuple[Id, np.float32]]) -> None:
    """Compare an answer with the model's: ids in order, scores bit by bit, and the distances that belong to them."""
    assert hits.ids == [key for key, _ in wanted]
    scores: npt.NDArray[np.float32] = np.array([value for _, value in wanted], np.float32)
    assert hits.scores.tobytes() == scores.tobytes(), (hits.scores, scores)
    assert hits.complete


def expect(kind: type[BaseException], call: Callable[..., object], *args: Any, **options: Any) -> None:
    """Call, and see that exactly this kind of error comes of it."""
    try:
        call(*args, **options)
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}")


# --- changes as values: the same inside and outside a transaction -----------------------------------------


def _arguments(write: Write, state: State) -> dict[str, Any]:
    """Return the arguments of `upsert`: seeds become vectors, of any width where the space is unknown."""
    vectors = {
        name: [None if seed is None else _vector(state, name, seed) for seed in seeds]
        for name, seeds in write.seeds.items()
    }
    return {"ids": list(write.ids), "vectors": vectors, "metadata": write.metadata, "texts": write.texts}


def _vector(state: State, space: str, seed: int) -> npt.NDArray[Any]:
    return state.spaces[space].vector(seed) if space in state.spaces else np.ones(3)


def _counts(result: WriteResult, write: Write, before: State) -> None:
    known = sum(key in before.records for key in write.ids)
    assert (result.inserted, result.updated, result.deleted) == (len(write.ids) - known, known, 0)


def upserting(write: Write) -> Change:
    """Return the change that upserts."""

    def change(steps: StoreSteps, things: vecdb.Collection, state: State) -> State:
        arguments = {**_arguments(write, state), "merge": write.merge, "if_version": write.if_version}
        result, after = steps.both(lambda: things.upsert(**arguments), lambda: state.upsert(write))
        _counts(result, write, state)
        return after

    return change


def inserting(write: Write) -> Change:
    """Return the change that inserts."""

    def change(steps: StoreSteps, things: vecdb.Collection, state: State) -> State:
        result, after = steps.both(lambda: things.insert(**_arguments(write, state)), lambda: state.insert(write))
        _counts(result, write, state)
        return after

    return change


def setting_vectors(space: str, ids: Sequence[Id], seeds: Sequence[int | None]) -> Change:
    """Return the change that gives records a vector."""
    write = Write(ids, {space: seeds})

    def change(steps: StoreSteps, things: vecdb.Collection, state: State) -> State:
        column = _arguments(write, state)["vectors"][space]
        return steps.both(
            lambda: things.set_vectors(space, list(ids), column), lambda: state.set_vectors(space, write)
        )[1]

    return change


def setting_metadata(write: Write) -> Change:
    """Return the change that replaces or merges metadata."""

    def change(steps: StoreSteps, things: vecdb.Collection, state: State) -> State:
        given = [dict(one) for one in write.metadata or ()]
        return steps.both(
            lambda: things.set_metadata(list(write.ids), given, merge=write.merge), lambda: state.set_metadata(write)
        )[1]

    return change


def deleting(ids: Sequence[Id], *, missing_ok: bool) -> Change:
    """Return the change that deletes by id."""

    def change(steps: StoreSteps, things: vecdb.Collection, state: State) -> State:
        result, after = steps.both(
            lambda: things.delete(list(ids), missing_ok=missing_ok), lambda: state.delete(ids, missing_ok=missing_ok)
        )
        assert result.deleted == len(state.records) - len(after.records)
        return after

    return change


def deleting_where(where: Mapping[str, Any]) -> Change:
    """Return the change that deletes what a condition selects."""

    def change(_: StoreSteps, things: vecdb.Collection, state: State) -> State:
        gone = state.matching(where)
        assert things.delete(where=where).deleted == len(gone)
        return state.delete(gone)

    return change


def renaming_space(old: str, new: str) -> Change:
    """Return the change that renames a space."""

    def change(steps: StoreSteps, things: vecdb.Collection, state: State) -> State:
        return steps.both(lambda: things.rename_space(old, new), lambda: state.rename_space(old, new))[1]

    return change


def dropping_space(name: str) -> Change:
    """Return the change that drops a space."""

    def change(steps: StoreSteps, things: vecdb.Collection, state: State) -> State:
        return steps.both(lambda: things.drop_space(name), lambda: state.drop_space(name))[1]

    return change


# --- the machine ------------------------------------------------------------------------------------------


def store_machine(kinds: Mapping[str, Kind] = SMALL, retention: float = 600.0) -> Any:
    """Return a `RuleBasedStateMachine` class that compares a database with the model.

    Parameters
    ----------
    kinds, retention
        As in `StoreSteps`; `WIDE` fills blocks with a few vectors.

    Returns
    -------
    type
        Use its ``TestCase`` with settings of your own: 50 steps take about a second.

    Raises
    ------
    ExtraMissingError
        If Hypothesis is not installed.

    Examples
    --------
    >>> from vecdb.testing.stateful import store_machine
    >>> TestStore = store_machine().TestCase
    """
    try:
        from vecdb.testing import strategies
    except ImportError as error:
        raise ExtraMissingError(
            "the state machine needs hypothesis", hint="pip install 'vecdb[test]'", package="hypothesis", extra="test"
        ) from error
    return strategies.make_machine(lambda: StoreSteps(kinds, retention), list(kinds))
