"""`Collection.health` and `vecdb stats`: what they say of real collections, of the past, of little, and of nothing."""

import dataclasses
import json

import numpy as np
import pytest

import vecdb
from tests.indextypes import CopiesType, able, registry
from vecdb.cli import main
from vecdb.errors import ArgumentError, CancelledError, ParameterError, SpaceMismatchError, SpaceMissingError


def vectors(n, d=16, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "x.vecdb", automatic=False) as db:
        yield db


def filled(db, n=300, *, dtype="float32", metric="cosine", name="docs", d=16):
    docs = db.create_collection(name)
    docs.add_space("a", dim=d, metric=metric, dtype=dtype, model="m")
    if n:
        docs.upsert(
            [f"r{i}" for i in range(n)], vectors={"a": vectors(n, d)}, metadata=[{"s": i % 3} for i in range(n)]
        )
    return docs


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_every_kind_of_space_is_measured(db, dtype, metric):
    health = filled(db, dtype=dtype, metric=metric).health()
    assert (health.vectors, health.sampled, health.metric, health.dtype) == (300, 300, metric, dtype)
    assert health.isotropy.score.value > 0.8
    assert abs(health.cosines.mean.value) < 0.05
    assert 5 < health.dimension.mle.value < 20
    assert health.hubness.skewness.low < health.hubness.skewness.value < health.hubness.skewness.high


def test_it_is_a_frozen_value_with_text_dict_and_json(db):
    docs = filled(db)
    health = docs.health()
    with pytest.raises(dataclasses.FrozenInstanceError):
        health.vectors = 1
    assert "IsoScore" in str(health) and "hubness" in str(health)
    assert json.loads(health.to_json()) == health.as_dict()
    assert health == docs.health() and isinstance(health, vecdb.SpaceHealth)


def test_a_sample_bounds_the_work_and_is_said(db):
    docs = filled(db)
    health = docs.health(sample=100, queries=20, seed=3)
    assert (health.sampled, health.asked) == (100, 20)
    assert any("100 of 300" in note for note in health.notes)
    assert health != docs.health(sample=100, queries=20, seed=4)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 12, 30])
def test_little_is_not_an_error(db, n):
    health = filled(db, n).health()
    assert health.vectors == n
    assert str(health) and json.loads(health.to_json())["vectors"] == n


def test_vectors_that_are_all_alike_are_not_an_error(db):
    docs = filled(db, 0)
    docs.upsert(list(range(60)), vectors={"a": np.ones((60, 16))}, trust=True)
    health = docs.health()
    assert health.isotropy is None and health.dimension is None
    assert health.cosines.mean.value == pytest.approx(1) and str(health)


def test_deleted_vectors_do_not_count_and_the_past_is_read(db):
    docs = filled(db)
    db.tag("before")
    before = docs.health()
    docs.delete([f"r{i}" for i in range(100)])
    docs.upsert(["new"], vectors={"a": vectors(1, seed=9)})
    assert docs.health().vectors == 201
    past = docs.health(as_of="before")
    assert past == dataclasses.replace(before, seq=past.seq) and past.seq < docs.health().seq


def test_indexes_are_asked(db):
    docs = filled(db, 1_200)
    docs.create_index("a", "ivf")
    docs.delete([f"r{i}" for i in range(50)])
    docs.upsert(["new"], vectors={"a": vectors(1, seed=9)})
    health = docs.health(queries=100)
    (index,) = health.indexes
    assert index.kind == "ivf" and 0.5 < index.recall.value <= 1 and index.recall.queries == 100
    assert index.curves and all(0 <= recall <= 1 for curve in index.curves for _, recall in curve.points)
    assert "index ivf, recall@10" in str(health)


def test_an_exact_index_finds_everything(db):
    docs = filled(db)
    docs.create_index("a", "flat")
    assert docs.health(queries=50).indexes[0].recall.value == 1


def test_half_an_index_finds_half_and_where_it_is_not_installed_that_is_said(tmp_path):
    type_ = CopiesType("acme.half", able("filtered"), half=True)
    with vecdb.open(tmp_path / "h.vecdb", plugins=registry(type_), automatic=False) as db:
        docs = filled(db, 2_000)
        docs.create_index("a", "acme.half")
        recall = docs.health(queries=200).indexes[0].recall
    assert recall.low < 0.5 < recall.high
    with vecdb.open(tmp_path / "h.vecdb", mode="r") as db:
        (index,) = db.collection("docs").health().indexes
    assert index.recall is None and "acme.half" in index.note and "not measured" in text_of(index)


