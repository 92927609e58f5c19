"""Relevance filters of a collection: fitted on what searches return, stored, applied, refused when they are stale."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from vecdb import errors

COUNT, DIM, ASKED = 300, 12, 120


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def world():
    """Records, queries near some of them, and the same through another model."""
    rng = np.random.default_rng(5)
    rows = unit(rng.standard_normal((COUNT, DIM)))
    asked = unit(rows[:ASKED] + np.linspace(0.02, 0.4, ASKED)[:, None] * rng.standard_normal((ASKED, DIM)))
    turn = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    return rows, asked, unit(rows @ turn + 0.02), unit(asked @ turn + 0.02)


@pytest.fixture
def docs(tmp_path, world):
    with vecdb.open(tmp_path / "a.vecdb") as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=DIM)
        docs.upsert(
            [f"r{row}" for row in range(COUNT)], {"old": world[0]}, [{"even": row % 2 == 0} for row in range(COUNT)]
        )
        yield docs


def fit(docs, world, name="r", kind="calibrated", **wishes):
    given = {"space": "old", "relevant_ids": [f"r{row}" for row in range(ASKED)], "pool": 30}
    return docs.fit_relevance(name, kind, queries=world[1], **(given | wishes))


def test_a_filter_judges_drops_and_counts(docs, world):
    info = fit(docs, world)
    plain = docs.search(world[1][0], k=8)
    kept = docs.search(world[1][0], k=8, relevance="r")
    assert len(kept) + kept.dropped == len(plain) == 8
    assert kept.ids == plain.ids[: len(kept)]
    assert all(hit.relevance >= info.threshold for hit in kept)
    assert [hit.relevance for hit in plain] == [None] * 8
    assert kept.complete


@pytest.mark.parametrize("wish", [{"seed": 2**63}, {"seed": 2**70}, {"pool": 2**63}], ids=str)
def test_numbers_that_a_catalog_cannot_hold_are_refused_before_they_are_stored(docs, world, wish):
    with pytest.raises(errors.ParameterError, match=r"expected less than 2\*\*63"):
        fit(docs, world, **wish)
    assert docs.relevance_filters == () and fit(docs, world, seed=2**63 - 1).seed == 2**63 - 1
    assert docs.relevance_filters[0].seed == 2**63 - 1


def test_no_relevant_result_is_an_ordinary_answer(docs, world):
    fit(docs, world, params={"by": "precision", "level": 1.0})
    far = docs.search(unit(np.ones((1, DIM)))[0], relevance="r")
    assert (len(far), far.dropped, far.ids, far.complete) == (0, 10, [], True)


def test_batches_are_judged_query_by_query(docs, world):
    fit(docs, world)
    batch = docs.search(world[1][:5], k=6, relevance="r")
    alone = [docs.search(query, k=6, relevance="r") for query in world[1][:5]]
    assert batch.ids == [hits.ids for hits in alone]
    assert batch.dropped.tolist() == [hits.dropped for hits in alone]
    assert batch.counts.tolist() == [len(hits) for hits in alone]


def test_a_filter_survives_reopening_compaction_and_renaming(tmp_path, world):
    path = tmp_path / "b.vecdb"
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=DIM)
        docs.upsert([f"r{row}" for row in range(COUNT)], {"old": world[0]})
        fit(docs, world)
        before = docs.search(world[1][:9], relevance="r").ids
        db.compact()
        docs.rename_space("old", "first")
    with vecdb.open(path, mode="r") as db:
        docs = db.collection("docs")
        assert docs.search(world[1][:9], relevance="r").ids == before
        assert [(each.space, each.stale) for each in docs.relevance_filters] == [("first", False)]
        assert db.check().ok


def test_dropping_a_filter_or_its_space_takes_its_blobs(docs, world):
    fit(docs, world, "one")
    docs.add_space("new", dim=DIM)
    docs.set_vectors("new", [f"r{row}" for row in range(COUNT)], world[2])
    docs.fit_relevance(
        "two", "threshold", space="new", queries=world[3], relevant_ids=[f"r{row}" for row in range(ASKED)]
    )
    docs.drop_space("new")
    assert [each.name for each in docs.relevance_filters] == ["one"]
    docs.drop_relevance("one")
    report = docs.database.check()
    assert report.ok and report.counts.get("relevance filters", 0) == 0
    with pytest.raises(errors.UnknownNameError):
        docs.search(world[1][0], space="old", relevance="one")


def test_a_name_is_given_once(docs, world):
    fit(docs, world)
    with pytest.raises(errors.ExistsError):
        fit(docs, world)


def test_fitting_again_makes_the_next_revision(docs, world):
    first = fit(docs, world)
    again = docs.refit_relevance("r")
    assert (first.revision, again.revision) == (1, 2)
    assert again.threshold == first.threshold
    assert docs.database.check().ok


def test_another_space_is_stale_until_it_is_fitted_again(docs, world):
    """After an upgrade the old filter is refused; its queries through the bridge make a new one."""
    fit(docs, world)
    ids = [f"r{row}" for row in range(COUNT)]
    docs.add_space("new", dim=DIM)
    docs.fit_transform("new", "old", "procrustes", pairs=(world[2], world[0]))
    with pytest.raises(errors.StaleError) as caught:
        docs.search(world[3][0], space="new", relevance="r")
    assert (caught.value.name, "'old'" in caught.value.reason) == ("r", True)
    assert docs.search(world[3][0], space="new", relevance="r", allow_stale=True).dropped >= 0
    with pytest.raises(errors.ParameterError):
        docs.refit_relevance("r", space="new")
    info = docs.refit_relevance("r", space="new", queries=world[3])
    assert (info.space, info.revision, info.stale) == ("new", 2, False)
    bridged = docs.search(world[3][0], space="new", relevance="r")
    assert bridged[0].origin.startswith("bridged:") and bridged[0].relevance >= info.threshold
    docs.set_vectors("new", ids[:200], world[2][:200])  # native answers come: what it was fitted on is no more
    assert docs.relevance_filters[0].stale
    with pytest.raises(errors.StaleError):
        docs.search(world[3][0], space="new", relevance="r")
    docs.set_vectors("new", ids[200:], world[2][200:])
    assert docs.refit_relevance("r").revision == 3  # the stored queries are of this space by now
    assert docs.search(world[3][0], space="new", relevance="r")[0].origin == "native"


def test_what_cannot_be_fitted_is_refused_and_nothing_is_stored(docs, world):
    with pytest.raises(errors.FitError):
        fit(docs, world, relevant_ids=[[] for _ in range(ASKED)])
    with pytest.raises(errors.ParameterError):
        fit(docs, world, relevant_ids=["r1"])
    with pytest.raises(errors.ParameterError):
        fit(docs, world, params={"method": "none"})
    with pytest.raises(errors.UnknownNameError):
        fit(docs, world, kind="no-such-kind")
    with pytest.raises(errors.DimensionError):
        docs.fit_relevance("r", "calibrated", queries=world[1][:, :5], relevant_ids=["r1"] * ASKED)
    with pytest.raises(errors.CancelledError):
        fit(docs, world, cancel=lambda: True)
    assert docs.relevance_filters == ()


def test_conditions_and_the_past_are_judged_too(docs, world):
    fit(docs, world)
    hits = docs.search(world[1][1], where={"even": False}, relevance="r")
    assert hits and all(not hit.metadata["even"] for hit in hits)
    seq = docs.database.seq
    docs.delete("r1")
    assert docs.search(world[1][1], as_of=seq, relevance="r").ids[0] == "r1"
    assert "r1" not in docs.search(world[1][1], relevance="r").ids


def test_relevant_records_outside_the_pool_are_found_and_counted(docs, world):
    info = fit(docs, world, pool=2, ignore_ids=[["r299"]] * ASKED)
    places = np.array([np.flatnonzero(np.argsort(-world[0] @ query) == row)[0] for row, query in enumerate(world[1])])
    assert info.missed == int((places >= 2).sum())
    assert info.positives == int((places < 2).sum())


def test_a_small_fit_is_not_measured(docs, world):
    info = docs.fit_relevance("r", "calibrated", queries=world[1][:20], relevant_ids=[f"r{row}" for row in range(20)])
    assert info.report == {"fitted_on": 20, "measured_on": 0}


def test_the_report_is_of_queries_that_were_kept_back(docs, world):
    report = fit(docs, world, groups=[row // 4 for row in range(ASKED)]).report
    assert report["fitted_on"] + report["measured_on"] == ASKED
    assert report["measured_on"] % 4 == 0
    for name in ("pr_auc", "precision_at_95", "ece_top1", "ece_top10", "brier_skill_top10", "opis", "recall"):
        assert report[name]["low"] <= report[name]["high"]
    assert set(report["raw"]) == {"pr_auc", "precision_at_95", "opis"}


def test_hits_that_were_chosen_are_judged_by_the_query_that_found_them(docs, world):
    fit(docs, world, kind="calibrated")
    for wish in ({"diversify": "mmr"}, {"group_by": "even", "per_group": 4}, {"feedback": 3}, {"diversify": "mixture"}):
        plain = docs.search(world[1][:6], k=5, **wish)
        kept = docs.search(world[1][:6], k=5, relevance="r", **wish)
        for one, other in zip(plain, kept, strict=True):
            assert len(one) == len(other) + other.dropped
            scores = dict(zip(one.ids, one.scores.tolist(), strict=True))
            order = sorted(other, key=lambda hit: -scores[hit.id])
            assert [hit.relevance for hit in order] == sorted((hit.relevance for hit in other), reverse=True)
            assert [id for id in one.ids if id in other.ids] == other.ids
            if other.groups is not None:
                assert [id for group in other.groups for id in group.ids] == other.ids
    several = docs.search(like=["r3", "r4"], k=5, relevance="r")
    alone = [docs.search(like=id, k=5, relevance="r") for id in ("r3", "r4")]
    assert [[hit.relevance for hit in hits] for hits in several] == [[hit.relevance for hit in hits] for hits in alone]
    docs.search(positive=["r3", "r4"], k=5, relevance="r")
    with pytest.raises(errors.ParameterError, match="one query in one space"):
        docs.search(positive=["r3", "r4"], diversify="mixture", relevance="r")


@pytest.mark.parametrize("kind", ["threshold", "topk-gap", "calibrated", "conformal", "cosine-adapter"])
def test_every_labelled_kind_keeps_the_answer_and_drops_most_of_the_rest(docs, world, kind):
    params = {"steps": 60} if kind == "cosine-adapter" else {}
    info = fit(docs, world, kind=kind, params=params)
    hits = docs.search(world[1], k=10, relevance="r")
    found = np.mean([f"r{row}" in each.ids for row, each in enumerate(hits)])
    assert found > 0.5 and hits.counts.mean() < 4  # a twentieth of the candidates would be kept by chance
    assert info.report["recall"]["value"] > 0.4
    assert docs.database.check().ok


@pytest.mark.parametrize("kind", ["background", "outlier"])
def test_kinds_without_labels_need_none(docs, world, kind):
    docs.fit_relevance("r", kind, space="old", queries=world[1])
    hits = docs.search(world[1], k=3, relevance="r")
    assert (hits.counts + hits.dropped == 3).all()
    if kind == "outlier":
        assert set(hits.counts.tolist()) <= {0, 3}


def test_a_filter_sees_the_company_of_a_hit_whatever_was_asked_for(docs, world):
    """One hit, or the third page of one: judged as within the ten best."""
    fit(docs, world, kind="cosine-adapter", params={"steps": 60})
    ten = docs.search(world[1][3], k=10, relevance="r")
    one = docs.search(world[1][3], k=1, relevance="r")
    assert [(hit.id, hit.relevance) for hit in one] == [(hit.id, hit.relevance) for hit in ten[:1]]
    assert len(one) + one.dropped == 1
    rest = docs.search(world[1][3], k=4, offset=1, relevance="r")
    assert len(rest) + rest.dropped == 4 and rest.ids == ten.ids[1 : 1 + len(rest)]
    plain = docs.search(world[1][3], k=10)
    least = float(plain.scores[2])
    some = docs.search(world[1][3], k=10, min_score=least, relevance="r")
    assert len(some) + some.dropped == 3


def test_a_filter_is_for_the_correction_it_was_fitted_with(docs, world):
    """Corrected scores are another scale: a filter of raw ones refuses them, and one of theirs refuses raw ones."""
    docs.fit_correction("hubs", bank=world[1][60:])
    fit(docs, world, "raw")
    info = fit(docs, world, "corrected", correction="hubs")
    assert info.correction == "hubs" and not info.stale
    plain = docs.search(world[1][0], correction="hubs", k=5)
    kept = docs.search(world[1][0], correction="hubs", k=5, relevance="corrected")
    assert kept.ids == plain.ids[: len(kept)] and len(kept) + kept.dropped == 5
    for name, correction in (("raw", "hubs"), ("corrected", None)):
        with pytest.raises(errors.StaleError, match="it was fitted on scores"):
            docs.search(world[1][0], correction=correction, relevance=name)
    assert docs.refit_relevance("corrected").correction == "hubs"
    docs.drop_correction("hubs")
    assert [(each.name, each.stale) for each in docs.relevance_filters] == [("raw", False), ("corrected", True)]
    assert docs.refit_relevance("corrected").correction is None
    with pytest.raises(errors.UnknownNameError):
        fit(docs, world, "other", correction="hubs")


def test_another_process_sees_a_filter_and_one_without_its_plugin_says_so(docs, world):
    from vecdb import PluginRegistry, hookimpl
    from vecdb.relevance.scored import CalibratedType

    class Acme:
        @hookimpl
        def vecdb_register_relevance_filters(self):
            from dataclasses import replace

            return [replace(CalibratedType(), name="acme.curve")]

    path = docs.database.path
    docs.database.close()
    with vecdb.open(path, plugins=PluginRegistry([Acme()], entry_points=False)) as db:
        fit(db.collection("docs"), world, kind="acme.curve")
        assert db.collection("docs").search(world[1][0], relevance="r").dropped > 0
    with vecdb.open(path, plugins=PluginRegistry(entry_points=False)) as db:
        other = db.collection("docs")
        with pytest.raises(errors.PluginMissingError):
            other.search(world[1][0], relevance="r")
        (info,) = other.relevance_filters
        assert not info.available and "acme.curve" in info.reason and info.threshold is None
        assert db.check().ok
        other.drop_relevance("r")


def test_a_filter_of_another_version_is_stale(docs, world):
    from dataclasses import replace

    from vecdb import PluginRegistry, hookimpl
    from vecdb.relevance.scored import CalibratedType

    def plugin(version):
        class Acme:
            @hookimpl
            def vecdb_register_relevance_filters(self):
                return [replace(CalibratedType(), name="acme.curve", version=version)]

        return PluginRegistry([Acme()], entry_points=False)

    path = docs.database.path
    docs.database.close()
    with vecdb.open(path, plugins=plugin(1)) as db:
        fit(db.collection("docs"), world, kind="acme.curve")
    with vecdb.open(path, plugins=plugin(2)) as db:
        other = db.collection("docs")
        assert other.relevance_filters[0].stale
        with pytest.raises(errors.StaleError, match="version 1"):
            other.search(world[1][0], relevance="r")
        other.refit_relevance("r")
        assert other.search(world[1][0], relevance="r").dropped > 0


def test_a_plugin_that_breaks_its_contract_is_named_and_nothing_is_stored(docs, world):
    from dataclasses import replace

    from vecdb import PluginRegistry, hookimpl
    from vecdb.relevance.scored import CalibratedFilter, CalibratedType

    class Wild(CalibratedFilter):
        def relevance(self, scores, queries, vectors, *, count):
            return (2 * np.ones(scores.shape)).astype(np.float32)

    class WildType(CalibratedType):
        def fit(self, data, params):
            made = super().fit(data, params)
            return Wild(made.curve, made.threshold)

        def load(self, state):
            made = super().load(state)
            return Wild(made.curve, made.threshold)

    class Acme:
        @hookimpl
        def vecdb_register_relevance_filters(self):
            return [replace(WildType(), name="acme.wild")]

    path = docs.database.path
    docs.database.close()
    with vecdb.open(path, plugins=PluginRegistry([Acme()], entry_points=False)) as db:
        with pytest.raises(errors.PluginContractError, match="not between 0 and 1"):
            fit(db.collection("docs"), world, kind="acme.wild")
        assert db.collection("docs").relevance_filters == ()


def test_a_filter_survives_a_migration_that_is_finished_and_one_that_is_rolled_back(docs, world):
    fit(docs, world)
    ids = [f"r{row}" for row in range(COUNT)]
    vectors = dict(zip(ids, world[2], strict=True))
    docs.add_space("new", dim=DIM)

    def encode(records):
        return np.stack([vectors[record.id] for record in records])

    for end in ("rollback", "finish"):
        migration = docs.migrate("old", "new", encode, inputs="records", policy="random", canary=0.0, trust=True)
        migration.run()
        getattr(migration, end)()
        assert docs.database.check().ok
        known = {each.name: (each.space, each.stale) for each in docs.relevance_filters}
        assert known == {"r": ("old", False) if end == "rollback" else ("new", True)}
    assert list(docs.spaces) == ["new"]
    with pytest.raises(errors.StaleError, match="a space that was dropped"):
        docs.search(world[3][0], relevance="r")
    with pytest.raises(errors.ParameterError, match="calibration queries"):
        docs.refit_relevance("r")  # its queries are the old model's
    info = docs.refit_relevance("r", queries=world[3])
    assert (info.space, info.revision, info.stale) == ("new", 2, False)
    assert docs.search(world[3][0], relevance="r")[0].relevance >= info.threshold
    assert docs.refit_relevance("r").revision == 3 and docs.database.check().ok


def test_damage_is_found_and_nothing_else_fails(docs, world):
    """A byte of a stored filter that flips is found by `check`, and named by a search that needs it."""
    fit(docs, world)
    path = docs.database.path
    docs.database.close()
    data = bytearray(path.read_bytes())
    needle = b"threshold"
    place = data.find(needle)
    assert place > 0
    while place >= 0:
        data[place] ^= 0x20
        place = data.find(needle, place)
    path.write_bytes(data)
    with vecdb.open(path, mode="r") as db:
        report = db.check()
        assert not report.ok and any("filter" in problem or "blob" in problem for problem in report.problems)
        other = db.collection("docs")
        assert len(other.search(world[1][0])) == 10
        with pytest.raises(errors.CorruptionError):
            other.search(world[1][0], relevance="r")


def test_texts_are_embedded_by_the_encoder_of_the_space(docs, world):
    texts = {f"query {row}": world[1][row] for row in range(ASKED)}
    docs.set_encoder("old", lambda some: np.stack([texts[text] for text in some]))
    info = docs.fit_relevance("r", "threshold", queries=list(texts), relevant_ids=[f"r{row}" for row in range(ASKED)])
    assert info.queries == ASKED and info.positives > 100


def test_a_backup_has_the_filters(docs, world, tmp_path):
    fit(docs, world)
    before = docs.search(world[1][:5], relevance="r").ids
    docs.database.backup(tmp_path / "copy.vecdb")
    with vecdb.open(tmp_path / "copy.vecdb", mode="r") as db:
        assert db.collection("docs").search(world[1][:5], relevance="r").ids == before


def test_a_filter_that_may_rescore_goes_on_beside_bridged_answers(docs, world):
    """Its kind says so, native answers were there before, and reference rows bring the others to their scale."""
    from dataclasses import replace

    from vecdb import PluginRegistry, hookimpl
    from vecdb.relevance.scored import SCORES_ALONE, CalibratedType

    class Acme:
        @hookimpl
        def vecdb_register_relevance_filters(self):
            return [replace(CalibratedType(), name="acme.on", capabilities=replace(SCORES_ALONE, transfer="rescore"))]

    path = docs.database.path
    docs.add_space("new", dim=DIM)
    ids = [f"r{row}" for row in range(COUNT)]
    docs.set_vectors("new", ids, world[2])
    docs.database.close()
    with vecdb.open(path, plugins=PluginRegistry([Acme()], entry_points=False)) as db:
        other = db.collection("docs")
        other.fit_relevance("on", "acme.on", space="new", queries=world[3], relevant_ids=ids[:ASKED])
        other.fit_relevance("off", "calibrated", space="new", queries=world[3], relevant_ids=ids[:ASKED])
        other.fit_transform("new", "old", "procrustes")
        other.upsert(["s1", "s2"], {"old": world[0][:2]})
        assert [each.stale for each in other.relevance_filters] == [False, True]
        assert other.search(world[3][0], space="new", relevance="on").dropped > 0
        with pytest.raises(errors.StaleError):
            other.search(world[3][0], space="new", relevance="off")
        assert other.search(world[3][0], space="new", spaces="native", relevance="off").dropped > 0
        with pytest.raises(errors.StaleError, match="calibration"):
            other.search(world[3][0], space="new", calibration="rrf", relevance="on")
