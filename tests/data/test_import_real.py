"""Real documents with the vectors of real models, through the command line: the exact answers come out.

Ground truth is what the data sets give (Debian) or a plain numpy product (Cranfield), over vectors decoded as their
README says. The same answers must come after reopening, compaction, export and import into a new file, and while
another process writes.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.cli import main
from vecdb.interchange import read_vectors

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"mini6": "f16", "e5s": "f16", "use3": "i8", "wl256": "i8"}
K = 10
TIE = 2e-6  # scores of float32 products of unit vectors differ by less between ways to sum


def decoded(path):
    x = np.load(path).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def command(capsys, *arguments):
    code = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def import_all(capsys, database, folder, models):
    """The documents with the first model, then each further model for the documents that are there."""
    first, *others = models
    facts = command(
        capsys, "import", database, "docs", folder / "docs.jsonl.gz", "--text", "text", "--normalise",
        "--vectors", f"{first}={folder}/{first}.docs.{MODELS[first]}.npy", "--model", first,
    )  # fmt: skip
    assert facts["inserted"] == facts["records"] > 1000
    for model in others:
        vectors = f"{model}={folder}/{model}.docs.{MODELS[model]}.npy"
        ids = folder / "docs.jsonl.gz"
        done = command(
            capsys, "import", database, "docs", "--ids-from", ids, "--existing", "--vectors", vectors, "--normalise"
        )
        assert done["updated"] == facts["records"]


def truth_of(folder, model):
    """Ids and scores of the best documents, a few more than are compared."""
    documents = decoded(folder / f"{model}.docs.{MODELS[model]}.npy")
    queries = decoded(folder / f"{model}.queries.{MODELS[model]}.npy")
    given = folder / f"{model}.gt100.npy"
    if given.exists():
        ids = np.load(given)[:, : K + 5].astype(np.int64)
    else:
        ids = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, : K + 5]
    return ids, np.einsum("qd,qkd->qk", queries, documents[ids], dtype=np.float64)


def check_answers(docs, folder, models):
    for model in models:
        queries = read_vectors(folder / f"{model}.queries.{MODELS[model]}.npy", normalise=True)
        found = docs.search(queries, K, space=model, include=(), exact=True)
        ids, scores = truth_of(folder, model)
        assert found.complete and (found.counts == K).all()
        assert np.abs(found.scores - scores[:, :K]).max() < TIE
        for row, hits in enumerate(found.ids):
            clear = ids[row, :K][scores[row, :K] > scores[row, K] + TIE]
            assert set(clear) <= set(hits) <= set(ids[row][scores[row] > scores[row, K - 1] - TIE])
            gaps = np.diff(scores[row, : K + 1]) < -TIE
            alone = gaps & np.concatenate([[True], gaps[:-1]])
            assert np.array_equal(np.array(hits)[alone], ids[row, :K][alone])


WRITER = """
import sys, time, vecdb
with vecdb.open(sys.argv[1]) as db:
    docs, number = db.collection("docs"), 0
    while not sys.stdin.closed and number < 10_000:
        docs.set_metadata([number % 1000], [{"written": number}], merge=True)
        number += 1
        print(number, flush=True)
        time.sleep(0.01)
"""


def check_everywhere(capsys, database, folder, models):
    with vecdb.open(database, mode="r") as db:
        check_answers(db.collection("docs"), folder, models)
    command(capsys, "compact", database)
    command(capsys, "export", database, "docs", database.parent / "out")
    copy = database.parent / "copy.vecdb"
    command(capsys, "import", copy, "docs", database.parent / "out")
    with vecdb.open(copy, mode="r") as new, vecdb.open(database, mode="r") as old:
        check_answers(new.collection("docs"), folder, models)
        for one, other in zip(new.collection("docs").scan(), old.collection("docs").scan(), strict=True):
            assert (one.id, one.text, one.metadata) == (other.id, other.text, other.metadata)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(database)], stdin=-1, stdout=-1, cwd=ROOT)
    try:
        assert writer.stdout.readline() == b"1\n"
        with vecdb.open(database, mode="r") as db:
            check_answers(db.collection("docs"), folder, models)
    finally:
        writer.kill()
        writer.communicate()
    assert command(capsys, "check", database)["ok"]


def test_cranfield_in_all_its_models(shared_data, tmp_path, capsys):
    database = tmp_path / "cranfield.vecdb"
    import_all(capsys, database, shared_data / "cranfield", MODELS)
    check_everywhere(capsys, database, shared_data / "cranfield", MODELS)


@pytest.mark.slow
def test_debian_in_one_model(shared_data, tmp_path, capsys):
    database = tmp_path / "debian.vecdb"
    import_all(capsys, database, shared_data / "debian", ["wl256"])
    with vecdb.open(database, mode="r") as db:
        check_answers(db.collection("docs"), shared_data / "debian", ["wl256"])


@pytest.mark.full
def test_debian_in_all_its_models(shared_data, tmp_path, capsys):
    database = tmp_path / "debian.vecdb"
    import_all(capsys, database, shared_data / "debian", MODELS)
    check_everywhere(capsys, database, shared_data / "debian", MODELS)


def test_fields_of_the_documents_are_metadata(shared_data, tmp_path, capsys):
    folder, database = shared_data / "cranfield", tmp_path / "x.vecdb"
    command(capsys, "import", database, "docs", folder / "docs.jsonl.gz", "--text", "text", "--fields", "cran_id")
    with vecdb.open(database, mode="r") as db:
        (record,) = db.collection("docs").get([1])
        assert record.metadata == {"cran_id": 2}
        assert record.text.startswith("simple shear flow past a flat plate")


def test_images_have_no_records_but_vectors(shared_data, tmp_path, capsys):
    """Same row, same emoji: each drawing of one vendor finds that of the other far more often than by chance."""
    folder, database = shared_data / "emoji", tmp_path / "x.vecdb"
    files = [f"{vendor}={folder}/el0.{vendor}.i8.npy" for vendor in ("google", "twitter")]
    facts = command(
        capsys, "import", database, "emoji", folder / "meta.jsonl.gz", "--number", "--normalise",
        "--vectors", files[0], "--vectors", files[1],
    )  # fmt: skip
    assert facts["records"] == 1911 and facts["spaces"] == {"google": 1280, "twitter": 1280}
    with vecdb.open(database, mode="r") as db:
        emoji = db.collection("emoji")
        queries = read_vectors(folder / "el0.twitter.i8.npy", normalise=True)[:200]
        found = emoji.search(queries, 1, space="google", include=())
        truth = (queries @ decoded(folder / "el0.google.i8.npy").T).argmax(axis=1)
        assert np.mean([hits[0].id == best for hits, best in zip(found, truth, strict=True)]) > 0.99
        assert np.mean([hits[0].id == row for row, hits in enumerate(found)]) > 0.1
