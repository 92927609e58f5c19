"""What vecdb itself registers keeps the contracts that it asks of others."""

from dataclasses import replace

from vecdb import PluginRegistry
from vecdb.testing import parametrize_with_checks

REGISTRY = PluginRegistry(entry_points=False)


def registered(kind):
    return [REGISTRY.find(kind, name).thing for name in REGISTRY.names(kind)]


@parametrize_with_checks(registered("index type"))
def test_index_types(index_type, check):
    check(index_type)


def few_steps(kind):
    """Return a kind whose descent stops early by default: the rules ask what a fit is, not how good."""
    steps = kind.parameters.get("steps")
    if steps is None:
        return kind
    return replace(kind, parameters={**kind.parameters, "steps": replace(steps, default=15)})


@parametrize_with_checks([few_steps(kind) for kind in registered("transform")], "transform")
def test_transforms(transform, check):
    check(transform)


@parametrize_with_checks(registered("backfill policy"), "backfill policy")
def test_backfill_policies(backfill_policy, check):
    check(backfill_policy)


@parametrize_with_checks([few_steps(kind) for kind in registered("relevance filter")], "relevance filter")
def test_relevance_filters(relevance_filter, check):
    check(relevance_filter)
