"""Every hook of vecdb. A plugin implements those it needs with `vecdb.hookimpl`; all arguments are keywords.

Hooks are for registration and life cycle and are never called inside a loop. Registration hooks are called once for a
registry, when a name is first looked up that vecdb itself does not provide; they must not open files, start threads,
compile kernels or import what is slow to import. What each object must be: docs/reference/hooks.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from vecdb.contracts.backfill import BackfillPolicy
from vecdb.contracts.command import Command
from vecdb.contracts.importer import Importer
from vecdb.contracts.index import IndexType
from vecdb.contracts.relevance import RelevanceFilterType
from vecdb.contracts.transform import TransformType
from vecdb.types import Space

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "vecdb"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as an implementation of the hook of its name."""


@hookspec
def vecdb_register_index_types() -> Iterable[IndexType]:  # type: ignore[empty-body]
    """Return the index types that this plugin provides."""


@hookspec
def vecdb_register_transforms() -> Iterable[TransformType]:  # type: ignore[empty-body]
    """Return the kinds of transform that this plugin provides."""


@hookspec
def vecdb_register_relevance_filters() -> Iterable[RelevanceFilterType]:  # type: ignore[empty-body]
    """Return the kinds of relevance filter that this plugin provides."""


@hookspec
def vecdb_register_backfill_policies() -> Iterable[BackfillPolicy]:  # type: ignore[empty-body]
    """Return the policies by which this plugin orders the records of a migration."""


@hookspec
def vecdb_register_importers() -> Iterable[Importer]:  # type: ignore[empty-body]
    """Return the file formats that this plugin reads for `vecdb import`."""


@hookspec
def vecdb_register_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Return click commands that appear under ``vecdb``; called when the command line starts."""


@hookspec
def vecdb_database_opened(database: Any) -> None:
    """Be told of a database once it is open: at once if the plugin is loaded, else when it is.

    An exception is logged with the plugin's name and does not keep the database from opening.
    """


@hookspec
def vecdb_committed(database: Any, seq: int) -> None:
    """Be told of a commit of this process after it is durable; called in the thread that made it.

    `seq` is the newest commit. An exception is logged with the plugin's name and undoes nothing.
    """


@hookspec(firstresult=True)
def vecdb_choose_index(space: Space, count: int) -> tuple[str, dict[str, Any]] | None:
    """Say which index type, with which parameters, suits `count` vectors of `space`; None leaves it to the next.

    Asked by ``create_index(space, "auto")``.
    """


@hookspec(firstresult=True)
def vecdb_choose_transform(source: Space, target: Space, pairs: int) -> tuple[str, dict[str, Any]] | None:
    """Say which kind of transform, with which parameters, to fit on so many pairs; None leaves it to the next."""
