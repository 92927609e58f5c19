"""The conformance kit: every rule that a plugin must keep as a check that can be run, alone or under pytest.

`CHECKS_BY_KIND` says which checks there are for each kind of registered object; everything else here is the same for
all kinds. Neither pytest nor anything of a plugin is imported before it is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from vecdb.errors import ParameterError, PluginContractError
from vecdb.testing.backfill_checks import iter_backfill_checks
from vecdb.testing.checks import Check, CheckResult, name_of
from vecdb.testing.command_checks import iter_command_checks
from vecdb.testing.importer_checks import iter_importer_checks
from vecdb.testing.index_checks import iter_index_checks
from vecdb.testing.relevance_checks import iter_relevance_checks
from vecdb.testing.transform_checks import iter_transform_checks

__all__ = ["CHECKS_BY_KIND", "expected_failures_of", "iter_checks", "parametrize_with_checks", "run_checks"]

CHECKS_BY_KIND: dict[str, Callable[[Any], Iterator[Check]]] = {
    "index type": iter_index_checks,
    "transform": iter_transform_checks,
    "relevance filter": iter_relevance_checks,
    "backfill policy": iter_backfill_checks,
    "importer": iter_importer_checks,
    "command": iter_command_checks,
}
"""Kind of registered object, as the registry writes it -> the checks that apply to one such object."""


def iter_checks(thing: Any, kind: str = "index type") -> Iterator[Check]:
    """Yield the checks that apply to an object, chosen by what it declares.

    Raises
    ------
    ParameterError
        There are no checks for this kind.
    """
    if kind not in CHECKS_BY_KIND:
        known = sorted(CHECKS_BY_KIND)
        raise ParameterError(
            f"there are no checks for kind {kind!r}; there are for {known}", name="kind", got=kind, allowed=known
        )
    return CHECKS_BY_KIND[kind](thing)


def expected_failures_of(thing: Any, kind: str = "index type") -> dict[str, str]:
    """Return the checks that an object declares to fail, with its reasons: its attribute ``expected_failures``.

    Raises
    ------
    ParameterError
        A check that does not exist or does not apply, or a reason that is not a text.
    """
    declared = getattr(thing, "expected_failures", None) or {}
    return _announced(name_of(thing), declared, {check.name for check in iter_checks(thing, kind)})


def run_checks(
    thing: Any,
    kind: str = "index type",
    *,
    expected_failures: Mapping[str, str] | None = None,
    on: Callable[[CheckResult], object] | None = None,
) -> list[CheckResult]:
    """Run every check that applies to an object.

    Parameters
    ----------
    thing : object
        An index type, a transform, ...
    kind : str, default "index type"
        A key of `CHECKS_BY_KIND`.
    expected_failures : mapping of str to str, optional
        Checks that fail, and why. Default: those that the object declares itself.
    on : callable, optional
        Called with each result as soon as it is there.

    Returns
    -------
    list of CheckResult
        It conforms if all of them are `ok`.

    Raises
    ------
    ParameterError
        An expected failure that no check has the name of.
    """
    checks = list(iter_checks(thing, kind))
    names = {check.name for check in checks}
    expected = expected_failures_of(thing, kind)
    if expected_failures is not None:
        expected = _announced(name_of(thing), expected_failures, names)
    results = []
    for check in checks:
        results.append(_run(check, thing, expected.get(check.name)))
        if on is not None:
            on(results[-1])
    return results


def parametrize_with_checks(
    things: Iterable[Any], kind: str = "index type", *, expected_failures: Mapping[str, str] | None = None
) -> Any:
    """Return a pytest decorator that gives a test every check of every object; imports pytest.

    Parameters
    ----------
    things : iterable
        Index types, transforms, ...
    kind : str, default "index type"
        A key of `CHECKS_BY_KIND`. The test's arguments are called after it, ``index_type``, and ``check``.
    expected_failures : mapping of str to str, optional
        Checks that fail, and why; in addition to those that the objects declare themselves. Strict: one that passes
        fails the test.

    Raises
    ------
    ParameterError
        An expected failure that is no check of any of `things`.

    Examples
    --------
    ::

        @parametrize_with_checks([MyIndexType()])
        def test_conformance(index_type, check):
            check(index_type)
    """
    import pytest  # wanted in test files only

    things = list(things)
    all_names = {check.name for thing in things for check in iter_checks(thing, kind)}
    given = _announced(", ".join(map(name_of, things)), expected_failures or {}, all_names)
    rows = []
    for thing in things:
        expected = {**given, **expected_failures_of(thing, kind)}
        for check in iter_checks(thing, kind):
            reason = expected.get(check.name)
            marks = [pytest.mark.xfail(reason=reason, strict=True, raises=PluginContractError)] if reason else []
            rows.append(pytest.param(thing, check, id=f"{name_of(thing)}-{check.name}", marks=marks))
    return pytest.mark.parametrize((kind.replace(" ", "_"), "check"), rows)


def _run(check: Check, thing: Any, reason: str | None) -> CheckResult:
    start, error = time.perf_counter(), None
    try:
        check(thing)
    except PluginContractError as found:
        error = found
    seconds = time.perf_counter() - start
    if error is None:
        return CheckResult(check, "passed" if reason is None else "unexpected", seconds, None, reason)
    return CheckResult(check, "failed" if reason is None else "expected", seconds, error, reason)


def _announced(owner: str, expected: Any, names: set[str]) -> dict[str, str]:
    """Return expected failures as a dict, all of them of known checks and with a reason."""
    if not isinstance(expected, Mapping):
        raise ParameterError(
            f"expected_failures of {owner} is {type(expected).__name__}, expected a mapping of checks to reasons",
            name="expected_failures",
            got=expected,
            allowed="{check: reason}",
        )
    for name, reason in expected.items():
        if name not in names:
            from difflib import get_close_matches  # needed for a message only

            close = get_close_matches(str(name), sorted(names), 1)
            raise ParameterError(
                f"expected_failures of {owner} names {name!r}, which is no check that applies to it",
                hint=f"Did you mean {close[0]!r}?" if close else None,
                name="expected_failures",
                got=name,
                allowed=sorted(names),
            )
        if not isinstance(reason, str) or not reason.strip():
            raise ParameterError(
                f"expected_failures of {owner} gives no reason for {name}",
                name="expected_failures",
                got=reason,
                allowed="a sentence",
            )
    return dict(expected)
