"""The command line: ``vecdb`` and ``python -m vecdb``.

An edge: commands parse, call public functions, and print. `EXIT_CODES` says what scripts may rely on. click and rich
come with the extra ``cli``; without them `main` says so in one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vecdb.cli.codes import EXIT_CODES

try:
    from vecdb.cli.app import cli
except ModuleNotFoundError as error:
    _MISSING: str | None = (error.name or "").partition(".")[0]
    if _MISSING not in ("click", "rich"):
        raise
else:
    _MISSING = None

__all__ = ["EXIT_CODES", "cli", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        One of `EXIT_CODES`.
    """
    if _MISSING is not None:
        print(
            f"vecdb: error: the command line needs {_MISSING}. Hint: run: python -m pip install 'vecdb[cli]'",
            file=sys.stderr,
        )
        return 2
    from vecdb.cli.errors import run

    return run(list(sys.argv[1:] if arguments is None else arguments))
