"""How a command of vecdb is declared: click's decorator, with examples under the help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["command", "verbatim"]


def command(*examples: str, name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a click command whose help ends with examples, one a line.

    Parameters
    ----------
    *examples : str
        Complete command lines.
    name : str, optional
        Default: that of the function.
    """
    return click.command(name, epilog=verbatim("Example:" if len(examples) == 1 else "Examples:", *examples))


def verbatim(title: str, *lines: str) -> str:
    """Return a paragraph that click does not wrap."""
    return "\b\n" + "\n".join((title, *(f"  {line}" for line in lines)))
