"""Transforms in the catalog and as blobs: what comes back, and that damage is found and contained."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from tests.unit.test_engine_transforms import filled
from vecdb.engine.transforms import load_transform
from vecdb.errors import CorruptionError, SpaceMismatchError
from vecdb.storage.blobs import BlobLine
from vecdb.storage.state import Catalog, CollectionEntry, catalog_from_plain, catalog_to_plain
from vecdb.storage.transforms import TransformEntry, transform_from_plain, transform_to_plain
from vecdb.storage.transformstore import change_transform
from vecdb.types import Space

FACTS = st.dictionaries(st.text(max_size=5), st.integers(-5, 5) | st.text(max_size=5) | st.booleans(), max_size=3)
ENTRIES = st.builds(
    TransformEntry,
    st.integers(0, 2**40),
    st.text(min_size=1, max_size=9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from(["ridge", "acme.half"]),
    st.integers(0, 9),
    st.sampled_from(["query", "gallery", "both"]),
    st.sampled_from(["none", "semi", "exact"]),
    st.booleans(),
    st.booleans(),
    st.none() | st.floats(0, 9),
    FACTS,
    st.integers(0, 2**62),
    st.text(max_size=5),
    st.integers(0, 99),
    st.integers(0, 99),
    st.text(max_size=9),
    st.floats(0, 1e10),
    FACTS,
    FACTS,
    st.just((BlobLine("state", 5), BlobLine("pairs", 7))),
)


@given(ENTRIES)
def test_an_entry_comes_back(entry):
    assert transform_from_plain(transform_to_plain(entry)) == entry


@given(st.lists(ENTRIES, max_size=3), st.booleans())
def test_a_catalog_comes_back_with_its_transforms(entries, declined):
    entry = CollectionEntry(
        1, "c", {"a": Space("a", 3, id=1)}, (), frozenset({1} if declined else ()), transforms=tuple(entries)
    )
    catalog = Catalog({"c": entry})
    plain = catalog_to_plain(catalog)
    assert catalog_from_plain(plain) == catalog
    if not entries:  # as it was before there were transforms
        assert len(plain["collections"][0]) == (5 if declined else 4)


def broken_entries():
    good = TransformEntry(1, "x", 1, 2, "ridge", 1, "query", "none", True, False, 1.0, created=1.0)
    plain = transform_to_plain(good)
    for place, value in [
        (0, [1, 2]),
        (0, [1, 1, 2, 1, 0, 0, -1]),
        (0, "numbers"),
        (1, ["x", "ridge", "sideways", "none", "", ""]),
        (1, ["x", "ridge", "query", "perfect", "", ""]),
        (1, ["x", "ridge", "query", "none", "", 5]),
        (2, [True]),
        (2, [1, 0]),
        (3, "much"),
        (3, float("nan")),
        (4, None),
        (4, float("inf")),
        (5, [{}, {}]),
        (5, [{}, {}, []]),
        (6, [["nonsense", 5]]),
        (6, [["state", -5]]),
        (6, [["state", 5]] * 9),
        (6, 5),
    ]:
        yield [*plain[:place], value, *plain[place + 1 :]]
    yield plain[:-1]
    yield "nothing"


@pytest.mark.parametrize("plain", list(broken_entries()))
def test_a_broken_entry_is_damage(plain):
    stored = [1, "c", [], [], [], {"transforms": [plain]}]
    with pytest.raises(CorruptionError):
        catalog_from_plain({"next": [1, 1, 1], "tags": {}, "collections": [stored]})


def test_tables_of_a_later_version_are_refused():
    stored = [1, "c", [], [], [], {"poems": []}]
    with pytest.raises(CorruptionError, match="later version"):
        catalog_from_plain({"next": [1, 1, 1], "tags": {}, "collections": [stored]})


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


def test_what_is_loaded_is_loaded_once_and_let_go(db):
    docs, *_ = filled(db)
    docs.fit_transform("new", "old")

    def loaded():
        with docs._view() as view:
            memory = view.snapshot.state.loaded_indexes
            return load_transform(view.snapshot, view.entry, view.entry.transforms[0], db.plugins), memory

    (first, _), (second, memory) = loaded(), loaded()
    assert first is second and len(memory["transforms"].loaded) == 1
    docs.drop_transform(docs.transforms[0].name)
    docs.count()
    assert not memory["transforms"].loaded


@pytest.mark.parametrize("blob", ["state", "reference.source", "pairs"])
def test_a_damaged_blob_is_found_by_check_and_contained(db, blob):
    docs, _, new, _ = filled(db)
    docs.fit_transform("new", "old")

    def spoil(write):
        entry = write.catalog.collections["docs"].transforms[0]
        place = [line.name for line in entry.lines].index(blob)
        for key, value in list(write.tx.range("blobs", entry.set.to_bytes(8, "big") + place.to_bytes(4, "big"))):
            data = bytearray(value)
            data[40] ^= 1
            write.tx.put("blobs", bytes(key), bytes(data))
        write.dirty = True

    db._write(spoil)
    report = db.check()
    assert not report.ok and any("checksum" in problem for problem in report.problems)
    assert len(docs.search(new[0], space="new", spaces="native")) == 10
    if blob != "pairs":
        hits = docs.search(new[0], space="new", k=300)
        assert not hits.complete and len(hits) == 200
    docs.drop_transform(docs.transforms[0].name)
    assert db.check().ok


def test_another_state_than_the_one_that_was_stored_is_not_loaded(db):
    docs, _, new, _ = filled(db)
    docs.fit_transform("new", "old")

    def forge(write):
        entry = write.catalog.collections["docs"].transforms[0]
        change_transform(write, "docs", dataclasses.replace(entry, digest="0" * 64))

    db._write(forge)
    with pytest.raises(CorruptionError, match="not the one that was stored"):
        docs.transform(new, "new", "old")
    assert any("does not hold the state" in problem for problem in db.check().problems)
    with pytest.raises(SpaceMismatchError):
        docs.search(new[0], space="new", spaces="all")


def test_reference_rows_come_back_as_they_were_given(db):
    docs, old, new, _ = filled(db)
    docs.fit_transform("new", "old", name="one")
    with docs._view() as view:
        made = load_transform(view.snapshot, view.entry, view.entry.transforms[0], db.plugins)
    docs.add_transform("new", "old", made.transform, kind="ridge", reference=(new[:7], old[:7]), name="two")
    with docs._view() as view:
        again = load_transform(view.snapshot, view.entry, view.entry.transforms[1], db.plugins)
    np.testing.assert_array_equal(again.reference[0], new[:7])
    np.testing.assert_array_equal(again.reference[1], old[:7])
    assert again.entry.digest == made.entry.digest
