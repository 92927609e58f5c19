"""Facts about the machine and the libraries that a benchmark ran on, and the environment it should run in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

LIBRARIES = (
    "vecdb",
    "numpy",
    "numba",
    "lmdb",
    "threadpoolctl",
    "faiss-cpu",
    "hnswlib",
    "sqlite-vec",
    "apsw",
    "lancedb",
)
FORCED_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS")
"""Variables that make a BLAS choose other kernels than the processor's own; they come in pairs, so all of them go."""
_UNCOMPILED = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
"""Variables under which a checkout is compiled at each import, while installed packages are not."""
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment(base: Mapping[str, str], *, root: Path, blas_threads: int) -> dict[str, str]:
    """Return `base` changed for a benchmark: this checkout importable and kept compiled, BLAS at its own speed."""
    changed = {name: value for name, value in base.items() if name not in FORCED_KERNELS + _UNCOMPILED}
    changed |= dict.fromkeys(_THREADS, str(blas_threads))
    return changed | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}


def facts(folder: Path) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers; `folder` is where the files are written."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := version(name))},
        "blas": blas(),
        "file_system": file_system(folder),
        "fdatasync_ms": round(1e3 * sync_seconds(folder), 3),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def cpu_model() -> str:
    """Return the processor's name with family and model, and its widest instructions."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    widest = next((flag for flag in ("avx512f", "avx2", "sve", "asimd") if flag in flags), "")
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}, {widest})"


def version(library: str) -> str | None:
    """Return the version of an installed library; vecdb's own is that of this checkout."""
    if library == "vecdb":
        import vecdb

        return vecdb.__version__
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def blas() -> dict[str, Any]:
    """Return which BLAS numpy uses, and where `threadpoolctl` is installed, on which kernels and threads it runs."""
    np.ones((8, 8), np.float32) @ np.ones((8, 8), np.float32)
    if importlib.util.find_spec("threadpoolctl") is None:
        build = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"name": build.get("name"), "version": build.get("version"), "kernel": "unknown without threadpoolctl"}
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    pool = next((pool for pool in pools if "numpy" in pool["filepath"]), pools[0] if pools else {})
    names = {"internal_api": "name", "version": "version", "architecture": "kernel", "num_threads": "threads"}
    return {name: pool.get(key) for key, name in names.items()}


def file_system(folder: Path) -> str:
    """Return the type of the file system under `folder`."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind = line.split()[:3]
        inside = folder.resolve().is_relative_to(place)
        if inside and len(place) > len(best[0]):
            best = (place, kind)
    return best[1]


def sync_seconds(folder: Path, rounds: int = 21) -> float:
    """Return the median time of appending 4 KiB to a file and making them durable: the floor of a durable commit."""
    path = folder / "sync-test"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(rounds):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return median(taken)


def memory(name: str) -> int:
    """Return a figure of /proc/self/status in bytes: VmHWM (peak), VmRSS, RssAnon, RssFile."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise ValueError(f"/proc/self/status has no {name}")
