"""Searches that start from examples, learn from their own answers, or spread them.

`wishes` checks what was asked for, `examples` makes queries of examples, `rocchio`, `mmr` and `mixture` are the plain
methods, `grouping` and `choosing` pick the hits from more candidates. Design: docs/how-to/explore.md.
"""
