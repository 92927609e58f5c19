"""The health of spaces: what was measured, put into words, a dict, or one HTML page with pictures.

`checkup` measures one space, `values` is what it found, `texts` says it. Reading is in vecdb/engine/checkup, the
measures are in vecdb/evaluation/health.
"""
