"""Ids of an export's records by line, kept in a temporary file: 8 bytes a record stay in memory.

The file has no name (it goes when it is closed or the process dies) and stands in the folder of the database, where
there is room for what is imported; the system's folder for temporary files may be memory.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vecdb.errors import FileAccessError
from vecdb.types import Id

__all__ = ["IdSpool"]

_BUFFER = 1 << 16


class IdSpool:
    """Append ids, then look some up by their place."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ends = array("q", [0])
        with self._guard():
            self._stream = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER)  # noqa: SIM115 - closed by close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileAccessError(
                f"cannot keep the ids of the export in a temporary file in {self._folder}: {error.strerror or error}.",
                hint="free some space and import again.",
                path=self._folder,
            ) from error

    def __len__(self) -> int:
        return len(self._ends) - 1

    def extend(self, values: Sequence[Any]) -> None:
        """Append ids, of whatever JSON type they are: the collection will judge them."""
        for value in values:
            data = json.dumps(value).encode()
            with self._guard():
                self._stream.write(data)
            self._ends.append(self._ends[-1] + len(data))

    def get(self, places: Sequence[int]) -> list[Id]:
        """Return the ids at some places, which must be there."""
        return [json.loads(self._read(self._ends[place], self._ends[place + 1])) for place in places]

    def _read(self, start: int, stop: int) -> bytes:
        with self._guard():
            self._stream.seek(start)
            data: bytes = self._stream.read(stop - start)
        return data

    def close(self) -> None:
        self._stream.close()
