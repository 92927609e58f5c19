"""Named places where a test can stop the process: what a crash would find there.

``VECDB_FAILPOINT=name`` pauses at the first visit of `name` (so that a parent can kill the process exactly there);
``name:N`` at the N-th visit; ``name:N:exit`` ends the process at once without any clean-up, like a power cut for the
process; ``name:N:raise`` raises an OSError. Unset, a visit costs one comparison.

The variable is read when vecdb is imported and again in the child of every fork, so a test can arm its children alone.
"""

from __future__ import annotations

import os
import time
from typing import Final

NAMES: Final = (
    "write.begin",
    "write.applied",
    "commit.before",
    "commit.after",
    "seal.before",
    "seal.half",
    "columns.sealed",
    "maintain.repack",
    "history.purged",
    "index.stored",
    "index.staged",
    "transform.stored",
    "correction.stored",
    "relevance.stored",
    "joint.added",
    "joint.filled",
    "joint.followed",
    "compact.copied",
    "compact.before-rename",
    "compact.after-rename",
    "backup.copied",
    "create.half",
    "migrate.begun",
    "migrate.batch",
    "migrate.finished",
    "migrate.undoing",
    "migrate.undone",
)
"""Every failpoint, in no order; the crash tests visit each of them."""

_PAUSED_NOTE: Final = "failpoint"
_wanted = ""
_action = ""
_left = 0


def _read_environment() -> None:
    global _wanted, _action, _left
    _wanted, _, rest = os.environ.get("VECDB_FAILPOINT", "").partition(":")
    count, _, _action = rest.partition(":")
    _left = int(count) if count.isdigit() else 1


_read_environment()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_read_environment)


def visit(name: str) -> None:
    """Stop here if the environment asked for this failpoint."""
    if _wanted and name == _wanted:
        _hit()


def _hit() -> None:
    global _left
    _left -= 1
    if _left:
        return
    if _action == "exit":
        os._exit(137)
    if _action == "raise":
        raise OSError(5, f"injected failure at {_wanted}")
    os.write(2, f"{_PAUSED_NOTE} {_wanted}\n".encode())
    while True:
        time.sleep(60)
