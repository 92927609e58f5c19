"""What a fit remembers of itself: how many pairs, which data, what was chosen; plain values in the stored state.

The pairs' ids are the engine's to keep. `data` is the digest of the arrays themselves, so that two fits can be told
to be of the same data without having them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from vecdb.contracts import FitData, State, state_digest
from vecdb.errors import CorruptionError

__all__ = ["Facts", "Plain", "facts_of", "load_facts"]

Plain: TypeAlias = bool | int | float | str
Facts: TypeAlias = Mapping[str, Plain]
"""Names to plain values; always with ``pairs`` (int) and ``data`` (hexadecimal digest)."""


def facts_of(data: FitData, **chosen: Plain) -> Facts:
    """Return what a fit on `data` says of itself.

    Parameters
    ----------
    data : FitData
    **chosen
        What the fit decided: penalty, rank, temperature, ...
    """
    arrays = {"source": data.source, "target": data.target, "queries": data.queries, "labels": data.labels}
    arrays |= {"queries_across": data.queries_across, "stored": data.stored}
    return {"pairs": len(data.source), "data": state_digest(arrays), "role": data.role, **chosen}


def load_facts(state: State, name: str = "fit") -> Facts:
    """Return the facts of a stored state.

    Raises
    ------
    CorruptionError
        They are not what `facts_of` returns.
    """
    found: Any = state.get(name)
    if not isinstance(found, dict) or type(found.get("pairs")) is not int or type(found.get("data")) is not str:
        raise CorruptionError(
            f"{name} of a stored state does not say which pairs it was fitted on", what="state", where=name
        )
    for key, value in found.items():
        if type(key) is not str or type(value) not in (bool, int, float, str) or value != value or _infinite(value):
            raise CorruptionError(f"{name} of a stored state holds {key!r}: {value!r}", what="state", where=name)
    return dict(found)


def _infinite(value: Plain) -> bool:
    return type(value) is float and math.isinf(value)
