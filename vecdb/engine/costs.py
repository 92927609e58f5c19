"""What a scan of some vectors costs, and what a search of an index: which of the two answers a condition sooner.

Nanoseconds of one processor, as measured on float32 vectors of 384 components in the page cache: scans of listed rows,
codes of 36,000 and 1,000,000 vectors, walks over graphs of as many. They need to be right within a factor of two only,
because both ways cost about the same where they meet; so they are constants, and plans do not depend on the machine.
"""

from __future__ import annotations

from typing import Final

from vecdb.contracts.index import IndexCapabilities

ROW: Final = 25.0
BYTE: Final = 0.05
"""A scanned row: once, and for each of its bytes; rows that a mask lists lie apart, and each is fetched anew."""
CODE_BIT: Final = 0.006
"""A code that is compared, for each of its bits, those that are masked out included."""
EXAMINED: Final = 150.0
"""A candidate of a scan of codes, scored exactly."""
STEP: Final = 3_500.0
"""A candidate in the pool of a walk, with the neighbours that are met and the vectors that are read for it."""
PLAIN_STEP: Final = 600.0
POOL: Final = 0.6
"""A candidate in the pool of a walk without a condition, and for each that the pool has to be kept in order with."""
CALL: Final = 60_000.0
"""Asking an index at all: preparing the query, crossing the border."""
USUAL_EFFORT: Final = 100
DEAR_FROM: Final = 256
"""Efforts below are never weighed: they are what small collections are asked with, whose answers cost nothing."""
LISTED_BIT: Final = 0.055
"""A code of an allowed vector that is looked at where it lies, for each of its bits."""
LISTED_CALL: Final = 15_000.0
WALK_SHARE: Final = 0.03
CODE_SHARE: Final = 0.005
"""With a smaller share of allowed vectors the neighbours of neighbours hold too few of them for a walk: 0.92 of the
neighbours were found at 2 %, where 0.95 were without a condition, and 0.87 at 1 %. Codes lose nothing by that."""


def scan_cost(rows: int, row_bytes: int) -> float:
    """Return what scanning `rows` listed rows costs."""
    return rows * (ROW + BYTE * row_bytes)


def search_cost(
    able: IndexCapabilities, count: int, matches: int, dim: int, effort: int | None, *, coded: bool
) -> float:
    """Return what searching a part of `count` vectors costs, of which some are allowed; of unknown types, a walk."""
    examined = USUAL_EFFORT if effort is None else effort
    if scans_codes(able, coded=coded):
        return CALL + CODE_BIT * dim * count + EXAMINED * examined
    walk = CALL + STEP * examined
    return min(walk, LISTED_CALL + LISTED_BIT * dim * matches + EXAMINED * examined) if able.lists else walk


def is_dear(able: IndexCapabilities, count: int, row_bytes: int, effort: int, *, coded: bool) -> bool:
    """Whether a walk without a condition takes so large an effort that a scan of all vectors is sooner done."""
    walk = effort * (PLAIN_STEP + POOL * effort)
    return not scans_codes(able, coded=coded) and effort >= DEAR_FROM and walk > count * row_bytes * BYTE


def scans_codes(able: IndexCapabilities, *, coded: bool) -> bool:
    """Whether a part answers by a pass over codes: all parts of a type that encodes, or those that are encoded."""
    return able.encodes_segments and (coded or not able.part_from)


def least_share(able: IndexCapabilities, *, coded: bool) -> float:
    """Return the share of allowed vectors below which a part is scanned whatever that costs."""
    if able.lists and not coded:
        return 0.0
    return CODE_SHARE if scans_codes(able, coded=coded) else WALK_SHARE
