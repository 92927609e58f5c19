"""The rules of the command contract as checks; docs/reference/command-contract.md numbers them as here."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from vecdb.testing import fitting
from vecdb.testing.checks import Check, applying, collect, fail, require, rule

__all__ = ["iter_command_checks"]


def _all_of(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a command and those under it, each with the words that call it."""
    path = f"{path} {command.name}".strip()
    yield path, command
    for member in getattr(command, "commands", {}).values():
        yield from _all_of(member, path)


def _help_of(command: Any, words: list[str]) -> tuple[Any, str]:
    """Run a command in this process; return how it ended and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            ended = command.main(args=words, prog_name=f"vecdb {command.name}", standalone_mode=False)
        except SystemExit as error:
            ended = error.code
    return ended, out.getvalue()


@rule("D1")
def check_command_descriptor(command: Any) -> None:
    """It is a click command with a help text and a free name: lower case, and not one of vecdb's own."""
    fitting.check_descriptor("command", command)


@rule("X1")
def check_help_exits_with_0(command: Any) -> None:
    """``--help``, of the command and of all under it, prints how to call it and ends with exit code 0."""
    for path, _ in _all_of(command):
        words = [*path.split()[1:], "--help"]
        try:
            ended, text = _help_of(command, words)
        except Exception as error:
            fail(f"vecdb {path} --help raises {type(error).__name__}: {error}")
        require(ended in (0, None), f"vecdb {path} --help ends with {ended!r}")
        require("Usage:" in text and path.split()[-1] in text, f"vecdb {path} --help does not say how to call it")


@rule("X2")
def check_everything_has_a_help_text(command: Any) -> None:
    """Every command under it has a help text, and so has every option."""
    for path, each in _all_of(command):
        require(each is command or str(each.help or "").strip(), f"vecdb {path} has no help text")
        for option in each.params:
            if getattr(option, "param_type_name", "") == "option" and not getattr(option, "hidden", False):
                require(
                    str(getattr(option, "help", None) or "").strip(),
                    f"option {option.name} of vecdb {path} has no help",
                )


@rule("X3")
def check_unknown_options_are_refused(command: Any) -> None:
    """An option that it does not have ends it with a message and an exit code other than 0."""
    try:
        ended, _ = _help_of(command, ["--no-such-option-of-anybody"])
    except Exception as error:
        require(hasattr(error, "exit_code"), f"an unknown option raises {type(error).__name__}: {error}")
        return
    require(ended not in (0, None), "an unknown option is accepted")


CHECKS = collect(globals().values())


def iter_command_checks(command: Any) -> Iterator[Check]:
    """Yield the checks for a command."""
    return applying(CHECKS, command)
