"""What to do against shrinkage: maps of least squared error pull everything towards the mean, and lose rankings.

In a space whose mean is long (.90 of 1 for e5) the mean then decides every score. `flattened` evens out the singular
values, `finished` brings residuals back to the length that the target's have, and drops the mean of a mapped query:
against stored vectors it would only favour those near the centre.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from vecdb.contracts import FitData, Param
from vecdb.transforms.affine import Formula
from vecdb.transforms.judge import best_of, judge_of
from vecdb.transforms.pairs import Centred, Rows64

__all__ = ["MEAN", "RESTORES", "Finish", "Restore", "choose_finish", "finished", "finishes", "flattened", "keeps_mean"]

Restore = Literal["none", "ls", "global", "unit", "clip", "polar"]
RESTORES: tuple[Restore, ...] = get_args(Restore)
MEAN = Param(
    "str",
    "auto",
    "Whether the target's mean is added; auto: to stored vectors, and to queries where distances are compared.",
    choices=("auto", "keep", "drop"),
)


class Finish(NamedTuple):
    """How a linear part becomes a map: what restores its length, and whether the target's mean is added."""

    restore: Restore
    mean: bool


def finished(W: Rows64, pairs: Centred, how: Finish) -> Formula:
    """Return the map of a linear part between centred pairs.

    Parameters
    ----------
    W : ndarray of float64, shape (d, e)
    pairs : Centred
    how : Finish
        "none": as it is; "ls": times the factor of least squared error; "global": times the ratio of the deviations;
        "unit": every residual brought to the target's mean length; "clip" and "polar": singular values evened out,
        then as "unit" (without the mean, which leaves nothing to balance against: as "global").
    """
    if how.restore in ("clip", "polar"):
        W = flattened(W, full=how.restore == "polar")
    unit = how.mean and how.restore in ("unit", "clip", "polar")
    factor = 1.0 if unit or how.restore == "none" else _factor(W, pairs, least=how.restore == "ls")
    W = W * factor
    nothing = np.zeros(W.shape[1])
    return Formula(W, -pairs.before @ W, pairs.after if how.mean else nothing, pairs.length if unit else 0.0)


def _factor(W: Rows64, pairs: Centred, *, least: bool) -> float:
    fitted = pairs.A @ W
    size = float((fitted * fitted).sum())
    if size == 0.0:
        return 1.0
    if least:
        return float((fitted * pairs.B).sum()) / size
    return float(np.sqrt((pairs.B * pairs.B).sum() / size))


def flattened(W: Rows64, *, full: bool = False) -> Rows64:
    """Return `W` with its singular values divided by their median and cut at 1, or (full) all of them 1.

    The median is that of the singular values that are not zero, so that a narrow map is not judged by its rank.
    """
    U, values, Vt = np.linalg.svd(W, full_matrices=False)
    alive = values > values[0] * 1e-10
    if not alive.any():
        return W
    flat = np.where(alive, 1.0, 0.0) if full else np.minimum(values / np.median(values[alive]), 1.0)
    even: Rows64 = (U * flat) @ Vt
    return even


def keeps_mean(data: FitData, setting: str) -> bool:
    """Return what ``mean="auto"`` means: a mapped query is compared by inner products, where its mean only misleads.

    Distances (l2) need the mean, and so do mapped records, which lie beside native ones.
    """
    if setting != "auto":
        return setting == "keep"
    return data.role == "gallery" or data.target_space.metric == "l2"


def finishes(data: FitData, restore: str, mean: str, usual: Restore, all_of: tuple[Restore, ...]) -> list[Finish]:
    """Return the finishes to choose among, the usual one first.

    Parameters
    ----------
    data : FitData
    restore : str
        One of `RESTORES`, or "auto".
    mean : {"auto", "keep", "drop"}
    usual : str
        What "auto" means where nothing was kept back to choose by.
    all_of : tuple of str
        What "auto" chooses among.
    """
    usually = keeps_mean(data, mean)
    either = [usually] if mean != "auto" or usually else [False, True]
    return [Finish(each, keep) for keep in either for each in _wanted(restore, keep, usual, all_of)]


def _wanted(restore: str, keep: bool, usual: Restore, all_of: tuple[Restore, ...]) -> list[Restore]:
    """Return what to try; without the mean, lengths change no ranking, so only what bends the spectrum is different."""
    if restore != "auto":
        return [each for each in RESTORES if each == restore]
    found: list[Restore] = [usual, *(each for each in all_of if each != usual)]
    if keep:
        return found
    return list(dict.fromkeys(each if each in ("clip", "polar") else "global" for each in found))


def choose_finish(data: FitData, pairs: Centred, W: Rows64, choices: list[Finish]) -> tuple[Finish, float]:
    """Return the finish of a linear part that the kept-back pairs prefer, and its score.

    Where nothing was kept back, or there is one choice only, it is the first one and the score is -1.
    """
    judge = judge_of(data) if len(choices) > 1 else None
    if judge is None:
        return choices[0], -1.0
    return best_of(judge, choices, lambda how: finished(W, pairs, how).apply(judge.rows))
