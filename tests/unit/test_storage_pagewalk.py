"""The walk over LMDB's own pages, against one that goes node by node."""

from __future__ import annotations

import functools
import itertools
import os
import random
import struct
import tempfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import plain_pagewalk
from vecdb.storage import pagewalk
from vecdb.storage.format import LMDB_ENGINE
from vecdb.storage.pagekeys import PAD, Keys, ascending, before, joined, ragged

PAGE = 4096


def keys_of(values: list[bytes], gap: bytes = b"") -> Keys:
    widths = np.array([len(value) for value in values], np.int64)
    places = np.cumsum(widths + len(gap)) - widths
    return Keys(b"".join(gap + value for value in values) + PAD, places, widths)


short = st.binary(max_size=20) | st.sampled_from([b"", b"\0", b"\0" * 8, b"\0" * 9, b"a" * 8, b"a" * 16, b"\xff" * 17])


class TestKeys:
    @given(st.lists(st.tuples(short, short), max_size=20), st.sampled_from([b"", b"z", b"\xff" * 3]))
    def test_before_is_the_order_of_bytes(self, pairs, gap):
        first, second = keys_of([one for one, _ in pairs], gap), keys_of([other for _, other in pairs], b"")
        assert before(first, second).tolist() == [one < other for one, other in pairs]

    @given(st.lists(short, min_size=1, max_size=20))
    def test_ascending_is_the_order_of_neighbours(self, values):
        expected = [one < other for one, other in itertools.pairwise(values)]
        assert ascending(keys_of(values)).tolist() == expected
        rest = keys_of(values[1:])
        grown = rest._replace(data=rest.data[: -len(PAD)] + values[0] + PAD).after(len(values[0]))
        assert ascending(grown).tolist() == expected
        assert grown.key(0) == values[0]

    @given(st.lists(short, max_size=10), st.lists(short, max_size=10), st.data())
    def test_parts_and_joins_keep_the_keys(self, one, other, data):
        both = joined([keys_of(one, b"q"), keys_of(other)])
        assert [both.key(place) for place in range(len(both.places))] == one + other
        which = data.draw(st.lists(st.sampled_from(range(len(one + other))), max_size=8)) if one + other else []
        chosen = both.part(np.array(which, np.int64)).compact()
        assert [chosen.key(place) for place in range(len(which))] == [(one + other)[place] for place in which]
        assert chosen.data.endswith(PAD)

    @given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=10))
    def test_turned_keys_have_the_order_of_their_numbers(self, numbers):
        turned = keys_of([struct.pack("<Q", number) for number in numbers]).turned()
        assert ascending(turned).tolist() == [one < other for one, other in itertools.pairwise(numbers)]

    def test_runs_follow_one_another(self):
        assert ragged(np.array([5, 1, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


def make_file(folder: Path, seed: int, commits: int = 4) -> bytes:
    """Return the bytes of an LMDB file after some commits of puts and deletes, small values and large ones."""
    chance = random.Random(seed)
    path = folder / f"{seed}.lmdb"
    with lmdb.open(str(path), subdir=False, map_size=1 << 26, max_dbs=3, lib_version=LMDB_ENGINE) as env:
        tables = [env.open_db(name) for name in (b"one", b"two", b"three")]
        width = chance.choice([4, 30, 300])
        for _ in range(commits):
            with env.begin(write=True) as tx:
                for _ in range(chance.randrange(400)):
                    key = chance.randbytes(chance.randrange(1, width))
                    size = chance.choice([0, 5, 200, 3000, 9000])
                    tx.put(key, bytes(size), db=chance.choice(tables[:2]))
                for table in tables[:2]:
                    keys = [bytes(key) for key, _ in tx.cursor(db=table)]
                    start = chance.randrange(len(keys) + 1)
                    for key in keys[start : start + chance.randrange(200)]:
                        tx.delete(key, db=table)
    return path.read_bytes()


def found(walker, path: Path) -> list[str]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return walker.damaged_pages(descriptor, walker.newest_commit(descriptor)) or []
    finally:
        os.close(descriptor)


@functools.cache
def all_images() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [make_file(Path(folder), seed) for seed in range(12)]


@pytest.fixture
def images():
    return all_images()


def test_sound_files_are_sound(images, tmp_path, monkeypatch):
    for place, image in enumerate(images):
        path = tmp_path / str(place)
        path.write_bytes(image)
        for at_once in (PAGE, 3 * PAGE, 1 << 18):
            monkeypatch.setattr(pagewalk, "_AT_ONCE", at_once)
            assert found(pagewalk, path) == found(plain_pagewalk, path) == []


def test_a_large_value_that_became_shorter_in_its_transaction_is_sound(tmp_path):
    """LMDB writes it into the pages that the longer one had, and leaves their number as it was."""
    path = tmp_path / "a.lmdb"
    with lmdb.open(str(path), subdir=False, map_size=1 << 24, max_dbs=1, lib_version=LMDB_ENGINE) as env:
        table = env.open_db(b"one")
        with env.begin(write=True, db=table) as tx:
            tx.put(b"a", bytes(20_000))
            tx.put(b"b", bytes(20_000))
            tx.put(b"a", bytes(5_000))
    assert found(pagewalk, path) == found(plain_pagewalk, path) == []


def tree_pages(image: bytes) -> list[int]:
    return [
        page
        for page in range(2, len(image) // PAGE)
        if struct.unpack_from("<QHH", image, page * PAGE)[::2] in ((page, 1), (page, 2))
    ]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 11), st.integers(0, 2**32), st.sampled_from(["bit", "short", "page", "swap", "root"]))
def test_what_the_plain_walk_finds_is_found(tmp_path_factory, which, seed, kind):
    chance = random.Random(seed)
    image = bytearray(all_images()[which])
    damage(image, kind, chance)
    path = tmp_path_factory.getbasetemp() / "damaged.lmdb"
    path.write_bytes(image)
    plain, ours = found(plain_pagewalk, path), found(pagewalk, path)
    assert bool(ours) >= bool(plain), plain
    if ours and not plain:  # what LMDB relies on and the plain walk does not look at
        assert "out of order" in ours[0] or "impossible bounds" in ours[0]


def damage(image: bytearray, kind: str, chance: random.Random) -> None:
    pages = tree_pages(bytes(image))
    start = chance.choice(pages) * PAGE
    if kind == "bit":
        place = start + chance.randrange(PAGE)
        image[place] ^= 1 << chance.randrange(8)
    elif kind == "short":  # in the head, the places of the nodes or the nodes at the end: where the numbers are
        place = start + 2 * chance.choice([*range(40), *range(PAGE // 2 - 200, PAGE // 2)])
        struct.pack_into(
            "<H", image, place, chance.choice([0, 1, 2, 15, 16, 4095, 4096, 65535, chance.randrange(65536)])
        )
    elif kind == "page":
        image[start : start + PAGE] = bytes(PAGE)
    elif kind == "swap":
        other = chance.choice(pages) * PAGE
        image[start : start + PAGE], image[other : other + PAGE] = (
            image[other : other + PAGE],
            image[start : start + PAGE],
        )
    else:
        place = chance.choice([0, PAGE]) + 40 + chance.randrange(104)
        image[place] ^= 1 << chance.randrange(8)


def test_a_branch_that_hides_the_first_keys_of_a_leaf_is_damage(tmp_path):
    """LMDB would look for them in the leaf before, and say that they are not there."""
    path = tmp_path / "a.lmdb"
    with lmdb.open(str(path), subdir=False, map_size=1 << 24, max_dbs=1, lib_version=LMDB_ENGINE) as env:
        table = env.open_db(b"one")
        with env.begin(write=True, db=table) as tx:
            for number in range(400):
                tx.put(b"%06d" % (2 * number), bytes(50))
    image = bytearray(path.read_bytes())
    branches = [page for page in tree_pages(bytes(image)) if struct.unpack_from("<QHH", image, page * PAGE)[2] == 1]
    assert len(branches) == 1
    start = branches[0] * PAGE
    node = start + struct.unpack_from("<H", image, start + 16 + 2)[0]
    key = image[node + 8 : node + 14]
    image[node + 8 : node + 14] = b"%06d" % (int(key) + 3)
    path.write_bytes(image)
    assert found(plain_pagewalk, path) == []
    assert "keys are out of order" in found(pagewalk, path)[0]


def test_huge_numbers_are_refused_before_anything_of_their_size_is_made(images, tmp_path):
    image = bytearray(next(image for image in images if has_big_value(image)))
    for page in tree_pages(bytes(image)):
        lower = struct.unpack_from("<H", image, page * PAGE + 12)[0]
        for place in range(page * PAGE + 16, page * PAGE + lower, 2):
            node = page * PAGE + struct.unpack_from("<H", image, place)[0]
            if struct.unpack_from("<H", image, node + 4)[0] == 1:
                struct.pack_into("<HH", image, node, 0xFFFF, 0xFFFF)
    path = tmp_path / "a"
    path.write_bytes(image)
    assert "lies outside the file" in found(pagewalk, path)[0]


def has_big_value(image: bytes) -> bool:
    return any(struct.unpack_from("<QHH", image, at)[2] == 4 for at in range(0, len(image), PAGE))


def test_large_trees_are_left_to_check_when_asked(images, tmp_path):
    image = bytearray(max(images, key=len))
    for page in tree_pages(bytes(image)):
        if struct.unpack_from("<QHH", image, page * PAGE)[2] == 1:  # a branch, so of a named tree
            image[page * PAGE + 16 : (page + 1) * PAGE] = b"\xff" * (PAGE - 16)
    path = tmp_path / "a"
    path.write_bytes(image)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        commit = pagewalk.newest_commit(descriptor)
        assert pagewalk.damaged_pages(descriptor, commit, most=1) == []
        assert "lies outside its page" in (pagewalk.damaged_pages(descriptor, commit) or [""])[0]
        assert pagewalk.damaged_pages(descriptor, commit + 7) is None
    finally:
        os.close(descriptor)