def text_of(index):
    made = vecdb.SpaceHealth("c", "s", "", "cosine", "float32", 2, 1, 0, 0, 0, 0, indexes=(index,))
    return str(made)


def test_labels_pairs_and_other_spaces_are_looked_at(db):
    docs = filled(db, 400)
    docs.add_space("b", dim=16)
    both = [f"r{i}" for i in range(200)]
    docs.set_vectors("b", both, vectors(400)[:200] + 0.01 * vectors(200, seed=5), trust=True)
    pairs = [(f"r{i}", f"r{i + 1}") for i in range(40)] + [("r0", "nobody")]
    health = docs.health("a", labels="s", pairs=pairs)
    assert health.classes.classes == 3 and health.classes.agreement.low < health.classes.chance
    assert health.evalrank.pairs == 40 and health.evalrank.mrr.value < 0.2
    assert any("1 of 41 pairs" in note for note in health.notes)
    (version,) = health.versions
    assert (version.other, version.records) == ("b", 200) and version.cosine.value > 0.99
    assert health.plane.by == "s" and set(health.plane.groups) == {"0", "1", "2"}
    text = str(health)
    assert all(word in text for word in ("s: silhouette", "EvalRank", "neighbours as in b", "near-duplicates", "drift"))
    assert docs.health("a").plane.by == "age"


def test_labels_may_be_nested_and_need_not_be_there(db):
    docs = filled(db, 0)
    docs.upsert(
        list(range(60)), {"a": vectors(60)}, metadata=[{"x": {"y": "even" if i % 2 else "odd"}} for i in range(60)]
    )
    assert docs.health(labels="x.y").classes.classes == 2
    for field in ("x", "z", "x.y.z"):
        health = docs.health(labels=field)
        assert health.classes is None and any(repr(field) in note for note in health.notes)


def test_windows_say_which_commits_wrote_them(db):
    docs = filled(db, 0)
    for batch in range(4):
        more = vectors(100, seed=batch) + (batch == 3) * 3 * np.array([1, -1] * 8, np.float32)
        docs.upsert([f"{batch}-{i}" for i in range(100)], {"a": more}, trust=True)
        docs.set_metadata([f"{batch}-0"], [{"seen": True}])
    first = db.seq - 7
    drift = docs.health().drift
    assert drift.windows[0].seq[0] == first and drift.windows[-1].seq == (first + 6, first + 6)
    assert drift.drifted and drift.drifted[-1] == len(drift.windows) - 1
    assert drift.change == drift.drifted[0] or len(drift.drifted) > 1
    assert any("in order of age" in remark for remark in docs.health().remarks)
    past = docs.health(as_of=first + 2).drift
    assert past.windows[-1].stop == 200 and past.windows[-1].seq == (first + 2, first + 2)


def test_what_stands_out_is_said(db):
    docs = filled(db, 0)
    rows = vectors(300) + 8
    rows[:60] = rows[60:120]
    docs.upsert(list(range(300)), {"a": rows}, trust=True)
    remarks = " ".join(docs.health().remarks)
    assert "narrow cone" in remarks and "near-duplicate" in remarks
    assert "Remark: " in str(docs.health()) and docs.health().as_dict()["remarks"] == list(docs.health().remarks)
    assert filled(db, name="fine").health().remarks == ()


def test_zero_vectors_are_counted(db):
    docs = filled(db, 40, metric="l2")
    docs.upsert(["zero"], {"a": np.zeros((1, 16))}, trust=True)
    health = docs.health()
    assert health.norms.zero == 1 and "zero" in " ".join(health.remarks)


def test_wrong_wishes_are_refused(db):
    docs = filled(db, 20)
    docs.add_space("b", dim=4)
    with pytest.raises(SpaceMismatchError):
        docs.health()
    with pytest.raises(SpaceMissingError):
        docs.health("c")
    for wrong in ({"sample": 0}, {"sample": 10**6}, {"k": 0}, {"k": 101}, {"queries": 0}, {"seed": -1}):
        with pytest.raises(ParameterError):
            docs.health("a", **wrong)
    for wrong in ({"labels": 3}, {"labels": ""}):
        with pytest.raises(ParameterError):
            docs.health("a", **wrong)
    for wrong in (["ab"], [("a",)], [("a", "b", "c")], [(1.5, "b")]):
        with pytest.raises(ArgumentError):
            docs.health("a", pairs=wrong)
    with pytest.raises(CancelledError):
        docs.health("a", cancel=lambda: True)


