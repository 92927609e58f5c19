"""Measure what each correction of hubs is worth: on known answers, on the hubs themselves, and in time.

Usage: python -m tools.evaluate.hubness FOLDER [--model NAME ...] [--bank 800 2000] [--out FILE] [--write-docs PAGE]

Banks are the first so many training queries, without their answers; what is reported was measured on the test queries,
by searches of a real collection. Rows that were measured are kept in FILE and not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import vecdb
from tools.evaluate.corpus import Corpus, Model, load_corpus
from tools.evaluate.report import write_page
from vecdb.evaluation import occurrences, paired, skewness

__all__ = ["ARMS", "Arm", "Asked", "floor_of", "main", "markdown", "measured", "ranks_in", "reference"]

Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DEPTH: Final = 10
_RANKED: Final = 1_000
"""Hits that are looked through for the answer; a reciprocal rank beyond is below .001 and counts as 0."""
_BATCH: Final = 64
_ROUNDS: Final = 5
_SINGLES: Final = 16


@dataclass(frozen=True, slots=True)
class Arm:
    """One correction that is tried."""

    name: str
    kind: str
    params: Mapping[str, Any]


ARMS: Final = (
    Arm("csls", "csls", {}),
    Arm("inverted-softmax", "inverted-softmax", {}),
    Arm("dbnorm, queries, dynamic", "dbnorm", {"banks": "query", "dynamic": True}),
    Arm("dbnorm, gallery", "dbnorm", {"banks": "gallery", "dynamic": False}),
    Arm("dbnorm, dual", "dbnorm", {"banks": "dual", "dynamic": False}),
    Arm("dbnorm, dual, dynamic", "dbnorm", {"banks": "dual", "dynamic": True}),
    Arm("mutual-proximity", "mutual-proximity", {}),
    Arm("fnorm", "fnorm", {}),
)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Test queries, the id that answers each, and what belongs together."""

    queries: npt.NDArray[np.float32]
    answers: Integers
    clusters: Integers


def asked_of(corpus: Corpus, model: Model) -> Asked:
    """Return the test queries with one answer; queries whose answers have one source are one cluster."""
    test = np.array([split == "test" for split in corpus.splits]) & (corpus.judged.sizes == 1)
    if not test.any():
        raise SystemExit(f"{corpus.name} has no test queries with one answer each")
    places = np.flatnonzero(test)
    answers = corpus.judged.rows[corpus.judged.starts[places]]
    sources = [corpus.sources[row] if corpus.sources[row] is not None else row for row in answers.tolist()]
    numbers = {source: number for number, source in enumerate(dict.fromkeys(sources))}
    return Asked(model.queries[places], answers, np.array([numbers[source] for source in sources], np.int64))


def ranks_in(found: Sequence[Sequence[int]], answers: Integers) -> Integers:
    """Return the rank (from 1) of each answer among the ids of its list, 0 where it is not there."""
    places = [list(ids).index(answer) + 1 if answer in ids else 0 for ids, answer in zip(found, answers, strict=True)]
    return np.array(places, np.int64)


def floor_of(queries: int, k: int, rows: int) -> float:
    """Return the skewness of counts that chance alone would make: Poisson's, of as many hits on as many rows."""
    return float((queries * k / rows) ** -0.5)


def reference(rows: npt.NDArray[np.float32], bank: npt.NDArray[np.float32], asked: Asked) -> float:
    """Return recall@10 of csls as numpy alone computes it: scores of everything, a mean, a sort."""
    near = np.sort(np.partition(rows @ bank.T, len(bank) - DEPTH, axis=1)[:, len(bank) - DEPTH :], axis=1)
    table = asked.queries @ rows.T - 0.5 * near.mean(axis=1)
    own = table[np.arange(len(table)), asked.answers]
    return float(((table > own[:, None]).sum(axis=1) < DEPTH).mean())


# --- measuring --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """What one way of searching found."""

    recall: Values
    mrr: Values
    found: Integers

    def skew(self, rows: int) -> float:
        """Return the skewness of occurrences among the first ten above that of chance."""
        counts = occurrences(self.found, rows)
        return skewness(counts) - floor_of(len(self.found), self.found.shape[1], rows)


