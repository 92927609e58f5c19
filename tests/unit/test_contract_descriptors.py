"""What is checked of an object when it is registered: one fault at a time, each named."""

from dataclasses import dataclass, field, replace
from typing import Any

import click
import pytest

from vecdb.cli import cli
from vecdb.contracts import IndexCapabilities, Param, RelevanceCapabilities, TransformCapabilities
from vecdb.contracts.command import OWN_COMMANDS
from vecdb.contracts.descriptors import KINDS, problems_of


@dataclass(frozen=True)
class Thing:
    """Something that can be registered as any kind but a command."""

    name: Any = "acme.thing"
    version: Any = 1
    capabilities: Any = None
    parameters: Any = field(default_factory=dict)
    needs: Any = frozenset()
    suffixes: Any = (".acme", ".acme.gz")
    magic: Any = (b"ACME",)
    example: Any = b"ACME 1"

    def fit(self): ...
    def load(self): ...
    def build(self): ...
    def order(self): ...
    def open(self): ...


def thing(kind: str, **changes: Any) -> Thing:
    capabilities = {
        "index type": IndexCapabilities(frozenset({"dot"})),
        "transform": TransformCapabilities(),
        "relevance filter": RelevanceCapabilities(),
    }
    return replace(Thing(capabilities=capabilities.get(kind)), **changes)


KINDS_OF_THINGS = [kind for kind in KINDS if kind != "command"]
VERSIONED = ["index type", "transform", "relevance filter"]


def problems(kind: str, *, own: bool = False, **changes: Any) -> list[str]:
    return problems_of(KINDS[kind], thing(kind, **changes), own=own)


@pytest.mark.parametrize("kind", KINDS_OF_THINGS)
def test_a_complete_descriptor_has_no_problem(kind):
    assert problems(kind) == []


@pytest.mark.parametrize("kind", KINDS_OF_THINGS)
@pytest.mark.parametrize(
    "name", ["thing", "Acme.thing", "acme.", "vecdb.thing", "auto.x", "", None, 3, "a." + "x" * 63]
)
def test_a_name_of_a_third_party_is_lower_case_with_a_prefix(kind, name):
    assert "name is" in " ".join(problems(kind, name=name))


@pytest.mark.parametrize("kind", KINDS_OF_THINGS)
def test_a_name_of_vecdb_has_no_prefix(kind):
    assert problems(kind, own=True, name="thing") == []
    assert "name is" in " ".join(problems(kind, own=True))


@pytest.mark.parametrize("kind", VERSIONED)
@pytest.mark.parametrize("version", [0, -1, True, 1.0, None, 2**31])
def test_a_version_is_a_positive_int(kind, version):
    assert problems(kind, version=version) == [f"version is {version!r}, expected an int of at least 1"]


@pytest.mark.parametrize("kind", VERSIONED)
def test_capabilities_are_of_the_right_class(kind):
    assert len(problems(kind, capabilities={"exact": True})) == 1


@pytest.mark.parametrize("kind", KINDS_OF_THINGS)
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (None, "expected a mapping"),
        ({"a b": Param("int", 1, "Count.")}, "expected an identifier"),
        ({"a": 1}, "expected an identifier with a Param"),
        ({"a": Param("complex", 1, "Count.")}, "has kind 'complex'"),
        ({"a": Param("int", 1, " ")}, "has no description"),
        ({"a": Param("int", 1.5, "Count.")}, "default of parameter 'a'"),
        ({"a": Param("int", 9, "Count.", high=5)}, "default of parameter 'a'"),
    ],
)
def test_parameters_are_declared_with_an_allowed_default_and_a_description(kind, parameters, words):
    found = problems(kind, parameters=parameters)
    assert len(found) == 1 and words in found[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"requires": {"pairs"}}, "capabilities.requires"),
        ({"requires": frozenset({"luck"})}, "capabilities.requires"),
        ({"widths": frozenset()}, "capabilities.widths"),
        ({"widths": frozenset({"equal", "any"})}, "capabilities.widths"),
        ({"directions": frozenset({"both"})}, "capabilities.directions"),
        ({"isometry": "full"}, "capabilities.isometry"),
        ({"isometry": None}, "capabilities.isometry"),
        ({"invertible": 1}, "capabilities.invertible"),
        ({"min_pairs": -1}, "capabilities.min_pairs"),
        ({"min_pairs": True}, "capabilities.min_pairs"),
        ({"affine": True}, "affine needs row_wise"),
    ],
)
def test_abilities_of_a_transform_are_known_values(changes, words):
    found = problems("transform", capabilities=replace(TransformCapabilities(), **changes))
    assert len(found) == 1 and words in found[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scope": "everything"}, "capabilities.scope"),
        ({"scope": ["score"]}, "capabilities.scope"),
        ({"transfer": True}, "capabilities.transfer"),
        ({"requires": frozenset({"pairs"})}, "capabilities.requires"),
        ({"monotone": None}, "capabilities.monotone"),
        ({"transfer": "rescore", "scope": "query"}, "needs the scope 'score'"),
        ({"depth": -1}, "capabilities.depth"),
        ({"depth": True}, "capabilities.depth"),
        ({"depth": 1_001}, "capabilities.depth"),
    ],
)
def test_abilities_of_a_relevance_filter_are_known_values(changes, words):
    found = problems("relevance filter", capabilities=replace(RelevanceCapabilities(), **changes))
    assert len(found) == 1 and words in found[0]


