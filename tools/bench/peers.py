"""The embedded stores that vecdb is compared with, each used as its documentation shows, all behind two calls.

A peer that is not installed is told by `absences`; nothing here is needed to use vecdb.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import vecdb
from tools.bench.data import F32

Described = Sequence[dict[str, Any]] | None


class InsertTarget(Protocol):
    """A store that takes batches, each durable in its own way when `add` returns."""

    def add(self, first: int, rows: F32, described: Described) -> None:
        """Write one batch: ids count from `first`; `described` is the metadata of each row, or None."""

    def close(self) -> None:
        """Close the store."""


class Vecdb:
    """vecdb with durability ``full``."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._db = vecdb.open(folder / "a.vecdb", "x")
        self._collection = self._db.create_collection("docs")
        self._collection.add_space("m", dim=dim)

    def add(self, first: int, rows: F32, described: Described) -> None:
        self._collection.insert(range(first, first + len(rows)), {"m": rows}, described)

    def close(self) -> None:
        self._db.close()


class SqliteVec:
    """sqlite-vec: WAL with ``synchronous=FULL``, one transaction a batch, metadata as JSON in a table beside it."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._db = sqlite_connection(str(folder / "a.db"))
        cursor = self._db.cursor()
        cursor.execute("PRAGMA journal_mode=WAL").fetchall()
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"CREATE VIRTUAL TABLE v USING vec0(id INTEGER PRIMARY KEY, e float[{dim}])")
        cursor.execute("CREATE TABLE docs(id INTEGER PRIMARY KEY, metadata TEXT)")
        self._cursor = cursor

    def add(self, first: int, rows: F32, described: Described) -> None:
        cursor = self._cursor
        cursor.execute("BEGIN IMMEDIATE")
        vectors = ((first + place, row.tobytes()) for place, row in enumerate(rows))
        cursor.executemany("INSERT INTO v(id, e) VALUES (?, ?)", vectors)
        if described is not None:
            records = ((first + place, json.dumps(item)) for place, item in enumerate(described))
            cursor.executemany("INSERT INTO docs(id, metadata) VALUES (?, ?)", records)
        cursor.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


class LanceDB:
    """LanceDB: one ``table.add`` of an Arrow table a batch, metadata as columns, no index."""

    def __init__(self, folder: Path, dim: int) -> None:
        import lancedb

        self._db = lancedb.connect(str(folder))
        self._dim = dim
        self._table: Any = None

    def add(self, first: int, rows: F32, described: Described) -> None:
        import pyarrow as pa

        columns = {
            "id": pa.array(np.arange(first, first + len(rows))),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), self._dim),
        }
        if described is not None:
            columns |= {name: pa.array([item[name] for item in described]) for name in described[0]}
        table = pa.table(columns)
        if self._table is None:
            self._table = self._db.create_table("docs", table)
        else:
            self._table.add(table)

    def close(self) -> None:
        self._table = None


def sqlite_driver() -> str:
    """Return the module that opens SQLite: Python's own is often built without extensions."""
    return next((name for name in ("apsw", "pysqlite3") if importlib.util.find_spec(name) is not None), "sqlite3")


def sqlite_connection(path: str) -> Any:
    """Return a connection with sqlite-vec loaded."""
    import sqlite_vec

    driver = sqlite_driver()
    module = importlib.import_module(driver)
    db = module.Connection(path) if driver == "apsw" else module.connect(path, isolation_level=None)
    db.enable_load_extension(True)
    if driver == "apsw":
        db.load_extension(sqlite_vec.loadable_path())
    else:
        sqlite_vec.load(db)
    return db


TARGETS: dict[str, Callable[[Path, int], InsertTarget]] = {
    "vecdb": Vecdb,
    "sqlite-vec": SqliteVec,
    "LanceDB": LanceDB,
}


def absences() -> dict[str, str]:
    """Return why peers are not here, by name; those that are here are not in it."""
    absent = {}
    for name, modules in {
        "sqlite-vec": ("sqlite_vec",),
        "LanceDB": ("lancedb", "pyarrow"),
        "hnswlib": ("hnswlib",),
    }.items():
        if any(importlib.util.find_spec(module) is None for module in modules):
            absent[name] = f"{' and '.join(modules).replace('_', '-')} not installed"
    if "sqlite-vec" not in absent and (reason := _sqlite_trouble()):
        absent["sqlite-vec"] = reason
    return absent


def _sqlite_trouble() -> str:
    try:
        sqlite_connection(":memory:").close()
    except (AttributeError, ImportError, OSError) as error:
        return f"no SQLite that loads extensions ({error}); install apsw"
    return ""
