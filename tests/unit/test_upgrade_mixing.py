"""Calibrations on whole tables of scores: what the engine does to one query, and which one a plan chooses."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.engine.bridge.calibration import by_rank, matched, tail_matched
from vecdb.evaluation import Judged
from vecdb.upgrade import mixing
from vecdb.upgrade.mixing import SHARES, Tables, mixing_of, shift_of

ROWS, ASKED = 80, 12


def tables(seed: int = 0, *, weak: float = 0.5, scale: float = 0.2) -> Tables:
    """Return scores of rows whose bridge is their native score with noise, on another scale."""
    random = np.random.default_rng(seed)
    native, known = (random.normal(size=(ASKED, count)) for count in (ROWS, 64))
    answers = random.integers(0, ROWS, ASKED)
    native[np.arange(ASKED), answers] += 3.0
    bridge = [scale * (each + weak * random.normal(size=each.shape)) - 0.4 for each in (native, known)]
    order = random.permutation(ROWS)
    return Tables(native, bridge[0], known, bridge[1], Judged.of(answers.tolist()), order)


def test_lines_are_those_of_the_engine() -> None:
    made = tables()
    done = made.done(0.4)
    assert done.sum() == 32
    for name, line in (("reference", matched), ("tail", tail_matched)):
        mixed = mixing._CALIBRATIONS[name](made, done)
        assert (mixed[:, done] == made.native[:, done]).all()
        for query in range(ASKED):
            own = line(made.cross[query], made.known[query])
            assert mixed[query, ~done] == pytest.approx(made.raw[query, ~done] * own.factor + own.offset)


def test_ranks_are_those_of_the_engine() -> None:
    made = tables()
    done = made.done(0.25)
    mixed = mixing._CALIBRATIONS["ranks"](made, done)
    for query in range(ASKED):
        for part, scores, first in ((done, made.native, True), (~done, made.raw, False)):
            own = by_rank(int(part.sum()), size=int(part.sum()), total=ROWS, method="ranks", first=first)
            best = np.flatnonzero(part)[np.argsort(-scores[query, part])]
            assert mixed[query, best] == pytest.approx(own)


def test_lists_level_the_heads() -> None:
    made = tables()
    done = made.done(0.5)
    mixed = mixing._CALIBRATIONS["lists"](made, done)
    heads = []
    for part in (done, ~done):
        length = round(mixing.expected(int(part.sum()), len(done)))
        heads.append(np.sort(mixed[:, part], axis=1)[:, -length:].mean(1))
    assert heads[0] == pytest.approx(heads[1])


def test_with_nothing_or_everything_embedded_again_every_calibration_ranks_alike() -> None:
    found = mixing_of(tables(), "mrr")
    ends = {(curve[0], curve[-1]) for _, curve in found.curves}
    assert len(ends) == 1
    assert found.shares == SHARES and [share for share, _ in found.curve] == list(SHARES)


def test_the_usual_calibration_gives_way_only_to_a_better_one() -> None:
    assert mixing_of(tables(weak=0.1), "mrr").chosen == "reference"
    made = tables(weak=0.1)
    useless = Tables(made.native, made.raw, made.known, made.cross[:, ::-1] * 0.001 + 9.0, made.judged, made.order)
    found = mixing_of(useless, "mrr")
    assert found.chosen != "reference"
    between = {name: sum(curve[1:-1]) for name, curve in found.curves}
    assert between[found.chosen] == max(between.values())


def test_calibration_brings_the_distributions_together() -> None:
    found = shift_of(tables(weak=0.2))
    assert found.before > 0.3 > 0.1 > found.after
    assert len(found.edges) == len(found.native) + 1
    assert sum(found.native) == pytest.approx(1.0, abs=0.01)
