"""What the storage layer logs, for whoever debugs."""

from __future__ import annotations

import sys


def say(message: str, *facts: object) -> None:
    """Log; a program that never imported `logging` asked for nothing, and is spared its import."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger("vecdb").debug(message, *facts)
