"""A plugin that cannot be imported."""

raise RuntimeError("the library it needs is too old")
