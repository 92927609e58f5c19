"""The disk cache of kernels: hits across processes, never stale, never unsafe, never in the way."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vecdb
from vecdb.kernels import _cache

WARM = """
from vecdb.kernels import _jit
print(*(f"{warmed.kernel}={warmed.from_cache}" for warmed in _jit.warmup(modules=["half"])))
"""
ROOT = Path(vecdb.__path__[0]).parent


def start(directory, program=WARM, package=ROOT, **variables):
    environment = dict(os.environ, VECDB_CACHE_DIR=str(directory), PYTHONPATH=str(package), **variables)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        cwd=package,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.strip()


def run(directory, **options):
    return finish(start(directory, **options))


def entries(directory):
    return sorted(path for path in Path(directory).glob("kernels-*/*") if path.is_file())


@pytest.fixture
def in_directory(tmp_path, monkeypatch):
    """The cache functions of this process, pointed at a directory of the test."""
    monkeypatch.setenv("VECDB_CACHE_DIR", str(tmp_path))
    _cache._usable.cache_clear()
    yield tmp_path
    _cache._usable.cache_clear()


def test_the_second_process_compiles_nothing(tmp_path):
    assert run(tmp_path) == "half.widen=False"
    (entry,) = entries(tmp_path)
    before = entry.stat().st_mtime_ns
    assert run(tmp_path) == "half.widen=True"
    assert entry.stat().st_mtime_ns == before
    if os.name == "posix":
        assert stat.S_IMODE(entry.parent.stat().st_mode) == 0o700


def test_processes_that_compile_at_once_do_not_disturb_each_other(tmp_path):
    """numba's own cache numbers its files; two processes could take one number for different code."""
    racers = [start(tmp_path) for _ in range(3)]
    for racer in racers:
        assert finish(racer).startswith("half.widen=")
    assert len(entries(tmp_path)) == 1
    assert run(tmp_path) == "half.widen=True"


def test_an_edit_in_any_kernel_source_leads_to_another_directory(tmp_path):
    """numba's own cache looks at the file of the kernel alone and would serve the old helper."""
    package = tmp_path / "copy"
    shutil.copytree(ROOT / "vecdb", package / "vecdb", ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "cache"
    assert run(cache, package=package) == "half.widen=False"
    edited = package / "vecdb" / "kernels" / "_intrinsics.py"
    edited.write_text(edited.read_text() + "\n# an edit\n")
    assert run(cache, package=package) == "half.widen=False"
    assert len(list(cache.glob("kernels-*"))) == 2
    assert run(cache, package=package) == "half.widen=True"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_entry_is_told_and_compiled_again(tmp_path, damage):
    run(tmp_path)
    (entry,) = entries(tmp_path)
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(
        {"truncated": content[:-5], "flipped": content, "empty": b"", "foreign": b"\x80\x04N." * 20}[damage]
    )
    process = start(tmp_path)
    assert finish(process) == "half.widen=False"
    assert run(tmp_path) == "half.widen=True"


def test_the_log_names_a_damaged_entry(in_directory, caplog):
    path = in_directory / "entry.bin"
    path.write_bytes(b"nonsense")
    with caplog.at_level(logging.WARNING, logger="vecdb"):
        assert _cache._read(path) is None
    assert "entry.bin is damaged" in caplog.text
    assert _cache._read(in_directory / "missing.bin") is None


def test_a_sound_file_of_unknown_content_is_compiled_again(in_directory, caplog):
    from numba import types
    from numba.core.registry import cpu_target

    cache = _cache.KernelCache("test.kernel")
    signature = (types.int64,)
    _cache._write(cache._file(signature), b"not a pickle")
    with caplog.at_level(logging.WARNING, logger="vecdb"):
        assert cache.load_overload(signature, cpu_target.target_context) is None
    assert "could not be loaded" in caplog.text


def test_no_cache_directory_means_compiling_in_memory(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert run(blocked) == "half.widen=False"
    assert blocked.read_text() == "not a directory"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory(tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert run(tmp_path) == "half.widen=False"
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_a_directory_that_others_can_write_is_not_trusted(in_directory, caplog):
    """What lies in the directory is executed."""
    trusted = _cache.cache_directory()
    assert trusted is not None and trusted.parent == in_directory
    trusted.chmod(0o777)
    _cache._usable.cache_clear()
    with caplog.at_level(logging.WARNING, logger="vecdb"):
        assert _cache.cache_directory() is None
    assert "others can write" in caplog.text
    assert _cache.KernelCache("x").cache_path is None
    assert _cache.KernelCache("x")._file("signature") is None


def test_a_full_disk_is_told_and_leaves_nothing_behind(in_directory, caplog, monkeypatch):
    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_cache.os, "replace", refuse)
    with caplog.at_level(logging.WARNING, logger="vecdb"):
        _cache._write(in_directory / "kernel.bin", b"code")
    assert "No space left" in caplog.text and not list(in_directory.iterdir())


def test_platform_directories(monkeypatch, tmp_path):
    monkeypatch.delenv("VECDB_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(_cache.sys, "platform", "linux")
    assert _cache._base_directory() == tmp_path / "vecdb"
    monkeypatch.setattr(_cache.sys, "platform", "darwin")
    assert _cache._base_directory().parts[-3:] == ("Library", "Caches", "vecdb")
    monkeypatch.setattr(_cache.sys, "platform", "win32")
    assert _cache._base_directory() == tmp_path / "local" / "vecdb"
    monkeypatch.setenv("VECDB_CACHE_DIR", "~/elsewhere")
    assert _cache._base_directory() == Path.home() / "elsewhere"


def test_pruning_removes_what_is_long_unused_and_nothing_else(in_directory):
    current = _cache.cache_directory()
    old, recent, other = (in_directory / name for name in ("kernels-old", "kernels-recent", "something"))
    for path in (old, recent, other):
        path.mkdir()
        (path / "file").touch()
    long_ago = time.time() - 90 * 86_400
    for path in (old, other, current):
        os.utime(path, (long_ago, long_ago))
    assert _cache.prune() == [old]
    assert sorted(path.name for path in in_directory.iterdir()) == sorted([current.name, "kernels-recent", "something"])


def test_numba_settings_of_the_user_are_not_touched(tmp_path):
    program = """
import os, numba
before = dict(os.environ), numba.config.CACHE_DIR
from vecdb.kernels import _jit
_jit.warmup(modules=["half"])
assert (dict(os.environ), numba.config.CACHE_DIR) == before
@numba.njit
def theirs(x):
    return x + 1
assert type(theirs._cache).__name__ == "NullCache" and theirs(1) == 2
print("untouched")
"""
    assert run(tmp_path, program=program) == "untouched"
