"""What each kind of relevance filter is worth with one model: measured on test queries, compared pair by pair.

Every arm is fitted on training queries alone, as `fit_relevance` would, and asked once for all test pools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.evaluate.corpus import Corpus, Model
from tools.evaluate.filterpools import Part, judged_pool, part_of, relevance_data, roles_of
from vecdb import PluginRegistry
from vecdb.evaluation.pools import Drawn, drawn, measurer

__all__ = ["ARMS", "BASE", "coverage", "measured_model", "rejection"]

F32 = npt.NDArray[np.float32]

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "threshold": ("threshold", {}),
    "topk-gap": ("topk-gap", {}),
    "calibrated, Platt": ("calibrated", {"method": "platt"}),
    "calibrated, isotonic": ("calibrated", {"method": "isotonic"}),
    "calibrated, beta": ("calibrated", {"method": "beta"}),
    "background, calibrated": ("background", {}),
    "cosine-adapter, query, linear": ("cosine-adapter", {"reads": "query", "family": "linear"}),
    "cosine-adapter, query, sqrt": ("cosine-adapter", {"reads": "query", "family": "sqrt"}),
    "cosine-adapter, query, quadratic": ("cosine-adapter", {"reads": "query", "family": "quadratic"}),
    "cosine-adapter, query, power": ("cosine-adapter", {"reads": "query", "family": "power"}),
    "cosine-adapter, scores, power": ("cosine-adapter", {"reads": "scores", "family": "power"}),
    "cosine-adapter, both, linear": ("cosine-adapter", {"reads": "both", "family": "linear"}),
    "cosine-adapter": ("cosine-adapter", {}),
    "conformal, 0.1": ("conformal", {"alpha": 0.1}),
}
"""Name -> kind, and parameters that differ from the defaults."""
BASE = ("raw score", "calibrated, Platt")
"""What every arm is compared with."""
_RESAMPLES = 400
_SPLITS = 20
_JUDGED = frozenset({"rest", "test", "foreign"})
_OUTLIERS = ("knn", "mahalanobis", "projection")


def fitted(
    registry: PluginRegistry, kind: str, params: Mapping[str, Any], model: Model, part: Part, **wishes: Any
) -> Any:
    """Return a filter fitted with these parameters."""
    thing: Any = registry.find("relevance filter", kind).thing
    settled = {name: param.default for name, param in thing.parameters.items()} | dict(params)
    return thing.fit(relevance_data(model, part, 0, **wishes), settled)


def measured_model(corpus: Corpus, name: str, registry: PluginRegistry, say: Callable[[str], None]) -> dict[str, Any]:
    """Return everything that is measured with one model."""
    model, roles = corpus.model(name), roles_of(corpus)
    fit, test = part_of(corpus, model, roles.fit), part_of(corpus, model, roles.test)
    nothing = part_of(corpus, model, roles.nothing)
    pool = judged_pool(test)
    known: dict[str, Drawn] = {"raw score": drawn(measurer(pool, test.scores), pool.clusters, resamples=_RESAMPLES)}
    unanswered = {}
    for arm, (kind, params) in ARMS.items():
        made = fitted(registry, kind, params, model, fit)
        said = made.relevance(test.scores, test.queries, None, count=len(model.docs))
        known[arm] = drawn(measurer(pool, said, made.threshold), pool.clusters, resamples=_RESAMPLES)
        unanswered[arm] = _unanswered(made, model, test, nothing)
        say(f"{name}: {arm}: {known[arm].value['pr_auc']:.3f}")
    arms = [_row(arm, each, known) | unanswered.get(arm, {}) for arm, each in known.items()]
    return {
        "model": name,
        "documents": len(model.docs),
        "fit": len(fit.queries),
        "test": len(test.queries),
        "positives": int(test.labels.sum()),
        "missed": len(test.missed),
        "nothing": len(nothing.queries),
        "arms": arms,
        "coverage": coverage(fit, test, registry, model),
    }


def _row(arm: str, each: Drawn, known: Mapping[str, Drawn]) -> dict[str, Any]:
    against = {base: _plain(each.minus(known[base])) for base in BASE if base != arm and base in known}
    return {"name": arm, "measured": _plain(each), "against": against}


def _plain(each: Drawn) -> dict[str, dict[str, float]]:
    return {name: estimate.as_dict() for name, estimate in each.estimates().items()}


def _unanswered(made: Any, model: Model, test: Part, nothing: Part) -> dict[str, float]:
    """Return how often no hit of ten is kept, of queries without an answer and of others."""
    found = {}
    for word, part in (("nothing_when_there_is_none", nothing), ("nothing_though_there_is", test)):
        if len(part.queries):
            said = made.relevance(np.ascontiguousarray(part.scores[:, :11]), part.queries, None, count=len(model.docs))
            found[word] = float((said[:, :10] < np.float32(made.threshold)).all(1).mean())
    return found


# --- conformal --------------------------------------------------------------------------------------------


def coverage(fit: Part, test: Part, registry: PluginRegistry, model: Model, *, alpha: float = 0.1) -> dict[str, Any]:
    """Return the recall of `conformal` over random halves of all answered queries, and the bands it should be in.

    With one answer a query and n calibration queries, what is lost of m others is beta-binomial: m draws of a
    probability that is beta(l, n + 1 - l), l the whole part of ``alpha (n + 1)`` (Angelopoulos and Bates, 2021,
    section 3.2).
    """
    whole = Part(
        *(np.concatenate([getattr(fit, name), getattr(test, name)])
          for name in ("queries", "found", "scores", "labels", "ignore")),
        np.zeros((0, 2), np.float32),
        np.concatenate([fit.clusters, test.clusters + fit.clusters.max() + 1]),
        np.concatenate([fit.classes, test.classes]),
    )  # fmt: skip
    whole = whole.take((whole.labels & ~whole.ignore).any(1))
    thing: Any = registry.find("relevance filter", "conformal").thing
    rng, found = np.random.default_rng(0), []
    for _ in range(_SPLITS):
        half = rng.permutation(int(whole.clusters.max()) + 1)[whole.clusters] % 2 == 0
        one, other = whole.take(half), whole.take(~half)
        params = {"alpha": alpha, "of": "pool", "depth": 10}
        made = thing.fit(relevance_data(model, one, 0), params)
        kept = made.relevance(other.scores, other.queries, None, count=len(model.docs)) >= np.float32(made.threshold)
        shares = (kept & other.labels).sum(1) / other.labels.sum(1)
        low, high = beta_binomial_band(len(one.queries), len(other.queries), alpha)
        found.append({"recall": float(shares.mean()), "low": low, "high": high})
    inside = sum(each["low"] <= each["recall"] <= each["high"] for each in found)
    return {"alpha": alpha, "splits": found, "inside": inside, "mean": float(np.mean([s["recall"] for s in found]))}


def beta_binomial_band(known: int, asked: int, alpha: float, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval in which the share of answers kept lies, with this probability."""
    from math import floor, lgamma

    lost = floor(alpha * (known + 1) + 1e-9)
    a, b = max(lost, 1e-9), known + 1 - lost

    def beta(x: float, y: float) -> float:
        return lgamma(x) + lgamma(y) - lgamma(x + y)

    logs = np.array(
        [lgamma(asked + 1) - lgamma(k + 1) - lgamma(asked - k + 1) + beta(k + a, asked - k + b) - beta(a, b)
         for k in range(asked + 1)]
    )  # fmt: skip
    below = np.cumsum(np.exp(logs))
    tail = (1.0 - level) / 2.0
    least, most = int(np.searchsorted(below, tail)), int(np.searchsorted(below, 1.0 - tail))
    return 1.0 - most / asked, 1.0 - least / asked


