"""What the file says of itself: catalog, counters, and each collection's counts. Values only; no transactions.

Keys of the ``meta`` table: ``header``, ``catalog``, ``state``, and ``c`` + collection number; those of spaces are in
spare.py and writetx.py. All sealed msgpack.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError, FormatVersionError, NotADatabaseError
from vecdb.lazy import LazyModule
from vecdb.storage.format import FORMAT_VERSION, pack_sealed, stored_numbers, u32, unpack_sealed
from vecdb.storage.tx import Tx
from vecdb.types import METRICS, Space

if TYPE_CHECKING:
    from vecdb.storage import corrections as stored_corrections
    from vecdb.storage import indexes as stored_indexes
    from vecdb.storage import joints as stored_joints
    from vecdb.storage import relevance as stored_relevance
    from vecdb.storage import transforms as stored_transforms
    from vecdb.storage.corrections import CorrectionEntry
    from vecdb.storage.indexes import IndexEntry
    from vecdb.storage.joints import JointEntry
    from vecdb.storage.relevance import FilterEntry
    from vecdb.storage.transforms import TransformEntry
else:
    stored_corrections = LazyModule("vecdb.storage.corrections")
    stored_indexes = LazyModule("vecdb.storage.indexes")
    stored_joints = LazyModule("vecdb.storage.joints")
    stored_relevance = LazyModule("vecdb.storage.relevance")
    stored_transforms = LazyModule("vecdb.storage.transforms")

HEADER: Final = b"header"
CATALOG: Final = b"catalog"
STATE: Final = b"state"
_MAGIC: Final = "vecdb"


@dataclass(frozen=True, slots=True)
class Counters:
    """Numbers that only grow, one sealed value rewritten by each commit.

    Attributes
    ----------
    version : int
        One more with each LMDB commit, maintenance included: what caches compare.
    seq : int
        The newest commit that users see.
    horizon : int
        The oldest seq that can still be read.
    next_block, next_chunk : int
        Never reused, so that a cache keyed by them cannot mistake new bytes for old ones.
    history_bytes : int
        Estimate of what keeping history costs.
    """

    version: int = 0
    seq: int = 0
    horizon: int = 0
    next_block: int = 1
    next_chunk: int = 1
    history_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a commit, and when it was given."""

    seq: int
    time: float


