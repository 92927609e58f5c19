"""Transforms stored in a collection: put, described, loaded, proven, dropped; fitted on its records."""

import numpy as np
import pytest

import vecdb
from vecdb.contracts import Param, TransformCapabilities
from vecdb.engine import transforms as stored
from vecdb.engine.pairing import MAX_PAIRS, PairSet, split_pairs
from vecdb.errors import (
    CorruptionError,
    DimensionError,
    ExistsError,
    FitError,
    ParameterError,
    RecordMissingError,
    SpaceMismatchError,
    UnknownNameError,
    VectorMissingError,
)
from vecdb.registry import PluginRegistry
from vecdb.storage.transforms import read_pairs


def rotation(width, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def two_models(n=300, d=12, seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    old = unit(rng.standard_normal((n, d)))
    new = unit(old @ rotation(d, seed) + noise * rng.standard_normal((n, d)))
    return old, new


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


def filled(db, n=300, d=12, both=200, noise=0.0):
    docs = db.create_collection("docs")
    docs.add_space("old", dim=d)
    docs.add_space("new", dim=d)
    old, new = two_models(n, d, noise=noise)
    ids = [f"r{i}" for i in range(n)]
    docs.upsert(ids, {"old": old})
    docs.set_vectors("new", ids[:both], new[:both])
    return docs, old, new, ids


def test_a_fitted_transform_is_stored_described_and_applied(db):
    docs, old, new, _ = filled(db)
    info = docs.fit_transform("new", "old", "procrustes", params={"center": False, "scale": "none"})
    assert info.name == "new-to-old-procrustes" and docs.transforms == (info,)
    assert (info.source, info.target, info.direction, info.kind) == ("new", "old", "query", "procrustes")
    assert info.isometry == "exact" and info.affine and info.available and info.reason is None and info.bytes > 0
    assert info.pairs == 150 and info.reference == 25 and info.params["center"] is False
    assert info.quality["matched"] == 1.0
    mapped = docs.transform(new[200:], "new", "old")
    np.testing.assert_allclose(mapped, old[200:], atol=1e-5)
    np.testing.assert_allclose(docs.transform(new[0], "new", "old"), old[0], atol=1e-5)
    np.testing.assert_allclose(docs.transform(old[:5], "old", "new"), new[:5], atol=1e-5)  # its exact inverse
    np.testing.assert_allclose(docs.transform(old[:5], "old", "new", direction="gallery"), new[:5], atol=1e-5)


def test_everything_is_there_after_reopening_compacting_and_in_a_backup(tmp_path):
    path = tmp_path / "a.vecdb"
    with vecdb.open(path, automatic=False) as db:
        docs, _, new, ids = filled(db)
        docs.fit_transform("new", "old", "ridge", pairs=ids[:100])
        before, infos = docs.transform(new[200:], "new", "old"), docs.transforms
        db.compact()
        db.backup(tmp_path / "b.vecdb")
        assert db.check().ok
    for copy in (path, tmp_path / "b.vecdb"):
        with vecdb.open(copy, mode="r") as db:
            docs = db.collection("docs")
            assert docs.transforms == infos
            np.testing.assert_array_equal(docs.transform(new[200:], "new", "old"), before)
            report = db.check()
            assert report.ok and report.counts["transforms"] == 1 and report.counts["transform blob pieces"] == 4
            with docs._view() as view:
                kept = read_pairs(view.tx, view.entry.transforms[0])
            assert set(kept) < set(ids[:100]) and len(kept) == infos[0].pairs


def test_a_direction_that_was_not_fitted_has_no_path(db):
    docs, old, new, _ = filled(db)
    docs.fit_transform("new", "old", "ridge")
    with pytest.raises(SpaceMismatchError, match="no transform of stored vectors"):
        docs.transform(old, "old", "new", direction="gallery")
    with pytest.raises(SpaceMismatchError):
        docs.transform(old, "old", "new")
    with pytest.raises(ParameterError, match="direction"):
        docs.transform(old, "old", "new", direction="up")
    docs.fit_transform("old", "new", "ridge", direction="gallery")
    assert np.einsum("ij,ij->i", docs.transform(old, "old", "new", direction="gallery"), new).mean() > 0.98


def test_chains_are_walked_over_the_space_between(db):
    docs, old, new, _ = filled(db)
    docs.add_space("third", dim=12)
    third = unit(new @ rotation(12, 5))
    docs.fit_transform("new", "old", "procrustes", params={"center": False, "scale": "none"})
    docs.fit_transform(
        "third", "new", "procrustes", pairs=(third[:100], new[:100]), params={"center": False, "scale": "none"}
    )
    np.testing.assert_allclose(docs.transform(third[250:], "third", "old"), old[250:], atol=1e-5)


def test_names_are_unique_and_numbered(db):
    docs, *_ = filled(db)
    first = docs.fit_transform("new", "old", "ridge", name="mine")
    assert [docs.fit_transform("new", "old").name for _ in range(3)] == [
        "new-to-old-ridge",
        "new-to-old-ridge-2",
        "new-to-old-ridge-3",
    ]
    with pytest.raises(ExistsError, match="mine"):
        docs.fit_transform("new", "old", name="mine")
    docs.drop_transform("mine")
    assert first.name not in [info.name for info in docs.transforms]
    with pytest.raises(UnknownNameError, match="no transform 'mine'"):
        docs.drop_transform("mine")
    with pytest.raises(ParameterError, match="cannot be named"):
        docs.fit_transform("new", "old", name="")


def test_blobs_go_with_the_transform_the_space_and_the_collection(db):
    docs, *_ = filled(db)
    docs.fit_transform("new", "old")
    docs.fit_transform("old", "new", direction="gallery")
    docs.drop_transform("new-to-old-ridge")
    assert db.check().ok and len(docs.transforms) == 1
    docs.drop_space("new")
    report = db.check()
    assert report.ok and docs.transforms == () and "transforms" not in report.counts
    other, *_ = filled_other(db)
    other.fit_transform("new", "old")
    db.drop_collection("other")
    assert db.check().ok


def filled_other(db):
    docs = db.create_collection("other")
    docs.add_space("old", dim=4)
    docs.add_space("new", dim=4)
    old, new = two_models(60, 4)
    docs.upsert(list(range(60)), {"old": old, "new": new})
    return docs, old, new


def test_renamed_spaces_keep_their_transforms(db):
    docs, _, new, _ = filled(db)
    docs.fit_transform("new", "old")
    docs.rename_space("new", "newer")
    assert docs.transforms[0].source == "newer"
    assert docs.transform(new[:3], "newer", "old").shape == (3, 12)


def test_one_that_is_rolled_back_left_nothing(db):
    docs, *_ = filled(db)

    def half():
        with db.transaction():
            docs.fit_transform("new", "old")
            assert len(docs.transforms) == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert docs.transforms == () and db.check().ok
    with db.transaction():
        docs.fit_transform("new", "old")
        docs.drop_transform("new-to-old-ridge")
        docs.fit_transform("new", "old")
    assert len(docs.transforms) == 1 and db.check().ok


def test_what_cannot_be_fitted_stores_nothing(db):
    docs, old, new, ids = filled(db)
    with pytest.raises(UnknownNameError, match="ridge"):
        docs.fit_transform("new", "old", "rigde")
    with pytest.raises(ParameterError, match="no parameter"):
        docs.fit_transform("new", "old", params={"penality": 1.0})
    with pytest.raises(FitError):
        docs.fit_transform("new", "old", pairs=ids[:2])
    with pytest.raises(VectorMissingError):
        docs.fit_transform("new", "old", pairs=ids[199:210])
    with pytest.raises(RecordMissingError):
        docs.fit_transform("new", "old", pairs=["nobody"])
    with pytest.raises(ParameterError, match="as many"):
        docs.fit_transform("new", "old", pairs=(new[:10], old[:9]))
    with pytest.raises(DimensionError):
        docs.fit_transform("new", "old", pairs=(new[:10, :3], old[:10]))
    with pytest.raises(ParameterError, match="direction"):
        docs.fit_transform("new", "old", direction="both")
    docs.add_space("empty", dim=12)
    with pytest.raises(FitError, match="no record"):
        docs.fit_transform("new", "empty")
    docs.add_space("wide", dim=40)
    with pytest.raises(ParameterError, match="columns"):
        docs.fit_transform("new", "wide", "shift", pairs=(new[:50], np.eye(50, 40) + 1))
    assert docs.transforms == ()


def test_pairs_may_be_ids_of_one_side_and_rows_of_the_other(db):
    docs, old, new, ids = filled(db)
    one = docs.fit_transform("old", "new", pairs=(ids[:100], new[:100]), direction="gallery")
    other = docs.fit_transform("old", "new", pairs=(old[:100], new[:100]), direction="gallery")
    assert (one.pairs, one.reference) == (other.pairs, other.reference) == (76, 12)
    with docs._view() as view:
        first, second = view.entry.transforms
        assert first.digest == second.digest
        assert len(read_pairs(view.tx, first)) == 76 and read_pairs(view.tx, second) == []


def test_add_transform_stores_what_was_fitted_elsewhere(db):
    docs, old, new, _ = filled(db)
    docs.fit_transform("new", "old", "ridge", name="first")
    with docs._view() as view:
        made = stored.load_transform(view.snapshot, view.entry, view.entry.transforms[0], db.plugins).transform
    info = docs.add_transform(
        "new", "old", made, kind="ridge", reference=(new[:64], old[:64]), quality={"retention": np.float32(0.5)}
    )
    assert info.reference == 64 and info.quality == {"retention": 0.5}
    with pytest.raises(DimensionError):
        docs.add_transform("new", "old", made, kind="ridge", reference=(new[:64], old[:63]))
    with pytest.raises(ParameterError, match="plain values"):
        docs.add_transform("new", "old", made, kind="ridge", quality={"x": object()})
    with pytest.raises(ParameterError, match="bytes"):
        docs.add_transform("new", "old", made, kind="ridge", quality={"x": "x" * 20_000})
    changed = db._write(stored.set_quality(docs._key, info.name, {"calibration": "tail"}))
    assert dict(changed.quality) == {"retention": 0.5, "calibration": "tail"}
    assert db.check().ok


class Halving:
    """Takes half of everything."""

    name, version = "acme.half", 3
    capabilities = TransformCapabilities(requires=frozenset(), widths=frozenset({"equal"}))

    def __init__(self, version=3, broken=False):
        self.version, self.broken = version, broken
        self.parameters = {"share": Param("float", 0.5, "How much is left.", 0.0, 1.0)}

    def fit(self, data, params):
        return HalvingFit(len(data.source_space.name) * 0 + data.source_space.dim, data.role, params["share"])

    def load(self, state):
        if self.broken:
            raise RuntimeError("cannot")
        if not isinstance(state.get("dim"), int):
            raise CorruptionError("no dim", what="state")
        return HalvingFit(state["dim"], state["direction"], state["share"])


class HalvingFit:
    isometry, lipschitz = "none", 1.0

    def __init__(self, dim, direction, share):
        self.source_dim = self.target_dim = dim
        self.direction, self.share = direction, share

    def apply(self, vectors):
        return (vectors * np.float32(self.share)).astype(np.float32)

    def affine(self):
        return None

    inverse = companion = affine

    def uncertainty(self, vectors):
        return None

    def state(self):
        return {"dim": self.source_dim, "direction": self.direction, "share": self.share, "nested": {"a": [1, None]}}


class Plugin:
    def __init__(self, *things):
        self.things = things

    @vecdb.hookimpl
    def vecdb_register_transforms(self):
        return self.things


def registry(*things):
    return PluginRegistry([Plugin(*things)] if things else (), entry_points=False)


def test_a_transform_without_its_plugin_stays_and_says_why(tmp_path):
    path = tmp_path / "a.vecdb"
    with vecdb.open(path, plugins=registry(Halving()), automatic=False) as db:
        docs, _, new, _ = filled(db)
        info = docs.fit_transform("new", "old", "acme.half")
        assert info.available and not info.affine
        np.testing.assert_allclose(docs.transform(new[:4], "new", "old"), new[:4], atol=1e-6)
        assert db.check().ok
    for plugins, reason in ((registry(), "no plugin"), (registry(Halving(4)), "version 3")):
        with vecdb.open(path, plugins=plugins, automatic=False) as db:
            docs = db.collection("docs")
            assert not docs.transforms[0].available and reason in docs.transforms[0].reason
            with pytest.raises(SpaceMismatchError):
                docs.transform(new[:4], "new", "old")
            assert db.check().ok
    with vecdb.open(path, plugins=registry(Halving(broken=True)), automatic=False) as db:
        with pytest.raises(CorruptionError, match="cannot"):
            db.collection("docs").transform(new[:4], "new", "old")
        assert not db.check().ok
        db.collection("docs").drop_transform("new-to-old-acme.half")
        assert db.check().ok


def test_of_many_pairs_a_sample_is_taken(db, monkeypatch):
    docs, *_ = filled(db)
    monkeypatch.setattr("vecdb.engine.pairing.MAX_PAIRS", 80)
    info = docs.fit_transform("new", "old")
    assert info.pairs + 2 * info.reference == 80 and MAX_PAIRS > 80


@pytest.mark.parametrize("count", [0, 1, 39, 40, 100, 5_000])
def test_a_split_has_no_overlap(count):
    rows = np.arange(count, dtype=np.float32)[:, None]
    split = split_pairs(PairSet(rows, rows, tuple(range(count))), reference=256, seed=3)
    if count < 40:
        assert split.fit.source.tolist() == rows.tolist() and not split.held_out and split.validation is None
        return
    parts = [split.fit, split.validation, split.reference]
    values = np.concatenate([part.source[:, 0] for part in parts])
    assert sorted(values.tolist()) == list(range(count))
    assert all(list(part.ids) == part.source[:, 0].astype(int).tolist() for part in parts)
    assert len(split.reference) == min(256, count // 8)


# --- what a fit is given besides pairs --------------------------------------------------------------------


class Watching:
    """A kind that keeps what it was given and fits nothing."""

    name, version, parameters = "acme.watch", 1, {}
    capabilities = TransformCapabilities(min_pairs=1)

    def __init__(self):
        self.seen = []

    def fit(self, data, params):
        self.seen.append(data)
        raise FitError("seen", pairs=0, needed=1)

    def load(self, state):
        raise CorruptionError("nothing")


class Offering:
    def __init__(self, kind, answer=None):
        self.kind, self.answer, self.asked = kind, answer, []

    @vecdb.hookimpl
    def vecdb_register_transforms(self):
        return [self.kind]

    @vecdb.hookimpl
    def vecdb_choose_transform(self, source, target, pairs):
        self.asked.append((source.name, target.name, pairs))
        return self.answer


@pytest.fixture
def watched(tmp_path):
    plugin = Offering(Watching())
    with vecdb.open(tmp_path / "w.vecdb", automatic=False, plugins=[plugin]) as opened:
        yield opened, plugin


@pytest.mark.parametrize("direction", ["query", "gallery"])
def test_a_fit_is_given_queries_of_both_models_and_stored_vectors_without_partners(watched, direction):
    db, plugin = watched
    docs, old, new, _ = filled(db, n=120, both=70)
    spaces = ("new", "old") if direction == "query" else ("old", "new")
    with pytest.raises(FitError):
        docs.fit_transform(*spaces, "acme.watch", direction=direction, queries=2 * new[:30], queries_across=old[:20])
    data = plugin.kind.seen[-1]
    np.testing.assert_allclose(data.queries, new[:30], atol=1e-6)
    np.testing.assert_allclose(data.queries_across, old[:20], atol=1e-6)
    np.testing.assert_allclose(data.stored, old[70:], atol=1e-6)
    for rows in (data.queries, data.queries_across, data.stored):
        assert not rows.flags.writeable


def test_what_is_not_known_is_none(watched):
    db, plugin = watched
    docs, *_ = filled(db, n=60, both=60)
    with pytest.raises(FitError):
        docs.fit_transform("new", "old", "acme.watch")
    data = plugin.kind.seen[-1]
    assert data.queries is None and data.queries_across is None and data.stored is None


def test_more_stored_vectors_than_are_wanted_are_a_sample(watched, monkeypatch):
    monkeypatch.setattr("vecdb.engine.pairing.MAX_ALONE", 20)
    db, plugin = watched
    docs, old, *_ = filled(db, n=120, both=70)
    for _ in range(2):
        with pytest.raises(FitError):
            docs.fit_transform("new", "old", "acme.watch", seed=3)
    one, other = (data.stored for data in plugin.kind.seen)
    assert np.array_equal(one, other) and one.shape == (20, 12)
    assert all((np.abs(old[70:] - row).max(1) < 1e-6).any() for row in one)


@pytest.mark.parametrize("queries", [None, 3])
def test_queries_that_only_the_other_model_knows_are_refused(db, queries):
    docs, old, new, _ = filled(db)
    with pytest.raises(ParameterError) as caught:
        docs.fit_transform("new", "old", queries=None if queries is None else new[:queries], queries_across=old[:4])
    assert "queries_across" in str(caught.value) and docs.transforms == ()


def test_auto_is_what_a_plugin_chooses_else_the_kind_of_that_name(watched):
    db, plugin = watched
    docs, *_ = filled(db)
    info = docs.fit_transform("new", "old", "auto")
    assert info.kind == "auto" and plugin.asked == [("new", "old", 200)]
    plugin.answer = ("procrustes", {"center": False, "scale": "none"})
    info = docs.fit_transform("new", "old", "auto", params={"scale": "variance"})
    assert info.kind == "procrustes" and info.params["scale"] == "variance" and info.params["center"] is False
    plugin.answer = "ridge"
    with pytest.raises(vecdb.errors.PluginError):
        docs.fit_transform("new", "old", "auto")
