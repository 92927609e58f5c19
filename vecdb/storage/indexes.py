"""What the catalog says of indexes: their type, parameters, and the parts that were built.

A part covers vectors by ordinal, so that repacking blocks never invalidates it. Values only, and the changes of a
commit; what is inside the blobs is the index type's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError
from vecdb.storage.blobs import MAX_BLOBS, BlobLine, drop_blobs, read_blob
from vecdb.storage.format import stored_numbers
from vecdb.storage.measured import NOTHING, Measured, measured_from_plain, measured_to_plain
from vecdb.storage.tx import Tx

Numbers = npt.NDArray[np.uint64]
ORDINALS: Final = "#ordinals"
"""The engine's own blob in a part's set; names of plugins cannot begin so."""


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One built piece of an index.

    Attributes
    ----------
    set : int
        Number of its blobs.
    version : int
        Of the index type's stored form.
    first, stop : int
        Ordinals that it accounts for: every vector born in there and alive when it was built is in it.
    count : int
        Vectors in it; all of ``first`` to ``stop - 1`` if there are so many, else those of the blob `ORDINALS`.
    blobs : tuple of BlobLine
    coded : bool
        Whether it was encoded rather than built: by the commit that sealed its vectors, or in upkeep.
    measured : Measured
    """

    set: int
    version: int
    first: int
    stop: int
    count: int
    blobs: tuple[BlobLine, ...] = ()
    coded: bool = False
    measured: Measured = NOTHING

    @property
    def is_gapless(self) -> bool:
        return self.count == self.stop - self.first


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """An index in the catalog.

    Attributes
    ----------
    id : int
        Never reused.
    space : int
        Number of its space.
    kind : str
        Registered name of its type.
    params : mapping
    seed : int
    owner : str
        The distribution that provided the type when the index was made; for messages only.
    parts : tuple of IndexPart
        Ascending, without overlap.
    automatic : bool
        Whether upkeep made it, because the space had none.
    """

    id: int
    space: int
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    owner: str = ""
    parts: tuple[IndexPart, ...] = ()
    automatic: bool = False

    @property
    def stop(self) -> int:
        """The first ordinal that no part accounts for."""
        return self.parts[-1].stop if self.parts else 0


_FLAGS: Final = ("[]", "[True]")


# --- in the catalog ---------------------------------------------------------------------------------------


def index_to_plain(index: IndexEntry) -> list[Any]:
    parts = [_part_to_plain(part) for part in index.parts]
    plain = [index.id, index.space, index.kind, dict(index.params), index.seed, index.owner, parts]
    return [*plain, True] if index.automatic else plain


def _part_to_plain(part: IndexPart) -> list[Any]:
    lines = [_line_to_plain(line) for line in part.blobs]
    plain = [part.set, part.version, part.first, part.stop, part.count, lines]
    if not part.coded and part.measured == NOTHING:
        return plain
    return [*plain, part.coded, measured_to_plain(part.measured)]


def _line_to_plain(line: BlobLine) -> list[Any]:
    return [line.name, line.length, line.row_bytes] if line.row_bytes else [line.name, line.length]


def index_from_plain(plain: Any) -> IndexEntry:
    """Invert `index_to_plain`; anything of a wrong shape raises what the catalog turns into `CorruptionError`."""
    number, space, kind, params, seed, owner, parts, *more = plain
    if (
        not isinstance(kind, str)
        or not isinstance(owner, str)
        or not isinstance(params, dict)
        or repr(more) not in _FLAGS
    ):
        raise TypeError("an index of a wrong shape")
    if any(
        not isinstance(name, str) or not isinstance(value, (int, float, str, bool)) for name, value in params.items()
    ):
        raise TypeError("parameters of an index that are not plain")
    numbers = stored_numbers([number, space, seed], "catalog")
    read = tuple(_part(each) for each in parts)
    if any(before.stop > after.first for before, after in pairwise(read)):
        raise ValueError("parts of an index that overlap")
    return IndexEntry(numbers[0], numbers[1], kind, params, numbers[2], owner, read, bool(more))


def _part(plain: Any) -> IndexPart:
    numbers, (lines, *more) = plain[:5], plain[5:]
    number, version, first, stop, count = stored_numbers(numbers, "catalog", 5)
    if not first <= stop or not 0 < count <= stop - first or len(lines) > MAX_BLOBS + 1:
        raise ValueError("an impossible part of an index")
    blobs = tuple(BlobLine(_name(name), *stored_numbers(lengths, "catalog")) for name, *lengths in lines)
    coded, measured = more or (False, [0, 0, []])
    if not isinstance(coded, bool):
        raise TypeError("a part of an index of no kind")
    return IndexPart(number, version, first, stop, count, blobs, coded, measured_from_plain(measured))


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("a blob without a name")
    return name


# --- reading ----------------------------------------------------------------------------------------------


def read_named(tx: Tx, part: IndexPart, name: str) -> bytes:
    """Return one blob of a part; errors as in `read_blob`, and `CorruptionError` if there is none of this name."""
    for place, line in enumerate(part.blobs):
        if line.name == name:
            return read_blob(tx, part.set, place, line)
    raise CorruptionError(f"an index has no blob {name!r}", what="index blob", where=str(part.set))


def part_ordinals(tx: Tx, part: IndexPart) -> Numbers:
    """Return the ordinals that a part covers, ascending.

    Raises
    ------
    CorruptionError
        If they are not what the catalog says.
    """
    if part.is_gapless:
        return np.arange(part.first, part.stop, dtype=np.uint64)
    data = read_named(tx, part, ORDINALS)
    width = 4 if part.stop - part.first <= 1 << 32 else 8
    if len(data) != width * part.count:
        raise CorruptionError("the ordinals of an index have a wrong length", what="index blob", where=str(part.set))
    ordinals = np.frombuffer(data, f"<u{width}").astype(np.uint64) + np.uint64(part.first)
    if int(ordinals[-1]) >= part.stop or not bool((ordinals[1:] > ordinals[:-1]).all()):
        raise CorruptionError("the ordinals of an index do not ascend", what="index blob", where=str(part.set))
    return ordinals


def pack_ordinals(ordinals: Numbers, first: int, stop: int) -> memoryview:
    """Return the blob that `part_ordinals` reads."""
    width = 4 if stop - first <= 1 << 32 else 8
    return memoryview((ordinals - np.uint64(first)).astype(f"<u{width}").tobytes())


def find_index(indexes: Sequence[IndexEntry], number: int) -> IndexEntry | None:
    return next((index for index in indexes if index.id == number), None)


def drop_parts(tx: Tx, parts: Sequence[IndexPart]) -> None:
    for part in parts:
        drop_blobs(tx, part.set)
