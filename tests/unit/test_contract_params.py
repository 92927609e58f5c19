"""Declared parameters read from words of a command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.contracts import Param
from vecdb.contracts.params import settle_stored
from vecdb.errors import ParameterError


def read(kind, text, **bounds):
    default = {"int": 1, "float": 1.0, "str": "x", "bool": False}[kind]
    return Param(kind, default, "What it is.", **bounds).read("its owner", "size", text)


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_int_is_read_as_it_is_written(number):
    assert read("int", str(number)) == number


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
def test_an_int_that_the_catalog_cannot_hold_is_refused(number):
    for kind in ("int", "float"):
        with pytest.raises(ParameterError):
            Param(kind, 0, "A number.").check("its type", "p", number)


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(ParameterError):
        Param("str", "", "Text.").check("its type", "p", "a\udc80")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_as_it_is_written(number):
    assert read("float", repr(number)) == number


@given(st.text())
def test_a_str_stays_what_it_is_even_where_it_looks_like_a_number(text):
    assert read("str", text) == text
    assert read("str", "1") == "1" and read("str", "true") == "true"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("false", False), ("FALSE", False)])
def test_a_bool_is_true_or_false(text, value):
    assert read("bool", text) is value


@pytest.mark.parametrize(
    ("kind", "text", "bounds"),
    [
        ("int", "1.5", {}),
        ("int", "many", {}),
        ("int", "", {}),
        ("int", "9", {"high": 8}),
        ("float", "nan", {}),
        ("float", "inf", {}),
        ("float", "x", {}),
        ("bool", "1", {}),
        ("bool", "perhaps", {}),
        ("str", "c", {"choices": ("a", "b", "x")}),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(kind, text, bounds):
    with pytest.raises(ParameterError, match="parameter 'size' of its owner") as caught:
        read(kind, text, **bounds)
    assert caught.value.name == "size"


def test_stored_parameters_of_another_version_are_settled_by_what_is_declared_now():
    """One is new, one is not allowed any more, one is not declared any more."""
    declared = {"m": Param("int", 3, "A number.", low=1, high=9), "bits": Param("int", 1, "Bits.", low=1, high=8)}
    assert settle_stored("x", declared, {"m": 5, "gone": 1}) == {"m": 5, "bits": 1}
    assert settle_stored("x", declared, {"m": 50, "bits": "4"}) == {"m": 3, "bits": 1}
