"""The identity profile on real embeddings: no false alarm, no miss, streams, queries. Batches come from tools/bench."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.bench import identity as bench
from vecdb.engine.identity import MIN_BATCH, WINDOW, Cusum

pytestmark = pytest.mark.shared_data

SECTIONS = ("perl", "python", "libdevel")
LEAST_NATIVE = 3000
SPACES = (*bench.TEXT_MODELS, "el0", "el2")


@pytest.fixture(scope="module")
def spaces(shared_data: Path) -> dict[str, bench.Space]:
    return {space.name: space for space in (*bench.text_spaces(shared_data), *bench.emoji_spaces(shared_data))}


def wrong(tallies):
    return {kind: tally.wrong for kind, tally in tallies.items() if tally.wrong}


def judged(tallies):
    return sum(tally.judged for tally in tallies.values())


@pytest.mark.parametrize("name", SPACES)
def test_native_batches_are_accepted_and_foreign_ones_refused(spaces, name):
    profile, rest = bench.fitted(spaces[name], rows=2000, seed=5)
    native, foreign = bench.measure(profile, rest, seed=5, batches=12)
    assert (wrong(native), wrong(foreign)) == ({}, {})


@pytest.mark.parametrize("name", bench.TEXT_MODELS)
def test_a_profile_of_one_section_accepts_all_others(spaces, name):
    profile, rest = bench.fitted(spaces[name], rows=2000, seed=6, section="perl")
    native, foreign = bench.measure(profile, rest, seed=6, batches=12)
    assert (wrong(native), wrong(foreign)) == ({}, {})


@pytest.mark.parametrize("name", SPACES)
def test_the_alarm_comes_for_foreign_rows_only(spaces, name):
    profile, rest = bench.fitted(spaces[name], rows=2000, seed=7)
    found = bench.streams(profile, rest, seed=7, count=8)
    foreign = found.pop("foreign")
    assert all(0 < rows <= WINDOW for rows in foreign)
    assert not any(rows for streams in found.values() for rows in streams)


@pytest.mark.parametrize("name", bench.TEXT_MODELS)
def test_fewer_than_one_query_in_a_thousand_is_warned_about(spaces, name):
    profile, rest = bench.fitted(spaces[name], rows=4096, seed=8)
    assert bench.warned(profile, rest.pools["queries"]) < 0.001


@pytest.mark.parametrize(("name", "other"), [("mini6", "e5s"), ("e5s", "mini6"), ("el0", "el2"), ("el2", "el0")])
def test_a_query_of_the_other_model_is_warned_about(spaces, name, other):
    profile, rest = bench.fitted(spaces[name], rows=2000, seed=9)
    assert bench.warned(profile, rest.others[other][:500]) > 0.95


@pytest.mark.parametrize("name", SPACES)
def test_the_smallest_batch_is_judged_as_well(spaces, name):
    profile, rest = bench.fitted(spaces[name], rows=2000, seed=10)
    rng = np.random.default_rng(10)
    for pool, native in ((rest.docs, True), *((pool, False) for pool in rest.others.values())):
        for _ in range(40):
            assert profile.judge(pool[rng.choice(len(pool), MIN_BATCH)]).ok == native


@pytest.mark.full
@pytest.mark.parametrize("rows", [2000, 4096])
@pytest.mark.parametrize("name", bench.TEXT_MODELS)
def test_three_thousand_native_and_as_many_foreign_batches(spaces, name, rows):
    profile, rest = bench.fitted(spaces[name], rows=rows, seed=0)
    native, foreign = bench.measure(profile, rest, seed=0, batches=420)
    assert judged(native) >= LEAST_NATIVE and judged(foreign) >= LEAST_NATIVE
    assert (wrong(native), wrong(foreign)) == ({}, {})


@pytest.mark.full
@pytest.mark.parametrize("name", ["el0", "el2"])
def test_three_thousand_batches_of_two_image_models(spaces, name):
    profile, rest = bench.fitted(spaces[name], rows=2000, seed=0)
    native, foreign = bench.measure(profile, rest, seed=0, batches=500)
    assert judged(native) >= LEAST_NATIVE and judged(foreign) >= LEAST_NATIVE
    assert (wrong(native), wrong(foreign)) == ({}, {})


@pytest.mark.full
@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("name", bench.TEXT_MODELS)
def test_profiles_of_single_sections_at_length(spaces, name, section):
    profile, rest = bench.fitted(spaces[name], rows=2000, seed=1, section=section)
    native, foreign = bench.measure(profile, rest, seed=1, batches=340)
    assert (wrong(native), wrong(foreign)) == ({}, {})


@pytest.mark.full
@pytest.mark.parametrize("name", bench.TEXT_MODELS)
def test_all_documents_one_at_a_time_raise_no_alarm(spaces, name):
    profile, rest = bench.fitted(spaces[name], rows=2000, seed=2)
    by_topic = rest.docs[np.argsort(rest.topics, kind="stable")]
    for stream in (rest.docs, by_topic, *rest.pools.values()):
        state = Cusum()
        for start in range(0, len(stream), MIN_BATCH - 1):
            state, alarm = profile.step(state, stream[start : start + MIN_BATCH - 1])
            assert not alarm, start
