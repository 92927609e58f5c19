"""What importing vecdb costs and shows: light, complete, sorted, and every module stands on its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vecdb

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numba", "llvmlite", "lmdb", "msgpack", "xxhash", "pluggy", "importlib.metadata", "click", "rich", "pyarrow")


def modules() -> list[str]:
    names = []
    for path in sorted((ROOT / "vecdb").rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def run_python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=180)


def loaded_by(code: str) -> set[str]:
    done = run_python(f"{code}; import json; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_importing_vecdb_loads_nothing_heavy():
    assert loaded_by("import vecdb") & set(HEAVY) == set()


def test_importing_vecdb_loads_no_room_but_the_words_and_the_facade():
    ours = {name for name in loaded_by("import vecdb") - loaded_by("import numpy") if name.startswith("vecdb.")}
    assert not {name for name in ours if name.split(".")[1] in {"kernels", "cli", "testing", "interchange", "sample"}}


def test_the_search_path_without_numba_really_is_without():
    assert loaded_by("import vecdb.scan_numpy") & {"numba", "llvmlite", "lmdb"} == set()


def test_all_is_sorted_and_equals_the_public_names():
    """Sorted as ruff sorts it: constants, then classes, then functions."""
    names = vecdb.__all__
    assert len(set(names)) == len(names)
    assert list(names) == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    rooms = {path.stem for path in (ROOT / "vecdb").iterdir()}
    public = {name for name in dir(vecdb) if not name.startswith("_")} - rooms
    for_the_types = {"annotations", "Any", "TYPE_CHECKING"}
    assert public - for_the_types == set(names) - rooms


def test_every_name_of_all_is_there():
    for name in vecdb.__all__:
        assert getattr(vecdb, name) is not None, name


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no_such_name"):
        vecdb.no_such_name  # noqa: B018 - the access is the test


def test_the_version_is_that_of_the_project_file():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert vecdb.__version__ == project["version"]


@pytest.mark.parametrize("name", modules())
def test_each_module_imports_alone_with_warnings_as_errors(name):
    done = run_python(f"import {name}", "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_running_the_package_needs_no_installation():
    done = subprocess.run(
        [sys.executable, "-m", "vecdb", "--help"], capture_output=True, text=True, cwd=ROOT, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_the_words_of_exploring_and_judging_come_when_they_are_named():
    """Making their classes would take a tenth of importing numpy."""
    modules = {"vecdb.explored", "vecdb.verdicts"}
    assert not modules & loaded_by("import vecdb")
    assert "vecdb.explored" in loaded_by("import vecdb; vecdb.Feedback")
    assert "vecdb.verdicts" in loaded_by("import vecdb; vecdb.QuerySet")
