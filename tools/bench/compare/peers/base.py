"""What an adapter is: one index as its own documentation uses it, behind a handful of calls, in a process of its own.

An adapter module imports its library inside functions only, so that listing the variants needs none of them. It has
``DISTRIBUTIONS`` (names for pip; the version of the first is reported), ``PEER`` (a subclass of `Peer`), ``VARIANTS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tools.bench.compare.sets import F32, Condition, K

Ids = Sequence[int] | npt.NDArray[np.integer[Any]]
Attributes = Mapping[str, npt.NDArray[np.int64]]
Setting = Any


class UnsupportedError(Exception):
    """The peer has no such thing; the message says what."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to build an index, and the settings to search it with.

    Attributes
    ----------
    name : str
    settings : sequence
        JSON values, each given to `Peer.aim`, from the fastest to the most thorough.
    build : mapping
        JSON values, the parameters of `Peer.build`.
    asked : sequence
        Settings that ask for a recall instead of an effort; drawn as points, not as part of the curve.
    filtered : sequence
        Settings for filtered searches; those of `settings` if empty.
    slow : bool
        Takes milliseconds a query: measured with fewer queries.
    """

    name: str
    settings: Sequence[Setting] = (None,)
    build: Mapping[str, Any] = field(default_factory=dict)
    asked: Sequence[Setting] = ()
    filtered: Sequence[Setting] = ()
    slow: bool = False


class Peer(ABC):
    """An index in a folder of its own.

    Parameters
    ----------
    folder : Path
        Exists; holds all that `build` writes and `open` reads.
    params : mapping
        `Variant.build`.
    threads : int
        How many to use, for builds and searches; the environment says the same to OpenMP and BLAS.
    """

    is_store: ClassVar[bool] = False
    """Whether this is where an application keeps its vectors; a library's index is beside them, copies and all."""

    def __init__(self, folder: Path, params: Mapping[str, Any], threads: int) -> None:
        self.folder, self.params, self.threads = folder, params, threads

    def store(self, rows: F32, attributes: Attributes) -> None:  # noqa: B027 - most have nothing to do here
        """Write the records of a database whose index is built by itself, in `build`; row numbers are the ids."""

    @abstractmethod
    def build(self, rows: F32, attributes: Attributes) -> None:
        """Build the index over unit rows and leave everything in the folder."""

    @abstractmethod
    def open(self, dim: int) -> None:
        """Make ready to be asked, from the folder."""

    def warm(self) -> None:  # noqa: B027 - most have nothing to do here
        """Load and compile what a process does once; before a build, and after `open` unless that is the subject."""

    def aim(self, setting: Setting) -> None:
        """Use this setting from now on; None is the only one of a peer without settings."""
        if setting is not None:
            raise UnsupportedError(f"no setting {setting!r}")

    @abstractmethod
    def one(self, query: F32) -> Ids:
        """Return the best K rows of one query."""

    def many(self, queries: F32) -> Sequence[Ids]:
        """Return the best K rows of each query, in one call where the peer has one."""
        return [self.one(query) for query in queries]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        """Return nothing but rows of a condition from now on; None ends it."""
        if condition is not None:
            raise UnsupportedError("no filter")

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        """Add rows with ids from `first` on; durable and found by searches when it returns."""
        raise UnsupportedError("no durable insert")

    def index_bytes(self, raw: int) -> int:
        """Return what the index costs beyond `raw` bytes of float32 rows."""
        return folder_bytes(self.folder) - (raw if self.is_store else 0)

    def close(self) -> None:  # noqa: B027 - most have nothing to do here
        """Let go of everything."""


def folder_bytes(folder: Path) -> int:
    """Return the bytes that the files under a folder take on disk: sparse ones count what is written."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def padded(found: Sequence[Ids]) -> npt.NDArray[np.int64]:
    """Return lists of ids as one array (q, K), -1 where there are fewer."""
    ids = np.full((len(found), K), -1, np.int64)
    for place, each in enumerate(found):
        ids[place, : min(K, len(each))] = np.asarray(each, np.int64)[:K]
    return ids


def pieces(rows: F32, size: int) -> Iterator[tuple[int, F32]]:
    """Yield parts of the rows with the number of their first."""
    for start in range(0, len(rows), size):
        yield start, np.ascontiguousarray(rows[start : start + size])
