"""Migrations: giving every record of a collection a vector from a new model, in steps that can be undone.

`begin` records a plan; `work` embeds batch after batch, each one commit; `ending` finishes or rolls back. What is
stored: vecdb/storage/migrations.py. Invariant: the source space is never touched before `finish`.
"""
