"""The harness with a peer of its own: builds, resuming, failures, filters, inserts, cold processes, the lock."""

import fcntl
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.bench.compare import __main__ as command
from tools.bench.compare import peers, record, runs, sets, turn, worker
from tools.bench.compare.child import Worker, WorkerError

HERE = Path(__file__).parent
FAKE = "fakepeer"


@pytest.fixture
def fake(monkeypatch):
    """The only peer is the one beside this file; workers find it, too."""
    monkeypatch.setattr(command, "MODULES", {"fake": FAKE})
    for module in (peers.MODULES, runs.MODULES):
        monkeypatch.setitem(module, "fake", FAKE)
    monkeypatch.syspath_prepend(str(HERE))
    from tools.bench.compare import child

    plain = child.worker_environment
    with_fake = lambda threads: plain(threads) | {"PYTHONPATH": os.pathsep.join([str(child.ROOT), str(HERE)])}  # noqa: E731
    monkeypatch.setattr(child, "worker_environment", with_fake)


def go(store, *more, run="r1", phases=("build", "curve"), peer=("fake:whole",), rounds=2):
    arguments = ["run", "--set", "tiny", "--store", str(store), "--run", run, "--rounds", str(rounds)]
    command.main([*arguments, "--peer", *peer, "--phase", *phases, *more])


def read(store, variant="whole"):
    (path,) = (store / "results" / "tiny").glob(f"fake.{variant}.*.json")
    return record.load(path)


def test_a_run_builds_learns_recall_and_times_each_round(fake, tmp_path, capfd):
    go(tmp_path)
    found = read(tmp_path)
    assert (found["version"], found["peer"], found["set"]) == ("1.0", "fake", "tiny")
    assert found["built"]["disk"] > 0 and found["built"]["build"][1] >= 0
    curve = found["runs"]["r1"]["curve"]
    assert {key: round(value["recall"], 3) for key, value in curve.items()} == {"5": 0.5, "8": 0.8, "10": 1.0, "9": 0.9}
    assert [value["asked_for"] for value in curve.values()] == [False, False, False, True]
    for value in curve.values():
        assert len(value["single"]) == len(value["batch"]) == 2
        assert all(wall > 0 and cpu >= 0 for wall, cpu in value["single"] + value["batch"])
    grown = found["runs"]["r1"]["memory"]["curve"]
    assert grown["resident"] >= grown["anonymous"] > 0 and set(grown["before"]) == {"resident", "anonymous"}
    assert found["built"]["peak"] >= 0 and found["built"]["threads"] == 1
    assert (
        "a library that prints"
        in (tmp_path / "results/tiny")
        .joinpath(next(path.name for path in (tmp_path / "results/tiny").glob("*.log")))
        .read_text()
    )
    assert "round 2 of 2" in capfd.readouterr().out


def test_a_run_goes_on_where_it_stopped_and_builds_nothing_again(fake, tmp_path):
    go(tmp_path, rounds=1)
    first = read(tmp_path)
    go(tmp_path, rounds=3)
    second = read(tmp_path)
    assert second["built"] == first["built"]
    for setting, value in second["runs"]["r1"]["curve"].items():
        assert value["single"][:1] == first["runs"]["r1"]["curve"][setting]["single"]
        assert len(value["single"]) == 3
    go(tmp_path, run="r2", rounds=1)
    third = read(tmp_path)
    assert third["known"] == first["known"] and third["runs"]["r2"]["curve"]["8"]["recall"] == pytest.approx(0.8)
    assert third["runs"]["r1"] == second["runs"]["r1"] and len(third["runs"]["r2"]["curve"]["5"]["single"]) == 1


def test_what_fails_is_told_and_the_others_go_on(fake, tmp_path, capfd):
    go(tmp_path, peer=("fake",), phases=("build", "curve", "filter"))
    assert read(tmp_path, "unbuildable")["built"] is None
    assert "cannot build that" in read(tmp_path, "unbuildable")["runs"]["r1"]["errors"]["build"]
    broken = read(tmp_path, "breaks")["runs"]["r1"]
    assert "a setting that fails" in broken["errors"]["curve"]
    assert list(broken["curve"]) == ["5", '"broken"'] and not broken["curve"]['"broken"']
    assert "returned rows that are not" in read(tmp_path, "leaks")["runs"]["r1"]["errors"]["filter"]
    assert len(read(tmp_path)["runs"]["r1"]["curve"]["10"]["single"]) == 2
    assert "fake:breaks: curve: ValueError: a setting that fails" in capfd.readouterr().out


def test_filters_inserts_threads_and_new_processes(fake, tmp_path):
    go(tmp_path, "--threads", "2", phases=("build", "curve", "filter", "cold", "insert", "threads", "build-threaded"))
    found = read(tmp_path)
    run = found["runs"]["r1"]
    assert set(run["filter"]) == {condition.name for condition in sets.CONDITIONS}
    assert all(value["10"]["recall"] == 1 and value["10"]["fewer"] == 0 for value in run["filter"].values())
    assert len(run["cold"]) == 2 and all(seconds > 0 for seconds in run["cold"])
    assert {size: len(taken) for size, taken in run["insert"].items()} == {"1": 2, "1000": 2}
    assert len(run["threads"]["10"]["batch"]) == 2 and "single" not in run["threads"]["10"]
    assert found["built_threaded"]["build"][0] >= 0
    stored = np.load(next((tmp_path / "indexes").rglob("rows.npy")), mmap_mode="r")
    assert len(stored) == 1000  # inserts went into a copy


