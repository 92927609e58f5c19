"""What every fit does with its data first: ask whether to go on, refuse what cannot be fitted, widen to float64.

Invariant: past `fit_pairs` the pairs are finite, float64 copies, as many as the kind needs, and neither all the same
nor on one line. Which kind needs how many: docs/reference/transforms.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Pairs
from vecdb.contracts.transform import checked_rows
from vecdb.errors import CancelledError, FitError, NonFiniteError

__all__ = ["Centred", "Rows64", "centred", "checked_rows", "fit_pairs", "fit_rows", "go_on"]

Rows64 = npt.NDArray[np.float64]
Rows32 = npt.NDArray[np.float32]

_FLAT = 1e-6
"""Relative to the lengths and distances of the rows, which are float32: what is nearer to a line lies on it."""


@dataclass(frozen=True, slots=True)
class Centred:
    """Pairs and their centres.

    Attributes
    ----------
    A, B : ndarray of float64, shapes (n, d) and (n, e)
        Rows of source and target less their means.
    before, after : ndarray of float64, shapes (d,) and (e,)
        The means; zero where the fit is not centred.
    """

    A: Rows64
    B: Rows64
    before: Rows64
    after: Rows64

    @property
    def length(self) -> float:
        """Mean norm of the target's residuals."""
        return float(np.linalg.norm(self.B, axis=1).mean())

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        return len(self.A)


def go_on(data: FitData, done: int, total: int) -> None:
    """Report progress and raise `CancelledError` if the fit is to stop."""
    data.progress(done, total)
    if data.cancel():
        raise CancelledError(f"the fit was cancelled after {done} of {total} steps")


def fit_pairs(data: FitData, least: int, *, owner: str) -> tuple[Rows64, Rows64]:
    """Return the pairs of a fit as float64.

    Parameters
    ----------
    data : FitData
    least : int
        Fewest pairs; from 2 on they must differ, from 3 on they must not lie on one line.
    owner : str
        Name of the kind, for messages.

    Returns
    -------
    source, target : ndarray of float64, shapes (n, d) and (n, e)

    Raises
    ------
    FitError
        Too few pairs, with `pairs` and `needed`.
    NonFiniteError
        NaN or infinity in anything that a fit may read.
    CancelledError
    """
    go_on(data, 0, 1)
    _refuse_nonfinite(data)
    if len(data.source) != len(data.target):
        raise FitError(
            f"{owner} was given {len(data.source)} source rows and {len(data.target)} target rows, expected pairs",
            pairs=min(len(data.source), len(data.target)),
            needed=max(len(data.source), len(data.target)),
        )
    _refuse_few(owner, len(data.source), least)
    for side, rows in (("source", data.source), ("target", data.target)):
        _refuse_flat(owner, side, rows, least)
    return data.source.astype(np.float64), data.target.astype(np.float64)


def fit_rows(data: FitData, least: int, *, owner: str) -> Rows64:
    """Return the source rows alone as float64, for kinds that read no partner; errors as in `fit_pairs`."""
    go_on(data, 0, 1)
    _refuse_nonfinite(data)
    _refuse_few(owner, len(data.source), least)
    _refuse_flat(owner, "source", data.source, least)
    return data.source.astype(np.float64)


def centred(X: Rows64, Y: Rows64, *, center: bool = True) -> Centred:
    """Return pairs less their means, or as they are."""
    before = X.mean(0) if center else np.zeros(X.shape[1])
    after = Y.mean(0) if center else np.zeros(Y.shape[1])
    return Centred(X - before, Y - after, before, after)


def _refuse_nonfinite(data: FitData) -> None:
    kept = data.validation or Pairs(data.source[:0], data.target[:0])
    nothing = data.source[:0]
    parts = {
        "source": data.source,
        "target": data.target,
        "queries": nothing if data.queries is None else data.queries,
        "queries_across": nothing if data.queries_across is None else data.queries_across,
        "stored": nothing if data.stored is None else data.stored,
        "validation source": kept.source,
        "validation target": kept.target,
    }
    for where, rows in parts.items():
        if not np.isfinite(rows).all():
            row, column = (int(place) for place in np.argwhere(~np.isfinite(rows))[0])
            raise NonFiniteError(
                f"{where} of a fit: row {row}, column {column} is {rows[row, column]}; every component must be finite",
                row=row,
                column=column,
                where=where,
            )


def _refuse_few(owner: str, count: int, least: int) -> None:
    if count < least:
        raise FitError(
            f"{owner} was given {count} rows to fit on, expected at least {least}",
            hint="Embed more records with both models.",
            pairs=count,
            needed=least,
        )


def _refuse_flat(owner: str, side: str, rows: Rows32, least: int) -> None:
    """Refuse rows that are all the same, and, where three are needed, rows on one line."""
    if least < 2:
        return
    away = rows.astype(np.float64) - rows[0].astype(np.float64)
    norms = np.linalg.norm(away, axis=1)
    farthest = int(norms.argmax())
    if norms[farthest] == 0.0:
        raise _flat(owner, side, "the same vector", 1, least)
    if least < 3 or len(rows[0]) == 1:  # one column holds nothing but a line
        return
    along = away @ (away[farthest] / norms[farthest])
    beside = norms * norms - along * along
    size = norms[farthest] + float(np.linalg.norm(rows[0]))
    if beside.max() <= (_FLAT * size) ** 2:
        raise _flat(owner, side, "on one line", len(np.unique(np.round(along / norms[farthest], 6))), least)


def _flat(owner: str, side: str, problem: str, different: int, least: int) -> FitError:
    return FitError(
        f"all rows of the {side} that {owner} was given are {problem} ({different} different)",
        hint="A map needs pairs that differ in more than one direction.",
        pairs=min(different, least - 1),
        needed=least,
    )
