"""Corrections beside everything else that a search can be: images, filters, diversity, metrics, damage, changes."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from vecdb.corrections import KINDS
from vecdb.scan_numpy import canonical_scores

DIM = 10


def rows(seed, count=120):
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


BANK = rows(5, 40)


@pytest.fixture
def docs(tmp_path):
    with vecdb.open(tmp_path / "more.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("one", dim=DIM)
        docs.upsert(range(120), {"one": rows(0)}, [{"even": n % 2 == 0} for n in range(120)])
        yield docs


def ranked(values, normal, ranks):
    return np.stack([np.interp(values[:, c], np.sort(ranks[:, c]), normal) for c in range(DIM)], axis=1)


def unit(vectors):
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


@pytest.mark.parametrize("index", [False, True])
def test_fnorm_compares_images_by_cosine(docs, index):
    from statistics import NormalDist

    docs.fit_correction("normal", "fnorm", bank=BANK, gallery=20_000)  # all rows are drawn
    assert docs.corrections[0].rows == 0 and docs.corrections[0].gallery == 120
    docs.upsert(range(120, 140), {"one": rows(1, 20)})
    if index:
        docs.create_index("one", "rabitq")
    stored = np.concatenate([rows(0), rows(1, 20)])
    normals = [np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]) for n in (40, 120)]
    queries = rows(7, 3)
    asked = ranked(unit(queries), normals[0], unit(BANK))
    images = ranked(unit(stored), normals[1], unit(rows(0)))
    expected = unit(asked) @ unit(images).T
    found = docs.search(queries, k=6, correction="normal")
    even = docs.search(queries, k=6, correction="normal", where={"even": True})
    for number, query in enumerate(queries):
        order = np.argsort(-expected[number])
        assert found[number].ids == order[:6].tolist()
        assert even[number].ids == [row for row in order.tolist() if row % 2 == 0 and row < 120][:6]
        raw = canonical_scores("cosine", query, stored[found[number].ids])
        for hit, plain in zip(found[number], raw, strict=True):
            assert hit.score == pytest.approx(expected[number, hit.id], abs=3e-5)
            assert hit.raw_score == np.float32(plain)
    assert docs.search(queries[0], k=6, correction="normal").scores.tobytes() == found[0].scores.tobytes()
    assert docs.optimize() >= 0 and docs.corrections[0].rows == 0
    assert docs.database.check().ok


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_serves_every_metric_and_dtype(tmp_path, kind, metric):
    with vecdb.open(tmp_path / "x.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        for dtype in ("float32", "float16", "int8"):
            docs.add_space(dtype, dim=DIM, metric=metric, dtype=dtype)
        docs.upsert(range(120), {dtype: rows(0) for dtype in ("float32", "float16", "int8")})
        more = {"gallery": 30} if "gallery" in KINDS[kind].params else {}
        for dtype in ("float32", "float16", "int8"):
            docs.fit_correction(dtype, kind, space=dtype, bank=BANK, **more)
            batch = docs.search(BANK[:4], k=5, space=dtype, correction=dtype)
            for number in range(4):
                alone = docs.search(BANK[number], k=5, space=dtype, correction=dtype)
                assert alone.ids == batch[number].ids and np.isfinite(alone.scores).all()
                assert alone.scores.tobytes() == batch[number].scores.tobytes()
                assert (np.diff(alone.scores) <= 0).all()
        assert db.check().ok


def test_it_stays_with_its_space_when_that_is_renamed_and_leaves_with_an_old_model(tmp_path):
    with vecdb.open(tmp_path / "x.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("one", dim=DIM)
        docs.add_space("two", dim=DIM)
        docs.upsert(range(120), {"one": rows(0)}, texts=[str(n) for n in range(120)])
        docs.fit_correction("old", space="one", bank=BANK)
        docs.fit_correction("new", space="two", bank=BANK)
        before = docs.search(BANK[0], space="one", correction="old")
        docs.rename_space("one", "first")
        assert docs.corrections[0].space == "first"
        after = docs.search(BANK[0], space="first", correction="old")
        assert after.ids == before.ids and after.scores.tobytes() == before.scores.tobytes()
        migration = docs.migrate("first", "two", encode=lambda texts: rows(0)[[int(text) for text in texts]])
        migration.run()
        hits = docs.search(BANK[0], space="two", correction="new")
        assert hits.ids == before.ids
        migration.finish()
        assert [info.name for info in docs.corrections] == ["new"]
        assert docs.search(BANK[0], correction="new").ids == before.ids
        assert db.check().ok


def test_a_filter_that_was_fitted_on_other_scores_finds_itself_stale(docs):
    docs.fit_correction("hubs", bank=BANK)
    queries = rows(0)[:60] + 0.1 * rows(3, 60)
    docs.fit_relevance("near", "calibrated", queries=queries, relevant_ids=list(range(60)), pool=20)
    assert docs.search(queries[0], relevance="near").ids
    with pytest.raises(vecdb.StaleError, match="correction"):
        docs.search(queries[0], relevance="near", correction="hubs")
    hits = docs.search(queries[0], relevance="near", correction="hubs", allow_stale=True)
    assert all(hit.relevance is not None and hit.raw_score != hit.score for hit in hits)


def test_it_combines_with_examples_diversity_and_groups(docs):
    docs.fit_correction("hubs", bank=BANK)
    plain = docs.search(BANK[0], k=120, correction="hubs")
    grouped = docs.search(BANK[0], k=2, group_by="even", correction="hubs")
    assert plain.ids[0] in grouped.ids
    examples = docs.search(positive=[1, 2], k=5, correction="hubs")
    assert len(examples) == 5 and all(hit.raw_score != hit.score for hit in examples)
    assert len(docs.search(BANK[0], k=5, diversify="mmr", correction="hubs")) == 5


def test_damaged_banks_and_tables_are_named_and_never_used(tmp_path):
    from vecdb.storage import corrections as stored_corrections

    path = tmp_path / "x.vecdb"
    with vecdb.open(path, automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("one", dim=DIM)
        docs.upsert(range(120), {"one": rows(0)})
        docs.fit_correction("hubs", bank=BANK)
        entry = docs._entry().corrections[0]
        plain = stored_corrections.correction_to_plain(entry)
        assert stored_corrections.correction_from_plain(plain) == entry
        for place, wrong in ((0, [1]), (1, ["a", "b"]), (2, float("nan")), (3, [1, 2]), (4, [["state", -1]]), (5, [])):
            with pytest.raises((TypeError, ValueError, vecdb.CorruptionError)):
                stored_corrections.correction_from_plain([*plain[:place], wrong, *plain[place + 1 :]])
        store = db._opened()

        def spoil(write):
            write.tx.delete_range("blobs", entry.table.to_bytes(8, "big"))
            return True

        store.writer.maintain(spoil, timeout=1.0)
    with vecdb.open(path, automatic=False) as db:
        docs = db.collection("docs")
        with pytest.raises(vecdb.CorruptionError):
            docs.search(BANK[0], correction="hubs")
        assert docs.search(BANK[0]).ids and not db.check().ok
        docs.drop_correction("hubs")
        assert db.check().ok
