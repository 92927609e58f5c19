"""Looking at the whole file: statistics, and the proof that everything in it is sound.

`check` reads every byte that means anything: each checksum, each id, each reference from a record to a vector and back,
each count. It reports; it never repairs and never raises for damage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.engine import border, transforms
from vecdb.engine.corrections import stored as corrections
from vecdb.engine.describing import describe
from vecdb.engine.identity import Profile
from vecdb.engine.joint import checking as joints
from vecdb.engine.parts import load_all
from vecdb.engine.relevance import stored as filters
from vecdb.engine.view import CollectionView
from vecdb.engine.views import PartView, find_places
from vecdb.errors import CorruptionError, StorageError
from vecdb.registry import PluginRegistry
from vecdb.storage.blobs import prove_blobs
from vecdb.storage.corrections import CorrectionEntry
from vecdb.storage.env import TABLES, Environment
from vecdb.storage.format import decode_record, read_u64, u32, u32_u64, unpack_sealed, unseal
from vecdb.storage.handles import Store
from vecdb.storage.history import read_change, read_deaths
from vecdb.storage.idkeys import id_value
from vecdb.storage.indexes import IndexEntry, part_ordinals
from vecdb.storage.joints import JointEntry
from vecdb.storage.migrations import read_migrations, tag_of
from vecdb.storage.records import find_row, iterate_rows
from vecdb.storage.relevance import FilterEntry
from vecdb.storage.snapshot import Caches, Reader, Snapshot, State
from vecdb.storage.spaces import SpaceView, profile_key
from vecdb.storage.spare import read_spare
from vecdb.storage.staging import staged_pieces
from vecdb.storage.state import CollectionEntry, read_header
from vecdb.storage.transforms import TransformEntry
from vecdb.storage.writetx import read_whole_log
from vecdb.types import CheckReport, Progress, Space

_MAX_PROBLEMS = 100
_BLOB_OWNERS = ("index", "transform", "filter", "correction")


# --- statistics -------------------------------------------------------------------------------------------


def database_stats(store: Store, snapshot: Snapshot, registry: PluginRegistry) -> dict[str, Any]:
    """Return what `Database.stats` shows."""
    counters = snapshot.state.counters
    facts = store.env.facts()
    used = sum(_pages(snapshot, table) for table in TABLES) * facts["page_bytes"]
    return {
        "file_bytes": facts["file_bytes"],
        "live_bytes": used,
        "reclaimable_bytes": max(0, facts["file_bytes"] - used),
        "history_bytes": counters.history_bytes,
        "map_bytes": facts["map_bytes"],
        "seq": counters.seq,
        "oldest_seq": counters.horizon,
        "oldest_reader_lag": facts["oldest_reader_lag"],
        "readers": facts["readers"],
        "tags": len(snapshot.state.catalog.tags),
        "collections": {
            name: collection_stats(snapshot, entry, registry)
            for name, entry in snapshot.state.catalog.collections.items()
        },
    }


def _pages(snapshot: Snapshot, table: str) -> int:
    stat = snapshot.tx.entries(table)
    return stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"]


def collection_stats(snapshot: Snapshot, entry: CollectionEntry, registry: PluginRegistry) -> dict[str, Any]:
    """Return what `Collection.stats` shows."""
    indexes = describe(CollectionView(snapshot, entry), registry) if entry.indexes else []
    covered: dict[int, float] = {}
    for index in indexes:
        number = entry.spaces[index.space].id
        covered[number] = max(covered.get(number, 0.0), index.coverage)
    counts = snapshot.counts(entry.id)
    return {
        "records": counts.live,
        "unsealed_columns": counts.delta,
        "spaces": {name: _space_stats(snapshot, entry, space, covered) for name, space in entry.spaces.items()},
        "indexes": [asdict(index) for index in indexes],
    }


def _space_stats(
    snapshot: Snapshot, entry: CollectionEntry, space: Space, coverage: Mapping[int, float]
) -> dict[str, Any]:
    counts = snapshot.counts(entry.id).spaces[space.id]
    view = snapshot.space(entry.id, space)
    return {
        "model": space.model,
        "dim": space.dim,
        "metric": space.metric,
        "dtype": space.dtype,
        "loss": _loss(counts.loss),
        "vectors": counts.live,
        "dead": counts.dead,
        "sealed": view.sealed,
        "tail": view.tail_count,
        "blocks": len(view.refs),
        "vector_bytes": sum(ref.size_class for ref in view.refs),
        "profiled": counts.profiled > 0,
        "index_coverage": coverage.get(space.id, 0.0),
    }


def _loss(loss: tuple[float, ...]) -> dict[str, float] | None:
    """Return what rounding lost of the vectors written so far, relative to their norms; None where nothing is."""
    return {"mean": loss[1] / loss[0], "max": loss[2]} if loss else None


# --- proof ------------------------------------------------------------------------------------------------


def prove_file(path: Path) -> None:
    """Open a finished file on its own and raise `CorruptionError` unless `check` finds it sound."""
    env = Environment(path, readonly=True, durability="full", map_size=None, timeout=10.0)
    env.open()
    try:
        with env.lease() as tx:
            read_header(tx, str(path))
        report = check_pages(env)
        if report is None:
            with Reader(env).snapshot() as snapshot:
                report = check(snapshot, None)
        if not report.ok:
            raise CorruptionError(f"{path} is not sound: {report.problems[0]}", what="file", where=str(path))
    finally:
        env.close()
        for suffix in ("-lock", "-writer"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


class _Proof:
    """Collects problems and counts."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.counts: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + count

    def wrong(self, problem: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)

    def attempt(self, part: Callable[[], None]) -> None:
        """Run one part of the proof; damage that stops it becomes a problem."""
        try:
            part()
        except StorageError as error:
            self.wrong(str(error))
        except (KeyError, ValueError, IndexError, TypeError) as error:
            self.wrong(f"{type(error).__name__}: {error}")


