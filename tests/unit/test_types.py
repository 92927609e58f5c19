"""Values: frozen, comparable, picklable; hits keep their order and say when they are incomplete."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb import types
from vecdb.types import CheckReport, Commit, Hit, Hits, HitsBatch, Plan, Record, RecordVersion, Space, WriteResult

VALUES = [
    Space("minilm", 384, model="all-MiniLM-L6-v2", revision="1"),
    Record("a", {"section": "games"}, "text", 2, spaces=("minilm",)),
    Hit("a", 0.75, 0.25, space="minilm"),
    WriteResult(3, inserted=2, updated=1),
    Commit(3, 1.5, ("docs: 2 records",), ("before",)),
    RecordVersion(3, None),
    CheckReport(True, (), {"records": 3}, 0.1),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen_slotted_and_equal_to_themselves(value):
    first = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, None)
    assert not hasattr(value, "__dict__")
    assert value == dataclasses.replace(value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_survive_pickling(value):
    assert pickle.loads(pickle.dumps(value)) == value


def test_records_with_vectors_survive_pickling():
    record = Record("a", {"x": 1}, None, 1, vectors={"s": np.arange(3, dtype=np.float32)}, spaces=("s",))
    again = pickle.loads(pickle.dumps(record))
    np.testing.assert_array_equal(again.vectors["s"], record.vectors["s"])
    assert again.metadata == record.metadata


def test_all_names_exist_and_cover_the_module():
    defined = {
        name
        for name, value in vars(types).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == "vecdb.types"
    }
    assert defined <= set(types.__all__)
    assert all(hasattr(types, name) for name in types.__all__)


def test_metrics_and_limits_are_those_of_the_documents():
    assert types.METRICS == ("cosine", "dot", "l2")
    assert (types.MAX_DIM, types.MAX_ID_BYTES, types.MAX_METADATA_BYTES, types.MAX_K) == (65536, 480, 1048576, 10000)


# --- hits -------------------------------------------------------------------------------------------------

hit_lists = st.lists(
    st.builds(
        Hit,
        id=st.integers() | st.text(min_size=1),
        score=st.floats(-1, 1, width=32),
        distance=st.floats(0, 2, width=32),
    ),
    max_size=12,
)


@given(hit_lists)
def test_hits_are_a_sequence_with_parallel_arrays(rows):
    hits = Hits(rows, seq=4)
    assert list(hits) == rows
    assert hits.ids == [hit.id for hit in rows]
    assert hits.scores.dtype == hits.distances.dtype == np.float32
    assert hits.scores.shape == hits.distances.shape == (len(rows),)
    assert hits.scores.tolist() == [hit.score for hit in rows]
    assert hits[1:3] == tuple(rows[1:3])
    assert bool(hits) == bool(rows)


@given(st.lists(hit_lists, max_size=4))
def test_a_batch_pads_short_rows_with_the_worst_score(rows):
    batch = HitsBatch([Hits(row, seq=1) for row in rows], k=12, seq=1)
    assert batch.scores.shape == batch.distances.shape == (len(rows), 12)
    assert batch.counts.tolist() == [len(row) for row in rows]
    for place, row in enumerate(rows):
        assert list(batch[place]) == row
        assert batch.scores[place, : len(row)].tolist() == [hit.score for hit in row]
        assert np.isneginf(batch.scores[place, len(row) :]).all()
        assert np.isposinf(batch.distances[place, len(row) :]).all()


def test_a_batch_is_complete_only_if_every_row_is():
    whole, part = Hits([], seq=1), Hits([], seq=1, complete=False, reason="stopped after 1 s")
    assert HitsBatch([whole, whole], k=1, seq=1).complete
    assert not HitsBatch([whole, part], k=1, seq=1).complete


def test_an_empty_batch_has_no_rows():
    batch = HitsBatch([], k=5, seq=1)
    assert (len(batch), batch.scores.shape, batch.complete) == (0, (0, 5), True)


def test_representations_are_short_and_tell_what_is_missing():
    hits = Hits([Hit(f"id{n}", 1 - n / 10, n / 10) for n in range(8)], seq=1, complete=False, reason="stopped")
    assert repr(hits) == (
        "<Hits 8 ['id0': 1.0000, 'id1': 0.9000, 'id2': 0.8000, 'id3': 0.7000, 'id4': 0.6000, ... 3 more]"
        " incomplete: stopped>"
    )
    assert repr(HitsBatch([hits], k=8, seq=1)) == "<HitsBatch 1 queries, 8 hits>"


def test_a_plan_is_a_mapping_and_a_line():
    facts = {"path": "exact scan", "rows": 3}
    plan = Plan(facts)
    facts["rows"] = 4
    assert dict(plan) == {"path": "exact scan", "rows": 3}
    assert str(plan) == "path: exact scan; rows: 3"
    assert repr(plan) == "Plan(path='exact scan', rows=3)"
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_records_do_not_share_their_default_vectors():
    assert Record("a", {}, None, 1).vectors is not Record("b", {}, None, 1).vectors


def test_hits_by_column_are_the_same_hits():
    """Hits are made of columns when they are looked at; what a caller does to the columns does not reach them."""
    scores = np.array([0.5, 0.25], np.float32)
    columns = types.HitColumns(["a", 7], scores, 1.0, "s", [{"n": 1}, {}], ["x", None], [{"s": scores}, {}])
    lazy = Hits(columns, seq=3)
    again = pickle.loads(pickle.dumps(lazy))
    lazy.ids.reverse()
    lazy.scores[:] = lazy.distances[:] = 0
    expected = [
        Hit("a", 0.5, 0.5, {"n": 1}, "x", "s", relevance=None, raw_score=0.5, vectors={"s": scores}),
        Hit(7, 0.25, 0.75, {}, None, "s", relevance=None, raw_score=0.25, vectors={}),
    ]
    assert len(lazy) == 2 and lazy[0].vectors is not None and lazy[1] == expected[1]
    assert dataclasses.replace(lazy[0], vectors=None) == dataclasses.replace(expected[0], vectors=None)
    assert [hit.id for hit in again] == ["a", 7] == again.ids and again.scores.tolist() == [0.5, 0.25]
    assert list(Hits(types.HitColumns(["a"], scores[:1], 0.0), seq=1)) == [Hit("a", 0.5, -0.5, raw_score=0.5)]
    assert lazy[0] is lazy[0]


def test_distances_belong_to_the_scores():
    scores = np.array([1.0, 2.5, -3.0, 0.0], np.float32)
    hits = Hits(types.HitColumns([1, 2, 3, 4], scores, 0.0), seq=1)
    assert hits.distances.tolist() == [-1.0, -2.5, 3.0, 0.0] and str(hits.distances[3]) == "0.0"
    assert hits.distances.dtype == np.float32 and hits.distances is hits.distances
    assert Hits(types.HitColumns([1, 4], scores[[0, 3]], 1.0), seq=1).distances.tolist() == [0.0, 1.0]
    given = Hits([Hit("a", 0.5, 7.0), Hit("b", 0.25, 9.0)], seq=1)
    assert given.distances.tolist() == [7.0, 9.0] and given[1].distance == 9.0
    batch = HitsBatch([hits, given], k=5, seq=1)
    assert batch.distances.tolist() == [[-1.0, -2.5, 3.0, 0.0, np.inf], [7.0, 9.0, np.inf, np.inf, np.inf]]
    assert pickle.loads(pickle.dumps(batch)).distances.tolist() == batch.distances.tolist()
    looked_at = Hits(types.HitColumns([1], scores[:1], 1.0), seq=1)
    assert looked_at[0].distance == 0.0 and looked_at.distances.tolist() == [0.0]


def test_warnings_are_found_once_and_pickled():
    asked = []
    hits = Hits([], seq=1, warnings=lambda: asked.append(1) or ("odd",))
    assert not asked
    assert pickle.loads(pickle.dumps(hits)).warnings == ("odd",) == hits.warnings and asked == [1]
    assert Hits([], seq=1, warnings=("given",)).warnings == ("given",) and Hits([], seq=1).warnings == ()
