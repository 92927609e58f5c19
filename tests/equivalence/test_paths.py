"""A fast path is skipped work, never another algorithm: the same ids and bits, whichever way an answer is made."""

import numpy as np
import pytest

import vecdb
from vecdb import exact
from vecdb.kernels import loader
from vecdb.testing.model import score

SPACES = {
    "cos": (48, "cosine", "float32"),
    "dot": (33, "dot", "float32"),
    "l2": (17, "l2", "float16"),
    "wide": (600, "cosine", "float16"),
}
COUNT = 2000
QUERIES = 4


def matrix(name, count, seed):
    """Vectors on a coarse grid, many of them equal, so that ties are everywhere; some far from 1 in size."""
    rng = np.random.default_rng((seed, len(name)))
    dim = SPACES[name][0]
    rows = rng.integers(-2, 3, (count, dim)).astype(np.float64)
    rows[rng.random(count) < 0.3] = rng.integers(-2, 3, dim)
    rows[rng.random(count) < 0.3] += rng.standard_normal(dim) * 0.1
    rows *= 10.0 ** rng.integers(-2, 3, (count, 1))
    rows[~rows.any(axis=1)] = 1
    return rows


def metadata(count):
    return [{"n": place % 97, "half": place % 2 == 0, "name": f"r{place % 10}"} for place in range(count)]


