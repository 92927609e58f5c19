"""The benchmarks run and give finite numbers; how they pair, judge, print and publish them. No time is asserted."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.bench import building, data, machine, measure, peers, report, run

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
SYSTEMS = {
    "scan": {"Collection.search", "exact.search", "read bandwidth"},
    "batch": {"Collection.search", "exact.search", "np.matmul", "faiss IndexFlatIP"},
    "threads": {"search, 1 thread", "search, 2 threads", "read, 2 threads"},
    "insert": {"vecdb", "sqlite-vec", "LanceDB"},
    "cold": {"vecdb", "sqlite-vec", "hnswlib", "numpy alone", "import vecdb", "import numpy"},
    "memory": {"anonymous memory added", "anonymous memory added, single"},
    "building": {"anonymous memory, at most", "added by the build", "index"},
    "upkeep": {"file after compact", "largest file"},
    "border": {
        "border.search",
        "exact.search",
        "through flat",
        "exact=True",
        "border.search less exact.search",
        "through flat less exact=True",
    },
    "compare.plugins": {"library"},
}
"""Who each benchmark must have a row for, measured or said to be missing."""


def started(arguments, **environment):
    command = [sys.executable, str(ROOT / "tools" / "bench" / "run.py"), *arguments]
    changed = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=changed, cwd=ROOT, check=False)


# --- every benchmark, once, tiny --------------------------------------------------------------------------


@pytest.mark.parametrize("name", run.NAMES)
def test_every_benchmark_runs_and_gives_finite_numbers(name, tmp_path):
    out = tmp_path / "found.json"
    done = started([name, "--quick", "--out", str(out)], OPENBLAS_CORETYPE="Haswell", OPENBLAS_L2_SIZE="512")
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert (document["format"], document["quick"]) == (run.FORMAT, True)
    rows = document["benchmarks"][name]["rows"]
    assert {row["system"] for row in rows} >= SYSTEMS[name]
    for row in rows:
        measured = [row[key] for key in ("value", "low", "high", "cpu", "ratio") if row[key] is not None]
        assert all(math.isfinite(number) and number >= 0 for number in measured), row
        assert (row["value"] is None) == bool(row["note"]), row
        assert row["system"] in done.stdout
    alone = name == "insert" and set(peers.TARGETS) - {"vecdb"} <= set(peers.absences())
    alone = alone or all(row["value"] is None for row in rows)  # no library is installed
    assert alone or any(row["ratio"] is not None for row in rows)
    assert machine.cpu_model() in done.stdout


def test_the_list_of_benchmarks_is_complete():
    helpers = {"__init__", "child", "data", "identity", "kernels", "machine", "measure", "peers", "report", "run"}
    files = {path.stem for path in (ROOT / "tools" / "bench").glob("*.py")} | {"compare.plugins"}
    assert files == helpers | set(run.NAMES) == helpers | set(SYSTEMS)


def test_an_unknown_name_is_refused_with_the_known_ones():
    done = started(["scam"])
    assert done.returncode != 0
    assert "scam" in done.stderr and "scan" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_benchmark_that_fails_fails_the_run(tmp_path):
    done = started(["upkeep", "--quick", "--out", str(tmp_path / "x.json"), "--rounds", "none"])
    assert done.returncode != 0
    assert not (tmp_path / "x.json").exists()


# --- the environment of the measured process --------------------------------------------------------------


def test_forced_blas_kernels_are_lifted_together_and_threads_are_set():
    forced = dict.fromkeys(machine.FORCED_KERNELS, "Haswell")
    changed = machine.environment({"HOME": "/h", **forced}, root=Path("/r"), blas_threads=1)
    assert not set(changed) & set(forced)
    assert changed["HOME"] == "/h" and changed["PYTHONPATH"] == "/r"
    assert "PYTHONDONTWRITEBYTECODE" not in machine.environment(
        {"PYTHONDONTWRITEBYTECODE": "1"}, root=ROOT, blas_threads=1
    )
    assert {changed[name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")} == {"1"}


def test_facts_name_the_machine_and_the_libraries(tmp_path):
    facts = machine.facts(tmp_path)
    assert facts["libraries"]["numpy"] == np.__version__
    assert {"vecdb", "numba", "lmdb"} <= set(facts["libraries"])
    assert facts["cores"] >= 1 and facts["fdatasync_ms"] > 0 and facts["cpu"]
    assert facts["blas"]["name"] and facts["file_system"] != "unknown"
    assert not list(tmp_path.iterdir())
    assert report.machine_line(facts | {"load": [0.0]}).count("None") <= 1
    json.dumps(facts)


def test_memory_figures_are_those_of_this_process():
    own, resident, peak = (machine.memory(name) for name in ("RssAnon", "VmRSS", "VmHWM"))  # it may grow meanwhile
    assert 0 < own <= resident <= peak
    with pytest.raises(ValueError, match="VmNothing"):
        machine.memory("VmNothing")


# --- pairing ----------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(0, 9))
def test_each_round_runs_everyone_once_and_everyone_gets_each_place(count, rounds):
    names = [str(place) for place in range(count)]
    order = list(measure.turns(names, rounds))
    parts = [order[start : start + count] for start in range(0, len(order), count)]
    assert len(parts) == rounds
    assert all(sorted(part) == names for part in parts)
    if rounds >= count:
        assert {part[0] for part in parts} == set(names)


def test_alternate_warms_up_and_times_each_round():
    called = []
    works = {name: lambda name=name: called.append(name) for name in "abc"}
    timings = measure.alternate(works, 4, warm=2)
    assert list(timings) == ["a", "b", "c"]
    assert all(len(timing.wall) == len(timing.cpu) == 4 for timing in timings.values())
    assert {name: called.count(name) for name in "abc"} == dict.fromkeys("abc", 6)


positive = st.floats(1e-6, 1e3)


@given(st.lists(st.tuples(positive, positive, st.floats(0.1, 10)), min_size=1, max_size=9))
def test_ratios_are_taken_within_rounds_so_a_slow_machine_cancels(rounds):
    """A factor that slows a whole round down does not change any ratio."""
    own, theirs, slow = zip(*rounds, strict=True)
    plain = measure.Timing(own, own).over(measure.Timing(theirs, theirs))
    slowed = [tuple(a * b for a, b in zip(times, slow, strict=True)) for times in (own, theirs)]
    assert measure.Timing(slowed[0], own).over(measure.Timing(slowed[1], own)) == pytest.approx(plain)
    assert plain == pytest.approx(median(a / b for a, b in zip(own, theirs, strict=True)))


@given(st.lists(positive, min_size=1, max_size=9), st.floats(1, 1e6))
def test_rates_are_amounts_per_median_second_between_their_quartiles(seconds, amount):
    timing = measure.Timing(tuple(seconds), tuple(seconds))
    row = measure.rate("case", "system", timing, amount, "rows/s")
    assert row.value == pytest.approx(amount / median(seconds)) == pytest.approx(row.cpu)
    assert row.low <= row.value * (1 + 1e-9) and row.value <= row.high * (1 + 1e-9)
    took = measure.duration("case", "system", timing)
    assert took.value == pytest.approx(1e3 * median(seconds)) and took.unit == "ms"


@pytest.mark.parametrize(
    ("bar", "ratio", "verdict", "text"),
    [
        (measure.at_least(0.8), 0.8, "held", ">= 0.8"),
        (measure.at_least(0.8), 0.79, "missed", ">= 0.8"),
        (measure.at_most(1.2), 1.2, "held", "<= 1.2"),
        (measure.at_most(1.2), 1.21, "missed", "<= 1.2"),
    ],
)
def test_bars(bar, ratio, verdict, text):
    row = measure.Row("case", "system", 1.0, "ms", ratio=ratio, bar=bar)
    assert row.verdict == verdict
    assert str(bar) == row.to_json()["bar"] == text
    assert measure.Row("case", "system", 1.0, "ms", bar=bar).verdict == ""


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(number):
    outcome = measure.Outcome([measure.Row("case", "system", 1.0, "ms", ratio=number)])
    with pytest.raises(ValueError, match="system"):
        outcome.to_json()


def test_sizes_and_repetitions_of_a_quick_run(tmp_path):
    full, quick = measure.Bench(False, tmp_path), measure.Bench(True, tmp_path)
    assert (full.size(9, 1), quick.size(9, 1)) == (9, 1)
    assert (full.repetitions(9), quick.repetitions(9)) == (9, 2)
    assert measure.Bench(True, tmp_path, rounds=5).repetitions(9) == 5


# --- data and yardstick -----------------------------------------------------------------------------------


def test_synthetic_rows_are_reproducible_unit_and_of_few_dimensions():
    first, again = data.synthetic(500, 64), data.synthetic(500, 64)
    assert np.array_equal(first.rows, again.rows) and np.array_equal(first.queries, again.queries)
    assert first.rows.shape == (500, 64) and first.rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(first.rows, axis=1), 1, atol=1e-5)
    spread = np.linalg.svd(first.rows - first.rows.mean(axis=0), compute_uv=False) ** 2
    assert spread[:20].sum() > 0.6 * spread.sum()
    assert np.ptp(np.linalg.norm(data.synthetic(500, 64, unit=False).rows, axis=1)) > 0.1


def test_batches_cover_the_rows_in_order():
    rows = data.synthetic(25, 8).rows
    found = list(data.batches(rows, data.metadata, size=10))
    assert [len(batch["ids"]) for batch in found] == [10, 10, 5]
    assert [place for batch in found for place in batch["ids"]] == list(range(25))
    assert np.array_equal(np.vstack([batch["vectors"]["m"] for batch in found]), rows)
    assert found[1]["metadata"][0] == data.metadata(10)
    assert next(data.batches(rows, None))["metadata"] is None


def test_the_yardstick_reads_everything_and_with_vectors_of_the_processor():
    from tools.bench.kernels import read, total

    rows = np.arange(4000, dtype=np.float32).reshape(40, 100)
    rows.setflags(write=False)  # mapped blocks are read-only
    assert read([rows, rows[:10]]) == pytest.approx(float(rows.sum() + rows[:10].sum()), rel=1e-5)
    assert re.search(r"fadd.*<\d+ x float>", total.inspect_llvm(total.signatures[0]))


# --- peers ------------------------------------------------------------------------------------------------


def test_absent_peers_are_named_with_a_reason():
    absent = peers.absences()
    assert set(absent) <= {"sqlite-vec", "LanceDB", "hnswlib"}
    assert all("install" in reason for reason in absent.values())


@pytest.mark.parametrize("name", peers.TARGETS)
def test_every_store_takes_batches_with_and_without_metadata(name, tmp_path):
    if name in peers.absences():
        pytest.skip(peers.absences()[name])
    rows = data.synthetic(30, 8).rows
    store = peers.TARGETS[name](tmp_path, 8)
    store.add(0, rows[:20], [data.metadata(place) for place in range(20)])
    store.add(20, rows[20:], [data.metadata(place) for place in range(20, 30)])
    store.close()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > rows.nbytes


# --- printing and publishing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0, "0"), (0.1234, "0.123"), (1.5, "1.50"), (23.45, "23.4"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits(value, text):
    assert report.number(value) == text


def sample(quick=False):
    rows = [
        measure.Row("a | b", "one", 2.0, "GB/s", low=1.9, high=2.1, cpu=2.2),
        measure.Row("a | b", "two", 1.0, "GB/s", ratio=0.5, against="one", bar=measure.at_least(0.8)),
        measure.missing("other", "three", "not installed"),
    ]
    found = measure.Outcome(rows, ["A note."]).to_json() | {"seconds": 1.0}
    facts = {
        "cpu": "C",
        "cores": 2,
        "memory_gib": 8,
        "system": "Linux 6",
        "file_system": "ext4",
        "fdatasync_ms": 0.2,
        "python": "3.11",
        "libraries": {"numpy": "2"},
        "blas": {"name": "openblas", "version": "1", "kernel": "SkylakeX", "threads": 1},
        "load": [0.1],
        "date": "2026-01-01",
    }
    return {"format": run.FORMAT, "quick": quick, "machine": facts, "benchmarks": {"scan": found}}


def test_the_table_names_a_case_once_and_says_what_missed_its_bar():
    lines = report.text_table(sample()["benchmarks"]["scan"]["rows"]).splitlines()
    assert [line[:5] for line in lines] == ["case ", "a | b", "     ", "other"]
    assert ">= 0.8 missed" in lines[2] and "0.50" in lines[2]
    assert "(not installed)" in lines[3]


def test_the_page_is_filled_between_its_markers_and_can_be_filled_again(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{report.BEGIN}\n{report.END}\n\nafter\n")
    report.write_docs(page, sample())
    once = page.read_text()
    assert once.startswith("before\n") and once.endswith("\n\nafter\n")
    assert "| a \\| b | one | 2.00 GB/s | 1.90 to 2.10 | 2.20 |  |  |  |" in once
    assert "kernel SkylakeX" in once and "### scan" in once and "A note." in once
    report.write_docs(page, sample())
    assert page.read_text() == once


def test_neither_a_quick_run_nor_a_page_without_markers_is_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"{report.BEGIN}\n{report.END}\n")
    with pytest.raises(ValueError, match="quick"):
        report.write_docs(page, sample(quick=True))
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="no markers"):
        report.write_docs(page, sample())
    assert page.read_text() == "nothing here"


def test_results_are_added_to_a_file_of_the_same_kind_only(tmp_path):
    path = tmp_path / "found.json"
    assert run.document_of(path, quick=False)["benchmarks"] == {}
    path.write_text(json.dumps(sample()))
    assert set(run.document_of(path, quick=False)["benchmarks"]) == {"scan"}
    with pytest.raises(SystemExit, match="another file"):
        run.document_of(path, quick=True)


def test_the_page_of_the_documentation_names_every_benchmark():
    text = PAGE.read_text(encoding="utf-8")
    assert text.index(report.BEGIN) < text.index(report.END)
    before = text[: text.index(report.BEGIN)]
    assert all(f"`{name}`" in before for name in run.NAMES)


# --- what a build costs in memory ---------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("layout", building.LAYOUTS)
def test_a_build_takes_less_than_one_and_a_half_times_the_vectors(tmp_path, monkeypatch, layout):
    """Wide rows, so that what a process takes anyhow is little; the index of `fast` is larger than they are."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    count, dim = 50_000, 1_024
    store = tmp_path / "b.vecdb"
    building.child("write", store, count, dim)
    found = building.child(layout, store, count, dim)
    raw = 4 * dim * count
    assert found["rows"] == count and (layout == "compact" or found["index"] > raw)
    assert found["highest"] - found["before"] < 1.5 * raw, f"{(found['highest'] - found['before']) / raw:.2f} times"