@pytest.mark.parametrize("needs", [None, {"novelty"}, frozenset({"luck"})])
def test_a_policy_needs_known_facts(needs):
    assert "needs is" in " ".join(problems("backfill policy", needs=needs))


@pytest.mark.parametrize("suffixes", [None, [".a"], (".A",), ("a",), (".",), (b".a",)])
def test_an_importer_has_lower_case_suffixes(suffixes):
    assert "suffixes is" in " ".join(problems("importer", suffixes=suffixes))


@pytest.mark.parametrize("magic", [None, b"AB", ("AB",), (b"A",), (b"A" * 65,)])
def test_an_importer_has_magic_bytes(magic):
    assert "magic is" in " ".join(problems("importer", magic=magic))


@pytest.mark.parametrize("example", [None, "text", b"", bytes((1 << 20) + 1)], ids=["None", "str", "empty", "large"])
def test_an_importer_brings_a_small_file(example):
    assert "example is" in " ".join(problems("importer", example=example))


@pytest.mark.parametrize("kind", KINDS_OF_THINGS)
def test_methods_that_are_missing_are_named(kind):
    class Bare:
        name = "acme.bare"
        version, capabilities, parameters = 1, thing(kind).capabilities, {}
        needs, suffixes, magic, example = frozenset(), (), (), b"1"

    assert problems_of(KINDS[kind], Bare(), own=False) == [f"it has no method {each}" for each in KINDS[kind].methods]


def command_problems(found: Any) -> list[str]:
    return problems_of(KINDS["command"], found, own=False)


def test_a_click_command_and_a_group_are_commands():
    assert command_problems(click.Command("shine", help="Make it shine.", callback=print)) == []
    assert command_problems(click.Group("shine", help="Make it shine.")) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (click.Command("Shine", help="It."), "name is 'Shine'"),
        (click.Command("acme.shine", help="It."), "name is 'acme.shine'"),
        (click.Command(None, help="It."), "name is None"),
        (click.Command("shine"), "no help text"),
        (click.Command("search", help="It."), "'search' is a command of vecdb itself"),
        (print, "expected a click command"),
    ],
)
def test_a_command_has_a_free_name_and_a_help_text(found, words):
    assert words in " ".join(command_problems(found))


def test_every_command_of_vecdb_is_kept_from_plugins():
    assert set(cli.commands) <= OWN_COMMANDS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"measured": 1}, "capabilities.measured"),
        ({"part_from": -1, "encodes_segments": True}, "capabilities.part_from"),
        ({"part_from": True, "encodes_segments": True}, "capabilities.part_from"),
        ({"part_from": 0.5, "encodes_segments": True}, "capabilities.part_from"),
        ({"part_from": 100}, "part_from needs encodes_segments"),
    ],
)
def test_what_an_index_type_says_of_curves_and_parts(changes, words):
    found = problems("index type", capabilities=replace(IndexCapabilities(frozenset({"dot"})), **changes))
    assert len(found) == 1 and words in found[0]


def test_parts_of_two_kinds_may_be_declared():
    able = IndexCapabilities(frozenset({"dot"}), encodes_segments=True, part_from=65_536, measured=True)
    assert problems("index type", capabilities=able) == []
