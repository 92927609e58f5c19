r"""A stored transform as bytes of their own, to be carried from one database to another: ``vecdb-transform/1``.

::

    offset  bytes  what
    0       18     b"vecdb-transform/1\n"
    18      32     SHA-256 of everything behind it
    50             a state (vecdb/storage/states.py): names to plain values and arrays, as msgpack

The state holds what the catalog says of the transform, the identity of both spaces, the packed state of the map and its
digest, the reference rows, and the ids it was fitted on. Spaces are matched by name and must be of the same model. What
is read is bounded by its own size and never executed; a map whose kind is not installed here is kept as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.state import state_digest
from vecdb.engine import transformborder as border
from vecdb.engine.names import check_name
from vecdb.engine.transforms import MAX_REFERENCE, find_transform, storing
from vecdb.engine.view import CollectionView
from vecdb.errors import (
    CorruptionError,
    ParameterError,
    PluginError,
    SpaceMismatchError,
    UnknownNameError,
    VecdbError,
)
from vecdb.registry import PluginRegistry, Provided
from vecdb.storage.idkeys import id_key, id_value
from vecdb.storage.snapshot import find_space
from vecdb.storage.state import CollectionEntry
from vecdb.storage.states import pack_state, unpack_state
from vecdb.storage.transforms import (
    TransformEntry,
    read_pairs,
    read_reference,
    read_transform_state,
    transform_from_plain,
)
from vecdb.storage.transformstore import TransformBlobs
from vecdb.storage.writetx import WriteTx
from vecdb.types import Space

F32 = npt.NDArray[np.float32]

MAGIC: Final = b"vecdb-transform/1\n"
_WHAT: Final = "transform file"
_DIGEST: Final = 32
_IDENTITY: Final = ("name", "dim", "metric", "model", "revision", "role")
_TEXTS: Final = ("name", "kind", "direction", "isometry", "owner", "digest")
_NUMBERS: Final = ("version", "seed", "pairs", "reference")


def dump(view: CollectionView, name: str) -> bytes:
    """Return a stored transform as bytes; its kind need not be installed.

    Raises
    ------
    UnknownNameError, CorruptionError
    """
    entry = find_transform(view.entry, name)
    by_number = {space.id: space for space in view.entry.spaces.values()}
    source, target = by_number[entry.source], by_number[entry.target]
    state = read_transform_state(view.tx, entry)
    if state_digest(state) != entry.digest:
        raise CorruptionError(f"the state of transform {name!r} is damaged", what="transform", where=name)
    content: dict[str, Any] = {key: getattr(entry, key) for key in (*_TEXTS, *_NUMBERS, "affine", "joint", "lipschitz")}
    content |= {"created": entry.created, "state": pack_state(state)}
    content |= {key: dict(getattr(entry, key)) for key in ("params", "quality", "provenance")}
    content |= {"source": _identity(source), "target": _identity(target)}
    rows = read_reference(view.tx, entry, source.dim, target.dim)
    content["rows"] = None if rows is None else list(rows)
    content["ids"] = [id_key(id) for id in read_pairs(view.tx, entry)]
    body = pack_state(content)
    return MAGIC + hashlib.sha256(body).digest() + body


def _identity(space: Space) -> dict[str, Any]:
    return {key: getattr(space, key) for key in _IDENTITY}


def restoring(
    collection: tuple[int, str], entry: CollectionEntry, data: bytes, name: str | None, registry: PluginRegistry
) -> Callable[[WriteTx], TransformEntry]:
    """Return the operation that stores what `dump` returned; everything that can be refused is refused here.

    Storing again what is there already, under its name and between its spaces, changes nothing.

    Raises
    ------
    CorruptionError
        The bytes are damaged, or no transform.
    SpaceMissingError, SpaceMismatchError
        A space is not there, or of another model.
    ParameterError
        `name` is none.

    The operation raises `ExistsError` if the name is taken by another.
    """
    content = _content(data)
    source, target = (_matching(entry, content.get(side)) for side in ("source", "target"))
    state = unpack_state(_typed(content, "state", bytes), f"state in a {_WHAT}")
    made = _entry(content, source, target)
    if state_digest(state) != made.digest:
        raise CorruptionError(f"the state in a {_WHAT} is not the one that it names", what=_WHAT)
    rows = _rows(content, source, target, made.reference)
    made = _proven(made, state, source, target, registry)
    blobs = TransformBlobs(state, *rows, _ids(content))
    return storing(collection, made, blobs, (source, target), name, again=True)


def _content(data: bytes) -> dict[str, Any]:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ParameterError(f"a transform is bytes, got {type(data).__name__}", name="data", got=type(data).__name__)
    data = bytes(data)
    body = data[len(MAGIC) + _DIGEST :]
    if not data.startswith(MAGIC):
        raise CorruptionError(
            f"this is no {_WHAT} of a version that is known", hint="Dump the transform again.", what=_WHAT
        )
    if hashlib.sha256(body).digest() != data[len(MAGIC) : len(MAGIC) + _DIGEST]:
        raise CorruptionError(f"a {_WHAT} is damaged: its SHA-256 differs", hint="Copy it again.", what=_WHAT)
    return unpack_state(body, _WHAT)


def _typed(content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = content.get(key)
    if type(value) is not kind:
        raise CorruptionError(f"{key} in a {_WHAT} is a {type(value).__name__}, expected {kind.__name__}", what=_WHAT)
    return value


def _matching(entry: CollectionEntry, identity: Any) -> Space:
    """Return the collection's space of the same name, if it is of the same model."""
    if type(identity) is not dict or type(identity.get("name")) is not str:
        raise CorruptionError(f"a {_WHAT} does not say between which spaces it maps", what=_WHAT)
    space = find_space(entry, identity["name"])
    differing = [key for key in _IDENTITY if identity.get(key) != getattr(space, key)]
    if differing:
        told = "; ".join(f"{key} {getattr(space, key)!r}, expected {identity.get(key)!r}" for key in differing)
        raise SpaceMismatchError(
            f"space {space.name!r} is not the one that the transform was fitted for: {told}",
            hint="A transform belongs to two models; fit one for these.",
            query_space=space.name,
            available=list(entry.spaces),
        )
    return space


