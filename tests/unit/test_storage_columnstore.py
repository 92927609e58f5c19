"""Metadata columns on disk: every live row in one place, whatever is written (vecdb/storage/columnstore.py)."""

import numpy as np
import pytest

from vecdb.errors import CorruptionError
from vecdb.storage import columnstore
from vecdb.storage.columns import MISSING
from vecdb.storage.columnstore import ColumnWriter, drop_columns, load_columns, read_lines
from vecdb.storage.env import Environment
from vecdb.storage.state import create_header


@pytest.fixture
def env(tmp_path):
    env = Environment(
        tmp_path / "x.vecdb", readonly=False, durability="relaxed", map_size=None, timeout=5.0, create=create_header
    )
    env.open()
    yield env
    env.close()
    env.writer_lock.abandon()


class Bench:
    """The columns of one collection beside a dict of what they should say."""

    def __init__(self, env):
        self.env, self.rows, self.delta, self.chunks, self.version, self.view = env, {}, 0, 1, 0, None

    def _next(self):
        self.chunks += 1
        return self.chunks - 1

    def do(self, work):
        self.version += 1
        tx = self.env.begin_write()
        writer = ColumnWriter(tx, 4, self.version, {}, self._next, lambda rows: [self.rows[row] for row in rows])
        result = work(writer)
        self.env.commit(tx)
        self.check()
        return result

    def write(self, rows):
        changed = [row for row in rows if row in self.rows]
        metadatas = [{"n": row % 7, "v": self.version} for row in rows]
        self.rows.update(zip(rows, metadatas, strict=True))

        def work(writer):
            self.delta = writer.write(rows, metadatas, changed, self.delta)

        self.do(work)

    def forget(self, rows):
        def work(writer):
            self.delta -= writer.forget(rows)

        for row in rows:
            del self.rows[row]
        self.do(work)

    def check(self):
        with self.env.lease() as tx:
            for previous in (self.view, None):
                view = load_columns(tx, 4, previous, {}, self.rows.__getitem__)
                found = {row: dict(metadata) for row, (_, metadata) in view.delta.items()}
                assert len(found) == self.delta
                for chunk in view.chunks:
                    fresh = np.ones(len(chunk.columns.rows), bool) if chunk.fresh is None else chunk.fresh
                    values = {path: chunk.columns.values(path) for path in ("n", "v")}
                    for place in np.flatnonzero(fresh).tolist():
                        row = int(chunk.columns.rows[place])
                        assert row not in found
                        found[row] = {path: column[place] for path, column in values.items()}
                assert found == self.rows
            self.view = view
            self.lines = read_lines(tx, 4)


@pytest.fixture
def bench(env, monkeypatch):
    monkeypatch.setattr(columnstore, "DELTA_ROWS", 16)
    monkeypatch.setattr(columnstore, "CHUNK_ROWS", 64)
    monkeypatch.setattr(columnstore, "_SMALL_CHUNK", 32)
    return Bench(env)


def test_few_rows_wait_and_many_are_sealed(bench):
    bench.write([3, 1, 2])
    assert bench.delta == 3 and bench.lines == []
    bench.write(range(10, 30))
    bench.write(range(30, 44))
    bench.write(range(100, 300))
    assert bench.delta <= 16 and sum(line.rows for line in bench.lines) + bench.delta == 237
    assert max(line.rows for line in bench.lines) <= 64


def test_rewritten_rows_leave_their_old_place(bench):
    bench.write(range(40))
    bench.write([5, 39, 100])
    assert bench.delta == 3 and bench.lines[0].stale == 2
    bench.write([5, 6])
    assert bench.delta == 4 and bench.lines[0].stale == 3
    bench.forget([0, 5, 100])
    assert bench.delta == 2 and bench.lines[0].stale == 4
    bench.forget([row for row in bench.rows if row not in (6, 39)])
    assert bench.lines == [] and bench.delta == 2


def tidy(bench, **options):
    """Tidy until nothing is left to do; return whether there was anything."""
    done = 0
    while bench.do(lambda writer: writer.tidy(**options)):
        done += 1
        assert done < 100
    return done > 0


def test_tidying_reads_no_record_of_chunks_without_metadata(env, monkeypatch):
    monkeypatch.setattr(columnstore, "_SEALED_AT_ONCE", 4)
    known = {row: {} if row < 20 else {"n": row} for row in range(40)}
    read, numbers = [], iter(range(99))
    tx = env.begin_write()
    writer = ColumnWriter(
        tx, 4, 1, {}, lambda: next(numbers), lambda rows: read.extend(rows) or [known[row] for row in rows]
    )
    for start in range(0, 40, 4):
        rows = range(start, start + 4)
        assert writer.write(rows, [known[row] for row in rows], [], 0) == 0
    writer.forget([3, 25])
    assert writer.tidy() and sorted(read) == [row for row in range(20, 40) if row != 25]
    [line] = read_lines(tx, 4)
    chunk = columnstore.open_chunk(tx, 4, line, {})
    assert dict(zip(chunk.rows.tolist(), chunk.values("n"), strict=True)) == {
        row: row if row >= 20 else MISSING for row in range(40) if row not in (3, 25)
    }
    env.abort(tx)


def test_tidying_joins_what_is_small_and_rewrites_what_is_stale(bench):
    for start in range(0, 400, 20):
        bench.write(range(start, start + 20))
    assert len(bench.lines) >= 19
    assert tidy(bench) and len(bench.lines) <= 15
    for start in range(0, 400, 5):
        bench.forget([start, start + 1])
    assert tidy(bench) and not any(3 * line.stale > line.rows for line in bench.lines)
    bench.forget([203])
    assert tidy(bench, everything=True) and sum(line.stale for line in bench.lines) == 0
    assert sum(line.rows for line in bench.lines) + bench.delta == 239


def test_random_writes_keep_every_row_in_one_place(bench):
    rng = np.random.default_rng(1)
    for _ in range(60):
        kind = rng.integers(4)
        if kind == 0 and bench.rows:
            bench.forget(rng.choice(list(bench.rows), min(len(bench.rows), 15), replace=False).tolist())
        elif kind == 1:
            bench.do(lambda writer: writer.tidy())
        else:
            bench.write(rng.choice(200, int(rng.integers(1, 40)), replace=False).tolist())


def test_a_row_in_no_column_is_damage(bench):
    bench.write(range(20))
    tx = bench.env.begin_write()
    with pytest.raises(CorruptionError):
        ColumnWriter(tx, 4, 9, {}, bench._next, list).forget([3, 99])
    bench.env.abort(tx)


def test_damage_is_reported(bench):
    bench.write(range(40))
    bench.write([1])
    [line] = bench.lines
    for letter in (b"c", b"m"):
        tx = bench.env.begin_write()
        key = columnstore._key(4, letter, line.id)
        value = bytearray(tx.get("columns", key))
        value[len(value) // 2] ^= 1
        for damage in (bytes(value), None):
            if damage is None:
                tx.delete("columns", key)
            else:
                tx.put("columns", key, damage)
            with pytest.raises(CorruptionError):
                load_columns(tx, 4, None, {}, bench.rows.__getitem__)
        bench.env.abort(tx)


def test_dropping_takes_one_collection_alone(bench):
    bench.write(range(40))
    tx = bench.env.begin_write()
    ColumnWriter(tx, 5, 9, {}, bench._next, list).write([1], [{}], [], 0)
    drop_columns(tx, 4)
    assert tx.entries("columns")["entries"] == 1
    bench.env.abort(tx)
