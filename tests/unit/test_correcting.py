"""Corrections as an application sees them: fitted, stored, searched by, kept up with every change of the collection."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from vecdb.corrections import KINDS

DIM = 12


def rows(seed, count=200):
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


@pytest.fixture
def docs(tmp_path):
    with vecdb.open(tmp_path / "hubs.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("one", dim=DIM)
        docs.upsert(range(200), {"one": rows(0)}, [{"even": n % 2 == 0} for n in range(200)])
        yield docs


def expected(docs, name, query, ids, k=5):
    """The two-pass answer with csls: raw scores of everything, the bias by its definition, a sort."""
    info = next(each for each in docs.corrections if each.name == name)
    raw = {hit.id: np.float32(hit.score) for hit in docs.search(query, k=len(docs), exact=True)}
    vectors = {record.id: record.vectors["one"] for record in docs.get(ids, vectors=["one"])}
    bank = BANK / np.linalg.norm(BANK, axis=1, keepdims=True)
    corrected = {}
    for id in ids:
        near = np.sort(bank @ (vectors[id] / np.linalg.norm(vectors[id])))[-info.params["neighbours"] :]
        corrected[id] = raw[id] - 0.5 * near.mean()
    return sorted(ids, key=lambda id: -corrected[id])[:k], corrected


BANK = rows(5, 40)


def agrees(docs, query, ids, **wishes):
    hits = docs.search(query, k=5, correction="hubs", **wishes)
    order, corrected = expected(docs, "hubs", query, ids)
    assert hits.ids == order
    for hit in hits:
        assert hit.score == pytest.approx(corrected[hit.id], abs=2e-6)
        assert hit.distance == pytest.approx(1 - hit.raw_score, abs=1e-6)
    return hits


def test_hits_are_ordered_by_corrected_scores(docs):
    info = docs.fit_correction("hubs", bank=BANK)
    assert (info.kind, info.space, info.bank, info.rows, info.own) == ("csls", "one", 40, 200, 0)
    for query in rows(7, 5):
        agrees(docs, query, list(range(200)))
        assert docs.search(query).ids != docs.search(query, correction="hubs").ids


def test_it_follows_new_replaced_and_deleted_records(docs):
    docs.fit_correction("hubs", bank=BANK)
    query = rows(8, 1)[0]
    agrees(docs, query, list(range(200)))
    docs.upsert(range(200, 260), {"one": rows(9, 60)})
    docs.upsert(range(0, 20), {"one": rows(10, 20)})
    docs.delete(list(range(30, 90)))
    left = [n for n in range(260) if not 30 <= n < 90]
    before = agrees(docs, query, left)
    docs.database.optimize()
    docs.database.compact()
    after = agrees(docs, query, left)
    assert before.scores.tobytes() == after.scores.tobytes()


def test_another_opening_reads_what_was_stored(tmp_path):
    path = tmp_path / "again.vecdb"
    with vecdb.open(path, automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("one", dim=DIM)
        docs.upsert(range(200), {"one": rows(0)})
        docs.fit_correction("hubs", bank=BANK)
        docs.upsert(range(200, 230), {"one": rows(1, 30)})
        first = docs.search(rows(3, 4), correction="hubs")
        assert db.check().ok
        db.backup(tmp_path / "copy.vecdb")
    for name in ("again.vecdb", "copy.vecdb"):
        with vecdb.open(tmp_path / name, mode="r") as db:
            again = db.collection("docs").search(rows(3, 4), correction="hubs")
            assert again.ids == first.ids and again.scores.tobytes() == first.scores.tobytes()
            assert db.check().ok


def test_it_combines_with_where_offset_min_score_like_and_the_past(docs):
    docs.fit_correction("hubs", bank=BANK)
    query, seq = rows(11, 1)[0], docs.database.commits()[-1].seq
    whole = docs.search(query, k=200, correction="hubs")
    even = docs.search(query, k=5, correction="hubs", where={"even": True})
    assert even.ids == [id for id in whole.ids if id % 2 == 0][:5]
    assert docs.search(query, k=5, offset=3, correction="hubs").ids == whole.ids[3:8]
    least = float(whole.scores[2])
    assert docs.search(query, k=50, min_score=least, correction="hubs").ids == whole.ids[:3]
    assert 7 not in docs.search(like=7, k=199, correction="hubs").ids
    docs.delete(whole.ids[:3])
    assert docs.search(query, k=3, correction="hubs").ids == whole.ids[3:6]
    assert docs.search(query, k=3, correction="hubs", as_of=seq).ids == whole.ids[:3]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_is_stored_and_searched_alike_in_batches(docs, kind):
    docs.fit_correction("hubs", kind, bank=BANK, **({"gallery": 50} if "gallery" in KINDS[kind].params else {}))
    asked = rows(12, 6)
    batch = docs.search(asked, k=4, correction="hubs")
    for number, query in enumerate(asked):
        alone = docs.search(query, k=4, correction="hubs", explain=True)
        assert alone.ids == batch[number].ids and alone.scores.tobytes() == batch[number].scores.tobytes()
        assert alone.plan["correction"] == "hubs"
    assert docs.database.check().ok


def test_own_answers_are_left_out_and_followed_by_id(docs):
    answers = docs.search(BANK, k=1)
    own = [hits.ids[0] for hits in answers]
    docs.fit_correction("plain", bank=BANK, neighbours=1)
    info = docs.fit_correction("fair", bank=BANK, relevant_ids=own, neighbours=1)
    assert info.own == 40
    query = BANK[3]
    plain = docs.search(query, k=200, correction="plain")
    fair = docs.search(query, k=200, correction="fair")
    scores = [dict(zip(hits.ids, hits.scores.tolist(), strict=True)) for hits in (plain, fair)]
    assert all(scores[1][id] >= scores[0][id] for id in own) and scores[1][own[3]] > scores[0][own[3]]
    docs.upsert([own[3]], {"one": BANK[3:4]})  # a new vector of the same record is its answer, too
    again = docs.search(query, k=1, correction="fair")
    near = np.sort((BANK / np.linalg.norm(BANK, axis=1, keepdims=True)) @ (BANK[3] / np.linalg.norm(BANK[3])))
    assert again.ids == [own[3]] and again[0].score == pytest.approx(1.0 - 0.5 * near[-2], abs=1e-6)


def test_an_index_nominates_and_the_plan_says_how_sure_it_is(docs):
    docs.upsert(range(200, 3_000), {"one": rows(20, 2_800)})
    docs.fit_correction("hubs", bank=BANK)
    exact = docs.search(rows(21, 20), k=10, correction="hubs", exact=True)
    docs.create_index("one", "rabitq")
    found = docs.search(rows(21, 20), k=10, correction="hubs", explain=True)
    plan = found[0].plan
    assert plan["method"] == "index" and plan["candidates"] == 200 and 0.0 <= plan["certain"] <= 1.0
    hits = [len(set(a.ids) & set(b.ids)) for a, b in zip(found, exact, strict=True)]
    assert np.mean(hits) >= 9.0
    assert docs.search(rows(21, 20), k=10, correction="hubs", recall=1.0).ids == exact.ids


def test_names_spaces_and_banks_are_checked(docs):
    docs.fit_correction("hubs", bank=BANK)
    with pytest.raises(vecdb.ExistsError, match="has a correction 'hubs'"):
        docs.fit_correction("hubs", bank=BANK)
    with pytest.raises(vecdb.UnknownNameError, match="no correction 'hub'"):
        docs.search(BANK[0], correction="hub")
    with pytest.raises(vecdb.UnknownNameError, match="of kind 'cslss'"):
        docs.fit_correction("other", "cslss", bank=BANK)
    with pytest.raises(vecdb.ParameterError, match="neighbours"):
        docs.fit_correction("other", bank=BANK, neighbours=0)
    with pytest.raises(vecdb.DimensionError):
        docs.fit_correction("other", bank=BANK[:, :5])
    with pytest.raises(vecdb.ArgumentError, match="relevant_ids has 2 entries"):
        docs.fit_correction("other", bank=BANK, relevant_ids=[1, 2])
    for no_list in (5, "12", np.array(5), dict.fromkeys(range(len(BANK)), 1)):
        with pytest.raises(vecdb.ArgumentError, match="expected a list"):
            docs.fit_correction("other", bank=BANK, relevant_ids=no_list)
    for seed in (-1, 2**63):
        with pytest.raises(vecdb.ParameterError, match="seed is"):
            docs.fit_correction("other", bank=BANK, seed=seed)
    with pytest.raises(vecdb.RecordMissingError):
        docs.fit_correction("other", bank=BANK[:1], relevant_ids=[10_000])
    docs.add_space("two", dim=DIM)
    docs.set_vectors("two", range(100), rows(30, 100))
    with pytest.raises(vecdb.SpaceMismatchError, match="fitted with queries of space 'one'"):
        docs.search(BANK[0], space="two", correction="hubs")


def test_it_goes_with_its_name_its_space_and_its_collection(docs):
    docs.add_space("two", dim=DIM)
    docs.set_vectors("two", range(100), rows(30, 100))
    docs.fit_correction("first", space="one", bank=BANK)
    docs.fit_correction("second", space="two", bank=BANK)
    docs.fit_correction("third", "mutual-proximity", space="one", bank=BANK)
    docs.drop_correction("first")
    with pytest.raises(vecdb.UnknownNameError):
        docs.drop_correction("first")
    assert [info.name for info in docs.corrections] == ["second", "third"]
    docs.drop_space("two")
    assert [info.name for info in docs.corrections] == ["third"]
    assert docs.database.check().ok
    docs.database.drop_collection("docs")
    assert docs.database.check().ok


def test_an_empty_space_takes_a_bank_and_its_first_rows_are_corrected(tmp_path):
    with vecdb.open(tmp_path / "empty.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("one", dim=DIM)
        assert docs.fit_correction("hubs", bank=BANK).rows == 0
        with pytest.raises(vecdb.FitError, match="compares with stored rows"):
            docs.fit_correction("other", "mutual-proximity", bank=BANK)
        assert docs.search(BANK[0], correction="hubs").ids == []
        docs.upsert(range(50), {"one": rows(0, 50)})
        agrees(docs, BANK[0], list(range(50)))
        assert db.check().ok


def test_a_plain_search_does_not_load_corrections(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys, numpy as np, vecdb\n"
        f"db = vecdb.open({str(tmp_path / 'plain.vecdb')!r})\n"
        "docs = db.create_collection('docs'); docs.add_space('one', dim=3)\n"
        "docs.upsert([1], {'one': np.ones((1, 3), np.float32)}); docs.search(np.ones(3, np.float32))\n"
        "assert not [name for name in sys.modules if 'correction' in name], sys.modules\n"
        "db.close()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_corrected_hits_are_spread_grouped_and_asked_for_by_example(docs):
    docs.fit_correction("hubs", bank=BANK)
    queries = rows(11, 4)
    whole = docs.search(queries, k=200, correction="hubs")
    spread = docs.search(queries, k=5, correction="hubs", diversify=vecdb.MMR(1.0))
    assert spread.ids == [hits.ids[:5] for hits in whole]
    assert [hit.raw_score for hit in spread[0]] == [hit.raw_score for hit in whole[0]][:5]
    grouped = docs.search(queries, k=2, correction="hubs", group_by="even", per_group=60)
    for hits, ranked in zip(grouped, whole, strict=True):
        for group in hits.groups:
            assert list(group.ids) == [id for id in ranked.ids if (id % 2 == 0) is group.value][:60]
    liked = docs.search(like=[3, 4], k=5, correction="hubs")
    assert liked.ids == [docs.search(like=id, k=5, correction="hubs").ids for id in (3, 4)]
    found = docs.search(positive=[3, 4], k=5, correction="hubs")
    assert {3, 4}.isdisjoint(found.ids) and (np.diff(found.scores) <= 0).all()


def test_an_answer_that_was_written_again_is_still_left_out(tmp_path):
    with vecdb.open(tmp_path / "again.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("one", dim=DIM)
        docs.upsert(range(40), {"one": BANK})
        docs.upsert(range(40), {"one": BANK})  # the first vectors lie beside the second ones, dead
        docs.fit_correction("fair", bank=BANK, relevant_ids=list(range(40)), neighbours=1)
        hits = docs.search(BANK, k=1, correction="fair")
        assert [each.ids[0] for each in hits] == list(range(40))
        bank = BANK / np.linalg.norm(BANK, axis=1, keepdims=True)
        second = np.sort(bank @ bank.T, axis=1)[:, -2]
        assert [each[0].score for each in hits] == pytest.approx(1.0 - 0.5 * second, abs=1e-6)


def test_optimize_stores_what_new_rows_got(tmp_path):
    path = tmp_path / "kept.vecdb"
    with vecdb.open(path, automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("one", dim=DIM)
        docs.upsert(range(100), {"one": rows(0, 100)})
        docs.fit_correction("hubs", bank=BANK)
        docs.fit_correction("other", "inverted-softmax", bank=BANK)
        assert docs.optimize() >= 0 and [info.rows for info in docs.corrections] == [100, 100]
        docs.upsert(range(100, 150), {"one": rows(1, 50)})
        before = docs.search(rows(3, 4), correction="hubs")
        assert [info.rows for info in docs.corrections] == [100, 100]
        assert docs.optimize() >= 2
        assert [info.rows for info in docs.corrections] == [150, 150]
        db.optimize()
        assert db.check().ok
        docs.delete(list(range(120)))
        db.compact(keep="nothing")
        assert db.check().ok
        left = docs.search(rows(3, 4), k=30, correction="hubs")
    with vecdb.open(path, mode="r") as db:
        docs = db.collection("docs")
        again = docs.search(rows(3, 4), k=30, correction="hubs")
        assert again.ids == left.ids and again.scores.tobytes() == left.scores.tobytes()
        kept = [(id, score) for id, score in zip(before.ids[0], before.scores[0].tolist(), strict=True) if id >= 120]
        assert all(dict(zip(again.ids[0], again.scores[0].tolist(), strict=True))[id] == score for id, score in kept)


def test_optimize_can_be_cancelled_between_tables(docs):
    docs.fit_correction("hubs", bank=BANK)
    docs.upsert(range(200, 210), {"one": rows(1, 10)})
    from vecdb.engine.corrections.keeping import keep_tables

    with pytest.raises(vecdb.CancelledError):
        keep_tables(docs.database._read, lambda step: True, docs._key, lambda: True)


def test_a_table_that_another_process_stored_first_is_left_alone(docs):
    docs.fit_correction("hubs", bank=BANK)
    docs.upsert(range(200, 210), {"one": rows(1, 10)})
    from vecdb.engine.corrections.keeping import keep_tables
    from vecdb.engine.corrections.stored import put_table

    steps = []
    keep_tables(docs.database._read, lambda step: steps.append(step) or True, docs._key)
    assert docs.optimize() >= 1 and docs.corrections[0].rows == 210
    assert docs.database._opened().writer.maintain(steps[0], timeout=1.0) is False
    gone = put_table(docs._key, 10**6, 0, (np.empty(0, np.uint64), np.empty((0, 1), np.float32)))
    assert docs.database._opened().writer.maintain(gone, timeout=1.0) is False
    assert docs.database.check().ok
