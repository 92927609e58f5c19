"""The tutorial on index plugins: a package made of nothing but its blocks is installed, checked and used.

The blocks of one file, one behind the other, are that file of plugins/vecdb-template, so that neither can go stale.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tutorials/your-first-index-plugin.md").read_text(encoding="utf-8")
TEMPLATE = ROOT / "plugins/vecdb-template"
BLOCK = r"```\w+\n(?P<text>.*?)^```$"
FILE = re.compile(rf"<!-- (?:file: |not run: part of )(?P<path>[\w./-]+)[^>]*-->\n{BLOCK}", re.M | re.S)
USE = re.compile(rf"<!-- not run: needs the package[^>]*-->\n{BLOCK}", re.M | re.S)
RUN = re.compile(rf"<!-- run: vecdb -->\n{BLOCK}", re.M | re.S)


def files() -> dict[str, str]:
    """Put the files of the page together; a blank line between two blocks."""
    found: dict[str, list[str]] = {}
    for match in FILE.finditer(PAGE):
        found.setdefault(match["path"], []).append(match["text"])
    return {path: "\n".join(parts) for path, parts in found.items()}


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_the_page_holds_the_template():
    made = files()
    there = {path.relative_to(TEMPLATE).as_posix() for path in TEMPLATE.rglob("*.*") if "__pycache__" not in path.parts}
    assert there - set(made) == {"src/vecdb_template/py.typed"}
    for path, text in made.items():
        if path != "README.md":  # the page writes a shorter one
            assert lines(text) == lines((TEMPLATE / path).read_text(encoding="utf-8")), path


def test_the_template_is_short():
    code = [lines(path.read_text(encoding="utf-8")) for path in (TEMPLATE / "src").rglob("*.py")]
    assert sum(map(len, code)) < 80
    assert len((TEMPLATE / "tests/test_conformance.py").read_text(encoding="utf-8").splitlines()) < 10


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Write the package of the page, and install it where nothing else is, without the network."""
    pytest.importorskip("hatchling")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this environment has no pip")
    package, target = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    for path, text in files().items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(text, encoding="utf-8")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    run([sys.executable, "-m", "pip", "install", *offline, "--target", str(target), "."], package, target)
    return package, target


def run(command, folder, target, **changed):
    """Run a command that sees the installed package and this checkout; return what it printed."""
    path = os.pathsep.join([str(target), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "PIP_ROOT_USER_ACTION": "ignore", **changed}
    environment.pop("VECDB_PLUGINS", None) if "VECDB_PLUGINS" not in changed else None
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_installed_package_does_what_the_page_says(installed, tmp_path):
    _, target = installed
    (use,) = (match["text"] for match in USE.finditer(PAGE))
    first, second = run([sys.executable, "-c", use], tmp_path, target).splitlines()
    assert first.count("'") == 6 and second == "True"
    said = {}
    for command in "".join(match["text"] for match in RUN.finditer(PAGE)).splitlines():
        changed = {"VECDB_PLUGINS": ""} if command.startswith('VECDB_PLUGINS=""') else {}
        words = command.removeprefix('VECDB_PLUGINS="" ').split()
        assert words[0] == "vecdb"
        said[command] = run([sys.executable, "-m", "vecdb", *words[1:]], tmp_path, target, **changed)
    plugins, checked, listed, _, missing = said.values()
    assert "template.lists" in plugins and "vecdb-template" in plugins
    (verdict,) = re.findall(r"^index type template\.lists .* keeps its contract: \d+ checked$", checked, re.M)
    shown = re.sub(r"\d+ checked", "N checked", PAGE)  # a rule more changes no page
    assert re.sub(r"\d+ checked", "N checked", verdict) in shown, "the page shows another last line of check-plugin"
    assert "template.lists" in listed and "not available" not in listed
    assert "template.lists" in missing and "vecdb-template" in missing


@pytest.mark.slow
def test_its_test_file_passes(installed):
    package, target = installed
    said = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], package, target)
    assert " passed" in said
