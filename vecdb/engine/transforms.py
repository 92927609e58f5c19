"""Stored transforms of a collection: put into the catalog, dropped, loaded once, described, proven.

What cannot be used is never fatal: a kind that is not installed, a state of another version or a damaged one make a
transform unavailable, with the reason; only what needs it fails. Invariant: a state is given to a plugin only after its
digest was compared. Transforms belong to the catalog, which has no past: `as_of` reads old records by today's
transforms. Bytes: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.state import state_digest
from vecdb.contracts.transform import Transform
from vecdb.engine import transformborder as border
from vecdb.engine.loaded import find_named, memory_of
from vecdb.engine.names import check_name
from vecdb.errors import (
    CorruptionError,
    DimensionError,
    ExistsError,
    ParameterError,
    PluginError,
    PluginMissingError,
    StateError,
    UnknownNameError,
    VecdbError,
)
from vecdb.paths.graph import Edge
from vecdb.registry import PluginRegistry, Provided
from vecdb.storage.blobs import stored_bytes_of
from vecdb.storage.format import pack
from vecdb.storage.snapshot import Snapshot, entry_by_number
from vecdb.storage.state import CollectionEntry
from vecdb.storage.transforms import MAX_FACTS, TransformEntry, read_pairs, read_reference, read_transform_state
from vecdb.storage.transformstore import TransformBlobs, change_transform, remove_transforms, store_transform
from vecdb.storage.tx import Tx
from vecdb.storage.writetx import WriteTx
from vecdb.types import Id, Space, TransformInfo

F32 = npt.NDArray[np.float32]
Collection = tuple[int, str]

REFERENCE_ROWS: Final = 256
"""Records known in both spaces that a transform keeps to calibrate scores by."""
MAX_REFERENCE: Final = 4_096
MAX_TRANSFORMS: Final = 1_000
"""Of one collection."""


@dataclass(frozen=True, slots=True, eq=False)
class NewTransform:
    """A fitted transform that is to be stored.

    Attributes
    ----------
    source, target : Space
        What it maps from and to. A map of queries (direction "query") goes from the space that is asked in to the one
        whose vectors are stored; a map of stored vectors goes the other way.
    provided : Provided
        Its kind.
    transform : Transform
    params : mapping
    seed : int
    name : str or None
        None: made of the spaces and the kind.
    reference : tuple of ndarray of float32, shapes (r, d) and (r, e), or None
        Vectors of the same records in source and target that the fit has not seen.
    quality, provenance : mapping
        Plain values; ``quality["retention"]`` (0 to 1) is what the choice of a path goes by.
    pairs : sequence of ids
        Records it was fitted on, where they are records.
    count : int
        Pairs it was fitted on.
    """

    source: Space
    target: Space
    provided: Provided
    transform: Transform
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    name: str | None = None
    reference: tuple[F32, F32] | None = None
    quality: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    pairs: Sequence[Id] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A stored transform that can be applied.

    Attributes
    ----------
    entry : TransformEntry
    provided : Provided
    transform : Transform
    source, target : Space
    reference : tuple of ndarray, or None
        As stored.
    derived : dict
        What searches made of it, to be found again; gone with it.
    """

    entry: TransformEntry
    provided: Provided
    transform: Transform
    source: Space
    target: Space
    reference: tuple[F32, F32] | None
    derived: dict[Any, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.entry.name


# --- storing ----------------------------------------------------------------------------------------------


def put_transform(collection: Collection, new: NewTransform) -> Callable[[WriteTx], TransformEntry]:
    """Return the operation that stores a transform; everything that can be refused is refused here.

    Raises
    ------
    ParameterError, DimensionError
        Its name, quality or reference cannot be stored.
    PluginError, PluginContractError
        Its state cannot be stored, or its kind does not load it again.

    The operation raises `ExistsError` if the name is taken, and `StateError` if a space was replaced meanwhile.
    """
    if new.name is not None:
        check_name("transform", new.name)
    state, digest = border.state_of(new.provided, new.transform)
    made = border.load(new.provided, state, new.source, new.target)
    source, target = _checked_reference(new)
    entry = TransformEntry(
        set=0,
        name=new.name or f"{new.source.name}-to-{new.target.name}-{new.provided.name}",
        source=new.source.id,
        target=new.target.id,
        kind=new.provided.name,
        version=int(new.provided.thing.version),
        direction=made.direction,
        isometry=made.isometry,
        affine=_is_affine(new.provided, made),
        joint=bool(new.provided.thing.capabilities.joint),
        lipschitz=None if made.lipschitz is None else float(made.lipschitz),
        params=dict(new.params),
        seed=int(new.seed),
        owner=new.provided.distribution or new.provided.plugin,
        pairs=int(new.count),
        reference=0 if source is None else len(source),
        digest=digest,
        created=time.time(),
        quality=plain_facts("quality", new.quality),
        provenance=plain_facts("provenance", new.provenance),
    )
    blobs = TransformBlobs(state, source, target, tuple(new.pairs))
    return storing(collection, entry, blobs, (new.source, new.target), new.name)


def storing(
    collection: Collection,
    entry: TransformEntry,
    blobs: TransformBlobs,
    spaces: tuple[Space, Space],
    name: str | None,
    *,
    again: bool = False,
) -> Callable[[WriteTx], TransformEntry]:
    """Return the operation that stores a checked transform.

    Parameters
    ----------
    name : str or None
        None: the entry's own, with a number where that is taken.
    again : bool
        The entry's name is meant: what is stored under it already, between the same spaces, stays; another is refused.
    """
    if name is not None:
        check_name("transform", name)
        entry = replace(entry, name=name)
    _refuse_large(entry)

    def operation(write: WriteTx) -> TransformEntry:
        current = entry_by_number(write.catalog, *collection)
        known = next((each for each in current.transforms if each.name == entry.name), None)
        if again and known is not None and _is_same(known, entry):
            return known
        for space in spaces:
            if space.id not in {known.id for known in current.spaces.values()}:
                raise StateError(f"space {space.name!r} was dropped while its transform was fitted")
        if len(current.transforms) >= MAX_TRANSFORMS:
            raise ParameterError(
                f"collection {current.name!r} has {MAX_TRANSFORMS} transforms already",
                name="name",
                got=entry.name,
                allowed=f"at most {MAX_TRANSFORMS} transforms",
            )
        named = replace(entry, name=_free_name(current, entry.name, given=again or name is not None))
        stored = store_transform(write, current.name, named, blobs)
        write.note(f"{current.name}: store transform {stored.name}")
        return stored

    return operation


def _is_same(known: TransformEntry, entry: TransformEntry) -> bool:
    def of(each: TransformEntry) -> tuple[Any, ...]:
        return each.digest, each.source, each.target, each.kind, each.version

    return of(known) == of(entry)


def _is_affine(provided: Provided, made: Transform) -> bool:
    with border.guarded(provided, "affine"):
        return made.affine() is not None


def _checked_reference(new: NewTransform) -> tuple[F32 | None, F32 | None]:
    if new.reference is None or not len(new.reference[0]):
        return None, None
    source, target = (np.ascontiguousarray(rows, np.float32) for rows in new.reference)
    shapes = source.shape, target.shape
    rows = len(source)
    if shapes != ((rows, new.source.dim), (rows, new.target.dim)) or rows > MAX_REFERENCE:
        raise DimensionError(
            f"the reference rows have shapes {shapes}, expected (r, {new.source.dim}) and (r, {new.target.dim}), "
            f"r at most {MAX_REFERENCE}",
            expected=(new.source.dim, new.target.dim),
            got=shapes,
            where="reference",
        )
    return source, target


def _refuse_large(entry: TransformEntry) -> None:
    size = len(pack([dict(entry.params), dict(entry.quality), dict(entry.provenance)]))
    if size > MAX_FACTS:
        raise ParameterError(
            f"parameters, quality and provenance of a transform take {size} bytes, expected at most {MAX_FACTS}",
            name="quality",
            got=size,
            allowed=f"at most {MAX_FACTS} bytes",
        )


def _free_name(entry: CollectionEntry, name: str, *, given: bool) -> str:
    taken = {transform.name for transform in entry.transforms}
    if name not in taken:
        return name
    if given:
        raise ExistsError(
            f"collection {entry.name!r} has a transform {name!r}",
            hint="Drop it first with drop_transform(), or choose another name.",
            kind="transform",
            name=name,
        )
    return next(other for other in (f"{name}-{number}" for number in range(2, len(taken) + 3)) if other not in taken)


def plain_facts(what: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as plain values: names to None, bool, int, finite float, str, and lists and dicts of those.

    Raises
    ------
    ParameterError
        Something else is among them.
    """
    if not isinstance(facts, Mapping):
        raise ParameterError(f"{what} is {type(facts).__name__}, expected a dict", name=what, got=facts)
    return {str(name): _plain(what, value, 0) for name, value in facts.items()}


def _plain(what: str, value: Any, depth: int) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping) and depth < 8:
        return {str(name): _plain(what, part, depth + 1) for name, part in value.items()}
    if isinstance(value, (list, tuple)) and depth < 8:
        return [_plain(what, part, depth + 1) for part in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if value is None or isinstance(value, (bool, str)) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63):
        return value
    raise ParameterError(f"{what} holds {value!r}, expected plain values", name=what, got=repr(value))


def drop_transform(collection: Collection, name: object) -> Callable[[WriteTx], None]:
    """Return the operation that removes a transform and what it stored; its kind need not be installed."""

    def operation(write: WriteTx) -> None:
        entry = entry_by_number(write.catalog, *collection)
        remove_transforms(write, entry.name, [find_transform(entry, name)])
        write.note(f"{entry.name}: drop transform {name}")

    return operation


def set_quality(collection: Collection, name: str, quality: Mapping[str, Any]) -> Callable[[WriteTx], TransformEntry]:
    """Return the operation that adds what was measured to what is known of a transform."""
    facts = plain_facts("quality", quality)

    def operation(write: WriteTx) -> TransformEntry:
        entry = entry_by_number(write.catalog, *collection)
        known = find_transform(entry, name)
        changed = replace(known, quality={**known.quality, **facts})
        _refuse_large(changed)
        change_transform(write, entry.name, changed)
        write.note(f"{entry.name}: measured transform {name}")
        return changed

    return operation


def find_transform(entry: CollectionEntry, name: object) -> TransformEntry:
    """Return a stored transform by name; UnknownNameError if there is none."""
    return find_named(entry.transforms, entry.name, "transform", name)


# --- loading ----------------------------------------------------------------------------------------------


def load_transform(
    snapshot: Snapshot, collection: CollectionEntry, entry: TransformEntry, registry: PluginRegistry
) -> Loaded:
    """Return a stored transform that can be applied; it is read and proven once in an opening of the file.

    Raises
    ------
    PluginMissingError
        No plugin that is loaded here provides its kind.
    StateError
        It was stored by another version of its kind.
    CorruptionError
        What is stored is damaged.
    """
    provided = _provided(entry, registry)
    memory = memory_of(snapshot.state, "transforms")
    known: Loaded | None = memory.loaded.get(entry.set)
    if known is not None and known.provided.thing is provided.thing and known.entry == entry:
        return known
    made = _load(snapshot.tx, collection, entry, provided)
    memory.loaded[entry.set] = made
    return made


def _provided(entry: TransformEntry, registry: PluginRegistry) -> Provided:
    try:
        provided = registry.find("transform", entry.kind)
    except (UnknownNameError, PluginError) as error:
        why = error.message if isinstance(error, PluginError) else "no plugin that is loaded here provides it"
        raise PluginMissingError(
            f"transform {entry.name!r} of kind {entry.kind!r} is unavailable: {why}",
            hint=f"Install what provided it ({entry.owner}), or drop it." if entry.owner else None,
            kind="transform",
            name=entry.kind,
        ) from error
    if entry.version != int(provided.thing.version):
        raise StateError(
            f"transform {entry.name!r} was stored by version {entry.version} of kind {entry.kind!r}, "
            f"{provided.owner} has version {provided.thing.version}",
            hint="Fit it again.",
        )
    return provided


def _load(tx: Tx, collection: CollectionEntry, entry: TransformEntry, provided: Provided) -> Loaded:
    spaces = {space.id: space for space in collection.spaces.values()}
    source, target = spaces[entry.source], spaces[entry.target]
    state = read_transform_state(tx, entry)
    if state_digest(state) != entry.digest:
        raise CorruptionError(
            f"the state of transform {entry.name!r} is not the one that was stored",
            hint="Fit it again.",
            what="transform",
            where=entry.name,
        )
    made = border.load(provided, state, source, target)
    return Loaded(entry, provided, made, source, target, read_reference(tx, entry, source.dim, target.dim))


def unavailable(entry: TransformEntry, registry: PluginRegistry) -> str | None:
    """Return why a transform cannot be used here, as far as that is known without reading it; None if it can."""
    try:
        _provided(entry, registry)
    except VecdbError as error:
        return error.message
    return None


def edges(entry: CollectionEntry, registry: PluginRegistry) -> list[Edge]:
    """Return the transforms that can be used here as edges between spaces; joint ones lead to no space.

    The key of an edge is the name of its transform.
    """
    names = {space.id: space.name for space in entry.spaces.values()}
    return [
        Edge(
            each.name,
            names[each.source],
            names[each.target],
            each.direction,  # type: ignore[arg-type]
            each.isometry,  # type: ignore[arg-type]
            each.affine,
            retention_of(each),
        )
        for each in entry.transforms
        if not each.joint and unavailable(each, registry) is None
    ]


def retention_of(entry: TransformEntry) -> float | None:
    """Return the measured share of the target's own quality that is left, None where nobody measured it."""
    found = entry.quality.get("retention")
    return float(found) if isinstance(found, (int, float)) and found > 0 else None


# --- for people -------------------------------------------------------------------------------------------


def describe(entry: CollectionEntry, registry: PluginRegistry) -> tuple[TransformInfo, ...]:
    """Return what `Collection.transforms` shows."""
    names = {space.id: space.name for space in entry.spaces.values()}
    return tuple(info_of(each, names, registry) for each in entry.transforms)


def info_of(entry: TransformEntry, names: Mapping[int, str], registry: PluginRegistry) -> TransformInfo:
    """Return one transform as people see it; `names` are those of the spaces."""
    reason = unavailable(entry, registry)
    return TransformInfo(
        name=entry.name,
        source=names[entry.source],
        target=names[entry.target],
        kind=entry.kind,
        direction=entry.direction,  # type: ignore[arg-type]
        isometry=entry.isometry,  # type: ignore[arg-type]
        affine=entry.affine,
        joint=entry.joint,
        lipschitz=entry.lipschitz,
        params=dict(entry.params),
        seed=entry.seed,
        pairs=entry.pairs,
        reference=entry.reference,
        quality=dict(entry.quality),
        provenance=dict(entry.provenance),
        created=entry.created,
        available=reason is None,
        reason=reason,
        provided_by=entry.owner,
        bytes=stored_bytes_of(entry.lines),
    )


def problems(
    tx: Tx, collection: CollectionEntry, entry: TransformEntry, registry: PluginRegistry | None
) -> Iterator[str]:
    """Yield what is wrong with a stored transform, for `check`; without a registry its kind is not asked."""
    spaces = {space.id: space for space in collection.spaces.values()}
    if entry.source not in spaces or entry.target not in spaces:
        yield "belongs to spaces that are not there"
        return
    read_pairs(tx, entry)
    read_reference(tx, entry, spaces[entry.source].dim, spaces[entry.target].dim)
    if state_digest(read_transform_state(tx, entry)) != entry.digest:
        yield "does not hold the state that was stored"
    elif registry is not None and unavailable(entry, registry) is None:
        try:
            _load(tx, collection, entry, _provided(entry, registry))
        except VecdbError as error:
            yield f"cannot be loaded: {error.message}"
