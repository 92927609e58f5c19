"""Results as people read them: a table on the terminal, and the same table between the markers of a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- generated: benchmarks -->", "<!-- end of generated: benchmarks -->"
HEAD = ("case", "system", "median", "quartiles", "per CPU s", "ratio", "against", "bar")
Rows = Sequence[Mapping[str, Any]]


def number(value: float | None) -> str:
    """Return a number with three significant digits, none of them after the point where it is large."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row of the table as text."""
    value = f"{number(row['value'])} {row['unit']}".strip() or f"({row['note']})"
    spread = "" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
    bar = f"{row['bar']} {row['verdict']}" if row["bar"] and row["verdict"] else ""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return row["case"], row["system"], value, spread, number(row["cpu"]), ratio, row["against"], bar


def text_table(rows: Rows) -> str:
    """Return rows as aligned text; a case is named once."""
    lines = [HEAD, *(_named_once(rows))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _named_once(rows: Rows) -> Iterator[tuple[str, ...]]:
    last = ""
    for row in rows:
        line = cells(row)
        yield ("", *line[1:]) if line[0] == last else line
        last = line[0]


def text_report(name: str, found: Mapping[str, Any]) -> str:
    """Return one benchmark for the terminal."""
    notes = "\n".join(f"  {note}" for note in found["notes"])
    return f"\n== {name} ({found['seconds']:.0f} s)\n{text_table(found['rows'])}\n{notes}".rstrip()


def machine_line(machine: Mapping[str, Any]) -> str:
    """Return the machine in one sentence."""
    blas = machine["blas"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"{machine['file_system']} (append and fdatasync of 4 KiB: {machine['fdatasync_ms']} ms), "
        f"Python {machine['python']}, {libraries}; BLAS {blas.get('name')} {blas.get('version')}, kernel "
        f"{blas.get('kernel')}, {blas.get('threads', '?')} thread(s); load at the start {machine['load'][0]}; "
        f"{machine['date']}"
    )


def markdown(document: Mapping[str, Any]) -> str:
    """Return a whole run for the documentation."""
    parts = [f"{machine_line(document['machine'])}."]
    for name, found in document["benchmarks"].items():
        lines = [HEAD, ("---",) * len(HEAD), *_named_once(found["rows"])]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts += [f"### {name}", table, *found["notes"]]
    return "\n\n".join(parts)


def write_docs(page: Path, document: Mapping[str, Any]) -> None:
    """Put a run between the markers of `page`.

    Raises
    ------
    ValueError
        The page has no markers, or the run was one of ``--quick``, whose numbers mean nothing.
    """
    if document["quick"]:
        raise ValueError("a --quick run measures nothing; write the documentation from a full one")
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no markers {BEGIN} ... {END}")
    page.write_text(f"{before}{begin}\n\n{markdown(document)}\n\n{end}{after}", encoding="utf-8")
