"""Real documents and queries of four real models: exact search gives the top 10 that was computed elsewhere.

The given ground truth was computed with float32 products, ties by lower id; two documents count as tied where their
exact scores differ by less than such products can tell.
"""

import contextlib
import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

import vecdb

pytestmark = pytest.mark.shared_data

MODELS = ("mini6", "e5s", "wl256", "use3")
PRECISION = 4e-7
"""Twice what a float32 dot product of unit vectors is off by, measured over all queries."""
ULP = 2.0**-23
"""Scores are float32 and equal ones come in the order of age: exact scores may rise by what float32 cannot tell."""
STRIDE = 36
BATCH = 4000


def load(folder, name, part):
    [file] = folder.glob(f"{name}.{part}.*.npy")
    vectors = np.load(file).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Truth:
    """Vectors, queries and the given answers of one model."""

    def __init__(self, folder, name):
        self.docs = load(folder, name, "docs")
        self.queries = load(folder, name, "queries")
        self.best = np.load(folder / f"{name}.gt100.npy").astype(np.int64)

    def agrees(self, numbers, answers):
        """Compare the hits of some queries with the given top 10."""
        for number, hits in zip(numbers, answers, strict=True):
            given = self.best[number, :10]
            if hits.ids == given.tolist():
                continue
            query = self.queries[number].astype(np.float64)
            norm = np.linalg.norm(query)

            def exact(ids, query=query, norm=norm):
                rows = self.docs[ids].astype(np.float64)
                return rows @ query / norm / np.linalg.norm(rows, axis=1)

            found = exact(np.array(hits.ids))
            np.testing.assert_allclose(found, exact(given), rtol=0, atol=PRECISION, err_msg=f"query {number}")
            assert len(set(hits.ids)) == 10 and (np.diff(found) <= ULP).all()


@pytest.fixture(scope="module")
def truths(shared_data):
    return {name: Truth(shared_data / "debian", name) for name in MODELS}


def documents(shared_data):
    with gzip.open(shared_data / "debian" / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def path(shared_data, truths, tmp_path_factory):
    """Return a file with every document under every model, some of them written twice."""
    path = tmp_path_factory.mktemp("truth") / "debian.vecdb"
    texts = documents(shared_data)
    with vecdb.open(path, durability="relaxed", retention=0, automatic=False) as db:  # an index would answer else
        docs = db.create_collection("docs")
        for name, truth in truths.items():
            docs.add_space(name, dim=truth.docs.shape[1], model=name)
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            docs.upsert(
                [text["id"] for text in part],
                {name: truth.docs[start : start + BATCH] for name, truth in truths.items()},
                [{"section": text["section"], "kb": text["installed_kb"], "tags": text["tags"]} for text in part],
                [text["text"] for text in part],
            )
        again = range(0, len(texts), 17)
        for name, truth in truths.items():
            docs.set_vectors(name, again, truth.docs[::17])
        db.tag("loaded")
    return path


def answers(docs, truths, numbers, **options):
    return {
        name: [docs.search(truth.queries[part], 10, space=name, include=(), **options) for part in parts(numbers)]
        for name, truth in truths.items()
    }


def parts(numbers):
    return [numbers[start : start + 500] for start in range(0, len(numbers), 500)]


def check(found, truths, numbers):
    for name, batches in found.items():
        for part, batch in zip(parts(numbers), batches, strict=True):
            truths[name].agrees(part, batch)


def same(left, right):
    for name in left:
        for one, other in zip(left[name], right[name], strict=True):
            assert one.ids == other.ids and one.scores.tobytes() == other.scores.tobytes()


def reproduce(path, truths, numbers):
    """Every answer is the given one: as loaded, reopened, beside a writing process, and after compaction."""
    with vecdb.open(path, durability="relaxed", retention=0, automatic=False) as db:  # an index would answer else
        docs = db.collection("docs")
        first = answers(docs, truths, numbers)
        check(first, truths, numbers)
        singles = [docs.search(truths["mini6"].queries[number], 10, space="mini6") for number in numbers[:20]]
        truths["mini6"].agrees(numbers[:20], singles)
        assert [hits.ids for hits in singles] == first["mini6"][0].ids[:20]
    with vecdb.open(path, mode="r") as db:
        same(first, answers(db.collection("docs"), truths, numbers))
        with another_process_writing(path):
            same(first, answers(db.collection("docs"), truths, numbers, as_of="loaded"))
            same(first, answers(db.collection("docs"), truths, numbers, where={"noise": {"$exists": False}}))
    with vecdb.open(path, durability="relaxed", retention=0, automatic=False) as db:  # an index would answer else
        docs = db.collection("docs")
        assert docs.delete(where={"noise": True}).deleted > 0
        db.compact()
        same(first, answers(docs, truths, numbers))
        same(first, answers(docs, truths, numbers, as_of="loaded"))
        report = db.check()
        assert report.ok, report.problems


WRITER = """
import sys, numpy as np, vecdb
rng = np.random.default_rng(5)
with vecdb.open(sys.argv[1], durability="relaxed", retention=0, automatic=False) as db:
    docs = db.collection("docs")
    number = 0
    while True:
        vectors = {name: rng.standard_normal((20, space.dim)) for name, space in docs.spaces.items()}
        docs.upsert([f"noise {number + i}" for i in range(20)], vectors, [{"noise": True}] * 20, trust=True)
        if number > 100:
            docs.delete([f"noise {number - 100}"])
        number += 20
        print(number, flush=True)
"""


@contextlib.contextmanager
def another_process_writing(path):
    """Write and delete noise in another process for as long as the block lasts; kill it at the end."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline().strip() == "20"
        yield
        assert writer.poll() is None, "the writer died"
    finally:
        writer.kill()
        writer.stdout.close()
        writer.wait(30)


def test_search_reproduces_the_given_truth(path, truths):
    reproduce(path, truths, np.arange(0, 4500, STRIDE))


@pytest.mark.full
def test_search_reproduces_the_given_truth_for_every_query(path, truths):
    reproduce(path, truths, np.arange(4500))


def test_conditions_on_real_metadata_give_the_best_of_what_they_select(path, truths, shared_data):
    texts = documents(shared_data)
    truth = truths["wl256"]
    with vecdb.open(path, mode="r") as db:
        docs = db.collection("docs")
        for where, holds in (
            ({"section": "games"}, lambda text: text["section"] == "games"),
            ({"kb": {"$lt": 20}}, lambda text: text["installed_kb"] < 20),
            (
                {"tags": "role::program", "kb": {"$gte": 5000}},
                lambda text: "role::program" in text["tags"] and text["installed_kb"] >= 5000,
            ),
        ):
            chosen = np.array([text["id"] for text in texts if holds(text)])
            assert docs.count(where) == len(chosen) > 0
            for number in range(0, 4500, 900):
                hits = docs.search(truth.queries[number], 10, space="wl256", where=where)
                scores = truth.docs[chosen].astype(np.float64) @ truth.queries[number].astype(np.float64)
                best = np.sort(scores)[::-1][:10]
                assert set(hits.ids) <= set(chosen.tolist())
                np.testing.assert_allclose(hits.scores, best, rtol=0, atol=PRECISION)
