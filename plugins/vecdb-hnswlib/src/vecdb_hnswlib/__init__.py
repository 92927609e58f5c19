"""Index type `hnswlib.hnsw` for vecdb, and a way in for existing hnswlib files (`read_index`)."""

from vecdb import hookimpl
from vecdb_hnswlib.existing import Existing, read_index
from vecdb_hnswlib.hnsw import HnswIndex, HnswType

__all__ = ["Existing", "HnswIndex", "HnswType", "read_index", "vecdb_register_index_types"]


@hookimpl
def vecdb_register_index_types() -> list[HnswType]:
    """Return the index types of this package."""
    return [HnswType()]
