"""The rules of the index contract as checks, one function each; docs/reference/index-contract.md is made from them.

A letter stands for a group, and for a module here. A check is about one rule: what other rules forbid is left out of
the answers it looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vecdb.testing.checks import Check, applying, collect
from vecdb.testing.index_checks import describing, feeding, finding, keeping_apart, living, searching

__all__ = ["INDEX_CHECKS", "iter_index_checks"]

INDEX_CHECKS: tuple[Check, ...] = collect(
    *(vars(group).values() for group in (describing, feeding, searching, finding, living, keeping_apart))
)
"""Every rule, in the order of their numbers."""


def iter_index_checks(index_type: Any) -> Iterator[Check]:
    """Yield the checks that apply to an index type, by the capabilities it declares."""
    return applying(INDEX_CHECKS, index_type)
