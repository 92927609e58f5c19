"""Tools for testing vecdb and what is built on it. Importing this package loads none of them, nor pytest or Hypothesis.

The conformance kit for plugins is `parametrize_with_checks` (a decorator for pytest) and `run_checks`.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vecdb.testing.checks import Check, CheckResult
    from vecdb.testing.plugin_kit import CHECKS_BY_KIND, iter_checks, parametrize_with_checks, run_checks

__all__ = ["CHECKS_BY_KIND", "Check", "CheckResult", "iter_checks", "parametrize_with_checks", "run_checks"]

_LAZY = {
    "CHECKS_BY_KIND": "vecdb.testing.plugin_kit",
    "Check": "vecdb.testing.checks",
    "CheckResult": "vecdb.testing.checks",
    "iter_checks": "vecdb.testing.plugin_kit",
    "parametrize_with_checks": "vecdb.testing.plugin_kit",
    "run_checks": "vecdb.testing.plugin_kit",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(_import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vecdb.testing' has no attribute {name!r}")
