"""Every rule of the border to index plugins, with few candidates and with many: who broke it, and which."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from tests.indextypes import CopiesType, able, fail
from vecdb.contracts import Candidates, EffortCurve
from vecdb.engine import border
from vecdb.engine.views import VectorsMovedError
from vecdb.errors import (
    CancelledError,
    ClosedError,
    CorruptionError,
    DimensionError,
    PluginContractError,
    PluginError,
)
from vecdb.registry import Provided

COUNT = 300


class View:
    count = COUNT
    dim = 2


class Answers:
    """An index that answers what it was given."""

    def __init__(self, answer):
        self.answer = answer

    def search(self, queries, k, *, allowed, effort, view):
        return self.answer() if callable(self.answer) else self.answer

    def dump(self, blobs):
        pass

    def stats(self):
        return self.answer() if callable(self.answer) else self.answer


def provided(*abilities):
    thing = CopiesType("acme.copies", able(*abilities))
    return Provided("index type", "acme.copies", thing, "acme-plugin", "acme-dist", "1.2")


def ask(answer, *, abilities=(), allowed=None, matches=COUNT, k=3, queries=2):
    matrix = np.ones((queries, 2), np.float32)
    return border.search(
        provided(*abilities), Answers(answer), matrix, k, allowed=allowed, matches=matches, effort=None, view=View()
    )


def table(rows, width=0):
    """Return candidates with `rows` of (position, score), padded to `width`: few or many are checked in other ways."""
    width = max(width, *map(len, rows))
    positions = np.full((len(rows), width), -1, np.int64)
    scores = np.full((len(rows), width), -np.inf, np.float32)
    for place, row in enumerate(rows):
        for column, (position, score) in enumerate(row):
            positions[place, column], scores[place, column] = position, score
    return Candidates(positions, scores)


GOOD = [(7, 2.0), (3, 1.0), (4, 1.0)]
BROKEN = {
    "search-nan": [(7, np.nan), (3, 1.0)],
    "search-unknown": [(COUNT, 2.0)],
    "search-order": [(3, 1.0), (7, 2.0)],
    "search-duplicates": [(3, 2.0), (3, 1.0)],
    "search-padding": [(3, 2.0), (-1, -np.inf), (4, 1.0)],
    "search-allowed": [(200, 2.0)],
    "search-complete": [(3, 2.0)],
}
MORE = [
    ("search-order", [(4, 1.0), (3, 1.0)]),
    ("search-unknown", [(-2, 2.0)]),
    ("search-unknown", [(3, 2.0), (-1, -np.inf), (-5, -np.inf)]),
    ("search-padding", [(-1, -np.inf), (3, 2.0)]),
    ("search-padding", [(3, 2.0), (-1, 1.0)]),
    ("search-padding", [(3, 2.0), (-1, np.nan)]),
    ("search-duplicates", [(3, 2.0), (3, 2.0)]),
    ("search-unknown", [(2**62, 1.0)]),
]


@pytest.mark.parametrize("width", [0, 200])
@pytest.mark.parametrize(("rule", "row"), [*BROKEN.items(), *MORE])
def test_a_broken_rule_is_named_with_plugin_and_distribution(rule, row, width):
    allowed = np.arange(COUNT) < 100
    whole = {"abilities": ("filtered", "complete")} if rule == "search-complete" else {}
    with pytest.raises(PluginContractError) as caught:
        ask(table([GOOD, row], width), allowed=allowed, matches=100, **whole)
    error = caught.value
    assert (error.rule, error.plugin, error.distribution) == (rule, "acme-plugin", "acme-dist")
    assert "acme-plugin" in str(error) and "acme-dist 1.2" in str(error) and rule in str(error)
    assert "query 1 " in str(error) and str(error).count("breaks rule") == 1


@pytest.mark.parametrize("width", [0, 200])
def test_what_keeps_the_rules_is_passed_on(width):
    found = ask(table([GOOD, []], width), allowed=np.arange(COUNT) < 100, matches=100)
    assert [positions.tolist() for positions in found] == [[7, 3, 4], []]
    found = ask(table([[(0, np.inf), (1, -np.inf)], [(2, 0.0), (3, -0.0)]], width))
    assert [positions.tolist() for positions in found] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("queries", [0, 1])
def test_no_candidates_at_all(queries):
    empty = Candidates(np.empty((queries, 0), np.int64), np.empty((queries, 0), np.float32))
    assert [len(found) for found in ask(empty, queries=queries)] == [0] * queries


def test_complete_asks_for_no_more_than_there_is():
    assert len(ask(table([[(3, 2.0)]]), abilities=("complete",), matches=1, queries=1)[0]) == 1


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("search-shape", None),
        ("search-shape", [[1, 2]]),
        ("search-shape", (np.zeros((2, 1), np.int64),)),
        ("search-shape", Candidates(np.zeros((3, 1), np.int64), np.zeros((3, 1), np.float32))),
        ("search-shape", Candidates(np.zeros((2, 2), np.int64), np.zeros((2, 1), np.float32))),
        ("search-shape", Candidates(np.zeros(2, np.int64), np.zeros(2, np.float32))),
        ("search-shape", Candidates(np.zeros((2, 1, 1), np.int64), np.zeros((2, 1, 1), np.float32))),
        ("search-dtype", Candidates([[1], [2]], np.zeros((2, 1), np.float32))),
        ("search-dtype", Candidates(np.zeros((2, 1), np.int32), np.zeros((2, 1), np.float32))),
        ("search-dtype", Candidates(np.zeros((2, 1), np.uint64), np.zeros((2, 1), np.float32))),
        ("search-dtype", Candidates(np.zeros((2, 1), ">i8"), np.zeros((2, 1), np.float32))),
        ("search-dtype", Candidates(np.zeros((2, 1), np.int64), np.zeros((2, 1)))),
        ("search-dtype", Candidates(np.zeros((2, 1), np.int64), np.zeros((2, 1), object))),
    ],
)
def test_what_is_no_candidates_is_refused(rule, answer):
    with pytest.raises(PluginContractError) as caught:
        ask(answer)
    assert caught.value.rule == rule


rows = st.lists(st.tuples(st.integers(-2, 12), st.sampled_from([0.0, 1.0, 2.0, -np.inf, np.inf, np.nan])), max_size=4)


@pytest.fixture(scope="module")
def compiled():
    vecdb.warmup()


@pytest.mark.usefixtures("compiled")
@given(rows=st.lists(rows, min_size=1, max_size=3), complete=st.booleans(), masked=st.booleans())
def test_few_and_many_candidates_are_judged_alike(rows, complete, masked):
    """Few by the kernel, many by arrays."""
    abilities = ("filtered", "complete") if complete else ("filtered",)
    given = {"abilities": abilities, "queries": len(rows), "k": 2}
    given |= {"allowed": np.arange(COUNT) % 5 != 0, "matches": COUNT * 4 // 5} if masked else {}
    said = []
    for width in (0, border.MOST_COMPILED + 1):
        try:
            said.append([found.tolist() for found in ask(table(rows, width), **given)])
        except PluginContractError as error:
            said.append("refused" if len(rows) > 1 else error.rule)
    assert said[0] == said[1]


def test_what_a_plugin_keeps_of_its_answer_cannot_change_what_was_checked():
    answer = table([GOOD])
    found = ask(answer, queries=1)
    answer.positions[:] = 10**9
    assert found[0].tolist() == [7, 3, 4]


def test_a_subclass_of_ndarray_is_taken_for_its_numbers():
    class Odd(np.ndarray):
        def __getitem__(self, key):
            raise RuntimeError

    positions, scores = table([GOOD])
    assert ask(Candidates(positions.view(Odd), scores), queries=1)[0].tolist() == [7, 3, 4]


# --- what plugins raise -----------------------------------------------------------------------------------


def raising(error):
    def raise_it():
        raise error

    return raise_it


@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError(), RecursionError("deep"), AssertionError("no")])
def test_whatever_a_search_raises_names_the_plugin(error):
    with pytest.raises(PluginError) as caught:
        ask(raising(error))
    assert "plugin 'acme-plugin' (acme-dist 1.2) failed in search" in str(caught.value)
    assert type(error).__name__ in str(caught.value)
    assert (caught.value.plugin, caught.value.distribution) == ("acme-plugin", "acme-dist")
    assert caught.value.__cause__ is error


def test_an_argument_error_of_vecdb_is_the_plugins():
    with pytest.raises(PluginError, match=r"acme-plugin.*wrong width") as caught:
        ask(raising(DimensionError("wrong width", hint="A hint.")))
    assert caught.value.hint == "A hint."


@pytest.mark.parametrize("error", [CancelledError("stop"), CorruptionError("bad block"), ClosedError("gone")])
def test_what_is_not_the_plugins_passes(error):
    with pytest.raises(type(error)) as caught:
        ask(raising(error))
    assert caught.value is error


def test_an_interruption_passes():
    with pytest.raises(KeyboardInterrupt):
        ask(raising(KeyboardInterrupt()))


def test_moved_vectors_are_found_however_they_are_wrapped():
    def wrapped():
        try:
            raise VectorsMovedError
        except VectorsMovedError as error:
            raise PluginError("something went wrong") from error

    with pytest.raises(VectorsMovedError):
        ask(wrapped)


def test_a_rule_that_a_helper_refused_gets_the_plugins_name():
    with pytest.raises(PluginContractError) as caught:
        ask(raising(PluginContractError("positions go too far", rule="view", problem="positions go too far")))
    assert (caught.value.rule, caught.value.plugin) == ("view", "acme-plugin")
    assert caught.value.problem == "positions go too far"


# --- the other calls --------------------------------------------------------------------------------------


class Nothing:
    pass


def test_a_build_that_returns_no_index():
    given = provided()
    given.thing.build = lambda *args, **options: Nothing()
    with pytest.raises(PluginContractError, match="has no method search, dump, stats") as caught:
        border.build(given, View(), {}, seed=0, progress=lambda *_: None, cancel=lambda: False)
    assert caught.value.rule == "index" and str(caught.value).count("breaks rule") == 1


METHODS = {"add": "add", "remove": "remove", "encodes_segments": "encode_segment", "measured": "effort_curve"}


@pytest.mark.parametrize("ability", METHODS)
def test_a_capability_without_its_method(ability):
    given = provided(ability)
    given.thing.build = lambda *args, **options: Answers({})
    with pytest.raises(PluginContractError, match=METHODS[ability]):
        border.build(given, View(), {}, seed=0, progress=lambda *_: None, cancel=lambda: False)


def test_a_load_that_fails_is_damage():
    given = provided()
    given.thing.faults["load"] = fail(ValueError("nonsense"))
    with pytest.raises(CorruptionError, match=r"acme-plugin.*failed in load.*ValueError: nonsense"):
        border.load(given, None, View(), {})


def test_a_load_that_returns_no_index_breaks_a_rule():
    given = provided()
    given.thing.load = lambda *args: None
    with pytest.raises(PluginContractError, match="NoneType has no method"):
        border.load(given, None, View(), {})


@pytest.mark.parametrize("told", [None, [("a", 1)], 3])
def test_statistics_that_are_no_mapping(told):
    with pytest.raises(PluginContractError, match="expected a mapping") as caught:
        border.stats(provided(), Answers(told))
    assert caught.value.rule == "stats"


def test_statistics_keep_what_is_plain():
    assert border.stats(provided(), Answers({"a": 1, 2: 1.5, "c": "x", "d": [1], "e": None})) == {
        "a": 1,
        "2": 1.5,
        "c": "x",
    }


# --- curves -----------------------------------------------------------------------------------------------


class Knows:
    """An index that says this of its recall."""

    def __init__(self, said):
        self.said = said

    def effort_curve(self):
        return self.said() if callable(self.said) else self.said


def test_a_curve_is_passed_on_as_it_is():
    curve = EffortCurve(np.array([1, 10]), np.array([0.5, 0.9]), 100)
    assert border.effort_curve(provided("measured"), Knows(curve)) is curve
    assert border.effort_curve(provided("measured"), Knows(None)) is None


def test_a_type_that_is_not_measured_is_not_asked():
    assert border.effort_curve(provided(), Knows(raising(ValueError("asked")))) is None


@pytest.mark.parametrize("said", [7, EffortCurve(np.array([2, 1]), np.ones(2), 100), EffortCurve([1], [1.0], 10)])
def test_a_curve_that_is_none_breaks_a_rule(said):
    with pytest.raises(PluginContractError, match="effort_curve") as caught:
        border.effort_curve(provided("measured"), Knows(said))
    assert caught.value.rule == "effort-curve"


def test_a_curve_that_cannot_be_told_names_the_plugin():
    with pytest.raises(PluginError, match=r"acme-plugin.*failed in effort_curve.*ValueError: odd"):
        border.effort_curve(provided("measured"), Knows(raising(ValueError("odd"))))
