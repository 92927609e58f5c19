"""Vectors of one space: appended, sealed, repacked, merged, and read through views (storage/vectors.py, spaces.py)."""

import contextlib
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import CorruptionError, VectorMissingError
from vecdb.storage import vectors as vectors_module
from vecdb.storage.env import Environment
from vecdb.storage.format import BlockRef, pack_sealed, u32_u64, u64
from vecdb.storage.history import read_deaths, settle_deaths, write_deaths
from vecdb.storage.snapshot import tail_room
from vecdb.storage.spaces import BlockCache, load_view, read_segments, write_segment
from vecdb.storage.spare import read_spare, release, retire, spare_key
from vecdb.storage.state import SpaceCounts, create_header
from vecdb.storage.vectors import VectorWriter, drop_vectors
from vecdb.types import Space

SPACE = Space("wide", 16_384, "l2", id=5)
"""15 vectors fill a block."""
ROOM = 15


@pytest.fixture
def env(tmp_path):
    env = Environment(
        tmp_path / "x.vecdb", readonly=False, durability="relaxed", map_size=None, timeout=5.0, create=create_header
    )
    env.open()
    yield env
    env.close()
    env.writer_lock.abandon()


class Bench:
    """One space driven by hand: `Collection` without the collection."""

    def __init__(self, env):
        self.env = env
        self.counts = SpaceCounts()
        self.blocks = 1
        self.seq = 0
        self.horizon = 0
        self.cache = BlockCache()
        self.view = None
        self.rows = {}
        self.dead = {}

    @contextlib.contextmanager
    def writing(self):
        tx = self.env.begin_write()
        try:
            yield tx, VectorWriter(tx, SPACE, self._next, self.counts.live + self.counts.dead)
        except BaseException:
            self.env.abort(tx)
            raise
        self.env.commit(tx)

    def _next(self):
        self.blocks += 1
        return self.blocks - 1

    def append(self, count):
        first = self.counts.next_ordinal
        vectors = np.array([vector(first + place) for place in range(count)], np.float32).reshape(count, SPACE.dim)
        rows = np.arange(first, first + count, dtype=np.uint64) * np.uint64(3)
        scales = np.arange(first, first + count, dtype=np.float32)
        with self.writing() as (_, writer):
            start = writer.append(vectors, rows, scales, next_ordinal=first, tail_start=self.counts.tail_start)
        self.counts = replace(self.counts, next_ordinal=first + count, live=self.counts.live + count, tail_start=start)
        self.rows.update({first + place: int(row) for place, row in enumerate(rows)})

    def seal(self):
        with self.writing() as (_, writer):
            start = writer.seal_tail(next_ordinal=self.counts.next_ordinal, tail_start=self.counts.tail_start)
        self.counts = replace(self.counts, tail_start=start)

    def kill(self, ordinals):
        self.seq += 1
        with self.writing() as (tx, _):
            write_deaths(tx, SPACE.id, self.seq, np.array(ordinals, np.uint64))
        self.dead.update(dict.fromkeys(ordinals, self.seq))
        counts = self.counts
        self.counts = replace(counts, live=counts.live - len(ordinals), dead=counts.dead + len(ordinals))

    def repack(self, horizon):
        self.horizon = horizon
        gone = np.array(
            sorted(o for o, seq in self.dead.items() if seq <= horizon and o < self.counts.tail_start), np.uint64
        )
        with self.writing() as (tx, writer):
            writer.repack(read_segments(tx, SPACE.id), gone)
            settle_deaths(tx, SPACE.id, horizon, gone)
        for ordinal in gone.tolist():
            del self.rows[ordinal], self.dead[ordinal]
        self.counts = replace(self.counts, dead=self.counts.dead - len(gone), epoch=self.counts.epoch + 1)

    def load(self, *, fresh=False):
        with self.env.lease() as tx:
            previous, cache = (None, BlockCache()) if fresh else (self.view, self.cache)
            view = load_view(tx, SPACE, self.counts, previous, cache, tail_room(SPACE))
            self.check(tx, view)
        if not fresh:
            self.view = view
        return view

    def check(self, tx, view):
        wanted = sorted(self.rows)
        places = np.arange(len(view), dtype=np.int64)
        assert view.ordinals_at(tx, places).tolist() == wanted
        assert view.rows(tx).tolist() == [self.rows[ordinal] for ordinal in wanted]
        some = places[::3]
        assert view.rows_at(tx, some).tolist() == [self.rows[ordinal] for ordinal in wanted[::3]]
        assert view.gather(tx, some)[:, 0].tolist() == [float(ordinal) for ordinal in wanted[::3]]
        everything = np.arange(self.counts.next_ordinal, dtype=np.uint64)
        positions = view.positions_of(tx, everything).tolist()
        assert [o for o, place in enumerate(positions) if place >= 0] == wanted
        assert sorted(place for place in positions if place >= 0) == places.tolist()
        for ordinal in range(0, self.counts.next_ordinal + 1, 2):
            assert view.count_before(tx, ordinal) == sum(known < ordinal for known in wanted)
        dead = view.dead(tx)
        marked = [] if dead is None else np.flatnonzero(dead).tolist()
        assert [wanted[place] for place in marked] == sorted(o for o in self.dead if o in self.rows)
        for seq in range(self.horizon, self.seq + 1):
            then = view.dead_as_of(tx, seq)
            marked = [] if then is None else np.flatnonzero(then).tolist()
            assert [wanted[place] for place in marked] == sorted(o for o, at in self.dead.items() if at <= seq)
        view.verify_all(tx)


