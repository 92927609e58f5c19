"""Records as JSON lines: nothing is lost, and hostile lines end in an error that names them."""

import gzip
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import FileAccessError, SourceError
from vecdb.interchange import lines
from vecdb.interchange.codec import dumps, loads

KEYS = st.text().filter(lambda key: "$" not in key)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text().filter(lambda k: "$" not in k), inner, max_size=4)
    ),
    max_leaves=20,
)


def same(one, other):
    """Equal in value and type, NaN included, -0.0 told from 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return repr(one) == repr(other)
    return one == other


@given(VALUES)
def test_every_value_comes_back_and_the_line_is_strict_json(value):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    line = dumps(value)
    assert "\n" not in line
    json.loads(line, parse_constant=refuse)
    assert same(loads(line.encode("utf-8", "surrogatepass"), path="x"), value)


def test_special_floats_are_written_in_the_documented_form():
    assert dumps([math.nan, math.inf, -math.inf]) == '[{"$float":"NaN"},{"$float":"Infinity"},{"$float":"-Infinity"}]'


def test_bare_words_of_other_programs_are_read():
    found = loads("[NaN, Infinity, -Infinity]", path="x")
    assert math.isnan(found[0]) and found[1:] == [math.inf, -math.inf]


def test_a_dict_with_more_keys_is_not_a_float():
    assert loads('{"$float": "NaN", "b": 1}', path="x") == {"$float": "NaN", "b": 1}


def test_a_byte_order_mark_is_passed_over():
    assert loads(b'\xef\xbb\xbf{"a": 1}', path="x") == {"a": 1}


def test_without_a_line_number_the_file_is_named():
    with pytest.raises(SourceError, match=r"^manifest\.json is not valid JSON") as caught:
        loads("{", path="manifest.json")
    assert caught.value.line is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "character 2"),
        (b"", "character 1"),
        (b'{"a": 1} {"b": 2}', "Extra data"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"$float": "seven"}', "must be one of"),
        (b'{"$float": [1]}', "must be one of"),
        (b"1" * 5000, "Exceeds the limit"),
    ],
)
def test_what_is_not_json_is_named_with_its_line(text, problem):
    with pytest.raises(SourceError, match=r"docs\.jsonl, line 1,234, is not valid JSON") as caught:
        loads(text, path="docs.jsonl", number=1234)
    assert problem in caught.value.message
    assert (caught.value.path, caught.value.line) == ("docs.jsonl", 1234)


# --- lines ------------------------------------------------------------------------------------------------


def test_plain_and_gzip_are_told_by_their_bytes(tmp_path):
    text = b'{"a": 1}\n\n  \n{"b": 2}'
    (tmp_path / "plain.gz").write_bytes(text)
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(text[:10]) + gzip.compress(text[10:]))
    for name in ("plain.gz", "packed.jsonl"):
        found = list(lines.real_lines(str(tmp_path / name)))
        assert [number for number, _ in found] == [1, 4]
        assert [json.loads(line) for _, line in found] == [{"a": 1}, {"b": 2}]
        assert lines.count_lines(str(tmp_path / name)) == 2


def test_an_empty_file_has_no_lines(tmp_path):
    (tmp_path / "empty").touch()
    assert list(lines.real_lines(str(tmp_path / "empty"))) == []


@pytest.mark.parametrize("cut", [5, 15, 40, 60])
def test_a_cut_off_gzip_file_is_named(tmp_path, cut):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"\n".join(b'{"id": %d}' % n for n in range(100)))[:cut])
    with pytest.raises(SourceError, match=r"cut\.gz is damaged or cut off"):
        lines.count_lines(str(path))


def test_a_damaged_gzip_file_is_named(tmp_path):
    data = bytearray(gzip.compress(bytes(range(256)) * 40))
    data[30] ^= 0xFF
    path = tmp_path / "bad.gz"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        lines.count_lines(str(path))


def test_a_gzip_bomb_ends_at_the_longest_line(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 1 << 20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\n" + b" " * (64 << 20)))
    with pytest.raises(SourceError, match=r"line 2, is longer than 1,048,576 bytes") as caught:
        lines.count_lines(str(path))
    assert caught.value.line == 2


def test_a_file_that_is_not_there_or_a_directory(tmp_path):
    with pytest.raises(FileAccessError, match=r"cannot read .*missing"):
        list(lines.real_lines(str(tmp_path / "missing")))
    with pytest.raises(FileAccessError, match="cannot read"):
        list(lines.real_lines(str(tmp_path)))


def test_a_fingerprint_changes_with_content_at_both_ends(tmp_path):
    path = tmp_path / "f"
    prints = []
    for content in (b"a" * 200_000, b"b" + b"a" * 199_999, b"a" * 199_999 + b"b", b"a" * 200_001):
        path.write_bytes(content)
        prints.append({key: value for key, value in lines.fingerprint_file(str(path)).items() if key != "mtime_ns"})
    assert all(one != other for place, one in enumerate(prints) for other in prints[:place])
