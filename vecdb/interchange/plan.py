"""What every export writer is given: which records and spaces, at which commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from vecdb.errors import ParameterError
from vecdb.types import Progress, Record, Space, Where

if TYPE_CHECKING:
    from vecdb import Collection

__all__ = ["Plan", "Written"]

Written: TypeAlias = tuple[int, dict[str, int]]
"""Records, and vectors by space."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One export. Every pass over `records` reads the same commit."""

    collection: Collection
    spaces: dict[str, Space]
    where: Where | None
    seq: int
    progress: Progress | None
    compress: bool

    def records(self, vectors: Sequence[str] | None = None) -> Iterator[Record]:
        """Yield the records in record order, with the vectors of some or all chosen spaces; reports progress."""
        names = list(self.spaces) if vectors is None else list(vectors)
        found = self.collection.scan(self.where, vectors=names, as_of=self.seq)
        total = self.total() if self.progress else None
        for done, record in zip(count(1), found, strict=False):
            yield record
            if self.progress and (done % 256 == 0 or done == total):
                self.progress(done, total)

    def total(self) -> int:
        return int(self.collection.count(self.where, as_of=self.seq))

    def only_space(self, kind: str) -> Space:
        """Return the one chosen space, for formats that hold one."""
        if len(self.spaces) != 1:
            raise ParameterError(
                f"a {kind} file holds the vectors of one space, {len(self.spaces)} are chosen.",
                hint="name one (spaces=[...], --space).",
                name="spaces",
                got=list(self.spaces),
                allowed="one",
            )
        return next(iter(self.spaces.values()))

    def check_names(self, reserved: Sequence[str]) -> None:
        """Refuse spaces whose name is a column with another meaning."""
        taken = sorted(set(self.spaces) & set(reserved))
        if taken:
            raise ParameterError(
                f"space {taken[0]!r} has the name of another column.",
                hint="leave the space out, rename it, or export to a directory.",
                name="spaces",
                got=taken,
                allowed="other names",
            )
