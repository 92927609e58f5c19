"""The command that judges kinds of transform: its layout, its protocol, its ranking, and a run on a small folder."""

import gzip
import json

import numpy as np
import pytest

from tests.fits import orthonormal, rows_of
from tools.evaluate import jointindex, pictures
from tools.evaluate.__main__ import main
from tools.evaluate.arms import _both, arms_for, remembering
from tools.evaluate.corpus import load_corpus
from tools.evaluate.measure import _answered_by
from tools.evaluate.protocol import draw, fit_data, judged_of, queries_of
from tools.evaluate.report import markdown, markers
from vecdb import PluginRegistry
from vecdb.evaluation import Judged, csls_bias, measure, ranks_of
from vecdb.testing.planted import unit

DOCS, TRAIN, TEST = 260, 60, 50
BEGIN, END = markers("evaluation")


def written(folder, *, splits=True, graded=False):
    """Write a folder in which a second model is a rotation of the first one, and queries are near answers."""
    rng = np.random.default_rng(0)
    old = rows_of(DOCS, 12, rng, clusters=40)
    turn = orthonormal(12, 10, rng)
    answers = rng.integers(0, DOCS, TRAIN + TEST)
    asked = unit(old[answers] + 0.2 * rng.standard_normal((len(answers), 12)) / 3)
    folder.mkdir()
    for name, one, other in (("a", old, asked), ("b", unit(old @ turn), unit(asked @ turn))):
        np.save(folder / f"{name}.docs.f16.npy", one.astype(np.float16))
        scale = 127 / np.abs(other).max(1, keepdims=True)
        np.save(folder / f"{name}.queries.i8.npy", np.round(other * scale).astype(np.int8))
    docs = [{"id": row, "source": f"s{row // 2}", "section": f"c{row % 5}"} for row in range(DOCS)]
    queries = [{"qid": place, "rel": int(row)} for place, row in enumerate(answers)]
    for place, query in enumerate(queries):
        if splits:
            query["split"] = "train" if place < TRAIN else "test"
        if graded:
            query["qrels"] = {str(query.pop("rel")): 2, str((place * 7) % DOCS): -1}
    for name, lines in (("docs", docs), ("queries", queries)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("evaluate") / "small")


@pytest.fixture(scope="module")
def corpus(folder):
    return load_corpus(folder)


def test_a_folder_is_read_as_unit_vectors_with_answers_sources_and_classes(corpus):
    assert corpus.models == ("a", "b") and corpus.judged.queries == TRAIN + TEST
    model = corpus.model("b")
    assert model.docs.shape == (DOCS, 10) and model.queries.shape == (TRAIN + TEST, 10)
    for rows in (model.docs, model.queries):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert not rows.flags.writeable
    assert corpus.model("b") is model
    assert corpus.sources[2] == corpus.sources[3] and corpus.classes.max() == 4


def test_graded_answers_below_one_are_none(tmp_path):
    graded = load_corpus(written(tmp_path / "graded", graded=True))
    assert (graded.judged.sizes == 1).all()


def test_queries_are_parted_by_their_split_or_by_a_hash(corpus, tmp_path):
    asked = queries_of(corpus)
    assert asked.fit.tolist() == list(range(TRAIN)) and asked.test.tolist() == list(range(TRAIN, TRAIN + TEST))
    assert len(asked.clusters) == TEST
    first = corpus.judged.rows[asked.test]
    same = [corpus.sources[row] for row in first]
    for one in range(TEST):
        for other in range(one):
            assert same[one] != same[other] or asked.clusters[one] == asked.clusters[other]
    hashed = queries_of(load_corpus(written(tmp_path / "unsplit", splits=False)))
    assert not set(hashed.fit) & set(hashed.test) and len(hashed.fit) + len(hashed.test) == TRAIN + TEST


@pytest.mark.parametrize("seed", range(4))
def test_no_source_is_in_two_parts_and_the_same_seed_draws_the_same(corpus, seed):
    old, new = corpus.model("a"), corpus.model("b")
    drawn = draw(corpus, old, new, 100, seed)
    assert len(drawn.fit) == 100 and len(drawn.kept) > 0
    sources = [{corpus.sources[row] for row in rows} for rows in (drawn.fit, drawn.kept)]
    assert not sources[0] & sources[1]
    again = draw(corpus, old, new, 100, seed)
    assert np.array_equal(drawn.fit, again.fit) and np.array_equal(drawn.kept, again.kept)
    assert not np.array_equal(drawn.fit, draw(corpus, old, new, 100, seed + 9).fit)


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_a_fit_is_given_the_sides_of_its_role_and_queries_of_both_models(corpus, role):
    old, new = corpus.model("a"), corpus.model("b")
    asked = queries_of(corpus)
    drawn = draw(corpus, old, new, 80, 0)
    data = fit_data(corpus, (old, new), role, drawn, asked, 0, labels=True)
    source, target = (new, old) if role == "query" else (old, new)
    assert np.array_equal(data.source, source.docs[drawn.fit]) and np.array_equal(data.target, target.docs[drawn.fit])
    assert np.array_equal(data.queries, new.queries[asked.fit])
    assert np.array_equal(data.queries_across, old.queries[asked.fit])
    assert np.array_equal(data.labels, corpus.classes[drawn.fit])
    assert np.array_equal(data.validation.source, source.docs[drawn.kept])


