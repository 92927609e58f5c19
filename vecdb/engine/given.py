"""What `open` is given for plugins, as the registry to use; nothing is imported before somebody needs it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vecdb.errors import ParameterError
from vecdb.lazy import LazyModule

if TYPE_CHECKING:
    from vecdb import registry as registries
    from vecdb.registry import PluginRegistry
else:
    registries = LazyModule("vecdb.registry")


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