# --- queries of another domain ----------------------------------------------------------------------------


def rejection(home: Corpus, away: Corpus, name: str, registry: PluginRegistry) -> list[dict[str, Any]]:
    """Return how many queries of another domain get no hit, where 95 % of this one's queries get some.

    Each filter is fitted on training queries of this domain; its threshold is what 95 % of other training queries
    pass, and the share of test queries that pass is reported beside the share of foreign queries that do not.
    """
    model, roles = home.model(name), roles_of(home)
    cut = len(roles.fit) * 7 // 10
    learn, rest = roles.fit[:cut], roles.fit[cut:]
    parts = {"learn": learn, "rest": rest, "test": roles.test, "fit": roles.fit}
    pools = {word: part_of(home, model, numbers, depth=20) for word, numbers in parts.items()}
    foreign = _foreign(model, away, name)
    found = [_raw_row(pools, foreign)]
    for word, of in (("background of the query", "query"), ("background of all queries", "queries")):
        unlabelled = fitted(registry, "background", {"of": of}, model, pools["learn"], labelled=False)
        found.append(_by_best(word, unlabelled, model, pools, foreign))
    for arm, params in (("cosine-adapter", {}),):
        found.append(_by_best(arm, fitted(registry, arm, params, model, pools["learn"]), model, pools, foreign))
    for method in _OUTLIERS:
        made = fitted(registry, "outlier", {"method": method}, model, pools["fit"])
        cuts = np.float32(made.threshold)
        told = [
            made.relevance(each.scores[:, :1], each.queries, None, count=1)[:, 0] for each in (pools["test"], foreign)
        ]
        found.append(_rates(f"outlier, {method}", (told[0] >= cuts), (told[1] < cuts)))
    return found


def _foreign(model: Model, away: Corpus, name: str) -> Part:
    from vecdb.evaluation import top_k

    queries = away.model(name).queries
    numbers, scores = top_k(queries, model.docs, 20, "cosine")
    none = np.zeros(numbers.shape, bool)
    own = np.arange(len(queries))
    return Part(queries, numbers, scores, none, none, np.zeros((0, 2), np.float32), own, own)


def _raw_row(pools: Mapping[str, Part], foreign: Part) -> dict[str, Any]:
    cut = np.quantile(pools["rest"].scores[:, 0], 0.05)
    return _rates("best raw score", pools["test"].scores[:, 0] >= cut, foreign.scores[:, 0] < cut)


def _by_best(word: str, made: Any, model: Model, pools: Mapping[str, Part], foreign: Part) -> dict[str, Any]:
    """Judge queries by their best hit: a threshold that 95 % of training queries pass."""

    def judge(part: Part) -> npt.NDArray[Any]:
        if hasattr(made, "expected"):  # a probability of chance that is next to none is 1 in float32
            found = -np.log(made.expected(part.scores, part.queries, len(model.docs)))
        else:
            found = made.relevance(part.scores, part.queries, None, count=len(model.docs))
        return np.asarray(found.max(1))

    best = {name: judge(part) for name, part in (("foreign", foreign), *pools.items()) if name in _JUDGED}
    cut = np.quantile(best["rest"], 0.05)
    return _rates(word, best["test"] >= cut, best["foreign"] < cut)


def _rates(word: str, accepted: npt.NDArray[np.bool_], rejected: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return both shares with their Wilson intervals."""
    return {"name": word, "accepted": _wilson(accepted), "rejected": _wilson(rejected)}


def _wilson(hits: npt.NDArray[np.bool_]) -> dict[str, float]:
    count, share, z = len(hits), float(hits.mean()), 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return {"value": share, "low": float(middle - reach), "high": float(middle + reach), "queries": count}
