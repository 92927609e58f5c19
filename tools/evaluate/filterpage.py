"""Measurements of relevance filters as tables of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["markdown"]

_WORTH = ("pr_auc", "precision_at_95", "opis")
_SURE = ("ece_top1", "ece_top10", "brier_skill_top1", "brier_skill_top10")
_KEPT = ("recall", "precision", "kept")
_HEADS = {
    "pr_auc": "PR-AUC",
    "precision_at_95": "precision at 95 % recall",
    "opis": "OPIS",
    "ece_top1": "ECE, top 1",
    "ece_top10": "ECE, top 10",
    "brier_skill_top1": "Brier skill, top 1",
    "brier_skill_top10": "Brier skill, top 10",
    "recall": "recall",
    "precision": "precision",
    "kept": "kept",
}


def markdown(document: Mapping[str, Any]) -> str:
    """Return everything that was measured for a page."""
    parts = []
    for corpus, run in document["runs"].items():
        parts.append(f"### {corpus}")
        for found in run["models"].values():
            parts += list(_model(found))
        if run.get("foreign"):
            parts += ["#### Queries of another domain", _foreign(run["foreign"])]
    return "\n\n".join(parts)


def _model(found: Mapping[str, Any]) -> Sequence[str]:
    none = f", {found['nothing']:,} have no answer" if found["nothing"] else ""
    words = (
        f"#### {found['model']}\n\n{found['documents']:,} documents; {found['fit']:,} queries fitted on, "
        f"{found['test']:,} judged{none}. {found['positives']:,} answers are among the candidates, "
        f"{found['missed']:,} are not."
    )
    judged = found["arms"]
    cover = found["coverage"]
    recalls = [each["recall"] for each in cover["splits"]]
    promised = (
        f"`conformal`, alpha = {cover['alpha']}, over {len(recalls)} random halves of the answered queries: recall of "
        f"what is among the candidates {cover['mean']:.3f} on average, {min(recalls):.3f} to {max(recalls):.3f}; "
        f"{cover['inside']} of {len(recalls)} are inside their beta-binomial 95 % band "
        f"([{cover['splits'][0]['low']:.3f}, {cover['splits'][0]['high']:.3f}] for the first)."
    )
    return [words, _worth(judged), _gains(judged), _calibration(judged), _drops(judged), promised]


def _worth(arms: Sequence[Mapping[str, Any]]) -> str:
    rows = [[each["name"], *(_of(each["measured"][name]) for name in _WORTH)] for each in arms]
    return _table(["filter", *(_HEADS[name] for name in _WORTH)], rows)


def _gains(arms: Sequence[Mapping[str, Any]]) -> str:
    """Return differences to raw scores and to the calibration that is the same for all queries."""
    rows = []
    for each in arms:
        if each["name"].startswith(("cosine-adapter", "background", "topk-gap")):
            for base, gained in each["against"].items():
                rows.append([each["name"], base, *(_of(gained[name], signed=True) for name in _WORTH)])
    return _table(["filter", "minus", *(_HEADS[name] for name in _WORTH)], rows)


def _calibration(arms: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [each["name"], *(_of(each["measured"][name]) for name in _SURE)] for each in arms if each["name"] != "raw score"
    ]
    return _table(["filter", *(_HEADS[name] for name in _SURE)], rows)


def _drops(arms: Sequence[Mapping[str, Any]]) -> str:
    words = ("nothing_when_there_is_none", "nothing_though_there_is")
    rows = []
    for each in arms:
        if "recall" in each["measured"]:
            shares = [f"{each[word]:.3f}" if word in each else "" for word in words]
            rows.append([each["name"], *(_of(each["measured"][name]) for name in _KEPT), *shares])
    return _table(["filter", *_KEPT, "no hit, no answer exists", "no hit, one exists"], rows)


def _foreign(found: Mapping[str, Any]) -> str:
    rows = [
        [home, away, model, each["name"], _of(each["accepted"]), _of(each["rejected"])]
        for key, each in ((key, each) for key, rows in found.items() for each in rows)
        for home, away, model in [key.split(":")]
    ]
    return _table(["collection", "asked by", "model", "filter", "own queries accepted", "foreign ones rejected"], rows)


def _of(estimate: Mapping[str, float], *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value, low, high = (f"{estimate[name]:{sign}.3f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
