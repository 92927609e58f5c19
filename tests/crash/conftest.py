"""Every test here kills, forks or starves processes of its own; none of them is about kernels but where it says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("crash")
            if sys.platform == "win32":
                item.add_marker(pytest.mark.skip(reason="needs fork and signals"))


@pytest.fixture(autouse=True)
def no_kernels(request, monkeypatch):
    """Children compile nothing; both paths give the same bits (tests/kernels)."""
    if "with_kernels" not in request.fixturenames:
        monkeypatch.setenv("VECDB_KERNELS", "0")


@pytest.fixture
def with_kernels():
    """Ask for the compiled kernels."""
