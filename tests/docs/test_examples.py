"""Every Python block of README.md and docs/ runs, page by page, top to bottom, in an empty folder.

A page is one session: its blocks share their names. Blocks with ``>>>`` are compared with the output they show, the
others are run as they stand. A block is left out only by a comment right above it that says why:
``<!-- not run: reason -->``.
"""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import vecdb

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "plugins").rglob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]*?) -->\s*\n)?^```python[^\n]*\n(?P<code>.*?)^```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(text: str) -> list[tuple[int, str, str | None]]:
    """Cut the Python blocks out of a page: first line, code, and the reason not to run it."""
    return [
        (text.count("\n", 0, match.start("code")) + 1, match["code"], match["reason"]) for match in FENCE.finditer(text)
    ]


def run_block(code: str, names: dict[str, object], where: str, line: int) -> None:
    if ">>>" not in code:
        exec(compile("\n" * (line - 1) + code, where, "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(code, names, where, where, line - 1)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    runner.run(test, out=said.append, clear_globs=False)
    names.update(test.globs)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def run_page(text: str, where: str) -> int:
    """Run the blocks of a page in one namespace; return how many ran."""
    names: dict[str, object] = {"__name__": "__main__"}
    todo = [(line, code) for line, code, reason in blocks(text) if reason is None]
    for line, code in todo:
        run_block(code, names, where, line)
    return len(todo)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_examples_of_the_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_block_left_out_says_why(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("```python") == len(blocks(text)), "a Python block is not closed, or indented"
    for line, _, reason in blocks(text):
        assert reason is None or len(reason.strip()) > 10, f"line {line}: the reason is missing"


def documented_objects():
    for name in sorted(vecdb.__all__):
        thing = getattr(vecdb, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        yield name, thing
        if inspect.isclass(thing):
            members = [(key, value) for key, value in vars(thing).items() if not key.startswith("_")]
            yield from ((f"{name}.{key}", value) for key, value in members if inspect.getdoc(value))


EXAMPLES = [(name, thing) for name, thing in documented_objects() if ">>>" in (inspect.getdoc(thing) or "")]


@pytest.mark.parametrize(("name", "thing"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_examples_of_docstrings_run(name, thing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_block(inspect.getdoc(thing), {"vecdb": vecdb}, name, 1)


# --- the runner itself ------------------------------------------------------------------------------------


def test_blocks_share_a_session_and_outputs_are_compared():
    page = "```python\nx = 2\n```\ntext\n```python\n>>> x + 1\n3\n>>> y = x\n```\n```python\nassert y == 2\n```\n"
    assert run_page(page, "page") == 3


def test_a_wrong_output_is_reported():
    with pytest.raises(AssertionError, match=r"Expected:\s+3"):
        run_page("```python\n>>> 1 + 1\n3\n```\n", "page")


def test_an_error_in_a_script_block_is_reported_with_its_line():
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("text\n\n```python\nx = 1\nx / 0\n```\n", "page")
    assert caught.traceback[-1].lineno + 1 == 5


def test_only_a_written_reason_leaves_a_block_out():
    page = "<!-- not run: needs a model that is not installed -->\n```python\nraise SystemExit\n```\n"
    assert run_page(page, "page") == 0
    assert [reason for _, _, reason in blocks(page)] == ["needs a model that is not installed"]
