"""All arms of one ordered pair of models, over several draws of pairs, as numbers with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.evaluate.arms import Arm, Ranked, arms_for, ranked, remembering, stay_and_reembed
from tools.evaluate.corpus import Corpus, Model
from tools.evaluate.protocol import Draw, Queries, draw, fit_data, judged_of, queries_of
from vecdb.contracts import FitData
from vecdb.errors import FitError
from vecdb.evaluation import Estimate, predict_mean, predict_ratio

__all__ = ["Course", "measured_pair"]

Values = npt.NDArray[np.float64]
WIDTHS = {-1: "narrower", 0: "equal", 1: "wider"}


@dataclass(frozen=True, slots=True)
class Course:
    """How much is measured: pairs, seeds of the draws, training queries (none, the first 800, all), kinds."""

    pairs: int = 5_000
    seeds: tuple[int, ...] = (0,)
    queries: str = "first"
    kinds: tuple[str, ...] | None = None


def measured_pair(
    corpus: Corpus,
    names: tuple[str, str],
    registry: Any,
    course: Course,
    found: dict[str, Any],
    done: Callable[[str], None],
) -> None:
    """Measure every arm of an upgrade from the first model to the second that `found` does not have yet.

    Parameters
    ----------
    corpus : Corpus
    names : tuple of str
        The old model and the new one.
    registry : PluginRegistry
    course : Course
    found : dict
        Gets ``stay`` and ``re-embed`` with ``mrr`` and ``recall``, sizes, and ``arms``: one row of `_row` each.
    done : callable
        Told in words of each arm that is there.
    """
    arms = arms_for(registry, None if course.kinds is None else list(course.kinds))
    known = {(row["name"], row["role"]) for row in found.get("arms", [])}
    missing = [arm for arm in arms if (arm.name, arm.role) not in known]
    if not missing:
        return
    models = corpus.model(names[0]), corpus.model(names[1])
    asked = queries_of(corpus, everything=course.queries == "all")
    judged = judged_of(corpus, asked)
    fixed = stay_and_reembed(models, asked, judged)
    draws = [draw(corpus, *models, course.pairs, seed) for seed in course.seeds]
    sizes = {
        "pairs": len(draws[0].fit),
        "kept": len(draws[0].kept),
        "queries": len(asked.fit) * (course.queries != "none"),
        "test": len(asked.test),
    }
    found |= {"old": names[0], "new": names[1], "documents": len(models[0].docs), "seeds": len(course.seeds), **sizes}
    found |= {name: _level(each, asked) for name, each in fixed.items()}
    rows, told = found.setdefault("arms", []), course.queries != "none"
    memories: list[dict[tuple[str, str], Any]] = [{} for _ in draws]
    for arm in missing:
        thing = registry.find("transform", arm.kind).thing
        if not _fits(thing, arm, *(model.docs.shape[1] for model in models)):
            continue
        try:
            each = [
                ranked(
                    remembering(thing, arm, memory),
                    arm,
                    _data(corpus, models, arm, drawn, asked, seed, told),
                    models,
                    asked,
                    judged,
                )
                for drawn, seed, memory in zip(draws, course.seeds, memories, strict=True)
            ]
        except FitError as error:
            done(f"{arm.name} ({arm.role}): {error}")
            continue
        rows.append(_row(arm, each, fixed, draws, corpus, asked))
        value, seconds = rows[-1]["recall"]["value"], rows[-1]["seconds"]
        done(f"{names[0]} -> {names[1]} {arm.name} ({arm.role}): {value:.3f}, {seconds:.1f} s")


def _data(
    corpus: Corpus, models: tuple[Model, Model], arm: Arm, drawn: Draw, asked: Queries, seed: int, told: bool
) -> FitData:
    data = fit_data(corpus, models, arm.role, drawn, asked, seed, labels=arm.labels)
    return data if told else replace(data, queries=None, queries_across=None)


def _fits(thing: Any, arm: Arm, old: int, new: int) -> bool:
    source, target = (new, old) if arm.role == "query" else (old, new)
    return WIDTHS[(target > source) - (target < source)] in thing.capabilities.widths


def _level(found: Ranked, asked: Queries) -> dict[str, Any]:
    corrected = predict_mean(found.corrected.recall, asked.clusters)
    recall, mrr = (predict_mean(each, asked.clusters) for each in (found.measures.recall, found.measures.mrr))
    return {"recall": recall.as_dict(), "mrr": mrr.as_dict(), "corrected": corrected.as_dict()}


def _row(
    arm: Arm, found: Sequence[Ranked], fixed: dict[str, Ranked], draws: Sequence[Draw], corpus: Corpus, asked: Queries
) -> dict[str, Any]:
    """Return what one arm is worth; its queries are those whose answers were not fitted on."""
    seen = np.array([_answered_by(corpus, asked, each.fit) for each in draws])
    recall, mrr = (np.array([getattr(each.measures, name) for each in found]) for name in ("recall", "mrr"))
    corrected = np.array([each.corrected.recall for each in found])
    fresh = np.where(seen, np.nan, recall)
    against = {name: predict_ratio(fresh, each.measures.recall, asked.clusters) for name, each in fixed.items()}
    facts = found[0].facts
    return {
        "name": arm.name,
        "kind": arm.kind,
        "role": arm.role,
        "recall": predict_mean(fresh, asked.clusters).as_dict(),
        "mrr": predict_mean(np.where(seen, np.nan, mrr), asked.clusters).as_dict(),
        "everyone": _mean(recall).as_dict(),
        "corrected": _mean(corrected).as_dict(),
        "advantage": against["stay"].as_dict(),
        "retention": against["re-embed"].as_dict(),
        "seen": float(np.mean(recall[seen])) if seen.any() else None,
        "chosen": str(facts.get("kind", facts.get("restore", ""))),
        "seconds": float(np.median([each.seconds for each in found])),
    }


def _mean(values: Values) -> Estimate:
    return predict_mean(values, np.arange(values.shape[1]))


def _answered_by(corpus: Corpus, asked: Queries, fit: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which test queries have most of their answers among the documents that were fitted on."""
    judged = corpus.judged.take(asked.test)
    there = np.bincount(judged.owners[np.isin(judged.rows, fit)], minlength=judged.queries)
    return np.asarray(there > 0.5 * judged.sizes, np.bool_)
