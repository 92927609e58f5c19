"""Splits of the pairs, what a fit is given, what sides are made of: against plain oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb import PluginRegistry, Space
from vecdb.contracts import FitData
from vecdb.contracts.quiet import never
from vecdb.evaluation import Judged, csls_bias, ranks_of
from vecdb.registry import Provided
from vecdb.upgrade.material import Material, Questions
from vecdb.upgrade.parts import Arm, fit_arm, holding_answers, part_of, spaces_of
from vecdb.upgrade.setting import judging_of
from vecdb.upgrade.sides import Setting, Side, bridged, corrected_ranks, plain_ranks, reembedded, staying

OLD, NEW = 6, 8


def unit(random: np.random.Generator, rows: int, dim: int) -> Any:
    made = random.normal(size=(rows, dim)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    made.flags.writeable = False
    return made


def material(
    seed: int = 0, *, rows: int = 120, pairs: int = 90, queries: int = 30, groups: int = 40, bank: int = 0
) -> Material:
    """Return material of noise: pair i is row i of the gallery, query j is answered by row 3 j."""
    random = np.random.default_rng(seed)
    gallery = unit(random, rows, OLD)
    answers = [3 * each % rows for each in range(queries)]
    asked = Questions(unit(random, queries, OLD), unit(random, queries, NEW), Judged.of(answers), np.arange(queries))
    other = Questions(unit(random, bank, OLD), unit(random, bank, NEW), None, np.arange(bank)) if bank else None
    spaces = Space("old", OLD, id=1), Space("new", NEW, id=2)
    grouped = random.integers(0, groups, pairs)
    return Material(
        *spaces, gallery, gallery[:pairs], unit(random, pairs, NEW), np.arange(pairs), (), grouped, asked, other
    )


# --- splits -----------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 1_000), st.integers(0, 5), st.integers(5, 90))
def test_no_group_is_in_two_parts(seed: int, split: int, groups: int) -> None:
    made = material(seed, groups=groups)
    part = part_of(made, split)
    parts = [part.fit, part.validation, part.reference, part.test]
    seen = [set(made.groups[rows].tolist()) for rows in parts]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert sorted(np.concatenate(parts).tolist()) == list(range(90))


def test_answers_and_their_groups_are_kept_out_of_fits() -> None:
    made = material(queries=5, groups=90)
    held = holding_answers(made)
    assert held is not None and held[[0, 3, 6, 9, 12]].all()
    for split in range(4):
        part = part_of(made, split)
        fitted = np.concatenate([part.fit, part.validation, part.reference])
        assert not held[fitted].any() and held[part.test].sum() == held.sum()


def test_answers_that_are_most_of_the_pairs_are_not_held_back() -> None:
    made = material(queries=30, groups=3)
    assert holding_answers(made) is None
    assert len(part_of(made, 0).fit)


def test_a_smaller_part_is_the_beginning_of_the_same() -> None:
    part = part_of(material(queries=4), 1)
    small = part.smaller(0.5)
    assert small.fit.tolist() == part.fit[: len(part.fit) // 2].tolist()
    assert (small.test is part.test) and small.seed == part.seed


# --- fits -------------------------------------------------------------------------------------------------


class Seen:
    """A kind that keeps what it is given and fits nothing itself."""

    def __init__(self) -> None:
        self.own = PluginRegistry(entry_points=False).find("transform", "procrustes").thing
        self.name, self.version = "acme.seen", 1
        self.capabilities, self.parameters = self.own.capabilities, self.own.parameters
        self.data: list[FitData] = []

    def fit(self, data: FitData, params: Any) -> Any:
        self.data.append(data)
        return self.own.fit(data, params)

    def load(self, state: Any) -> Any:
        return self.own.load(state)


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_a_fit_is_given_its_part_in_its_direction(role: Any) -> None:
    made, kind = material(bank=12, queries=6, groups=90), Seen()
    part = part_of(made, 0)
    fit_arm(made, part, Arm("acme.seen", role), Provided("transform", "acme.seen", kind, "p", None, None), {}, never)
    (data,) = kind.data
    sides = (made.Y, made.X) if role == "query" else (made.X, made.Y)
    assert (data.source == sides[0][part.fit]).all() and (data.target == sides[1][part.fit]).all()
    assert (data.source_space, data.target_space) == spaces_of(made, role)
    assert data.validation is not None and (data.validation.source == sides[0][part.validation]).all()
    assert data.role == role and data.groups is not None and len(data.groups) == len(part.fit)
    assert made.bank is not None and data.queries is made.bank.new and data.queries_across is made.bank.old
    assert data.stored is not None and len(data.stored) == 120 - len(part.fit) - len(part.validation) - len(
        part.reference
    )
    for rows in (data.source, data.target, data.stored, data.groups, data.validation.target):
        assert not rows.flags.writeable


def test_without_a_bank_no_query_is_given() -> None:
    made, kind = material(queries=6), Seen()
    arm = Arm("acme.seen", "query")
    fit_arm(made, part_of(made, 0), arm, Provided("transform", "acme.seen", kind, "p", None, None), {}, never)
    assert kind.data[0].queries is None and kind.data[0].queries_across is None


# --- sides ------------------------------------------------------------------------------------------------


def setting(made: Material) -> Setting:
    assert made.questions is not None
    return Setting(made.gallery, np.arange(len(made.X)), made.Y, made.questions, made.bank)


def test_sides_are_what_their_names_say() -> None:
    made = material()
    where = setting(made)
    stay, fresh = staying(made, where), reembedded(made, where)
    assert stay is not None and fresh is not None and made.questions is not None
    assert stay[0].queries is made.questions.old and stay[0].rows is made.gallery
    assert fresh[0].queries is made.questions.new and fresh[0].rows is made.Y
    assert stay[1](made.questions) is made.questions.old and fresh[1](made.questions) is made.questions.new


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_a_bridge_maps_the_side_that_its_role_names(role: Any) -> None:
    made = material()
    provided = PluginRegistry(entry_points=False).find("transform", "ridge")
    transform = fit_arm(made, part_of(made, 0), Arm("ridge", role), provided, {}, never)
    found = bridged(made, setting(made), Arm("ridge", role), provided, transform)
    assert found is not None and made.questions is not None and made.questions.new is not None
    side, ask = found
    if role == "query":
        assert (side.queries == transform.apply(made.questions.new)).all() and side.rows is made.gallery
        asked = ask(made.questions)
        assert asked is not None and (asked == side.queries).all()
    else:
        assert (side.rows == transform.apply(made.gallery)).all() and side.queries is made.questions.new
        assert ask(made.questions) is made.questions.new


def test_what_is_not_known_has_no_side() -> None:
    made = material()
    assert made.questions is not None
    blind = Questions(None, None, made.questions.judged, made.questions.clusters)
    where = Setting(made.gallery, np.arange(0), made.Y[:0], blind, None)
    assert staying(made, where) is None and reembedded(made, where) is None


def test_a_bank_corrects_all_queries_alike() -> None:
    made = material(bank=25)
    assert made.questions is not None and made.questions.judged is not None and made.bank is not None
    found = staying(made, setting(made))
    assert found is not None
    side, ask = found
    bias = csls_bias(made.bank.old, side.rows, "cosine")  # type: ignore[arg-type]
    expected = ranks_of(side.queries, side.rows, made.questions.judged, "cosine", bias=bias)
    got = corrected_ranks(side, ask, made.questions, made.questions.judged, made.bank)
    assert (got == expected).all()


def test_without_a_bank_no_query_corrects_itself() -> None:
    made = material(queries=40, rows=200, pairs=90)
    asked = made.questions
    assert asked is not None and asked.judged is not None and asked.old is not None
    found = staying(made, setting(made))
    assert found is not None
    before = corrected_ranks(*found, asked, asked.judged, None)
    for query in (0, 7, 23):  # another query there changes others' ranks, never the bias of its own
        changed = np.array(asked.old)
        others = np.random.default_rng(query).permutation(40)
        changed[others[others != query][:5]] *= 1.0
        again = corrected_ranks(Side(changed, found[0].rows, "cosine"), found[1], asked, asked.judged, None)
        assert again[query] == before[query]


def test_a_side_of_some_rows_keeps_their_bias() -> None:
    rows = np.eye(4, dtype=np.float32)
    side = Side(rows[:1], rows, "dot", np.array([0, 1, 2, 3], np.float32)).among(np.array([3, 1]))
    assert side.bias is not None and side.bias.tolist() == [3.0, 1.0] and (side.rows == rows[[3, 1]]).all()
    assert plain_ranks(side, Judged.of([0])).tolist() == [1]


# --- judging ----------------------------------------------------------------------------------------------


def test_documents_that_ask_are_not_among_those_that_answer() -> None:
    made = material(pairs=110, groups=110)
    silent = Material(made.source, made.target, made.gallery, made.X, made.Y, made.places, (), made.groups)
    parts = [part_of(silent, split) for split in range(2)]
    big = [part for part in parts if len(part.test) >= 20]
    if len(big) < 2:
        parts = [
            type(parts[0])(p.fit, p.validation, p.reference, np.arange(20 * s, 20 * s + 25), s)
            for s, p in enumerate(parts)
        ]
    judging = judging_of(silent, parts)
    assert judging.mode == "documents"
    for split, part in enumerate(parts):
        where, columns, splits = judging.of(split)
        assert splits == slice(split, split + 1) and (columns == part.test).all()
        assert len(where.gallery) == 110 - len(part.test)
        others = np.setdiff1d(np.arange(110), part.test)
        nearest = (made.Y[part.test] @ made.Y[others].T).argmax(1)
        assert (where.judged.rows == nearest).all()


def test_queries_without_answers_judge_nothing() -> None:
    made = material(queries=30)
    assert made.questions is not None
    some = Judged.of([each if each % 5 else -1 for each in range(30)])
    asked = Questions(made.questions.old, made.questions.new, some, np.arange(30))
    judging = judging_of(
        Material(made.source, made.target, made.gallery, made.X, made.Y, made.places, (), made.groups, asked), []
    )
    assert judging.mode == "answers" and judging.settings[0].questions.count == 24
    assert "6 queries" in judging.notes[0]
