"""Seeded damage to every kind of file that is imported: records that are sound, or an error of ours; nothing else.

The damage is what files suffer and what an attacker tries: flipped bits, overwritten numbers, bytes cut out, put in,
repeated or cut off, and for text also what a wrong program would write.
"""

from __future__ import annotations

import gzip
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.errors import VecdbError
from vecdb.interchange import export_data, import_data, inspect_source, read_vectors

DIM, ROWS = 4, 9
FILES = ("x.npy", "x.npz", "x.fvecs", "x.jsonl", "x.jsonl.gz", "x.parquet", "x.arrow")
HOSTILE = (
    *(b"", b"\0", b"\xff" * 8, b"NaN", b"Infinity", b"1e999", b"null", b"[", b"{", b'"', b"\\", b"\n", b"\r\n"),
    *(b"\xed\xa0\x80", b"\\ud800", b"-1", b"9" * 40, b'"id"', b'{"$a":1}', b"[[[[[[[[", b"True", b"L" * 9, b"()"),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one collection in every format, and the database it came from."""
    folder = tmp_path_factory.mktemp("sound")
    chance = np.random.default_rng(3)
    with vecdb.open(folder / "a.vecdb", durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=DIM)
        rows = chance.normal(size=(ROWS, DIM)).astype(np.float32)
        metadata = [{"n": number, "tags": ["a", None], "deep": {"x": 0.5}} for number in range(ROWS)]
        docs.upsert(list(range(ROWS)), vectors={"s": rows}, metadata=metadata, texts=["text"] * ROWS)
        for name in (*FILES, "export"):
            export_data(docs, folder / name)
    return folder


def damage(content: bytearray, chance: random.Random) -> bytes:
    """Return `content` after one to three kinds of damage."""
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(content) + 1)
        kind = chance.randrange(7)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[place : place + 8] = chance.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]).to_bytes(8, "little")
        elif kind == 2:
            del content[place : place + chance.choice([1, 3, 50])]
        elif kind == 3:
            content[place:place] = chance.choice(HOSTILE)
        elif kind == 4:
            content[place:place] = content[place : place + 64]
        elif kind == 5:
            del content[place:]
        else:
            piece = chance.choice(HOSTILE)
            content[place : place + len(piece)] = piece
    return bytes(content)


def attempt(path: Path, target: vecdb.Database, name: str) -> Iterator[str]:
    """Import `path` in each way that it may be named, and yield what went through."""
    docs = target.create_collection(name)
    is_export = path.is_dir()
    if not is_export:
        docs.add_space("s", dim=DIM)
    fields = {"vectors": {"s": "@s"}} if path.suffix in (".jsonl", ".gz", ".parquet", ".arrow") else {}
    if path.suffix == ".npz":
        fields = {"vectors": {"s": f"{path}::s"}}
    calls = {
        "import": lambda: import_data(docs, None if path.suffix == ".npz" else path, resume=False, **fields),
        "inspect": lambda: inspect_source(path),
    }
    if not is_export:
        calls["query"] = lambda: read_vectors(path)
    for call, work in calls.items():
        try:
            work()
        except VecdbError:
            continue
        yield call


def hold(path: Path, folder: Path) -> set[str]:
    with vecdb.open(folder / "target.vecdb", durability="relaxed") as target:
        went = set(attempt(path, target, "c"))
        for record in target.collection("c").scan(vectors="all"):
            assert all(np.isfinite(vector).all() for vector in record.vectors.values())
        assert target.check().ok
    return went


@pytest.mark.parametrize("name", FILES)
def test_sound_files_go_through(sound, tmp_path, name):
    assert "import" in hold(sound / name, tmp_path)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_gives_sound_records_or_a_typed_error(sound, tmp_path_factory, name, seed):
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("file")
    content = bytearray((sound / name).read_bytes())
    if name.endswith(".gz") and chance.random() < 0.5:  # the text inside
        changed = gzip.compress(damage(bytearray(gzip.decompress(content)), chance))
    else:
        changed = damage(content, chance)
    (folder / name).write_bytes(changed)
    hold(folder / name, folder)
    shutil.rmtree(folder)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_export_gives_what_was_exported_or_a_typed_error(sound, tmp_path_factory, seed):
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("export")
    path = folder / "export"
    shutil.copytree(sound / "export", path)
    chosen = chance.choice(sorted(file for file in path.rglob("*") if file.is_file()))
    action = chance.randrange(8)
    if action == 0:
        chosen.unlink()
    elif action == 1:
        shutil.copy(chance.choice(sorted(file for file in path.rglob("*") if file.is_file())), folder / "other")
        chosen.write_bytes((folder / "other").read_bytes())
    else:
        chosen.write_bytes(damage(bytearray(chosen.read_bytes()), chance))
    hold(path, folder)
    shutil.rmtree(folder)
