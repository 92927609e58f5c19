"""The blobs of one index part as plugins see them: gathered for a commit, and read back verified."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import Data, as_bytes
from vecdb.errors import CorruptionError, PluginContractError
from vecdb.storage.blobs import MAX_BLOBS, BlobLine
from vecdb.storage.indexes import ORDINALS, IndexPart, read_named
from vecdb.storage.tx import Tx

_NAME: Final = re.compile(r"[a-z0-9._-]{1,64}")


class BlobCollector:
    """A `BlobWriter` that keeps what it is given until the commit stores it."""

    def __init__(self) -> None:
        self.blobs: list[tuple[str, memoryview]] = []

    def write(self, name: str, data: Data) -> None:
        given: object = name
        if not isinstance(given, str) or not _NAME.fullmatch(given):
            raise _misuse(f"a blob is named {name!r}, expected 1 to 64 of the characters a-z 0-9 . _ -")
        if any(name == known for known, _ in self.blobs):
            raise _misuse(f"the blob {name!r} is written twice")
        if len(self.blobs) >= MAX_BLOBS:
            raise _misuse(f"more than {MAX_BLOBS} blobs are written")
        try:
            self.blobs.append((str(name), as_bytes(data)))
        except (TypeError, ValueError) as error:
            raise _misuse(f"the blob {name!r} is given {type(data).__name__}: {error}") from error


class StoredBlobs:
    """A `BlobReader` over one part, valid under the lease of its transaction."""

    def __init__(self, tx: Tx, part: IndexPart) -> None:
        self._tx = tx
        self._part = part

    def names(self) -> list[str]:
        return [line.name for line in self._part.blobs if line.name != ORDINALS]

    def size(self, name: str) -> int:
        return self._line(name).length

    def read(self, name: str) -> bytes:
        return read_named(self._tx, self._part, self._line(name).name)

    def array(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        wanted = np.dtype(dtype)
        if wanted.hasobject:
            raise _misuse(f"the blob {name!r} is asked for as objects")
        known = math.prod(length for length in shape if length >= 0) * wanted.itemsize
        size = self.size(name)
        open_axes = sum(length < 0 for length in shape)
        fits = size == known if not open_axes else open_axes == 1 and known > 0 and size % known == 0
        if not fits:
            raise self._damaged(name, f"has {size} bytes, which is not {wanted} of shape {shape}")
        return np.frombuffer(self.read(name), wanted).reshape(shape)

    def _line(self, name: str) -> BlobLine:
        for line in self._part.blobs:
            if line.name == name and name != ORDINALS:
                return line
        raise self._damaged(name, "is not there")

    def _damaged(self, name: str, problem: str) -> CorruptionError:
        return CorruptionError(f"the index blob {name!r} {problem}", what="index blob", where=str(self._part.set))


def _misuse(problem: str) -> PluginContractError:
    return PluginContractError(problem, rule="blobs", problem=problem)
