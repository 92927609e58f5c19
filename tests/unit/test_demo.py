"""The demonstration does what it says: real answers, the past, a real kill; and it says no when something is wrong."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb import demo, sample
from vecdb.demo import build, crash, show, upgrade
from vecdb.demo.facts import Answer, Built, Crash, DemoReport, Quality, Stage, Travel, Upgrade
from vecdb.errors import StateError, VecdbError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data():
    return sample.load()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Run the demonstration once; its file is kept."""
    return demo.run(tmp_path_factory.mktemp("demo") / "demo.vecdb", quiet=True)


def made_up():
    """Return a report in which every claim holds, without a database."""
    return DemoReport(
        path="somewhere.vecdb",
        kept=True,
        built=Built(1_700, {"mini6": 384, "wl256": 256}, 6, 0.5, 7_340_032),
        answers=(
            Answer("why [bold]so", "mini6", {"section": "games"}, 36, ("a",), (0.5,), ("[red]a[/red]",), 1.5, True),
        ),
        quality=(Quality("mini6", 30, 20, 28, 30, 60.0),),
        travel=Travel("before", 12, 46, 1_700, 1_654, "then", "now", "why", {"topic": "games"}, True),
        upgrade=Upgrade(
            "wl256",
            "mini6",
            1_700,
            "dual query",
            (Stage("old model", 5, 14, 30, 1.0), Stage("new [i]model[/i]", 20, 28, 30, 0.5)),
            0.45,
            0.47,
            "complete",
            9_000.0,
            True,
            True,
            (),
            3.5,
        ),
        crash=Crash(5, 100, 100, 20, 0, 9, (), {"records": 1_754}, 20, 12.0),
        seconds=1.25,
    )


# --- the run itself ---------------------------------------------------------------------------------------


@pytest.mark.crash
def test_every_claim_holds(report):
    assert report.claims == dict.fromkeys(report.claims, True)
    assert report.ok and len(report.claims) == 6


@pytest.mark.crash
def test_the_whole_sample_was_stored(report, data):
    assert report.built.records == len(data.documents) + len(data.texts)
    assert report.built.spaces == {name: model.dim for name, model in data.models.items()}
    assert report.built.commits == 6
    assert 0 < report.built.seconds < report.seconds
    vectors = sum(rows.nbytes for part in (data.documents, data.texts) for rows in part.vectors.values())
    assert vectors < report.built.file_bytes


@pytest.mark.crash
def test_the_stages_of_the_upgrade_are_those_of_plain_searches(report):
    """Before it and at its end a collection in migration answers as one that was filled with that model alone."""
    stages = {stage.label: stage for stage in report.upgrade.stages}
    quality = {each.space: each for each in report.quality}
    old, whole = stages["old model"], stages["new model, all embedded"]
    assert (old.first, old.in_ten, old.native) == (quality["wl256"].first, quality["wl256"].in_ten, 1.0)
    assert (whole.first, whole.in_ten, whole.native) == (quality["mini6"].first, quality["mini6"].in_ten, 1.0)
    bridged, half = stages["new model, bridged"], stages["new model, half embedded"]
    assert bridged.native == 0.0 < half.native < 1.0 and bridged.in_ten <= half.in_ten
    assert report.upgrade.decision and report.upgrade.promised > 0.2 and report.upgrade.found > 0.2
    assert report.upgrade.same and report.upgrade.exact and report.upgrade.problems == ()


def test_an_upgrade_that_cannot_be_undone_is_a_claim_that_does_not_hold():
    good = made_up()
    for changes in ({"same": False}, {"exact": False}, {"state": "backfilling"}, {"problems": ("damaged",)}):
        assert not dataclasses.replace(good, upgrade=dataclasses.replace(good.upgrade, **changes)).ok


@pytest.mark.crash
def test_questions_are_asked_with_and_without_where_and_in_both_spaces(report, data):
    assert {answer.space for answer in report.answers} == set(data.models)
    assert {answer.where is None for answer in report.answers} == {True, False}
    for answer in report.answers:
        assert answer.query in data.queries.texts
        assert len(answer.ids) == len(answer.scores) == len(answer.labels) == min(3, answer.matches)
        assert list(answer.scores) == sorted(answer.scores, reverse=True)
        assert answer.milliseconds > 0


