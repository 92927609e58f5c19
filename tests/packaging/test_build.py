"""The wheel holds the package, its types and its sample, and nothing else; the sdist holds what the tests need."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = {path.name for path in (ROOT / "vecdb" / "sample").iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both distributions once, with the build backend itself and without the network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def wheel_names(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_the_types_and_the_sample(built):
    names = wheel_names(built)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vecdb").rglob("*.py")}
    assert modules <= names
    assert "vecdb/py.typed" in names
    assert {f"vecdb/sample/{name}" for name in SAMPLE} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_nothing_else(built):
    assert {name.split("/")[0] for name in wheel_names(built)} == {"vecdb", "vecdb-0.1.0.dist-info"}
    assert not [name for name in wheel_names(built) if "__pycache__" in name]


def test_the_wheel_stays_small(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < 4_000_000


def test_the_wheel_works_from_where_it_is_put(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import vecdb, vecdb.sample; "
        "assert vecdb.__file__.startswith(sys.path[0]), vecdb.__file__; "
        "db = vecdb.open('new.vecdb'); print(db.collections()); db.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_sdist_holds_what_is_needed_to_build_and_test(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/conftest.py", "tools/check.sh", "docs/index.md"} <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "vecdb").rglob("*.py")} <= names
    assert not [name for name in names if name.split("/")[0] in {".git", ".venv", "dist", ".pytest_cache"}]
