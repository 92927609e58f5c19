"""What vecdb itself registers keeps the contracts that it asks of others."""

from vecdb import PluginRegistry
from vecdb.testing import parametrize_with_checks

REGISTRY = PluginRegistry(entry_points=False)


def registered(kind):
    return [REGISTRY.find(kind, name).thing for name in REGISTRY.names(kind)]


@parametrize_with_checks(registered("index type"))
def test_index_types(index_type, check):
    check(index_type)


@parametrize_with_checks(registered("transform"), "transform")
def test_transforms(transform, check):
    check(transform)


@parametrize_with_checks(registered("backfill policy"), "backfill policy")
def test_backfill_policies(backfill_policy, check):
    check(backfill_policy)
