"""Measures: builds what is missing, then asks all indexes of a set in turn, round by round, and keeps every step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.compare import child
from tools.bench.compare.arithmetic import recall
from tools.bench.compare.child import Worker, WorkerError
from tools.bench.compare.peers import MODULES
from tools.bench.compare.peers.base import Variant
from tools.bench.compare.record import Record
from tools.bench.compare.sets import CONDITIONS, Condition, K, VectorSet
from tools.bench.compare.turn import Turn
from tools.bench.compare.worker import memory

_BUILD_LIMIT = 5400.0
_SLICE = 0.08
"""Seconds that one timing of a setting should take."""
_FEWEST = 5
_INSERTS = ((1, 40), (1000, 2))
"""Rows of a durable batch, and batches of one timing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An index that takes part."""

    record: Record
    variant: Variant
    interpreter: str

    @property
    def name(self) -> str:
        """Peer and variant."""
        return self.record.key.name


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of.

    Attributes
    ----------
    run : str
        The run's name; what it holds already is not measured again.
    vectors : VectorSet
    entries : sequence of Entry
    rounds : int
    turn : Turn
        Held by the caller.
    work : Path
        Answers and copies.
    threads : int
        What "all threads" means.
    build_threads : int
        Of builds; rates are measured with one thread all the same.
    say : callable
        Told what happens.
    """

    run: str
    vectors: VectorSet
    entries: Sequence[Entry]
    rounds: int
    turn: Turn
    work: Path
    threads: int = 1
    build_threads: int = 1
    say: Callable[[str], object] = field(default=print)

    def log(self, entry: Entry) -> Path:
        """Return where a worker's standard error goes."""
        return entry.record.path.with_suffix(".log")

    def failed(self, entry: Entry, phase: str, error: Exception) -> None:
        """Keep why an entry could not be measured."""
        self.say(f"  {entry.name}: {phase}: {error}")
        entry.record.run(self.run).setdefault("errors", {})[phase] = str(error)
        entry.record.save()


# --- building ---------------------------------------------------------------------------------------------


def build(plan: Plan) -> None:
    """Build each index that is not built yet, one at a time; a failed build is tried again in each run."""
    for entry in plan.entries:
        if entry.record.found["built"] is None:
            plan.turn.step(10.0)
            try:
                _build(plan, entry, plan.build_threads, entry.record.folder, "built")
            except WorkerError as error:
                plan.failed(entry, "build", error)


def build_threaded(plan: Plan) -> None:
    """Build each index once more with all threads, for the time it takes; what is built is thrown away."""
    for entry in plan.entries:
        if entry.record.found.get("built_threaded") is None and entry.record.found["built"] is not None:
            plan.turn.step(10.0)
            try:
                _build(plan, entry, plan.threads, plan.work / "again", "built_threaded")
            except WorkerError as error:
                plan.failed(entry, "build_threaded", error)
            shutil.rmtree(plan.work / "again", ignore_errors=True)