def vector(ordinal):
    return np.full(SPACE.dim, ordinal, np.float32)


@pytest.fixture
def bench(env):
    return Bench(env)


def both(bench):
    """The view that grew with its predecessors and the one made from nothing."""
    grown, fresh = bench.load(), bench.load(fresh=True)
    assert (len(grown), grown.sealed, grown.refs) == (len(fresh), fresh.sealed, fresh.refs)
    return grown


def test_the_room_of_a_tail():
    assert tail_room(SPACE) == ROOM and tail_room(Space("x", 65_536)) == 3


@pytest.mark.parametrize("counts", [[1] * 5, [14, 1], [15], [14, 2, 14], [40], [1, 60, 3], [16] * 6])
def test_appending_seals_whole_blocks(bench, counts):
    total = 0
    for count in counts:
        bench.append(count)
        total += count
        view = both(bench)
        assert len(view) == total and view.tail_count < ROOM and view.sealed % ROOM == 0


def test_sealing_keeps_positions(bench):
    bench.append(3)
    before = both(bench)
    bench.seal()
    view = both(bench)
    assert (before.sealed, view.sealed, view.tail_count) == (0, 3, 0) and len(view.refs) == 1
    assert view.refs[0].size_class < 1 << 20  # a small class for few rows
    bench.seal()
    bench.append(2)
    assert both(bench).tail_count == 2


def test_the_dead_are_marked_and_repacking_removes_them(bench):
    bench.append(37)
    bench.kill([0, 3, 36])
    both(bench)
    bench.kill(list(range(10, 25)))
    both(bench)
    bench.repack(horizon=1)
    view = both(bench)
    assert len(view) == 35 and bench.counts.dead == 16  # 36 lies in the tail still
    bench.repack(horizon=2)
    view = both(bench)
    assert len(view) == 20 and len(view.refs) == 1
    bench.append(20)
    bench.kill([1])
    both(bench)


def repack_best(bench, horizon, most=8 << 20, threshold=0.2):
    """Rewrite what pays; return how many vectors went."""
    bench.horizon = horizon
    final = np.array(sorted(o for o, seq in bench.dead.items() if seq <= horizon), np.uint64)
    with bench.writing() as (tx, writer):
        gone = writer.repack_best(read_segments(tx, SPACE.id), final, threshold, most)
        settle_deaths(tx, SPACE.id, horizon, gone)
    for ordinal in gone.tolist():
        del bench.rows[ordinal], bench.dead[ordinal]
    bench.counts = replace(bench.counts, dead=bench.counts.dead - len(gone), epoch=bench.counts.epoch + 1)
    return len(gone)


