"""vecdb's own index types, registered through the same hook as anybody else's."""

from __future__ import annotations

from vecdb.contracts.index import IndexType
from vecdb.hookspecs import hookimpl
from vecdb.indexes.flat import FlatType
from vecdb.indexes.graph import GraphType
from vecdb.indexes.ivf import IvfType
from vecdb.indexes.rabitq import RabitqType

__all__ = ["FlatType", "GraphType", "IvfType", "RabitqType", "vecdb_register_index_types"]


@hookimpl
def vecdb_register_index_types() -> list[IndexType]:
    """Return vecdb's own index types."""
    return [FlatType(), GraphType(), IvfType(), RabitqType()]
