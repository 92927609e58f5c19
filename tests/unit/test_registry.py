"""The registry: who provides what, all of a plugin or nothing of it, and the name of the one that misbehaves."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from vecdb import PluginRegistry, hookimpl, registry
from vecdb.contracts import Param, TransformCapabilities
from vecdb.errors import (
    ParameterError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    UnknownNameError,
)
from vecdb.types import Space

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "tests" / "packaging" / "site"


class Type:
    """A type of transform that can be registered."""

    version = 1
    capabilities = TransformCapabilities()

    def __init__(self, name="acme.map", **changes):
        self.name = name
        self.parameters = {}
        self.__dict__.update(changes)

    def fit(self, data, params):
        raise NotImplementedError

    def load(self, state):
        raise NotImplementedError


def plugin(*things, name="acme_plugin", hook="vecdb_register_transforms", **functions):
    """Return a plugin that provides things by one hook."""
    made = SimpleNamespace(__name__=name, **{each: hookimpl(function) for each, function in functions.items()})
    if things:

        def provide():
            return things

        setattr(made, hook, hookimpl(provide))
    return made


def fresh(*plugins):
    return PluginRegistry(plugins, entry_points=False)


OWN = ["vecdb.indexes", "vecdb.transforms", "vecdb.relevance", "vecdb.backfill"]
"""Where vecdb's own plugins are, in the order in which `plugins` lists them."""


def foreign(given):
    """Return the names of transforms that are not vecdb's own: those have no prefix."""
    return [name for name in given.names("transform") if "." in name]


@pytest.fixture
def installed(monkeypatch):
    """Stand in for entry points: name -> callable that imports it; distribution is ``dist-NAME`` 1.2."""
    points = {}

    def of_these(allow):
        for name, load in sorted(points.items()):
            source = registry._Source(name, f"dist-{name}", "1.2")
            if allow is None or name in allow or source.distribution in allow:
                yield source, load

    monkeypatch.setattr(registry, "_installed", of_these)
    monkeypatch.delenv("VECDB_PLUGINS", raising=False)
    return points


# --- provenance ---


def test_what_is_provided_knows_where_it_comes_from(installed):
    thing = Type()
    installed["acme"] = lambda: plugin(thing)
    found = PluginRegistry().find("transform", "acme.map")
    assert found.thing is thing
    assert (found.kind, found.name, found.plugin, found.distribution, found.version) == (
        ("transform", "acme.map", "acme", "dist-acme", "1.2")
    )
    assert found.owner == "plugin 'acme' (dist-acme 1.2)"


def test_a_plugin_that_was_handed_over_is_known_by_its_module_or_class():
    class Acme:
        @hookimpl
        def vecdb_register_transforms(self):
            return [Type()]

    assert fresh(plugin(Type())).find("transform", "acme.map").owner == "plugin 'acme_plugin'"
    assert fresh(Acme()).find("transform", "acme.map").plugin.endswith("Acme")
    given = fresh()
    given.register(Acme(), "mine")
    assert given.find("transform", "acme.map").plugin == "mine"


def test_plugins_lists_vecdb_first_then_the_others_with_what_they_provide(installed):
    installed["acme"] = lambda: plugin(Type("acme.a"), Type("acme.b"))
    found = PluginRegistry([plugin(Type("other.c"), name="other")]).plugins()
    assert [each.name for each in found] == [*OWN, "other", "acme"]
    assert [each.distribution for each in found] == ["vecdb", "vecdb", "vecdb", "vecdb", None, "dist-acme"]
    assert [each.name for each in found[0].provides] == ["flat", "graph", "ivf", "rabitq"]
    assert "procrustes" in [each.name for each in found[1].provides]
    assert "calibrated" in [each.name for each in found[2].provides]
    assert "novelty" in [each.name for each in found[3].provides]
    assert [each.name for each in found[5].provides] == ["acme.a", "acme.b"]


