"""A plugin as it would be installed: an importer for lines of ``id,x,y`` and two commands."""

from types import MappingProxyType

import click
import numpy as np

from vecdb import SourceError, hookimpl
from vecdb.contracts import ImportBatch, Param


class Source:
    rows = None

    def __init__(self, path, space):
        self.path, self.space, self.widths = path, space, {space: 2}

    def batches(self, start, most):
        with open(self.path, encoding="utf-8") as file:
            rows = [line.rstrip("\n").split(",") for line in file][start:]
        for first in range(0, len(rows), most):
            part = rows[first : first + most]
            if any(len(row) != 3 for row in part):
                raise SourceError(f"{self.path}: not id,x,y", path=self.path)
            numbers = np.array([[float(x), float(y)] for _, x, y in part], np.float32)
            yield ImportBatch([row[0] for row in part], {self.space: numbers}, [{"from": "acme"} for _ in part])

    def close(self):
        pass


class Importer:
    name = "acme.csv"
    suffixes = (".csv",)
    magic = ()
    example = b"a,1,2\nb,2,3\nc,3,4\nd,4,5\ne,5,6\n"
    parameters = MappingProxyType(
        {"space": Param("str", "points", "Name of the vectors."), "bold": Param("bool", False, "Nothing.")}
    )

    def open(self, path, params):
        return Source(path, params["space"])


@click.command("acme-greet", help="Greet somebody.")
@click.argument("name")
def greet(name):
    click.echo(f"hello {name}")


@click.command("acme-fail", help="Fail.")
def fail():
    raise KeyError("lost")


@hookimpl
def vecdb_register_importers():
    return [Importer()]


@hookimpl
def vecdb_register_commands():
    return [greet, fail]
