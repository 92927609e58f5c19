"""Which files vecdb reads by itself, told by their names."""

from __future__ import annotations

from vecdb.interchange import arrowtables, vectorfiles

__all__ = ["JSON_SUFFIXES", "known_suffixes", "reads_itself", "record_suffixes"]

JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json.gz")


def record_suffixes() -> tuple[str, ...]:
    """Return the suffixes of files that hold records."""
    return (*JSON_SUFFIXES, *arrowtables.SUFFIXES)


def known_suffixes() -> str:
    """Return all suffixes of files that vecdb reads itself, for messages."""
    return f"{', '.join(record_suffixes())}; vectors alone: {', '.join((*vectorfiles.SUFFIXES, '.npz'))}"


def reads_itself(path: str) -> bool:
    """Return whether vecdb reads such a file without a plugin."""
    plain = path.partition("::")[0].lower()
    return plain.endswith((*record_suffixes(), *vectorfiles.SUFFIXES, ".npz"))
