"""Search of a proximity graph by estimated distances, compiled.

Ladder: `search_graph`, `search_listed` (kernels, all queries of a call) <- `vecdb.indexes.graph_walk`. A pool holds
the best `effort` rows by *estimated* distance, one uint64 an entry: ordered distance bits, the number of the row,
whether it was expanded. The best row that was not is expanded: its exact distance is computed where the vector lies,
its neighbours are estimated and offered to the pool; what was expanded is answered by exact distance. An estimate
belongs to a row, not to the way that led there, so a row that is offered again meets its own key in the pool: nothing
marks what was seen. Sources: Gao & Long, "RaBitQ", SIGMOD 2024 (estimator); Gou et al., "SymphonyQG", SIGMOD 2025
(estimates guide, exact distances of expanded rows answer; codes of neighbours beside the row); Patel et al., "ACORN",
SIGMOD 2024 (rows that are not allowed are bridges to their neighbours). Layouts: `vecdb.indexes.graph_layout`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._asked import (
    BLOCK,
    FAR,
    LINE,
    PLANES,
    Asked,
    Stored,
    address_at,
    address_of,
    block_estimates,
    exact_distance,
    filled,
    lay_out,
    prepare,
    record_estimate,
)
from vecdb.kernels._intrinsics import (
    bytes_at,
    count_below,
    first_bit,
    floats_at,
    keys_at,
    longs_at,
    move_words,
    not_above,
    prefetch,
    words_at,
)
from vecdb.kernels._jit import helper, inline_helper, kernel, read, write

__all__ = ["FIELDS", "lay_walk", "scratch_words", "search_graph", "search_listed"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

FIELDS = (
    "count",
    "entries",
    "first",
    "links_shift",
    "links_bytes",
    "links_pieces",
    "codes_shift",
    "codes_bytes",
    "codes_pieces",
    "degree",
    "beside",
    "form",
    "half",
    "effort",
)
"""What ``plan[0]`` and so on stand for; `beside`: whether the codes of neighbours lie beside them."""
_SEEDS = 64
_AHEAD, _SOON = 16, 3
"""Codes, and vectors, that are asked for ahead of the one that is looked at."""
_NOWHERE = np.float32(np.inf)
_NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Behind every entry: no distance has these bits."""


class Walk(NamedTuple):
    """What a search goes through, as addresses and numbers: links, codes, what is allowed, and its scratch.

    allowed (n,) bool or 0; met (n / 8 + 1,) uint8; pool (effort,) and best (k,) uint64; state (4,) int64: entries of
    the pool, the first of them that was not expanded, entries of best, rows that were told; trail (room,) int64;
    values (32,) float32; bridges (degree,) int64.
    """

    links: int
    links_shift: int
    links_bytes: int
    codes: int
    codes_shift: int
    codes_bytes: int
    rows: int
    degree: int
    beside: int
    allowed: int
    met: int
    pool: int
    effort: int
    best: int
    k: int
    state: int
    trail: int
    room: int
    values: int
    bridges: int


# --- keys -------------------------------------------------------------------------------------------------


@inline_helper
def _pool_key(distance: np.float32, row: int) -> np.uint64:
    """Return a number that orders by distance, then by row; its lowest bit is free. Both zeros are one."""
    bits = np.uint64(np.float32(distance).view(np.uint32))
    if bits == np.uint64(0x80000000):
        bits = np.uint64(0)
    ordered = bits ^ np.uint64(0xFFFFFFFF) if bits >> np.uint64(31) else bits | np.uint64(0x80000000)
    return np.uint64(ordered << np.uint64(32)) | np.uint64(row << 1)


@inline_helper
def _row_of(entry: np.uint64) -> int:
    return int(np.int64((entry & np.uint64(0xFFFFFFFF)) >> np.uint64(1)))


@inline_helper
def _distance_of(entry: np.uint64) -> np.float32:
    bits = entry >> np.uint64(32)
    plain = bits ^ np.uint64(0x80000000) if bits >> np.uint64(31) else bits ^ np.uint64(0xFFFFFFFF)
    return np.float32(np.uint32(plain).view(np.float32))


@inline_helper
def _clear(address: int, most: int) -> None:
    """Fill a pool, and what is counted behind it, with what is behind every entry."""
    keys_at(address, most + BLOCK)[:] = _NOTHING


