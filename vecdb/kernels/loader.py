"""Brings numba and the compiled kernels of exact search into the process without making anyone wait.

One background thread imports numba and loads or compiles the kernels step by step; until it is done, and for good if
it fails, the numpy path answers. Invariants: importing this module does not import numba; a failure is logged once
and kept for `failure`, never swallowed; no step is under way while the process forks or after the main thread ended.

``VECDB_BACKGROUND=0`` loads inline in `request`; ``VECDB_KERNELS=0`` keeps numba out of the process.
Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vecdb.types import Progress

if TYPE_CHECKING:
    from vecdb.kernels._jit import Warmed

__all__ = [
    "after_fork_in_child",
    "after_fork_in_parent",
    "before_fork",
    "enabled",
    "failure",
    "loaded",
    "ready",
    "request",
    "wait",
    "wait_briefly",
    "warmup",
]

SEARCH_MODULES = (
    "canonical",
    "exact_scan",
    "half",
    "screen",
    "code_scan",
    "code_queries",
    "list_scan",
    "code_refine",
    "candidates",
    "graph_search",
)
"""Modules of `vecdb.kernels` whose kernels searches need, the warning of foreign queries included."""


def _load_steps() -> Iterator[Callable[[], object]]:
    """Yield the work in pieces; each later piece is made only when the earlier ones are done."""
    yield lambda: importlib.import_module("numba")
    yield _refuse_interpreted
    yield lambda: importlib.import_module("vecdb.kernels.nominate")
    yield lambda: importlib.import_module("vecdb.kernels.screen")
    yield lambda: importlib.import_module("vecdb.kernels.code_scan")
    yield lambda: importlib.import_module("vecdb.kernels.list_scan")
    yield lambda: importlib.import_module("vecdb.kernels.code_refine")
    yield lambda: importlib.import_module("vecdb.kernels.candidates")
    yield lambda: importlib.import_module("vecdb.kernels.graph_search")
    kernels = importlib.import_module("vecdb.kernels._jit").KERNELS
    for declared in list(kernels.values()):
        if declared.name.partition(".")[0] in SEARCH_MODULES:
            yield declared.prepare


def _refuse_interpreted() -> None:
    if importlib.import_module("numba.core.config").DISABLE_JIT:
        raise RuntimeError("NUMBA_DISABLE_JIT is set: kernels would run as plain Python, slower than numpy")


_PATIENCE = 2.0
"""Seconds that searches of a process wait for kernels altogether: compiled ones are loaded in a quarter of that."""


class _Loader:
    """The state of loading in this process."""

    def __init__(self) -> None:
        self.guard = threading.Lock()  # decides who starts
        self.step = threading.Lock()  # held during each step; before_fork waits for it
        self.finished = threading.Event()
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.ready = False
        self.patience = _PATIENCE

    def request(self, background: bool) -> None:
        with self.guard:
            if self.thread is not None or self.finished.is_set():
                return
            self.thread = threading.Thread(target=self.run, name="vecdb-kernel-loader", daemon=False)
        if not background:
            self.run()
            return
        try:
            self.thread.start()
        except RuntimeError as error:  # the interpreter is shutting down, or the system has no thread left
            self.fail(error)

    def run(self) -> None:
        """Work through the steps, giving up between two of them when the program ends."""
        steps = _load_steps()
        try:
            while threading.main_thread().is_alive():
                with self.step:
                    step = next(steps, None)
                    if step is None:
                        self.ready = True
                        break
                    step()
        except Exception as error:
            self.fail(error)
        finally:
            self.finished.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        import logging  # a process that only asks once does without

        log = logging.getLogger("vecdb")
        log.warning("compiled kernels could not be loaded; numpy answers instead: %s", error, exc_info=error)
        self.finished.set()


_loader = _Loader()


def enabled() -> bool:
    """Return False if ``VECDB_KERNELS=0`` keeps numba out of the process."""
    return os.environ.get("VECDB_KERNELS") != "0"


def request() -> None:
    """See to it that the kernels get loaded; returns at once, unless ``VECDB_BACKGROUND=0``."""
    if enabled():
        _loader.request(background=os.environ.get("VECDB_BACKGROUND") != "0")


def ready() -> bool:
    """Return whether compiled exact search can be called without waiting."""
    return _loader.ready and enabled()


def loaded() -> bool:
    """Return whether the kernels are in this process; `ready` also asks whether they are switched off meanwhile."""
    return _loader.ready


def loading() -> bool:
    """Return whether a loading was requested and has not ended, well or badly."""
    return _loader.thread is not None and not _loader.finished.is_set()


def wait(timeout: float | None = None) -> bool:
    """Wait until a requested loading has ended, well or badly; return `ready`.

    Parameters
    ----------
    timeout : float, optional
        Seconds; default without limit. Returns at once if nothing was requested.
    """
    if _loader.thread is not None:
        _loader.finished.wait(timeout)
    return ready()


def wait_briefly() -> bool:
    """Wait for a requested loading, all callers of this process together two seconds; return `ready`.

    For work that would take longer without the kernels than loading them does, unless they have to be compiled first.
    """
    began = time.monotonic()
    if _loader.patience > 0 and _loader.thread is not None:
        _loader.finished.wait(_loader.patience)
        _loader.patience -= time.monotonic() - began  # a lost update between threads waits once more
    return ready()


def failure() -> BaseException | None:
    """Return the error that ended loading, or None."""
    return _loader.error


def warmup(progress: Progress | None = None) -> list[Warmed]:
    """Compile every kernel now, or load it from the cache, so that no later process has to wait for the compiler.

    Parameters
    ----------
    progress : callable, optional
        Called as ``progress(done, total)`` after each kernel.

    Returns
    -------
    list of Warmed
        Per kernel: its name, the seconds it took, and whether it came from the cache.

    Raises
    ------
    ImportError
        If numba cannot be imported.
    """
    from vecdb.kernels import _jit  # imports numba, which this module does not

    done = _jit.warmup(progress)
    if enabled():
        _loader.request(background=False)  # all of it is loaded: searches may use it at once
    return done


def before_fork() -> None:
    """Let the step under way end (at most one compilation) and allow no other until after the fork."""
    _loader.step.acquire()


def after_fork_in_parent() -> None:
    """Let loading go on."""
    _loader.step.release()


def after_fork_in_child() -> None:
    """Keep what is loaded; if the thread was still at work it is gone here, so the next `request` starts anew."""
    global _loader
    parent = _loader
    if parent.finished.is_set():
        parent.step = threading.Lock()
        parent.guard = threading.Lock()
    else:
        _loader = _Loader()
    _reset_kernel_locks()


def _reset_kernel_locks() -> None:
    """A thread that was compiling when the process forked holds its kernel's lock for ever in the child."""
    jit = sys.modules.get("vecdb.kernels._jit")
    for declared in list(getattr(jit, "KERNELS", {}).values()):
        declared.reset_lock()
