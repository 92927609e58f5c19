"""Settings of every test: Hypothesis profiles, the kernel cache, the real data sets, and databases left open."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before numpy is loaded: threads of a BLAS wait for each other by spinning, and those of several test processes on few
# cores hold each other up for seconds, in the middle of a read that keeps pages of the file from being used again.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")

ROOT = Path(__file__).resolve().parent.parent
REQUIRE_SHARED = os.environ.get("VECDB_REQUIRE_SHARED") == "1"

# No deadlines: the machine is shared, and no test asserts a wall-clock time.
_COMMON = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow], "print_blob": True}
hypothesis.settings.register_profile("dev", max_examples=60, **_COMMON)
hypothesis.settings.register_profile("ci", max_examples=100, derandomize=True, **_COMMON)
hypothesis.settings.register_profile("nightly", max_examples=2_000, **_COMMON)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile, and keep compiled kernels between runs, apart from those of the user."""
    profile = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
    hypothesis.settings.load_profile(profile)
    if getattr(config, "cache", None) is not None:  # workers of pytest-xdist inherit the variable from here
        os.environ.setdefault("VECDB_CACHE_DIR", str(config.cache.mkdir("vecdb-kernels")))


# --- real data --------------------------------------------------------------------------------------------


def _shared_data() -> Path:
    return Path(os.environ.get("VECDB_SHARED_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; the test is skipped, visibly, where it is missing."""
    folder = _shared_data()
    if not (folder / "README.md").is_file():
        pytest.skip("the real data sets are not here; set VECDB_SHARED_DATA to their folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for the real data is marked as such, whether or not its author remembered."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("shared_data")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With VECDB_REQUIRE_SHARED=1 a test of the real data that skips has failed."""
    report = yield
    if REQUIRE_SHARED and report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("shared_data"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped although VECDB_REQUIRE_SHARED=1: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """With VECDB_REQUIRE_SHARED=1 no module of tests may skip itself as a whole: its marks could not be seen."""
    report = yield
    if REQUIRE_SHARED and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skipped as a whole although VECDB_REQUIRE_SHARED=1: {report.longrepr}"
    return report


# --- databases left open ----------------------------------------------------------------------------------


def _open_databases() -> list[Any]:
    """Return the databases open in this process, if vecdb was imported at all."""
    module = sys.modules.get("vecdb.database")
    return [] if module is None else [database for database in list(module._open_databases) if not database.closed]


def _open_stores() -> list[Any]:
    """Return the open files behind them: they stay if a database is dropped without being closed."""
    module = sys.modules.get("vecdb.storage.handles")
    return [] if module is None else list(module._stores.values())


def _added(before: list[Any], after: list[Any]) -> list[Any]:
    return [thing for thing in after if not any(thing is known for known in before)]


@pytest.fixture(autouse=True)
def no_database_left_open() -> Iterator[None]:
    """Close what a test left open, and say so: an open handle holds locks that the next test would wait for."""
    databases, stores = _open_databases(), _open_stores()
    yield
    left = _added(databases, _open_databases())
    for database in left:
        database.close()
    dropped = _added(stores, _open_stores())
    for store in dropped:
        while any(store is one for one in _open_stores()):
            sys.modules["vecdb.storage.handles"].release(store)
    if left or dropped:
        paths = sorted({str(database.path) for database in left} | {str(store.path) for store in dropped})
        pytest.fail(f"the test left open: {paths}", pytrace=False)


# --- indexes ----------------------------------------------------------------------------------------------


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make databases with types of indexes (`tests.indextypes.Case`), asked where a scan would be quicker."""
    from tests.indextypes import Case
    from vecdb.engine import indexed

    monkeypatch.setenv("VECDB_KERNELS", "0")
    monkeypatch.setattr(indexed, "SCAN_BELOW", 0)
    made: list[Case] = []

    def make(*types: Any, **options: Any) -> Case:
        made.append(Case(tmp_path / f"{len(made)}.vecdb", *types, **options))
        return made[-1]

    yield make
    for each in made:
        each.db.close()
