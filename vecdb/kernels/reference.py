"""The numpy twin of every kernel: slow, float64, obviously right. Imports numpy only and never calls a kernel.

A twin states what its kernel computes on plain arrays; tests/kernels runs both on the same data. Where a kernel
follows addresses, the twin is given the rows themselves.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.types import Metric

__all__ = [
    "absorb_tile",
    "axis_energies",
    "canonical_rows",
    "kth_largest",
    "nominated",
    "rank_pools",
    "scan_biased",
    "scan_blocks",
    "scan_listed",
    "widen",
]

F64 = npt.NDArray[np.float64]


def canonical_rows(metric: Metric, query: npt.NDArray[Any], rows: npt.NDArray[Any]) -> F64:
    """Scores of rows (c, d) for query (d,), added up one product after the other; bits equal the kernel's."""

    def lane_sum(left: F64, right: F64) -> float:
        lanes = [0.0] * 8
        for j in range(len(left)):
            lanes[j % 8] += float(left[j]) * float(right[j])
        return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))

    wide = query.astype(np.float64)
    scores = np.empty(len(rows), dtype=np.float64)
    for place, row in enumerate(rows.astype(np.float64)):
        if metric == "l2":
            scores[place] = 0.0 - np.sqrt(lane_sum(wide - row, wide - row))
            continue
        score = lane_sum(wide, row)
        if metric == "cosine":
            norms = np.sqrt(lane_sum(wide, wide)) * np.sqrt(lane_sum(row, row))
            score = min(max(score / norms, -1.0), 1.0) if norms > 0.0 else 0.0
        scores[place] = score + 0.0
    return scores


def axis_energies(
    query: npt.NDArray[Any], axes: npt.NDArray[Any], shadow: npt.NDArray[Any], loud: int
) -> npt.NDArray[np.float64]:
    """The query's part (3,) along the first axis, and its energies beside that on the `loud` next and on the last."""
    unit = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    products = axes.astype(np.float64) @ unit
    beside = (products[1:] - products[0] * shadow) ** 2
    return np.array([products[0], beside[:loud].sum(), beside[loud:].sum()])


def rank_pools(
    metric: Metric, query: npt.NDArray[Any], rows: npt.NDArray[Any], pool: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The rows at `pool` (c,) in the order of their scores, best first, equal ones by position; and the scores."""
    scores = canonical_rows(metric, query, rows[pool]).astype(np.float32) + np.float32(0.0)
    order = sorted(range(len(pool)), key=lambda place: (-scores[place], pool[place]))
    return pool[order], scores[order]


def nominated(keys: F64, slack: F64, k: int) -> npt.NDArray[np.bool_]:
    """Rows whose key (n,), known up to `slack` (n,), may reach the k-th largest."""
    if len(keys) <= k:
        return np.ones(len(keys), dtype=bool)
    floor = np.sort(keys - slack)[len(keys) - k]
    return np.asarray(keys + slack >= floor)


def _keys(form: str, query: F64, rows: F64) -> F64:
    """The exact key of each row: see the table in vecdb/kernels/bounds.py."""
    if form == "cosine":
        return np.asarray(rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query))
    if form == "dot":
        return np.asarray(rows @ query)
    distances = ((rows - query) ** 2).sum(axis=1)
    return np.asarray(query @ query - distances if form == "l2-expanded" else -distances)


def scan_blocks(form: str, query: npt.NDArray[Any], rows: npt.NDArray[Any]) -> F64:
    """Exact keys (n,) that a scan of all rows (n, d) brackets."""
    return _keys(form, query.astype(np.float64), rows.astype(np.float64))


def scan_biased(form: str, query: npt.NDArray[Any], rows: npt.NDArray[Any], bias: npt.NDArray[np.float32]) -> F64:
    """Exact keys (n,) of rows (n, d), each with its bias (n,), that a scan brackets."""
    return np.asarray(scan_blocks(form, query, rows) + bias.astype(np.float64))


def scan_listed(form: str, query: npt.NDArray[Any], rows: npt.NDArray[Any], wanted: npt.NDArray[np.int64]) -> F64:
    """Exact keys (m,) that a scan of the rows at `wanted` (m,) brackets."""
    return _keys(form, query.astype(np.float64), rows[wanted].astype(np.float64))


def absorb_tile(form: str, queries: npt.NDArray[Any], rows: npt.NDArray[Any]) -> F64:
    """Exact keys (q, n) that a batch brackets."""
    wide = rows.astype(np.float64)
    return np.stack([_keys(form, query, wide) for query in queries.astype(np.float64)])


def kth_largest(values: npt.NDArray[np.float32], k: int) -> np.float32:
    """The k-th largest of values (n,), 1 <= k <= n."""
    return np.float32(np.sort(values)[len(values) - k])


def widen(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Float16 bits (n,) as float32."""
    return bits.view(np.float16).astype(np.float32)


def rotate(rows: npt.NDArray[Any], signs: npt.NDArray[np.float32]) -> F64:
    """Rows (n, D) after rounds of sign flips (signs (rounds, D)) and Walsh-Hadamard transforms of both ends."""
    turned = rows.astype(np.float64)
    size = 1 << (turned.shape[1].bit_length() - 1)
    for flips in signs:
        turned = turned * flips
        turned[:, :size] = _walsh_hadamard(turned[:, :size])
        if size < turned.shape[1]:
            turned[:, -size:] = _walsh_hadamard(turned[:, -size:])
    return turned


def _walsh_hadamard(rows: F64) -> F64:
    size, half = rows.shape[1], 1
    while half < size:
        pairs = rows.reshape(len(rows), -1, 2, half)
        rows = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2).reshape(-1, size)
        half *= 2
    return np.asarray(rows / np.sqrt(size))


