"""Exit codes: the one table that the program, the help text and the documentation share."""

from __future__ import annotations

from vecdb.errors import (
    ArgumentError,
    CancelledError,
    CorruptionError,
    EncoderError,
    ExtraMissingError,
    FileAccessError,
    FormatVersionError,
    LockedError,
    MissingError,
    NotADatabaseError,
    ParameterError,
    PluginError,
    ReadersFullError,
    SnapshotExpiredError,
    SpaceMismatchError,
    StorageError,
    VecdbError,
    WhereError,
)

__all__ = ["EXIT_CODES", "exit_code"]

EXIT_CODES: dict[int, str] = {
    0: "Done.",
    1: "The command ran and found problems: damage (`check`), a broken rule (`check-plugin`), a false claim (`demo`).",
    2: "The call is wrong: unknown or missing option, impossible value, malformed condition, or a missing extra.",
    3: "Something named does not exist: database, collection, space, record, tag, commit, or a file to read.",
    4: "The data were refused: wrong width, NaN, bad JSON, a name that is taken, vectors of another model.",
    5: "The database is in use: another process holds the lock, or all reader places are taken.",
    6: "The file is damaged, not a database, or of a format that this version does not know.",
    7: "The disk: full, not writable, not readable, or a network file system.",
    8: "A plugin or an encoder: it is missing, does not load, clashes with another, or failed; the message names it.",
    70: "A bug in vecdb; VECDB_TRACEBACK=1 shows where.",
    130: "Interrupted (Ctrl-C). What was committed stays.",
    141: "The program that read the output has gone.",
}
"""What each exit code means."""

# The first class that fits decides, so derived classes stand before their bases.
_BY_CLASS: tuple[tuple[type[VecdbError], int], ...] = (
    (CancelledError, 130),
    (ExtraMissingError, 2),
    (ParameterError, 2),
    (WhereError, 2),
    (SpaceMismatchError, 2),
    (MissingError, 3),
    (SnapshotExpiredError, 3),
    (ArgumentError, 4),
    (LockedError, 5),
    (ReadersFullError, 5),
    (CorruptionError, 6),
    (NotADatabaseError, 6),
    (FormatVersionError, 6),
    (StorageError, 7),
    (PluginError, 8),
    (EncoderError, 8),
)


def exit_code(error: VecdbError) -> int:
    """Return the exit code for an error.

    Parameters
    ----------
    error : VecdbError

    Returns
    -------
    int
        A key of `EXIT_CODES`.
    """
    if isinstance(error, FileAccessError) and isinstance(error.__cause__, FileNotFoundError):
        return 3
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), 4)
