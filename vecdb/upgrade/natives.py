"""What is known only where new vectors are: retention, gain, two stages.

A small gallery flatters: everything here carries its size, and what can be carried on to the whole collection is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Transform
from vecdb.evaluation import Judged, recall_of, top_k
from vecdb.upgrade.findings import Native, Nested, Stage
from vecdb.upgrade.ledger import Ledger
from vecdb.upgrade.material import Material, Questions
from vecdb.upgrade.parts import Arm, Part
from vecdb.upgrade.setting import FEWEST, Judging
from vecdb.upgrade.sides import Ask, Setting, Side, corrected_ranks, plain_ranks, reembedded

__all__ = ["DEPTHS", "Trial", "growing", "native_judged", "native_of", "stages_of"]

Integers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

DEPTHS = (50, 100, 200)
_SHARES = (0.25, 0.5, 1.0)
_NEAREST = 10
_FAR = 1 << 40
"""The rank of what is not among the candidates."""


class Trial(Protocol):
    """What is read of a trial."""

    material: Material
    judging: Judging
    ledger: Ledger
    parts: list[Part]
    transforms: dict[Arm, dict[int, Transform]]
    ranks: dict[tuple[Any, bool, int], Integers]

    def side(self, key: Any, split: int, setting: Setting) -> tuple[Side, Ask] | None:
        """Return what a key ranks."""
        ...


def native_judged(setting: Setting) -> Judged:
    """Return the judgements among the native rows."""
    return setting.judged.among(setting.natives, len(setting.gallery))


def _bank_among(setting: Setting, rows: Integers) -> Questions | None:
    """Return the bank with its answers among some rows of the gallery."""
    bank = setting.bank
    if bank is None or bank.judged is None:
        return bank
    return replace(bank, judged=bank.judged.among(rows, len(setting.gallery)))


@dataclass(frozen=True, slots=True, eq=False)
class _Among:
    """Some native rows: which, as rows of the gallery and of the native ones, and who is judged on them."""

    setting: Setting
    keep: Integers
    rows: Integers
    judged: Judged

    @classmethod
    def of(cls, setting: Setting, some: Integers | None) -> _Among:
        count = len(setting.natives)
        keep = np.arange(count) if some is None else some[some < count]
        return cls(setting, keep, setting.natives[keep], native_judged(setting).among(keep, count))


def _measured(trial: Trial, some: Integers | None, *, corrected: tuple[bool, bool], arm: Arm) -> Ledger:
    """Return a ledger of staying, bridging and re-embedding over native rows, or over `some` of them."""
    ledger = Ledger(trial.ledger.splits, trial.ledger.clusters, trial.ledger.metric, trial.ledger.expected)
    for split in range(ledger.splits):
        setting, columns, splits = trial.judging.of(split)
        among = _Among.of(setting, some)
        if split == 0 or len(trial.judging.settings) > 1:
            for fixed in (False, True):  # re-embedding is given both ways, of which the better counts
                _write_side(ledger, "new", (splits, columns), reembedded(trial.material, setting), among, fixed)
            _write_side(ledger, "stay", (splits, columns), trial.side("stay", split, setting), among, corrected[1])
        _write_side(
            ledger, arm, (slice(split, split + 1), columns), trial.side(arm, split, setting), among, corrected[0]
        )
        _keep_only(ledger, trial.ledger, arm, split)
    return ledger


def _write_side(
    ledger: Ledger,
    key: Any,
    where: tuple[slice, Integers],
    found: tuple[Side, Ask] | None,
    among: _Among,
    corrected: bool,
) -> None:
    if found is not None:
        side = found[0].among(among.keep if key == "new" else among.rows)
        ranks = _ranks((side, found[1]), among, corrected=corrected)
        ledger.write((key, corrected), where[0], where[1], ranks, among.judged)


def _ranks(found: tuple[Side, Ask], among: _Among, *, corrected: bool) -> Integers:
    side, ask = found
    if not corrected:
        return plain_ranks(side, among.judged)
    asked = replace(among.setting.questions, judged=among.judged)
    return corrected_ranks(side, ask, asked, among.judged, _bank_among(among.setting, among.rows))


def _keep_only(ledger: Ledger, judged: Ledger, arm: Arm, split: int) -> None:
    """Leave out what the whole collection left out: queries whose answers the map was fitted on."""
    out = np.isnan(judged.of((arm, False))[split])
    for key in [key for key in ledger.values if key[0] == arm]:
        ledger.values[key][split, out] = np.nan


def native_of(trial: Trial, arm: Arm, corrected: bool, stayed: bool) -> Native | None:
    """Return what was measured on native rows, None where too few queries have an answer there."""
    setting, _, _ = trial.judging.of(0)
    if not len(setting.natives) or int(native_judged(setting).answered.sum()) < FEWEST:
        return None
    ledgers = [_measured(trial, some, corrected=(corrected, stayed), arm=arm) for some in _nested(setting)]
    ledger = ledgers[-1]
    keys = _keys(ledger, arm)
    nested = tuple(
        Nested(
            size,
            _mean_ratio(each, "bridge", "new"),
            _mean_ratio(each, "new", "stay"),
            _mean_ratio(each, "bridge", "stay"),
        )
        for size, each in zip(_sizes(setting), (_Named(each, _keys(each, arm)) for each in ledgers), strict=True)
    )
    return Native(
        len(setting.natives),
        int((~np.isnan(ledger.of(keys["new"])).all(axis=0)).sum()),
        ledger.worth(keys["stay"]) if "stay" in keys else None,
        ledger.worth(keys["bridge"]),
        ledger.worth(keys["new"]),
        ledger.ratio(ledger.of(keys["bridge"]), ledger.of(keys["new"])),
        ledger.ratio(ledger.of(keys["new"]), ledger.of(keys["stay"])) if "stay" in keys else None,
        nested,
        _carried_on(nested, len(setting.gallery)),
        _neighbours(trial, arm, setting),
    )


def _neighbours(trial: Trial, arm: Arm, setting: Setting) -> float | None:
    """Return how many of the new model's nearest native rows the bridge finds, exact on both sides."""
    fresh, found = reembedded(trial.material, setting), trial.side(arm, 0, setting)
    if fresh is None or found is None:
        return None
    sides = fresh[0], found[0].among(setting.natives)
    lists = [top_k(side.queries, side.rows, _NEAREST, side.metric, bias=side.bias)[0] for side in sides]
    return float(recall_of(lists[1], lists[0]).mean())


