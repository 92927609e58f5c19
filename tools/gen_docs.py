"""Write the parts of docs/reference that repeat the code: errors, public API, command line.

A page holds markers, ``<!-- generated: NAME -->`` and ``<!-- end of generated: NAME -->``; what stands between them is
replaced. With --check nothing is written and a difference is an error, so the pages cannot fall behind the code.

Usage: python tools/gen_docs.py [--check] [NAME ...]
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
_LISTS = frozenset({"Parameters", "Other Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns"})
_WIDTH = 100


# --- numpydoc to Markdown ---------------------------------------------------------------------------------


def markdown_of(docstring: str | None) -> str:
    """Return a numpydoc docstring as Markdown: headings in bold, parameters as a list, examples fenced."""
    if not docstring:
        return ""
    parts = []
    for title, lines in _sections(inspect.cleandoc(docstring).splitlines()):
        body = _list_of(lines) if title in _LISTS else _fence_examples("\n".join(lines).strip())
        parts.append(f"**{title}**\n\n{body}" if title else body)
    return "\n\n".join(part for part in parts if part)


def _sections(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    title, held, skip = "", list[str](), False
    for place, line in enumerate(lines):
        if skip:
            skip = False
            continue
        below = lines[place + 1] if place + 1 < len(lines) else ""
        if line.strip() and re.fullmatch(r"-{3,}", below):
            yield title, held
            title, held, skip = line.strip(), [], True
        else:
            held.append(line)
    yield title, held


def _list_of(lines: Sequence[str]) -> str:
    """Turn ``name : type`` with an indented description into one list item each."""
    items: list[list[str]] = []
    for line in lines:
        if line and not line[0].isspace():
            items.append([line])
        elif line.strip() and items:
            items[-1].append(line.strip())
    rows = []
    for head, *description in items:
        name, _, kind = head.partition(" : ")
        rows.append(
            f"- `{name}`" + (f" ({kind})" if kind else "") + (": " + " ".join(description) if description else "")
        )
    return "\n".join(rows)


def _fence_examples(text: str) -> str:
    """Fence doctest blocks; they are run where they stand, in the docstring."""
    blocks = re.split(r"\n\s*\n", text)
    return "\n\n".join(f"```pycon\n{block}\n```" if block.lstrip().startswith(">>>") else block for block in blocks)


# --- errors -----------------------------------------------------------------------------------------------


def error_classes(errors: ModuleType) -> Iterator[type]:
    """Yield every exception and warning of vecdb, parents before children."""
    names = [getattr(errors, name) for name in errors.__all__]
    order = {cls: place for place, cls in enumerate(vars(errors).values()) if inspect.isclass(cls)}

    def below(parent: type) -> Iterator[type]:
        yield parent
        for child in sorted((cls for cls in names if cls.__bases__[0] is parent), key=order.__getitem__):
            yield from below(child)

    yield from below(errors.VecdbError)
    yield from below(errors.VecdbWarning)


def errors_section() -> str:
    """Return one row for each class of vecdb.errors."""
    errors = importlib.import_module("vecdb.errors")
    rows = ["| class | is a | attributes | when |", "|---|---|---|---|"]
    for cls in error_classes(errors):
        parents = ", ".join(f"`{parent.__name__}`" for parent in cls.__bases__)
        attributes = " ".join(f"`{name}`" for name in getattr(cls, "fields", ())) or "-"
        meaning = " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())
        rows.append(f"| `{cls.__name__}` | {parents} | {attributes} | {meaning} |")
    return "\n".join(rows)


# --- the public API ---------------------------------------------------------------------------------------


class _Raw(str):
    """An annotation that is printed as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature_of(thing: Callable[..., Any]) -> str:
    """Return a signature with its annotations as written and without addresses of objects; none of a protocol."""
    if getattr(thing, "_is_protocol", False):
        return ""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return "()"
    plain = [
        parameter.replace(annotation=_Raw(parameter.annotation)) if isinstance(parameter.annotation, str) else parameter
        for parameter in found.parameters.values()
        if parameter.name != "self"
    ]
    result = _Raw(found.return_annotation) if isinstance(found.return_annotation, str) else found.return_annotation
    result = inspect.Signature.empty if inspect.isclass(thing) else result
    text = str(found.replace(parameters=plain, return_annotation=result))
    text = re.sub(r"frozenset\(\{([^{}]*)\}\)", _in_order, text)
    return re.sub(r"ForwardRef\('(.+?)'\)", r"\1", re.sub(r" at 0x[0-9a-f]+", "", text))


