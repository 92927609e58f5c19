"""The importer contract: a file format becomes batches of records, which then go the way of every other import.

An importer reads; validation, commits, progress, resuming and errors with row numbers are vecdb's. The numbered rules:
docs/reference/importer-contract.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.types import Id

__all__ = ["ImportBatch", "ImportSource", "Importer"]


@dataclass(frozen=True, slots=True)
class ImportBatch:
    """Some consecutive records of a file.

    Attributes
    ----------
    ids : list of (str or int), n of them, at least one
    vectors : mapping of str to (ndarray of shape (n, d), or list of n (ndarray of shape (d,) or None))
        By the name the file has for them, a key of `ImportSource.widths`; None: this record has no such vector.
        float32 and float16 pass with every bit, other real numbers are cast to float32.
    metadata : list of n dicts, or None
    texts : list of n (str or None), or None
    lines : list of n int, or None
        Line numbers, for messages, where the file is text.
    """

    ids: list[Id]
    vectors: Mapping[str, npt.NDArray[np.number] | Sequence[npt.NDArray[np.number] | None]] = field(
        default_factory=dict
    )
    metadata: list[dict[str, Any]] | None = None
    texts: list[str | None] | None = None
    lines: list[int] | None = None


@runtime_checkable
class ImportSource(Protocol):
    """An open file. It is read by one thread and closed once.

    Attributes
    ----------
    rows : int or None
        Records in the file; None where only reading it would tell.
    widths : mapping of str to int
        Names and widths of the vectors in the file, in the file's own names.
    """

    @property
    def rows(self) -> int | None: ...
    @property
    def widths(self) -> Mapping[str, int]: ...

    def batches(self, start: int, most: int) -> Iterator[ImportBatch]:
        """Yield the records from row `start` on, in the order of the file, at most `most` at a time.

        Row numbers count records from 0, and the order never changes, so that a run which was stopped goes on with
        the row that is missing. No more than a batch is held in memory.

        Raises
        ------
        SourceError
            If the file is damaged or cut off; batches before that are yielded first.
        """
        ...

    def close(self) -> None:
        """Give up the file; harmless the second time."""
        ...


@runtime_checkable
class Importer(Protocol):
    """A file format, registered under a name; stateless.

    Attributes
    ----------
    name : str
        Lower case; with a prefix, ``"acme.csv"``, unless it is part of vecdb. ``vecdb import --format`` takes it.
    suffixes : tuple of str
        Ends of file names that it reads, lower case with the dot, ``(".csv", ".csv.gz")``. Those that vecdb reads
        itself are not asked of a plugin; one that two importers claim must be told by `magic` or by name.
    magic : tuple of bytes
        First bytes, of 2 to 64, any one of which a file of this format begins with; empty: every file of its suffixes
        may be one.
    example : bytes
        A file of this format with at least 5 records, of at most 1 MiB: what the conformance kit reads.
    parameters : mapping of str to Param
    """

    @property
    def name(self) -> str: ...
    @property
    def suffixes(self) -> tuple[str, ...]: ...
    @property
    def magic(self) -> tuple[bytes, ...]: ...
    @property
    def example(self) -> bytes: ...
    @property
    def parameters(self) -> Mapping[str, Param]: ...

    def open(self, path: str, params: Mapping[str, Any]) -> ImportSource:
        """Open a file.

        Parameters
        ----------
        path : str
            An existing file.
        params : mapping
            Every declared parameter, checked.

        Raises
        ------
        SourceError
            If it is not a file of this format, naming file and line.
        ExtraMissingError
            If a package that is needed to read it is not installed.
        """
        ...
