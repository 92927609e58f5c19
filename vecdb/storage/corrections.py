"""What the catalog says of stored score corrections, and how their blobs are read. Values only.

A correction is one set of blobs, its banks, whose number is the correction's own; beside it, where one was computed, a
second set with its table: what is kept of each row of its own space, by ordinal. Ordinals outlive repacking and
compaction, and a vector that replaces another has a new one. The table may be replaced by a longer one; what it does
not cover is computed when it is searched. Byte tables: docs/explanation/storage-design.md.
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
from vecdb.storage.format import stored_numbers
from vecdb.storage.states import unpack_state
from vecdb.storage.tx import Tx

F32 = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.uint64]

STATE: Final = "state"
ORDINALS: Final = "ordinals"
ROWS: Final = "rows"
_BLOBS: Final = (STATE,)
_TABLE: Final = (ORDINALS, ROWS)
MOST_COLUMNS: Final = 65_536


@dataclass(frozen=True, slots=True)
class CorrectionEntry:
    """A stored score correction in the catalog.

    Attributes
    ----------
    set : int
        Number of its banks, never reused: it is the correction's own number.
    name : str
        Unique in its collection.
    space : int
        Number of the space in which its queries are asked.
    kind : str
    version : int
        Of the form in which banks and table are stored.
    bank, gallery, own : int
        Queries of the bank, stored rows of the other bank, and known answers that are left out.
    seed : int
    table : int
        Number of the set of the table, 0 where none is stored.
    columns : int
        Numbers kept of each row.
    rows : int
        Rows that the table covers.
    digest : str
        `vecdb.contracts.state_digest` of the banks.
    created : float
        Seconds since 1970.
    params, quality : mapping
        Plain values.
    lines, table_lines : tuple of BlobLine
    """

    set: int
    name: str
    space: int
    kind: str
    version: int
    bank: int
    gallery: int = 0
    own: int = 0
    seed: int = 0
    table: int = 0
    columns: int = 1
    rows: int = 0
    digest: str = ""
    created: float = 0.0
    params: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[BlobLine, ...] = ()
    table_lines: tuple[BlobLine, ...] = ()

    @property
    def sets(self) -> frozenset[int]:
        """The sets of blobs that it names."""
        return frozenset({self.set, self.table} - {0})


# --- in the catalog ---------------------------------------------------------------------------------------


def correction_to_plain(entry: CorrectionEntry) -> list[Any]:
    numbers = [entry.set, entry.space, entry.version, entry.bank, entry.gallery, entry.own, entry.seed]
    numbers += [entry.table, entry.columns, entry.rows]
    lines = [[[line.name, line.length] for line in part] for part in (entry.lines, entry.table_lines)]
    texts = [entry.name, entry.kind, entry.digest]
    return [numbers, texts, entry.created, [dict(entry.params), dict(entry.quality)], *lines]


def correction_from_plain(plain: Any) -> CorrectionEntry:
    """Invert `correction_to_plain`; a wrong shape raises what the catalog turns into `CorruptionError`."""
    numbers, texts, created, facts, lines, table_lines = plain
    number, space, version, bank, gallery, own, seed, table, columns, rows = stored_numbers(numbers, "catalog", 10)
    name, kind, digest = _typed(texts, str, 3)
    params, quality = _typed(facts, dict, 2)
    if type(created) is not float or not math.isfinite(created) or not 1 <= columns <= MOST_COLUMNS:
        raise ValueError(f"an impossible correction {name!r}")
    known, table_known = _lines(lines, _BLOBS), _lines(table_lines, _TABLE)
    if bool(table) != bool(table_known):
        raise ValueError(f"correction {name!r} names a table without blobs, or blobs without a table")
    return CorrectionEntry(
        number,
        name,
        space,
        kind,
        version,
        bank,
        gallery,
        own,
        seed,
        table,
        columns,
        rows,
        digest,
        created,
        params,
        quality,
        known,
        table_known,
    )


def _typed(values: Any, kind: type, count: int) -> list[Any]:
    if type(values) is not list or len(values) != count or any(type(value) is not kind for value in values):
        raise TypeError(f"a correction without its {count} {kind.__name__}s")
    return values


def _lines(lines: Any, names: tuple[str, ...]) -> tuple[BlobLine, ...]:
    if [name for name, _ in lines] not in ([], list(names)):
        raise ValueError(f"a correction with blobs {lines!r}")
    return tuple(BlobLine(name, *stored_numbers([length], "catalog")) for name, length in lines)


# --- reading ----------------------------------------------------------------------------------------------


def read_correction_state(tx: Tx, entry: CorrectionEntry) -> dict[str, Any]:
    """Return the stored banks, checksums checked; whoever uses them compares `CorrectionEntry.digest`.

    Raises
    ------
    CorruptionError
    """
    if not entry.lines:
        raise _damaged(entry, "has no banks")
    return unpack_state(read_blob(tx, entry.set, 0, entry.lines[0]), f"banks of correction {entry.name!r}")


def read_table(tx: Tx, entry: CorrectionEntry) -> tuple[Numbers, F32]:
    """Return (ordinals ascending (n,), what is kept of each (n, columns)); empty where no table is stored.

    Raises
    ------
    CorruptionError
    """
    if not entry.table:
        return np.empty(0, np.uint64), np.empty((0, entry.columns), np.float32)
    first, second = entry.table_lines
    if first.length != 8 * entry.rows or second.length != 4 * entry.rows * entry.columns:
        raise _damaged(entry, "has a table of a wrong length")
    ordinals = np.frombuffer(read_blob(tx, entry.table, 0, first), "<u8").astype(np.uint64)
    rows = np.frombuffer(read_blob(tx, entry.table, 1, second), "<f4").astype(np.float32)
    if len(ordinals) > 1 and not bool((ordinals[1:] > ordinals[:-1]).all()):
        raise _damaged(entry, "has a table whose ordinals do not ascend")
    if not np.isfinite(rows).all():
        raise _damaged(entry, "has a table with numbers that are not finite")
    return ordinals, rows.reshape(entry.rows, entry.columns)


def _damaged(entry: CorrectionEntry, problem: str) -> CorruptionError:
    return CorruptionError(
        f"correction {entry.name!r} {problem}",
        hint="Drop it with drop_correction() and fit it again.",
        what="correction",
        where=entry.name,
    )
