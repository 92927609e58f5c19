"""What every registered object must say of itself, checked when it is registered: cheap facts, no behaviour.

Behaviour is what the conformance kit of `vecdb.testing` checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vecdb.contracts.index import IndexCapabilities
from vecdb.contracts.params import Param
from vecdb.errors import ParameterError
from vecdb.types import METRICS

__all__ = ["KINDS", "Kind", "problems_of"]

_WORD = r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*"
_OWN_NAME = re.compile(_WORD)
_FOREIGN_NAME = re.compile(rf"{_WORD}(?:\.{_WORD})+")
_RESERVED = frozenset({"auto", "vecdb"})


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of registered object.

    Attributes
    ----------
    name : str
    hook : str
        The hook that returns objects of this kind.
    methods : tuple of str
        Callables it must have.
    check : callable
        Yields what is wrong beyond name and methods.
    prefixed : bool
        Whether names of third parties carry a prefix.
    """

    name: str
    hook: str
    methods: tuple[str, ...]
    check: Callable[[Any], Iterator[str]]
    prefixed: bool = True


def problems_of(kind: Kind, thing: Any, *, own: bool) -> list[str]:
    """Return what keeps `thing` from being registered; own: it is part of vecdb and has a name without a prefix."""
    problems = list(_name_problems(kind, getattr(thing, "name", None), own=own))
    problems += [f"it has no method {name}" for name in kind.methods if not callable(getattr(thing, name, None))]
    return problems + list(kind.check(thing))


def _name_problems(kind: Kind, name: object, *, own: bool) -> Iterator[str]:
    if not isinstance(name, str) or len(name) > 64:
        yield f"name is {name!r}, expected a str of at most 64 characters"
    elif own or not kind.prefixed:
        if not _OWN_NAME.fullmatch(name):
            yield f"name is {name!r}, expected lower case letters, digits, '-' and '_'"
    elif not _FOREIGN_NAME.fullmatch(name) or name.split(".")[0] in _RESERVED:
        yield f"name is {name!r}, expected lower case with a prefix, as in 'acme.{name or 'name'}'"


def _no_more(thing: Any) -> Iterator[str]:
    yield from ()


def _versioned(thing: Any) -> Iterator[str]:
    version = getattr(thing, "version", None)
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < 1 << 31:
        yield f"version is {version!r}, expected an int of at least 1"
    yield from parameter_problems(getattr(thing, "parameters", None))


def parameter_problems(parameters: Any) -> Iterator[str]:
    """Yield what is wrong with declared parameters: each needs a default within its bounds, and a description."""
    if not isinstance(parameters, Mapping):
        yield f"parameters is {type(parameters).__name__}, expected a mapping of names to vecdb.contracts.Param"
        return
    name: Any
    for name, param in parameters.items():
        if not isinstance(name, str) or not name.isidentifier() or not isinstance(param, Param):
            yield f"parameter {name!r} is {type(param).__name__}, expected an identifier with a Param"
            continue
        if param.kind not in ("int", "float", "str", "bool"):
            yield f"parameter {name!r} has kind {param.kind!r}"
            continue
        if not str(param.doc or "").strip():
            yield f"parameter {name!r} has no description"
        try:
            param.check("its type", name, param.default)
        except (ParameterError, TypeError) as error:
            yield f"the default of parameter {name!r} is not allowed: {error}"


def _index_type(thing: Any) -> Iterator[str]:
    yield from _versioned(thing)
    capabilities = getattr(thing, "capabilities", None)
    if not isinstance(capabilities, IndexCapabilities):
        yield f"capabilities is {type(capabilities).__name__}, expected vecdb.contracts.IndexCapabilities"
        return
    yield from capability_problems(capabilities)


_INDEX_SWITCHES = ("exact", "filtered", "complete", "add", "remove", "encodes_segments", "deterministic")


def capability_problems(capabilities: IndexCapabilities) -> Iterator[str]:
    """Yield what is wrong with the declared abilities of an index type."""
    metrics: Any = capabilities.metrics
    if not isinstance(metrics, frozenset) or not metrics or not metrics <= set(METRICS):
        yield f"capabilities.metrics is {metrics!r}, expected a frozenset of some of {METRICS}"
    for name in _INDEX_SWITCHES:
        if not isinstance(getattr(capabilities, name), bool):
            yield f"capabilities.{name} is {getattr(capabilities, name)!r}, expected a bool"
    recall: Any = capabilities.min_recall_at_10
    widest: Any = capabilities.max_dim
    if recall is not None and not (isinstance(recall, float) and 0.0 < recall <= 1.0):
        yield f"capabilities.min_recall_at_10 is {recall!r}, expected a float in (0, 1] or None"
    if widest is not None and (isinstance(widest, bool) or not isinstance(widest, int) or widest < 1):
        yield f"capabilities.max_dim is {widest!r}, expected an int of at least 1 or None"


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("index type", "vecdb_register_index_types", ("build", "load"), _index_type),
        Kind("transform", "vecdb_register_transforms", ("fit", "load"), _versioned),
        Kind("relevance filter", "vecdb_register_relevance_filters", ("fit", "load"), _versioned),
        Kind("backfill policy", "vecdb_register_backfill_policies", ("order",), _no_more),
        Kind("importer", "vecdb_register_importers", ("open",), _no_more),
        Kind("command", "vecdb_register_commands", ("main",), _no_more, prefixed=False),
    )
}
"""Every kind of object that a plugin can register."""
