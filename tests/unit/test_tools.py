"""The checks of tools/: each catches what it is for, and leaves sound code alone."""

import ast
import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


def load(name: str) -> types.ModuleType:
    """Import a tool by its path: tools are scripts, not a package."""
    specification = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


layers, shape, gen_docs, check_docs = (load(name) for name in ("check_layers", "check_shape", "gen_docs", "check_docs"))


# --- layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "text", "expected"), layers.PLANTED)
def test_planted_imports_are_caught(path, text, expected):
    assert any(expected in problem for problem in layers.check_source(layers.planted_source(path, text)))


@pytest.mark.parametrize(("path", "text"), layers.SOUND)
def test_sound_imports_are_left_alone(path, text):
    assert layers.check_source(layers.planted_source(path, text)) == []


def test_the_tree_keeps_to_its_layers():
    assert layers.check_tree() == []
    assert layers.self_test() == []


def test_the_architecture_page_names_every_room():
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rooms = {source.room for source in layers.read_package(ROOT)} - {"vecdb", "__main__"}
    assert {room for room in rooms if f"`{room}`" not in page} == set()


def test_the_page_on_tests_names_every_folder():
    page = (ROOT / "docs" / "contributing" / "tests.md").read_text(encoding="utf-8")
    folders = {path.parent.relative_to(ROOT).parts[1] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert {folder for folder in folders if f"`tests/{folder}`" not in page} == set()


def test_rooms_name_only_rooms_of_the_table():
    for name, room in layers.ROOMS.items():
        planned = {"contracts", "hookspecs", "registry"}
        assert room.uses <= set(layers.ROOMS) | planned, name


def test_no_room_uses_one_of_a_higher_layer():
    facade = {"vecdb"}  # the package's own names, which lead to the facade and nothing else
    for name, room in layers.ROOMS.items():
        for used in room.uses - facade:
            if name != "vecdb":
                assert layers.ROOMS[used].layer[0] <= room.layer[0], f"{name} -> {used}"


@pytest.mark.parametrize(
    ("text", "dotted", "is_package", "expected"),
    [
        ("import a.b as c", "vecdb.x", False, [("a.b", None)]),
        ("from . import y", "vecdb.engine.x", False, [("vecdb.engine", "y")]),
        ("from . import y", "vecdb.engine", True, [("vecdb.engine", "y")]),
        ("from ..errors import E", "vecdb.engine.x", False, [("vecdb.errors", "E")]),
        ("from .. import errors", "vecdb.engine.x", False, [("vecdb", "errors")]),
        ("from .a.b import c", "vecdb.engine", True, [("vecdb.engine.a.b", "c")]),
        ("def f():\n    from x import y, z", "vecdb.x", False, [("x", "y"), ("x", "z")]),
        ("import importlib\nimportlib.import_module('lmdb')", "vecdb.x", False, [("importlib", None), ("lmdb", None)]),
        ("__import__('lmdb')", "vecdb.x", False, [("lmdb", None)]),
    ],
)
def test_imports_are_read_at_any_depth_and_made_absolute(text, dotted, is_package, expected):
    found = [(item.module, item.name) for item in layers.read_imports(ast.parse(text), dotted, is_package)]
    assert sorted(found, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("import vecdb\n", True),
        ("from vecdb import open, Database\n", True),
        ("from vecdb.errors import VecdbError\n", True),
        ("from vecdb.testing import checks\n", True),
        ("from vecdb.storage import env\n", False),
        ("from vecdb import engine\n", False),
        ("from vecdb import _secret\n", False),
        ("import vecdb.engine.search\n", False),
    ],
)
def test_plugins_use_public_doors_only(text, sound):
    assert (layers.check_plugin_source("plugins/p/src/p.py", text) == []) is sound


# --- shape ------------------------------------------------------------------------------------------------

