"""What an index does while its process is young: the compiled kernels are on their way."""

from __future__ import annotations

from typing import Final

from vecdb.contracts.index import VectorView
from vecdb.kernels import loader

__all__ = ["compiled"]

_LARGE: Final = 1 << 28
"""Bytes of vectors whose exact scan takes longer, from a cold disk, than loading the kernels."""


def compiled(view: VectorView) -> bool:
    """Return whether the kernels may be called; until they are loaded, a small view answers by its vectors instead.

    That scan asks for them itself once it has done as much work as loading them takes: a process with one question ends
    without having waited for them. A large view asks at once and waits a moment: reading all of a file for one answer
    is what its index is there to save.
    """
    if loader.ready():
        return True
    if view.count * view.dim * 4 < _LARGE:
        return False
    loader.request()
    return loader.ready() or loader.wait_briefly()
