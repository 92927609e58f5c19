"""What metadata may hold, what is made plain, and what is said about the rest."""

import collections
import datetime
import decimal
import enum
import math
import pathlib
import pickle
import uuid

import numpy as np
import pytest

from vecdb.errors import MetadataError
from vecdb.metadata import MAX_DEPTH, normalise_metadata, validate_metadata, validate_text


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class OldColour(str, enum.Enum):  # noqa: UP042 - str() of its members is not their value
    RED = "red"


PLAIN = [
    {},
    {"a": None, "b": True, "c": 0, "d": 0.5, "e": "x", "f": [], "g": {}},
    {"a": 2**63 - 1, "b": -(2**63)},
    {"a": math.inf, "b": -0.0},
    {"é ü": "\U0001f600", "": "", "with space": "a.b $c"},
    {"a": [1, "x", None, [2, [3]], {"b": [{"c": 1}]}]},
]


@pytest.mark.parametrize("metadata", PLAIN)
def test_plain_metadata_is_left_as_it_is(metadata):
    assert validate_metadata(metadata, None) is None
    plain = normalise_metadata(metadata, None)
    assert plain == metadata and repr(plain) == repr(metadata)


def test_nan_is_a_float():
    validate_metadata({"a": math.nan}, None)
    assert math.isnan(normalise_metadata({"a": np.float32("nan")}, None)["a"])


def test_the_result_shares_no_container_with_what_was_given():
    given = {"a": [1, {"b": [2]}], "c": {"d": {}}}
    plain = normalise_metadata(given, None)
    plain["a"][1]["b"].append(3)
    plain["c"]["d"]["x"] = 1
    assert given == {"a": [1, {"b": [2]}], "c": {"d": {}}}


RELATIVES = [
    (np.int64(5), 5),
    (np.uint8(5), 5),
    (np.float32(0.5), 0.5),
    (np.float64(0.1), 0.1),
    (np.float16(0.5), 0.5),
    (np.longdouble(0.5), 0.5),
    (np.str_("x"), "x"),
    (np.bool_(False), False),
    ((1, (2,)), [1, [2]]),
    (Colour.RED, "red"),
    (OldColour.RED, "red"),
    (Level.HIGH, 3),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.namedtuple("Point", "x y")(1, 2), [1, 2]),
]


@pytest.mark.parametrize(("given", "plain"), RELATIVES, ids=lambda value: type(value).__name__)
def test_relatives_of_plain_types_are_made_plain(given, plain):
    for made in (normalise_metadata({"a": given}, None)["a"], normalise_metadata({"a": [given]}, None)["a"][0]):
        assert made == plain and type(made) is type(plain)


@pytest.mark.parametrize(("given", "plain"), RELATIVES, ids=lambda value: type(value).__name__)
def test_only_plain_types_are_valid(given, plain):
    validate_metadata({"a": plain}, None)
    with pytest.raises(MetadataError, match="cannot be stored"):
        validate_metadata({"a": given}, None)


