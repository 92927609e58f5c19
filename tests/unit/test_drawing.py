"""Parts of pictures and pages: numbers stay inside, words stay words, whatever they are."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_upgrade_pictures import sound
from vecdb.drawing import svg
from vecdb.drawing.page import STYLE, document, figure, listed, table
from vecdb.drawing.words import safe, short

NASTY = ["<script>", "\"' onload=x", "&lt;", "]]>", "<!--", "\x00\x1b[2J", "\u202egnp", "\ud800", "a\nb", "{{7*7}}"]
finite = st.floats(-1e9, 1e9)


@pytest.mark.parametrize("text", NASTY)
def test_words_are_safe(text):
    for made in (safe(text), short(text)):
        assert not set(made) & set("<>\"'\x00\x1b\u202e\ud800")
        ElementTree.fromstring(f'<a b="{made}">{made}</a>')


@given(st.text(max_size=80), st.integers(2, 50))
def test_short_words_are_short_and_safe(text, most):
    made = ElementTree.fromstring(f"<a>{short(text, most)}</a>").text or ""
    assert len(made) <= most


@given(finite, finite, st.lists(finite, min_size=1, max_size=9), st.booleans())
def test_nothing_is_drawn_outside(low, high, values, logarithmic):
    low, high = sorted((abs(low) + 0.1, abs(high) + 0.1))
    frame = svg.Frame((low, high), (low, high), logarithmic=logarithmic)
    points = [(value, -value) for value in values]
    parts = [*svg.axes(frame, [low, high], svg.count), svg.line(frame, points, 1), svg.dots(frame, points, 3)]
    parts += [
        svg.speck(frame, points[0]),
        svg.interval(frame, 30, (values[0], low, high), 2),
        svg.band(frame, low, high),
    ]
    sound(svg.picture(frame, parts, "all"))


def test_what_is_not_finite_is_not_drawn():
    frame = svg.Frame((0, 1), (0, 1))
    holes = [(float("nan"), 0.5), (0.5, float("inf")), (0.2, 0.2)]
    assert svg.line(frame, holes).count(",") == 1 and svg.dots(frame, holes).count("<circle") == 1
    assert svg.line(frame, holes[:2]) == "" and svg.interval(frame, 5, (float("nan"),) * 3) == ""


@given(finite, st.floats(1e-6, 1e9))
def test_round_steps_are_few_and_inside(low, span):
    steps = svg.round_steps(low, low + span)
    assert len(steps) <= 12 and steps == sorted(steps)
    slack = 1e-6 * (abs(low) + span) + 1e-5
    assert all(low - slack <= step <= low + span + slack for step in steps)


@pytest.mark.parametrize(("ends", "base", "expected"), [((1, 1000), 10, [1, 10, 100, 1000]), ((3, 9), 2, [4, 8])])
def test_powers(ends, base, expected):
    assert svg.powers(*ends, base) == expected


@given(st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=9))
def test_a_legend_names_everything_and_stays_in_its_margin(names):
    top = svg.below(names)
    frame = svg.Frame((0, 1), (0, 1), height=top + 100, top=top)
    root = sound(svg.picture(frame, svg.legend(names), "legend"))
    texts = [each for each in root.iter() if each.tag.endswith("text")]
    assert len(texts) == len(names) and all(float(each.get("y")) <= top for each in texts)


def test_series_differ_in_shape_or_dash_too():
    frame = svg.Frame((0, 1), (0, 1))
    lines = {svg.line(frame, [(0, 0), (1, 1)], place).replace(f"s{place}", "") for place in range(svg.SERIES)}
    marks = {svg.marker(5, 5, place)[:6] for place in range(4)}
    assert len(lines) == svg.SERIES and len(marks) >= 3
    assert all(f".s{place} " in STYLE for place in range(svg.SERIES))


VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.words = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("text", NASTY[:6] + NASTY[8:])
def test_pages_hold_words_as_words(text):
    body = [
        table([["head", text], [text, 3]], caption=text),
        figure("", text),
        listed([text]),
        listed([text], "remarks"),
    ]
    page = document(text, body)
    reader = Reader()
    reader.feed(page)
    assert reader.open == [] and "<script" not in page.replace("default-src", "")
    assert page.count("default-src 'none'") == 1 and "http" not in page.replace("http-equiv", "")
    kept = "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)
    assert "".join(reader.words).count(kept) >= 6


def test_an_empty_list_is_nothing():
    assert listed([]) == "" and listed([], "remarks") == ""
