"""The machinery of the conformance kit, with checks and plugins made up here."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vecdb.errors import ParameterError, PluginContractError
from vecdb.testing import CHECKS_BY_KIND, iter_checks, parametrize_with_checks, plugin_kit, run_checks
from vecdb.testing.checks import applying, collect, fail, require, rule

ROOT = Path(__file__).resolve().parents[2]
KIND = "pet"


@rule("P1")
def check_it_purrs(pet):
    """A pet purrs.

    This paragraph is not part of the rule.
    """
    require(pet.sound == "purr", f"it says {pet.sound!r}")


@rule("P2", lambda pet: pet.age > 1)
def check_it_is_calm(pet):
    """An old pet is calm."""
    if pet.calm is None:
        fail("nobody knows")
    return 1 / pet.calm


PET_CHECKS = collect([check_it_purrs, "not a check", check_it_is_calm])


@pytest.fixture(autouse=True)
def pets(monkeypatch):
    monkeypatch.setitem(CHECKS_BY_KIND, KIND, lambda pet: applying(PET_CHECKS, pet))


def pet(**traits):
    return SimpleNamespace(**({"name": "acme.tom", "sound": "purr", "age": 2, "calm": True} | traits))


# --- checks ---


def test_a_check_knows_its_number_and_its_rule():
    assert (check_it_purrs.name, check_it_purrs.number) == ("check_it_purrs", "P1")
    assert check_it_purrs.sentence == "A pet purrs."
    assert repr(check_it_purrs) == "<check_it_purrs (P1)>"


def test_what_a_check_sees_becomes_an_error_that_names_plugin_rule_and_problem():
    with pytest.raises(PluginContractError) as caught:
        check_it_purrs(pet(sound="bark"))
    error = caught.value
    assert (error.plugin, error.rule, error.problem) == ("acme.tom", "check_it_purrs", "it says 'bark'")
    assert error.message == "acme.tom breaks rule P1 (check_it_purrs): it says 'bark'"
    assert error.hint == "A pet purrs."


def test_an_exception_of_the_plugin_is_a_broken_rule_that_says_where():
    with pytest.raises(PluginContractError, match="ZeroDivisionError") as caught:
        check_it_is_calm(pet(calm=0))
    assert "in check_it_is_calm, test_plugin_kit.py:" in caught.value.problem
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_interruption_is_not_swallowed():
    class Restless:
        name = "x"

        @property
        def sound(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_it_purrs(Restless())


def test_a_thing_without_a_usable_name_is_called_by_its_class():
    with pytest.raises(PluginContractError) as caught:
        check_it_purrs(pet(name=None, sound=""))
    assert caught.value.plugin == "SimpleNamespace"


def test_checks_are_chosen_by_what_is_declared():
    assert [check.name for check in iter_checks(pet(age=1), KIND)] == ["check_it_purrs"]
    assert [check.name for check in iter_checks(pet(age=2), KIND)] == ["check_it_purrs", "check_it_is_calm"]


def test_a_kind_without_checks_is_refused():
    with pytest.raises(ParameterError, match="no checks for kind 'car'"):
        iter_checks(pet(), "car")


# --- running them ---


def test_results_come_one_by_one_and_all_together():
    seen = []
    results = run_checks(pet(sound="bark"), KIND, on=seen.append)
    assert seen == results
    assert [(result.status, result.ok) for result in results] == [("failed", False), ("passed", True)]
    assert results[0].error.problem == "it says 'bark'" and results[1].error is None
    assert all(result.seconds >= 0 for result in results)


def test_an_announced_failure_is_fine_and_an_announced_failure_that_passes_is_not():
    results = run_checks(pet(sound="", expected_failures={"check_it_purrs": "a dog"}), KIND)
    assert [(result.status, result.ok, result.reason) for result in results] == [
        ("expected", True, "a dog"),
        ("passed", True, None),
    ]
    results = run_checks(pet(), KIND, expected_failures={"check_it_purrs": "a dog"})
    assert [(result.status, result.ok) for result in results] == [("unexpected", False), ("passed", True)]


def test_what_is_announced_for_a_run_replaces_what_the_plugin_announces():
    tom = pet(sound="", expected_failures={"check_it_purrs": "a dog"})
    assert [result.status for result in run_checks(tom, KIND, expected_failures={})] == ["failed", "passed"]


@pytest.mark.parametrize(
    ("announced", "message"),
    [
        ({"check_it_pur": "why"}, "names 'check_it_pur'"),
        ({"check_it_purrs": ""}, "gives no reason for check_it_purrs"),
        ({"check_it_purrs": None}, "gives no reason"),
        (["check_it_purrs"], "is list, expected a mapping"),
    ],
)
def test_a_senseless_announcement_is_refused(announced, message):
    with pytest.raises(ParameterError, match=message):
        run_checks(pet(), KIND, expected_failures=announced)
    with pytest.raises(ParameterError, match=message):
        run_checks(pet(expected_failures=announced), KIND)


def test_an_announced_check_that_does_not_apply_is_refused_with_a_near_one():
    with pytest.raises(ParameterError) as caught:
        run_checks(pet(age=1, expected_failures={"check_it_is_calm": "why", "check_it_purrs": "x"}), KIND)
    assert caught.value.got == "check_it_is_calm"
    with pytest.raises(ParameterError, match="Did you mean 'check_it_purrs'"):
        run_checks(pet(expected_failures={"check_it_purr": "x"}), KIND)


# --- under pytest ---


def rows_of(mark):
    return {row.id: (row.values, row.marks) for row in mark.args[1]}


def test_the_decorator_names_its_arguments_after_the_kind():
    assert parametrize_with_checks([], "pet").args[0] == ("pet", "check")
    assert parametrize_with_checks([]).args[0] == ("index_type", "check")


def test_every_check_of_every_thing_is_one_test():
    rows = rows_of(parametrize_with_checks([pet(), pet(name="acme.kit", age=1)], KIND).mark)
    assert list(rows) == ["acme.tom-check_it_purrs", "acme.tom-check_it_is_calm", "acme.kit-check_it_purrs"]
    assert all(marks == () or marks == [] for _, marks in rows.values())


def test_announced_failures_are_strict_expected_failures_of_pytest():
    tom, kit = pet(expected_failures={"check_it_purrs": "a dog"}), pet(name="acme.kit")
    rows = rows_of(parametrize_with_checks([tom, kit], KIND, expected_failures={"check_it_is_calm": "young"}).mark)
    reasons = {name: [mark.kwargs["reason"] for mark in marks] for name, (_, marks) in rows.items()}
    assert reasons == {
        "acme.tom-check_it_purrs": ["a dog"],
        "acme.tom-check_it_is_calm": ["young"],
        "acme.kit-check_it_purrs": [],
        "acme.kit-check_it_is_calm": ["young"],
    }
    (mark,) = rows["acme.tom-check_it_purrs"][1]
    assert mark.kwargs["strict"] and mark.kwargs["raises"] is PluginContractError


def test_an_announcement_for_nobody_is_refused_when_tests_are_collected():
    with pytest.raises(ParameterError, match="no check that applies"):
        parametrize_with_checks([pet(age=1)], KIND, expected_failures={"check_it_is_calm": "why"})


def test_a_plugins_test_file_runs_under_pytest(tmp_path):
    """One passes, one fails as announced, one passes though it was announced to fail."""
    (tmp_path / "test_conformance.py").write_text(
        f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from types import SimpleNamespace
from vecdb.testing import CHECKS_BY_KIND, parametrize_with_checks
from vecdb.testing.checks import require, rule

@rule("P1")
def check_good(thing):
    "Fine."

@rule("P2")
def check_bad(thing):
    "Not fine."
    require(False, "as ever")

@rule("P3")
def check_better(thing):
    "Better than thought."

CHECKS_BY_KIND["pet"] = lambda thing: iter([check_good, check_bad, check_better])

@parametrize_with_checks([SimpleNamespace(name="tom")], "pet",
                         expected_failures={{"check_bad": "known", "check_better": "was bad once"}})
def test_conformance(pet, check):
    check(pet)
""",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "1 failed, 1 passed, 1 xfailed" in done.stdout
    assert "was bad once" in done.stdout


def test_importing_the_kit_needs_neither_pytest_nor_hypothesis():
    code = "import sys, vecdb.testing; vecdb.testing.run_checks; print({'pytest', 'hypothesis'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=180
    )
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


def test_every_public_name_of_the_package_is_there():
    import vecdb.testing

    assert all(hasattr(vecdb.testing, name) for name in vecdb.testing.__all__)
    assert vecdb.testing.run_checks is plugin_kit.run_checks
    with pytest.raises(AttributeError, match="no_such"):
        vecdb.testing.no_such  # noqa: B018 - the access is the test
