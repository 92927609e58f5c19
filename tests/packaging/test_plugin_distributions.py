"""Every distribution of plugins/: what its metadata says is what the packages hold and the pages list."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
LIBRARIES = {"hnswlib", "faiss", "usearch"}


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def test_they_are_the_ones_that_the_page_lists():
    page = (ROOT / "plugins/README.md").read_text(encoding="utf-8")
    assert [folder.name for folder in FOLDERS] == ["vecdb-faiss", "vecdb-hnswlib", "vecdb-template", "vecdb-usearch"]
    for folder in FOLDERS:
        assert f"[{folder.name}]({folder.name}/README.md)" in page
        assert f"python -m pip install ./plugins/{folder.name}" in page


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_entry_point_names_a_package_that_is_built_and_typed(folder):
    facts = project(folder)
    (module,) = facts["project"]["entry-points"]["vecdb"].values()
    assert facts["project"]["name"] == folder.name
    assert facts["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"src/{module}"]
    package = folder / "src" / module
    assert (package / "py.typed").is_file() and (package / "__init__.py").is_file()
    hooks = [
        node for node in ast.parse((package / "__init__.py").read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    assert [hook.name for hook in hooks] == ["vecdb_register_index_types"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_registering_imports_no_library(folder):
    """At the top of a module a plugin imports the standard library, numpy, vecdb and itself."""
    for path in (folder / "src").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not LIBRARIES & {name.split(".")[0] for name in names}, path


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_page_says_how_to_install_it_and_names_every_parameter(folder):
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert f"python -m pip install ./plugins/{folder.name}" in page and "## Limits" in page
    texts = [path.read_text(encoding="utf-8") for path in (folder / "src").rglob("*.py")]
    params = [
        key.value
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Param"
    ]
    assert params
    for name in params:
        assert f"| `{name}` |" in page
