"""What the checks of transforms and of relevance filters have in common: parameters, states, randomness."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vecdb.contracts import Param, state_digest, state_problems
from vecdb.contracts.descriptors import KINDS, problems_of
from vecdb.errors import CancelledError, CorruptionError, FitError
from vecdb.testing.checks import fail, require

__all__ = [
    "cancels",
    "check_descriptor",
    "damaged_states",
    "defaults",
    "digest",
    "fits_alike",
    "leaves_random_state",
    "refuses",
    "refuses_damage",
    "restored",
    "stores_plainly",
    "too_few",
    "variants",
]


def check_descriptor(kind: str, thing: Any) -> None:
    """Say what would keep `thing` from being registered."""
    own = isinstance(getattr(thing, "name", None), str) and "." not in thing.name and KINDS[kind].prefixed
    problems = problems_of(KINDS[kind], thing, own=own)
    require(not problems, "; ".join(problems))


def defaults(thing: Any) -> dict[str, Any]:
    """Return the declared parameters with their defaults."""
    return {name: param.default for name, param in thing.parameters.items()}


def variants(thing: Any) -> Iterator[dict[str, Any]]:
    """Yield the defaults, then the defaults with one choice or switch changed, one after the other."""
    usual = defaults(thing)
    yield usual
    for name, param in thing.parameters.items():
        yield from ({**usual, name: other} for other in _others(param))


def _others(param: Param) -> list[Any]:
    if param.choices is not None:
        return [choice for choice in param.choices if choice != param.default]
    return [not param.default] if param.kind == "bool" else []


def refuses(action: Callable[[], Any], what: str, *errors: type[Exception]) -> Exception:
    """Say so unless `action` raises one of `errors`; return the one it raised."""
    names = " or ".join(error.__name__ for error in errors)
    try:
        action()
    except errors as error:
        return error
    except Exception as error:
        fail(f"{what}: {type(error).__name__} was raised, expected {names}: {error}")
    fail(f"{what} was accepted, expected {names}")


def cancels(fit: Callable[[], Any]) -> None:
    """Say so unless a fit that is told to stop raises `CancelledError`."""
    refuses(fit, "a fit whose cancel says stop", CancelledError)


def fits_alike(fit: Callable[[], Any]) -> None:
    """Say so unless two fits have the same state."""
    one, other = digest(fit()), digest(fit())
    require(one == other, "two fits on the same data, parameters and seed have different states")


def digest(fitted: Any) -> str | None:
    """Return the digest of a state, None if it cannot be stored: that is a rule of its own."""
    state = fitted.state()
    return None if any(state_problems(state)) else state_digest(state)


def leaves_random_state(action: Callable[[], Any]) -> None:
    """Say so if `action` draws from, or seeds, the generators that the whole process shares."""
    before = random.getstate(), np.random.get_state(legacy=False)
    action()
    after = random.getstate(), np.random.get_state(legacy=False)
    require(before[0] == after[0], "it uses the random module's shared generator")
    require(repr(before[1]) == repr(after[1]), "it uses numpy's shared generator (numpy.random.seed, rand, ...)")


def too_few(action: Callable[[], Any], what: str) -> None:
    """Say so unless `action` raises a `FitError` that counts."""
    error: Any = refuses(action, what, FitError)
    require(
        isinstance(error.pairs, int) and isinstance(error.needed, int),
        f"{what}: FitError has pairs={error.pairs!r} and needed={error.needed!r}, expected two numbers",
    )


def stores_plainly(fitted: Any) -> None:
    """Say why the state of something fitted cannot be stored, or that it changes."""
    state = fitted.state()
    problems = list(state_problems(state))
    require(not problems, "; ".join(problems))
    require(digest(fitted) == digest(fitted), "a second call of state() gives another state")


def restored(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state as the engine gives it back: new values, and arrays that are read-only."""
    return {name: _restored(value) for name, value in state.items()}


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return restored(value)
    if isinstance(value, list):
        return [_restored(part) for part in value]
    if isinstance(value, np.ndarray):
        return np.frombuffer(value.tobytes(), dtype=value.dtype).reshape(value.shape)
    return value


def refuses_damage(thing: Any, state: dict[str, Any]) -> None:
    """Say so unless every damaged version of a state is refused as damaged."""
    if any(state_problems(state)):
        return  # that is a rule of its own
    for what, damaged in damaged_states(state):
        refuses(lambda damaged=damaged: thing.load(damaged), f"a state {what}", CorruptionError)  # type: ignore[misc]


def damaged_states(state: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield states that no plugin wrote, each with what is wrong."""
    whole = restored(state)
    for name, value in whole.items():
        yield f"without {name!r}", {each: part for each, part in whole.items() if each != name}
        yield f"with {name!r} replaced by a dict", {**whole, name: {"x": 1}}
        if isinstance(value, np.ndarray):
            yield f"with {name!r} of one more axis", {**whole, name: value[None]}
            yield (
                f"with {name!r} of another type",
                {**whole, name: value.astype(np.int8 if value.dtype.kind == "f" else "f4")},
            )
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
            broken = value.copy()
            broken.flat[0] = np.nan
            yield f"with NaN in {name!r}", {**whole, name: broken}
