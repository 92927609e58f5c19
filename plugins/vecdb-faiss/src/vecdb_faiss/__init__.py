"""Index type `faiss.factory` for vecdb, and a way in for existing Faiss files (`read_index`)."""

from vecdb import hookimpl
from vecdb_faiss.existing import Existing, read_index
from vecdb_faiss.factory import FactoryType, FaissIndex

__all__ = ["Existing", "FactoryType", "FaissIndex", "read_index", "vecdb_register_index_types"]


@hookimpl
def vecdb_register_index_types() -> list[FactoryType]:
    """Return the index types of this package."""
    return [FactoryType()]
