"""Hold every module of vecdb to the table of docs/explanation/architecture.md: which room may import which.

The table is data (`ROOMS`, `OWNERS`), imports are read from the syntax tree (function-level and type-only ones too),
and a room that is not in the table is an error: a new room starts by saying what it may use.

Usage: python tools/check_layers.py [--self-test] [--table]
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Room:
    """A module or folder directly under vecdb/: its layer and what it may import.

    Attributes
    ----------
    layer : str
        Name of the layer, as in the table of the architecture.
    uses : frozenset of str
        Rooms it may import besides itself.
    packages : frozenset of str
        Third-party packages it may import.
    edge : bool
        An edge is written like an application: it touches no underscore name of anything but itself.
    """

    layer: str
    uses: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()
    edge: bool = False


def _room(layer: str, uses: str = "", packages: str = "", edge: bool = False) -> Room:
    return Room(layer, frozenset(uses.split()), frozenset(packages.split()), edge)


_WORDS = "errors int8rows types verdicts explored lazy"
_COMPUTE = f"{_WORDS} arrays blocks exact kernels scan_numpy"
_CONTRACTS = f"{_WORDS} contracts hookspecs"
_BELOW_ENGINE = f"{_COMPUTE} metadata storage contracts hookspecs registry paths corrections"
_COLLECTION_PARTS = "searching correcting exploring migrating upgrading joining judging diagnosing filtering"
_PUBLIC = f"vecdb {_WORDS}"  # `vecdb` is the package itself: the names of vecdb.__all__

ROOMS: dict[str, Room] = {
    "int8rows": _room("0 words", "", "numpy"),
    "lazy": _room("0 words"),
    "errors": _room("0 words", "", "numpy"),
    "types": _room("0 words", "errors int8rows explored", "numpy"),
    "verdicts": _room("0 words", "errors int8rows types", "numpy"),
    "explored": _room("0 words", "errors int8rows types", "numpy"),
    "metadata": _room("0 words", _WORDS, "numpy"),
    "hookspecs": _room("1 contracts", _CONTRACTS, "numpy pluggy"),
    "contracts": _room("1 contracts", _CONTRACTS + " blocks", "numpy"),
    "arrays": _room("1 compute", _COMPUTE, "numpy"),
    "kernels": _room("1 compute", _COMPUTE, "numpy numba llvmlite"),
    "scan_numpy": _room("1 compute", _COMPUTE, "numpy"),
    "blocks": _room("1 compute", _COMPUTE, "numpy"),
    "exact": _room("1 compute", _COMPUTE, "numpy"),
    "drawing": _room("1 compute"),
    "evaluation": _room("1 compute", _WORDS, "numpy"),
    "paths": _room("1 compute", _CONTRACTS, "numpy"),
    "storage": _room("2 storage", _WORDS + " metadata", "numpy lmdb msgpack xxhash"),
    "registry": _room("2 registry", _CONTRACTS, "pluggy"),
    "indexes": _room("3 built-ins", _CONTRACTS + " " + _COMPUTE, "numpy"),
    "transforms": _room("3 built-ins", _CONTRACTS + " " + _COMPUTE + " evaluation", "numpy"),
    "backfill": _room("3 built-ins", _CONTRACTS + " " + _COMPUTE, "numpy"),
    "corrections": _room("1 compute", _COMPUTE + " contracts", "numpy"),
    "relevance": _room("3 built-ins", _CONTRACTS + " " + _COMPUTE + " evaluation", "numpy"),
    "engine": _room("4 engine", _BELOW_ENGINE + " evaluation", "numpy"),
    "database": _room("5 facade", _BELOW_ENGINE + " engine collection reporting", "numpy"),
    "collection": _room("5 facade", f"{_BELOW_ENGINE} engine database {_COLLECTION_PARTS}", "numpy"),
    "searching": _room("5 facade", _BELOW_ENGINE + " engine database", "numpy"),
    "filtering": _room("5 facade", _BELOW_ENGINE + " engine database searching", "numpy"),
    "exploring": _room("5 facade", _BELOW_ENGINE + " engine database", "numpy"),
    "correcting": _room("5 facade", _BELOW_ENGINE + " engine database", "numpy"),
    "upgrading": _room("5 facade", _BELOW_ENGINE + " engine database", "numpy"),
    "joining": _room("5 facade", _BELOW_ENGINE + " engine database", "numpy"),
    "judging": _room("5 facade", _BELOW_ENGINE + " engine database collection upgrade", "numpy"),
    "diagnosing": _room("5 facade", _BELOW_ENGINE + " engine database health", "numpy"),
    "health": _room("5 facade", _BELOW_ENGINE + " drawing evaluation engine", "numpy"),
    "reporting": _room("5 facade", _WORDS + " collection database health"),
    "upgrade": _room("5 facade", _BELOW_ENGINE + " drawing evaluation engine collection", "numpy"),
    "migrating": _room("5 facade", _BELOW_ENGINE + " engine database", "numpy"),
    "vecdb": _room("5 facade", f"database collection migrating upgrade health {_WORDS} hookspecs registry"),
    "interchange": _room("6 edges", _PUBLIC + " arrays contracts registry", "numpy pyarrow pandas polars", edge=True),
    "sample": _room("6 edges", _PUBLIC, "numpy", edge=True),
    "demo": _room("6 edges", _PUBLIC + " sample", "numpy rich", edge=True),
    "cli": _room("6 edges", _PUBLIC + " interchange sample demo registry testing", "numpy click rich", edge=True),
    "testing": _room("6 edges", _PUBLIC + " contracts blocks", "numpy hypothesis pytest", edge=True),
    "__main__": _room("6 edges", "cli", "", edge=True),
}

_FORMAT, _PLATFORM = "vecdb/storage/format.py", "vecdb/storage/platform.py"

OWNERS: dict[str, tuple[str, ...]] = {
    "lmdb": ("vecdb/storage/env.py", "vecdb/storage/lmdberrors.py"),
    "msgpack": (_FORMAT,),
    "xxhash": (_FORMAT,),
    "fcntl": (_PLATFORM,),
    "msvcrt": (_PLATFORM,),
    # In the kernels: the stand-in for a pointer where the JIT is off.
    "ctypes": (_PLATFORM, "vecdb/kernels/_intrinsics.py", "vecdb/kernels/_tiles.py", "vecdb/kernels/_sums.py"),
    # Nothing in a database is executed or unpickled. Compiled kernels are numba's own pickles, in a cache directory.
    "pickle": ("vecdb/kernels/_cache.py",),
    "marshal": (),
    "shelve": (),
    "dbm": (),
}
"""Packages that only these files may import."""

PLUGIN_DOORS = frozenset({"vecdb", "errors", "types", "contracts", "testing"})
"""What a distribution in plugins/ may import of vecdb: the same as anybody else's."""


