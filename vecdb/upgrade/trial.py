"""The trial: every kind of map fitted on several splits of the pairs, everything ranked, nothing stored.

Kinds that the first split shows to be far behind are not fitted again. The kind is chosen by real queries where there
are any; each half of them chooses for the other. Protocol: docs/explanation/verdicts.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Transform
from vecdb.errors import CancelledError, FitError
from vecdb.registry import Provided
from vecdb.types import CancelCheck, Progress
from vecdb.upgrade.findings import ArmFound, Findings, Stage
from vecdb.upgrade.ledger import Ledger
from vecdb.upgrade.material import Material
from vecdb.upgrade.mixing import mixing_of, shift_of, tables_of
from vecdb.upgrade.natives import native_of, stages_of
from vecdb.upgrade.parts import Arm, Part, fit_arm, part_of
from vecdb.upgrade.setting import Judging, judging_of
from vecdb.upgrade.sides import Ask, Setting, Side, bridged, corrected_ranks, plain_ranks, staying

__all__ = ["Options", "Outcome", "run"]

Integers = npt.NDArray[np.int64]

_FAR_BEHIND = 0.9
"""Of the best: a kind that reaches less on the first split is not fitted again."""
_CURVE = (0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Options:
    """How a trial is run.

    Attributes
    ----------
    arms : mapping of Arm to (Provided, parameters)
    splits, seed : int
    metric : str
    expected : int or None
        New queries that intervals are for.
    progress : callable or None
    cancel : callable
    """

    arms: Mapping[Arm, tuple[Provided, Mapping[str, Any]]]
    splits: int
    seed: int
    metric: str
    expected: int | None
    progress: Progress | None
    cancel: CancelCheck


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a trial leaves: numbers, and the parts that a final fit starts from."""

    findings: Findings
    parts: tuple[Part, ...]


@dataclass(slots=True, eq=False)
class _Trial:
    """One run: what is measured is written into the ledger and kept as ranks, split by split."""

    material: Material
    options: Options
    parts: list[Part]
    judging: Judging
    ledger: Ledger
    done: int = 0
    total: int = 1
    transforms: dict[Arm, dict[int, Transform]] = field(default_factory=dict)
    ranks: dict[tuple[Any, bool, int], Integers] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def step(self) -> None:
        """Report progress and stop where that is asked for."""
        if self.options.progress is not None:
            self.options.progress(self.done, self.total)
        if self.options.cancel():
            raise CancelledError(f"the plan was cancelled after {self.done} of {self.total} steps; nothing was stored")
        self.done += 1

    def side(self, key: Any, split: int, setting: Setting) -> tuple[Side, Ask] | None:
        """Return what a key ranks: ``"stay"``, or an arm with its map of a split."""
        if key == "stay":
            return staying(self.material, setting)
        provided, _ = self.options.arms[key]
        return bridged(self.material, setting, key, provided, self.transforms[key][split])

    def rank(self, key: Any, split: int) -> None:
        """Rank by a key, plain and corrected, and write what it is worth."""
        setting, columns, splits = self.judging.of(split)
        found = self.side(key, split, setting)
        if found is None:
            return
        side, ask = found
        ranks = plain_ranks(side, setting.judged)
        corrected = corrected_ranks(side, ask, setting.questions, setting.judged, setting.bank)
        rows = splits if key == "stay" else slice(split, split + 1)
        for fixed, those in ((False, ranks), (True, corrected)):
            self.ranks[key, fixed, split] = those
            self.ledger.write((key, fixed), rows, columns, those, setting.judged)
        if key != "stay":
            self._forget_fitted(key, split, setting, columns)

    def _forget_fitted(self, key: Arm, split: int, setting: Setting, columns: Integers) -> None:
        """Leave out queries one of whose answers a map was fitted on: they would flatter it."""
        if self.judging.mode != "answers":
            return
        fitted = self.material.places[self.parts[split].fit]
        hit = np.isin(setting.judged.rows, fitted[fitted >= 0])
        spoilt = np.unique(setting.judged.owners[hit])
        for fixed in (False, True):
            self.ledger.values[key, fixed][split, columns[spoilt]] = np.nan

    def fit(self, arm: Arm, split: int, share: float = 1.0) -> Transform | None:
        """Fit an arm on one split; None where its kind cannot be fitted on so few pairs."""
        self.step()
        provided, params = self.options.arms[arm]
        part = self.parts[split] if share == 1.0 else self.parts[split].smaller(share)
        try:
            return fit_arm(self.material, part, arm, provided, params, self.options.cancel)
        except FitError as error:
            self.notes.append(f"{arm} was not fitted: {error.message}")
            return None


def run(material: Material, options: Options) -> Outcome:
    """Return what was measured.

    Raises
    ------
    FitError
        No kind could be fitted, or nothing is left to judge by.
    CancelledError, PluginError, PluginContractError
    """
    parts = [part_of(material, options.seed + number) for number in range(options.splits)]
    judging = judging_of(material, parts)
    ledger = Ledger(options.splits, judging.clusters, options.metric, options.expected)
    trial = _Trial(material, options, parts, judging, ledger)
    trial.total = len(options.arms) + 2 * (options.splits - 1) + len(_CURVE) + 2
    arms = _fit_all(trial)
    return Outcome(_findings(trial, arms), tuple(parts))


