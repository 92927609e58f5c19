"""Recorded queries: bounded, copied, off when told so, and nobody's business but this process's."""

import threading

import numpy as np

import vecdb
from tests.indextypes import NONE
from vecdb.engine.recall import RECORDED_FROM
from vecdb.engine.recorded import MOST, MOST_BYTES, MOST_OF_A_BATCH, Recorder


def rows(count, dim=4, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def test_few_are_not_worth_measuring():
    recorder = Recorder(on=True)
    for query in rows(RECORDED_FROM - 1):
        recorder.note(1, query[None])
    assert recorder.queries(1) is None and recorder.queries(2) is None
    recorder.note(1, rows(1))
    assert recorder.queries(1).shape == (RECORDED_FROM, 4)


def test_they_are_copies():
    recorder, mine = Recorder(on=True), rows(50)
    for _ in range(10):
        recorder.note(1, mine)
    before = recorder.queries(1).copy()
    mine[:] = 0
    assert np.array_equal(recorder.queries(1), before)


def test_no_more_than_some_are_kept_and_later_ones_take_over():
    recorder = Recorder(on=True)
    for turn in range(3 * MOST):
        recorder.note(1, np.full((1, 4), turn, np.float32))
    kept = recorder.queries(1)[:, 0]
    assert len(kept) == MOST and kept.max() == 3 * MOST - 1
    assert (kept >= MOST).mean() > 0.9 and len(np.unique(kept)) == MOST


def test_wide_queries_are_bounded_by_their_bytes():
    recorder = Recorder(on=True)
    for turn in range(600):
        recorder.note(1, np.full((1, 4_096), turn, np.float32))
    kept = recorder.queries(1)
    assert kept.nbytes <= MOST_BYTES and kept[:, 0].max() == 599


def test_of_a_large_batch_some_are_kept():
    recorder = Recorder(on=True)
    for turn in range(5):
        recorder.note(1, rows(10_000, seed=turn))
    assert RECORDED_FROM <= len(recorder.queries(1)) <= 5 * MOST_OF_A_BATCH


def test_off_is_off():
    recorder = Recorder(on=False)
    recorder.note(1, rows(500))
    assert recorder.queries(1) is None


def test_forgetting():
    recorder = Recorder(on=True)
    for space in (1, 2):
        for seed in range(5):
            recorder.note(space, rows(64, seed=seed))
    recorder.forget(1)
    assert recorder.queries(1) is None and recorder.queries(2) is not None
    recorder.forget()
    assert recorder.queries(2) is None


def test_threads_may_note_at_once():
    recorder = Recorder(on=True)
    work = [threading.Thread(target=lambda: [recorder.note(1, query[None]) for query in rows(2_000)]) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert MOST <= len(recorder.queries(1)) < MOST + 8


def recorded(db, c):
    space = c.spaces["s"]
    return db._settings.recorder.queries(space.id)


def test_searches_are_recorded_but_not_those_by_a_record(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", plugins=NONE) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=4, metric="l2")
        c.upsert(range(300), {"s": rows(300)})
        for _ in range(RECORDED_FROM):
            c.search(like=3, k=1)
        assert recorded(db, c) is None
        for query in rows(RECORDED_FROM, seed=1):
            c.search(query, k=1)
        assert np.array_equal(recorded(db, c), rows(RECORDED_FROM, seed=1))


def test_a_process_may_ask_not_to(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", plugins=NONE, record_queries=False) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=4, metric="l2")
        c.upsert(range(30), {"s": rows(30)})
        for _ in range(5):
            c.search(rows(64, seed=1), k=1)
        assert recorded(db, c) is None


def test_nothing_of_them_is_in_the_file(tmp_path):
    path = tmp_path / "a.vecdb"
    secret = np.full(16, 1.2345e7, np.float32)
    with vecdb.open(path, plugins=NONE) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=16, metric="l2")
        c.upsert(range(30), {"s": rows(30, 16)}, trust=True)
        for _ in range(RECORDED_FROM):
            c.search(secret, k=1)
        db.optimize()
    assert secret[:2].tobytes() not in path.read_bytes()
