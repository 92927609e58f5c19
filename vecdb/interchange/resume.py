"""Where an import stopped, so that running it again continues there.

A small JSON file beside the database says how many rows of which source are committed. It is written before the first
commit and after each one, through a temporary file and a rename. Invariants:

- it never counts a row whose commit has not returned, so it may lag behind the database by one batch (the process was
  killed in between) but not run ahead of it. What lags is found by comparing the next records with what is stored;
- it is believed only if the database (uuid), the collection, the source files (size, time of change, checksum of both
  ends) and the fields chosen are the same, if the database has not gone back to an older commit, and if the last
  record counted is there. Otherwise the import starts from the first row, which is safe because writes are by id.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from vecdb.errors import FileAccessError
from vecdb.types import Id

__all__ = ["Checkpoint", "CheckpointFile"]

_FORMAT = "vecdb-import/1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Progress of one import.

    Attributes
    ----------
    rows : int
        Rows of the source that are committed.
    seq : int
        The commit that holds the last of them.
    last : str, int or None
        Id of the last of them.
    fresh : bool
        The collection was empty when the import began, so an id met twice is a duplicate in the source.
    """

    rows: int
    seq: int
    last: Id | None
    fresh: bool


class CheckpointFile:
    """Keeps the `Checkpoint` of one import into one database.

    Parameters
    ----------
    database : str
        Path of the database; the file is put beside it.
    identity : dict
        JSON that describes the import: database uuid, collection, sources, fields.
    """

    def __init__(self, database: str, identity: dict[str, Any]) -> None:
        self._identity = json.loads(json.dumps(identity))
        name = json.dumps([identity["collection"], identity["names"]], sort_keys=True)
        self.path = f"{database}.import-{zlib.crc32(name.encode()):08x}.json"

    def load(self) -> Checkpoint | None:
        """Return the checkpoint if it belongs to this very import, else None."""
        try:
            with open(self.path, "rb") as stream:
                found = json.loads(stream.read(1 << 20))
        except (OSError, ValueError, RecursionError):
            return None  # none, or cut short by a power cut: the import starts again, and records are compared
        if not isinstance(found, dict) or found.get("format") != _FORMAT or found.get("import") != self._identity:
            return None
        return _checkpoint(found.get("done"))

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the file in one step."""
        temporary = f"{self.path}.{os.getpid()}.tmp"
        content = {"format": _FORMAT, "import": self._identity, "done": asdict(checkpoint)}
        try:
            with open(temporary, "w", encoding="utf-8") as stream:
                json.dump(content, stream)
            os.replace(temporary, self.path)
        except OSError as error:
            raise FileAccessError(
                f"cannot write the progress of the import to {self.path}: {error.strerror or error}.",
                hint="free some space or pass resume=False.",
                path=self.path,
            ) from error

    def remove(self) -> None:
        """The import is complete."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def _checkpoint(done: Any) -> Checkpoint | None:
    if not isinstance(done, dict) or set(done) != {"rows", "seq", "last", "fresh"}:
        return None
    rows, seq, last, fresh = done["rows"], done["seq"], done["last"], done["fresh"]
    if type(rows) is not int or type(seq) is not int or rows < 0 or not isinstance(fresh, bool):
        return None
    if isinstance(last, bool) or not isinstance(last, str | int | None):
        return None
    return Checkpoint(rows, seq, last, fresh)
