"""Exact index types answer as if there were no index: on real vectors, with and without compiled kernels."""

import numpy as np
import pytest

import vecdb
from tests.indextypes import CopiesType, able, registry
from vecdb import sample
from vecdb.engine import indexed
from vecdb.kernels import loader

TYPES = {
    "flat": None,
    "acme.plain": CopiesType("acme.plain", able("exact")),
    "acme.filtered": CopiesType("acme.filtered", able("exact", "filtered", "complete")),
    "acme.grows": CopiesType("acme.grows", able("exact", "filtered", "add", "remove")),
}
WHERES = [None, {"n": {"$lt": 150}}, {"half": True}, {"n": {"$in": list(range(0, 400, 3))}, "half": False}, {"n": -1}]


@pytest.fixture(scope="module", params=["numpy", "numba"])
def path(request, tmp_path_factory):
    """Return a file with one index of each kind in spaces of its own, some vectors dead, moved or not covered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VECDB_KERNELS", "0" if request.param == "numpy" else "1")
        patch.setattr(indexed, "SCAN_BELOW", 0)
        if request.param == "numba":
            loader.request()
            assert loader.wait()
        data = sample.load()
        vectors = data.documents.vectors["mini6"]
        place = tmp_path_factory.mktemp("indexes") / "sample.vecdb"
        with opened(place) as db:
            docs = db.create_collection("docs")
            for name in TYPES:
                docs.add_space(name.replace(".", "-"), dim=vectors.shape[1], metric="cosine")
            count = len(vectors)
            early = list(range(0, count, 2))
            write(docs, early, vectors)
            for name in TYPES:
                docs.create_index(name.replace(".", "-"), name)
            docs.delete(early[::5])
            db.tag("then")
            write(docs, list(range(1, count, 2)), vectors)
            docs.optimize()
            docs.delete(list(range(1, count, 8)))
            write(docs, list(range(0, 40)), vectors[::-1])
        yield place


def write(docs, ids, vectors):
    chosen = {name.replace(".", "-"): vectors[ids] for name in TYPES}
    docs.upsert(ids, chosen, metadata=[{"n": each, "half": each % 3 == 0} for each in ids], trust=True)


def opened(path):
    return vecdb.open(path, durability="relaxed", plugins=registry(*filter(None, TYPES.values())))


@pytest.fixture(scope="module")
def queries():
    return np.asarray(sample.load().queries.vectors["mini6"])[:12]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("as_of", [None, "then"])
def test_with_an_index_as_without(path, queries, kind, as_of):
    space = kind.replace(".", "-")
    used = 0
    with opened(path) as db:
        docs = db.collection("docs")
        for where in WHERES:
            options = {"space": space, "where": where, "as_of": as_of, "include": ()}
            for k in (1, 10, 300):
                exact = docs.search(queries, k, exact=True, **options)
                batch = docs.search(queries, k, explain=True, **options)
                used += batch.plan["method"] == "index"
                assert batch.ids == exact.ids
                assert batch.scores.tobytes() == exact.scores.tobytes()
                singles = [docs.search(query, k, **options) for query in queries[:3]]
                assert [each.ids for each in singles] == exact.ids[:3]
            everything = docs.search(queries[0], 10_000, space=space, as_of=as_of, allow_large=True)
            wanted = {record.id for record in docs.scan(where, as_of=as_of)}
            filtered = [each for each in everything.ids if each in wanted][:10]
            assert docs.search(queries[0], 10, **options).ids == filtered
    assert used >= 3


def test_every_index_is_used_and_the_file_is_sound(path):
    with opened(path) as db:
        for info in db.collection("docs").indexes:
            assert info.available and 0.2 < info.coverage < 1.0
        assert db.check().ok


def test_an_export_leaves_indexes_out_and_an_import_needs_none(path, tmp_path, queries):
    from vecdb.cli import main

    target, copy = str(tmp_path / "docs-export"), str(tmp_path / "copy.vecdb")
    assert main(["export", str(path), "docs", target]) == 0
    spaces = [name.replace(".", "-") for name in TYPES]
    assert main(["import", copy, "docs", target]) == 0
    with opened(path) as db, vecdb.open(copy) as other:
        assert other.collection("docs").indexes == []
        for space in spaces:
            found = other.collection("docs").search(queries, 5, space=space)
            assert found.ids == db.collection("docs").search(queries, 5, space=space).ids
