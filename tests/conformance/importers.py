"""A small file format that keeps every rule: lines of ``id;text;numbers``, with the width on the first line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.contracts import ImportBatch, Param
from vecdb.errors import SourceError

EXAMPLE = b"#points 2\nn0;zero;0 1\n" + b"".join(b"n%d;text %d;%d 1.5\n" % (n, n, n) for n in range(1, 6)) + b"n6;;\n"


class Lines:
    """An open file of lines."""

    rows = None

    def __init__(self, path: str, space: str) -> None:
        self.path, self.space = path, space
        with open(path, encoding="utf-8") as file:
            try:
                head = file.readline(100).split()
                self.dim = int(head[1])
            except (ValueError, IndexError) as error:
                raise SourceError(f"{path} does not begin with '#points WIDTH'", path=path, line=1) from error
        if head[0] != "#points" or not 1 <= self.dim <= 1000:
            raise SourceError(f"{path} does not begin with '#points WIDTH'", path=path, line=1)
        self.widths = {space: self.dim}

    def batches(self, start, most):
        with open(self.path, "rb") as file:
            file.readline()
            held = []
            for number, line in enumerate(file):
                if number >= start:
                    held.append(self.parse(line, number + 2))
                if len(held) == most:
                    yield self.batch(held)
                    held = []
            if held:
                yield self.batch(held)

    def parse(self, line, number):
        try:
            name, text, numbers = line.decode().rstrip("\n").split(";")
            vector = np.array([float(each) for each in numbers.split()], np.float32)
        except ValueError as error:
            raise SourceError(
                f"{self.path}, line {number}: not id;text;numbers", path=self.path, line=number
            ) from error
        if len(vector) not in (0, self.dim) or not name:
            raise SourceError(f"{self.path}, line {number}: {len(vector)} numbers", path=self.path, line=number)
        return name, text or None, vector if len(vector) else None, number

    def batch(self, held):
        names, texts, vectors, numbers = (list(column) for column in zip(*held, strict=True))
        return ImportBatch(names, {self.space: vectors}, [{"line": str(number)} for number in numbers], texts, numbers)

    def close(self):
        pass


@dataclass(frozen=True)
class Points:
    """Files of points."""

    name: str = "acme.points"
    suffixes: tuple[str, ...] = (".points",)
    magic: tuple[bytes, ...] = (b"#points ",)
    example: bytes = EXAMPLE
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {"space": Param("str", "points", "Name of the vectors.")}
    )

    def open(self, path: str, params: Mapping[str, Any]) -> Lines:
        return Lines(path, params["space"])