def test_neighbours_are_joined_across_segments_and_the_others_stay(bench):
    for _ in range(8):
        bench.append(15)  # a segment of one full block each
    before = both(bench).refs
    bench.kill([*range(15, 60, 3), *range(60, 75)])
    assert repack_best(bench, horizon=1) == 30  # a third of three blocks, and all of a fourth
    view = both(bench)
    assert [ref.rows for ref in view.refs] == [15, 15, 15, 15, 15, 15]
    assert (view.refs[0], *view.refs[3:]) == (before[0], *before[5:])
    with bench.env.lease() as tx:
        segments = read_segments(tx, SPACE.id)
        assert tx.entries("blocks")["entries"] == 6 + len(read_spare(tx, SPACE.id)) == 10
    assert [(segment.base, len(segment.blocks)) for segment in segments] == [
        (0, 1), (16, 2), (75, 1), (90, 1), (105, 1)
    ]  # fmt: skip
    bench.append(40)
    bench.kill([0, 119])
    assert repack_best(bench, horizon=2) == 0  # too little to pay
    assert len(both(bench).death_ordinals) == 2


def spare_of(bench):
    with bench.env.lease() as tx:
        assert tx.entries("blocks")["entries"] == len(bench.load().refs) + len(read_spare(tx, SPACE.id))
        return [size_class for _, size_class in read_spare(tx, SPACE.id)]


def test_emptied_blocks_stay_until_the_tail_or_the_next_rewriting_needs_their_place(bench):
    for _ in range(8):
        bench.append(15)
    bench.kill(range(0, 60))
    assert repack_best(bench, horizon=1, most=0) == 60
    assert spare_of(bench) == [1 << 20]  # a quarter of what there is; the others went
    bench.append(2)
    assert len(spare_of(bench)) == 1  # far from full
    bench.append(1)
    bench.append(1)
    assert spare_of(bench) == []  # twelve commits before it is
    bench.kill(range(60, 120, 2))
    assert repack_best(bench, horizon=2) == 30
    assert spare_of(bench) == [1 << 20] * 4
    bench.append(15)
    assert len(spare_of(bench)) == 3  # a batch that fills a block each time
    with bench.writing() as (tx, _):
        assert release(tx, SPACE.id, 1) and len(read_spare(tx, SPACE.id)) == 2
        assert not release(tx, SPACE.id, 1, 64 << 10)
        assert release(tx, SPACE.id) and not release(tx, SPACE.id)
    assert spare_of(bench) == []
    both(bench)


def test_the_tail_fills_a_spare_block_larger_than_the_usual(env):
    space = Space("narrow", 384, "l2", id=7)
    numbers = iter(range(1, 100))
    tx = env.begin_write()
    writer = VectorWriter(tx, space, lambda: next(numbers))
    assert writer.usual == 256 << 10

    def append(count, start, tail_start):
        rows = np.arange(start, start + count, dtype=np.uint64)
        vectors = np.zeros((count, 384), np.float32)
        return writer.append(vectors, rows, np.ones(count, np.float32), next_ordinal=start, tail_start=tail_start)

    assert append(200, 0, 0) == 168
    retire(tx, space.id, [BlockRef(50, 1 << 20, 1, 0, 0), BlockRef(51, 1 << 20, 1, 0, 0)], 1 << 20)
    assert read_spare(tx, space.id) == [(50, 1 << 20)]
    released, start = 0, 200
    while start + 30 < 168 + 675:
        assert append(30, start, 168) == 168  # also when the tail is longer than a usual block
        start += 30
        released = released or (start if not read_spare(tx, space.id) else 0)
    assert 168 + 168 < released <= 168 + 675 - 11 * 30
    assert append(30, start, 168) == 168 + 675
    env.abort(tx)


