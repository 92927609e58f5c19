"""What tests/conftest.py promises: skips of the real data can be failures, and an open database is not forgotten."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_suite(tmp_path):
    """Run a test file of its own under this suite's conftest and settings; return its output and exit code."""
    suite = tmp_path / "suite" / "tests"
    suite.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "conftest.py", suite)
    shutil.copy(ROOT / "pyproject.toml", suite.parent)

    def run(text: str, **environment: str) -> tuple[int, str]:
        (suite / "test_it.py").write_text(text)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VECDB_", "PYTEST_"))}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider"],
            cwd=suite.parent,
            env={**kept, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        return done.returncode, done.stdout

    return run


NEEDS_DATA = "def test_a(shared_data):\n    assert (shared_data / 'README.md').exists()\n"


def test_without_the_real_data_a_test_skips_and_says_why(run_suite):
    status, said = run_suite(NEEDS_DATA)
    assert status == 0
    assert "1 skipped" in said
    assert "set VECDB_SHARED_DATA to their folder" in said


def test_where_the_real_data_are_required_the_skip_is_a_failure(run_suite):
    status, said = run_suite(NEEDS_DATA, VECDB_REQUIRE_SHARED="1")
    assert status == 1
    assert "although VECDB_REQUIRE_SHARED=1" in said


def test_a_module_that_skips_itself_is_a_failure_there_too(run_suite):
    text = "import pytest\npytest.skip('no data', allow_module_level=True)\n"
    assert run_suite(text)[0] == 5
    status, said = run_suite(text, VECDB_REQUIRE_SHARED="1")
    assert status not in (0, 5)
    assert "skipped as a whole" in said


def test_other_skips_stay_skips(run_suite):
    status, said = run_suite("import pytest\ndef test_a():\n    pytest.skip('why')\n", VECDB_REQUIRE_SHARED="1")
    assert (status, "1 skipped" in said) == (0, True)


def test_the_data_are_found_where_the_variable_says(run_suite, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("here")
    status, said = run_suite(NEEDS_DATA, VECDB_SHARED_DATA=str(tmp_path / "data"), VECDB_REQUIRE_SHARED="1")
    assert (status, "1 passed" in said) == (0, True)


def test_tests_of_the_real_data_can_be_chosen_by_their_mark(run_suite):
    marked = NEEDS_DATA + "def test_mark(request):\n    assert not request.node.get_closest_marker('shared_data')\n"
    status, said = run_suite(marked)
    assert (status, "1 passed, 1 skipped" in said) == (0, True)


FAKE_DATABASE = """
import sys, types
import pytest

class Database:
    def __init__(self, path):
        self.path = path
        self.closed = False
        module._open_databases.append(self)
    def close(self):
        self.closed = True

module = types.ModuleType("vecdb.database")
module._open_databases = []
sys.modules["vecdb.database"] = module

@pytest.fixture(scope="module")
def kept():
    yield Database("kept")

@pytest.fixture
def closed():
    database = Database("closed")
    yield database
    database.close()

def test_leaves_one_open():
    Database("forgotten")

def test_sees_none(kept, closed):
    assert [database.path for database in module._open_databases if not database.closed] == ["kept", "closed"]
"""


def test_a_database_left_open_is_closed_and_fails_its_test_alone(run_suite):
    status, said = run_suite(FAKE_DATABASE)
    assert status == 1
    assert "the test left open: ['forgotten']" in said
    assert "2 passed, 1 error" in said


REAL_DATABASE = """
import gc
import vecdb

def test_drops_one_without_closing_it(tmp_path):
    vecdb.open(tmp_path / "dropped.vecdb")
    gc.collect()

def test_opens_it_again(tmp_path):
    vecdb.open(tmp_path.parent / "test_drops_one_without_closing0" / "dropped.vecdb").close()
"""


def test_a_database_dropped_without_close_is_found_too(run_suite):
    status, said = run_suite(REAL_DATABASE, PYTHONPATH=str(ROOT))
    assert status == 1
    assert "dropped.vecdb" in said
    assert "2 passed, 1 error" in said


def test_warnings_are_errors(run_suite):
    status, said = run_suite("import warnings\ndef test_a():\n    warnings.warn('look')\n")
    assert (status, "UserWarning: look" in said) == (1, True)


def test_kernels_are_kept_apart_from_the_users(run_suite):
    text = "import os\ndef test_a():\n    assert os.environ['VECDB_CACHE_DIR'] == '/kernels'\n"
    assert run_suite(text, VECDB_CACHE_DIR="/kernels")[0] == 0
