"""The named sets: unit rows, queries that are not among them, attributes to filter by, and exact answers; kept as .npy.

Attributes of a row: ``uniform``, 0 to 99 at random, independent of its vector; ``near``, the rank of its similarity to
one row, in percent: ``near < 10`` is the tenth of all rows around that row, far away from most queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
K = 10
QUERIES = 1000
_PIECE = 128


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter: the attribute is below a bound. All attributes are 0 to 99, so the bound is the share in percent."""

    attribute: str
    below: int

    @property
    def name(self) -> str:
        """The condition as text, which is also how it is stored."""
        return f"{self.attribute} < {self.below}"

    @staticmethod
    def parse(name: str) -> Condition:
        """Return the condition of that name."""
        attribute, _, below = name.split()
        return Condition(attribute, int(below))


CONDITIONS = (
    Condition("uniform", 1),
    Condition("uniform", 10),
    Condition("uniform", 50),
    Condition("near", 1),
    Condition("near", 10),
)


@dataclass(frozen=True, slots=True)
class VectorSet:
    """A set on disk: ``rows.npy``, ``queries.npy``, ``uniform.npy``, ``near.npy``, ``floors.npy``."""

    name: str
    folder: Path

    def array(self, name: str) -> npt.NDArray[np.generic]:
        """Return one of its arrays, mapped."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    @property
    def rows(self) -> F32:
        """The unit rows, shape (n, dim)."""
        return self.array("rows")  # type: ignore[return-value]

    @property
    def queries(self) -> F32:
        """The unit queries, shape (q, dim)."""
        return self.array("queries")  # type: ignore[return-value]

    def floors(self, condition: Condition | None = None) -> npt.NDArray[np.float64]:
        """Return the 10th best score of each query, computed once for each condition and kept."""
        name = "floors" if condition is None else f"floors-{condition.attribute}-{condition.below}"
        if not (self.folder / f"{name}.npy").is_file():
            rows = self.rows if condition is None else self.rows[self.array(condition.attribute) < condition.below]
            _save(self.folder, name, tenth_best(rows, self.queries))
        return self.array(name)  # type: ignore[return-value]


def tenth_best(rows: F32, queries: F32) -> npt.NDArray[np.float64]:
    """Return each query's K-th best inner product in float64; -inf where there are fewer rows."""
    floors = np.full(len(queries), -np.inf)
    if len(rows) < K:
        return floors
    for start in range(0, len(queries), _PIECE):
        part = queries[start : start + _PIECE]
        near = np.argpartition(part @ rows.T, len(rows) - K, axis=1)[:, len(rows) - K :]
        exact = np.einsum("qkd,qd->qk", rows[near].astype(np.float64), part.astype(np.float64))
        floors[start : start + _PIECE] = exact.min(axis=1)
    return floors


# --- where they come from ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """How to make a set: a sentence for readers, and a function of the shared data folder (None if missing)."""

    about: str
    make: Callable[[Path | None], tuple[F32, F32]]


def _unit(rows: npt.NDArray[np.generic]) -> F32:
    wide = np.asarray(rows, np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.float32(1e-12))


def _debian(model: str) -> Callable[[Path | None], tuple[F32, F32]]:
    def make(shared: Path | None) -> tuple[F32, F32]:
        folder = _needed(shared) / "debian"
        kind = "i8" if (folder / f"{model}.docs.i8.npy").is_file() else "f16"
        rows, asked = (np.load(folder / f"{model}.{part}.{kind}.npy") for part in ("docs", "queries"))
        return _unit(rows), _unit(asked[2000 : 2000 + QUERIES])

    return make


def _summaries(shared: Path | None) -> tuple[F32, F32]:
    rows = _unit(np.load(_needed(shared) / "summaries" / "mini6.docs.i8.npy"))
    return rows[:-QUERIES], rows[-QUERIES:]


def _generated(count: int, dim: int = 384) -> Callable[[Path | None], tuple[F32, F32]]:
    def make(shared: Path | None) -> tuple[F32, F32]:
        from tools.bench.data import synthetic  # imports vecdb, which only this side has to have

        found = synthetic(count, dim, queries=QUERIES)
        return found.rows, found.queries

    return make


def _large(shared: Path | None) -> tuple[F32, F32]:
    from os import environ

    place = environ.get("VECDB_BENCH_LARGE")
    if place is None:
        raise FileNotFoundError("VECDB_BENCH_LARGE must name the .npy that make_large.py of the shared data wrote")
    rows = np.load(place)
    return rows[:-QUERIES], rows[-QUERIES:]


def _needed(shared: Path | None) -> Path:
    if shared is None:
        raise FileNotFoundError("the shared data sets are not here: VECDB_SHARED_DATA, or ../shared/data beside vecdb")
    return shared


_HIDDEN = "Generated, {} x 384: 20 hidden dimensions behind a random network"
SOURCES: Mapping[str, Source] = {
    "mini6": Source("36,172 package descriptions, all-MiniLM-L6-v2, 384-d; queries are synopses", _debian("mini6")),
    "use3": Source("36,172 package descriptions, Universal Sentence Encoder, 512-d", _debian("use3")),
    "e5s": Source("36,172 package descriptions, multilingual-e5-small, 384-d (hub-heavy)", _debian("e5s")),
    "summaries": Source("59,000 one-line package summaries, all-MiniLM-L6-v2, 384-d; 1,000 held out", _summaries),
    "gen30k": Source(_HIDDEN.format("30,000"), _generated(30_000)),
    "gen100k": Source(_HIDDEN.format("100,000"), _generated(100_000)),
    "gen300k": Source(_HIDDEN.format("300,000"), _generated(300_000)),
    "gen1m": Source(_HIDDEN.format("1,000,000"), _generated(1_000_000)),
    "large": Source("716,000 one-line package summaries, WordLlama (static), 256-d (VECDB_BENCH_LARGE)", _large),
    "tiny": Source("Generated, 1,000 x 16: shows that everything runs, measures nothing", _generated(1_000, 16)),
}


def prepare(name: str, store: Path, shared: Path | None) -> VectorSet:
    """Return a set, made and kept under `store` if it is not there yet."""
    folder = store / name
    done = folder / "set.json"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rows, queries = SOURCES[name].make(shared)
        _write(folder, rows, queries)
        done.write_text(json.dumps({"rows": len(rows), "dim": rows.shape[1], "queries": len(queries)}))
    return VectorSet(name, folder)


def _write(folder: Path, rows: F32, queries: F32) -> None:
    rng = np.random.default_rng(11)
    _save(folder, "rows", np.ascontiguousarray(rows, np.float32))
    _save(folder, "queries", np.ascontiguousarray(queries, np.float32))
    _save(folder, "uniform", rng.permutation(np.arange(len(rows)) % 100).astype(np.int64))
    pivot = rows @ rows[int(rng.integers(len(rows)))]
    ranks = np.empty(len(rows), np.int64)
    ranks[np.argsort(-pivot, kind="stable")] = np.arange(len(rows))
    _save(folder, "near", ranks * 100 // len(rows))
    _save(folder, "floors", tenth_best(rows, queries))


def _save(folder: Path, name: str, array: npt.NDArray[np.generic]) -> None:
    aside = folder / f"{name}.part.npy"
    np.save(aside, array)
    aside.replace(folder / f"{name}.npy")
