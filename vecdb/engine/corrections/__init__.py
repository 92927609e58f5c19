"""Stored corrections of scores: fitting them, keeping them up with new rows, searching by them.

The arithmetic is `vecdb.corrections`. Design: docs/explanation/hubness.md.
"""
