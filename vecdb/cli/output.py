"""What a command prints: one JSON document, or tables and sentences for people.

Rule: the answer goes to standard output, everything else (progress, notes, errors) to standard error; with ``--json``
standard output holds exactly one JSON document. Control characters in stored data never reach a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vecdb import types
from vecdb.interchange import dumps

__all__ = ["Output", "clean"]

_PIPE_WIDTH = 10_000  # lines of a pipe are for programs such as grep: never wrapped


class Output:
    """Prints for one command.

    Parameters
    ----------
    as_json : bool
        ``--json`` was given.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, content: Any) -> None:
        """Print the one JSON document."""
        click.echo(dumps(content))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        empty: str = "nothing",
        clipped: Sequence[str] = (),
    ) -> None:
        """Print rows under headings; numbers are set to the right, `clipped` columns cut where a line ends."""
        rows = [list(row) for row in rows]
        if not rows:
            self.line(f"({empty})")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, name in enumerate(columns):
            right = all(isinstance(row[place], int | float) for row in rows)
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for row in rows:
            cells = [Text(clean(_cell(value))) for value in row]
            for cell, name in zip(cells, columns, strict=True):
                if name in clipped:  # set on the cell: of whole columns rich would rather drop the others
                    cell.no_wrap, cell.overflow = True, "ellipsis"
            table.add_row(*cells)
        _console().print(table)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Print names and values, nested ones indented."""
        for line in _fact_lines(facts, 0):
            self.line(line)

    def line(self, text: str) -> None:
        click.echo(clean(text))

    def notes(self, facts: Mapping[str, Any]) -> None:
        """Say facts that are not the answer."""
        for line in _fact_lines(facts, 0):
            self.note(line)

    def note(self, text: str) -> None:
        """Say something that is not the answer."""
        click.echo(clean(text), err=True)

    @contextmanager
    def progress(self, label: str) -> Iterator[types.Progress | None]:
        """Give a progress function that draws a bar, or None where nobody is looking."""
        if not sys.stderr.isatty():
            yield None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        console = Console(stderr=True)
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def clean(text: str) -> str:
    """Return text in which control characters are written out, so that stored data cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _console() -> Console:
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, str):
        return value
    return dumps(value)


def _fact_lines(facts: Mapping[str, Any], depth: int) -> Iterator[str]:
    width = max((len(str(name)) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield f"{'  ' * depth}{name}"
            yield from _fact_lines(value, depth + 1)
        else:
            text = _cell(value) or "(none)"
            yield f"{'  ' * depth}{str(name).ljust(width)}  {text}"