@pytest.mark.crash
def test_hits_under_where_satisfy_it(report, data):
    metadata = dict(zip(data.documents.ids, data.documents.metadata, strict=True))
    narrow = [answer for answer in report.answers if answer.where and answer.where.get("section") == "games"]
    assert narrow
    for answer in narrow:
        assert {metadata[name]["section"] for name in answer.ids} == {"games"}
        assert answer.matches <= sum(row["section"] == "games" for row in metadata.values())


@pytest.mark.crash
def test_hit_rates_are_those_of_plain_numpy(report, data):
    ids = np.array(data.documents.ids + data.texts.ids)
    for quality in report.quality:
        vectors = np.concatenate([data.documents.vectors[quality.space], data.texts.vectors[quality.space]])
        order = np.argsort(-(data.queries.vectors[quality.space] @ vectors.T), axis=1, kind="stable")[:, :10]
        right = [set(found) & set(good) for found, good in zip(ids[order], data.queries.relevant, strict=True)]
        first = sum(top in good for top, good in zip(ids[order[:, 0]], data.queries.relevant, strict=True))
        assert (quality.queries, quality.first, quality.in_ten) == (30, first, sum(map(bool, right)))


@pytest.mark.crash
def test_the_past_had_what_was_deleted(report):
    assert report.travel.records_then == report.built.records
    assert report.travel.records_now == report.built.records - report.travel.deleted
    assert report.travel.first_then != report.travel.first_now


@pytest.mark.crash
def test_the_writer_was_killed_by_a_signal_in_mid_commit(report):
    assert report.crash.signal == signal.SIGKILL
    assert 1 <= report.crash.commits <= 5
    assert report.crash.acknowledged == 20 * report.crash.commits == report.crash.found
    assert (report.crash.unfinished, report.crash.unfinished_found, report.crash.rewritten) == (20, 0, 20)


@pytest.mark.crash
def test_the_kept_file_is_an_ordinary_database(report, data):
    with vecdb.open(report.path) as db:
        assert set(db.collections()) == {build.LIBRARY, build.JOURNAL, upgrade.COLLECTION}
        assert db.tags() == {report.travel.tag: report.travel.seq}
        journal = db.collection(build.JOURNAL)
        assert len(journal) == report.crash.acknowledged + report.crash.rewritten
        assert set(journal.spaces) == set(data.models)
        for name, model in data.models.items():
            assert (journal.spaces[name].model, journal.spaces[name].revision) == (model.model, model.version)
        assert db.check().ok


@pytest.mark.crash
def test_a_file_that_is_there_is_not_touched(report):
    before = Path(report.path).read_bytes()
    with pytest.raises(VecdbError):
        demo.run(report.path, quiet=True)
    assert Path(report.path).read_bytes() == before


@pytest.mark.crash
def test_the_module_runs_and_leaves_no_file(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-m", "vecdb.demo"],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=ROOT,
        env={**crash._environment(), "VECDB_FAILPOINT": "", "TMPDIR": str(tmp_path), "COLUMNS": "120"},
    )
    assert finished.returncode == 0, finished.stderr
    assert "What this run has shown" in finished.stdout and " NO" not in finished.stdout
    assert not finished.stderr
    assert list(tmp_path.iterdir()) == []


# --- the writer and its end -------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path, data):
    """Return the path of a file with an empty journal."""
    path = tmp_path / "journal.vecdb"
    with vecdb.open(path) as db:
        build.add_spaces(db.create_collection(build.JOURNAL), data)
    return path


@pytest.mark.crash
def test_the_writer_acknowledges_every_commit_if_nobody_kills_it(journal, data, capsys):
    crash.write_until_killed(str(journal))
    assert capsys.readouterr().out.split() == [word for n in range(1, 11) for word in ("acknowledged", str(n))]
    with vecdb.open(journal, mode="r") as db:
        assert sum(crash._intact(db.collection(build.JOURNAL), batch) for batch in crash._batches(data)) == 200


@pytest.mark.crash
def test_a_writer_that_ends_by_itself_is_an_error(journal, data, monkeypatch):
    monkeypatch.setattr(crash, "_KILLED_COMMIT", 10_000)
    with pytest.raises(StateError, match="ended before its commit 10000"):
        crash.kill_a_writer(journal, data)


