"""How often the verdict of `plan_upgrade` is right: `python -m tools.evaluate.verdicts FOLDER --store FOLDER`.

Every ordered pair of models, and old models made of a new one whose truth is known: turned, turned and noised, cut to
64 columns. Maps are fitted on several splits of the pairs and ranked for all test queries; then plans are made on some
queries and splits (at most 600, five) and judged on the other queries by the fit of another split, many times over.
What was ranked is kept in the store; a run that was stopped goes on there. Protocol: docs/explanation/verdicts.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.evaluate.corpus import Corpus, Model, load_corpus
from tools.evaluate.protocol import queries_of
from tools.evaluate.report import write_page
from vecdb import PluginRegistry, Space
from vecdb.contracts.quiet import never
from vecdb.evaluation import Judged, joined, near_duplicates
from vecdb.upgrade.decide import decide
from vecdb.upgrade.findings import ArmFound, Findings, Native
from vecdb.upgrade.ledger import Ledger
from vecdb.upgrade.material import Material, Questions
from vecdb.upgrade.parts import Arm, fit_arm, part_of
from vecdb.upgrade.sides import Setting, bridged, corrected_ranks, plain_ranks, reembedded, staying

ARMS = (Arm("distill", "query"), Arm("procrustes", "query"), Arm("ridge", "gallery"))
CONTROLS = ("turned", "noised", "cut")
PAIRS, DOCUMENTS, SPLITS, PLANNED = 4_400, 9_000, 6, 600
SIGMA = 0.05
"""Of the noise of each column; unit vectors of 384 columns have 0.051 in each."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One upgrade: its name, and the two models."""

    name: str
    old: Model
    new: Model


def cases(corpus: Corpus, wanted: list[str]) -> Iterator[Case]:
    """Yield the pairs of models and the controls, or those that are named."""
    names = [f"{old}:{new}" for old, new in permutations(corpus.models, 2)]
    base = "mini6" if "mini6" in corpus.models else corpus.models[0]
    for name in wanted or [*names, *(f"{control}:{base}" for control in CONTROLS)]:
        old, new = name.split(":")
        fresh = corpus.model(new)
        yield Case(name, control(fresh, old) if old in CONTROLS else corpus.model(old), fresh)


def control(model: Model, kind: str) -> Model:
    """Return an old model made of a new one."""
    random = np.random.default_rng(5)
    turn = np.linalg.qr(random.standard_normal((model.docs.shape[1],) * 2))[0].astype(np.float32)

    def seen(rows: npt.NDArray[Any]) -> Any:
        if kind == "cut":
            made = rows[:, :64]
        else:
            noise = SIGMA * random.standard_normal(rows.shape) if kind == "noised" else 0.0
            made = rows @ turn + noise
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)

    return Model(kind, seen(model.docs), seen(model.queries))


# --- what is ranked ---------------------------------------------------------------------------------------


def material_of(corpus: Corpus, case: Case) -> tuple[Material, Setting]:
    """Return pairs without answers among them, and all test queries over some of the documents."""
    asked = queries_of(corpus)
    judged = corpus.judged.take(asked.test)
    answers = np.unique(judged.rows)
    others = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(case.old.docs)), answers))
    rows = np.sort(np.concatenate([answers, others[: max(DOCUMENTS - len(answers), PAIRS)]]))
    pairs = np.sort(others[:PAIRS])
    X, Y = case.old.docs[pairs], case.new.docs[pairs]
    groups = joined(near_duplicates(X, Y), [corpus.sources[row] for row in pairs])
    questions = _questions(case, asked.test, judged.among(rows, len(case.old.docs)), asked.clusters)
    bank = _questions(case, asked.fit, None, np.arange(len(asked.fit)))
    spaces = Space(case.old.name, X.shape[1], id=1), Space(case.new.name, Y.shape[1], id=2)
    places = np.searchsorted(rows, pairs)
    material = Material(*spaces, case.old.docs[rows], X, Y, places, (), groups, questions, bank)
    return material, Setting(material.gallery, np.arange(len(rows)), case.new.docs[rows], questions, bank)


def _questions(case: Case, which: Any, judged: Judged | None, clusters: Any) -> Questions:
    return Questions(case.old.queries[which], case.new.queries[which], judged, clusters)


