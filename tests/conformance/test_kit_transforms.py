"""The kit for transforms: sound ones pass, and each rule catches the one that breaks it, alone and by name."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from tests.conformance.broken import Changed, Fitting, broken_rules
from tests.conformance.transforms import SOUND, Anchors, Linear, Ridge, Rotation, Shift
from vecdb.contracts import TransformCapabilities
from vecdb.testing import parametrize_with_checks, planted
from vecdb.testing.transform_checks import CHECKS, iter_transform_checks


@parametrize_with_checks(SOUND, "transform")
def test_sound_transforms_pass(transform, check):
    check(transform)


class Prepared(Fitting):
    """A type that changes the data before it fits."""

    def __init__(self, inner, prepare, **changes):
        super().__init__(inner, **changes)
        self.__dict__["prepare"] = prepare

    def fit(self, data, params):
        return self.inner.fit(self.prepare(data), params)


ridge, rotation, shift, anchors = Ridge(), Rotation(), Shift(), Anchors()
able = ridge.capabilities
loose = Changed(ridge, capabilities=TransformCapabilities(min_pairs=3, row_wise=True))


def applied(change):
    """Break `apply` of a ridge that promises little: change(apply, rows)."""
    return Fitting(loose, lambda made: Changed(made, apply=lambda rows: change(made.apply, rows), affine=lambda: None))


def made_with(inner, **change):
    """Replace attributes and methods of what is fitted; a method is made from what is fitted."""

    def changed(made):
        return Changed(made, **{name: value(made) if callable(value) else value for name, value in change.items()})

    return Fitting(inner, changed)


def base_of(array):
    """Return the array that lent its memory, if it can be written."""
    lender = array.base
    return lender if isinstance(lender, np.ndarray) and lender.flags.writeable else None


def overwrite(data):
    if base_of(data.source) is not None:
        base_of(data.source)[0] = 0
    return data


class KeepsItsData(Fitting):
    def fit(self, data, params):
        made, source = self.inner.fit(data, params), data.source
        return Changed(made, apply=lambda rows: made.apply(rows) + np.float32(source[0, 0] == 0))


def jittered(data):
    if len(np.unique(data.source, axis=0)) > 2:
        return data
    noise = 1e-3 * np.random.default_rng(1).standard_normal(data.source.shape)
    return replace(data, source=(data.source + noise).astype(np.float32))


def without_nan(data):
    clean = {side: np.nan_to_num(getattr(data, side), posinf=1) for side in ("source", "target")}
    return replace(data, **clean)


class Unsteady(Fitting):
    calls = 0

    def fit(self, data, params):
        type(self).calls += 1
        made = self.inner.fit(data, params)
        return replace(made, after=made.after + 1e-6 * self.calls)


def with_shared_randomness(data):
    random.random()
    return data


def known_labels(data):
    np.bincount(data.labels)  # raises for negative ones
    return data


def overwriting(apply, rows):
    mapped = apply(rows)
    if base_of(rows) is not None:
        base_of(rows)[0] = 0
    return mapped


class Learning(Changed):
    """Maps differently once it has seen many rows."""

    def apply(self, rows):
        mapped = self.inner.apply(rows) + np.float32(1e-5 * self.__dict__.get("seen", False))
        self.__dict__["seen"] = len(rows) >= 50
        return mapped


def noisy(data):
    noise = 0.05 * np.random.default_rng(1).standard_normal(data.target.shape)
    return replace(data, target=(data.target + noise).astype(np.float32))


def swapped(data):
    return replace(data, source=data.target, target=data.source)


class LosesBits(Fitting):
    def load(self, state):
        made = self.inner.load(state)
        return replace(made, after=made.after + 1e-4)


class LoadsAnything(Fitting):
    def load(self, state):
        try:
            return self.inner.load(state)
        except Exception:
            return Linear(np.eye(12), np.zeros(12), np.zeros(12))


class LoadsCarelessly(Fitting):
    def load(self, state):
        return Linear(
            state["W"] + 0.0,
            state["before"] + 0.0,
            state["after"] + 0.0,
            state["numbers"].tolist()[0],
            state["direction"],
            state["isometry"],
            state["numbers"].tolist()[1],
        )


BROKEN = {
    "version as text": ("D1", Changed(ridge, version="1")),
    "bound that is no float": ("F1", made_with(shift, lipschitz=1)),
    "writes into its data": ("F2", Prepared(ridge, overwrite)),
    "keeps a view of its data": ("F2", KeepsItsData(loose)),
    "fits on fewer than it says": ("F3", Fitting(ridge, capabilities=replace(able, min_pairs=6))),
    "makes up pairs": ("F4", Prepared(ridge, jittered)),
    "cleans NaN away": ("F5", Prepared(ridge, without_nan)),
    "never twice the same": ("F6", Unsteady(ridge)),
    "shared randomness": ("F7", Prepared(ridge, with_shared_randomness)),
    "cannot be stopped": ("F8", Prepared(ridge, lambda data: replace(data, cancel=lambda: False))),
    "always for queries": ("F9", Prepared(ridge, lambda data: replace(data, role="query"))),
    "wants every label": ("F10", Prepared(anchors, known_labels)),
    "counts stored vectors": ("F11", Prepared(ridge, lambda data: replace(data, stored=data.stored[:-1]))),
    "float64 rows": ("M1", applied(lambda apply, rows: apply(rows).astype(np.float64))),
    "fails on no row": ("M1", applied(lambda apply, rows: apply(rows) + 0 * rows[0, 0])),
    "takes any width": ("M2", applied(lambda apply, rows: apply(np.resize(rows, (len(rows), 12))))),
    "writes into its input": ("M3", applied(overwriting)),
    "batch statistics": ("M4", applied(lambda apply, rows: apply(rows) + np.float32(1e-3 * len(rows)))),
    "learns while it maps": ("M5", Fitting(shift, Learning)),
    "promises an inverse": ("C1", Fitting(ridge, capabilities=replace(able, invertible=True))),
    "promises a formula": ("C1", made_with(ridge, affine=lambda made: lambda: None)),
    "translation as isometry": ("C2", made_with(shift, isometry="semi")),
    "transpose as inverse": (
        "C3",
        made_with(ridge, inverse=lambda made: lambda: Linear(made.W.T.copy(), made.after, made.before)),
    ),
    "rotation by noise": ("C4", Prepared(rotation, noisy)),
    "swapped ridge": ("C5", Prepared(loose, swapped)),
    "swapped shift": ("C5", Prepared(shift, swapped)),
    "form off by a bit": (
        "C6",
        made_with(ridge, affine=lambda made: lambda: replace(made.affine(), b=made.affine().b + 1e-2)),
    ),
    "one bias for all": (
        "C6",
        made_with(ridge, affine=lambda made: lambda: replace(made.affine(), row_bias=lambda rows: np.float32(1))),
    ),
    "bound too low": ("C7", made_with(shift, lipschitz=0.9)),
    "companion unannounced": ("C8", made_with(ridge, companion=lambda made: lambda: made)),
    "joint without companion": ("C8", made_with(anchors, companion=lambda made: lambda: None)),
    "negative error": ("C9", made_with(ridge, uncertainty=lambda made: lambda rows: -np.ones(len(rows), np.float32))),
    "tuple in the state": ("S1", made_with(ridge, state=lambda made: lambda: {**made.state(), "of": (12, 12)})),
    "loses bits": ("S2", LosesBits(ridge)),
    "loads anything": ("S3", LoadsAnything(ridge)),
    "loads without a look": ("S3", LoadsCarelessly(ridge)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_catches_the_one_that_breaks_it_and_no_other_does(name):
    number, thing = BROKEN[name]
    random.seed(1)
    assert broken_rules(thing, "transform") == {number}


def test_there_is_a_broken_transform_for_every_rule():
    assert {number for number, _ in BROKEN.values()} == {check.number for check in CHECKS}


def test_rules_about_claims_are_for_those_who_make_them():
    numbers = {thing.name: {check.number for check in iter_transform_checks(thing)} for thing in SOUND}
    assert "C4" in numbers["acme.rotation"] and "C4" not in numbers["acme.ridge"]
    assert "F10" in numbers["acme.anchors"] and "C5" not in numbers["acme.anchors"]
    assert "F6" not in numbers["acme.shift"] and "F4" not in numbers["acme.shift"]


@pytest.mark.parametrize("width", planted.WIDTHS_OF)
@pytest.mark.parametrize("role", ["query", "gallery"])
def test_planted_pairs_are_what_a_fit_is_promised(width, role):
    data = planted.pairs(width, role, count=30)
    for rows in (data.source, data.target, data.queries, data.validation.source, data.validation.target):
        assert rows.dtype == np.float32 and rows.flags.c_contiguous and not rows.flags.writeable
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    d, e = planted.WIDTHS_OF[width]
    assert data.source.shape == (30, d) and data.target.shape == (30, e)
    assert data.queries.shape[1] == (d if role == "query" else e)
    assert not set(data.groups.tolist()) & set(data.validation.groups.tolist())


def test_a_planted_rotation_is_one():
    W = planted.rotation(12, 12, 0.9, 3)
    np.testing.assert_allclose(W @ W.T, np.eye(12), atol=1e-12)
    assert not np.allclose(W, W.T)
    data = planted.pairs("equal", "query")
    np.testing.assert_allclose(data.source @ planted.rotation(12, 12, 0.9, 1), data.target, atol=1e-5)
