"""A space of int8 is a space of the float32 vectors that it keeps: answers, exports and indexes agree bit by bit."""

from __future__ import annotations

import json

import numpy as np
import pytest

import vecdb
from vecdb import errors
from vecdb.cli import main
from vecdb.engine import indexed
from vecdb.int8rows import dequantise, quantise
from vecdb.interchange import export_data, import_data

DIM = 50


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")


def vectors(count, seed=0, dim=DIM):
    return (np.random.default_rng(seed).standard_normal((count, dim)) * 3).astype(np.float32)


def kept(rows):
    """What an int8 space keeps of rows."""
    return dequantise(quantise(np.asarray(rows, np.float32)), np.shape(rows)[1])


@pytest.fixture(params=["cosine", "dot", "l2"])
def both(request, tmp_path):
    """Return a collection with a space of int8, and one of float32 that gets what the first keeps."""
    with vecdb.open(tmp_path / "x.vecdb", retention=600.0, durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("small", dim=DIM, metric=request.param, dtype="int8")
        docs.add_space("plain", dim=DIM, metric=request.param)
        yield docs


def write(docs, ids, rows, **more):
    docs.upsert(ids, {"small": rows, "plain": kept(rows)}, [{"n": number} for number in ids], trust=True, **more)


def agree(docs, queries=None, **options):
    queries = vectors(5, 99) if queries is None else queries
    for where in (None, {"n": {"$lt": 700}}, {"n": {"$in": [3, 5, 900]}}):
        for asked in (queries, queries[0]):
            found, wanted = (docs.search(asked, 12, space=name, where=where, **options) for name in ("small", "plain"))
            assert found.ids == wanted.ids and found.scores.tobytes() == wanted.scores.tobytes()
    for like in (7, 899):
        found, wanted = (docs.search(like=like, k=5, space=name, **options) for name in ("small", "plain"))
        assert found.ids == wanted.ids and found.scores.tobytes() == wanted.scores.tobytes()
    for record in docs.scan(vectors="all", as_of=options.get("as_of")):
        small, plain = record.vectors["small"], record.vectors["plain"]
        assert small.dtype == plain.dtype == np.float32 and small.shape == (DIM,)
        assert small.tobytes() == plain.tobytes()


def test_answers_are_those_of_what_is_kept(both):
    docs, db = both, both.database
    write(docs, range(1000), vectors(1000))  # blocks
    write(docs, [1000, 3], vectors(2, 1))  # and a tail
    agree(docs)
    agree(docs, kept(vectors(1000))[[3, 5, 8, 13, 21]])
    db.tag("then")
    docs.delete(range(100, 400))
    write(docs, range(350, 380), vectors(30, 2))
    docs.set_vectors("small", [7], vectors(1, 3), trust=True)
    docs.set_vectors("plain", [7], kept(vectors(1, 3)), trust=True)
    agree(docs)
    agree(docs, as_of="then")
    for step in (db.optimize, db.compact, lambda: db.compact(keep="nothing")):
        step()
        agree(docs)
    assert db.check().ok


def test_the_compiled_path_gives_the_same_bits(both, monkeypatch):
    docs = both
    write(docs, range(1000), vectors(1000))
    expected = docs.search(vectors(5, 99), 12, space="small")
    singles = [docs.search(query, 12, space="small").scores.tobytes() for query in vectors(5, 99)]
    monkeypatch.delenv("VECDB_KERNELS")
    from vecdb.kernels import loader

    loader.request()
    assert loader.wait(600), loader.failure()
    agree(docs)
    found = docs.search(vectors(5, 99), 12, space="small", explain=True)
    assert found.plan["path"] == "numba"
    assert found.ids == expected.ids and found.scores.tobytes() == expected.scores.tobytes()
    assert [docs.search(query, 12, space="small").scores.tobytes() for query in vectors(5, 99)] == singles


def test_reopened_backed_up_and_compacted_it_stays_the_same(both, tmp_path):
    docs, db = both, both.database
    write(docs, range(1000), vectors(1000))
    db.backup(tmp_path / "copy.vecdb")
    with vecdb.open(tmp_path / "copy.vecdb", mode="r") as copy:
        agree(copy.collection("docs"))
        space = copy.collection("docs").spaces["small"]
        assert (space.dtype, space.returned, space.dim) == ("int8", "float32", DIM)


def test_it_takes_a_quarter_of_the_room(tmp_path):
    sizes = []
    for dtype in ("int8", "float16", "float32"):
        with vecdb.open(tmp_path / f"{dtype}.vecdb") as db:
            docs = db.create_collection("docs")
            docs.add_space("s", dim=384, dtype=dtype)
            docs.upsert(range(6000), {"s": vectors(6000, dim=384)}, trust=True)
            sizes.append(docs.stats()["spaces"]["s"]["vector_bytes"])
    assert sizes[0] < 0.6 * sizes[1] < 0.35 * sizes[2]


# --- what is lost -----------------------------------------------------------------------------------------


@pytest.fixture
def docs(tmp_path):
    with vecdb.open(tmp_path / "y.vecdb") as db:
        docs = db.create_collection("docs")
        docs.add_space("small", dim=4, dtype="int8")
        docs.add_space("half", dim=4, dtype="float16")
        docs.add_space("plain", dim=4)
        yield docs


def loss(docs, space):
    return docs.stats()["spaces"][space]["loss"]


def test_the_loss_of_what_was_written_is_reported(docs, capsys):
    assert loss(docs, "small") is None and loss(docs, "half") is None
    rows = vectors(300, dim=4)
    docs.upsert(range(300), {"small": rows, "half": rows, "plain": rows}, trust=True)
    for space, stored in (("small", kept(rows)), ("half", rows.astype(np.float16).astype(np.float32))):
        lost = np.linalg.norm((rows - stored).astype(float), axis=1) / np.linalg.norm(rows.astype(float), axis=1)
        assert loss(docs, space) == pytest.approx({"mean": lost.mean(), "max": lost.max()})
    assert loss(docs, "plain") is None
    before = loss(docs, "small")
    docs.upsert([0], {"small": [[1, 1, 1, 1]], "half": np.ones((1, 4), np.float16)})  # nothing is lost of these
    assert 0.99 * before["mean"] < loss(docs, "small")["mean"] < before["mean"]
    assert loss(docs, "small")["max"] == before["max"]
    path = str(docs.database.path)
    docs.database.close()
    assert main(["spaces", path, "--json"]) == 0
    told = {space["name"]: space["loss"] for space in json.loads(capsys.readouterr().out)["spaces"]}
    assert told["plain"] is None and told["small"]["max"] == before["max"]
    assert main(["spaces", path]) == 0
    assert "%" in capsys.readouterr().out


def test_a_write_that_is_rolled_back_lost_nothing(docs):
    docs.upsert([1], {"small": [[1, 2, 3, 5]]})
    before = loss(docs, "small")

    def rolled_back():
        with docs.database.transaction():
            docs.upsert([2], {"small": [[1, 2, 3, 7]]})
            docs.upsert([3], {"small": [[0, 0, 0, 0]]})

    with pytest.raises(errors.ZeroVectorError):
        rolled_back()
    assert loss(docs, "small") == before
    docs.database.compact()
    assert loss(docs, "small") == before


def test_what_rounds_to_nothing_has_no_direction(docs):
    with pytest.raises(errors.ZeroVectorError, match="row 1 has zero norm as int8"):
        docs.upsert([1, 2], {"small": [[1, 0, 0, 0], [1e-45, 0, 0, 0]]})
    with pytest.raises(errors.ZeroVectorError, match="row 0 has zero norm;"):
        docs.upsert([1], {"small": [[0, 0, 0, 0]]})
    with pytest.raises(errors.VectorRangeError):
        docs.upsert([1], {"small": [[2e15, 0, 0, 0]]})
    with pytest.raises(errors.NonFiniteError):
        docs.upsert([1], {"small": [[np.nan, 0, 0, 0]]})
    assert len(docs) == 0
    docs.upsert([1], {"small": [[1e15, 0, 0, 0]]})
    assert docs.get([1], vectors="small")[0].vectors["small"][0] == pytest.approx(1e15)


def test_lists_with_gaps_and_single_vectors(docs):
    docs.upsert([1, 2, 3], {"small": [[1, 2, 3, 4], None, [4, 3, 2, 1]]})
    docs.upsert(4, {"small": np.arange(1, 5)})
    assert [record.spaces for record in docs.get([1, 2, 3, 4])] == [("small",), (), ("small",), ("small",)]
    with pytest.raises(errors.ZeroVectorError, match="record 2"):
        docs.upsert([1, 2, 3], {"small": [[1, 2, 3, 4], None, [1e-45, 0, 0, 0]]})


def test_an_unknown_type_is_refused(docs):
    with pytest.raises(errors.ParameterError, match="int8"):
        docs.add_space("other", dim=4, dtype="uint8")


# --- in and out -------------------------------------------------------------------------------------------


def test_an_export_comes_back_bit_by_bit(both, tmp_path):
    docs, db = both, both.database
    write(docs, range(700), vectors(700))
    export_data(docs, tmp_path / "out")
    back = db.create_collection("back")
    for space in docs.spaces.values():
        back.add_space(space.name, dim=space.dim, metric=space.metric, dtype=space.dtype)
    import_data(back, tmp_path / "out")
    agree_with = {record.id: record.vectors for record in docs.scan(vectors="all")}
    for record in back.scan(vectors="all"):
        assert record.vectors["small"].tobytes() == agree_with[record.id]["small"].tobytes()
    assert loss(back, "small") == {"mean": 0.0, "max": 0.0}  # it was rounded before
    found, wanted = (each.search(vectors(3, 5), 9, space="small") for each in (back, docs))
    assert found.ids == wanted.ids and found.scores.tobytes() == wanted.scores.tobytes()


def test_other_formats_hold_the_float32_that_are_kept(both, tmp_path):
    write(both, range(30), vectors(30))
    for name in ("out.npz", "out.parquet", "out.jsonl"):
        export_data(both, tmp_path / name)
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["small"].dtype == np.float32 and arrays["small"].tobytes() == kept(vectors(30)).tobytes()
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out.parquet")
    assert np.array(table["small"].to_pylist(), np.float32).tobytes() == kept(vectors(30)).tobytes()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert "small" in str(lines[0])


def test_an_export_makes_the_space_that_it_came_from(both, tmp_path, capsys):
    write(both, range(60), vectors(60))
    export_data(both, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["spaces"][0]["dtype"] == "int8"
    copy = tmp_path / "copy.vecdb"
    assert main(["import", str(copy), "docs", str(tmp_path / "out")]) == 0
    with vecdb.open(copy) as db:
        assert db.collection("docs").spaces["small"].dtype == "int8"


def test_the_command_line_makes_such_a_space(tmp_path, capsys):
    np.save(tmp_path / "v.npy", vectors(40))
    (tmp_path / "r.jsonl").write_text("".join(json.dumps({"id": number}) + "\n" for number in range(40)))
    arguments = ["--vectors", f"s={tmp_path / 'v.npy'}", "--dtype", "int8"]
    assert main(["import", str(tmp_path / "c.vecdb"), "docs", str(tmp_path / "r.jsonl"), *arguments]) == 0
    with vecdb.open(tmp_path / "c.vecdb") as db:
        assert db.collection("docs").get([3], vectors="s")[0].vectors["s"].tobytes() == kept(vectors(40))[3].tobytes()


def test_an_import_that_is_repeated_finds_what_is_there(tmp_path):
    """The source has other bits than the space; what it would become is compared."""
    np.save(tmp_path / "v.npy", vectors(40))
    (tmp_path / "r.jsonl").write_text("".join(json.dumps({"id": number}) + "\n" for number in range(40)))
    with vecdb.open(tmp_path / "c.vecdb") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=DIM, dtype="int8")
        from vecdb.interchange.chunks import Block, Chunk
        from vecdb.interchange.stored import stored_prefix

        docs.upsert(range(30), {"s": vectors(40)[:30]}, [{}] * 30, trust=True)
        chunk = Chunk(0, list(range(40)), [{}] * 40, None, {"s": Block(vectors(40), None, "v.npy")})
        assert stored_prefix(docs, chunk, existing=False, merge=False) == 30


# --- what is built on vectors -----------------------------------------------------------------------------


def test_the_profile_refuses_another_model(tmp_path):
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((64, 64)))[0].astype(np.float32) * np.geomspace(3, 0.02, 64)[:, None]
    native = (rng.standard_normal((2600, 64)) @ basis).astype(np.float32)
    with vecdb.open(tmp_path / "p.vecdb") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=64, dtype="int8", model="one")
        docs.upsert(range(2500), {"s": native[:2500]})
        docs.upsert(range(3000, 3100), {"s": native[2500:]})
        assert docs.stats()["spaces"]["s"]["profiled"]
        with pytest.raises(errors.WrongModelError):
            docs.upsert(range(4000, 4100), {"s": native[2500:, ::-1]})