def test_the_quick_ranking_is_the_exact_one_with_and_without_the_correction():
    rng = np.random.default_rng(1)
    queries, rows = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 6), (500, 6)))
    rows[7] = rows[3]  # a tie
    judged = Judged.of([{3: 1, 7: 1}, *[int(row) for row in rng.integers(0, 500, 29)]])
    bias = rng.standard_normal(500).astype(np.float32)
    for metric in ("cosine", "dot"):
        alone, corrected = _both(queries, rows, 30, judged, metric, None)
        wanted = measure(ranks_of(queries[:30], rows, judged, metric), judged)
        np.testing.assert_array_equal(alone.mrr, wanted.mrr)
        added = csls_bias(queries[30:], rows, metric)
        wanted = measure(ranks_of(queries[:30], rows, judged, metric, bias=added), judged)
        np.testing.assert_array_equal(corrected.recall, wanted.recall)
    biased, _ = _both(queries, rows, 30, judged, "dot", bias)
    wanted = measure(ranks_of(queries[:30], rows, judged, "dot", bias=bias), judged)
    np.testing.assert_allclose(biased.mrr, wanted.mrr)


def test_queries_whose_answers_were_fitted_on_are_known(corpus):
    asked = queries_of(corpus)
    answers = judged_of(corpus, asked).rows
    seen = _answered_by(corpus, asked, answers[:10])
    assert seen[:10].all() and seen.sum() == np.isin(answers, answers[:10]).sum()


def test_every_kind_that_is_fitted_on_pairs_has_an_arm_for_each_side():
    registry = PluginRegistry(entry_points=False)
    arms = arms_for(registry)
    kinds = {arm.kind for arm in arms}
    assert {"procrustes", "ridge", "cca", "mlp", "distill", "bt2", "oca", "relative", "auto", "lowrank"} <= kinds
    assert not kinds & {"whiten", "pca", "identity", "simplex"}
    assert len({(arm.name, arm.role) for arm in arms}) == len(arms)
    assert {arm.role for arm in arms if arm.kind == "ridge"} == {"query", "gallery"}
    assert {arm.role for arm in arms if arm.kind == "bt2"} == {"query"}
    assert {arm.kind for arm in arms_for(registry, ["ridge"])} == {"ridge"}


def test_auto_chooses_among_what_was_fitted_for_other_arms(corpus):
    registry = PluginRegistry(entry_points=False)
    old, new = corpus.model("a"), corpus.model("b")
    asked = queries_of(corpus)
    data = fit_data(corpus, (old, new), "gallery", draw(corpus, old, new, 100, 0), asked, 0, labels=False)
    arms = {(arm.name, arm.role): arm for arm in arms_for(registry)}
    assert next(reversed(arms)) == ("auto", "gallery")
    made = {}
    kinds = {name: registry.find("transform", name).thing for name in ("ridge", "auto", "oca")}
    ridge = remembering(kinds["ridge"], arms["ridge", "gallery"], made)
    one = ridge.fit(data, {name: param.default for name, param in ridge.parameters.items()})
    assert ridge.fit(data, {}) is one and set(made) == {("ridge", "gallery")}
    chosen = remembering(kinds["auto"], arms["auto", "gallery"], made).fit(data, {})
    assert set(made) == {("ridge", "gallery"), ("procrustes", "gallery")}
    assert chosen.fit["kind"] in ("ridge", "procrustes")
    plain = arms["ridge, plain", "gallery"]
    assert remembering(kinds["ridge"], plain, made) is kinds["ridge"]
    assert remembering(kinds["oca"], arms["oca", "query"], made) is kinds["oca"]


