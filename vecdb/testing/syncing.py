"""Watch whether what is published was made durable first: files and their directory before the name, the name after.

A crash test cannot cut the power, and what the system has not written yet is still there after a kill. So the calls are
watched instead: each file under a published name must have been synced with the content that it has at that moment.
POSIX only. What is assumed of the medium: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

__all__ = ["unsynced"]

_Identity = tuple[int, int]
_Content = tuple[int, int]
_PUBLISHERS = ("rename", "replace", "link")


def unsynced(target: str | os.PathLike[str], work: Callable[[], Any]) -> list[str]:
    """Run `work`, which publishes `target` by a rename or a link, and say what a power cut could take from it.

    Parameters
    ----------
    target : path
        A file or a directory with files.
    work : callable
        Its calls of `os.fsync`, `os.rename`, `os.replace` and `os.link` are watched, in all threads.

    Returns
    -------
    list of str
        Empty if everything was made durable in the right order.
    """
    watch = _Watch(Path(os.path.abspath(target)))
    with mock.patch("os.fsync", watch.syncing(os.fsync)):
        patches = [mock.patch(f"os.{name}", watch.publishing(getattr(os, name))) for name in _PUBLISHERS]
        for patch in patches:
            patch.start()
        try:
            work()
        finally:
            for patch in patches:
                patch.stop()
    return watch.findings()


class _Watch:
    """What was synced, with which content, and what was missing when the target got its name."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.synced: dict[_Identity, _Content] = {}
        self.problems: list[str] = []
        self.published = False
        self.named = False

    def syncing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            real(descriptor)
            found = os.fstat(descriptor)
            self.synced[_identity(found)] = _content(found)
            if self.published and _identity(found) == _identity(self.target.parent.stat()):
                self.named = True

        return fsync

    def publishing(self, real: Callable[..., None]) -> Callable[..., None]:
        def publish(source: Any, target: Any, **options: Any) -> None:
            ours = Path(os.path.abspath(target)) == self.target
            missing = [str(path) for path in _below(Path(source)) if not self._is_durable(path)] if ours else []
            real(source, target, **options)
            if ours:
                self.problems = [f"{path} was not synced before it was published" for path in missing]
                self.published, self.named = True, False

        return publish

    def _is_durable(self, path: Path) -> bool:
        found = path.stat()
        return self.synced.get(_identity(found)) == _content(found)

    def findings(self) -> list[str]:
        if not self.published:
            return [f"{self.target} was not published by a rename or a link"]
        return self.problems + ([] if self.named else [f"the name of {self.target} was not synced"])


def _below(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir():
        for inner in sorted(path.iterdir()):
            yield from _below(inner)


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _content(found: os.stat_result) -> _Content:
    return found.st_size, found.st_mtime_ns
