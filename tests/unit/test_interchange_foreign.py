"""Import through importers of plugins: chosen by name, suffix or first bytes, checked, and resumed like any other."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import vecdb
from tests.conformance.broken import Changed
from tests.conformance.importers import EXAMPLE, Points
from vecdb import PluginRegistry, hookimpl
from vecdb.errors import (
    DuplicateIdError,
    FileAccessError,
    ImportInterruptedError,
    NonFiniteError,
    ParameterError,
    PluginContractError,
    SourceError,
    SpaceMissingError,
    UnknownNameError,
)
from vecdb.interchange import find_importer, import_data, inspect_source, reads_itself


def registry(*importers):
    def provide():
        return importers

    made = SimpleNamespace(__name__="acme_files", vecdb_register_importers=hookimpl(provide))
    return PluginRegistry([made], entry_points=False)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "a.points"
    file.write_bytes(EXAMPLE)
    return file


def collection(tmp_path, *importers, spaces=("points",)):
    db = vecdb.open(tmp_path / "a.vecdb", plugins=registry(*(importers or (Points(),))))
    docs = db.create_collection("docs")
    for space in spaces:
        if space not in docs.spaces:
            docs.add_space(space, dim=2, metric="l2")
    return docs


def test_a_file_is_imported_whole(tmp_path, path):
    docs = collection(tmp_path)
    result = import_data(docs, path)
    assert (result.rows, result.inserted) == (7, 7)
    record = docs.get(["n3"], vectors="all")[0]
    assert record.text == "text 3" and record.metadata == {"line": "5"}
    np.testing.assert_array_equal(record.vectors["points"], np.array([3, 1.5], np.float32))
    assert docs.get(["n6"])[0].spaces == ()
    docs.database.close()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_size_of_batches_makes_no_difference(tmp_path, path, batch):
    docs = collection(tmp_path)
    assert import_data(docs, path, batch=batch).inserted == 7
    assert [record.id for record in docs.scan()] == [f"n{number}" for number in range(7)]
    docs.database.close()


def test_vectors_go_to_the_space_that_is_named_or_nowhere(tmp_path, path):
    docs = collection(tmp_path, spaces=("mine",))
    with pytest.raises(SpaceMissingError, match="'points'"):
        import_data(docs, path)
    import_data(docs, path, vectors={"mine": "@points"})
    assert docs.get(["n1"])[0].spaces == ("mine",)
    with pytest.raises(SourceError, match="has no vectors 'other'"):
        import_data(docs, path, vectors={"mine": "@other"})
    import_data(docs, path, vectors={}, ids=None)
    assert docs.get([3])[0].spaces == ()
    docs.database.close()


def test_fields_are_chosen_as_everywhere(tmp_path, path):
    docs = collection(tmp_path)
    import_data(docs, path, text="line", metadata=[])
    record = docs.get(["n2"])[0]
    assert (record.text, record.metadata) == ("4", {})
    with pytest.raises(ParameterError, match="says itself what the ids are"):
        import_data(docs, path, ids="name")
    docs.database.close()


def test_an_importer_is_found_by_name_suffix_or_first_bytes(tmp_path, path):
    other = tmp_path / "b.unknown"
    other.write_bytes(EXAMPLE)
    given = registry(Points())
    assert find_importer(str(path), None, given).name == "acme.points"
    assert find_importer(str(other), None, given).name == "acme.points"
    assert find_importer(str(other), "acme.points", given).plugin == "acme_files"
    with pytest.raises(UnknownNameError, match="there is no importer"):
        find_importer(str(path), "acme.dots", given)
    docs = collection(tmp_path)
    assert import_data(docs, other, format="acme.points").rows == 7
    docs.database.close()


def test_a_file_of_another_kind_is_no_file_of_its_suffix(tmp_path):
    file = tmp_path / "b.points"
    file.write_bytes(b"something else")
    with pytest.raises(SourceError, match="is not a file of records") as caught:
        find_importer(str(file), None, registry(Points()))
    assert ".jsonl" in caught.value.hint and "of plugins: .points" in caught.value.hint


def test_two_importers_for_one_file_must_be_told_apart_by_name(path):
    given = registry(Points(), Points(name="acme.more"))
    with pytest.raises(ParameterError, match=r"acme\.more of plugin 'acme_files' and acme\.points") as caught:
        find_importer(str(path), None, given)
    assert caught.value.allowed == ["acme.more", "acme.points"]
    assert find_importer(str(path), "acme.more", given).name == "acme.more"


def test_what_vecdb_reads_itself_is_no_plugins_business(tmp_path):
    for name in ("a.jsonl", "a.JSONL.gz", "a.parquet", "a.npy", "a.npz::x", "a.fvecs"):
        assert reads_itself(name)
    assert not reads_itself("a.points") and not reads_itself("a.csv")
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "a"}\n')
    docs = collection(tmp_path, Points(suffixes=(".jsonl",), magic=()))
    assert import_data(docs, file).rows == 1
    with pytest.raises(ParameterError, match="options are for importers"):
        import_data(docs, file, options={"space": "x"})
    with pytest.raises(ParameterError, match="format names an importer"):
        import_data(docs, [{"id": "a"}], format="acme.points")
    docs.database.close()


def test_options_are_checked_and_reach_the_importer(tmp_path, path):
    docs = collection(tmp_path, spaces=("other",))
    import_data(docs, path, options={"space": "other"})
    assert docs.get(["n1"])[0].spaces == ("other",)
    for options in ({"spice": "x"}, {"space": 3}):
        with pytest.raises(ParameterError, match=r"acme\.points"):
            import_data(docs, path, options=options)
    docs.database.close()


def test_facts_are_told_without_importing(path):
    facts = inspect_source(path, plugins=registry(Points()))
    assert facts.rows is None and facts.widths == {"points": (2, np.dtype(np.float32))}


def test_a_file_that_is_not_there_is_nobodys_fault(tmp_path):
    docs = collection(tmp_path)
    with pytest.raises(FileAccessError):
        import_data(docs, tmp_path / "none.points")
    docs.database.close()


def test_a_damaged_file_is_told_as_the_importer_tells_it(tmp_path, path):
    path.write_bytes(EXAMPLE + b"nine;without numbers\n")
    docs = collection(tmp_path)
    with pytest.raises(SourceError, match="line 9: not id;text;numbers"):
        import_data(docs, path, batch=2)
    assert len(docs) == 6
    docs.database.close()


def test_records_are_validated_as_everywhere_with_row_and_line(tmp_path, path):
    path.write_bytes(EXAMPLE + b"n7;;nan 1\n")
    docs = collection(tmp_path)
    with pytest.raises(NonFiniteError, match=r"a\.points, row 7, line 9"):
        import_data(docs, path)
    path.write_bytes(EXAMPLE + b"n1;;\n")
    with pytest.raises(DuplicateIdError):
        import_data(docs, path)
    docs.database.close()


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path, path):
    asked, starts = [], []

    def opened(path, params):
        source = Points().open(path, params)

        def batches(start, most):
            starts.append(start)
            return source.batches(start, most)

        return Changed(source, batches=batches)

    docs = collection(tmp_path, Changed(Points(), open=opened))
    with pytest.raises(ImportInterruptedError):
        import_data(docs, path, batch=2, cancel=lambda: len(asked) == 2 or asked.append(1))
    assert len(docs) == 4
    result = import_data(docs, path, batch=2)
    assert (result.rows, result.resumed, result.inserted) == (7, 4, 3)
    assert starts == [0, 4] and len(docs) == 7
    docs.database.close()


def source(**changes):
    """An importer whose sources have other attributes and methods, each made from the sound source."""

    def opened(path, params):
        sound = Points().open(path, params)
        return Changed(sound, **{name: make(sound) for name, make in changes.items()})

    return Changed(Points(), open=opened)


def batches(change):
    return source(batches=lambda sound: lambda start, most: (change(each) for each in sound.batches(start, most)))


def raising(*ignored):
    raise ZeroDivisionError("of nothing")


def points(batch, change):
    return replace(batch, vectors={"points": change(batch.vectors["points"])})


FORM, WIDTH = "check_batches_are_of_the_right_form", "check_vectors_have_the_declared_widths"
BROKEN = {
    "open raises": (Changed(Points(), open=raising), "check_damaged_file_is_refused"),
    "open returns None": (Changed(Points(), open=lambda path, params: None), "check_damaged_file_is_refused"),
    "batches raises": (batches(raising), "check_damaged_file_is_refused"),
    "close raises": (source(close=lambda sound: raising), "check_damaged_file_is_refused"),
    "rows is text": (source(rows=lambda sound: "7"), "check_open_returns_a_source"),
    "a width of 0": (source(widths=lambda sound: {"points": 0}), "check_open_returns_a_source"),
    "a dict as batch": (batches(lambda batch: {"ids": batch.ids}), FORM),
    "no ids": (batches(lambda batch: replace(batch, ids=[], vectors={}, metadata=None, texts=None, lines=None)), FORM),
    "ids as array": (batches(lambda batch: replace(batch, ids=np.array(batch.ids))), FORM),
    "too few texts": (batches(lambda batch: replace(batch, texts=batch.texts[1:])), FORM),
    "too many vectors": (batches(lambda batch: points(batch, lambda rows: [*rows, None])), FORM),
    "vectors of no space": (batches(lambda batch: replace(batch, vectors={"x": batch.vectors["points"]})), WIDTH),
    "wider vectors": (batches(lambda batch: points(batch, lambda rows: np.ones((len(rows), 3)))), WIDTH),
    "vectors of text": (batches(lambda batch: points(batch, lambda rows: ["x"] * len(rows))), WIDTH),
    "vectors of two widths": (
        batches(lambda batch: points(batch, lambda rows: [[1], *[[1, 2]] * (len(rows) - 1)])),
        WIDTH,
    ),
    "fewer rows than it said": (source(rows=lambda sound: 9), "check_rows_is_the_number_of_records"),
    "more than asked for": (
        source(batches=lambda sound: lambda start, most: sound.batches(start, most + 1)),
        FORM,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_importer_that_breaks_a_rule_is_named_with_it(tmp_path, path, name):
    importer, rule = BROKEN[name]
    docs = collection(tmp_path, importer)
    with pytest.raises(PluginContractError) as caught:
        import_data(docs, path, batch=3)
    error = caught.value
    assert (error.plugin, error.rule) == ("acme_files", rule)
    assert "importer 'acme.points' of plugin 'acme_files'" in error.message and "a.points" in error.message
    docs.database.close()


def test_the_file_is_closed_when_something_else_is_wrong(tmp_path, path):
    closed = []
    docs = collection(tmp_path, source(close=lambda sound: lambda: closed.append(1)))
    with pytest.raises(SourceError):
        import_data(docs, path, vectors={"points": "@other"})
    assert closed == [1]
    import_data(docs, path)
    assert closed == [1, 1]
    docs.database.close()