def _in_order(found: re.Match[str]) -> str:
    """Return a frozenset with its words sorted: their own order differs between processes."""
    return "frozenset({" + ", ".join(sorted(found[1].split(", "))) + "})"


def public_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that a class defines or inherits inside vecdb, in source order."""
    seen = set()
    for owner in reversed(cls.__mro__):
        if not owner.__module__.startswith("vecdb"):
            continue
        for name, member in vars(owner).items():
            callable_like = inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)
            if not name.startswith("_") and callable_like and name not in seen:
                seen.add(name)
                yield name, getattr(cls, name) if not isinstance(member, property) else member


def _entry(title: str, thing: Any, level: str) -> str:
    if isinstance(thing, property):
        returns = getattr(thing.fget, "__annotations__", {}).get("return", "")
        return f"{level} {title}\n\n`{title}: {returns}`\n\n{markdown_of(thing.__doc__)}".strip()
    fence = f"```text\n{_wrap(title + signature_of(thing))}\n```"
    return f"{level} {title}\n\n{fence}\n\n{markdown_of(inspect.getdoc(thing))}".strip()


def _wrap(signature: str) -> str:
    """Break a long signature, one parameter a line."""
    if len(signature) <= _WIDTH:
        return signature
    name, _, rest = signature.partition("(")
    inside, closing, returns = rest.rpartition(") -> ") if ") -> " in rest else rest.rpartition(")")
    lines, depth, held = list[str](), 0, ""
    for letter in inside:
        depth += (letter in "([{") - (letter in ")]}")
        held += letter
        if letter == "," and depth == 0:
            lines.append("    " + held.strip())
            held = ""
    lines.append("    " + held.strip() + ",")
    return "\n".join([name + "(", *lines, closing + returns])


def _describe(name: str, module: ModuleType, title: str, level: str = "##") -> str:
    thing = getattr(module, name)
    if inspect.isclass(thing):
        parts = [_entry(title, thing, level)]
        parts += [_entry(f"{name}.{member}", value, level + "#") for member, value in public_members(thing)]
        return "\n\n".join(parts)
    if callable(thing) and hasattr(thing, "__name__") and not hasattr(thing, "__origin__"):
        return _entry(title, thing, level)
    written, meaning = assigned(name, module)
    return f"{level} {title}\n\n`{title} = {written}`" + (f"\n\n{markdown_of(meaning)}" if meaning else "")


def assigned(name: str, module: ModuleType) -> tuple[str, str | None]:
    """Return a constant or alias of `module` as the source has it, and the string below it.

    The source is where the module got it from, or vecdb.types. Its repr would not do: that of an array type differs
    between releases of numpy.
    """
    origin = _origin(name, module)
    for path in (Path(str(origin.__file__)), ROOT / "vecdb" / "types.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, below in zip(body, [*body[1:], None], strict=True):
            if _target(node) == name and node.value is not None:
                said = (
                    below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
                )
                return ast.unparse(node.value), said if isinstance(said, str) else None
    raise LookupError(f"{name} is public but is neither a class, a function nor an assignment")


def _origin(name: str, module: ModuleType) -> ModuleType:
    """Follow ``from X import name``, for type checkers only too, to the module that assigns it."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return _origin(name, importlib.import_module(node.module))
    return module


def _target(node: ast.stmt) -> str | None:
    if isinstance(node, ast.AnnAssign):
        return getattr(node.target, "id", None)
    return getattr(node.targets[0], "id", None) if isinstance(node, ast.Assign) else None


