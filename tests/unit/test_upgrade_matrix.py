"""The compatibility matrix: its cells against searches one by one, AC and AM against the definition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.unit.upgrades import unit
from vecdb.errors import ArgumentError, DimensionError, ParameterError, RecordMissingError

COUNT, ASKED, DIM = 150, 60, 12


@pytest.fixture
def db(tmp_path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as database:
        yield database


@pytest.fixture
def made(db: vecdb.Database) -> tuple[vecdb.Collection, dict[str, Any], list[str]]:
    """Three versions: "b" is "a" turned, "c" is "b" seen more clearly."""
    random = np.random.default_rng(0)
    meaning = random.normal(size=(COUNT, DIM))
    answers = random.permutation(COUNT)[:ASKED]
    asked = meaning[answers] + 0.9 * random.normal(size=(ASKED, DIM))
    turn = np.linalg.qr(random.normal(size=(DIM, DIM)))[0]
    blur = [0.6 * random.normal(size=rows.shape) for rows in (meaning, asked)]
    models = {
        "a": (unit(meaning + blur[0]), unit(asked + blur[1])),
        "b": (unit((meaning + blur[0]) @ turn), unit((asked + blur[1]) @ turn)),
        "c": (unit(meaning @ turn), unit(asked @ turn)),
    }
    docs = db.create_collection("docs")
    ids = [f"d{row}" for row in range(COUNT)]
    for name in models:
        docs.add_space(name, dim=DIM)
    docs.upsert(ids, vectors={name: rows for name, (rows, _) in models.items()})
    return docs, {name: queries for name, (_, queries) in models.items()}, [ids[row] for row in answers]


def reciprocal(docs: vecdb.Collection, rows: Any, space: str, relevant: list[str]) -> float:
    """Return the mean reciprocal rank of single exact searches."""
    total = 0.0
    for row, answer in zip(rows, relevant, strict=True):
        total += 1.0 / (docs.search(row, k=COUNT, space=space, exact=True, spaces="native").ids.index(answer) + 1)
    return total / len(relevant)


def test_cells_are_what_searches_give(made: Any) -> None:
    docs, queries, relevant = made
    docs.fit_transform("b", "a", "procrustes", params={"center": False, "scale": "none"})
    docs.fit_transform("b", "c", "ridge", direction="gallery")
    found = docs.compatibility_matrix(queries, relevant)
    assert found.spaces == ("a", "b", "c")
    assert found.vectors == (COUNT,) * 3 and found.queries == ASKED
    for place, name in enumerate(found.spaces):
        cell = found.values[place][place]
        assert cell.value == pytest.approx(reciprocal(docs, queries[name], name, relevant))
    mapped = docs.transform(queries["b"], "b", "a")
    assert found.values[1][0].value == pytest.approx(reciprocal(docs, mapped, "a", relevant))
    assert found.values[1][0].value == pytest.approx(found.values[0][0].value, abs=0.02)
    assert found.through[1][0] == "queries mapped"
    assert found.through[2][1] == "records mapped"


def test_ac_and_am_are_counted_over_the_lower_triangle(made: Any) -> None:
    docs, queries, relevant = made
    docs.fit_transform("c", "b", "procrustes")
    found = docs.compatibility_matrix(queries, relevant, metric="recall@10")
    values = found.values
    assert values[2][1] is not None and values[1][0] is None and values[2][0] is None
    own = values[1][1].value
    assert found.ac == pytest.approx((values[2][1].value > own) / 3)
    known = [values[0][0].value, own, values[2][1].value, values[2][2].value]
    assert found.am == pytest.approx(float(np.mean(known)))
    text = str(found)
    assert "recall@10" in text and "-" in text and "AC" in text
    plain = found.as_dict()
    assert plain["values"][1][0] is None and plain["values"][0][0]["queries"] == ASKED


def test_one_space_is_a_matrix_too(made: Any) -> None:
    docs, queries, relevant = made
    found = docs.compatibility_matrix({"c": queries["c"]}, relevant, groups=[row % 7 for row in range(ASKED)])
    assert (found.ac, found.spaces) == (1.0, ("c",))
    assert found.am == pytest.approx(found.values[0][0].value)


def test_what_does_not_fit_is_refused(made: Any) -> None:
    docs, queries, relevant = made
    with pytest.raises(ArgumentError, match="expected some of the spaces"):
        docs.compatibility_matrix({"z": queries["a"]}, relevant)
    with pytest.raises(ArgumentError, match="as many"):
        docs.compatibility_matrix(queries, relevant[:-1])
    with pytest.raises(ParameterError):
        docs.compatibility_matrix(queries, relevant, metric="accuracy")
    with pytest.raises(DimensionError):
        docs.compatibility_matrix({"a": np.ones((ASKED, 3))}, relevant)
    with pytest.raises(RecordMissingError):
        docs.compatibility_matrix(queries, ["nobody"] * ASKED)
