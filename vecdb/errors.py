"""Every exception and warning of vecdb, one class for one cause.

The message says what failed, where, what was got and what was expected; ``hint`` says what to do next.
Programs read the attributes, people read the message. All of them survive pickling.

::

    VecdbError                      .hint
    ├─ ArgumentError (ValueError)
    │   ├─ DimensionError           .expected .got .where
    │   ├─ DTypeError (TypeError)   .expected .got .where
    │   ├─ NonFiniteError           .row .column .where
    │   ├─ ZeroVectorError          .row .where
    │   ├─ VectorRangeError         .row .column .limit .where
    │   ├─ IdError                  .got .position
    │   ├─ DuplicateIdError         .id .first .second
    │   ├─ MetadataError            .position .path
    │   ├─ WhereError               .path .operator
    │   ├─ SourceError              .path .line .row
    │   ├─ FitError                 .pairs .needed
    │   └─ ParameterError           .name .got .allowed
    ├─ MissingError (LookupError)
    │   ├─ CollectionMissingError   .name .available
    │   ├─ SpaceMissingError        .name .available
    │   ├─ RecordMissingError       .ids .collection
    │   ├─ VectorMissingError       .id .space
    │   ├─ TagMissingError          .name .available
    │   └─ UnknownNameError         .kind .name .available
    ├─ ExistsError                  .kind .name
    │   └─ RecordExistsError        .ids .collection
    ├─ ConflictError                .id .expected .found
    ├─ WrongModelError              .space .numbers
    ├─ EncoderError                 .space .ids
    ├─ StateError (RuntimeError)
    │   ├─ ClosedError              .what
    │   ├─ ReadOnlyError            .path
    │   ├─ ForkedError              .what
    │   ├─ TransactionError
    │   ├─ SpaceMismatchError       .query_space .available
    │   ├─ StaleError               .name .reason
    │   ├─ SnapshotExpiredError     .seq .oldest
    │   └─ CancelledError
    │       └─ ImportInterruptedError   .done
    ├─ ExtraMissingError (ImportError)  .package .extra
    ├─ PluginError                  .plugin .distribution
    │   ├─ PluginLoadError
    │   ├─ PluginConflictError      .kind .name .first .second
    │   ├─ PluginContractError      .rule .problem
    │   └─ PluginMissingError       .kind .name
    └─ StorageError
        ├─ MapFullError             .map_size
        ├─ DiskFullError            .path
        ├─ LockedError              .path .holder .waited
        ├─ ReadersFullError         .limit
        ├─ CorruptionError          .what .where
        ├─ NotADatabaseError        .path
        ├─ FormatVersionError       .found .supported
        ├─ RemoteFileSystemError    .path .kind
        └─ FileAccessError (OSError) .path

    VecdbWarning (UserWarning)
    ├─ IdentityWarning
    └─ PerformanceWarning
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "ArgumentError",
    "CancelledError",
    "ClosedError",
    "CollectionMissingError",
    "ConflictError",
    "CorruptionError",
    "DTypeError",
    "DimensionError",
    "DiskFullError",
    "DuplicateIdError",
    "EncoderError",
    "ExistsError",
    "ExtraMissingError",
    "FileAccessError",
    "FitError",
    "ForkedError",
    "FormatVersionError",
    "IdError",
    "IdentityWarning",
    "ImportInterruptedError",
    "LockedError",
    "MapFullError",
    "MetadataError",
    "MissingError",
    "NonFiniteError",
    "NotADatabaseError",
    "ParameterError",
    "PerformanceWarning",
    "PluginConflictError",
    "PluginContractError",
    "PluginError",
    "PluginLoadError",
    "PluginMissingError",
    "ReadOnlyError",
    "ReadersFullError",
    "RecordExistsError",
    "RecordMissingError",
    "RemoteFileSystemError",
    "SnapshotExpiredError",
    "SourceError",
    "SpaceMismatchError",
    "SpaceMissingError",
    "StaleError",
    "StateError",
    "StorageError",
    "TagMissingError",
    "TransactionError",
    "UnknownNameError",
    "VecdbError",
    "VecdbWarning",
    "VectorMissingError",
    "VectorRangeError",
    "WhereError",
    "WrongModelError",
    "ZeroVectorError",
]


def _rebuild(cls: type[VecdbError], message: str, hint: str | None, data: dict[str, Any]) -> VecdbError:
    return cls(message, hint=hint, **data)


class VecdbError(Exception):
    """Base of every error that vecdb raises on purpose.

    Parameters
    ----------
    message : str
        What failed, where, got and expected.
    hint : str, optional
        One sentence on what to do next; appended to ``str(error)``.
    **data
        The attributes of the class (`fields`); those left out are None.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str, *, hint: str | None = None, **data: Any) -> None:
        unknown = set(data) - set(self.fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no attribute {sorted(unknown)}; it has {self.fields}")
        super().__init__(message)
        self.message = message
        self.hint = hint
        for name in self.fields:
            setattr(self, name, data.get(name))

    def __str__(self) -> str:
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        data = {name: getattr(self, name) for name in self.fields}
        return _rebuild, (type(self), self.message, self.hint, data)


# --- the caller's arguments -------------------------------------------------------------------------------


class ArgumentError(VecdbError, ValueError):
    """An argument is not acceptable; nothing was read, stored or changed."""


class DimensionError(ArgumentError):
    """A vector has another width than its space, or an array another number of axes."""

    fields = ("expected", "got", "where")


class DTypeError(ArgumentError, TypeError):
    """An array's element type cannot be used for vectors (objects, text, complex numbers)."""

    fields = ("expected", "got", "where")


class NonFiniteError(ArgumentError):
    """A vector holds NaN or an infinity."""

    fields = ("row", "column", "where")


class ZeroVectorError(ArgumentError):
    """A vector of zero norm was given to a cosine space, where it has no direction."""

    fields = ("row", "where")


class VectorRangeError(ArgumentError):
    """A component is too large for the space's storage type."""

    fields = ("row", "column", "limit", "where")


class IdError(ArgumentError):
    """An id is not a non-empty str of at most 480 UTF-8 bytes or a 64-bit int."""

    fields = ("got", "position")


class DuplicateIdError(ArgumentError):
    """The same id stands twice in one batch."""

    fields = ("id", "first", "second")


class MetadataError(ArgumentError):
    """Metadata or text cannot be stored: not serialisable, too large, too deep, or a key with dots or ``$``."""

    fields = ("position", "path")


class WhereError(ArgumentError):
    """A ``where`` condition is malformed."""

    fields = ("path", "operator")


class SourceError(ArgumentError):
    """A file or table given to an import is damaged, too large, or not what it says it is."""

    fields = ("path", "line", "row")


class FitError(ArgumentError):
    """A transform or filter cannot be fitted on what was given: fewer pairs or labels than needed, or useless ones."""

    fields = ("pairs", "needed")


class ParameterError(ArgumentError):
    """A parameter is out of its bounds or not one of the allowed values."""

    fields = ("name", "got", "allowed")


# --- things that are not there, or already there ----------------------------------------------------------


class MissingError(VecdbError, LookupError):
    """Something was named that does not exist."""

    def __str__(self) -> str:  # LookupError subclasses may print a repr; keep the sentence
        return VecdbError.__str__(self)


class CollectionMissingError(MissingError):
    """No collection has this name."""

    fields = ("name", "available")


class SpaceMissingError(MissingError):
    """The collection has no space of this name."""

    fields = ("name", "available")


class RecordMissingError(MissingError):
    """No record has this id."""

    fields = ("ids", "collection")


class VectorMissingError(MissingError):
    """The record exists but has no vector in this space."""

    fields = ("id", "space")


class TagMissingError(MissingError):
    """No tag has this name."""

    fields = ("name", "available")


class UnknownNameError(MissingError):
    """A registered name (index type, importer, ...) is not known."""

    fields = ("kind", "name", "available")


class ExistsError(VecdbError):
    """The name is taken."""

    fields: ClassVar[tuple[str, ...]] = ("kind", "name")


class RecordExistsError(ExistsError):
    """`insert` met an id that is already in the collection."""

    fields = ("kind", "name", "ids", "collection")


class ConflictError(VecdbError):
    """`if_version` did not match: somebody else changed the record."""

    fields = ("id", "expected", "found")


class WrongModelError(VecdbError):
    """A batch has the right width but does not look like the output of the space's model."""

    fields = ("space", "numbers")


class EncoderError(VecdbError):
    """The callable that embeds records failed for every record of a batch, retries included; nothing is lost."""

    fields = ("space", "ids")


# --- the handle's state -----------------------------------------------------------------------------------


class StateError(VecdbError, RuntimeError):
    """The call is right but not now, or not on this handle."""


class ClosedError(StateError):
    """The database was closed."""

    fields = ("what",)


class ReadOnlyError(StateError):
    """The database was opened read-only."""

    fields = ("path",)


class ForkedError(StateError):
    """A transaction or iterator from before a fork was used in the child."""

    fields = ("what",)


class TransactionError(StateError):
    """A transaction was nested, used from another thread, or used after its end."""


class SpaceMismatchError(StateError):
    """The query's space is not one that the collection can answer from."""

    fields = ("query_space", "available")


class StaleError(StateError):
    """What was fitted for one state of a collection is asked of another: after an upgrade it has to be fitted again."""

    fields = ("name", "reason")


class SnapshotExpiredError(StateError):
    """The seq asked for is older than the history that is kept."""

    fields = ("seq", "oldest")


class CancelledError(StateError):
    """The caller's `cancel` said stop; what was committed before stays."""


class ImportInterruptedError(CancelledError):
    """An import was stopped half-way; `done` rows are committed, and the same import from files resumes there."""

    fields = ("done",)


class ExtraMissingError(VecdbError, ImportError):
    """An optional dependency is needed for this call."""

    fields = ("package", "extra")


# --- the file ---------------------------------------------------------------------------------------------


class PluginError(VecdbError):
    """A plugin failed; `plugin` is its registered name, `distribution` the installed package, as far as known."""

    plugin: str | None
    distribution: str | None
    fields: ClassVar[tuple[str, ...]] = ("plugin", "distribution")


class PluginLoadError(PluginError):
    """A plugin could not be imported or registered; nothing of it is registered."""


class PluginConflictError(PluginError):
    """Two plugins, `first` and `second`, claim one name of one kind."""

    kind: str
    name: str
    fields = ("plugin", "distribution", "kind", "name", "first", "second")


class PluginContractError(PluginError):
    """What a plugin returned or did breaks rule `rule` of its contract."""

    rule: str
    problem: str | None
    fields = ("plugin", "distribution", "rule", "problem")


class PluginMissingError(PluginError):
    """Something stored needs the plugin that provides `name`, which is not installed or not allowed here."""

    fields = ("plugin", "distribution", "kind", "name")


class StorageError(VecdbError):
    """The file could not be read or written; committed data is untouched."""


class MapFullError(StorageError):
    """The memory map is full and could not be enlarged."""

    fields = ("map_size",)


class DiskFullError(StorageError):
    """The disk (or the file-size limit) is full; the commit was rolled back."""

    fields = ("path",)


class LockedError(StorageError):
    """Another process holds the lock and did not release it in time."""

    fields = ("path", "holder", "waited")


class ReadersFullError(StorageError):
    """All reader slots are taken."""

    fields = ("limit",)


class CorruptionError(StorageError):
    """Stored bytes are not what was written."""

    fields = ("what", "where")


class NotADatabaseError(StorageError):
    """The file is not a vecdb database."""

    fields = ("path",)


class FormatVersionError(StorageError):
    """The file was written in a format this version does not know."""

    fields = ("found", "supported")


class RemoteFileSystemError(StorageError):
    """The file lies on a network file system, where memory maps and locks cannot be trusted."""

    fields = ("path", "kind")


class FileAccessError(StorageError, OSError):
    """The operating system refused access to the file or its directory."""

    fields = ("path",)

    def __str__(self) -> str:  # OSError would print its own format
        return VecdbError.__str__(self)


# --- warnings ---------------------------------------------------------------------------------------------


class VecdbWarning(UserWarning):
    """Base of every warning."""


class IdentityWarning(VecdbWarning):
    """Vectors were accepted that could not be verified to come from the space's model."""


class PerformanceWarning(VecdbWarning):
    """The call is answered correctly but on a slow path."""