def api_section() -> str:
    """Return every name of ``vecdb.__all__`` that is not an error, with its signature and its docstring."""
    vecdb, errors = importlib.import_module("vecdb"), importlib.import_module("vecdb.errors")
    names = sorted(set(vecdb.__all__) - set(errors.__all__), key=str.lower)
    return "\n\n".join(_describe(name, vecdb, name) for name in names)


def words_section() -> str:
    """Return the names of ``vecdb.types`` that signatures mention and ``vecdb`` does not export itself."""
    vecdb, words = importlib.import_module("vecdb"), importlib.import_module("vecdb.types")
    names = sorted(set(words.__all__) - set(vecdb.__all__), key=str.lower)
    return "\n\n".join(_describe(name, words, f"vecdb.types.{name}", "###") for name in names)


def module_section(name: str, level: str = "##") -> str:
    """Return the public names of a module besides ``vecdb`` itself."""
    module = importlib.import_module(name)
    names = sorted(module.__all__, key=str.lower)
    return "\n\n".join(_describe(each, module, f"{name}.{each}", level) for each in names)


# --- hooks and contracts ----------------------------------------------------------------------------------


def hooks_section() -> str:
    """Return every hook with its exact signature and its docstring."""
    module = importlib.import_module("vecdb.hookspecs")
    hooks = [name for name in vars(module) if name.startswith("vecdb_")]
    return "\n\n".join(_describe(name, module, name) for name in hooks)


