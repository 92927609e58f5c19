"""Plugins on the command line: their commands and importers, from a distribution on disk, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "tests" / "packaging" / "site"
WARNING = "vecdb: warning: plugin 'acme-broken' (acme 0.1) cannot be imported: RuntimeError"


def vecdb(*words, plugins="acme-tools,acme-broken", cwd=None):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SITE)]), "VECDB_PLUGINS": plugins}
    command = [sys.executable, "-m", "vecdb", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd, timeout=120)


def test_the_help_lists_commands_of_plugins_and_names_the_plugin_that_fails_once():
    done = vecdb("--help")
    assert done.returncode == 0
    assert "acme-greet" in done.stdout and "Greet somebody." in done.stdout and "search" in done.stdout
    assert done.stderr.count(WARNING) == 1


def test_a_command_of_a_plugin_runs():
    done = vecdb("acme-greet", "Ada")
    assert (done.returncode, done.stdout) == (0, "hello Ada\n")
    assert vecdb("acme-greet").returncode == 2


def test_a_command_that_fails_names_its_plugin():
    done = vecdb("acme-fail")
    assert done.returncode == 8
    assert "command 'acme-fail' of plugin 'acme-tools' (acme 0.1) failed: KeyError: 'lost'" in done.stderr


@pytest.mark.parametrize("words", [("import", "--help"), ("search", "--help"), ("--version",)])
def test_commands_of_vecdb_load_no_plugin(words):
    done = vecdb(*words)
    assert done.returncode == 0 and done.stderr == ""


def test_without_plugins_their_commands_are_unknown():
    done = vecdb("acme-greet", "Ada", plugins="")
    assert done.returncode == 2 and "No such command 'acme-greet'" in done.stderr


def test_a_file_that_a_plugin_reads_is_imported(tmp_path):
    (tmp_path / "a.csv").write_text("a,1,2\nb,3,4\n")
    done = vecdb(
        "import", "x.vecdb", "docs", "a.csv", "--param", "space=here", "--metric", "l2", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) | {"seq": 0} == {
        **{"rows": 2, "inserted": 2, "updated": 0, "resumed": 0, "seq": 0},
        **{"records": 2, "spaces": {"here": 2}},
    }
    (tmp_path / "a.txt").write_text("c,1,2\n")
    done = vecdb(
        "import", "x.vecdb", "docs", "a.txt", "--format", "acme.csv", "--vectors", "here=@points", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "3 records" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("a.txt",), 4, "a.txt is not a file of records"),
        (("a.txt", "--format", "acme.tsv"), 3, "there is no importer 'acme.tsv'"),
        (("a.csv", "--param", "bold=perhaps"), 2, "parameter 'bold' of importer 'acme.csv' is 'perhaps'"),
        (("a.csv", "--param", "size=1"), 2, "has no parameter 'size'"),
        (("a.csv", "--param", "size"), 2, "'size' is not"),
        (("--param", "bold=true", "--vectors", "x=a.npy"), 2, "--param is for an importer"),
        (("none.csv",), 3, "none.csv"),
    ],
)
def test_what_cannot_be_imported_is_said_before_a_database_is_made(tmp_path, words, code, said):
    (tmp_path / "a.csv").write_text("a,1,2\n")
    (tmp_path / "a.txt").write_text("a,1,2\n")
    done = vecdb("import", "x.vecdb", "docs", *words, cwd=tmp_path)
    assert done.returncode == code and said in done.stderr, done.stderr
    assert not (tmp_path / "x.vecdb").exists()


def test_the_kit_checks_the_plugin_on_the_command_line():
    done = vecdb("check-plugin", "acme.csv")
    assert "check_ids_are_ids" in done.stdout, done.stderr
