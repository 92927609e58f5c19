"""Loading in the background: nobody waits, nothing fails in silence, forks and exits find no work half done."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import pytest

from vecdb.kernels import loader


@pytest.fixture
def fresh(monkeypatch):
    """A loader of the test's own; the process's real one is put back."""
    monkeypatch.setattr(loader, "_loader", loader._Loader())
    monkeypatch.delenv("VECDB_BACKGROUND", raising=False)
    monkeypatch.delenv("VECDB_KERNELS", raising=False)
    yield loader
    if loader._loader.thread is not None and loader._loader.thread.is_alive():
        loader._loader.thread.join(60)


def with_steps(monkeypatch, *steps):
    monkeypatch.setattr(loader, "_load_steps", lambda: iter(steps))


def python(program, **variables):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), **variables)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


# --- in this process --------------------------------------------------------------------------------------


def test_request_returns_at_once_and_wait_sees_the_end(fresh, monkeypatch):
    gate = threading.Event()
    with_steps(monkeypatch, gate.wait)
    assert fresh.wait(0) is False
    fresh.request()
    assert not fresh.ready() and fresh.wait(0.01) is False
    gate.set()
    assert fresh.wait(60) and fresh.ready() and fresh.failure() is None


def test_requests_start_one_thread(fresh, monkeypatch):
    ran = []
    with_steps(monkeypatch, lambda: ran.append(threading.current_thread().name))
    for _ in range(5):
        fresh.request()
    fresh.wait(60)
    fresh.request()
    assert ran == ["vecdb-kernel-loader"]


def test_inline_loading(fresh, monkeypatch):
    monkeypatch.setenv("VECDB_BACKGROUND", "0")
    ran = []
    with_steps(monkeypatch, lambda: ran.append(threading.current_thread()))
    fresh.request()
    assert fresh.ready() and ran == [threading.current_thread()]


def test_switched_off(fresh, monkeypatch):
    monkeypatch.setenv("VECDB_KERNELS", "0")
    fresh.request()
    assert not fresh.enabled() and not fresh.wait(0) and fresh._loader.thread is None
    monkeypatch.delenv("VECDB_KERNELS")
    with_steps(monkeypatch)
    fresh.request()
    assert fresh.wait(60)
    monkeypatch.setenv("VECDB_KERNELS", "0")
    assert not fresh.ready()


@pytest.mark.parametrize("background", ["0", "1"])
def test_a_failure_is_kept_and_logged(fresh, monkeypatch, caplog, background):
    monkeypatch.setenv("VECDB_BACKGROUND", background)

    def broken():
        raise ImportError("numba is broken here")

    with_steps(monkeypatch, broken, lambda: pytest.fail("the step after a failure ran"))
    with caplog.at_level(logging.WARNING, logger="vecdb"):
        fresh.request()
        assert fresh.wait(60) is False
    assert isinstance(fresh.failure(), ImportError)
    assert "numpy answers instead: numba is broken here" in caplog.text
    fresh.request()
    assert not fresh.ready()


def test_a_thread_that_cannot_start_is_a_failure(fresh, monkeypatch, caplog):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with caplog.at_level(logging.WARNING, logger="vecdb"):
        fresh.request()
    assert not fresh.wait(0) and "can't start new thread" in str(fresh.failure())


def test_the_real_kernels_load(fresh):
    fresh.request()
    assert fresh.wait(240), fresh.failure()


def test_warmup_reports_every_kernel_and_its_progress():
    seen = []
    done = loader.warmup(lambda count, total: seen.append((count, total)))
    assert {"canonical.canonical_rows", "exact_scan.scan_blocks"} <= {warmed.kernel for warmed in done}
    assert seen[-1] == (len(done), len(done))
    assert all(warmed.from_cache for warmed in loader.warmup())


# --- forks and exits --------------------------------------------------------------------------------------


def test_a_fork_waits_for_the_step_under_way_and_no_other_starts(fresh, monkeypatch):
    entered, release, second = threading.Event(), threading.Event(), threading.Event()

    def first():
        entered.set()
        release.wait(60)

    with_steps(monkeypatch, first, second.set)
    fresh.request()
    assert entered.wait(60)
    held = threading.Event()

    def fork():
        fresh.before_fork()
        held.set()

    threading.Thread(target=fork).start()
    assert not held.wait(0.05)
    release.set()
    assert held.wait(60)
    # the two may have been served in either order; now that the fork holds the lock nothing is under way
    assert fresh._loader.step.locked()
    fresh.after_fork_in_parent()
    assert fresh.wait(60) and second.is_set()


def test_a_child_forked_while_loading_starts_anew(fresh, monkeypatch):
    gate = threading.Event()
    with_steps(monkeypatch, lambda: None, gate.wait, lambda: None)
    fresh.request()
    before = fresh._loader
    monkeypatch.setattr(loader, "_reset_kernel_locks", lambda: None)
    fresh.after_fork_in_child()
    assert fresh._loader is not before and fresh._loader.thread is None
    gate.set()
    before.thread.join(60)
    with_steps(monkeypatch)
    fresh.request()
    assert fresh.wait(60)


def test_a_child_keeps_what_was_loaded(fresh, monkeypatch):
    with_steps(monkeypatch)
    fresh.request()
    assert fresh.wait(60)
    fresh.before_fork()
    fresh.after_fork_in_child()
    assert fresh.ready()
    fresh.before_fork()
    fresh.after_fork_in_parent()


@pytest.mark.crash
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_real_forks_at_random_moments_of_loading():
    program = """
import os, sys, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.kernels import loader
os.register_at_fork(before=loader.before_fork, after_in_parent=loader.after_fork_in_parent,
                    after_in_child=loader.after_fork_in_child)
rows = np.eye(64, dtype=np.float32)
blocks = VectorBlocks.from_parts("cosine", 64, [rows])
loader.request()
for pause in (0.0, 0.05, 0.2, 0.4):
    time.sleep(pause)
    child = os.fork()
    if child == 0:
        found, facts = exact.search(blocks, rows[:1], 1, path="numba")
        os._exit(0 if found[0][0][0] == 0 and facts.path == "numba" else 1)
    assert os.waitpid(child, 0)[1] == 0
assert loader.wait(200), loader.failure()
assert exact.search(blocks, rows[:1], 1)[1].path == "numba"
"""
    ran = python(program)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_a_program_that_ends_while_loading_ends_cleanly(tmp_path, pause):
    program = f"import time\nfrom vecdb.kernels import loader\nloader.request()\ntime.sleep({pause})\n"
    ran = python(program, VECDB_CACHE_DIR=str(tmp_path))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_importing_the_package_loads_no_numba():
    ran = python(
        "import sys\nimport vecdb.kernels, vecdb.kernels.loader, vecdb.kernels.bounds, vecdb.kernels.reference\n"
        "assert not {'numba', 'llvmlite'} & set(sys.modules)\n"
    )
    assert ran.returncode == 0, ran.stderr


def test_numba_that_cannot_be_imported_leaves_numpy_answering(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('no numba for this machine')\n")
    program = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
import numpy as np
from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.kernels import loader
loader.request()
assert not loader.wait() and isinstance(loader.failure(), ImportError)
rows = np.eye(8, dtype=np.float32)
found, facts = exact.search(VectorBlocks.from_parts("cosine", 8, [rows]), rows[:2], 1)
assert facts.path == "numpy" and found[1][0][0] == 1
"""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "vecdb WARNING compiled kernels could not be loaded" in ran.stdout
