"""How vecdb's kernels are declared and compiled: one decorator, one set of flags, one registry.

Invariant: a kernel is compiled for its declared signatures and no others. They are data until the first call, so
importing a kernel module compiles nothing; after that call a stray dtype or layout is a TypeError, never a silent
compilation. Inputs are typed read-only, which accepts writable arrays too (a memory map is read-only).
Design: docs/contributing/kernels.md.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast

import numba
from numba import types
from numba.core import config

from vecdb.kernels._cache import KernelCache, prune
from vecdb.types import Progress

__all__ = [
    "FASTMATH",
    "KERNELS",
    "Kernel",
    "Warmed",
    "helper",
    "inline_helper",
    "kernel",
    "read",
    "strict_helper",
    "warmup",
    "write",
]

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
"""Flags of every kernel that only nominates. Never ``True``: its nnan makes NaN checks disappear."""

P = ParamSpec("P")
R = TypeVar("R")
Signature: TypeAlias = tuple[Any, ...]

KERNELS: dict[str, Kernel[Any, Any]] = {}
"""Every declared kernel by ``"module.function"``."""


def read(scalar: Any, axes: int = 1) -> Any:
    """Type of an input: C-contiguous, not written to."""
    return types.Array(scalar, axes, "C", readonly=True)


def write(scalar: Any, axes: int = 1) -> Any:
    """Type of an output or scratch array."""
    return types.Array(scalar, axes, "C")


@dataclass(frozen=True, slots=True)
class Warmed:
    """What `warmup` did for one kernel.

    Attributes
    ----------
    kernel : str
    seconds : float
    from_cache : bool
        True if nothing had to be compiled.
    """

    kernel: str
    seconds: float
    from_cache: bool


class Kernel(Generic[P, R]):
    """A function, its declared signatures, and its compiled form once it was needed.

    Attributes
    ----------
    name : str
        ``"module.function"``.
    signatures : tuple of tuples of numba types
    twin : callable
        The numpy function that says what this one computes.
    python : callable
        The source function.
    strict : bool
        Compiled without fast-math: results have the same bits on every machine.
    """

    def __init__(
        self, python: Callable[P, R], signatures: tuple[Signature, ...], twin: Callable[..., Any], strict: bool
    ) -> None:
        self.name = f"{python.__module__.rpartition('.')[2]}.{python.__name__}"
        self.signatures = signatures
        self.twin = twin
        self.python = python
        self.strict = strict
        self.__doc__ = python.__doc__
        self._compiled: Any = None
        self._lock = threading.Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._compiled is None:
            self.prepare()
        return cast("R", self._compiled(*args, **kwargs))

    def prepare(self) -> bool:
        """Load or compile every declared signature; return True if none had to be compiled."""
        with self._lock:
            if self._compiled is not None:
                return True
            dispatcher = _jitted(self.python, self.strict)
            if config.DISABLE_JIT:
                self._compiled = dispatcher
                return True
            dispatcher._cache = KernelCache(self.name)
            for signature in self.signatures:
                dispatcher.compile(signature)
            dispatcher.disable_compile()
            self._compiled = dispatcher
            return not dispatcher.stats.cache_misses

    def reset_lock(self) -> None:
        """Forget the lock of a parent process: a fork may have copied it while it was held."""
        self._lock = threading.Lock()


def kernel(
    *signatures: Signature, twin: Callable[..., Any], strict: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a kernel.

    Parameters
    ----------
    *signatures : tuples of numba types
        What it is compiled for, on first use.
    twin : callable
        Its numpy twin in `vecdb.kernels.reference`.
    strict : bool, default False
        No fast-math.
    """

    def declare(python: Callable[P, R]) -> Callable[P, R]:
        declared = Kernel(python, signatures, twin, strict)
        KERNELS[declared.name] = declared
        return declared

    return declare


def helper(python: Callable[P, R]) -> Callable[P, R]:
    """Declare a function that kernels of the same file call, or of any if its own is private; compiled into them."""
    return cast("Callable[P, R]", _jitted(python, strict=False))


def inline_helper(python: Callable[P, R]) -> Callable[P, R]:
    """`helper` that is compiled into the very place of each call: small, or handing on more than a call is worth."""
    return cast("Callable[P, R]", _jitted(python, strict=False, forceinline=True))


def strict_helper(python: Callable[P, R]) -> Callable[P, R]:
    """`helper` without fast-math, for strict kernels."""
    return cast("Callable[P, R]", _jitted(python, strict=True))


def _jitted(python: Callable[..., Any], strict: bool, **options: bool) -> Any:
    # error_model="numpy": a division by zero is an infinity, not an exception with the GIL released
    return numba.njit(nogil=True, fastmath=False if strict else FASTMATH, error_model="numpy", **options)(python)


def kernel_modules() -> list[str]:
    """Return the names of the modules of `vecdb.kernels` that declare kernels, private ones left out."""
    others = {"bounds", "loader", "reference"}
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return sorted(name for name in names if not name.startswith("_") and name not in others)


def warmup(progress: Progress | None = None, modules: Sequence[str] | None = None) -> list[Warmed]:
    """Compile every declared kernel, or load it from the cache; remove caches of versions long gone.

    Parameters
    ----------
    progress : callable, optional
        Called as ``progress(done, total)`` after each kernel.
    modules : sequence of str, optional
        Only the kernels of these modules of `vecdb.kernels`; default all.

    Returns
    -------
    list of Warmed
    """
    names = kernel_modules() if modules is None else list(modules)
    for name in names:
        importlib.import_module(f"vecdb.kernels.{name}")
    chosen = [declared for declared in KERNELS.values() if declared.name.partition(".")[0] in names]
    done: list[Warmed] = []
    for declared in chosen:
        started = time.perf_counter()
        from_cache = declared.prepare()
        done.append(Warmed(declared.name, time.perf_counter() - started, from_cache))
        if progress is not None:
            progress(len(done), len(chosen))
    if modules is None:
        prune()
    return done
