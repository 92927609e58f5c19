"""The border to index plugins: every call goes through here, and what comes back is checked before it is believed.

Whatever a plugin does wrong becomes an error that names the plugin, its distribution and the rule; errors of vecdb that
a plugin lets pass (cancelled, damaged blobs) keep their type. Rules: docs/reference/index-contract.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader
from vecdb.contracts.effort import EffortCurve, curve_problems
from vecdb.contracts.index import Candidates, Index, VectorView
from vecdb.contracts.params import settle_stored
from vecdb.engine.blobstore import BlobCollector
from vecdb.engine.views import VectorsMovedError
from vecdb.errors import (
    CancelledError,
    ClosedError,
    CorruptionError,
    ForkedError,
    PluginContractError,
    PluginError,
    StorageError,
    VecdbError,
)
from vecdb.kernels import loader
from vecdb.registry import Provided
from vecdb.storage.blobs import BlobData
from vecdb.types import CancelCheck, Progress

T = TypeVar("T", bound=np.generic)

_NOTHING: Final = float("-inf")
_PADDING: Final = "has candidates behind position -1, or a score other than -inf there"
_POSITIONS: Final = np.dtype(np.int64)
_SCORES: Final = np.dtype(np.float32)
MOST_COMPILED: Final = 128
"""Candidates a query that the kernel looks at: it compares them pair by pair."""
_OURS: Final = (CancelledError, ClosedError, ForkedError, StorageError)
"""What a plugin only passes on: the caller's wish, a database closed under it, a file that cannot be read."""
_HINT: Final = "search(exact=True) answers without the index; drop_index() removes it."


@contextlib.contextmanager
def guarded(provided: Provided, doing: str) -> Iterator[None]:
    """Turn whatever a plugin raises into an error that names it."""
    try:
        yield
    except Exception as error:
        _raise_if_moved(error)
        if isinstance(error, _OURS):
            raise
        raise _named(provided, doing, error) from error


def _named(provided: Provided, doing: str, error: Exception) -> PluginError:
    if isinstance(error, PluginContractError):
        return error if error.plugin else _broken(provided, str(error.rule), str(error.problem or error.message))
    if isinstance(error, VecdbError):
        return PluginError(
            f"{provided.owner} failed in {doing} of index type {provided.name!r}: {error.message}",
            hint=error.hint or _HINT,
            plugin=provided.plugin,
            distribution=provided.distribution,
        )
    return PluginError(
        f"{provided.owner} failed in {doing} of index type {provided.name!r}: {type(error).__name__}: {error}",
        hint=_HINT,
        plugin=provided.plugin,
        distribution=provided.distribution,
    )


def _raise_if_moved(error: BaseException | None) -> None:
    """Vectors that were removed under a build are nobody's mistake, however a plugin wrapped the news."""
    while error is not None:
        if isinstance(error, VectorsMovedError):
            raise error
        error = error.__cause__ or error.__context__


def _broken(provided: Provided, rule: str, problem: str) -> PluginContractError:
    return PluginContractError(
        f"index type {provided.name!r} of {provided.owner} breaks rule {rule}: {problem}",
        hint=_HINT,
        plugin=provided.plugin,
        distribution=provided.distribution,
        rule=rule,
        problem=problem,
    )


# --- building and keeping ---------------------------------------------------------------------------------


def build(
    provided: Provided,
    view: VectorView,
    params: Mapping[str, Any],
    *,
    seed: int,
    progress: Progress,
    cancel: CancelCheck,
) -> Index:
    """Let a plugin build an index over `view`, with parameters that are given or were stored."""
    with guarded(provided, "build"):
        settled = _settled(provided, params)
        return _checked(provided, provided.thing.build(view, settled, seed=seed, progress=progress, cancel=cancel))


