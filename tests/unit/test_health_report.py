"""`Database.report` and `vecdb report`: text, JSON and a page of everything there is, whatever things are called."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from tests.unit.test_drawing import NASTY, Reader
from tests.unit.test_health import filled, vectors
from tests.unit.test_upgrade_pictures import sound
from vecdb.cli import main
from vecdb.engine.checkup.asking import Curve
from vecdb.errors import CancelledError, CollectionMissingError
from vecdb.evaluation import Estimate
from vecdb.evaluation.health.dimension import Dimension
from vecdb.evaluation.health.distributions import histogram, norms
from vecdb.evaluation.health.drift import Drift, Window
from vecdb.evaluation.health.hubs import hubness
from vecdb.evaluation.health.plane import plane
from vecdb.evaluation.health.versions import Versions
from vecdb.health import pictures
from vecdb.health.values import IndexHealth


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "x.vecdb", automatic=False) as db:
        yield db


def rich(db):
    """A collection of which everything can be said."""
    docs = filled(db, 400)
    docs.add_space("b", dim=16)
    some = [f"r{i}" for i in range(300)]
    docs.set_vectors("b", some, vectors(400)[:300] + 0.1 * vectors(300, seed=3), trust=True)
    docs.fit_transform("a", "b", "procrustes", name="bridge")
    docs.create_index("a", "flat")
    return docs


def page_of(report):
    page = report.to_html()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return page


def test_everything_is_in_the_report(db, tmp_path):
    rich(db)
    db.create_collection("bare")
    filled(db, 0, name="empty")
    seen = []
    report = db.report(labels="s", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)] and isinstance(report, vecdb.HealthReport)
    assert [each.name for each in report.collections] == ["docs", "bare", "empty"]
    assert [space.space for space in report.collections[0].spaces] == ["a", "b"]
    text = str(report)
    for words in ("Collection 'docs': 400 records", "Space 'b'", "Upgrade: bridge: procrustes a to b", "s: silhouette"):
        assert words in text, words
    page = page_of(report)
    assert page.count("<svg") == 14  # of a and of b: six pictures, and the neighbours that they have in common
    assert (
        "procrustes a to b" in page
        and "Collection bare" in page
        and "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    )
    loaded = json.loads(report.to_json())
    assert loaded == report.as_dict() and loaded["collections"][0]["transforms"][0]["name"] == "bridge"
    for suffix, begin in (("html", "<!DOCTYPE html>"), ("json", "{"), ("txt", str(db.path))):
        report.save(tmp_path / f"r.{suffix}")
        assert (tmp_path / f"r.{suffix}").read_text("utf-8").startswith(begin)


def test_migrations_are_in_the_report(db):
    docs = filled(db, 60)
    docs.upsert([f"r{i}" for i in range(60)], {"a": vectors(60)}, texts=[str(i) for i in range(60)])
    docs.add_space("b", dim=4)
    migration = docs.migrate("a", "b", encode=lambda texts: np.eye(4)[[int(text) % 4 for text in texts]], canary=0)
    migration.run(limit=30)
    assert "migration 1 from a to b: backfilling, 50% done" in str(db.report()) + page_of(db.report())


def test_filters_and_corrections_are_in_the_report(db):
    docs = filled(db, 300)
    queries = vectors(60) + 0.1 * vectors(60, seed=7)
    docs.fit_relevance("<i>shop</i>", "threshold", queries=queries, relevant_ids=[f"r{i}" for i in range(60)])
    docs.fit_correction("plain", bank=vectors(40, seed=8))
    report = db.report()
    text, page = str(report), page_of(report)
    assert "relevance filter <i>shop</i>: threshold in a, 60 queries" in text and "pr_auc" in text
    assert "correction plain: csls in a, bank of 40 queries" in text
    assert "<i>" not in page and "correction plain: csls" in page
    loaded = json.loads(report.to_json())["collections"][0]
    assert loaded["filters"][0]["kind"] == "threshold" and loaded["corrections"][0]["bank"] == 40


def test_all_spaces_are_looked_at_in_one_state(db):
    docs = filled(db, 50)
    filled(db, 50, name="later")

    def write(done, total):
        db.collection("later").upsert([f"new{done}"], {"a": vectors(1, seed=done)})
        docs.delete([f"r{done}"])

    seq = db.seq
    report = db.report(progress=write)
    assert report.seq == seq and [each.records for each in report.collections] == [50, 50]
    assert [space.vectors for each in report.collections for space in each.spaces] == [50, 50]
    assert {space.seq for each in report.collections for space in each.spaces} == {seq}


def test_collections_can_be_chosen_and_it_can_be_stopped(db):
    filled(db, 30)
    filled(db, 30, name="more")
    assert [each.name for each in db.report("more").collections] == ["more"]
    assert [each.name for each in db.report(["more", "docs"]).collections] == ["more", "docs"]
    with pytest.raises(CollectionMissingError):
        db.report("none")
    with pytest.raises(CancelledError):
        db.report(cancel=lambda: True)


def test_a_database_without_anything_has_a_report(db):
    assert "Nothing stands out" in page_of(db.report())
    assert str(db.report()).startswith(str(db.path))


@pytest.mark.parametrize("name", [text for text in NASTY if text.isprintable()])
def test_names_are_only_words(db, name):
    docs = db.create_collection(name)
    docs.add_space(name, dim=8, model=name)
    docs.upsert(list(range(90)), {name: vectors(90, 8)}, metadata=[{"t": name + str(i % 2)} for i in range(90)])
    docs.create_index(name, "flat")
    plain = db.create_collection("plain")
    plain.add_space("plain", dim=8, model="plain")
    plain.upsert(list(range(90)), {"plain": vectors(90, 8)}, metadata=[{"t": f"plain{i % 2}"} for i in range(90)])
    plain.create_index("plain", "flat")
    pages = [page_of(db.report(each, labels="t")) for each in (name, "plain")]
    for mark in ("<", ">", '"'):
        assert pages[0].count(mark) == pages[1].count(mark)


@pytest.mark.parametrize("label", NASTY)
def test_labels_are_only_words(db, label):
    docs = filled(db, 0)
    label = label.encode("utf-8", "replace").decode()
    docs.upsert(list(range(60)), {"a": vectors(60)}, metadata=[{"t": (label, "x")[i % 2]} for i in range(60)])
    page = page_of(db.report(labels="t"))
    assert "<script" not in page and "\x1b" not in page and "\u202e" not in page


# --- pictures ---------------------------------------------------------------------------------------------


def drawn(picture):
    root = sound(picture)
    assert root.get("role") == "img" and len(root.get("aria-label")) > 10
    return root


numbers = st.floats(1e-3, 1e3)


@settings(max_examples=40)
@given(st.lists(numbers, min_size=7, max_size=7), st.integers(1, 10**7))
def test_pictures_stay_in_their_frames(values, size):
    value, low, high = values[0], min(values), max(values)
    estimate = Estimate(value, low, high, 9)
    drawn(pictures.dimensions(Dimension(estimate, estimate, 5, tuple(sorted(values[:5]))), 16, values[5]))
    windows = tuple(Window(n * size, (n + 1) * size, 20, each, 0.5) for n, each in enumerate(values))
    drawn(pictures.drifting(Drift(windows, values[1], (-values[2], values[3]), tuple(values[:6]), values[6])))
    drawn(pictures.mapped(plane(np.random.default_rng(size).standard_normal((9, 3)) * values[0])))
    drawn(pictures.lengths(norms(np.array(values)[:, None])))
    shares = np.array(values) / sum(values)
    other = Versions("m", 50, 10, Estimate(shares[0], 0.0, shares.max(), 9), shares[1], 0.5, 0.1, None)
    drawn(pictures.neighbours([other, other]))
    curve = Curve(10, 50, "members", tuple((n + 1, share) for n, share in enumerate(np.cumsum(shares).tolist())))
    drawn(pictures.recalls([IndexHealth("graph", estimate, 10, (curve, curve))]))


@settings(max_examples=30)
@given(st.integers(0, 1_000), st.integers(12, 200), st.integers(1, 5), st.floats(0, 3))
def test_k_occurrences_can_be_drawn(seed, rows, k, skew):
    random = np.random.default_rng(seed)
    weight = random.exponential(1, rows) ** skew
    found = np.array([random.choice(rows, k, replace=False, p=weight / weight.sum()) for _ in range(rows)])
    drawn(pictures.occurrences(hubness(found, rows)))


def test_the_axis_of_drift_names_the_commits_that_are_known():
    windows = [Window(0, 20, 20, 0.1, 0.5), Window(20, 40, 20, 0.1, 0.5)]
    said = {
        (): "oldest first</text>",
        (3,): "oldest first, commit 3</text>",
        (3, 5): "oldest first, commits 3 to 5</text>",
    }
    for seqs, words in said.items():
        known = [replace(each, seq=(min(seqs), max(seqs)) if seqs else None) for each in windows]
        assert words in pictures.drifting(Drift(tuple(known), 0.2, (-0.1, 0.1), (0.1,), 0.2))


def test_curves_that_say_little_can_be_drawn():
    one = Curve(10, 50, "members", ((16, 1.0),))
    drawn(pictures.recalls([IndexHealth("rabitq", None, 10, (one,))]))
    assert pictures.recalls([IndexHealth("flat", None, 10)]) is None and pictures.neighbours([]) is None
    many = tuple(replace(one, k=k) for k in range(1, 12))
    drawn(pictures.recalls([IndexHealth("x", None, 10, many)]))


def test_the_measured_curve_and_chance_agree_where_neighbours_are_drawn_by_chance():
    random = np.random.default_rng(0)
    found = np.array([random.choice(2_000, 10, replace=False) for _ in range(2_000)])
    measured, chance = (
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        for line in sorted(
            (
                each
                for each in drawn(pictures.occurrences(hubness(found, 2_000))).iter()
                if each.tag.endswith("polyline")
            ),
            key=lambda each: each.get("class"),
        )
    )
    heights = dict(chance)
    assert max(abs(y - heights[x]) for x, y in measured[:15]) < 8  # of 260: the same curve but for the tail


def test_histograms_of_one_value_can_be_drawn():
    drawn(pictures.lengths(norms(np.ones((5, 4)))))
    assert math.isclose(sum(histogram(np.ones(3), 1, 1).shares), 1)


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_command_writes_a_page(run, tmp_path):
    with vecdb.open(tmp_path / "x.vecdb") as db:
        filled(db, 80)
    path, out = tmp_path / "x.vecdb", tmp_path / "page.html"
    code, said, err = run("report", path, "--out", out, "--labels", "s", "--sample", "60")
    assert code == 0, err
    assert "1 spaces of 1 collections" in said and "s: silhouette" in out.read_text("utf-8")
    assert "IsoScore" in run("report", path)[1]
    assert json.loads(run("report", path, "docs", "--json")[1])["collections"][0]["records"] == 80
    assert run("report", path, "none")[0] == 3
    assert run("report", path, "--out", tmp_path / "no" / "page.html")[0] == 2
