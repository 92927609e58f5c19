"""The sample inside the package: its shape, its honesty (no copied sentence), its use (real answers), its maker."""

from __future__ import annotations

import gzip
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb import sample
from vecdb.errors import CorruptionError

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "vecdb" / "sample"
PARTS = ("documents", "texts", "queries")
MODELS = {"mini6": 384, "wl256": 256}
COUNTS = {"documents": 1_500, "texts": 200, "queries": 30}


def load_tool():
    spec = importlib.util.spec_from_file_location("make_sample", ROOT / "tools" / "make_sample.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_sample = load_tool()


@pytest.fixture(scope="module")
def data():
    return sample.load()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Return a copy of the sample's files that `load` reads instead, for tests that damage it."""
    folder = tmp_path / "sample"
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(sample.resources, "files", lambda package: folder)
    return folder


# --- shape ------------------------------------------------------------------------------------------------


def test_the_whole_sample_is_under_three_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.suffix != ".pyc") < 3_000_000


def test_models_are_named_with_package_version_and_licence(data):
    assert {name: model.dim for name, model in data.models.items()} == MODELS
    for name, model in data.models.items():
        assert model.name == name
        assert model.package and model.version and model.licence and model.model and model.recipe


@pytest.mark.parametrize("part", PARTS)
def test_ids_are_unique_and_every_part_is_aligned(data, part):
    rows = getattr(data, part)
    assert len(rows) == len(rows.ids) == len(set(rows.ids)) == COUNTS[part]
    assert all(isinstance(name, str) and name for name in rows.ids)
    for field in ("metadata", "texts", "relevant", "rows"):
        assert len(getattr(rows, field, rows.ids)) == len(rows.ids)


def test_no_id_is_both_a_document_and_a_text(data):
    assert not set(data.documents.ids) & set(data.texts.ids)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("part", PARTS)
def test_vectors_are_read_only_float32_of_unit_length(data, part, name):
    vectors = getattr(data, part).vectors[name]
    assert vectors.shape == (COUNTS[part], MODELS[name])
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous and vectors.flags.aligned and not vectors.flags.writeable
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_no_two_texts_or_queries_have_the_same_vector(data, name):
    for part in (data.texts, data.queries):
        assert len(np.unique(part.vectors[name], axis=0)) == len(part)


def test_mappings_cannot_be_changed(data):
    with pytest.raises(TypeError):
        data.documents.vectors["mini6"] = None
    with pytest.raises(AttributeError):
        data.documents.ids = ()


def test_two_loads_share_nothing_that_can_be_changed():
    first, second = sample.load(), sample.load()
    first.documents.metadata[0]["section"] = "changed"
    first.documents.metadata[0]["tags"].append("changed")
    assert second.documents.metadata[0]["section"] != "changed"
    assert "changed" not in second.documents.metadata[0]["tags"]


# --- content ----------------------------------------------------------------------------------------------


def test_documents_have_facts_worth_filtering(data):
    sections = Counter(row["section"] for row in data.documents.metadata)
    assert len(sections) == 58
    assert sum(count >= 40 for count in sections.values()) >= 12
    assert min(sections.values()) < 10
    sizes = np.array([row["installed_kb"] for row in data.documents.metadata])
    assert sizes.min() >= 0 and np.percentile(sizes, 90) > 5 * np.median(sizes)
    tags = Counter(tag for row in data.documents.metadata for tag in row["tags"])
    assert len(tags) > 200 and tags["role::program"] >= 100
    untagged = sum(not row["tags"] for row in data.documents.metadata)
    assert 0.3 < untagged / len(data.documents) < 0.7


def test_metadata_has_the_promised_fields_and_types(data):
    for row in data.documents.metadata:
        assert set(row) == {"section", "installed_kb", "tags"}
        assert type(row["section"]) is str and type(row["installed_kb"]) is int
        assert all(type(tag) is str for tag in row["tags"])
    for row, text in zip(data.texts.metadata, data.texts.texts, strict=True):
        assert row["words"] == len(text.split()) and type(row["topic"]) is str


def test_texts_are_plain_sentences_on_twenty_topics(data):
    assert len(set(data.texts.texts)) == 200
    assert all(6 <= len(text.split()) <= 18 and text[0].isupper() and text.endswith(".") for text in data.texts.texts)
    assert set(Counter(row["topic"] for row in data.texts.metadata).values()) == {10}
    assert len({row["topic"] for row in data.texts.metadata}) == 20