@pytest.mark.crash
def test_a_writer_that_fails_says_why(tmp_path, data):
    (tmp_path / "not-a-database.vecdb").write_bytes(b"plain text " * 2_000)
    with pytest.raises(StateError, match="NotADatabaseError"):
        crash.kill_a_writer(tmp_path / "not-a-database.vecdb", data)


@pytest.mark.crash
def test_a_writer_that_does_not_come_to_its_commit_is_ended(journal, data, monkeypatch):
    monkeypatch.setattr(crash, "_PATIENCE", 0.0)
    with pytest.raises(StateError, match="did not come to its commit 6"):
        crash.kill_a_writer(journal, data)
    with vecdb.open(journal) as db:  # it holds no lock any more
        db.collection(build.JOURNAL).upsert(["a"], metadata=[{}])


def test_the_batches_are_the_texts_in_order(data):
    batches = list(crash._batches(data))
    assert [name for batch in batches for name in batch["ids"]] == list(data.texts.ids)
    for name in data.models:
        np.testing.assert_array_equal(np.concatenate([b["vectors"][name] for b in batches]), data.texts.vectors[name])


@pytest.mark.crash
def test_changed_records_are_not_counted_as_intact(journal, data):
    batch = next(crash._batches(data))
    with vecdb.open(journal) as db:
        records = db.collection(build.JOURNAL)
        assert crash._intact(records, batch) == 0
        records.upsert(**batch)
        assert crash._intact(records, batch) == 20
        wrong = {**batch, "texts": ["another text", *batch["texts"][1:]]}
        assert crash._intact(records, wrong) == 19
        bits = batch["vectors"]["mini6"].copy()
        bits[3, 0] = np.nextafter(bits[3, 0], np.float32(1))
        assert crash._intact(records, {**batch, "vectors": {**batch["vectors"], "mini6": bits}}) == 19
        records.delete(batch["ids"][:5])
        assert crash._intact(records, batch) == 15


# --- comparing with numpy ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(data):
    return build._rows(data)


def hits_of(rows, places, scores):
    hits = [
        vecdb.Hit(rows.ids[place], float(score), 1 - float(score)) for place, score in zip(places, scores, strict=True)
    ]
    return vecdb.Hits(hits, seq=1)


def test_right_hits_are_recognised_and_wrong_ones_are_not(data, rows):
    vector = data.queries.vectors["mini6"][0]
    scores = rows.vectors["mini6"] @ vector
    everything, best = np.ones(len(scores), dtype=bool), np.argsort(-scores)[:3]

    def agrees(places, said, allowed=everything):
        return build._as_numpy_says(hits_of(rows, places, said), rows, "mini6", vector, allowed, 3)

    assert agrees(best, scores[best])
    assert not agrees(best[:2], scores[best[:2]])  # one too few
    assert not agrees(best[[0, 0, 1]], scores[best])  # one twice
    assert not agrees(best, scores[best] + 0.001)  # wrong scores
    assert not agrees([best[0], best[1], np.argsort(-scores)[3]], scores[best])  # right scores, wrong record
    forbidden = everything.copy()
    forbidden[best[0]] = False
    assert not agrees(best, scores[best], forbidden)  # a record that `where` excludes
    second = np.argsort(-scores)[1:4]
    assert agrees(second, scores[second], forbidden)
    assert build._as_numpy_says(hits_of(rows, [], []), rows, "mini6", vector, ~everything, 3)


def test_every_question_is_in_the_sample_and_every_condition_selects(data, rows):
    for question in build._QUESTIONS:
        assert question.query in data.queries.ids and question.space in data.models
        count = sum(question.keep(metadata) for metadata in rows.metadata)
        assert count == len(rows.ids) if question.where is None else 3 <= count < len(rows.ids) / 5


def test_labels_are_sentences_or_facts():
    facts = {"section": "games", "installed_kb": 1234, "tags": []}
    assert build._label(vecdb.Hit("chess", 0.5, 0.5, facts)) == "package chess (games, 1,234 kB)"
    assert build._label(vecdb.Hit("games-03", 0.5, 0.5, {"topic": "games"}, "A sentence.")) == "A sentence."


