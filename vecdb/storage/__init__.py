"""LMDB and bytes: everything between a record and the file."""
