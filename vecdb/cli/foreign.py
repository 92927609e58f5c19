"""Commands of plugins under ``vecdb``: found when a name is not one of vecdb's own, or when all are listed.

A command of vecdb loads no plugin, and no plugin can take its name. A plugin that does not load is named on standard
error, and everything else works.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from vecdb.cli.output import clean
from vecdb.errors import PluginError, VecdbError
from vecdb.registry import Provided, default_registry

__all__ = ["OpenGroup", "show_warnings"]

_ENDS = (click.ClickException, click.exceptions.Exit, click.Abort, VecdbError, OSError)
"""What any command may end with; everything else that a command of a plugin raises is a fault of the plugin."""


class OpenGroup(click.Group):
    """A group of commands that plugins may add to."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of vecdb's own commands and of those that plugins provide."""
        own = super().list_commands(ctx)
        return sorted({*own, *(each.name for each in default_registry().provided("command"))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name; vecdb's own come first, and no plugin is loaded for them."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name.startswith("-"):
            return own
        provided = _provided(cmd_name)
        found: click.Command | None = None if provided is None else provided.thing
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what a plugin's command should not raise names the plugin."""
        try:
            return super().invoke(ctx)
        except _ENDS:
            raise
        except Exception as error:
            name = ctx.invoked_subcommand
            provided = None if name is None or name in self.commands else _provided(name)
            if provided is None:
                raise
            raise PluginError(
                f"command {name!r} of {provided.owner} failed: {type(error).__name__}: {error}",
                hint="Tell its author.",
                plugin=provided.plugin,
                distribution=provided.distribution,
            ) from error


def _provided(name: str) -> Provided | None:
    return next((each for each in default_registry().provided("command") if each.name == name), None)


class _Warnings(logging.Handler):
    """Writes warnings of vecdb as the program writes errors: one line each, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record that was not printed yet."""
        text = clean(" ".join(record.getMessage().split()))
        if text not in self._said:
            self._said.add(text)
            print(f"vecdb: warning: {text}", file=sys.stderr)


def show_warnings() -> logging.Handler:
    """Return a handler for the logger ``vecdb`` that prints warnings, a plugin that fails to load among them."""
    return _Warnings()
