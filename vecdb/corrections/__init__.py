"""Corrections of hubness: what is added to the scores of rows that are near to everything.

Owns the arithmetic alone: which numbers a row gets from a bank of queries (`banks`), what they make of a score
(`adjust`), and exact search by corrected scores in one pass (`scan`). What is stored, and kept up with new rows, is the
engine's. Design: docs/explanation/hubness.md.
"""

from vecdb.corrections.adjust import Adjustment
from vecdb.corrections.banks import Banks, Own, columns_of, csls_of, directed, image_of, reach_of
from vecdb.corrections.kinds import KINDS, Kind, kind_named
from vecdb.corrections.scan import Corrected, search

__all__ = [
    "KINDS",
    "Adjustment",
    "Banks",
    "Corrected",
    "Kind",
    "Own",
    "columns_of",
    "csls_of",
    "directed",
    "image_of",
    "kind_named",
    "reach_of",
    "search",
]