def test_a_room_of_vecdb_is_imported_when_something_of_its_kind_is_asked_for():
    """Most programs never fit a transform; one that registers plugins of its own does not import them either."""
    code = (
        "import sys; from vecdb import PluginRegistry; given = PluginRegistry(entry_points=False);"
        "loaded = lambda: [name for name in ('vecdb.indexes', 'vecdb.transforms') if name in sys.modules];"
        "print(loaded()); given.find('index type', 'flat'); print(loaded());"
        "given.find('transform', 'ridge'); print(loaded())"
    )
    lines = in_a_process(code).stdout.splitlines()
    assert lines == ["[]", "['vecdb.indexes']", "['vecdb.indexes', 'vecdb.transforms']"]


def test_names_and_provided_are_sorted_and_of_one_kind():
    given = fresh(plugin(Type("acme.b"), Type("acme.a")))
    assert foreign(given) == ["acme.a", "acme.b"]
    assert [each.name for each in given.provided("transform")] == sorted(given.names("transform"))
    assert given.provided("importer") == [] and given.names("index type") == ["flat", "graph", "ivf", "rabitq"]


def test_an_unknown_kind_is_refused():
    for ask in (fresh().names, fresh().provided, lambda kind: fresh().find(kind, "x")):
        with pytest.raises(ParameterError, match="kind is 'colour'"):
            ask("colour")


def test_registering_the_same_object_twice_is_once():
    made = plugin(Type())
    given = fresh(made)
    given.register(made)
    assert foreign(given) == ["acme.map"]


# --- all or nothing ---


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Type("map"), "expected lower case with a prefix"),
        (Type("acme.b", version=0), "version is 0"),
        (Type("acme.b", parameters={"a": Param("int", 1, "")}), "no description"),
        (Type("acme.b", fit=None), "no method fit"),
        (Type("acme.a"), "both provide transform 'acme.a'"),
        (object(), "name is None"),
    ],
)
def test_a_plugin_with_one_bad_object_registers_nothing(bad, words):
    given = fresh()
    with pytest.raises(PluginError, match=words) as caught:
        given.register(plugin(Type("acme.a"), bad))
    assert caught.value.plugin == "acme_plugin" and "acme_plugin" in caught.value.message
    assert foreign(given) == [] and len(given.plugins()) == len(OWN)
    given.register(plugin(Type("acme.a")))  # and it can be tried again
    assert foreign(given) == ["acme.a"]


def test_every_problem_of_an_object_is_told_at_once():
    with pytest.raises(PluginLoadError) as caught:
        fresh(plugin(Type("map", version=0, fit=None)))
    for words in ("name is 'map'", "version is 0", "no method fit"):
        assert words in caught.value.message


def test_two_plugins_that_claim_a_name_are_both_named():
    with pytest.raises(PluginConflictError) as caught:
        fresh(plugin(Type(), name="one"), plugin(Type(), name="two"))
    error = caught.value
    assert (error.kind, error.name, error.first, error.second) == (
        ("transform", "acme.map", "plugin 'one'", "plugin 'two'")
    )


def test_a_name_of_vecdb_cannot_be_taken():
    with pytest.raises(PluginLoadError, match="expected lower case with a prefix"):
        fresh(plugin(Type("flat"), hook="vecdb_register_index_types"))


def test_a_contested_name_of_installed_plugins_fails_where_it_is_asked_for_and_nowhere_else(installed, caplog):
    installed["one"] = lambda: plugin(Type(), name="one")
    installed["two"] = lambda: plugin(Type(), Type("two.other"), name="two")
    given = PluginRegistry()
    with pytest.raises(PluginConflictError, match=r"dist-two 1\.2.*dist-one 1\.2"):
        given.find("transform", "acme.map")
    assert [each.name for each in given.provided("transform") if "." in each.name] == []
    assert given.find("index type", "flat").plugin == "vecdb.indexes"
    assert [info.error is None for info in given.plugins()] == [*(True for _ in OWN), True, False]


# --- hooks that pluggy would accept in silence ---


def test_a_misspelt_hook_is_refused_with_the_right_name():
    with pytest.raises(PluginLoadError, match="vecdb_register_transform, which is not a hook") as caught:
        fresh(plugin(vecdb_register_transform=lambda: []))
    assert "Did you mean vecdb_register_transforms?" in str(caught.value)


