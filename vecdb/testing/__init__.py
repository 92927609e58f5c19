"""Tools for testing vecdb and what is built on it. Each is a module of its own; importing this package loads none."""
