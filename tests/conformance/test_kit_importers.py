"""The kits for importers and commands: sound ones pass, and each rule catches the one that breaks it, by name."""

from __future__ import annotations

import os
from dataclasses import replace

import click
import numpy as np
import pytest

from tests.conformance.broken import Changed, broken_rules
from tests.conformance.importers import EXAMPLE, Lines, Points
from vecdb.testing import command_checks, importer_checks, parametrize_with_checks

points = Points()


@click.group(help="Look after points.")
def tend():
    pass


@tend.command(help="Count points.")
@click.option("--twice", is_flag=True, help="Count them twice.")
def count(twice):
    click.echo(2 if twice else 1)


@click.command("shine", help="Make it shine.")
@click.argument("where")
def shine(where):
    click.echo(where)


@parametrize_with_checks([points], "importer")
def test_a_sound_importer_passes(importer, check):
    check(importer)


@parametrize_with_checks([tend, shine], "command")
def test_sound_commands_pass(command, check):
    check(command)


def opening(**changes):
    """An importer whose sources have other methods, each made from the sound source."""

    def change(path, params):
        source = points.open(path, params)
        return Changed(source, **{name: make(source) for name, make in changes.items()})

    return Changed(points, open=change)


def batches(change, least=1):
    """Change every batch of at least so many records."""
    return opening(
        batches=lambda source: (
            lambda start, most: (
                change(batch) if len(batch.ids) >= least else batch for batch in source.batches(start, most)
            )
        )
    )


def vectors(change):
    return batches(lambda batch: replace(batch, vectors={name: change(rows) for name, rows in batch.vectors.items()}))


class OneFile(Lines):
    """All passes share one position."""

    def batches(self, start, most):
        self.inner = super().batches(start, most)
        while True:
            try:
                yield next(self.inner)
            except StopIteration:
                return


HELD_OPEN = []


@pytest.fixture(autouse=True)
def nothing_of_a_fault_stays_open():
    """Left to the garbage collector, the file would be a warning in whatever test comes later."""
    yield
    while HELD_OPEN:
        HELD_OPEN.pop().close()


class HeldOpen(Lines):
    def __init__(self, path, space):
        super().__init__(path, space)
        HELD_OPEN.append(open(path, "rb"))  # noqa: SIM115 - that it stays open is the fault

    def close(self):
        pass


class Once(Lines):
    closed = False

    def close(self):
        if self.closed:
            raise ValueError("closed already")
        self.closed = True


class Noting(Lines):
    def close(self):
        with open(self.path + ".idx", "w") as file:
            file.write("index")


class Careless(Lines):
    def parse(self, line, number):
        name, text, numbers = line.decode().rstrip("\n").split(";")
        return (
            name,
            text or None,
            np.array([float(each) for each in numbers.split()], np.float32) if numbers else None,
            number,
        )


class AnyEncoding(Lines):
    def __init__(self, path, space):
        self.path, self.space, self.dim, self.widths = path, space, 2, {space: 2}

    def parse(self, line, number):
        try:
            return super().parse(line, number)
        except SourceErrors:
            return f"line {number}", None, None, number


from vecdb.errors import SourceError as SourceErrors  # noqa: E402


def source_of(cls):
    return Changed(points, open=lambda path, params: cls(path, params["space"]))


BROKEN = {
    "suffix without a dot": ("D1", Changed(points, suffixes=("points",)), set()),
    "other magic": ("I1", Changed(points, magic=(b"points",)), set()),
    "short example": ("I1", Changed(points, example=b"#points 2\n" + b"a;;\nb;;\nc;;\nd;;\n"), set()),
    "rows as text": ("I2", opening(rows=lambda source: "7"), {"I6"}),
    "two more than asked for": (
        "I3",
        opening(batches=lambda source: lambda start, most: source.batches(start, most + 2)),
        {"I9"},
    ),
    "texts are too few": ("I3", batches(lambda batch: replace(batch, lines=batch.lines[1:])), set()),
    "wider than declared": (
        "I4",
        vectors(lambda rows: [None if row is None else np.append(row, 1) for row in rows]),
        set(),
    ),
    "another name": ("I4", batches(lambda batch: replace(batch, vectors={"other": batch.vectors["points"]})), set()),
    "numpy ids": ("I5", batches(lambda batch: replace(batch, ids=[np.str_(each) for each in batch.ids])), set()),
    "one row too many": ("I6", opening(rows=lambda source: 8), set()),
    "starts again": (
        "I7",
        opening(batches=lambda source: lambda start, most: source.batches(min(start, 6), most)),
        set(),
    ),
    "drops the last of a batch": (
        "I8",
        opening(
            batches=lambda source: (
                lambda start, most: (
                    replace(batch, ids=batch.ids, texts=[*batch.texts[:-1], "last"]) if most == 2 else batch
                    for batch in source.batches(start, most)
                )
            )
        ),
        set(),
    ),
    "keeps the file open": ("I10", source_of(HeldOpen), set()),
    "closes once": ("I10", source_of(Once), set()),
    "writes beside the file": ("I11", source_of(Noting), set()),
    "any error": ("I12", source_of(Careless), set()),
    "reads anything": ("I12", source_of(AnyEncoding), set()),
}


class SharedPosition(Lines):
    """Every pass takes the next record of one that all share."""

    shared = None

    def batches(self, start, most):
        if start or most != 1:
            yield from super().batches(start, most)
            return
        if self.shared is None:
            self.shared = super().batches(start, most)
        yield from self.shared


BROKEN["passes share a position"] = ("I9", source_of(SharedPosition), set())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_catches_the_importer_that_breaks_it(name):
    number, thing, also = BROKEN[name]
    found = broken_rules(thing, "importer")
    assert number in found and found <= {number} | also


def test_there_is_a_broken_importer_for_every_rule():
    assert {number for number, _, _ in BROKEN.values()} == {check.number for check in importer_checks.CHECKS}


def test_the_example_is_read(tmp_path):
    path = tmp_path / "a.points"
    path.write_bytes(EXAMPLE)
    batch = next(points.open(os.fspath(path), {"space": "p"}).batches(0, 100))
    assert len(batch.ids) == 7 and batch.texts[6] is None and batch.vectors["p"][6] is None


class Shouting(click.Command):
    def get_help(self, ctx):
        raise RuntimeError("no help")


class Lenient(click.Command):
    def main(self, args=None, **extra):
        return 0 if args != ["--help"] else super().main(args=args, **extra)


COMMANDS = {
    "no help text": ("D1", click.Command("shine")),
    "a command of vecdb": ("D1", click.Command("search", help="Search.")),
    "upper case": ("D1", click.Command("Shine", help="Shine.")),
    "help that fails": ("X1", Shouting("shine", help="Shine.")),
    "option without help": ("X2", click.Command("shine", help="Shine.", params=[click.Option(["--far"])])),
    "member without help": ("X2", click.Group("tend", help="Tend.", commands=[click.Command("count")])),
    "takes any option": ("X3", Lenient("shine", help="Shine.")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_rule_catches_the_command_that_breaks_it_and_no_other_does(name):
    number, command = COMMANDS[name]
    assert broken_rules(command, "command") == {number}


def test_there_is_a_broken_command_for_every_rule():
    assert {number for number, _ in COMMANDS.values()} == {check.number for check in command_checks.CHECKS}
