"""Estimates err as the papers say: not on average, and within their bound as often as they say, whatever the width.

Gao & Long, "RaBitQ", SIGMOD 2024, theorem 3.2: for unit vectors o and q, and the code v of o, the estimate
``<v, q> / <v, o>`` of ``<o, q>`` is off by ``sqrt(1 - a**2) / a * sqrt(1 - <o, q>**2) * x`` with a the cosine of v and
o, and x a coordinate of a random direction in D - 1 dimensions, so by at most ``eps0 / sqrt(D - 1)`` of that factor
with the confidence of a normal number below eps0; the papers take eps0 = 1.9. That holds for codes of any bits. The
samples are of fixed seeds; margins are five and more standard deviations of what chance would make of them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from vecdb.indexes import codes, fine

DIMS = (64, 96, 384, 1_000)
BITS = (1, 2, 4, 8)
EPS0 = 1.9
WITHIN = 0.9426
"""Share of normal numbers between -1.9 and 1.9."""
ALIGNED = {1: (0.797, 0.805), 2: (0.937, 0.943), 4: (0.9935, 0.9955), 8: (0.9999, 1.0)}
"""Cosine of code and vector: sqrt(2 / pi) and a little more for 1 bit."""


def units(rng, count, dim):
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plain_book(rng, dim):
    """Codes of the vectors themselves: one cell, whose centre is the origin."""
    signs = (rng.integers(0, 2, (codes.ROUNDS, codes.code_width(dim))) * 2 - 1).astype(np.float32)
    return codes.CodeBook("dot", np.zeros(dim, np.float32), np.zeros((1, dim), np.float32), signs)


def estimated(book, rows, queries, bits):
    """Estimates (q, n), and the cosine of each code with its vector (n,)."""
    turned, asked = codes.rotated(book, rows), codes.rotated(book, queries)
    if bits == 1:
        rounded = np.where(turned > 0, np.float32(1), np.float32(-1))
        slopes = codes.sketch(book, rows).factors[1]
    else:
        rounded = fine.points(fine.levels(turned, bits), bits)
        slopes = fine.fine_slopes(book, turned, rounded)
    return asked @ rounded.T * slopes, (turned * rounded).sum(axis=1) / np.linalg.norm(rounded, axis=1)


@cache
def sample(dim, bits):
    """Errors of 6 rotations, 300 vectors and 30 queries each, bare and in units of the theorem; cosines of codes."""
    rng = np.random.default_rng([dim, bits])
    bare, scaled, cosines = [], [], []
    for _ in range(6):
        rows, queries = units(rng, 300, dim), units(rng, 30, dim)
        book = plain_book(rng, dim)
        found, cosine = estimated(book, rows, queries, bits)
        true = queries.astype(np.float64) @ rows.T
        unit = np.sqrt(1 - cosine**2) / cosine / np.sqrt(book.width - 1) * np.sqrt(1 - true**2)
        bare.append(found - true)
        scaled.append((found - true) / unit)
        cosines.append(cosine)
    return np.concatenate(bare), np.concatenate(scaled), np.concatenate(cosines)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", DIMS)
def test_errors_stay_within_the_bound_as_often_as_the_theorem_says(dim, bits):
    _, scaled, _ = sample(dim, bits)
    assert abs((np.abs(scaled) < EPS0).mean() - WITHIN) < 0.012
    assert (np.abs(scaled) < 2 * EPS0).mean() > 0.999
    assert abs(scaled.std() - 1.0) < 0.03


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", DIMS)
def test_codes_are_as_near_to_their_vectors_as_the_lemma_says(dim, bits):
    _, _, cosines = sample(dim, bits)
    low, high = ALIGNED[bits]
    assert low < cosines.mean() < high
    assert cosines.std() * np.sqrt(dim) < 1.0  # it concentrates around that


@pytest.mark.parametrize("bits", BITS)
def test_errors_fall_with_the_root_of_the_width(bits):
    spreads = [sample(dim, bits)[0].std() * np.sqrt(codes.code_width(dim)) for dim in DIMS]
    assert max(spreads) < 1.1 * min(spreads)
    if bits == 1:
        assert max(abs(each - np.sqrt(np.pi / 2 - 1)) for each in spreads) < 0.03


@pytest.mark.parametrize("dim", DIMS)
def test_each_bit_halves_the_error_or_nearly(dim):
    spreads = {bits: sample(dim, bits)[0].std() for bits in BITS}
    assert spreads[1] > 1.9 * spreads[2] and spreads[2] > 3.2 * spreads[4] and spreads[4] > 10 * spreads[8]
    assert all(spreads[bits] * np.sqrt(dim) * 2**bits < 2.6 for bits in BITS)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", DIMS)
def test_over_rotations_estimates_are_right_on_average(dim, bits):
    """Five pairs of every sort of product, 100 rotations: the mean error is within 5 of its standard deviations."""
    rng = np.random.default_rng([7, dim, bits])
    rows = units(rng, 5, dim)
    mix = np.array([0.0, 0.3, 0.6, 0.9, 0.99], np.float32)[:, None]
    queries = mix * rows + np.sqrt(1 - mix**2) * units(rng, 5, dim)
    true = np.einsum("ij,ij->i", queries.astype(np.float64), rows)
    errors = np.array([np.diagonal(estimated(plain_book(rng, dim), rows, queries, bits)[0]) - true for _ in range(100)])
    spread = np.maximum(errors.std(axis=0), 1e-7)
    assert (np.abs(errors.mean(axis=0)) < 5 * spread / np.sqrt(len(errors)) + 1e-6).all()


@pytest.mark.parametrize("bits", BITS)
def test_vectors_along_an_axis_are_no_harder(bits):
    """Without the rotation a sparse vector would have a code that says nothing of it."""
    dim, rng = 96, np.random.default_rng(3)
    rows, scaled = np.eye(dim, dtype=np.float32), []
    for _ in range(20):
        queries, book = units(rng, 10, dim), plain_book(rng, dim)
        found, cosine = estimated(book, rows, queries, bits)
        unit = np.sqrt(1 - cosine**2) / cosine / np.sqrt(book.width - 1)
        scaled.append((found - queries.astype(np.float64)) / unit)
    assert (np.abs(np.concatenate(scaled)) < EPS0).mean() > WITHIN - 0.02


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("bits", BITS)
def test_whole_scores_err_by_what_their_residuals_do(metric, bits):
    """With cells, a mean taken out of the query and every metric: errors in units of the theorem, for residuals."""
    rng = np.random.default_rng([11, bits])
    rows, queries = (units(rng, n, 128) + np.float32(0.3) for n in (800, 40))
    if metric == "cosine":
        rows, queries = codes.unit_rows(rows), codes.unit_rows(queries)
    book = codes.make_book(metric, rows, 800, 0)
    made, asked = codes.sketch(book, rows), codes.prepare_queries(book, queries)
    turned, slopes = codes.rotated_queries(book, asked.turned), made.factors[1]
    rounded = np.where(made.turned > 0, np.float32(1), np.float32(-1))
    if bits > 1:
        rounded = fine.points(fine.levels(made.turned, bits), bits)
        slopes = fine.fine_slopes(book, made.turned, rounded)
    found = asked.bases[:, made.cells] + asked.bends[:, None] * made.factors[0] + slopes * (turned @ rounded.T)
    true = queries.astype(np.float64) @ rows.T
    if metric == "l2":
        true = 2 * true - np.square(rows.astype(np.float64)).sum(axis=1)
    length = np.linalg.norm(made.turned, axis=1)
    real = length > 1e-3
    cosine = (made.turned * rounded).sum(axis=1)[real] / np.linalg.norm(rounded, axis=1)[real] / length[real]
    unit = np.sqrt(1 - cosine**2) / cosine / np.sqrt(book.width - 1) * length[real]
    unit = unit * np.linalg.norm(turned, axis=1)[:, None] * (2 if metric == "l2" else 1)
    errors = (found - true)[:, real] / unit
    assert (np.abs(errors) < EPS0).mean() > WITHIN - 0.015
    assert abs(errors.mean()) < 0.1
