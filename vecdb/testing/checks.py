"""One rule of a contract as an object: its number, its sentence, to which plugins it applies, and how it is checked.

A check is a function that is given the registered object (an index type, a transform, ...) and raises. Whatever it
raises becomes one `PluginContractError` that names the plugin, the rule and what was seen. Nothing here knows any kind
of plugin: see `vecdb.testing.plugin_kit`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vecdb.errors import PluginContractError

__all__ = ["Check", "CheckResult", "applying", "collect", "fail", "name_of", "require", "rule"]

_HERE = str(Path(__file__).parent)


class _Broken(AssertionError):
    """What a check saw, in words; becomes the `problem` of the error."""


@dataclass(frozen=True, slots=True)
class Check:
    """A rule and how it is checked; call it with the object to check.

    Attributes
    ----------
    name : str
        Name of the function: ``check_...``.
    number : str
        Number of the rule on the page of its contract: a letter for the group, and a number.
    sentence : str
        The rule.
    function : callable
    applies : callable
        Whether an object has promised what this rule is about.
    """

    name: str
    number: str
    sentence: str
    function: Callable[[Any], None]
    applies: Callable[[Any], bool]

    def __call__(self, thing: Any) -> None:
        """Check `thing`.

        Raises
        ------
        PluginContractError
            It breaks the rule; `rule`, `problem` and `plugin` say which, how and whose.
        """
        try:
            self.function(thing)
        except _Broken as broken:
            raise self._error(thing, str(broken)) from None
        except Exception as error:
            raise self._error(thing, f"{type(error).__name__}: {error}{_where(error)}") from error

    def _error(self, thing: Any, problem: str) -> PluginContractError:
        name = name_of(thing)
        return PluginContractError(
            f"{name} breaks rule {self.number} ({self.name}): {problem}",
            hint=self.sentence,
            plugin=name,
            rule=self.name,
            problem=problem,
        )

    def __repr__(self) -> str:
        return f"<{self.name} ({self.number})>"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of one check.

    Attributes
    ----------
    check : Check
    status : {"passed", "failed", "expected", "unexpected"}
        "expected" is a failure that was announced; "unexpected" a success where a failure was announced.
    seconds : float
    error : PluginContractError or None
        Why it failed.
    reason : str or None
        What the announcement said.
    """

    check: Check
    status: str
    seconds: float
    error: PluginContractError | None = None
    reason: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the outcome is the one that was to be expected."""
        return self.status in ("passed", "expected")


def rule(number: str, applies: Callable[[Any], bool] | None = None) -> Callable[[Callable[[Any], None]], Check]:
    """Make a check of a function; the first paragraph of its docstring is the rule.

    Parameters
    ----------
    number : str
        As in `Check`.
    applies : callable, optional
        Default: the rule is for everybody.
    """

    def decorate(function: Callable[[Any], None]) -> Check:
        text = (function.__doc__ or "").split("\n\n")[0]
        return Check(function.__name__, number, " ".join(text.split()), function, applies or _always)

    return decorate


def require(condition: object, problem: str) -> None:
    """Say what is wrong unless `condition` holds."""
    if not condition:
        fail(problem)


def fail(problem: str) -> NoReturn:
    """Say what a check saw that should not be."""
    raise _Broken(problem)


def collect(*groups: Iterable[object]) -> tuple[Check, ...]:
    """Return the checks among the values of some modules, in the order of their definition."""
    return tuple(value for group in groups for value in group if isinstance(value, Check))


def applying(checks: Iterable[Check], thing: Any) -> Iterator[Check]:
    """Yield the checks that apply to `thing`."""
    return (check for check in checks if check.applies(thing))


def name_of(thing: Any) -> str:
    """Return the name of a registered object as messages write it."""
    name = getattr(thing, "name", None)
    return name if isinstance(name, str) and name else type(thing).__name__


def _always(thing: Any) -> bool:
    return True


def _where(error: Exception) -> str:
    """Return where an error came from: the innermost line that is not part of the kit."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HERE)]
    return f" (in {frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
