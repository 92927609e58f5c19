"""Index types that describe themselves badly (D) or cannot take what they are given (I)."""

from dataclasses import replace

import numpy as np

from tests.conformance.faulty import Answering, Refusing, breaks, described, louder
from tests.conformance.plain import EVERYTHING, PlainIndex, PlainType
from vecdb.contracts import Param

# --- D ---

described("NoPrefix", "check_name", name="plain")
described("Shouting", "check_name", name="kit.PLAIN")
described("OfVecdb", "check_name", name="vecdb.plain")
described("VersionNought", "check_version", version=0)
described("VersionText", "check_version", version="1")
described("SwitchIsNumber", "check_capabilities", capabilities=replace(EVERYTHING, deterministic=1))
described("WidthOfNothing", "check_capabilities", capabilities=replace(EVERYTHING, max_dim=0))
described("NoDescription", "check_parameters", parameters={"step": Param("int", 100, "", low=1)})
described("NoBounds", "check_parameters", parameters={"step": Param("int", 100, "Vectors read at once.")})


class AnythingGoes(dict):
    def __contains__(self, name):
        return True


described("TakesAnyParameter", "check_unknown_parameter", parameters=AnythingGoes(PlainType().parameters))


@breaks("check_methods", "check_remove")
class CannotRemove(PlainIndex):
    remove = None


@breaks("check_parameter_values")
class StepOfOne(Refusing):
    @staticmethod
    def dislikes(view, rows, params):
        return params["step"] == 1


@breaks("check_repr")
class LongWinded(PlainType):
    def __repr__(self):
        return "LongWinded(\n)"


@breaks("check_repr")
class Counting(PlainType):
    builds = 0

    def __repr__(self):
        return f"Counting({type(self).builds})"

    def build(self, *args, **options):
        type(self).builds += 1
        return super().build(*args, **options)


# --- I ---


@breaks("check_read_only_input")
class WritesToQueries(PlainIndex):
    def search(self, queries, k, *, allowed, effort, view):
        queries += 0
        return super().search(queries, k, allowed=allowed, effort=effort, view=view)


@breaks("check_input_is_left_alone")
class SpoilsQueries(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        if queries.flags.writeable:
            queries[...] = 0
        return said


@breaks("check_input_is_left_alone")
class SpoilsParameters(PlainIndex):
    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        index = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        params["step"] = 1
        return index


@breaks("check_one_vector")
class NeedsTwo(Refusing):
    @staticmethod
    def dislikes(view, rows, params):
        return len(rows) == 1


@breaks("check_few_vectors")
class NeedsTen(Refusing):
    @staticmethod
    def dislikes(view, rows, params):
        return 1 < len(rows) < 10


@breaks("check_equal_vectors")
class NeedsVariance(Refusing):
    @staticmethod
    def dislikes(view, rows, params):
        return len(rows) > 1 and not np.ptp(rows, axis=0).any()


@breaks("check_one_dimension")
class NeedsPlane(Refusing):
    @staticmethod
    def dislikes(view, rows, params):
        return rows.shape[1] == 1


@breaks("check_widest_vectors")
class NeedsFours(Refusing):
    @staticmethod
    def dislikes(view, rows, params):
        return rows.shape[1] > 4 and rows.shape[1] % 4 != 0


@breaks("check_half_precision")
class NeedsSingles(Refusing):
    @staticmethod
    def dislikes(view, rows, params):
        with view.in_place() as here:
            return here.blocks.dtype != np.float32


@breaks("check_layout_of_blocks")
class IgnoresPlaces(PlainIndex):
    """Takes the vectors to follow each other."""

    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        rows = cls.read(view, params, progress, cancel)
        with view.in_place() as here:
            first = here.first + 2 * (here.places is not None)
            stored = here.blocks.gather(np.arange(first, first + view.count)).astype(np.float32)
        return cls(rows if here.places is None else stored, view.metric)


@breaks("check_layout_of_blocks")
class FollowsTheFile(PlainIndex):
    """Depends on how the vectors lie when it is asked."""

    def search(self, queries, k, *, allowed, effort, view):
        said = super().search(queries, k, allowed=allowed, effort=effort, view=view)
        with view.in_place() as here:
            return louder(said) if len(here.blocks.matrices[0]) == 1 else said


@breaks("check_extreme_lengths")
class SingleNorms(PlainIndex):
    """Computes norms in float32, where tiny vectors have none."""

    def scores(self, query, rows):
        scores = super().scores(query, rows)
        norms = np.square(rows).sum(axis=1)
        scores[(norms == 0) & rows.any(axis=1)] = np.inf
        return scores


@breaks("check_zero_vectors")
class NeedsDirections(Refusing):
    @staticmethod
    def dislikes(view, rows, params):
        return not rows.any(axis=1).all()


@breaks("check_query_length")
class ShortQueriesAreNothing(PlainIndex):
    def scores(self, query, rows):
        scores = super().scores(query, rows)
        return scores * 0 if self.metric == "cosine" and np.abs(query).max() < 1e-4 else scores