def _fit_all(trial: _Trial) -> list[Arm]:
    """Fit and rank everything; return the arms that every split has measured, the best first."""
    for split in range(len(trial.judging.settings)):
        trial.rank("stay", split)
    arms = [arm for arm in trial.options.arms if _try(trial, arm, 0)]
    if not arms:
        raise FitError("no kind of map could be fitted", hint="; ".join(trial.notes) or None)
    arms = _promising(trial, arms)
    trial.total = trial.done + len(arms) * (trial.options.splits - 1) + len(_CURVE) + 2
    for split in range(1, trial.options.splits):
        arms = [arm for arm in arms if _try(trial, arm, split)]
    return sorted(arms, key=lambda arm: -max(trial.ledger.mean((arm, fixed)) for fixed in (False, True)))


def _try(trial: _Trial, arm: Arm, split: int) -> bool:
    made = trial.fit(arm, split)
    if made is None:
        return False
    trial.transforms.setdefault(arm, {})[split] = made
    trial.rank(arm, split)
    return True


def _promising(trial: _Trial, arms: list[Arm]) -> list[Arm]:
    """Return the arms that are not far behind on the first split."""
    worth = {arm: max(trial.ledger.mean((arm, fixed)) for fixed in (False, True)) for arm in arms}
    best = max(worth.values())
    return [arm for arm in arms if worth[arm] >= _FAR_BEHIND * best]


# --- findings ---------------------------------------------------------------------------------------------


def _findings(trial: _Trial, arms: list[Arm]) -> Findings:
    ledger, material, judging = trial.ledger, trial.material, trial.judging
    stay: list[Any] = ledger.whole([("stay", False), ("stay", True)])
    keys: list[Any] = ledger.whole([(arm, fixed) for arm in arms for fixed in (False, True)])
    corrected = ledger.best([key for key in keys if key[0] == arms[0]])[1]
    stayed = ledger.best(stay)[1] if stay else False
    native = native_of(trial, arms[0], bool(corrected), bool(stayed))
    stages: tuple[Stage, ...] = stages_of(trial, arms[0], bool(corrected), bool(stayed)) if native else ()
    tables = tables_of(trial, arms[0]) if native else None
    trial.step()
    return Findings(
        judging.mode,
        ledger.metric,
        len(material.gallery),
        len(material.X),
        int((~np.isnan(ledger.of(keys[0])).all(axis=0)).sum()),
        trial.options.splits,
        round(float(np.mean([len(part.fit) for part in trial.parts]))),
        ledger.worth(("stay", False)) if stay else None,
        ledger.worth(("stay", True)) if stay else None,
        ledger.ratio(ledger.of(("stay", True)), ledger.of(("stay", False))) if stay else None,
        _all_found(trial, arms, stay),
        ledger.ratio(ledger.chosen(keys), ledger.chosen(stay)) if stay else None,
        native,
        stages,
        _learning(trial, arms[0]),
        None if tables is None else shift_of(tables),
        None if tables is None else mixing_of(tables, ledger.metric),
        (*material.notes, *judging.notes, *trial.notes),
    )


def _all_found(trial: _Trial, arms: list[Arm], stay: list[Any]) -> tuple[ArmFound, ...]:
    """Return what was found of every arm: those of all splits first, then those that one split was enough for."""
    dropped = [arm for arm in trial.transforms if arm not in arms]
    rest = sorted(dropped, key=lambda arm: -trial.ledger.mean((arm, False)))
    return tuple(_found(trial, arm, stay) for arm in [*arms, *rest])


def _found(trial: _Trial, arm: Arm, stay: list[Any]) -> ArmFound:
    ledger = trial.ledger
    keys: list[Any] = [(arm, False), (arm, True)]
    advantage = None
    if stay:
        there = ~np.isnan(ledger.of(keys[0])).all(axis=1)
        advantage = ledger.ratio(ledger.of(ledger.best(keys))[there], ledger.of(ledger.best(stay))[there])
    return ArmFound(arm, len(trial.transforms[arm]), ledger.worth(keys[0]), ledger.worth(keys[1]), advantage)


def _learning(trial: _Trial, arm: Arm) -> tuple[tuple[int, float], ...]:
    """Return what the chosen map is worth with a quarter, half and all of the pairs of the first split."""
    full = trial.transforms[arm][0]
    points = []
    for share in _CURVE:
        made = trial.fit(arm, 0, share)
        if made is not None:
            trial.transforms[arm][0] = made
            points.append((len(trial.parts[0].smaller(share).fit), _value(trial, arm)))
    trial.transforms[arm][0] = full
    return (*points, (len(trial.parts[0].fit), _value(trial, arm)))


def _value(trial: _Trial, arm: Arm) -> float:
    setting, columns, _ = trial.judging.of(0)
    found = trial.side(arm, 0, setting)
    assert found is not None
    own = Ledger(1, trial.ledger.clusters, trial.ledger.metric)
    own.write(arm, slice(0, 1), columns, plain_ranks(found[0], setting.judged), setting.judged)
    return own.mean(arm)
