"""Transforms carried from one database to another, alone or in an export: whole, checked, never executed."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from tests.unit.test_bridge_answers import World, same
from vecdb.engine.transformfiles import MAGIC
from vecdb.errors import (
    CorruptionError,
    ExistsError,
    ParameterError,
    ReadOnlyError,
    SourceError,
    SpaceMismatchError,
    SpaceMissingError,
    UnknownNameError,
    VecdbError,
)
from vecdb.interchange import export_data, import_data
from vecdb.storage.states import pack_state, unpack_state


@pytest.fixture
def db(tmp_path):
    with vecdb.open(tmp_path / "a.vecdb", automatic=False) as opened:
        yield opened


@pytest.fixture
def world(db):
    made = World(db, n=200, new=40)
    made.fit(count=150)
    return made


def another(db, name="copy", *, spaces=("old", "new"), dim=16, **identity):
    docs = db.create_collection(name)
    for space in spaces:
        docs.add_space(space, dim=dim, **identity)
    return docs


def sealed(content):
    body = pack_state(content)
    return MAGIC + hashlib.sha256(body).digest() + body


def opened(data):
    return unpack_state(data[len(MAGIC) + 32 :], "test")


def facts(info):
    return {name: getattr(info, name) for name in info.__dataclass_fields__ if name != "bytes"}


# --- whole ---


@pytest.mark.parametrize("kind", ["ridge", "procrustes", "lowrank", "mlp", "distill", "bt2"])
def test_a_transform_comes_back_as_it_was(db, kind):
    world = World(db, n=200, new=40)
    wish = {"queries": world.queries} if kind == "distill" else {}
    info = world.fit(kind, count=150, **wish)
    copy = another(db)
    copy.upsert(world.ids, {"old": world.old})
    copy.set_vectors("new", world.ids[:40], world.new[:40])
    data = world.docs.dump_transform("up")
    assert data == world.docs.dump_transform("up") and data.startswith(MAGIC)
    back = copy.load_transform(data)
    assert facts(back) == facts(info)
    same(copy.search(world.queries, space="new"), world.docs.search(world.queries, space="new"))
    assert copy.dump_transform("up") == data
    assert db.check().ok


def test_ids_and_reference_rows_come_along(db, world):
    by_id = world.docs.fit_transform("new", "old", "ridge", pairs=world.ids[:40], name="ids")
    copy = another(db)
    back = copy.load_transform(world.docs.dump_transform("ids"))
    assert (back.pairs, back.reference) == (by_id.pairs, by_id.reference)
    from vecdb.storage.transforms import read_pairs, read_reference

    def stored(docs):
        with docs._view() as view:
            entry = next(each for each in view.entry.transforms if each.name == "ids")
            return read_pairs(view.tx, entry), read_reference(view.tx, entry, 16, 16)

    (one, rows), (other, again) = stored(world.docs), stored(copy)
    assert one == other and len(one) > 0
    assert rows is None or all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))


def test_loading_again_changes_nothing_and_another_is_refused(db, world):
    copy, data = another(db), world.docs.dump_transform("up")
    copy.load_transform(data)
    commits = [each.name for each in copy.transforms]
    copy.load_transform(data)
    assert [each.name for each in copy.transforms] == commits == ["up"]
    copy.load_transform(data, name="second")
    assert [each.name for each in copy.transforms] == ["up", "second"]
    world.docs.fit_transform("new", "old", "procrustes", pairs=(world.new, world.old), name="other")
    with pytest.raises(ExistsError):
        copy.load_transform(world.docs.dump_transform("other"), name="up")


def test_a_kind_that_is_not_installed_is_carried_all_the_same(tmp_path, world):
    data = world.docs.dump_transform("up")
    content = {**opened(data), "kind": "acme.nowhere"}
    with vecdb.open(tmp_path / "b.vecdb", automatic=False) as db:
        copy = another(db)
        info = copy.load_transform(sealed(content))
        assert not info.available and "acme.nowhere" in info.reason
        assert opened(copy.dump_transform("up")).keys() == content.keys()
        later = copy.load_transform(sealed({**content, "kind": "ridge", "version": 999}), name="later")
        assert not later.available and db.check().ok


# --- refused ---


def test_spaces_must_be_there_and_of_the_same_model(db, world):
    data = world.docs.dump_transform("up")
    with pytest.raises(SpaceMissingError):
        another(db, "a", spaces=("old",)).load_transform(data)
    with pytest.raises(SpaceMismatchError, match="dim"):
        another(db, "b", dim=8).load_transform(data)
    with pytest.raises(SpaceMismatchError, match="metric"):
        another(db, "c", metric="l2").load_transform(data)
    with pytest.raises(SpaceMismatchError, match="model"):
        another(db, "d", model="else").load_transform(data)
    with pytest.raises(UnknownNameError):
        world.docs.dump_transform("nothing")
    with pytest.raises(ParameterError):
        world.docs.load_transform("up")
    with pytest.raises(ParameterError):
        world.docs.load_transform(data, name="")


def test_no_byte_may_differ(db, world):
    whole, copy = world.docs.dump_transform("up"), another(db)

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    def damage(place, by):
        damaged = bytearray(whole)
        damaged[place] ^= by
        for bad in (bytes(damaged), whole[:place], whole + b"x"):
            with pytest.raises(CorruptionError):
                copy.load_transform(bad)

    damage()
    assert copy.transforms == ()


WRONG = [
    {"state": b"x"},
    {"state": None},
    {"state": pack_state({"other": 1})},
    {"digest": "0" * 64},
    {"direction": "sideways"},
    {"name": ""},
    {"name": 3},
    {"version": -1},
    {"reference": 1 << 40},
    {"rows": None},
    {"rows": [np.zeros((3, 16), np.float32)] * 2},
    {"rows": "rows"},
    {"ids": [b"\xff"]},
    {"ids": [1]},
    {"ids": None},
    {"source": None},
    {"source": {"name": "old"}},
    {"params": []},
    {"created": "now"},
    {"affine": 1},
    {"lipschitz": "far"},
]


@pytest.mark.parametrize(
    "wrong", WRONG, ids=lambda wrong: f"{next(iter(wrong))}={str(next(iter(wrong.values())))[:12]!r}"
)
def test_bytes_with_a_right_checksum_and_wrong_contents_are_refused(db, world, wrong):
    content = {**opened(world.docs.dump_transform("up")), **wrong}
    copy = another(db)
    with pytest.raises(VecdbError) as caught:
        copy.load_transform(sealed(content))
    assert isinstance(caught.value, (CorruptionError, SpaceMismatchError)) and copy.transforms == ()


def test_a_state_that_its_kind_does_not_load_is_refused(db, world):
    from vecdb.contracts.state import state_digest

    content = opened(world.docs.dump_transform("up"))
    state = unpack_state(content["state"], "test")
    state.pop(next(iter(state)))
    content |= {"state": pack_state(state), "digest": state_digest(state)}
    with pytest.raises(VecdbError):
        another(db).load_transform(sealed(content))


def test_a_reader_stores_nothing(tmp_path, db, world):
    data = world.docs.dump_transform("up")
    db.backup(tmp_path / "b.vecdb")
    with vecdb.open(tmp_path / "b.vecdb", mode="r") as copy, pytest.raises(ReadOnlyError):
        copy.collection("docs").load_transform(data, name="again")


# --- in an export ---


def test_an_export_brings_transforms_back(tmp_path, db, world):
    export_data(world.docs, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["transforms"] == [{"name": "up", "file": "transform-1.bin"}]
    assert manifest["files"]["transform-1.bin"]["sha256"]
    with vecdb.open(tmp_path / "b.vecdb", automatic=False) as other:
        docs = other.create_collection("back")
        import_data(docs, tmp_path / "out")
        assert facts(docs.transforms[0]) == facts(world.docs.transforms[0])
        same(docs.search(world.queries, space="new"), world.docs.search(world.queries, space="new"))
        export_data(docs, tmp_path / "again")
        for name in ("transform-1.bin", "old.npy"):
            assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
        import_data(docs, tmp_path / "out")  # again
        assert len(docs.transforms) == 1


def test_only_transforms_between_exported_spaces_are_written(tmp_path, world):
    export_data(world.docs, tmp_path / "some", spaces=["old"])
    assert "transforms" not in json.loads((tmp_path / "some" / "manifest.json").read_text())
    world.docs.drop_transform("up")
    export_data(world.docs, tmp_path / "none")
    assert "transforms" not in json.loads((tmp_path / "none" / "manifest.json").read_text())


def test_a_damaged_transform_of_an_export_stores_nothing(tmp_path, db, world):
    export_data(world.docs, tmp_path / "out")
    path = tmp_path / "out" / "transform-1.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    docs = db.create_collection("back")
    with pytest.raises(SourceError, match="SHA-256"):
        import_data(docs, tmp_path / "out")
    assert docs.spaces == {} and len(docs) == 0
    path.unlink()
    with pytest.raises(SourceError, match="missing"):
        import_data(docs, tmp_path / "out")


def test_a_manifest_that_agrees_with_a_wrong_file_is_not_enough(tmp_path, db, world):
    export_data(world.docs, tmp_path / "out")
    data = b"no transform"
    (tmp_path / "out" / "transform-1.bin").write_bytes(data)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["files"]["transform-1.bin"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    docs = db.create_collection("back")
    with pytest.raises(SourceError, match="transform"):
        import_data(docs, tmp_path / "out")
    assert len(docs) == 0
    manifest["transforms"] = [{"name": "up", "file": "../a.vecdb"}]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SourceError):
        import_data(docs, tmp_path / "out")
