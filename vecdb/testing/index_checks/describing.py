"""Group D: what an index type says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vecdb.contracts.descriptors import capability_problems, parameter_problems
from vecdb.contracts.index import IndexCapabilities
from vecdb.contracts.params import Param, settle_params
from vecdb.errors import ParameterError
from vecdb.testing.checks import fail, require, rule
from vecdb.testing.index_checks.cases import usable, usual

_PLAIN = re.compile(r"[a-z][a-z0-9_-]*")
_PREFIXED = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)+")
_OPTIONAL = {
    "add": "add",
    "remove": "remove",
    "encodes_segments": "encode_segment",
    "measured": "effort_curve",
    "proves": "problems",
    "prepares": "prepare",
}


@rule("D1")
def check_name(index_type: Any) -> None:
    """The name is lower case, at most 64 characters, with a prefix as in `acme.ivfpq` unless it is part of vecdb."""
    name, own = index_type.name, type(index_type).__module__.startswith("vecdb.")
    good = isinstance(name, str) and len(name) <= 64 and (_PLAIN if own else _PREFIXED).fullmatch(name)
    require(good and name.split(".")[0] not in ("auto", "vecdb"), f"name is {name!r}")


@rule("D2")
def check_version(index_type: Any) -> None:
    """The version of the stored form is an int of at least 1."""
    version = index_type.version
    require(type(version) is int and 1 <= version < 1 << 31, f"version is {version!r}")


@rule("D3")
def check_capabilities(index_type: Any) -> None:
    """`capabilities` is an `IndexCapabilities` whose values have the declared types."""
    declared = index_type.capabilities
    require(isinstance(declared, IndexCapabilities), f"capabilities is {type(declared).__name__}")
    problems = list(capability_problems(declared))
    require(not problems, "; ".join(problems))


@rule("D4")
def check_parameters(index_type: Any) -> None:
    """Every parameter is a `Param` with an allowed default, a description and, if it is a number, a lower bound."""
    problems = list(parameter_problems(index_type.parameters)) or list(_without_bounds(index_type.parameters))
    require(not problems, "; ".join(problems))


def _without_bounds(parameters: dict[str, Param]) -> Iterator[str]:
    for name, param in parameters.items():
        if param.kind in ("int", "float") and param.low is None and param.choices is None:
            yield f"parameter {name!r} has no lower bound"


@rule("D5")
def check_unknown_parameter(index_type: Any) -> None:
    """A parameter that is not declared is refused with `ParameterError`."""
    try:
        settle_params("kit", index_type.parameters, {"no_such_parameter_": 1})
    except ParameterError:
        return
    fail("a parameter that is not declared is accepted")


@rule("D6")
def check_methods(index_type: Any) -> None:
    """The type has `build` and `load`; an index has `search`, `dump`, `stats`, and the methods of its capabilities."""
    missing = [name for name in ("build", "load") if not callable(getattr(index_type, name, None))]
    require(not missing, f"the type has no method {', '.join(missing)}")
    index = usual(index_type)[0].index
    wanted = ["search", "dump", "stats"]
    wanted += [method for switch, method in _OPTIONAL.items() if getattr(index_type.capabilities, switch)]
    missing = [name for name in wanted if not callable(getattr(index, name, None))]
    require(not missing, f"an index has no method {', '.join(missing)}")


@rule("D7")
def check_parameter_values(index_type: Any) -> None:
    """Every allowed value of a parameter works; tried are the lowest of each and every choice."""
    for name, param in index_type.parameters.items():
        values = param.choices if param.choices is not None else [] if param.low is None else [param.low]
        for value in values if param.kind != "bool" else (False, True):
            given = {name: int(value) if param.kind == "int" else value}
            built, queries = usual(index_type, params=given)
            usable(built, queries, 10, f"{name}={value!r}")


@rule("D8")
def check_repr(index_type: Any) -> None:
    """`repr` of the type is one line of at most 1,000 characters, the same before and after building."""
    before = repr(index_type)
    require("\n" not in before and 0 < len(before) <= 1_000, f"repr is {before[:80]!r} of {len(before)} characters")
    usual(index_type)
    require(repr(index_type) == before, "repr has changed by building: the type keeps state")
