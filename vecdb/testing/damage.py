"""Damage to a copy of a database file, and the question whether anybody would be fooled by it.

Each probe runs in a child: it opens the copy, checks it and asks it everything a user could ask. Allowed is a typed
error, a problem named by `check`, or exactly the answers of the sound file. Not allowed: another answer, or the end of
the process. POSIX only.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

import vecdb
from vecdb.errors import StateError, VecdbError
from vecdb.testing.processes import Child, Link

__all__ = ["PAGE", "answers", "flip_bit", "judge", "probe_all"]

PAGE: Final = 4096

Damage = Callable[[bytearray], None]


def answers(path: Path, ask_first: bool) -> dict[str, str]:
    """Open a file read-only and ask it everything; each answer is a digest, or what refused it.

    Parameters
    ----------
    path : Path
    ask_first : bool
        Ask before `check` has looked at every byte, as an application would.
    """
    with vecdb.open(path, mode="r") as db:
        said: dict[str, str] = {}
        if ask_first:
            _ask(db, said)
        report = db.check()
        said["check"] = "ok" if report.ok else f"reported: {report.problems[0]}"
        if not ask_first:
            _ask(db, said)
        return said


def _ask(db: vecdb.Database, said: dict[str, str]) -> None:
    questions: dict[str, Callable[[], Any]] = {
        "names": lambda: [db.collections(), db.tags(), db.uuid, db.seq],
        "log": lambda: [[commit.seq, list(commit.changes)] for commit in db.commits()],
    }
    for name in _refusable(said, "collections", db.collections) or ():
        _refusable(said, name, lambda name=name: _questions_of(db, name, questions))  # type: ignore[misc]
    for question, ask in questions.items():
        found = _refusable(said, question, ask)
        if found is not None:
            said[question] = _digest(found)


def _refusable(said: dict[str, str], question: str, ask: Callable[[], Any]) -> Any:
    """Ask; a typed refusal is an answer, any other exception is not."""
    try:
        return ask()
    except VecdbError as error:
        said[question] = f"reported: {type(error).__name__}"
        return None


def _questions_of(db: vecdb.Database, name: str, questions: dict[str, Callable[[], Any]]) -> None:
    found = db.collection(name)
    questions[f"{name} spaces"] = lambda: [repr(space) for space in found.spaces.values()]
    questions[f"{name} count"] = lambda: len(found)
    questions[f"{name} where"] = lambda: found.count({"even": True})
    questions[f"{name} scan"] = lambda: [_plain(record) for record in found.scan(vectors="all")]
    questions[f"{name} where scan"] = lambda: [record.id for record in found.scan({"even": False}, order_by="-n")]
    questions[f"{name} get"] = lambda: [
        _plain(record) for record in found.get(list(range(0, 900, 7)), vectors="all", missing_ok=True) if record
    ]
    for tag in ("before", 2):
        questions[f"{name} as of {tag}"] = lambda tag=tag: [  # type: ignore[misc]
            _plain(record) for record in found.scan(vectors="all", as_of=tag)
        ]
    for space, dim in {space.name: space.dim for space in found.spaces.values()}.items():
        for where in (None, {"even": True}, {"n": {"$lt": 5}}):
            questions[f"{name} search {space} {where}"] = lambda space=space, dim=dim, where=where: [  # type: ignore[misc]
                [[hit.id, hit.score.hex()] for hit in found.search(query, k=7, space=space, where=where)]
                for query in np.random.default_rng(5).standard_normal((2, dim)).astype(np.float32)
            ]


def _plain(record: vecdb.Record) -> list[Any]:
    vectors = {space: hashlib.sha256(vector.tobytes()).hexdigest() for space, vector in sorted(record.vectors.items())}
    return [record.id, record.version, record.metadata, record.text, vectors]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def flip_bit(position: int) -> Damage:
    """Return the damage that flips one bit, counted from the start of the file."""

    def damage(image: bytearray) -> None:
        image[position >> 3] ^= 1 << (position & 7)

    return damage


def judge(expected: dict[str, str], said: dict[str, str]) -> str:
    """Return "harmless", "reported", or what was silently wrong: an answer that nothing warned of when it was given."""
    wrong = [name for name, answer in said.items() if answer != expected[name] and not _reported(answer)]
    if wrong:
        return f"silently wrong: {wrong}, check said {said['check']}"
    if any(_reported(answer) for answer in said.values()):
        return "reported"
    return "harmless" if said == expected else f"silently wrong: {expected.keys() - said.keys()} could not be asked"


def _reported(answer: str) -> bool:
    return answer.startswith("reported")


def probe_all(
    image: bytes, expected: dict[str, str], damages: Iterable[tuple[str, Damage]], folder: Path
) -> tuple[Counter[str], list[str]]:
    """Probe one damage after another; return how many ended how, and the descriptions of those that must not be.

    One child works through the list until it dies; then another takes over behind the one that killed it.
    """
    todo = list(damages)
    ends: Counter[str] = Counter()
    bad: list[str] = []
    while todo:
        done = 0
        with Child(lambda link, left=todo: _probe_each(link, image, expected, left, folder)) as child:  # type: ignore[misc]
            try:
                for name, _ in todo:
                    end = child.receive()
                    done += 1
                    ends[end.partition(":")[0]] += 1
                    if end not in ("harmless", "reported"):
                        bad.append(f"{name}: {end}")
                child.result()
            except (EOFError, TimeoutError, StateError) as error:
                ends["crashed"] += 1
                bad.append(f"{todo[done][0]}: the process died or hung ({error})")
                done += 1
        todo = todo[done:]
    return ends, bad


def _probe_each(
    link: Link, image: bytes, expected: dict[str, str], todo: list[tuple[str, Damage]], folder: Path
) -> None:
    for turn, (name, damage) in enumerate(todo):
        copy = folder / f"damaged-{turn}.vecdb"
        damaged = bytearray(image)
        damage(damaged)
        copy.write_bytes(damaged)
        try:
            link.send(_probe(copy, expected, ask_first=sum(name.encode()) % 3 > 0))
        finally:
            for suffix in ("", "-lock", "-writer"):
                copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _probe(copy: Path, expected: dict[str, str], ask_first: bool) -> str:
    try:
        return judge(expected, answers(copy, ask_first))
    except VecdbError:
        return "reported"
    except Exception as error:
        return f"untyped error: {type(error).__name__}: {error}"
