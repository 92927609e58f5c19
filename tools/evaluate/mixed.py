"""Mixed stores of every ordered pair of models: what each calibration makes of old and new vectors in one list.

Usage: python -m tools.evaluate.mixed FOLDER [--pair OLD:NEW ...] [--kind ridge] [--masks 2] [--out FILE]

A share of the documents is embedded anew, at random; queries of the new model are ranked over all of them, the old ones
through a map of queries. The calibration is chosen on validation queries (800 to 1399 of the training part) and judged
on the test queries against every other, with paired intervals over clusters of queries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.evaluate.corpus import F32, Corpus, load_corpus
from tools.evaluate.protocol import Queries, draw, fit_data, queries_of
from vecdb import PluginRegistry
from vecdb.engine.bridge.calibration import evidence, expected, matched, tail_matched
from vecdb.evaluation import paired

Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SHARES = (0.25, 0.5, 0.75)
METHODS = ("none", "rrf", "ranks", "reference", "tail", "lists")
VALIDATION = slice(800, 1_400)
_BLOCK = 200


@dataclass(frozen=True, slots=True)
class Store:
    """Documents, those that are embedded anew, and those known in both spaces that scores are calibrated by."""

    new: F32
    old: F32
    fresh: npt.NDArray[np.bool_]
    reference: Integers


def measured(store: Store, queries: F32, mapped: F32, answers: Integers) -> dict[str, Values]:
    """Return for each calibration the reciprocal rank of each query's answer, and whether it is among ten; (2, q)."""
    found: dict[str, list[Values]] = {name: [] for name in METHODS}
    for start in range(0, len(queries), _BLOCK):
        part = slice(start, start + _BLOCK)
        native, bridged = queries[part] @ store.new.T, mapped[part] @ store.old.T
        for name, ranks in _ranks(store, native, bridged, answers[part]):
            found[name].append(np.stack([1.0 / ranks, ranks <= 10]))
    return {name: np.concatenate(each, axis=1) for name, each in found.items()}


def _ranks(store: Store, native: F32, bridged: F32, answers: Integers) -> Iterator[tuple[str, Values]]:
    """Yield the rank of each query's answer by each calibration."""
    heads = [_heads(native, store.fresh), _heads(bridged, ~store.fresh)]
    for name in METHODS:
        if name in ("rrf", "ranks"):
            yield name, _by_rank(store, native, bridged, answers, name)
            continue
        lines = np.array([_line(name, store, row, native, bridged, heads) for row in range(len(native))], np.float32)
        merged = np.where(store.fresh, native, bridged * lines[:, :1] + lines[:, 1:])
        own = merged[np.arange(len(merged)), answers][:, None]
        yield name, (merged > own).sum(1) + 1.0


def _heads(scores: F32, members: npt.NDArray[np.bool_]) -> F32:
    """Return the mean of the best scores of a class, as many as its size lets expect, shape (q,)."""
    size = min(int(members.sum()), expected(int(members.sum()), len(members)))
    inside = scores[:, members]
    best: F32 = np.partition(inside, inside.shape[1] - size, axis=1)[:, -size:].mean(1)
    return best


def _line(name: str, store: Store, row: int, native: F32, bridged: F32, heads: list[F32]) -> tuple[float, float]:
    if name == "none":
        return 1.0, 0.0
    cross = bridged[row, store.reference].astype(np.float64)
    line = (tail_matched if name == "tail" else matched)(cross, native[row, store.reference].astype(np.float64))
    if name == "lists":
        fresh = int(store.fresh.sum())
        share = evidence(fresh, len(store.fresh) - fresh, len(store.fresh))
        level = float(heads[0][row] - line.factor * heads[1][row])
        return line.factor, share * level + (1.0 - share) * line.offset
    return line.factor, line.offset


def _by_rank(store: Store, native: F32, bridged: F32, answers: Integers, name: str) -> Values:
    """Return ranks in a list that goes by the ranks in both classes; the new vectors begin."""
    places = np.arange(len(answers))
    fresh, sizes = store.fresh[answers], (int(store.fresh.sum()), int((~store.fresh).sum()))
    own = np.where(fresh, native[places, answers], bridged[places, answers])[:, None]
    inside = [(native[:, store.fresh] > own).sum(1), (bridged[:, ~store.fresh] > own).sum(1)]
    rank = np.where(fresh, inside[0], inside[1]) + 1.0
    if name == "rrf":
        before = np.where(fresh, rank - 1, rank)
    else:
        ratio = len(store.fresh) / sizes[0], len(store.fresh) / sizes[1]
        place = np.where(fresh, (rank - 1.0) * ratio[0], (rank - 0.5) * ratio[1])
        before = np.where(fresh, np.ceil(place / ratio[1] - 0.5), np.floor(place / ratio[0]) + 1)
    other = np.where(fresh, sizes[1], sizes[0])
    ranks: Values = rank + np.clip(before, 0, other)
    return ranks


