"""States that nobody wrote: whatever is done to one, loading it gives a transform or says that it is damaged.

States are kept under a digest, so that damage is found before they are loaded; but whoever can write a file can write a
digest, and a plugin's neighbour is no reason to crash.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import fitted
from vecdb.errors import CorruptionError
from vecdb.registry import PluginRegistry
from vecdb.testing import planted
from vecdb.testing.fitting import restored

REGISTRY = PluginRegistry(entry_points=False)
QUICK = {"distill": {"steps": 2}, "bt2": {"fit": "learned", "steps": 2}, "oca": {"steps": 2, "columns": 3, "cells": 4}}
QUICK |= {"mlp": {"epochs": 1, "hidden": 4}, "lowrank": {"rank": 2}}
ODD = [None, True, 0, -1, 2**40, -0.5, float("inf"), float("nan"), "", "both", "exact", [], {}, [1, 2], {"W": 1}]


def _state(name):
    kind = REGISTRY.find("transform", name).thing
    width = next(each for each in planted.WIDTHS_OF if each in kind.capabilities.widths)
    data = planted.pairs(width, min(kind.capabilities.directions), count=40, shift=0.3)
    return kind, fitted(kind, data, **QUICK.get(name, {})).state()


STATES = {name: _state(name) for name in REGISTRY.names("transform")}
every_kind = pytest.mark.parametrize("name", STATES)


def places(state, before=()):
    """Yield the path of every entry, nested ones too."""
    for key, value in state.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from places(value, (*before, key))


def changed(state, path, change):
    """Return a copy of a state in which the entry at a path is changed."""
    copied = dict(state)
    if len(path) == 1:
        change(copied, path[0])
    else:
        copied[path[0]] = changed(copied[path[0]], path[1:], change)
    return copied


def loads_or_says_so(kind, state):
    """Load a state and use what comes of it; only `CorruptionError` may be raised by the loading."""
    try:
        made = kind.load(restored(state))
    except CorruptionError:
        return None
    rows = planted.read_only(planted.unit(np.random.default_rng(0).standard_normal((3, made.source_dim))))
    with np.errstate(all="ignore"):
        assert made.apply(rows).shape == (3, made.target_dim)
        form, back, other = made.affine(), made.inverse(), made.companion()
    assert form is None or form.W.shape == (made.source_dim, made.target_dim)
    assert back is None or (back.source_dim, back.target_dim) == (made.target_dim, made.source_dim)
    assert other is None or other.target_dim == made.target_dim
    return made


@every_kind
def test_what_was_written_is_read(name):
    kind, state = STATES[name]
    assert loads_or_says_so(kind, state) is not None


@every_kind
def test_no_part_may_be_missing(name):
    kind, state = STATES[name]
    for path in places(state):
        if path[0] == "fit" or "fit" in path:  # what a fit says of itself is free, but for two entries
            continue
        gone = changed(state, path, lambda part, key: part.pop(key))
        with pytest.raises(CorruptionError):
            kind.load(restored(gone))


@every_kind
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_odd_values_are_refused_or_harmless(name, data):
    kind, state = STATES[name]
    path = data.draw(st.sampled_from(list(places(state))))
    value = data.draw(st.sampled_from(ODD))
    loads_or_says_so(kind, changed(state, path, lambda part, key: part.update({key: value})))


def _arrays(state):
    found = []
    for path in places(state):
        value = state
        for key in path:
            value = value[key]
        if isinstance(value, np.ndarray):
            found.append((path, value))
    return found


ARRAYS = {name: _arrays(state) for name, (_, state) in STATES.items() if _arrays(state)}


@pytest.mark.parametrize("name", ARRAYS)
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_other_shapes_and_types_of_arrays_are_refused_or_harmless(name, data):
    kind, state = STATES[name]
    path, array = data.draw(st.sampled_from(ARRAYS[name]))
    change = data.draw(
        st.sampled_from(
            [
                lambda: array[:0],
                lambda: array[:-1],
                lambda: array.T,
                lambda: array[..., :1],
                lambda: np.concatenate([array, array]),
                lambda: array.reshape(-1),
                lambda: array[None],
                lambda: np.zeros((0,) * array.ndim, array.dtype),
                lambda: array.astype(np.float64),
                lambda: array.astype(np.int64),
                lambda: np.zeros_like(array),
                lambda: 1e30 * np.ones_like(array),
            ]
        )
    )
    other = np.ascontiguousarray(change())
    loads_or_says_so(kind, changed(state, path, lambda part, key: part.update({key: other})))


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(name, number):
    kind, state = STATES[name]
    for path, array in ARRAYS[name]:
        if array.dtype.kind != "f" or not array.size:
            continue
        for place in (0, array.size // 2, array.size - 1):
            spoilt = array.copy()
            spoilt.flat[place] = number
            with pytest.raises(CorruptionError):
                kind.load(restored(changed(state, path, lambda part, key, spoilt=spoilt: part.update({key: spoilt}))))


@every_kind
def test_the_state_of_another_kind_is_refused_or_is_one_of_its_own(name):
    for other, (_, state) in STATES.items():
        made = loads_or_says_so(STATES[name][0], state)
        assert made is None or set(state) == set(STATES[name][1]), other


@every_kind
def test_a_loaded_transform_lets_nobody_write_into_it(name):
    kind, state = STATES[name]
    made = kind.load(restored(state))
    for _, array in _arrays(made.state()):
        assert not array.flags.writeable
