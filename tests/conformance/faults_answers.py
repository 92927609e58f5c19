"""Index types that answer badly (S), or with the wrong vectors (Q)."""

import time

import numpy as np

from tests.conformance.faulty import FAULTS, Answering, Fault, breaks, louder, with_column
from tests.conformance.plain import PlainIndex, PlainType
from vecdb.contracts import Candidates, EffortCurve
from vecdb.testing.index_checks import finding
from vecdb.testing.index_checks.cases import COUNT

# --- S ---


@breaks("check_answer_shape")
class Doubles(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return Candidates(said[0], said[1].astype(np.float64))


@breaks("check_answer_shape")
class SmallNumbers(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return Candidates(said[0].astype(np.int32), said[1])


@breaks("check_positions_are_known")
class OneTooFar(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return with_column(said, len(self.rows), -1e30)


@breaks("check_padding")
class ScoredPadding(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return with_column(said, -1, -1e30)


@breaks("check_padding", "check_best_first")
class PaddedInFront(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        front = np.full((len(queries), 1), -1, np.int64), np.full((len(queries), 1), -np.inf, np.float32)
        return Candidates(np.hstack([front[0], said[0]]), np.hstack([front[1], said[1]]))


@breaks("check_scores_are_numbers", "check_extreme_lengths")
class InfinitelyGood(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        said[1][:, :1] = np.inf
        return said


@breaks("check_best_first")
class WorstFirst(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        if said[0].size and (said[0] < 0).any():
            return said
        order = np.lexsort((said[0], said[1]))  # equal ones stay in order
        return Candidates(*(np.take_along_axis(part, order, axis=1) for part in said))


@breaks("check_ties_by_position")
class LastOfEqualsFirst(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        order = np.lexsort((-said[0], -said[1]))
        return Candidates(*(np.take_along_axis(part, order, axis=1) for part in said))


@breaks("check_no_position_twice")
class Stutters(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return with_column(said, said[0][:, -1], said[1][:, -1]) if said[0].size else said


@breaks("check_any_k")
class NotThatMany(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        if k == 10_000:
            raise ValueError("k is too large")
        return said


@breaks("check_one_query_as_in_a_batch")
class LouderAlone(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return louder(said) if len(queries) == 1 else said


@breaks("check_order_of_queries")
class FirstQueryCounts(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return louder(said) if len(queries) > 1 and queries[0, 0] > queries[-1, 0] else said


@breaks("check_search_changes_nothing")
class RemembersQuestions(Answering):
    asked = False

    def spoil(self, said, queries, k, allowed, effort):
        said = louder(said) if self.asked else said
        self.asked = self.asked or k == 50
        return said


@breaks("check_threads")
class OneDesk(PlainIndex):
    """Works on one buffer."""

    def find(self, query, k, mask):
        self.desk = query
        time.sleep(0.0005)
        return super().find(self.desk, k, mask)


@breaks("check_only_what_is_allowed")
class OneForbidden(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        if allowed is None or allowed.all() or not self.alive.all() or not allowed.any():
            return said
        return with_column(said, int(np.flatnonzero(~allowed)[0]), -1e30)


@breaks("check_everything_allowed")
class FilterIsFelt(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return louder(said) if allowed is not None and allowed.all() else said


@breaks("check_complete")
class NeverMoreThan300(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        return Candidates(*(np.ascontiguousarray(part[:, :300]) for part in said))


@breaks("check_any_effort")
class NoSevens(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        if effort == 7:
            raise ValueError("effort 7")
        return said


@breaks("check_more_effort", "check_curve_holds")
class OverworkedIsBad(Answering):
    def spoil(self, said, queries, k, allowed, effort):
        if effort is None or effort < COUNT:
            return said
        return Candidates(np.broadcast_to(np.arange(k, dtype=np.int64), (len(queries), k)).copy(), said[1])


# --- Q ---


@breaks("check_exact", able={"min_recall_at_10": 0.85})
class MissesTheBest(PlainIndex):
    def find(self, query, k, mask):
        positions, scores = super().find(query, k + 1, mask)
        return (positions[1:], scores[1:]) if len(self.rows) == 1_500 else (positions[:k], scores[:k])


@breaks("check_exact_ties")
class PrefersLateOnes(PlainIndex):
    def find(self, query, k, mask):
        there = np.flatnonzero(mask)
        scores = self.scores(query, self.rows[there])
        chosen = np.lexsort((-there, -scores))[:k]
        order = chosen[np.lexsort((there[chosen], -scores[chosen]))]
        return there[order], scores[order]


@breaks("check_exact_among_the_allowed")
class MissesTheBestAllowed(PlainIndex):
    def find(self, query, k, mask):
        halved = len(mask) == COUNT and mask.sum() == COUNT // 2 and k < COUNT // 2
        positions, scores = super().find(query, k + halved, mask)
        return positions[int(halved) :], scores[int(halved) :]


def forgetful_on(name):
    """An approximate type that finds too little on one set."""

    class Forgetful(PlainIndex):
        def find(self, query, k, mask):
            positions, scores = super().find(query, k, mask)
            return (positions[1:], scores[1:]) if self.is_the_set() and k > 1 else (positions, scores)

        def is_the_set(self):
            if self.rows.shape[0] != 1_500:
                return False
            return np.array_equal(self.rows, finding._set(PlainType(), name)[0])

    return PlainType(index=Forgetful).able(exact=False, complete=False, min_recall_at_10=0.95)


for _name, _check in {
    "gaussian": "check_recall_gaussian",
    "clustered": "check_recall_clustered",
    "hubs": "check_recall_hubs",
    "low-dimensional": "check_recall_low_dimensional",
    "duplicated": "check_recall_duplicated",
    "sorted": "check_recall_sorted",
}.items():
    FAULTS.append(Fault(f"Forgetful on {_name}", forgetful_on(_name), _check, frozenset()))


@breaks("check_curve")
class CurveGoesBack(PlainIndex):
    def effort_curve(self):
        return EffortCurve(np.array([len(self.rows) + 1, 1]), np.ones(2), 30)


@breaks("check_curve", "check_curve_holds")
class CurveOfShares(PlainIndex):
    def effort_curve(self):
        return EffortCurve(np.array([1, 2]), np.array([0.5, 100.0]), 30)


@breaks("check_curve", "check_curve_holds", "check_curve_is_kept")
class TellsNothing(PlainIndex):
    def effort_curve(self):
        return None


@breaks("check_curve", "check_curve_holds", "check_curve_is_kept")
class CurveOfWords(PlainIndex):
    def effort_curve(self):
        return {"efforts": [1]}


@breaks("check_curve_holds", "check_few_vectors", able={"exact": False, "complete": False, "min_recall_at_10": 0.5})
class Boasts(PlainIndex):
    """Says that it finds everything, and finds seven of ten."""

    def find(self, query, k, mask):
        positions, scores = super().find(query, k, mask)
        return (positions[3:], scores[3:]) if k == 10 else (positions, scores)


@breaks("check_curve_is_kept")
class ForgetsItsCurve(PlainIndex):
    counted = 0

    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        index = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        index.counted = len(index.rows)
        return index

    def effort_curve(self):
        curve = super().effort_curve()
        return curve if self.counted or curve is None else EffortCurve(curve.efforts, curve.recalls, 1)


@breaks("check_problems")
class SeesGhosts(PlainIndex):
    def problems(self, view):
        return ["row 3 cannot be reached"]


@breaks("check_prepared")
class PreparesForMore(PlainIndex):
    def prepare(self, k, *, allowed, effort, view):
        return super().prepare(k + 1, allowed=allowed, effort=effort, view=view)


@breaks("check_prepared")
class PreparesWithoutTheFilter(PlainIndex):
    def prepare(self, k, *, allowed, effort, view):
        return super().prepare(k, allowed=None, effort=effort, view=view)


@breaks("check_prepared")
class PreparesOneForAll(PlainIndex):
    """Keeps the query it is asked in one place for all threads."""

    def prepare(self, k, *, allowed, effort, view):
        kept = []

        def ask(query):
            kept.append(query)
            time.sleep(0.001)
            return self.search(kept[-1], k, allowed=allowed, effort=effort, view=view)

        return ask