def test_a_library_that_is_missing_is_recorded_with_the_reason(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "probe", lambda *_: ("", "ImportError: fake is not installed"))
    go(tmp_path)
    assert read(tmp_path)["absent"] == "ImportError: fake is not installed"
    assert "fake is not installed" in capsys.readouterr().out


def test_adapters_name_a_missing_distribution():
    class Module:
        DISTRIBUTIONS = ("no-such-distribution",)

    with pytest.raises(ImportError, match="no-such-distribution"):
        peers.version(Module)


def test_every_adapter_can_be_listed_without_its_library(capsys):
    command.main(["list"])
    text = capsys.readouterr().out
    assert all(f"index {peer}:" in text for peer in peers.MODULES)
    assert all(f"set   {name}:" in text for name in sets.SOURCES)
    for peer in peers.MODULES:
        module = peers.adapter(peer)
        for variant in module.VARIANTS:
            json.dumps([variant.settings, variant.build, variant.asked, variant.filtered])
            assert len(set(map(json.dumps, variant.settings))) == len(variant.settings)


def test_the_run_of_the_bars_asks_for_what_there_is(fake, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(command, "measure", asked.append)
    command.main(["bars", "--store", str(tmp_path), "--run", "r9"])
    assert len(asked) == len(command.BARS) and {options.run for options in asked} == {"r9"}
    for options in asked:
        assert set(options.sets) <= set(sets.SOURCES) and set(options.phases) <= set(runs.PHASES)
        for peer, _, variant in (each.partition(":") for each in options.peers):
            assert variant in {"", *(each.name for each in peers.adapter(peer).VARIANTS)}


def test_an_unknown_peer_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(SystemExit, match="hnswlib"):
        go(tmp_path, peer=("hnswlip",))


# --- workers ----------------------------------------------------------------------------------------------


def test_a_worker_that_ends_or_hangs_is_an_error_and_not_a_wait(fake, tmp_path):
    hangs = Worker("fake", 1, tmp_path / "log")
    with pytest.raises(WorkerError, match="no answer within"):
        hangs.receive(0.05)
    ended = Worker("fake", 1, tmp_path / "log")
    ended.kill()
    with pytest.raises(WorkerError):
        ended.call("probe")
    for each in (hangs, ended):
        each.close()


def test_errors_of_a_library_travel_as_text(capsys):
    sys.path.insert(0, str(HERE))
    try:
        session = worker.Session(FAKE)
    finally:
        sys.path.remove(str(HERE))
    assert worker.answer(session, {"do": "probe"}) == {"version": "1.0"}
    assert worker.answer(session, {"do": "memory"})["resident"] > 0
    assert worker.answer(session, {"do": "single", "count": 1})["error"] == "RuntimeError: nothing is open"
    assert "nothing is open" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no command"):
        worker.answer(session, {"do": "__init__"})


# --- turns and records ------------------------------------------------------------------------------------


def held(path):
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_the_lock_is_held_offered_and_given_back(tmp_path):
    lock = tmp_path / "lock"
    with turn.Turn(lock, 1000.0) as mine:
        assert held(lock)
        assert mine.step() == 0 and held(lock)
        assert mine.step(ahead=2000.0) > 0 and held(lock)
    assert not held(lock)
    with turn.Turn(None, 0.0) as free:
        assert free.step(1e9) == 0


def test_a_long_build_is_stopped_while_others_have_their_turn(fake, tmp_path):
    class Slow:
        pid = os.getpid()
        waits = iter([False, False, True])

        def answered(self, seconds):
            return next(self.waits)

    signals = []
    with turn.Turn(tmp_path / "lock", 0.0) as mine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn.os, "kill", lambda pid, number: signals.append(number))
        assert mine.wait(Slow(), 60.0) > 0
    assert signals == [turn.signal.SIGSTOP, turn.signal.SIGCONT] * 2


def key(**changed):
    return record.Key(**({"set": "s", "peer": "p", "variant": "v", "version": "1", "params": {}} | changed))


def test_other_versions_and_parameters_are_other_files(tmp_path):
    stems = {key(**changed).stem for changed in ({}, {"version": "2"}, {"params": {"m": 8}}, {"variant": "w"})}
    assert len(stems) == 4
    assert key().stem == key().stem and key().name == "p:v"


def test_saving_keeps_what_others_have_added_meanwhile(tmp_path):
    first, second = record.Record(tmp_path, key()), record.Record(tmp_path, key())
    first.run("1")["cold"] = [1.0]
    first.save()
    second.run("2")["cold"] = [2.0]
    second.save()
    first.run("1")["cold"].append(3.0)
    first.save()
    assert record.load(first.path)["runs"] == {"1": {"cold": [1.0, 3.0]}, "2": {"cold": [2.0]}}
    assert not list(tmp_path.rglob("*.part"))


def test_the_newest_record_of_each_variant_is_shown(tmp_path):
    for version, run in (("1", "20260101"), ("2", "20260102")):
        each = record.Record(tmp_path, key(version=version))
        each.run(run)
        each.save()
    assert record.latest(tmp_path, "s")["p:v"]["version"] == "2"
    assert record.latest(tmp_path, "nothing") == {}


def test_files_of_another_format_are_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="format"):
        record.load(path)
