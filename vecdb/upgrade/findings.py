"""What a trial measured: numbers with their intervals, in plain values that can be stored and drawn.

Nothing here computes; `trial` fills it in, `decide` reads it, `report` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vecdb.evaluation import Estimate
from vecdb.upgrade.parts import Arm

__all__ = ["ArmFound", "Findings", "Mixing", "Native", "Nested", "Shift", "Stage", "Worth"]


@dataclass(frozen=True, slots=True)
class Worth:
    """What one way of answering is worth over a gallery.

    Attributes
    ----------
    mrr, recall, ndcg : Estimate
        Known-item reciprocal rank, recall@10, nDCG@10; the interval is that of new queries.
    candidates : tuple of three floats
        Recall at 50, 100 and 200.
    """

    mrr: Estimate
    recall: Estimate
    ndcg: Estimate
    candidates: tuple[float, ...]

    def of(self, metric: str) -> Estimate:
        """Return one of them by the name that a plan compares by."""
        return {"mrr": self.mrr, "recall@10": self.recall, "ndcg@10": self.ndcg}[metric]


@dataclass(frozen=True, slots=True)
class ArmFound:
    """A map that was tried.

    Attributes
    ----------
    arm : Arm
    splits : int
        On how many splits of the pairs it was fitted.
    plain, corrected : Worth
        Over the whole collection, without and with the correction of hubs.
    advantage : Estimate or None
        The better of both by the better way of staying; None where staying was not measured.
    """

    arm: Arm
    splits: int
    plain: Worth
    corrected: Worth
    advantage: Estimate | None


@dataclass(frozen=True, slots=True)
class Nested:
    """The same comparison over a smaller gallery."""

    size: int
    retention: float
    gain: float | None
    advantage: float | None


@dataclass(frozen=True, slots=True)
class Native:
    """What was measured on the rows whose new vectors are known.

    Attributes
    ----------
    size, queries : int
        Rows, and queries with an answer among them.
    staying, bridged, reembedded : Worth
        Each the better of plain and corrected.
    retention : Estimate
        Bridged by re-embedded.
    gain : Estimate or None
        Re-embedded by staying.
    nested : tuple of Nested
        A quarter, half and all of the gallery.
    at_full_size : tuple of float
        Retention and gain carried on to the size of the collection, along the logarithm of the size.
    neighbours : float or None
        Share of the new model's ten nearest of these rows that are among the bridge's ten.
    """

    size: int
    queries: int
    staying: Worth | None
    bridged: Worth
    reembedded: Worth
    retention: Estimate
    gain: Estimate | None
    nested: tuple[Nested, ...]
    at_full_size: tuple[float | None, float | None]
    neighbours: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Candidates from one ranking, order from the new model.

    Attributes
    ----------
    by : {"bridge", "old"}
        Where the candidates come from: the bridge, or the old model asked beside the new one.
    depth : int
        How many candidates.
    worth : Estimate
    advantage : Estimate or None
        By staying, on the same rows.
    """

    by: str
    depth: int
    worth: Estimate
    advantage: Estimate | None


@dataclass(frozen=True, slots=True)
class Shift:
    """Scores of bridged rows beside those of native ones, before and after calibration.

    Attributes
    ----------
    before, after : float
        Largest distance between the two distribution functions (Kolmogorov-Smirnov), 0 to 1.
    edges : tuple of float
        Of the bins below.
    native, raw, calibrated : tuple of float
        Share of the scores in each bin.
    """

    before: float
    after: float
    edges: tuple[float, ...]
    native: tuple[float, ...]
    raw: tuple[float, ...]
    calibrated: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Mixing:
    """What one list is worth while rows are embedded again.

    Attributes
    ----------
    chosen : str
        The calibration that searches are to use.
    shares : tuple of float
        Of native rows.
    curves : tuple of (str, tuple of float)
        What each calibration is worth at these shares.
    """

    chosen: str
    shares: tuple[float, ...]
    curves: tuple[tuple[str, tuple[float, ...]], ...]

    @property
    def curve(self) -> tuple[tuple[float, float], ...]:
        """Share and worth, by the chosen calibration."""
        return tuple(zip(self.shares, dict(self.curves)[self.chosen], strict=True))


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a verdict rests on.

    Attributes
    ----------
    mode : {"answers", "queries", "documents"}
        Judged by known answers of real queries; by the new model's own neighbours of real queries; of documents.
    metric : {"mrr", "recall@10", "ndcg@10"}
        What the ratios are of.
    rows, pairs, queries, splits, fitted : int
        Old vectors; records known in both; queries judged; splits of the pairs; pairs each map was fitted on.
    staying, staying_corrected : Worth or None
    correction : Estimate or None
        Staying corrected by staying.
    arms : tuple of ArmFound
        Best first.
    advantage : Estimate or None
        Of the kind that each half of the queries chose for the other.
    native : Native or None
    stages : tuple of Stage
    learning : tuple of (int, float)
        Pairs, and what the chosen map is worth with so many.
    shift : Shift or None
    mixing : Mixing or None
    notes : tuple of str
    """

    mode: str
    metric: str
    rows: int
    pairs: int
    queries: int
    splits: int
    fitted: int
    staying: Worth | None
    staying_corrected: Worth | None
    correction: Estimate | None
    arms: tuple[ArmFound, ...]
    advantage: Estimate | None
    native: Native | None
    stages: tuple[Stage, ...] = ()
    learning: tuple[tuple[int, float], ...] = ()
    shift: Shift | None = None
    mixing: Mixing | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> ArmFound:
        """The kind that was chosen."""
        return self.arms[0]
