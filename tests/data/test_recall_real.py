"""Recall that is asked for, on real vectors: rows left out, real queries, and conditions that select a far cluster."""

import gzip
import json

import numpy as np
import pytest

import vecdb
from vecdb.engine.recall import RECORDED_FROM

pytestmark = [pytest.mark.shared_data, pytest.mark.full]

QUERIES = 1_000
SECTIONS = ("perl", "libs", "gnu-r", "science", "games", "fonts", "ocaml", "web", "mail")
"""From a ninth of the documents to less than a hundredth; the names of fonts and the like lie far from most queries."""
KINDS = ("rabitq", "graph", "ivf")


def lower(recalls):
    """Lower 95 % bound of a mean."""
    return float(np.mean(recalls) - 1.645 * np.std(recalls) / len(recalls) ** 0.5)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def debian(shared_data):
    """Documents, their sections, and real queries of one model."""
    folder = shared_data / "debian"
    with gzip.open(folder / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        sections = [json.loads(line)["section"] for line in lines]
    docs = np.load(folder / "mini6.docs.f16.npy").astype(np.float32)
    queries = np.load(folder / "mini6.queries.f16.npy").astype(np.float32)
    return docs, np.array(sections), queries


@pytest.fixture(scope="module", params=KINDS)
def opened(request, debian, tmp_path_factory):
    """A database without the last thousand documents of a shuffle, with an index, and what was left out."""
    docs, sections, _ = debian
    order = np.random.default_rng(11).permutation(len(docs))
    left_out, there = order[:QUERIES], np.sort(order[QUERIES:])
    path = tmp_path_factory.mktemp("recall") / "debian.vecdb"
    with vecdb.open(
        path, durability="relaxed", automatic=False, plugins=vecdb.PluginRegistry(entry_points=False)
    ) as db:
        c = db.create_collection("docs")
        c.add_space("mini6", dim=docs.shape[1])
        c.upsert(there, {"mini6": docs[there]}, [{"section": str(name)} for name in sections[there]], trust=True)
        c.create_index("mini6", request.param)
        yield c, there, left_out


def recalls(c, docs, there, asked, k=10, **options):
    """Recall of each query against an exact product of matrices."""
    scores = unit(asked) @ unit(docs[there]).T
    floors = np.partition(scores, -k, axis=1)[:, -k] - 1e-5
    found = c.search(asked, k, include=(), **options)
    places = [np.searchsorted(there, hits.ids) for hits in found]
    good = [np.count_nonzero(row[place] >= floor) for row, place, floor in zip(scores, places, floors, strict=True)]
    return np.minimum(1.0, np.array(good) / k)


@pytest.mark.parametrize("wanted", [0.9, 0.95, 0.99])
def test_documents_that_were_left_out_find_what_was_asked_for(opened, debian, wanted):
    c, there, left_out = opened
    found = recalls(c, debian[0], there, debian[0][left_out], recall=wanted)
    assert lower(found) >= wanted - 0.01


def test_real_queries_find_it_once_others_were_recorded(opened, debian):
    c, there, _ = opened
    docs, _, queries = debian
    for query in queries[: RECORDED_FROM + 50]:
        c.search(query, 10, include=())
    assert c.optimize() >= 1
    for wanted in (0.9, 0.95, 0.99):
        found = recalls(c, docs, there, queries[-QUERIES:], recall=wanted)
        assert lower(found) >= wanted - 0.01
    plan = c.search(queries[-1], 10, recall=0.95, explain=True).plan
    assert plan["expected_recall"] >= 0.95 and plan["measured_on"] in ("members", "held out", "recorded")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_condition_that_selects_a_far_cluster_is_answered_in_full(opened, debian, section):
    c, there, left_out = opened
    docs, sections, queries = debian
    inside = there[sections[there] == section]
    far = left_out[sections[left_out] != section]
    asked = np.concatenate([docs[far[:200]], queries[:200]])
    found = c.search(asked, 10, include=(), where={"section": section}, recall=0.95)
    scores = unit(asked) @ unit(docs[inside]).T
    floors = np.partition(scores, -10, axis=1)[:, -10] - 1e-5
    shares = []
    for row, floor, hits in zip(scores, floors, found, strict=True):
        assert len(hits.ids) == min(10, len(inside)) and hits.complete
        shares.append(np.count_nonzero(row[np.searchsorted(inside, hits.ids)] >= floor) / 10)
    assert np.mean(np.minimum(1.0, shares)) >= 0.95
