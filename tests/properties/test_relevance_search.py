"""A filtered search is the plain one with some hits taken away, whatever else is asked for: against a plain oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vecdb

COUNT, DIM = 160, 6


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((COUNT, DIM)).astype(np.float32)
    asked = rows[:100] + 0.2 * rng.standard_normal((100, DIM)).astype(np.float32)
    with vecdb.open(tmp_path_factory.mktemp("relevance") / "a.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=DIM)
        docs.upsert(list(range(COUNT)), {"m": rows}, [{"n": row % 3} for row in range(COUNT)])
        answers = [[row] for row in range(100)]
        for name, kind, params in (
            ("threshold", "threshold", {}),
            ("calibrated", "calibrated", {"method": "isotonic"}),
            ("conformal", "conformal", {}),
            ("gap", "topk-gap", {}),
            ("adapter", "cosine-adapter", {"steps": 20, "networks": 2}),
            ("background", "background", {}),
            ("outlier", "outlier", {}),
        ):
            docs.fit_relevance(name, kind, queries=asked, relevant_ids=answers, params=params)
        yield docs


QUERY = st.lists(st.floats(-1, 1, width=32), min_size=DIM, max_size=DIM).filter(lambda row: max(map(abs, row)) > 0.1)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["threshold", "calibrated", "conformal", "gap", "adapter", "background", "outlier"]),
    query=QUERY,
    k=st.integers(1, 25),
    offset=st.integers(0, 12),
    least=st.none() | st.floats(-0.25, 0.875, width=32),
    where=st.none() | st.just({"n": 1}),
)
def test_a_filter_only_takes_away_and_counts(docs, name, query, k, offset, least, where):
    wishes = {"offset": offset, "min_score": least, "where": where}
    plain = docs.search(query, k=k, **wishes)
    found = docs.search(query, k=k, relevance=name, **wishes)
    threshold = next(each.threshold for each in docs.relevance_filters if each.name == name)
    assert found.dropped == len(plain) - len(found)
    places = [plain.ids.index(id) for id in found.ids]
    assert places == sorted(places)
    assert all(hit.relevance >= np.float32(threshold) for hit in found)
    assert [hit.score for hit in found] == [plain[place].score for place in places]
    assert [hit.metadata for hit in found] == [plain[place].metadata for place in places]
    if name != "gap":  # monotone, and every hit is judged: what is kept is a prefix
        assert places == list(range(len(places)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["calibrated", "conformal", "gap", "adapter"]), query=QUERY, k=st.integers(1, 10))
def test_how_many_are_asked_for_does_not_change_what_is_said_of_one(docs, name, query, k):
    """Up to the depth that a filter wants to see; it is asked for by the engine."""
    whole = {hit.id: hit.relevance for hit in docs.search(query, k=10, relevance=name)}
    for hit in docs.search(query, k=k, relevance=name):
        assert hit.relevance == whole[hit.id]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["calibrated", "adapter", "outlier"]), queries=st.lists(QUERY, min_size=1, max_size=5))
def test_a_batch_is_judged_as_its_queries_alone(docs, name, queries):
    batch = docs.search(np.array(queries, np.float32), k=7, relevance=name)
    for query, hits in zip(queries, batch, strict=True):
        alone = docs.search(np.array(query, np.float32), k=7, relevance=name)
        assert hits.ids == alone.ids and hits.dropped == alone.dropped
        np.testing.assert_allclose([h.relevance for h in hits], [h.relevance for h in alone], atol=1e-5)


def test_a_read_only_reader_uses_filters_and_fits_none(docs):
    with vecdb.open(docs.database.path, mode="r") as db:
        reader = db.collection("docs")
        assert len(reader.relevance_filters) == 7
        assert reader.search(np.ones(DIM), relevance="calibrated").dropped > 0
        with pytest.raises(vecdb.ReadOnlyError):
            reader.fit_relevance("x", "threshold", queries=np.ones((2, DIM)), relevant_ids=[[1], [2]])
        for action in (lambda: reader.refit_relevance("gap"), lambda: reader.drop_relevance("gap")):
            with pytest.raises(vecdb.ReadOnlyError):
                action()
