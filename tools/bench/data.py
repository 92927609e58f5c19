"""The vectors that benchmarks run on: real embeddings where they are at hand, else synthetic ones that behave alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb

F32 = npt.NDArray[np.float32]
_LATENT = 20
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Vectors:
    """Rows to store and queries that are not among them."""

    name: str
    rows: F32
    queries: F32

    @property
    def shape(self) -> str:
        """The shape as readers see it."""
        return f"{len(self.rows):,} x {self.rows.shape[1]}"


def shared_folder(root: Path) -> Path | None:
    """Return the folder of the real data sets, None where they are missing."""
    folder = Path(os.environ.get("VECDB_SHARED_DATA") or root.parent / "shared" / "data")
    return folder if (folder / "README.md").is_file() else None


def synthetic(count: int, dim: int = 384, *, queries: int = 100, seed: int = 7, unit: bool = True) -> Vectors:
    """Return rows of 20 hidden dimensions, spread by a random two-layer network as an embedding model's are."""
    rng = np.random.default_rng(seed)
    inner = rng.standard_normal((_LATENT, dim), dtype=np.float32) / np.float32(_LATENT**0.5)
    outer = rng.standard_normal((dim, dim), dtype=np.float32) / np.float32(dim**0.5)
    rows = np.empty((count + queries, dim), np.float32)
    for start in range(0, len(rows), BATCH):
        part = rng.standard_normal((len(rows[start : start + BATCH]), _LATENT), dtype=np.float32)
        rows[start : start + BATCH] = np.tanh(part @ inner * np.float32(1.5)) @ outer
    if unit:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Vectors("synthetic", rows[:count], rows[count:])


def real(shared: Path, limit: int | None = None) -> Vectors:
    """Return the Debian package descriptions as all-MiniLM-L6-v2 sees them, and the synopses as queries."""
    rows = np.load(shared / "debian" / "mini6.docs.f16.npy")[:limit].astype(np.float32)
    queries = np.load(shared / "debian" / "mini6.queries.f16.npy")[:100].astype(np.float32)
    return Vectors("Debian mini6", rows, queries)


def documents(shared: Path | None, *, full: int, quick: int, is_quick: bool) -> Vectors:
    """Return the real data set in a full run where it is at hand, synthetic rows otherwise."""
    if shared is not None and not is_quick:
        return real(shared, full)
    return synthetic(quick if is_quick else full)


def metadata(place: int) -> dict[str, Any]:
    """Return the small metadata of one record."""
    return {"section": ("net", "libs", "python", "admin")[place % 4], "size": place * 37 % 9973}


def batches(rows: F32, describe: Callable[[int], dict[str, Any]] | None, size: int = BATCH) -> Iterator[dict[str, Any]]:
    """Yield `rows` as the batches of `upsert_many`; ids count from 0."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        ids = range(start, start + len(part))
        described = None if describe is None else [describe(place) for place in ids]
        yield {"ids": list(ids), "vectors": {"m": part}, "metadata": described}


def fill(
    db: vecdb.Database, rows: F32, *, metric: Any = "cosine", describe: Callable[[int], dict[str, Any]] | None = None
) -> vecdb.Collection:
    """Make the collection ``docs`` with the space ``m`` and write all rows."""
    collection = db.create_collection("docs")
    collection.add_space("m", dim=rows.shape[1], metric=metric)
    collection.upsert_many(batches(rows, describe))
    return collection


def store(path: Path, rows: F32, **how: Any) -> Path:
    """Write a new database of `rows` and return its path."""
    with vecdb.open(path, "x", durability="relaxed", automatic=False) as db:
        fill(db, rows, **how)
        db.optimize()
    return path