@pytest.mark.parametrize("kind", ["flat", "rabitq"])
def test_indexes_over_it(both, monkeypatch, kind):
    """What reads vectors as floats is given floats; what reads them in place scans them as they are."""
    monkeypatch.setattr(indexed, "SCAN_BELOW", 0)
    docs = both
    write(docs, range(1500), vectors(1500))
    docs.create_index("small", kind)
    for query in vectors(5, 99):
        found = docs.search(query, 10, space="small", effort=1500, explain=True)
        wanted = docs.search(query, 10, space="small", exact=True)
        assert found.plan["method"] == "index"
        assert found.ids == wanted.ids and found.scores.tobytes() == wanted.scores.tobytes()
    docs.delete(range(100))
    docs.optimize()
    assert docs.database.check().ok


@pytest.mark.parametrize("count", [1, 2, 1500])
def test_an_index_that_reads_floats_in_place_is_refused(both, count):
    write(both, range(count), vectors(count))
    with pytest.raises(errors.VecdbError, match="cannot be read as floats"):
        both.create_index("small", "graph")
    assert both.indexes == [] and both.search(vectors(1)[0], space="small").complete


def test_damage_is_found(both):
    write(both, range(1000), vectors(1000))
    db, path = both.database, both.database.path
    db.close()
    image = bytearray(path.read_bytes())
    code = image.index(quantise(vectors(1000))[400].tobytes())
    image[code + 3] ^= 1
    path.write_bytes(image)
    with vecdb.open(path) as again:
        assert not again.check().ok
        with pytest.raises(errors.CorruptionError):
            again.collection("docs").search(vectors(1)[0], space="small")


@pytest.mark.crash
def test_a_killed_writer_leaves_whole_vectors(tmp_path):
    from vecdb.testing.crash import Kill, run_child

    path = tmp_path / "k.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("docs").add_space("s", dim=DIM, metric="l2", dtype="int8")

    def work(acknowledge):
        with vecdb.open(path) as db:
            for turn in range(1, 40):
                rows = vectors(40, turn)
                db.collection("docs").upsert(range(40), {"s": rows}, [{"turn": turn}] * 40, trust=True)
                acknowledge(turn)

    outcome = run_child(work, Kill(failpoint="commit.before", visit=20))
    assert outcome.killed and outcome.acknowledged == 19
    with vecdb.open(path) as db:
        assert db.check().ok
        for record in db.collection("docs").scan(vectors="s"):
            assert record.metadata["turn"] == 19
            assert record.vectors["s"].tobytes() == kept(vectors(40, 19))[record.id].tobytes()
