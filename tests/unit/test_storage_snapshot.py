"""Snapshots: one state for all readers of a commit, found again by its bytes; ids of many records at once."""

from __future__ import annotations

import pytest

import vecdb
from vecdb.errors import CorruptionError
from vecdb.storage import snapshot as module
from vecdb.storage.records import record_key


@pytest.fixture
def docs(tmp_path):
    with vecdb.open(tmp_path / "small.vecdb", durability="relaxed") as db:
        docs = db.create_collection("docs")
        docs.upsert(["a", 2, "ü" * 100, -(2**63)])
        yield docs


def test_a_commit_is_decoded_once_and_a_new_one_is_seen(docs, monkeypatch):
    decoded = []
    original = module.read_counters
    monkeypatch.setattr(module, "read_counters", lambda tx: decoded.append(1) or original(tx))
    with docs.database._read() as first, docs.database._read() as second:
        assert first.state is second.state
    before = len(decoded)
    assert len(docs) == 4 and len(decoded) == before
    docs.upsert(["more"])
    assert len(docs) == 5 and len(decoded) > before


def test_an_older_reader_keeps_its_own_state(docs):
    with docs.database._read() as older:
        docs.upsert(["more"])
        with docs.database._read() as newer:
            assert newer.seq == older.seq + 1 and newer.state is not older.state
        with docs.database._read() as again:
            assert again.state is newer.state


def test_a_snapshot_that_cannot_be_made_gives_its_transaction_back(docs, monkeypatch):
    docs.upsert(["more"])
    monkeypatch.setattr(module, "read_catalog", lambda tx: 1 / 0)
    with pytest.raises(ZeroDivisionError), docs.database._read():
        pass
    monkeypatch.undo()
    assert len(docs) == 5
    docs.database._opened().env.grow()  # waits for every lease
    assert len(docs) == 5


def test_ids_of_records(docs):
    with docs.database._read() as snapshot:
        number = docs._number
        assert snapshot.ids(number, [3, 0, 1, 2]) == {0: "a", 1: 2, 2: "ü" * 100, 3: -(2**63)}
        assert snapshot.ids(number, []) == {}
        with pytest.raises(CorruptionError, match="row 9 is missing"):
            snapshot.ids(number, [1, 9])


@pytest.mark.parametrize("damage", [lambda raw: raw[:4], lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw[::-1]])
def test_a_damaged_record_gives_no_id(docs, damage):
    def spoil(write):
        key = record_key(docs._number, 1)
        write.tx.put("records", key, damage(bytes(write.tx.get("records", key))))

    docs.database._write(spoil)
    with docs.database._read() as snapshot:
        assert snapshot.ids(docs._number, [0]) == {0: "a"}
        with pytest.raises(CorruptionError, match="checksum"):
            snapshot.ids(docs._number, [0, 1])
