"""Errors: the drawn tree is the real one, every class survives pickling, and the message carries its hint."""

import copy
import inspect
import pickle
import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]
ERRORS = [cls for cls in CLASSES if issubclass(cls, errors.VecdbError)]
WARNINGS = [cls for cls in CLASSES if issubclass(cls, Warning)]
BUILT_INS = {"ValueError", "TypeError", "LookupError", "RuntimeError", "OSError", "ImportError", "UserWarning"}

TREE_LINE = re.compile(
    r"^ {4}(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<base>\w+)\))?(?P<fields>(?: +\.\w+)*)\s*$"
)


def drawn_tree() -> dict[str, tuple[str | None, str | None, tuple[str, ...]]]:
    """Read the docstring: name -> (parent in the drawing, built-in base, attributes)."""
    found: dict[str, tuple[str | None, str | None, tuple[str, ...]]] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if not (match := TREE_LINE.match(line)):
            continue
        depth = len(match["indent"]) // 3
        above[depth] = match["name"]
        fields = tuple(re.findall(r"\.(\w+)", match["fields"]))
        found[match["name"]] = (above.get(depth - 1) if depth else None, match["base"], fields)
    return found


def test_every_class_is_drawn_and_every_drawn_class_exists():
    assert set(drawn_tree()) == set(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_drawing_tells_parents_and_attributes(cls):
    parent, base, fields = drawn_tree()[cls.__name__]
    bases = [each.__name__ for each in cls.__bases__]
    ours = [name for name in bases if name not in BUILT_INS and name != "Exception"]
    assert ours == ([parent] if parent else [])
    assert [name for name in bases if name in BUILT_INS] == ([base] if base else [])
    if cls is errors.VecdbError:
        assert fields == ("hint",)
    elif cls in ERRORS:
        inherited = set(getattr(cls.__bases__[0], "fields", ()))
        assert set(fields) == set(cls.fields) - (inherited if cls.__bases__[0] is not errors.VecdbError else set())


def test_all_names_every_public_class_and_is_sorted():
    public = {name for name, value in vars(errors).items() if inspect.isclass(value) and not name.startswith("_")}
    assert set(errors.__all__) == public - {"Any", "ClassVar"}
    assert len(set(errors.__all__)) == len(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_says_in_one_sentence_when_it_is_raised(cls):
    first = (cls.__dict__["__doc__"] or "").strip().splitlines()[0]
    assert first.endswith(".")
    assert len(first) > 15


def make(cls: type[errors.VecdbError]) -> errors.VecdbError:
    return cls("it failed at row 3", hint="Do that.", **{name: f"value of {name}" for name in cls.fields})


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("way", [*range(pickle.HIGHEST_PROTOCOL + 1), "copy", "deepcopy"])
def test_errors_survive_pickling_and_copying(cls, way):
    error = make(cls)
    if way == "copy":
        again = copy.copy(error)
    elif way == "deepcopy":
        again = copy.deepcopy(error)
    else:
        again = pickle.loads(pickle.dumps(error, protocol=way))
    assert type(again) is cls
    assert str(again) == str(error)
    assert (again.message, again.hint) == (error.message, error.hint)
    assert {name: getattr(again, name) for name in cls.fields} == {name: f"value of {name}" for name in cls.fields}


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_the_message_ends_with_the_hint(cls):
    assert str(make(cls)) == "it failed at row 3 Hint: Do that."
    assert str(cls("it failed")) == "it failed"


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_attributes_left_out_are_none_and_unknown_ones_are_refused(cls):
    assert all(getattr(cls("it failed"), name) is None for name in cls.fields)
    with pytest.raises(TypeError, match="has no attribute"):
        cls("it failed", no_such_attribute=1)


@pytest.mark.parametrize(
    ("cls", "built_in"),
    [
        (errors.DimensionError, ValueError),
        (errors.DTypeError, TypeError),
        (errors.RecordMissingError, LookupError),
        (errors.ClosedError, RuntimeError),
        (errors.FileAccessError, OSError),
        (errors.ExtraMissingError, ImportError),
        (errors.IdentityWarning, UserWarning),
    ],
)
def test_programs_may_catch_the_built_in_kind(cls, built_in):
    assert issubclass(cls, built_in)


def test_a_missing_thing_is_not_a_key_error():
    """KeyError prints the repr of its message; ours are sentences."""
    assert not issubclass(errors.MissingError, KeyError)
    assert str(errors.RecordMissingError("no record 'a'")) == "no record 'a'"


@given(message=st.text(), hint=st.none() | st.text(), ids=st.lists(st.integers() | st.text()))
def test_any_message_and_value_round_trips(message, hint, ids):
    error = errors.RecordMissingError(message, hint=hint, ids=ids, collection="docs")
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.hint, again.ids, again.collection) == (message, hint, ids, "docs")
    assert str(again) == (f"{message} Hint: {hint}" if hint else message)


def test_a_cause_is_kept():
    def fill_the_disk():
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise errors.DiskFullError("the disk is full", path="a.vecdb") from error

    with pytest.raises(errors.StorageError) as caught:
        fill_the_disk()
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("cls", WARNINGS, ids=lambda cls: cls.__name__)
def test_warnings_can_be_filtered_as_one_family(cls):
    assert issubclass(cls, errors.VecdbWarning)
    with pytest.warns(errors.VecdbWarning, match="slow"):
        warnings.warn(cls("slow"), stacklevel=1)
