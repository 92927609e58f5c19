"""Encoders as they are in the world: slow, flaky, down, wrong, and right for all but a few records."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.engine.migration.encoders import Encoder, EncodeRules, check_callable, check_rules
from vecdb.errors import (
    DimensionError,
    DTypeError,
    EncoderError,
    ParameterError,
    VectorRangeError,
)
from vecdb.types import Record, Space

DIM = 4
SPACE = Space("new", DIM, "cosine")


def record(number, text="same"):
    return Record(number, {"n": number}, str(number) if text == "same" else text, 1)


def rows(texts):
    return np.array([[int(text) + 1.0, 1, 0, 0] for text in texts], np.float32)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def rules(self, **given):
        return EncodeRules(sleep=self.sleep, clock=lambda: self.now, **given)


@pytest.fixture
def clock():
    return Clock()


def test_each_record_gets_its_row(clock):
    found = Encoder(rows, SPACE, clock.rules()).encode([record(5), record(3)])
    assert found.places == [0, 1] and found.failures == {} and found.vectors.dtype == np.float32
    assert found.vectors[:, 0].tolist() == [6.0, 4.0] and clock.slept == []


def test_nothing_to_embed_calls_nothing(clock):
    encoder = Encoder(lambda texts: 1 / 0, SPACE, clock.rules())
    found = encoder.encode([record(1, None)])
    assert found.vectors.shape == (0, DIM) and found.failures == {0: "the record has no text"}
    assert encoder.encode([]).places == []


def test_records_may_be_given_instead_of_texts(clock):
    seen = []
    encoder = Encoder(
        lambda given: seen.extend(given) or np.ones((len(given), DIM)), SPACE, clock.rules(inputs="records")
    )
    assert encoder.encode([record(1, None), record(2)]).places == [0, 1]
    assert [each.id for each in seen] == [1, 2] and seen[0].metadata == {"n": 1}


@pytest.mark.parametrize(
    "answer",
    [
        lambda texts: rows(texts).tolist(),
        lambda texts: tuple(rows(texts)),
        lambda texts: rows(texts).astype(np.float64),
        lambda texts: rows(texts).astype(np.int64),
        lambda texts: np.asfortranarray(rows(texts)),
        lambda texts: type("Tensor", (), {"__array__": lambda self, dtype=None, copy=None: rows(texts)})(),
    ],
)
def test_whatever_is_an_array_is_taken(clock, answer):
    found = Encoder(answer, SPACE, clock.rules()).encode([record(5), record(3)])
    assert np.array_equal(found.vectors, rows(["5", "3"]))


# --- failing ----------------------------------------------------------------------------------------------


def test_retries_with_growing_pauses(clock):
    calls = []

    def flaky(texts):
        calls.append(len(texts))
        if len(calls) < 4:
            raise TimeoutError("busy")
        return rows(texts)

    found = Encoder(flaky, SPACE, clock.rules(retries=3, wait=0.5)).encode([record(1), record(2)])
    assert found.places == [0, 1] and calls == [2] * 4 and clock.slept == [0.5, 1.0, 2.0]


def test_an_encoder_that_is_down_blames_no_record(clock):
    def down(texts):
        raise ConnectionError("refused")

    with pytest.raises(EncoderError, match="all of 9 records: ConnectionError: refused") as caught:
        Encoder(down, SPACE, clock.rules(retries=2)).encode([record(number) for number in range(9)])
    assert caught.value.ids == list(range(9)) and caught.value.space == "new"
    assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(EncoderError):
        Encoder(down, SPACE, clock.rules(retries=0)).encode([record(1)])


@pytest.mark.parametrize("error", [NameError, AttributeError, ImportError])
def test_a_mistake_in_its_code_is_not_retried(clock, error):
    calls = []

    def broken(texts):
        calls.append(texts)
        raise error("no such thing")

    with pytest.raises(EncoderError):
        Encoder(broken, SPACE, clock.rules(retries=5)).encode([record(1)])
    assert len(calls) == 1 and clock.slept == []


@given(bad=st.sets(st.integers(0, 19), max_size=19), retries=st.integers(0, 2))
def test_the_records_at_which_it_fails_are_found(bad, retries):
    """All others are embedded, whichever they are, as long as one of those that are asked alone is good."""
    clock = Clock()

    def picky(texts):
        for text in texts:
            if int(text) in bad:
                raise ValueError(f"cannot read {text}")
        return rows(texts)

    encoder = Encoder(picky, SPACE, clock.rules(retries=retries))
    records = [record(number) for number in range(20)]
    if {0, 9, 19} <= bad:
        with pytest.raises(EncoderError):
            encoder.encode(records)
        return
    found = encoder.encode(records)
    assert set(found.failures) == bad and found.places == sorted({*range(20)} - bad)
    assert np.array_equal(found.vectors, rows([str(place) for place in found.places]))
    assert all(reason == f"ValueError: cannot read {place}" for place, reason in found.failures.items())


def test_rows_without_a_vector_are_failures_of_those_records(clock):
    def partial(texts):
        found = list(rows(texts))
        found[1] = None
        found[2] = np.array([1, np.nan, 0, 0], np.float32)
        found[3] = np.zeros(DIM, np.float32)
        return found

    found = Encoder(partial, SPACE, clock.rules()).encode([record(number) for number in range(5)])
    assert found.places == [0, 4] and sorted(found.failures) == [1, 2, 3]
    assert "no vector" in found.failures[1] and "not finite" in found.failures[2] and "zeros" in found.failures[3]
    everything = Encoder(lambda texts: [None] * len(texts), SPACE, clock.rules()).encode([record(1), record(2)])
    assert everything.places == [] and len(everything.failures) == 2


def test_a_vector_of_zeros_is_one_where_the_metric_says_so(clock):
    space = Space("new", DIM, "l2")
    assert Encoder(lambda texts: np.zeros((1, DIM)), space, clock.rules()).encode([record(1)]).failures == {}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (np.ones((1, DIM)), DimensionError),
        (np.ones((3, DIM)), DimensionError),
        (np.ones((2, DIM + 1)), DimensionError),
        (np.ones(DIM), DimensionError),
        (np.float32(1.0), DimensionError),
        ([[1.0] * DIM, [1.0]], DimensionError),
        ({"vectors": []}, DimensionError),
        (None, DimensionError),
        (5, DimensionError),
        (np.ones((2, DIM), np.bool_), DTypeError),
        (np.ones((2, DIM), np.complex64), DTypeError),
        ([["a"] * DIM] * 2, DTypeError),
        (np.full((2, DIM), 1e30), VectorRangeError),
    ],
)
def test_answers_that_are_no_vectors_are_refused_at_once(clock, answer, error):
    calls = []
    encoder = Encoder(lambda texts: calls.append(texts) or answer, SPACE, clock.rules(retries=5))
    with pytest.raises(error):
        encoder.encode([record(1), record(2)])
    assert len(calls) == 1 and clock.slept == []


def test_what_is_no_mistake_of_an_encoder_passes(clock):
    def stopped(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Encoder(stopped, SPACE, clock.rules()).encode([record(1)])


# --- rate and rules ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.floats(0.5, 1000))
def test_no_more_records_a_second_than_allowed(sizes, rate):
    clock = Clock()
    encoder = Encoder(rows, SPACE, clock.rules(rate=rate))
    for size in sizes:
        encoder.encode([record(number) for number in range(size)])
    assert clock.now == pytest.approx(sum(sizes[:-1]) / rate)


def test_rules():
    assert check_rules("texts", 0, 0, None) == EncodeRules("texts", 0, 0.0, None)
    for bad in (("text", 0, 0, None), ("texts", -1, 0, None), ("texts", 1.5, 0, None), ("texts", 1, -1, None)):
        with pytest.raises(ParameterError):
            check_rules(*bad)
    for rate in (0, -1, "fast", True):
        with pytest.raises(ParameterError):
            check_rules("texts", 1, 1, rate)
    check_callable("encode", None)
    with pytest.raises(ParameterError, match="callable"):
        check_callable("encode", "model")
