"""One index for two real models: what a joint space finds, beside exact scans of both and beside two indexes."""

import gzip
import json

import numpy as np
import pytest

import vecdb
from vecdb import sample
from vecdb.engine.joint import nominating

K = 10


class Upgrade:
    """A collection of two real models, a share of it embedded anew, with one joint index and, if asked, two others."""

    def __init__(self, db, old, new, share, kind, *, both=False, pairs=1_000):
        self.docs = db.create_collection(f"{kind} {share}")
        self.docs.add_space("old", dim=old.shape[1], model="one")
        self.docs.add_space("new", dim=new.shape[1], model="other")
        order = np.random.default_rng(0).permutation(len(old))
        cut = int(share * len(old))
        self.fresh = {int(place) for place in order[:cut]}
        for space, rows, places in (("new", new, order[:cut]), ("old", old, order[cut:])):
            if len(places):
                self.docs.upsert(places.tolist(), {space: rows[places]})
        self.docs.fit_transform("new", "old", "bt2", pairs=(new[:pairs], old[:pairs]), name="up")
        self.docs.add_joint_space("joint", "up")
        for space in ("old", "new", "joint") if both else ("joint",):
            if len(self.docs.vector_order(space)):
                self.docs.create_index(space, kind)

    def found(self, queries, space, **more):
        return [self.docs.search(query, K, space=space, include=(), **more) for query in queries]

    def shares(self, queries, space, **more):
        """Return what share of the exact mixed answer's best ten a search finds."""
        exact = self.found(queries, space, exact=True)
        found = self.found(queries, space, **more)
        return np.mean([len(set(a.ids) & set(b.ids)) / K for a, b in zip(exact, found, strict=True)])


@pytest.fixture(scope="module")
def data():
    return sample.load()


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


@pytest.fixture
def eager(monkeypatch):
    monkeypatch.setattr(nominating, "SMALL", 0)


def asked(data, model):
    return data.queries.vectors[model]


@pytest.mark.parametrize("kind", ["flat", "rabitq", "ivf", "graph"])
def test_queries_of_both_models_are_served_by_one_index_of_any_type(db, data, eager, kind):
    upgrade = Upgrade(db, *(data.documents.vectors[name] for name in ("wl256", "mini6")), 0.5, kind)
    assert [index.space for index in upgrade.docs.indexes] == ["joint"]
    assert upgrade.shares(asked(data, "mini6"), "new", spaces=["joint"]) > 0.93
    assert upgrade.shares(asked(data, "wl256"), "old", spaces=["joint"]) > 0.93
    assert upgrade.shares(asked(data, "mini6"), "new", spaces=["joint"], recall=1.0) == 1.0


def test_new_with_new_is_native_to_the_bit_and_old_vectors_are_not_touched(db, data, eager):
    old, new = (data.documents.vectors[name] for name in ("wl256", "mini6"))
    upgrade = Upgrade(db, old, new, 0.5, "flat")
    before = {
        record.id: record.vectors["old"].tobytes() for record in upgrade.docs.scan(vectors="old") if record.vectors
    }
    for query in asked(data, "mini6"):
        native = upgrade.docs.search(query, K, space="new", spaces="native")
        joint = upgrade.docs.search(query, 40, space="new", spaces=["joint"])
        mine = [hit for hit in joint if hit.origin == "native"][:K]
        assert [hit.id for hit in mine] == native.ids[: len(mine)]
        assert [hit.score for hit in mine] == [hit.score for hit in native[: len(mine)]]
    rest = [place for place in range(len(old)) if place not in upgrade.fresh]
    upgrade.docs.upsert(rest, {"old": old[rest], "new": new[rest]})
    upgrade.docs.optimize()
    for query in asked(data, "mini6"):  # everything is embedded anew
        native = upgrade.docs.search(query, K, space="new", spaces="native")
        joint = upgrade.docs.search(query, K, space="new", spaces=["joint"])
        assert joint.ids == native.ids and list(joint.scores) == list(native.scores)
    after = {
        record.id: record.vectors["old"].tobytes() for record in upgrade.docs.scan(vectors="old") if record.vectors
    }
    assert after == before and db.check().ok


def test_with_old_vectors_alone_it_is_the_map(db, data, eager):
    old, new = (data.documents.vectors[name] for name in ("wl256", "mini6"))
    upgrade = Upgrade(db, old, new, 0.0, "flat")
    for query in asked(data, "mini6"):
        exact = upgrade.docs.search(query, K, space="new", exact=True)
        joint = upgrade.docs.search(query, K, space="new", spaces=["joint"])
        assert joint.ids == exact.ids and list(joint.scores) == list(exact.scores)


# --- on a part of the shared data ---


def _rows(folder, name, part, stop):
    rows = np.load(next(folder.glob(f"{name}.{part}.*.npy")), mmap_mode="r")[:stop].astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def debian(shared_data):
    """Two models on 8,000 documents, and on the training queries that one of these answers."""
    folder = shared_data / "debian"
    with gzip.open(folder / "queries.jsonl.gz", "rt") as file:
        answers = np.array([json.loads(line)["rel"] for line in file][:1_400])
    here = 800 + np.flatnonzero((answers[800:] >= 0) & (answers[800:] < 8_000))[:120]
    docs = [_rows(folder, name, "docs", 8_000) for name in ("mini6", "e5s")]
    queries = [_rows(folder, name, "queries", 1_400)[here] for name in ("mini6", "e5s")]
    return docs, queries, answers[here]


@pytest.mark.shared_data
@pytest.mark.parametrize("kind", ["rabitq", "graph"])
def test_one_index_finds_nearly_what_two_do_and_crosses_as_well_as_the_map(db, debian, kind):
    (old, new), (old_asked, new_asked), answers = debian
    upgrade = Upgrade(db, old, new, 0.5, kind, both=True, pairs=2_000)
    one = upgrade.shares(new_asked, "new", spaces=["joint"])
    two = upgrade.shares(new_asked, "new")
    assert one > 0.93 and one > two - 0.05
    assert upgrade.shares(old_asked, "old", spaces=["joint"]) > 0.93
    assert upgrade.shares(new_asked, "new", spaces=["joint"], recall=0.95) > 0.9
    stale = [place for place, answer in enumerate(answers) if int(answer) not in upgrade.fresh]
    crossed = [
        np.mean([int(answers[place]) in hits.ids for place, hits in zip(stale, found, strict=True)])
        for found in (
            upgrade.found(new_asked[stale], "new", spaces=["joint"]),
            upgrade.found(new_asked[stale], "new", exact=True),
        )
    ]
    assert crossed[0] > crossed[1] - 0.05
