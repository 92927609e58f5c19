"""The pages of reports in a real browser: every picture is drawn, nothing is complained of, nothing is asked for.

Skipped, visibly, where no browser is installed; docs/contributing/tests.md says how to get one.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import vecdb
from tests.browser import chromium
from tests.unit.test_health import vectors
from tests.unit.test_upgrade_pictures import full, report

HOSTILE = "<script>alert(1)</script>"
NASTY = "\"><img src=x onerror=alert(2)>&amp;'`{{7*7}}${8*8}\u202egnp.exe"

PICTURES = """
[...document.querySelectorAll('svg')].map(svg => {
  const frame = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
  const shapes = [...svg.querySelectorAll('line, polyline, polygon, circle, rect')];
  const drawn = shapes.filter(shape => {
    const box = shape.getBBox(), style = getComputedStyle(shape);
    const seen = (style.stroke !== 'none' || style.fill !== 'none') && style.visibility === 'visible';
    return seen && (box.width > 0 || box.height > 0);
  });
  const strays = [...svg.querySelectorAll('*')].filter(part => {
    const box = part.getBBox();
    return box.x < -3 || box.y < -3 || box.x + box.width > view.width + 3 || box.y + box.height > view.height + 3;
  }).map(part => part.outerHTML.slice(0, 200));
  const texts = [...svg.querySelectorAll('text')];
  const clashes = [];
  for (const one of texts) for (const other of texts) if (one !== other) {
    const a = one.getBBox(), b = other.getBBox();
    const wide = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
    const high = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
    if (wide > 2 && high > 4) clashes.push(one.textContent + ' / ' + other.textContent);
  }
  return {label: svg.getAttribute('aria-label'), width: frame.width, height: frame.height, drawn: drawn.length,
    series: svg.querySelectorAll('[class^=s], [class^=f], [class^=a], [class^=o]').length, strays, clashes};
})
"""
CONTRAST = """
(() => {
  const channel = value => { value /= 255; return value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const found = parts(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('h1, h2, h3, p, li, td, th, caption, figcaption, small, b, svg text')) {
    if (!node.textContent.trim()) continue;
    const style = getComputedStyle(node);
    const ink = parts(node.namespaceURI.endsWith('svg') ? style.fill : style.color), under = ground(node);
    const [high, low] = [light(ink), light(under)].sort((a, b) => b - a);
    const ratio = (high + .05) / (low + .05);
    if (ratio < 4.5) poor.push([ratio, node.textContent.slice(0, 40)]);
  }
  return poor;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = chromium.find()
    if program is None:
        pytest.skip("no browser is installed; docs/contributing/tests.md says how to get one")
    with chromium.Browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def health(tmp_path_factory):
    """A report with everything in it, and with names that mean harm."""
    folder = tmp_path_factory.mktemp("health")
    with vecdb.open(folder / "x.vecdb", automatic=False) as db:
        docs = db.create_collection(HOSTILE)
        docs.add_space("a", dim=16, model=NASTY.replace("\u202e", ""))
        docs.add_space(HOSTILE, dim=16)
        for batch in range(3):
            rows = vectors(400, seed=batch) + (batch == 2) * np.array([1, -1] * 8, np.float32)
            labels = [{"topic": (HOSTILE, NASTY, "plain")[i % 3]} for i in range(400)]
            docs.upsert([f"{batch}-{i}" for i in range(400)], {"a": rows}, labels, trust=True)
        some = [f"0-{i}" for i in range(200)]
        docs.set_vectors(HOSTILE, some, vectors(200, seed=9), trust=True)
        docs.create_index("a", "ivf")
        db.create_collection("empty").add_space("s", dim=4)
        path = folder / "health.html"
        db.report(labels="topic").save(path)
    return path


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory):
    path = tmp_path_factory.mktemp("upgrade") / "upgrade.html"
    report(full(), HOSTILE).save(path)
    return path


@pytest.fixture(params=["health", "upgrade"])
def page(request):
    return request.getfixturevalue(request.param), request.param


EXPECTED = {
    "health": [
        "Score distr",
        "How often",
        "Local dim",
        "Norms",
        "Recall against",
        "Drift over",
        "Nearest records",
        "Map of",
    ],
    "upgrade": ["advantage", "retention", "learning", "score", "backfill"],
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_picture_is_drawn_and_nothing_is_complained_of(browser, page, dark):
    path, kind = page
    browser.open(path, dark=dark)
    pictures = browser.run(PICTURES)
    for wanted in EXPECTED[kind]:
        assert any(each["label"].startswith(wanted) for each in pictures), wanted
    for each in pictures:
        assert each["width"] > 100 and each["height"] > 50, each
        assert each["drawn"] >= 3 and each["series"] >= 1, each
        assert not each["strays"] and not each["clashes"], each
    assert browser.complaints() == []
    assert browser.requests() == [path.resolve().as_uri()]
    assert browser.run(CONTRAST) == []


def test_names_that_mean_harm_are_only_words(browser, page):
    path, kind = page
    browser.open(path)
    assert browser.run("document.querySelectorAll('script, img, iframe, object, embed, form, base').length") == 0
    assert browser.run(
        "[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !/^on/i.test(a.name)))"
    )
    assert HOSTILE in browser.run("document.body.innerText")
    if kind == "health":
        assert "\u202e" not in browser.run("document.documentElement.outerHTML")
    assert browser.complaints() == []


def test_it_can_be_read_on_a_telephone(browser, page):
    browser.open(page[0], width=390, height=800)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    browser.open(page[0])
    assert browser.run("document.documentElement.lang") == "en"
    assert browser.run("document.querySelectorAll('h1').length") == 1
    assert browser.run("[...document.querySelectorAll('svg')].every(e => e.getAttribute('role') === 'img')")
    assert browser.run("[...document.querySelectorAll('table')].every(e => e.querySelector('th[scope=col]'))")


def test_a_page_may_load_nothing_even_if_it_wanted_to(browser, tmp_path, health):
    """The policy of the page is what stands behind the escaping: a planted picture and script are refused."""
    planted = tmp_path / "planted.html"
    harm = '<img src="http://127.0.0.1:9/x.png"><script>document.title = "harmed"</script></body>'
    planted.write_text(health.read_text("utf-8").replace("</body>", harm), "utf-8")
    browser.open(planted)
    assert browser.run("document.title") != "harmed"
    assert browser.refused() == [url for url in browser.requests() if url.startswith("http")] != []
    assert any("Content Security Policy" in each for each in browser.complaints())


def test_a_browser_that_finds_fault_says_so(browser, tmp_path):
    """The checks themselves: an empty picture, words outside, poor contrast, a message and a request are all seen."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<p style="color:#ccc">pale</p><svg viewBox="0 0 50 50"><text x="90" y="9">far</text></svg>'
        "<script>console.error('oh')</script><img src='none.png'>",
        "utf-8",
    )
    browser.open(bad)
    (picture,) = browser.run(PICTURES)
    assert picture["drawn"] == 0 and picture["strays"]
    assert browser.run(CONTRAST)
    assert any("oh" in each for each in browser.complaints())
    assert json.dumps(browser.requests()).count("none.png") == 1
