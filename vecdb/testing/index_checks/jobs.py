"""What a child process does for the checks that need one: loading forged blobs, and watching a life cycle.

Run as a module with one argument, an order in JSON; see `vecdb.testing.index_checks.apart`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from vecdb.errors import CorruptionError
from vecdb.testing import datasets
from vecdb.testing.index_checks.cases import SEED, Built, build, load, read, same_answers
from vecdb.testing.memory import MemoryBlobs

__all__ = ["JOBS", "Forgery", "forgeries", "resolve"]

Say: TypeAlias = Callable[[object], object]
Forgery: TypeAlias = tuple[str, MemoryBlobs, bool]
_ROWS, _DIM, _ASKED = 80, 8, 4
_SPARE_BYTES = 4 << 30
_FLIPS = 48


def resolve(place: dict[str, str]) -> Any:
    """Return the index type that stands at a place: made by a class of a module, or registered under a name."""
    if "registered" in place:
        from vecdb import PluginRegistry

        return PluginRegistry().find("index type", place["registered"]).thing
    found: Any = import_module(place["module"])
    for part in place["name"].split("."):
        found = getattr(found, part)
    return found()


# --- forged blobs ---


def forgeries(blobs: MemoryBlobs) -> Iterator[Forgery]:
    """Yield blobs that were changed with matching checksums: what was done, the blobs, and whether it must be noticed.

    A change of length must be noticed. A byte of another value may be anything that could have been written; then the
    answers must be usable.
    """
    contents = blobs.contents()
    for name, data in contents.items():
        lengths = {
            "empty": b"",
            "one byte short": data[:-1],
            "half": data[: len(data) // 2],
            "longer": data + b"\x01" * 7,
        }
        for what, other in lengths.items():
            if other != data:
                yield f"blob {name!r} {what}", blobs.forged(name, other), True
        yield f"blob {name!r} missing", blobs.forged(name, None), True
        for what, byte in (("all zero", b"\0"), ("all ones", b"\xff")):
            yield f"blob {name!r} {what}", blobs.forged(name, byte * len(data)), False
        for place in _places(len(data)):
            other = data[:place] + bytes([data[place] ^ (0x80 if place % 2 else 0x01)]) + data[place + 1 :]
            yield f"blob {name!r} with byte {place} changed", blobs.forged(name, other), False
    names = list(contents)
    for one, other_name in pairwise(names):
        swapped = contents | {one: contents[other_name], other_name: contents[one]}
        yield f"blobs {one!r} and {other_name!r} swapped", MemoryBlobs.of(swapped), True


def _places(size: int) -> list[int]:
    """Return offsets to change: the first bytes, where numbers that are followed stand, and some all over."""
    head = range(min(size, _FLIPS))
    spread = np.linspace(0, max(0, size - 1), _FLIPS).astype(int).tolist() if size else []
    return sorted({*head, *spread})


def _load_forged(index_type: Any, say: Say) -> None:
    """Load every forgery; say its name before, and what is wrong after."""
    built, queries = _small(index_type)
    answers = built.answers(queries, 5)
    blobs = built.dumped()
    load(built, blobs)
    _limit_memory()
    for what, forged, noticed in forgeries(blobs):
        say({"trying": what})
        try:
            again = load(built, forged)
            said = again.ask(queries, 5)
            if ((said[0] < -1) | (said[0] >= _ROWS)).any():
                say({"wrong": f"{what}: positions are returned that there are not"})
            if noticed:
                same_answers(answers, read(said, _ROWS), "it loads, and")
        except CorruptionError:
            continue
        except MemoryError:
            say({"wrong": f"{what}: more memory is asked for than there is; sizes must be checked first"})
        except Exception as error:  # that it is none but CorruptionError is the rule
            say({"wrong": f"{what}: {type(error).__name__}: {error}"})


def _small(index_type: Any) -> tuple[Built, Any]:
    dim = min(_DIM, index_type.capabilities.max_dim or _DIM)
    return build(index_type, datasets.gaussian(_ROWS, dim, SEED)), datasets.gaussian(_ASKED, dim, SEED + 1)


def _limit_memory() -> None:
    """Let the process grow by a few GB only: a size that was not checked must not take the machine with it."""
    try:
        import resource  # not on every platform

        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + _SPARE_BYTES,) * 2)
    except (ImportError, OSError, ValueError):
        return


# --- a life cycle that is watched ---

_FILES = ("open", "os.", "shutil.", "tempfile.", "socket.", "subprocess.", "sqlite3.", "ftplib.", "urllib.", "glob.")
_EXECUTION = ("exec", "marshal.", "pickle.", "code.__new__", "import", "ctypes.dlopen")
_NATIVE = {("_pickle", "loads"), ("_pickle", "load"), ("marshal", "loads"), ("builtins", "exec"), ("builtins", "eval")}


def _watch(index_type: Any, say: Say) -> None:
    """Say which files a whole life cycle touches and what `load` executes; the first round may import and compile."""
    blobs = _life(index_type)
    seen: list[tuple[str, str]] = []
    watching = [""]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0]:
            seen.append((event, repr(arguments[:1])[:80]))

    sys.addaudithook(hook)
    watching[0] = "life"
    _life(index_type)
    watching[0] = ""
    for event, what in seen:
        if event.startswith(_FILES):
            say({"file": f"{event} {what}"})
    seen.clear()
    built, _ = _small(index_type)
    watching[0] = "load"
    called = _calls_of_loading(built, blobs)
    watching[0] = ""
    for event, what in [*called, *seen]:
        if event.startswith(_EXECUTION):
            say({"execution": f"{event} {what}"})


def _life(index_type: Any) -> MemoryBlobs:
    """Build, search, dump, load and search; return the blobs."""
    built, queries = _small(index_type)
    built.answers(queries, 5)
    blobs = built.dumped()
    load(built, blobs).answers(queries, 5)
    built.index.stats()
    return blobs


def _calls_of_loading(built: Built, blobs: MemoryBlobs) -> list[tuple[str, str]]:
    """Load, and return which native functions that read or run code were called from Python."""
    called: list[tuple[str, str]] = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "c_call":
            module = getattr(argument, "__module__", None) or type(getattr(argument, "__self__", None)).__module__
            name = getattr(argument, "__name__", "")
            if (module, name) in _NATIVE:
                called.append((f"{module.lstrip('_').replace('builtins', 'exec')}.{name}", ""))

    sys.setprofile(profile)
    try:
        load(built, blobs)
    finally:
        sys.setprofile(None)
    return called


JOBS: dict[str, Callable[[Any, Say], None]] = {"forged": _load_forged, "watched": _watch}
"""Name -> function of (index type, say)."""


def _main() -> None:
    order = json.loads(sys.argv[1])

    def say(value: object) -> None:
        os.write(order["say"], json.dumps(value).encode() + b"\n")

    sys.path[:] = order["path"]
    index_type = resolve(order["place"])
    say("ready")
    JOBS[order["job"]](index_type, say)
    say("done")


if __name__ == "__main__":
    _main()
