"""How far a float32 scan score can be from the canonical one: the proof behind every exact search.

Owns the error bounds that the numpy scan and the compiled scans share. Invariant: for every row ``r``

    ``lower(r) <= key(r) <= upper(r)``,   ``lower, upper = a(r) -/+ (slope * s(r) + offset)``,

where ``a`` is the float32 approximation, ``s`` the row's scale (for the direct l2 scan: the squared distance found)
and ``key`` a strictly increasing function of the float32-rounded canonical score ``v``. Then at least k rows have a
key of at least L, the k-th largest ``lower``, so a row of the true top k, ties by position included, has
``upper >= key >= L``: keeping every row with ``upper >= L`` can never lose a winner, however many rows tie.

Notation: u = 2**-24, d the width, g = d u / (1 - d u) the bound of a float32 inner product summed in any order, with
or without fused multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1, eq. 3.5):
``|fl(q.x) - q.x| <= g |q| |x|``. For d <= 65,536: g <= 1.0040 d u. All bounds use ``c = 1.02 (d + 16) u``; the spare
``0.016 d u + 16.3 u`` pays for what else is rounded, counted per form below. Canonical scores are float64 sums whose
own error, below (d / 8 + 3) 2**-53 relative, disappears in that spare, as does the rounding of the bound itself.

==============  ============  ========================  =============================================================
form            a             key                       error, in units of u beyond g
==============  ============  ========================  =============================================================
cosine          S s           v                         S = fl(q'.x), q' = fl(q / |q|): 1; s = fl(1/|x|): 1; product: 1;
                                                        v: 1; a -/+ e: 1.02. Sum 5.1, bound ``c``
dot             S             v                         v: 1, a -/+ e: 1.02, s = fl(|x|): 1; times |q| |x|: ``c |q| s``
l2, expanded    2 S - s       |q|**2 - v**2             2 |q||x| <= |q|**2 + |x|**2 gives g; on |x|**2: s 1, difference
                                                        2.02, v 4.01, a -/+ e 2.02; on |q|**2: 6.1. Sum 9.1,
                                                        bound ``c (s + |q|**2)``
l2, direct      -D            -v**2                     D = fl(sum (q - x)**2): g + 3 relative to D, v: 2, a -/+ e: 1,
                                                        D for its exact value: 1 / (1 - g). Bound ``c D``
==============  ============  ========================  =============================================================

Rows of int8 stand for ``x = fl(code * step)``. Where a scan multiplies the codes by the query and the sum by the step
(cosine, dot), the roundings of x and of the last product are 1 more each: sums of 7.1 and 6.1 where 16.3 are paid for.

Underflow, gradual or flushed to zero, of inputs, products and sums adds absolute terms in eta = 2**-126: each flushed
component of x costs at most |q_i| eta, of q |x_i| eta, each product and sum eta. They are the tiny summands below;
where they matter (cosine rows of norm below 1e-30) they are multiplied by ``s`` like the score itself. A cosine row
shorter than 2.9e-39 has ``s = inf``: its bounds become NaN or infinite, which the scans read as "keep".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.types import Metric

__all__ = ["FORM_CODES", "Form", "ScanPlan", "plan_scan", "settled_bounds"]

Form: TypeAlias = Literal["cosine", "dot", "l2-expanded", "l2-direct"]
FORM_CODES: dict[Form, int] = {"cosine": 0, "dot": 1, "l2-expanded": 2, "l2-direct": 3}

_ETA = 2.0**-126
_NO_SQUARES = np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What a scan multiplies and how far it may be off.

    Attributes
    ----------
    form : str
        Row of the table in the module docstring.
    queries : ndarray of float32, shape (q, d)
        C-contiguous; for cosine divided by their norms, unless the plan is direct: the kernel does it then.
    errors : ndarray of float32, shape (q, 2)
        Slope and offset of the error bound, rounded up.
    squares : ndarray of float64, shape (q,)
        Squared norm of each query as given; empty where the form does not need them.
    """

    form: Form
    queries: npt.NDArray[np.float32]
    errors: npt.NDArray[np.float32]
    squares: npt.NDArray[np.float64]

    @property
    def slope(self) -> npt.NDArray[np.float32]:
        """Slope of the error bound of each query."""
        return self.errors[:, 0]

    @property
    def offset(self) -> npt.NDArray[np.float32]:
        """Offset of the error bound of each query."""
        return self.errors[:, 1]


def plan_scan(metric: Metric, queries: npt.NDArray[np.float32], *, direct: bool = False) -> ScanPlan:
    """Return the plan of a scan.

    Parameters
    ----------
    metric : {"cosine", "dot", "l2"}
    queries : ndarray of float32, shape (q, d)
        Finite, components up to 1e15; d <= 65,536.
    direct : bool, default False
        Scan row by row: for l2, sum squared differences instead of expanding the square.
    """
    form = _form(metric, direct)
    if direct and form != "dot":
        return ScanPlan(form, queries, _same_errors(form, *queries.shape), _NO_SQUARES)
    wide = queries.astype(np.float64)
    squares = np.einsum("ij,ij->i", wide, wide)
    norms = np.sqrt(squares)
    errors = np.empty((len(queries), 2), dtype=np.float64)
    errors[:, 0], errors[:, 1] = _bound(form, queries.shape[1], norms)
    if form == "cosine":
        wide /= np.where(norms > 0.0, norms, 1.0)[:, None]
        queries = wide.astype(np.float32)
    return ScanPlan(form, np.ascontiguousarray(queries), _rounded_up(errors), squares)


@lru_cache(maxsize=64)
def _same_errors(form: Form, count: int, d: int) -> npt.NDArray[np.float32]:
    """Return the errors of a form whose bound does not depend on the query, shape (count, 2), read-only."""
    errors = np.repeat(_rounded_up(np.array([_bound(form, d, 1.0)])), count, axis=0)
    errors.setflags(write=False)
    return errors


def _form(metric: Metric, direct: bool) -> Form:
    if metric == "l2":
        return "l2-direct" if direct else "l2-expanded"
    return metric


def _bound(form: Form, d: int, norms: Any) -> tuple[Any, Any]:
    """Slope and offset of the bound for queries of these norms, arrays or one float: see the table.

    What does not depend on the norms is one float.
    """
    c = 1.02 * (d + 16) * 2.0**-24
    root = math.sqrt(d)
    if form == "cosine":
        return 4 * (d + root) * _ETA, c + 4 * root * _ETA
    if form == "dot":
        return c * norms + 2 * root * _ETA, (4 * d + 2 * root * norms + 4) * _ETA
    if form == "l2-expanded":
        return c + 4 * root * _ETA, c * norms**2 + (8 * d + 4 * root * (1 + norms) + 8) * _ETA
    return c + 4 * root * _ETA, (8 * d + 4 * root) * _ETA


def _rounded_up(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def settled_bounds(
    plan: ScanPlan, query: int, scores: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return (lower, upper) of rows whose final float32 score is known, in the key of the plan's form."""
    key = scores.astype(np.float64)
    spread = np.abs(key)
    if plan.form == "l2-direct":
        key = -(key**2)
        spread = np.abs(key)
    elif plan.form == "l2-expanded":
        spread = plan.squares[query] + key**2
        key = plan.squares[query] - key**2
    slack = spread * 2.0**-40
    low, high = (key - slack).astype(np.float32), (key + slack).astype(np.float32)
    return np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