def check_pages(env: Environment) -> CheckReport | None:
    """Prove the pages that LMDB trusts, without it; None if they are sound, so that the rest can be looked at."""
    began = time.perf_counter()
    problems = env.damaged_pages()
    return CheckReport(False, tuple(problems), {}, time.perf_counter() - began) if problems else None


def check(
    snapshot: Snapshot, progress: Progress | None, registry: Callable[[], PluginRegistry] | None = None
) -> CheckReport:
    """Prove the whole state that a snapshot reads, from the file: nothing that readers remember of it is believed.

    With a registry, which is wanted only where there are indexes, these are asked what they find wrong with themselves.
    """
    began = time.perf_counter()
    snapshot = Snapshot(snapshot.tx, State(snapshot.tx, snapshot.state.counters, Caches(), None))
    proof = _Proof()
    parts = list(_parts(snapshot, proof, registry))
    for place, part in enumerate(parts):
        proof.attempt(part)
        if progress is not None:
            progress(place + 1, len(parts))
    return CheckReport(not proof.problems, tuple(proof.problems), proof.counts, time.perf_counter() - began)


def _parts(
    snapshot: Snapshot, proof: _Proof, registry: Callable[[], PluginRegistry] | None
) -> Iterator[Callable[[], None]]:
    yield lambda: _check_log(snapshot, proof)
    yield lambda: _check_profiles(snapshot, proof)
    yield lambda: _check_migrations(snapshot, proof)
    for entry in snapshot.state.catalog.collections.values():
        for space in entry.spaces.values():
            yield lambda entry=entry, space=space: _check_space(snapshot, entry, space, proof)  # type: ignore[misc]
        yield lambda entry=entry: _check_records(snapshot, entry, proof)  # type: ignore[misc]
        yield lambda entry=entry: _check_ids(snapshot, entry, proof)  # type: ignore[misc]
        yield lambda entry=entry: _check_columns(snapshot, entry, proof)  # type: ignore[misc]
        yield lambda entry=entry: _check_history(snapshot, entry, proof)  # type: ignore[misc]
        for index in entry.indexes:
            yield lambda entry=entry, index=index: _check_index(snapshot, entry, index, proof)  # type: ignore[misc]
            if registry is not None:
                yield partial(_ask_index, snapshot, entry, index, proof, registry)
        for transform in entry.transforms:
            yield partial(_check_transform, snapshot, entry, transform, proof, registry)
        for each in entry.filters:
            yield partial(_check_filter, snapshot, entry, each, proof, registry)
        for correction in entry.corrections:
            yield partial(_check_correction, snapshot, entry, correction, proof)
        for joint in entry.joints:
            yield partial(_check_joint, snapshot, entry, joint, proof, registry)
    yield lambda: _check_blocks(snapshot, proof)
    yield lambda: _check_blobs(snapshot, proof)


