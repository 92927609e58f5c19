"""Recall that is asked for, on rows left out of many sets: other models, hubs, clusters, few dimensions, order.

Every shared set of vectors, and sets made hard on purpose: a graph built in the order of insertion can lose what is
sorted, codes lose what lies in tight clusters, and hubs attract every walk.
"""

import numpy as np
import pytest

import vecdb

pytestmark = [pytest.mark.shared_data, pytest.mark.full]

LEFT_OUT = 1_000
KINDS = ("rabitq", "graph", "ivf")
WANTED = (0.9, 0.95, 0.99)


def stored(folder, name):
    rows = np.load(folder / name).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clusters(folder):
    """Two hundred clusters, a tenth as wide as they lie apart."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(200, 128))
    rows = centres[rng.integers(0, 200, 20_000)] + 0.1 * rng.normal(size=(20_000, 128))
    return rows.astype(np.float32)


def uneven(folder):
    """Clusters of very different sizes and widths, inserted one after the other."""
    rng = np.random.default_rng(2)
    sizes = (20_000 * rng.dirichlet(np.full(40, 0.3))).astype(int) + 1
    widths = rng.uniform(0.02, 0.6, 40)
    parts = [rng.normal(size=96) + w * rng.normal(size=(n, 96)) for n, w in zip(sizes, widths, strict=True)]
    return np.concatenate(parts).astype(np.float32)


def few_dimensions(folder):
    return np.random.default_rng(3).normal(size=(20_000, 8)).astype(np.float32)


def few_hidden_dimensions(folder):
    """Two hundred columns that are a function of five numbers."""
    rng = np.random.default_rng(4)
    return np.tanh(rng.normal(size=(20_000, 5)) @ rng.normal(size=(5, 200))).astype(np.float32)


def sorted_documents(folder):
    """Real documents in the order of their strongest direction."""
    rows = stored(folder, "debian/mini6.docs.f16.npy")
    centred = rows - rows.mean(0)
    _, _, directions = np.linalg.svd(centred[::10], full_matrices=False)
    return rows[np.argsort(centred @ directions[0])]


def repeated(folder):
    """Real documents, a third of them stored several times, as caches of answers do."""
    rows = stored(folder, "debian/mini6.docs.f16.npy")[:16_000]
    return np.concatenate([rows, rows[:4_000], rows[:4_000] + np.float32(1e-4)])


SETS = {
    "use3": lambda folder: stored(folder, "debian/use3.docs.i8.npy"),
    "e5s, hubs": lambda folder: stored(folder, "debian/e5s.docs.f16.npy"),
    "wl256": lambda folder: stored(folder, "debian/wl256.docs.i8.npy"),
    "summaries": lambda folder: stored(folder, "summaries/mini6.docs.i8.npy"),
    "clusters": clusters,
    "uneven clusters": uneven,
    "8 dimensions": few_dimensions,
    "5 hidden dimensions": few_hidden_dimensions,
    "sorted": sorted_documents,
    "repeated": repeated,
}
METRICS = {"uneven clusters": "l2", "8 dimensions": "l2", "5 hidden dimensions": "dot"}


@pytest.fixture(scope="module", params=SETS, ids=str)
def halves(request, shared_data):
    """The metric, the rows that are stored, in their order, and those left out."""
    rows = SETS[request.param](shared_data)
    out = np.sort(np.random.default_rng(7).choice(len(rows), LEFT_OUT, replace=False))
    return METRICS.get(request.param, "cosine"), np.delete(rows, out, axis=0), rows[out]


def scores_of(metric, asked, rows):
    if metric == "cosine":
        asked, rows = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (asked, rows))
    products = asked.astype(np.float64) @ rows.T.astype(np.float64)
    if metric == "l2":
        return -np.sqrt(np.maximum(0, (asked**2).sum(1)[:, None] - 2 * products + (rows**2).sum(1)))
    return products


def recall_of(metric, rows, asked, found, k=10):
    """Recall of each query; what ties with the last of the true neighbours counts, to seven digits of the scores."""
    good = []
    for start in range(0, len(asked), 100):
        scores = scores_of(metric, asked[start : start + 100], rows)
        floors = np.partition(scores, -k, axis=1)[:, -k]
        floors -= 1e-6 * np.maximum(1.0, np.abs(floors))
        for row, floor, hits in zip(scores, floors, found[start : start + 100], strict=True):
            good.append(np.count_nonzero(row[hits.ids] >= floor))
    return np.minimum(1.0, np.array(good) / k)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_left_out_find_what_was_asked_for(halves, kind, tmp_path):
    metric, rows, asked = halves
    with vecdb.open(
        tmp_path / "a.vecdb", durability="relaxed", automatic=False, plugins=vecdb.PluginRegistry(entry_points=False)
    ) as db:
        c = db.create_collection("c")
        c.add_space("s", dim=rows.shape[1], metric=metric)
        c.upsert(np.arange(len(rows)), {"s": rows}, trust=True)
        c.create_index("s", kind)
        for wanted in WANTED:
            found = recall_of(metric, rows, asked, c.search(asked, 10, include=(), recall=wanted))
            assert float(np.mean(found) - 1.645 * np.std(found) / len(found) ** 0.5) >= wanted - 0.01, wanted
