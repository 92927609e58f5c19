"""The parts that carry the age of vectors through an export: the order of rows, its files, and the ids by line."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import CorruptionError, FileAccessError, SourceError
from vecdb.interchange.ageorder import places_by_age, reorder
from vecdb.interchange.chunks import Limits
from vecdb.interchange.exportvectors import SpaceRows
from vecdb.interchange.idspool import IdSpool
from vecdb.interchange.manifest import SpaceFiles
from vecdb.types import Space

IDS = ["a", 1, "1", -5, "ü", 2**62, "z"]


# --- where the oldest vector stands -----------------------------------------------------------------------


@given(st.permutations(range(7)), st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6)))
def test_places_by_age_is_what_a_sort_by_age_gives(age_order, with_vector, exported):
    """Lines count the exported records; the order also names vectors of records that are not exported."""
    order = [IDS[one] for one in age_order if one in with_vector]
    ids = [IDS[one] for one in sorted(exported)]
    lines = [line for line, one in enumerate(ids) if IDS.index(one) in with_vector]
    places = places_by_age(order, ids, lines)
    expected = sorted(range(len(lines)), key=lambda place: order.index(ids[lines[place]]))
    assert (list(range(len(lines))) if places is None else places.tolist()) == expected
    assert (places is None) == (expected == sorted(expected))


def test_a_vector_without_an_age_is_damage():
    with pytest.raises(CorruptionError, match="2 records have a vector, but only 1"):
        places_by_age(["a"], ["a", "b"], [0, 1])


# --- the files of a space ---------------------------------------------------------------------------------


@given(st.permutations(range(9)), st.sampled_from(["float32", "float16"]))
def test_reorder_permutes_both_files(tmp_path_factory, places, dtype):
    folder = tmp_path_factory.mktemp("reorder")
    vectors = np.arange(27).reshape(9, 3).astype(dtype)
    lines = np.arange(9) * 2
    np.save(folder / "s.npy", vectors)
    np.save(folder / "s.rows.npy", lines)
    reorder(str(folder / "s.npy"), str(folder / "s.rows.npy"), np.array(places), lines)
    found = np.load(folder / "s.npy")
    assert found.dtype == dtype and found.tobytes() == vectors[places].tobytes()
    assert np.load(folder / "s.rows.npy").tolist() == lines[places].tolist()
    assert sorted(os.listdir(folder)) == ["s.npy", "s.rows.npy"]


def open_rows(folder, lines, records):
    lines = np.array(lines, np.int64)
    np.save(folder / "s.npy", np.stack([lines, -lines], 1).astype(np.float32))
    np.save(folder / "s.rows.npy", lines)
    item = SpaceFiles(Space(name="s", dim=2, dtype="float32"), len(lines), "s.npy", "s.rows.npy")
    return SpaceRows(str(folder), item, records)


@given(st.permutations(range(12)), st.integers(0, 12), st.integers(1, 5), st.integers(0, 12), st.booleans())
def test_every_vector_is_read_once(tmp_path_factory, lines, count, step, skip, ascending):
    lines = sorted(lines[:count]) if ascending else lines[:count]
    prefix = next((n for n in range(1, len(lines)) if lines[n] < lines[n - 1]), len(lines))
    rows = open_rows(tmp_path_factory.mktemp("rows"), lines, 12)
    try:
        assert (rows.ordered, rows.later) == (prefix, len(lines) - prefix)
        found = []
        for start in range(0, 12, step):
            block = rows.of_records(start, min(start + step, 12))
            at = range(len(block.rows)) if block.at is None else block.at.tolist()
            assert [start + place for place in at] == block.rows[:, 0].tolist()
            found += block.rows[:, 0].tolist()
        assert found == lines[:prefix]
        skip = min(skip, rows.later)
        limits = Limits(rows=step, nbytes=1 << 20)
        expected = lines[prefix + skip :]
        pieces = list(rows.after_records(skip, limits))
        assert [line for _, some, _ in pieces for line in some] == expected
        assert [row[0] for *_, block in pieces for row in block.rows.tolist()] == expected
        assert all(lines[first] == some[0] and len(some) <= step for first, some, _ in pieces)
    finally:
        rows.close()


def test_later_vectors_keep_the_limit_of_bytes(tmp_path):
    rows = open_rows(tmp_path, range(9, -1, -1), 10)
    assert [len(some) for _, some, _ in rows.after_records(0, Limits(rows=100, nbytes=32))] == [4, 4, 1]
    rows.close()


def test_long_files_are_surveyed_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("vecdb.interchange.exportvectors._PIECE", 4)
    for lines, ordered in (
        (range(20), 20),
        ([*range(8), 7 + 5, *range(8, 12)], 9),
        ([0, 1, 2, 3, 2 + 8, 4, 5], 5),
        ([4, 5, 6, 7, 0, 1, 2, 3], 4),
    ):
        rows = open_rows(tmp_path, lines, 20)
        assert rows.ordered == ordered
        rows.close()
    with pytest.raises(SourceError, match=r"s\.rows\.npy.*line 3 twice"):
        open_rows(tmp_path, [*range(6), 3], 20)


# --- ids by line ------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_ids_come_back_in_any_order(tmp_path_factory, ids):
    spool = IdSpool(str(tmp_path_factory.getbasetemp()))
    try:
        spool.extend(ids[:3])
        spool.extend(ids[3:])
        assert len(spool) == len(ids)
        places = list(range(len(ids)))[::-2] + list(range(len(ids)))
        found = spool.get(places)
        assert found == [ids[place] for place in places]
        assert [type(one) for one in found] == [type(ids[place]) for place in places]
    finally:
        spool.close()


def test_the_file_of_ids_has_no_name(tmp_path):
    spool = IdSpool(str(tmp_path))
    spool.extend(["x"] * 100_000)
    assert spool.get([99_999]) == ["x"]
    spool.close()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileAccessError, match=r"nowhere.*No such file"):
        IdSpool(str(tmp_path / "nowhere"))


def test_a_full_disk_is_named(tmp_path):
    spool = IdSpool(str(tmp_path))
    real = spool._stream

    def full(data):
        raise OSError(28, "No space left on device")

    spool._stream = SimpleNamespace(write=full, close=real.close)
    with pytest.raises(FileAccessError, match="No space left"):
        spool.extend(["a"])
    spool.close()
