"""The checker of kernel rules: clean on the tree, and every rule caught when it is broken."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "check_kernels.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("check_kernels", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_kernels"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    """A copy of the kernel package that a test may spoil."""
    target = tmp_path / "kernels"
    shutil.copytree(ROOT / "vecdb" / "kernels", target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def problems(tool, folder):
    return [str(problem) for problem in tool.check_folder(folder, ROOT / "tests" / "kernels" / "test_twins.py")]


def spoil(folder, name, old, new):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_tree_is_clean(tool, folder, capsys):
    assert problems(tool, folder) == []
    assert tool.main([]) == 0
    assert "0 problems" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("half.py", "twin=reference.widen", "twin=reference.scan_blocks", "its twin must be reference.widen"),
        ("half.py", ", twin=reference.widen)", ")", "its twin must be reference.widen"),
        ("reference.py", "def widen(", "def widened(", "its twin must be reference.widen"),
        ("half.py", "def widen(bits", "def broaden(bits", "has no case for it"),
        ("half.py", "bits (n,), out (n,)", "bits (n,), out", "does not give the shape of out"),
        (
            "half.py",
            '"""Write the float32 of each float16; bits (n,), out (n,)."""',
            "",
            "does not give the shape of bits",
        ),
        ("half.py", "out: npt.NDArray[np.float32])", "out: npt.NDArray[np.float32], n: int = 3)", "without defaults"),
        ("half.py", "bits.shape[0]", "sorted(bits, key=None, cache=True)", "cache= is decided in _jit.py"),
        (
            "exact_scan.py",
            "@helper\ndef _products_half",
            "@helper(fastmath=True)\ndef _products_half",
            "fastmath= is decided",
        ),
        ("half.py", "from numba import types", "from numba import njit, types", "use the decorators of _jit.py"),
        ("loader.py", "import importlib", "import importlib\nimport numba.core", "may not import it"),
        ("bounds.py", "import math", "import math\nfrom numba import types", "may not import it"),
        (
            "half.py",
            "from vecdb.kernels import reference",
            "from vecdb.kernels import reference\nfrom vecdb.kernels.exact_scan import _products_half",
            "imports jitted ['_products_half'] of exact_scan.py",
        ),
        (
            "_lookup.py",
            "@helper\ndef walsh_hadamard",
            "@kernel((write(types.float32),), twin=reference.widen)\ndef walsh_hadamard",
            "stands in a private file",
        ),
        (
            "half.py",
            "def widen(bits",
            "def widen(a, b, c, d, e, f, g, h, i, j, k, bits",
            "has 13 parameters, at most 12",
        ),
    ],
)
def test_every_broken_rule_is_caught(tool, folder, name, old, new, said):
    spoil(folder, name, old, new)
    found = problems(tool, folder)
    assert any(said in line and line.startswith(f"{name if name != 'reference.py' else 'half.py'}:") for line in found)


def test_the_exit_code_says_so(tool, folder, capsys):
    spoil(folder, "half.py", "twin=reference.widen", "twin=None")
    assert tool.main([str(folder)]) == 1
    assert "half.py:" in capsys.readouterr().out
