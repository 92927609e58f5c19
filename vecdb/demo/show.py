"""Print the facts of the demonstration: as tables of rich where it is installed, as aligned plain text elsewhere.

Every function takes facts and says them; none computes anything but a rate or a unit.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from vecdb.demo.facts import Answer, Built, Crash, DemoReport, Quality, Travel, Upgrade
from vecdb.sample import Sample

__all__ = ["Screen", "answers", "built", "crash", "qualities", "screen", "travel", "upgrade", "verdict"]

Row = Sequence[str]


class Screen(Protocol):
    """Where the demonstration prints."""

    def heading(self, text: str) -> None:
        """Begin a part."""

    def line(self, text: str) -> None:
        """Say one sentence."""

    def table(self, head: Row, rows: Iterable[Row], right: frozenset[int] = frozenset()) -> None:
        """Show a table; columns in `right` are numbers."""


def screen(console: Any = None, *, quiet: bool = False) -> Screen:
    """Choose where to print: nowhere, the given console of rich, one of our own, or plain text."""
    if quiet:
        return _Silence()
    if console is not None:
        return _Rich(console)
    if importlib.util.find_spec("rich") is None:
        return _Plain()
    from rich.console import Console

    return _Rich(Console())


class _Silence:
    def heading(self, text: str) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def table(self, head: Row, rows: Iterable[Row], right: frozenset[int] = frozenset()) -> None:
        pass


class _Plain:
    """Two spaces between columns, no colours, nothing cut off."""

    def heading(self, text: str) -> None:
        self.line(f"{text}\n{'-' * len(text)}")

    def line(self, text: str) -> None:
        print(text, file=sys.stdout)

    def table(self, head: Row, rows: Iterable[Row], right: frozenset[int] = frozenset()) -> None:
        lines = [head, *rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        for line in lines:
            cells = (
                cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])
                for column, cell in enumerate(line)
            )
            self.line("  ".join(cells).rstrip())
        self.line("")


class _Rich:
    """The caller's console; texts are printed as they are, never read as markup."""

    def __init__(self, console: Any) -> None:
        self._console = console

    def heading(self, text: str) -> None:
        self._console.print(text, style="bold", markup=False, highlight=False)

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def table(self, head: Row, rows: Iterable[Row], right: frozenset[int] = frozenset()) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column, name in enumerate(head):
            table.add_column(Text(name), justify="right" if column in right else "left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table)


# --- the parts --------------------------------------------------------------------------------------------


def built(out: Screen, facts: Built, data: Sample) -> None:
    """Say what was put in."""
    out.heading("1  A database is one file")
    spaces = ", ".join(f"{name} ({data.models[name].model}, {dim} wide)" for name, dim in facts.spaces.items())
    out.table(
        ("what", "measured"),
        [
            ("records", f"{facts.records:,}: {len(data.documents):,} packages, {len(data.texts):,} sentences"),
            ("spaces", spaces),
            ("on disk", f"{facts.commits} durable commits in {facts.seconds:.2f} s"),
            ("file", _bytes(facts.file_bytes)),
        ],
    )


def answers(out: Screen, facts: Sequence[Answer], records: int) -> None:
    """Show the hits of each question under the question."""
    out.heading("2  Exact search, with and without where")
    for answer in facts:
        if answer.where is not None:
            out.line(f"where {json.dumps(answer.where)}: {answer.matches:,} of {records:,} records")
        asked = f'"{answer.query}" in {answer.space}, {answer.milliseconds:.1f} ms'
        hits = zip(answer.scores, answer.labels, strict=True)
        out.table(("score", asked), [(f"{score:.3f}", label) for score, label in hits], frozenset({0}))


def qualities(out: Screen, facts: Sequence[Quality]) -> None:
    """Say how often the right text was found, and whether numpy agrees."""
    out.heading("3  All questions at once")
    out.table(
        ("space", "questions", "right text first", "in the first ten", "same scores as numpy", "ms a question"),
        [
            (
                fact.space,
                str(fact.queries),
                _share(fact.first, fact.queries),
                _share(fact.in_ten, fact.queries),
                f"{fact.exact} of {fact.queries}",
                f"{fact.milliseconds / fact.queries:.2f}",
            )
            for fact in facts
        ],
        frozenset(range(1, 6)),
    )


def travel(out: Screen, fact: Travel) -> None:
    """Show one query before and after a deletion."""
    out.heading("4  Time travel")
    out.line(f"delete(where={json.dumps(fact.where)}) removed {fact.deleted:,} records.")
    out.table(
        ("when", "records", f'first answer to "{fact.query}"'),
        [
            ("now", f"{fact.records_now:,}", fact.first_now),
            (f'as_of="{fact.tag}" (commit {fact.seq})', f"{fact.records_then:,}", fact.first_then),
        ],
        frozenset({1}),
    )


def upgrade(out: Screen, fact: Upgrade) -> None:
    """Show each stage of the change of a model, measured on the same questions."""
    out.heading("5  A new model, and back")
    out.line(f"plan_upgrade({fact.old!r}, {fact.new!r}) over {fact.records:,} records: {fact.decision}.")
    out.table(
        ("stage", "right text first", "in the first ten", "hits by new vectors"),
        [
            (
                each.label,
                _share(each.first, each.questions),
                _share(each.in_ten, each.questions),
                "-" if place == 0 else f"{each.native:.0%}",
            )
            for place, each in enumerate(fact.stages)
        ],
        frozenset({1, 2, 3}),
    )
    out.line(
        f"On the canary the bridge found {fact.found:.2f} of the nearest neighbours; {fact.promised:.2f} were promised."
    )
    out.line(f"After rollback() the old model's answers were {'the same bits' if fact.same else 'OTHERS'}.")


def crash(out: Screen, fact: Crash) -> None:
    """Tell what was there after the kill."""
    out.heading("6  A writer killed in the middle of a commit")
    checked = ", ".join(f"{what} {count:,}" for what, count in fact.checked.items())
    out.table(
        ("what", "measured"),
        [
            ("acknowledged before the kill", f"{fact.acknowledged} records in {fact.commits} commits"),
            ("ended by", f"signal {fact.signal}, inside commit {fact.commits + 1}"),
            ("opened again", f"{fact.reopen_milliseconds:.0f} ms up to the first count"),
            ("acknowledged records there", f"{fact.found} of {fact.acknowledged}, every vector bit"),
            ("records of the half commit there", f"{fact.unfinished_found} of {fact.unfinished}"),
            ("check()", ("; ".join(fact.problems) or "no problem found") + (f" ({checked})" if checked else "")),
            ("the same commit, repeated", f"{fact.rewritten} of {fact.unfinished} records there"),
        ],
    )


def verdict(out: Screen, report: DemoReport) -> None:
    """Say of each claim whether it held."""
    out.heading("What this run has shown")
    out.table(("claim", "held"), [(claim, "yes" if held else "NO") for claim, held in report.claims.items()])
    kept = (
        f"The file is {report.path}." if report.kept else "The file was temporary; `vecdb demo --path FILE` keeps it."
    )
    out.line(f"All of it took {report.seconds:.1f} s. {kept}")


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
