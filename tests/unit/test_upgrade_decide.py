"""The rules of the verdict, one by one, and what holds of every decision whatever the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.evaluation import Estimate
from vecdb.upgrade.decide import DECISIONS, decide
from vecdb.upgrade.findings import ArmFound, Findings, Native, Stage, Worth
from vecdb.upgrade.parts import Arm


def around(value: float, reach: float = 0.05) -> Estimate:
    return Estimate(value, value - reach, value + reach, 300)


def worth(value: float, deep: float = 0.8) -> Worth:
    return Worth(around(value), around(value), around(value), (deep, deep, deep))


def native(gain: Estimate | None, retention: Estimate | None = None, reembedded: float = 0.8) -> Native:
    kept = retention or around(0.7)
    return Native(2_000, 300, worth(0.6), worth(0.5), worth(reembedded), kept, gain, (), (None, None))


def stage(by: str, depth: int, value: float, advantage: float) -> Stage:
    return Stage(by, depth, around(value), around(advantage))


def found(advantage: Estimate | None = None, gain: Estimate | None = None, **changes: Any) -> Findings:
    """Return findings in which the bridge is below staying and re-embedding above it, with changes."""
    advantage = around(0.7) if advantage is None else advantage
    gain = around(1.2) if gain is None else gain
    arm = ArmFound(Arm("ridge", "query"), 5, worth(0.5), worth(0.5), advantage)
    made = Findings(
        "answers",
        "mrr",
        9_000,
        2_000,
        300,
        5,
        1_400,
        worth(0.6),
        worth(0.6),
        around(1.0),
        (arm,),
        advantage,
        native(gain),
    )
    return replace(made, **changes)


def said(findings: Findings) -> tuple[str, str]:
    verdict = decide(findings)
    return verdict.decision, verdict.rule


# --- rule by rule -----------------------------------------------------------------------------------------


def test_a_bridge_above_staying_is_taken() -> None:
    verdict = decide(found(around(1.2)))
    assert (verdict.decision, verdict.rule, verdict.provisional) == ("bridge", "bridge above staying", False)
    assert "ridge" in verdict.why and "1.200" in verdict.why and "re-embedding all" in verdict.why
    assert "re-embedding all" not in decide(found(around(1.2), around(1.0))).why


def test_above_is_the_lower_end_and_not_the_middle() -> None:
    assert said(found(around(1.2, 0.3)))[0] != "bridge"


def test_a_bridge_level_with_staying_is_taken_on_the_way_to_a_better_model() -> None:
    assert said(found(around(1.0, 0.04))) == ("bridge", "bridge level with staying, re-embedding above it")
    assert said(found(around(1.0, 0.06)))[0] != "bridge"
    assert said(found(around(0.97, 0.01)))[0] != "bridge"
    assert said(found(around(1.0, 0.04), around(1.0)))[0] == "stay"


def test_without_a_gain_nothing_is_changed() -> None:
    assert said(found(gain=around(1.03))) == ("stay", "no gain shown")
    assert said(found(gain=around(0.8))) == ("stay", "no gain shown")


def test_an_unknown_gain_is_no_gain() -> None:
    assert said(found(native=None)) == ("stay", "gain unknown")
    assert said(found(native=replace(native(around(1.2)), gain=None))) == ("stay", "gain unknown")
    assert said(found(around(1.2), native=None))[0] == "bridge"


def test_staying_is_corrected_where_that_is_above_it() -> None:
    verdict = decide(found(gain=around(1.0), correction=around(1.1)))
    assert (verdict.decision, verdict.rule) == ("stay, corrected", "no gain shown")
    assert "hubs" in verdict.why
    assert said(found(gain=around(1.0), correction=around(1.02)))[0] == "stay"


def test_two_stages_are_taken_where_they_are_above_staying() -> None:
    stages = (stage("bridge", 50, 0.70, 1.02), stage("bridge", 100, 0.75, 1.15), stage("bridge", 200, 0.752, 1.16))
    verdict = decide(found(stages=stages))
    assert (verdict.decision, verdict.rule) == ("bridge + rerank", "two stages above staying")
    assert "100 candidates" in verdict.why  # 200 are hardly better


def test_candidates_of_the_old_model_are_taken_where_they_are_better() -> None:
    bridge, old = stage("bridge", 100, 0.72, 1.15), stage("old", 100, 0.78, 1.2)
    assert said(found(stages=(bridge, old)))[0] == "dual query"
    assert said(found(stages=(bridge, replace(old, worth=around(0.73)))))[0] == "bridge + rerank"
    assert said(found(stages=(old,)))[0] == "dual query"


def test_two_stages_that_lose_what_re_embedding_is_worth_are_not_taken() -> None:
    assert said(found(stages=(stage("bridge", 200, 0.5, 1.5),))) == ("backfill", "gain without a bridge")


def test_a_gain_without_a_bridge_is_a_backfill() -> None:
    verdict = decide(found())
    assert (verdict.decision, verdict.provisional) == ("backfill", False)
    assert "1.200" in verdict.why


# --- with less evidence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kept", "decision"), [(around(0.97, 0.02), "bridge"), (around(0.92), "backfill")])
def test_without_old_queries_the_retention_decides(kept: Estimate, decision: str) -> None:
    made = replace(found(), advantage=None, staying=None, native=native(None, kept))
    verdict = decide(made)
    assert (verdict.decision, verdict.provisional) == (decision, True)


def test_without_old_queries_and_native_rows_there_is_only_one_way() -> None:
    assert decide(replace(found(), advantage=None, staying=None, native=None)).decision == "backfill"


@pytest.mark.parametrize(
    ("recall", "deep", "decision"),
    [
        (around(0.97, 0.02), 1.0, "bridge"),
        (around(0.92), 0.99, "bridge + rerank"),
        (around(0.5), 0.95, "bridge + rerank"),
        (around(0.5), 0.9, "backfill"),
    ],
)
@pytest.mark.parametrize("mode", ["queries", "documents"])
def test_without_answers_what_is_kept_of_the_new_model_decides(
    recall: Estimate, deep: float, decision: str, mode: str
) -> None:
    plain = Worth(around(0.5), recall, around(0.5), (deep, deep, deep))
    made = replace(found(around(2.0)), mode=mode, arms=(replace(found().best, plain=plain),))
    verdict = decide(made)
    assert (verdict.decision, verdict.provisional) == (decision, True)
    assert "not known without answers" in verdict.why


# --- whatever the numbers ---------------------------------------------------------------------------------

estimates = st.builds(
    lambda value, reach: Estimate(value, value - reach, value + reach, 100), st.floats(0.05, 3.0), st.floats(0.0, 0.5)
)
stages = st.builds(
    Stage, st.sampled_from(["bridge", "old"]), st.sampled_from([50, 100, 200]), estimates, st.none() | estimates
)


@given(estimates, st.none() | estimates, estimates, st.lists(stages, max_size=6), st.booleans())
def test_no_decision_goes_beyond_its_evidence(
    advantage: Estimate, gain: Estimate | None, correction: Estimate, tried: list[Stage], known: bool
) -> None:
    made = found(advantage, stages=tuple(tried), correction=correction)
    made = replace(made, native=native(gain) if known else None)
    verdict = decide(made)
    assert verdict.decision in DECISIONS and verdict.rule and verdict.why and not verdict.provisional
    better = made.native is not None and gain is not None and gain.low > 1
    if verdict.decision == "bridge":
        assert advantage.low > 1 or (better and advantage.value >= 0.98 and advantage.low >= 0.95)
    else:
        assert advantage.low <= 1
    if verdict.decision in {"backfill", "bridge + rerank", "dual query"}:
        assert better
    if verdict.decision == "stay, corrected":
        assert correction.low > 1
    if verdict.decision in {"bridge + rerank", "dual query"}:
        by = "bridge" if verdict.decision == "bridge + rerank" else "old"
        assert any(each.by == by and each.advantage is not None and each.advantage.low > 1 for each in tried)
