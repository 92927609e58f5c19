"""Compiled operations of vecdb, and what must be known about them before numba is loaded.

Importing this package loads numpy only. `loader` brings numba in, in the background; `bounds` and `reference` are
plain numpy; every other module here imports numba and is imported through `loader` alone.
Design: docs/explanation/architecture.md, docs/contributing/kernels.md.
"""