def _check_log(snapshot: Snapshot, proof: _Proof) -> None:
    seqs = [seq for seq, _, _ in read_whole_log(snapshot.tx)]
    proof.add("commits", len(seqs))
    newest = snapshot.state.counters.seq
    if seqs and (seqs[-1] != newest or seqs != list(range(seqs[0], newest + 1))):
        proof.wrong(
            f"the commit log goes from {seqs[0]} to {seqs[-1]} in {len(seqs)} entries, the newest commit is {newest}"
        )


def _check_profiles(snapshot: Snapshot, proof: _Proof) -> None:
    there = set()
    for key, value in snapshot.tx.range("meta", b"p"):
        stored = unpack_sealed(key, value, "profile")
        Profile.from_state(stored if isinstance(stored, Mapping) else {})
        there.add(key)
        proof.add("profiles")
    for entry in snapshot.state.catalog.collections.values():
        counts = snapshot.counts(entry.id).spaces
        for space in entry.spaces.values():
            if counts[space.id].profiled and profile_key(space) not in there:
                proof.wrong(f"space {space.name!r} of collection {entry.name!r} has lost its identity profile")


def _check_migrations(snapshot: Snapshot, proof: _Proof) -> None:
    """What is kept of migrations is readable, and an active one has its spaces and the tag of its beginning."""
    catalog = snapshot.state.catalog
    for entry in catalog.collections.values():
        numbers = {space.id for space in entry.spaces.values()}
        for migration in read_migrations(snapshot.tx, entry.id):
            proof.add("migrations")
            tagged = catalog.tags.get(tag_of(entry.id, migration.number))
            begun = tagged is not None and tagged.seq == migration.begun
            if migration.active and not (begun and {migration.source, migration.target} <= numbers):
                proof.wrong(f"migration {migration.number} of collection {entry.name!r} has lost its spaces or its tag")


def _check_space(snapshot: Snapshot, entry: CollectionEntry, space: Space, proof: _Proof) -> None:
    view = snapshot.space(entry.id, space)
    counts = snapshot.counts(entry.id).spaces[space.id]
    for block in view.open_blocks(snapshot.tx):
        proof.attempt(lambda block=block: _prove_block(view, block))  # type: ignore[misc]
        proof.add("blocks")
    dead = view.dead(snapshot.tx)
    hidden = 0 if dead is None else int(dead.sum())
    proof.add("vectors", len(view) - hidden)
    if len(view) - hidden != counts.live or hidden != counts.dead:
        proof.wrong(
            f"space {space.name!r} has {len(view) - hidden} live and {hidden} dead vectors, "
            f"its counts say {counts.live} and {counts.dead}"
        )
    _check_order(snapshot, view, proof)
    for seq, ordinals in read_deaths(snapshot.tx, space.id):
        if seq > snapshot.seq or (len(ordinals) and int(ordinals.max()) >= counts.next_ordinal):
            proof.wrong(f"the deaths of seq {seq} in space {space.name!r} are impossible")


def _prove_block(view: SpaceView, block: Any) -> None:
    view.cache.sound.discard(block.ref.id)
    view.cache.sound_chunks.pop(block.ref.id, None)
    view.cache.verify(block)


def _check_order(snapshot: Snapshot, view: SpaceView, proof: _Proof) -> None:
    ordinals = view.ordinals_at(snapshot.tx, np.arange(len(view), dtype=np.int64))
    if len(ordinals) > 1 and not bool((ordinals[1:] > ordinals[:-1]).all()):
        proof.wrong(f"the ordinals of space {view.space.name!r} do not ascend")


