"""What a row gets from a bank: published definitions computed the plain way, and independence of company and order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.contracts.params import settle_params
from vecdb.corrections import KINDS, Banks, Own, columns_of, directed, image_of, kind_named, reach_of
from vecdb.errors import UnknownNameError
from vecdb.evaluation import csls_bias
from vecdb.evaluation.judged import Judged

METRICS = ("cosine", "dot", "l2")


def made(seed, n=40, b=15, g=9, d=6):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((count, d)).astype(np.float32) for count in (n, b, g))


def score(metric, row, other):
    row, other = row.astype(np.float64), other.astype(np.float64)
    if metric == "l2":
        return -math.sqrt(((row - other) ** 2).sum())
    product = float(row @ other)
    return product if metric == "dot" else product / (np.linalg.norm(row) * np.linalg.norm(other))


def params_of(name, **given):
    return settle_params(name, KINDS[name].params, given)


def columns(name, compared, rows, own=None, own_gallery=None, **given):
    return columns_of(KINDS[name], params_of(name, **given), compared, rows, own, own_gallery)


@pytest.mark.parametrize("metric", METRICS)
def test_csls_is_the_definition(metric):
    rows, bank, gallery = made(1)
    got = columns("csls", Banks(metric, bank, gallery), rows, neighbours=4)
    for place, row in enumerate(rows):
        near = sorted((score(metric, row, query) for query in bank), reverse=True)[:4]
        assert got[place, 0] == pytest.approx(-0.5 * np.mean(near), abs=2e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_csls_agrees_with_the_one_that_plans_measure_by(metric):
    rows, bank, gallery = made(2, n=300)
    judged = Judged.of([int(row) for row in np.random.default_rng(0).integers(0, 300, len(bank))])
    own = Own(judged.owners, judged.rows)
    got = columns("csls", Banks(metric, bank, gallery), rows, own)[:, 0]
    assert got == pytest.approx(csls_bias(bank, rows, metric, own=judged), abs=3e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("which", ["query", "gallery", "dual"])
def test_dbnorm_is_the_logarithm_of_normalised_softmaxes(metric, which):
    rows, bank, gallery = made(3)
    banks = Banks(metric, bank, gallery)
    got = columns("dbnorm", banks, rows, banks=which, dynamic=False, temperature=2.0)[:, 0]
    beta = 1.0 / (2.0 * banks.scale)
    query = np.random.default_rng(9).standard_normal(rows.shape[1]).astype(np.float32)
    plain = np.array([score(metric, row, query) for row in rows])
    factors = []
    for members, name in ((bank, "query"), (gallery, "gallery")):
        if which in (name, "dual"):
            sums = [sum(math.exp(beta * score(metric, row, member)) for member in members) for row in rows]
            factors.append(np.exp(beta * plain) / np.array(sums))
    expected = np.log(np.prod(factors, axis=0)) / (len(factors) * beta)
    constant = np.mean(
        [math.log(len(m)) for m, name in ((bank, "query"), (gallery, "gallery")) if which in (name, "dual")]
    )
    assert plain + got == pytest.approx(expected + constant / beta, abs=1e-5)


def test_inverted_softmax_is_dbnorm_with_the_query_bank():
    rows, bank, gallery = made(4)
    banks = Banks("cosine", bank, gallery)
    one = columns("inverted-softmax", banks, rows)
    assert one.tobytes() == columns("dbnorm", banks, rows, banks="query", dynamic=False).tobytes()


@pytest.mark.parametrize("metric", METRICS)
def test_moments_are_mean_and_deviation(metric):
    rows, bank, gallery = made(5)
    got = columns("mutual-proximity", Banks(metric, bank, gallery), rows)
    table = np.array([[score(metric, row, query) for query in bank] for row in rows])
    assert got[:, 0] == pytest.approx(table.mean(1), abs=2e-6)
    assert got[:, 1] == pytest.approx(table.std(1), abs=2e-6)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_what_is_left_out_does_not_count(name):
    rows, bank, gallery = made(6, n=20)
    own = Own(np.array([3, 7]), np.array([5, 5]))
    whole = (
        columns(name, Banks("cosine", bank, gallery), rows, own, dynamic=False)
        if name == "dbnorm"
        else columns(name, Banks("cosine", bank, gallery), rows, own)
    )
    left = np.delete(bank, [3, 7], axis=0)
    banks, smaller = Banks("cosine", bank, gallery), Banks("cosine", left, gallery)
    smaller._derived["scale"] = banks.scale
    given = {"dynamic": False} if name == "dbnorm" else {}
    assert whole[5] == pytest.approx(columns(name, smaller, rows[5:6], **given)[0], abs=1e-6)
    others = np.delete(np.arange(20), 5)
    assert whole[others].tobytes() == columns(name, banks, rows, **given)[others].tobytes()


@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(sorted(KINDS)), metric=st.sampled_from(METRICS))
def test_a_row_gets_the_same_bits_in_any_company(seed, name, metric):
    rng = np.random.default_rng(seed)
    n, b, d = int(rng.integers(1, 700)), int(rng.integers(1, 60)), int(rng.integers(1, 40))
    rows, bank, gallery = made(seed, n, b, 11, d)
    rows *= np.float32(10.0 ** rng.integers(-3, 3))
    banks = Banks(metric, bank, gallery, np.zeros(b), np.zeros(11))
    whole = columns(name, banks, rows)
    assert np.isfinite(whole).all()
    some = rng.permutation(n)[: int(rng.integers(1, n + 1))]
    assert columns(name, banks, rows[some]).tobytes() == whole[some].tobytes()


def test_reach_is_what_the_best_rows_score():
    rows, bank, gallery = made(7, n=1_200)
    banks = Banks("cosine", bank, gallery)
    table = np.array([[score("cosine", row, query) for query in bank] for row in rows])
    assert reach_of(banks, rows, "queries", 3) == pytest.approx(np.sort(table, axis=0)[-3], abs=1e-6)
    own = Own(np.arange(len(bank)), table.argmax(axis=0))
    assert reach_of(banks, rows, "queries", 1, own) == pytest.approx(np.sort(table, axis=0)[-2], abs=1e-6)
    assert np.isfinite(reach_of(banks, rows[:0], "queries", 1)).all()


def test_dynamic_marks_the_rows_that_the_bank_finds():
    rows, bank, gallery = made(8, n=200)
    plain = Banks("cosine", bank, gallery)
    banks = Banks("cosine", bank, gallery, reach_of(plain, rows, "queries", 1), reach_of(plain, rows, "gallery", 1))
    table = np.array([[score("cosine", row, query) for query in bank] for row in rows])
    found = columns("dbnorm", banks, rows, banks="query")[:, 1]
    assert set(np.flatnonzero(found)) == set(table.argmax(axis=0))


def test_an_empty_bank_changes_nothing_and_never_divides_by_zero():
    rows, _, gallery = made(9)
    banks = Banks("cosine", rows[:0], gallery)
    for name in ("csls", "inverted-softmax"):
        assert not columns(name, banks, rows).any()
    constant = np.tile(rows[:1], (5, 1))
    assert (columns("mutual-proximity", Banks("cosine", constant, gallery), rows)[:, 1] > 0).all()


def test_unknown_kinds_are_named():
    with pytest.raises(UnknownNameError, match="csls"):
        kind_named("clsl")


def test_an_image_has_the_rank_of_each_component_as_a_normal_number():
    from statistics import NormalDist

    rows, bank, gallery = made(11, n=30, b=21, g=21)
    bank[:, 2] = 1.0
    banks = Banks("dot", bank, gallery)
    own = image_of(banks, directed(bank, "dot"), "queries")
    places = (bank.argsort(axis=0).argsort(axis=0) + 0.5) / 21
    expected = np.vectorize(NormalDist().inv_cdf)(places).astype(np.float32)
    expected[:, 2] = 0.0
    assert own == pytest.approx(expected, abs=1e-6)
    others = image_of(banks, directed(rows, "dot"), "gallery")
    order = np.concatenate([rows, gallery])[:, 1].argsort(kind="stable")
    both = np.concatenate([others, image_of(banks, directed(gallery, "dot"), "gallery")])
    assert (np.diff(both[order, 1]) >= 0).all()
