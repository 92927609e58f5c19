"""The border to plugins that provide relevance filters: every call goes through here, and nothing is believed.

Whatever a plugin does wrong becomes an error that names the plugin, its distribution and the rule. Rules:
docs/reference/relevance-contract.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import settle_params
from vecdb.contracts.relevance import RelevanceCapabilities, RelevanceData, RelevanceFilter
from vecdb.contracts.state import state_digest, state_problems
from vecdb.errors import (
    ArgumentError,
    CancelledError,
    CorruptionError,
    FitError,
    PluginContractError,
    PluginError,
    StorageError,
    VecdbError,
)
from vecdb.registry import Provided

F32 = npt.NDArray[np.float32]

_OURS: Final = (CancelledError, StorageError, ArgumentError, PluginContractError)
"""What a plugin raises by contract, or only passes on."""


@contextlib.contextmanager
def guarded(provided: Provided, doing: str) -> Iterator[None]:
    """Turn whatever a plugin raises beside what its contract allows into an error that names it."""
    try:
        yield
    except _OURS:
        raise
    except Exception as error:
        said = error.message if isinstance(error, VecdbError) else f"{type(error).__name__}: {error}"
        raise PluginError(
            f"{provided.owner} failed in {doing} of relevance filter {provided.name!r}: {said}",
            hint="drop_relevance() removes a stored one; another kind may be fitted instead.",
            plugin=provided.plugin,
            distribution=provided.distribution,
        ) from error


def broken(provided: Provided, rule: str, problem: str) -> PluginContractError:
    """Return the error for a plugin that breaks a rule of its contract."""
    return PluginContractError(
        f"relevance filter {provided.name!r} of {provided.owner} breaks rule {rule}: {problem}",
        plugin=provided.plugin,
        distribution=provided.distribution,
        rule=rule,
        problem=problem,
    )


def settle(provided: Provided, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter with its given or default value.

    Raises
    ------
    ParameterError
    """
    return settle_params(f"relevance filter {provided.name!r}", provided.thing.parameters, params)


def fit(provided: Provided, data: RelevanceData, params: Mapping[str, Any]) -> RelevanceFilter:
    """Let a plugin fit a filter, with parameters that are settled.

    Raises
    ------
    FitError, CancelledError
    PluginError, PluginContractError
    """
    able: RelevanceCapabilities = provided.thing.capabilities
    there = {"labels": data.labels is not None, "groups": data.groups is not None, "sample": data.sample is not None}
    missing = sorted(need for need in able.requires if not there[need])
    if missing:
        raise FitError(
            f"relevance filter {provided.name!r} needs {' and '.join(missing)}",
            hint="Give relevant_ids." if "labels" in missing else "The space itself has to hold vectors.",
            pairs=0,
            needed=1,
        )
    with guarded(provided, "fit"):
        return checked(provided, provided.thing.fit(data, params))


def checked(provided: Provided, made: Any) -> RelevanceFilter:
    """Return what a plugin returned if it is a filter.

    Raises
    ------
    PluginContractError
    """
    missing = [name for name in ("relevance", "state") if not callable(getattr(made, name, None))]
    if missing:
        raise broken(provided, "filter", f"{type(made).__name__} has no method {', '.join(missing)}")
    threshold = made.threshold
    if not isinstance(threshold, float) or not 0.0 < threshold <= 1.0:
        raise broken(provided, "threshold", f"its threshold is {threshold!r}")
    return made  # type: ignore[no-any-return]


def state_of(provided: Provided, made: RelevanceFilter) -> tuple[dict[str, Any], str]:
    """Return what is to be stored of a filter, and its digest.

    Raises
    ------
    PluginError, PluginContractError
    """
    with guarded(provided, "state"):
        state = dict(made.state())
    problems = list(state_problems(state))
    if problems:
        raise broken(provided, "state", problems[0])
    return state, state_digest(state)


def load(provided: Provided, state: Mapping[str, Any]) -> RelevanceFilter:
    """Let a plugin open what it stored.

    Raises
    ------
    CorruptionError
        What is stored is damaged; whatever else a plugin stumbles over counts as that.
    PluginContractError
        What it returned is no filter.
    """
    try:
        with guarded(provided, "load"):
            return checked(provided, provided.thing.load(state))
    except (StorageError, PluginContractError):
        raise
    except VecdbError as error:
        raise CorruptionError(
            error.message, hint="Fit the filter again.", what="relevance filter", where=provided.name
        ) from error


def judge(provided: Provided, made: RelevanceFilter, scores: F32, queries: F32, vectors: F32 | None, count: int) -> F32:
    """Return the relevance of candidates, shape (q, m), checked; the filter is given no more than its scope.

    Raises
    ------
    PluginError, PluginContractError
    """
    scope = provided.thing.capabilities.scope
    with guarded(provided, "relevance"):
        found: Any = made.relevance(
            lent(scores),
            None if scope == "score" else lent(queries),
            None if vectors is None else lent(vectors),
            count=count,
        )
    if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.shape != scores.shape:
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise broken(provided, "relevance-shape", f"relevance returned {what}, expected float32 {scores.shape}")
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise broken(provided, "relevance-range", "relevance returned numbers that are not between 0 and 1")
    return found


def lent(array: npt.NDArray[Any]) -> Any:
    """Return an array as plugins see it: contiguous and read-only."""
    shown = np.ascontiguousarray(array).view()
    shown.flags.writeable = False
    return shown
