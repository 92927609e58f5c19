"""What a plan reads: vectors at unit length, pairs in every form, judgements by row, clusters of queries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.errors import ArgumentError, NonFiniteError, VectorMissingError
from vecdb.upgrade.material import Material, gather

ROWS, OLD, NEW = 90, 6, 5


@pytest.fixture
def db(tmp_path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as database:
        yield database


@pytest.fixture
def old() -> Any:
    return np.random.default_rng(0).normal(size=(ROWS, OLD)).astype(np.float32)


@pytest.fixture
def new() -> Any:
    return np.random.default_rng(1).normal(size=(ROWS, NEW)).astype(np.float32)


@pytest.fixture
def docs(db: vecdb.Database, old: Any, new: Any) -> vecdb.Collection:
    """Return records of which every third has no old vector, and the first fifty a new one."""
    docs = db.create_collection("docs")
    docs.add_space("old", dim=OLD)
    docs.add_space("new", dim=NEW, metric="dot")
    docs.add_space("other", dim=2)
    names = [f"d{row}" for row in range(ROWS)]
    docs.upsert(names, vectors={"other": np.ones((ROWS, 2))})
    docs.set_vectors("old", [names[row] for row in holders()], old[holders()])
    docs.set_vectors("new", names[:50], new[:50])
    return docs


def read(docs: vecdb.Collection, pairs: Any = None, queries: Any = None, **given: Any) -> Material:
    spaces = docs.spaces["old"], docs.spaces["new"]
    return gather(docs, spaces, pairs, queries, given.get("bank"), given.get("groups"))


def holders(rows: range = range(ROWS)) -> list[int]:
    return [row for row in rows if row % 3]


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.upgrade.material.FEWEST_PAIRS", 3)


def test_the_gallery_is_every_old_vector_in_the_order_of_records(docs: vecdb.Collection, old: Any, few: None) -> None:
    made = read(docs)
    assert made.gallery == pytest.approx(unit(old[holders()]), abs=1e-6)
    assert not made.gallery.flags.writeable and made.gallery.dtype == np.float32


def test_without_pairs_they_are_the_records_that_have_both(
    docs: vecdb.Collection, old: Any, new: Any, few: None
) -> None:
    made, both = read(docs), holders(range(50))
    assert made.ids == tuple(f"d{row}" for row in both)
    assert pytest.approx(new[both]) == made.Y  # a dot space keeps its lengths
    assert pytest.approx(unit(old[both]), abs=1e-6) == made.X
    assert (made.gallery[made.places] == made.X).all()


def test_pairs_by_id_are_in_the_order_given(docs: vecdb.Collection, old: Any, new: Any, few: None) -> None:
    chosen = [88, 1, 40, 20]
    for ids in ([f"d{row}" for row in chosen], np.array([f"d{row}" for row in chosen])):
        made = read(docs, (ids, new[chosen]))
        assert pytest.approx(unit(old[chosen]), abs=1e-6) == made.X
        assert pytest.approx(new[chosen]) == made.Y
        assert [holders().index(row) for row in chosen] == made.places.tolist()


def test_pairs_of_vectors_need_no_records(docs: vecdb.Collection, old: Any, new: Any, few: None) -> None:
    made = read(docs, (old.tolist(), new))
    assert made.places.tolist() == [-1] * ROWS and made.ids == ()
    assert pytest.approx(unit(old), abs=1e-6) == made.X


def test_a_record_without_an_old_vector_is_no_pair(docs: vecdb.Collection, new: Any, few: None) -> None:
    with pytest.raises(VectorMissingError, match="d3"):
        read(docs, (["d1", "d3"], new[:2]))


def test_vectors_that_are_not_finite_are_refused(docs: vecdb.Collection, old: Any, new: Any, few: None) -> None:
    with pytest.raises(NonFiniteError):
        read(docs, (old, np.where(np.arange(NEW) == 1, np.nan, new)))


def test_groups_and_near_duplicates_are_joined(docs: vecdb.Collection, old: Any, new: Any, few: None) -> None:
    X, Y = old.copy(), new.copy()
    X[7], Y[7] = X[3] * 1.001, Y[3] * 1.001
    made = read(docs, (X, Y), groups=["a" if row in (20, 3) else row for row in range(ROWS)])
    assert made.groups[7] == made.groups[3] == made.groups[20]
    alone = read(docs, (X, Y))
    assert len(np.unique(made.groups)) == len(np.unique(alone.groups)) - 1 < ROWS - 1
    assert alone.groups[7] == alone.groups[3] != alone.groups[20]


def test_of_too_many_pairs_the_answers_and_a_random_rest_are_used(
    docs: vecdb.Collection, old: Any, new: Any, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.upgrade.material.MOST_PAIRS", 10)
    rows = holders()
    ids, groups = [f"d{row}" for row in rows], [row % 7 for row in rows]
    queries = vecdb.QuerySet(new=np.eye(NEW)[:3], relevant=["d1", "d55", "d88"])
    made = read(docs, (ids, new[rows]), queries=queries, groups=groups)
    assert len(made.X) == len(made.ids) == len(made.groups) == 10
    assert {"d1", "d55", "d88"} <= set(made.ids)
    kept = [int(id[1:]) for id in made.ids]
    assert pytest.approx(new[kept]) == made.Y and (made.gallery[made.places] == made.X).all()
    for one, row in enumerate(kept):
        for other, second in enumerate(kept):
            if row % 7 == second % 7:
                assert made.groups[one] == made.groups[other]
    assert any("50 of 60 pairs" in note for note in made.notes)


# --- queries ----------------------------------------------------------------------------------------------


def asked(count: int = 4, **given: Any) -> vecdb.QuerySet:
    random = np.random.default_rng(2)
    both = {"old": random.normal(size=(count, OLD)), "new": random.normal(size=(count, NEW))}
    return vecdb.QuerySet(**{**both, **given})


def test_answers_are_rows_of_the_gallery(docs: vecdb.Collection, few: None) -> None:
    made = read(docs, queries=asked(relevant=["d1", ["d4", "d5"], {"d7": 2, "d8": 0}, None]))
    judged = made.questions.judged  # type: ignore[union-attr]
    assert judged is not None
    rows = holders()
    assert judged.starts.tolist() == [0, 1, 3, 4, 4]
    assert [rows[row] for row in judged.rows] == [1, 4, 5, 7]
    assert judged.grades.tolist() == [1, 1, 1, 2]


def test_answers_without_an_old_vector_are_left_out_and_counted(docs: vecdb.Collection, few: None) -> None:
    made = read(docs, queries=asked(relevant=["d1", "d3", "d4", "nobody"]))
    assert made.questions.judged.answered.tolist() == [True, False, True, False]  # type: ignore[union-attr]
    assert any("2 relevant records" in note for note in made.notes)


def test_what_is_missing_is_said(docs: vecdb.Collection, few: None) -> None:
    assert any("no queries" in note for note in read(docs).notes)
    assert any("staying" in note for note in read(docs, queries=asked(old=None, relevant=["d1"] * 4)).notes)
    assert any("answers" in note for note in read(docs, queries=asked()).notes)
    assert read(docs, queries=asked(relevant=["d1"] * 4)).notes == ()


def test_queries_of_one_answer_or_one_group_are_one_cluster(docs: vecdb.Collection, few: None) -> None:
    made = read(docs, queries=asked(relevant=["d1", "d2", "d1", "d4"], groups=["x", "y", "z", "y"]))
    clusters = made.questions.clusters.tolist()  # type: ignore[union-attr]
    assert clusters[0] == clusters[2] != clusters[1] == clusters[3]
    near = asked()
    near.new[3] = near.new[0] * 1.0001
    clusters = read(docs, queries=near).questions.clusters.tolist()  # type: ignore[union-attr]
    assert clusters[3] == clusters[0] and len(set(clusters)) == 3


def test_a_bank_needs_no_answers_and_an_empty_set_is_none(docs: vecdb.Collection, few: None) -> None:
    bank = vecdb.QuerySet(new=np.ones((3, NEW)))
    made = read(docs, queries=asked(relevant=["d1"] * 4), bank=bank)
    assert made.bank is not None and made.bank.old is None and made.bank.count == 3
    assert read(docs, queries=vecdb.QuerySet()).questions is None


@pytest.mark.parametrize("given", [{"relevant": ["d1"] * 3}, {"groups": ["a"]}, {"old": np.ones((3, OLD))}])
def test_parts_of_different_lengths_are_refused(docs: vecdb.Collection, given: dict[str, Any], few: None) -> None:
    with pytest.raises(ArgumentError, match="as many"):
        read(docs, queries=asked(**given))


def test_a_large_space_is_read_in_chunks(db: vecdb.Database, few: None) -> None:
    rows = np.random.default_rng(3).normal(size=(5_000, OLD)).astype(np.float32)
    docs = db.create_collection("many")
    docs.add_space("old", dim=OLD)
    docs.add_space("new", dim=NEW)
    docs.upsert(range(5_000), vectors={"old": rows}, trust=True)
    made = read(docs, (rows[:5], np.ones((5, NEW))))
    assert made.gallery == pytest.approx(unit(rows), abs=1e-6)