def scan_codes(
    queries: npt.NDArray[np.float32],
    bends: npt.NDArray[np.float32],
    known: npt.NDArray[np.float32],
    signs: npt.NDArray[np.int64],
    factors: npt.NDArray[np.float32],
) -> F64:
    """Estimated scores (q, n) of rows whose codes say signs (n, D) of +1 and -1.

    bends (q,); known (q, n), the base of each row's cell; factors (2, n).
    """
    steps = np.abs(queries).max(axis=1, keepdims=True).astype(np.float64) / 31
    steps[steps == 0] = 1.0
    rounded = np.rint(queries.astype(np.float64) / steps)
    offsets, slopes = factors.astype(np.float64)
    return np.asarray(known + bends[:, None] * offsets + slopes * steps * (rounded @ signs.T))


def prepare(
    queries: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
    centres: npt.NDArray[np.float32],
    traits: npt.NDArray[np.float32],
    signs: npt.NDArray[np.float32],
    squared: bool,
) -> tuple[F64, F64, F64, F64]:
    """Rotated queries without their part along the mean (q, D), that part (q,), scores of centres, and nearness."""
    wide, middle, bases = queries.astype(np.float64), mean.astype(np.float64), queries @ centres.astype(np.float64).T
    length = middle @ middle
    bends = np.ones(len(wide)) if squared else wide @ middle / length if length > 1e-30 else np.zeros(len(wide))
    padded = np.zeros((len(wide), signs.shape[1]))
    padded[:, : wide.shape[1]] = wide - bends[:, None] * middle
    gaps = np.square(wide).sum(axis=1, keepdims=True)
    if squared:
        bases = 2 * bases - traits[0]
        gaps = np.maximum(gaps - bases, 0.0)
    nearness = bases + traits[1] * np.sqrt(gaps) - traits[2]
    return rotate(padded, signs), bends, bases, nearness


def probe_lists(estimates: F64, nearness: F64, lists: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.int64]:
    """Positions by estimated score (n,), best first, in the nearest lists that hold `wanted` rows together.

    estimates (n,), -inf for rows that may not be returned; nearness (lists,); lists (n,), the list of each row.
    """
    usable = estimates > -np.inf
    chosen = np.zeros(len(estimates), np.bool_)
    for number in np.argsort(-nearness, kind="stable"):
        if np.count_nonzero(chosen) >= wanted:
            break
        chosen |= usable & (lists == number)
    places = np.flatnonzero(chosen)
    return places[np.argsort(-estimates[places], kind="stable")]


def refine_codes(
    queries: npt.NDArray[np.float32],
    bends: npt.NDArray[np.float32],
    known: npt.NDArray[np.float32],
    points: npt.NDArray[np.int64],
    factors: npt.NDArray[np.float32],
) -> F64:
    """Estimated scores (q, n) of rows whose codes stand for the odd numbers points (n, D).

    bends (q,); known (q, n), the base of each row's cell; factors (2, n), slope and offset.
    """
    slopes, offsets = factors.astype(np.float64)
    products = queries.astype(np.float64) @ points.T
    return np.asarray(known + bends[:, None].astype(np.float64) * offsets + slopes * products)


