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
    """Return the index types that this plugin provides.

    Called once for a registry, when a name is looked up that vecdb does not provide itself. Contract:
    `vecdb.contracts.IndexType`.

    Examples
    --------
    >>> from vecdb import hookimpl
    >>> @hookimpl
    ... def vecdb_register_index_types():
    ...     return [AcmeIndexType()]
    """


@hookspec
def vecdb_register_transforms() -> Iterable[TransformType]:  # type: ignore[empty-body]
    """Return the types of transform that this plugin provides.

    Called once for a registry, as above. Contract: [transform](transform-contract.md).

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_register_transforms():
    ...     return [AcmeRotation(), AcmeRidge()]
    """


@hookspec
def vecdb_register_relevance_filters() -> Iterable[RelevanceFilterType]:  # type: ignore[empty-body]
    """Return the kinds of relevance filter that this plugin provides.

    Called once for a registry, as above. Contract: [relevance filter](relevance-contract.md).

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_register_relevance_filters():
    ...     return [AcmePlatt()]
    """


@hookspec
def vecdb_register_backfill_policies() -> Iterable[BackfillPolicy]:  # type: ignore[empty-body]
    """Return the policies by which this plugin orders the records of a migration.

    Called once for a registry, as above. Contract: [backfill policy](backfill-contract.md).

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_register_backfill_policies():
    ...     return [AcmeNewestFirst()]
    """


@hookspec
def vecdb_register_importers() -> Iterable[Importer]:  # type: ignore[empty-body]
    """Return the file formats that this plugin reads for an import.

    Called once for a registry, as above; for an import from a file that vecdb reads itself it is not called at all.
    Contract: [importer](importer-contract.md).

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_register_importers():
    ...     return [AcmeFiles()]
    """


@hookspec
def vecdb_register_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Return click commands that appear under ``vecdb``.

    Called once for a registry, as above; on the command line when a command is called that is not vecdb's own, and by
    ``vecdb --help``. It is called in other programs, too: import click inside the function. Contract:
    [command](command-contract.md).

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_register_commands():
    ...     from vecdb_acme.cli import greet
    ...
    ...     return [greet]
    """


@hookspec
def vecdb_database_opened(database: Any) -> None:
    """Be told of a `Database` once it is open: at once if the plugin is loaded, else when it is.

    Called in the thread that opens it or that loads the plugin. An exception is logged with the plugin's name and does
    not keep the database from opening.

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_database_opened(database):
    ...     print("opened", database.path)
    """


@hookspec
def vecdb_committed(database: Any, seq: int) -> None:
    """Be told of a commit of this process after it is durable.

    Called in the thread that made it, with the newest commit; it must not write. An exception is logged with the
    plugin's name and undoes nothing.

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_committed(seq):  # any of the arguments may be left out
    ...     print("commit", seq)
    """


@hookspec(firstresult=True)
def vecdb_choose_index(space: Space, count: int) -> tuple[str, dict[str, Any]] | None:
    """Say which index type, with which parameters, suits `count` vectors of `space`.

    Called by ``create_index(space, "auto")``; the plugin registered last is asked first, and None leaves the answer to
    the next. An exception ends the call as a `PluginError`.

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_choose_index(space, count):
    ...     return ("acme.graph", {"degree": 32}) if count > 100_000 and space.metric != "dot" else None
    """


@hookspec(firstresult=True)
def vecdb_choose_transform(source: Space, target: Space, pairs: int) -> tuple[str, dict[str, Any]] | None:
    """Say which kind of transform, with which parameters, to fit on so many pairs of records.

    Called where a transform is fitted and "auto" is asked for; answers and exceptions count as for
    `vecdb_choose_index`.

    Examples
    --------
    >>> @hookimpl
    ... def vecdb_choose_transform(source, target, pairs):
    ...     return ("acme.rotation", {}) if pairs < source.dim else None
    """
