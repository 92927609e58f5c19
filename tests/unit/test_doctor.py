"""The doctor on spaces whose makers are known: planted changes are found at their row, topics are no models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import vecdb
from vecdb.cli import main
from vecdb.engine.doctor import Stretch, examine
from vecdb.errors import CancelledError, SpaceMissingError

DIM = 32
F32 = npt.NDArray[np.float32]


def model(seed: int, rows: int, *, topic: int = 0, mean: float = 0.25) -> F32:
    """Return vectors of a model: few loud directions and a mean of its own; a topic moves them within those."""
    trait = np.random.default_rng(seed)
    axes = np.linalg.qr(trait.normal(size=(DIM, DIM)))[0]
    loudness = 1.0 / np.arange(1, DIM + 1) ** 1.2
    random = np.random.default_rng([seed, topic, 7])
    centre = (random.normal(size=DIM) if topic else np.zeros(DIM)) * 0.4
    made = (random.normal(size=(rows, DIM)) + centre) * loudness @ axes.T + mean * axes[0]
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def bounds(found: Any) -> list[tuple[int, int, int]]:
    return [(each.model, each.start, each.stop) for each in found.stretches]


def test_one_model_is_one_model() -> None:
    assert examine(model(1, 6_000), "cosine").models == 1


def test_topics_are_no_models() -> None:
    rows = np.concatenate([model(1, 700, topic=topic) for topic in range(1, 9)])
    assert examine(rows, "cosine").models == 1


@pytest.mark.parametrize(("first", "second"), [(3_000, 3_000), (500, 4_500), (4_700, 300)])
def test_a_change_is_found_where_it_is(first: int, second: int) -> None:
    found = examine(np.concatenate([model(1, first), model(2, second)]), "cosine")
    assert found.models == 2
    ((_, _, change), (_, start, stop)) = bounds(found)
    assert change == start and abs(change - first) <= 8 and stop == first + second


def test_a_model_that_comes_back_is_known_again() -> None:
    found = examine(np.concatenate([model(1, 2_500), model(2, 2_500), model(1, 1_000)]), "cosine")
    assert found.models == 2
    assert [each.model for each in found.stretches] == [0, 1, 0]


def test_three_models_are_three() -> None:
    found = examine(np.concatenate([model(seed, 2_200) for seed in (1, 2, 3)]), "cosine")
    assert (found.models, len(found.stretches)) == (3, 3)


def test_models_that_alternate_are_a_mixture() -> None:
    rows = model(1, 6_000, mean=1.5)
    other = np.random.default_rng(0).random(6_000) < 0.4
    rows[other] = model(2, 6_000, mean=1.5)[other]
    found = examine(rows, "cosine")
    assert found.models == 2 and found.stretches == (Stretch(0, 0, 6_000),)
    assert found.mixed == pytest.approx((int((~other).sum()), int(other.sum())), rel=0.05)


@pytest.mark.parametrize(("rows", "dim"), [(100, 32), (3_000, 8)])
def test_too_little_cannot_be_told(rows: int, dim: int) -> None:
    found = examine(np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32), "cosine")
    assert found.models is None and "needed" in found.note


def test_vectors_without_structure_are_not_accused() -> None:
    rows = np.random.default_rng(0).normal(size=(5_000, 24)).astype(np.float32)
    assert examine(rows, "cosine").models == 1


# --- in a database ----------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "a.vecdb"
    with vecdb.open(made, automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=DIM)
        docs.add_space("empty", dim=DIM)
        docs.upsert(range(2_600), {"s": model(1, 2_600)}, trust=True)
        docs.upsert([f"n{row}" for row in range(1_000)], {"s": model(2, 1_000)}, trust=True)
    return made


def test_a_collection_says_at_which_record_the_model_changed(path: Path) -> None:
    with vecdb.open(path, mode="r") as db:
        docs = db.collection("docs")
        found, empty = docs.doctor()
        assert (found.space, found.vectors, found.models) == ("s", 3_600, 2)
        assert found.stretches == ((0, 2_600, 0, 2_599), (1, 1_000, "n0", "n999"))
        assert (empty.vectors, empty.models, empty.stretches) == (0, None, ())
        assert docs.doctor("s") == [found]
        with pytest.raises(SpaceMissingError):
            docs.doctor("t")
        with pytest.raises(CancelledError):
            docs.doctor(cancel=lambda: True)


def test_age_counts_and_not_the_order_of_records(path: Path) -> None:
    with vecdb.open(path, automatic=False) as db:
        docs = db.collection("docs")
        docs.set_vectors("s", list(range(1_300)), model(2, 1_300, topic=3), trust=True)
        (found,) = docs.doctor("s")
    assert found.models == 2
    assert [count for _, count, _, _ in found.stretches] == pytest.approx([1_300, 2_300], abs=8)


def test_the_command_says_it_too(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(path)]) == 0
    out = capsys.readouterr().out
    assert "2 models" in out and "from record 'n0'" in out and "needed" in out
    assert main(["doctor", str(path), "docs", "--space", "s", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["spaces"]
    assert found["collection"] == "docs" and found["stretches"][1][1:] == [1_000, "n0", "n999"]
    assert main(["doctor", str(path), "--space", "s"]) == 2
