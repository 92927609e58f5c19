"""A collection as a table in memory: Arrow and pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vecdb.errors import ExtraMissingError
from vecdb.interchange.arrowwriters import to_table
from vecdb.interchange.exporting import make_plan
from vecdb.types import Where

if TYPE_CHECKING:
    from vecdb import Collection

__all__ = ["to_arrow", "to_pandas"]


def to_arrow(
    collection: Collection,
    *,
    spaces: Sequence[str] | None = None,
    where: Where | None = None,
    as_of: int | str | None = None,
) -> Any:
    """Return a collection, or a part of it, as a pyarrow Table.

    Parameters
    ----------
    collection : Collection
    spaces : sequence of str, optional
        Spaces whose vectors become columns of type ``fixed_size_list<float>[dim]``. Default: all.
    where : mapping, optional
    as_of : int or str, optional
        A seq or tag; default: now.

    Returns
    -------
    pyarrow.Table
        Columns ``id``, ``text``, one for each metadata field, one for each space, in record order. Ids must be of one
        type. A field with mixed or nested values becomes JSON text.

    Raises
    ------
    ExtraMissingError
        pyarrow is not installed.
    ParameterError
        Ids of both types, or a space called ``id`` or ``text``.
    """
    return to_table(make_plan(collection, spaces, where, as_of))


def to_pandas(
    collection: Collection,
    *,
    spaces: Sequence[str] | None = None,
    where: Where | None = None,
    as_of: int | str | None = None,
) -> Any:
    """Return a collection, or a part of it, as a pandas DataFrame.

    Parameters and errors are those of `to_arrow`, but pyarrow is not needed and ids may be of both types.

    Returns
    -------
    pandas.DataFrame
        Columns ``id``, ``text``, one for each metadata field as it is stored, one for each space holding an ndarray
        of shape (dim,) or None.
    """
    try:
        import pandas
    except ImportError as error:
        raise ExtraMissingError(
            "making a DataFrame needs pandas, which is not installed.",
            hint="run: python -m pip install pandas",
            package="pandas",
            extra="",
        ) from error
    plan = make_plan(collection, spaces, where, as_of)
    plan.check_names(("id", "text"))
    records = list(plan.records())
    keys = dict.fromkeys(key for record in records for key in record.metadata)
    columns: dict[str, list[Any]] = {"id": [r.id for r in records], "text": [r.text for r in records]}
    for key in keys:
        name = f"metadata.{key}" if key in ("id", "text", *plan.spaces) else key
        columns[name] = [record.metadata.get(key) for record in records]
    for space in plan.spaces:
        columns[space] = [record.vectors.get(space) for record in records]
    return pandas.DataFrame(columns)