class _Named:
    """A ledger with the keys of staying, bridging and re-embedding."""

    def __init__(self, ledger: Ledger, keys: dict[str, Any]) -> None:
        self.ledger, self.keys = ledger, keys


def _keys(ledger: Ledger, arm: Arm) -> dict[str, Any]:
    """Return the key of each way of answering; of re-embedding the better one."""
    named = {"stay": "stay", "bridge": arm, "new": "new"}
    found: dict[str, Any] = {}
    for name, own in named.items():
        keys = [key for key in ledger.values if key[0] == own]
        if keys:
            found[name] = ledger.best(keys)
    return found


def _mean_ratio(named: _Named, upper: str, lower: str) -> float:
    if upper not in named.keys or lower not in named.keys:
        return math.nan
    return named.ledger.mean(named.keys[upper]) / max(named.ledger.mean(named.keys[lower]), 1e-9)


def _nested(setting: Setting) -> list[Integers | None]:
    """Return rows of smaller galleries that all hold the answers, and None for the whole."""
    order = growing(setting)
    return [None if share == 1.0 else np.sort(order[: int(len(order) * share)]) for share in _SHARES]


def growing(setting: Setting) -> Integers:
    """Return native rows in the order in which smaller galleries grow: the answers first."""
    count = len(setting.natives)
    answers = np.unique(native_judged(setting).rows)
    others = np.setdiff1d(np.arange(count), answers)
    return np.concatenate([answers, np.random.default_rng(count).permutation(others)])


def _sizes(setting: Setting) -> list[int]:
    return [int(len(setting.natives) * share) for share in _SHARES]


def _carried_on(nested: tuple[Nested, ...], size: int) -> tuple[float | None, float | None]:
    """Return retention and gain at a size, along a straight line of their logarithms over that of the size."""

    def line(values: list[float]) -> float | None:
        if not all(value > 0 for value in values):
            return None
        at = np.log([each.size for each in nested])
        slope = float(np.polyfit(at, np.log(values), 1)[0])
        return float(values[-1] * math.exp(slope * (math.log(size) - at[-1])))

    gains = [each.gain if each.gain is not None else math.nan for each in nested]
    retention = line([each.retention for each in nested])
    return None if retention is None else min(retention, 1.0), line(gains)


# --- two stages -------------------------------------------------------------------------------------------


def stages_of(trial: Trial, arm: Arm, corrected: bool, stayed: bool) -> tuple[Stage, ...]:
    """Return what candidates of the bridge, and of the old model, are worth once the new model orders them.

    A candidate is what the whole collection ranks among the first; its place is that among all native rows. Both are
    as strict as what is known allows. The new model's order and staying are each the better of plain and corrected.
    """
    ledger = Ledger(trial.ledger.splits, trial.ledger.clusters, trial.ledger.metric, trial.ledger.expected)
    ways = {"bridge": (arm, corrected), "old": ("stay", stayed)}
    for split in range(ledger.splits):
        setting, columns, splits = trial.judging.of(split)
        among = _Among.of(setting, None)
        fresh = reembedded(trial.material, setting)
        if fresh is None:
            return ()
        there = np.isin(setting.judged.rows, setting.natives)
        for fixed in (False, True):
            native = _ranks(fresh, among, corrected=fixed)
            for by, key in ways.items():
                rough = trial.ranks.get((*key, split), trial.ranks.get((*key, 0)))
                for depth in DEPTHS if rough is not None else ():
                    assert rough is not None
                    ranks = np.where(rough[there] <= depth, native, _FAR)
                    own = splits if by == "old" else slice(split, split + 1)
                    ledger.write((by, depth, fixed), own, columns, ranks, among.judged)
        _write_side(ledger, "stay", (splits, columns), trial.side("stay", split, setting), among, stayed)
    made = [_stage(ledger, by, depth) for by in ways for depth in DEPTHS]
    return tuple(stage for stage in made if stage is not None)


def _stage(ledger: Ledger, by: str, depth: int) -> Stage | None:
    keys: list[Any] = [key for key in ledger.values if key[:2] == (by, depth)]
    if not keys:
        return None
    values, stay = ledger.of(ledger.best(keys)), [key for key in ledger.values if key[0] == "stay"]
    advantage = ledger.ratio(values, ledger.of(stay[0])) if stay else None
    return Stage(by, depth, ledger.estimate(values), advantage)
