"""Commands about plugins: which there are, and whether one keeps the rules of its contract."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from vecdb import PluginRegistry
from vecdb.cli.commands import command
from vecdb.cli.options import json_option
from vecdb.cli.output import Output
from vecdb.errors import UnknownNameError
from vecdb.registry import PluginInfo, Provided

if TYPE_CHECKING:
    from vecdb.testing import CheckResult

__all__ = ["COMMANDS"]

_WORDS = {"passed": "ok", "failed": "FAILED", "expected": "expected", "unexpected": "NOT EXPECTED"}


@command("vecdb plugins", "vecdb plugins --json")
@json_option
def plugins(out: Output) -> None:
    """List plugins and what each provides.

    VECDB_PLUGINS names those that may load; vecdb itself is always there.
    """
    found = PluginRegistry().plugins()
    if out.as_json:
        out.document({"plugins": [_plugin(info) for info in found]})
        return
    rows = [row for info in found for row in _rows(info)]
    out.table(("plugin", "distribution", "version", "provides", "name", "can"), rows)
    for info in found:
        if info.error is not None:
            out.note(f"{info.name}: {info.error.message}")


def _plugin(info: PluginInfo) -> dict[str, Any]:
    error = None if info.error is None else {"type": type(info.error).__name__, "message": info.error.message}
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "provides": [
            {"kind": item.kind, "name": item.name, "version": getattr(item.thing, "version", None)}
            | {"capabilities": _abilities(item), "parameters": _parameters(item)}
            for item in info.provides
        ],
        "error": error,
    }


def _rows(info: PluginInfo) -> list[list[Any]]:
    source = [info.name, info.distribution, info.version]
    if info.error is not None:
        return [[*source, "", "", "failed to load"]]
    if not info.provides:
        return [[*source, "", "", ""]]
    return [[*source, item.kind, item.name, _told(_abilities(item))] for item in info.provides]


def _abilities(item: Provided) -> dict[str, Any]:
    """Return the declared capabilities as JSON can hold them."""
    declared = getattr(item.thing, "capabilities", None)
    names = getattr(type(declared), "__dataclass_fields__", ())
    values = {name: getattr(declared, name) for name in names}
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}


def _told(abilities: dict[str, Any]) -> str:
    """Return capabilities in one line: switches that are on, and values that are set."""
    parts = [" ".join(map(str, value)) for value in abilities.values() if isinstance(value, list)]
    parts += [name for name, value in abilities.items() if value is True]
    parts += [
        f"{name} {value}"
        for name, value in abilities.items()
        if isinstance(value, int | float) and value is not True and value is not False
    ]
    return ", ".join(parts)


def _parameters(item: Provided) -> dict[str, Any]:
    """Return the declared parameters: default, what is allowed, and what they mean."""
    declared = getattr(item.thing, "parameters", None) or {}
    return {
        name: {"default": param.default, "allowed": param.describe(), "doc": param.doc}
        for name, param in declared.items()
    }


@command("vecdb check-plugin flat", "vecdb check-plugin acme.ivfpq --json", name="check-plugin")
@click.argument("name", metavar="NAME")
@click.option("--kind", metavar="KIND", help="What NAME is, such as index-type, if several kinds have it.")
@json_option
@click.pass_context
def check_plugin(ctx: click.Context, name: str, kind: str | None, out: Output) -> None:
    """Check a plugin against every rule of its contract.

    NAME is a registered name, such as an index type. One line per rule; the exit code is 1 if one is broken.
    Failures that the plugin declares in its attribute expected_failures are shown with their reason and do not count;
    one that passes does. The rules are in docs/reference.
    """
    item = _find(name, kind)
    results = _run(item, out)
    broken = sum(not result.ok for result in results)
    if out.as_json:
        out.document(_report(item, results))
    else:
        verdict = "keeps its contract" if not broken else f"breaks {broken:,} of its rules"
        out.line(f"{item.kind} {item.name} of {item.owner} {verdict}: {len(results):,} checked")
    if broken:
        ctx.exit(1)


def _run(item: Provided, out: Output) -> list[CheckResult]:
    """Run the checks; what a plugin prints meanwhile goes to standard error, not into the answer."""
    from vecdb.testing import run_checks  # not needed by the other commands

    answer = sys.stdout

    def tell(result: CheckResult) -> None:
        with redirect_stdout(answer):
            _tell(result, out)

    with redirect_stdout(sys.stderr):
        return run_checks(item.thing, item.kind, on=None if out.as_json else tell)


def _find(name: str, kind: str | None) -> Provided:
    """Return the registered object of this name, of whatever kind that has checks."""
    from vecdb.testing import CHECKS_BY_KIND

    registry = PluginRegistry()
    if kind is not None:
        kind = kind.replace("-", " ")
        if kind not in CHECKS_BY_KIND:
            raise click.BadParameter(f"{kind!r} is not one of {', '.join(CHECKS_BY_KIND)}.", param_hint="--kind")
        return registry.find(kind, name)
    names = {kind: registry.names(kind) for kind in CHECKS_BY_KIND}
    kinds = [kind for kind, there in names.items() if name in there]
    if len(kinds) > 1:
        raise click.UsageError(f"{name} is {' and '.join(kinds)}; say which with --kind.")
    if not kinds:
        return _nowhere(registry, name, names)
    return registry.find(kinds[0], name)


def _nowhere(registry: PluginRegistry, name: str, names: dict[str, list[str]]) -> Provided:
    """Raise the error of a name that no kind has, or what the registry has against it."""
    for kind in names:
        try:
            return registry.find(kind, name)
        except UnknownNameError as error:
            last = error
    available = sorted({each for there in names.values() for each in there})
    close = get_close_matches(name, available, 1)
    raise UnknownNameError(
        f"there is nothing called {name!r} that can be checked; there are {available}",
        hint=f"Did you mean {close[0]!r}?" if close else last.hint,
        kind="plugin",
        name=name,
        available=available,
    )


def _tell(result: CheckResult, out: Output) -> None:
    out.line(f"{_WORDS[result.status]:<12}  {result.check.number:<4} {result.check.name}")
    if result.error is not None:
        out.line(f"{'':12}  {'':4} {result.error.problem}")
    if result.status == "failed":
        out.line(f"{'':12}  {'':4} the rule: {result.check.sentence}")
    if result.reason is not None:
        out.line(f"{'':12}  {'':4} announced: {result.reason}")


def _report(item: Provided, results: list[CheckResult]) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "name": item.name,
        "plugin": item.plugin,
        "distribution": item.distribution,
        "version": item.version,
        "ok": all(result.ok for result in results),
        "checks": [
            {"number": result.check.number, "name": result.check.name, "rule": result.check.sentence}
            | {"status": result.status, "problem": getattr(result.error, "problem", None), "reason": result.reason}
            | {"seconds": round(result.seconds, 3)}
            for result in results
        ],
    }


COMMANDS = (plugins, check_plugin)
