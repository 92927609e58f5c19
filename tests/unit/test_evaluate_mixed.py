"""Mixed stores, measured: ranks by each calibration are those of a plain merge."""

import numpy as np
import pytest

from tools.evaluate.mixed import METHODS, Store, measured
from vecdb.engine.bridge.calibration import LISTED, by_rank, matched, tail_matched


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    new = unit(rng.standard_normal((90, 6)))
    old = unit(new[:, ::-1] + 0.5 * rng.standard_normal((90, 6)))
    queries = unit(new[:30] + 0.4 * rng.standard_normal((30, 6)))
    return Store(new, old, rng.random(90) < 0.3, np.arange(60, 90)), queries, unit(queries[:, ::-1])


def plain(store, method, query, mapped):
    native, bridged = (store.new @ query).astype(float), (store.old @ mapped).astype(float)
    if method in ("rrf", "ranks"):
        scores = np.empty(90)
        for members, values, first in ((store.fresh, native, True), (~store.fresh, bridged, False)):
            rows = np.flatnonzero(members)
            order = rows[np.argsort(-values[rows])]
            scores[order] = by_rank(len(rows), size=len(rows), total=90, method=method, first=first)
        return scores + 1e-9 * store.fresh  # of equal ranks the new one comes first
    cross, known = bridged[store.reference], native[store.reference]
    line = (tail_matched if method == "tail" else matched)(cross, known)
    moved = bridged if method == "none" else line.factor * bridged + line.offset
    if method == "lists":
        sizes = [max(1, round(LISTED * members.mean())) for members in (store.fresh, ~store.fresh)]
        heads = [
            np.sort(values[members])[-size:].mean()
            for values, members, size in zip((native, moved), (store.fresh, ~store.fresh), sizes, strict=True)
        ]
        moved = moved + heads[0] - heads[1]
    return np.where(store.fresh, native, moved)


@pytest.mark.parametrize("method", METHODS)
def test_ranks_are_those_of_a_plain_merge(world, method):
    store, queries, mapped = world
    found = measured(store, queries, mapped, np.arange(30))[method]
    for place in range(30):
        scores = plain(store, method, queries[place], mapped[place])
        rank = int((scores > scores[place]).sum()) + 1
        assert found[0, place] == pytest.approx(1 / rank) and found[1, place] == (rank <= 10)
