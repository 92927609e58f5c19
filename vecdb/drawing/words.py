"""Words that come from data, made safe to stand in a page: escaped, without what steers a reader, and not too long."""

from __future__ import annotations

from html import escape

__all__ = ["safe", "short"]


def safe(text: object) -> str:
    """Return text for HTML or SVG, also inside quotes: markup escaped, unprintable characters replaced.

    Unprintable are control characters, lone surrogates, and marks that turn the direction of writing.
    """
    return escape("".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in str(text)), quote=True)


def short(text: object, most: int = 40) -> str:
    """Return `safe` text of at most `most` characters, so that a long name does not burst a picture."""
    plain = " ".join(str(text).split())
    return safe(plain if len(plain) <= most else plain[: most - 1] + "\u2026")
