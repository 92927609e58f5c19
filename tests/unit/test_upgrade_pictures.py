"""Pictures of reports: sound XML, nothing outside the frame, whatever the numbers; and the text of a report."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_upgrade_decide import around, found, native, stage
from vecdb import Space, UpgradeReport
from vecdb.evaluation import Estimate
from vecdb.upgrade import pictures
from vecdb.upgrade.decide import decide
from vecdb.upgrade.findings import ArmFound, Findings, Mixing, Nested, Shift
from vecdb.upgrade.parts import Arm

NESTED = (Nested(500, 0.9, 1.1, 0.8), Nested(1_000, 0.8, 1.15, 0.75), Nested(2_000, 0.7, 1.2, 0.7))
MIXING = Mixing(
    "lists", (0.0, 0.5, 1.0), (("reference", (0.4, 0.5, 0.7)), ("lists", (0.4, 0.55, 0.7)), ("tail", (0.4, 0.4, 0.7)))
)
SHIFT = Shift(0.4, 0.1, (0.0, 0.1, 0.2, 0.3), (0.2, 0.5, 0.3), (0.6, 0.3, 0.1), (0.2, 0.6, 0.2))


def full(**changes: Any) -> Findings:
    """Return findings with everything in them."""
    nested = replace(native(around(1.2)), nested=NESTED, at_full_size=(0.6, 1.3), neighbours=0.55)
    stages = (stage("bridge", 100, 0.7, 1.1), stage("old", 100, 0.75, 1.2))
    learning = ((350, 0.4), (700, 0.45), (1_400, 0.5))
    given = {"native": nested, "stages": stages, "learning": learning, "shift": SHIFT, "mixing": MIXING}
    return found(**{**given, **changes})


def report(findings: Findings, name: str = "docs") -> UpgradeReport:
    return UpgradeReport(name, Space("old", 4), Space("new", 5), findings, decide(findings))


def sound(picture: str) -> ElementTree.Element:
    """Return a picture as XML, having looked that numbers are finite and lie within it."""
    root = ElementTree.fromstring(picture)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for element in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert -1 <= float(element.get(name, 0)) <= width + 1
        for name in ("y", "y1", "y2", "cy"):
            assert -1 <= float(element.get(name, 0)) <= height + 1
        for x, y in re.findall(r"([-\d.a-z]+),([-\d.a-z]+)", element.get("points", "")):
            assert -1 <= float(x) <= width + 1 and -1 <= float(y) <= height + 1
    return root


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pictures.advantages(full()),
        lambda: pictures.nested(replace(native(around(1.2)), nested=NESTED, at_full_size=(0.6, 1.3)), 9_000),
        lambda: pictures.learning(full()),
        lambda: pictures.backfill(MIXING),
        lambda: pictures.scores(SHIFT),
    ],
)
def test_pictures_are_sound(draw: Any) -> None:
    root = sound(draw())
    assert root.get("role") == "img" and root.get("aria-label")
    assert len(list(root)) > 5


def test_every_advantage_has_its_bar() -> None:
    names = [element.text for element in sound(pictures.advantages(full())).iter() if element.text]
    assert {"ridge (queries mapped)", "staying, corrected", "retention", "gain of re-embedding"} <= set(names)


numbers = st.floats(1e-3, 50.0)
bars = st.builds(lambda value, reach: Estimate(value, value / reach, value * reach, 50), numbers, st.floats(1.0, 3.0))


@settings(max_examples=40)
@given(st.lists(bars, min_size=1, max_size=7), st.lists(numbers, min_size=3, max_size=3), st.integers(1, 10**7))
def test_no_numbers_draw_outside_the_frame(advantages: list[Estimate], kept: list[float], rows: int) -> None:
    arms = tuple(
        ArmFound(Arm(f"k{n}", "query"), 5, found().best.plain, found().best.plain, each)
        for n, each in enumerate(advantages)
    )
    sound(pictures.advantages(full(arms=arms)))
    nested = tuple(Nested(size, value, value * 2, value) for size, value in zip((10, 20, 40), kept, strict=True))
    sound(pictures.nested(replace(native(around(1.2)), nested=nested, at_full_size=(kept[0], kept[1])), rows))
    sound(pictures.learning(full(learning=tuple((10 * 2**n, value) for n, value in enumerate(kept)))))
    sound(pictures.backfill(Mixing("a", (0.0, 0.5, 1.0), (("a", (kept[0], kept[1], kept[2])),))))


def test_what_is_equal_can_be_drawn() -> None:
    same = tuple(Nested(1_000, 0.5, 0.5, 0.5) for _ in range(3))
    sound(pictures.nested(replace(native(around(1.2)), nested=same, at_full_size=(None, None)), 1_000))
    sound(pictures.backfill(Mixing("a", (0.0, 1.0), (("a", (0.5, 0.5)),))))
    sound(pictures.learning(full(learning=((1_000, 0.5), (1_000, 0.5)))))


# --- text, JSON, page -------------------------------------------------------------------------------------


def test_the_text_says_everything() -> None:
    text = str(report(full(notes=("three queries have no answer",))))
    for part in (
        "Decision: DUAL QUERY",
        "ridge (queries mapped)",
        "retention 0.700",
        "gain 1.200",
        "0.550 are among the bridge's ten",
        "carried on to 9,000 vectors: retention 0.600, gain 1.300",
        "the old model",
        "350: 0.400, 700: 0.450, 1,400: 0.500",
        "calibrated by 'lists': 0%: 0.400, 50%: 0.550, 100%: 0.700",
        "Note: three queries have no answer.",
    ):
        assert part in text, part


def test_columns_stand_under_their_heads() -> None:
    lines = str(report(full())).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("over the whole"))
    head, rows = lines[start], lines[start + 1 : start + 5]
    end = head.index("recall@10") + len("recall@10")
    assert all(re.fullmatch(r"[\d.]+", line[:end].split()[-1]) for line in rows)


def test_a_provisional_verdict_says_so() -> None:
    made = report(replace(full(), mode="documents"))
    assert made.provisional and "(provisional)" in str(made) and "(provisional)" in made.to_html()
    assert "records that stand in for queries" in str(made)


def test_what_is_not_finite_is_null_in_json() -> None:
    made = report(full(advantage=Estimate(math.nan, math.nan, math.nan, 0)))
    assert json.loads(made.to_json())["findings"]["advantage"]["value"] is None


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=30))
def test_names_from_a_database_are_only_text(name: str) -> None:
    page = report(full(notes=(name,)), name).to_html()
    plain = report(full(notes=("x",)), "x").to_html()
    assert page.count("<") == plain.count("<") and page.count(">") == plain.count(">")


def test_the_names_of_a_report() -> None:
    made = report(full())
    assert repr(made) == "<UpgradeReport 'old' to 'new': dual query>"
    assert (made.decision, made.provisional) == ("dual query", False)
