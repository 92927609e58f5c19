"""Make a plugin that breaks one rule: a sound one with something replaced."""

from __future__ import annotations

from typing import Any

from vecdb.testing import run_checks


class Changed:
    """Everything of `inner`, except what is replaced."""

    def __init__(self, inner: Any, **changes: Any) -> None:
        self.__dict__.update(changes, inner=inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Fitting(Changed):
    """A type whose fitted objects are changed, loaded ones alike, and whose own parts may be."""

    def __init__(self, inner: Any, fitted: Any = None, **changes: Any) -> None:
        super().__init__(inner, **changes)
        self.__dict__["fitted"] = fitted or (lambda made: made)

    def fit(self, data: Any, params: Any) -> Any:
        return self.fitted(self.inner.fit(data, params))

    def load(self, state: Any) -> Any:
        return self.fitted(self.inner.load(state))


def broken_rules(thing: Any, kind: str) -> set[str]:
    """Return the numbers of the rules that the kit finds broken."""
    return {result.check.number for result in run_checks(thing, kind) if not result.ok}
