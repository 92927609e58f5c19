"""What is known about one variant of a peer on one set: a JSON file outside the repository, written after each step.

The file's name holds a hash of everything that would make its figures others: the version of the library and the
parameters of the build. Figures belong to runs; what was measured in a run is not measured again when it is resumed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.compare.arithmetic import Curves, Point

FORMAT = "vecdb-compare/1"


@dataclass(frozen=True, slots=True)
class Key:
    """Which index this is."""

    set: str
    peer: str
    variant: str
    version: str
    params: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Peer and variant, as on the command line."""
        return f"{self.peer}:{self.variant}"

    @property
    def stem(self) -> str:
        """The name of its file and its folder."""
        facts = json.dumps([self.version, self.params], sort_keys=True).encode()
        return f"{self.peer}.{self.variant}.{hashlib.sha256(facts).hexdigest()[:8]}"


class Record:
    """The file of one key; `found` is its content."""

    def __init__(self, store: Path, key: Key) -> None:
        self.key = key
        self.path = store / "results" / key.set / f"{key.stem}.json"
        self.folder = store / "indexes" / key.set / key.stem
        self.found: dict[str, Any] = {
            "format": FORMAT,
            "set": key.set,
            "peer": key.peer,
            "variant": key.variant,
            "version": key.version,
            "params": dict(key.params),
            "built": None,
            "runs": {},
        }
        self._touched: set[str] = set()
        if self.path.is_file():
            self.found = load(self.path)

    def run(self, name: str) -> dict[str, Any]:
        """Return what a run has found so far, to be added to."""
        self._touched.add(name)
        return self.found["runs"].setdefault(name, {})  # type: ignore[no-any-return]

    def save(self) -> None:
        """Write the file, whole or not at all; runs that others have added to it meanwhile stay."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            theirs = load(self.path)["runs"]
            self.found["runs"] |= {name: run for name, run in theirs.items() if name not in self._touched}
        aside = self.path.with_suffix(".part")
        aside.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        aside.replace(self.path)


def load(path: Path) -> dict[str, Any]:
    """Return the content of a file of this format."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.get("format") != FORMAT:
        raise ValueError(f"{path} is not of the format {FORMAT}")
    return found


def latest(store: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return the newest record of each variant of a set, by "peer:variant"; files of older versions are passed over."""
    newest: dict[str, tuple[str, float, dict[str, Any]]] = {}
    for path in sorted((store / "results" / name).glob("*.json")):
        found = load(path)
        rank = (max(found["runs"], default=""), path.stat().st_mtime)
        label = f"{found['peer']}:{found['variant']}"
        if label not in newest or rank > newest[label][:2]:
            newest[label] = (*rank, found)
    return {label: found for label, (_, _, found) in newest.items()}


def points(measured: Mapping[str, Any], how: str) -> Iterator[Point]:
    """Yield the points of a curve: `how` is "single" or "batch"; settings without a round are left out."""
    for setting, found in measured.items():
        rounds = found.get(how) or []
        if rounds:
            wall, cpu = zip(*rounds, strict=True)
            yield Point(setting, found["recall"], wall, tuple(max(each, 1e-9) for each in cpu))


def curves(found: Mapping[str, Any], phase: str = "curve", how: str = "single", asked: bool = False) -> Curves:
    """Return the curve of each run of a record; with `asked`, the settings that ask for a recall instead."""
    chosen = {}
    for run, phases in found["runs"].items():
        measured = {key: value for key, value in phases.get(phase, {}).items() if value.get("asked_for") is asked}
        if chosen_points := list(points(measured, how)):
            chosen[run] = chosen_points
    return chosen
