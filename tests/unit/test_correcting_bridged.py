"""Corrections across models: the bank takes the way of the queries, or the search is refused; what a plan stores."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from tests.unit.upgrades import world

MADE = world("noise", documents=300, queries=120)
QUICK = {"kinds": ["procrustes"], "splits": 2}


@pytest.fixture
def docs(tmp_path):
    with vecdb.open(tmp_path / "bridged.vecdb", automatic=False) as db:
        docs = MADE.collection(db)
        docs.set_vectors("new", MADE.ids, MADE.new, trust=True)
        yield docs


def without_new_vectors(docs):
    """Leave the old vectors alone, so that queries of the new space are bridged."""
    docs.upsert(MADE.ids, {"old": MADE.old}, trust=True)


def plain_csls(docs, query, bank, neighbours):
    """Return corrected scores by id, from searches without any correction: every row, every query of the bank."""
    scores = [{hit.id: hit.score for hit in docs.search(each, k=300, space="new", include=())} for each in bank]
    raw = {hit.id: hit.score for hit in docs.search(query, k=300, space="new", include=())}
    near = {id: sorted((each[id] for each in scores), reverse=True)[:neighbours] for id in raw}
    return {id: score - 0.5 * float(np.mean(near[id])) for id, score in raw.items()}, raw


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize(
    ("direction", "kind"), [("query", "procrustes"), ("gallery", "procrustes"), ("query", "distill")]
)
def test_a_bridged_query_is_corrected_by_a_bank_that_took_its_way(docs, direction, kind, index):
    ends = ("new", "old") if direction == "query" else ("old", "new")
    params = {"steps": 20} if kind == "distill" else {}
    docs.fit_transform(*ends, kind, direction=direction, params=params, queries=MADE.queries.new[60:])
    without_new_vectors(docs)
    bank, query = MADE.queries.new[:20], MADE.queries.new[30]
    docs.fit_correction("hubs", space="new", bank=bank, neighbours=4)
    if index:
        docs.create_index("old", "rabitq")
    expected, raw = plain_csls(docs, query, bank, 4)
    for wishes in ({}, {"spaces": "reachable"}):
        hits = docs.search(query, k=8, space="new", correction="hubs", **wishes)
        assert [hit.score for hit in hits] == pytest.approx([expected[hit.id] for hit in hits], abs=3e-5)
        assert min(expected[hit.id] for hit in hits) >= sorted(expected.values())[-8] - 3e-5
        for hit in hits:
            assert hit.origin.startswith("bridged:") and hit.raw_score == pytest.approx(raw[hit.id], abs=3e-6)
            assert hit.distance == pytest.approx(1.0 - hit.raw_score, abs=1e-6)
    batch = docs.search(MADE.queries.new[30:33], k=8, space="new", correction="hubs")
    assert batch[0].ids == docs.search(query, k=8, space="new", correction="hubs").ids


def test_own_answers_are_left_out_on_every_way(docs):
    for direction, ends in (("query", ("new", "old")), ("gallery", ("old", "new"))):
        docs.fit_transform(*ends, "procrustes", direction=direction, name=direction)
    without_new_vectors(docs)
    bank, answers = MADE.queries.new[:20], MADE.relevant[:20]
    docs.fit_correction("plain", space="new", bank=bank, neighbours=1)
    docs.fit_correction("fair", space="new", bank=bank, relevant_ids=answers, neighbours=1)
    for dropped in ("none", "query"):
        if dropped != "none":
            docs.drop_transform(dropped)  # what is left maps stored vectors
        plain, fair = (_of_answers(docs, name, bank, answers) for name in ("plain", "fair"))
        assert (fair >= plain).all() and (fair > plain).sum() >= 5


def _of_answers(docs, name, bank, answers):
    """Return what each query's own answer scores."""
    found = docs.search(bank, k=300, space="new", correction=name, include=())
    return np.array([hits.scores[hits.ids.index(own)] for hits, own in zip(found, answers, strict=True)])


