"""Rows of int8: within half a step of what was given, the same bytes again and again, and never out of range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.int8rows import LARGEST, dequantise, quantise, relative_errors, stored_columns

SINGLES = st.floats(-float(np.float32(1e15)), float(np.float32(1e15)), width=32)
"""What the door lets in."""


def rows_of(seed, n, d, scale=1.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) * scale).astype(np.float32)


def steps(stored):
    return np.ascontiguousarray(stored[:, -4:]).view("<f4")[:, 0]


@pytest.mark.parametrize(("dim", "columns"), [(1, 8), (3, 8), (4, 8), (5, 12), (384, 388), (65_536, 65_540)])
def test_the_step_lies_on_a_multiple_of_four(dim, columns):
    assert stored_columns(dim) == columns == quantise(np.ones((2, dim), np.float32)).shape[1]


@given(st.integers(0, 2**32), st.integers(1, 70), st.sampled_from([1e-30, 1e-3, 1.0, 1e14]))
def test_every_component_is_within_half_a_step(seed, dim, scale):
    rows = rows_of(seed, 9, dim, scale)
    stored = quantise(rows)
    step = steps(stored).astype(np.float64)[:, None]
    assert stored.dtype == np.int8 and stored[:, :dim].min() >= -LARGEST
    assert (np.abs(stored[:, :dim]).max(axis=1) == LARGEST).all()
    assert (np.abs(dequantise(stored, dim) - rows.astype(np.float64)) <= 0.5001 * step).all()
    assert not stored[:, dim:-4].any()


@given(st.lists(st.lists(SINGLES, min_size=3, max_size=3), min_size=1, max_size=20))
def test_what_was_quantised_is_quantised_to_the_same_bytes(components):
    with np.errstate(all="ignore"):
        rows = np.array(components, np.float32)
        stored = quantise(rows)
        again = quantise(dequantise(stored, 3))
    assert again.tobytes() == stored.tobytes()


def test_also_where_several_steps_lead_to_one_magnitude():
    """A step is relative to 127-fold of itself, rounded: one in a hundred magnitudes has two of them."""
    rng = np.random.default_rng(0)
    rows = np.exp(rng.uniform(-60, 30, (200_000, 1))).astype(np.float32)
    stored = quantise(rows)
    assert quantise(dequantise(stored, 1)).tobytes() == stored.tobytes()
    step = steps(stored)
    above = np.nextafter(step, np.float32(np.inf)) * np.float32(LARGEST) == step * np.float32(LARGEST)
    assert above.any(), "the hard case was not met"
    assert not (np.nextafter(step, np.float32(0)) * np.float32(LARGEST) == step * np.float32(LARGEST)).any()


def test_zeros_and_what_is_below_the_range_become_zero():
    rows = np.array([[0, 0], [1e-45, 0], [-1.2e-43, 1e-43], [1e-38, -1e-38]], np.float32)
    kept = dequantise(quantise(rows), 2)
    assert not kept[:2].any() and np.isfinite(kept).all() and kept[3].any()
    assert quantise(kept).tobytes() == quantise(rows).tobytes()


def test_large_batches_are_cut_and_put_together():
    rows = rows_of(1, 3000, 300)
    whole = quantise(rows)
    assert whole.tobytes() == b"".join(quantise(rows[at : at + 7]).tobytes() for at in range(0, 3000, 7))
    assert relative_errors(rows, dequantise(whole, 300)).shape == (3000,)


def test_views_of_any_layout_are_read():
    rows = rows_of(2, 6, 10)
    stored = quantise(rows)
    expected = dequantise(stored, 10)
    odd = np.frombuffer(b"x" + stored.tobytes(), np.int8, offset=1).reshape(stored.shape)
    assert dequantise(odd, 10).tobytes() == expected.tobytes()
    assert dequantise(np.repeat(stored, 2, axis=0)[::2], 10).tobytes() == expected.tobytes()
    assert quantise(np.asfortranarray(rows)).tobytes() == stored.tobytes()


def test_errors_are_relative_to_the_norm():
    rows = np.array([[3, 4], [0, 0], [1e-20, 0]], np.float32)
    kept = np.array([[3, 4.5], [0, 0], [0, 0]], np.float32)
    assert relative_errors(rows, kept).tolist() == [0.1, 0.0, 1.0]
    embeddings = rows_of(3, 500, 384)
    lost = relative_errors(embeddings, dequantise(quantise(embeddings), 384))
    assert 0.004 < lost.mean() < 0.01 and lost.max() < 0.02
