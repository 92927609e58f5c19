"""Arguments and options that several commands share, and the types that read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from vecdb.cli.output import Output
from vecdb.errors import SourceError, WhereError
from vecdb.interchange import loads

__all__ = [
    "as_of_option",
    "collection_argument",
    "database_argument",
    "for_spaces",
    "int_ids_option",
    "json_option",
    "one_of",
    "pairs",
    "timeout_option",
    "where_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def _where(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """Read a condition as JSON, or ``@file`` that holds it."""
    if value is None:
        return None
    found = _where_json(value)
    if not isinstance(found, dict):
        raise WhereError(f"--where holds a {type(found).__name__}, expected an object.", hint='write {"field": value}.')
    return found


def _where_json(value: str) -> Any:
    try:
        text = Path(value[1:]).read_bytes() if value.startswith("@") else value
        return loads(text, path="--where")
    except OSError as error:
        raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}", param_hint="--where") from error
    except SourceError as error:
        raise WhereError(error.message, hint="write JSON, in quotes for the shell: '{\"year\": 2024}'") from error


def _as_of(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Read a seq or the name of a tag."""
    return int(value) if value is not None and value.isascii() and value.isdigit() else value


def _output(ctx: click.Context, param: click.Parameter, value: bool) -> Output:
    return Output(value)


def json_option(command: Command) -> Command:
    """Add ``--json``; the command gets an `Output` as ``out``."""
    return click.option(
        "--json", "out", is_flag=True, callback=_output, help="Print one JSON document, also for an error."
    )(command)


def database_argument(command: Command) -> Command:
    return click.argument("database", metavar="DB", type=click.Path(path_type=str))(command)


def collection_argument(command: Command) -> Command:
    return click.argument("collection", metavar="COLLECTION")(command)


def where_option(command: Command) -> Command:
    return click.option(
        "--where", callback=_where, metavar="JSON", help="Condition on metadata as JSON, or @FILE that holds it."
    )(command)


def as_of_option(command: Command) -> Command:
    return click.option(
        "--as-of", callback=_as_of, metavar="SEQ|TAG", help="Read the state at a commit or tag. Default: now."
    )(command)


def int_ids_option(command: Command) -> Command:
    return click.option("--int-ids", is_flag=True, help="Ids on the command line are numbers, never text.")(command)


def timeout_option(command: Command) -> Command:
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for another process that writes.",
    )(command)


def one_of(allowed: Sequence[str]) -> Callable[[click.Context, click.Parameter, Sequence[str]], Sequence[str]]:
    """Return the check of an option whose values are some words, each perhaps behind ``SPACE=``."""

    def check(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> Sequence[str]:
        for value in values:
            if value.rpartition("=")[2] not in allowed:
                raise click.BadParameter(f"{value!r} is not one of {', '.join(allowed)}.", ctx=ctx, param=param)
        return values

    return check


def pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` of an option given several times.

    Raises
    ------
    click.BadParameter
        No equals sign, or a name twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, sign, rest = value.partition("=")
        if not sign or not name or not rest:
            raise click.BadParameter(f"{value!r} is not SPACE=VALUE.", param_hint=option)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice.", param_hint=option)
        found[name] = rest
    return found


def for_spaces(values: Sequence[str], spaces: Sequence[str], option: str) -> dict[str, str]:
    """Read an option that is either one value for all spaces or ``SPACE=VALUE`` for some of them."""
    if len(values) == 1 and "=" not in values[0]:
        return dict.fromkeys(spaces, values[0])
    found = pairs(values, option)
    unknown = sorted(set(found) - set(spaces))
    if unknown:
        raise click.BadParameter(f"no vectors are given for space {unknown[0]!r}.", param_hint=option)
    return found
