"""The kind that chooses: what it chooses among, by what, and what becomes of the choice."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fits import data_of, fitted, orthonormal, planted_data, rows_of
from vecdb.errors import CancelledError, FitError
from vecdb.testing.planted import unit
from vecdb.transforms.auto import AutoType
from vecdb.transforms.procrustes import ProcrustesType
from vecdb.transforms.ridge import RidgeType

AUTO = AutoType()


def uneven(count=300, *, kept=120, d=10, role="query", seed=0):
    """Return pairs of which the old side sees the columns very unevenly: no rotation fits."""
    rng = np.random.default_rng(seed)
    new = rows_of(count + kept, d, rng, clusters=30)
    W = orthonormal(d, d, rng) @ np.diag(np.geomspace(1.0, 0.03, d)) @ orthonormal(d, d, rng)
    old = unit(new @ W + 0.002 * rng.standard_normal((count + kept, d)))
    sides = (new, old) if role == "query" else (old, new)
    held = tuple(side[count:] for side in sides) if kept else None
    return data_of(sides[0][:count], sides[1][:count], role=role, kept=held, seed=seed)


@pytest.mark.parametrize(
    ("role", "kinds"), [("query", {"distill", "ridge", "procrustes"}), ("gallery", {"ridge", "procrustes"})]
)
def test_it_is_a_map_of_one_of_its_candidates(role, kinds):
    data = uneven(role=role)
    made = fitted(AUTO, data)
    assert made.fit["kind"] in kinds and made.direction == role and made.fit["judged"] > 0
    again = AUTO.load(made.state())
    assert np.array_equal(again.apply(data.source), made.apply(data.source)) and again.fit == made.fit


def test_a_candidate_that_is_clearly_worse_gives_way():
    rng = np.random.default_rng(3)
    few = planted_data(orthonormal(40, 40, rng), 50, rng, kept=200, noise=0.2, role="gallery")
    assert fitted(AUTO, few).fit["kind"] == "procrustes"
    assert fitted(AUTO, uneven(role="gallery")).fit["kind"] == "ridge"


def test_it_maps_as_the_kind_that_it_chose():
    data = uneven(role="gallery")
    made = fitted(AUTO, data)
    alone = fitted({"ridge": RidgeType(), "procrustes": ProcrustesType()}[made.fit["kind"]], data)
    assert np.array_equal(made.apply(data.source), alone.apply(data.source))


@pytest.mark.parametrize(("count", "kind"), [(15, "procrustes"), (60, "distill")])
def test_with_nothing_kept_back_the_number_of_pairs_decides(count, kind):
    made = fitted(AUTO, uneven(count, kept=0))
    assert made.fit["kind"] == kind


def test_it_stops_when_told_to_and_refuses_too_few():
    data = uneven()
    steps = []
    with pytest.raises(CancelledError):
        fitted(AUTO, replace(data, progress=lambda *step: steps.append(step), cancel=lambda: len(steps) > 1))
    with pytest.raises(FitError):
        fitted(AUTO, replace(data, source=data.source[:2], target=data.target[:2], validation=None))
