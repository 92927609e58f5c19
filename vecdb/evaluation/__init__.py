"""What a ranking is worth, and how sure that is: exact rankings, metrics, groups and splits, intervals, hubness.

Owns every number by which maps and models are compared. Plain functions over arrays: nothing here knows a database, a
transform or a file. Invariant: ties go to the smaller row, randomness comes from a seed that is given, memory is
bounded by the block sizes. Protocol: docs/explanation/evaluation.md.
"""

from __future__ import annotations

from vecdb.evaluation.groups import joined, near_duplicates
from vecdb.evaluation.hubness import csls_bias, occurrences, skewness
from vecdb.evaluation.intervals import Estimate, paired, predict_mean, predict_ratio
from vecdb.evaluation.judged import Judged
from vecdb.evaluation.metrics import Measures, measure, ndcg_at, recall_of, reciprocal_rank
from vecdb.evaluation.ranking import ranks_of, scores_between, top_k
from vecdb.evaluation.splits import split

__all__ = [
    "Estimate",
    "Judged",
    "Measures",
    "csls_bias",
    "joined",
    "measure",
    "ndcg_at",
    "near_duplicates",
    "occurrences",
    "paired",
    "predict_mean",
    "predict_ratio",
    "ranks_of",
    "recall_of",
    "reciprocal_rank",
    "scores_between",
    "skewness",
    "split",
    "top_k",
]
