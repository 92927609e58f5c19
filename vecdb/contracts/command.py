"""The command contract: a click command that appears under ``vecdb``.

click comes with an extra, so what is wanted of a command is said here without it: a `click.Command`, or a `click.Group`
with commands of its own, is one. The numbered rules: docs/reference/command-contract.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["OWN_COMMANDS", "Command"]

OWN_COMMANDS = frozenset(
    {"backup", "check", "check-plugin", "collections", "commits", "compact", "compat-matrix", "corrections", "delete"}
    | {
        "demo",
        "doctor",
        "export",
        "fit-correction",
        "get",
        "import",
        "index",
        "info",
        "migrate",
        "optimize",
        "plan-upgrade",
        "plugins",
    }
    | {"relevance", "report", "search", "spaces", "stats", "tag", "transforms", "warmup"}
)
"""Commands that no plugin may provide: those of vecdb, and those it keeps for itself."""


@runtime_checkable
class Command(Protocol):
    """What vecdb uses of a `click.Command`.

    Attributes
    ----------
    name : str
        Lower case letters, digits and ``-``, without a prefix; not one of `OWN_COMMANDS`.
    help : str
        What it does; the first sentence is shown by ``vecdb --help``.
    params : list
        Its options and arguments.
    callback : callable or None
        Raises `VecdbError` for what the user can mend; anything else is reported as a fault of the plugin.
    """

    name: str | None
    help: str | None
    params: list[Any]
    callback: Callable[..., Any] | None

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:
        """Run it with these arguments."""
        ...

    def invoke(self, ctx: Any) -> Any:
        """Run it with arguments that are parsed already."""
        ...

    def get_help(self, ctx: Any) -> str:
        """Return what ``--help`` prints."""
        ...
