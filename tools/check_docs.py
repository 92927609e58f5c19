"""Compare the documentation with the code and with itself.

Generated parts are up to date, public things have docstrings, relative links lead somewhere, every page can be
reached from docs/index.md, and docs/reference/config.md names exactly the environment variables that are read.
That the examples run is a test (tests/docs).

Usage: python tools/check_docs.py
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import gen_docs

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(r"\bVECDB_[A-Z_]+\b")


def pages(root: Path = ROOT) -> list[Path]:
    """Return every Markdown page that is for readers."""
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return found + sorted((root / "tools").glob("*.md")) + sorted((root / "plugins").rglob("*.md"))


def links(text: str) -> Iterator[str]:
    """Yield the targets of a page's links, code left out."""
    yield from _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the names that headings of a page can be linked by."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_links(path: Path, text: str, root: Path = ROOT) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    problems = []
    for target in links(text):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        goal = (path.parent / place).resolve() if place else path
        name = path.relative_to(root).as_posix()
        if not goal.exists():
            problems.append(f"{name}: the link {target} leads nowhere")
        elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text(encoding="utf-8")):
            problems.append(f"{name}: {place or 'the page'} has no heading #{anchor}")
    return problems


def check_reachable(root: Path = ROOT) -> list[str]:
    """Return the pages under docs/ that no chain of links from docs/index.md reaches."""
    seen, waiting = set[Path](), [root / "docs" / "index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        targets = (target.partition("#")[0] for target in links(page.read_text(encoding="utf-8")))
        waiting += [page.parent / target for target in targets if target.endswith(".md") and ":" not in target]
    lost = [page for page in sorted((root / "docs").rglob("*.md")) if page.resolve() not in seen]
    return [f"{page.relative_to(root).as_posix()}: docs/index.md does not lead here" for page in lost]


def check_variables(root: Path = ROOT) -> list[str]:
    """Return environment variables that are read and not documented, or the reverse."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((root / "vecdb").rglob("*.py")))
    code += (root / "tests" / "conftest.py").read_text(encoding="utf-8")
    read = set(_VARIABLE.findall(code))
    written = set(_VARIABLE.findall((root / "docs" / "reference" / "config.md").read_text(encoding="utf-8")))
    return [
        *(f"docs/reference/config.md does not mention {name}, which the code reads" for name in sorted(read - written)),
        *(f"docs/reference/config.md mentions {name}, which nothing reads" for name in sorted(written - read)),
    ]


def check_docstrings() -> list[str]:
    """Return public names and members without a docstring."""
    vecdb = importlib.import_module("vecdb")
    bare = []
    for name in vecdb.__all__:
        thing = getattr(vecdb, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        bare += [name] if not inspect.getdoc(thing) else []
        if inspect.isclass(thing):
            bare += [
                f"{name}.{member}" for member, value in gen_docs.public_members(thing) if not inspect.getdoc(value)
            ]
    return [f"vecdb.{name} has no docstring" for name in bare]


def main() -> int:
    """Print every problem; the exit code is 1 if there is one."""
    sys.path.insert(0, str(ROOT))
    problems = [problem for path in pages() for problem in check_links(path, path.read_text(encoding="utf-8"))]
    problems += check_reachable() + check_variables() + check_docstrings()
    print("\n".join(problems) if problems else f"docs: {len(pages())} pages agree with the code and each other")
    stale = gen_docs.main(["--check"])
    return 1 if problems or stale else 0


if __name__ == "__main__":
    sys.exit(main())
