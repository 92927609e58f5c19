"""The command line: what is printed where, in which form, and with which exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

import vecdb
from vecdb import cli, demo, errors
from vecdb.cli import EXIT_CODES, main
from vecdb.cli.codes import exit_code
from vecdb.cli.output import Output, clean
from vecdb.types import CheckReport

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path):
    """A database of five records, two of them with ids that look alike."""
    file = str(tmp_path / "x.vecdb")
    with vecdb.open(file) as db:
        docs = db.create_collection("docs")
        docs.add_space("s", dim=2, metric="dot", model="m1", revision="r")
        docs.upsert(
            ["a", "b", 1, "1", 2],
            {"s": [[1, 0], [0, 1], [1, 1], [2, 0], [-1, 0]]},
            [{"n": 1}, {"n": 2, "x": float("nan")}, {"n": 3}, {}, {}],
            ["first", None, "bell \x07 and \x1b[31mred", None, None],
        )
        db.tag("start")
    return file


def run(capsys, *arguments):
    """Exit code, standard output and standard error of one call."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys, *arguments):
    code, out, _ = run(capsys, *arguments, "--json")
    assert out.count("\n") == 1, "exactly one JSON document"
    assert code in EXIT_CODES
    return json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, timeout=180, check=False, cwd=ROOT, text=True, **options
    )


# --- help and exit codes ----------------------------------------------------------------------------------