def _entry(content: Mapping[str, Any], source: Space, target: Space) -> TransformEntry:
    """Return the catalog's entry, every part of it checked as the catalog itself is."""
    version, seed, pairs, reference = (content.get(key) for key in _NUMBERS)
    plain = [
        [0, source.id, target.id, version, seed, pairs, reference],
        [content.get(key) for key in _TEXTS],
        [content.get("affine"), content.get("joint")],
        content.get("lipschitz"),
        content.get("created"),
        [content.get(key) for key in ("params", "quality", "provenance")],
        [],
    ]
    try:
        entry = transform_from_plain(plain)
        check_name("transform", entry.name)
    except (TypeError, ValueError, VecdbError) as error:
        raise CorruptionError(f"a {_WHAT} holds no transform: {error}", what=_WHAT) from error
    return entry


def _rows(content: Mapping[str, Any], source: Space, target: Space, count: int) -> tuple[F32 | None, F32 | None]:
    rows = content.get("rows")
    if rows is None and count == 0:
        return None, None
    shapes = [getattr(each, "shape", None) for each in rows] if type(rows) is list else []
    if count > MAX_REFERENCE or shapes != [(count, source.dim), (count, target.dim)]:
        raise CorruptionError(f"the reference rows in a {_WHAT} have a wrong shape", what=_WHAT)
    both = [np.ascontiguousarray(each, np.float32) for each in _typed(content, "rows", list)]
    if not all(np.isfinite(each).all() for each in both):
        raise CorruptionError(f"the reference rows in a {_WHAT} are not finite", what=_WHAT)
    return both[0], both[1]


def _ids(content: Mapping[str, Any]) -> list[Any]:
    keys = _typed(content, "ids", list)
    try:
        return [id_value(key) for key in keys]
    except (TypeError, ValueError, AttributeError, IndexError, VecdbError) as error:
        raise CorruptionError(f"the pairs in a {_WHAT} are no ids", what=_WHAT) from error


def _proven(
    entry: TransformEntry, state: Mapping[str, Any], source: Space, target: Space, registry: PluginRegistry
) -> TransformEntry:
    """Return the entry as the map says of itself, once it is loaded; one whose kind is not here says what it said."""
    provided = _provided(entry, registry)
    if provided is None:
        return entry
    made = border.load(provided, dict(state), source, target)
    with border.guarded(provided, "affine"):
        affine = made.affine() is not None
    return replace(
        entry,
        direction=made.direction,
        isometry=made.isometry,
        affine=affine,
        joint=bool(provided.thing.capabilities.joint),
        lipschitz=None if made.lipschitz is None else float(made.lipschitz),
    )


def _provided(entry: TransformEntry, registry: PluginRegistry) -> Provided | None:
    try:
        provided = registry.find("transform", entry.kind)
    except (UnknownNameError, PluginError):
        return None
    return provided if int(provided.thing.version) == entry.version else None