def _ranking(docs: vecdb.Collection, asked: Asked, **wishes: Any) -> _Ranking:
    recalls, reciprocals, found = [], [], []
    for start in range(0, len(asked.queries), 256):
        part = slice(start, start + 256)
        hits = docs.search(asked.queries[part], k=_RANKED, include=(), **wishes)
        ranks = ranks_in(hits.ids, asked.answers[part])
        recalls.append((ranks > 0) & (ranks <= DEPTH))
        reciprocals.append(np.where(ranks > 0, 1.0 / np.maximum(ranks, 1), 0.0))
        found.append(np.array([ids[:DEPTH] for ids in hits.ids], np.int64))
    return _Ranking(np.concatenate(recalls).astype(np.float64), np.concatenate(reciprocals), np.concatenate(found))


def measured(
    corpus: Corpus, name: str, banks: Sequence[int], found: dict[str, Any], keep: Callable[[str], None]
) -> None:
    """Measure every arm with every bank on one model; `found` takes the rows."""
    if _is_complete(found, banks):
        return
    model = corpus.model(name)
    asked, train = asked_of(corpus, model), np.array([split == "train" for split in corpus.splits])
    with tempfile.TemporaryDirectory() as folder, vecdb.open(Path(folder) / "hubs.vecdb", automatic=False) as db:
        docs = db.create_collection("docs")
        docs.add_space(name, dim=model.docs.shape[1])
        docs.upsert(range(len(model.docs)), {name: model.docs}, trust=True)
        raw = _ranking(docs, asked, exact=True)
        found["raw"] = {**_told(raw, raw, asked, len(docs)), "rows": len(docs), "queries": len(asked.queries)}
        rows = found.setdefault("arms", {})
        for bank, arm in product(banks, ARMS):
            row = rows.setdefault(f"{arm.name} {bank}", {"arm": arm.name, "bank": bank})
            if "recall" not in row or "batch_rate" not in row:
                _fill(docs, arm, (model.queries[train][:bank], asked), raw, row)
                keep(f"{corpus.name}, {name}: {arm.name}, bank of {bank}")
        for bank in banks:
            known = found.setdefault("numpy", {})
            known[str(bank)] = known.get(str(bank)) or reference(model.docs, model.queries[train][:bank], asked)
        if found.get("index", {}).get("bank") != max(banks):
            found["index"] = {"bank": max(banks), **_by_index(docs, model.queries[train][: max(banks)], asked)}
        keep(f"{corpus.name}, {name}: through an index")


def _is_complete(found: Mapping[str, Any], banks: Sequence[int]) -> bool:
    rows = [found.get("arms", {}).get(f"{arm.name} {bank}", {}) for arm in ARMS for bank in banks]
    return found.get("index", {}).get("bank") == max(banks) and all(
        "recall" in row and "batch_rate" in row for row in rows
    )


def _fill(
    docs: vecdb.Collection,
    arm: Arm,
    given: tuple[npt.NDArray[np.float32], Asked],
    raw: _Ranking,
    row: dict[str, Any],
) -> None:
    """Measure what a row does not say yet: what the correction is worth, and how quick it is."""
    bank, asked = given
    began = time.perf_counter()
    docs.fit_correction(arm.name, arm.kind, bank=bank, **arm.params)
    row.setdefault("fit_seconds", time.perf_counter() - began)
    if "recall" not in row:
        row |= _told(_ranking(docs, asked, exact=True, correction=arm.name), raw, asked, len(docs))
    if "batch_rate" not in row:
        row |= _speed(docs, asked, arm.name)
    docs.drop_correction(arm.name)


def _told(ranking: _Ranking, raw: _Ranking, asked: Asked, rows: int) -> dict[str, Any]:
    gains = {name: paired(getattr(ranking, name), getattr(raw, name), asked.clusters) for name in ("recall", "mrr")}
    return {
        "recall": float(ranking.recall.mean()),
        "mrr": float(ranking.mrr.mean()),
        "skewness": ranking.skew(rows),
        **{f"{name}_gain": gain.as_dict() for name, gain in gains.items()},
    }


def _speed(docs: vecdb.Collection, asked: Asked, name: str) -> dict[str, float]:
    """Return queries a second with the correction as a share of those without, measured in turns."""
    wishes: tuple[dict[str, Any], ...] = ({}, {"correction": name})
    batch, singles = asked.queries[:_BATCH], asked.queries[:_SINGLES]
    spent: dict[tuple[str, int], list[float]] = {(how, side): [] for how in ("batch", "single") for side in (0, 1)}
    for _ in range(_ROUNDS):
        for side, wish in enumerate(wishes):
            began = time.perf_counter()
            docs.search(batch, exact=True, include=(), **wish)
            middle = time.perf_counter()
            for query in singles:
                docs.search(query, exact=True, include=(), **wish)
            spent["batch", side].append((middle - began) / len(batch))
            spent["single", side].append((time.perf_counter() - middle) / len(singles))
    took = {key: float(np.median(times)) for key, times in spent.items()}
    return {
        f"{how}_{part}": value
        for how in ("batch", "single")
        for part, value in (("rate", 1.0 / took[how, 1]), ("share", took[how, 0] / took[how, 1]))
    }