@inline_helper
def _place_of(address: int, size: int, entry: np.uint64) -> int:
    """Return where an entry belongs in a pool: blocks are skipped, one is counted; a search by halves guesses wrong."""
    place = 0
    while place + BLOCK < size and keys_at(address + 8 * (place + BLOCK), 1)[0] < entry:
        place += BLOCK
    return place + count_below(address + 8 * place, entry)


@inline_helper
def _insert(address: int, most: int, size: int, entry: np.uint64) -> int:
    """Put an entry into a sorted pool, whose last falls out if it is full; return its place, -1 if it is not taken."""
    pool = keys_at(address, most + 1)
    if size == most and entry >= pool[most - 1]:
        return -1
    place = _place_of(address, size, entry)
    if pool[place] >> np.uint64(1) == entry >> np.uint64(1):
        return -1
    move_words(address + 8 * place + 8, address + 8 * place, min(size, most - 1) - place)
    pool[place] = entry
    return place


# --- the walk ---------------------------------------------------------------------------------------------


@inline_helper
def _links_at(walk: Walk, row: int) -> int:
    shift = walk.links_shift
    return int(longs_at(walk.links + 8 * (row >> shift), 1)[0] + (row & ((1 << shift) - 1)) * walk.links_bytes)


@inline_helper
def _code_at(walk: Walk, row: int) -> int:
    shift = walk.codes_shift
    return int(longs_at(walk.codes + 8 * (row >> shift), 1)[0] + (row & ((1 << shift) - 1)) * walk.codes_bytes)


@inline_helper
def _prefetch(address: int, size: int) -> None:
    for offset in range(0, size, LINE):
        prefetch(address + offset)


@inline_helper
def _meet(walk: Walk, row: int) -> bool:
    """Note that a row was met; return whether it was before."""
    flags = bytes_at(walk.met + (row >> 3), 1)
    known = flags[0] >> (row & 7) & 1
    flags[0] |= np.uint8(1 << (row & 7))
    return bool(known)


@inline_helper
def _is_allowed(walk: Walk, row: int) -> bool:
    return bool(bytes_at(walk.allowed + row, 1)[0])


@inline_helper
def _offer(walk: Walk, distance: np.float32, row: int) -> None:
    """Offer a row to the pool."""
    state = longs_at(walk.state, 4)
    place = _insert(walk.pool, walk.effort, state[0], _pool_key(distance, row))
    if place >= 0:
        state[0] = min(state[0] + 1, walk.effort)
        state[1] = min(state[1], place)


@inline_helper
def _note(walk: Walk, row: int, expanded: int) -> None:
    """Keep what was read, for whoever has to prove it; the count goes on where there is no room."""
    if walk.room:
        state, trail = longs_at(walk.state, 4), longs_at(walk.trail, walk.room)
        if state[3] + 1 < walk.room:
            trail[state[3] + 1] = row << 1 | expanded
        state[3] += 1
        trail[0] = state[3]


@helper
def _offer_known(walk: Walk, asked: Asked, row: int) -> None:
    """Offer a row whose code is read where all codes lie."""
    _offer(walk, record_estimate(asked, _code_at(walk, row)), row)


@inline_helper
def _floor(walk: Walk) -> np.float32:
    """Return the distance above which nothing is taken."""
    size = longs_at(walk.state, 4)[0]
    return _distance_of(keys_at(walk.pool, size)[size - 1]) if size == walk.effort else FAR


@inline_helper
def _apart_estimates(walk: Walk, asked: Asked, ids: I32, values: F32) -> None:
    """Write the estimated distances of 32 rows whose codes lie where all codes do; where there is none, infinity."""
    for place in range(BLOCK):
        row = int(np.int64(ids[place]))
        if 0 <= row < walk.rows:
            _prefetch(_code_at(walk, row), walk.codes_bytes)
            prefetch(_code_at(walk, row) + walk.codes_bytes - 1)
    for place in range(BLOCK):
        row = int(np.int64(ids[place]))
        known = 0 <= row < walk.rows
        values[place] = record_estimate(asked, _code_at(walk, row)) if known else _NOWHERE


