"""Answering a query of one space over vectors of several: native, bridged through transforms, or folded into a search.

`classes` says which vectors are reached and how, `masks` which of them answer, `folding` scores what is mapped on the
side of stored vectors, `calibration` and `scales` bring all scores on one scale, `answer` does it. Design:
docs/explanation/bridging.md.
"""
