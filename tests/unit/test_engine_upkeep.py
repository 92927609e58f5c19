"""Housekeeping, inspection and the guard, by what they leave in a database (vecdb/engine/)."""

import pickle

import numpy as np
import pytest

import vecdb
from vecdb import errors
from vecdb.engine import guard, housekeeping, inspection
from vecdb.storage.format import pack_sealed, u32, u32_u64, u64
from vecdb.storage.records import id_place, record_key
from vecdb.storage.spaces import profile_key
from vecdb.storage.spare import read_spare
from vecdb.storage.state import collection_key


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


def vectors(count, dim=256, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def open_docs(path, **options):
    db = vecdb.open(path, durability="relaxed", **options)
    docs = db.create_collection("docs", exist_ok=True)
    if not docs.spaces:
        docs.add_space("s", dim=256, metric="dot")
    return db, docs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.vecdb"


# --- housekeeping -----------------------------------------------------------------------------------------


def test_rewriting_the_same_records_keeps_few_dead(path):
    db, docs = open_docs(path, retention=0)
    with db:
        for turn in range(12):
            docs.upsert(range(1500), {"s": vectors(1500, seed=turn)}, trust=True)
        stats = docs.stats()["spaces"]["s"]
        assert stats["vectors"] == 1500 and stats["dead"] <= 2 * 1500
        assert db.stats()["file_bytes"] < 5 * 1500 * 1024 + (4 << 20)
        assert docs.search(vectors(1, seed=11)[0], 5).complete and db.check().ok


@pytest.mark.parametrize("kind", ["rabitq", "graph", "flat"])
def test_compacting_leaves_out_indexes_of_mostly_dead_vectors(path, kind):
    """Codes of what is gone are not copied; the index is made anew over what is left."""
    db, docs = open_docs(path, automatic=False)
    with db:
        rows = vectors(6_000)
        docs.upsert(range(6_000), {"s": rows}, trust=True)
        docs.optimize()
        if not docs.indexes or docs.indexes[0].kind != kind:
            docs.create_index("s", kind)
        before = db.stats()["file_bytes"]
        docs.delete(list(range(600, 6_000)))
        db.compact()
        assert db.stats()["file_bytes"] <= 0.15 * before
        found = docs.search(rows[77], 5)
        assert found.ids == docs.search(rows[77], 5, exact=True).ids and found.ids[0] == 77
        assert db.check().ok
        docs.optimize()
        assert db.check().ok and docs.search(rows[77], 5, exact=True).ids == found.ids


def test_compacting_keeps_indexes_of_mostly_living_vectors(path):
    db, docs = open_docs(path, automatic=False)
    with db:
        docs.upsert(range(3_000), {"s": vectors(3_000)}, trust=True)
        docs.optimize()
        docs.create_index("s", "flat")
        docs.delete(list(range(0, 3_000, 3)))
        db.compact()
        assert docs.indexes[0].parts == 1 and docs.indexes[0].coverage == 1.0


def test_nothing_is_repacked_while_a_reader_holds_the_old_blocks(path, monkeypatch):
    """Their pages cannot be used again yet, so the file would only grow; when the reader has gone, it goes on."""
    monkeypatch.setattr(housekeeping, "_BREATH", 0.0)
    db, docs = open_docs(path, retention=0)
    with db:
        rows = vectors(4000)
        docs.upsert(list(range(4000)), {"s": rows}, trust=True)
        store, number = db._opened(), docs.spaces["s"].id

        def rewrite(turns):
            for turn in range(turns):
                ids = list(range(turn * 100, turn * 100 + 100))
                docs.upsert(ids, {"s": rows[ids]}, trust=True)

        rewrite(20)
        repacked = store.settled[number].commit
        assert repacked > 0
        with store.env.lease():
            rewrite(10)
            held = store.settled[number].commit  # of the one step that did not have to wait, if any
            rewrite(20)
            assert store.settled[number].commit == held
        rewrite(40)
        assert store.settled[number].commit > held


def test_spare_blocks_are_listed_and_go_with_compact_and_with_their_space(path, monkeypatch):
    monkeypatch.setattr(housekeeping, "_BREATH", 0.0)
    db, docs = open_docs(path, retention=0)

    def spare():
        with db._opened().env.lease() as tx:
            return read_spare(tx, docs.spaces["s"].id)

    def rewrite():
        for turn in range(90):  # what one repacking leaves, the commits after it use up
            ids = list(range(turn * 40, turn * 40 + 40))
            docs.upsert(ids, {"s": rows[ids]}, trust=True)
            if turn > 30 and spare():
                break

    with db:
        rows = vectors(4000)
        docs.upsert(list(range(4000)), {"s": rows}, trust=True)
        rewrite()
        assert spare() and db.check().ok
        db.compact()
        assert not spare() and db.check().ok
        rewrite()
        assert spare()
        number = docs.spaces["s"].id
        docs.drop_space("s")
        assert db.check().ok
        with db._opened().env.lease() as tx:
            assert read_spare(tx, number) == [] and tx.entries("blocks")["entries"] == 0


def test_the_dead_stay_while_history_needs_them_and_go_afterwards(path):
    db, docs = open_docs(path)
    with db:
        docs.upsert(range(2000), {"s": vectors(2000)}, trust=True)
        kept = docs.search(vectors(1)[0], 50)
        db.tag("before")
        docs.upsert(range(2000), {"s": vectors(2000, seed=1)}, trust=True)
        docs.optimize()
        assert docs.stats()["spaces"]["s"]["dead"] == 2000
        again = docs.search(vectors(1)[0], 50, as_of="before")
        assert again.ids == kept.ids and again.scores.tobytes() == kept.scores.tobytes()
        db.untag("before")
        db.compact()
        assert docs.stats()["spaces"]["s"]["dead"] == 0 and len(docs) == 2000


def test_many_small_commits_do_not_pile_up(path):
    db, docs = open_docs(path, retention=0)
    with db:
        for number in range(200):
            docs.upsert([number], {"s": vectors(1, seed=number)}, [{"n": number}])
        docs.optimize()
        assert docs.stats()["spaces"]["s"]["tail"] == 0 and docs.stats()["unsealed_columns"] == 0
        assert docs.count({"n": {"$lt": 50}}) == 50 and db.check().ok


def test_optimize_is_not_a_commit(path):
    db, docs = open_docs(path)
    with db:
        docs.upsert(range(100), {"s": vectors(100)}, trust=True)
        seq, log = db.seq, db.commits()
        assert docs.optimize() > 0
        assert db.seq == seq and db.commits() == log


# --- proof ------------------------------------------------------------------------------------------------


def damage(db, work):
    """Change stored bytes behind everybody's back."""
    store = db._store
    tx = store.env.begin_write()
    work(tx)
    store.env.commit(tx)
    store.env.refresh()


@pytest.fixture
def sound(path):
    db, docs = open_docs(path)
    with db:
        docs.upsert(range(1300), {"s": vectors(1300)}, [{"n": n} for n in range(1300)], trust=True)
        docs.set_metadata([5], [{"n": "changed"}])
        docs.delete([7])
        assert db.check().ok
        yield db


def entry(db):
    return db.collection("docs")._number, db.collection("docs").spaces["s"].id


def flip(table, key, place=-1):
    def work(tx):
        value = bytearray(tx.get(table, key))
        value[place] ^= 4
        tx.put(table, key, bytes(value))

    return work


@pytest.mark.parametrize(
    "work",
    [
        lambda tx, number, space: tx.delete("records", record_key(number, 3)),
        lambda tx, number, space: tx.delete("ids", id_place(number, b"i" + u64(2**63 + 3))),
        lambda tx, number, space: tx.put("ids", id_place(number, b"sghost"), u64(3)),
        lambda tx, number, space: tx.put("ids", id_place(number, b"i" + u64(2**63 + 3)), u64(4)),
        lambda tx, number, space: flip("records", record_key(number, 3))(tx),
        lambda tx, number, space: flip("log", u64(2))(tx),
        lambda tx, number, space: flip("meta", collection_key(number))(tx),
        lambda tx, number, space: tx.delete("log", u64(3)),
        lambda tx, number, space: tx.delete_range("deaths", u32(space)),
        lambda tx, number, space: tx.put("blocks", u64(10**6), b"nobody's"),
        lambda tx, number, space: tx.delete_range("tail", u32(space)),
        lambda tx, number, space: tx.delete_range("segments", u32(space)),
        lambda tx, number, space: tx.delete_range("blocks", b"", limit=1),
        lambda tx, number, space: tx.delete_range("columns", u32(number) + b"d"),
        lambda tx, number, space: tx.delete_range("columns", u32(number) + b"m"),
        lambda tx, number, space: tx.delete_range("columns", u32(number) + b"i"),
        lambda tx, number, space: flip("columns", u32(number) + b"c" + u64(1))(tx),
        lambda tx, number, space: flip("history", b"r" + u32_u64(number, 5) + u64(4))(tx),
    ],
)
def test_check_names_every_kind_of_damage(sound, work):
    number, space = entry(sound)
    damage(sound, lambda tx: work(tx, number, space))
    try:
        report = sound.check()
    except errors.CorruptionError:
        return
    assert not report.ok and report.problems


@pytest.mark.parametrize("place", [0, 100, 5000, 300_000, 900_000])
def test_check_reads_blocks_again_whatever_was_verified_before(sound, place):
    docs = sound.collection("docs")
    assert docs.search(np.ones(256), 5).complete
    with sound._read() as snapshot:
        [ref, *_] = snapshot.space(*_space(docs)).refs
    damage(sound, flip("blocks", u64(ref.id), place))
    with pytest.raises(errors.CorruptionError):
        docs.search(np.ones(256), 5)
    report = sound.check()
    assert not report.ok and any(str(ref.id) in problem for problem in report.problems)


def _space(docs):
    return docs._number, docs.spaces["s"]


def test_proving_a_file_that_is_not_sound(sound, tmp_path):
    number, _ = entry(sound)
    sound.backup(tmp_path / "copy.vecdb")
    inspection.prove_file(tmp_path / "copy.vecdb")
    damage(sound, lambda tx: tx.delete("records", record_key(number, 3)))
    with pytest.raises(errors.CorruptionError):
        sound.backup(tmp_path / "bad.vecdb")
    with pytest.raises(errors.CorruptionError):
        sound.compact()
    assert sorted(file.name for file in tmp_path.iterdir() if "bad" in file.name or "compacting" in file.name) == []
    assert len(sound.collection("docs")) == 1299


# --- the guard --------------------------------------------------------------------------------------------


def model(seed, count, dim=64):
    rng = np.random.default_rng((seed, 1))
    base = np.random.default_rng((seed, 2)).standard_normal((8, dim))
    return (rng.standard_normal((count, 8)) @ base + 0.1 * rng.standard_normal((count, dim))).astype(np.float32)


def test_the_guards_sample_is_of_the_living_and_the_same_each_time(path):
    db, docs = open_docs(path)
    with db:
        docs.upsert(range(5000), {"s": vectors(5000)}, trust=True)
        docs.delete(range(0, 5000, 5))
        with db._read() as snapshot:
            view = snapshot.space(*_space(docs))
            first, second = guard.sample_vectors(snapshot, view), guard.sample_vectors(snapshot, view)
        assert len(first) == min(4000, guard.SAMPLE_ROWS) and first.tobytes() == second.tobytes()
        dead = {row.tobytes() for row in vectors(5000)[::5]}
        assert not any(row.tobytes() in dead for row in first)


def test_a_profile_outlives_the_process_and_goes_with_its_space(path):
    with vecdb.open(path, durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=64)
        docs.upsert(range(2500), {"m": model(1, 2500)})
        assert not docs.stats()["spaces"]["m"]["profiled"]
        docs.upsert(range(2500, 2600), {"m": model(1, 2600)[2500:]})
        assert docs.stats()["spaces"]["m"]["profiled"] and db.check().counts["profiles"] == 1
    with vecdb.open(path, durability="relaxed") as db:
        docs = db.collection("docs")
        with pytest.raises(errors.WrongModelError):
            docs.upsert(range(100), {"m": model(2, 100)})
        docs.upsert(range(100), {"m": model(1, 100)})
        docs.drop_space("m")
        assert "profiles" not in db.check().counts


DAMAGE = {
    "bits": lambda key: b"x" * 30,
    "shape": lambda key: pack_sealed(key, ["not", "a", "profile"]),
    "gone": lambda key: None,
}


@pytest.fixture
def profiled(path):
    with vecdb.open(path, durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=64)
        docs.upsert(range(2500), {"m": model(1, 2500)})
        docs.upsert(range(100), {"m": model(1, 100)})
        yield db


def damage_profile(db, name):
    key = profile_key(db.collection("docs").spaces["m"])
    value = DAMAGE[name](key)
    damage(db, lambda tx: tx.delete("meta", key) if value is None else tx.put("meta", key, value))
    db._guard._profiles.clear()
    return key


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("rows", [1, 100])
def test_a_damaged_profile_is_fitted_anew(profiled, caplog, name, rows):
    docs, key = profiled.collection("docs"), damage_profile(profiled, name)
    assert not profiled.check().ok
    with pytest.raises(errors.WrongModelError):  # judged all the same
        docs.upsert(range(100), {"m": model(2, 100)})
    assert "'m' is damaged and has to be fitted anew" in caplog.text
    docs.upsert(range(rows), {"m": model(1, 100)[:rows]})
    profiled._guard._profiles.clear()
    caplog.clear()
    assert profiled.check().ok
    with profiled._read() as snapshot:
        assert snapshot.tx.get("meta", key) is not None
    with pytest.raises(errors.WrongModelError):
        docs.upsert(range(100), {"m": model(2, 100)})
    assert not caplog.text


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_profile_does_not_stop_searches(profiled, caplog, name):
    docs = profiled.collection("docs")
    damage_profile(profiled, name)
    assert docs.search(model(1, 1)[0], k=3).warnings == ()
    assert docs.search(np.random.default_rng(0).standard_normal(64), k=3).warnings
    assert "fitted anew" in caplog.text
    docs.delete(range(600))  # too few are left to fit a profile to
    assert len(docs.search(model(2, 1)[0], k=3)) == 3


def test_warnings_wait_until_they_are_looked_at(profiled):
    docs = profiled.collection("docs")
    own, foreign = model(1, 1)[0].astype(np.float32), np.random.default_rng(0).standard_normal(64).astype(np.float32)
    queries = np.stack([own, foreign])
    batch, waiting = docs.search(queries, k=3), docs.search(foreign, k=3)
    queries[:], foreign[:] = queries[::-1].copy(), own  # the caller's arrays may change meanwhile
    profiled.close()
    assert batch[0].warnings == () and len(batch[1].warnings) == 1 and "another model" in batch[1].warnings[0]
    assert len(waiting.warnings) == 1
    assert pickle.loads(pickle.dumps(batch))[1].warnings == batch[1].warnings
