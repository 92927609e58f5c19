"""The options of ``vecdb import``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from vecdb.cli.options import one_of
from vecdb.types import METRICS

__all__ = ["import_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("source", metavar="[SOURCE]", required=False, type=click.Path(path_type=str)),
    click.option("--records", metavar="FILE", help="The same as SOURCE."),
    click.option(
        "--format", metavar="NAME", help="The importer of a plugin that reads SOURCE; default: by its suffix."
    ),
    click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of that importer."),
    click.option("--ids-from", metavar="FILE", help="Records of which only the ids are used (with --existing)."),
    click.option("--vectors", metavar="SPACE=FILE", multiple=True, help="Vectors; row i belongs to record i."),
    click.option("--id", "id_field", metavar="FIELD", default="id", show_default=True, help="Field that holds the id."),
    click.option("--number", is_flag=True, help="The records have no id: number them from 0."),
    click.option("--text", metavar="FIELD", help="Field that becomes the text."),
    click.option("--fields", metavar="A,B", help="Fields that become metadata; '' for none; default: all others."),
    click.option(
        "--metric",
        callback=one_of(METRICS),
        metavar="[SPACE=]METRIC",
        multiple=True,
        help="New spaces: cosine (default), dot or l2.",
    ),
    click.option(
        "--dtype",
        callback=one_of(("float32", "float16", "int8")),
        metavar="[SPACE=]TYPE",
        multiple=True,
        help="New spaces: float32 (default), float16 or int8.",
    ),
    click.option("--model", metavar="[SPACE=]NAME", multiple=True, help="New spaces: the model of the vectors."),
    click.option("--revision", metavar="[SPACE=]TEXT", multiple=True, help="New spaces: the revision of the model."),
    click.option(
        "--role",
        callback=one_of(("document", "query", "both")),
        metavar="[SPACE=]ROLE",
        multiple=True,
        help="New spaces: document, query, both (default).",
    ),
    click.option("--create/--no-create", default=True, show_default=True, help="Make what does not exist yet."),
    click.option("--existing", is_flag=True, help="Give existing records vectors; leave the rest of them alone."),
    click.option("--merge", is_flag=True, help="Keep what existing records have and the source does not give."),
    click.option("--normalise", is_flag=True, help="Divide each vector by its norm (int8 files)."),
    click.option("--trust", is_flag=True, help="Skip the check that vectors look like the space's model."),
    click.option("--batch", metavar="ROWS", type=click.IntRange(min=1), help="Records a commit; default: about 8 MB."),
    click.option("--resume/--no-resume", default=True, show_default=True, help="Continue a run that was stopped."),
    click.option(
        "--durability",
        type=click.Choice(["full", "relaxed", "bulk"]),
        default="full",
        show_default=True,
        help="bulk: only for a new file, which appears when it is complete.",
    ),
)


def import_options(command: Command) -> Command:
    """Add all of them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
