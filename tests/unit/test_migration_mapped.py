"""Maps made real: images of old vectors in a space of their own, reached by a bridge, replaced by a later migration."""

import numpy as np
import pytest

import vecdb
from vecdb.errors import ExistsError, SpaceMismatchError, StateError, UnknownNameError

COUNT, OLD, NEW = 500, 10, 14
RNG = np.random.default_rng(31)
X = RNG.standard_normal((COUNT, OLD)).astype(np.float32)
Y = (X @ RNG.standard_normal((OLD, NEW)) + 0.3 * RNG.standard_normal((COUNT, NEW))).astype(np.float32)
Z = (Y @ RNG.standard_normal((NEW, 8))).astype(np.float32)


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


def embed(texts):
    return Y[[int(text) for text in texts]]


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", durability="relaxed", automatic=False) as db:
        yield db


@pytest.fixture
def docs(db):
    docs = db.create_collection("docs")
    docs.add_space("old", dim=OLD, model="old-model")
    docs.add_space("new", dim=NEW, model="new-model")
    docs.upsert(range(COUNT), {"old": X}, texts=[str(place) for place in range(COUNT)])
    docs.fit_transform("old", "new", "ridge", direction="gallery", pairs=(X[:350], Y[:350]))
    return docs


def test_images_are_those_of_the_transform_and_say_so(docs, db):
    status = docs.migrate("old", "new", via="map", batch=100).run()
    assert status.state == "complete" and status.via == "map" and status.target == "new-mapped"
    space = docs.spaces["new-mapped"]
    assert space.dim == NEW and "new-model, mapped from old-model by old-to-new-ridge" in space.model
    wanted = docs.transform(X, "old", "new", direction="gallery")
    for record in docs.scan(vectors=["new-mapped"]):
        assert np.allclose(record.vectors["new-mapped"], wanted[record.id], atol=1e-6)
        assert record.spaces == ("old", "new-mapped")
    assert db.check().counts["migrations"] == 1


def test_queries_of_the_new_model_reach_them_and_the_old_space_can_go(docs, db):
    docs.migrate("old", "new", via="map").run()
    docs.set_vectors("new", range(50), Y[:50])
    docs.migration().finish()
    assert list(docs.spaces) == ["new", "new-mapped"] and [each.kind for each in docs.transforms] == ["identity"]
    assert docs.transforms[0].reference > 40
    found = docs.search(Y[20], k=30, space="new", explain=True)
    origins = {hit.origin for hit in found}
    assert 20 in found.ids[:3] and "native" in origins and any(origin.startswith("mapped:") for origin in origins)
    assert np.mean([docs.search(Y[place], k=10, space="new").ids.count(place) for place in range(400, 500)]) > 0.5
    assert db.check().ok


def test_a_later_migration_embeds_for_real(docs, db):
    docs.migrate("old", "new", via="map").run()
    docs.migration().finish()
    m = docs.migrate("new-mapped", "new", embed, canary=0.2)
    assert m.run(300).pending == 200
    assert {hit.origin.partition(":")[0] for hit in docs.search(Y[3], k=40, space="new")} == {"native", "mapped"}
    status = m.run()
    assert status.state == "complete" and status.measured["rows"] >= 40
    m.finish()
    assert list(docs.spaces) == ["new"] and docs.transforms == () and db.check().ok
    assert docs.search(Y[3], k=1, space="new").ids == [3]


def test_a_rollback_takes_the_space_of_the_images_with_it(docs, db):
    db.compact()
    size = db.path.stat().st_size
    before = docs.search(X[:9], k=12, space="old").scores.tobytes()
    m = docs.migrate("old", "new", via="map")
    m.run(200)
    assert m.rollback().state == "rolled back"
    assert list(docs.spaces) == ["old", "new"] and [each.name for each in docs.transforms] == ["old-to-new-ridge"]
    assert docs.search(X[:9], k=12, space="old").scores.tobytes() == before and db.check().ok
    db.compact()
    assert abs(db.path.stat().st_size - size) <= 0.05 * size
    assert docs.migrate("old", "new", via="map").run().state == "complete"


def test_another_process_goes_on_without_being_told_how(docs, db, tmp_path):
    docs.migrate("old", "new", via="map", batch=64).run(100)
    db.close()
    with vecdb.open(tmp_path / "a.vecdb") as again:
        again_docs = again.collection("docs")
        assert again_docs.migration().run().state == "complete"
        wanted = again_docs.transform(X, "old", "new", direction="gallery")
        assert all(
            np.allclose(r.vectors["new-mapped"], wanted[r.id], atol=1e-6) for r in again_docs.scan(vectors="all")
        )


def test_without_a_map_of_stored_vectors_nothing_is_begun(docs, db):
    docs.drop_transform("old-to-new-ridge")
    docs.fit_transform("new", "old", "ridge", pairs=(Y[:350], X[:350]))
    seq = db.seq
    with pytest.raises(SpaceMismatchError, match="stored vectors from space 'old' to 'new'"):
        docs.migrate("old", "new", via="map")
    assert db.seq == seq and docs.migrations == () and list(docs.spaces) == ["old", "new"]


