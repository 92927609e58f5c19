"""Errors that the storage layer raises to itself: each is handled by the caller that can do something about it."""

from __future__ import annotations

from vecdb.errors import StorageError


class MapResized(StorageError):
    """Another process enlarged the map: take over its size."""


class Panicked(StorageError):
    """LMDB refuses every call after a failed write of its root until the file is opened anew."""


class NeedsGrowth(StorageError):
    """The map is full: grow it and run the batch again."""
