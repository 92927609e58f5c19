"""What a transform plugin may do wrong, and the error that names it; the rest of the database goes on."""

import numpy as np
import pytest

import vecdb
from tests.unit.test_engine_transforms import Halving, HalvingFit, filled, registry
from vecdb.contracts import TransformCapabilities
from vecdb.errors import (
    CancelledError,
    CorruptionError,
    FitError,
    ParameterError,
    PluginContractError,
    PluginError,
    SpaceMismatchError,
)

PLAIN = TransformCapabilities(requires=frozenset(), widths=frozenset({"equal", "wider", "narrower"}))


class Wrong(HalvingFit):
    """A map with one thing wrong."""

    def __init__(self, dim, direction, share, fault):
        super().__init__(dim, direction, share)
        self.fault = fault

    def apply(self, vectors):
        mapped = super().apply(vectors)
        return {
            "shape": lambda: mapped[:, :-1],
            "rows": lambda: mapped[:0],
            "double": lambda: mapped.astype(np.float64),
            "list": lambda: mapped.tolist(),
            "nan": lambda: mapped * np.float32(np.nan),
            "writes": lambda: np.multiply(vectors, 2, out=vectors),
            "raises": lambda: 1 // 0,
        }.get(self.fault, lambda: mapped)()

    def state(self):
        state = {**super().state(), "fault": self.fault}
        return {
            "object": lambda: {**state, "x": object()},
            "names": lambda: {**state, 5: 1},
            "crash": lambda: 1 // 0,
            "deep": lambda: {**state, "x": [[[[[[[[[[1]]]]]]]]]]},
        }.get(self.fault, lambda: state)()


class WrongType(Halving):
    """Fits maps with one thing wrong."""

    name = "acme.wrong"
    capabilities = PLAIN

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def fit(self, data, params):
        if self.fault == "cancel":
            raise CancelledError("enough")
        if self.fault == "few":
            raise FitError("too few", pairs=1, needed=2)
        if self.fault == "boom":
            raise RuntimeError("boom")
        if self.fault == "nothing":
            return None
        made = Wrong(data.source_space.dim, data.role, 0.5, self.fault)
        if self.fault == "width":
            made.target_dim += 1
        elif self.fault == "direction":
            made.direction = "sideways"
        elif self.fault == "isometry":
            made.isometry = "perfect"
        elif self.fault == "bound":
            made.lipschitz = float("inf")
        return made

    def load(self, state):
        if self.fault == "forgets":
            raise KeyError("dim")
        if self.fault == "other":
            return Wrong(state["dim"] + 1, state["direction"], state["share"], "")
        return Wrong(state["dim"], state["direction"], state["share"], state["fault"])


def world(tmp_path, fault):
    db = vecdb.open(tmp_path / "a.vecdb", plugins=registry(WrongType(fault)), automatic=False)
    return db, *filled(db)


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("cancel", CancelledError, "enough"),
        ("few", FitError, "too few"),
        ("boom", PluginError, "RuntimeError: boom"),
        ("nothing", PluginContractError, "breaks rule transform"),
        ("width", PluginContractError, "breaks rule widths"),
        ("direction", PluginContractError, "breaks rule claims"),
        ("isometry", PluginContractError, "breaks rule claims"),
        ("bound", PluginContractError, "breaks rule lipschitz"),
        ("object", PluginContractError, "breaks rule state"),
        ("names", PluginContractError, "breaks rule state"),
        ("deep", PluginContractError, "breaks rule state"),
        ("crash", PluginError, "ZeroDivisionError"),
        ("forgets", CorruptionError, "KeyError"),
        ("other", PluginContractError, "breaks rule widths"),
        ("shape", PluginContractError, "breaks rule apply-shape"),
        ("rows", PluginContractError, "breaks rule apply-shape"),
        ("double", PluginContractError, "breaks rule apply-shape"),
        ("list", PluginContractError, "breaks rule apply-shape"),
        ("nan", PluginContractError, "breaks rule apply-finite"),
        ("raises", PluginError, "ZeroDivisionError"),
        ("writes", PluginError, "read-only"),
    ],
)
def test_a_fit_with_one_thing_wrong_stores_nothing(tmp_path, fault, error, says):
    db, docs, *_ = world(tmp_path, fault)
    with db:
        with pytest.raises(error, match=says) as caught:
            docs.fit_transform("new", "old", "acme.wrong")
        if issubclass(error, PluginError):
            assert caught.value.plugin and "acme.wrong" in str(caught.value)
        assert docs.transforms == () and db.check().ok


