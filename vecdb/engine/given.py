"""What `open` is given, settled: how the process is to behave, and plugins as a registry that is made when needed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vecdb.engine.pool import check_threads
from vecdb.engine.recorded import Recorder
from vecdb.errors import ParameterError
from vecdb.lazy import LazyModule
from vecdb.types import CancelCheck, Progress

if TYPE_CHECKING:
    from vecdb import registry as registries
    from vecdb.registry import PluginRegistry
else:
    registries = LazyModule("vecdb.registry")


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process uses an opened database; nothing of it is in the file.

    Attributes
    ----------
    automatic : bool
        Whether upkeep is done without being asked for.
    recorder : Recorder
    threads : int
        That one search may use.
    """

    automatic: bool
    recorder: Recorder
    threads: int


def given_settings(automatic: bool, record_queries: bool, threads: int | None) -> Settings:
    """Check what `open` was given."""
    return Settings(bool(automatic), Recorder(on=bool(record_queries)), check_threads(threads))


def given_registry(plugins: PluginRegistry | Iterable[object] | None) -> PluginRegistry | None:
    """Return the registry to use; None is the process's own while nobody needed it, so that no plugin is loaded."""
    if plugins is None:
        return registries.default_registry() if "vecdb.registry" in sys.modules else None
    if isinstance(plugins, registries.PluginRegistry):
        return plugins
    if isinstance(plugins, (str, bytes)) or not isinstance(plugins, Iterable):
        raise ParameterError(
            f"plugins is {plugins!r}, expected a PluginRegistry or several plugins",
            name="plugins",
            got=plugins,
            allowed="PluginRegistry, or modules and objects with hook implementations",
        )
    return registries.PluginRegistry(plugins)


def watched(progress: Progress | None, cancel: CancelCheck | None) -> tuple[Progress, CancelCheck]:
    """Return what is told of progress and asked for cancellation, whether the caller gave it or not."""
    from vecdb.contracts.quiet import never, silent

    return progress or silent, cancel or never
