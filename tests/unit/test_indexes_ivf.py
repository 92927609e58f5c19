"""Codes in lists: how vectors get into them, what a search looks at, what is stored, and answers through a database."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.errors import CancelledError, CorruptionError, ParameterError
from vecdb.indexes import codes, lists
from vecdb.indexes.ivf import IvfType
from vecdb.kernels import loader
from vecdb.testing import datasets
from vecdb.testing.memory import MemoryBlobs, MemoryView

METRICS = ("cosine", "dot", "l2")


@pytest.fixture(scope="module", autouse=True)
def kernels():
    vecdb.warmup()
    assert loader.ready() or not loader.enabled()


def vectors(count=600, dim=40, seed=0):
    return datasets.clustered(count, dim, seed)


def build(rows, metric="dot", seed=0, cancel=lambda: False, **params):
    view = MemoryView(rows, metric=metric)
    told = []
    given = {"lists": 0, "bits": 1, **params}
    index = IvfType().build(view, given, seed=seed, progress=lambda *at: told.append(at), cancel=cancel)
    assert told[-1] == (len(rows), len(rows))
    return view, index


def parts_of(made):
    """Codes, offsets, slopes and positions of all rows, read from the blocks as the documentation says."""
    blocks = made.blocks.array()
    width = blocks.shape[1] - 384
    tail = np.ascontiguousarray(blocks[:, width:])
    floats = tail[:, :256].copy().view("<f4").reshape(len(blocks), 2, 32)
    names = tail[:, 256:].copy().view("<i4").reshape(-1)
    return blocks[:, :width], floats[:, 0].reshape(-1), floats[:, 1].reshape(-1), names


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 200), number=st.integers(1, 12), cut=st.integers(1, 70), seed=st.integers(0, 9))
def test_rows_lie_list_by_list_and_by_position_within_a_list(count, number, cut, seed):
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, number, count)
    signs = rng.random((count, 64)) < 0.5
    factors = rng.standard_normal((2, count)).astype(np.float32)
    bits = np.packbits(signs, axis=1)
    pieces = [(cells[at : at + cut], bits[at : at + cut], factors[:, at : at + cut]) for at in range(0, count, cut)]
    made = lists.join_lists(pieces, number)
    packed, offsets, slopes, names = parts_of(made)
    order = sorted(range(count), key=lambda place: (cells[place], place))
    assert names[:count].tolist() == order and (names[count:] == -1).all()
    assert [np.count_nonzero(cells == each) for each in range(number)] == np.diff(made.starts).tolist()
    assert np.array_equal(offsets[:count], factors[0, order]) and np.array_equal(slopes[:count], factors[1, order])
    assert np.array_equal(packed.reshape(-1), codes.pack_signs(signs[order]))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), dim=st.integers(1, 6), seed=st.integers(0, 20))
def test_a_chain_of_centres_is_an_order_of_them_in_which_the_next_is_the_nearest_left(count, dim, seed):
    centres = np.random.default_rng(seed).integers(-9, 9, (count, dim)).astype(np.float32)
    chain = lists.chained(centres)
    assert sorted(map(tuple, chain)) == sorted(map(tuple, centres))
    for place in range(count - 1):
        distances = np.square(chain[place + 1 :] - chain[place]).sum(axis=1)
        assert distances[0] == distances.min()


@pytest.mark.parametrize("metric", METRICS)
def test_a_list_is_as_near_as_the_table_says(metric):
    rows = vectors(300, 20, 1)
    book = codes.make_book(metric, rows, 300, 0, cells=9)
    lengths = np.linspace(0.1, 2, 9).astype(np.float32)
    squares, spread, drop = lists.list_traits(book, lengths)
    if metric == "l2":
        np.testing.assert_allclose(squares, np.square(book.centres).sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(spread, 6 * lengths / np.sqrt(20), rtol=1e-5)
        np.testing.assert_allclose(drop, lengths**2, rtol=1e-5)
    else:
        assert not squares.any() and not drop.any()
        np.testing.assert_allclose(spread, 3 * lengths / np.sqrt(20), rtol=1e-5)


def test_the_spread_of_lists_is_the_root_mean_square_of_their_residuals():
    rows = vectors(500, 20, 2)
    book = codes.make_book("l2", rows, 500, 0, cells=7)
    spread = lists.Spread.of(8)
    for start in range(0, 500, 130):
        spread.see(codes.sketch(book, rows[start : start + 130]))
    cells = codes.sketch(book, rows).cells
    residuals = np.square(rows - book.centres[cells]).sum(axis=1)
    wanted = [np.sqrt(residuals[cells == each].mean()) for each in range(7)]
    np.testing.assert_allclose(spread.lengths()[:7], wanted, rtol=1e-4)
    np.testing.assert_allclose(spread.lengths()[7], np.sqrt(residuals.mean()), rtol=1e-4)  # a list without members


def test_the_number_of_lists_follows_the_number_of_vectors_unless_it_is_given():
    assert build(vectors(900))[1].stats()["lists"] == 120
    assert build(vectors(900), lists=7)[1].stats()["lists"] == 7
    assert build(vectors(3), lists=50)[1].stats()["lists"] == 3
    assert build(vectors(1))[1].stats()["lists"] == 1


@pytest.mark.parametrize("metric", METRICS)
def test_with_every_row_nominated_every_row_is_found(metric):
    rows = vectors(300, 30, 3)
    view, index = build(rows, metric)
    found = index.search(vectors(2, 30, 4), 10, allowed=None, effort=300, view=view)
    assert [sorted(row.tolist()) for row in found.positions] == [list(range(300))] * 2


def test_little_effort_looks_at_few_rows_and_still_gives_k():
    rows = vectors(3_000, 24, 5)
    view, index = build(rows)
    assert index.rule.rows_for(10, 3_000) < 1_000
    found = index.search(rows[:50], 10, allowed=None, effort=1, view=view)
    assert found.positions.shape == (50, 10) and (found.positions >= 0).all()


def test_a_selective_filter_looks_further_until_it_has_seen_enough():
    rows = vectors(3_000, 24, 6)
    view, index = build(rows, "l2")
    far = np.argsort(np.square(rows - rows[0]).sum(axis=1))[-40:]  # allowed is only what lies in the farthest lists
    allowed = np.zeros(3_000, np.bool_)
    allowed[far] = True
    found = index.search(rows[:1], 10, allowed=allowed, effort=None, view=view)
    assert set(found.positions[0].tolist()) - {-1} <= set(far.tolist())
    assert (found.positions[0] >= 0).sum() == 40
    few = index.search(rows[:1], 10, allowed=allowed, effort=1, view=view)
    assert (few.positions[0] >= 0).sum() == 10


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    blobs = []
    for seed in (5, 5, 6):
        kept = MemoryBlobs()
        build(vectors(), seed=seed)[1].dump(kept)
        blobs.append(kept.contents())
    assert blobs[0] == blobs[1] != blobs[2]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 31, 32, 33, 700])
def test_what_was_dumped_answers_alike(metric, count):
    rows = vectors(count, 30, 6)
    view, index = build(rows, metric)
    blobs, second = MemoryBlobs(), MemoryBlobs()
    index.dump(blobs)
    again = IvfType().load(blobs, view, {})
    for allowed in (None, np.arange(count) % 3 == 0):
        one, other = (
            each.search(vectors(5, 30, 7), 7, allowed=allowed, effort=None, view=view) for each in (index, again)
        )
        assert np.array_equal(one.positions, other.positions) and np.array_equal(one.scores, other.scores)
    again.dump(second)
    assert blobs.contents() == second.contents()
    assert (again.effort, again.rule) == (index.effort, index.rule)


def stored(rows=None):
    view, index = build(vectors(200, 20) if rows is None else rows)
    blobs = MemoryBlobs()
    index.dump(blobs)
    return view, index, blobs


def test_lists_of_another_number_or_width_are_refused():
    view, _, blobs = stored()
    for other in (MemoryView(vectors(199, 20), metric="dot"), MemoryView(vectors(200, 21), metric="dot")):
        with pytest.raises(CorruptionError):
            IvfType().load(blobs, other, {})
    assert IvfType().load(blobs, view, {}).coded.count == 200


def ask(blobs, view):
    index = IvfType().load(blobs, view, {})
    return index.search(vectors(3, 20, 8), 5, allowed=None, effort=20, view=view)


def changed(blobs, name, dtype, change):
    array = np.frombuffer(blobs.read(name), dtype).copy()
    change(array)
    return blobs.forged(name, array.tobytes())


@pytest.mark.parametrize(
    ("name", "dtype", "place", "value"),
    [
        ("starts", "<i8", 0, 1),
        ("starts", "<i8", -1, 201),
        ("starts", "<i8", 3, -1),
        ("starts", "<i8", 3, 1 << 60),
        ("lengths", "<f4", 0, np.nan),
        ("lengths", "<f4", 0, -1.0),
        ("lengths", "<f4", 0, np.inf),
        ("mean", "<f4", 0, np.nan),
        ("centres", "<f4", 5, 1e30),
        ("rule", "<i8", 0, 0),
        ("rule", "<i8", -1, -5),
        ("curve", "<f8", 0, 1e300),
        ("curve", "<f8", 1, 1.5),
        ("curve", "<f8", 2, np.nan),
        ("head", "u1", 0, 0),
        ("head", "u1", 8, 3),
        ("head", "u1", 12, 255),
    ],
)
def test_impossible_numbers_are_refused_when_they_are_loaded(name, dtype, place, value):
    view, _, blobs = stored()
    forged = changed(blobs, name, dtype, lambda array: array.__setitem__(place, value))
    with pytest.raises(CorruptionError):
        IvfType().load(forged, view, {})


@pytest.mark.parametrize("value", [0, 199, 200, -1, -(1 << 31), (1 << 31) - 1])
def test_a_position_that_stands_twice_or_outside_is_refused_before_it_is_followed(value):
    view, index, blobs = stored()
    blocks = index.coded.lists.blocks.array().copy()
    names = blocks[:, -128:].copy().view("<i4")
    assert names[0, 0] != value
    names[0, 0] = value
    blocks[:, -128:] = names.view(np.uint8)
    with pytest.raises(CorruptionError):
        ask(blobs.forged("blocks", blocks.tobytes()), view)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", [-384, -256])
def test_a_factor_that_is_no_number_is_refused(which, value):
    view, index, blobs = stored()
    blocks = index.coded.lists.blocks.array().copy()
    blocks[1, which : which + 4] = np.frombuffer(np.float32(value).tobytes(), np.uint8)
    with pytest.raises(CorruptionError):
        ask(blobs.forged("blocks", blocks.tobytes()), view)


@pytest.mark.parametrize("name", ["head", "mean", "centres", "signs", "lengths", "rule", "curve", "starts", "blocks"])
def test_damaged_and_missing_blobs_are_found_before_an_answer(name):
    view, _, blobs = stored()
    for bad in (blobs.damaged(name), blobs.forged(name, None), blobs.forged(name, b"")):
        with pytest.raises(CorruptionError):
            ask(bad, view)
    assert (ask(blobs, view).positions >= 0).all()


def test_a_cancelled_build_stops_while_centres_are_sought_and_while_vectors_are_encoded():
    for after in range(1, 9):
        asked = iter([False] * after + [True] * 99)
        with pytest.raises(CancelledError):
            build(vectors(50), cancel=lambda asked=asked: next(asked))


def test_a_segment_is_put_into_the_lists_of_the_index():
    rows, more = vectors(800, 24, 9), vectors(100, 24, 10)
    _, index = build(rows, "l2")
    view, blobs = MemoryView(more, metric="l2"), MemoryBlobs()
    index.encode_segment(view, blobs)
    part = IvfType().load(blobs, view, {})
    assert np.array_equal(part.coded.book.centres, index.coded.book.centres) and part.rule == index.rule
    found = part.search(more[:20], 1, allowed=None, effort=None, view=view)
    assert all(place in row for place, row in enumerate(found.positions.tolist()))


def test_without_kernels_an_index_is_built_and_says_that_it_measured_nothing(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")
    rows = vectors(400, 24, 11)
    view, index = build(rows, "l2")
    assert index.effort_curve() is None and index.effort == 400
    found = index.search(rows[:5], 3, allowed=None, effort=None, view=view)
    assert found.positions[:, 0].tolist() == list(range(5))
    monkeypatch.delenv("VECDB_KERNELS")
    blobs = MemoryBlobs()
    index.dump(blobs)
    again = IvfType().load(blobs, view, {})
    found = again.search(rows[:5], 3, allowed=None, effort=None, view=view)
    assert found.positions.shape == (5, 400) and again.effort_curve() is None


def test_a_collection_answers_through_lists_and_sealed_vectors_join_them_in_their_commit(tmp_path):
    rows, queries = vectors(9_000, 64, 8), vectors(20, 64, 9)
    with vecdb.open(tmp_path / "a.vecdb", plugins=vecdb.PluginRegistry(entry_points=False)) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=64, metric="cosine")
        docs.upsert(list(range(3_000)), vectors={"s": rows[:3_000]}, metadata=[{"n": n} for n in range(3_000)])
        made = docs.create_index("s", "ivf", lists=60)
        assert made.coverage == 1.0 and made.parts == 1 and made.stats["lists"] == 60
        with pytest.raises(ParameterError):
            docs.create_index("s", "ivf", lists=-1)
        docs.upsert(list(range(3_000, 9_000)), vectors={"s": rows[3_000:]})
        grown = docs.indexes[0]
        assert grown.parts == 2 and grown.coverage > 0.5
        for where in (None, {"n": {"$lt": 2_500}}):
            hits = docs.search(queries, k=10, where=where, explain=True)
            exact = docs.search(queries, k=10, where=where, exact=True)
            shared = sum(len(set(one) & set(other)) for one, other in zip(hits.ids, exact.ids, strict=True))
            assert shared >= 0.9 * 200 and hits.plan["index"] == "ivf"
        docs.delete(list(range(0, 9_000, 3)))
        hits = docs.search(queries, k=10)
        assert all(len(ids) == 10 and all(id % 3 for id in ids) for ids in hits.ids)
        assert db.check().ok
    with vecdb.open(tmp_path / "a.vecdb", plugins=vecdb.PluginRegistry(entry_points=False)) as db:
        again = db.collection("docs").search(queries, k=10)
        assert again.ids == hits.ids
