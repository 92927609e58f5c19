"""What every registered object must say of itself, checked when it is registered: cheap facts, no behaviour.

Behaviour is what the conformance kit of `vecdb.testing` checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vecdb.contracts.backfill import BACKFILL_FACTS
from vecdb.contracts.command import OWN_COMMANDS
from vecdb.contracts.index import IndexCapabilities
from vecdb.contracts.params import Param
from vecdb.contracts.relevance import MOST_SHOWN, RELEVANCE_NEEDS, SCOPES, TRANSFERS, RelevanceCapabilities
from vecdb.contracts.transform import ISOMETRIES, TRANSFORM_NEEDS, WIDTHS, TransformCapabilities
from vecdb.errors import ParameterError
from vecdb.types import METRICS

__all__ = ["KINDS", "Kind", "problems_of"]

_WORD = r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*"
_OWN_NAME = re.compile(_WORD)
_FOREIGN_NAME = re.compile(rf"{_WORD}(?:\.{_WORD})+")
_RESERVED = frozenset({"auto", "vecdb"})
_SUFFIX = re.compile(r"(?:\.[a-z0-9_-]+)+")


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


def _declared(thing: Any, wanted: type) -> Iterator[str]:
    capabilities = getattr(thing, "capabilities", None)
    if not isinstance(capabilities, wanted):
        yield f"capabilities is {type(capabilities).__name__}, expected vecdb.contracts.{wanted.__name__}"


def _index_type(thing: Any) -> Iterator[str]:
    yield from _versioned(thing)
    problems = list(_declared(thing, IndexCapabilities))
    yield from problems or capability_problems(thing.capabilities)


_INDEX_SWITCHES = ("exact", "filtered", "complete", "add", "remove", "encodes_segments", "deterministic", "measured")


def capability_problems(capabilities: IndexCapabilities) -> Iterator[str]:
    """Yield what is wrong with the declared abilities of an index type."""
    yield from _subset_problems(capabilities, "metrics", METRICS)
    yield from _switch_problems(capabilities, _INDEX_SWITCHES)
    recall: Any = capabilities.min_recall_at_10
    widest: Any = capabilities.max_dim
    if recall is not None and not (isinstance(recall, float) and 0.0 < recall <= 1.0):
        yield f"capabilities.min_recall_at_10 is {recall!r}, expected a float in (0, 1] or None"
    if widest is not None and not _is_positive_int(widest):
        yield f"capabilities.max_dim is {widest!r}, expected an int of at least 1 or None"
    part_from: Any = capabilities.part_from
    if not (_is_positive_int(part_from) or (part_from == 0 and type(part_from) is int)):
        yield f"capabilities.part_from is {part_from!r}, expected an int of at least 0"
    elif part_from and capabilities.encodes_segments is False:
        yield "capabilities.part_from needs encodes_segments: something has to cover what waits for a part"


def _transform(thing: Any) -> Iterator[str]:
    yield from _versioned(thing)
    problems = list(_declared(thing, TransformCapabilities))
    yield from problems or transform_problems(thing.capabilities)


def transform_problems(capabilities: TransformCapabilities) -> Iterator[str]:
    """Yield what is wrong with the declared abilities of a type of transform."""
    yield from _subset_problems(capabilities, "requires", TRANSFORM_NEEDS, may_be_empty=True)
    yield from _subset_problems(capabilities, "widths", WIDTHS)
    yield from _subset_problems(capabilities, "directions", ("query", "gallery"))
    yield from _choice_problems(capabilities, "isometry", ISOMETRIES)
    yield from _switch_problems(capabilities, ("affine", "invertible", "row_wise", "deterministic", "joint"))
    fewest: Any = capabilities.min_pairs
    if not (_is_positive_int(fewest) or (fewest == 0 and type(fewest) is int)):
        yield f"capabilities.min_pairs is {fewest!r}, expected an int of at least 0"
    if capabilities.affine is True and capabilities.row_wise is not True:
        yield "capabilities.affine needs row_wise: an affine map takes each row by itself"


def _relevance_filter(thing: Any) -> Iterator[str]:
    yield from _versioned(thing)
    problems = list(_declared(thing, RelevanceCapabilities))
    yield from problems or relevance_problems(thing.capabilities)


def relevance_problems(capabilities: RelevanceCapabilities) -> Iterator[str]:
    """Yield what is wrong with the declared abilities of a kind of relevance filter."""
    yield from _choice_problems(capabilities, "scope", SCOPES)
    yield from _choice_problems(capabilities, "transfer", TRANSFERS)
    yield from _subset_problems(capabilities, "requires", RELEVANCE_NEEDS, may_be_empty=True)
    yield from _switch_problems(capabilities, ("monotone", "deterministic"))
    if type(capabilities.depth) is not int or not 0 <= capabilities.depth <= MOST_SHOWN:
        yield f"capabilities.depth is {capabilities.depth!r}, expected an int from 0 to {MOST_SHOWN}"
    if capabilities.transfer == "rescore" and capabilities.scope != "score":
        yield "capabilities.transfer is 'rescore', which needs the scope 'score': vectors change with a model"


def _backfill_policy(thing: Any) -> Iterator[str]:
    yield from parameter_problems(getattr(thing, "parameters", None))
    yield from _subset_problems(thing, "needs", BACKFILL_FACTS, may_be_empty=True)


def _importer(thing: Any) -> Iterator[str]:
    yield from parameter_problems(getattr(thing, "parameters", None))
    suffixes, magic = getattr(thing, "suffixes", None), getattr(thing, "magic", None)
    if not isinstance(suffixes, tuple) or not all(
        isinstance(each, str) and _SUFFIX.fullmatch(each) for each in suffixes
    ):
        yield f"suffixes is {suffixes!r}, expected a tuple of lower-case suffixes as in ('.csv', '.csv.gz')"
    if not isinstance(magic, tuple) or not all(isinstance(each, bytes) and 2 <= len(each) <= 64 for each in magic):
        yield f"magic is {magic!r}, expected a tuple of bytes, each 2 to 64 long"
    example = getattr(thing, "example", None)
    if not isinstance(example, bytes) or not 1 <= len(example) <= 1 << 20:
        yield "example is not the bytes of a small file, at most 1 MiB"


def _command(thing: Any) -> Iterator[str]:
    """A click command, told by what it has: click itself is an extra, and is not imported here."""
    missing = [name for name in ("callback", "params", "get_help", "invoke") if not hasattr(thing, name)]
    if missing:
        yield f"it is a {type(thing).__name__} without {missing[0]}, expected a click command"
    elif not str(getattr(thing, "help", None) or "").strip():
        yield "it has no help text"
    if getattr(thing, "name", None) in OWN_COMMANDS:
        yield f"{thing.name!r} is a command of vecdb itself"


def _subset_problems(thing: Any, name: str, known: tuple[str, ...], *, may_be_empty: bool = False) -> Iterator[str]:
    value: Any = getattr(thing, name, None)
    if not isinstance(value, frozenset) or not value <= set(known) or not (value or may_be_empty):
        yield f"{_place(thing, name)} is {value!r}, expected a frozenset of some of {known}"


def _choice_problems(thing: Any, name: str, known: tuple[str, ...]) -> Iterator[str]:
    value: Any = getattr(thing, name)
    if not isinstance(value, str) or value not in known:
        yield f"{_place(thing, name)} is {value!r}, expected one of {known}"


def _switch_problems(capabilities: Any, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if not isinstance(getattr(capabilities, name), bool):
            yield f"{_place(capabilities, name)} is {getattr(capabilities, name)!r}, expected a bool"


def _place(thing: Any, name: str) -> str:
    return f"capabilities.{name}" if type(thing).__name__.endswith("Capabilities") else name


def _is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("index type", "vecdb_register_index_types", ("build", "load"), _index_type),
        Kind("transform", "vecdb_register_transforms", ("fit", "load"), _transform),
        Kind("relevance filter", "vecdb_register_relevance_filters", ("fit", "load"), _relevance_filter),
        Kind("backfill policy", "vecdb_register_backfill_policies", ("order",), _backfill_policy),
        Kind("importer", "vecdb_register_importers", ("open",), _importer),
        Kind("command", "vecdb_register_commands", ("main",), _command, prefixed=False),
    )
}
"""Every kind of object that a plugin can register."""
