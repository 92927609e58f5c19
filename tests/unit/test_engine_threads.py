"""Threads of one search: the same bits for any number of them, errors that arrive, forks that do not hang."""

import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from tests.indextypes import NONE, CopiesType, able, registry, rows
from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.engine import indexed, pool, scanning
from vecdb.errors import ParameterError


@pytest.fixture(scope="module")
def compiled():
    vecdb.warmup()


# --- the pool ---------------------------------------------------------------------------------------------


@given(values=st.lists(st.integers(), max_size=20))
def test_results_come_in_the_order_of_the_work(values):
    def piece(value):
        return lambda: (time.sleep(0.0005 * (value % 3)), value)[1]

    assert pool.share([piece(value) for value in values]) == values


def test_the_first_piece_is_done_by_the_caller_and_others_are_not():
    assert pool.share([threading.get_ident]) == [threading.get_ident()]
    both = threading.Barrier(2)
    threads = pool.share([lambda: (both.wait(10), threading.get_ident())[1]] * 2)
    assert threads[0] == threading.get_ident() != threads[1]


def test_pieces_that_share_work_do_it_alone():
    inner = [threading.get_ident] * 3
    assert [len(set(found)) for found in pool.share([lambda: pool.share(inner)] * 2)][1] == 1


def test_the_error_of_the_first_piece_that_failed_arrives_once_all_have_ended():
    ended = []

    def fails(number):
        def piece():
            time.sleep(0.002 * (3 - number))
            ended.append(number)
            raise ValueError(number)

        return piece

    with pytest.raises(ValueError, match=r"^1$"):
        pool.share([lambda: 0, fails(1), fails(2)])
    assert sorted(ended) == [1, 2]


def test_without_a_pool_the_caller_does_everything(monkeypatch):
    class Gone:
        def submit(self, *given):
            raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(pool, "_executor", lambda helpers: Gone())
    assert pool.share([threading.get_ident] * 3) == [threading.get_ident()] * 3