def test_a_hook_of_no_known_likeness_lists_the_hooks():
    with pytest.raises(PluginLoadError, match="is not a hook") as caught:
        fresh(plugin(qqqqqqq=lambda: []))
    assert "vecdb_committed" in str(caught.value)


@pytest.mark.parametrize("name", ["vecdb_register_transforms", "vecdb_committed"])
def test_a_hook_that_is_not_marked_is_refused(name):
    with pytest.raises(PluginLoadError, match="not marked with"):
        fresh(SimpleNamespace(__name__="plain", **{name: lambda: []}))


def test_a_misspelt_hook_that_is_not_marked_either_is_refused():
    with pytest.raises(PluginLoadError, match="vecdb_register_importer,"):
        fresh(SimpleNamespace(__name__="plain", vecdb_register_importer=lambda: []))


def test_a_hook_with_an_argument_that_there_is_not_is_refused():
    def vecdb_committed(database, number):
        """`seq` is the name."""

    with pytest.raises(PluginLoadError, match="number"):
        fresh(plugin(vecdb_committed=vecdb_committed))


def test_a_hook_may_take_some_of_the_arguments():
    seen = []

    def vecdb_committed(seq):
        seen.append(seq)

    fresh(plugin(vecdb_committed=vecdb_committed)).tell("vecdb_committed", database=None, seq=7)
    assert seen == [7]


@pytest.mark.parametrize("returns", [None, 5])
def test_a_hook_that_does_not_return_several_things_is_named(returns):
    with pytest.raises(PluginLoadError, match=r"acme_plugin.*failed in vecdb_register_transforms: TypeError"):
        fresh(plugin(vecdb_register_transforms=lambda: returns))


def test_a_hook_that_raises_is_named_and_its_error_kept():
    def broken():
        raise KeyError("lost")

    with pytest.raises(PluginLoadError, match="failed in vecdb_register_transforms: KeyError: 'lost'") as caught:
        fresh(plugin(vecdb_register_transforms=broken))
    assert isinstance(caught.value.__cause__, KeyError)


# --- installed plugins ---


def test_installed_plugins_are_imported_on_the_first_name_that_vecdb_does_not_provide(installed):
    loads = []
    installed["acme"] = lambda: loads.append(1) or plugin(Type())
    given = PluginRegistry()
    assert given.find("index type", "flat").name == "flat" and not loads and not given.loaded
    assert given.find("transform", "acme.map").plugin == "acme"
    given.find("transform", "acme.map"), given.names("importer"), given.load()
    assert loads == [1] and given.loaded


def test_a_plugin_that_fails_is_logged_kept_and_named_in_hints(installed, caplog):
    def broken():
        raise ImportError("no module named 'faiss'")

    installed["acme"] = broken
    installed["zeta"] = lambda: plugin(Type("zeta.map"), name="zeta")
    given = PluginRegistry()
    with caplog.at_level(logging.WARNING, "vecdb"), pytest.raises(UnknownNameError) as caught:
        given.find("transform", "acme.map")
    assert "plugin 'acme' (dist-acme 1.2) failed to load." in caught.value.hint
    assert "cannot be imported: ImportError: no module named 'faiss'" in caplog.text
    assert foreign(given) == ["zeta.map"]
    failed = given.plugins()[len(OWN)]
    assert failed.name == "acme" and isinstance(failed.error, PluginLoadError) and failed.provides == ()
    assert isinstance(failed.error.__cause__, ImportError)


def test_a_plugin_that_ends_the_process_while_it_is_imported_does_not(installed, caplog):
    installed["acme"] = lambda: sys.exit("bye")
    assert isinstance(PluginRegistry().plugins()[len(OWN)].error, PluginLoadError)


