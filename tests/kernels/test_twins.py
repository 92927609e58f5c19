"""Every kernel against its numpy twin, in one place; run a second time without the JIT by test_without_jit.py.

A kernel without a case here fails `test_every_kernel_has_a_case`.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tests.kernels import graph_cases, search_cases
from tests.kernels.oracle import DTYPES, METRICS, cut, hard_rows
from vecdb.indexes.codes import pack_signs
from vecdb.indexes.lists import join_lists
from vecdb.kernels import reference
from vecdb.kernels._jit import KERNELS, kernel_modules
from vecdb.kernels.bounds import FORM_CODES, plan_scan
from vecdb.kernels.canonical import METRIC_CODES
from vecdb.kernels.exact_scan import HALF, STRIP

for name in kernel_modules():
    importlib.import_module(f"vecdb.kernels.{name}")

N, D, Q, K = 60, 19, 3, 4


def frozen(array):
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def setting(metric, dtype, seed=0):
    rng = np.random.default_rng(seed)
    rows = hard_rows(rng, N, D, dtype)
    return rng, rows, cut(metric, rows, rng), frozen(hard_rows(rng, 2 * Q, D)[:Q])


def fresh_pool(k=K, capacity=400):
    bounds = np.zeros((3, capacity), dtype=np.float32)
    floor = np.full(1, -np.inf, dtype=np.float32)
    return bounds, np.zeros(capacity, dtype=np.int64), np.array([0, 2 * k + 64, 0]), floor


def agree(keys, allowed, slack, bounds, positions, count):
    """The pool brackets the twin's keys, and holds at least the rows the twin nominates."""
    pool = positions[:count]
    assert len(set(pool.tolist())) == count and allowed[pool].all()
    tolerance = slack[pool] + 1e-12 * np.abs(keys[pool])
    assert (bounds[0, :count] <= keys[pool] + tolerance).all()
    assert (bounds[1, :count] >= keys[pool] - tolerance).all()
    rows = np.flatnonzero(allowed)
    assert set(rows[reference.nominated(keys[rows], 0 * slack[rows], K)].tolist()) <= set(pool.tolist())