def rules_section(kind: str) -> str:
    """Return the rules of a contract: number, sentence, and the check of the conformance kit; a table a group."""
    module = importlib.import_module(f"vecdb.testing.{kind}_checks")
    groups: dict[str, str] = getattr(module, "GROUPS", {})
    parts = []
    for letter, title in groups.items() or [("", "")]:
        heading = [f"### {letter}: {title}", ""] if title else []
        rows = [
            f"| {check.number} | {check.sentence} | `{check.name}` |"
            for check in module.CHECKS
            if check.number.startswith(letter)
        ]
        parts.append("\n".join([*heading, "| rule | says | check |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


# --- what vecdb registers itself --------------------------------------------------------------------------


def transform_kinds_section() -> str:
    """Return vecdb's own kinds of transform: what each promises, and its parameters."""
    kinds = importlib.import_module("vecdb.transforms").vecdb_register_transforms()
    head = [
        "| kind | target | fitted for | pairs | isometry | affine | inverse | joint |",
        "|---|---|---|---|---|---|---|---|",
    ]
    parts = ["\n".join(head + [_promises(kind) for kind in kinds])]
    for kind in kinds:
        if kind.parameters:
            rows = [_parameter_row(name, param) for name, param in kind.parameters.items()]
            table = "\n".join(["| parameter | values | default | meaning |", "|---|---|---|---|", *rows])
            parts.append(f"### Parameters of {kind.name}\n\n{table}")
    return "\n\n".join(parts)


def _promises(kind: Any) -> str:
    able = kind.capabilities
    needs = [f"{able.min_pairs}" if "pairs" in able.requires else "none", *sorted(able.requires - {"pairs"})]
    switches = ["yes" if each else "-" for each in (able.affine, able.invertible, able.joint)]
    cells = [", ".join(sorted(able.widths)), ", ".join(sorted(able.directions)), ", ".join(needs), able.isometry]
    return "| " + " | ".join([f"`{kind.name}`", *cells, *switches]) + " |"


def _parameter_row(name: str, param: Any) -> str:
    values = ", ".join(f"`{choice}`" for choice in param.choices) if param.choices else param.describe()
    return f"| `{name}` | {values} | `{param.default}` | {param.doc} |"


# --- the command line -------------------------------------------------------------------------------------


def cli_group() -> Any:
    """Return the click group behind ``vecdb``."""
    import click

    module = importlib.import_module("vecdb.cli")
    groups = [value for value in vars(module).values() if isinstance(value, click.Group)]
    if not groups:
        raise LookupError("vecdb.cli holds no click group")
    return groups[0]


def cli_commands(group: Any, prefix: str = "vecdb") -> Iterator[tuple[str, Any]]:
    """Yield ``vecdb ...`` and the command behind it, groups before their members."""
    for name, command in sorted(group.commands.items()):
        yield f"{prefix} {name}", command
        if hasattr(command, "commands"):
            yield from cli_commands(command, f"{prefix} {name}")


def cli_section() -> str:
    """Return the help of every command."""
    import click

    os.environ["VECDB_PLUGINS"] = ""  # the page is about vecdb, not about what is installed here
    parts = []
    for title, command in [("vecdb", cli_group()), *cli_commands(cli_group())]:
        context = click.Context(command, info_name=title, terminal_width=_WIDTH, max_content_width=_WIDTH, color=False)
        text = click.unstyle(command.get_help(context))
        parts.append(f"## {title}\n\n```text\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n```")
    return "\n\n".join(parts)


# --- pages ------------------------------------------------------------------------------------------------

CONTRACTS = ("transform", "relevance", "backfill", "importer", "command")
"""Contracts whose pages are made by rule; each has a module in vecdb.contracts and one of checks."""

SECTIONS: dict[str, tuple[Path, Callable[[], str]]] = {
    "errors": (REFERENCE / "errors.md", errors_section),
    "api": (REFERENCE / "api.md", api_section),
    "words": (REFERENCE / "api.md", words_section),
    "interchange": (REFERENCE / "interchange.md", partial(module_section, "vecdb.interchange")),
    "sample": (REFERENCE / "interchange.md", partial(module_section, "vecdb.sample")),
    "cli": (REFERENCE / "cli.md", cli_section),
    "hooks": (REFERENCE / "hooks.md", hooks_section),
    **{f"{kind} rules": (REFERENCE / f"{kind}-contract.md", partial(rules_section, kind)) for kind in CONTRACTS},
    **{
        f"{kind} words": (REFERENCE / f"{kind}-contract.md", partial(module_section, f"vecdb.contracts.{kind}"))
        for kind in CONTRACTS
    },
    "transform kinds": (REFERENCE / "transforms.md", transform_kinds_section),
    "index rules": (REFERENCE / "index-contract.md", partial(rules_section, "index")),
    "effort words": (REFERENCE / "index-contract.md", partial(module_section, "vecdb.contracts.effort", "###")),
    "index words": (REFERENCE / "index-contract.md", partial(module_section, "vecdb.contracts.index", "###")),
    "index blobs": (REFERENCE / "index-contract.md", partial(module_section, "vecdb.contracts.blobs", "###")),
    "index params": (REFERENCE / "index-contract.md", partial(module_section, "vecdb.contracts.params", "###")),
}
"""Marker -> the page it stands in, and what makes its text."""


def replace_section(page: str, name: str, text: str) -> str:
    """Return `page` with the text between the markers of `name` replaced."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end of generated: {name} -->"
    head, found_begin, rest = page.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the markers of {name!r} are missing")
    return f"{head}{begin}\n{text}\n{end}{tail}"


def outdated(names: Sequence[str]) -> Iterator[tuple[Path, str, str]]:
    """Yield each page that differs from the code: its path, its text, and what it should be."""
    for path in dict.fromkeys(SECTIONS[name][0] for name in names):
        old = new = path.read_text(encoding="utf-8")
        for name in names:
            page, make = SECTIONS[name]
            new = replace_section(new, name, make()) if page == path else new
        if new != old:
            yield path, old, new


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with --check print the differences and return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not up to date")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these parts, of: {' '.join(SECTIONS)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(SECTIONS):
        parser.error(f"no part is called {' or '.join(sorted(unknown))}; there are: {' '.join(SECTIONS)}")
    sys.path.insert(0, str(ROOT))
    stale = list(outdated(options.names or list(SECTIONS)))
    for path, old, new in stale:
        name = path.relative_to(ROOT).as_posix()
        if options.check:
            difference = difflib.unified_diff(
                old.splitlines(), new.splitlines(), name, "from the code", lineterm="", n=1
            )
            print("\n".join(list(difference)[:40]))
            print(f"{name} is not what the code says: run python tools/gen_docs.py")
        else:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