def test_a_plugin_that_hangs_while_it_is_imported_is_given_up(installed, monkeypatch, caplog):
    monkeypatch.setattr(registry, "LOAD_TIMEOUT", 1.0)  # enough for the plugin behind it, also on a busy machine
    gate = threading.Event()
    installed["acme"] = gate.wait
    installed["zeta"] = lambda: plugin(Type("zeta.map"), name="zeta")
    try:
        given = PluginRegistry()
        assert foreign(given) == ["zeta.map"]
        assert "did not finish importing within 1 seconds" in given.plugins()[len(OWN)].error.message
    finally:
        gate.set()


def test_an_unknown_name_has_a_close_match_and_its_owner_in_the_hint():
    with pytest.raises(UnknownNameError) as caught:
        fresh(plugin(Type())).find("transform", "acme.mapp")
    error = caught.value
    assert (error.kind, error.name) == ("transform", "acme.mapp") and "acme.map" in error.available
    assert error.hint == "Did you mean 'acme.map' of plugin 'acme_plugin'? Installed plugins are switched off here " + (
        "(VECDB_PLUGINS or the registry)."
    )


@pytest.mark.parametrize("name", [None, 5, [], "", "acme.other"])
def test_whatever_is_asked_for_that_there_is_not_is_unknown(installed, name):
    with pytest.raises(UnknownNameError, match="there is no transform"):
        PluginRegistry().find("transform", name)


# --- what may load ---


def test_an_empty_setting_switches_installed_plugins_off(installed, monkeypatch):
    installed["acme"] = lambda: pytest.fail("imported")
    monkeypatch.setenv("VECDB_PLUGINS", "")
    given = PluginRegistry()
    assert foreign(given) == []
    with pytest.raises(UnknownNameError, match="switched off here"):
        given.find("transform", "acme.map")


@pytest.mark.parametrize("setting", ["acme", " acme , other", "dist-acme"])
def test_the_setting_names_entry_points_or_distributions(installed, monkeypatch, setting):
    installed["acme"] = lambda: plugin(Type())
    installed["zeta"] = lambda: pytest.fail("imported")
    monkeypatch.setenv("VECDB_PLUGINS", setting)
    assert foreign(PluginRegistry()) == ["acme.map"]


def test_the_argument_goes_before_the_setting(installed, monkeypatch):
    installed["acme"] = lambda: plugin(Type())
    monkeypatch.setenv("VECDB_PLUGINS", "")
    assert foreign(PluginRegistry(allow=["acme"])) == ["acme.map"]
    monkeypatch.setenv("VECDB_PLUGINS", "acme")
    assert foreign(PluginRegistry(allow=[])) == []
    assert foreign(PluginRegistry(entry_points=False)) == []


def test_one_word_is_not_several_names():
    with pytest.raises(ParameterError, match="expected several names"):
        PluginRegistry(allow="acme")


def test_the_registry_of_the_process_follows_the_setting(monkeypatch):
    monkeypatch.setenv("VECDB_PLUGINS", "")
    one = registry.default_registry()
    assert registry.default_registry() is one
    monkeypatch.setenv("VECDB_PLUGINS", "somebody")
    assert registry.default_registry() is not one


# --- life-cycle hooks ---


def test_a_hook_that_raises_is_logged_by_name_and_the_others_are_told(caplog):
    told = []

    def broken(database):
        raise ValueError("not my day")

    given = fresh(
        plugin(name="one", vecdb_database_opened=lambda database: told.append(database)),
        plugin(name="bad", vecdb_database_opened=broken),
        plugin(name="two", vecdb_database_opened=lambda database: told.append(database)),
    )
    with caplog.at_level(logging.ERROR, "vecdb"):
        called = {}
        given.tell("vecdb_database_opened", called, database="db")
    assert told == ["db", "db"] and set(called) == {"one", "bad", "two"}
    assert "plugin 'bad' failed in vecdb_database_opened" in caplog.text and "not my day" in caplog.text


def test_a_plugin_that_was_told_is_not_told_again():
    told = []
    given = fresh(plugin(name="one", vecdb_database_opened=lambda database: told.append(database)))
    known = {"one": True}
    given.tell("vecdb_database_opened", known, database="db")
    assert known == {"one": True} and not told


