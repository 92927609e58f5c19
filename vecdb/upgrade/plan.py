"""`UpgradePlan`: the report of a trial, and the one step that stores what it found.

Invariant: a plan changes nothing until `apply`; what `apply` stores was fitted anew on all pairs but the answers and
those that choose and calibrate, in both directions, each a fit of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from vecdb.contracts.transform import Role
from vecdb.engine import given, names
from vecdb.engine import transforms as stored
from vecdb.errors import ArgumentError, ParameterError
from vecdb.registry import PluginRegistry, Provided
from vecdb.types import CancelCheck, Progress, Space, TransformInfo
from vecdb.upgrade.correct import store_corrections
from vecdb.upgrade.decide import decide
from vecdb.upgrade.findings import ArmFound, Findings
from vecdb.upgrade.ledger import MEASURES
from vecdb.upgrade.material import Material, gather
from vecdb.upgrade.parts import REFERENCE, Arm, Part, fit_arm, holding_answers, spaces_of
from vecdb.upgrade.report import UpgradeReport
from vecdb.upgrade.trial import Options, Outcome, run
from vecdb.verdicts import CorrectionInfo, QuerySet

if TYPE_CHECKING:
    from vecdb.collection import Collection

__all__ = ["DEFAULT_KINDS", "UpgradePlan", "plan_upgrade"]

DEFAULT_KINDS = ("identity", "truncate", "procrustes", "ridge", "distill")
"""For a continued and for a cut model, which cost nothing to try; a rotation for few pairs, a regression for many, and
the map that is fitted to the ranking itself."""
_METRICS = ("auto", *MEASURES[:3])
_GRADED = 1.5
"""Answers for each query from which the order of several matters."""


class UpgradePlan:
    """What `Collection.plan_upgrade` returns: read `report`, then, if it convinces, call `apply`.

    Attributes
    ----------
    report : UpgradeReport
    corrections : tuple of CorrectionInfo
        What `apply` stored to correct hubs by: ``search(..., correction=info.name)``.
    """

    def __init__(
        self, collection: Collection, material: Material, outcome: Outcome, options: Options, asked: Sequence[QuerySet]
    ) -> None:
        self.corrections: tuple[CorrectionInfo, ...] = ()
        self._asked = tuple(asked)
        self._collection = collection
        self._material = material
        self._outcome = outcome
        self._options = options
        self.report = UpgradeReport(
            collection.name,
            material.source,
            material.target,
            outcome.findings,
            decide(outcome.findings),
        )

    def __repr__(self) -> str:
        report = self.report
        return f"<UpgradePlan {report.source.name!r} to {report.target.name!r}: {report.decision}>"

    @property
    def decision(self) -> str:
        """The decision of the report."""
        return self.report.decision

    def apply(
        self, *, maps: bool = True, progress: Progress | None = None, cancel: CancelCheck | None = None
    ) -> tuple[TransformInfo, ...]:
        """Fit the best map of queries and the best map of stored vectors on all pairs, and store them.

        Queries of the new space are answered over the old vectors from then on. It does so whatever the decision was.
        Where correcting hubs was better than not, for staying or for the best map, the correction is stored, too, with
        the bank of the plan (without one, with its queries): `corrections` then says by which names it is asked for.

        Parameters
        ----------
        maps : bool, default True
            False stores the correction for staying alone.
        progress, cancel : callable, optional

        Returns
        -------
        tuple of TransformInfo
            The map of the chosen kind first.

        Raises
        ------
        StateError
            A space was dropped meanwhile.
        CancelledError, PluginError, ReadOnlyError
        """
        self._collection._database._writable()
        report, stop = given.watched(progress, cancel)
        chosen = _one_for_each_role(self._outcome.findings) if maps else []
        infos = []
        for number, found in enumerate(chosen):
            report(number, len(chosen))
            infos.append(self._collection._put_transform(self._fitted(found, stop)))
        findings = self._outcome.findings
        self.corrections = store_corrections(self._collection, self._material, findings, self._asked, bridge=maps)
        report(len(chosen), len(chosen))
        return tuple(infos)

    def _fitted(self, found: ArmFound, cancel: CancelCheck) -> stored.NewTransform:
        material, part = self._material, _all_but_kept(self._material, self._outcome.parts[0])
        provided, params = self._options.arms[found.arm]
        transform = fit_arm(material, part, found.arm, provided, params, cancel)
        source, target = spaces_of(material, found.arm.role)
        sides = (material.X, material.Y) if found.arm.role == "gallery" else (material.Y, material.X)
        kept = part.reference[:REFERENCE]
        return stored.NewTransform(
            source,
            target,
            provided,
            transform,
            params,
            part.seed,
            reference=(sides[0][kept], sides[1][kept]),
            quality=self._quality(found),
            provenance={
                "pairs": "of a plan",
                "decision": self.report.decision,
                "groups": int(material.groups.max()) + 1,
            },
            pairs=[material.ids[row] for row in part.fit.tolist()] if material.ids else [],
            count=len(part.fit),
        )

    def _quality(self, found: ArmFound) -> dict[str, Any]:
        """Return what was measured of a map; of the one that was not chosen retention is in proportion."""
        findings = self._outcome.findings
        quality: dict[str, Any] = {"mrr": found.plain.mrr.value, "recall@10": found.plain.recall.value}
        if found.advantage is not None and np.isfinite(found.advantage.value):
            quality["advantage"] = found.advantage.value
        if findings.mixing is not None and found is findings.best:
            quality["calibration"] = findings.mixing.chosen
        if findings.native is not None:
            share = found.plain.mrr.value / max(findings.best.plain.mrr.value, 1e-9)
            quality["retention"] = float(np.clip(findings.native.retention.value * share, 1e-6, 1.0))
        return quality


def _one_for_each_role(findings: Findings) -> list[ArmFound]:
    """Return the best arm of each role that was tried, the chosen one first."""
    found: dict[str, ArmFound] = {}
    for each in findings.arms:
        found.setdefault(each.arm.role, each)
    return list(found.values())


def _all_but_kept(material: Material, part: Part) -> Part:
    """Return a split that also fits on what judged, but for the answers: what was measured stays true of them."""
    held = holding_answers(material)
    more = part.test if held is None else part.test[~held[part.test]]
    return Part(np.concatenate([part.fit, more]), part.validation, part.reference, part.test[:0], part.seed)


# --- planning ---------------------------------------------------------------------------------------------


def plan_upgrade(
    collection: Collection,
    spaces: tuple[Space, Space],
    *,
    pairs: Any,
    queries: QuerySet | None,
    bank: QuerySet | None,
    groups: Sequence[Hashable] | None,
    kinds: Sequence[str] | Mapping[str, Mapping[str, Any]] | None,
    directions: Sequence[str],
    splits: int,
    metric: str,
    expected: int | None,
    seed: int,
    progress: Progress | None,
    cancel: CancelCheck | None,
) -> UpgradePlan:
    """Return a plan; arguments as in `Collection.plan_upgrade`, all of them."""
    _refuse_same(*spaces)
    splits, seed = names.check_count("splits", splits, 2), names.check_count("seed", seed, 0)
    _refuse_metric(metric)
    arms = _arms(collection._database._registry, kinds, directions, spaces)
    material = gather(collection, spaces, pairs, queries, bank, groups)
    _, stop = given.watched(progress, cancel)
    options = Options(arms, splits, seed, _metric_for(metric, material), expected, progress, stop)
    asked = [each for each in (bank, queries) if each is not None]
    return UpgradePlan(collection, material, run(material, options), options, asked)


def _refuse_same(source: Space, target: Space) -> None:
    if source.id == target.id:
        raise ArgumentError(
            f"an upgrade leads from one space to another, both are {source.name!r}",
            hint="Add a space for the new model: add_space(name, dim=..., model=...).",
        )


def _refuse_metric(metric: str) -> None:
    if metric not in _METRICS:
        raise ParameterError(
            f"metric is {metric!r}, expected one of {list(_METRICS)}", name="metric", got=metric, allowed=list(_METRICS)
        )


def _metric_for(metric: str, material: Material) -> str:
    """Return what to compare by: where queries have several answers, or graded ones, their order counts."""
    judged = None if material.questions is None else material.questions.judged
    if metric != "auto":
        return metric
    if judged is None or not judged.count:
        return "mrr"
    several = judged.count > _GRADED * int(judged.answered.sum())
    return "ndcg@10" if several or len(np.unique(judged.grades)) > 1 else "mrr"


def _arms(
    registry: PluginRegistry,
    kinds: Sequence[str] | Mapping[str, Mapping[str, Any]] | None,
    directions: Sequence[str],
    spaces: tuple[Space, Space],
) -> dict[Arm, tuple[Provided, Mapping[str, Any]]]:
    """Return what to try; of the default kinds those that suit the widths, of named ones all or an error."""
    roles: list[Role] = [role for role in get_args(Role) if role in directions]
    if not roles or len(roles) != len(set(directions)):
        raise ParameterError(
            f"directions are {directions!r}, expected some of {list(get_args(Role))}",
            name="directions",
            got=directions,
            allowed=list(get_args(Role)),
        )
    named: Mapping[str, Mapping[str, Any]] = {kind: {} for kind in _known(registry, kinds)}
    if isinstance(kinds, Mapping):
        named = {str(kind): dict(params) for kind, params in kinds.items()}
    arms: dict[Arm, tuple[Provided, Mapping[str, Any]]] = {}
    for kind, params in named.items():
        provided = registry.find("transform", kind)
        problem = _unsuited(provided)
        if problem and kinds is not None:
            raise ParameterError(f"transform {kind!r} {problem}", name="kinds", got=kind, allowed=list(DEFAULT_KINDS))
        suited = [role for role in roles if not problem and _suits(provided, role, spaces)]
        arms |= {Arm(kind, role): (provided, params) for role in suited}
    if not arms:
        raise ParameterError(
            f"no kind of {list(named)} maps {' or '.join(directions)} between these spaces",
            name="kinds",
            got=list(named),
            allowed=registry.names("transform"),
        )
    return arms


def _known(registry: PluginRegistry, kinds: Sequence[str] | Mapping[str, Any] | None) -> list[str]:
    if kinds is None:
        return [kind for kind in DEFAULT_KINDS if kind in registry.names("transform")]
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _suits(provided: Provided, role: Role, spaces: tuple[Space, Space]) -> bool:
    """Return whether a kind maps for a role between these widths; what is the same for both is tried for queries."""
    able, (source, target) = provided.thing.capabilities, spaces
    if role == "query":
        source, target = target, source
    width = "equal" if source.dim == target.dim else "wider" if target.dim > source.dim else "narrower"
    same = able.isometry == "exact" and role == "gallery"
    return role in able.directions and width in able.widths and not same


def _unsuited(provided: Provided) -> str:
    able = provided.thing.capabilities
    if able.joint:
        return "maps into a space of its own, which a plan does not compare"
    if not able.row_wise:
        return "maps whole collections only"
    return "needs labels" if "labels" in able.requires else ""
