"""A folder with documents and queries as several models embed them.

``NAME.docs.f16.npy`` or ``.i8.npy``, ``NAME.queries.*`` alike; ``docs.jsonl.gz`` (with ``source``, if records belong
together) and ``queries.jsonl.gz`` with ``rel`` (the answer's row, negative: none) or ``qrels`` (row to grade), and
perhaps ``split``. Rows follow the jsonl files; every vector is used at unit length.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.evaluation import Judged

__all__ = ["Corpus", "Model", "load_corpus"]

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Model:
    """One model's unit vectors."""

    name: str
    docs: F32
    queries: F32


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a folder holds.

    Attributes
    ----------
    name : str
    models : tuple of str
        Names, from the best known folder order (alphabetical).
    judged : Judged
        Which rows answer which query.
    sources : list
        Of each document; what has the same source belongs together (None: to nothing).
    classes : ndarray of int64, shape (n,)
        Of each document, -1 where it has none.
    splits : list of str
        Of each query; empty strings where the folder has none.
    folder : Path
    """

    name: str
    models: tuple[str, ...]
    judged: Judged
    sources: list[Any]
    classes: npt.NDArray[np.int64]
    splits: list[str]
    folder: Path
    _kept: dict[str, Model] = field(default_factory=dict)

    def model(self, name: str) -> Model:
        """Return the vectors of a model; the last two are kept."""
        if name not in self._kept:
            while len(self._kept) > 1:
                self._kept.pop(next(iter(self._kept)))
            self._kept[name] = Model(name, *(_vectors(self.folder, name, part) for part in ("docs", "queries")))
        return self._kept[name]


def load_corpus(folder: Path) -> Corpus:
    """Return what a folder holds; vectors are read when they are asked for."""
    docs, queries = (_lines(folder / f"{name}.jsonl.gz") for name in ("docs", "queries"))
    names = sorted({path.name.split(".")[0] for path in folder.glob("*.docs.*.npy")})
    return Corpus(
        folder.name,
        tuple(names),
        Judged.of([_answers(query) for query in queries]),
        [doc.get("source") for doc in docs],
        _numbered([doc.get("section") for doc in docs]),
        [query.get("split", "") for query in queries],
        folder,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _answers(query: dict[str, Any]) -> Any:
    if "qrels" in query:
        return {int(row): 1.0 for row, grade in query["qrels"].items() if int(grade) >= 1}
    return query["rel"]


def _numbered(keys: list[Any]) -> npt.NDArray[np.int64]:
    names = {key: place for place, key in enumerate(sorted({key for key in keys if key is not None}))}
    return np.array([names.get(key, -1) for key in keys], np.int64)


def _vectors(folder: Path, name: str, part: str) -> F32:
    """Return unit vectors; int8 rows have lost their scale, which unit length does not need."""
    path = next(folder.glob(f"{name}.{part}.*.npy"))
    rows: F32 = np.load(path).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    rows.flags.writeable = False
    return rows