@dataclass(frozen=True, slots=True)
class CollectionEntry:
    """A collection in the catalog; spaces in the order they were added.

    Attributes
    ----------
    declined : frozenset of int
        Spaces of which an index was dropped: no automatic one comes back.
    transforms : tuple of TransformEntry
        Maps between its spaces, in the order they were stored.
    filters : tuple of FilterEntry
        Relevance filters, in the order they were stored.
    corrections : tuple of CorrectionEntry
        Corrections of scores, in the order they were stored.
    joints : tuple of JointEntry
        Which spaces are joint ones, in the order they were added.
    """

    id: int
    name: str
    spaces: Mapping[str, Space] = field(default_factory=dict)
    indexes: tuple[IndexEntry, ...] = ()
    declined: frozenset[int] = frozenset()
    transforms: tuple[TransformEntry, ...] = ()
    filters: tuple[FilterEntry, ...] = ()
    corrections: tuple[CorrectionEntry, ...] = ()
    joints: tuple[JointEntry, ...] = ()

    @property
    def given_spaces(self) -> list[Space]:
        """The spaces whose vectors are given: all but joint ones, whose rows are made of the vectors of others."""
        if not self.joints:
            return list(self.spaces.values())
        made = {joint.space for joint in self.joints}
        return [space for space in self.spaces.values() if space.id not in made]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that has a name."""

    collections: Mapping[str, CollectionEntry] = field(default_factory=dict)
    tags: Mapping[str, Tag] = field(default_factory=dict)
    next_collection: int = 1
    next_space: int = 1
    next_index: int = 1

    def with_collection(self, entry: CollectionEntry) -> Catalog:
        return replace(self, collections={**self.collections, entry.name: entry})


@dataclass(frozen=True, slots=True)
class SpaceCounts:
    """Counts of one space.

    Attributes
    ----------
    next_ordinal : int
        How many vectors were ever appended.
    live : int
    dead : int
        Dead vectors that still lie in blocks or in the tail.
    tail_start : int
        First ordinal of the tail; those before it are sealed in segments.
    epoch : int
        Grows when segments were repacked or merged or deaths consolidated: views built before must be rebuilt.
    profiled : int
        Live vectors when the identity profile was last fitted (0: none).
    cusum : tuple
        State of the running guard over small unverified writes.
    loss : tuple
        Of a space that rounds what it stores: how many vectors were written, and the sum and the largest of their
        relative errors.
    """

    next_ordinal: int = 0
    live: int = 0
    dead: int = 0
    tail_start: int = 0
    epoch: int = 0
    profiled: int = 0
    cusum: tuple[float, ...] = ()
    loss: tuple[float, ...] = ()

    def with_loss(self, errors: npt.NDArray[np.float64]) -> SpaceCounts:
        """Return the counts after vectors with these relative errors were written."""
        if not len(errors):
            return self
        count, total, most = self.loss or (0.0, 0.0, 0.0)
        added = count + len(errors), total + float(errors.sum()), max(most, float(errors.max()))
        return replace(self, loss=added)


@dataclass(frozen=True, slots=True)
class CollectionState:
    """Counts of one collection at one commit.

    Attributes
    ----------
    version : int
        `Counters.version` of the commit that last changed the collection.
    next_row : int
        Record rows are handed out in order and never reused.
    live : int
    delta : int
        Live rows that no column chunk covers.
    """

    version: int = 0
    next_row: int = 0
    live: int = 0
    delta: int = 0
    spaces: Mapping[int, SpaceCounts] = field(default_factory=dict)


def collection_key(collection: int) -> bytes:
    return b"c" + u32(collection)


# --- reading and writing them -----------------------------------------------------------------------------


def read_counters(tx: Tx) -> Counters:
    value = tx.get("meta", STATE)
    if value is None:
        raise CorruptionError("the database has lost its counters", what="state")
    return Counters(*stored_numbers(unpack_sealed(STATE, value, "state"), "state", len(Counters.__slots__)))


def write_counters(tx: Tx, counters: Counters) -> None:
    fields = [getattr(counters, name) for name in Counters.__slots__]
    tx.put("meta", STATE, pack_sealed(STATE, fields))


def create_header(tx: Tx) -> None:
    """Make an empty database in an empty file."""
    import uuid

    header = {"magic": _MAGIC, "format": FORMAT_VERSION, "uuid": uuid.uuid4().hex, "created": time.time()}
    tx.put("meta", HEADER, pack_sealed(HEADER, header))
    write_counters(tx, Counters())
    write_catalog(tx, Catalog())


def read_header(tx: Tx, path: str) -> dict[str, Any]:
    """Return the header; refuse what this version cannot read."""
    value = tx.get("meta", HEADER)
    if value is None:
        raise NotADatabaseError(f"{path} has no vecdb header", hint="Choose another path.", path=path)
    header = unpack_sealed(HEADER, value, "header")
    if not isinstance(header, dict) or header.get("magic") != _MAGIC:
        raise NotADatabaseError(f"{path} is not a vecdb database", hint="Choose another path.", path=path)
    if header.get("format") != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path} has format {header.get('format')}, this version reads format {FORMAT_VERSION}",
            hint="Upgrade vecdb, or export the data with the version that wrote it.",
            found=header.get("format"),
            supported=FORMAT_VERSION,
        )
    if not isinstance(header.get("uuid"), str):
        raise CorruptionError(f"{path} has lost its identity", what="header", where=path)
    return header


def read_catalog(tx: Tx) -> Catalog:
    value = tx.get("meta", CATALOG)
    if value is None:
        raise CorruptionError("the database has lost its catalog", what="catalog")
    return _catalog(bytes(value))


@lru_cache(maxsize=8)
def _catalog(value: bytes) -> Catalog:
    """Return the catalog that lies in these bytes: every commit reads it, and hardly any changes it."""
    return catalog_from_plain(unpack_sealed(CATALOG, value, "catalog"))


def write_catalog(tx: Tx, catalog: Catalog) -> None:
    tx.put("meta", CATALOG, pack_sealed(CATALOG, catalog_to_plain(catalog)))


def catalog_to_plain(catalog: Catalog) -> dict[str, Any]:
    """Return the catalog as plain values."""
    return {
        "next": [catalog.next_collection, catalog.next_space, catalog.next_index],
        "tags": {name: [tag.seq, tag.time] for name, tag in catalog.tags.items()},
        "collections": [
            [
                entry.id,
                entry.name,
                [[getattr(space, name) for name in Space.__slots__] for space in entry.spaces.values()],
                [stored_indexes.index_to_plain(index) for index in entry.indexes],
                *_more_to_plain(entry),
            ]
            for entry in catalog.collections.values()
        ],
    }


def catalog_from_plain(plain: Any) -> Catalog:
    """Invert `catalog_to_plain`."""
    try:
        entries = [
            CollectionEntry(
                _number(number),
                _text(name),
                {space.name: space for space in (_space(fields) for fields in spaces)},
                tuple(stored_indexes.index_from_plain(index) for index in indexes),
                *_more_from_plain(*more),
            )
            for number, name, spaces, indexes, *more in plain["collections"]
        ]
        tags = {_text(name): Tag(_number(seq, 1 << 63), float(when)) for name, (seq, when) in plain["tags"].items()}
        return Catalog({entry.name: entry for entry in entries}, tags, *map(_number, plain["next"]))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CorruptionError(f"the stored catalog has a wrong shape: {error}", what="catalog") from error


def _number(value: Any, most: int = 0xFFFF_FFFF) -> int:
    """Return a number of the catalog; collections and spaces are keys of 32 bits."""
    number = stored_numbers([value], "catalog")[0]
    if number > most:
        raise ValueError(f"{number} in the place of a number up to {most}")
    return number


def _more_to_plain(entry: CollectionEntry) -> list[Any]:
    """Return what most entries do not have; nothing where there is nothing, so that older files read the same."""
    tables: dict[str, Any] = {}
    if entry.transforms:
        tables["transforms"] = [stored_transforms.transform_to_plain(each) for each in entry.transforms]
    if entry.filters:
        tables["filters"] = [stored_relevance.filter_to_plain(each) for each in entry.filters]
    if entry.corrections:
        tables["corrections"] = [stored_corrections.correction_to_plain(each) for each in entry.corrections]
    if entry.joints:
        tables["joints"] = [stored_joints.joint_to_plain(each) for each in entry.joints]
    if tables:
        return [sorted(entry.declined), tables]
    return [sorted(entry.declined)] if entry.declined else []


def _more_from_plain(declined: Any = (), tables: Any = None) -> tuple[Any, ...]:
    """Invert `_more_to_plain`; a table of a later version is refused, because writing would lose it."""
    known = {} if tables is None else dict(tables)
    transforms = tuple(stored_transforms.transform_from_plain(each) for each in known.pop("transforms", ()))
    filters = tuple(stored_relevance.filter_from_plain(each) for each in known.pop("filters", ()))
    corrections = tuple(stored_corrections.correction_from_plain(each) for each in known.pop("corrections", ()))
    joints = tuple(stored_joints.joint_from_plain(each) for each in known.pop("joints", ()))
    if known:
        raise ValueError(f"tables of a later version: {sorted(known)}")
    return frozenset(_number(number) for number in declined), transforms, filters, corrections, joints


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in the place of a name")
    return value


def _space(fields: Any) -> Space:
    space = Space(*fields)
    for name in ("name", "metric", "dtype", "model", "revision", "role"):
        _text(getattr(space, name))
    _number(space.dim), _number(space.id)
    if space.metric not in METRICS or space.dtype not in ("float32", "float16", "int8") or not 0 < space.dim <= 65_536:
        raise ValueError(f"space {space.name!r}")
    return space


def read_collection(tx: Tx, collection: int) -> CollectionState:
    key = collection_key(collection)
    value = tx.get("meta", key)
    if value is None:
        raise CorruptionError(f"collection {collection} has lost its counts", what="collection state")
    return collection_from_bytes(key, bytes(value))


def _space_counts(fields: list[Any]) -> SpaceCounts:
    plain, (cusum, *loss) = fields[:6], fields[6:]
    born, live, dead, tail, epoch, profiled = stored_numbers(plain, "collection state", 6)
    guard, lost = (tuple(map(float, numbers)) for numbers in (cusum, loss[0] if loss else ()))
    counts = SpaceCounts(born, live, dead, tail, epoch, profiled, guard, lost)
    if len(loss) > 1 or len(lost) not in (0, 3):
        raise ValueError("a loss that is no loss")
    if not all(map(math.isfinite, (*guard, *lost))):
        raise ValueError("a state of the guard that is not finite")
    if counts.tail_start > counts.next_ordinal or counts.live + counts.dead > counts.next_ordinal:
        raise ValueError("more vectors than ordinals")
    return counts


@lru_cache(maxsize=8)
def collection_from_bytes(key: bytes, value: bytes) -> CollectionState:
    """Return the counts that lie in these bytes: a writer finds those that readers of its last commit decoded."""
    plain = unpack_sealed(key, value, "collection state")
    try:
        *numbers, spaces = plain
        counts = {_number(number): _space_counts(fields) for number, fields in spaces}
        version, next_row, live, delta = stored_numbers(numbers, "collection state", 4)
        return CollectionState(version, next_row, live, delta, counts)
    except (TypeError, ValueError, IndexError) as error:
        raise CorruptionError(f"stored counts have a wrong shape: {error}", what="collection state") from error


def write_collection(tx: Tx, collection: int, state: CollectionState) -> None:
    spaces = [
        [number, [getattr(counts, name) for name in SpaceCounts.__slots__[: None if counts.loss else -1]]]
        for number, counts in state.spaces.items()
    ]
    key = collection_key(collection)
    tx.put("meta", key, pack_sealed(key, [state.version, state.next_row, state.live, state.delta, spaces]))
