"""vecdb's own backfill policies, registered through the same hook as anybody else's.

Which one to use when, and what each was measured to gain: docs/how-to/migrate.md.
"""

from __future__ import annotations

from vecdb.backfill.ranked import hybrid_policy, novelty_policy, random_policy, traffic_policy, uncertainty_policy
from vecdb.contracts.backfill import BackfillPolicy
from vecdb.hookspecs import hookimpl

__all__ = ["vecdb_register_backfill_policies"]


@hookimpl
def vecdb_register_backfill_policies() -> list[BackfillPolicy]:
    """Return vecdb's own policies, the default one first."""
    return [novelty_policy(), traffic_policy(), hybrid_policy(), uncertainty_policy(), random_policy()]
