"""vecdb against its peers: recall against rate, builds, sizes, filters, cold starts and inserts, all in one run.

`python -m tools.bench.compare` is the one entry. Every index lives in a process of its own (`worker`), which knows one
adapter of `peers/`; this side prepares the data (`sets`), takes turns (`runs`), keeps what was found (`record`), judges
it (`arithmetic`, `bars`) and writes it down (`tables`, `plots`, `page`). Use: docs/contributing/benchmarks.md.
"""
