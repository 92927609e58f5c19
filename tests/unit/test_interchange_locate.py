"""Errors of a batch, told in the terms of the source."""

import pickle

import numpy as np
import pytest

from vecdb.errors import (
    DuplicateIdError,
    IdError,
    LockedError,
    MetadataError,
    NonFiniteError,
    RecordExistsError,
    WrongModelError,
    ZeroVectorError,
)
from vecdb.interchange.chunks import Block, Chunk
from vecdb.interchange.locate import duplicate, located

CHUNK = Chunk(1000, ["a", "b", "c"], lines=[1005, 1006, 1009])


@pytest.mark.parametrize(
    ("error", "field", "where"),
    [
        (NonFiniteError("is nan", row=2, column=7, where="s"), "row", "docs.jsonl, row 1,002, line 1,009"),
        (IdError("is bool", got=True, position=0), "position", "docs.jsonl, row 1,000, line 1,005"),
        (MetadataError("is deep", position=1, path="a.b"), "position", "docs.jsonl, row 1,001, line 1,006"),
    ],
)
def test_rows_of_a_batch_become_rows_of_the_source(error, field, where):
    place = getattr(error, field)
    found = located(error, CHUNK, "docs.jsonl")
    assert type(found) is type(error) and found.hint == error.hint
    assert getattr(found, field) == 1000 + place
    assert found.message == f"{where} (record {place} of this batch): {error.message}"
    others = [name for name in error.fields if name != field]
    assert [getattr(found, name) for name in others] == [getattr(error, name) for name in others]
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


def test_both_places_of_a_duplicate_are_named():
    found = located(DuplicateIdError("twice", id="b", first=0, second=2), CHUNK, "docs.jsonl")
    assert (found.first, found.second) == (1000, 1002)
    assert "row 1,000, line 1,005 and docs.jsonl, row 1,002, line 1,009" in found.message


@pytest.mark.parametrize("error", [WrongModelError("no", space="s"), LockedError("no"), ZeroVectorError("no", row=7)])
def test_errors_that_name_no_record_of_the_batch_stay_as_they_are(error):
    assert located(error, CHUNK, "docs.jsonl") is error


def test_an_id_that_is_there_already_came_before_in_the_source():
    found = duplicate(RecordExistsError("there", ids=["b"], collection="docs"), CHUNK, "docs.jsonl")
    assert (found.id, found.second) == ("b", 1001)
    assert "row 1,001, line 1,006" in found.message


def test_rows_of_a_block_become_places_of_the_chunk():
    block = Block(np.zeros((2, 3)), np.array([1, 4]), "x")
    with pytest.raises(ZeroVectorError) as caught, block.places_in_errors():
        raise ZeroVectorError("zero", row=1, where="x")
    assert caught.value.row == 4
    with pytest.raises(ZeroVectorError) as caught, Block(np.zeros((2, 3)), None, "x").places_in_errors():
        raise ZeroVectorError("zero", row=1, where="x")
    assert caught.value.row == 1
