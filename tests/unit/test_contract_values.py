"""Values of the contracts: stored states, affine forms, the noise of a backfill."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vecdb.contracts import Affine, noise_of, state_array, state_digest, state_problems, state_value
from vecdb.errors import CorruptionError

PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
ARRAYS = hnp.arrays(
    st.sampled_from(["<f4", "<f8", "<i8", "|b1", ">f4", "<u2"]), hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)
)
STATES = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        PLAIN | ARRAYS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(STATES)
def test_plain_values_and_arrays_can_be_stored_and_have_one_digest(state):
    assert list(state_problems(state)) == []
    assert state_digest(state) == state_digest(dict(reversed(list(state.items()))))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([1], "state is list"),
        ({1: 2}, "key 1"),
        ({"a": (1, 2)}, "state['a'] is tuple"),
        ({"a": {"b": np.float32(1)}}, "state['a']['b'] is float32"),
        ({"a": [len]}, "state['a'][0] is builtin_function_or_method"),
        ({"a": np.array([object()])}, "array of object"),
        ({"a": np.array(["text"])}, "array of <U4"),
        ({"a": np.zeros(1, np.longdouble)}, "array of"),
        ({"a": 2**64}, "more than 64 bits"),
        ({"a": -(2**63) - 1}, "more than 64 bits"),
        ({"a": [[[[[[[[[[1]]]]]]]]]]}, "nested more than"),
    ],
)
def test_what_cannot_be_stored_is_named_with_its_place(state, words):
    problems = list(state_problems(state))
    assert any(words in problem for problem in problems), problems
    with pytest.raises(TypeError):
        state_digest(state)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": "x"}, {"a": b"x"}),
        ({"a": [1, 2]}, {"a": [[1], 2]}),
        ({"a": {}}, {"a": []}),
        ({"a": "b"}, {"ab": ""}),
        ({"a": np.zeros(4)}, {"a": np.zeros((2, 2))}),
        ({"a": np.zeros(2, "f4")}, {"a": np.zeros(2, "i4")}),
        ({"a": np.array([0.0])}, {"a": np.array([-0.0])}),
    ],
)
def test_different_states_have_different_digests(one, other):
    assert state_digest(one) != state_digest(other)


def test_the_digest_is_of_the_numbers_and_not_of_how_they_lie_in_memory():
    table = np.arange(6.0).reshape(2, 3)
    assert state_digest({"a": table}) == state_digest({"a": np.asfortranarray(table)})
    assert state_digest({"a": table}) == state_digest({"a": table.astype(">f8")})


def test_an_array_of_a_state_is_given_back_read_only():
    table = np.arange(6.0).reshape(2, 3)
    found = state_array({"a": table}, "a", np.float64, (None, 3))
    assert not found.flags.writeable and table.flags.writeable
    np.testing.assert_array_equal(found, table)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1.0],
        np.zeros((2, 3), np.float32),
        np.zeros(6),
        np.zeros((3, 2)),
        np.zeros((0, 3)),
        np.full((2, 3), np.nan),
        np.full((2, 3), np.inf),
    ],
)
def test_an_array_that_is_not_what_was_stored_is_damage(value):
    with pytest.raises(CorruptionError, match="a of a stored state"):
        state_array({"a": value}, "a", np.float64, (None, 3))


@pytest.mark.parametrize(("kind", "value"), [(int, 1), (float, 1.0), (str, "x"), (bool, True), (bytes, b"x")])
def test_a_value_of_a_state_has_its_own_type_or_is_damage(kind, value):
    assert state_value({"a": value}, "a", kind) == value
    for other in (1, 1.0, "x", True, b"x", None, [], float("nan")):
        if type(other) is not kind or other != other:
            with pytest.raises(CorruptionError):
                state_value({"a": other}, "a", kind)
    with pytest.raises(CorruptionError):
        state_value({}, "a", kind)


def affine_oracle(form, rows):
    out = []
    for row in rows.astype(np.float64):
        value = [sum(row[i] * form.W[i, j] for i in range(len(row))) + form.b[j] for j in range(form.W.shape[1])]
        scale = 1.0 if form.row_scale is None else float(form.row_scale(row[None].astype(np.float32))[0])
        out.append([scale * each + (0 if form.shift is None else form.shift[j]) for j, each in enumerate(value)])
    return np.array(out)


@given(st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_an_affine_form_is_its_formula_and_folds_as_documented(scaled, shifted, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((5, 3)).astype(np.float32)
    form = Affine(
        rng.standard_normal((3, 4)),
        rng.standard_normal(4),
        rng.standard_normal(4) if shifted else None,
        (lambda x: 1 + np.linalg.norm(x, axis=1)) if scaled else None,
    )
    mapped = form.apply(rows)
    assert mapped.dtype == np.float32 and mapped.shape == (5, 4)
    np.testing.assert_allclose(mapped, affine_oracle(form, rows), rtol=1e-5, atol=1e-5)
    query = rng.standard_normal(4)
    scale = form.row_scale(rows) if scaled else 1.0
    folded = scale * (rows @ (form.W @ query) + query @ form.b) + (query @ form.shift if shifted else 0.0)
    np.testing.assert_allclose(mapped @ query, folded, rtol=1e-3, atol=1e-4)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.integers(0, 2**63 - 1))
def test_noise_belongs_to_the_record_and_the_seed(numbers, seed):
    ordinals = np.array(numbers, np.uint64)
    noise = noise_of(ordinals, seed)
    assert noise.dtype == np.float64 and np.all((noise >= 0) & (noise < 1))
    for place in range(len(numbers)):
        assert noise_of(ordinals[place : place + 1], seed)[0] == noise[place]


def test_noise_is_uniform_and_other_for_another_seed():
    one, other = noise_of(np.arange(20_000, dtype=np.uint64), 1), noise_of(np.arange(20_000, dtype=np.uint64), 2)
    counts = np.histogram(one, 20, (0, 1))[0]
    assert np.abs(counts - 1000).max() < 150
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.03


def test_the_mixing_is_that_of_splitmix64():
    # The first outputs of the published generator for the seed 1234567.
    from vecdb.contracts.backfill import _mix

    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + step * golden) % 2**64 for step in range(3)], np.uint64)
    assert _mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
