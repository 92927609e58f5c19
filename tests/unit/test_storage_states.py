"""States as bytes: the same values come back, and whatever bytes come in, only damage is reported."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from vecdb.contracts import state_digest
from vecdb.errors import CorruptionError
from vecdb.storage.format import pack
from vecdb.storage.states import pack_state, unpack_state

PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
ARRAYS = nps.arrays(
    st.sampled_from(["<f4", "<f8", ">f4", "<i8", "<u2", "i1", "?", "<f2"]), nps.array_shapes(min_dims=0, min_side=0)
)
VALUES = st.recursive(
    PLAIN | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
STATES = st.dictionaries(st.text(), VALUES, max_size=4)


@given(STATES)
def test_a_state_comes_back_with_its_types(state):
    back = unpack_state(pack_state(state), "state")
    assert state_digest(back) == state_digest(state)
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            assert back[name].dtype == value.dtype.newbyteorder("=") and not back[name].flags.writeable


@given(st.binary(max_size=60) | PLAIN.map(pack) | st.lists(PLAIN, max_size=4).map(pack))
def test_other_bytes_are_damage(data):
    try:
        back = unpack_state(data, "state")
    except CorruptionError:
        return
    assert type(back) is dict


@pytest.mark.parametrize(
    "value",
    [
        ["a", "<f4", [2], b"1234"],
        ["a", "<f4", [-1], b""],
        ["a", "|O", [1], b"12345678"],
        ["a", "<f4", [1 << 62, 8], b""],
        ["a", "<c16", [1], bytes(16)],
        ["a", "<f4,<f4", [1], bytes(8)],
        ["a", "nothing", [0], b""],
        ["a", "<f4", [0] * 9, b""],
        ["a", "<f4", 3, b""],
        ["z", 1],
        ["d", []],
        ["d", {}, {}],
        [],
        {"x": 1},
    ],
)
def test_impossible_values_are_damage(value):
    with pytest.raises(CorruptionError):
        unpack_state(pack(["d", {"x": value}]), "state")


def test_deep_nesting_is_damage():
    value = 1
    for _ in range(40):
        value = ["l", value]
    with pytest.raises(CorruptionError, match="deep"):
        unpack_state(pack(["d", {"x": value}]), "state")
