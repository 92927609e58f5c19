"""The adapters by the name of the peer; one small module each."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from types import ModuleType

MODULES: dict[str, str] = {
    name: f"tools.bench.compare.peers.{module}"
    for name, module in {
        "vecdb": "own",
        "hnswlib": "hnswlib_",
        "faiss": "faiss_",
        "usearch": "usearch_",
        "rabitqlib": "rabitq_",
        "svs": "svs_",
        "scann": "scann_",
        "pynndescent": "pynndescent_",
        "qdrant-edge": "qdrant_",
        "zvec": "zvec_",
        "lancedb": "lancedb_",
        "chroma": "chroma_",
        "sqlite-vec": "sqlitevec_",
    }.items()
}
"""Peer -> module of its adapter."""


def adapter(name: str) -> ModuleType:
    """Return the adapter module of a peer."""
    return importlib.import_module(MODULES[name])


def version(module: ModuleType) -> str:
    """Return the version of an adapter's library; `ImportError` says which distribution is missing."""
    own = getattr(module, "version", None)
    if own is not None:
        return str(own())
    for name in module.DISTRIBUTIONS:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(f"{name} is not installed") from None
    return importlib.metadata.version(module.DISTRIBUTIONS[0])


def names() -> Iterator[tuple[str, str]]:
    """Yield peer and variant of everything there is."""
    for peer in MODULES:
        for variant in adapter(peer).VARIANTS:
            yield peer, variant.name
