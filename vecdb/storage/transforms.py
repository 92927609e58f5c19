"""What the catalog says of stored transforms, and how their blobs are read. Values only.

A transform is one set of blobs: its state, and where they are known, the reference rows of both spaces and the ids that
it was fitted on. A set is written and named in one commit, never changed, and removed in the commit that stops naming
it; its number is the transform's. Byte tables: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError
from vecdb.storage.blobs import BlobLine, read_blob
from vecdb.storage.format import stored_numbers, unpack
from vecdb.storage.idkeys import id_value
from vecdb.storage.states import unpack_state
from vecdb.storage.tx import Tx
from vecdb.types import Id

F32 = npt.NDArray[np.float32]

STATE: Final = "state"
SOURCE: Final = "reference.source"
TARGET: Final = "reference.target"
PAIRS: Final = "pairs"
_BLOBS: Final = (STATE, SOURCE, TARGET, PAIRS)
MAX_FACTS: Final = 16_384
"""Bytes of parameters, quality and provenance of one transform: the catalog is read by every commit."""
_DIRECTIONS: Final = ("query", "gallery", "both")
_ISOMETRIES: Final = ("none", "semi", "exact")


@dataclass(frozen=True, slots=True)
class TransformEntry:
    """A stored transform in the catalog.

    Attributes
    ----------
    set : int
        Number of its blobs, never reused: it is the transform's own number.
    name : str
        Unique in its collection.
    source, target : int
        Numbers of the spaces it maps between.
    kind : str
        Registered name of its type.
    version : int
        Of the type's stored state.
    direction, isometry : str
        What it says of itself, see `vecdb.contracts.Transform`.
    affine, joint : bool
        Whether it has an affine form; whether its result lies in a third space.
    lipschitz : float or None
    params : mapping
    seed : int
    owner : str
        The distribution that provided the type when it was fitted; for messages only.
    pairs : int
        How many pairs it was fitted on.
    reference : int
        How many reference rows are stored.
    digest : str
        `vecdb.contracts.state_digest` of the state.
    created : float
        Seconds since 1970.
    quality, provenance : mapping
        What was measured of it, and where it comes from: plain values.
    lines : tuple of BlobLine
    """

    set: int
    name: str
    source: int
    target: int
    kind: str
    version: int
    direction: str
    isometry: str
    affine: bool
    joint: bool
    lipschitz: float | None
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    owner: str = ""
    pairs: int = 0
    reference: int = 0
    digest: str = ""
    created: float = 0.0
    quality: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[BlobLine, ...] = ()


# --- in the catalog ---------------------------------------------------------------------------------------


def transform_to_plain(entry: TransformEntry) -> list[Any]:
    lines = [[line.name, line.length] for line in entry.lines]
    numbers = [entry.set, entry.source, entry.target, entry.version, entry.seed, entry.pairs, entry.reference]
    texts = [entry.name, entry.kind, entry.direction, entry.isometry, entry.owner, entry.digest]
    facts = [dict(entry.params), dict(entry.quality), dict(entry.provenance)]
    return [numbers, texts, [entry.affine, entry.joint], entry.lipschitz, entry.created, facts, lines]


def transform_from_plain(plain: Any) -> TransformEntry:
    """Invert `transform_to_plain`; a wrong shape raises what the catalog turns into `CorruptionError`."""
    numbers, texts, flags, lipschitz, created, facts, lines = plain
    number, source, target, version, seed, pairs, reference = stored_numbers(numbers, "catalog", 7)
    name, kind, direction, isometry, owner, digest = _typed(texts, str, 6)
    affine, joint = _typed(flags, bool, 2)
    params, quality, provenance = _typed(facts, dict, 3)
    if direction not in _DIRECTIONS or isometry not in _ISOMETRIES or len(lines) > len(_BLOBS):
        raise ValueError(f"an impossible transform {name!r}")
    bound = None if lipschitz is None else _finite(lipschitz)
    known = tuple(BlobLine(_blob(blob), *stored_numbers([length], "catalog")) for blob, length in lines)
    return TransformEntry(
        number,
        name,
        source,
        target,
        kind,
        version,
        direction,
        isometry,
        affine,
        joint,
        bound,
        params,
        seed,
        owner,
        pairs,
        reference,
        digest,
        _finite(created),
        quality,
        provenance,
        known,
    )


def _typed(values: Any, kind: type, count: int) -> list[Any]:
    if type(values) is not list or len(values) != count or any(type(value) is not kind for value in values):
        raise TypeError(f"a transform without its {count} {kind.__name__}s")
    return values


def _finite(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise TypeError("a number of a transform that is none")
    return value


def _blob(name: Any) -> str:
    if name not in _BLOBS:
        raise ValueError(f"a transform with a blob {name!r}")
    return str(name)


# --- reading ----------------------------------------------------------------------------------------------


def read_transform_state(tx: Tx, entry: TransformEntry) -> dict[str, Any]:
    """Return the stored state, its checksums checked; whoever loads it compares `TransformEntry.digest`.

    Raises
    ------
    CorruptionError
    """
    return unpack_state(_read(tx, entry, STATE), f"state of transform {entry.name!r}")


def read_reference(tx: Tx, entry: TransformEntry, source_dim: int, target_dim: int) -> tuple[F32, F32] | None:
    """Return the reference rows in both spaces, shapes (r, source_dim) and (r, target_dim); None where none are kept.

    Raises
    ------
    CorruptionError
    """
    if not entry.reference:
        return None
    return _rows(tx, entry, SOURCE, source_dim), _rows(tx, entry, TARGET, target_dim)


def read_pairs(tx: Tx, entry: TransformEntry) -> list[Id]:
    """Return the ids of the records that the transform was fitted on; empty where they are not known.

    Raises
    ------
    CorruptionError
    """
    if all(line.name != PAIRS for line in entry.lines):
        return []
    keys = unpack(_read(tx, entry, PAIRS), "pairs of a transform")
    if type(keys) is not list or any(type(key) is not bytes for key in keys):
        raise CorruptionError(f"the pairs of transform {entry.name!r} are no ids", what="transform")
    return [id_value(key) for key in keys]


def _rows(tx: Tx, entry: TransformEntry, name: str, dim: int) -> F32:
    data = _read(tx, entry, name)
    if len(data) != 4 * dim * entry.reference:
        raise CorruptionError(
            f"the reference rows of transform {entry.name!r} have a wrong length", what="transform", where=entry.name
        )
    rows = np.frombuffer(data, "<f4").reshape(entry.reference, dim).astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        raise CorruptionError(
            f"the reference rows of transform {entry.name!r} are not finite", what="transform", where=entry.name
        )
    return rows


def _read(tx: Tx, entry: TransformEntry, name: str) -> bytes:
    for place, line in enumerate(entry.lines):
        if line.name == name:
            return read_blob(tx, entry.set, place, line)
    raise CorruptionError(f"transform {entry.name!r} has no blob {name!r}", what="transform", where=entry.name)
