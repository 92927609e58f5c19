"""The border to transform plugins: every call goes through here, and what comes back is checked before it is believed.

Whatever a plugin does wrong becomes an error that names the plugin, its distribution and the rule. Rules:
docs/reference/transform-contract.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import settle_params
from vecdb.contracts.state import state_digest, state_problems
from vecdb.contracts.transform import DIRECTIONS, ISOMETRIES, FitData, Role, Transform, TransformCapabilities
from vecdb.errors import (
    ArgumentError,
    CancelledError,
    CorruptionError,
    FitError,
    ParameterError,
    PluginContractError,
    PluginError,
    StorageError,
    VecdbError,
)
from vecdb.registry import Provided
from vecdb.types import Space

F32 = npt.NDArray[np.float32]

_OURS: Final = (CancelledError, StorageError, ArgumentError, PluginContractError)
"""What a plugin raises by contract, or only passes on."""
_METHODS: Final = ("apply", "affine", "inverse", "companion", "uncertainty", "state")


@contextlib.contextmanager
def guarded(provided: Provided, doing: str) -> Iterator[None]:
    """Turn whatever a plugin raises beside what its contract allows into an error that names it."""
    try:
        yield
    except _OURS:
        raise
    except Exception as error:
        raise _named(provided, doing, error) from error


def _named(provided: Provided, doing: str, error: Exception) -> PluginError:
    said = error.message if isinstance(error, VecdbError) else f"{type(error).__name__}: {error}"
    return PluginError(
        f"{provided.owner} failed in {doing} of transform {provided.name!r}: {said}",
        hint="drop_transform() removes a stored one; another kind may be fitted instead.",
        plugin=provided.plugin,
        distribution=provided.distribution,
    )


def broken(provided: Provided, rule: str, problem: str) -> PluginContractError:
    """Return the error for a plugin that breaks a rule of its contract."""
    return PluginContractError(
        f"transform {provided.name!r} of {provided.owner} breaks rule {rule}: {problem}",
        plugin=provided.plugin,
        distribution=provided.distribution,
        rule=rule,
        problem=problem,
    )


# --- fitting ----------------------------------------------------------------------------------------------


def refuse_unsuited(provided: Provided, source: Space, target: Space, role: Role) -> None:
    """Refuse spaces and roles that a kind says it cannot map between.

    Raises
    ------
    ParameterError
    """
    able: TransformCapabilities = provided.thing.capabilities
    width = "equal" if source.dim == target.dim else "wider" if target.dim > source.dim else "narrower"
    if width not in able.widths:
        raise ParameterError(
            f"transform {provided.name!r} maps to {' or '.join(sorted(able.widths))} widths, "
            f"not from {source.dim} columns of {source.name!r} to {target.dim} of {target.name!r}",
            name="kind",
            got=provided.name,
            allowed=sorted(able.widths),
        )
    if role not in able.directions:
        raise ParameterError(
            f"transform {provided.name!r} cannot be fitted to map {_sides(role)}",
            name="direction",
            got=role,
            allowed=sorted(able.directions),
        )


def _sides(role: str) -> str:
    return "queries" if role == "query" else "stored vectors"


def refuse_lacking(provided: Provided, data: FitData) -> None:
    """Refuse data without what a kind cannot be fitted without.

    Raises
    ------
    FitError
    """
    able: TransformCapabilities = provided.thing.capabilities
    there = {
        "pairs": len(data.source) if len(data.source) == len(data.target) else 0,
        "queries": data.queries is not None,
        "labels": data.labels is not None,
        "groups": data.groups is not None,
        "validation": data.validation is not None,
    }
    missing = sorted(need for need in able.requires if not there[need])
    if missing or ("pairs" in able.requires and len(data.source) < able.min_pairs):
        needs = " and ".join(missing) if missing else f"{able.min_pairs} pairs"
        raise FitError(
            f"transform {provided.name!r} needs {needs}, got {len(data.source)} pairs",
            hint="Embed more records with both models, or choose another kind.",
            pairs=len(data.source),
            needed=able.min_pairs,
        )


def fit(provided: Provided, data: FitData, params: Mapping[str, Any]) -> Transform:
    """Let a plugin fit a transform, with parameters that are given or have their defaults.

    Raises
    ------
    ParameterError, FitError, CancelledError
    PluginError, PluginContractError
    """
    refuse_unsuited(provided, data.source_space, data.target_space, data.role)
    refuse_lacking(provided, data)
    settled = settle_params(f"transform {provided.name!r}", provided.thing.parameters, params)
    with guarded(provided, "fit"):
        return checked(provided, provided.thing.fit(data, settled), data.source_space, data.target_space)


def checked(provided: Provided, made: Any, source: Space, target: Space) -> Transform:
    """Return what a plugin returned if it is a transform between the two spaces.

    Raises
    ------
    PluginContractError
    """
    missing = [name for name in _METHODS if not callable(getattr(made, name, None))]
    if missing:
        raise broken(provided, "transform", f"{type(made).__name__} has no method {', '.join(missing)}")
    joint = provided.thing.capabilities.joint
    if made.source_dim != source.dim or (not joint and made.target_dim != target.dim):
        found = f"{made.source_dim} to {made.target_dim}"
        raise broken(provided, "widths", f"it maps {found} columns, expected {source.dim} to {target.dim}")
    if made.direction not in DIRECTIONS or made.isometry not in ISOMETRIES:
        raise broken(provided, "claims", f"it is {made.isometry!r} for {made.direction!r}")
    bound = made.lipschitz
    if bound is not None and not (isinstance(bound, (int, float)) and 0.0 <= bound < float("inf")):
        raise broken(provided, "lipschitz", f"its bound is {bound!r}")
    return made  # type: ignore[no-any-return]


# --- states -----------------------------------------------------------------------------------------------


def state_of(provided: Provided, made: Transform) -> tuple[dict[str, Any], str]:
    """Return what is to be stored of a transform, and its digest.

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


def load(provided: Provided, state: Mapping[str, Any], source: Space, target: Space) -> Transform:
    """Let a plugin open what it stored.

    Raises
    ------
    CorruptionError
        What is stored is damaged; whatever else a plugin stumbles over counts as that.
    PluginContractError
        What it returned is no transform between these spaces.
    """
    try:
        with guarded(provided, "load"):
            return checked(provided, provided.thing.load(state), source, target)
    except (StorageError, PluginContractError):
        raise
    except VecdbError as error:
        raise CorruptionError(
            error.message, hint="Fit the transform again.", what="transform", where=provided.name
        ) from error


# --- mapping ----------------------------------------------------------------------------------------------


def apply(provided: Provided, made: Transform, rows: F32, width: int) -> F32:
    """Return mapped rows, shape (n, width), new and finite.

    Raises
    ------
    PluginError, PluginContractError
    """
    given = np.ascontiguousarray(rows, np.float32)
    if given.flags.writeable:
        given = given.view()
        given.flags.writeable = False
    try:
        mapped: Any = made.apply(given)
    except Exception:  # the same as `guarded`, without the cost of a generator in every search
        with guarded(provided, "apply"):
            raise
    if not isinstance(mapped, np.ndarray) or mapped.dtype != np.float32 or mapped.shape != (len(rows), width):
        found = f"{mapped.dtype} {mapped.shape}" if isinstance(mapped, np.ndarray) else type(mapped).__name__
        raise broken(provided, "apply-shape", f"apply returned {found}, expected float32 {(len(rows), width)}")
    if not np.isfinite(mapped).all():
        raise broken(provided, "apply-finite", "apply returned numbers that are not finite")
    return mapped