# --- what the report says ---------------------------------------------------------------------------------


def test_the_report_is_json(report):
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is True and plain["claims"] == report.claims
    assert plain["crash"]["acknowledged"] == report.crash.acknowledged
    assert plain["answers"][0]["scores"] == list(report.answers[0].scores)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("crash", {"found": 99}),
        ("crash", {"acknowledged": 0, "found": 0}),
        ("crash", {"unfinished_found": 1}),
        ("crash", {"unfinished": 0}),
        ("crash", {"problems": ("a chunk does not match its checksum",)}),
        ("crash", {"rewritten": 19}),
        ("travel", {"same": False}),
        ("travel", {"records_then": 1_699}),
        ("travel", {"deleted": 0, "records_now": 1_700}),
    ],
)
def test_a_broken_promise_is_not_ok(part, change):
    good = made_up()
    assert good.ok
    assert not dataclasses.replace(good, **{part: dataclasses.replace(getattr(good, part), **change)}).ok


def test_a_wrong_answer_is_not_ok():
    good = made_up()
    assert not dataclasses.replace(good, answers=(dataclasses.replace(good.answers[0], exact=False),)).ok
    assert not dataclasses.replace(good, quality=(dataclasses.replace(good.quality[0], exact=29),)).ok


# --- printing ---------------------------------------------------------------------------------------------


def print_all(out, report, data):
    show.built(out, report.built, data)
    show.answers(out, report.answers, report.built.records)
    show.qualities(out, report.quality)
    show.travel(out, report.travel)
    show.crash(out, report.crash)
    show.verdict(out, report)


FIGURES = [
    "1,700: 1,500 packages, 200 sentences",
    "6 durable commits in 0.50 s",
    "7.3 MB",
    'where {"section": "games"}: 36 of 1,700 records',
    "0.500",
    "[red]a[/red]",
    '"why [bold]so" in mini6, 1.5 ms',
    "28 (93%)",
    "30 of 30",
    "2.00",
    "removed 46 records",
    'as_of="before" (commit 12)',
    "100 records in 5 commits",
    "signal 9, inside commit 6",
    "0 of 20",
    "no problem found (records 1,754)",
    "All of it took 1.2 s. The file is somewhere.vecdb.",
]


def test_without_rich_the_same_is_said_in_plain_text(data, monkeypatch, capsys):
    monkeypatch.setattr(show.importlib.util, "find_spec", lambda name: None)
    print_all(show.screen(), made_up(), data)
    printed = capsys.readouterr().out
    assert [figure for figure in FIGURES if figure not in printed] == []
    assert "\x1b" not in printed


def test_with_rich_texts_are_never_read_as_markup(data):
    rich_console = pytest.importorskip("rich.console")
    file = io.StringIO()
    console = rich_console.Console(file=file, width=160)
    print_all(show.screen(console), made_up(), data)
    assert [figure for figure in FIGURES if figure not in file.getvalue()] == []


def test_rich_is_used_where_it_is_installed(data, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "160")
    print_all(show.screen(), made_up(), data)
    assert "─" in capsys.readouterr().out


def test_quiet_prints_nothing(data, capsys):
    print_all(show.screen(quiet=True), made_up(), data)
    assert capsys.readouterr().out == ""


def test_plain_columns_are_aligned(capsys):
    show._Plain().table(("name", "count"), [("a", "7"), ("longer", "1,234")], frozenset({1}))
    assert capsys.readouterr().out.splitlines() == ["name    count", "a           7", "longer  1,234", ""]


def test_problems_and_broken_claims_are_shown(data, capsys, monkeypatch):
    monkeypatch.setattr(show.importlib.util, "find_spec", lambda name: None)
    good = made_up()
    bad = dataclasses.replace(good, kept=False, crash=dataclasses.replace(good.crash, found=99, problems=("torn",)))
    print_all(show.screen(), bad, data)
    printed = capsys.readouterr().out
    assert "99 of 100" in printed and "torn" in printed and " NO" in printed and "temporary" in printed


def test_importing_vecdb_does_not_load_the_demonstration():
    code = (
        "import sys, vecdb; print(any(name.startswith(('vecdb.demo', 'vecdb.sample', 'rich')) for name in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "False"
