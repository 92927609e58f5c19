"""An index type for vecdb, `template.lists`."""

from vecdb import hookimpl
from vecdb_template.lists import ListsType


@hookimpl
def vecdb_register_index_types() -> list[ListsType]:
    """Return the index types of this package."""
    return [ListsType()]