@inline_helper
def _expand(walk: Walk, asked: Asked, address: int) -> None:
    """Offer the neighbours near enough for the pool; those that are not allowed are bridges to their neighbours."""
    found, held, bridges = 0, 0, longs_at(walk.bridges, walk.degree)
    size = _block_bytes(walk)
    for number in range(walk.degree // BLOCK):
        block = address + number * size
        ids, values = words_at(block, BLOCK), floats_at(walk.values, BLOCK)
        if walk.beside:
            block_estimates(asked, block, values)
        else:
            _apart_estimates(walk, asked, ids, values)
        below = not_above(walk.values, _floor(walk))
        while below:
            place = first_bit(below)
            below &= below - np.uint64(1)
            row = int(np.int64(ids[place]))
            if 0 <= row < walk.rows:
                if not walk.allowed or _is_allowed(walk, row):
                    _offer(walk, values[place], row)
                    found += 1
                elif not _meet(walk, row):
                    bridges[held] = row
                    held += 1
                    _prefetch(_links_at(walk, row), 4 * BLOCK)
    if held:
        _cross(walk, asked, held, found)


@inline_helper
def _block_bytes(walk: Walk) -> int:
    """Return the bytes from one block of 32 neighbours to the next."""
    return walk.links_bytes // (walk.degree // BLOCK)


@helper
def _cross(walk: Walk, asked: Asked, held: int, found: int) -> None:
    """Offer the allowed neighbours of bridges, until it is a block."""
    bridges, size = longs_at(walk.bridges, walk.degree), _block_bytes(walk)
    for number in range(held):
        if found >= BLOCK:
            break
        address = _links_at(walk, bridges[number])
        _note(walk, bridges[number], 0)
        for place in range(walk.degree):
            at = address + place // BLOCK * size + 4 * (place % BLOCK)
            row = int(np.int64(words_at(at, 1)[0]))
            if 0 <= row < walk.rows and _is_allowed(walk, row) and not _meet(walk, row):
                _offer_known(walk, asked, row)
                found += 1


@helper
def _start(walk: Walk, asked: Asked, entries: I64) -> None:
    """Offer the entries, and of a restricted search rows spread over what is allowed."""
    masked = walk.allowed != 0
    for place in range(entries.shape[0]):
        row = entries[place]
        if 0 <= row < walk.rows and (not masked or _is_allowed(walk, row)):
            _offer_known(walk, asked, row)
    if not masked:
        return
    for seed in range(_SEEDS):
        for row in range(seed * walk.rows // _SEEDS, (seed + 1) * walk.rows // _SEEDS):
            if _is_allowed(walk, row):
                _offer_known(walk, asked, row)
                break


@inline_helper
def _next(walk: Walk) -> int:
    """Return the nearest row that was not expanded, marking it, and move to the one behind it; -1 if there is none."""
    state = longs_at(walk.state, 4)
    pool, size, place = keys_at(walk.pool, walk.effort), state[0], state[1]
    while place < size and pool[place] & np.uint64(1):
        place += 1
    state[1] = place
    if place >= size:
        return -1
    pool[place] |= np.uint64(1)
    return _row_of(pool[place])


@inline_helper
def _look_ahead(walk: Walk, stored: Stored, dim_bytes: int) -> None:
    """Ask for what the next row to be expanded will need."""
    state = longs_at(walk.state, 4)
    pool, size, place = keys_at(walk.pool, walk.effort), state[0], state[1]
    while place < size and pool[place] & np.uint64(1):
        place += 1
    if place < size:
        row = _row_of(pool[place])
        _prefetch(_links_at(walk, row), walk.links_bytes)
        address, scale = address_of(stored, row, dim_bytes)
        _prefetch(address, dim_bytes)
        prefetch(scale)


@inline_helper
def _look_ahead_of(walk: Walk, stored: Stored, dim_bytes: int) -> None:
    """Ask for the vector that is scored a little later; nothing is put before it any more."""
    state = longs_at(walk.state, 4)
    if state[1] + _SOON < state[0]:
        address, scale = address_of(stored, _row_of(keys_at(walk.pool, walk.effort)[state[1] + _SOON]), dim_bytes)
        _prefetch(address, dim_bytes)
        prefetch(scale)


@inline_helper
def _score(walk: Walk, asked: Asked, stored: Stored, row: int, dim_bytes: int) -> None:
    """Offer a row to the answer, by its exact distance."""
    _note(walk, row, 1)
    address, scale = address_of(stored, row, dim_bytes)
    if address:
        state = longs_at(walk.state, 4)
        found = _pool_key(exact_distance(stored, asked, address, scale), row)
        if _insert(walk.best, walk.k, state[2], found) >= 0:
            state[2] = min(state[2] + 1, walk.k)


@helper
def _run(walk: Walk, asked: Asked, stored: Stored) -> None:
    """Expand rows until all of the pool are."""
    dim_bytes = asked.dim * (2 if stored.half else 4)
    row = _next(walk)
    while row >= 0:
        _look_ahead(walk, stored, dim_bytes)
        _score(walk, asked, stored, row, dim_bytes)
        _expand(walk, asked, _links_at(walk, row))
        row = _next(walk)


@helper
def _answer(walk: Walk, positions: I64, scores: F32) -> None:
    """Write what was found, best first."""
    best, held = keys_at(walk.best, walk.k), longs_at(walk.state, 4)[2]
    for place in range(walk.k):
        inside = place < held
        positions[place] = _row_of(best[place]) if inside else -1
        scores[place] = -_distance_of(best[place]) if inside else np.float32(-np.inf)


@helper
def _offer_listed(walk: Walk, asked: Asked, listed: I64) -> None:
    """Offer listed rows by their codes, which lie apart: each is asked for before it is needed."""
    last, floor = listed.shape[0] - 1, FAR
    for place in range(listed.shape[0]):
        ahead = listed[min(place + _AHEAD, last)]
        if 0 <= ahead < walk.rows:
            prefetch(_code_at(walk, ahead))
            prefetch(_code_at(walk, ahead) + walk.codes_bytes - 1)
        row = listed[place]
        if 0 <= row < walk.rows:
            distance = record_estimate(asked, _code_at(walk, row))
            if distance <= floor:
                _offer(walk, distance, row)
                floor = _floor(walk)


@helper
def _score_pool(walk: Walk, asked: Asked, stored: Stored) -> None:
    """Compute the exact distance of every row of the pool."""
    dim_bytes = asked.dim * (2 if stored.half else 4)
    row = _next(walk)
    while row >= 0:
        _look_ahead_of(walk, stored, dim_bytes)
        _score(walk, asked, stored, row, dim_bytes)
        row = _next(walk)


@helper
def lay_walk(address: int, degree: int, k: int, effort: int) -> tuple[int, int, int, int, int, int]:
    """Lay the scratch of a walk out from an address on: state, values, bridges, best, pool, and what was met."""
    bridges = address + 3 * LINE
    best = bridges + 8 * degree
    pool = best + filled(8 * (k + BLOCK))
    return address, address + LINE, bridges, best, pool, pool + filled(8 * (effort + BLOCK))


@inline_helper
def _stored(blocks: I64, places: I64, plan: I64) -> Stored:
    there = address_at(places) if places.shape[0] else 0
    return Stored(address_at(blocks), blocks.shape[0] - 2, there, plan[2], plan[11], plan[12])


@inline_helper
def _walk(desk: Asked, maps: I64, plan: I64, allowed: int, k: int, trail: I64) -> Walk:
    """Return what a search goes through; `desk` is where its scratch begins."""
    degree, effort = plan[9], plan[13]
    state, values, bridges, best, pool, met = lay_walk(desk.raised + LINE * desk.words, degree, k, effort)
    return Walk(
        address_at(maps),
        plan[3],
        plan[4],
        address_at(maps) + 8 * plan[5],
        plan[6],
        plan[7],
        plan[0],
        degree,
        plan[10],
        allowed,
        met,
        pool,
        effort,
        best,
        k,
        state,
        address_at(trail),
        trail.shape[0],
        values,
        bridges,
    )


@inline_helper
def _begin(anchors: F32, signs: F32, form: int, asked: Asked, walk: Walk) -> None:
    """Prepare a query, and empty what its search fills."""
    prepare(anchors, signs, form, asked)
    longs_at(walk.state, 4)[:] = 0
    _clear(walk.pool, walk.effort)
    _clear(walk.best, walk.k)


@kernel(
    (
        read(types.float32, 2),
        read(types.float32, 2),
        read(types.float32, 2),
        read(types.int64, 2),
        read(types.int64),
        read(types.int64),
        read(types.boolean),
        read(types.int64),
        write(types.uint64),
        write(types.int64, 2),
        write(types.float32, 2),
        write(types.int64, 2),
    ),
    twin=reference.search_graph,
)
def search_graph(
    queries: F32,
    anchors: F32,
    signs: F32,
    blocks: I64,
    places: I64,
    maps: I64,
    allowed: Bools,
    plan: I64,
    scratch: U64,
    positions: I64,
    scores: F32,
    trails: I64,
) -> None:
    """Write the k best rows that a walk finds for each query: positions (q, k), scores (q, k), then -1 and -inf.

    queries (q, dim); anchors (cells + 1, dim + 1), each centre and its square, then the mean and its square;
    signs (rounds, D); blocks (B + 1, 3) as `VectorBlocks.scan_table`; places (n,), or (0,) if rows follow each other;
    maps (m,), addresses of the pieces of links, of those of codes, then the entries; allowed (n,), or (0,) for all
    rows; plan (14,), see `FIELDS`; scratch (s,), see `scratch_words`; trails (q, t): how many rows were read, then
    each of them twice, plus one where its vector was read too; t may be 0. Every number that is followed is compared
    with n. The caller has proven all shapes, and keeps what the addresses name.
    """
    masked, k = allowed.shape[0] > 0, positions.shape[1]
    entries = maps[plan[5] + plan[8] : plan[5] + plan[8] + plan[1]]
    desk = lay_out(filled(address_at(scratch)), signs.shape[1], queries.shape[1], anchors.shape[0] - 1)
    stored = _stored(blocks, places, plan)
    for number in range(queries.shape[0]):
        asked = Asked(address_at(queries[number]), *desk[1:])
        going = _walk(desk, maps, plan, address_at(allowed) if masked else 0, k, trails[number])
        _begin(anchors, signs, plan[11], asked, going)
        if masked:
            bytes_at(going.met, plan[0] // 8 + 1)[:] = np.uint8(0)
        _start(going, asked, entries)
        _run(going, asked, stored)
        _answer(going, positions[number], scores[number])


@kernel(
    (
        read(types.float32, 2),
        read(types.float32, 2),
        read(types.float32, 2),
        read(types.int64, 2),
        read(types.int64),
        read(types.int64),
        read(types.int64),
        read(types.int64),
        write(types.uint64),
        write(types.int64, 2),
        write(types.float32, 2),
        write(types.int64, 2),
    ),
    twin=reference.search_listed,
)
def search_listed(
    queries: F32,
    anchors: F32,
    signs: F32,
    blocks: I64,
    places: I64,
    maps: I64,
    listed: I64,
    plan: I64,
    scratch: U64,
    positions: I64,
    scores: F32,
    trails: I64,
) -> None:
    """Write the k best of listed rows for each query: those that look nearest by their codes, by exact distance.

    listed (l,): distinct rows, of which `effort` are computed exactly; nothing is walked. Everything else is as in
    `search_graph`.
    """
    desk = lay_out(filled(address_at(scratch)), signs.shape[1], queries.shape[1], anchors.shape[0] - 1)
    stored = _stored(blocks, places, plan)
    for number in range(queries.shape[0]):
        asked = Asked(address_at(queries[number]), *desk[1:])
        going = _walk(desk, maps, plan, 0, positions.shape[1], trails[number])
        _begin(anchors, signs, plan[11], asked, going)
        _offer_listed(going, asked, listed)
        _score_pool(going, asked, stored)
        _answer(going, positions[number], scores[number])


def scratch_words(width: int, cells: int, degree: int, k: int, effort: int, met: int) -> int:
    """Return the length of the scratch of a search; `met` is the number of rows if some are not allowed, else 0."""
    words = (width + 63) // 64
    query = 8 * width + (8 * PLANES + LINE) * words + 4 * cells + 9 * LINE
    walk = 8 * (degree + k + effort + 2 * BLOCK) + met // 8 + 1 + 5 * LINE
    return (query + walk + LINE) // 8 + 1