def _check_records(snapshot: Snapshot, entry: CollectionEntry, proof: _Proof) -> None:
    counts = snapshot.counts(entry.id)
    views = {space.id: snapshot.space(entry.id, space) for space in entry.spaces.values()}
    owners: dict[int, list[tuple[int, int]]] = {number: [] for number in views}
    seen = 0
    for row, key, value in iterate_rows(snapshot.tx, entry.id):
        seen += 1
        record = decode_record(key, value)
        record.content()
        if find_row(snapshot.tx, entry.id, record.key) != row:
            proof.wrong(f"record {record.id!r} at row {row} is not found by its id")
        for space, ordinal in record.refs.items():
            if space in owners:
                owners[space].append((ordinal, row))
    proof.add("records", seen)
    if seen != counts.live:
        proof.wrong(f"collection {entry.name!r} has {seen} records, its counts say {counts.live}")
    for number, view in views.items():
        _check_owners(snapshot, view, owners[number], proof)


def _check_owners(snapshot: Snapshot, view: SpaceView, owners: list[tuple[int, int]], proof: _Proof) -> None:
    """Every live vector belongs to exactly the record that refers to it."""
    if not owners:
        return
    ordinals = np.array([ordinal for ordinal, _ in owners], np.uint64)
    rows = np.array([row for _, row in owners], np.uint64)
    places = view.positions_of(snapshot.tx, ordinals)
    lost = (places < 0) | (places >= len(view))
    wrong = ~lost
    wrong[~lost] = view.rows_at(snapshot.tx, places[~lost]) != rows[~lost]
    dead = view.dead(snapshot.tx)
    if dead is not None:
        wrong[~lost] |= dead[places[~lost]]
    if lost.any() or wrong.any() or len(owners) != view.counts.live:
        proof.wrong(
            f"space {view.space.name!r}: {int(lost.sum())} references lead nowhere, "
            f"{int(wrong.sum())} to a wrong vector, {len(owners)} references for {view.counts.live} live vectors"
        )


def _check_ids(snapshot: Snapshot, entry: CollectionEntry, proof: _Proof) -> None:
    seen = 0
    for key, value in snapshot.tx.range("ids", u32(entry.id)):
        seen += 1
        id_value(key[4:])
        if snapshot.tx.get("records", u32_u64(entry.id, read_u64(value))) is None:
            proof.wrong(f"id {id_value(key[4:])!r} leads to no record")
    if seen != snapshot.counts(entry.id).live:
        proof.wrong(f"collection {entry.name!r} has {seen} ids for {snapshot.counts(entry.id).live} records")


def _check_columns(snapshot: Snapshot, entry: CollectionEntry, proof: _Proof) -> None:
    columns = snapshot.columns(entry.id)
    parts = []
    for chunk in columns.chunks:
        unseal_chunk(snapshot, entry.id, chunk.line.id)
        rows = chunk.columns.rows
        parts.append(rows if chunk.fresh is None else rows[chunk.fresh])
        for path in chunk.columns.paths:
            chunk.columns.values(path)
    parts.append(np.array(sorted(columns.delta), np.uint64))
    covered = np.sort(np.concatenate(parts))
    rows = np.array([row for row, _, _ in iterate_rows(snapshot.tx, entry.id)], np.uint64)
    proof.add("column chunks", len(columns.chunks))
    if len(columns.delta) != snapshot.counts(entry.id).delta or not np.array_equal(covered, rows):
        proof.wrong(
            f"the columns of collection {entry.name!r} cover {len(covered)} rows, there are {len(rows)} records"
        )


def unseal_chunk(snapshot: Snapshot, collection: int, number: int) -> None:
    """Check a column chunk's checksum again, whatever is cached."""
    key = u32(collection) + b"c" + number.to_bytes(8, "big")
    value = snapshot.tx.get("columns", key)
    if value is None:
        raise CorruptionError(f"column chunk {number} is missing", what="column chunk")
    unseal(key, value, "column chunk")


def _check_history(snapshot: Snapshot, entry: CollectionEntry, proof: _Proof) -> None:
    for key, value in snapshot.tx.range("history", b"r" + u32(entry.id)):
        decode_record(key[1:13], unseal(key, value, "history image"))
        proof.add("history images")
    for key, value in snapshot.tx.range("history", b"c" + u32(entry.id)):
        read_change(key, value)


