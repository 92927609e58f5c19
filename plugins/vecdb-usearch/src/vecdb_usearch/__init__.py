"""Index type `usearch.hnsw` for vecdb, and a way in for existing USearch files (`read_index`)."""

from vecdb import hookimpl
from vecdb_usearch.existing import Existing, read_index
from vecdb_usearch.hnsw import UsearchIndex, UsearchType

__all__ = ["Existing", "UsearchIndex", "UsearchType", "read_index", "vecdb_register_index_types"]


@hookimpl
def vecdb_register_index_types() -> list[UsearchType]:
    """Return the index types of this package."""
    return [UsearchType()]
