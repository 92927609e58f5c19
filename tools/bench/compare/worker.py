"""The process of one index: reads commands as lines of JSON, answers each with one, arrays travel as .npy files.

Only this process loads the peer's library, so allocators, threads and BLAS settings of peers do not meet, and its
processor time is the peer's. Whatever a library prints goes to the standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.compare.peers import version
from tools.bench.compare.peers.base import Attributes, Peer, folder_bytes, padded, pieces
from tools.bench.compare.sets import Condition, VectorSet

_WARM = 3
_INSERTED = 1_000_000_000
"""Ids of inserted rows start here, far above those of the set."""


class Session:
    """One adapter over one folder."""

    def __init__(self, module: str) -> None:
        self._module = importlib.import_module(module)
        self._peer: Peer | None = None
        self._set: VectorSet | None = None
        self._condition: str | None = None
        self._next = _INSERTED

    # --- commands ---

    def probe(self) -> dict[str, Any]:
        """Tell the version; a library that is missing is an `ImportError`."""
        return {"version": version(self._module)}

    def build(self, folder: str, data: str, params: Mapping[str, Any], threads: int) -> dict[str, Any]:
        """Write records, build, and tell what that took and takes."""
        peer, vectors = self._module.PEER(Path(folder), params, threads), VectorSet("", Path(data))
        rows, attributes = np.array(vectors.rows), _attributes(vectors)
        peer.warm()
        before = memory("RssAnon")
        stored = _timed(lambda: peer.store(rows, attributes))
        built = _timed(lambda: peer.build(rows, attributes))
        return {
            "store": stored,
            "build": built,
            "before": before,
            "disk": folder_bytes(Path(folder)),
            "index": peer.index_bytes(rows.nbytes),
        }

    def open(self, folder: str, data: str, params: Mapping[str, Any], threads: int) -> dict[str, Any]:
        """Open what was built and tell the memory before and after."""
        self._set = VectorSet("", Path(data))
        self._queries = np.array(self._set.queries)
        self._peer = self._module.PEER(Path(folder), params, threads)
        before = self.memory()
        self._peer.open(self._queries.shape[1])
        self._peer.warm()
        return {"before": before}

    def memory(self) -> dict[str, Any]:
        """Tell the memory: all that is resident, and what of it is not the pages of files."""
        return {"resident": memory("VmRSS"), "anonymous": memory("RssAnon")}

    def aim(self, setting: Any, condition: str | None) -> dict[str, Any]:
        """Use a setting and a condition from now on."""
        self._opened.aim(setting)
        if condition != self._condition:
            chosen = None if condition is None else Condition.parse(condition)
            self._opened.only(chosen, _attributes(self._vectors))
            self._condition = condition
        return {}

    def ask(self, out: str, count: int, seconds: float) -> dict[str, Any]:
        """Answer single queries until there are `count` or the time is up, and write the ids; the first ones warm."""
        found, began = [], time.perf_counter()
        for query in self._queries[:_WARM]:
            self._opened.one(query)
        for query in self._queries[:count]:
            found.append(self._opened.one(query))
            if time.perf_counter() - began > seconds:
                break
        np.save(out, padded(found))
        return {"asked": len(found), "seconds": time.perf_counter() - began}

    def single(self, count: int) -> dict[str, Any]:
        """Time `count` queries, one a call."""
        one, queries = self._opened.one, list(self._queries[:count])
        return {"took": _timed(lambda: [one(query) for query in queries])}

    def batch(self, count: int) -> dict[str, Any]:
        """Time `count` queries in one call."""
        many, queries = self._opened.many, self._queries[:count]
        return {"took": _timed(lambda: many(queries))}

    def insert(self, size: int, batches: int) -> dict[str, Any]:
        """Time durable batches of rows that are taken from the set, under new ids."""
        rows = np.array(self._vectors.rows[: size * batches])
        noise = np.random.default_rng(len(rows)).standard_normal(rows.shape, np.float32)
        rows += np.float32(0.05 * rows.std()) * noise  # no vector is there already, and all look like their model's
        attributes = _attributes(self._vectors)
        first, self._next = self._next, self._next + len(rows)

        def write() -> None:
            for start, part in pieces(rows, size):
                self._opened.insert(first + start, part, attributes)

        return {"took": _timed(write), "rows": len(rows)}

    def close(self) -> dict[str, Any]:
        """Close the index."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None
        return {}

    @property
    def _opened(self) -> Peer:
        if self._peer is None:
            raise RuntimeError("nothing is open")
        return self._peer

    @property
    def _vectors(self) -> VectorSet:
        if self._set is None:
            raise RuntimeError("nothing is open")
        return self._set


COMMANDS = ("probe", "build", "open", "memory", "aim", "ask", "single", "batch", "insert", "close")


def _attributes(vectors: VectorSet) -> Attributes:
    return {name: np.asarray(vectors.array(name), np.int64) for name in ("uniform", "near")}


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall and processor seconds of a call, all threads of the process included."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def memory(name: str, process: int | str = "self") -> int:
    """Return a figure of a process in bytes, from /proc: VmRSS, RssAnon; 0 once it has ended."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def answer(session: Session, command: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a command gave, or its error as text: an adapter may fail in any way its library does."""
    name = command["do"]
    if name not in COMMANDS:
        raise ValueError(f"no command {name!r}")
    try:
        return getattr(session, name)(**{key: value for key, value in command.items() if key != "do"})  # type: ignore[no-any-return]
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def main() -> None:
    """Serve until the standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    session = Session(sys.argv[1])
    for line in sys.stdin:
        replies.write(json.dumps(answer(session, json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
