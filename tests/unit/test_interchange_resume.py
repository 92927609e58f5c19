"""An import that was killed continues, and ends as if it had never been killed.

A child process runs the import and kills itself at a chosen moment: before or after its n-th checkpoint is written, so
that the checkpoint is exact, or one commit behind the database.
"""

import gzip
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import vecdb
from vecdb.errors import DuplicateIdError
from vecdb.interchange import export_data, import_data
from vecdb.interchange.resume import Checkpoint, CheckpointFile

ROWS, BATCH = 60, 7

CHILD = """
import os, signal, sys
import vecdb
from vecdb.interchange import import_data
from vecdb.interchange.resume import CheckpointFile

folder, moment, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
save, calls = CheckpointFile.save, 0

def counted(self, checkpoint):
    global calls
    calls += 1
    if moment == "before" and calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, checkpoint)
    if moment == "after" and calls == number:
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointFile.save = counted
with vecdb.open(f"{folder}/x.vecdb") as db:
    docs = db.collection("docs")
    arguments = {"vectors": {"s": f"{folder}/v.npy"}, "text": "text"} if sys.argv[4] == "files" else {}
    source = f"{folder}/r.jsonl.gz" if sys.argv[4] == "files" else f"{folder}/out"
    import_data(docs, source, batch=7, **arguments)
"""


def write_source(folder, rows=ROWS):
    lines = [
        json.dumps({"id": n if n % 2 else f"r{n}", "text": f"t{n}", "n": n, "x": float("nan")}) for n in range(rows)
    ]
    (folder / "r.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    np.save(folder / "v.npy", np.random.default_rng(1).standard_normal((rows, 4)).astype(np.float32))


def new_collection(folder, name="x"):
    with vecdb.open(folder / f"{name}.vecdb") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=4, metric="dot")


def run(docs, folder, **options):
    options = {"batch": BATCH, **options}
    return import_data(docs, folder / "r.jsonl.gz", vectors={"s": str(folder / "v.npy")}, text="text", **options)


def everything(docs):
    return [
        (record.id, record.version, repr(record.metadata), record.text, record.vectors["s"].tobytes())
        for record in docs.scan(vectors="all")
    ]


def killed(folder, moment, number, kind="files"):
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), moment, str(number), kind],
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()


@pytest.fixture
def whole(tmp_path):
    """What an uninterrupted import gives."""
    write_source(tmp_path)
    new_collection(tmp_path, "whole")
    with vecdb.open(tmp_path / "whole.vecdb") as db:
        run(db.collection("docs"), tmp_path)
        export_data(db.collection("docs"), tmp_path / "out")
        return everything(db.collection("docs")), db.collection("docs").search(np.ones(4), 20, space="s").ids


@pytest.mark.crash
@pytest.mark.parametrize(
    ("moment", "number", "resumed"),
    [("before", 1, 0), ("after", 1, 0), ("before", 2, 0), ("after", 4, 21), ("before", 5, 21)],
)
def test_a_killed_import_continues(tmp_path, whole, moment, number, resumed):
    new_collection(tmp_path)
    killed(tmp_path, moment, number)
    there = BATCH * (number - 1)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        docs = db.collection("docs")
        assert len(docs) == there
        result = run(docs, tmp_path)
        assert (result.rows, result.resumed, result.inserted) == (ROWS, resumed, ROWS - there)
        assert everything(docs) == whole[0]
        assert docs.search(np.ones(4), 20, space="s").ids == whole[1]
    assert not list(tmp_path.glob("*.import-*"))


@pytest.mark.crash
@pytest.mark.parametrize(("moment", "number"), [("after", 3), ("before", 3)])
def test_a_killed_restore_continues(tmp_path, whole, moment, number):
    with vecdb.open(tmp_path / "x.vecdb") as db:
        db.create_collection("docs")
    killed(tmp_path, moment, number, "export")
    with vecdb.open(tmp_path / "x.vecdb") as db:
        docs = db.collection("docs")
        assert 0 < len(docs) < ROWS
        assert import_data(docs, tmp_path / "out", batch=BATCH).resumed > 0
        assert everything(docs) == whole[0]


