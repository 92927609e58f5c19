"""Measure files and functions and compare them with tools/budgets.toml.

A limit is a question to the reader of a change, not a law: an exception is an entry with a reason. An exception that
is no longer needed is an error, too.

Usage: python tools/check_shape.py [--longest N]
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("vecdb", "plugins", "tools", "tests")


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of one place: what it is, how large, and its limit."""

    where: str
    what: str
    value: int
    limit: int


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function with its qualified name, nested ones and methods too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1 if body else 0


def positional(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many arguments a caller may give by position, self and cls left out."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    return len(names) - (1 if names[:1] in (["self"], ["cls"]) else 0)


def measure_file(path: str, text: str, limits: Mapping[str, int]) -> tuple[list[Measure], list[int]]:
    """Return the measures of one file and the body lengths of its functions."""
    kernel = path.startswith("vecdb/kernels/")
    is_test = path.startswith("tests/")
    file_limit = limits["test_file_lines" if is_test else "file_lines"]
    measures = [Measure(path, "lines", text.count("\n"), file_limit)]
    lengths = []
    for name, node in functions(ast.parse(text, path)):
        length = body_lines(node)
        lengths.append(length)
        where = f"{path}::{name}"
        measures.append(
            Measure(where, "lines in its body", length, limits["kernel_lines" if kernel else "function_lines"])
        )
        if not is_test:
            limit = limits["kernel_parameters" if kernel else "positional_parameters"]
            measures.append(Measure(where, "positional parameters", positional(node), limit))
    return measures, lengths


def judge(measures: Sequence[Measure], exceptions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the measures above their limit and the exceptions without need or reason."""
    allowed = {(entry["where"], entry.get("what", "lines")): entry for entry in exceptions}
    used = set()
    problems = []
    for item in measures:
        kind = "parameters" if item.what.endswith("parameters") else "lines"
        entry = allowed.get((item.where, kind))
        if item.value <= item.limit:
            continue
        if entry is not None:
            used.add((item.where, kind))
        limit = int(entry["limit"]) if entry is not None else item.limit
        if item.value > limit:
            problems.append(f"{item.where}: {item.value} {item.what}, the limit is {limit}")
    for key, entry in allowed.items():
        if key not in used:
            problems.append(f"tools/budgets.toml: the exception for {key[0]} is not needed")
        if not str(entry.get("why", "")).strip():
            problems.append(f"tools/budgets.toml: the exception for {key[0]} gives no reason")
    return problems


def judge_lengths(lengths: Sequence[int], limits: Mapping[str, int]) -> list[str]:
    """Return whether the functions of vecdb as a whole have become long."""
    if len(lengths) < 20:
        return []
    middle, ninth = median(lengths), quantiles(lengths, n=10)[-1]
    problems = []
    if middle > limits["median_lines"]:
        problems.append(
            f"vecdb: half of the function bodies have {middle} lines or more, expected {limits['median_lines']}"
        )
    if ninth > limits["p90_lines"]:
        problems.append(
            f"vecdb: a tenth of the function bodies has over {ninth:.0f} lines, expected {limits['p90_lines']}"
        )
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is over its budget; the exit code is 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=int, default=0, metavar="N", help="also print the N longest functions")
    options = parser.parse_args(arguments)
    budgets = tomllib.loads((ROOT / "tools" / "budgets.toml").read_text(encoding="utf-8"))
    limits, measures, lengths = budgets["limits"], [], []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            found, bodies = measure_file(name, path.read_text(encoding="utf-8"), limits)
            measures += found
            lengths += bodies if folder == "vecdb" else []
    problems = judge(measures, budgets.get("exception", [])) + judge_lengths(lengths, limits)
    bodies_only = [item for item in measures if item.what == "lines in its body"]
    for item in sorted(bodies_only, key=lambda item: -item.value)[: options.longest]:
        print(f"{item.value:4} {item.where}")
    print("\n".join(problems) if problems else f"shape: {len(lengths)} functions of vecdb keep to the budgets")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