COMMANDS = cli.cli.commands


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example_and_json(capsys, name):
    code, out, err = run(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert "Example" in out and f"vecdb {name}" in out
    assert "--json" in out
    assert all(option.help for option in COMMANDS[name].params if isinstance(option, click.Option))


def test_the_commands_are_those_that_are_promised():
    assert set(COMMANDS) == {
        "backup", "check", "check-plugin", "collections", "commits", "compact", "compat-matrix", "corrections",
        "delete", "demo", "doctor", "export", "fit-correction", "get", "import", "index", "info", "migrate",
        "optimize", "plan-upgrade", "plugins", "relevance", "report", "search", "spaces", "stats", "tag",
        "transforms", "warmup",
    }  # fmt: skip


def test_the_help_of_the_program_lists_the_exit_codes(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"{number}  {meaning}" in out for number, meaning in EXIT_CODES.items())
    assert run(capsys, "--version")[1].strip().endswith(vecdb.__version__)


def test_without_arguments_the_help_is_shown_but_it_is_no_answer(capsys):
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert err.strip() == run(capsys, "--help")[1].strip()


def test_the_list_of_commands_has_no_sentence_cut_off(capsys):
    out = run(capsys, "--help")[1]
    listed = out[out.index("Commands:") : out.index("Examples:")]
    assert "..." not in listed and listed.count("\n") >= len(COMMANDS)


EXPECTED_CODES = {
    "VecdbError": 4, "ArgumentError": 4, "ParameterError": 2, "WhereError": 2, "SourceError": 4, "DimensionError": 4,
    "MissingError": 3, "RecordMissingError": 3, "UnknownNameError": 3, "ExistsError": 4, "ConflictError": 4,
    "WrongModelError": 4, "SpaceMismatchError": 2, "SnapshotExpiredError": 3,
    "CancelledError": 130, "ImportInterruptedError": 130, "ExtraMissingError": 2,
    "LockedError": 5, "ReadersFullError": 5, "CorruptionError": 6, "NotADatabaseError": 6, "FormatVersionError": 6,
    "DiskFullError": 7, "MapFullError": 7, "FileAccessError": 7, "RemoteFileSystemError": 7, "StorageError": 7,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_every_error_has_an_exit_code_of_the_table(name):
    code = exit_code(getattr(errors, name)("message"))
    assert code in EXIT_CODES and code not in (0, 1, 70)
    assert code == EXPECTED_CODES.get(name, code)


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["search", "{path}", "dox", "--like", "a"], 3, "vecdb collections DB"),
        (["search", "{path}", "docs", "--like", "a", "--space", "t"], 3, "vecdb spaces DB"),
        (["search", "{path}", "docs", "--like", "a", "--as-of", "t"], 3, "vecdb tag DB"),
        (["search", "{path}", "bare", "--vector", "[1]"], 2, "--vectors SPACE=FILE"),
        (["search", "{path}", "two", "--vector", "[1]"], 2, "--space"),
        (["tag", "{path}", "taken"], 4, "vecdb tag DB NAME --remove"),
        (["backup", "{path}", "{path}"], 4, "choose another name"),
        (["index", "{path}", "docs", "s", "flat"], 4, "--drop removes it"),
        (["delete", "{path}", "docs", "--where", "{{}}"], 2, "name a condition"),
    ],
)
def test_hints_are_in_the_words_of_the_command_line(capsys, path, arguments, code, hint):
    with vecdb.open(path) as db:
        db.create_collection("bare")
        for name in "uv":
            (db.collection("two") if "two" in db.collections() else db.create_collection("two")).add_space(name, dim=1)
        db.tag("taken")
        db.collection("docs").create_index("s", "flat")
    found, _, err = run(capsys, *(argument.format(path=path) for argument in arguments))
    assert found == code
    message, _, said = err.partition(" Hint: ")
    assert hint in said and message.endswith(".") and "db." not in said and "(" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["nonsense"], 2, "No such command"),
        (["info"], 2, "Missing argument"),
        (["info", "{path}", "--nope"], 2, "No such option"),
        (["info", "{tmp}/missing.vecdb"], 3, "there is no database"),
        (["info", "{tmp}/text"], 6, ""),
        (["spaces", "{path}", "nope"], 3, "nope"),
        (["get", "{path}", "docs", "nobody"], 3, "nobody"),
        (["get", "{path}", "docs", "a", "--as-of", "never"], 3, "never"),
        (["get", "{path}", "docs", "a", "--as-of", "999"], 3, "vecdb commits DB"),
        (["get", "{path}", "docs", "a", "--vectors", "t"], 3, "t"),
        (["search", "{path}", "docs"], 2, "--vector and --like"),
        (["search", "{path}", "docs", "--like", "a", "-k", "0"], 2, "-k"),
        (["search", "{path}", "docs", "--like", "a", "--where", "{{"], 2, "--where"),
        (["search", "{path}", "docs", "--like", "a", "--where", "[1]"], 2, "--where"),
        (["search", "{path}", "docs", "--like", "a", "--where", "@missing"], 2, "missing"),
        (["search", "{path}", "docs", "--like", "a", "--where", '{{"n": {{"$near": 1}}}}'], 2, "$near"),
        (["search", "{path}", "docs", "--vector", "{tmp}/missing.npy"], 3, "missing.npy"),
        (["search", "{path}", "docs", "--vector", "{tmp}/text"], 4, "text"),
        (["search", "{path}", "docs", "--vector", "{tmp}/wide.json"], 4, "3"),
        (["tag", "{path}", "--remove"], 2, "NAME"),
        (["tag", "{path}", "x", "--remove"], 3, "x"),
        (["tag", "{path}", "x", "--remove", "--seq", "1"], 2, "--seq"),
        (["delete", "{path}", "docs"], 2, "--where"),
        (["delete", "{path}", "docs", "--where", "{{}}"], 2, ""),
        (["delete", "{path}", "docs", "nobody"], 3, "nobody"),
        (["compact", "{path}", "--keep", "some"], 2, "some"),
        (["backup", "{path}", "{path}"], 4, "exist"),
        (["backup", "{path}", "{tmp}/missing/copy.vecdb"], 7, ""),
        (["export", "{path}", "docs", "{tmp}/text"], 4, "exists"),
        (["export", "{path}", "docs", "{tmp}/out", "--space", "s", "--no-vectors"], 2, "exclude"),
        (["export", "{path}", "docs", "{tmp}/out.npz"], 2, "both types"),
    ],
)
def test_errors_are_one_line_and_a_code(capsys, tmp_path, path, arguments, code, problem):
    (tmp_path / "text").write_text("this is no database, no array and no JSON " * 200)
    (tmp_path / "wide.json").write_text("[1, 2, 3]")
    arguments = [argument.format(path=path, tmp=tmp_path) for argument in arguments]
    found, out, err = run(capsys, *arguments)
    assert found == code, err
    assert err.startswith("vecdb: error: ") and err.count("\n") == 1 and "Traceback" not in err
    assert problem in err
    assert out == ""
    document = run_json(capsys, *arguments)["error"]
    assert document["exit_code"] == code
    assert document["type"] and problem in document["message"] + str(document["hint"])


