"""Stored score corrections of a collection: put into the catalog, dropped, loaded once, described, proven.

Invariant: banks are used only after their digest was compared. Corrections belong to the catalog, which has no past:
`as_of` scores old records by today's corrections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import settle_stored
from vecdb.contracts.state import state_array, state_digest
from vecdb.corrections import Banks, Kind, kind_named
from vecdb.engine.loaded import find_named, memory_of
from vecdb.errors import CorruptionError, ExistsError, ParameterError, StateError, VecdbError
from vecdb.storage.blobs import stored_bytes_of
from vecdb.storage.corrections import CorrectionEntry, read_correction_state, read_table
from vecdb.storage.correctionstore import Table, remove_corrections, replace_table, store_correction
from vecdb.storage.snapshot import Snapshot, entry_by_number
from vecdb.storage.state import CollectionEntry
from vecdb.storage.tx import Tx
from vecdb.storage.writetx import WriteTx
from vecdb.types import Space
from vecdb.verdicts import CorrectionInfo

F32 = npt.NDArray[np.float32]
Collection = tuple[int, str]

VERSION: Final = 1
"""Of the form of banks and tables: what a row is given may change with it."""
MAX_CORRECTIONS: Final = 100
"""Of one collection."""


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Records that members of a bank are not asked about: numbers within the bank, and the records' typed ids."""

    members: npt.NDArray[np.int64]
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A stored correction that can be applied.

    Attributes
    ----------
    entry : CorrectionEntry
    kind : Kind
    params : mapping
    space : Space
        In which its queries are asked.
    banks : Banks
    own, own_gallery : Members
        Answers of the bank's queries, and the records that the gallery bank was drawn from.
    derived : dict
        What searches made of it, to be found again; gone with it.
    """

    entry: CorrectionEntry
    kind: Kind
    params: Mapping[str, Any]
    space: Space
    banks: Banks
    own: Members
    own_gallery: Members
    derived: dict[Any, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.entry.name


# --- storing ----------------------------------------------------------------------------------------------


def state_of(banks: Banks, own: Members, own_gallery: Members) -> dict[str, Any]:
    """Return what is stored of the banks."""
    return {
        "queries": banks.queries,
        "gallery": banks.gallery,
        "reach": banks.reach,
        "gallery_reach": banks.reach_gallery,
        "own": own.members,
        "own_ids": list(own.keys),
        "gallery_own": own_gallery.members,
        "gallery_ids": list(own_gallery.keys),
    }


def put_correction(
    collection: Collection, entry: CorrectionEntry, space: Space, state: Mapping[str, Any], table: Table
) -> Callable[[WriteTx], CorrectionEntry]:
    """Return the operation that stores a correction.

    It raises `ExistsError` if the name is taken, and `StateError` if the space was dropped meanwhile.
    """

    def operation(write: WriteTx) -> CorrectionEntry:
        current = entry_by_number(write.catalog, *collection)
        if space.id not in {known.id for known in current.spaces.values()}:
            raise StateError(f"space {space.name!r} was dropped while its correction was fitted")
        _refuse_taken(current, entry.name)
        stored = store_correction(write, current.name, entry, state, table)
        write.note(f"{current.name}: store correction {stored.name}")
        return stored

    return operation


def _refuse_taken(current: CollectionEntry, name: str) -> None:
    if name in {known.name for known in current.corrections}:
        raise ExistsError(
            f"collection {current.name!r} has a correction {name!r}",
            hint="Drop it first with drop_correction(), or choose another name.",
            kind="correction",
            name=name,
        )
    if len(current.corrections) >= MAX_CORRECTIONS:
        raise ParameterError(
            f"collection {current.name!r} has {MAX_CORRECTIONS} corrections already",
            name="name",
            got=name,
            allowed=f"at most {MAX_CORRECTIONS} corrections",
        )


def drop_correction(collection: Collection, name: object) -> Callable[[WriteTx], None]:
    """Return the operation that removes a correction and what it stored."""

    def operation(write: WriteTx) -> None:
        entry = entry_by_number(write.catalog, *collection)
        remove_corrections(write, entry.name, [find_correction(entry, name)])
        write.note(f"{entry.name}: drop correction {name}")

    return operation


def put_table(collection: Collection, number: int, rows: int, table: Table) -> Callable[[WriteTx], bool]:
    """Return the operation that stores a longer table, unless the correction is gone or has another one by now."""

    def operation(write: WriteTx) -> bool:
        entry = entry_by_number(write.catalog, *collection)
        known = next((each for each in entry.corrections if each.set == number), None)
        if known is None or known.rows != rows:
            return False
        replace_table(write, entry.name, known, table)
        return True

    return operation


def find_correction(entry: CollectionEntry, name: object) -> CorrectionEntry:
    """Return a stored correction by name; UnknownNameError if there is none."""
    return find_named(entry.corrections, entry.name, "correction", name, hint="Fit one with fit_correction().")


# --- loading ----------------------------------------------------------------------------------------------


def load_correction(snapshot: Snapshot, collection: CollectionEntry, entry: CorrectionEntry) -> Loaded:
    """Return a stored correction that can be applied; it is read and proven once in an opening of the file.

    Raises
    ------
    UnknownNameError, StateError
        It was stored by another version of vecdb, which knows other kinds.
    CorruptionError
        What is stored is damaged.
    """
    memory = memory_of(snapshot.state, "corrections")
    known: Loaded | None = memory.loaded.get(entry.set)
    if known is None:
        known = memory.loaded[entry.set] = _load(snapshot.tx, collection, entry)
    return known


def _load(tx: Tx, collection: CollectionEntry, entry: CorrectionEntry) -> Loaded:
    kind = kind_named(entry.kind)
    if entry.version != VERSION:
        raise StateError(
            f"correction {entry.name!r} was stored in form {entry.version}, this vecdb has form {VERSION}",
            hint="Drop it and fit it again.",
        )
    space = next(space for space in collection.spaces.values() if space.id == entry.space)
    state = read_correction_state(tx, entry)
    if state_digest(state) != entry.digest:
        raise CorruptionError(
            f"the banks of correction {entry.name!r} are not those that were stored",
            hint="Drop it with drop_correction() and fit it again.",
            what="correction",
            where=entry.name,
        )
    banks = Banks(
        space.metric,
        _rows(state, "queries", entry.bank, space.dim),
        _rows(state, "gallery", entry.gallery, space.dim),
        _reach(state, "reach", entry.bank),
        _reach(state, "gallery_reach", entry.gallery),
    )
    own = _members(state, "own", "own_ids", entry.bank)
    own_gallery = _members(state, "gallery_own", "gallery_ids", entry.gallery)
    params = settle_stored(f"correction {entry.kind!r}", kind.params, entry.params)
    return Loaded(entry, kind, params, space, banks, own, own_gallery)


def _rows(state: Mapping[str, Any], name: str, count: int, dim: int) -> F32:
    if not count:
        return np.empty((0, dim), np.float32)
    return state_array(state, name, np.float32, (count, dim))


def _reach(state: Mapping[str, Any], name: str, count: int) -> npt.NDArray[np.float64]:
    known = state.get(name)
    if isinstance(known, np.ndarray) and known.shape == (0,):
        return np.empty(0)
    return state_array(state, name, np.float64, (count,))


def _members(state: Mapping[str, Any], name: str, ids: str, count: int) -> Members:
    keys, members = state.get(ids), state.get(name)
    if type(keys) is not list or any(type(key) is not bytes for key in keys):
        raise CorruptionError("a correction names records that are no ids", what="correction", where=ids)
    if not keys:
        return Members(np.empty(0, np.int64), ())
    members = state_array(state, name, np.int64, (len(keys),))
    if int(members.min()) < 0 or int(members.max()) >= count:
        raise CorruptionError("a correction names members that its bank does not have", what="correction", where=name)
    return Members(members, tuple(keys))


# --- for people -------------------------------------------------------------------------------------------


def describe(entry: CollectionEntry) -> tuple[CorrectionInfo, ...]:
    """Return what `Collection.corrections` shows."""
    names = {space.id: space.name for space in entry.spaces.values()}
    return tuple(info_of(each, names) for each in entry.corrections)


def info_of(entry: CorrectionEntry, names: Mapping[int, str]) -> CorrectionInfo:
    """Return one correction as people see it; `names` are those of the spaces."""
    return CorrectionInfo(
        name=entry.name,
        space=names[entry.space],
        kind=entry.kind,
        params=dict(entry.params),
        seed=entry.seed,
        bank=entry.bank,
        gallery=entry.gallery,
        own=entry.own,
        rows=entry.rows,
        quality=dict(entry.quality),
        created=entry.created,
        bytes=stored_bytes_of((*entry.lines, *entry.table_lines)),
    )


def problems(tx: Tx, collection: CollectionEntry, entry: CorrectionEntry) -> Iterator[str]:
    """Yield what is wrong with a stored correction, for `check`."""
    if entry.space not in {space.id for space in collection.spaces.values()}:
        yield "belongs to a space that is not there"
        return
    read_table(tx, entry)
    try:
        _load(tx, collection, entry)
    except VecdbError as error:
        yield f"cannot be loaded: {error.message}"
