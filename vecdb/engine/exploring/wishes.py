"""What a search was asked for beside its query: examples, feedback, a spread of the hits. Checked, before any read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vecdb.engine.names import check_count, check_number, check_option
from vecdb.engine.order import parse_order
from vecdb.errors import ParameterError
from vecdb.explored import MMR, Feedback, Mixture

WEIGHTS: Final = (1.0, 0.75, 0.15)
"""Of query, positive and negative examples: the usual ones (Manning, Raghavan and Schuetze, 2008, section 9.1.1)."""
SPREADS: Final = ("mmr", "mixture")
_MOST_DOCUMENTS, _MOST_ROUNDS, _MOST_CLUSTERS, _MOST_CANDIDATES, _MOST_EACH = 1_000, 10, 1_000, 10_000, 1_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a search is to be explored.

    Attributes
    ----------
    positive, negative : tuple
        Ids and vectors, as they were given.
    weights : tuple of three floats
        Of the query, of the positive and of the negative examples.
    feedback : Feedback or None
    spread : MMR or Mixture or None
    group_by : str or None
        A dotted path.
    per_group : int
    """

    positive: tuple[Any, ...] = ()
    negative: tuple[Any, ...] = ()
    weights: tuple[float, float, float] = WEIGHTS
    feedback: Feedback | None = None
    spread: MMR | Mixture | None = None
    group_by: str | None = None
    per_group: int = 1

    @property
    def starts_from_query(self) -> bool:
        """Whether the query is asked as it was given."""
        return not self.positive and not self.negative

    @property
    def chooses(self) -> bool:
        """Whether hits are chosen from more candidates than are returned."""
        return self.feedback is not None or self.spread is not None or self.group_by is not None


def wishes(
    positive: Any, negative: Any, weights: Any, feedback: Any, diversify: Any, group_by: Any, per_group: Any
) -> Wishes:
    """Return what was wished for, checked.

    Raises
    ------
    ParameterError
    """
    if diversify is not None and group_by is not None:
        raise ParameterError(
            "diversify and group_by both choose the hits",
            hint="Give one of the two.",
            name="diversify",
            got=diversify,
            allowed="None with group_by",
        )
    good, bad = examples("positive", positive), examples("negative", negative)
    if weights is not None and not good and not bad:
        raise ParameterError("weights belong to positive= and negative=", name="weights", got=weights)
    if per_group is not None and group_by is None:
        raise ParameterError("per_group belongs to group_by=", name="per_group", got=per_group)
    return Wishes(
        good,
        bad,
        WEIGHTS if weights is None else _weights(weights),
        _feedback(feedback),
        _spread(diversify),
        None if group_by is None else check_field("group_by", group_by),
        1 if per_group is None else bounded("per_group", per_group, 1, _MOST_EACH),
    )


def examples(name: str, given: Any) -> tuple[Any, ...]:
    """Return examples one by one: ids as they are, vectors as arrays."""
    if given is None:
        return ()
    if isinstance(given, np.ndarray):
        if given.ndim == 1 and given.dtype.kind in "iuU":
            return tuple(given.tolist())
        given = list(np.atleast_2d(given))
    if not isinstance(given, (list, tuple)):
        raise ParameterError(
            f"{name} is a {type(given).__name__}, expected a list of ids or vectors",
            hint=f"Write {name}=[...].",
            name=name,
            got=type(given).__name__,
            allowed="list of ids or vectors",
        )
    if given and all(type(part) is float for part in given):
        raise ParameterError(
            f"{name} is a list of numbers, expected a list of ids or vectors",
            hint=f"Write {name}=[vector] for one vector.",
            name=name,
            got="list of float",
            allowed="list of ids or vectors",
        )
    return tuple(given)


def check_field(name: str, path: Any) -> str:
    """Return a dotted path of metadata."""
    if not isinstance(path, str) or path.startswith("-"):
        raise ParameterError(
            f"{name} is {path!r}, expected the dotted path of a field", name=name, got=path, allowed="dotted path"
        )
    return parse_order(path).paths[0]


def bounded(name: str, value: Any, low: int, high: int) -> int:
    """Return an int between two bounds."""
    number = check_count(name, value, low)
    if number > high:
        raise ParameterError(
            f"{name} is {number}, expected at most {high}", name=name, got=number, allowed=f"{low} to {high}"
        )
    return number


def _weights(given: Any) -> tuple[float, float, float]:
    if not isinstance(given, (list, tuple)) or len(given) != 3:
        raise ParameterError(
            f"weights is {given!r}, expected three numbers: of query, positive and negative examples",
            name="weights",
            got=given,
            allowed="(query, positive, negative)",
        )
    for part in given:
        check_number("weights", part, 0.0, 1e6)
    query, positive, negative = (float(part) for part in given)
    return query, positive, negative


def _feedback(given: Any) -> Feedback | None:
    if given is None or given is False:
        return None
    made = Feedback() if given is True else given
    if isinstance(made, (int, np.integer)):
        made = Feedback(int(made))
    if not isinstance(made, Feedback):
        raise ParameterError(
            f"feedback is {given!r}, expected True, a number of documents or a Feedback",
            name="feedback",
            got=repr(given),
            allowed="bool, int, Feedback",
        )
    bounded("feedback.documents", made.documents, 1, _MOST_DOCUMENTS)
    bounded("feedback.rounds", made.rounds, 1, _MOST_ROUNDS)
    check_number("feedback.query", made.query, 0.0, 1e6)
    check_number("feedback.mean", made.mean, 0.0, 1e6)
    if made.query + made.mean <= 0:
        raise ParameterError("feedback has only weights of 0", name="feedback.mean", got=made.mean, allowed="> 0")
    return made


def _spread(given: Any) -> MMR | Mixture | None:
    if given is None:
        return None
    if isinstance(given, str):
        check_option("diversify", given, SPREADS)
        return MMR() if given == "mmr" else Mixture()
    if isinstance(given, MMR):
        check_number("diversify.trade", given.trade, 0.0, 1.0)
    elif isinstance(given, Mixture):
        bounded("diversify.clusters", given.clusters, 2, _MOST_CLUSTERS)
        check_number("diversify.smoothing", given.smoothing, 0.0, 1.0)
    else:
        raise ParameterError(
            f"diversify is {given!r}, expected one of {SPREADS}, an MMR or a Mixture",
            name="diversify",
            got=repr(given),
            allowed=SPREADS,
        )
    made: MMR | Mixture = given
    bounded("diversify.candidates", made.candidates, 1, _MOST_CANDIDATES)
    return made
