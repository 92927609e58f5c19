"""Modules that are imported when something of them is first asked for.

Reading and searching need a third of the code; a process that answers one question should not wait for the rest. Owns
nothing but the waiting: whatever an attribute is, it is the module's own, asked for anew each time.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["LazyModule"]


class LazyModule:
    """Stands for a module until, and after, it is imported.

    Parameters
    ----------
    name : str
        The full name of the module. Write the import for the type checker, too::

            if TYPE_CHECKING:
                from vecdb.engine import housekeeping
            else:
                housekeeping = LazyModule("vecdb.engine.housekeeping")
    """

    __slots__ = ("_module", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, attribute: str) -> Any:
        module = self._module
        if module is None:
            module = self._module = import_module(self._name)  # waits if another thread imports it
        return getattr(module, attribute)

    def __repr__(self) -> str:
        return f"<LazyModule {self._name!r}>"