def test_nothing_of_it_is_loaded_before_it_is_asked_for(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys, vecdb\n"
        f"with vecdb.open({str(tmp_path / 'y.vecdb')!r}) as db:\n"
        "    docs = db.create_collection('d'); docs.add_space('a', dim=2); docs.upsert([1], {'a': [[1, 0]]})\n"
        "    docs.search([1, 0], k=1)\n"
        "assert not [name for name in sys.modules if 'health' in name or 'checkup' in name]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def path(tmp_path):
    with vecdb.open(tmp_path / "x.vecdb", automatic=False) as db:
        filled(db, 100)
        filled(db, 0, name="empty")
        db.tag("now")
    return tmp_path / "x.vecdb"


def test_stats_counts(run, path):
    code, out, _ = run("stats", path)
    assert code == 0 and "records" in out and "empty" in out
    found = json.loads(run("stats", path, "docs", "--json")[1])
    assert found["collections"]["docs"]["records"] == 100


def test_stats_measures_health(run, path):
    code, out, _ = run("stats", path, "--health", "--sample", "80")
    assert code == 0 and "IsoScore" in out and "Space 'a' of 'empty'" in out
    found = json.loads(run("stats", path, "docs", "--health", "--space", "a", "--as-of", "now", "--json")[1])
    assert found["spaces"][0]["vectors"] == 100 and found["spaces"][0]["isotropy"]["score"]["value"] > 0.5


def test_stats_ranks_pairs_from_a_file(run, path, tmp_path):
    (tmp_path / "pairs.json").write_text(json.dumps([["r1", "r2"], ["r3", "r4"]]), "utf-8")
    found = json.loads(run("stats", path, "docs", "--health", "--pairs", tmp_path / "pairs.json", "--json")[1])
    assert found["spaces"][0]["evalrank"]["pairs"] == 2
    for wrong in ('{"r1": "r2"}', '["r1"]', "no json"):
        (tmp_path / "pairs.json").write_text(wrong, "utf-8")
        assert run("stats", path, "docs", "--health", "--pairs", tmp_path / "pairs.json")[0] in (2, 4)


def test_stats_refuses_what_makes_no_sense(run, path, tmp_path):
    assert run("stats", path, "--space", "a")[0] == 2
    assert run("stats", path, "docs", "--health", "--space", "b")[0] == 3
    assert run("stats", tmp_path / "none.vecdb")[0] == 3
    with vecdb.open(tmp_path / "z.vecdb"):
        pass
    assert "no collections" in run("stats", tmp_path / "z.vecdb")[1]
    assert "no spaces" in run("stats", tmp_path / "z.vecdb", "--health")[1]


def test_memory_is_that_of_the_sample_not_of_the_collection(db):
    """More than all that grows is a mask and the place of each vector: 60,000 vectors more would take 15 MB."""
    import tracemalloc

    peaks = []
    for count in (20_000, 80_000):
        docs = filled(db, 0, name=f"c{count}", d=64)
        docs.upsert(range(count), {"a": vectors(count, 64)}, trust=True)
        docs.health(sample=300, queries=50)  # what is loaded and remembered on the way
        tracemalloc.start()
        docs.health(sample=300, queries=50)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 4 << 20


def test_wide_vectors_bound_the_sample(db):
    docs = db.create_collection("wide")
    docs.add_space("a", dim=65_536, metric="l2")
    docs.upsert(range(300), {"a": vectors(300, 65_536)}, trust=True)
    health = docs.health(queries=5)
    assert health.sampled == 256 and any("256 of 300" in note for note in health.notes)


def test_a_look_inside_a_transaction_sees_what_is_committed(db):
    docs = filled(db, 60)
    with db.transaction():
        docs.upsert(["more"], {"a": vectors(1, seed=4)})
        assert docs.health().vectors == 60
    assert docs.health().vectors == 61
