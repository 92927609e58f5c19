"""Write the golden file of the current format and the answers it must give for ever: tests/compat/golden.

Run it once for each released format, when the format is settled; a file of a released format is never made anew.
The file holds a bit of everything that can be stored; the answers are exact, scores and vectors as bit patterns.

Usage: python tools/make_golden.py [--folder tests/compat/golden] [--force]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb.storage.format import FORMAT_VERSION

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "compat" / "golden"
SPACES = {"cos": (48, "cosine", "float32"), "dot": (16, "dot", "float16"), "far": (300, "l2", "float32")}
IDS: list[int | str] = [*range(120), "ä", "ключ", "x" * 480, -(2**63), 2**63 - 1]


def drawn(seed: int, count: int, dim: int, dtype: str = "float32") -> Any:
    """Numbers that depend on nothing but integer arithmetic: no generator of a library may change them."""
    state = np.arange(count * dim, dtype=np.uint64) + np.uint64(seed * 1_000_003)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return ((state >> np.uint64(40)).astype(np.float64) / 2**23 - 1).astype(dtype).reshape(count, dim)


def metadata(number: int) -> dict[str, Any]:
    """One of each kind of value, some of them missing here and there."""
    values: dict[str, Any] = {"n": number, "half": number / 2, "even": number % 2 == 0, "none": None}
    values |= {"word": f"w{number % 7}", "deep": {"a": {"b": number % 3}}, "list": [number, str(number), None, True]}
    values["mixed"] = (number, str(number), number / 4, None, [number], {"n": number})[number % 6]
    return values if number % 5 else {"n": number}


def fill(db: vecdb.Database) -> None:
    """Write everything a file can hold: blocks, tail, deaths, history, tags, columns, delta, several collections."""
    docs = db.create_collection("docs")
    for name, (dim, metric, dtype) in SPACES.items():
        docs.add_space(name, dim=dim, metric=metric, dtype=dtype, model=f"model-{name}", revision="1", role="document")  # type: ignore[arg-type]
    docs.upsert(
        IDS,
        {name: drawn(len(name), len(IDS), dim, dtype) for name, (dim, _, dtype) in SPACES.items()},
        [metadata(place) for place in range(len(IDS))],
        [f"text {place}" if place % 4 else None for place in range(len(IDS))],
        trust=True,
    )
    db.tag("first")
    db.optimize()
    docs.delete(list(range(0, 40, 3)))
    docs.upsert([1, 2, "late"], {"cos": drawn(9, 3, 48)}, [{"n": -1}, {}, {"even": True}], trust=True)
    docs.set_vectors("dot", [4, 5], drawn(10, 2, 16, "float16"), trust=True)
    docs.set_metadata([7, 8], [{"n": 7.5}, {"extra": 1}], merge=True)
    db.tag("second")
    db.optimize()
    docs.upsert(["tail"], {"far": drawn(11, 1, 300)}, [{"n": 1000}], ["a text"], trust=True)
    docs.rename_space("far", "distant")
    other = db.create_collection("other – ö")
    other.add_space("s", dim=1, metric="l2")
    other.upsert([1], {"s": [[2.5]]})
    db.create_collection("gone")
    db.drop_collection("gone")


def answers(db: vecdb.Database) -> dict[str, Any]:
    """Ask everything; the result survives JSON."""
    docs = db.collection("docs")
    return {
        "uuid": db.uuid,
        "seq": db.seq,
        "collections": db.collections(),
        "tags": db.tags(),
        "spaces": {name: repr(space) for name, space in docs.spaces.items()},
        "log": [[commit.seq, list(commit.changes), list(commit.tags)] for commit in db.commits()],
        "records": {str(when): _records(docs, when) for when in (None, "first", "second")},
        "counts": {json.dumps(where): docs.count(where) for where in _CONDITIONS},
        "searches": [_search(docs, space, where, when) for space, where, when in _SEARCHES],
        "history": [[version.seq, version.record is not None] for version in docs.history(1)],
        "other": _records(db.collection("other – ö"), None),
    }


_CONDITIONS: list[dict[str, Any]] = [
    {"even": True},
    {"n": {"$gte": 50, "$lt": 90}},
    {"deep.a.b": 1},
    {"word": {"$in": ["w1", "w2"]}},
    {"mixed": {"$exists": True}},
    {"$or": [{"n": -1}, {"none": None}]},
    {"$not": {"half": {"$gt": 10}}},
]
_SEARCHES: list[tuple[str, dict[str, Any] | None, str | None]] = [
    (space, where, when)
    for space in ("cos", "dot", "distant")
    for where in (None, {"even": True}, {"n": {"$lt": 3}})
    for when in (None, "first", "second")
]


def _records(collection: vecdb.Collection, when: str | None) -> list[Any]:
    return [
        [
            record.id,
            record.version,
            record.metadata,
            record.text,
            {
                space: [str(vector.dtype), hashlib.sha256(vector.tobytes()).hexdigest()[:20]]
                for space, vector in sorted(record.vectors.items())
            },
        ]
        for record in collection.scan(vectors="all", as_of=when)
    ]


def _search(docs: vecdb.Collection, space: str, where: dict[str, Any] | None, when: str | None) -> list[Any]:
    query = drawn(77, 1, docs.spaces[space].dim)[0]
    hits = docs.search(query, k=8, space=space, where=where, as_of=when)
    return [[hit.id, float(hit.score).hex(), float(hit.distance).hex()] for hit in hits]


def make(folder: Path, force: bool) -> Path:
    """Write the file and its answers; refuse to replace them unless forced."""
    target = folder / f"format-{FORMAT_VERSION}.vecdb.gz"
    if target.exists() and not force:
        raise SystemExit(
            f"{target} exists; a released format's file is never made anew (--force while it is not released)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "golden.vecdb"
        with vecdb.open(path, retention=10.0**9) as db:
            fill(db)
            report = db.check()
            if not report.ok:
                raise SystemExit(f"the golden file is not sound: {report.problems}")
            asked = answers(db)
        target.write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    plain = json.dumps(asked, ensure_ascii=False, sort_keys=True)
    target.with_name(f"format-{FORMAT_VERSION}.json.gz").write_bytes(gzip.compress(plain.encode(), 9, mtime=0))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--force", action="store_true", help="replace the file of a format that was not released yet")
    arguments = parser.parse_args()
    target = make(arguments.folder, arguments.force)
    print(f"wrote {target} ({target.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
