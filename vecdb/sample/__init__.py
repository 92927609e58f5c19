"""The small real data set inside the package: what the demo shows and what the tests search.

Owns the files beside it and nothing else. Invariant: every array is float32, C-contiguous, read-only, of unit length,
row i belongs to ``ids[i]``, and both models have one vector for every document, text and query. `tools/make_sample.py`
makes the arrays; README.md says where everything comes from and under which licences.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError

__all__ = ["Documents", "Matrix", "Model", "Queries", "Sample", "Texts", "load"]

Matrix: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Model:
    """Which program made the vectors of one space.

    Attributes
    ----------
    name : str
        Short name; the key of every ``vectors`` mapping.
    dim : int
    model : str
        The model's usual name.
    package, version : str
        The installable package that carries the weights.
    licence : str
        Licence of the package, then that of the weights.
    recipe : str
        Pooling, precision and truncation.
    """

    name: str
    dim: int
    model: str
    package: str
    version: str
    licence: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Documents:
    """Debian packages: facts and vectors, no sentences.

    Attributes
    ----------
    ids : tuple of str
        Names of binary packages, all different.
    metadata : tuple of dict
        ``section`` (str), ``installed_kb`` (int) and ``tags`` (list of str, often empty).
    vectors : mapping of str to float32 array (n, dim)
        By model name; what was embedded is the package's description, which is not part of the sample.
    rows : tuple of int
        Row of each document in the data set that it was taken from.
    """

    ids: tuple[str, ...]
    metadata: tuple[dict[str, Any], ...]
    vectors: Mapping[str, Matrix]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Texts:
    """One-sentence texts written for this sample.

    Attributes
    ----------
    ids : tuple of str
        Such as ``"cooking-03"``.
    texts : tuple of str
    metadata : tuple of dict
        ``topic`` (str) and ``words`` (int).
    vectors : mapping of str to float32 array (n, dim)
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    metadata: tuple[dict[str, Any], ...]
    vectors: Mapping[str, Matrix]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Queries:
    """Questions written for this sample, with the texts that answer them.

    Attributes
    ----------
    ids, texts : tuple of str
    vectors : mapping of str to float32 array (n, dim)
    relevant : tuple of tuple of str
        Ids of the right answers among `Texts`, the best first; never empty.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    vectors: Mapping[str, Matrix]
    relevant: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Sample:
    """The whole sample; see `load`."""

    documents: Documents
    texts: Texts
    queries: Queries
    models: Mapping[str, Model]


def load() -> Sample:
    """Read the sample that is part of the package.

    Returns
    -------
    Sample
        1,500 documents, 200 texts and 30 queries, each with one unit vector from each of two models
        (``"mini6"``, 384 wide, and ``"wl256"``, 256 wide). About 4.5 MB in memory, new objects at every call.

    Raises
    ------
    CorruptionError
        If a file is missing, unreadable or does not fit the others.

    Examples
    --------
    >>> sample = load()
    >>> sample.texts.ids[0], sample.texts.vectors["mini6"].shape
    ('programming-01', (200, 384))
    """
    try:
        return _read()
    except (KeyError, TypeError, AttributeError) as error:  # a row without one of its fields
        raise _damaged("*.json*", f"lacks a field: {error!r}") from error


def _read() -> Sample:
    models = _models()
    documents, texts, queries = _rows("documents"), _rows("texts"), _rows("queries")
    return Sample(
        documents=Documents(
            ids=_column(documents, "id"),
            metadata=tuple({key: row[key] for key in ("section", "installed_kb", "tags")} for row in documents),
            vectors=_vectors("documents", len(documents), models),
            rows=tuple(row["row"] for row in documents),
        ),
        texts=Texts(
            ids=_column(texts, "id"),
            texts=_column(texts, "text"),
            metadata=tuple({"topic": row["topic"], "words": len(row["text"].split())} for row in texts),
            vectors=_vectors("texts", len(texts), models),
        ),
        queries=Queries(
            ids=_column(queries, "id"),
            texts=_column(queries, "text"),
            vectors=_vectors("queries", len(queries), models),
            relevant=tuple(tuple(row["relevant"]) for row in queries),
        ),
        models=models,
    )


def _damaged(name: str, why: str) -> CorruptionError:
    hint = "the package's own data is damaged; install vecdb again"
    return CorruptionError(f"Sample file {name} {why}.", hint=hint, what="sample", where=name)


def _bytes(name: str) -> bytes:
    try:
        return (resources.files(__name__) / name).read_bytes()
    except OSError as error:
        raise _damaged(name, f"cannot be read: {error}") from error


def _json(name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise _damaged(name, f"is not JSON: {error}") from error


def _models() -> Mapping[str, Model]:
    described = _json("models.json", _bytes("models.json"))
    return MappingProxyType({entry["name"]: Model(**entry) for entry in described})


def _rows(part: str) -> list[dict[str, Any]]:
    name = f"{part}.jsonl"
    return [_json(name, line) for line in _bytes(name).splitlines()]


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(str(row[key]) for row in rows)


def _vectors(part: str, count: int, models: Mapping[str, Model]) -> Mapping[str, Matrix]:
    return MappingProxyType({name: _matrix(f"{part}.{name}.npy", (count, model.dim)) for name, model in models.items()})


def _matrix(name: str, shape: tuple[int, int]) -> Matrix:
    """Read float16 rows and scale them back to unit length, which rounding took from them."""
    try:
        stored = np.load(io.BytesIO(_bytes(name)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _damaged(name, f"is not an array: {error}") from error
    if stored.shape != shape or stored.dtype != np.float16:
        raise _damaged(name, f"holds {stored.dtype} {stored.shape}, expected float16 {shape}")
    wide = stored.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not np.all(np.abs(lengths - 1) < 0.01):  # also true where a length is NaN
        raise _damaged(name, "has rows that are not of unit length")
    unit: Matrix = np.ascontiguousarray(wide / lengths, dtype=np.float32)
    unit.flags.writeable = False
    return unit
