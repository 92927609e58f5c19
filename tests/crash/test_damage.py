"""Damaged files: every flipped bit, lost end and zeroed page is reported or does not matter."""

from __future__ import annotations

import random

import numpy as np
import pytest

import vecdb
from vecdb.testing.crash import Trial, write_step
from vecdb.testing.damage import PAGE, answers, flip_bit, probe_all
from vecdb.testing.workload import Workload


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A file of about 2 MB with blocks, a tail, columns, a delta, deaths, history and a tag; its image and answers."""
    path = tmp_path_factory.mktemp("sound") / "sound.vecdb"
    rng = np.random.default_rng(9)
    with vecdb.open(path) as db:
        docs = db.create_collection("docs")
        docs.add_space("wide", dim=64, metric="cosine")
        docs.add_space("half", dim=24, metric="l2", dtype="float16")
        ids = list(range(1400))
        docs.upsert(
            ids,
            {name: rng.standard_normal((1400, space.dim)).astype(space.dtype) for name, space in docs.spaces.items()},
            metadata=[{"n": n, "even": n % 2 == 0, "words": {"a": f"w{n % 30}"}} for n in ids],
            texts=[f"text {n}" if n % 3 else None for n in ids],
            trust=True,
        )
        db.tag("before")
        docs.delete(list(range(0, 100, 3)))
        docs.upsert([5, "new"], {"wide": rng.standard_normal((2, 64))}, metadata=[{"n": 1}, {"even": True}], trust=True)
        db.optimize()
        docs.upsert([6, 7, 8], {"wide": rng.standard_normal((3, 64))}, metadata=[{"n": 2}] * 3, trust=True)
        docs.set_vectors("half", [10, 11], rng.standard_normal((2, 24)), trust=True)
        db.create_collection("empty")
        db.tag("after")
    expected = answers(path, ask_first=True)
    assert expected["check"] == "ok" and not any(answer.startswith("reported") for answer in expected.values())
    return path.read_bytes(), expected


def hold(sound, damages, folder):
    ends, bad = probe_all(*sound, damages, folder)
    print(dict(ends))
    assert bad == []
    return ends


def pages_of_ours(image):
    """Pages on which a vector block, or a sealed value of several pages, begins or goes on."""
    found = []
    page = 0
    while (page + 1) * PAGE <= len(image):
        head = image[page * PAGE : page * PAGE + 16]
        flags = int.from_bytes(head[10:12], "little")
        count = int.from_bytes(head[12:16], "little")
        run = count if flags & 0x04 and 0 < count < 300 else 0
        found.extend(range(page, page + run))
        page += max(1, run)
    return found


def flips_everywhere(image, count, seed):
    chance = random.Random(seed)
    return [(f"bit {place}", flip_bit(place)) for place in (chance.randrange(len(image) * 8) for _ in range(count))]


def flips_in_our_blocks(image, count, seed):
    chance = random.Random(seed)
    pages = pages_of_ours(image)
    assert len(pages) > 100
    places = [(chance.choice(pages) * PAGE * 8) + chance.randrange(PAGE * 8) for _ in range(count)]
    return [(f"bit {place}", flip_bit(place)) for place in places]


def flips_in_trees(image, count, seed):
    """In the pages of LMDB's own trees, the two roots included."""
    chance = random.Random(seed)
    ours = set(pages_of_ours(image))
    pages = [page for page in range(len(image) // PAGE) if page not in ours]
    places = [(chance.choice(pages) * PAGE * 8) + chance.randrange(PAGE * 8) for _ in range(count)]
    places += [place for place in (chance.randrange(2 * PAGE * 8) for _ in range(count // 4))]
    return [(f"bit {place}", flip_bit(place)) for place in places]


FLIPS = {"everywhere": flips_everywhere, "blocks": flips_in_our_blocks, "trees": flips_in_trees}


@pytest.mark.parametrize("where", sorted(FLIPS))
def test_flipped_bits(sound, tmp_path, where):
    ends = hold(sound, FLIPS[where](sound[0], 45, seed=1), tmp_path)
    assert ends["reported"] > 0


@pytest.mark.full
@pytest.mark.parametrize("where", sorted(FLIPS))
@pytest.mark.parametrize("seed", range(2, 5))
def test_a_thousand_flipped_bits(sound, tmp_path, where, seed):
    hold(sound, FLIPS[where](sound[0], 120, seed), tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("where", sorted(FLIPS))
@pytest.mark.parametrize("seed", range(10, 20))
def test_ten_thousand_flipped_bits(sound, tmp_path, where, seed):
    hold(sound, FLIPS[where](sound[0], 350, seed), tmp_path)


def truncate(size):
    return lambda image: image.__delitem__(slice(size, None))


def zero(page):
    return lambda image: image.__setitem__(slice(page * PAGE, (page + 1) * PAGE), bytes(PAGE))


def pages(image, step):
    last = len(image) // PAGE
    return sorted({*range(0, last, step), *range(4), *range(last - 4, last)})


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.full)])
def test_a_file_cut_at_a_page(sound, tmp_path, step):
    image = sound[0]
    damages = [(f"cut at page {page}", truncate(page * PAGE)) for page in pages(image, step)]
    damages += [(f"cut at byte {size}", truncate(size)) for size in (1, 15, 100, 4095, 4097, 8191, len(image) - 1)]
    hold(sound, damages, tmp_path)


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.full)])
def test_a_page_of_zeros(sound, tmp_path, step):
    hold(sound, [(f"zero page {page}", zero(page)) for page in pages(sound[0], step)], tmp_path)


def test_two_pages_exchanged(sound, tmp_path):
    """Every checksum holds a value to its place."""
    chance = random.Random(3)
    ours = pages_of_ours(sound[0])

    def exchange(first, second):
        def damage(image):
            one, two = (slice(page * PAGE, (page + 1) * PAGE) for page in (first, second))
            image[one], image[two] = image[two], image[one]

        return damage

    pairs = [chance.sample(ours, 2) for _ in range(40)]
    hold(sound, [(f"exchange {pair}", exchange(*pair)) for pair in pairs], tmp_path)


def test_a_writer_refuses_what_is_damaged_and_keeps_the_rest(tmp_path):
    """Deleting, repacking and compacting over a damaged block raise `CorruptionError`; other records stay readable."""
    trial = Trial(tmp_path / "store.vecdb", Workload(4), retention=0.0)
    trial.create()
    with trial.open() as db:
        for _ in range(25):
            write_step(db, trial.workload, lambda number: None)
        db.optimize()
    image = bytearray(trial.path.read_bytes())
    marker = max(place for place in range(0, len(image), PAGE) if image[place + 16 : place + 20] == b"VBLK")
    image[marker + PAGE * 3] ^= 1
    trial.path.write_bytes(image)
    size = len(image)
    with trial.open() as db:
        assert not db.check().ok
        with pytest.raises(vecdb.CorruptionError):
            db.compact(keep="nothing")
        with pytest.raises(vecdb.CorruptionError):
            db.backup(tmp_path / "copy.vecdb")
        assert not (tmp_path / "copy.vecdb").exists()
        assert len(db.collection("things")) == len(trial.workload.model)
    assert trial.path.stat().st_size >= size
