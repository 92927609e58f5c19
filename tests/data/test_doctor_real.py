"""The doctor on real embeddings: where one model gives way to another, and that sections and domains are no models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.evaluate.corpus import Corpus, load_corpus
from vecdb.engine.doctor import examine

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def debian(shared_data: Path) -> Corpus:
    return load_corpus(shared_data / "debian")


def test_the_change_is_found_at_its_row(debian: Corpus) -> None:
    one, other = debian.model("mini6").docs, debian.model("e5s").docs
    found = examine(np.concatenate([one[:2_500], other[2_500:4_500]]), "cosine")
    assert [(each.model, each.start, each.stop) for each in found.stretches] == [(0, 0, 2_500), (1, 2_500, 4_500)]


def test_a_mixture_is_seen_with_its_proportion(debian: Corpus) -> None:
    rows = np.array(debian.model("mini6").docs[:5_000])
    other = np.random.default_rng(0).random(5_000) < 0.3
    rows[other] = debian.model("e5s").docs[:5_000][other]
    found = examine(rows, "cosine")
    assert found.models == 2
    assert found.mixed == pytest.approx((3_500, 1_500), abs=60)


@pytest.mark.parametrize(
    "name", ["use3", *(pytest.param(name, marks=pytest.mark.full) for name in ("mini6", "e5s", "wl256"))]
)
def test_sections_are_no_models(debian: Corpus, name: str) -> None:
    rows = debian.model(name).docs[np.argsort(debian.classes, kind="stable")[:5_000]]
    assert examine(rows, "cosine").models == 1
