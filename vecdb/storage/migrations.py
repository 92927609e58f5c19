"""What the file says of a collection's migrations: plan, state, and which vectors each of them wrote. Values only.

Key ``m`` + collection of ``meta``, sealed msgpack: one list for each migration, oldest first. It is a value of its own
beside the catalog because every batch of a migration rewrites it. Invariant: at most the last one is active.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from vecdb.errors import CorruptionError
from vecdb.storage.format import pack_sealed, stored_numbers, u32, unpack_sealed
from vecdb.storage.tx import Tx

PREPARED, BRIDGING, BACKFILLING, COMPLETE = "prepared", "bridging", "backfilling", "complete"
UNDOING, FINISHED, UNDONE = "rolling back", "finished", "rolled back"
ACTIVE: Final = (PREPARED, BRIDGING, BACKFILLING, COMPLETE, UNDOING)
STATES: Final = (*ACTIVE, FINISHED, UNDONE)
MAX_FAILURES: Final = 1000
"""Records that could not be embedded and are remembered by name; a migration with more of them pauses."""
MAX_TRAFFIC: Final = 2_048
"""Records whose hits are remembered: every batch writes them anew."""
_MAX_TEXT: Final = 1000


@dataclass(frozen=True, slots=True)
class StoredMigration:
    """One migration.

    Attributes
    ----------
    number : int
        Counted from 1 in each collection.
    source, target : int
        Numbers of the spaces; `names` as they were called at the start, for people.
    via : {"encode", "map"}
    inputs : {"texts", "records"}
        What the encoder is given.
    policy : str
        The order of the backfill, with `params`.
    batch : int
        Records of one commit.
    canary : float
        Share of the records that is embedded first, at random.
    seed : int
        Of the canary and of the policy's noise.
    begun : int
        The seq whose state a rollback restores; kept readable by the tag `tag`.
    source_next, target_next : int
        Next ordinals of the spaces at the start: what was there before is known by its ordinal.
    time : float
        When it began, in seconds since 1970.
    state : str
        One of `STATES`.
    paused : str
        Why it stands still; empty while it may go on.
    written : tuple of (first, stop)
        Ordinals of the vectors that the migration itself wrote to the target space, ascending and apart.
    done : int
        How many those are.
    seconds : float
        Time spent on embedding and writing them.
    failed : tuple of (ordinal, attempts, reason)
        Records, by their vector in the source space, that could not be embedded.
    measured : mapping of str to float
        What the canary showed.
    ended : float
        When it was finished or rolled back; 0 before.
    traffic : tuple of (row, hits)
        Of records that bridged searches returned, those with the most hits.
    aim : int
        Where vectors are mapped and not embedded: the number of the space whose vectors they stand for, else 0.
    transforms : tuple of str
        By which they are mapped.
    """

    number: int
    source: int
    target: int
    names: tuple[str, str]
    via: str
    inputs: str
    policy: str
    params: Mapping[str, Any]
    batch: int
    canary: float
    seed: int
    begun: int
    source_next: int
    target_next: int
    time: float
    state: str = PREPARED
    paused: str = ""
    written: tuple[tuple[int, int], ...] = ()
    done: int = 0
    seconds: float = 0.0
    failed: tuple[tuple[int, int, str], ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    ended: float = 0.0
    traffic: tuple[tuple[int, int], ...] = ()
    aim: int = 0
    transforms: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether it is neither finished nor rolled back."""
        return self.state in ACTIVE

    def with_written(self, first: int, count: int, seconds: float) -> StoredMigration:
        """Return the migration after a batch whose vectors have the ordinals from `first` on."""
        ranges = list(self.written)
        if count and ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], first + count)
        elif count:
            ranges.append((first, first + count))
        return replace(self, written=tuple(ranges), done=self.done + count, seconds=self.seconds + seconds)

    def with_failures(self, failures: Mapping[int, str]) -> StoredMigration:
        """Return the migration after records, named by their ordinals in the source space, failed once more."""
        known = {ordinal: (attempts, reason) for ordinal, attempts, reason in self.failed}
        for ordinal, reason in failures.items():
            known[ordinal] = known.get(ordinal, (0, ""))[0] + 1, reason[:_MAX_TEXT]
        listed = [(ordinal, attempts, reason) for ordinal, (attempts, reason) in known.items()]
        return replace(self, failed=tuple(listed[:MAX_FAILURES]))

    def with_traffic(self, hits: Mapping[int, int]) -> StoredMigration:
        """Return the migration after records, given by row, were among the hits of bridged searches."""
        known = dict(self.traffic)
        for row, count in hits.items():
            known[row] = known.get(row, 0) + count
        most = sorted(known.items(), key=lambda item: (-item[1], item[0]))[:MAX_TRAFFIC]
        return replace(self, traffic=tuple(most))


