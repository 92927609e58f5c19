"""Benchmarks as ratios within one run; tools/bench/run.py starts them. See docs/explanation/performance.md."""