@dataclass(frozen=True, slots=True)
class Import:
    """One imported thing: ``package.module`` as a dotted path, the name taken from it, and where."""

    module: str
    name: str | None
    line: int


@dataclass(slots=True)
class Source:
    """A module to check: its path as written in messages, its dotted name, and its text."""

    path: str
    dotted: str
    text: str
    is_package: bool = False
    imports: list[Import] = field(default_factory=list)

    @property
    def room(self) -> str:
        """The first component under vecdb (the package itself is the room ``vecdb``)."""
        parts = self.dotted.split(".")
        return parts[1] if len(parts) > 1 else parts[0]


def read_imports(tree: ast.AST, dotted: str, is_package: bool) -> Iterator[Import]:
    """Yield every import of a module, at whatever depth, with relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, dotted, is_package)
            for alias in node.names:
                yield Import(base, alias.name, node.lineno)
        elif isinstance(node, ast.Call) and (named := _dynamic_target(node)):
            yield Import(named, None, node.lineno)


def _absolute(node: ast.ImportFrom, dotted: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = dotted.split(".")
    keep = len(parts) - node.level + (1 if is_package else 0)
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def _dynamic_target(node: ast.Call) -> str | None:
    """Return X of ``import_module("X")`` or ``__import__("X")``."""
    function = node.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called not in {"import_module", "__import__"} or not node.args:
        return None
    first = node.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def check_source(source: Source) -> list[str]:
    """Return what is wrong with one module of vecdb, one sentence each."""
    room = ROOMS.get(source.room)
    if room is None:
        return [f"{source.path}: the room {source.room!r} is not in the table of tools/check_layers.py"]
    tree = ast.parse(source.text, source.path)
    problems = []
    for item in read_imports(tree, source.dotted, source.is_package):
        problems += [f"{source.path}:{item.line}: {text}" for text in _judge(source, room, item)]
    if room.edge:
        problems += [f"{source.path}:{line}: uses the private name {name!r}" for line, name in _private_uses(tree)]
    return problems


def _judge(source: Source, room: Room, item: Import) -> Iterator[str]:
    top = item.module.partition(".")[0]
    if top == "vecdb":
        yield from _judge_inside(source, room, item)
        return
    if source.path not in OWNERS.get(top, (source.path,)):
        yield f"imports {top}, which is for {' and '.join(OWNERS[top]) or 'nobody'}"
    elif top not in sys.stdlib_module_names and top not in room.packages:
        yield f"room {source.room} ({room.layer}) may not import {top}"


def _judge_inside(source: Source, room: Room, item: Import) -> Iterator[str]:
    parts = item.module.split(".")[1:]
    if not parts and item.name in ROOMS and item.name != "vecdb":
        parts = [item.name]
    target = parts[0] if parts else "vecdb"
    if target == source.room:
        return
    if target not in ROOMS:
        yield f"imports vecdb.{target}, a room that is not in the table"
    elif target not in room.uses:
        yield f"room {source.room} ({room.layer}) may not import {target} ({ROOMS[target].layer})"
    private = [part for part in [*parts, item.name or ""] if part.startswith("_") and not part.startswith("__")]
    if private:
        yield f"takes the private name {private[0]!r} from another room ({target})"


def _private_uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield ``something._name`` unless something is the object itself, its class, or of the standard library."""
    own = {"self", "cls", "other", *sys.stdlib_module_names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        if not (isinstance(node.value, ast.Name) and node.value.id in own):
            yield node.lineno, node.attr


def check_plugin_source(path: str, text: str) -> list[str]:
    """Return where a distribution of plugins/ reaches past the public names."""
    problems = []
    for item in read_imports(ast.parse(text, path), path.removesuffix(".py").replace("/", "."), False):
        parts = item.module.split(".")
        if parts[0] != "vecdb":
            continue
        target = parts[1] if len(parts) > 1 else ("vecdb" if item.name not in ROOMS else str(item.name))
        if target not in PLUGIN_DOORS or (item.name or "").startswith("_"):
            problems.append(f"{path}:{item.line}: a plugin may not import {item.module}.{item.name or ''}")
    return problems


def read_package(root: Path) -> Iterator[Source]:
    """Yield every module of vecdb under `root`."""
    for path in sorted((root / "vecdb").rglob("*.py")):
        relative = path.relative_to(root)
        parts = list(relative.with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        dotted = ".".join(parts[:-1] if is_package else parts)
        yield Source(relative.as_posix(), dotted, path.read_text(encoding="utf-8"), is_package)


def check_tree(root: Path = ROOT) -> list[str]:
    """Check vecdb/ and the distributions in plugins/."""
    problems = [problem for source in read_package(root) for problem in check_source(source)]
    for path in sorted((root / "plugins").rglob("*.py")):
        if "tests" not in path.parts:
            problems += check_plugin_source(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    return problems


PLANTED: tuple[tuple[str, str, str], ...] = (
    ("vecdb/engine/search.py", "import lmdb\n", "is for vecdb/storage/env.py"),
    ("vecdb/storage/catalog.py", "def late():\n    import msgpack\n", "is for vecdb/storage/format.py"),
    ("vecdb/exact.py", "from numba import njit\n", "may not import numba"),
    ("vecdb/kernels/dot.py", "from ..storage import env\n", "may not import storage"),
    ("vecdb/storage/writer.py", "from vecdb.engine.search import plan\n", "may not import engine"),
    ("vecdb/engine/plan.py", "from vecdb.indexes.graph import Graph\n", "may not import indexes"),
    ("vecdb/cli/info.py", "from vecdb.storage import env\n", "may not import storage"),
    ("vecdb/cli/info.py", "import vecdb\nvecdb.open('x')._engine\n", "private name '_engine'"),
    ("vecdb/cli/info.py", "from vecdb import _hidden\n", "private name '_hidden'"),
    ("vecdb/engine/search.py", "from vecdb.storage.format import _seal\n", "private name '_seal'"),
    ("vecdb/engine/load.py", "import importlib\nimportlib.import_module('lmdb')\n", "is for vecdb/storage/env.py"),
    ("vecdb/engine/load.py", "import pickle\n", "is for vecdb/kernels/_cache.py"),
    ("vecdb/engine/load.py", "import marshal\n", "is for nobody"),
    ("vecdb/errors.py", "from vecdb.types import Space\n", "may not import types"),
    ("vecdb/novelty/thing.py", "x = 1\n", "not in the table"),
    ("vecdb/engine/x.py", "import requests\n", "may not import requests"),
)
"""Violations the checker must catch: path, text, and a part of the sentence it must say."""

SOUND: tuple[tuple[str, str], ...] = (
    ("vecdb/storage/env.py", "import lmdb\nfrom ..errors import StorageError\n"),
    ("vecdb/engine/search.py", "from vecdb.storage.snapshot import Snapshot\nfrom . import plan\nimport numpy as np\n"),
    ("vecdb/cli/info.py", "import vecdb\nfrom vecdb.errors import VecdbError\nimport click\n"),
    ("vecdb/testing/crash.py", "import os\nos._exit(1)\n"),
)


def planted_source(path: str, text: str) -> Source:
    """Make a `Source` of a file that is not on disk."""
    return Source(path, path.removesuffix(".py").replace("/", "."), text)


def self_test() -> list[str]:
    """Return the planted violations that went unseen and the sound modules that were blamed."""
    missed = []
    for path, text, expected in PLANTED:
        if not any(expected in problem for problem in check_source(planted_source(path, text))):
            missed.append(f"{path}: {text!r} was not reported as {expected!r}")
    for path, text in SOUND:
        missed += [f"sound module blamed: {problem}" for problem in check_source(planted_source(path, text))]
    return missed


def table() -> str:
    """Return the layers as Markdown rows."""
    rows = ["| layer | room | may import | packages |", "|---|---|---|---|"]
    for name, room in ROOMS.items():
        uses, packages = " ".join(sorted(room.uses)) or "-", " ".join(sorted(room.packages)) or "-"
        rows.append(f"| {room.layer} | {name} | {uses} | {packages} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every violation; the exit code is 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", action="store_true", help="check that planted violations are caught, too")
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    options = parser.parse_args(arguments)
    if options.table:
        print(table())
        return 0
    problems = check_tree() + (self_test() if options.self_test else [])
    print(
        "\n".join(problems) if problems else f"layers: {sum(1 for _ in read_package(ROOT))} modules keep to the table"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