def first_fault(
    positions: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    count: int,
    allowed: npt.NDArray[np.bool_],
    least: int,
) -> int:
    """``8 * row + fault`` of the first query whose positions (q, m) and scores (q, m) break a rule, -1 if none does."""
    for row, (places, worths) in enumerate(zip(positions.tolist(), scores.tolist(), strict=True)):
        length = places.index(-1) if -1 in places else len(places)
        real, before = places[:length], list(zip(worths, places, strict=True))[:length]
        faults = (
            any(not -1 <= place < count for place in places),
            any(place != -1 for place in places[length:]) or any(worth != -np.inf for worth in worths[length:]),
            any(worth != worth for worth, _ in before),
            any((-one[0], one[1]) > (-two[0], two[1]) for one, two in pairwise(before)),
            len(set(real)) != length,
            length < least,
            len(allowed) > 0 and not all(allowed[place] for place in real if 0 <= place < count),
        )
        if any(faults):
            return 8 * row + faults.index(True)
    return -1


def rank_nominated(
    metric: Metric,
    query: npt.NDArray[Any],
    rows: npt.NDArray[Any],
    nominated: npt.NDArray[np.int64],
    said: npt.NDArray[np.float32],
    places: npt.NDArray[np.int64],
    allowed: npt.NDArray[np.bool_],
    least: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
    """`rank_pools` of nominated numbers (m,), number i standing for the row places[i]; None if a rule is broken."""
    if first_fault(nominated[None], said[None], len(places), allowed, least) >= 0:
        return None
    pool = places[nominated[nominated >= 0]]
    if any(not 0 <= place < len(rows) for place in pool):
        return None
    return rank_pools(metric, query, rows, pool)


# --- the construction of a graph --------------------------------------------------------------------------


def load_rows(rows: F64, wanted: npt.NDArray[np.int32]) -> F64:
    """Rows (n, wide) as kernels load them, those at wanted (r,)."""
    return rows[wanted]


def number_rows(rows: npt.NDArray[np.float32]) -> list[int]:
    """A 64-bit number for each loaded row (r, wide)."""
    numbers = []
    for bits in (rows + np.float32(0.0)).view(np.uint32).tolist():
        number = 0x9E3779B97F4A7C15
        for value in bits:
            number = (number ^ (0 if value == 1 << 31 else value)) * 0xBF58476D1CE4E5B9 % (1 << 64)
            number ^= number >> 32
        numbers.append(number)
    return numbers


def nearest_leaders(rows: F64, leaders: F64, fan: int) -> npt.NDArray[np.int64]:
    """The places of the `fan` nearest leaders (m, wide) of each row (r, wide), nearest first."""
    return np.argsort(_squares(rows, leaders), axis=1, kind="stable")[:, :fan]


def _squares(left: F64, right: F64) -> F64:
    return np.asarray(((left[:, None, :] - right[None, :, :]) ** 2).sum(axis=2))


def leaf_neighbours(rows: F64, members: npt.NDArray[np.int32], most: int) -> npt.NDArray[np.int64]:
    """The `most` nearest others of each member (m,) of a leaf, as positions in rows (n, wide); -1 behind the last."""
    squares = _squares(rows[members], rows[members])
    squares[members[:, None] == members[None, :]] = np.inf
    order = np.argsort(squares, axis=1, kind="stable")[:, :most]
    found = np.where(np.isinf(np.take_along_axis(squares, order, axis=1)), -1, members[order])
    return np.pad(found, ((0, 0), (0, max(0, most - found.shape[1]))), constant_values=-1)


def prune_rows(
    rows: F64, target: int, candidates: list[int], alpha: float, mark: bool, considered: int, most: int
) -> list[int]:
    """The neighbours of one target among candidates, positions in rows (n, wide), nearest first."""
    named = {row if row >= -1 else -2 - row for row in candidates}
    distances = {row: float(((rows[row] - rows[target]) ** 2).sum()) for row in named - {target, -1}}
    near = sorted(distances, key=lambda row: (np.float32(distances[row]), row))[:considered]
    chosen: list[int] = []
    for row in near:
        if all(alpha * ((rows[row] - rows[other]) ** 2).sum() > distances[row] for other in chosen):
            chosen = [*chosen, row][:most]
    others = [row for row in near if row not in chosen][: most - len(chosen)]
    marked = {row: -2 - row for row in others if mark}
    return [marked.get(row, row) for row in near if row in chosen or row in others]


def spread(neighbours: npt.NDArray[np.int32], start: list[int]) -> set[int]:
    """The rows that those at `start` lead to, themselves included."""
    seen, todo = set(start), list(start)
    while todo:
        for other in neighbours[todo.pop()].tolist():
            if other >= 0 and other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def reverse_lists(neighbours: npt.NDArray[np.int32], rows: npt.NDArray[np.int32]) -> dict[int, list[int]]:
    """For each row that is named by neighbours (t, R) of rows (t,), by whom, in their order."""
    lists: dict[int, list[int]] = {}
    for row, listed in zip(rows.tolist(), neighbours.tolist(), strict=True):
        for other in listed:
            if other >= 0:
                lists.setdefault(other, []).append(row)
    return lists


def walk(
    rows: F64, neighbours: npt.NDArray[np.int32], entries: npt.NDArray[np.int32], target: int, effort: int
) -> list[int]:
    """The rows that a best-first search with a pool of `effort` meets, nearest first."""

    def key(row: int) -> tuple[np.float32, int]:
        return np.float32(((rows[row] - rows[target]) ** 2).sum()), row

    seen = set(entries.tolist())
    pool, expanded = sorted(seen, key=key)[:effort], set[int]()
    while todo := [row for row in pool if row not in expanded]:
        expanded.add(todo[0])
        fresh = {other for other in neighbours[todo[0]].tolist() if other >= 0} - seen
        seen |= fresh
        pool = sorted({*pool, *fresh}, key=key)[:effort]
    return pool


def insert_edge(rows: F64, listed: list[int], children: set[int], host: int, row: int, most: int) -> list[int] | None:
    """The neighbours of `host` with `row`; without the last that is no child if they were `most`; None if all are."""
    kept = list(listed)
    if len(kept) == most:
        given_up = [other for other in kept if other not in children]
        if not given_up:
            return None
        kept.remove(given_up[-1])
    return sorted([*kept, row], key=lambda other: float(((rows[other] - rows[host]) ** 2).sum()))


def search_graph(
    estimates: F64,
    exact: F64,
    neighbours: npt.NDArray[np.int32],
    entries: npt.NDArray[np.int64],
    allowed: npt.NDArray[np.bool_] | None,
    effort: int,
) -> list[int]:
    """All rows that a walk for one query expands, by exact distance; estimates (n,) and exact (n,) are distances."""
    count = len(estimates)
    pool: list[int] = []
    expanded: set[int] = set()
    met: set[int] = set()

    def offer(row: int) -> None:
        if row not in pool:
            pool.append(row)
            pool.sort(key=lambda each: (estimates[each], each))
            del pool[effort:]

    def may(row: int) -> bool:
        return allowed is None or bool(allowed[row])

    def linked(row: int, first: int = 0, last: int = neighbours.shape[1]) -> list[int]:
        return [other for other in neighbours[row, first:last].tolist() if 0 <= other < count]

    def expand(row: int) -> None:
        found, bridges = 0, []
        for first in range(0, neighbours.shape[1], 32):
            floor = estimates[pool[-1]] if len(pool) == effort else np.inf
            for other in linked(row, first, first + 32):
                if estimates[other] <= floor and may(other):
                    offer(other)
                    found += 1
                elif estimates[other] <= floor and other not in met:
                    met.add(other)
                    bridges.append(other)
        for bridge in bridges:
            if found >= 32:
                break
            for other in linked(bridge):
                if may(other) and other not in met:
                    met.add(other)
                    offer(other)
                    found += 1

    for row in entries.tolist():
        if 0 <= row < count and may(row):
            offer(row)
    for seed in range(64 if allowed is not None else 0):
        for row in range(seed * count // 64, (seed + 1) * count // 64):
            if may(row):
                offer(row)
                break
    while todo := [row for row in pool if row not in expanded]:
        expanded.add(todo[0])
        expand(todo[0])
    return sorted(expanded, key=lambda row: (exact[row], row))


def search_listed(estimates: F64, exact: F64, listed: npt.NDArray[np.int64], effort: int) -> list[int]:
    """The rows of which exact distances are computed, by these; estimates (n,) and exact (n,) are distances."""
    nearest = sorted(listed.tolist(), key=lambda row: (estimates[row], row))[:effort]
    return sorted(nearest, key=lambda row: (exact[row], row))