def _check_index(snapshot: Snapshot, entry: CollectionEntry, index: IndexEntry, proof: _Proof) -> None:
    """Every blob is sound, and what the parts say they cover can be there; inside, an index is its type's business."""
    counts = snapshot.counts(entry.id).spaces.get(index.space)
    if counts is None:
        proof.wrong(f"index {index.kind!r} of collection {entry.name!r} belongs to no space")
        return
    for part in index.parts:
        proof.add("index blob pieces", prove_blobs(snapshot.tx, part.set, part.blobs))
        part_ordinals(snapshot.tx, part)
        if part.stop > counts.tail_start:
            proof.wrong(f"index {index.kind!r} of collection {entry.name!r} covers vectors that are not sealed")
    proof.add("indexes")


def _ask_index(
    snapshot: Snapshot, entry: CollectionEntry, index: IndexEntry, proof: _Proof, registry: Callable[[], PluginRegistry]
) -> None:
    """Let an index whose type is installed look for what is wrong with itself."""
    view = CollectionView(snapshot, entry)
    space_view = view.space(next(space for space in entry.spaces.values() if space.id == index.space))
    for part in load_all(view, space_view, index, registry()).parts:
        with PartView(view, space_view, part.part, find_places(view, space_view, part.part)) as covered:
            for problem in border.problems(part.provided, part.index, covered):
                proof.wrong(f"index {index.kind!r} of collection {entry.name!r}: {problem}")


def _check_blobs(snapshot: Snapshot, proof: _Proof) -> None:
    """No blob may lie in the file that the catalog does not name, but for those of a set that is being stored."""
    named = sum(proof.counts.get(f"{owner} blob pieces", 0) for owner in _BLOB_OWNERS)
    stored = snapshot.tx.entries("blobs")["entries"] - staged_pieces(snapshot.tx)
    if stored != named:
        proof.wrong(f"{stored} pieces of blobs are stored, the catalog names {named} that are sound")


def _check_transform(
    snapshot: Snapshot,
    entry: CollectionEntry,
    transform: TransformEntry,
    proof: _Proof,
    registry: Callable[[], PluginRegistry] | None,
) -> None:
    """Every blob is sound, the state is the one that was stored, and its type, where it is installed, accepts it."""
    proof.add("transform blob pieces", prove_blobs(snapshot.tx, transform.set, transform.lines))
    for problem in transforms.problems(snapshot.tx, entry, transform, None if registry is None else registry()):
        proof.wrong(f"transform {transform.name!r} of collection {entry.name!r} {problem}")
    proof.add("transforms")


def _check_filter(
    snapshot: Snapshot,
    entry: CollectionEntry,
    stored: FilterEntry,
    proof: _Proof,
    registry: Callable[[], PluginRegistry] | None,
) -> None:
    """The same of a relevance filter."""
    proof.add("filter blob pieces", prove_blobs(snapshot.tx, stored.set, stored.lines))
    for problem in filters.problems(snapshot.tx, entry, stored, None if registry is None else registry()):
        proof.wrong(f"relevance filter {stored.name!r} of collection {entry.name!r} {problem}")
    proof.add("relevance filters")


def _check_joint(
    snapshot: Snapshot,
    entry: CollectionEntry,
    joint: JointEntry,
    proof: _Proof,
    registry: Callable[[], PluginRegistry] | None,
) -> None:
    for problem in joints.problems(snapshot, entry, joint, None if registry is None else registry()):
        proof.wrong(problem)
    proof.add("joint spaces")


def _check_correction(snapshot: Snapshot, entry: CollectionEntry, correction: CorrectionEntry, proof: _Proof) -> None:
    """Blobs must be sound and hold what was stored, and the banks must be what they were."""
    for number, lines in ((correction.set, correction.lines), (correction.table, correction.table_lines)):
        proof.add("correction blob pieces", prove_blobs(snapshot.tx, number, lines))
    for problem in corrections.problems(snapshot.tx, entry, correction):
        proof.wrong(f"correction {correction.name!r} of collection {entry.name!r} {problem}")
    proof.add("corrections")


def _check_blocks(snapshot: Snapshot, proof: _Proof) -> None:
    """No block may lie in the file that no segment names and that is not listed as spare."""
    named = sum(
        len(snapshot.space(entry.id, space).refs) + len(read_spare(snapshot.tx, space.id))
        for entry in snapshot.state.catalog.collections.values()
        for space in entry.spaces.values()
    )
    stored = snapshot.tx.entries("blocks")["entries"]
    if stored != named:
        proof.wrong(f"{stored} vector blocks are stored, segments and the lists of spare ones name {named}")