LIMITS = {
    "file_lines": 10,
    "test_file_lines": 20,
    "function_lines": 3,
    "kernel_lines": 5,
    "positional_parameters": 2,
    "kernel_parameters": 4,
    "median_lines": 8,
    "p90_lines": 26,
}
LONG = "def f(a, b, *, c, d):\n    '''Say.\n\n    More.\n    '''\n    x = 1\n    x = 2\n    x = 3\n    return x\n"


def test_a_body_is_counted_without_its_docstring():
    (measure,) = [
        item for item in shape.measure_file("vecdb/a.py", LONG, LIMITS)[0] if item.what == "lines in its body"
    ]
    assert (measure.where, measure.value, measure.limit) == ("vecdb/a.py::f", 4, 3)


def test_keyword_only_parameters_and_self_do_not_count():
    text = "class A:\n    def f(self, a, b, *, c): ...\n    @classmethod\n    def g(cls, a): ...\n"
    found = {
        item.where: item.value for item in shape.measure_file("vecdb/a.py", text, LIMITS)[0] if "param" in item.what
    }
    assert found == {"vecdb/a.py::A.f": 2, "vecdb/a.py::A.g": 1}


def test_kernels_and_tests_have_limits_of_their_own():
    assert shape.judge(shape.measure_file("vecdb/kernels/a.py", LONG, LIMITS)[0], []) == []
    long_test = "\n" * 15
    assert shape.judge(shape.measure_file("tests/a.py", long_test, LIMITS)[0], []) == []
    assert len(shape.judge(shape.measure_file("vecdb/a.py", long_test, LIMITS)[0], [])) == 1


def test_too_long_is_reported_unless_an_exception_says_why():
    measures = shape.measure_file("vecdb/a.py", LONG, LIMITS)[0]
    assert shape.judge(measures, []) == ["vecdb/a.py::f: 4 lines in its body, the limit is 3"]
    entry = {"where": "vecdb/a.py::f", "limit": 5, "why": "one table"}
    assert shape.judge(measures, [entry]) == []
    assert shape.judge(measures, [{**entry, "why": " "}]) == [
        "tools/budgets.toml: the exception for vecdb/a.py::f gives no reason"
    ]
    assert len(shape.judge(measures, [{**entry, "limit": 3}])) == 1


def test_an_exception_nobody_needs_is_an_error():
    entry = {"where": "vecdb/gone.py", "limit": 5, "why": "was long"}
    assert shape.judge([], [entry]) == ["tools/budgets.toml: the exception for vecdb/gone.py is not needed"]


def test_nested_functions_and_methods_are_found():
    text = "class A:\n    def f(self):\n        def g(): ...\n        return g\nif True:\n    async def h(): ...\n"
    assert [name for name, _ in shape.functions(ast.parse(text))] == ["A.f", "A.f.g", "h"]


