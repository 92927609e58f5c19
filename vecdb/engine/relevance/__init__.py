"""Relevance filters of a collection: fitted on what searches return, stored, applied, and refused when they are stale.

`border` is the only way to a plugin; `basis` says what a filter was fitted for; `material` makes the pool of a fit,
`fitting` fits and measures, `stored` keeps, `applying` judges hits. Design: docs/explanation/relevance.md.
"""
