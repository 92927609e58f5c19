"""Joint spaces on features of pictures: cross-test and self-test of two models, in the manner of the papers.

A folder with ``NAME.STYLE.i8.npy`` for two models and two drawing styles, row by row the same picture, and
``meta.jsonl.gz`` with a ``subcategory``. A drawing of one style asks for the drawing of the same picture in the other
one; half of the pictures, drawn by their number, are fitted on in both styles, the others are asked. Both models are
brought to their leading principal columns first.

Usage: python -m tools.evaluate.pictures FOLDER [--columns 256] [--out FILE] [--write-docs PAGE]
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.evaluate.corpus import F32
from tools.evaluate.report import write_page
from vecdb import PluginRegistry
from vecdb.contracts import FitData, Pairs, settle_params
from vecdb.evaluation import Judged, measure, ranks_of, split
from vecdb.types import Metric, Space

__all__ = ["main"]

I64 = npt.NDArray[np.int64]
_ARMS: list[tuple[str, str, dict[str, Any]]] = [
    ("Procrustes", "procrustes", {"center": False}),
    ("Procrustes, centred", "procrustes", {}),
    ("distill", "distill", {}),
    ("oca, a = 0", "oca", {"columns": 0}),
    ("oca, a = 32", "oca", {"columns": 32}),
    ("oca, a = 128", "oca", {"columns": 128}),
    ("bt2, learned, a = 0", "bt2", {"fit": "learned", "columns": 0}),
    ("bt2, learned, a = 32", "bt2", {"fit": "learned", "columns": 32}),
    ("bt2, learned, a = 128", "bt2", {"fit": "learned", "columns": 128}),
    ("bt2, dilation", "bt2", {}),
    ("bt2, dilation of distill", "bt2", {"contraction": "distill"}),
]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Two styles of the same pictures as one model sees them."""

    asked: F32
    stored: F32


def read_pictures(folder: Path, columns: int, fit: I64) -> dict[str, Pictures]:
    """Return each model's two styles at unit length, in the leading columns of the pictures that are fitted on."""
    names = sorted({path.name.split(".")[0] for path in folder.glob("*.i8.npy")})
    found = {}
    for name in names:
        styles = [_unit(np.load(path).astype(np.float32)) for path in sorted(folder.glob(f"{name}.*.i8.npy"))]
        rows = np.concatenate([style[fit] for style in styles]).astype(np.float64)
        axes = np.linalg.svd(rows, full_matrices=False)[2][:columns].T.astype(np.float32)
        stored, asked = (_unit(style @ axes) for style in styles)
        found[name] = Pictures(asked, stored)
    return found


def _unit(rows: F32) -> F32:
    unit: F32 = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return unit


def top(asked: F32, stored: F32, metric: Metric = "cosine", bias: F32 | None = None) -> dict[str, float]:
    """Return how often the same picture is first, and its mean reciprocal rank."""
    judged = Judged.of(list(range(len(asked))))
    ranks = ranks_of(asked, stored, judged, metric, bias=bias)
    return {
        "top-1": float((ranks == 1).mean()),
        "top-5": float((ranks <= 5).mean()),
        "MRR": float(measure(ranks, judged).mrr.mean()),
    }


def fit_of(old: Pictures, new: Pictures, fit: I64, kept: I64, labels: I64) -> FitData:
    """Return both styles of the pictures as pairs, for queries of the new model."""

    def both(model: Pictures, rows: I64) -> F32:
        return _lent(np.concatenate([model.asked[rows], model.stored[rows]]))

    classes = np.concatenate([labels[fit], labels[fit]])
    classes.flags.writeable = False
    return FitData(
        Space("new", new.asked.shape[1], id=1),
        Space("old", old.asked.shape[1], id=2),
        both(new, fit),
        both(old, fit),
        "query",
        np.random.default_rng(0),
        labels=classes,
        validation=Pairs(both(new, kept), both(old, kept)),
    )


