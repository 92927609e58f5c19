"""The view and the blobs in memory that checks are made with, and the child processes of the checks that need one."""

import numpy as np
import pytest

from tests.conformance.plain import PlainIndex, PlainType
from vecdb.contracts import BlobReader, BlobWriter
from vecdb.contracts.blobs import MadeRows
from vecdb.errors import CorruptionError, PluginContractError
from vecdb.indexes.flat import FlatType
from vecdb.testing.datasets import gaussian
from vecdb.testing.index_checks import apart, jobs
from vecdb.testing.memory import MemoryBlobs, MemoryView
from vecdb.testing.processes import call_in_child

ROWS = gaussian(50, 6, 1)


def read_in_place(view):
    with view.in_place() as here:
        places = np.arange(view.count) + here.first if here.places is None else here.places
        there = places[places >= 0]
        return here.blocks.gather(there).copy(), np.flatnonzero(places >= 0)


# --- views ---


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("block_rows", [(64,), (1, 7, 3), (50,)])
def test_every_way_to_read_gives_the_same_rows(dtype, scattered, block_rows):
    view = MemoryView(ROWS, "l2", dtype=dtype, scattered=scattered, block_rows=block_rows)
    stored = ROWS.astype(dtype)
    assert (view.count, view.dim, view.metric, view.space.dtype) == (50, 6, "l2", dtype)
    chunks = list(view.chunks(16))
    assert [len(positions) for positions, _ in chunks] == [16, 16, 16, 2]
    assert np.array_equal(np.concatenate([rows for _, rows in chunks]), stored.astype(np.float32))
    assert np.array_equal(view.gather([3, 3, 0]), stored[[3, 3, 0]].astype(np.float32))
    in_place, positions = read_in_place(view)
    assert in_place.dtype == dtype and np.array_equal(in_place, stored)
    assert positions.tolist() == list(range(50))


def test_removed_rows_are_left_out_and_cannot_be_gathered():
    view = MemoryView(ROWS, removed=[0, 7])
    kept = np.setdiff1d(np.arange(50), [0, 7])
    assert np.concatenate([positions for positions, _ in view.chunks()]).tolist() == kept.tolist()
    in_place, positions = read_in_place(view)
    assert np.array_equal(in_place, ROWS[kept]) and positions.tolist() == kept.tolist()
    assert len(view.ordinals) == view.count == 50
    with pytest.raises(PluginContractError, match="position 7 is asked for, which was removed"):
        view.gather([1, 7])


def test_places_ascend_and_are_not_those_of_a_run():
    with MemoryView(ROWS, scattered=True).in_place() as here:
        assert (np.diff(here.places) > 0).all() and here.places[0] > 0
        assert here.blocks.count > 50


@pytest.mark.parametrize("positions", [[-1], [50], [[1, 2]]])
def test_positions_outside_the_view_are_refused(positions):
    with pytest.raises(PluginContractError, match="expected 0 to 49"):
        MemoryView(ROWS).gather(positions)


def test_ordinals_ascend_with_gaps_and_are_read_only():
    ordinals = MemoryView(ROWS).ordinals
    assert ordinals.dtype == np.uint64 and (np.diff(ordinals.astype(np.int64)) > 1).all()
    assert not ordinals.flags.writeable


def test_blocks_are_read_only_and_spoilt_when_the_loan_ends():
    view = MemoryView(ROWS, spoil=True)
    with view.in_place() as here:
        kept = here.blocks.matrices[0]
        assert not kept.flags.writeable and np.isfinite(kept).all()
    assert np.isnan(kept).all()
    assert np.array_equal(view.gather([0]), ROWS[:1])


def test_a_closed_view_refuses_everything():
    view = MemoryView(ROWS)
    view.close()
    for use in (lambda: view.gather([0]), lambda: next(view.chunks()), lambda: view.in_place().__enter__()):
        with pytest.raises(PluginContractError, match="after the call it was lent to"):
            use()


def test_a_view_owns_its_rows():
    rows = ROWS.copy()
    view = MemoryView(rows)
    rows[...] = 0
    view.gather([0])[...] = 0
    assert np.array_equal(view.gather([0]), ROWS[:1])


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_scales_are_those_of_the_engine(metric):
    from vecdb.blocks import row_scales

    with MemoryView(ROWS, metric).in_place() as here:
        ours, rows = here.blocks.scales[0], here.blocks.matrices[0]
    assert np.allclose(ours, row_scales(metric, rows), rtol=1e-6)


# --- blobs ---


def test_blobs_are_writer_and_reader():
    blobs = MemoryBlobs()
    writer: BlobWriter = blobs
    reader: BlobReader = blobs
    writer.write("b", b"abc")
    writer.write("a", np.arange(6, dtype=np.int32).reshape(2, 3))
    writer.write("empty", b"")
    assert reader.names() == ["b", "a", "empty"]
    assert (reader.size("a"), reader.read("b"), reader.read("empty")) == (24, b"abc", b"")
    array = reader.array("a", np.int32, (-1, 3))
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]] and not array.flags.writeable
    assert reader.array("empty", np.int32, (0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("Loud", b"", "a blob is called 'Loud'"),
        ("", b"", "is called ''"),
        ("x" * 65, b"", "1 to 64"),
        ("taken", b"", "written twice"),
        ("a", "text", "is str, expected bytes"),
        ("a", np.arange(10)[::2], "not C-contiguous"),
        ("a", np.array([None]), "objects|ndarray"),
    ],
)
def test_a_strict_writer_refuses_and_a_lenient_one_remembers(name, data, message):
    for strict in (True, False):
        blobs = MemoryBlobs(strict)
        blobs.write("taken", b"1")
        if strict:
            with pytest.raises(PluginContractError, match=message):
                blobs.write(name, data)
        else:
            blobs.write(name, data)
            assert len(blobs.problems) == 1