def test_threads_that_tell_at_once_tell_each_plugin_once():
    told = []
    names = [str(number) for number in range(20)]
    given = fresh(*(plugin(name=name, vecdb_database_opened=lambda database: told.append(1)) for name in names))
    called = {}
    threads = [
        threading.Thread(target=given.tell, args=("vecdb_database_opened", called), kwargs={"database": "db"})
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == len(called) == 20


def test_the_first_answer_is_chosen_and_none_is_passed_over():
    def answer(value):
        return lambda space, count: value

    asked = {"space": Space("s", 4), "count": 10}
    given = fresh(plugin(name="silent", vecdb_choose_index=answer(None)))
    assert given.choose("vecdb_choose_index", **asked) is None
    given.register(plugin(name="one", vecdb_choose_index=answer(("acme.a", {}))))
    given.register(plugin(name="silent too", vecdb_choose_index=answer(None)))
    assert given.choose("vecdb_choose_index", **asked) == ("acme.a", {})


def test_a_choice_that_raises_names_the_plugin():
    def broken(space):
        raise ZeroDivisionError("of nothing")

    given = fresh(plugin(name="bad", vecdb_choose_index=broken))
    with pytest.raises(PluginError, match="'bad' failed in vecdb_choose_index: ZeroDivisionError") as caught:
        given.choose("vecdb_choose_index", space=Space("s", 4), count=1)
    assert caught.value.plugin == "bad"


def test_listeners_hear_of_every_plugin_that_is_added(installed):
    installed["acme"] = lambda: plugin(Type())
    given = PluginRegistry()

    heard = []

    class Listener:
        def listen(self):
            heard.append(len(given.plugins()))

    listener = Listener()
    given.on_change(listener.listen)
    before = given.changes
    given.register(plugin(Type("other.map"), name="other"))
    assert heard and heard[-1] == len(OWN) + 2 and given.changes > before
    count = len(heard)
    del listener
    gc.collect()
    given.register(plugin(Type("third.map"), name="third"))
    assert len(heard) == count
    given.on_change(Listener().listen)
    assert len(given._listeners) == 1


# --- a distribution on disk ---


def in_a_process(code, **environment):
    """Run code where the checked-in distribution is installed, as far as importlib.metadata can tell."""
    path = os.pathsep.join([str(ROOT), str(SITE)])
    env = {key: value for key, value in os.environ.items() if key != "VECDB_PLUGINS"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**env, "PYTHONPATH": path, **environment},
        timeout=180,
    )
    return done


SHOW = """
from vecdb import PluginRegistry
given = PluginRegistry()
for kind in ("importer", "command"):
    print(kind, [(each.name, each.owner) for each in given.provided(kind)])
print([(info.name, info.error is None) for info in given.plugins()])
"""


def test_a_distribution_is_found_by_its_entry_points():
    done = in_a_process(SHOW)
    owner = "plugin 'acme-tools' (acme 0.1)"
    lines = done.stdout.splitlines()
    assert lines[0] == f"importer {[('acme.csv', owner)]}", done.stderr
    assert lines[1] == f"command {[('acme-fail', owner), ('acme-greet', owner)]}"
    assert lines[2] == str([*((name, True) for name in OWN), ("acme-broken", False), ("acme-tools", True)])
    assert "plugin 'acme-broken' (acme 0.1) cannot be imported: RuntimeError" in done.stderr


@pytest.mark.parametrize(
    ("setting", "names"), [("", []), ("acme-tools", ["acme-tools"]), ("acme", ["acme-broken", "acme-tools"])]
)
def test_only_plugins_that_are_allowed_are_imported(setting, names):
    shown = f"[info.name for info in PluginRegistry().plugins()[{len(OWN)}:]]"
    code = f"from vecdb import PluginRegistry; print({shown})"
    assert in_a_process(code, VECDB_PLUGINS=setting).stdout.strip() == str(names)


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, vecdb; vecdb.PluginRegistry().find('index type', 'flat'); print('acme_plugin' in sys.modules)"
    assert in_a_process(code).stdout.strip() == "False"
