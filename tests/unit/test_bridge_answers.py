"""Bridged and mixed search against a plain oracle: who answers, in which order, with which marks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from tests.unit.test_engine_transforms import rotation, unit
from vecdb.errors import ParameterError, SpaceMismatchError, SpaceMissingError, VectorMissingError

D = 16


class World:
    """A collection of two models, and everything in it as plain arrays."""

    def __init__(self, db, n=400, new=0, name="docs", noise=0.2, seed=0, common=0.0):
        rng = np.random.default_rng(seed)
        self.docs = db.create_collection(name)
        self.docs.add_space("old", dim=D)
        self.docs.add_space("new", dim=D)
        self.ids = [f"r{i}" for i in range(n)]
        self.new = unit(rng.standard_normal((n, D)))
        self.old = unit(self.new @ rotation(D, seed) + noise * rng.standard_normal((n, D)))
        self.new = unit(self.new + common * np.eye(1, D, dtype=np.float32))  # what all have in common raises scores
        self.docs.upsert(self.ids, {"old": self.old}, metadata=[{"n": i, "even": i % 2 == 0} for i in range(n)])
        self.have_new(range(new))
        self.queries = unit(self.new[:20] + 0.3 * rng.standard_normal((20, D)))

    def have_new(self, places):
        places = list(places)
        if places:
            self.docs.set_vectors("new", [self.ids[i] for i in places], self.new[places])

    def fit(self, kind="ridge", count=300, **more):
        pairs = (self.new[:count], self.old[:count])
        return self.docs.fit_transform("new", "old", kind, pairs=pairs, name="up", **more)


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


def same(one, other):
    assert [hits.ids for hits in one] == [hits.ids for hits in other]
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.distances, other.distances)


# --- the two ends ---


@pytest.mark.parametrize("kind", ["ridge", "procrustes", "lowrank", "mlp", "cca"])
def test_with_no_new_vector_it_is_the_old_space_searched_with_the_mapped_query(db, kind):
    world = World(db)
    world.fit(kind)
    mapped = world.docs.transform(world.queries, "new", "old")
    found = world.docs.search(world.queries, space="new")
    same(found, world.docs.search(mapped, space="old", spaces="native"))
    assert {(hit.origin, hit.space) for hits in found for hit in hits} == {("bridged:up", "old")}
    for query, hits in zip(world.queries, found, strict=True):
        alone = world.docs.search(query, space="new")
        assert alone.ids == hits.ids and alone.scores.tolist() == hits.scores.tolist()
        assert [hit.raw_score for hit in hits] == [hit.score for hit in hits]


def test_with_every_vector_new_it_is_the_new_space(db):
    world = World(db, new=400)
    world.fit()
    found = world.docs.search(world.queries, space="new", explain=True)
    same(found, world.docs.search(world.queries, space="new", spaces="native"))
    assert {(hit.origin, hit.space) for hits in found for hit in hits} == {("native", "new")}
    assert found.plan["origin"] == "native"


@pytest.mark.parametrize("method", ["none", "reference", "tail", "isotonic"])
def test_a_condition_that_leaves_one_class_leaves_scores_alone(db, method):
    world = World(db, new=200)
    world.fit()
    new_only = world.docs.search(world.queries, space="new", where={"n": {"$lt": 200}}, calibration=method)
    same(new_only, world.docs.search(world.queries, space="new", where={"n": {"$lt": 200}}, spaces="native"))
    old_only = world.docs.search(world.queries, space="new", where={"n": {"$gte": 200}}, calibration=method)
    mapped = world.docs.transform(world.queries, "new", "old")
    same(old_only, world.docs.search(mapped, space="old", where={"n": {"$gte": 200}}, spaces="native"))


# --- between them ---


def reference_line(world, query, mapped, info_rows):
    cross, native = world.old[info_rows] @ mapped, world.new[info_rows] @ query
    factor = native.std() / cross.std()
    return factor, native.mean() - factor * cross.mean()


def kept_rows(world):
    """Return which pairs were kept for calibration, found by their vectors."""
    from vecdb.engine.transforms import load_transform

    with world.docs._view() as view:
        entry = view.entry.transforms[0]
        source, _ = load_transform(view.snapshot, view.entry, entry, world.docs.database.plugins).reference
    return [int((world.new @ row).argmax()) for row in source]


@settings(max_examples=12, deadline=None)
@given(st.sets(st.integers(0, 119), max_size=120), st.integers(1, 140), st.integers(0, 5), st.booleans())
def test_mixed_lists_are_those_of_an_oracle(tmp_path_factory, new, k, offset, filtered):
    with vecdb.open(tmp_path_factory.mktemp("m") / "a.vecdb", automatic=False) as db:
        world = World(db, n=120)
        world.fit(count=100)
        world.have_new(sorted(new))
        where = {"even": True} if filtered else None
        allowed = [i for i in range(120) if i % 2 == 0 or not filtered]
        found = world.docs.search(
            world.queries[:4], k=k, offset=offset, space="new", where=where, calibration="reference"
        )
        rows = kept_rows(world)
        mixed = {i in new for i in allowed} == {True, False}
        for query, hits in zip(world.queries[:4], found, strict=True):
            mapped = world.docs.transform(query, "new", "old")
            factor, shift = reference_line(world, query, mapped, rows) if mixed else (1.0, 0.0)
            scores = {
                i: world.new[i] @ query if i in new else factor * (world.old[i] @ mapped) + shift for i in allowed
            }
            wanted = sorted(allowed, key=lambda i: -scores[i])[offset : offset + k]
            assert len(hits) == len(wanted) and hits.complete
            np.testing.assert_allclose(hits.scores, [scores[i] for i in wanted], atol=3e-5)
            for hit in hits:
                i = int(hit.id[1:])
                assert hit.score == pytest.approx(scores[i], abs=3e-5)
                assert (hit.space, hit.origin) == (("new", "native") if i in new else ("old", "bridged:up"))
            assert len(set(hits.ids)) == len(hits)


METHODS = ["reference", "lists", "tail", "affine", "isotonic", "rrf", "ranks", "none"]


@pytest.mark.parametrize("method", METHODS)
def test_no_calibration_changes_the_order_within_a_class(db, method):
    world = World(db, new=200)
    world.fit()
    mixed = world.docs.search(world.queries, k=400, space="new", calibration=method, explain=True)
    assert mixed.plan["calibration"] == method and sum(mixed.plan["shares"].values()) == pytest.approx(1.0)
    native = world.docs.search(world.queries, k=400, space="new", spaces="native")
    mapped = world.docs.transform(world.queries, "new", "old")
    bridged = world.docs.search(mapped, k=400, space="old", where={"n": {"$gte": 200}}, spaces="native")
    for hits, one, other in zip(mixed, native, bridged, strict=True):
        assert [hit.id for hit in hits if hit.origin == "native"] == one.ids
        assert [hit.id for hit in hits if hit.origin != "native"] == other.ids
        raws = {hit.id: hit.raw_score for hit in hits}
        assert [raws[id] for id in (*one.ids, *other.ids)] == [*one.scores.tolist(), *other.scores.tolist()]
        assert (np.diff(hits.scores) <= 0).all()
    again = world.docs.search(world.queries[3], k=400, space="new", calibration=method)
    assert again.ids == mixed[3].ids and again.scores.tolist() == mixed[3].scores.tolist()


def test_reference_keeps_both_classes_where_raw_scores_would_not(db):
    world = World(db, new=200, noise=0.5, common=2.0)
    world.fit()
    share = {
        method: world.docs.search(world.queries, space="new", calibration=method, explain=True).plan["shares"]["native"]
        for method in ("none", "reference")
    }
    assert share["none"] > 0.75 and 0.2 < share["reference"] < 0.8


def test_least_scores_apply_to_what_is_shown(db):
    world = World(db, new=200)
    world.fit()
    everything = world.docs.search(world.queries[0], k=100, space="new")
    least = float(everything.scores[20])
    some = world.docs.search(world.queries[0], k=100, space="new", min_score=least)
    assert some.ids == everything.ids[:21]
    assert [hit.distance for hit in some] == pytest.approx([1 - hit.score for hit in some])


def test_a_prior_favours_what_needs_no_transform(db):
    world = World(db, new=200)
    world.fit()
    shares = [
        world.docs.search(world.queries, space="new", prior=prior, explain=True).plan["shares"].get("native", 0.0)
        for prior in (-2.0, 0.0, 2.0)
    ]
    assert shares[0] == 0.0 and 0.0 < shares[1] < 1.0 and shares[2] == 1.0


# --- who is reached ---


def test_without_any_path_it_says_so(db):
    world = World(db)
    assert world.docs.search(world.queries[0], space="new").ids == []  # as ever, where no transform is stored
    with pytest.raises(SpaceMismatchError, match="400 of space 'old'"):
        world.docs.search(world.queries[0], space="new", spaces="all")
    with pytest.raises(SpaceMismatchError):
        world.docs.search(world.queries[0], space="new", spaces="reachable")
    world.docs.add_space("third", dim=4)
    world.docs.fit_transform("new", "third", "ridge", pairs=(world.new[:50], world.new[:50, :4]))
    with pytest.raises(SpaceMismatchError, match="no path"):
        world.docs.search(world.queries[0], space="new")
    assert world.docs.search(world.queries[0], space="new", spaces="native").ids == []
    world.have_new(range(3))
    hits = world.docs.search(world.queries[0], space="new")
    assert len(hits) == 3 and not hits.complete and "397 records of space 'old'" in hits.reason
    everything = world.docs.search(world.queries[0], space="new", where={"n": {"$lt": 3}})
    assert everything.complete


def test_spaces_can_be_named(db):
    world = World(db, new=200)
    world.fit()
    old = world.docs.search(world.queries[0], k=400, space="new", spaces=["old"])
    assert {hit.space for hit in old} == {"old"} and len(old) == 400
    both = world.docs.search(world.queries[0], k=400, space="new", spaces=["old", "new"])
    assert both.ids == world.docs.search(world.queries[0], k=400, space="new").ids
    for spaces, error in (
        (["nope"], SpaceMissingError),
        ("nope", ParameterError),
        ([], ParameterError),
        (5, ParameterError),
    ):
        with pytest.raises(error):
            world.docs.search(world.queries[0], space="new", spaces=spaces)
    with pytest.raises(ParameterError, match="calibration"):
        world.docs.search(world.queries[0], space="new", calibration="referense")
    with pytest.raises(ParameterError, match="prior"):
        world.docs.search(world.queries[0], space="new", prior="much")


def test_a_direct_transform_goes_before_a_chain_and_chains_are_followed(db):
    world = World(db, n=300)
    docs = world.docs
    docs.add_space("newest", dim=D)
    newest = unit(world.new @ rotation(D, 9))
    docs.set_vectors("new", world.ids[100:200], world.new[100:200])
    docs.set_vectors("newest", world.ids[200:], newest[200:])
    world.fit("procrustes")
    docs.fit_transform("newest", "new", "procrustes", pairs=(newest[:100], world.new[:100]), name="step")
    hits = docs.search(newest[:30], k=300, space="newest", explain=True)
    origins = {hit.space: hit.origin for hit in hits[0]}
    assert origins == {"newest": "native", "new": "bridged:step", "old": "bridged:step+up"}
    assert np.mean([found.ids[0] == world.ids[i] for i, found in enumerate(hits)]) > 0.8
    assert hits.plan["calibration"] == "lists" and len(hits.plan["classes"]) == 3
    docs.fit_transform("newest", "old", "procrustes", pairs=(newest[:100], world.old[:100]), name="direct")
    assert {hit.origin for hit in docs.search(newest[0], k=300, space="newest")} == {
        "native",
        "bridged:step",
        "bridged:direct",
    }


def test_of_two_transforms_the_one_that_keeps_more_is_taken(db):
    world = World(db)
    world.fit()
    worse = world.docs.fit_transform("new", "old", "identity", name="worse", pairs=(world.new[:99], world.old[:99]))
    from vecdb.engine.transforms import set_quality

    db._write(set_quality(world.docs._key, "worse", {"retention": 0.9}))
    assert world.docs.search(world.queries[0], space="new")[0].origin == f"bridged:{worse.name}"
    db._write(set_quality(world.docs._key, "up", {"retention": 0.95}))
    assert world.docs.search(world.queries[0], space="new")[0].origin == "bridged:up"
    world.docs.drop_transform("up")
    assert world.docs.search(world.queries[0], space="new")[0].origin == "bridged:worse"


# --- as of, like, and queries in several spaces ---


def test_the_past_is_bridged_by_todays_transforms(db):
    world = World(db)
    world.fit()
    db.tag("before")
    before = world.docs.search(world.queries, space="new")
    world.have_new(range(100))
    world.docs.delete(world.ids[300:])
    after = world.docs.search(world.queries, space="new")
    same(world.docs.search(world.queries, space="new", as_of="before"), before)
    same(world.docs.search(world.queries, space="new"), after)
    assert {hit.origin for hits in after for hit in hits} == {"native", "bridged:up"}


def test_like_starts_from_every_vector_that_the_record_has(db):
    world = World(db, new=200)
    world.fit()
    both = world.docs.search(like="r5", space="new", k=400)
    assert len(both) == 399 and "r5" not in both.ids
    assert {(hit.space, hit.origin) for hit in both} == {("new", "native"), ("old", "native")}


def test_like_a_record_that_has_no_new_vector_starts_from_its_old_one(db):
    world = World(db, new=200)
    world.fit("procrustes", params={"center": False, "scale": "none"})  # an exact isometry leads both ways
    hits = world.docs.search(like="r300", space="new", k=400, calibration="none")
    assert len(hits) == 399 and "r300" not in hits.ids and hits.complete
    direct = world.docs.search(world.old[300], space="old", k=401)
    assert [id for id in direct.ids if id != "r300"] == hits.ids
    world.docs.upsert("bare", metadata={})
    with pytest.raises(VectorMissingError):
        world.docs.search(like="bare", space="new")


def test_a_query_in_both_spaces_needs_no_transform(db):
    world = World(db, new=200)
    both = {"old": world.old[:20], "new": world.new[:20]}
    found = world.docs.search(both, k=5, explain=True)
    assert [hits.ids[0] for hits in found] == world.ids[:20] and found.plan["calibration"] == "lists"
    assert {(hit.space, hit.origin) for hits in found for hit in hits} <= {("new", "native"), ("old", "native")}
    turned = world.docs.search({"old": world.old[300:320], "new": world.new[300:320]}, k=5, space="old")
    assert [hits.ids[0] for hits in turned] == world.ids[300:320]
    only = world.docs.search({"old": world.old[5], "new": world.new[5]}, spaces="native")
    assert len(only) == 10


def test_batches_of_no_query_and_of_one(db):
    world = World(db, new=200)
    world.fit()
    assert len(world.docs.search(world.queries[:1], space="new")) == 1
    hits = world.docs.search(world.queries[0], space="new", include=("metadata", "vectors"))
    for hit in hits:
        number = hit.metadata["n"]
        ((name, vector),) = hit.vectors.items()
        assert name == hit.space
        np.testing.assert_array_equal(vector, (world.new if name == "new" else world.old)[number])


# --- maps of stored vectors, joint maps ---


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("kind", ["ridge", "procrustes"])
def test_a_map_of_stored_vectors_is_folded(db, kind, metric):
    rng = np.random.default_rng(4)
    docs = db.create_collection("folded")
    docs.add_space("old", dim=D, metric=metric)
    docs.add_space("new", dim=D - 3, metric=metric)
    old = rng.standard_normal((300, D)).astype(np.float32) * rng.uniform(0.5, 2.0, (300, 1)).astype(np.float32)
    new = (old @ rng.standard_normal((D, D - 3)) + 0.1 * rng.standard_normal((300, D - 3))).astype(np.float32)
    docs.upsert([f"r{i}" for i in range(300)], {"old": old})
    docs.fit_transform("old", "new", kind, direction="gallery", pairs=(old[:200], new[:200]), name="down")
    image = docs.transform(old, "old", "new", direction="gallery").astype(np.float64)
    queries = new[:10] + 0.1
    found = docs.search(queries, space="new", k=15, explain=True)
    if metric == "cosine":
        table = unit(queries).astype(np.float64) @ unit(image).T
    elif metric == "dot":
        table = queries @ image.T
    else:
        table = -np.linalg.norm(queries[:, None] - image[None], axis=2)
    np.testing.assert_allclose(found.scores, -np.sort(-table, axis=1)[:, :15], rtol=2e-4, atol=2e-4)
    assert {hit.origin for hits in found for hit in hits} == {"bridged:down"}
    assert found.plan["classes"][0]["method"] == "folded scan" and found.plan["calibration"] == "none needed"
    single = docs.search(queries[3], space="new", k=15)
    assert single.ids == found[3].ids and single.scores.tolist() == found[3].scores.tolist()


def test_folded_tables_follow_writes(db):
    world = World(db, n=200)
    docs = world.docs
    docs.fit_transform("old", "new", "procrustes", direction="gallery", pairs=(world.old[:99], world.new[:99]))
    first = docs.search(world.queries[0], k=200, space="new")
    docs.upsert(["more"], {"old": world.old[:1]})
    docs.delete("r7")
    after = docs.search(world.queries[0], k=300, space="new")
    assert set(after.ids) == ({*first.ids} | {"more"}) - {"r7"}
    scores = dict(zip(after.ids, after.scores.tolist(), strict=True))
    assert scores["more"] == scores["r0"]
    db.optimize()
    db.compact()
    assert docs.search(world.queries[0], k=300, space="new").ids == after.ids


@pytest.mark.parametrize("direction", ["query", "gallery"])
@pytest.mark.parametrize("kind", ["bt2", "relative"])
def test_joint_transforms_bridge_and_leave_new_vectors_alone(db, kind, direction):
    world = World(db)
    pair = (world.new[:200], world.old[:200])
    spaces = ("new", "old") if direction == "query" else ("old", "new")
    pairs = pair if direction == "query" else pair[::-1]
    params = {"anchors": 64} if kind == "relative" else {}
    world.docs.fit_transform(*spaces, kind, pairs=pairs, direction=direction, name="joint", params=params)
    found = world.docs.search(world.new[:40], space="new")
    assert np.mean([hits.ids[0] == world.ids[i] for i, hits in enumerate(found)]) > 0.7
    assert {hit.origin for hits in found for hit in hits} == {"bridged:joint"}
    world.have_new(range(0, 400, 2))
    mixed = world.docs.search(world.new[:40], space="new", explain=True)
    assert np.mean([hits.ids[0] == world.ids[i] for i, hits in enumerate(mixed)]) > 0.8
    assert mixed.plan["calibration"] == "lists"
    world.have_new(range(400))
    same(world.docs.search(world.queries, space="new"), world.docs.search(world.queries, space="new", spaces="native"))


# --- under an index ---


@pytest.mark.parametrize("kind", ["flat", "rabitq"])
def test_any_index_of_the_stored_space_serves(db, kind):
    world = World(db, n=3_000)
    world.fit()
    plain = world.docs.search(world.queries, space="new", exact=True)
    world.docs.create_index("old", kind)
    found = world.docs.search(world.queries, space="new", explain=True)
    assert found.plan["index"] == kind
    overlap = np.mean([len({*one.ids} & {*other.ids}) / 10 for one, other in zip(found, plain, strict=True)])
    assert overlap > 0.95
    world.have_new(range(0, 3_000, 2))
    world.docs.create_index("new", kind)
    mixed = world.docs.search(world.queries, space="new", explain=True)
    exact = world.docs.search(world.queries, space="new", exact=True)
    assert mixed.plan["classes"][0]["index"] == kind
    overlap = np.mean([len({*one.ids} & {*other.ids}) / 10 for one, other in zip(mixed, exact, strict=True)])
    assert overlap > 0.95


def test_a_folded_class_uses_the_index_too(db):
    world = World(db, n=3_000)
    pairs = (world.old[:300], world.new[:300])
    world.docs.fit_transform("old", "new", "procrustes", direction="gallery", pairs=pairs)
    exact = world.docs.search(world.queries, space="new")
    world.docs.create_index("old", "rabitq")
    found = world.docs.search(world.queries, space="new", explain=True)
    assert found.plan["classes"][0]["index"] == "rabitq"
    overlap = np.mean([len({*one.ids} & {*other.ids}) / 10 for one, other in zip(found, exact, strict=True)])
    assert overlap > 0.95
    same(world.docs.search(world.queries, space="new", exact=True), exact)


def test_a_time_out_is_told(db):
    world = World(db, new=200)
    world.fit()
    hits = world.docs.search(world.queries[0], space="new", timeout=0)
    assert not hits.complete and "time-out" in hits.reason


def test_what_is_remembered_of_a_state_ends_with_it(db):
    world = World(db)
    world.fit()
    docs, query = world.docs, world.new[3]
    mapped = docs.transform(query, "new", "old")
    for _ in range(3):
        assert docs.search(query, space="new").ids == docs.search(mapped, space="old", spaces="native").ids
    world.have_new([3])
    assert docs.search(query, space="new")[0].origin == "native"
    docs.delete(["r3"])
    for _ in range(2):
        assert docs.search(query, space="new").ids == docs.search(mapped, space="old", spaces="native").ids
    docs.fit_transform("new", "old", "procrustes", pairs=(world.new[:300], world.old[:300]), name="aaa")
    assert docs.search(query, space="new")[0].origin == "bridged:aaa"
    docs.drop_transform("aaa")
    docs.drop_transform("up")
    assert docs.search(query, space="new").ids == []
    assert len(docs.search(query, space="old", where={"n": 5})) == 1


def test_one_new_vector_does_not_lift_the_old_ones_above_itself(db):
    world = World(db)
    world.fit()
    world.have_new([3])
    hits = world.docs.search(world.new[3], space="new", k=20)
    assert (hits.ids[0], hits[0].origin) == ("r3", "native")