@pytest.fixture
def aged(tmp_path, whole):
    """An export whose vectors were replaced and added in an order of their own; what it gives without a kill."""
    with vecdb.open(tmp_path / "whole.vecdb") as db:
        docs = db.collection("docs")
        docs.add_space("t", dim=2, metric="l2")
        ids = [record.id for record in docs.scan()]
        docs.set_vectors("s", ids[30:10:-1], np.ones((20, 4)), trust=True)
        docs.set_vectors("t", ids[50:20:-3], np.ones((10, 2)))
        docs.set_vectors("t", ids[:5], np.ones((5, 2)))
        export_data(docs, tmp_path / "out", overwrite=True)
        back = db.create_collection("back")
        import_data(back, tmp_path / "out")
        return {space: docs.vector_order(space) for space in ("s", "t")}, full(back)


def full(docs):
    return [
        (record.id, record.version, record.text, {name: row.tobytes() for name, row in record.vectors.items()})
        for record in docs.scan(vectors="all")
    ]


# 60 records and then 20 vectors of s and 14 of t, 7 at once: 9 + 3 + 2 batches, and a checkpoint before the first.
@pytest.mark.crash
@pytest.mark.parametrize(
    ("moment", "number"), [("after", 9), ("before", 10), ("after", 10), ("before", 11), ("after", 12), ("before", 15)]
)
@pytest.mark.parametrize("batch", [BATCH, 4])
def test_a_killed_restore_keeps_the_ages(tmp_path, aged, moment, number, batch):
    with vecdb.open(tmp_path / "x.vecdb") as db:
        db.create_collection("docs")
    killed(tmp_path, moment, number, "export")
    with vecdb.open(tmp_path / "x.vecdb") as db:
        docs = db.collection("docs")
        result = import_data(docs, tmp_path / "out", batch=batch)
        assert result.rows == ROWS and 0 < result.resumed <= ROWS and result.updated == 0
        assert full(docs) == aged[1]
        assert {space: docs.vector_order(space) for space in ("s", "t")} == aged[0]
        assert db.check().ok
    assert not list(tmp_path.glob("*.import-*"))


@pytest.mark.crash
def test_a_killed_restore_into_a_filled_collection_keeps_the_ages(tmp_path, aged):
    new_collection(tmp_path)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        run(db.collection("docs"), tmp_path)
    killed(tmp_path, "before", 11, "export")
    with vecdb.open(tmp_path / "x.vecdb") as db:
        docs = db.collection("docs")
        import_data(docs, tmp_path / "out", batch=BATCH)
        assert {space: docs.vector_order(space) for space in ("s", "t")} == aged[0]


@pytest.mark.crash
@pytest.mark.parametrize("batch", [3, 11, 100])
def test_the_batches_may_be_cut_differently_afterwards(tmp_path, whole, batch):
    new_collection(tmp_path)
    killed(tmp_path, "before", 4)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        run(db.collection("docs"), tmp_path, batch=batch)
        assert everything(db.collection("docs")) == whole[0]


@pytest.mark.crash
def test_without_its_checkpoint_the_import_still_ends_the_same(tmp_path, whole):
    new_collection(tmp_path)
    killed(tmp_path, "after", 3)
    (checkpoint,) = tmp_path.glob("x.vecdb.import-*.json")
    checkpoint.unlink()
    with vecdb.open(tmp_path / "x.vecdb") as db:
        result = run(db.collection("docs"), tmp_path)
        assert (result.resumed, result.inserted, result.updated) == (0, ROWS - 2 * BATCH, 0)
        assert everything(db.collection("docs")) == whole[0]


@pytest.mark.crash
@pytest.mark.parametrize("change", ["records", "vectors", "fields", "collection", "database"])
def test_another_import_does_not_continue(tmp_path, whole, change):
    new_collection(tmp_path)
    killed(tmp_path, "after", 3)
    options = {}
    if change == "records":
        write_source(tmp_path)
        os.utime(tmp_path / "r.jsonl.gz", ns=(1, 1))
    elif change == "vectors":
        np.save(tmp_path / "v.npy", np.zeros((ROWS, 4), np.float32))
    elif change == "fields":
        options = {"metadata": ["n"]}
    elif change == "database":
        for name in ("x.vecdb", "x.vecdb-lock", "x.vecdb-writer"):
            (tmp_path / name).unlink()
        new_collection(tmp_path)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        if change == "collection":
            db.drop_collection("docs")
            db.create_collection("docs").add_space("s", dim=4, metric="dot")
        docs = db.collection("docs")
        result = run(docs, tmp_path, **options)
        assert (result.rows, result.resumed) == (ROWS, 0)
        assert len(docs) == ROWS
        if change in ("collection", "database"):
            assert everything(docs) == whole[0]