def test_more_threads_than_before_make_a_larger_pool():
    assert len(pool.share([lambda: 1] * 3)) == 3
    wide = threading.Barrier(8)
    assert pool.share([lambda: wide.wait(20) >= 0] * 8) == [True] * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_has_a_pool_of_its_own():
    pool.share([lambda: 1] * 3)
    child = os.fork()
    if not child:
        both = threading.Barrier(2)
        os._exit(0 if pool.share([lambda: both.wait(20) >= 0] * 2) == [True, True] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.share([lambda: 1] * 3) == [1, 1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_no_thread_of_the_pool_is_there_at_a_fork():
    pool.share([lambda: 1] * 3)
    assert any(thread.name.startswith("vecdb-search") for thread in threading.enumerate())
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not any(thread.name.startswith("vecdb-search") for thread in threading.enumerate())


def test_a_fork_out_of_the_pool_does_not_wait_for_itself():
    assert pool.share([lambda: 1, lambda: pool._rest() or 2]) == [1, 2]


@pytest.mark.parametrize("threads", [0, -1, 65, 1.5, "2", True])
def test_a_number_of_threads_that_cannot_be(tmp_path, threads):
    with pytest.raises(ParameterError, match="threads is"):
        vecdb.open(tmp_path / "a.vecdb", threads=threads, plugins=NONE)
    assert not (tmp_path / "a.vecdb").exists()


def test_the_default_is_what_there_is():
    assert 1 <= pool.default_threads() <= 16 and pool.check_threads(None) == pool.default_threads()
    assert pool.check_threads(3) == 3


# --- scans ------------------------------------------------------------------------------------------------


def blocks_of(metric, counts, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    made = rng.integers(-2, 3, (sum(counts), dim)).astype(np.float32)  # many equal scores
    made[:, 0] += 0.5
    return VectorBlocks.from_parts(metric, dim, np.split(made, np.cumsum(counts)[:-1]))


@pytest.mark.usefixtures("compiled")
@given(
    metric=st.sampled_from(["cosine", "dot", "l2"]),
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=7),
    queries=st.integers(1, 40),
    k=st.integers(1, 30),
    threads=st.integers(1, 5),
    share=st.none() | st.floats(0.0, 1.0),
)
def test_any_number_of_threads_gives_the_same_bits(metric, counts, queries, k, threads, share):
    blocks = blocks_of(metric, counts)
    asked = np.random.default_rng(queries).integers(-2, 3, (queries, 6)).astype(np.float32) + np.float32(0.25)
    mask = None if share is None else np.random.default_rng(k).random(blocks.count) < share
    wanted, _ = exact.search(blocks, asked, k, allowed=mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanning, "LEAST", 1)
        matches = None if mask is None else int(mask.sum())
        found, facts = scanning.scan(blocks, asked, k, allowed=mask, matches=matches, threads=threads)
    assert facts.complete
    for (positions, scores), (others, their) in zip(found, wanted, strict=True):
        assert positions.tolist() == others.tolist() and scores.tobytes() == their.tobytes()


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("queries", [1, 40])
def test_stop_ends_every_stretch(queries, monkeypatch):
    monkeypatch.setattr(scanning, "LEAST", 1)
    asked = np.ones((queries, 6), np.float32)
    _, facts = scanning.scan(blocks_of("l2", [50, 50, 50]), asked, 3, stop=lambda: True, threads=3)
    assert not facts.complete and facts.rows_scanned == 0


def test_small_scans_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(scanning, "share", None)
    assert len(scanning.scan(blocks_of("l2", [50, 50]), np.ones((1, 6), np.float32), 3, threads=4)[0][0][0]) == 3


@given(counts=st.lists(st.integers(1, 1_000), min_size=1, max_size=30), threads=st.integers(2, 9))
def test_stretches_cover_every_block_once(counts, threads):
    blocks = blocks_of("l2", counts, dim=1)
    cuts = scanning.stretches(blocks, threads)
    assert [block for start, end in cuts for block in range(start, end)] == list(range(len(counts)))
    assert len(cuts) <= threads


# --- candidates of many queries ---------------------------------------------------------------------------


@pytest.mark.usefixtures("compiled")
@given(
    metric=st.sampled_from(["cosine", "dot", "l2"]),
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=9),
    k=st.integers(1, 12),
    path=st.sampled_from(["numpy", "numba"]),
)
def test_candidates_of_many_queries_are_scored_like_those_of_one(metric, sizes, k, path):
    blocks = blocks_of(metric, [30, 10])
    rng = np.random.default_rng(len(sizes))
    asked = rng.integers(-2, 3, (len(sizes), 6)).astype(np.float32) + np.float32(0.25)
    picked = [rng.permutation(40)[:size].astype(np.int64) for size in sizes]
    before = [positions.copy() for positions in picked]
    found = exact.rescore_each(blocks, asked, picked, k, path=path)
    for place, (positions, scores) in enumerate(found):
        others, their = exact.rescore(blocks, asked[place], picked[place], k, path=path)
        assert positions.tolist() == others.tolist() and scores.tobytes() == their.tobytes()
        assert np.array_equal(picked[place], before[place])


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("wrong", [-1, 40])
def test_a_candidate_that_lies_nowhere_is_refused(wrong):
    with pytest.raises(vecdb.CorruptionError):
        exact.rescore_each(blocks_of("l2", [40]), np.ones((2, 6), np.float32), [np.array([1]), np.array([wrong])], 3)


# --- searches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abilities", [("exact", "filtered"), (), ("filtered", "complete")])
def test_a_batch_through_an_index_is_the_same_with_threads(tmp_path, compiled, monkeypatch, abilities):
    monkeypatch.setattr(indexed, "SCAN_BELOW", 0)
    type_ = CopiesType("acme.copies", able(*abilities), half="exact" not in abilities)
    answers = []
    for threads in (1, 2, 5):
        with vecdb.open(tmp_path / "a.vecdb", plugins=registry(type_), threads=threads) as db:
            c = db.create_collection("c", exist_ok=True)
            if not len(c):
                c.add_space("s", dim=6, metric="l2")
                c.upsert(range(500), {"s": rows(500)}, metadata=[{"g": n % 5} for n in range(500)], trust=True)
                c.create_index("s", "acme.copies")
                c.upsert(range(500, 520), {"s": rows(20, 3)}, metadata=[{"g": 1}] * 20, trust=True)
            said = []
            for options in ({}, {"where": {"g": 1}}, {"effort": 7}):
                hits = c.search(rows(50, 9), 7, explain=True, **options)
                said.append([(each.ids, each.scores.tobytes()) for each in hits])
                said.append({name: hits.plan[name] for name in ("nominated", "rows_scanned", "covered", "parts")})
            answers.append(said)
    assert answers[0] == answers[1] == answers[2]


def test_a_search_that_can_be_cancelled_asks_from_its_own_thread(tmp_path, compiled, monkeypatch):
    monkeypatch.setattr(scanning, "LEAST", 1)
    asked = set()
    with vecdb.open(tmp_path / "a.vecdb", plugins=NONE, threads=4) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=6, metric="l2")
        c.upsert(range(500), {"s": rows(500)}, trust=True)
        c.search(rows(50), 3, cancel=lambda: asked.add(threading.get_ident()))
    assert asked == {threading.get_ident()}


def test_an_error_in_a_thread_is_the_searchs(tmp_path, compiled, monkeypatch):
    monkeypatch.setattr(indexed, "SCAN_BELOW", 0)
    type_ = CopiesType()
    with vecdb.open(tmp_path / "a.vecdb", plugins=registry(type_), threads=3) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=6, metric="l2")
        c.upsert(range(500), {"s": rows(500)}, trust=True)
        c.create_index("s", "acme.copies")

        def fault(**given):
            if threading.current_thread() is not threading.main_thread():
                raise OSError("odd")

        type_.faults["search"] = fault
        with pytest.raises(vecdb.PluginError, match="failed in search"):
            c.search(rows(50), 3)
        type_.faults.clear()
        assert len(c.search(rows(50), 3)) == 50