def test_a_run_is_kept_goes_on_where_it_was_and_fills_its_page(folder, tmp_path, capsys):
    out, page = tmp_path / "numbers.json", tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    common = [str(folder), "--pairs", "120", "--seeds", "2", "--out", str(out)]
    assert main([*common, "--pair", "a:b", "--kinds", "procrustes,bt2"]) == 0
    first = json.loads(out.read_text())
    rows = first["runs"]["small"]["a:b"]["arms"]
    by_name = {(row["name"], row["role"]): row for row in rows}
    turned = by_name["procrustes, centred", "gallery"]
    assert turned["recall"]["value"] > 0.9 and turned["retention"]["value"] == pytest.approx(1, abs=0.1)
    assert turned["advantage"]["low"] <= turned["advantage"]["value"] <= turned["advantage"]["high"]
    for row in rows:
        row["seconds"] = 77.0
    out.write_text(json.dumps(first))
    assert main([*common, "--kinds", "procrustes,bt2,shift", "--write-docs", str(page)]) == 0
    second = json.loads(out.read_text())["runs"]["small"]
    assert set(second) == {"a:b", "b:a"} and all(row["seconds"] == 77.0 for row in second["a:b"]["arms"])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old\n" not in text
    assert markdown({"runs": {"small": second}}) in text and "a to b" in text
    assert "procrustes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("queries", "heading", "count"), [("none", ", no queries", 0), ("all", ", all training queries", TRAIN)]
)
def test_runs_with_other_queries_are_kept_apart(folder, tmp_path, queries, heading, count):
    out = tmp_path / "numbers.json"
    assert main([str(folder), "--pair", "a:b", "--kinds", "ridge", "--queries", queries, "--out", str(out)]) == 0
    found = json.loads(out.read_text())["runs"][f"small{heading}"]["a:b"]
    assert found["queries"] == count and len(found["arms"]) == 4


def test_a_page_without_markers_is_refused(folder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    with pytest.raises(SystemExit):
        main([str(folder), "--pair", "a:b", "--kinds", "shift", "--write-docs", str(page)])
    assert page.read_text() == "nothing here"


# --- pictures ---------------------------------------------------------------------------------------------


def drawn(folder, count=90, width=24):
    """Write two models' features of two drawing styles; the second model is a noisy rotation of the first one."""
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 6, count)
    picture = unit(rng.standard_normal((6, width))[classes] + rng.standard_normal((count, width)))
    turn = orthonormal(width, width, rng)
    folder.mkdir()
    for style in ("google", "twitter"):
        rows = unit(picture + 0.1 * rng.standard_normal((count, width)) / 3)
        for name, seen in (("m0", rows), ("m1", unit(rows @ turn + 0.02 * rng.standard_normal((count, width))))):
            scale = 127 / np.abs(seen).max(1, keepdims=True)
            np.save(folder / f"{name}.{style}.i8.npy", np.round(seen * scale).astype(np.int8))
    with gzip.open(folder / "meta.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"subcategory": f"s{each}"}) + "\n" for each in classes)
    return folder


def test_joint_spaces_are_judged_on_pictures_with_exact_self_tests(tmp_path, capsys):
    out, page = tmp_path / "numbers.json", tmp_path / "page.md"
    page.write_text("\n".join(markers("pictures")))
    folder = drawn(tmp_path / "pictures")
    assert pictures.main([str(folder), "--columns", "16", "--out", str(out), "--write-docs", str(page)]) == 0
    found = json.loads(out.read_text())
    assert set(found) == {"m0 to m1", "m1 to m0"}
    for rows in found.values():
        arms = {row["arm"]: row for row in rows}
        alone = arms["new, independent"]["self"]
        for name, row in arms.items():
            if name.startswith(("oca", "bt2")):
                assert row["self"] == alone and row["off"] < 1e-5
                bound = int(name.split("a = ")[1]) if "a = " in name else 16
                assert row["extra"] <= bound
        assert arms["Procrustes"]["cross"]["top-1"] > arms["new, independent"]["cross"]["top-1"]
    assert "| oca, a = 32 |" in page.read_text() and "self, top 1" in capsys.readouterr().out


def test_both_styles_of_a_picture_are_pairs_and_a_picture_is_in_one_part(tmp_path):
    folder = drawn(tmp_path / "pictures")
    fit, kept = np.arange(0, 40), np.arange(40, 50)
    models = pictures.read_pictures(folder, 12, fit)
    labels = np.arange(90)
    data = pictures.fit_of(models["m0"], models["m1"], fit, kept, labels)
    assert data.source.shape == (80, 12) and np.array_equal(data.source[:40], models["m1"].asked[fit])
    assert np.array_equal(data.target[40:], models["m0"].stored[fit]) and data.labels.tolist() == 2 * fit.tolist()
    assert np.array_equal(data.validation.target[:10], models["m0"].asked[kept])


def test_a_joint_index_is_put_beside_two_indexes(folder, capsys, monkeypatch):
    monkeypatch.setattr("vecdb.engine.joint.nominating.SMALL", 0)
    options = ["--pair", "a:b", "--first", str(TRAIN), "--queries", "20", "--kinds", "flat"]
    assert jointindex.main([str(folder), *options]) == 0
    told = capsys.readouterr().out
    assert "260 rows of" in told and "flat: built in old" in told
    shares = [float(part.split()[0]) for part in told.split(" us, joint ") if part[0] in "01"]
    assert len(shares) == 4 and min(shares) > 0.95  # rows are rounded
    crossed = told.strip().splitlines()[-1]
    exact, joint = (float(part.split()[-1]) for part in crossed.split(":")[1].split(","))
    assert crossed.startswith("cross-test recall@10") and abs(exact - joint) < 0.2