def test_large_commits_fill_usual_blocks_and_use_up_the_place_of_large_ones(env):
    """A run of pages that is long enough for a large block would be cut up before the tail is full."""
    space = Space("narrow", 384, "l2", id=7)
    numbers = iter(range(1, 100))
    tx = env.begin_write()
    writer = VectorWriter(tx, space, lambda: next(numbers))
    retire(tx, space.id, [BlockRef(50, 1 << 20, 1, 0, 0), BlockRef(51, 256 << 10, 1, 0, 0)], 2 << 20)
    left = []
    for start in range(0, 500, 100):
        rows = np.arange(start, start + 100, dtype=np.uint64)
        tail_start = start - start % 168
        ended = writer.append(
            np.zeros((100, 384), np.float32), rows, np.ones(100, np.float32), next_ordinal=start, tail_start=tail_start
        )
        assert ended == (start + 100) // 168 * 168
        left.append(len(read_spare(tx, space.id)))
    assert left == [2, 1, 1, 0, 0]  # the large one first: its place holds four
    env.abort(tx)


def test_a_damaged_list_of_spare_blocks_is_reported(bench):
    for plain in ([[1, 5]], [[1]], "no", [["1", 1 << 20]]):
        with bench.writing() as (tx, _):
            tx.put("meta", spare_key(SPACE.id), pack_sealed(spare_key(SPACE.id), plain))
            with pytest.raises(CorruptionError):
                read_spare(tx, SPACE.id)
            with pytest.raises(CorruptionError):
                release(tx, SPACE.id)


def test_little_is_written_at_once(bench):
    bench.append(15 * 12)
    bench.kill([ordinal for ordinal in range(15 * 12) if ordinal % 2])
    assert 14 <= repack_best(bench, horizon=1, most=1 << 20) <= 16  # two blocks into one, or each into half a one
    both(bench)
    assert repack_best(bench, horizon=1, most=64 << 20) > 70
    assert sum(ref.size_class for ref in both(bench).refs) <= 7 << 20


def test_a_segment_of_which_everything_died_goes(bench):
    bench.append(30)
    bench.kill(range(30))
    bench.repack(horizon=1)
    assert len(both(bench)) == 0
    with bench.env.lease() as tx:
        assert read_segments(tx, SPACE.id) == [] and tx.entries("blocks")["entries"] == 0
    bench.append(3)
    assert both(bench).tail_count == 3


def test_vectors_are_found_by_ordinal_until_they_are_removed(bench):
    bench.append(20)
    bench.kill([2])
    view = bench.load()
    with bench.env.lease() as tx:
        assert view.vectors_of(tx, [19, 2, 0])[:, 0].tolist() == [19, 2, 0]
    bench.repack(horizon=1)
    view = bench.load()
    with bench.env.lease() as tx:
        assert view.vectors_of(tx, [19, 0])[:, 0].tolist() == [19, 0]
        with pytest.raises(VectorMissingError):
            view.vectors_of(tx, [2])


def test_small_segments_are_joined_without_moving_blocks(bench):
    for _ in range(20):
        bench.append(1)
        bench.seal()
    refs = both(bench).refs
    with bench.writing() as (_, writer):
        assert writer.merge_small() and not writer.merge_small()
    bench.counts = replace(bench.counts, epoch=1)
    assert both(bench).refs == refs and len(refs) == 20
    with bench.env.lease() as tx:
        assert len(read_segments(tx, SPACE.id)) == 1


def test_dropping_removes_everything_of_one_space(bench):
    bench.append(40)
    bench.kill([1])
    with bench.writing() as (tx, _):
        other = VectorWriter(tx, Space("other", 3, id=6), bench._next)
        other.append(
            np.ones((2, 3), np.float32), np.zeros(2, np.uint64), np.ones(2, np.float32), next_ordinal=0, tail_start=0
        )
        drop_vectors(tx, SPACE)
    with bench.env.lease() as tx:
        assert {name: tx.entries(name)["entries"] for name in ("blocks", "segments", "tail", "deaths")} == {
            "blocks": 0,
            "segments": 0,
            "tail": 1,
            "deaths": 0,
        }