def _lent(rows: F32) -> F32:
    rows.flags.writeable = False
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.evaluate.pictures", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--columns", type=int, default=256, help="principal columns of each model")
    parser.add_argument("--out", type=Path, help="file for the numbers")
    parser.add_argument("--write-docs", type=Path, metavar="PAGE", help="put the tables into a page")
    options = parser.parse_args(arguments)
    with gzip.open(options.folder / "meta.jsonl.gz", "rt", encoding="utf-8") as file:
        names = [json.loads(line)["subcategory"] for line in file]
    labels = np.unique(names, return_inverse=True)[1].astype(np.int64)
    parts = split(np.arange(len(labels)), {"fit": 0.4, "kept": 0.1, "test": 0.5})
    models = read_pictures(options.folder, options.columns, parts["fit"])
    found = {f"{old} to {new}": _table(models[old], models[new], parts, labels) for old, new in permutations(models, 2)}
    made = "\n\n".join(_markdown(title, rows, parts) for title, rows in found.items())
    print(made)
    if options.write_docs is not None:
        write_page(options.write_docs, "pictures", made)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _table(old: Pictures, new: Pictures, parts: dict[str, I64], labels: I64) -> list[dict[str, Any]]:
    """Return a row of measures for the models alone and for each arm."""
    test, registry = parts["test"], PluginRegistry(entry_points=False)
    before, after = top(old.asked[test], old.stored[test]), top(new.asked[test], new.stored[test])
    rows = [{"arm": "old with old", "cross": before, "self": None, "extra": 0, "seconds": 0.0}]
    cross = top(new.asked[test], old.stored[test]) if new.asked.shape == old.asked.shape else None
    rows.append({"arm": "new, independent", "cross": cross, "self": after, "extra": 0, "seconds": 0.0})
    data = fit_of(old, new, parts["fit"], parts["kept"], labels)
    for name, kind, params in _ARMS:
        thing = registry.find("transform", kind).thing
        start = time.perf_counter()
        made = thing.fit(data, settle_params(kind, thing.parameters, params))
        seconds, other, mapped = time.perf_counter() - start, made.companion(), made.apply(new.asked[test])
        if other is None:
            rows.append(
                {"arm": name, "cross": top(mapped, old.stored[test]), "self": None, "extra": 0, "seconds": seconds}
            )
            continue
        bias = made.affine().row_bias(old.stored[test])
        joint = top(mapped, other.apply(old.stored[test]), "dot", bias)
        own = top(mapped, made.apply(new.stored[test]), "dot")
        far = float(np.abs(made.E.astype(np.float64) @ made.E.T.astype(np.float64) - np.eye(len(made.E))).max())
        extra = made.target_dim - old.stored.shape[1]
        rows.append({"arm": name, "cross": joint, "self": own, "extra": extra, "off": far, "seconds": seconds})
    return rows


def _markdown(title: str, rows: list[dict[str, Any]], parts: dict[str, I64]) -> str:
    head = (
        "arm",
        "extra columns",
        "cross, top 1",
        "cross, top 5",
        "cross, MRR",
        "self, top 1",
        "off orthonormal",
        "fit, s",
    )
    lines = [head, ("---",) * len(head)]
    for row in rows:
        crossed = ["" if row["cross"] is None else f"{row['cross'][name]:.3f}" for name in ("top-1", "top-5", "MRR")]
        own = "" if row["self"] is None else f"{row['self']['top-1']:.3f}"
        off = f"{row['off']:.0e}" if "off" in row else ""
        lines.append((row["arm"], str(row["extra"]), *crossed, own, off, f"{row['seconds']:.1f}"))
    sizes = f"{len(parts['fit']):,} pictures fitted on, {len(parts['kept']):,} kept back, {len(parts['test']):,} asked."
    return f"#### {title}\n\n{sizes}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
