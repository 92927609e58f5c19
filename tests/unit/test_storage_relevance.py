"""Stored relevance filters: what the catalog says of them, and their blobs, come back whole or are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from vecdb.errors import CorruptionError
from vecdb.storage.blobs import BlobLine
from vecdb.storage.format import pack, unpack
from vecdb.storage.relevance import FilterEntry, filter_from_plain, filter_to_plain
from vecdb.storage.state import Catalog, CollectionEntry, catalog_from_plain, catalog_to_plain

NUMBERS = st.integers(0, 2**40)
FACTS = st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-9, 9))
ENTRIES = st.builds(
    FilterEntry,
    set=NUMBERS,
    name=st.text(min_size=1, max_size=9),
    space=st.integers(0, 9),
    kind=st.text(max_size=9),
    version=st.integers(1, 9),
    revision=st.integers(1, 9),
    queries=NUMBERS,
    correction=NUMBERS,
    digest=st.text(max_size=9),
    created=st.floats(0, 1e10),
    basis=st.lists(st.lists(NUMBERS, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple),
    params=FACTS,
    report=FACTS,
    lines=st.lists(st.builds(BlobLine, st.sampled_from(["state", "queries", "judged"]), NUMBERS), max_size=3).map(
        tuple
    ),
)


@given(ENTRIES)
def test_an_entry_comes_back_as_it_was(entry):
    assert filter_from_plain(unpack(pack(filter_to_plain(entry)), "entry")) == entry


@given(st.lists(ENTRIES, max_size=3))
def test_a_catalog_with_filters_comes_back_as_it_was(entries):
    catalog = Catalog({"docs": CollectionEntry(1, "docs", filters=tuple(entries))})
    assert catalog_from_plain(unpack(pack(catalog_to_plain(catalog)), "catalog")) == catalog


def test_a_collection_without_filters_is_written_as_before_there_were_any():
    plain = catalog_to_plain(Catalog({"docs": CollectionEntry(1, "docs")}))
    assert plain["collections"] == [[1, "docs", [], []]]


SOUND = filter_to_plain(FilterEntry(1, "a", 2, "calibrated", 1, created=1.0, basis=((2,),)))


@pytest.mark.parametrize("place", range(len(SOUND)))
@pytest.mark.parametrize("value", [None, [], {}, "x", 7, [[1.5]], [["x", 1]], float("nan")])
def test_a_damaged_entry_is_corruption_and_nothing_else(place, value):
    if value == SOUND[place] or (place in (3, 5) and value == []):
        return
    damaged = [*SOUND[:place], value, *SOUND[place + 1 :]]
    plain = {"next": [2, 2, 1], "tags": {}, "collections": [[1, "docs", [], [], [], {"filters": [damaged]}]]}
    with pytest.raises(CorruptionError):
        catalog_from_plain(plain)


@given(st.binary(max_size=60))
def test_bytes_in_the_place_of_an_entry_never_raise_anything_else(data):
    try:
        plain = unpack(data, "entry")
    except CorruptionError:
        return
    wrapped = {"next": [2, 2, 1], "tags": {}, "collections": [[1, "docs", [], [], [], {"filters": [plain]}]]}
    with pytest.raises(CorruptionError):
        catalog_from_plain(wrapped)


def test_queries_and_judgements_come_back_and_wrong_counts_are_refused(tmp_path):
    from dataclasses import replace

    from vecdb.storage.relevance import read_filter_queries, read_judgements

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 4)).astype(np.float32)
    with vecdb.open(tmp_path / "a.vecdb") as db:
        docs = db.create_collection("docs")
        docs.add_space("m", dim=4)
        docs.upsert(list(range(60)), {"m": rows})
        relevant = [[n, (n + 1) % 60] for n in range(50)]
        docs.fit_relevance("r", "threshold", queries=rows[:50], relevant_ids=relevant, ignore_ids=[["x"]] * 50)
        with db._read() as snapshot:
            entry = snapshot.state.catalog.collections["docs"].filters[0]
            assert (entry.asked, entry.width) == (entry.space, 4)
            assert np.array_equal(read_filter_queries(snapshot.tx, entry), rows[:50])
            judged = read_judgements(snapshot.tx, entry)
            assert judged.relevant == tuple(map(tuple, relevant)) and judged.ignore == (("x",),) * 50
            assert judged.negatives is None and len(judged.groups) == 50
            with pytest.raises(CorruptionError):
                read_filter_queries(snapshot.tx, replace(entry, width=5))
            with pytest.raises(CorruptionError):
                read_judgements(snapshot.tx, replace(entry, queries=51))
            with pytest.raises(CorruptionError):
                read_judgements(snapshot.tx, replace(entry, lines=entry.lines[:2]))
