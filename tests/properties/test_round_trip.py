"""Export and import: whatever a collection holds comes back, to the bit, and answers searches the same.

Collections are drawn with ids of both types, nested metadata, any text, special floats, several spaces of both element
types in which records lack vectors, equal vectors (ties), deletions and later changes; batches of any size. Equal
scores rank by the age of the vectors, so those replaced or added late must keep their age.
"""

import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.interchange import export_data, import_data

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = TEXT.filter(lambda key: "." not in key and "$" not in key)
IDS = TEXT.filter(bool) | st.integers(-(2**63), 2**63 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)
SPACES = {
    "a": {"dim": 3, "metric": "dot", "dtype": "float32", "model": "m", "revision": "r 1", "role": "document"},
    "b/ü": {"dim": 2, "metric": "l2", "dtype": "float16"},
    "a.rows": {"dim": 1, "metric": "cosine", "dtype": "float32", "role": "query"},
}
# Few different values, so that vectors are often equal; none is zero, which cosine refuses.
COMPONENTS = st.sampled_from([1.0, -1.0, 0.1, 1 / 3, 5.960464477539063e-08, 65504.0])


def vectors(dim):
    return st.none() | st.lists(COMPONENTS, min_size=dim, max_size=dim)


RECORDS = st.tuples(
    METADATA, st.none() | TEXT, st.fixed_dictionaries({name: vectors(space["dim"]) for name, space in SPACES.items()})
)
COLLECTIONS = st.dictionaries(IDS, RECORDS, max_size=12)


def fill(docs, content, batch):
    """Write records in batches of the given size."""
    items = list(content.items())
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        given = {name: [row[2][name] for _, row in part] for name in SPACES}
        docs.upsert(
            [key for key, _ in part],
            {name: rows for name, rows in given.items() if any(row is not None for row in rows)},
            [row[0] for _, row in part],
            [row[1] for _, row in part],
            trust=True,
        )