def _settled(provided: Provided, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter that the type declares now, whatever it declared when they were stored."""
    return settle_stored(f"index type {provided.name!r}", provided.thing.parameters, params)


def load(provided: Provided, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> Index:
    """Let a plugin open what it stored.

    Raises
    ------
    CorruptionError
        What is stored is damaged; whatever else a plugin stumbles over counts as that: the index is, the data are not.
    PluginContractError
        What it returned is no index.
    """
    try:
        with guarded(provided, "load"):
            return _checked(provided, provided.thing.load(blobs, view, _settled(provided, params)))
    except (*_OURS, PluginContractError):
        raise
    except PluginError as error:
        raise CorruptionError(
            error.message, hint="The index is rebuilt by optimize().", what="index blob", where=provided.name
        ) from error


def dump(provided: Provided, index: Index) -> list[BlobData]:
    """Return the blobs that a plugin wants to be stored."""
    blobs = BlobCollector(partial(guarded, provided, "dump"))
    with guarded(provided, "dump"):
        index.dump(blobs)
    return blobs.blobs


def add(
    provided: Provided, index: Any, view: VectorView, start: int, *, progress: Progress, cancel: CancelCheck
) -> None:
    """Let an index take in the vectors of `view` from position `start` on."""
    with guarded(provided, "add"):
        index.add(view, start, progress=progress, cancel=cancel)


def remove(provided: Provided, index: Any, positions: npt.NDArray[np.int64]) -> None:
    """Let an index forget vectors."""
    with guarded(provided, "remove"):
        index.remove(positions)


def encode_segment(provided: Provided, index: Any, view: VectorView) -> list[BlobData]:
    """Return the blobs of a part over `view` in the style of `index`."""
    blobs = BlobCollector(partial(guarded, provided, "encode_segment"))
    with guarded(provided, "encode_segment"):
        index.encode_segment(view, blobs)
    return blobs.blobs


def stats(provided: Provided, index: Index) -> dict[str, int | float | str]:
    """Return the facts that an index tells of itself."""
    with guarded(provided, "stats"):
        told = index.stats()
        if not isinstance(told, Mapping):
            raise _broken(provided, "stats", f"stats() returned {type(told).__name__}, expected a mapping")
        facts: Mapping[Any, Any] = told
        return {str(name): value for name, value in facts.items() if isinstance(value, (int, float, str))}


def effort_curve(provided: Provided, index: Any) -> EffortCurve | None:
    """Return the recall by effort that an index knows of itself, None if it knows none."""
    if not provided.thing.capabilities.measured:
        return None
    with guarded(provided, "effort_curve"):
        curve: EffortCurve | None = index.effort_curve()
        problems = [] if curve is None else list(curve_problems(curve))
        if problems:
            raise _broken(provided, "effort-curve", f"effort_curve() is wrong: {problems[0]}")
        return curve


def problems(provided: Provided, index: Any, view: VectorView) -> list[str]:
    """Return what an index finds wrong with itself; nothing if it does not look."""
    if not provided.thing.capabilities.proves:
        return []
    with guarded(provided, "problems"):
        return [str(problem) for problem in index.problems(view)]


def _checked(provided: Provided, index: Any) -> Index:
    missing = [name for name in _methods(provided) if not callable(getattr(index, name, None))]
    if missing:
        raise _broken(provided, "index", f"{type(index).__name__} has no method {', '.join(missing)}")
    return index  # type: ignore[no-any-return]


def _methods(provided: Provided) -> list[str]:
    able = provided.thing.capabilities
    declared = (
        ("add", able.add),
        ("remove", able.remove),
        ("encode_segment", able.encodes_segments),
        ("effort_curve", able.measured),
        ("problems", able.proves),
        ("prepare", able.prepares),
    )
    return ["search", "dump", "stats", *(name for name, has in declared if has)]


# --- searching --------------------------------------------------------------------------------------------


def search(
    provided: Provided,
    index: Index,
    queries: npt.NDArray[np.float32],
    k: int,
    *,
    allowed: npt.NDArray[np.bool_] | None,
    matches: int,
    effort: int | None,
    view: VectorView,
) -> list[npt.NDArray[np.int64]]:
    """Return the candidates that an index nominates for each query, best first.

    Parameters
    ----------
    matches : int
        How many positions are allowed.

    Raises
    ------
    PluginContractError
        What came back breaks a rule.
    PluginError
        The plugin raised.
    """
    shown = read_only(queries)
    mask = None if allowed is None else read_only(allowed)
    try:
        answer = index.search(shown, k, allowed=mask, effort=effort, view=view)
    except Exception:  # the same as `guarded`, without the cost of a generator in every search
        with guarded(provided, "search"):
            raise
    positions, scores = sound_arrays(provided, answer, len(queries))
    least = min(k, matches) if provided.thing.capabilities.complete else 0
    if positions.shape[1] <= MOST_COMPILED and loader.loaded():
        return _check_compiled(provided, positions, scores, view.count, allowed, least)
    return _check_many(provided, positions, scores, view.count, allowed, least)


def _check_compiled(
    provided: Provided,
    positions: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    count: int,
    allowed: npt.NDArray[np.bool_] | None,
    least: int,
) -> list[npt.NDArray[np.int64]]:
    """Look for a fault by the kernel; the plain checks then say which it is."""
    from vecdb.kernels.candidates import sound_lengths  # numba is loaded by now, never by importing this module

    lengths = sound_lengths(positions, scores, count, allowed, least)
    if lengths is None:
        return _check_many(provided, positions, scores, count, allowed, least)
    return [row[:length] for row, length in zip(positions, lengths, strict=True)]


def read_only(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """Return an array that a plugin cannot write to: it belongs to the search, and what follows relies on it."""
    if not array.flags.writeable:
        return array
    shown = array.view()
    shown.flags.writeable = False
    return shown


def sound_arrays(
    provided: Provided, answer: Any, queries: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return copies of the positions and scores that a plugin answered with, of the right dtypes and shapes."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise _broken(provided, "search-shape", f"search returned {type(answer).__name__}, expected Candidates")
    positions, scores = answer
    for name, array, dtype in (("positions", positions, _POSITIONS), ("scores", scores, _SCORES)):
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise _broken(provided, "search-dtype", f"{name} are {found}, expected {dtype}")
    if positions.ndim != 2 or positions.shape != scores.shape or len(positions) != queries:
        raise _broken(
            provided,
            "search-shape",
            f"positions have shape {positions.shape} and scores {scores.shape}, expected ({queries}, m) both",
        )
    # A plugin may keep what it returned, and write to it once it has been checked.
    return np.array(positions, order="C"), np.array(scores, order="C")


def prepared_arrays(provided: Provided, answer: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the arrays that a prepared search of one query answered with; what they say is checked as it is read.

    They are not copied: what checks and ranks them makes its own copy first.
    """
    if type(answer) is Candidates and type(answer[0]) is np.ndarray and type(answer[1]) is np.ndarray:
        positions, scores = answer
        shape = positions.shape
        if (
            positions.dtype is _POSITIONS
            and scores.dtype is _SCORES
            and len(shape) == 2
            and shape[0] == 1
            and shape == scores.shape
            and positions.flags.c_contiguous
            and scores.flags.c_contiguous
        ):
            return positions, scores
    return sound_arrays(provided, answer, 1)  # which says what is wrong, if anything is


def refuse_prepared(
    provided: Provided,
    positions: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    count: int,
    allowed: npt.NDArray[np.bool_] | None,
) -> None:
    """Raise for the rule that a prepared search has broken, if it did: too few candidates are none."""
    _check_many(provided, positions, scores, count, allowed, 0)


def _check_many(
    provided: Provided,
    positions: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    count: int,
    allowed: npt.NDArray[np.bool_] | None,
    least: int,
) -> list[npt.NDArray[np.int64]]:
    real = positions >= 0
    lengths = real.sum(axis=1)
    width = positions.shape[1]
    _refuse(
        provided, "search-unknown", f"has positions outside 0 to {count - 1}", (positions < -1) | (positions >= count)
    )
    behind = (real != (np.arange(width) < lengths[:, None])) | (~real & (scores != _NOTHING))
    _refuse(provided, "search-padding", _PADDING, behind)
    _refuse(provided, "search-nan", "has a score that is not a number", np.isnan(scores) & real)
    both = real[:, 1:]
    falls = scores[:, 1:] < scores[:, :-1]
    ties = (scores[:, 1:] == scores[:, :-1]) & (positions[:, 1:] >= positions[:, :-1])  # equal ones are told below
    _refuse(provided, "search-order", "is not sorted by score, then position", both & ~(falls | ties))
    ordered = np.sort(positions, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    _refuse(provided, "search-duplicates", "has a position twice", twice)
    _refuse(provided, "search-complete", f"has fewer than {least} candidates", (lengths < least)[:, None])
    if allowed is not None:
        _refuse(provided, "search-allowed", "has a position that was not allowed", real & ~allowed[positions])
    return [row[:length] for row, length in zip(positions, lengths.tolist(), strict=True)]


def _refuse(provided: Provided, rule: str, problem: str, wrong: npt.NDArray[np.bool_]) -> None:
    rows = np.flatnonzero(wrong.any(axis=1))
    if len(rows):
        raise _broken(provided, rule, f"query {int(rows[0])} {problem}")