def test_queries_have_right_answers_and_do_not_repeat_them(data):
    texts = dict(zip(data.texts.ids, data.texts.texts, strict=True))
    for query, relevant in zip(data.queries.texts, data.queries.relevant, strict=True):
        assert 6 <= len(query.split()) <= 18
        assert relevant and len(set(relevant)) == len(relevant) and set(relevant) <= set(texts)
        asked = {word for word in query.lower().split() if len(word) > 3}
        for answer in relevant:
            said = {word.strip(".,") for word in texts[answer].lower().split()}
            assert len(asked & said) <= len(asked) / 2, (query, texts[answer])


# --- answers ----------------------------------------------------------------------------------------------


def test_the_better_model_finds_the_right_texts():
    rates = {(name, "documents" in what): (first, ten) for name, what, _, first, ten in make_sample.hit_rates()}
    first, ten = rates["mini6", False]
    assert first >= 20 and ten >= 26
    first, ten = rates["mini6", True]
    assert first >= 16 and ten >= 25


def test_the_two_models_are_clearly_different():
    rates = {name: ten for name, what, _, _, ten in make_sample.hit_rates() if "documents" not in what}
    assert rates["wl256"] >= 15
    assert rates["mini6"] - rates["wl256"] >= 4


def test_neighbours_of_documents_share_their_section(data):
    sections = np.array([row["section"] for row in data.documents.metadata])
    by_chance = sum((sections == name).mean() ** 2 for name in set(sections))
    for name in MODELS:
        scores = data.documents.vectors[name] @ data.documents.vectors[name].T
        np.fill_diagonal(scores, -np.inf)
        assert (sections[scores.argmax(axis=1)] == sections).mean() > 10 * by_chance


def test_readme_states_the_measured_figures_and_every_model(data):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    begin, end = make_sample.FIGURES
    assert page.split(begin)[1].split(end)[0] == make_sample.report()
    for model in data.models.values():
        assert f"{model.package} {model.version}" in page


# --- damage -----------------------------------------------------------------------------------------------


def test_a_copy_of_the_files_loads(copy):
    assert sample.load().texts.ids == sample.load().texts.ids


@pytest.mark.parametrize("name", ["models.json", "texts.jsonl", "documents.mini6.npy"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(CorruptionError, match="cannot be read") as caught:
        sample.load()
    assert caught.value.where == name


@pytest.mark.parametrize("name", ["models.json", "documents.jsonl", "queries.wl256.npy"])
@pytest.mark.parametrize("keep", [0, 5, 100])
def test_a_cut_file_is_refused(copy, name, keep):
    (copy / name).write_bytes((copy / name).read_bytes()[:keep])
    with pytest.raises(CorruptionError, match="install vecdb again"):
        sample.load()


def test_a_line_too_few_is_refused(copy):
    path = copy / "texts.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(CorruptionError, match=r"expected float16 \(199, 384\)"):
        sample.load()


def test_a_row_without_its_field_is_refused(copy):
    (copy / "texts.jsonl").write_text('{"id": "a"}\n' * 200)
    with pytest.raises(CorruptionError, match="lacks a field"):
        sample.load()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 3.0])
def test_a_row_that_is_not_a_direction_is_refused(copy, value):
    path = copy / "queries.mini6.npy"
    vectors = np.load(path)
    vectors[7] = value
    np.save(path, vectors)
    with pytest.raises(CorruptionError, match="not of unit length"):
        sample.load()


def test_arrays_of_objects_are_never_unpickled(copy):
    np.save(copy / "queries.mini6.npy", np.array([{}] * 30, dtype=object), allow_pickle=True)
    with pytest.raises(CorruptionError, match="not an array"):
        sample.load()


def test_loading_needs_nothing_that_vecdb_itself_does_not():
    code = (
        "import sys, vecdb; heavy = {'numba', 'lmdb', 'msgpack', 'pluggy', 'pandas', 'scipy'};"
        "before = heavy & set(sys.modules); import vecdb.sample; vecdb.sample.load();"
        "print(sorted((heavy & set(sys.modules)) - before))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


# --- the tool that makes it -------------------------------------------------------------------------------

sizes_of_sections = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 500), min_size=1)


@given(sizes=sizes_of_sections, total=st.integers(0, 3_000))
def test_quotas_add_up_and_never_exceed_a_section(sizes, total):
    shares = make_sample.quotas(sizes, total)
    assert set(shares) == set(sizes)
    assert sum(shares.values()) == min(total, sum(sizes.values()))
    assert all(0 <= shares[name] <= sizes[name] for name in sizes)


