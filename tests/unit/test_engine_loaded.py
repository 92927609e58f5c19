"""Stored things by name, and what is loaded of them."""

from types import SimpleNamespace

import pytest

from vecdb.engine.loaded import Memory, find_named, memory_of
from vecdb.errors import UnknownNameError

THINGS = [SimpleNamespace(name="a", value=1), SimpleNamespace(name="b", value=2)]


def test_a_thing_is_found_by_its_name():
    assert find_named(THINGS, "docs", "transform", "b").value == 2


@pytest.mark.parametrize("name", ["c", None, 3, ["a"]])
def test_a_name_that_is_not_there_is_told_with_those_that_are(name):
    with pytest.raises(UnknownNameError, match="collection 'docs' has no transform") as caught:
        find_named(THINGS, "docs", "transform", name, hint="Fit one.")
    assert caught.value.available == ["a", "b"] and caught.value.kind == "transform"
    assert "Fit one." not in str(caught.value)


def test_where_there_is_none_the_hint_says_what_to_do():
    with pytest.raises(UnknownNameError, match="Fit one"):
        find_named([], "docs", "correction", "a", hint="Fit one.")


def test_memory_is_shared_and_lets_go_of_what_the_catalog_no_longer_names():
    state = SimpleNamespace(loaded_indexes={})
    memory = memory_of(state, "transforms")
    assert memory_of(state, "transforms") is memory and memory_of(state, "corrections") is not memory
    memory.loaded |= {1: "one", 2: "two"}
    memory.keep({2, 7})
    assert memory.loaded == {2: "two"}
    memory.unmap()
    assert memory.loaded == {2: "two"}
    assert isinstance(memory, Memory)
