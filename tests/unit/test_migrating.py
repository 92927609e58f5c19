"""A migration as an application runs it: every state, both ends, what it leaves alone, and who may do what when."""

import threading

import numpy as np
import pytest

import vecdb
from vecdb import errors
from vecdb.engine.migration import work

COUNT, OLD, NEW = 300, 6, 9
RNG = np.random.default_rng(5)
X = RNG.standard_normal((2 * COUNT, OLD)).astype(np.float32)
TURN = RNG.standard_normal((OLD, NEW)).astype(np.float32)
Y = X @ TURN
IDS = [f"r{place}" for place in range(COUNT)]


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


def embed(texts):
    """The new model: a text is the number of its row."""
    return Y[[int(text) for text in texts]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "news.vecdb"


@pytest.fixture
def db(path):
    with vecdb.open(path, automatic=False, durability="relaxed") as db:
        yield db


@pytest.fixture
def docs(db):
    docs = db.create_collection("docs")
    docs.add_space("old", dim=OLD)
    docs.add_space("new", dim=NEW)
    docs.upsert(IDS, vectors={"old": X[:COUNT]}, texts=[str(place) for place in range(COUNT)])
    return docs


def answers(docs, **options):
    """Every answer of the old space that a rollback has to restore, to the last bit."""
    found = docs.search(X[:20], k=15, space="old", include=(), **options)
    return [hits.ids for hits in found], found.scores.tobytes()


def test_from_prepared_to_finished(docs, db):
    m = docs.migrate("old", "new", embed, batch=64)
    assert (m.status().state, m.status().pending, m.status().done) == ("prepared", COUNT, 0)
    status = m.run(100)
    assert status.state == "backfilling" and status.done == 100 and status.pending == COUNT - 100
    assert status.total == COUNT and 0.3 < status.share < 0.4 and status.rate > 0 and status.remaining > 0
    status = m.run()
    assert status.state == "complete" and status.pending == 0 and status.share == 1.0
    assert db.check().ok
    m.finish()
    assert list(docs.spaces) == ["new"] and m.status().state == "finished" and not m.status().active
    alone = docs.search(Y[7], k=3)
    assert alone.ids[0] == "r7" and db.check().ok and db.tags() == {}
    assert [each.source for each in docs.migrations] == ["old"]


def test_the_vectors_are_those_of_the_encoder(docs):
    docs.migrate("old", "new", embed).run()
    for record in docs.scan(vectors=["old", "new"]):
        assert np.array_equal(record.vectors["new"], Y[int(record.text)])
        assert np.array_equal(record.vectors["old"], X[int(record.text)])


@pytest.mark.parametrize("done", [0, 1, 130, None])
def test_rollback_restores_every_answer_and_the_size(docs, db, path, done):
    db.compact()
    before, size = answers(docs), path.stat().st_size
    stored = [(record.id, record.version, record.text) for record in docs.scan()]
    m = docs.migrate("old", "new", embed, batch=50)
    m.run(done)
    during = answers(docs)
    status = m.rollback()
    assert status.state == "rolled back" and status.only_new == () and db.tags() == {}
    assert answers(docs) == before == during
    assert [(record.id, record.version, record.text) for record in docs.scan(vectors="all")] == stored
    assert all(record.spaces == ("old",) for record in docs.scan())
    db.compact()
    assert abs(path.stat().st_size - size) <= 0.05 * size and db.check().ok


def test_a_rolled_back_migration_can_be_begun_again(docs, db):
    docs.migrate("old", "new", embed).run(40)
    docs.migration().rollback()
    again = docs.migrate("old", "new", embed)
    assert again.run().state == "complete" and again.status().number == 2
    assert [each.state for each in docs.migrations] == ["rolled back", "complete"] and db.check().ok


def test_it_goes_on_in_another_process_from_what_the_file_says(docs, db, path):
    docs.migrate("old", "new", embed, policy="random", batch=32, seed=3).run(70)
    db.close()
    with vecdb.open(path) as again:
        m = again.collection("docs").migration(embed)
        assert m.status().done == 70 and m.run().done == COUNT
    assert docs.name == "docs"


def test_interrupted_or_not_the_order_is_the_same(docs, db, tmp_path):
    seen = {}
    db.backup(tmp_path / "copy.vecdb")
    db.close()
    for name, limits in (("news", [10_000]), ("copy", [1, 17, 64, 3, 10_000])):
        order = seen.setdefault(name, [])
        with vecdb.open(tmp_path / f"{name}.vecdb", durability="relaxed") as each:
            each.collection("docs").migrate("old", "new", None, batch=3)
            for limit in limits:
                each.collection("docs").migration(lambda texts, order=order: order.extend(texts) or embed(texts)).run(
                    limit
                )
    assert seen["news"] == seen["copy"] and sorted(map(int, seen["news"])) == list(range(COUNT))


def test_the_old_state_stays_readable_while_it_runs(docs, db):
    before = answers(docs)
    m = docs.migrate("old", "new", embed)
    m.run(100)
    docs.delete(IDS[:30])
    docs.upsert(["later"], vectors={"old": X[COUNT : COUNT + 1]}, texts=[str(COUNT)])
    tag = m.status().tag
    assert answers(docs, as_of=tag) == before and docs.count(as_of=tag) == COUNT
    db.compact()
    assert answers(docs, as_of=tag) == before
    db.compact(keep="nothing")
    assert answers(docs, as_of=tag) == before
    with pytest.raises(errors.StateError, match="active"):
        db.untag(tag)
    m.rollback()
    with pytest.raises(errors.TagMissingError):
        docs.count(as_of=tag)


def test_history_is_kept_for_it_where_none_is_kept_otherwise(tmp_path):
    with vecdb.open(tmp_path / "short.vecdb", retention=0) as db:
        docs = db.create_collection("docs")
        docs.add_space("old", dim=OLD)
        docs.add_space("new", dim=NEW)
        docs.upsert(IDS, vectors={"old": X[:COUNT]}, texts=[str(place) for place in range(COUNT)])
        before = answers(docs)
        m = docs.migrate("old", "new", embed)
        m.run(200)
        docs.delete(IDS[5:9])
        assert answers(docs, as_of=m.status().tag) == before


# --- writes meanwhile -------------------------------------------------------------------------------------


def test_records_written_meanwhile(docs, db):
    m = docs.migrate("old", "new", embed)
    m.run(150)
    docs.upsert(["fresh"], vectors={"new": Y[400:401]}, texts=["400"])
    docs.upsert(["waits"], vectors={"old": X[401:402]}, texts=["401"])
    docs.upsert(["r3"], vectors={"old": X[402:403]}, texts=["402"])
    docs.delete(["r4"])
    status = m.run()
    assert status.pending == 0 and status.only_new == ("fresh",)
    (waits, third) = docs.get(["waits", "r3"], vectors=["new"])
    assert np.array_equal(waits.vectors["new"], Y[401]) and np.array_equal(third.vectors["new"], Y[402])
    docs.upsert(["last"], vectors={"old": X[403:404]}, texts=["403"])
    assert m.status().pending == 1 and m.run().pending == 0
    status = m.rollback()
    assert status.only_new == ("fresh",)
    fresh, last = docs.get(["fresh", "last"])
    assert fresh.spaces == ("new",) and last.spaces == ("old",) and db.check().ok


def test_a_record_that_changes_while_it_is_embedded_keeps_its_change(docs):
    def slow(texts):
        if "7" in texts:
            docs.upsert(["r7"], vectors={"old": X[500:501]}, texts=["500"])
            docs.delete(["r8"])
        return embed(texts)

    m = docs.migrate("old", "new", slow, canary=0.0, batch=COUNT)
    assert m.run().pending == 0
    (record,) = docs.get(["r7"], vectors=["new"])
    assert record.text == "500" and np.array_equal(record.vectors["new"], Y[500]) and "r8" not in docs


def test_vectors_of_the_target_from_before_are_kept(docs):
    docs.set_vectors("new", IDS[:10], Y[:10])
    m = docs.migrate("old", "new", embed)
    assert m.status().pending == COUNT - 10
    m.run()
    m.rollback()
    assert [record.id for record in docs.scan() if "new" in record.spaces] == IDS[:10]


def test_a_vector_that_somebody_put_in_the_place_of_a_migrated_one_stays(docs):
    m = docs.migrate("old", "new", embed)
    m.run()
    docs.set_vectors("new", ["r5"], Y[499:500])
    m.rollback()
    (record,) = docs.get(["r5"], vectors="all")
    assert np.array_equal(record.vectors["new"], Y[499]) and record.spaces == ("old", "new")


def test_versions_are_those_of_the_writers(docs):
    docs.migrate("old", "new", embed).run()
    assert {record.version for record in docs.scan()} == {1}
    docs.upsert(["r1"], vectors={"old": X[:1]}, if_version=1)


def embed_old(texts):
    """The old model, while it still runs."""
    return X[[int(text) for text in texts]]


def test_with_the_old_encoder_a_new_record_gets_both_vectors_in_one_commit(docs, db):
    m = docs.migrate("old", "new", embed, encode_old=embed_old)
    m.run(50)
    seq = db.seq
    docs.upsert(["a", "b", "c"], {"new": Y[400:403]}, texts=["400", "401", None])
    docs.insert(["d"], {"new": Y[403:404], "old": X[599:600]}, texts=["403"])
    docs.upsert(["e", "f"], {"new": [Y[404], Y[405]], "old": [X[598], None]}, texts=["404", "405"])
    assert db.seq == seq + 3 and m.status().only_new == ("c",)
    found = docs.get(["a", "b", "d", "e", "f"], vectors="all")
    assert [np.flatnonzero((record.vectors["old"] == X).all(axis=1))[0] for record in found] == [
        400,
        401,
        599,
        598,
        405,
    ]
    with db.transaction():
        docs.upsert(["g"], {"new": Y[406:407]}, texts=["406"])
    assert m.rollback().only_new == ("c",)
    assert docs.search(X[406], k=1, space="old").ids == ["g"] and db.check().ok


def test_a_run_gives_old_vectors_to_what_others_wrote(docs):
    docs.migrate("old", "new", embed).run(50)
    docs.upsert(["a", "b"], {"new": Y[400:402]}, texts=["400", "401"])
    m = docs.migration(embed, encode_old=embed_old)
    assert m.status().only_new == ("a", "b")
    assert m.run().only_new == ()
    assert docs.search(X[400], k=1, space="old").ids == ["a"]
    m.rollback()
    assert {record.spaces for record in docs.get(["a", "b"])} == {("old", "new")}


def test_an_old_encoder_that_fails_fails_the_write(docs, db):
    def down(texts):
        raise ConnectionError("gone")

    docs.migrate("old", "new", embed, encode_old=down, retries=0)
    seq = db.seq
    with pytest.raises(errors.EncoderError, match="'old'"):
        docs.upsert(["a"], {"new": Y[:1]}, texts=["0"])
    docs.upsert(["a"], {"old": X[:1]}, texts=["0"])
    docs.delete(["a"])
    assert db.seq == seq + 2
    docs.migration(encode_old=lambda texts: [None] * len(texts))
    docs.upsert(["a"], {"new": Y[:1]}, texts=["0"])
    assert docs.migration().status().only_new == ("a",)


def test_after_its_end_nobody_asks_the_old_encoder(docs):
    asked = []
    m = docs.migrate("old", "new", embed, encode_old=lambda texts: asked.append(texts) or embed_old(texts))
    m.run()
    m.finish()
    docs.upsert(["a"], {"new": Y[:1]}, texts=["0"])
    assert asked == [] and docs.migration(encode_old=embed_old).status().state == "finished"


def test_a_merge_with_another_text_leaves_no_vector_of_the_old_text(docs):
    m = docs.migrate("old", "new", embed)
    m.run()
    docs.upsert(["r1"], {"old": X[400:401]}, texts=["400"], merge=True)
    docs.upsert(["r2"], {"new": Y[401:402]}, texts=["401"], merge=True)
    docs.upsert(["r3"], {"old": X[402:403]}, texts=["3"], merge=True)  # the text that it has
    docs.upsert(["r4"], {"old": X[403:404]}, merge=True)
    docs.upsert(["r5"], texts=["5 or so"], merge=True)
    docs.set_vectors("old", ["r6"], X[404:405])
    status = m.status()
    assert status.pending == 1 and status.only_new == ("r2",)
    assert m.run().pending == 0
    assert np.array_equal(docs.get(["r1"], vectors=["new"])[0].vectors["new"], Y[400])
    m.rollback()
    docs.upsert(["r2"], {"old": X[401:402]}, texts=["402"], merge=True)
    assert docs.get(["r2"])[0].spaces == ("old", "new")  # without a migration a merge keeps what is not given


# --- pausing and refusing ---------------------------------------------------------------------------------


def test_pause_and_resume(docs):
    m = docs.migrate("old", "new", embed)
    m.run(20)
    m.pause("the budget of today is spent")
    with pytest.raises(errors.StateError, match="budget of today"):
        m.run()
    assert m.status().paused == "the budget of today is spent" and m.status().done == 20
    m.resume()
    assert m.run().state == "complete"


def test_a_pause_from_elsewhere_stops_a_run(docs):
    def pausing(texts):
        docs.migration().pause("elsewhere")
        return embed(texts)

    m = docs.migrate("old", "new", pausing, batch=16, canary=0.0)
    status = m.run()
    assert status.done == 0 and status.paused == "elsewhere"


def test_a_rollback_from_elsewhere_stops_a_run(docs):
    def undoing(texts):
        if len(docs.migrations) == 1 and docs.migration().status().done >= 64:
            docs.migration().rollback()
        return embed(texts)

    m = docs.migrate("old", "new", undoing, batch=16)
    assert m.run().state == "rolled back"
    assert all(record.spaces == ("old",) for record in docs.scan())


def test_one_at_a_time_and_its_spaces_stay(docs):
    m = docs.migrate("old", "new", embed)
    with pytest.raises(errors.StateError, match="being migrated from 'old' to 'new'"):
        docs.migrate("old", "new", embed)
    for space in ("old", "new"):
        with pytest.raises(errors.StateError, match="migration 1"):
            docs.drop_space(space)
    docs.rename_space("new", "newer")
    assert m.status().target == "newer" and m.run().pending == 0
    m.finish()
    assert list(docs.spaces) == ["newer"]


def test_finish_refuses_to_leave_records_out(docs):
    m = docs.migrate("old", "new", embed)
    with pytest.raises(errors.StateError, match="is prepared"):
        m.finish()
    m.run(10)
    with pytest.raises(errors.StateError, match=f"leave {COUNT - 10} records"):
        m.finish()
    m.finish(leave_missing=True)
    assert sum("new" in record.spaces for record in docs.scan()) == 10


def test_what_is_over_is_over(docs):
    m = docs.migrate("old", "new", embed)
    m.run()
    m.rollback()
    for call in (m.run, m.finish, m.rollback, m.pause, m.resume):
        with pytest.raises(errors.StateError, match="rolled back"):
            call()


def test_arguments(docs, db):
    for options in (
        {"batch": 0},
        {"canary": 0.9},
        {"seed": -1},
        {"inputs": "vectors"},
        {"retries": -1},
        {"rate": 0},
        {"retry_wait": -1},
        {"params": {"weight": 1.0}},
        {"encode": 5},
    ):
        with pytest.raises(errors.ParameterError):
            docs.migrate("old", "new", **options)
    with pytest.raises(errors.ParameterError, match="both"):
        docs.migrate("old", "old", embed)
    with pytest.raises(errors.SpaceMissingError):
        docs.migrate("old", "newest", embed)
    with pytest.raises(errors.UnknownNameError, match="novelty"):
        docs.migrate("old", "new", embed, policy="noveltyy")
    with pytest.raises(errors.StateError, match="never migrated"):
        docs.migration()
    assert docs.migrations == () and db.tags() == {}
    with pytest.raises(errors.TransactionError), db.transaction():
        docs.migrate("old", "new", embed)
    m = docs.migrate("old", "new")
    with pytest.raises(errors.ParameterError, match="encoder"):
        m.run()
    assert m.run(0).state == "bridging"


def test_a_collection_without_records(db):
    docs = db.create_collection("empty")
    docs.add_space("old", dim=OLD)
    docs.add_space("new", dim=NEW)
    m = docs.migrate("old", "new", embed)
    assert m.run().state == "complete" and m.status().share == 1.0
    m.finish()


def test_dropping_the_collection_ends_it(docs, db):
    docs.migrate("old", "new", embed).run(20)
    db.drop_collection("docs")
    assert db.tags() == {} and db.check().ok


def test_cancelling(docs):
    calls = []
    m = docs.migrate("old", "new", embed, batch=10, canary=0.0)
    with pytest.raises(errors.CancelledError, match="after 20 records"):
        m.run(progress=lambda done, total: calls.append((done, total)), cancel=lambda: len(calls) == 2)
    assert calls == [(10, COUNT), (20, COUNT)] and m.status().done == 20


def test_several_models_one_after_the_other(docs, db):
    docs.migrate("old", "new", embed).run()
    docs.migration().finish()
    docs.add_space("third", dim=4)
    m = docs.migrate("new", "third", lambda texts: Y[[int(text) for text in texts], :4])
    assert m.run().state == "complete"
    m.finish()
    assert list(docs.spaces) == ["third"] and [each.number for each in docs.migrations] == [1, 2] and db.check().ok


@pytest.mark.parametrize("reopened", [False, True])
def test_after_a_rollback_another_model_is_not_held_to_the_first(db, path, reopened):
    """The profile of a space that was emptied goes with its vectors, in the file and in memory."""
    count, rng = 2_600, np.random.default_rng(1)
    old = rng.standard_normal((count, 8)).astype(np.float32)
    first = (rng.standard_normal((count, 8)) @ rng.standard_normal((8, 40))).astype(np.float32)
    second = (old @ rng.standard_normal((8, 40)) + 5.0).astype(np.float32)
    docs = db.create_collection("big")
    docs.add_space("old", dim=8)
    docs.add_space("new", dim=40)
    docs.upsert(range(count), {"old": old}, texts=[str(place) for place in range(count)])
    docs.migrate("old", "new", lambda texts: first[[int(text) for text in texts]], "random").run()
    assert docs.stats()["spaces"]["new"]["profiled"]
    with pytest.raises(errors.WrongModelError):
        docs.set_vectors("new", range(100), second[:100])
    docs.migration().rollback()
    assert not docs.stats()["spaces"]["new"]["profiled"]
    if reopened:
        db.close()
        db = vecdb.open(path, durability="relaxed")
        docs = db.collection("big")
    again = docs.migrate("old", "new", lambda texts: second[[int(text) for text in texts]], "random")
    assert again.run().state == "complete"
    with pytest.raises(errors.WrongModelError):
        docs.set_vectors("new", range(100), first[:100])
    db.close()


def test_vectors_of_another_model_pause_the_migration(db):
    count, rng = 2_600, np.random.default_rng(1)
    old = rng.standard_normal((count, 8)).astype(np.float32)
    tables = [
        (rng.standard_normal((count, 8)) @ rng.standard_normal((8, 40)) + shift).astype(np.float32) for shift in (1, 5)
    ]
    docs = db.create_collection("big")
    docs.add_space("old", dim=8)
    docs.add_space("new", dim=40)
    docs.upsert(range(count), {"old": old}, texts=[str(place) for place in range(count)])
    m = docs.migrate(
        "old", "new", lambda texts: tables[m.status().done > 2_300][[int(text) for text in texts]], "random"
    )
    with pytest.raises(errors.WrongModelError):
        m.run()
    status = m.status()
    assert "another model" in status.paused and 2_300 < status.done < count
    m.resume()
    assert docs.migration(lambda texts: tables[0][[int(text) for text in texts]]).run().state == "complete"


@pytest.mark.parametrize("model", ["second", "first"])
def test_the_old_model_is_noticed_where_nothing_else_is_known(db, model):
    """Two spaces of one model may hold the same vectors; two models that agree to the last digit are one."""
    docs = db.create_collection("same")
    docs.add_space("old", dim=OLD, model="first")
    docs.add_space("new", dim=OLD, model=model, dtype="int8")
    docs.upsert(range(COUNT), {"old": X[:COUNT]}, texts=[str(place) for place in range(COUNT)])
    m = docs.migrate("old", "new", embed_old)
    if model == "first":
        assert m.run().state == "complete"
        return
    with pytest.raises(errors.WrongModelError, match="stored in space 'old'"):
        m.run()
    assert m.status().done == 0 and "stored in space 'old'" in m.status().paused
    m.resume()
    assert docs.migration(lambda texts: embed_old(texts)[:, ::-1]).run().state == "complete"
    docs.migration().rollback()
    assert docs.migrate("old", "new", embed_old, trust=True).run().state == "complete"


def test_two_at_once_embed_every_record(docs, db):
    """Runs of two handles interleave as they like; what one has embedded the other passes over."""
    docs.migrate("old", "new", embed, batch=7)
    done = []

    def work():
        done.append(docs.migration(embed).run().state)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = docs.migration().status()
    assert status.state == "complete" and status.done == COUNT and status.pending == 0 and len(done) == 2
    assert all(np.array_equal(each.vectors["new"], Y[int(each.text)]) for each in docs.scan(vectors=["new"]))
    docs.migration().rollback()
    assert all(each.spaces == ("old",) for each in docs.scan()) and db.check().ok


def test_a_backup_in_the_middle_goes_on_by_itself(docs, db, tmp_path):
    docs.migrate("old", "new", embed, batch=50).run(100)
    db.backup(tmp_path / "copy.vecdb")
    before = answers(docs)
    with vecdb.open(tmp_path / "copy.vecdb") as copy:
        assert copy.check().ok and copy.tags() == db.tags()
        assert copy.collection("docs").migration(embed).run().state == "complete"
        copy.collection("docs").migration().rollback()
        assert answers(copy.collection("docs")) == before
    assert docs.migration().status().done == 100


def test_an_index_of_either_space_serves_all_the_while(docs, db):
    docs.create_index("old", "rabitq")
    docs.create_index("new", "rabitq")
    before = answers(docs)
    m = docs.migrate("old", "new", embed, batch=64)
    m.run()
    docs.optimize()
    found = docs.search(Y[:20], k=5, space="new")
    assert [hits.ids[0] for hits in found] == IDS[:20] and db.check().ok
    m.rollback()
    docs.optimize()
    assert answers(docs) == before and len(docs.search(Y[0], k=5, space="new")) == 0 and db.check().ok


# --- records that cannot be embedded ----------------------------------------------------------------------


def test_records_that_fail_are_tried_at_three_passes_and_when_asked(docs):
    tried, able = [], set()

    def picky(texts):
        tried.extend(texts)
        return [None if text in {"5", "77"} - able else Y[int(text)] for text in texts]

    m = docs.migrate("old", "new", picky, batch=100)
    status = m.run()
    assert status.state == "complete" and status.pending == 2 and tried.count("5") == tried.count("77") == 3
    assert dict(status.failures) == dict.fromkeys(["r5", "r77"], "the encoder returned no vector")
    m.run()
    assert tried.count("5") == 3
    able.add("5")
    assert m.run(retry_failed=True).pending == 1 and tried.count("5") == 4 and tried.count("77") == 6
    docs.upsert(["r77"], {"old": X[420:421]}, texts=["420"])  # written anew, it is another case
    assert m.run().failures == () and m.status().pending == 0
    m.finish()


def test_too_many_failures_pause_it(docs, monkeypatch):
    monkeypatch.setattr(work, "MAX_FAILURES", 20)
    m = docs.migrate("old", "new", lambda texts: [None] * len(texts), batch=8, canary=0.0)
    status = m.run()
    assert "could not be embedded" in status.paused and 20 <= len(status.failures) < 40
    m.resume()
    assert docs.migration(embed).run(retry_failed=True).pending == 0


def test_an_encoder_that_is_down_loses_nothing(docs):
    calls = []

    def falls(texts):
        calls.append(texts)
        if len(calls) > 4:
            raise ConnectionError("gone")
        return embed(texts)

    m = docs.migrate("old", "new", falls, batch=20, canary=0.0, retries=1, retry_wait=0)
    with pytest.raises(errors.EncoderError, match="gone"):
        m.run()
    assert m.status().done == 80 and m.status().paused == "" and m.status().failures == ()
    assert docs.migration(embed).run().state == "complete"
