"""sqlite-vec: an exact scan inside SQLite; attributes are metadata columns that the scan itself looks at."""

from __future__ import annotations

from typing import Any

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Variant, pieces
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("sqlite-vec", "apsw")


class SqliteVec(Peer):
    """WAL with ``synchronous=FULL``; the driver is apsw, as Python's own SQLite is often built without extensions."""

    is_store = True
    _db: Any
    _where: str = ""

    def store(self, rows: F32, attributes: Attributes) -> None:
        self._connect()
        columns = "".join(f", {name} integer" for name in attributes)
        self._db.execute(
            f"CREATE VIRTUAL TABLE v USING vec0(id INTEGER PRIMARY KEY, e float[{rows.shape[1]}]{columns})"
        )
        for first, part in pieces(rows, 10_000):
            self.insert(first, part, attributes)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()

    def build(self, rows: F32, attributes: Attributes) -> None:
        """There is no index."""

    def open(self, dim: int) -> None:
        self._connect()

    def one(self, query: F32) -> Ids:
        sql = f"SELECT id FROM v WHERE e MATCH ? AND k = {K}{self._where}"
        return [row[0] for row in self._db.execute(sql, (query.tobytes(),))]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        self._where = "" if condition is None else f" AND {condition.name}"

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        marks = ", ?" * len(attributes)
        size = len(next(iter(attributes.values())))
        places = range(first, first + len(rows))
        described = [[int(values[place % size]) for values in attributes.values()] for place in places]
        with self._db:
            self._db.cursor().executemany(
                f"INSERT INTO v(id, e, {', '.join(attributes)}) VALUES (?, ?{marks})",
                ((place, row.tobytes(), *more) for place, row, more in zip(places, rows, described, strict=True)),
            )

    def close(self) -> None:
        self._db.close()

    def _connect(self) -> None:
        import apsw
        import sqlite_vec

        self._db = apsw.Connection(str(self.folder / "a.db"))
        self._db.enable_load_extension(True)
        self._db.load_extension(sqlite_vec.loadable_path())
        self._db.execute("PRAGMA journal_mode=WAL").fetchall()
        self._db.execute("PRAGMA synchronous=FULL")


PEER = SqliteVec
VARIANTS = (Variant("f32", slow=True),)