def test_what_cannot_follow_is_refused_by_name(docs):
    docs.fit_transform("new", "old", "procrustes")
    docs.fit_correction("near", "mutual-proximity", space="new", bank=MADE.queries.new, gallery=50)
    docs.fit_correction("switched", "dbnorm", space="new", bank=MADE.queries.new, banks="query")
    docs.fit_correction("soft", "inverted-softmax", space="new", bank=MADE.queries.new)
    query = MADE.queries.new[0]
    for name in ("near", "switched", "soft"):  # every record has a vector of its own
        assert len(docs.search(query, space="new", correction=name)) == 10
    without_new_vectors(docs)
    for name in ("near", "switched"):
        with pytest.raises(vecdb.StateError, match=f"correction '{name}' of kind .* cannot follow"):
            docs.search(query, space="new", correction=name)
    assert len(docs.search(query, space="new", correction="soft")) == 10
    docs.drop_transform("new-to-old-procrustes")
    docs.fit_transform("old", "new", "procrustes", direction="gallery", pairs=(MADE.old, MADE.new))
    with pytest.raises(vecdb.StateError, match="Fit csls in space 'new'"):
        docs.search(query, space="new", correction="soft")


def test_a_list_over_several_spaces_is_refused_and_native_is_not(docs):
    docs.fit_transform("new", "old", "procrustes")
    docs.fit_correction("hubs", space="new", bank=MADE.queries.new)
    docs.upsert(MADE.ids[:100], {"old": MADE.old[:100]}, trust=True)
    query = MADE.queries.new[0]
    with pytest.raises(vecdb.StateError, match="several spaces"):
        docs.search(query, space="new", correction="hubs")
    with pytest.raises(vecdb.StateError, match="several spaces"):
        docs.search({"old": MADE.queries.old[0], "new": query}, correction="hubs")
    with pytest.raises(vecdb.StateError):
        docs.search(query, space="new", correction="hubs", rerank="native")
    hits = docs.search(query, space="new", correction="hubs", spaces="native")
    assert {hit.space for hit in hits} == {"new"}


def test_a_plan_stores_the_corrections_that_were_better_and_searches_use_them(tmp_path):
    with vecdb.open(tmp_path / "plan.vecdb", automatic=False) as db:
        docs = MADE.collection(db)
        plan = docs.plan_upgrade("old", "new", pairs=MADE.pairs(300), queries=MADE.queries, **QUICK)
        assert plan.corrections == () and docs.corrections == ()
        plan.apply()
        found = plan.report.findings
        better = {
            "old-csls": (found.staying, found.staying_corrected),
            "new-csls": (found.best.plain, found.best.corrected),
        }
        wanted = {
            name
            for name, (plain, fixed) in better.items()
            if fixed.of(found.metric).value > plain.of(found.metric).value
        }
        assert {info.name for info in plan.corrections} == wanted == {info.name for info in docs.corrections}
        for info in plan.corrections:
            assert info.bank == 120 and info.own == 120 and 0 < info.quality["mrr"] <= 1
            side = MADE.queries.old if info.space == "old" else MADE.queries.new
            hits = docs.search(side[0], space=info.space, correction=info.name)
            assert len(hits) == 10 and hits[0].raw_score != hits[0].score
        assert db.check().ok


def test_staying_corrected_stores_no_map(tmp_path):
    with vecdb.open(tmp_path / "plan.vecdb", automatic=False) as db:
        docs = MADE.collection(db)
        plan = docs.plan_upgrade("old", "new", pairs=MADE.pairs(300), queries=MADE.queries, **QUICK)
        assert plan.apply(maps=False) == () and docs.transforms == ()
        assert {info.space for info in plan.corrections} <= {"old"}
        found = plan.report.findings
        assert bool(plan.corrections) == (
            found.staying_corrected.of(found.metric).value > found.staying.of(found.metric).value
        )


def test_stored_corrections_of_a_plan_have_names_of_their_own_and_a_bank_that_was_given(tmp_path):
    from vecdb.upgrade import correct
    from vecdb.upgrade.findings import Worth

    with vecdb.open(tmp_path / "plan.vecdb", automatic=False) as db:
        docs = MADE.collection(db)
        bank = vecdb.QuerySet(old=MADE.queries.old[:30], new=MADE.queries.new[:30])
        plan = docs.plan_upgrade("old", "new", pairs=MADE.pairs(300), queries=MADE.queries, bank=bank, **QUICK)
        found = plan.report.findings

        class Better:
            metric, best = found.metric, found.best
            staying = found.staying
            staying_corrected = Worth(*(getattr(found.staying, name) for name in Worth.__slots__))

        object.__setattr__(Better.staying_corrected, found.metric, _one(found))
        for number in (1, 2):
            infos = correct.store_corrections(docs, plan._material, Better, plan._asked)
            old = [info for info in infos if info.space == "old"]
            assert [info.name for info in old] == ["old-csls" if number == 1 else "old-csls-2"]
            assert old[0].bank == 30 and old[0].own == 0


def _one(found):
    value = found.staying.of(found.metric)
    return type(value)(value.value + 0.01, value.low, value.high, value.queries)