@pytest.mark.parametrize("fault", ["nan", "shape", "raises"])
def test_a_search_names_the_plugin_that_fails_it(tmp_path, fault):
    db, docs, _, new, _ = world(tmp_path, fault)
    with db:
        found = db.plugins.find("transform", "acme.wrong")
        from vecdb.engine.transforms import NewTransform, put_transform

        made = Wrong(12, "query", 0.5, fault)
        spaces = docs.spaces["new"], docs.spaces["old"]
        db._write(put_transform(docs._key, NewTransform(*spaces, found, made, name="bad")))
        with pytest.raises(PluginError, match=r"acme\.wrong"):
            docs.search(new[0], space="new")
        assert len(docs.search(new[0], space="new", spaces="native")) == 10
        docs.drop_transform("bad")
        assert len(docs.search(new[0], space="new")) == 10


def test_a_kind_that_cannot_be_loaded_gives_way_to_the_next_path(tmp_path):
    db, docs, _, new, _ = world(tmp_path, "")
    with db:
        docs.fit_transform("new", "old", "acme.wrong", name="a")
        docs.fit_transform("new", "old", "procrustes", name="b")
        assert "bridged:a" in {hit.origin for hit in docs.search(new[250], space="new", k=200)}
    with vecdb.open(tmp_path / "a.vecdb", plugins=registry(WrongType("forgets")), automatic=False) as db:
        docs = db.collection("docs")
        hits = docs.search(new[250], space="new", k=200, explain=True)
        assert {hit.origin for hit in hits} == {"native", "bridged:b"} and "KeyError" in hits.plan["notes"][0]
        docs.drop_transform("b")
        hits = docs.search(new[250], space="new", k=300)
        assert len(hits) == 200 and "100 records of space 'old'" in hits.reason
        with pytest.raises(SpaceMismatchError, match="KeyError"):
            docs.search(new[250], space="new", spaces="all")


def test_kinds_are_held_to_what_they_declare(tmp_path):
    strict = Halving()
    strict.capabilities = TransformCapabilities(
        requires=frozenset({"pairs", "validation", "queries"}), min_pairs=50, directions=frozenset({"query"})
    )
    with vecdb.open(tmp_path / "a.vecdb", plugins=registry(strict), automatic=False) as db:
        docs, old, new, ids = filled(db)
        with pytest.raises(ParameterError, match="stored vectors"):
            docs.fit_transform("old", "new", "acme.half", direction="gallery")
        with pytest.raises(FitError, match="queries"):
            docs.fit_transform("new", "old", "acme.half")
        with pytest.raises(FitError, match="50 pairs"):
            docs.fit_transform("new", "old", "acme.half", pairs=ids[:48], queries=new[:5])
        with pytest.raises(FitError, match="validation"):
            docs.fit_transform("new", "old", "acme.half", pairs=ids[:30], queries=new[:5])
        assert docs.fit_transform("new", "old", "acme.half", queries=new[:5]).pairs == 150
        with pytest.raises(vecdb.DimensionError, match="queries in"):
            docs.fit_transform("new", "old", "acme.half", queries=new[:5, :3])
        docs.add_space("narrow", dim=3)
        with pytest.raises(ParameterError, match="columns"):
            docs.fit_transform("new", "narrow", "acme.half", pairs=(new, old[:, :3]), queries=new[:5])


def test_progress_and_cancel_reach_the_fit(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as db:
        docs, *_ = filled(db)
        told = []
        docs.fit_transform("new", "old", "mlp", progress=lambda done, total: told.append((done, total)))
        assert told
        with pytest.raises(CancelledError):
            docs.fit_transform("new", "old", "ridge", cancel=lambda: True)
        assert len(docs.transforms) == 1