def plain(value):
    """A form in which NaN equals itself, 1 is not 1.0 and True is neither."""
    if isinstance(value, dict):
        return [(key, plain(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value.hex()
    return (type(value).__name__, value)


def everything(docs):
    return [
        (
            plain(record.id),
            plain(record.metadata),
            record.text,
            {name: (row.dtype.str, row.tobytes()) for name, row in record.vectors.items()},
        )
        for record in docs.scan(vectors="all")
    ]


def answers(docs):
    """Searches in every space, of more hits than there are records, so that all ties show."""
    for name, space in SPACES.items():
        for component in (1.0, -0.1):
            hits = docs.search(np.full(space["dim"], component), 30, space=name, exact=True)
            yield list(map(plain, hits.ids)), hits.scores.tobytes()


def new(db, name):
    docs = db.create_collection(name)
    for space, facts in SPACES.items():
        docs.add_space(space, **facts)
    return docs


def round_trip(db, docs, folder, batch):
    export_data(docs, folder / "out")
    back = db.create_collection("back")
    result = import_data(back, folder / "out", batch=batch)
    assert result.rows == result.inserted == len(docs) == len(back)
    assert [vars_of(space) for space in back.spaces.values()] == [vars_of(space) for space in docs.spaces.values()]
    return back


def vars_of(space):
    return (space.name, space.dim, space.metric, space.dtype, space.model, space.revision, space.role)


@settings(max_examples=40)
@given(COLLECTIONS, st.integers(1, 13), st.integers(1, 13), st.sets(st.integers(0, 11), max_size=4))
def test_everything_comes_back_and_ranks_the_same(content, written, read, deleted):
    with tempfile.TemporaryDirectory() as name, vecdb.open(Path(name) / "x.vecdb") as db:
        docs = new(db, "docs")
        fill(docs, content, written)
        gone = [key for place, key in enumerate(content) if place in deleted]
        if gone:
            docs.delete(gone)
        back = round_trip(db, docs, Path(name), read)
        assert everything(back) == everything(docs)
        assert list(answers(back)) == list(answers(docs))


def change_later(docs, content, data):
    """Replace records in any order, and give some records some vectors, in place of another or for the first time."""
    chosen = data.draw(st.lists(st.sampled_from(sorted(content, key=repr)), unique=True, max_size=6)) if content else []
    fill(docs, {key: data.draw(RECORDS) for key in chosen}, 2)
    for name, space in SPACES.items():
        if content:
            late = data.draw(st.lists(st.sampled_from(sorted(content, key=repr)), unique=True, max_size=6))
            if late:
                row = st.lists(COMPONENTS, min_size=space["dim"], max_size=space["dim"])
                docs.set_vectors(name, late, [data.draw(row) for _ in late], trust=True)


@settings(max_examples=40)
@given(COLLECTIONS, st.integers(1, 13), st.data())
def test_what_was_changed_later_comes_back_with_its_age(content, batch, data):
    with tempfile.TemporaryDirectory() as name, vecdb.open(Path(name) / "x.vecdb") as db:
        docs = new(db, "docs")
        fill(docs, content, 5)
        change_later(docs, content, data)
        back = round_trip(db, docs, Path(name), batch)
        assert everything(back) == everything(docs)
        assert all(back.vector_order(space) == docs.vector_order(space) for space in SPACES)
        assert list(answers(back)) == list(answers(docs))
        export_data(back, Path(name) / "again")
        for path in (Path(name) / "out").glob("*.npy"):
            assert path.read_bytes() == (Path(name) / "again" / path.name).read_bytes()


@settings(max_examples=25)
@given(COLLECTIONS, st.data())
def test_the_ages_come_back_into_a_collection_that_holds_the_same_in_another_order(content, data):
    with tempfile.TemporaryDirectory() as name, vecdb.open(Path(name) / "x.vecdb") as db:
        docs, other = new(db, "docs"), new(db, "other")
        fill(docs, content, 5)
        change_later(docs, content, data)
        held = {record.id: (record.metadata, record.text, {s: None for s in SPACES}) for record in docs.scan()}
        for record in docs.scan(vectors="all"):
            held[record.id][2].update({space: row.tolist() for space, row in record.vectors.items()})
        fill(other, dict(reversed(held.items())), 3)
        export_data(docs, Path(name) / "out")
        import_data(other, Path(name) / "out", batch=4)
        assert all(other.vector_order(space) == docs.vector_order(space) for space in SPACES)


@settings(max_examples=25)
@given(COLLECTIONS, st.data())
def test_a_part_keeps_the_ages_of_its_vectors(content, data):
    with tempfile.TemporaryDirectory() as name, vecdb.open(Path(name) / "x.vecdb") as db:
        docs = new(db, "docs")
        fill(
            docs,
            {key: ({**row[0], "part": place % 2}, *row[1:]) for place, (key, row) in enumerate(content.items())},
            5,
        )
        for space, facts in SPACES.items():
            late = data.draw(st.permutations(list(content)))[:4]
            if late:
                docs.set_vectors(space, late, [[1.0] * facts["dim"]] * len(late), trust=True)
        export_data(docs, Path(name) / "out", where={"part": 1}, spaces=["a", "a.rows"])
        back = db.create_collection("back")
        import_data(back, Path(name) / "out")
        kept = {record.id for record in docs.scan({"part": 1})}
        for space in ("a", "a.rows"):
            assert back.vector_order(space) == [one for one in docs.vector_order(space) if one in kept]


@settings(max_examples=25)
@given(COLLECTIONS, st.integers(1, 13))
def test_a_second_export_has_the_same_bytes(content, batch):
    with tempfile.TemporaryDirectory() as name, vecdb.open(Path(name) / "x.vecdb") as db:
        docs = new(db, "docs")
        fill(docs, content, batch)
        folder = Path(name)
        back = round_trip(db, docs, folder, batch)
        export_data(back, folder / "again")
        for path in (folder / "out").glob("*.npy"):
            assert path.read_bytes() == (folder / "again" / path.name).read_bytes()
        lines = "records.jsonl.gz"
        assert (folder / "out" / lines).read_bytes() == (folder / "again" / lines).read_bytes()
