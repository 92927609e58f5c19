"""Types reach the user: an application that is right passes mypy --strict, one that is wrong is told where."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
EXPECTED = re.compile(r"#\s*error: \[([\w-]+)\]")


@pytest.fixture(scope="module")
def complaints(tmp_path_factory, request):
    """What mypy says of both applications: file -> {(line, code)}."""
    cache = request.config.cache.mkdir("mypy-apps") if request.config.cache else tmp_path_factory.mktemp("mypy")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(cache),
        "--config-file",
        str(APPS / "mypy.ini"),
    ]
    done = subprocess.run(
        [*command, str(APPS / "right.py"), str(APPS / "wrong.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, set[tuple[int, str]]] = {"right.py": set(), "wrong.py": set()}
    for path, line, code in re.findall(r"^(.+?):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE):
        found[Path(path).name].add((int(line), code))
    return found


def test_a_right_application_type_checks(complaints):
    assert complaints["right.py"] == set()


def test_wrong_calls_are_flagged_where_they_stand(complaints):
    lines = (APPS / "wrong.py").read_text(encoding="utf-8").splitlines()
    expected = {(place, match[1]) for place, line in enumerate(lines, 1) if (match := EXPECTED.search(line))}
    assert expected
    assert complaints["wrong.py"] == expected


def test_the_right_application_also_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, str(APPS / "right.py"), str(tmp_path / "news.vecdb")],
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a ")
