"""Problems with a known answer for the checks of transforms and filters; the same on every run and machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Pairs, RelevanceData
from vecdb.types import Space

__all__ = ["WIDTHS_OF", "collinear", "judged", "pairs", "read_only", "rotation", "unit"]

Matrix = npt.NDArray[np.float32]

WIDTHS_OF: dict[str, tuple[int, int]] = {"equal": (12, 12), "wider": (12, 16), "narrower": (16, 12)}
"""Relation of the widths -> widths of source and target."""
_GROUP = 2
_CLASSES = 8


def unit(rows: npt.NDArray[Any]) -> Matrix:
    """Return the rows divided by their norms, float32."""
    norms: npt.NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / norms, dtype=np.float32)


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only copy that no writable array shares."""
    frozen = np.frombuffer(array.tobytes(), dtype=array.dtype).reshape(array.shape)
    return frozen


def rotation(source: int, target: int, angle: float, seed: int) -> npt.NDArray[np.float64]:
    """Return a map with orthonormal rows or columns; square ones turn by about `angle` (radians) in every plane."""
    rng = np.random.default_rng(seed)
    width = max(source, target)
    basis, _ = np.linalg.qr(rng.standard_normal((width, width)))
    turn = np.eye(width)
    for place in range(0, width - 1, 2):
        turn[place : place + 2, place : place + 2] = [
            [np.cos(angle), np.sin(angle)],
            [-np.sin(angle), np.cos(angle)],
        ]
    full: npt.NDArray[np.float64] = basis @ turn @ basis.T
    return full[:source, :target]


def pairs(
    width: str = "equal",
    role: str = "query",
    *,
    count: int = 240,
    shift: float = 0.0,
    angle: float = 0.9,
    seed: int = 1,
) -> FitData:
    """Return records in a cosine space and in another one that is a rotation of it, perhaps shifted.

    Parameters
    ----------
    width : {"equal", "wider", "narrower"}
    role : {"query", "gallery"}
    count : int
        Pairs; a third as many are kept back for validation, and as many queries are given.
    shift : float
        Length of a translation of the target before its rows are normalised.
    angle : float
        Of the rotation, where the widths are equal.
    seed : int
        Of the records and of the map; `FitData.rng` has it, too.
    """
    d, e = WIDTHS_OF[width]
    rng = np.random.default_rng(seed)
    total = count + max(count // 3, 4) + max(count, 4)
    source, target, classes = _both(total, (d, e), shift, angle, rng, seed)
    kept, asked = count + max(count // 3, 4), max(count, 4)
    groups = np.arange(total, dtype=np.int64) // _GROUP
    there = source if role == "query" else target
    spaces = Space("source", d, id=1), Space("target", e, id=2)
    return FitData(
        *spaces,
        source=read_only(source[:count]),
        target=read_only(target[:count]),
        role=role,  # type: ignore[arg-type]  # a str of a capability
        rng=np.random.default_rng(seed),
        queries=read_only(there[kept : kept + asked]),
        labels=read_only(classes[:count]),
        groups=read_only(groups[:count]),
        validation=Pairs(
            *(read_only(part[count + count % _GROUP : kept]) for part in (source, target, classes, groups))
        ),
        queries_across=read_only((target if role == "query" else source)[kept : kept + asked // 2]),
        stored=read_only((target if role == "query" else source)[count:kept]),
    )


def _both(
    total: int, widths: tuple[int, int], shift: float, angle: float, rng: np.random.Generator, seed: int
) -> tuple[Matrix, Matrix, npt.NDArray[np.int64]]:
    centres = rng.standard_normal((_CLASSES, widths[0]))
    classes = rng.integers(0, _CLASSES, total)
    source = unit(centres[classes] + 0.8 * rng.standard_normal((total, widths[0])))
    away = shift * unit(rng.standard_normal((1, widths[1])))
    target = unit(source.astype(np.float64) @ rotation(*widths, angle, seed) + away)
    return source, target, classes.astype(np.int64)


def collinear(data: FitData, *, both_ways: bool) -> FitData:
    """Return the data with every pair the same one, or the same one with either sign."""
    signs = np.ones((len(data.source), 1), np.float32)
    if both_ways:
        signs[1::2] = -1.0
    return replace(data, source=read_only(signs * data.source[:1]), target=read_only(signs * data.target[:1]))


def judged(
    *, queries: int = 60, candidates: int = 20, width: int = 8, seed: int = 1, scale: float = 1.0, offset: float = 0.0
) -> RelevanceData:
    """Return a pool in which relevant candidates have the higher scores, with some left unjudged.

    Parameters
    ----------
    queries, candidates, width : int
    seed : int
    scale, offset : float
        The scores of the pool are ``offset + scale * score``: the same pool, scored through a bridge.
    """
    rng = np.random.default_rng(seed)
    asked = unit(rng.standard_normal((queries, width)))
    found = unit(rng.standard_normal((queries * candidates, width))).reshape(queries, candidates, width)
    wanted = rng.random((queries, candidates)) < 0.3
    noise = 0.15 * rng.standard_normal((queries, candidates))
    exact = np.where(wanted, 0.75, 0.35) + noise
    order = np.argsort(-exact, axis=1, kind="stable")
    scores = (offset + scale * np.take_along_axis(exact, order, 1)).astype(np.float32)
    labels = np.take_along_axis(wanted, order, 1).astype(np.int8)
    labels[rng.random(labels.shape) < 0.1] = -1
    ignore = rng.random(labels.shape) < 0.05
    vectors = np.take_along_axis(found, order[:, :, None], 1)
    last = np.arange(candidates) >= candidates - 2  # every third query has two candidates fewer
    behind = last[None, :] & (np.arange(queries) % 3 == 0)[:, None]
    scores[behind], labels[behind], ignore[behind], vectors[behind] = -np.inf, -1, True, 0.0
    ordinals = np.where(behind, 0, 1 + np.arange(queries * candidates).reshape(queries, candidates))
    frozen = read_only(vectors)
    missed = [(query, offset + scale * 0.5) for query in range(0, queries, 7)]
    return RelevanceData(
        space=Space("planted", width, id=1),
        queries=read_only(asked),
        scores=read_only(scores),
        ordinals=read_only(ordinals.astype(np.uint64)),
        ignore=read_only(ignore),
        count=10_000,
        rng=np.random.default_rng(seed),
        labels=read_only(labels),
        missed=read_only(np.array(missed, np.float32)),
        vectors=lambda row: frozen[row],
        sample=read_only(unit(rng.standard_normal((200, width)))),
        groups=read_only(np.arange(queries, dtype=np.int64) // 3),
    )