@pytest.mark.crash
def test_resume_can_be_switched_off(tmp_path, whole):
    new_collection(tmp_path)
    killed(tmp_path, "after", 3)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        result = run(db.collection("docs"), tmp_path, resume=False)
        assert (result.resumed, result.updated) == (0, 2 * BATCH)


def test_duplicates_are_found_after_resuming_too(tmp_path):
    lines = [json.dumps({"id": n if n != 40 else 3, "text": "t"}) for n in range(ROWS)]
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    np.save(tmp_path / "v.npy", np.ones((ROWS, 4), np.float32))
    new_collection(tmp_path)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        for resumed in (0, 35):
            with pytest.raises(DuplicateIdError, match="row 40, line 41: id 3 came before"):
                run(db.collection("docs"), tmp_path)
            assert len(db.collection("docs")) == 35, resumed


def test_what_stored_nothing_leaves_no_checkpoint(tmp_path):
    write_source(tmp_path)
    new_collection(tmp_path)
    wrong = {"ids": "key"}, {"vectors": {"s": np.ones((3, 4))}}, {"vectors": {"s": str(tmp_path / "short.npy")}}
    np.save(tmp_path / "short.npy", np.ones((3, 4)))
    with vecdb.open(tmp_path / "x.vecdb") as db:
        for options in wrong:
            with pytest.raises(vecdb.SourceError):
                import_data(db.collection("docs"), tmp_path / "r.jsonl.gz", **options)
    assert not list(tmp_path.glob("*.import-*"))


def test_an_import_that_is_cancelled_says_how_far_it_is(tmp_path):
    write_source(tmp_path)
    new_collection(tmp_path)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        docs, done = db.collection("docs"), []
        with pytest.raises(vecdb.CancelledError, match="14 rows are committed") as caught:
            run(docs, tmp_path, progress=lambda now, _: done.append(now), cancel=lambda: len(done) > 2)
        assert isinstance(caught.value, vecdb.ImportInterruptedError)
        assert caught.value.done == len(docs) == 14
        assert run(docs, tmp_path).resumed == 14


# --- the file itself --------------------------------------------------------------------------------------

IDENTITY = {"collection": "docs", "names": ["a", []], "database": "u"}
POINT = Checkpoint(rows=5, seq=3, last="x", fresh=True)


def test_a_checkpoint_comes_back_and_goes(tmp_path):
    file = CheckpointFile(str(tmp_path / "x.vecdb"), IDENTITY)
    assert file.load() is None
    file.save(POINT)
    assert file.load() == POINT
    assert CheckpointFile(str(tmp_path / "x.vecdb"), {**IDENTITY, "database": "v"}).load() is None
    file.remove()
    file.remove()
    assert file.load() is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "[" * 100_000, '{"format": "vecdb-import/1"}',
        *(
            json.dumps({"format": "vecdb-import/1", "import": IDENTITY, "done": done})
            for done in (None, [], {}, {"rows": -1, "seq": 0, "last": None, "fresh": True},
                         {"rows": "1", "seq": 0, "last": None, "fresh": True},
                         {"rows": 1, "seq": 0, "last": [1], "fresh": True},
                         {"rows": 1, "seq": 0, "last": True, "fresh": True},
                         {"rows": 1, "seq": 0, "last": None, "fresh": 1})
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_checkpoint_is_no_checkpoint(tmp_path, text):
    file = CheckpointFile(str(tmp_path / "x.vecdb"), IDENTITY)
    with open(file.path, "w") as stream:
        stream.write(text)
    assert file.load() is None


def test_a_checkpoint_ahead_of_the_database_is_not_believed(tmp_path):
    """Commits may be lost in a power cut where durability is not full; the checkpoint may then know too much."""
    write_source(tmp_path)
    new_collection(tmp_path)
    with vecdb.open(tmp_path / "x.vecdb") as db:
        docs = db.collection("docs")
        done = []
        with pytest.raises(vecdb.CancelledError):
            run(docs, tmp_path, progress=lambda now, _: done.append(now), cancel=lambda: len(done) > 3)
        (path,) = tmp_path.glob("x.vecdb.import-*.json")
        content = json.loads(path.read_text())
        content["done"] |= {"rows": 42, "seq": content["done"]["seq"] + 3, "last": "r42"}
        path.write_text(json.dumps(content))
        assert run(docs, tmp_path).resumed == 0
        assert len(docs) == ROWS
