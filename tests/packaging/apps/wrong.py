"""Mistakes that the types catch; the comment on each line is the code that mypy must give there."""

from __future__ import annotations

import vecdb


def main(db: vecdb.Database) -> None:
    db.create_collection(3)  # error: [arg-type]
    docs = db.collection("docs")
    docs.add_space("tiny", dim="2")  # error: [arg-type]
    docs.add_space("tiny", dim=2, metric="euclid")  # error: [arg-type]
    docs.add_space("tiny")  # error: [call-arg]
    docs.search(k="ten")  # error: [arg-type]
    docs.no_such_method()  # error: [attr-defined]
    vecdb.open("a.vecdb", mode="w")  # error: [arg-type]
    result: str = docs.delete(["a"])  # error: [assignment]
    print(result)
