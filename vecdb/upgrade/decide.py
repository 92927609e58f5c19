"""One decision from the findings, by rules that are tried in order; the first that holds fires and is named.

"Above" means that the lower end of the 95 % prediction interval is above 1: what new queries will show, not what these
happened to. Nothing is advised on a hope: what was not measured cannot fire a rule that needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vecdb.evaluation import Estimate
from vecdb.upgrade.findings import Findings, Stage

__all__ = ["DECISIONS", "Verdict", "decide"]

DECISIONS = ("stay", "stay, corrected", "bridge", "bridge + rerank", "dual query", "backfill")

_LEVEL, _LEVEL_LOW = 0.98, 0.95
"""An advantage from which nothing that counts is lost, and the least lower end of its interval."""
_KEPT = 0.8
"""Of re-embedding: two stages that lose more than the rest hide what the new model is worth."""
_MOSTLY, _CANDIDATES = 0.9, 0.95
"""Without answers: what a bridge must keep of the new model's own neighbours, alone and as candidates."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and why.

    Attributes
    ----------
    decision : str
        One of `DECISIONS`.
    rule : str
        Name of the rule that fired.
    why : str
        One sentence with its numbers.
    provisional : bool
        Whether it was judged without known answers of real queries.
    """

    decision: str
    rule: str
    why: str
    provisional: bool


def decide(found: Findings) -> Verdict:
    """Return the decision."""
    if found.mode != "answers":
        return _without_answers(found)
    if found.advantage is None:
        return _without_staying(found)
    rules: list[Callable[[Findings], Verdict | None]] = [
        _bridge_above,
        _bridge_level,
        _unknown_gain,
        _no_gain,
        _two_stages,
    ]
    for rule in rules:
        verdict = rule(found)
        if verdict is not None:
            return verdict
    gain = _gain(found)
    return Verdict(
        "backfill",
        "gain without a bridge",
        f"re-embedding is worth {gain} times staying, and no bridge is above staying (advantage {found.advantage}): "
        "answer by the old model until its records are re-embedded",
        provisional=False,
    )


def _above(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.low > 1.0


def _gain(found: Findings) -> Estimate | None:
    return None if found.native is None else found.native.gain


def _bridge_above(found: Findings) -> Verdict | None:
    if not _above(found.advantage):
        return None
    arm, gain = found.best.arm, _gain(found)
    more = f"; re-embedding all is worth {gain} times staying" if _above(gain) else ""
    return Verdict(
        "bridge",
        "bridge above staying",
        f"new queries over old vectors by {arm} are worth {found.advantage} times staying{more}",
        provisional=False,
    )


def _bridge_level(found: Findings) -> Verdict | None:
    """Fire where the bridge costs nothing on the way to a model that is better once its vectors are there."""
    advantage, gain = found.advantage, _gain(found)
    if advantage is None or not _above(gain) or advantage.value < _LEVEL or advantage.low < _LEVEL_LOW:
        return None
    return Verdict(
        "bridge",
        "bridge level with staying, re-embedding above it",
        f"new queries over old vectors by {found.best.arm} are worth {advantage} times staying, so nothing is lost by "
        f"asking the new model at once, and re-embedding all is worth {gain} times staying",
        provisional=False,
    )


def _stay(found: Findings, rule: str, why: str) -> Verdict:
    """Return to stay, with the correction of hubs where that is above plain staying."""
    if _above(found.correction):
        return Verdict(
            "stay, corrected",
            rule,
            f"{why}; correcting hubs alone is worth {found.correction} times staying as it is (apply stores it)",
            provisional=False,
        )
    return Verdict("stay", rule, why, provisional=False)


def _unknown_gain(found: Findings) -> Verdict | None:
    if _gain(found) is not None:
        return None
    return _stay(
        found,
        "gain unknown",
        f"the bridge is not above staying (advantage {found.advantage}), and what re-embedding is worth is not known: "
        "too few queries have an answer among the records that both models know",
    )


def _no_gain(found: Findings) -> Verdict | None:
    gain = _gain(found)
    if _above(gain):
        return None
    return _stay(
        found,
        "no gain shown",
        f"re-embedding everything is worth {gain} times staying, which is not above it, "
        f"and neither is the bridge ({found.advantage})",
    )


def _two_stages(found: Findings) -> Verdict | None:
    """Fire where candidates ordered by the new model are above staying; the bridge's own wins ties."""
    bridge, old = (_best_stage(found, by) for by in ("bridge", "old"))
    if bridge is not None and not (old is not None and _clearly_better(old, bridge)):
        return Verdict(
            "bridge + rerank",
            "two stages above staying",
            f"{bridge.depth} candidates of the bridge in the new model's order are worth {bridge.advantage} times "
            f"staying; the bridge alone is not above it ({found.advantage})",
            provisional=False,
        )
    if old is not None:
        return Verdict(
            "dual query",
            "old candidates above staying",
            f"{old.depth} candidates of the old model in the new model's order are worth {old.advantage} times "
            f"staying; the bridge alone is not above it ({found.advantage})",
            provisional=False,
        )
    return None


def _best_stage(found: Findings, by: str) -> Stage | None:
    """Return the shallowest stage above staying that is hardly worse than the deepest."""
    least = _KEPT * (found.native.reembedded.of(found.metric).value if found.native else 0.0)
    above = [each for each in found.stages if each.by == by and _above(each.advantage) and each.worth.value >= least]
    best = max((stage.worth.value for stage in above), default=0.0)
    return next((stage for stage in above if stage.worth.value >= 0.99 * best), None)


def _clearly_better(one: Stage, other: Stage) -> bool:
    return one.worth.value > other.worth.value * 1.02


def _without_staying(found: Findings) -> Verdict:
    """Decide where old queries cannot be asked any more: what a bridge keeps of the new model."""
    kept = None if found.native is None else found.native.retention
    if kept is not None and kept.low >= _MOSTLY:
        return Verdict("bridge", "retention", f"the bridge keeps {kept} of the new model", provisional=True)
    return Verdict(
        "backfill",
        "staying not measured",
        f"there are no old queries to compare with, and a bridge keeps {kept} of the new model",
        provisional=True,
    )


def _without_answers(found: Findings) -> Verdict:
    """Decide by the new model's own neighbours: how much of it survives, were it the better one."""
    worth = found.best.plain
    kept, deep = worth.recall, worth.candidates[-1]
    if kept.low >= _MOSTLY:
        decision, rule = "bridge", "neighbours kept"
    elif deep >= _CANDIDATES:
        decision, rule = "bridge + rerank", "neighbours among the candidates"
    else:
        decision, rule = "backfill", "neighbours lost"
    why = (
        f"the new model's nearest record is among the first 10 of the bridge for {kept} of the queries and among the "
        f"first 200 for {deep:.3f}; whether the new model is better is not known without answers"
    )
    return Verdict(decision, rule, why, provisional=True)
