"""An HTML page that is complete in itself: style inside, no script, and a policy that forbids it to load anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vecdb.drawing.words import safe

__all__ = ["document", "figure", "listed", "table"]

_LIGHT = ("#2b6cb0", "#b7470f", "#22733f", "#6b46c1", "#946200", "#a3246b", "#3d4852")
_DARK = ("#7db8ee", "#f39a63", "#6fcf97", "#b79cf2", "#e0b34d", "#ee8abf", "#b8c2cc")


def _colours(values: Sequence[str]) -> str:
    return " ".join(f"--c{place}: {value};" for place, value in enumerate(values))


_SERIES = "\n".join(
    f".s{n} {{ stroke: var(--c{n}); }} .f{n} {{ fill: var(--c{n}); }} .t{n} {{ fill: var(--c{n}); }} "
    f".a{n} {{ fill: var(--c{n}); fill-opacity: .14; }} "
    f".o{n} {{ fill: var(--ground); stroke: var(--c{n}); stroke-width: 1.6; }}"
    for n in range(len(_LIGHT))
)
STYLE = f"""
:root {{ color-scheme: light dark; --ground: #fff; --ink: #1c2330; --muted: #4a5566; --grid: #dde3ea; --line: #6b7686;
  --panel: #eef4fb; --mark: #2b6cb0; {_colours(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #14181f; --ink: #e8ecf2; --muted: #aab4c2; --grid: #2c3542;
  --line: #8d99a8; --panel: #1d2735; --mark: #7db8ee; {_colours(_DARK)} }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--ground); color: var(--ink); overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.25rem; margin-top: 2.4rem; border-top: 1px solid var(--grid);
  padding-top: 1.2rem; }} h3 {{ font-size: 1.05rem; margin: 1.4rem 0 .3rem; }}
a {{ color: var(--mark); }}
.verdict, .remarks {{ border-left: 6px solid var(--mark); background: var(--panel); padding: .6rem 1rem;
  margin: 1rem 0; }}
.verdict b {{ font-size: 1.3rem; }} .remarks ul {{ margin: 0; padding-left: 1.1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; color: var(--muted); padding: .2rem 0; }}
th, td {{ padding: .2rem .9rem .2rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--grid);
  font-weight: normal; overflow-wrap: normal; }}
thead th {{ font-weight: 600; }} th:first-child, td:first-child, .words td, .words th {{ text-align: left; }}
.figures {{ display: flex; flex-wrap: wrap; gap: .6rem 1.6rem; }}
figure {{ margin: .5rem 0; max-width: 29rem; }} figcaption {{ font-size: .87rem; color: var(--muted); }}
svg {{ max-width: 100%; height: auto; font: 11px system-ui, sans-serif; }}
svg text {{ stroke: none; }} .muted {{ fill: var(--muted); }} .ink {{ fill: var(--ink); }}
.grid {{ stroke: var(--grid); }} .line {{ stroke: var(--line); }} .band {{ fill: var(--line); fill-opacity: .16; }}
.speck {{ fill: var(--line); fill-opacity: .55; }}
{_SERIES}
"""


def document(title: str, body: Iterable[str]) -> str:
    """Return a page; `title` is plain text, `body` is HTML whose words are safe already."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{safe(title)}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>"
    )


def figure(picture: str, caption: str) -> str:
    """Return a picture with its caption, plain text."""
    return f"<figure>{picture}<figcaption>{safe(caption)}</figcaption></figure>"


def table(rows: Sequence[Sequence[object]], *, caption: str = "", words: bool = False) -> str:
    """Return a table whose first row holds the names of the columns; `words` sets all columns to the left."""
    head, *rest = rows
    kind = ' class="words"' if words else ""
    lines = ["<thead><tr>" + "".join(f'<th scope="col">{safe(cell)}</th>' for cell in head) + "</tr></thead><tbody>"]
    lines += ["<tr>" + "".join(f"<td>{safe(cell)}</td>" for cell in row) + "</tr>" for row in rest]
    said = f"<caption>{safe(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table{kind}>{said}' + "".join(lines) + "</tbody></table></div>"


def listed(sentences: Iterable[str], kind: str = "") -> str:
    """Return a list of sentences, nothing where there are none."""
    items = "".join(f"<li>{safe(sentence)}</li>" for sentence in sentences)
    if not items:
        return ""
    return f'<div class="{kind}"><ul>{items}</ul></div>' if kind else f"<ul>{items}</ul>"
