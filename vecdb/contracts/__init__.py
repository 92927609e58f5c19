"""What a plugin implements: protocols and frozen values, nothing else.

There is no base class to inherit: an object that has the attributes and methods is the thing. Every rule a plugin must
keep has a number in docs/reference/*-contract.md, and a check of that name in `vecdb.testing`.
"""

from vecdb.contracts.backfill import BackfillFacts, BackfillPolicy, noise_of
from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.command import Command
from vecdb.contracts.effort import EffortCurve
from vecdb.contracts.importer import ImportBatch, Importer, ImportSource
from vecdb.contracts.index import (
    Candidates,
    GrowingIndex,
    Index,
    IndexCapabilities,
    IndexType,
    InPlace,
    MeasuredIndex,
    ProvingIndex,
    SegmentEncoder,
    VectorView,
)
from vecdb.contracts.params import Param, settle_params
from vecdb.contracts.relevance import RelevanceCapabilities, RelevanceData, RelevanceFilter, RelevanceFilterType
from vecdb.contracts.rows import MappedRows, RowsProof
from vecdb.contracts.state import State, state_array, state_digest, state_problems, state_value
from vecdb.contracts.transform import Affine, FitData, Pairs, Transform, TransformCapabilities, TransformType

__all__ = [
    "Affine",
    "BackfillFacts",
    "BackfillPolicy",
    "BlobReader",
    "BlobWriter",
    "Candidates",
    "Command",
    "EffortCurve",
    "FitData",
    "GrowingIndex",
    "ImportBatch",
    "ImportSource",
    "Importer",
    "InPlace",
    "Index",
    "IndexCapabilities",
    "IndexType",
    "MappedRows",
    "MeasuredIndex",
    "Pairs",
    "Param",
    "ProvingIndex",
    "RelevanceCapabilities",
    "RelevanceData",
    "RelevanceFilter",
    "RelevanceFilterType",
    "RowsProof",
    "SegmentEncoder",
    "State",
    "Transform",
    "TransformCapabilities",
    "TransformType",
    "VectorView",
    "noise_of",
    "settle_params",
    "state_array",
    "state_digest",
    "state_problems",
    "state_value",
]
