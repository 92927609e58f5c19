"""`vecdb plugins` and `vecdb check-plugin`: what they print, and with which exit code."""

import json
from dataclasses import dataclass, field, replace

import pytest

from tests.conformance.plain import PlainIndex, PlainType
from vecdb import PluginRegistry, hookimpl
from vecdb.cli import main, plugins
from vecdb.errors import PluginLoadError
from vecdb.registry import PluginInfo


class Loud(PlainIndex):
    def stats(self):
        print("hello")
        return super().stats()


@dataclass(frozen=True)
class Announced(PlainType):
    expected_failures: dict = field(default_factory=dict)


TYPES = [
    replace(PlainType(), name="acme.good"),
    replace(PlainType(), name="acme.loud", index=Loud),
    Announced(name="acme.known", index=Loud, expected_failures={"check_output": "the library greets"}),
    Announced(name="acme.better", expected_failures={"check_output": "it used to greet"}),
    Announced(name="acme.odd", expected_failures={"check_outputs": "a slip of the pen"}),
]


class Acme:
    """A plugin of several index types."""

    @hookimpl
    def vecdb_register_index_types(self):
        return TYPES


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The commands see this plugin, and none that is installed."""
    registry = PluginRegistry([Acme()], entry_points=False)
    monkeypatch.setattr(plugins, "PluginRegistry", lambda: registry)
    return registry


def run(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- plugins ---


def test_plugins_are_listed_with_what_they_provide(capsys):
    code, out, err = run(capsys, "plugins")
    assert (code, err) == (0, "")
    assert "vecdb.indexes" in out and "flat" in out
    (line,) = [line for line in out.splitlines() if "acme.good" in line]
    assert "index type" in line and "cosine dot l2, exact, filtered, lists, complete" in line


def test_plugins_as_json_have_capabilities_and_parameters(capsys):
    code, out, _ = run(capsys, "plugins", "--json")
    found = {item["name"]: item for plugin in json.loads(out)["plugins"] for item in plugin["provides"]}
    assert code == 0 and {"flat", "acme.good"} <= set(found)
    good = found["acme.good"]
    assert good["kind"] == "index type" and good["version"] == 1
    assert good["capabilities"]["metrics"] == ["cosine", "dot", "l2"] and good["capabilities"]["exact"] is True
    assert good["parameters"]["step"] == {
        "default": 100,
        "allowed": "int >= 1 <= 10000",
        "doc": "Vectors read at once.",
    }


def test_plugins_that_failed_to_load_are_named(capsys, monkeypatch):
    error = PluginLoadError("plugin 'bad' (acme-bad 0.3) cannot be imported: ImportError: no", plugin="bad")
    infos = [PluginInfo("bad", "acme-bad", "0.3", error=error), PluginInfo("quiet", None, None)]
    monkeypatch.setattr(PluginRegistry, "plugins", lambda self: infos)
    code, out, err = run(capsys, "plugins")
    assert code == 0 and "failed to load" in out and "acme-bad" in out and "quiet" in out
    assert "bad: plugin 'bad' (acme-bad 0.3) cannot be imported" in err
    code, out, _ = run(capsys, "plugins", "--json")
    first, second = json.loads(out)["plugins"]
    assert first["error"] == {"type": "PluginLoadError", "message": error.message} and first["provides"] == []
    assert second["error"] is None


# --- check-plugin ---


def test_a_good_plugin_has_one_line_for_each_rule(capsys):
    code, out, err = run(capsys, "check-plugin", "flat")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split() == ["ok", "D1", "check_name"]
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert lines[-1].startswith("index type flat of plugin 'vecdb.indexes' (vecdb ")
    assert lines[-1].endswith(f"keeps its contract: {len(lines) - 1} checked")


def test_a_broken_rule_is_shown_with_what_was_seen_and_what_it_says(capsys):
    code, out, _ = run(capsys, "check-plugin", "acme.loud")
    assert code == 1
    place = next(i for i, line in enumerate(out.splitlines()) if line.startswith("FAILED"))
    failed, problem, rule = out.splitlines()[place : place + 3]
    assert failed.split() == ["FAILED", "X4", "check_output"]
    assert problem.strip().startswith("it prints 'hello")
    assert rule.strip() == "the rule: Nothing is printed."
    assert "breaks 1 of its rules" in out.splitlines()[-1]


def test_an_announced_failure_is_shown_with_its_reason_and_is_no_failure(capsys):
    code, out, _ = run(capsys, "check-plugin", "acme.known")
    assert code == 0
    assert "expected      X4   check_output" in out and "announced: the library greets" in out


def test_an_announced_failure_that_passes_is_a_failure(capsys):
    code, out, _ = run(capsys, "check-plugin", "acme.better")
    assert code == 1
    assert "NOT EXPECTED  X4   check_output" in out and "announced: it used to greet" in out


def test_an_announced_failure_of_no_check_is_an_error_of_one_line(capsys):
    code, _, err = run(capsys, "check-plugin", "acme.odd")
    assert code == 2 and err.count("\n") == 1
    assert "names 'check_outputs'" in err and "Did you mean 'check_output'?" in err


def test_the_report_as_json(capsys):
    code, out, _ = run(capsys, "check-plugin", "acme.known", "--json")
    report = json.loads(out)
    assert code == 0 and report["ok"] is True
    assert (report["kind"], report["name"]) == ("index type", "acme.known")
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["check_name"]["status"] == "passed" and checks["check_name"]["problem"] is None
    expected = checks["check_output"]
    assert (expected["number"], expected["status"], expected["reason"]) == ("X4", "expected", "the library greets")
    assert expected["problem"].startswith("it prints")
    code, out, _ = run(capsys, "check-plugin", "acme.loud", "--json")
    assert code == 1 and json.loads(out)["ok"] is False


def test_a_name_that_nothing_has_is_told_with_a_near_one(capsys):
    code, _, err = run(capsys, "check-plugin", "acme.goood")
    assert code == 3 and err.count("\n") == 1
    assert "nothing called 'acme.goood'" in err and "Did you mean 'acme.good'" in err
    code, _, err = run(capsys, "check-plugin", "flat", "--kind", "transform")
    assert code == 3 and "there is no transform 'flat'" in err


def test_a_kind_without_checks_is_refused(capsys):
    code, _, err = run(capsys, "check-plugin", "flat", "--kind", "car")
    assert code == 2 and "--kind" in err and "index type" in err


def test_a_kind_may_be_written_with_hyphens(capsys):
    code, out, _ = run(capsys, "check-plugin", "flat", "--kind", "index-type")
    assert code == 0 and "index type flat" in out
