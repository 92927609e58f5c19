"""The reference names everything there is, and nothing else; links lead somewhere; every page can be found."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vecdb
from vecdb import errors, hookspecs

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def headings(page: str, level: str) -> list[str]:
    text = re.sub(r"^```.*?^```", "", (REFERENCE / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^{level} (.+)$", text, re.MULTILINE)


def test_the_documentation_agrees_with_the_code_and_itself():
    command = [sys.executable, ROOT / "tools" / "check_docs.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_has_its_heading_and_every_heading_its_name():
    titles = [title for title in headings("api.md", "##") if title != "Words in signatures"]
    assert sorted(titles) == sorted(set(vecdb.__all__) - set(errors.__all__))


def test_every_word_of_the_types_is_in_the_api_page():
    titles = {title.removeprefix("vecdb.types.") for title in headings("api.md", "##") + headings("api.md", "###")}
    assert set(vecdb.types.__all__) <= titles


@pytest.mark.parametrize("cls", [vecdb.Database, vecdb.Collection], ids=lambda cls: cls.__name__)
def test_every_public_member_has_its_heading(cls):
    documented = {
        title.partition(".")[2] for title in headings("api.md", "###") if title.startswith(cls.__name__ + ".")
    }
    assert documented == {name for name in dir(cls) if not name.startswith("_")}


def test_every_error_has_its_row_and_every_row_its_error():
    rows = re.findall(r"^\| `(\w+)` \|", (REFERENCE / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(errors.__all__)


def test_every_command_has_its_heading_and_every_heading_its_command():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import gen_docs
    finally:
        sys.path.remove(str(ROOT / "tools"))
    names = ["vecdb", *(name for name, _ in gen_docs.cli_commands(gen_docs.cli_group()))]
    assert [title for title in headings("cli.md", "##") if title.startswith("vecdb")] == names


def test_every_hook_has_its_heading_and_every_heading_its_hook():
    hooks = [name for name in vars(hookspecs) if name.startswith("vecdb_")]
    assert headings("hooks.md", "##") == hooks


def test_the_examples_of_hooks_are_hooks():
    for name, hook in vars(hookspecs).items():
        if name.startswith("vecdb_"):
            names = {"hookimpl": vecdb.hookimpl}
            for example in doctest.DocTestParser().get_examples(hook.__doc__):
                exec(example.source, names)
            given = inspect.signature(names[name]).parameters
            assert set(given) <= set(inspect.signature(hook).parameters)
            assert hasattr(names[name], "vecdb_impl")


@pytest.mark.parametrize("kind", ["index", "transform", "relevance", "backfill", "importer", "command"])
def test_every_rule_has_its_row_and_every_row_its_check(kind):
    text = (REFERENCE / f"{kind}-contract.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]\d+) \| .+ \| `(check_\w+)` \|$", text, re.MULTILINE)
    checks = importlib.import_module(f"vecdb.testing.{kind}_checks").CHECKS
    assert rows == [(check.number, check.name) for check in checks]
    assert len({check.number for check in checks}) == len(checks) == len({check.name for check in checks})
    assert all(check.sentence.endswith(".") and "|" not in check.sentence for check in checks)


def test_the_rules_of_an_index_are_numbered_without_gaps_in_known_groups():
    module = importlib.import_module("vecdb.testing.index_checks")
    for letter in module.GROUPS:
        numbers = [int(check.number[1:]) for check in module.CHECKS if check.number[0] == letter]
        assert numbers == list(range(1, len(numbers) + 1))
    assert {check.number[0] for check in module.CHECKS} == set(module.GROUPS)


def test_every_rule_that_the_engine_names_is_explained():
    files = [ROOT / "vecdb" / "engine" / name for name in ("border.py", "blobstore.py", "views.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r'(?:_broken|_refuse)\(\s*provided,\s*"([a-z-]+)"', code))
    named |= set(re.findall(r'rule="([a-z-]+)"', code))
    page = (REFERENCE / "index-contract.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", page, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)} - {"rule"}
    assert len(named) > 9
    assert told == named