@given(sizes=sizes_of_sections, total=st.integers(0, 3_000))
def test_a_larger_section_gets_no_smaller_share_up_to_rounding(sizes, total):
    shares = make_sample.quotas(sizes, total)
    by_size = sorted(sizes, key=sizes.__getitem__)
    for small, large in pairwise(by_size):
        assert shares[small] <= shares[large] + 1


@given(seed=st.integers(0, 10), counts=st.lists(st.integers(1, 30), min_size=1, max_size=6), total=st.integers(1, 60))
def test_choice_is_repeatable_ascending_and_without_repeats(seed, counts, total):
    documents = [{"section": str(number)} for number, count in enumerate(counts) for _ in range(count)]
    rows = make_sample.choose(documents, total, seed)
    assert rows == make_sample.choose(documents, total, seed)
    assert rows == sorted(set(rows))
    assert len(rows) == min(total, len(documents))


def test_npy_bytes_are_read_by_numpy(tmp_path):
    vectors = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float16)
    (tmp_path / "a.npy").write_bytes(make_sample.npy(vectors))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), vectors)
    assert len(make_sample.npy(vectors)) % 64 == 7 * 5 * 2 % 64


def test_unit_and_least_cosine():
    rows = np.array([[3.0, 4.0], [0.0, 2.0]])
    np.testing.assert_allclose(make_sample.unit(rows), [[0.6, 0.8], [0.0, 1.0]])
    assert make_sample.least_cosine(rows, rows * 5) == pytest.approx(1.0)
    assert make_sample.least_cosine(rows, rows[::-1]) == pytest.approx(0.8)


def test_first_right_ranks_equal_scores_by_row():
    assert make_sample.first_right(np.array([1.0, 2.0, 2.0]), ["a", "b", "c"], ["c"]) == 1
    assert make_sample.first_right(np.array([1.0, 2.0, 2.0]), ["a", "b", "c"], ["c", "b"]) == 0


def test_figures_are_put_between_the_markers():
    begin, end = make_sample.FIGURES
    page = make_sample.with_figures(f"before\n{begin}old\n{end}after\n", "new\n")
    assert page == f"before\n{begin}new\n{end}after\n"


def test_report_is_printed(capsys):
    assert make_sample.main(["--report"]) == 0
    assert capsys.readouterr().out == make_sample.report()


def test_the_tool_asks_for_the_data():
    with pytest.raises(SystemExit):
        make_sample.main(["--check"])


# --- against the real data sets ---------------------------------------------------------------------------


@pytest.mark.shared_data
def test_the_sample_is_what_the_real_data_gives(shared_data):
    assert list(make_sample.differences(shared_data)) == []


@pytest.mark.shared_data
def test_a_changed_file_is_noticed(shared_data, tmp_path, monkeypatch):
    folder = tmp_path / "sample"
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(make_sample, "SAMPLE", folder)
    changed = bytearray((folder / "documents.wl256.npy").read_bytes())
    changed[-1] ^= 1
    (folder / "documents.wl256.npy").write_bytes(changed)
    (folder / "documents.jsonl").write_text((folder / "documents.jsonl").read_text().replace('"games"', '"toys"'))
    assert set(make_sample.differences(shared_data)) == {"documents.jsonl", "documents.wl256.npy"}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", MODELS)
def test_document_vectors_are_those_of_the_real_data(shared_data, data, name):
    stored = np.load(shared_data / "debian" / make_sample.SOURCES[name], mmap_mode="r")[list(data.documents.rows)]
    assert make_sample.least_cosine(stored, data.documents.vectors[name]) > 0.99999


def read_gz(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def runs(text, length):
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


@pytest.mark.shared_data
def test_no_sentence_of_the_real_data_is_in_the_sample(shared_data):
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json*")}
    sentences = [row["text"] for row in read_gz(shared_data / "debian" / "docs.jsonl.gz")]
    sentences += [row["text"] for row in read_gz(shared_data / "debian" / "queries.jsonl.gz")]
    # A shorter synopsis such as "mail server" is a common name; from 20 letters on it would be a copied phrase.
    assert not [text for text in sentences if len(text) >= 20 and any(text in content for content in kept.values())]


@pytest.mark.shared_data
def test_texts_and_queries_share_no_long_run_of_words_with_the_real_data(shared_data, data):
    own = {run for text in data.texts.texts + data.queries.texts for run in runs(text, 6)}
    files = ("debian/docs", "debian/queries", "cranfield/docs", "cranfield/queries")
    for name in files:
        for row in read_gz(shared_data / f"{name}.jsonl.gz"):
            assert not own & runs(row["text"], 6), row["text"]
