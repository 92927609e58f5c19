"""Joint spaces: the vectors of an old and a new model in one space, made by a joint transform, under one index.

`rows` says what a row and a query look like there, `following` keeps the rows up to date in the commits that change
what they are made from, `making` adds a space and fills it, `nominating` lets it name candidates, which their own
classes score. Design: docs/explanation/bridging.md. Here is only the door for commits, which loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from vecdb.lazy import LazyModule

if TYPE_CHECKING:
    from vecdb.engine.joint import following
    from vecdb.registry import PluginRegistry
    from vecdb.storage.handles import Store
    from vecdb.storage.writetx import WriteTx
else:  # most collections have no joint space
    following = LazyModule("vecdb.engine.joint.following")

R = TypeVar("R")


def follower_of(store: Store, registry: PluginRegistry) -> following.Follower:
    """Return what keeps the joint spaces of an opened file up to date."""
    return following.Follower(store.reader, registry, store.joined)


def followed(operation: Callable[[WriteTx], R], store: Store, registry: PluginRegistry) -> Callable[[WriteTx], R]:
    """Return an operation that also brings joint spaces up to date, in the same commit."""

    def both(write: WriteTx) -> R:
        result = operation(write)
        for pending in write.with_joints():
            following.follow(write, pending, follower_of(store, registry))
        return result

    return both