def _by_index(docs: vecdb.Collection, bank: npt.NDArray[np.float32], asked: Asked) -> dict[str, float]:
    """Return what asking an index costs: the share of the exact corrected top 10 that is found, and recall@10."""
    docs.fit_correction("index", "csls", bank=bank)
    exact = _ids(docs, asked, exact=True)
    docs.create_index(next(iter(docs.spaces)), "rabitq")
    by_index = _ids(docs, asked)
    same = [len(set(one) & set(other)) / len(one) for one, other in zip(by_index, exact, strict=True)]
    plans = [docs.search(query, correction="index", explain=True).plan for query in asked.queries[:200]]
    ranks = ranks_in(by_index, asked.answers)
    certain = float(np.mean([plan["certain"] for plan in plans]))
    return {"found": float(np.mean(same)), "recall": float((ranks > 0).mean()), "certain": certain}


def _ids(docs: vecdb.Collection, asked: Asked, **wishes: Any) -> list[list[int]]:
    found = []
    for start in range(0, len(asked.queries), 256):
        hits = docs.search(asked.queries[start : start + 256], k=DEPTH, correction="index", include=(), **wishes)
        found += list(hits.ids)
    return found


# --- telling ----------------------------------------------------------------------------------------------

_HEAD = ("correction", "bank", "recall@10", "gain", "MRR", "gain", "skewness above chance", "batch", "single")


def markdown(document: Mapping[str, Any]) -> str:
    """Return all that was measured for a page."""
    return "\n\n".join(_model(name, found) for name, found in document.items() if "raw" in found)


def _model(name: str, found: Mapping[str, Any]) -> str:
    raw = found["raw"]
    lines = [_HEAD, ("---",) * len(_HEAD)]
    lines.append(("none", "", f"{raw['recall']:.3f}", "", f"{raw['mrr']:.3f}", "", f"{raw['skewness']:.2f}", "", ""))
    for row in found.get("arms", {}).values():
        lines.append(
            (
                row["arm"],
                f"{row['bank']:,}",
                f"{row['recall']:.3f}",
                _gain(row["recall_gain"]),
                f"{row['mrr']:.3f}",
                _gain(row["mrr_gain"]),
                f"{row['skewness']:.2f}",
                f"{row['batch_rate']:,.0f} ({row['batch_share']:.2f})",
                f"{row['single_rate']:,.0f} ({row['single_share']:.2f})",
            )
        )
    words = [f"### {name}", f"{raw['rows']:,} rows, {raw['queries']:,} test queries."]
    if "numpy" in found:
        told = ", ".join(f".{round(1000 * value):03d} with {int(bank):,}" for bank, value in found["numpy"].items())
        words[-1] += f" recall@10 of csls computed by numpy alone: {told}."
    if "index" in found:
        index = found["index"]
        words[-1] += (
            f" Through a `rabitq` index at its usual effort csls finds {index['found']:.3f} of its exact top 10"
            f" (recall@10 {index['recall']:.3f}); for {index['certain']:.2f} of the queries its candidates are"
            " certain to suffice."
        )
    return "\n\n".join([*words, "\n".join("| " + " | ".join(line) + " |" for line in lines)])


def _gain(gain: Mapping[str, float]) -> str:
    text = f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    return f"**{text}**" if gain["low"] > 0 else text


# --- the command ------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    corpus = load_corpus(options.folder)
    document: dict[str, Any] = {}
    if options.out is not None and options.out.exists():
        document = json.loads(options.out.read_text(encoding="utf-8"))

    def keep(words: str) -> None:
        print(words, file=sys.stderr, flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    for name in options.model or corpus.models:
        measured(corpus, name, options.bank, document.setdefault(f"{corpus.name}, {name}", {}), keep)
    print(markdown(document))
    if options.write_docs is not None:
        write_page(options.write_docs, "hubness", markdown(document))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.evaluate.hubness", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="default: all")
    parser.add_argument("--bank", type=int, nargs="+", default=[800, 2_000], help="training queries in a bank")
    parser.add_argument("--out", type=Path, help="file to keep the numbers in")
    parser.add_argument("--write-docs", type=Path, metavar="PAGE", help="put the tables into a page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
