"""The named sets: unit rows, attributes with the promised shares, exact answers, real data where it is at hand."""

import json

import numpy as np
import pytest

from tools.bench.compare import sets
from tools.bench.compare.sets import CONDITIONS, SOURCES, Condition


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return sets.prepare("tiny", tmp_path_factory.mktemp("sets"), None)


def test_a_set_is_made_once(tiny):
    again = sets.prepare("tiny", tiny.folder.parent, None)
    assert again.folder == tiny.folder
    facts = json.loads((tiny.folder / "set.json").read_text())
    assert facts == {"rows": 1000, "dim": 16, "queries": sets.QUERIES}
    assert tiny.rows.shape == (1000, 16) and tiny.rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(tiny.rows, axis=1), 1, atol=1e-5)
    assert not list(tiny.folder.glob("*.part.npy"))


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_conditions_select_their_percent(tiny, condition):
    chosen = tiny.array(condition.attribute) < condition.below
    assert chosen.mean() == pytest.approx(condition.below / 100, abs=0.01)
    assert Condition.parse(condition.name) == condition


def test_rows_of_the_correlated_attribute_are_near_each_other(tiny):
    near = tiny.rows[tiny.array("near") < 10]
    anywhere = tiny.rows[tiny.array("uniform") < 10]
    assert (near @ near.T).mean() > (anywhere @ anywhere.T).mean() + 0.1


def test_floors_are_the_tenth_best_scores(tiny):
    exact = np.sort(tiny.queries[:20].astype(np.float64) @ tiny.rows.astype(np.float64).T, axis=1)
    assert np.allclose(tiny.floors()[:20], exact[:, -10])
    condition = Condition("uniform", 1)
    chosen = tiny.rows[tiny.array("uniform") < 1].astype(np.float64)
    expected = np.sort(tiny.queries[:20].astype(np.float64) @ chosen.T, axis=1)[:, -10]
    assert np.allclose(tiny.floors(condition)[:20], expected)
    assert np.array_equal(tiny.floors(condition), np.load(tiny.folder / "floors-uniform-1.npy"))


@pytest.mark.parametrize("name", ["mini6", "use3", "e5s", "summaries", "large"])
def test_missing_data_is_said_to_be_missing(name, monkeypatch):
    monkeypatch.delenv("VECDB_BENCH_LARGE", raising=False)
    with pytest.raises(FileNotFoundError, match="VECDB_"):
        SOURCES[name].make(None)


def test_a_large_set_is_read_from_where_it_was_made(tmp_path, monkeypatch):
    rows = np.eye(sets.QUERIES + 3, 8, dtype=np.float32)
    np.save(tmp_path / "a.npy", rows)
    monkeypatch.setenv("VECDB_BENCH_LARGE", str(tmp_path / "a.npy"))
    found, queries = SOURCES["large"].make(None)
    assert len(found) == 3 and len(queries) == sets.QUERIES


def test_real_sets_agree_with_the_answers_beside_them(shared_data, tmp_path):
    rows, queries = SOURCES["mini6"].make(shared_data)
    truth = np.load(shared_data / "debian" / "mini6.gt100.npy")[2000:2020, :10]
    floors = sets.tenth_best(rows, queries[:20])
    scores = np.einsum("qkd,qd->qk", rows[truth].astype(np.float64), queries[:20].astype(np.float64))
    assert np.allclose(scores.min(axis=1), floors, atol=1e-6)