def test_keys_are_made_plain_too():
    plain = normalise_metadata({Colour.RED: 1, np.str_("x"): {OldColour.RED: 2}}, None)
    assert plain == {"red": 1, "x": {"red": 2}}
    assert {type(key) for key in (*plain, *plain["x"])} == {str}
    with pytest.raises(MetadataError, match="key that is of type Colour"):
        validate_metadata({Colour.RED: 1}, None)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (b"x", "decode"),
        (bytearray(b"x"), "decode"),
        (np.bytes_(b"x"), "decode"),
        ({1, 2}, "sorted list"),
        (frozenset(), "sorted list"),
        (datetime.datetime(2024, 1, 1), "isoformat"),
        (datetime.date(2024, 1, 1), "isoformat"),
        (datetime.timedelta(1), "total_seconds"),
        (np.datetime64("2024"), "str"),
        (np.timedelta64(1, "s"), "integer"),
        (decimal.Decimal(1), "float"),
        (uuid.UUID(int=1), "str"),
        (pathlib.PurePosixPath("x"), "metadata holds"),
        (pathlib.Path("x"), "str"),
        (np.zeros(2), "tolist"),
        (1j, "metadata holds None, bool, int"),
        (object(), "metadata holds"),
        (range(3), "metadata holds"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("check", [validate_metadata, normalise_metadata])
def test_other_types_are_refused_with_a_way_out(check, value, hint):
    with pytest.raises(MetadataError, match=f"'a.b.1' of record 7 is of type {type(value).__name__}") as caught:
        check({"a": {"b": [0, value]}}, 7)
    assert caught.value.position == 7 and caught.value.path == "a.b.1"
    assert hint in caught.value.hint


@pytest.mark.parametrize("check", [validate_metadata, normalise_metadata])
@pytest.mark.parametrize(
    ("metadata", "path", "said"),
    [
        ({"a.b": 1}, "a.b", "dot in its key"),
        ({"a": {"b.c": 1}}, "a.b.c", "dot in its key"),
        ({"$a": 1}, "$a", r"'\$' in its key"),
        ({"a": {"x$": 1}}, "a.x$", r"'\$' in its key"),
        ({1: 1}, "", "key that is of type int"),
        ({"a": {None: 1}}, "a", "key that is of type NoneType"),
        ({"a": [{b"b": 1}]}, "a.0", "key that is of type bytes"),
        ({"\ud800": 1}, "", "key with a lone surrogate"),
        ({"a": "x\udfff"}, "a", "lone surrogate"),
        ({"a": 2**63}, "a", "outside of 64 bits"),
        ({"a": [-(2**63) - 1]}, "a.0", "outside of 64 bits"),
    ],
)
def test_what_is_wrong_is_said(check, metadata, path, said):
    with pytest.raises(MetadataError, match=said) as caught:
        check(metadata, None)
    assert caught.value.path == path and caught.value.position is None and caught.value.hint


@pytest.mark.parametrize("check", [validate_metadata, normalise_metadata])
@pytest.mark.parametrize("value", [None, [], "x", 5, [("a", 1)]])
def test_metadata_is_a_dict(check, value):
    with pytest.raises(MetadataError, match=f"metadata of record 0 is of type {type(value).__name__}, expected a dict"):
        check(value, 0)


def test_a_numpy_int_beyond_64_signed_bits_is_refused():
    with pytest.raises(MetadataError, match="64 bits"):
        normalise_metadata({"a": np.uint64(2**63)}, None)


@pytest.mark.parametrize("check", [validate_metadata, normalise_metadata])
@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [inner]], ids=["dicts", "lists"])
def test_nesting_ends_at_32_levels(check, wrap):
    inner = 1
    for _ in range(MAX_DEPTH - 1):
        inner = wrap(inner)
    check({"a": inner}, None)
    with pytest.raises(MetadataError, match="deeper than 32 levels"):
        check({"a": wrap(inner)}, None)


def test_a_dict_that_holds_itself_is_refused():
    loop = {}
    loop["a"] = loop
    with pytest.raises(MetadataError, match="deeper than 32 levels"):
        normalise_metadata(loop, None)


def test_long_paths_are_cut_in_messages_and_kept_in_the_error():
    with pytest.raises(MetadataError) as caught:
        validate_metadata({"k" * 5_000: b""}, 1)
    assert len(str(caught.value)) < 300 and caught.value.path == "k" * 5_000
    assert pickle.loads(pickle.dumps(caught.value)).path == caught.value.path


@pytest.mark.parametrize("text", [None, "", "x", "é\U0001f600\x00"])
def test_text_is_str_or_none(text):
    validate_text(text, 3)


@pytest.mark.parametrize(("text", "said"), [(b"x", "bytes"), (5, "int"), (["x"], "list"), ("\ud800", "lone surrogate")])
def test_other_texts_are_refused(text, said):
    with pytest.raises(MetadataError, match=f"the text of record 3 .*{said}") as caught:
        validate_text(text, 3)
    assert caught.value.position == 3 and caught.value.path is None
