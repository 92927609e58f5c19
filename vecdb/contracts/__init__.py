"""What a plugin implements: protocols and frozen values, nothing else.

There is no base class to inherit: an object that has the attributes and methods is the thing. Every rule a plugin must
keep has a number in docs/reference/*-contract.md, and a check of that name in `vecdb.testing`.
"""

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.index import (
    Candidates,
    GrowingIndex,
    Index,
    IndexCapabilities,
    IndexType,
    InPlace,
    SegmentEncoder,
    VectorView,
)
from vecdb.contracts.params import Param, settle_params

__all__ = [
    "BlobReader",
    "BlobWriter",
    "Candidates",
    "GrowingIndex",
    "InPlace",
    "Index",
    "IndexCapabilities",
    "IndexType",
    "Param",
    "SegmentEncoder",
    "VectorView",
    "settle_params",
]