WHERES = [None, {"n": 5}, {"n": {"$lt": 50}}, {"half": True, "name": {"$in": ["r1", "r2", "r4"]}}, {"n": 1000}]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return a file with sealed blocks, a tail, and dead vectors in both."""
    path = tmp_path_factory.mktemp("paths") / "paths.vecdb"
    with vecdb.open(path, durability="relaxed", automatic=False) as db:
        docs = db.create_collection("docs")
        for name, (dim, metric, dtype) in SPACES.items():
            docs.add_space(name, dim=dim, metric=metric, dtype=dtype)
        docs.upsert(range(COUNT), {name: matrix(name, COUNT, 1) for name in SPACES}, metadata(COUNT), trust=True)
        docs.optimize()
        docs.delete(range(100, 400))
        docs.upsert(range(350, 500), {name: matrix(name, 150, 2) for name in SPACES}, metadata(150), trust=True)
        db.tag("then")
        docs.set_vectors("dot", range(600, 650), matrix("dot", 50, 3), trust=True)
        docs.delete(where={"n": {"$in": [3, 4]}})
    return path


@pytest.fixture
def db(path):
    with vecdb.open(path, mode="r") as db:
        yield db


@pytest.fixture
def docs(db):
    return db.collection("docs")


def queries(name):
    found = matrix(name, QUERIES, 9).astype(np.float32)
    found[0] = matrix(name, COUNT, 1)[7]
    return found


def everything(docs, **options):
    """Return ids and score bits of a set of searches."""
    found = {}
    for name in SPACES:
        for place, where in enumerate(WHERES):
            for k in (10, 700):
                batch = docs.search(queries(name), k, space=name, where=where, include=(), **options)
                found[name, place, k] = [(hits.ids, hits.scores.tobytes()) for hits in batch]
    return found


@pytest.fixture(scope="module")
def expected(path):
    """Return the answers of the numpy path, checked against scores computed one by one."""
    with pytest.MonkeyPatch.context() as patch, vecdb.open(path, mode="r") as db:
        patch.setenv("VECDB_KERNELS", "0")
        return everything(db.collection("docs"))


@pytest.mark.parametrize("name", SPACES)
def test_answers_are_those_of_a_sort_over_all_scores(docs, expected, name):
    ordinals, rows, owners = _live(docs, name)
    for number, query in enumerate(queries(name)[:2]):
        scores = np.array([score(SPACES[name][1], query, row) for row in rows])
        order = np.lexsort((ordinals, -scores))[:700]
        ids, bits = expected[name, 0, 700][number]
        assert ids == [owners[place] for place in order] and bits == scores[order].tobytes()


def _live(docs, name):
    """Return the age, the vector and the id of every record; ages are kept by `scan_order` below."""
    with docs._view() as view:
        space_view = view.space(docs.spaces[name])
        records = {record.id: record.vectors[name] for record in docs.scan(vectors=name) if name in record.vectors}
        ordinal = {view.record(row).id: view.record(row).refs[space_view.space.id] for row in view.rows_from(0, COUNT)}
    return np.array([ordinal[key] for key in records]), list(records.values()), list(records)


def test_one_by_one_is_the_same_as_all_at_once(docs, expected):
    for (name, place, k), batch in expected.items():
        for query, (ids, bits) in zip(queries(name)[:3], batch, strict=False):
            hits = docs.search(query, k, space=name, where=WHERES[place], include=())
            assert (hits.ids, hits.scores.tobytes()) == (ids, bits)


def test_what_is_included_changes_nothing(docs, expected):
    for name in SPACES:
        hits = docs.search(queries(name)[1], 700, space=name, include=("metadata", "text", "vectors"))
        ids, bits = expected[name, 0, 700][1]
        assert (hits.ids, hits.scores.tobytes()) == (ids, bits)
        for hit in hits[:20]:
            assert score(SPACES[name][1], queries(name)[1], hit.vectors[name]) == np.float32(hit.score)


def test_a_condition_is_the_same_as_dropping_afterwards(docs, expected):
    for name in SPACES:
        for place, where in enumerate(WHERES[1:], 1):
            matching = {record.id for record in docs.scan(where)}
            everything = docs.search(queries(name), 10_000, space=name, include=())
            for hits, (ids, bits) in zip(everything, expected[name, place, 700], strict=True):
                kept = [at for at, key in enumerate(hits.ids) if key in matching][:700]
                assert [hits.ids[at] for at in kept] == ids and hits.scores[kept].tobytes() == bits


def test_offset_and_min_score_cut_the_same_list(docs, expected):
    for name in SPACES:
        ids, bits = expected[name, 0, 700][2]
        scores = np.frombuffer(bits, np.float32)
        hits = docs.search(queries(name)[2], 50, space=name, offset=30)
        assert hits.ids == ids[30:80] and hits.scores.tobytes() == scores[30:80].tobytes()
        floor = float(scores[40])
        hits = docs.search(queries(name)[2], 700, space=name, min_score=floor)
        assert hits.ids == [key for key, value in zip(ids, scores, strict=True) if value >= floor]


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.delenv("VECDB_KERNELS", raising=False)
    loader.request()
    assert loader.wait(600), loader.failure()


def test_the_compiled_path_gives_the_same_bits(docs, expected, compiled):
    assert everything(docs) == expected
    hits = docs.search(queries("cos")[0], 5, space="cos", explain=True)
    assert hits.plan["path"] == "numba"
    ids, bits = expected["cos", 0, 10][0]
    assert hits.ids == ids[:5] and hits.scores.tobytes() == bits[:20]


def test_compiled_and_numpy_paths_agree_row_by_row(docs, compiled):
    """`rescore` is what every index will use."""
    from vecdb.engine.search import scan_order

    with docs._view() as view:
        for name in SPACES:
            blocks = scan_order(view, view.space(docs.spaces[name]))
            places = np.arange(blocks.count)
            for query in queries(name):
                compiled = exact.rescore(blocks, query, places, blocks.count, path="numba")
                plain = exact.rescore(blocks, query, places, blocks.count, path="numpy")
                assert [part.tobytes() for part in compiled] == [part.tobytes() for part in plain]


# --- the same file in other shapes ------------------------------------------------------------------------


@pytest.fixture
def copy(path, tmp_path):
    with vecdb.open(path, mode="r") as db:
        db.backup(tmp_path / "copy.vecdb")
    return tmp_path / "copy.vecdb"


def test_optimising_compacting_and_reopening_change_no_bit(copy, expected):
    with vecdb.open(copy, durability="relaxed") as db:
        docs = db.collection("docs")
        then = everything(docs, as_of="then")
        assert then != expected
        for step in (docs.optimize, lambda: db.compact(keep="window"), db.compact):
            step()
            assert everything(docs) == expected
    with vecdb.open(copy, durability="relaxed") as db:
        docs = db.collection("docs")
        assert everything(docs, as_of="then") == then
        db.compact(keep="nothing")
        assert everything(docs) == expected and db.check().ok


def test_a_past_state_is_the_state_copied_then(copy, tmp_path):
    with vecdb.open(copy, durability="relaxed") as db:
        docs = db.collection("docs")
        states = []
        rng = np.random.default_rng(4)
        for number in range(3):
            docs.upsert(
                range(number * 50, number * 50 + 80), {"cos": matrix("cos", 80, number)}, metadata(80), trust=True
            )
            docs.delete(rng.choice([record.id for record in docs.scan(limit=900)], 60, replace=False))
            docs.set_metadata([record.id for record in docs.scan({"n": 7})], [{"n": 8}] * docs.count({"n": 7}))
            db.backup(tmp_path / f"{number}.vecdb")
            states.append(db.seq)
        docs.optimize()
        for number, seq in enumerate(states):
            with vecdb.open(tmp_path / f"{number}.vecdb") as then:
                old = then.collection("docs")
                assert everything(docs, as_of=seq) == everything(old)
                left, right = docs.scan(vectors="all", as_of=seq), old.scan(vectors="all")
                for one, other in zip(left, right, strict=True):
                    assert (one.id, one.version, one.metadata, one.spaces) == (
                        other.id,
                        other.version,
                        other.metadata,
                        other.spaces,
                    )
                    assert [v.tobytes() for v in one.vectors.values()] == [v.tobytes() for v in other.vectors.values()]
                for where in WHERES:
                    assert docs.count(where, as_of=seq) == old.count(where)


def test_an_export_imported_anew_answers_the_same(docs, tmp_path, expected):
    from vecdb.interchange import export_data, import_data

    export_data(docs, tmp_path / "export")
    with vecdb.open(tmp_path / "new.vecdb", durability="relaxed") as db:
        again = db.create_collection("docs")
        import_data(again, tmp_path / "export")
        assert everything(again) == expected