@pytest.mark.parametrize("shape", [(7,), (2, 3), (-1, 5), (9,)])
def test_a_blob_of_another_size_is_corrupt(shape):
    with pytest.raises(CorruptionError, match="has 32 bytes"):
        MemoryBlobs.of({"a": bytes(32)}).array("a", np.float32, shape)


def test_damage_is_noticed_forgery_is_not():
    blobs = MemoryBlobs.of({"a": b"1234", "b": b"5678"})
    with pytest.raises(CorruptionError, match="'a' is damaged"):
        blobs.damaged("a").read("a")
    assert blobs.damaged("a").read("b") == b"5678"
    assert blobs.forged("a", b"x").contents() == {"a": b"x", "b": b"5678"}
    gone = blobs.forged("a", None)
    assert gone.names() == ["b"]
    for use in (gone.size, gone.read):
        with pytest.raises(CorruptionError, match="'a' is missing"):
            use("a")
    assert blobs.read("a") == b"1234"


def test_data_that_change_after_they_were_written_are_told():
    blobs, data = MemoryBlobs(), bytearray(b"12")
    blobs.write("a", data)
    blobs.write("b", b"12")
    assert blobs.changed() == []
    data[0] = 0
    assert blobs.changed() == ["a"] and blobs.read("a") == b"12"


# --- child processes ---


def test_forgeries_are_of_every_kind_and_the_original_is_untouched():
    blobs = MemoryBlobs.of({"a": bytes(range(100)), "b": b"xy", "c": b""})
    made = list(jobs.forgeries(blobs))
    words = " | ".join(what for what, _, _ in made)
    for kind in ("empty", "one byte short", "half", "longer", "missing", "all zero", "byte 0 changed", "swapped"):
        assert kind in words
    assert all(forged.contents() != blobs.contents() for what, forged, _ in made if "all" not in what)
    assert blobs.contents()["a"] == bytes(range(100))


def test_a_type_is_found_by_a_fresh_interpreter_only_if_it_is_the_same_there():
    place = apart._place_of(FlatType())
    assert place == {"module": "vecdb.indexes.flat", "name": "FlatType"}
    assert jobs.resolve(place) == FlatType() == jobs.resolve({"registered": "flat"})
    assert apart._place_of(PlainType(version=2)) is None
    assert apart._place_of(PlainType(index=type("Other", (PlainIndex,), {}))) is None


class Restless(PlainIndex):
    @classmethod
    def load(cls, blobs, view, params):
        while True:
            pass


def test_a_child_that_hangs_is_ended_and_told(monkeypatch):
    monkeypatch.setattr(apart, "_PATIENCE", 0.3)
    said = list(apart.run_apart(PlainType(index=Restless), "watched"))
    assert said == [{"died": "does not end within 0.3 s"}]


@pytest.mark.parametrize("job", jobs.JOBS)
def test_a_child_in_an_interpreter_of_its_own_says_nothing_of_a_good_type(job):
    said = list(apart.run_apart(FlatType(), job))
    assert [word for word in said if set(word) & {"died", "wrong", "file", "execution"}] == []


def test_a_type_that_cannot_be_imported_there_is_forked(monkeypatch):
    monkeypatch.setattr(apart, "_place_of", lambda index_type: {"module": "no_such_module_", "name": "X"})
    said = list(apart.run_apart(PlainType(), "forged"))
    assert said and all("trying" in word for word in said)


def test_a_forked_child_does_not_need_a_standard_error_with_a_descriptor(capsys):
    """It once went on as a second test run when sys.stderr was replaced, for want of a descriptor."""
    assert call_in_child(lambda: "here") == "here"
    assert list(apart.run_apart(PlainType(index=type("Own", (PlainIndex,), {})), "watched")) == []


# --- rows that are made when they are stored ---


@pytest.mark.parametrize("count", [0, 1, 32, 100])
def test_rows_that_are_made_are_kept_as_those_that_are_there(count):
    table, spans = np.arange(count * 5, dtype=np.int16).reshape(count, 5), []

    def make(first, stop):
        spans.append((first, stop))
        return table[first:stop]

    blobs = MemoryBlobs()
    blobs.write_rows("a", MadeRows(count, 10, make))
    assert blobs.read("a") == table.tobytes() and blobs.changed() == []
    assert np.array_equal(blobs.rows("a", np.int16, 5, count).array(), table)
    assert len(spans) == 2 * -(-count // 32) and (count < 64 or spans[0][0] > spans[1][0])


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (MadeRows(3, 8, lambda first, stop: np.zeros(stop - first, np.float32)), "have 12 bytes"),
        (MadeRows(3, 0, lambda first, stop: np.zeros(0)), "rows of 0 bytes"),
        (MadeRows(-1, 8, lambda first, stop: np.zeros(0)), "rows of 8 bytes"),
        (MadeRows(3, 8, lambda first, stop: np.random.default_rng().random(3)), "not the same"),
    ],
)
def test_rows_that_are_made_wrong_are_refused(made, problem):
    with pytest.raises(PluginContractError, match=problem):
        MemoryBlobs().write_rows("a", made)
