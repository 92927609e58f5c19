"""`where`: which records a condition on metadata selects.

`parse` checks a condition once and returns a `Condition`, which answers for one record (`matches`) or for a chunk of
columns (`mask`). Invariant: both give the same answer for every record. Meaning: docs/reference/where.md.
"""

from vecdb.engine.where.condition import Condition
from vecdb.engine.where.parse import parse

__all__ = ["Condition", "parse"]
