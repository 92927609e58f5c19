"""Hold the kernels of vecdb to the rules of docs/contributing/kernels.md that a reader would overlook.

* every ``@kernel`` names a twin of its own name in `vecdb.kernels.reference` and has a case in tests/kernels;
* its docstring gives the shape of every array it takes;
* it has no default values, no ``*args``, and at most twelve parameters (outputs and scratch are arguments);
* ``fastmath=``, ``cache=``, ``parallel=``, ``nogil=`` and direct uses of njit stand in ``_jit.py`` and
  ``_intrinsics.py`` alone;
* a kernel file imports no jitted function of another kernel file, except from private ones (``_intrinsics.py``,
  ``_lookup.py``), which declare helpers alone: what is compiled together stands together;
* the kernel package, its loader, bounds and twins can be imported without numba.

Usage: python tools/check_kernels.py [FOLDER]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = {"fastmath", "cache", "parallel", "nogil", "error_model", "boundscheck"}
JIT_NAMES = {"njit", "jit", "vectorize", "guvectorize", "stencil"}
MAY_JIT = {"_jit.py", "_intrinsics.py"}
WITHOUT_NUMBA = {"__init__.py", "bounds.py", "loader.py", "reference.py"}
DECORATORS = {"kernel", "helper", "inline_helper", "strict_helper"}
MOST_PARAMETERS = 12
ARRAY_ANNOTATION = re.compile(r"NDArray|F32|F64|I64|Bools")


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule at one place."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def decorator_name(node: ast.expr) -> str:
    """Return the last name of a decorator, called or not."""
    target = node.func if isinstance(node, ast.Call) else node
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def jitted_functions(tree: ast.Module) -> dict[str, str]:
    """Return {function: decorator} of every kernel and helper of a file."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if decorator_name(decorator) in DECORATORS:
                    found[node.name] = decorator_name(decorator)
    return found


def check_kernel(
    path: str, node: ast.FunctionDef, decorator: ast.expr, twins: set[str], cases: str
) -> Iterator[Problem]:
    """Rules for one ``@kernel`` function."""

    def problem(text: str) -> Problem:
        return Problem(path, node.lineno, f"kernel {node.name}: {text}")

    keywords = {word.arg: word.value for word in decorator.keywords} if isinstance(decorator, ast.Call) else {}
    twin = keywords.get("twin")
    if twin is None or ast.unparse(twin) != f"reference.{node.name}" or node.name not in twins:
        yield problem(f"its twin must be reference.{node.name}")
    if f'"{Path(path).stem}.{node.name}"' not in cases:
        yield problem("tests/kernels/test_twins.py has no case for it")
    if node.args.defaults or node.args.vararg or node.args.kwarg or node.args.kwonlyargs:
        yield problem("takes positional arguments without defaults only")
    if len(node.args.args) > MOST_PARAMETERS:
        yield problem(f"has {len(node.args.args)} parameters, at most {MOST_PARAMETERS}")
    documentation = " ".join((ast.get_docstring(node) or "").split())
    for argument in node.args.args:
        is_array = argument.annotation is not None and ARRAY_ANNOTATION.search(ast.unparse(argument.annotation))
        if is_array and not has_shape(documentation, argument.arg):
            yield problem(f"its docstring does not give the shape of {argument.arg}")


def has_shape(documentation: str, name: str) -> bool:
    """Whether the text says ``name (n, d)`` (or refers for it to another kernel's docstring)."""
    if re.search(rf"\b{name} \([^)]*,[^)]*\)", documentation):
        return True
    shared = re.search(r"as (?:in )?`\w+`", documentation)
    return shared is not None


def check_file(path: Path, name: str, twins: set[str], cases: str, jitted: dict[str, set[str]]) -> Iterator[Problem]:
    """Rules for one file of the kernel package."""
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if decorator_name(decorator) == "kernel":
                    if path.name.startswith("_"):
                        yield Problem(
                            name, node.lineno, f"kernel {node.name} stands in a private file, for helpers alone"
                        )
                    yield from check_kernel(name, node, decorator, twins, cases)
        elif isinstance(node, ast.Call) and path.name not in MAY_JIT:
            for keyword in node.keywords:
                if keyword.arg in FLAGS:
                    yield Problem(name, node.lineno, f"{keyword.arg}= is decided in _jit.py alone")
        elif isinstance(node, ast.ImportFrom):
            yield from check_import(path, name, node, jitted)
        elif isinstance(node, ast.Import) and path.name in WITHOUT_NUMBA:
            for alias in node.names:
                if alias.name.partition(".")[0] in {"numba", "llvmlite"}:
                    yield Problem(name, node.lineno, "is imported before numba is and may not import it")


def check_import(path: Path, name: str, node: ast.ImportFrom, jitted: dict[str, set[str]]) -> Iterator[Problem]:
    """Rules for one ``from ... import ...``."""
    module = node.module or ""
    names = {alias.name for alias in node.names}
    if module.partition(".")[0] in {"numba", "llvmlite"}:
        if path.name in WITHOUT_NUMBA:
            yield Problem(name, node.lineno, "is imported before numba is and may not import it")
        if names & JIT_NAMES and path.name not in MAY_JIT:
            yield Problem(name, node.lineno, f"imports {sorted(names & JIT_NAMES)}; use the decorators of _jit.py")
    other = module.rpartition(".")[2]
    shared = names & jitted.get(other, set())
    uses_jit = path.stem in jitted and jitted[path.stem]
    if module.startswith("vecdb.kernels.") and shared and uses_jit and not other.startswith("_"):
        yield Problem(name, node.lineno, f"imports jitted {sorted(shared)} of {other}.py; keep them in one file")


def check_folder(folder: Path, cases_file: Path) -> list[Problem]:
    """Check every file of a kernel package; `cases_file` is the module of twin tests."""
    files = sorted(folder.glob("*.py"))
    trees = {path.stem: ast.parse(path.read_text(), str(path)) for path in files}
    twins = {node.name for node in trees["reference"].body if isinstance(node, ast.FunctionDef)}
    jitted = {stem: set(jitted_functions(tree)) for stem, tree in trees.items()}
    cases = cases_file.read_text() if cases_file.exists() else ""
    return [problem for path in files for problem in check_file(path, path.name, twins, cases, jitted)]


def main(arguments: list[str]) -> int:
    """Print the problems; return the exit code."""
    folder = Path(arguments[0]) if arguments else ROOT / "vecdb" / "kernels"
    problems = check_folder(folder, ROOT / "tests" / "kernels" / "test_twins.py")
    for problem in problems:
        print(problem)
    count = sum("kernel" in jitted_functions(ast.parse(path.read_text())).values() for path in folder.glob("*.py"))
    print(f"kernels: {len(problems)} problems in {count} files with kernels")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
