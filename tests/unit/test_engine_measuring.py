"""Measuring an index while its vectors are replaced: what is gone does not count, and nothing keeps the file from
giving space back for long."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.indextypes import CopiesType, able, rows
from vecdb.engine import automatic, measuring, workshop
from vecdb.engine.views import VectorsMovedError


def complete():
    return CopiesType("acme.copies", able("filtered", "complete"))  # not exact, or it would not be measured


def replace_some(it, calls):
    """Return a fault that rewrites vectors whenever the index is asked while it is measured."""

    def replacing(**given):
        calls.append(len(calls))
        it.write(range(len(calls) * 5 % 300, len(calls) * 5 % 300 + 40), seed=len(calls))

    return replacing


def test_vectors_that_go_while_an_index_is_measured_are_not_asked_for(case):
    calls = []
    type_ = complete()
    it = case(type_, count=1500, retention=0.0)
    it.c.optimize()
    type_.faults["search"] = replace_some(it, calls)
    it.index()
    del type_.faults["search"]
    assert len(calls) >= 3
    plan = dict(it.c.search(rows(1, 9)[0], 5, recall=0.9, explain=True).plan)
    assert plan["expected_recall"] == 1.0
    assert it.db.check().ok


def test_no_lease_lasts_longer_than_one_question(case, monkeypatch):
    """While the index is asked with one effort, later efforts wait for a lease of their own."""
    it = case(complete(), count=1500)
    it.c.optimize()
    opened, real = [], measuring._Bench._opened

    def counting(self):
        opened.append(1)
        return real(self)

    monkeypatch.setattr(measuring._Bench, "_opened", counting)
    asked = []
    it.types[0].faults["search"] = lambda **given: asked.append(1)
    it.index()
    assert len(opened) > len(asked) >= 4


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_that_is_found_is_of_what_is_left(share):
    table = np.where(np.random.default_rng(1).random(40) < share, -1, np.arange(40))
    truth = measuring._Truth(
        np.zeros((1, 2), np.float32), np.array([-1]), [(np.arange(20), -np.arange(20, dtype=np.float32))]
    )
    covered = measuring._Covered(None, table, None)
    left = np.flatnonzero(table[:20] >= 0)
    assert measuring._recall(covered, truth, 0, np.arange(20), 10) == 1.0
    assert measuring._recall(covered, truth, 0, left[:10], 10) == 1.0
    assert measuring._recall(covered, truth, 0, np.empty(0, np.int64), 10) == (0.0 if len(left) else 1.0)


def moving(times):
    """Return work during which vectors are removed, so many times."""
    leases = []

    def work(read):
        leases.append(read)
        if len(leases) <= times:
            raise VectorsMovedError
        return "done"

    return work, leases


def test_who_waits_for_a_build_gets_it_under_one_lease(case):
    it = case(complete())
    shop = it.db._workshop((it.c._number, "c"), None, None)
    work, leases = moving(1)
    assert workshop.steady(shop, work) == "done"
    assert leases[0] == shop.read and leases[1] != shop.read


def test_in_the_background_a_build_is_put_off_instead(case, caplog):
    it = case(complete())
    tries = []

    def build(key, cancel):
        tries.append(key)
        raise VectorsMovedError

    keeper = automatic.Keeper(build)
    keeper._seen[7] = automatic._Seen(3, 0)
    keeper._wanted[(it.c._number, "c")] = 0.0
    with caplog.at_level(logging.DEBUG, "vecdb"):
        keeper._run()
    assert len(tries) == 1 and not keeper._seen  # due again with the next commit
    assert "put off" in caplog.text


def test_the_background_is_not_patient(case, monkeypatch):
    it = case(complete())
    seen = []
    monkeypatch.setattr(automatic, "keep_indexes", lambda shop: seen.append(shop.patient) or 0)
    it.db._keep_in_background((it.c._number, "c"), lambda: False)
    it.db._keep_indexes((it.c._number, "c"), None)
    assert seen == [False, True]


def test_a_curve_is_measured_on_the_path_that_searches_take(tmp_path):
    """A process that built an index before its kernels were loaded stored a curve of one point: 0.89 at effort 16.

    numpy, which stood in for the first batch, finds everything at any effort, so the ladder ended there; a search for
    a recall of 0.95 was then answered by a scan for good.
    """
    code = (
        "import numpy as np, vecdb\n"
        "from vecdb.kernels import loader\n"
        f"with vecdb.open({str(tmp_path / 'm.vecdb')!r}, automatic=False) as db:\n"
        "    docs = db.create_collection('c'); docs.add_space('s', dim=8)\n"
        "    docs.upsert(range(1_200), {'s': np.random.default_rng(0).standard_normal((1_200, 8))}, trust=True)\n"
        "    assert not loader.loaded()\n"
        "    try:\n"
        "        docs.create_index('s', 'rabitq', cancel=loader.loading)\n"
        "        raise SystemExit('measuring waited although it was cancelled')\n"
        "    except vecdb.CancelledError:\n"
        "        assert not docs.indexes\n"
        "    docs.create_index('s', 'rabitq')\n"
        "    assert loader.loaded() or loader.failure(), 'measured while kernels were not there'\n"
    )
    environment = {**os.environ, "VECDB_BACKGROUND": "1", "VECDB_KERNELS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
