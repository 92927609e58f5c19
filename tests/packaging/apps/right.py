"""An application as a user would write it, fully typed; tests/packaging checks and runs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import vecdb


def batches(vectors: npt.NDArray[np.float32]) -> Iterator[dict[str, object]]:
    yield {"ids": ["c"], "vectors": {"tiny": vectors}}


def best(docs: vecdb.Collection, query: npt.NDArray[np.float32]) -> str | int:
    hits = docs.search(query, k=2, where={"section": {"$in": ["games"]}})
    assert isinstance(hits, vecdb.Hits)
    first: vecdb.Hit = hits[0]
    scores: npt.NDArray[np.float32] = hits.scores
    assert scores.shape == (len(hits),)
    return first.id


def main(path: str) -> None:
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        space: vecdb.Space = docs.add_space("tiny", dim=2, metric="cosine", model="made by hand")
        rows = np.array([[1, 0], [0, 1]], dtype=np.float32)
        result: vecdb.WriteResult = docs.upsert(
            ["a", "b"], vectors={space.name: rows}, metadata=[{"section": "games"}, {"section": "news"}]
        )
        docs.upsert_many(batches(rows[:1]))
        records: list[vecdb.Record] = docs.get(["a", "b"], vectors=["tiny"])
        assert [record.id for record in records] == ["a", "b"]
        with db.transaction():
            docs.delete(["b"])
        count: int = docs.count()
        try:
            docs.get(["nobody"])
        except vecdb.errors.RecordMissingError as error:
            print(error.hint, file=sys.stderr)
        print(best(docs, rows[0]), result.seq, count)


if __name__ == "__main__":
    main(sys.argv[1])