def ranked(material: Material, setting: Setting, registry: PluginRegistry, arms: Sequence[Arm]) -> Ledger:
    """Return what everything is worth for every test query in every split."""
    ledger = Ledger(SPLITS, setting.questions.clusters, "mrr")
    for name, found in (("stay", staying(material, setting)), ("new", reembedded(material, setting))):
        _write(ledger, name, slice(None), found, setting)
    for split in range(SPLITS):
        part = part_of(material, split)
        for arm in arms:
            provided = registry.find("transform", arm.kind)
            made = fit_arm(material, part, arm, provided, {}, never)
            found = bridged(material, setting, arm, provided, made)
            _write(ledger, f"{arm.kind}:{arm.role}", slice(split, split + 1), found, setting)
    return ledger


def _write(ledger: Ledger, name: str, splits: slice, found: Any, setting: Setting) -> None:
    side, ask = found
    columns, judged = np.arange(setting.questions.count), setting.judged
    ledger.write((name, False), splits, columns, plain_ranks(side, judged), judged)
    corrected = corrected_ranks(side, ask, setting.questions, judged, setting.bank)
    ledger.write((name, True), splits, columns, corrected, judged)


def kept(store: Path, corpus: Corpus, case: Case, registry: PluginRegistry, arms: Sequence[Arm]) -> Ledger:
    """Return the ledger of a case from the store, or make it."""
    path = store / f"{corpus.name}-{case.name.replace(':', '-')}.npz"
    material, setting = (None, None) if path.exists() else material_of(corpus, case)
    if material is not None and setting is not None:
        started = time.monotonic()
        made = ranked(material, setting, registry, arms)
        arrays = {f"{name}|{int(fixed)}": values for (name, fixed), values in made.values.items()}
        np.savez_compressed(path, clusters=made.clusters, **arrays)
        print(f"{case.name}: ranked in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    with np.load(path) as arrays:
        ledger = Ledger(SPLITS, arrays["clusters"], "mrr")
        for name in arrays.files:
            if name != "clusters":
                ledger.values[name.split("|")[0], name.endswith("1")] = arrays[name]
    return ledger


# --- what is judged ---------------------------------------------------------------------------------------


def judged_once(ledger: Ledger, trial: int) -> dict[str, Any]:
    """Make one plan on some queries and splits, and hold it against other queries and another fit."""
    random = np.random.default_rng(trial)
    planned = _whole_clusters(ledger.clusters, random)
    splits = random.permutation(SPLITS)
    plan = _part(ledger, splits[:5], planned, int((~planned).sum()))
    later = _part(ledger, splits[5:6], ~planned, None)
    stay, new = ([(name, fixed) for fixed in (False, True)] for name in ("stay", "new"))
    bridges = [key for key in ledger.values if key[0] not in {"stay", "new"}]
    advantage = plan.ratio(plan.chosen(bridges), plan.chosen(stay))
    gain = plan.ratio(plan.of(plan.best(new)), plan.of(plan.best(stay)))
    truth = later.mean(plan.best(bridges)) / later.mean(plan.best(stay))
    true_gain = later.mean(plan.best(new)) / later.mean(plan.best(stay))
    kind, role = plan.best(bridges)[0].split(":")
    verdict = decide(_findings(plan, Arm(kind, role), advantage, gain))
    return {
        "decision": verdict.decision,
        "kind": kind,
        "advantage": advantage.value,
        "covered": advantage.low <= truth <= advantage.high,
        "gain_covered": gain.low <= true_gain <= gain.high,
        "width": advantage.high / advantage.low,
        "truth": truth,
        "true_gain": true_gain,
    }


def _whole_clusters(clusters: Any, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which queries a plan is made on: whole clusters, at most as many as are planned on."""
    order = random.permutation(int(clusters.max()) + 1)
    place = np.argsort(order)[clusters]
    sizes = np.bincount(place)
    return np.asarray(place < np.searchsorted(np.cumsum(sizes), PLANNED, side="right"), np.bool_)


def _part(ledger: Ledger, splits: Any, queries: npt.NDArray[np.bool_], expected: int | None) -> Ledger:
    numbers = np.unique(ledger.clusters[queries], return_inverse=True)[1].reshape(-1)
    part = Ledger(len(splits), numbers, ledger.metric, expected)
    part.values = {key: values[splits][:, queries] for key, values in ledger.values.items()}
    return part


def _findings(plan: Ledger, arm: Arm, advantage: Any, gain: Any) -> Findings:
    stay, new, own = (
        plan.worth(("stay", False)),
        plan.worth(("new", False)),
        plan.worth((f"{arm.kind}:{arm.role}", False)),
    )
    fixed = plan.worth(("stay", True))
    correction = plan.ratio(plan.of(("stay", True)), plan.of(("stay", False)))
    kept_share = plan.ratio(plan.of((f"{arm.kind}:{arm.role}", False)), plan.of(("new", False)))
    native = Native(DOCUMENTS, stay.mrr.queries, stay, own, new, kept_share, gain, (), (None, None))
    found = ArmFound(arm, plan.splits, own, own, advantage)
    return Findings(
        "answers",
        "mrr",
        DOCUMENTS,
        PAIRS,
        stay.mrr.queries,
        plan.splits,
        0,
        stay,
        fixed,
        correction,
        (found,),
        advantage,
        native,
    )


def summary(name: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a case shows.

    A bridge is false where it loses 2 % or more on the queries to come; another decision is false where the bridge
    gains 2 % or more there.
    """
    bridge = np.array([each["decision"] == "bridge" for each in trials])
    truth = np.array([each["truth"] for each in trials])
    decisions = {each["decision"] for each in trials}
    return {
        "case": name,
        "trials": len(trials),
        "advantage": float(np.mean([each["advantage"] for each in trials])),
        "truth": float(truth.mean()),
        "gain": float(np.mean([each["true_gain"] for each in trials])),
        "covered": float(np.mean([each["covered"] for each in trials])),
        "gain_covered": float(np.mean([each["gain_covered"] for each in trials])),
        "width": float(np.mean([each["width"] for each in trials])),
        "false_bridge": float((bridge & (truth < 0.98)).mean()),
        "false_stay": float((~bridge & (truth > 1.02)).mean()),
        "decisions": {each: float(np.mean([one["decision"] == each for one in trials])) for each in sorted(decisions)},
        "kinds": {
            kind: float(np.mean([one["kind"] == kind for one in trials])) for kind in {t["kind"] for t in trials}
        },
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table."""
    heads = ["old : new", "kinds", "advantage", "of new queries", "gain", "covered", "gain covered", "false bridge"]
    heads += ["false stay", "said"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        said = ", ".join(f"{name} {share:.0%}" for name, share in row["decisions"].items())
        numbers = [f"{row[name]:.3f}" for name in ("advantage", "truth", "gain")]
        shares = [f"{row[name]:.1%}" for name in ("covered", "gain_covered", "false_bridge", "false_stay")]
        lines.append(f"| {' | '.join([row['case'], ' '.join(row['tried']), *numbers, *shares, said])} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.evaluate.verdicts", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", type=Path, required=True, help="folder to keep rankings in")
    parser.add_argument("--case", action="append", default=[], metavar="OLD:NEW", help="default: all, and the controls")
    parser.add_argument("--kinds", help="names, with commas between them, of those that are tried")
    parser.add_argument("--trials", type=int, default=200, help="plans of each case")
    parser.add_argument("--write-docs", type=Path, metavar="PAGE", help="put the table into a page")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    options.store.mkdir(parents=True, exist_ok=True)
    corpus, registry = load_corpus(options.folder), PluginRegistry(entry_points=False)
    arms = [arm for arm in ARMS if not options.kinds or arm.kind in options.kinds.split(",")]
    rows = []
    for case in cases(corpus, options.case):
        ledger = kept(options.store, corpus, case, registry, arms)
        tried = sorted({name.split(":")[0] for name, _ in ledger.values if ":" in name})
        trials = [judged_once(ledger, trial) for trial in range(options.trials)]
        rows.append({**summary(case.name, trials), "tried": tried})
    print(markdown(rows))
    if options.write_docs is not None:
        write_page(options.write_docs, "verdicts", markdown(rows))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
