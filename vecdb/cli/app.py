"""The program ``vecdb``: one group that holds every command."""

from __future__ import annotations

import click

import vecdb
from vecdb.cli import (
    about,
    correcting,
    health,
    indexing,
    judging,
    migrating,
    plugins,
    reading,
    relevance,
    transfer,
    upkeep,
    writing,
)
from vecdb.cli.codes import EXIT_CODES
from vecdb.cli.commands import verbatim
from vecdb.cli.foreign import OpenGroup

__all__ = ["cli"]

_EPILOG = "\n\n".join(
    (
        verbatim(
            "Examples:",
            "vecdb demo                        see what it does, on real data",
            "vecdb import news.vecdb docs ...  put vectors and records in",
            "vecdb search news.vecdb docs ...  ask",
            "vecdb COMMAND --help              everything about one command, with an example",
        ),
        verbatim("Exit codes:", *(f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())),
    )
)


@click.group(
    cls=OpenGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
    invoke_without_command=True,
)
@click.version_option(vecdb.__version__, prog_name="vecdb")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """The embedded embedding database in one file.

    Answers go to standard output, progress and messages to standard error. Every command takes --json.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


_MODULES = (
    about,
    health,
    reading,
    writing,
    transfer,
    indexing,
    judging,
    correcting,
    relevance,
    migrating,
    upkeep,
    plugins,
)

for _module in _MODULES:
    for _command in _module.COMMANDS:
        cli.add_command(_command)
