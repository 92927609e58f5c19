"""Where compiled kernels are kept between processes, and why what is found there can be trusted.

One directory of vecdb's own per combination of kernel sources, numba, llvmlite, Python and CPU: an edit anywhere in
``vecdb/kernels`` leads to another directory, so stale code cannot be served. One file per kernel and signature,
written aside and renamed, so processes that compile at once only repeat work. Files are checksummed, and the
directory is used only if nobody else can write to it, because what lies there is executed.
The user's numba settings are not touched. Design: docs/contributing/kernels.md.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import shutil
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import compiler, config
from numba.core.caching import _Cache
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

__all__ = ["KernelCache", "cache_directory", "prune"]

log = logging.getLogger("vecdb")

_MAGIC = b"vecdb kernel 1\n"
_PREFIX = "kernels-"
_DIGEST = 32


class KernelCache(_Cache):  # type: ignore[misc]  # numba is untyped
    """The disk cache of one kernel, in the shape numba's dispatcher expects."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def cache_path(self) -> str | None:
        """Directory of the files, or None where kernels are kept in memory alone."""
        directory = cache_directory()
        return None if directory is None else str(directory)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for `sig`, or None if it has to be compiled."""
        target_context.refresh()
        path = self._file(sig)
        payload = None if path is None else _read(path)
        if payload is None:
            return None
        try:
            return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:  # whatever numba raises here, compiling again is right; it is told, not hidden
            log.warning("the cached kernel %s could not be loaded and is compiled again", path, exc_info=True)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function; a directory that cannot be written is told in the log and nothing else."""
        path = self._file(sig)
        if path is None:
            return
        if data.library.has_dynamic_globals:
            raise RuntimeError(f"kernel {self.name} refers to addresses of this process and cannot be cached")
        _write(path, dumps(data._reduce()))

    def _file(self, sig: Any) -> Path | None:
        directory = cache_directory()
        key = hashlib.sha256(str(sig).encode()).hexdigest()[:16]
        return None if directory is None else directory / f"{self.name}-{key}.bin"

    def enable(self) -> None:
        """Do nothing: the cache is always on."""

    def disable(self) -> None:
        """Do nothing: see `cache_directory`."""

    def flush(self) -> None:
        """Do nothing: files of other sources lie in other directories."""


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("the cached kernel %s could not be read (%s) and is compiled again", path, error)
        return None
    digest, payload = content[len(_MAGIC) : len(_MAGIC) + _DIGEST], content[len(_MAGIC) + _DIGEST :]
    if not content.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
        log.warning("the cached kernel %s is damaged and is compiled again", path)
        return None
    return payload


def _write(path: Path, payload: bytes) -> None:
    try:
        handle, aside = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        log.warning("the kernel %s could not be kept (%s); every process will compile it", path.name, error)


def cache_directory() -> Path | None:
    """Return the directory for this machine and these sources, made if needed; None if it cannot be used."""
    return _usable(_base_directory() / f"{_PREFIX}{_fingerprint()}")


def _base_directory() -> Path:
    """VECDB_CACHE_DIR, or vecdb's part of the platform's cache directory for the user."""
    chosen = os.environ.get("VECDB_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vecdb"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vecdb"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vecdb"


@cache
def _usable(directory: Path) -> Path | None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
        status = directory.stat()
    except OSError as error:
        log.info("kernels are compiled in memory: the cache directory %s cannot be used (%s)", directory, error)
        return None
    if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
        log.warning("kernels are compiled in memory: others can write to the cache directory %s", directory)
        return None
    return directory


@cache
def _fingerprint() -> str:
    """Hash of everything that compiled code depends on."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content = source.read_bytes()
        digest.update(f"{source.name} {len(content)}\n".encode() + content)
    target = cpu_target.target_context.codegen().magic_tuple()
    settings = (config.OPT, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE)
    versions = (numba.__version__, llvmlite.__version__, sys.version, platform.platform())
    digest.update(repr((target, settings, versions)).encode())
    return digest.hexdigest()[:20]


def prune(older_than_days: float = 30.0) -> list[Path]:
    """Remove directories of other sources or versions that have not been written for `older_than_days`."""
    current = cache_directory()
    if current is None:
        return []
    limit = time.time() - older_than_days * 86_400
    stale = [path for path in current.parent.glob(f"{_PREFIX}*") if path != current and path.stat().st_mtime < limit]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)  # another process may be pruning, too
    return stale
