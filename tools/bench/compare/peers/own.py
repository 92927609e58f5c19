"""vecdb itself, through `Collection.search` with ``include=()``: exact, and the index types that this version has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, UnsupportedError, Variant, pieces
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("numpy", "numba", "lmdb")
_BATCH = 10_000


def version() -> str:
    """Return the version and a hash of the sources: figures of other code are not this code's."""
    import vecdb

    folder = Path(vecdb.__file__).parent
    mixed = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        mixed.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{vecdb.__version__}+{mixed.hexdigest()[:8]}"


class Own(Peer):
    """A setting is an effort, or arguments of `Collection.search`."""

    is_store = True
    _how: dict[str, Any]
    _where: dict[str, Any]

    def store(self, rows: F32, attributes: Attributes) -> None:
        import vecdb

        with vecdb.open(self.folder / "a.vecdb", "x", durability="relaxed", automatic=False) as db:
            docs = db.create_collection("docs")
            docs.add_space("m", dim=rows.shape[1], metric="cosine")
            for first, part in pieces(rows, _BATCH):
                self._write(docs.insert, first, part, attributes)
            db.optimize()

    def build(self, rows: F32, attributes: Attributes) -> None:
        import vecdb
        from vecdb.errors import UnknownNameError

        kind = self.params.get("kind")
        if kind is None:
            return
        more = {name: value for name, value in self.params.items() if name != "kind"}
        with vecdb.open(self.folder / "a.vecdb", durability="relaxed", threads=self.threads, automatic=False) as db:
            try:
                db.collection("docs").create_index("m", kind, seed=1, **more)
            except UnknownNameError as error:
                raise UnsupportedError(f"this version has no index type {kind}") from error

    def open(self, dim: int) -> None:
        import vecdb

        self._db = vecdb.open(self.folder / "a.vecdb", threads=self.threads, automatic=False)
        self._docs = self._db.collection("docs")
        self._how, self._where = {}, {}

    def warm(self) -> None:
        import vecdb

        vecdb.warmup()

    def aim(self, setting: Setting) -> None:
        self._how = dict(setting) if isinstance(setting, dict) else {} if setting is None else {"effort": setting}
        if "kind" not in self.params:
            self._how["exact"] = True

    def one(self, query: F32) -> Ids:
        return self._docs.search(query, k=K, include=(), **self._how, **self._where).ids  # type: ignore[no-any-return]

    def many(self, queries: F32) -> Any:
        return self._docs.search(queries, k=K, include=(), **self._how, **self._where).ids

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        below = {} if condition is None else {condition.attribute: {"$lt": condition.below}}
        self._where = {"where": below} if below else {}

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        self._write(self._docs.insert, first, rows, attributes)

    def _write(self, insert: Any, first: int, rows: F32, attributes: Attributes) -> None:
        places = range(first, first + len(rows))
        described = [
            {name: int(values[place % len(values)]) for name, values in attributes.items()} for place in places
        ]
        insert(places, {"m": rows}, described)

    def index_bytes(self, raw: int) -> int:
        """Return the bytes of the index's own blobs, as `Collection.stats` tells them."""
        import vecdb

        if "kind" not in self.params:
            return 0
        with vecdb.open(self.folder / "a.vecdb", "r") as db:
            found = db.collection("docs").indexes
            return sum(info.bytes for info in found)

    def close(self) -> None:
        self._db.close()


_EFFORTS = (10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400)
_RECALLS = ({"recall": 0.9}, {"recall": 0.95}, {"recall": 0.99})
_FILTERED = (None, {"recall": 0.95}, {"effort": 100}, {"effort": 400})
PEER = Own
VARIANTS = (
    Variant("exact", filtered=(None,), slow=True),
    Variant(
        "rabitq", settings=(10, 20, 30, 50, 75, 100, 150, 200, 400), build={"kind": "rabitq"}, asked=_RECALLS,
        filtered=_FILTERED,
    ),
    Variant(
        "graph-compact", settings=_EFFORTS, build={"kind": "graph", "layout": "compact"}, asked=_RECALLS,
        filtered=_FILTERED,
    ),
    Variant(
        "graph-fast", settings=_EFFORTS, build={"kind": "graph", "layout": "fast"}, asked=_RECALLS, filtered=_FILTERED
    ),
    Variant(
        "ivf", settings=(20, 50, 100, 200, 400, 800), build={"kind": "ivf"}, asked=_RECALLS, filtered=_FILTERED
    ),
)  # fmt: skip
