"""Modules that wait to be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vecdb.lazy import LazyModule

ROOT = Path(__file__).resolve().parents[2]

FIRST_SEARCH = """
import sys
import numpy as np
import vecdb
with vecdb.open(sys.argv[1], "r") as db:
    hits = db.collection("docs").search([1.0, 0.0], k=1, include=())
    assert hits.ids == ["a"], hits
print(*sorted(sys.modules))
"""


def test_a_name_is_the_modules_own_and_asked_for_anew(monkeypatch):
    lazy = LazyModule("vecdb.engine.names")
    from vecdb.engine import names

    assert lazy.check_name is names.check_name
    monkeypatch.setattr(names, "MAX_NAME", 7)
    assert lazy.MAX_NAME == 7
    assert repr(lazy) == "<LazyModule 'vecdb.engine.names'>"


def test_what_is_missing_says_so():
    with pytest.raises(AttributeError, match=r"vecdb\.engine\.names.*nonsense"):
        LazyModule("vecdb.engine.names").nonsense  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        LazyModule("vecdb.no_such_module").anything  # noqa: B018


def test_a_first_search_imports_nothing_that_only_others_need(tmp_path):
    import vecdb

    path = tmp_path / "a.vecdb"
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=2)
        docs.upsert(["a", "b"], vectors={"s": [[1, 0], [0, 1]]}, metadata=[{"n": 1}, {"n": 2}])
    command = [sys.executable, "-c", FIRST_SEARCH, str(path)]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(found.stdout.split())
    of_others = {
        *("numba", "numpy.ma", "socket", "logging", "difflib", "uuid", "json", "shutil", "lzma", "pluggy"),
        *("vecdb.storage.writetx", "vecdb.storage.vectors", "vecdb.storage.columnstore", "vecdb.storage.columns"),
        *("vecdb.storage.copying", "vecdb.engine.operations", "vecdb.engine.batch", "vecdb.engine.where"),
        *("vecdb.engine.inspection", "vecdb.engine.housekeeping", "vecdb.engine.order", "vecdb.engine.spaces"),
    }
    assert not loaded & of_others