def _build(plan: Plan, entry: Entry, threads: int, folder: Path, name: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    worker = Worker(entry.record.key.peer, threads, plan.log(entry), entry.interpreter)
    try:
        given = {"folder": str(folder), "data": str(plan.vectors.folder), "params": dict(entry.variant.build)}
        worker.send("build", threads=threads, **given)
        most = [0]

        def watch() -> None:
            most[0] = max(most[0], memory("RssAnon", worker.pid))

        paused = plan.turn.wait(worker, _BUILD_LIMIT, watch)
        found = worker.receive(10.0)
        found["threads"] = threads
        found["peak"] = max(0, most[0] - found.pop("before"))
    finally:
        worker.close()
    longest = max(("store", "build"), key=lambda part: float(found[part][0]))
    found[longest][0] = max(found[longest][0] - paused, found[longest][1] / threads)
    entry.record.found[name] = found
    entry.record.save()
    plan.say(f"  {entry.name}: built in {found['build'][1]:.1f} CPU s, {found['index'] / 2**20:.1f} MiB of index")


# --- asking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """One setting of one open index, under a condition or none; `found` is its part of the record."""

    entry: Entry
    worker: Worker
    setting: Any
    condition: Condition | None
    found: dict[str, Any]


def curve(plan: Plan) -> None:
    """Measure recall, single calls and batches of every setting, with one thread."""
    with_workers(plan, "curve", 1, lambda entry: [None], ("single", "batch"))


def threads(plan: Plan) -> None:
    """Measure batches of every setting with all threads."""
    with_workers(plan, "threads", plan.threads, lambda entry: [None], ("batch",))


def filters(plan: Plan) -> None:
    """Measure single calls under each condition, with one thread."""
    with_workers(plan, "filter", 1, lambda entry: list(CONDITIONS), ("single",))


def with_workers(
    plan: Plan, phase: str, count: int, conditions: Callable[[Entry], list[Condition | None]], ways: Sequence[str]
) -> None:
    """Open every index, learn the recall of what is new to this run, then time all settings in turn, round by round."""
    opened: dict[str, Worker] = {}
    try:
        tasks = []
        for entry in plan.entries:
            if entry.record.found["built"] is not None:
                tasks.append(list(_opened(plan, phase, count, entry, conditions(entry), opened)))
        _rounds(plan, phase, _in_turn(tasks), ways)
        _resident(plan, phase, opened)
    finally:
        for worker in opened.values():
            worker.close()


def _opened(
    plan: Plan,
    phase: str,
    count: int,
    entry: Entry,
    conditions: list[Condition | None],
    opened: dict[str, Worker],
) -> Iterator[Task]:
    """Open an index and yield its tasks with known recall; one that fails ends the list."""
    plan.turn.step(20.0)
    worker = Worker(entry.record.key.peer, count, plan.log(entry), entry.interpreter)
    opened[entry.name] = worker
    try:
        given = {"folder": str(entry.record.folder), "data": str(plan.vectors.folder), "params": entry.variant.build}
        grown = worker.call("open", threads=count, limit=300.0, **given)
        run = entry.record.run(plan.run)
        run.setdefault("memory", {}).update({phase: grown})
        for condition in conditions:
            for setting in _settings(entry.variant, phase):
                found = _place(run.setdefault(phase, {}), setting, condition)
                task = Task(entry, worker, setting, condition, found)
                _learn(plan, task)
                yield task
    except WorkerError as error:
        plan.failed(entry, phase, error)
    entry.record.save()


def _settings(variant: Variant, phase: str) -> Sequence[Any]:
    if phase == "filter":
        return variant.filtered or variant.settings
    return [*variant.settings, *variant.asked]


def _place(measured: dict[str, Any], setting: Any, condition: Condition | None) -> dict[str, Any]:
    within = measured if condition is None else measured.setdefault(condition.name, {})
    return within.setdefault(json.dumps(setting), {})  # type: ignore[no-any-return]


def _learn(plan: Plan, task: Task) -> None:
    """Find the recall of a setting and how many queries one timing takes, unless a run has found them already.

    An index that is built does not change, and neither do its answers: they are looked at once.
    """
    condition = "all" if task.condition is None else task.condition.name
    known = task.entry.record.found.setdefault("known", {}).setdefault(condition, {})
    setting = json.dumps(task.setting)
    if setting not in known:
        known[setting] = _answered(plan, task)
    if "recall" not in task.found:
        task.found.update(known[setting], asked_for=task.setting in task.entry.variant.asked)


def _answered(plan: Plan, task: Task) -> dict[str, Any]:
    plan.turn.step(5.0)
    out, vectors = plan.work / f"answers-{task.entry.record.key.stem}.npy", plan.vectors
    _aim(task)
    most = 200 if task.entry.variant.slow else len(vectors.queries)
    seconds = 1.0 if task.entry.variant.slow or task.condition is not None else 4.0
    answered = task.worker.call("ask", out=str(out), count=most, seconds=seconds)
    asked = answered["asked"]
    found = np.load(out)
    out.unlink()
    _refuse_others(plan, task, found)
    floors = vectors.floors(task.condition)[:asked]
    return {
        "recall": recall(found, vectors.rows, vectors.queries[:asked], floors, K),
        "asked": asked,
        "fewer": int((found < 0).any(axis=1).sum()),
        "count": min(asked, max(_FEWEST, round(_SLICE * asked / max(answered["seconds"], 1e-6)))),
    }


def _refuse_others(plan: Plan, task: Task, found: Any) -> None:
    """Raise if a filtered search returned a row that the condition excludes."""
    if task.condition is not None:
        known = found[found >= 0]
        if (plan.vectors.array(task.condition.attribute)[known] >= task.condition.below).any():
            raise WorkerError(f"returned rows that are not {task.condition.name}")


def _aim(task: Task) -> None:
    condition = None if task.condition is None else task.condition.name
    task.worker.call("aim", setting=task.setting, condition=condition)


def _in_turn(tasks: Sequence[Sequence[Task]]) -> list[Task]:
    """Return one task of each index, then the next of each, and so on."""
    return [task for group in zip_longest(*tasks) for task in group if task is not None]


def _rounds(plan: Plan, phase: str, tasks: Sequence[Task], ways: Sequence[str]) -> None:
    broken: set[str] = set()
    for number in range(plan.rounds):
        start = number * max(1, len(tasks) // max(1, plan.rounds))
        for task in [*tasks[start:], *tasks[:start]]:
            if task.entry.name not in broken:
                try:
                    _time(plan, task, number, ways)
                except WorkerError as error:
                    broken.add(task.entry.name)
                    plan.failed(task.entry, phase, error)
        for record in {task.entry.name: task.entry.record for task in tasks}.values():
            record.save()
        plan.say(f"  {phase}: round {number + 1} of {plan.rounds}")


def _time(plan: Plan, task: Task, number: int, ways: Sequence[str]) -> None:
    missing = [way for way in ways if len(task.found.setdefault(way, [])) <= number]
    if not missing:
        return
    plan.turn.step(1.0)
    _aim(task)
    for way in missing:
        count = task.found["count"] if way == "single" else min(task.found["asked"], 2 * task.found["count"])
        wall, cpu = task.worker.call(way, count=count)["took"]
        task.found[way].append([wall / count, cpu / count])


def _resident(plan: Plan, phase: str, opened: Mapping[str, Worker]) -> None:
    for entry in plan.entries:
        if entry.name in opened and phase not in entry.record.run(plan.run).get("errors", {}):
            entry.record.run(plan.run)["memory"][phase] |= opened[entry.name].call("memory")
            entry.record.save()


# --- processes and inserts --------------------------------------------------------------------------------


def cold(plan: Plan) -> None:
    """Time new processes that open and answer one query, in turn."""
    asked = plan.work / "query.npy"
    np.save(asked, np.array(plan.vectors.queries[0]))
    ready = [entry for entry in plan.entries if entry.record.found["built"] is not None]
    for number in range(-1, plan.rounds):  # the first warms the caches of files
        for entry in ready:
            taken = entry.record.run(plan.run).setdefault("cold", [])
            if len(taken) > number >= 0 or "cold" in entry.record.run(plan.run).get("errors", {}):
                continue
            plan.turn.step(2.0)
            arguments = [str(entry.record.folder), str(asked), json.dumps(entry.variant.build)]
            try:
                seconds, _ = child.cold(
                    entry.record.key.peer,
                    [*arguments, json.dumps(middle(entry, plan.run))],
                    plan.log(entry),
                    entry.interpreter,
                )
            except WorkerError as error:
                plan.failed(entry, "cold", error)
                continue
            if number >= 0:
                taken.append(seconds)
                entry.record.save()
    plan.say(f"  cold: {plan.rounds} rounds")


def middle(entry: Entry, run: str) -> Any:
    """Return the first setting that reached a recall of 0.95 in this run, else the last one."""
    measured = entry.record.run(run).get("curve", {})
    for setting in entry.variant.settings:
        if measured.get(json.dumps(setting), {}).get("recall", 0.0) >= 0.95:
            return setting
    return entry.variant.settings[-1]


def inserts(plan: Plan) -> None:
    """Time durable inserts into a copy of each index."""
    for entry in plan.entries:
        run = entry.record.run(plan.run)
        if entry.record.found["built"] is None or "insert" in run or "insert" in run.get("errors", {}):
            continue
        plan.turn.step(30.0)
        try:
            run["insert"] = _inserted(plan, entry)
            entry.record.save()
        except WorkerError as error:
            plan.failed(entry, "insert", error)
        finally:
            shutil.rmtree(plan.work / "copy", ignore_errors=True)


def _inserted(plan: Plan, entry: Entry) -> dict[str, Any]:
    copy = plan.work / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(entry.record.folder, copy)
    worker = Worker(entry.record.key.peer, 1, plan.log(entry), entry.interpreter)
    try:
        worker.call(
            "open", folder=str(copy), data=str(plan.vectors.folder), params=dict(entry.variant.build), threads=1
        )
        taken: dict[str, list[list[float]]] = {}
        for size, batches in _INSERTS:
            for _ in range(plan.rounds):
                plan.turn.step(5.0)
                found = worker.call("insert", size=size, batches=batches, limit=200.0)
                taken.setdefault(str(size), []).append([seconds / found["rows"] for seconds in found["took"]])
        return taken
    finally:
        worker.close()


PHASES: Mapping[str, Callable[[Plan], None]] = {
    "build": build,
    "curve": curve,
    "threads": threads,
    "filter": filters,
    "cold": cold,
    "insert": inserts,
    "build-threaded": build_threaded,
}


def known_peers() -> list[str]:
    """Return the names of all adapters."""
    return list(MODULES)
