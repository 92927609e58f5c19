"""Whether a new model is worth it, before anything is touched: evidence, intervals, a decision and the rule behind it.

Reads a collection by its public names, fits maps through the registry, compares rankings with `vecdb.evaluation`, and
stores nothing until `UpgradePlan.apply`. How it decides: docs/explanation/verdicts.md.
"""
