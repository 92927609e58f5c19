"""vecdb: the embedded embedding database that outlives your embedding model.

One file, no server. Start with `vecdb.open`; the README has a first example.
"""

from vecdb.collection import Collection
from vecdb.database import Database, open
from vecdb.errors import *  # noqa: F403 - the errors' own __all__ is the list
from vecdb.errors import __all__ as _errors
from vecdb.types import (
    CheckReport,
    Commit,
    Hit,
    Hits,
    HitsBatch,
    Plan,
    Record,
    RecordVersion,
    Space,
    WriteResult,
)

__version__ = "0.1.0"

__all__ = sorted(
    [
        "CheckReport",
        "Collection",
        "Commit",
        "Database",
        "Hit",
        "Hits",
        "HitsBatch",
        "Plan",
        "Record",
        "RecordVersion",
        "Space",
        "WriteResult",
        "open",
        *_errors,
    ]
)