def canonical_rows(kernel, twin, metric, dtype):
    rng, rows, blocks, queries = setting(metric, dtype)
    positions = frozen(rng.permutation(N)[: N // 2])
    half, out = int(dtype is np.float16), np.empty(N // 2)
    query = frozen(queries[0].astype(np.float64))
    kernel(METRIC_CODES[metric], half, query, frozen(blocks.scan_table), positions, np.empty((3, 24)), out)
    assert out.tobytes() == twin(metric, queries[0], rows[positions]).tobytes()


def rank_pools(kernel, twin, metric, dtype):
    rng, rows, blocks, queries = setting(metric, dtype)
    rows[20:40] = rows[:20]  # equal scores are put in order by position
    blocks = cut(metric, rows, rng)
    positions = np.stack([rng.permutation(N) for _ in range(Q)])
    states, bounds = np.zeros((Q, 3), dtype=np.int64), np.zeros((Q, 3, N), dtype=np.float32)
    states[:, 0] = counts = [N, 0, 7]
    pools = positions.copy()
    head = (METRIC_CODES[metric], int(dtype is np.float16), queries, frozen(blocks.scan_table))
    kernel(*head, positions, states, np.empty((3, 24)), bounds)
    for query, count in enumerate(counts):
        order, scores = twin(metric, queries[query], rows, pools[query, :count])
        assert positions[query, :count].tolist() == order.tolist()
        assert bounds[query, 2, :count].tobytes() == scores.tobytes()


def rank_nominated(kernel, twin, metric, dtype):
    rng, rows, blocks, queries = setting(metric, dtype)
    rows[20:40] = rows[:20]  # equal scores are put in order by position
    blocks = cut(metric, rows, rng)
    table, seen = frozen(blocks.scan_table), set()
    for _ in range(300):
        count, width = int(rng.integers(1, N // 2)), int(rng.integers(0, 9))
        first = int(rng.integers(0, N - count + 1))
        places = rng.permutation(N)[:count] if rng.random() < 0.5 else np.empty(0, np.int64)
        if len(places) and rng.random() < 0.2:
            places[rng.integers(0, count)] = rng.choice([-1, N])
        real = places if len(places) else np.arange(first, first + count)
        held = min(count, int(rng.integers(0, width + 1)))
        nominated, said = np.full(width, -1, np.int64), np.full(width, -np.inf, np.float32)
        nominated[:held], said[:held] = rng.permutation(count)[:held], np.sort(rng.random(held))[::-1]
        if width and rng.random() < 0.3:
            nominated[rng.integers(0, width)] = rng.integers(-2, count + 2)
        allowed = frozen(rng.random(count) < 0.95) if rng.random() < 0.3 else frozen(np.empty(0, np.bool_))
        least = int(rng.integers(0, 3))
        positions, scores = np.empty(width, np.int64), np.empty(width, np.float32)
        plan = np.array([METRIC_CODES[metric], int(dtype is np.float16), count, first, least])
        told = (frozen(nominated[None]), frozen(said[None]), frozen(places), allowed)
        found = kernel(frozen(plan), queries[:1], table, *told, np.empty((3, 24)), positions, scores)
        expected = twin(metric, queries[0], rows, nominated, said, real, allowed, least)
        seen.add(expected is None)
        assert found == (-1 if expected is None else len(expected[0]))
        if expected is not None:
            assert positions[:found].tolist() == expected[0].tolist()
            assert scores[:found].tobytes() == expected[1].tobytes()
    assert seen == {True, False}


def planned(metric, dtype):
    rng, rows, blocks, queries = setting(metric, dtype)
    plan = plan_scan(metric, queries, direct=True)
    form = FORM_CODES[plan.form] + (HALF if dtype is np.float16 else 0)
    error = frozen(plan.errors[0])
    return rng, rows, blocks, queries, plan, (form, frozen(plan.queries[0]), frozen(blocks.scan_table)), error


def rounding(keys, plan, scales):
    measure = np.abs(keys) if plan.form == "l2-direct" else scales
    return np.abs(keys) * 2.0**-22 + plan.slope[0].astype(np.float64) * measure + plan.offset[0]


def scan_blocks(kernel, twin, metric, dtype):
    rng, rows, blocks, queries, plan, head, error = planned(metric, dtype)
    allowed = frozen(rng.random(N) < 0.8)
    pool = fresh_pool()
    assert kernel(*head, allowed, N, error, K, *pool, np.empty(STRIP + D, dtype=np.float32)) == 0
    keys = twin(plan.form, queries[0], rows)
    agree(keys, allowed, rounding(keys, plan, np.concatenate(blocks.scales)), pool[0], pool[1], pool[2][0])


def scan_biased(kernel, twin, metric, dtype):
    metric = "dot" if metric == "l2" else metric  # distances are not its business
    rng, rows, blocks, queries, plan, head, error = planned(metric, dtype)
    allowed, bias = frozen(rng.random(N) < 0.8), frozen(rng.standard_normal(N).astype(np.float32))
    wider = frozen(error + np.array([0, 4 * 2.0**-24 * float(np.abs(bias).max() + 100)], np.float32))
    pool, settled = fresh_pool(), frozen(np.array([head[0], N, K]))
    strip = np.empty(STRIP + 2 * D, dtype=np.float32)
    assert kernel(settled, *head[1:], allowed, bias, wider, *pool, strip) == 0
    keys = twin(plan.form, queries[0], rows, bias)
    slack = rounding(keys, plan, np.concatenate(blocks.scales)) + 2.0**-20 * (1.0 + np.abs(keys))
    agree(keys, allowed, slack, pool[0], pool[1], pool[2][0])


def scan_listed(kernel, twin, metric, dtype):
    rng, rows, blocks, queries, plan, head, error = planned(metric, dtype)
    wanted = frozen(np.flatnonzero(rng.random(N) < 0.3))
    pool = fresh_pool()
    assert kernel(*head, wanted, len(wanted), error, K, *pool, np.empty(STRIP + D, dtype=np.float32)) == 0
    keys, allowed = np.full(N, -np.inf), np.zeros(N, dtype=bool)
    keys[wanted], allowed[wanted] = twin(plan.form, queries[0], rows, wanted), True
    with np.errstate(invalid="ignore"):
        slack = rounding(keys, plan, np.concatenate(blocks.scales))
    agree(keys, allowed, slack, pool[0], pool[1], pool[2][0])


def absorb_tile(kernel, twin, metric, dtype):
    rng, rows, blocks, queries = setting(metric, dtype)
    plan = plan_scan(metric, queries)
    products = frozen(rows.astype(np.float32) @ plan.queries.T)
    scales, errors = frozen(np.concatenate(blocks.scales)), frozen(plan.errors.T)
    allowed = frozen(rng.random(N) < 0.8)
    bounds, positions, states, floors = (np.stack([part] * Q) for part in fresh_pool())
    floors = floors[:, 0].copy()
    resume = np.zeros(2, dtype=np.int64)
    head = (FORM_CODES[plan.form], products, scales, frozen(np.arange(N)), allowed, errors, K)
    assert kernel(*head, bounds, positions, states, floors, resume) == -1
    for query, keys in enumerate(twin(plan.form, queries, rows)):
        slack = np.abs(keys) * 2.0**-22 + plan.slope[query].astype(np.float64) * scales + plan.offset[query]
        agree(keys, allowed, slack, bounds[query], positions[query], states[query, 0])


def axis_energies(kernel, twin, metric, dtype):
    rng, _, _, queries = setting(metric, dtype)
    axes = frozen(np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32)[:8])
    shadow, out = frozen(rng.standard_normal(7) / 9), np.empty(3)
    for query in (queries[0], queries[1] * np.float32(1e-9), queries[2] * np.float32(1e9)):
        if not 1e-30 < float(query @ query) < 1e30:
            continue
        for loud in (0, 3, 7):
            kernel(frozen(query), axes, shadow, loud, np.empty(D, dtype=np.float32), out)
            np.testing.assert_allclose(out, twin(query, axes, shadow, loud), rtol=1e-5, atol=1e-6)


def widen(kernel, twin, metric, dtype):
    bits = frozen(np.arange(1 << 16, dtype=np.uint16))
    out = np.empty(1 << 16, dtype=np.float32)
    kernel(bits, out)
    expected = twin(bits)
    finite = np.isfinite(expected)
    assert out[finite].tobytes() == expected[finite].tobytes()
    assert np.array_equal(out, expected, equal_nan=True)


def rotate(kernel, twin, metric, dtype):
    rng = np.random.default_rng(3)
    for width in (64, 80, 384):
        rows = rng.standard_normal((7, width)).astype(np.float32)
        signs = frozen(rng.integers(0, 2, (4, width)).astype(np.float32) * 2 - 1)
        turned = rows.copy()
        kernel(turned, signs)
        np.testing.assert_allclose(turned, twin(rows, signs), atol=1e-5)
        np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, rtol=1e-4, atol=1e-4)


def scan_codes(kernel, twin, metric, dtype):
    rng = np.random.default_rng(5)
    for count, width, most in ((1, 64, 1), (70, 64, 5), (1_000, 128, 20), (90, 4_160, 90)):
        signs = rng.integers(0, 2, (count, width))
        packed = frozen(pack_signs(signs.astype(bool)))
        cells = frozen(rng.integers(0, 3, count).astype(np.uint8))
        factors = frozen(rng.standard_normal((2, count)).astype(np.float32))
        queries = frozen(rng.standard_normal((Q, width)).astype(np.float32))
        bends, bases = (
            frozen(rng.standard_normal(Q).astype(np.float32)),
            frozen(rng.standard_normal((Q, 3)).astype("f")),
        )
        allowed = frozen(rng.random(count) < 0.6)
        expected = twin(queries, bends, bases[:, cells], 2 * signs - 1, factors)
        for mask in (frozen(np.empty(0, np.bool_)), allowed):
            positions, scores = np.empty((Q, most), np.int64), np.empty((Q, most), np.float32)
            scratch = np.empty(4 * width, np.uint8), np.empty(32, np.float32), np.empty(2 * most + 64, np.uint64)
            kernel(queries, bends, bases, packed, cells, factors, mask, *scratch, positions, scores)
            may = np.flatnonzero(mask) if len(mask) else np.arange(count)
            for row in range(Q):
                held = min(most, len(may))
                assert (positions[row, held:] == -1).all() and (scores[row, held:] == -np.inf).all()
                found = positions[row, :held]
                assert len(set(found.tolist())) == held and set(found.tolist()) <= set(may.tolist())
                np.testing.assert_allclose(scores[row, :held], expected[row, found], rtol=1e-4, atol=1e-3)
                assert (np.diff(scores[row, :held]) <= 0).all()
                best = np.sort(expected[row, may])[::-1][:held]
                np.testing.assert_allclose(scores[row, :held], best, rtol=1e-4, atol=1e-3)


def first_fault(kernel, twin, metric, dtype):
    rng = np.random.default_rng(11)
    seen = set()
    for _ in range(400):
        width, count = int(rng.integers(0, 7)), int(rng.integers(1, 12))
        positions = np.full((Q, width), -1, np.int64)
        scores = np.full((Q, width), -np.inf, np.float32)
        for row in range(Q):
            held = min(count, int(rng.integers(0, width + 1)))
            positions[row, :held] = rng.permutation(count)[:held]
            scores[row, :held] = np.sort(rng.integers(0, 4, held))[::-1]
            order = np.lexsort((positions[row], -scores[row]))
            positions[row], scores[row] = positions[row][order], scores[row][order]
        if width and rng.random() < 0.8:
            spot = int(rng.integers(0, Q)), int(rng.integers(0, width))
            if rng.random() < 0.5:
                positions[spot] = rng.integers(-3, count + 3)
            else:
                scores[spot] = rng.choice([np.nan, 9.0, -9.0, np.inf])
        allowed = frozen(rng.random(count) < 0.9) if rng.random() < 0.5 else frozen(np.empty(0, np.bool_))
        least = int(rng.integers(0, 3)) if rng.random() < 0.3 else 0
        lengths = np.full(Q, -7, np.int64)
        found = kernel(frozen(positions), frozen(scores), count, allowed, least, lengths)
        assert found == twin(positions, scores, count, allowed, least)
        seen.add(found % 8 if found >= 0 else -1)
        if found < 0:
            assert lengths.tolist() == (positions >= 0).sum(axis=1).tolist()
    assert seen == {-1, 0, 1, 2, 3, 4, 5, 6}


def prepare(kernel, twin, metric, dtype):
    rng = np.random.default_rng(7)
    squared = int(metric == "l2")
    for dim, width, cells in ((3, 64, 1), (100, 112, 9), (64, 64, 40)):
        queries, mean = rng.standard_normal((Q, dim)).astype("f"), rng.standard_normal(dim).astype("f")
        centres = rng.standard_normal((cells, dim)).astype("f")
        traits = np.stack([np.square(centres).sum(axis=1), rng.random(cells), rng.random(cells)]).astype("f")
        signs = (rng.integers(0, 2, (4, width)) * 2 - 1).astype("f")
        for middle in (mean, 0 * mean, mean * np.float32(1e-20)):
            given = [frozen(each) for each in (queries, middle, centres, traits, signs)]
            expected = twin(*given, squared)
            shapes = (Q, width), (Q,), (Q, cells)
            for ordered in (0, cells):
                out = [np.full(shape, np.nan, np.float32) for shape in (*shapes, (Q, ordered))]
                kernel(*given, squared, *out)
                for found, wanted in zip(out, expected, strict=True):
                    if found.size:
                        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def listed(rng, count, width, lists):
    """Rows in lists as the index makes them, with the list, signs and factors of each position."""
    cells = rng.integers(0, lists, count) if lists > 1 else np.zeros(count, np.int64)
    signs = rng.integers(0, 2, (count, width))
    factors = rng.standard_normal((2, count)).astype(np.float32)
    return cells, signs, factors, join_lists([(cells, np.packbits(signs.astype(bool), axis=1), factors)], lists)


def probe_lists(kernel, twin, metric, dtype):
    rng = np.random.default_rng(13)
    for count, width, lists, most in ((1, 64, 1, 1), (70, 64, 4, 5), (900, 128, 30, 20), (90, 4_160, 7, 90)):
        cells, signs, factors, made = listed(rng, count, width, lists)
        queries, bends, bases, nearness = (
            frozen(rng.standard_normal(shape).astype("f")) for shape in ((Q, width), Q, (Q, lists), (Q, lists))
        )
        allowed = frozen(rng.random(count) < 0.6)
        estimates = reference.scan_codes(queries, bends, bases[:, cells], 2 * signs - 1, factors)
        for mask in (frozen(np.empty(0, np.bool_)), allowed):
            may = mask if len(mask) else np.ones(count, bool)
            for wanted in (1, count // 3 + 1, count):
                positions, scores = np.empty((Q, most), np.int64), np.empty((Q, most), np.float32)
                blocks = made.blocks
                head = queries, bends, bases, nearness, frozen(blocks.table), blocks.shift, frozen(made.starts)
                kernel(*head, mask, wanted, positions, scores)
                for row in range(Q):
                    reached = twin(np.where(may, estimates[row], -np.inf), nearness[row], cells, wanted)
                    found = positions[row][positions[row] >= 0]
                    assert len(set(found.tolist())) == len(found) and may[found].all()
                    assert (scores[row, len(found) :] == -np.inf).all() and len(found) >= min(most, len(reached))
                    np.testing.assert_allclose(scores[row, : len(found)], estimates[row, found], rtol=1e-4, atol=1e-3)
                    assert (np.diff(scores[row, : len(found)]) <= 0).all()
                    if len(found) == most:  # rows of shared blocks come in addition, never instead of better ones
                        best = estimates[row, reached[:most]]
                        assert (scores[row, : len(best)] >= best - 1e-3).all()
                    if wanted == count:
                        assert set(found.tolist()) <= set(reached.tolist()) and len(found) == min(most, may.sum())


def refine_codes(kernel, twin, metric, dtype):
    rng = np.random.default_rng(17)
    for count, width, cells, most in ((1, 64, 1, 1), (40, 64, 3, 5), (200, 112, 9, 20), (33, 1_040, 2, 33)):
        for bits in (2, 4, 8):
            codes = rng.integers(0, 1 << bits, (count, width)).astype(np.uint8)
            size = width * bits // 8
            rows = np.zeros((count, size + 16), np.uint8)
            for turn in range(8 // bits):
                rows[:, :size] |= codes[:, turn * size : (turn + 1) * size] << np.uint8(bits * turn)
            factors = rng.standard_normal((2, count)).astype("<f4")
            chosen = rng.integers(0, cells, count).astype("<i4")
            for place, values in enumerate((*factors, chosen)):
                rows[:, size + 4 * place : size + 4 * place + 4] = values.view(np.uint8).reshape(-1, 4)
            queries, bends, bases = (
                frozen(rng.standard_normal(shape).astype("f")) for shape in ((Q, width), Q, (Q, cells))
            )
            points = 2 * codes.astype(np.int64) - ((1 << bits) - 1)
            expected = twin(queries, bends, bases[:, chosen], points, factors)
            nominated = np.full((Q, count + 2), -1, np.int64)
            for row, held in enumerate((count, 0, count // 2)):
                nominated[row, :held] = rng.permutation(count)[:held]
            positions, scores = np.empty((Q, most), np.int64), np.empty((Q, most), np.float32)
            table, keys = frozen(np.array([rows.ctypes.data])), np.empty(count + 2, np.uint64)
            kernel(queries, bends, bases, table, 62, bits, frozen(nominated), keys, positions, scores)
            for row in range(Q):
                given = nominated[row][nominated[row] >= 0]
                found = positions[row][positions[row] >= 0]
                assert len(found) == min(most, len(given)) and set(found.tolist()) <= set(given.tolist())
                assert len(set(found.tolist())) == len(found) and (scores[row, len(found) :] == -np.inf).all()
                np.testing.assert_allclose(scores[row, : len(found)], expected[row, found], rtol=1e-3, atol=0.05)
                assert (np.diff(scores[row, : len(found)]) <= 0).all()
                best = np.sort(expected[row, given])[::-1][: len(found)]
                np.testing.assert_allclose(scores[row, : len(found)], best, rtol=1e-3, atol=0.05)


CASES = {
    "code_refine.refine_codes": refine_codes,
    "code_queries.prepare": prepare,
    "list_scan.probe_lists": probe_lists,
    "candidates.first_fault": first_fault,
    "code_scan.rotate": rotate,
    "code_scan.scan_codes": scan_codes,
    "canonical.canonical_rows": canonical_rows,
    "canonical.rank_nominated": rank_nominated,
    "canonical.rank_pools": rank_pools,
    "exact_scan.absorb_tile": absorb_tile,
    "exact_scan.scan_biased": scan_biased,
    "exact_scan.scan_blocks": scan_blocks,
    "exact_scan.scan_listed": scan_listed,
    "graph_assign.nearest_leaders": graph_cases.nearest_leaders,
    "graph_leaf.leaf_neighbours": graph_cases.leaf_neighbours,
    "graph_load.load_rows": graph_cases.load_rows,
    "graph_load.number_rows": graph_cases.number_rows,
    "graph_prune.prune_rows": graph_cases.prune_rows,
    "graph_reach.insert_edge": graph_cases.insert_edge,
    "graph_reach.reverse_lists": graph_cases.reverse_lists,
    "graph_reach.spread": graph_cases.spread,
    "graph_reach.walk": graph_cases.walk,
    "graph_search.search_graph": search_cases.search_graph,
    "graph_search.search_listed": search_cases.search_listed,
    "half.widen": widen,
    "screen.axis_energies": axis_energies,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", CASES)
def test_kernel_and_twin_agree(name, metric, dtype):
    """Every input array is read-only, as memory maps are."""
    declared = KERNELS[name]
    with np.errstate(all="ignore"):  # without the JIT, infinities on the way would warn
        CASES[name](declared, declared.twin, metric, dtype)


def test_every_kernel_has_a_case():
    assert sorted(CASES) == sorted(KERNELS)


def test_twins_live_in_reference_and_carry_the_kernels_name():
    for declared in KERNELS.values():
        assert declared.twin.__module__ == reference.__name__
        assert declared.twin.__name__ == declared.name.partition(".")[2]