def measured_pair(
    corpus: Corpus, names: tuple[str, str], kind: str, masks: int, registry: PluginRegistry
) -> dict[str, Any]:
    """Return what is chosen for an upgrade from the first model to the second, and what every calibration is worth."""
    old, new = (corpus.model(name) for name in names)
    asked = queries_of(corpus)
    drawn = draw(corpus, old, new, 5_000, 0)
    thing = registry.find("transform", kind).thing
    data = fit_data(corpus, (old, new), "query", drawn, asked, 0, labels="labels" in thing.capabilities.requires)
    made = thing.fit(data, {name: param.default for name, param in thing.parameters.items()})
    answers = corpus.judged.rows[np.minimum(corpus.judged.starts[:-1], max(corpus.judged.count - 1, 0))]
    train = np.flatnonzero((np.array(corpus.splits) == "train") & corpus.judged.answered)
    parts = {"validation": train[VALIDATION], "test": asked.test}
    found: dict[str, Any] = {}
    for share in SHARES:
        tables = {
            part: _averaged(
                share, masks, (old.docs, new.docs), drawn.kept[:256], made, (new.queries[rows], answers[rows])
            )
            for part, rows in parts.items()
        }
        found[f"{share:.2f}"] = _judged(tables, asked)
    return found


def _averaged(
    share: float, masks: int, docs: tuple[F32, F32], reference: Integers, made: Any, asked: tuple[F32, Integers]
) -> dict[str, Values]:
    """Return what queries with their answers are worth, the mean over some draws of what is embedded anew."""
    (old, new), (queries, answers) = docs, asked
    mapped = made.apply(np.ascontiguousarray(queries))
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    draws = [np.random.default_rng(seed).random(len(new)) < share for seed in range(masks)]
    each = [measured(Store(new, old, fresh, reference), queries, mapped, answers) for fresh in draws]
    return {name: np.mean([one[name] for one in each], axis=0) for name in METHODS}


def _judged(tables: Mapping[str, Mapping[str, Values]], asked: Queries) -> dict[str, Any]:
    """Return the choice of the validation queries, means on the test queries, and what the choice loses to others."""
    chosen = max(METHODS, key=lambda name: float(tables["validation"][name].mean()))
    test = tables["test"]
    below = []
    for name in METHODS:
        for row, metric in enumerate(("MRR", "recall@10")):
            estimate = paired(test[chosen][row], test[name][row], asked.clusters)
            if estimate.high < 0:
                below.append(f"{metric} of {name} by {-estimate.value:.3f}")
    means = {name: [round(float(value), 4) for value in test[name].mean(1)] for name in METHODS}
    return {"chosen": chosen, "test": means, "below": below}


def markdown(found: Mapping[str, Any]) -> str:
    """Return the figures as a table: MRR / recall@10 on the test queries."""
    lines = ["| upgrade | new | chosen | " + " | ".join(METHODS) + " | below |", "|---" * (len(METHODS) + 4) + "|"]
    for pair, shares in found.items():
        for share, each in shares.items():
            cells = [f"{each['test'][name][0]:.3f} / {each['test'][name][1]:.3f}" for name in METHODS]
            below = "; ".join(each["below"]) or "-"
            lines.append(f"| {pair} | {share} | `{each['chosen']}` | {' | '.join(cells)} | {below} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.evaluate.mixed", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pair", action="append", default=[], metavar="OLD:NEW", help="of models; default: all")
    parser.add_argument("--kind", default="ridge", help="of transform")
    parser.add_argument("--masks", type=int, default=2, help="draws of the documents that are embedded anew")
    parser.add_argument(
        "--out", type=Path, default=None, help="where figures are kept: pairs in it are not measured again"
    )
    options = parser.parse_args(arguments)
    corpus, registry = load_corpus(options.folder), PluginRegistry(entry_points=False)
    wanted = [tuple(each.split(":")) for each in options.pair] or list(permutations(corpus.models, 2))
    found: dict[str, Any] = {}
    if options.out is not None and options.out.exists():
        found = json.loads(options.out.read_text(encoding="utf-8"))
    for old, new in wanted:
        if f"{old} to {new}" not in found:
            found[f"{old} to {new}"] = measured_pair(corpus, (old, new), options.kind, options.masks, registry)
            if options.out is not None:
                options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
