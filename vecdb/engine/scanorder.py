"""The vectors of a space where scans and indexes read them: blocks in scan order, verified before use."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.blocks import VectorBlocks
from vecdb.engine.view import CollectionView
from vecdb.storage.spaces import SpaceView

_FEW: Final = 16
"""With fewer than one allowed row in so many, only the checksums under those rows are verified."""


def scan_order(view: CollectionView, space_view: SpaceView) -> VectorBlocks:
    """Return the blocks of a space in scan order, the tail as the last of them."""
    blocks: VectorBlocks | None = space_view.derived.get("scan_order")
    if blocks is None:
        opened = space_view.open_blocks(view.tx)
        matrices = [block.vectors for block in opened]
        scales = [block.scales for block in opened]
        if space_view.tail_count:
            matrices.append(space_view.tail.vectors[: space_view.tail_count])
            scales.append(space_view.tail.scales[: space_view.tail_count])
        blocks = VectorBlocks.from_parts(space_view.space.metric, space_view.space.dim, matrices, scales)
        space_view.derived["scan_order"] = blocks
    return blocks


def verify(view: CollectionView, space_view: SpaceView, mask: npt.NDArray[np.bool_] | None, count: int) -> None:
    """Check what a scan of the `count` positions in `mask` (None: all) is going to read, all of a view only once."""
    if "sound" in space_view.derived:
        return
    if mask is not None and count * _FEW < len(space_view):
        space_view.verify_positions(view.tx, np.flatnonzero(mask))
    else:
        space_view.verify_all(view.tx)
        space_view.derived["sound"] = True
