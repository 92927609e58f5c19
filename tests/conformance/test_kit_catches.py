"""The kit finds every planted fault and names the rule; it finds nothing wrong with what is right."""

import os

import numpy as np
import pytest

from tests.conformance import faults_answers, faults_given, faults_living  # noqa: F401 - they register themselves
from tests.conformance.faulty import FAULTS, LEFT_OPEN, RELEASE
from tests.conformance.plain import EVERYTHING, PlainType
from tests.conformance.projected import ProjectedType
from vecdb.errors import PluginContractError
from vecdb.testing import parametrize_with_checks, run_checks
from vecdb.testing.index_checks import CHECKS

BY_NAME = {check.name: check for check in CHECKS}


@pytest.fixture(autouse=True)
def nothing_of_a_fault_stays():
    yield
    RELEASE.set()
    RELEASE.clear()
    while LEFT_OPEN:
        os.close(LEFT_OPEN.pop())


@parametrize_with_checks([PlainType(), ProjectedType()])
def test_correct_types_pass(index_type, check):
    check(index_type)


def test_types_that_promise_less_pass():
    shy = PlainType().able(**dict.fromkeys(("exact", "filtered", "complete", "add", "remove", "deterministic"), False))
    shy = shy.able(metrics=frozenset({"l2"}), max_dim=5, min_recall_at_10=None, encodes_segments=False, part_from=0)
    results = run_checks(shy)
    assert [result.check.name for result in results if not result.ok] == []
    assert len(results) < len(CHECKS) - 15


def test_every_rule_has_a_plugin_that_breaks_it():
    assert {fault.check for fault in FAULTS} == set(BY_NAME)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.check}-{fault.name}")
def test_a_fault_is_found_and_named(fault):
    check = BY_NAME[fault.check]
    assert check.applies(fault.type)
    with pytest.raises(PluginContractError) as caught:
        check(fault.type)
    assert caught.value.rule == fault.check
    assert caught.value.problem
    assert fault.type.name in caught.value.message and check.number in caught.value.message


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.check}-{fault.name}")
def test_a_fault_is_found_by_its_own_rule_alone(fault):
    failed = {result.check.name for result in run_checks(fault.type) if result.status == "failed"}
    assert fault.check in failed
    assert failed <= {fault.check, *fault.also}


def test_numbers_and_names_of_rules_are_unique_and_every_rule_has_its_sentence():
    assert len({check.number for check in CHECKS}) == len({check.name for check in CHECKS})
    for check in CHECKS:
        assert check.name.startswith("check_")
        assert check.sentence.endswith(".") and len(check.sentence) > 15, check.name


def test_the_correct_type_declares_everything_there_is():
    """Else a capability could come without checks of its own."""
    values = {name: getattr(EVERYTHING, name) for name in EVERYTHING.__dataclass_fields__}
    assert all(value for name, value in values.items() if name != "max_dim")
    assert all(check.applies(PlainType()) for check in CHECKS)
    assert np.isclose(values["min_recall_at_10"], 1.0)
