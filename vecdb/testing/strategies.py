"""What property tests draw: ids, metadata, conditions and changes of records; spaces, vectors and the life of an index.

Imports Hypothesis; nothing else here does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import stateful
from hypothesis import strategies as st

from vecdb.testing.datasets import HOSTILE, SETS
from vecdb.testing.index_life import Ask, Grow, Reload, Remove, Step
from vecdb.testing.model import Write
from vecdb.testing.stateful import (
    IDS,
    Change,
    StoreSteps,
    deleting,
    deleting_where,
    dropping_space,
    inserting,
    renaming_space,
    setting_metadata,
    setting_vectors,
    upserting,
)
from vecdb.types import METRICS, Metric, Space

__all__ = ["changes", "conditions", "index_steps", "make_machine", "metadata", "queries_for", "spaces", "vectors"]

_NUMBERS = st.sampled_from([0, 1, 2, 2.0, -1, 2.5, 2**53 + 1, float("inf")])
_WORDS = st.sampled_from(["", "x", "xy", "é", "X"])
_SCALARS = st.one_of(st.none(), st.booleans(), _NUMBERS, _WORDS)
_TAGS = ("first", "second")

metadata = st.fixed_dictionaries(
    {},
    optional={
        "n": st.none() | _NUMBERS,
        "s": _SCALARS,
        "tags": st.lists(_SCALARS, max_size=3),
        "deep": st.fixed_dictionaries({}, optional={"n": _NUMBERS, "s": _WORDS}),
    },
)
"""Metadata of a record: few values, so that conditions meet them."""

_PATHS = st.sampled_from(["n", "s", "tags", "deep.n", "deep.s", "deep", "nowhere"])
_TESTS = st.one_of(
    _SCALARS,
    st.builds(
        lambda name, value: {name: value},
        st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains"]),
        _SCALARS,
    ),
    st.builds(lambda name, value: {name: value}, st.sampled_from(["$in", "$nin"]), st.lists(_SCALARS, max_size=3)),
    st.builds(lambda value: {"$exists": value}, st.booleans()),
    st.builds(lambda value: {"$not": {"$gt": value}}, _SCALARS),
)
_FIELDS = st.dictionaries(_PATHS, _TESTS, min_size=1, max_size=2)
conditions = st.one_of(
    _FIELDS,
    st.builds(lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or"]), st.lists(_FIELDS, min_size=1)),
    st.builds(lambda part: {"$not": part}, _FIELDS),
)
"""Conditions on such metadata."""

_SEEDS = st.integers(0, 40)
_ID_LISTS = st.lists(st.sampled_from(IDS), min_size=1, max_size=6, unique_by=lambda key: (type(key), key))
_MANY_IDS = st.permutations(IDS).map(lambda ids: ids[:8])


def _usual(spaces: Sequence[str]) -> st.SearchStrategy[str]:
    """Spaces that are there, and seldom the one that comes and goes."""
    return st.sampled_from([*list(spaces[:-1]) * 4, spaces[-1]])


@st.composite
def _filling(draw: st.DrawFn, spaces: Sequence[str]) -> Write:
    """Arguments of a write of many records with a vector in each usual space."""
    ids = draw(_MANY_IDS)
    seed = draw(_SEEDS)
    seeds = {name: [(seed + step * place) % 41 for place in range(len(ids))] for step, name in enumerate(spaces[:-1])}
    return Write(ids, seeds, [{**draw(metadata), "place": place} for place in range(len(ids))])


@st.composite
def _writes(draw: st.DrawFn, spaces: Sequence[str], *, versions: bool = False) -> Write:
    """Arguments of a write; now and then a space that is not there."""
    ids = draw(_ID_LISTS)
    each: dict[str, Any] = {"min_size": len(ids), "max_size": len(ids)}
    names = _usual(spaces)
    return Write(
        ids,
        draw(st.dictionaries(names, st.lists(st.none() | _SEEDS, **each), max_size=3)),
        draw(st.none() | st.lists(metadata, **each)),
        draw(st.none() | st.lists(st.sampled_from([None, "", "text", "é" * 50]), **each)),
        draw(st.booleans()),
        draw(st.none() | st.lists(st.none() | st.integers(0, 3), **each)) if versions else None,
    )


@st.composite
def _vectors(draw: st.DrawFn, spaces: Sequence[str]) -> Change:
    ids = draw(_ID_LISTS)
    return setting_vectors(draw(_usual(spaces)), ids, [draw(_SEEDS) for _ in ids])


@st.composite
def _metadata(draw: st.DrawFn) -> Change:
    ids = draw(_ID_LISTS)
    return setting_metadata(Write(ids, metadata=[draw(metadata) for _ in ids], merge=draw(st.booleans())))


def changes(spaces: Sequence[str]) -> st.SearchStrategy[Change]:
    """Return a strategy of changes to records in these spaces, about half of them upserts."""
    return st.one_of(
        st.builds(upserting, _writes(spaces)),
        st.builds(upserting, _writes(spaces, versions=True)),
        st.builds(inserting, _writes(spaces)),
        _vectors(spaces),
        _metadata(),
        st.builds(lambda ids, ok: deleting(ids[:2], missing_ok=ok), _ID_LISTS, st.booleans()),
        st.builds(deleting_where, conditions),
    )


# --- spaces, vectors, and the life of an index ------------------------------------------------------------


def spaces(metrics: Sequence[Metric] = METRICS, max_dim: int = 40) -> st.SearchStrategy[Space]:
    """Return a strategy of spaces of these metrics, 1 to `max_dim` wide, stored as float32 or float16."""
    names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
    return st.builds(
        Space,
        names,
        dim=st.one_of(st.integers(1, min(3, max_dim)), st.integers(1, max_dim)),
        metric=st.sampled_from(metrics),
        dtype=st.sampled_from(["float32", "float16"]),
        model=names,
        role=st.sampled_from(["document", "query", "both"]),
    )


@st.composite
def vectors(
    draw: st.DrawFn, dim: int, *, min_rows: int = 1, max_rows: int = 200, kinds: Sequence[str] | None = None
) -> npt.NDArray[np.float32]:
    """Return a strategy of matrices of float32, shape (n, dim), none of whose rows is zero.

    Parameters
    ----------
    draw : callable
        Given by Hypothesis.
    dim : int
    min_rows, max_rows : int, default 1 and 200
    kinds : sequence of str, optional
        Of `datasets.SETS` and `datasets.HOSTILE`: all of them by default.
    """
    makers = SETS | HOSTILE
    kind = draw(st.sampled_from(list(kinds or makers)))
    rows = makers[kind](draw(st.integers(min_rows, max_rows)), dim, draw(st.integers(0, 1_000)))
    rows[~rows.any(axis=1)] = 1.0
    return rows


@st.composite
def queries_for(draw: st.DrawFn, rows: npt.NDArray[np.float32], max_queries: int = 5) -> npt.NDArray[np.float32]:
    """Return a strategy of queries for `rows`: some of the rows themselves, some beside them, some far away."""
    places = draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=max_queries))
    noise = np.random.default_rng(draw(st.integers(0, 1_000))).standard_normal((len(places), rows.shape[1]))
    shares = np.array([draw(st.sampled_from([0.0, 1e-6, 0.1, 10.0])) for _ in places])
    lengths = np.abs(rows[places]).max(axis=1)
    asked: npt.NDArray[np.float32] = np.asarray(rows[places] + (shares * lengths)[:, None] * noise, np.float32)
    asked[~asked.any(axis=1)] = 1.0
    return asked


def index_steps(max_steps: int = 8, max_k: int = 30) -> st.SearchStrategy[list[Step]]:
    """Return a strategy of steps for `index_life.live`, with a question after each change."""
    asks = st.builds(
        Ask,
        seed=_SEEDS,
        k=st.integers(1, max_k),
        share=st.sampled_from([None, None, 0.0, 0.02, 0.5, 1.0]),
        effort=st.sampled_from([None, 1, 50, 10_000]),
    )
    changes = st.one_of(
        st.builds(Grow, st.integers(0, 60)),
        st.builds(Remove, seed=_SEEDS, share=st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        st.just(Reload()),
    )
    pairs = st.lists(st.tuples(changes, asks), min_size=1, max_size=max(1, max_steps // 2))
    return pairs.map(lambda drawn: [step for pair in drawn for step in pair])


def make_machine(start: Callable[[], StoreSteps], spaces: Sequence[str]) -> Any:
    """Return the machine over what `start` begins; `spaces` are those that may ever be there."""
    extra, names = spaces[-1], _usual(spaces)
    drawn = changes(spaces)

    class StoreMachine(stateful.RuleBasedStateMachine):
        """Compares a database with the model after every step."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = start()

        @stateful.rule(write=_filling(spaces))
        def fill(self, write: Write) -> None:
            self.steps.change(upserting(write))

        @stateful.rule(several=st.lists(drawn, min_size=1, max_size=4))
        def change(self, several: list[Change]) -> None:
            for change in several:
                self.steps.change(change)

        @stateful.rule(several=st.lists(drawn, max_size=4), commit=st.booleans())
        def transaction(self, several: list[Change], commit: bool) -> None:
            self.steps.transaction(several, commit=commit)

        @stateful.rule(what=st.sampled_from(["add", "add", "drop", "rename"]))
        def space(self, what: str) -> None:
            if what == "add":
                self.steps.add_space(extra)
            elif what == "drop":
                self.steps.change(dropping_space(extra))
            else:
                self.steps.change(renaming_space(spaces[0], "renamed"))
                self.steps.compare()
                self.steps.change(renaming_space("renamed", spaces[0]))

        @stateful.rule(name=st.sampled_from(_TAGS), back=st.none() | st.integers(0, 5))
        def tag(self, name: str, back: int | None) -> None:
            self.steps.tag(name, None if back is None else max(0, self.steps.seq - back))

        @stateful.rule(name=st.sampled_from(_TAGS))
        def untag(self, name: str) -> None:
            self.steps.untag(name)

        @stateful.rule()
        def reopen(self) -> None:
            self.steps.reopen()

        @stateful.rule()
        def optimize(self) -> None:
            self.steps.optimize()

        @stateful.rule(keep=st.sampled_from(["tags", "window", "nothing"]))
        def compact(self, keep: Any) -> None:
            self.steps.compact(keep)

        @stateful.rule(
            space=names,
            seed=_SEEDS,
            where=st.none() | conditions,
            k=st.integers(1, 15),
            offset=st.sampled_from([0, 0, 1, 5]),
        )
        def search(self, space: str, seed: int, where: Any, k: int, offset: int) -> None:
            self.steps.search(space, seed, where, k=k, offset=offset)

        @stateful.rule(where=conditions, place=st.integers(0, 60))
        def select(self, where: Any, place: int) -> None:
            self.steps.select(where, place)

        @stateful.rule(place=st.integers(0, 60))
        def look_back(self, place: int) -> None:
            self.steps.look_back(place)

        @stateful.rule(key=st.sampled_from(IDS))
        def history(self, key: Any) -> None:
            self.steps.history(key)

        @stateful.rule()
        def compare(self) -> None:
            self.steps.compare()
            self.steps.everything_sound()

        def teardown(self) -> None:
            self.steps.close()

    return StoreMachine
