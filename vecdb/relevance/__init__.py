"""vecdb's own kinds of relevance filter, registered through the same hook as anybody else's.

One family a file; formulas, sources, what each is for and what it is worth: docs/explanation/relevance.md.
"""

from __future__ import annotations

from vecdb.contracts.relevance import RelevanceFilterType
from vecdb.hookspecs import hookimpl
from vecdb.relevance.adapter import AdapterType
from vecdb.relevance.background import BackgroundType
from vecdb.relevance.conformal import ConformalType
from vecdb.relevance.outlier import OutlierType
from vecdb.relevance.scored import CalibratedType, GapType, ThresholdType

__all__ = ["vecdb_register_relevance_filters"]


@hookimpl
def vecdb_register_relevance_filters() -> list[RelevanceFilterType]:
    """Return vecdb's own kinds of relevance filter, the simple ones first."""
    by_score: list[RelevanceFilterType] = [ThresholdType(), GapType(), CalibratedType(), ConformalType()]
    return [*by_score, AdapterType(), BackgroundType(), OutlierType()]