def test_an_error_tells_its_facts_in_json(capsys, path):
    error = run_json(capsys, "search", path, "docs", "--like", "a", "--space", "t")["error"]
    assert error["type"] == "SpaceMissingError"
    assert (error["name"], error["available"]) == ("t", ["s"])
    assert error["hint"]


def test_a_bug_is_one_line_too(capsys, path, monkeypatch):
    monkeypatch.setattr(vecdb.Database, "stats", lambda self: 1 / 0)
    code, out, err = run(capsys, "info", path)
    assert (code, out) == (70, "")
    assert "internal error: ZeroDivisionError" in err and err.count("\n") == 1
    monkeypatch.setenv("VECDB_TRACEBACK", "1")
    assert "Traceback" in run(capsys, "info", path)[2]


def test_interrupting_is_130(capsys, path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(vecdb.Database, "stats", interrupt)
    code, _, err = run(capsys, "info", path)
    assert code == 130 and "interrupted" in err


def test_control_characters_never_reach_the_terminal(capsys, path):
    for arguments in (["get", path, "docs", "1", "--int-ids"], ["search", path, "docs", "--like", "a"]):
        _, out, err = run(capsys, *arguments)
        assert "\x1b" not in out + err and "\x07" not in out + err
        assert r"\x1b[31mred" in out


def test_clean_leaves_text_alone():
    assert clean("ü 四 [bold]") == "ü 四 [bold]"
    assert clean("a\x00b\u202ec\nd") == "a\\x00b\\u202ec\nd"


def test_markup_in_data_is_only_text(capsys):
    Output(False).table(("a", "b"), [("[bold]x[/bold]", ":smile:")])
    assert "[bold]x[/bold]" in (out := capsys.readouterr().out) and ":smile:" in out


# --- commands that describe -------------------------------------------------------------------------------


def test_info(capsys, path):
    facts = run_json(capsys, "info", path)
    assert facts["collections"]["docs"]["records"] == 5
    assert facts["tags"] == {"start": facts["seq"] - 1} or "start" in facts["tags"]
    _, out, _ = run(capsys, "info", path)
    assert "docs" in out and "file_bytes" in out


def test_collections_and_spaces(capsys, path):
    assert run_json(capsys, "collections", path) == {"collections": [{"name": "docs", "records": 5, "spaces": ["s"]}]}
    (space,) = run_json(capsys, "spaces", path)["spaces"]
    assert space == {
        "collection": "docs", "name": "s", "dim": 2, "metric": "dot", "dtype": "float32",
        "model": "m1", "revision": "r", "role": "both", "vectors": 5, "loss": None,
    }  # fmt: skip
    assert run_json(capsys, "spaces", path, "docs")["spaces"] == [space]
    assert "m1" in run(capsys, "spaces", path)[1]
    assert "docs" in run(capsys, "collections", path)[1]


def test_empty_databases_have_answers_too(capsys, tmp_path):
    vecdb.open(tmp_path / "e.vecdb").close()
    for command in ("collections", "spaces", "tag"):
        code, out, _ = run(capsys, command, tmp_path / "e.vecdb")
        assert code == 0 and out.startswith("(no ")


def test_commits_and_tags(capsys, path):
    commits = run_json(capsys, "commits", path)["commits"]
    assert [commit["seq"] for commit in commits] == sorted(commit["seq"] for commit in commits)
    assert len(run_json(capsys, "commits", path, "--limit", 1)["commits"]) == 1
    assert run(capsys, "commits", path)[1].startswith("seq")
    assert list(run_json(capsys, "tag", path)["tags"]) == ["start"]
    made = run_json(capsys, "tag", path, "now")
    assert made == {"tag": "now", "seq": made["seq"], "removed": False}
    assert "now" in run(capsys, "tag", path)[1]
    assert run(capsys, "tag", path, "now", "--remove")[1] == "removed tag now\n"
    assert "now" not in run_json(capsys, "tag", path)["tags"]


# --- get, search, delete ----------------------------------------------------------------------------------


def test_get(capsys, path):
    (record,) = run_json(capsys, "get", path, "docs", "b", "--vectors", "s")["records"]
    assert record["id"] == "b" and record["vectors"] == {"s": [0, 1]}
    assert record["metadata"] == {"n": 2, "x": {"$float": "NaN"}}
    code, out, _ = run(capsys, "get", path, "docs", "a", "--vectors", "all")
    assert code == 0 and "first" in out


@pytest.mark.parametrize(
    ("words", "options", "ids"),
    [(["1"], [], ["1"]), (["1"], ["--int-ids"], [1]), (["2"], [], [2]), (["a", "2", "1"], [], ["a", 2, "1"])],
)
def test_numbers_on_the_command_line(capsys, path, words, options, ids):
    found = run_json(capsys, "get", path, "docs", *words, *options)["records"]
    assert [record["id"] for record in found] == ids


def test_ids_of_the_past(capsys, path):
    run(capsys, "delete", path, "docs", "a")
    assert run(capsys, "get", path, "docs", "a")[0] == 3
    assert run_json(capsys, "get", path, "docs", "a", "--as-of", "start")["records"][0]["text"] == "first"
    hits = run_json(capsys, "search", path, "docs", "--like", "a", "--as-of", "start")["hits"]
    assert [hit["id"] for hit in hits] == ["1", 1, "b", 2]


def test_search_by_id(capsys, path):
    answer = run_json(capsys, "search", path, "docs", "--like", "a", "-k", 2)
    assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == [("1", 2), (1, 1)]
    assert answer["complete"] is True and answer["seq"] > 0
    numbered = run_json(capsys, "search", path, "docs", "--like", "1", "--int-ids")["hits"]
    assert numbered[0]["id"] == "1"


def test_search_by_vector(capsys, path, tmp_path, monkeypatch):
    (tmp_path / "q.json").write_text("[0, 3]")
    np.save(tmp_path / "q.npy", np.array([[0, 3], [-1, 0]], np.float16))
    one = run_json(capsys, "search", path, "docs", "--vector", tmp_path / "q.json", "-k", 1)
    assert [hit["id"] for hit in one["hits"]] == ["b"]
    two = run_json(capsys, "search", path, "docs", "--vector", tmp_path / "q.npy", "-k", 1, "--explain")
    assert [[hit["id"] for hit in query["hits"]] for query in two["queries"]] == [["b"], [2]]
    out = run(capsys, "search", path, "docs", "--vector", tmp_path / "q.npy", "-k", 1)[1]
    assert "query 0" in out and "query 1" in out
    assert run_json(capsys, "search", path, "docs", "--vector", "[0, 3]", "-k", 1) == one
    unit = run_json(capsys, "search", path, "docs", "--vector", tmp_path / "q.json", "--normalise", "-k", 1)
    assert unit["hits"][0]["score"] == 1


def test_search_from_examples_in_groups_and_spread(capsys, path):
    two = run_json(capsys, "search", path, "docs", "--like", "a", "--like", "b", "-k", 1)
    assert [len(query["hits"]) for query in two["queries"]] == [1, 1]
    found = run_json(capsys, "search", path, "docs", "--positive", "a", "--negative", "b", "-k", 9)
    assert {"a", "b"}.isdisjoint(hit["id"] for hit in found["hits"])
    grouped = run_json(capsys, "search", path, "docs", "--like", "a", "--group-by", "n", "-k", 2, "--per-group", 1)
    assert [group["ids"] for group in grouped["groups"]] == [[hit["id"]] for hit in grouped["hits"]]
    shown = run(capsys, "search", path, "docs", "--like", "a", "--group-by", "n")[1]
    assert "group" in shown.splitlines()[0]
    for more in (["--diversify", "mmr"], ["--diversify", "mixture"], ["--feedback", 2]):
        assert run_json(capsys, "search", path, "docs", "--vector", "[0, 3]", "-k", 2, *more)["complete"] is True
    for wrong in (["--like", "a", "--positive", "b"], ["--negative", "b"], ["--diversify", "most"]):
        assert run(capsys, "search", path, "docs", *wrong)[0] == 2


def test_search_options(capsys, path, tmp_path):
    found = run_json(capsys, "search", path, "docs", "--like", "a", "--where", '{"n": {"$gt": 1}}', "--explain")
    assert [hit["id"] for hit in found["hits"]] == [1, "b"]
    assert found["plan"]
    (tmp_path / "where.json").write_text('{"n": 2}')
    found = run_json(capsys, "search", path, "docs", "--like", "a", "--where", f"@{tmp_path}/where.json")
    assert [hit["id"] for hit in found["hits"]] == ["b"]
    found = run_json(capsys, "search", path, "docs", "--like", "a", "--min-score", 1, "--offset", 1)
    assert [hit["id"] for hit in found["hits"]] == [1]
    _, out, err = run(capsys, "search", path, "docs", "--like", "a", "--explain")
    assert "first" not in out and '{"n":3}' in out
    plan = dict(line.split(None, 1) for line in err.splitlines())
    assert plan["space"] == "s" and len(plan["seconds"]) < 10
    assert run(capsys, "search", path, "docs", "--like", "a", "--min-score", 99)[1] == "(no hits)\n"


def test_delete(capsys, path):
    assert run_json(capsys, "delete", path, "docs", "1", "a")["deleted"] == 2
    assert (
        run(capsys, "delete", path, "docs", "--where", '{"n": {"$exists": true}}', "--erase")[1]
        == "deleted 2 records\n"
    )
    with vecdb.open(path, mode="r") as db:
        assert [record.id for record in db.collection("docs").scan()] == [2]


# --- upkeep -----------------------------------------------------------------------------------------------


def test_check_compact_backup(capsys, path, tmp_path):
    assert run(capsys, "check", path)[1].startswith("sound: ")
    report = run_json(capsys, "check", path)
    assert report["ok"] is True and report["problems"] == []
    sizes = run_json(capsys, "compact", path)
    assert sizes["bytes_before"] > 0 and sizes["bytes_after"] > 0
    assert "->" in run(capsys, "compact", path)[1]
    copy = tmp_path / "copy.vecdb"
    assert run_json(capsys, "backup", path, copy)["bytes"] == copy.stat().st_size
    assert run_json(capsys, "collections", copy) == run_json(capsys, "collections", path)


def test_problems_are_exit_code_1(capsys, path, monkeypatch):
    report = CheckReport(False, ("block 3 of space 's' is damaged",), {"blocks": 4}, 0.1)
    monkeypatch.setattr(vecdb.Database, "check", lambda self, progress=None: report)
    code, out, _ = run(capsys, "check", path)
    assert code == 1 and "block 3" in out and "1 problems" in out
    assert run_json(capsys, "check", path)["problems"] == ["block 3 of space 's' is damaged"]


def test_a_locked_database_is_exit_code_5(capsys, path):
    holder = (
        "import sys, vecdb\n"
        f"with vecdb.open({path!r}) as db, db.transaction():\n"
        "    db.collection('docs').set_metadata(['a'], [{}]); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdin=-1, stdout=-1, cwd=ROOT, text=True) as child:
        assert child.stdout.readline() == "held\n"
        code, _, err = run(capsys, "delete", path, "docs", "a", "--timeout", "0.2")
        child.stdin.close()
    assert code == 5 and str(child.pid) in err


def test_warmup_and_demo_print_what_they_are_told(capsys, monkeypatch):
    class Kernel:
        kernel, seconds, from_cache = "dot", 0.5, True

    class Report:
        ok = False

        def to_dict(self):
            return {"ok": False}

    monkeypatch.setattr(vecdb, "warmup", lambda progress: [Kernel()], raising=False)
    assert "1 kernels ready" in run(capsys, "warmup")[1]
    assert run_json(capsys, "warmup")["kernels"] == [{"kernel": "dot", "seconds": 0.5, "from_cache": True}]
    monkeypatch.setattr(demo, "run", lambda path, quiet: Report())
    assert run(capsys, "demo")[0] == 1
    assert run_json(capsys, "demo") == {"ok": False}


@pytest.mark.parametrize("width", [40, 80])
def test_on_a_terminal_long_columns_are_cut_and_the_others_stay(capsys, monkeypatch, width):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    Output(False).table(("id", "score", "text"), [("key-7", 0.5, "word " * 60)], clipped=("text",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and len(lines[1]) <= width
    assert "key-7  0.5000  word" in lines[1] and lines[1].rstrip().endswith("…")


def test_a_progress_bar_is_drawn_only_on_a_terminal(capsys, monkeypatch):
    with Output(False).progress("working") as progress:
        assert progress is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Output(True).progress("working") as progress:
        progress(1, None)
        progress(2, 2)
    assert capsys.readouterr().out == ""


# --- real processes ---------------------------------------------------------------------------------------


def test_the_module_is_the_program(path):
    found = python("-m", "vecdb", "search", path, "docs", "--vector", "-", "--json", input="[0, 1]")
    assert found.returncode == 0 and found.stderr == ""
    assert json.loads(found.stdout)["hits"][0]["id"] in ("b", 1)
    found = python("-m", "vecdb", "get", path, "docs", "nobody")
    assert (found.returncode, found.stdout) == (3, "")
    assert found.stderr.count("\n") == 1


def test_binary_vectors_come_through_a_pipe(path, tmp_path):
    np.save(tmp_path / "q.npy", np.array([0, 1], np.float32))
    with open(tmp_path / "q.npy", "rb") as stream:
        found = python("-m", "vecdb", "search", path, "docs", "--vector", "-", "--json", stdin=stream)
    assert json.loads(found.stdout)["hits"][0]["score"] == 1


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(missing):
    found = python("-c", f"import sys; sys.modules[{missing!r}] = None; import vecdb.cli; sys.exit(vecdb.cli.main([]))")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.count("\n") == 1 and "pip install 'vecdb[cli]'" in found.stderr


def test_a_reader_that_goes_away_is_not_an_error(path):
    script = f"{sys.executable} -m vecdb search {path} docs --like a | true; exit ${{PIPESTATUS[0]}}"
    found = subprocess.run(
        ["bash", "-c", script], capture_output=True, timeout=180, check=False, cwd=ROOT, env={**os.environ}
    )
    assert found.returncode in (0, 141)
    assert b"Traceback" not in found.stderr and b"BrokenPipe" not in found.stderr


def test_importing_the_package_does_not_load_the_command_line():
    found = python("-c", "import sys, vecdb; print([m for m in ('click', 'rich', 'vecdb.cli') if m in sys.modules])")
    assert found.stdout == "[]\n"
