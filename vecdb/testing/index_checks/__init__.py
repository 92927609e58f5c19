"""The rules of the index contract as checks, one function each; docs/reference/index-contract.md is made from them.

A letter stands for a group, and for a module here. A check is about one rule: what other rules forbid is left out of
the answers it looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vecdb.testing.checks import Check, applying, collect
from vecdb.testing.index_checks import describing, feeding, finding, keeping_apart, living, searching

__all__ = ["CHECKS", "GROUPS", "iter_index_checks"]

CHECKS: tuple[Check, ...] = collect(
    *(vars(group).values() for group in (describing, feeding, searching, finding, living, keeping_apart))
)
"""Every rule, in the order of their numbers."""

GROUPS = {
    "D": "what an index type says of itself",
    "I": "what it is given, and must live with",
    "S": "what a search returns",
    "Q": "whether the candidates are the right ones",
    "L": "building, storing, loading, growing and shrinking",
    "X": "what it must not touch, keep or trust",
}
"""Letter of a group -> what its rules are about."""


def iter_index_checks(index_type: Any) -> Iterator[Check]:
    """Yield the checks that apply to an index type, by the capabilities it declares."""
    return applying(CHECKS, index_type)