def test_older_views_go_on_while_the_tail_grows(bench):
    bench.append(3)
    old = bench.load()
    vectors = old.tail.vectors[: old.tail_count].copy()
    bench.append(5)
    new = bench.load()
    assert new.tail is old.tail and len(old) == 3 and len(new) == 8
    assert old.tail.vectors[: old.tail_count].tobytes() == vectors.tobytes()
    with bench.env.lease() as tx:  # a second child of `old` may not touch what `new` reads
        third = load_view(tx, SPACE, bench.counts, old, bench.cache, ROOM)
    assert third.tail is not old.tail and len(third) == 8


def test_two_readers_may_extend_one_tail_at_the_same_time(bench, monkeypatch):
    """Both start from the same view; the second must not mix its rows into the buffer that the first fills."""
    from vecdb.storage import spaces

    bench.append(2)
    old = bench.load()
    bench.append(2)
    bench.append(2)
    later = bench.counts
    inside, go_on = threading.Event(), threading.Event()
    decode, results = spaces.decode_tail, {}

    def slow(*args):
        if threading.current_thread().name == "first" and not inside.is_set():
            inside.set()
            go_on.wait(60)
        return decode(*args)

    monkeypatch.setattr(spaces, "decode_tail", slow)

    def read(counts):
        with bench.env.lease() as tx:
            results[threading.current_thread().name] = load_view(tx, SPACE, counts, old, bench.cache, ROOM)

    first = threading.Thread(target=read, args=(later,), name="first")
    first.start()
    assert inside.wait(60)
    second = threading.Thread(target=read, args=(later,), name="second")
    second.start()
    second.join(0.2)
    go_on.set()
    first.join()
    second.join()
    for name in ("first", "second"):
        view = results[name]
        assert len(view) == 6
        assert view.tail.vectors[:6, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert results["first"].tail is not results["second"].tail


# --- damage -----------------------------------------------------------------------------------------------


def test_a_missing_block_and_a_wrong_segment_are_reported(bench):
    bench.append(20)
    bench.load()
    with bench.writing() as (tx, _):
        [segment] = read_segments(tx, SPACE.id)
        tx.delete("blocks", u64(segment.blocks[0].id))
    with bench.env.lease() as tx:
        view = load_view(tx, SPACE, bench.counts, None, BlockCache(), ROOM)
        with pytest.raises(CorruptionError, match="missing"):
            view.open_blocks(tx)
    with bench.writing() as (tx, _):
        write_segment(tx, SPACE.id, replace(segment, blocks=()))
    with bench.env.lease() as tx, pytest.raises(CorruptionError):
        load_view(tx, SPACE, bench.counts, None, BlockCache(), ROOM)


def test_a_tail_with_a_gap_or_without_an_end_is_reported(bench):
    for _ in range(3):
        bench.append(2)
    for first in (4, 2):
        with bench.writing() as (tx, _):
            assert tx.delete("tail", u32_u64(SPACE.id, first))
        with bench.env.lease() as tx, pytest.raises(CorruptionError):
            load_view(tx, SPACE, bench.counts, None, BlockCache(), ROOM)


def test_a_damaged_chunk_is_met_by_whoever_reads_it(bench):
    bench.append(15)
    with bench.writing() as (tx, _):
        [segment] = read_segments(tx, SPACE.id)
        value = bytearray(tx.get("blocks", u64(segment.blocks[0].id)))
        value[500_000] ^= 1
        tx.put("blocks", u64(segment.blocks[0].id), bytes(value))
    with bench.env.lease() as tx:
        view = load_view(tx, SPACE, bench.counts, None, BlockCache(), ROOM)
        view.verify_positions(tx, np.array([0, 1]))
        assert view.gather(tx, np.array([1]))[0, 0] == 1
        with pytest.raises(CorruptionError):
            view.gather(tx, np.array([7]))
        with pytest.raises(CorruptionError):
            view.verify_all(tx)


# --- deaths -----------------------------------------------------------------------------------------------


def test_deaths_add_up_within_a_commit_and_are_folded_at_the_horizon(env):
    tx = env.begin_write()
    write_deaths(tx, 5, 3, np.array([7, 9], np.uint64))
    write_deaths(tx, 5, 3, np.array([8], np.uint64))
    write_deaths(tx, 5, 4, np.array([1], np.uint64))
    write_deaths(tx, 6, 4, np.array([2], np.uint64))
    assert [(seq, found.tolist()) for seq, found in read_deaths(tx, 5)] == [(3, [7, 8, 9]), (4, [1])]
    assert [(seq, found.tolist()) for seq, found in read_deaths(tx, 5, 3)] == [(4, [1])]
    assert settle_deaths(tx, 5, 3, np.array([8], np.uint64)) == 2
    assert [(seq, found.tolist()) for seq, found in read_deaths(tx, 5)] == [(0, [7, 9]), (4, [1])]
    assert settle_deaths(tx, 5, 4) == 3 and settle_deaths(tx, 5, 4, np.array([1, 7, 9], np.uint64)) == 0
    assert read_deaths(tx, 5) == [] and len(read_deaths(tx, 6)) == 1
    env.abort(tx)


# --- pages of small values --------------------------------------------------------------------------------


def test_a_table_left_half_empty_is_packed(env):
    tx = env.begin_write()
    values = {u64(number): bytes([number % 251]) * (20 if number % 50 else 5000) for number in range(4000)}
    tx.put_all("records", list(values), list(values.values()))
    assert not tx.pack("records") and not tx.pack("ids")  # full, and empty
    kept = {key: value for place, (key, value) in enumerate(values.items()) if place % 10 == 0}
    for key in values.keys() - kept.keys():
        tx.delete("records", key)
    before = tx.entries("records")
    assert tx.pack("records") and not tx.pack("records")
    after = tx.entries("records")
    assert after["leaf_pages"] <= 0.6 * before["leaf_pages"] and after["overflow_pages"] == before["overflow_pages"]
    assert {key: bytes(value) for key, value in tx.range("records", b"")} == kept
    env.abort(tx)


# --- pieces of rows ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), max_size=6), st.data())
def test_pieces_are_cut_without_a_copy(sizes, data):
    whole = np.arange(sum(sizes))
    starts = np.cumsum([0, *sizes])
    held = [
        (whole[start : start + size], -whole[start : start + size])
        for start, size in zip(starts[:-1], sizes, strict=True)
    ]
    count = data.draw(st.integers(0, len(whole)))
    first, rest = vectors_module._cut(held, count)
    for pieces, part in ((first, whole[:count]), (rest, whole[count:])):
        assert all(len(piece[0]) and np.shares_memory(piece[0], whole) for piece in pieces)
        assert np.array_equal(np.concatenate([whole[:0], *(piece[0] for piece in pieces)]), part)
        assert not pieces or np.array_equal(vectors_module._joined(pieces)[1], -part)


def test_a_large_batch_behind_a_tail_is_not_copied_as_a_whole(env, monkeypatch):
    bench, joined = Bench(env), []
    bench.append(3)
    plain = vectors_module._joined
    monkeypatch.setattr(vectors_module, "_joined", lambda pieces: joined.append(pieces) or plain(pieces))
    bench.append(4 * ROOM)
    bench.load(fresh=True)
    assert max(sum(len(piece[1]) for piece in pieces) for pieces in joined if len(pieces) > 1) <= ROOM


def test_a_tail_that_holds_more_than_a_block_now_may(env, monkeypatch):
    bench = Bench(env)
    bench.append(ROOM - 1)
    monkeypatch.setattr(VectorWriter, "_make_room", lambda *_: 4)
    bench.append(1)
    bench.append(2)
    assert bench.counts.tail_start == 16
    bench.load(fresh=True)