@given(st.lists(st.integers(1, 60), min_size=20, max_size=60))
def test_long_functions_as_a_habit_are_reported(lengths):
    problems = shape.judge_lengths(lengths, LIMITS)
    assert bool([p for p in problems if "half" in p]) == (
        sorted(lengths)[len(lengths) // 2] > 8 and not _median_ok(lengths)
    )


def _median_ok(lengths):
    ordered, half = sorted(lengths), len(lengths) // 2
    middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return middle <= 8


# --- generated pages --------------------------------------------------------------------------------------

DOCSTRING = """Do a thing.

    More about it.

    Parameters
    ----------
    ids : list of str
        The ids,
        in order.
    k : int, default 10

    Raises
    ------
    IdError
        If an id is bad.

    Examples
    --------
    >>> 1 + 1
    2
    """


def test_numpydoc_becomes_markdown():
    assert gen_docs.markdown_of(DOCSTRING) == (
        "Do a thing.\n\nMore about it.\n\n"
        "**Parameters**\n\n- `ids` (list of str): The ids, in order.\n- `k` (int, default 10)\n\n"
        "**Raises**\n\n- `IdError`: If an id is bad.\n\n"
        "**Examples**\n\n```pycon\n>>> 1 + 1\n2\n```"
    )


def test_sections_are_replaced_between_their_markers_only():
    page = "a\n<!-- generated: x -->\nold\n<!-- end of generated: x -->\nz\n"
    assert gen_docs.replace_section(page, "x", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="markers of 'y'"):
        gen_docs.replace_section(page, "y", "new")


def test_replacing_twice_changes_nothing():
    page = "<!-- generated: x --><!-- end of generated: x -->"
    once = gen_docs.replace_section(page, "x", "new")
    assert gen_docs.replace_section(once, "x", "new") == once


def test_signatures_show_annotations_as_written():
    namespace: dict[str, object] = {}
    exec(  # the future import makes annotations strings, as everywhere in vecdb
        "from __future__ import annotations\ndef f(self, a: int | None = None, *, b: list[str]) -> dict[str, int]: ...",
        namespace,
    )
    assert gen_docs.signature_of(namespace["f"]) == "(a: int | None = None, *, b: list[str]) -> dict[str, int]"


def test_long_signatures_are_broken_one_parameter_a_line():
    text = "f(" + ", ".join(f"parameter_{n}: dict[str, int] = None" for n in range(4)) + ") -> tuple[int, str]"
    lines = gen_docs._wrap(text).splitlines()
    assert lines[0] == "f("
    assert lines[1:-1] == [f"    parameter_{n}: dict[str, int] = None," for n in range(4)]
    assert lines[-1] == ") -> tuple[int, str]"


def test_constants_and_aliases_are_shown_as_they_were_written():
    from vecdb import sample
    from vecdb import types as words

    assert gen_docs.assigned("Id", words) == ("str | int", None)
    assert gen_docs.assigned("Matrix", sample)[0] == "npt.NDArray[np.float32]"
    assert "total" in gen_docs.assigned("Progress", words)[1]
    with pytest.raises(LookupError, match="no_such_name"):
        gen_docs.assigned("no_such_name", words)


def test_the_error_table_has_each_class_once():
    from vecdb import errors

    rows = gen_docs.errors_section().splitlines()[2:]
    assert sorted(row.split("`")[1] for row in rows) == sorted(errors.__all__)


# --- links and variables ----------------------------------------------------------------------------------


@pytest.fixture
def small_tree(tmp_path):
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    (tmp_path / "vecdb").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text("")
    (tmp_path / "docs" / "index.md").write_text("# Index\n[config](reference/config.md)\n")
    (tmp_path / "docs" / "reference" / "config.md").write_text("# Config\n## How to set it\n`VECDB_ONE`\n")
    (tmp_path / "vecdb" / "a.py").write_text("os.environ.get('VECDB_ONE')\n")
    return tmp_path


def test_a_sound_tree_has_no_problems(small_tree):
    index = small_tree / "docs" / "index.md"
    assert check_docs.check_links(index, index.read_text(), small_tree) == []
    assert check_docs.check_reachable(small_tree) == []
    assert check_docs.check_variables(small_tree) == []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("[x](missing.md)", 1),
        ("[x](reference/config.md#how-to-set-it)", 0),
        ("[x](reference/config.md#gone)", 1),
        ("[x](#index)\n# Index", 0),
        ("[x](https://example.org/a)", 0),
        ("```\n[x](missing.md)\n```", 0),
    ],
)
def test_links_must_lead_somewhere(small_tree, text, problems):
    assert len(check_docs.check_links(small_tree / "docs" / "index.md", text, small_tree)) == problems


def test_a_page_that_nothing_links_to_is_reported(small_tree):
    (small_tree / "docs" / "lost.md").write_text("# Lost\n")
    assert check_docs.check_reachable(small_tree) == ["docs/lost.md: docs/index.md does not lead here"]


def test_variables_are_compared_both_ways(small_tree):
    (small_tree / "vecdb" / "a.py").write_text("os.environ.get('VECDB_TWO')\n")
    assert len(check_docs.check_variables(small_tree)) == 2


# --- the one command --------------------------------------------------------------------------------------


def test_an_unknown_check_is_named():
    done = subprocess.run([TOOLS / "check.sh", "nonsense"], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 2
    assert "unknown check 'nonsense'" in done.stderr