def test_what_it_needs_cannot_go_meanwhile(docs):
    m = docs.migrate("old", "new", via="map")
    m.run(50)
    with pytest.raises(StateError, match="migration 1"):
        docs.drop_space("new")
    docs.drop_transform("old-to-new-ridge")
    with pytest.raises(UnknownNameError, match="no longer lead"):
        m.run()
    m.rollback()
    assert all(record.spaces == ("old",) for record in docs.scan())


def test_the_name_of_the_images_must_be_free(docs, db):
    docs.add_space("new-mapped", dim=NEW)
    seq = db.seq
    with pytest.raises(ExistsError, match="new-mapped"):
        docs.migrate("old", "new", via="map")
    assert db.seq == seq and docs.migrations == () and len(docs.transforms) == 1


# --- chains of versions -----------------------------------------------------------------------------------


def test_three_versions_in_one_store_are_answered_along_chains(docs, db):
    """v1 -> v2 is half way when v3 arrives: its queries reach v2 directly, and v1 over v2."""
    docs.fit_transform("new", "old", "ridge", pairs=(Y[:350], X[:350]))
    docs.migrate("old", "new", embed).run(250)
    docs.add_space("third", dim=8)
    docs.fit_transform("third", "new", "ridge", pairs=(Z[:350], Y[:350]))
    origins = {hit.origin for hit in docs.search(Z[7], k=200, space="third")}
    assert len(origins) == 2 and any("+" in origin for origin in origins)
    docs.migration(embed).run()
    docs.migration().finish()
    m = docs.migrate("new", "third", lambda texts: Z[[int(text) for text in texts]])
    assert m.run().state == "complete"
    m.finish()
    assert list(docs.spaces) == ["third"] and docs.transforms == () and db.check().ok
    assert docs.search(Z[7], k=1).ids == [7]
    assert [(each.source, each.target, each.state) for each in docs.migrations] == [
        ("old", "new", "finished"),
        ("new", "third", "finished"),
    ]


# --- vectors that searches make ---------------------------------------------------------------------------


def test_vectors_that_searches_write_back_are_the_migrations_own(docs, db):
    docs.fit_transform("new", "old", "ridge", pairs=(Y[:350], X[:350]))
    before = docs.search(X[:9], k=12, space="old", spaces="native").scores.tobytes()
    m = docs.migrate("old", "new", embed)

    def ask(place):
        return docs.search(Y[place], k=5, space="new", rerank="native", encode=embed, candidates=30, writeback=True)

    assert ask(400).ids and m.status().done == 30 and m.status().pending == COUNT - 30
    m.run(100)
    m.pause("for the night")
    ask(410)
    done = m.status().done
    assert 130 < done <= 160 and m.status().paused
    m.resume()
    assert m.run().state == "complete" and ask(420).ids[0] == 420
    assert all(np.array_equal(each.vectors["new"], Y[each.id]) for each in docs.scan(vectors=["new"]))
    m.rollback()
    assert all(record.spaces == ("old",) for record in docs.scan()) and db.check().ok
    assert docs.search(X[:9], k=12, space="old", spaces="native").scores.tobytes() == before


def test_what_a_migration_has_no_part_in_is_written_back_as_ever(docs, db):
    docs.fit_transform("new", "old", "ridge", pairs=(Y[:350], X[:350]))
    docs.add_space("older", dim=8)
    docs.upsert(["ancient"], {"older": Z[:1]}, texts=["0"])
    docs.fit_transform("new", "older", "ridge", pairs=(Y[:350], Z[:350]))
    m = docs.migrate("old", "new", embed)
    docs.search(Y[0], k=5, space="new", rerank="native", encode=embed, candidates=40, writeback=True)
    assert docs.get(["ancient"])[0].spaces == ("new", "older") or docs.get(["ancient"])[0].spaces == ("older",)
    own = m.status().done
    m.rollback()
    left = [record.id for record in docs.scan() if "new" in record.spaces]
    assert own >= 39 and set(left) <= {"ancient"} and db.check().ok


def test_at_nothing_and_at_everything_one_space_answers_bit_for_bit(docs, db):
    """At 0 % it is the old space, asked with the mapped query; at 100 % what a store of new vectors alone says."""
    docs.drop_transform("old-to-new-ridge")
    docs.fit_transform("new", "old", "ridge", pairs=(Y[:350], X[:350]))
    queries = Y[400:430] + 0.1 * RNG.standard_normal((30, NEW)).astype(np.float32)
    m = docs.migrate("old", "new", embed, batch=64)
    found = docs.search(queries, k=25, space="new", include=())
    wanted = docs.search(docs.transform(queries, "new", "old"), k=25, space="old", spaces="native", include=())
    assert [hits.ids for hits in found] == [hits.ids for hits in wanted]
    assert found.scores.tobytes() == wanted.scores.tobytes()
    m.run()
    fresh = db.create_collection("fresh")
    fresh.add_space("new", dim=NEW)
    fresh.upsert(range(COUNT), {"new": Y})
    found = docs.search(queries, k=25, space="new", include=())
    wanted = fresh.search(queries, k=25, include=())
    assert [hits.ids for hits in found] == [hits.ids for hits in wanted]
    assert found.scores.tobytes() == wanted.scores.tobytes()
    assert {hit.origin for hits in found for hit in hits} == {"native"}
