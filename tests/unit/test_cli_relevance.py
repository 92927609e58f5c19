"""`vecdb relevance`: filters are listed, fitted from files of labelled queries, fitted again and dropped."""

from __future__ import annotations

import json

import numpy as np
import pytest

import vecdb
from vecdb.cli import main
from vecdb.errors import SourceError
from vecdb.interchange import read_labelled


@pytest.fixture
def world(tmp_path):
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((200, 6)).astype(np.float32)
    path = str(tmp_path / "a.vecdb")
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=6)
        docs.upsert([f"r{row}" for row in range(200)], {"m": rows})
    return path, rows[:60] + 0.1 * rng.standard_normal((60, 6)).astype(np.float32), tmp_path


def run(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_a_filter_is_fitted_from_lines_listed_and_dropped(world, capsys):
    path, asked, folder = world
    lines = [
        {"vector": row.tolist(), "relevant": f"r{n}", "ignore": ["r199"], "group": n // 2}
        for n, row in enumerate(asked)
    ]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    fit = ("--fit", "shop", "--kind", "calibrated", "--labelled", str(folder / "q.jsonl"), "--param", "method=beta")
    code, out, _ = run(capsys, "relevance", path, "docs", *fit)
    assert code == 0 and "shop" in out and "measured on" in out
    code, out, _ = run(capsys, "relevance", path, "docs", "--json")
    found = json.loads(out)["relevance_filters"]
    assert [(each["name"], each["params"]["method"], each["stale"]) for each in found] == [("shop", "beta", False)]
    code, out, _ = run(capsys, "relevance", path, "docs", "--refit", "shop", "--json")
    assert json.loads(out)["relevance_filters"][0]["revision"] == 2
    assert run(capsys, "relevance", path, "docs", "--drop", "shop")[0] == 0
    assert "no relevance filters" in run(capsys, "relevance", path, "docs")[1]


def test_a_filter_is_fitted_from_arrays(world, capsys):
    path, asked, folder = world
    np.savez(folder / "q.npz", queries=asked, relevant=np.array([f"r{n}" for n in range(60)]))
    fit = ("--fit", "shop", "--kind", "threshold", "--labelled", str(folder / "q.npz"))
    assert run(capsys, "relevance", path, "docs", *fit)[0] == 0
    with vecdb.open(path, mode="r") as db:
        assert db.collection("docs").relevance_filters[0].positives == 60


def test_what_excludes_each_other_is_refused(world, capsys):
    path, _, _ = world
    assert run(capsys, "relevance", path, "docs", "--fit", "a", "--drop", "b")[0] == 2
    assert run(capsys, "relevance", path, "docs", "--fit", "a")[0] == 2
    assert run(capsys, "relevance", path, "docs", "--drop", "b")[0] == 3


@pytest.mark.parametrize(
    "line",
    ['{"relevant": 1}', '{"vector": [1, 2], "answer": 1}', '{"vector": [1], "relevant": [1.5]}', "[1]", "{",
     '{"vector": [1], "group": [1]}', '{"vector": 3}', ""],
)  # fmt: skip
def test_lines_that_are_no_labelled_queries_are_named(tmp_path, line):
    (tmp_path / "q.jsonl").write_text(line + "\n")
    with pytest.raises(SourceError):
        read_labelled(tmp_path / "q.jsonl")


def test_vectors_of_several_widths_are_refused(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"vector": [1, 2]}\n{"vector": [1]}\n')
    with pytest.raises(SourceError, match="several widths"):
        read_labelled(tmp_path / "q.jsonl")


def test_arrays_that_would_have_to_be_executed_are_refused(tmp_path):
    np.savez(tmp_path / "q.npz", queries=np.ones((2, 2)), relevant=np.array([{"a": 1}, None], object))
    with pytest.raises(SourceError):
        read_labelled(tmp_path / "q.npz")
    (tmp_path / "r.npz").write_bytes(b"PK nonsense")
    with pytest.raises(SourceError):
        read_labelled(tmp_path / "r.npz")
    np.savez(tmp_path / "s.npz", queries=np.ones((2, 2)), other=np.ones(2))
    with pytest.raises(SourceError, match="expected queries"):
        read_labelled(tmp_path / "s.npz")


def test_numbers_and_empty_words_below_zero_are_no_ids(tmp_path):
    np.savez(
        tmp_path / "q.npz", queries=np.ones((3, 2)), relevant=np.array([[1, 2], [3, -1], [-1, -1]]), group=[1, 1, 2]
    )
    found = read_labelled(tmp_path / "q.npz")
    assert (found.relevant, found.ignore, found.groups) == ([[1, 2], [3], []], None, [1, 1, 2])


def test_texts_stand_in_for_vectors(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"text": "one", "relevant": 3}\n\n{"text": "two"}\n')
    found = read_labelled(tmp_path / "q.jsonl")
    assert (found.queries, found.relevant) == (["one", "two"], [[3], []])


def test_a_search_shows_relevance_and_says_how_many_it_left_out(world, capsys):
    path, asked, folder = world
    np.savez(folder / "q.npz", queries=asked, relevant=np.array([f"r{n}" for n in range(60)]))
    run(capsys, "relevance", path, "docs", "--fit", "shop", "--kind", "calibrated", "--labelled", str(folder / "q.npz"))
    vector = json.dumps(asked[0].tolist())
    code, out, err = run(capsys, "search", path, "docs", "--vector", vector, "--relevance", "shop")
    assert code == 0 and "relevance" in out and "not relevant" in out + err
    _, out, _ = run(capsys, "search", path, "docs", "--vector", vector, "--relevance", "shop", "--json")
    answer = json.loads(out)
    assert answer["dropped"] + len(answer["hits"]) == 10
    assert all(0 < hit["relevance"] <= 1 for hit in answer["hits"])
    _, out, _ = run(capsys, "search", path, "docs", "--vector", vector, "--json")
    assert "dropped" not in json.loads(out) and "relevance" not in json.loads(out)["hits"][0]
    assert run(capsys, "search", path, "docs", "--vector", vector, "--relevance", "other")[0] == 3