def tag_of(collection: int, number: int) -> str:
    """Return the name of the tag that keeps the state before a migration readable."""
    return f"before-migration-{collection}-{number}"


def migrations_key(collection: int) -> bytes:
    return b"m" + u32(collection)


def read_migrations(tx: Tx, collection: int) -> tuple[StoredMigration, ...]:
    """Return the migrations of a collection, oldest first."""
    key = migrations_key(collection)
    value = tx.get("meta", key)
    if value is None:
        return ()
    plain = unpack_sealed(key, value, "migrations")
    try:
        found = tuple(_from_plain(each) for each in plain)
        if any(each.active for each in found[:-1]):
            raise ValueError("several are active")
        return found
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptionError(f"a stored migration has a wrong shape: {error}", what="migrations") from error


def write_migrations(tx: Tx, collection: int, migrations: Sequence[StoredMigration]) -> None:
    key = migrations_key(collection)
    tx.put("meta", key, pack_sealed(key, [_to_plain(each) for each in migrations]))


def find_migration(migrations: Sequence[StoredMigration], number: int) -> StoredMigration | None:
    """Return the migration of this number."""
    return next((each for each in migrations if each.number == number), None)


def active_migration(tx: Tx, collection: int) -> StoredMigration | None:
    """Return the migration that is neither finished nor rolled back, if there is one."""
    found = read_migrations(tx, collection)
    return found[-1] if found and found[-1].active else None


def held_tags(tx: Tx, collections: Sequence[int]) -> dict[str, int]:
    """Return the tags that active migrations need, each with its collection."""
    active = ((number, active_migration(tx, number)) for number in collections)
    return {tag_of(number, each.number): number for number, each in active if each is not None}


def _to_plain(migration: StoredMigration) -> list[Any]:
    return [getattr(migration, each.name) for each in fields(migration)]


def _from_plain(plain: Sequence[Any]) -> StoredMigration:
    if len(plain) != len(fields(StoredMigration)):
        raise ValueError("another number of fields")
    found = StoredMigration(*plain)
    numbers = stored_numbers(
        [found.number, found.source, found.target, found.batch, found.seed, found.begun, found.done], "migration"
    )
    stored_numbers([found.source_next, found.target_next, found.aim], "migration")
    texts = (*found.names, *found.transforms, found.via, found.inputs, found.policy, found.state, found.paused)
    if not all(isinstance(text, str) for text in texts) or found.state not in STATES or not numbers[0]:
        raise ValueError("a text or a number out of its place")
    times = tuple(map(float, (found.canary, found.time, found.seconds, found.ended, *found.measured.values())))
    if not all(map(math.isfinite, times)):
        raise ValueError("a time that is not finite")
    return replace(
        found,
        names=(found.names[0], found.names[1]),
        params=dict(found.params),
        written=_ranges(found.written),
        failed=tuple((*stored_numbers(each[:2], "migration", 2), str(each[2])) for each in found.failed),  # type: ignore[misc]
        measured={str(name): float(value) for name, value in found.measured.items()},
        transforms=tuple(found.transforms),
        traffic=tuple(stored_numbers(each, "migration", 2) for each in found.traffic),  # type: ignore[misc]
    )


def _ranges(plain: Any) -> tuple[tuple[int, int], ...]:
    found = tuple(stored_numbers(each, "migration", 2) for each in plain)
    flat = [number for each in found for number in each]
    if any(after <= before for before, after in zip(flat[::2], flat[1::2], strict=True)) or flat != sorted(flat):
        raise ValueError("ranges that do not ascend")
    return tuple((first, stop) for first, stop in found)
