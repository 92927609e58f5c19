"""vecdb: the embedded embedding database that outlives your embedding model.

One file, no server. Start with `vecdb.open`; the README has a first example.

Importing the package loads the words that a search needs (errors and value types) and numpy; the storage, and with it
LMDB, is loaded when `open`, `Database` or `Collection` is first named, pluggy when `hookimpl` or `PluginRegistry` is,
and the words of exploring and judging when one of them is.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from vecdb.errors import (
    ArgumentError,
    CancelledError,
    ClosedError,
    CollectionMissingError,
    ConflictError,
    CorruptionError,
    DimensionError,
    DiskFullError,
    DTypeError,
    DuplicateIdError,
    EncoderError,
    ExistsError,
    ExtraMissingError,
    FileAccessError,
    FitError,
    ForkedError,
    FormatVersionError,
    IdentityWarning,
    IdError,
    ImportInterruptedError,
    LockedError,
    MapFullError,
    MetadataError,
    MissingError,
    NonFiniteError,
    NotADatabaseError,
    ParameterError,
    PerformanceWarning,
    PluginConflictError,
    PluginContractError,
    PluginError,
    PluginLoadError,
    PluginMissingError,
    ReadersFullError,
    ReadOnlyError,
    RecordExistsError,
    RecordMissingError,
    RemoteFileSystemError,
    SnapshotExpiredError,
    SourceError,
    SpaceMismatchError,
    SpaceMissingError,
    StaleError,
    StateError,
    StorageError,
    TagMissingError,
    TransactionError,
    UnknownNameError,
    VecdbError,
    VecdbWarning,
    VectorMissingError,
    VectorRangeError,
    WhereError,
    WrongModelError,
    ZeroVectorError,
)
from vecdb.types import (
    CheckReport,
    Commit,
    Hit,
    Hits,
    HitsBatch,
    IndexInfo,
    MigrationStatus,
    Plan,
    Record,
    RecordVersion,
    Space,
    TransformInfo,
    WriteResult,
)

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.database import Database, open, warmup
    from vecdb.explored import (
        MMR,
        ClassifierQuality,
        Feedback,
        Group,
        LabelProposal,
        LabelProposals,
        Mixture,
        Prediction,
        Share,
    )
    from vecdb.health.report import HealthReport
    from vecdb.health.values import SpaceHealth
    from vecdb.hookspecs import hookimpl
    from vecdb.migrating import Migration
    from vecdb.registry import PluginRegistry
    from vecdb.upgrade.matrix import CompatibilityMatrix
    from vecdb.upgrade.plan import UpgradePlan
    from vecdb.upgrade.report import UpgradeReport
    from vecdb.verdicts import CorrectionInfo, Diagnosis, FilterInfo, JointSpace, QuerySet

__version__ = "0.1.0"

__all__ = [
    "MMR",
    "ArgumentError",
    "CancelledError",
    "CheckReport",
    "ClassifierQuality",
    "ClosedError",
    "Collection",
    "CollectionMissingError",
    "Commit",
    "CompatibilityMatrix",
    "ConflictError",
    "CorrectionInfo",
    "CorruptionError",
    "DTypeError",
    "Database",
    "Diagnosis",
    "DimensionError",
    "DiskFullError",
    "DuplicateIdError",
    "EncoderError",
    "ExistsError",
    "ExtraMissingError",
    "Feedback",
    "FileAccessError",
    "FilterInfo",
    "FitError",
    "ForkedError",
    "FormatVersionError",
    "Group",
    "HealthReport",
    "Hit",
    "Hits",
    "HitsBatch",
    "IdError",
    "IdentityWarning",
    "ImportInterruptedError",
    "IndexInfo",
    "JointSpace",
    "LabelProposal",
    "LabelProposals",
    "LockedError",
    "MapFullError",
    "MetadataError",
    "Migration",
    "MigrationStatus",
    "MissingError",
    "Mixture",
    "NonFiniteError",
    "NotADatabaseError",
    "ParameterError",
    "PerformanceWarning",
    "Plan",
    "PluginConflictError",
    "PluginContractError",
    "PluginError",
    "PluginLoadError",
    "PluginMissingError",
    "PluginRegistry",
    "Prediction",
    "QuerySet",
    "ReadOnlyError",
    "ReadersFullError",
    "Record",
    "RecordExistsError",
    "RecordMissingError",
    "RecordVersion",
    "RemoteFileSystemError",
    "Share",
    "SnapshotExpiredError",
    "SourceError",
    "Space",
    "SpaceHealth",
    "SpaceMismatchError",
    "SpaceMissingError",
    "StaleError",
    "StateError",
    "StorageError",
    "TagMissingError",
    "TransactionError",
    "TransformInfo",
    "UnknownNameError",
    "UpgradePlan",
    "UpgradeReport",
    "VecdbError",
    "VecdbWarning",
    "VectorMissingError",
    "VectorRangeError",
    "WhereError",
    "WriteResult",
    "WrongModelError",
    "ZeroVectorError",
    "hookimpl",
    "open",
    "warmup",
]


_LAZY = {
    "ClassifierQuality": "vecdb.explored",
    "Collection": "vecdb.collection",
    "CompatibilityMatrix": "vecdb.upgrade.matrix",
    "CorrectionInfo": "vecdb.verdicts",
    "Database": "vecdb.database",
    "Diagnosis": "vecdb.verdicts",
    "Feedback": "vecdb.explored",
    "FilterInfo": "vecdb.verdicts",
    "Group": "vecdb.explored",
    "HealthReport": "vecdb.health.report",
    "JointSpace": "vecdb.verdicts",
    "LabelProposal": "vecdb.explored",
    "LabelProposals": "vecdb.explored",
    "MMR": "vecdb.explored",
    "Migration": "vecdb.migrating",
    "Mixture": "vecdb.explored",
    "PluginRegistry": "vecdb.registry",
    "Prediction": "vecdb.explored",
    "QuerySet": "vecdb.verdicts",
    "Share": "vecdb.explored",
    "SpaceHealth": "vecdb.health.values",
    "UpgradePlan": "vecdb.upgrade.plan",
    "UpgradeReport": "vecdb.upgrade.report",
    "hookimpl": "vecdb.hookspecs",
    "open": "vecdb.database",
    "warmup": "vecdb.database",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(_import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'vecdb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
