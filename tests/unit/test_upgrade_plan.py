"""Plans on worlds whose truth is known: the verdict, what it rests on, what `apply` stores, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.unit.upgrades import World, unit, world
from vecdb.errors import (
    ArgumentError,
    CancelledError,
    DimensionError,
    FitError,
    ParameterError,
    RecordMissingError,
    SpaceMissingError,
    UnknownNameError,
    VectorMissingError,
)

QUICK: dict[str, Any] = {"kinds": ["procrustes"], "splits": 2}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as database:
        yield database


def planned(db: vecdb.Database, made: World, pairs: Any = 600, **given: Any) -> Any:
    docs = made.collection(db, f"c{len(db.collections())}")
    pairs = made.pairs(pairs) if isinstance(pairs, int) else pairs
    given = {"queries": made.queries, "pairs": pairs, **QUICK, **given}
    return docs, docs.plan_upgrade("old", "new", **given)


# --- the verdict ------------------------------------------------------------------------------------------


def test_a_noisy_old_model_is_bridged(db: vecdb.Database) -> None:
    _, plan = planned(db, world("noise"))
    assert plan.decision == "bridge"
    assert plan.report.findings.advantage.low > 1.0
    assert plan.report.findings.native.gain.low > 1.0
    assert not plan.report.provisional


def test_a_rotation_changes_nothing(db: vecdb.Database) -> None:
    _, plan = planned(db, world("rotation"))
    found = plan.report.findings
    assert plan.decision.startswith("stay")
    assert found.advantage.value == pytest.approx(1.0, abs=0.01)
    assert found.native.retention.value == pytest.approx(1.0, abs=0.01)
    assert found.shift.after < 0.02


def test_models_with_nothing_in_common_are_not_bridged(db: vecdb.Database) -> None:
    _, plan = planned(db, world("unrelated"), kinds=["ridge"])
    found = plan.report.findings
    assert plan.decision in {"backfill", "dual query", "bridge + rerank"}
    assert found.advantage.high < 0.8
    assert found.native.gain.low > 1.0


def test_a_new_model_that_is_worse_is_refused(db: vecdb.Database) -> None:
    made = world("noise", seed=3)
    asked = replace(made.queries, old=made.queries.new, new=made.queries.old)
    turned = World(made.new, made.old, asked, made.relevant)
    _, plan = planned(db, turned)
    assert plan.decision.startswith("stay")
    assert plan.report.findings.native.gain.high < 1.0


def test_a_cut_model_is_bridged_or_reranked(db: vecdb.Database) -> None:
    _, plan = planned(db, world("cut", hard=0.3), kinds=["ridge"])
    assert plan.decision in {"bridge", "bridge + rerank"}
    assert plan.report.findings.native.gain.low > 1.0


def test_kinds_that_do_not_suit_the_widths_are_not_tried(db: vecdb.Database) -> None:
    _, plan = planned(db, world("cut", documents=300, queries=60), pairs=280, kinds=["truncate", "procrustes"])
    tried = {str(each.arm) for each in plan.report.findings.arms}
    assert tried == {"truncate (queries mapped)", "procrustes (queries mapped)", "procrustes (records mapped)"}
    with pytest.raises(ParameterError, match="identity"):
        planned(db, world("cut", documents=300, queries=60), pairs=280, kinds=["identity"])


def test_the_same_model_again_is_bridged_by_nothing(db: vecdb.Database) -> None:
    made = world("noise", documents=300, queries=60)
    same = World(made.new, made.new, replace(made.queries, old=made.queries.new), made.relevant)
    _, plan = planned(db, same, pairs=280, kinds=["identity", "procrustes"])
    assert plan.report.findings.best.arm.kind == "identity"
    assert plan.report.findings.advantage.value == pytest.approx(1.0)
    assert [info.kind for info in plan.apply()] == ["identity", "procrustes"]


# --- with less than everything ----------------------------------------------------------------------------


def test_without_queries_documents_stand_in_and_it_is_provisional(db: vecdb.Database) -> None:
    _, plan = planned(db, world("rotation"), queries=None)
    found = plan.report.findings
    assert (found.mode, plan.report.provisional, plan.decision) == ("documents", True, "bridge")
    assert found.best.plain.recall.value == pytest.approx(1.0, abs=0.02)
    assert any("provisional" in note for note in found.notes)


def test_queries_without_answers_are_judged_by_the_new_model(db: vecdb.Database) -> None:
    made = world("unrelated")
    _, plan = planned(db, made, queries=replace(made.queries, relevant=None))
    assert plan.report.findings.mode == "queries"
    assert plan.report.provisional
    assert plan.decision != "bridge"


def test_without_old_queries_staying_is_not_measured(db: vecdb.Database) -> None:
    made = world("rotation")
    _, plan = planned(db, made, queries=replace(made.queries, old=None))
    found = plan.report.findings
    assert found.staying is None and found.advantage is None and found.native.gain is None
    assert (plan.decision, plan.report.provisional) == ("bridge", True)


def test_without_new_queries_there_is_nothing_to_judge(db: vecdb.Database) -> None:
    made = world("rotation")
    with pytest.raises(ArgumentError, match="new model"):
        planned(db, made, queries=replace(made.queries, new=None))


def test_answers_outside_the_pairs_leave_the_gain_unknown(db: vecdb.Database) -> None:
    made = world("rotation")
    there = set(made.relevant)
    others = [row for row, id in enumerate(made.ids) if id not in there]
    _, plan = planned(db, made, pairs=([made.ids[row] for row in others], made.new[others]))
    assert plan.report.findings.native is None
    assert plan.report.verdict.rule == "gain unknown"


def test_pairs_may_lie_outside_the_collection(db: vecdb.Database) -> None:
    made = world("rotation")
    _, plan = planned(db, made, pairs=(made.old[:400], made.new[:400]))
    assert plan.report.findings.native is None
    assert plan.report.findings.advantage.value == pytest.approx(1.0, abs=0.01)


def test_pairs_are_the_records_that_have_both_vectors(db: vecdb.Database) -> None:
    made = world("rotation")
    docs = made.collection(db)
    docs.set_vectors("new", made.ids[:300], made.new[:300], trust=True)
    plan = docs.plan_upgrade("old", "new", queries=made.queries, **QUICK)
    assert plan.report.findings.pairs == 300


def test_a_bank_of_other_queries_is_used(db: vecdb.Database) -> None:
    made = world("noise")
    random = np.random.default_rng(1)
    bank = vecdb.QuerySet(old=unit(random.normal(size=(80, 24))), new=unit(random.normal(size=(80, 24))))
    _, plan = planned(db, made, bank=bank)
    _, alone = planned(db, made)
    assert plan.report.findings.staying == alone.report.findings.staying
    assert plan.report.findings.staying_corrected != alone.report.findings.staying_corrected


def test_graded_answers_are_judged_by_their_order(db: vecdb.Database) -> None:
    made = world("rotation")
    graded = [{id: 2.0, made.ids[(row * 7) % 700]: 1.0} for row, id in enumerate(made.relevant)]
    _, plan = planned(db, made, queries=replace(made.queries, relevant=graded))
    assert plan.report.findings.metric == "ndcg@10"


# --- no answer is a fit pair ------------------------------------------------------------------------------


def test_no_map_is_fitted_on_an_answer(db: vecdb.Database) -> None:
    made = world("rotation")
    _, plan = planned(db, made)
    answers = set(made.relevant)
    for part in plan._outcome.parts:
        fitted = {plan._material.ids[row] for row in part.fit}
        assert not fitted & answers
        parts = [set(rows.tolist()) for rows in (part.fit, part.validation, part.reference, part.test)]
        assert sum(map(len, parts)) == len(set().union(*parts))


def test_queries_whose_answers_had_to_be_fitted_on_judge_other_splits(db: vecdb.Database) -> None:
    made = world("noise", documents=200, queries=190)
    _, plan = planned(db, made, pairs=200, splits=3)
    found = plan.report.findings
    assert 0 < found.queries < 190
    assert found.native.queries >= 20


# --- applying ---------------------------------------------------------------------------------------------


def test_nothing_is_stored_before_apply_and_both_directions_after(db: vecdb.Database) -> None:
    docs, plan = planned(db, world("noise"))
    assert docs.transforms == ()
    infos = plan.apply()
    assert {info.direction for info in infos} == {"query", "gallery"}
    assert {(info.source, info.target) for info in infos} == {("new", "old"), ("old", "new")}
    assert docs.transforms == infos
    assert all(info.quality["retention"] > 0 and info.reference > 20 for info in infos)
    assert infos[0].quality["calibration"] == plan.report.findings.mixing.chosen
    assert 250 < infos[0].pairs < 470  # answers are not fitted on


def test_a_plan_stores_nothing_where_nothing_may_be_written(db: vecdb.Database, tmp_path: Path) -> None:
    made = world("rotation")
    made.collection(db)
    with vecdb.open(tmp_path / "a.vecdb", mode="r") as reader:
        docs = reader.collection("docs")
        plan = docs.plan_upgrade("old", "new", pairs=made.pairs(300), queries=made.queries, **QUICK)
        with pytest.raises(vecdb.ReadOnlyError):
            plan.apply()


# --- the report -------------------------------------------------------------------------------------------


class _Reader(HTMLParser):
    """Collects tags, and whether each that was opened was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "link", "br", "line", "circle", "polyline"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_a_report_is_text_json_and_a_page(db: vecdb.Database, tmp_path: Path) -> None:
    made = world("noise")
    docs = made.collection(db, "<b>docs & more</b>")
    plan = docs.plan_upgrade("old", "new", pairs=made.pairs(600), queries=made.queries, **QUICK)
    text = str(plan.report)
    assert "Decision: BRIDGE" in text and "procrustes (queries mapped)" in text and "Two stages" in text
    loaded = json.loads(plan.report.to_json())
    assert loaded == plan.report.as_dict()
    assert loaded["decision"] == "bridge" and loaded["findings"]["advantage"]["low"] > 1.0
    page = plan.report.to_html()
    reader = _Reader()
    reader.feed(page)
    assert reader.open == [] and reader.tags.count("svg") == 5
    assert "<b>docs" not in page and "://" not in page.replace("http://www.w3.org/2000/svg", "")
    for suffix in ("html", "json", "txt"):
        plan.report.save(tmp_path / f"r.{suffix}")
    assert (tmp_path / "r.txt").read_text("utf-8").startswith("Upgrade of")
    assert (tmp_path / "r.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert json.loads((tmp_path / "r.json").read_text("utf-8")) == loaded


def test_reports_of_less_evidence_can_be_written_too(db: vecdb.Database) -> None:
    made = world("rotation")
    for given in ({"queries": None}, {"queries": replace(made.queries, old=None)}, {"pairs": (made.old, made.new)}):
        _, plan = planned(db, made, **given)
        assert plan.report.to_html() and plan.report.to_json() and str(plan.report)


def test_the_same_plan_again_says_the_same(db: vecdb.Database) -> None:
    made = world("noise")
    docs, plan = planned(db, made)
    again = docs.plan_upgrade("old", "new", pairs=made.pairs(600), queries=made.queries, **QUICK)
    assert again.report.as_dict() == plan.report.as_dict()


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"kinds": ["nothing"]}, UnknownNameError),
        ({"kinds": ["bt2"]}, ParameterError),
        ({"kinds": ["simplex"]}, ParameterError),
        ({"directions": ["sideways"]}, ParameterError),
        ({"directions": []}, ParameterError),
        ({"splits": 1}, ArgumentError),
        ({"metric": "accuracy"}, ParameterError),
        ({"pairs": 7}, ArgumentError),
        ({"pairs": (["d1", "d2"], np.ones((3, 24)))}, ArgumentError),
        ({"pairs": (["nobody"], np.ones((1, 24)))}, VectorMissingError),
        ({"pairs": (["d1"], np.ones((1, 24)))}, FitError),
        ({"pairs": (["d1"], np.ones((1, 7)))}, DimensionError),
        ({"groups": ["a"]}, ArgumentError),
        ({"queries": vecdb.QuerySet(old=np.ones((2, 24)), new=np.ones((3, 24)))}, ArgumentError),
        ({"queries": vecdb.QuerySet(new=np.ones((2, 24)), relevant=["x", "y"])}, RecordMissingError),
    ],
)
def test_what_does_not_fit_is_refused(db: vecdb.Database, given: dict[str, Any], error: type[Exception]) -> None:
    made = world("rotation", documents=120, queries=30)
    docs = made.collection(db)
    with pytest.raises(error):
        docs.plan_upgrade("old", "new", **{"queries": made.queries, "pairs": made.pairs(100), **QUICK, **given})


def test_spaces_must_exist_and_differ(db: vecdb.Database) -> None:
    docs = world("rotation", documents=60, queries=20).collection(db)
    with pytest.raises(SpaceMissingError):
        docs.plan_upgrade("old", "newer")
    with pytest.raises(ArgumentError, match="another"):
        docs.plan_upgrade("old", "old")
    with pytest.raises(FitError, match="40"):
        docs.plan_upgrade("old", "new")


def test_a_plan_can_be_cancelled_and_tells_how_far_it_is(db: vecdb.Database) -> None:
    told: list[tuple[int, int | None]] = []
    planned(db, world("rotation"), progress=lambda done, total: told.append((done, total)))
    assert told[0][0] == 0 and [done for done, _ in told] == sorted(done for done, _ in told)
    assert all(total is not None and done <= total for done, total in told)
    with pytest.raises(CancelledError, match="nothing was stored"):
        planned(db, world("rotation"), cancel=lambda: True)
