"""Which plugins there are, what each provides, and who to name when one misbehaves.

A registry holds vecdb's own plugins, those handed to it, and the installed ones (entry-point group ``vecdb``), which
are imported when a name is first looked up that vecdb does not provide itself. Invariant: a plugin is registered with
everything it provides or with nothing; a name has one owner. No file names a plugin to be imported: what a database
needs is looked up among those that this process allows. Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pluggy

from vecdb import hookspecs
from vecdb.contracts.descriptors import KINDS, Kind, problems_of
from vecdb.errors import (
    ParameterError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    UnknownNameError,
    VecdbError,
)

__all__ = ["PluginInfo", "PluginRegistry", "Provided", "default_registry"]

ENVIRONMENT = "VECDB_PLUGINS"
LOAD_TIMEOUT = 30.0
"""Seconds that importing one plugin may take."""
_BUILT_IN = {
    "index type": "vecdb.indexes",
    "transform": "vecdb.transforms",
    "relevance filter": "vecdb.relevance",
    "backfill policy": "vecdb.backfill",
}
"""Kind -> the room that provides it, imported when something of it is first asked for: most programs never fit."""
_OWN = "vecdb"
log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class Provided:
    """One registered object and where it comes from.

    Attributes
    ----------
    kind : str
        "index type", "transform", "relevance filter", "backfill policy", "importer" or "command".
    name : str
    thing : object
    plugin : str
        Name under which its plugin is registered: of its entry point, its module or its class.
    distribution : str or None
        Installed distribution, None where that is not known.
    version : str or None
    """

    kind: str
    name: str
    thing: Any
    plugin: str
    distribution: str | None
    version: str | None

    @property
    def owner(self) -> str:
        """The plugin as messages name it."""
        return describe(self.plugin, self.distribution, self.version)


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin of a registry: loaded with what it provides, or failed with `error`."""

    name: str
    distribution: str | None
    version: str | None
    provides: tuple[Provided, ...] = ()
    error: PluginError | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a plugin comes from."""

    name: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return describe(self.name, self.distribution, self.version)


def describe(plugin: str, distribution: str | None, version: str | None) -> str:
    """Return a plugin's name as messages write it, with the distribution where it is known."""
    return f"plugin {plugin!r}" + (f" ({distribution} {version})" if distribution else "")


class PluginRegistry:
    """Plugins and the names that they provide.

    Parameters
    ----------
    plugins : iterable of objects
        Modules or objects with hook implementations, registered at once.
    entry_points : bool, default True
        Whether installed plugins (entry-point group ``vecdb``) belong to it; they are imported on first use.
    allow : iterable of str, optional
        Names of the entry points, or of their distributions, that may be imported. Default: the comma-separated
        names in ``VECDB_PLUGINS``; all of them where that is not set, none where it is empty.

    Raises
    ------
    PluginLoadError
        One of `plugins` does not keep the rules of registration.
    PluginConflictError
        Two of them, or one and vecdb itself, claim a name.

    Examples
    --------
    >>> from vecdb import PluginRegistry
    >>> PluginRegistry(entry_points=False).names("index type")
    ['flat', 'graph', 'ivf', 'rabitq']
    """

    def __init__(
        self, plugins: Iterable[object] = (), *, entry_points: bool = True, allow: Iterable[str] | None = None
    ) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._entry_points = entry_points
        self._allow = _allowed(allow)
        self._lock = threading.RLock()
        self._provided: dict[tuple[str, str], Provided] = {}
        self._conflicts: dict[tuple[str, str], PluginConflictError] = {}
        self._plugins: dict[str, PluginInfo] = {}
        self._loaded = not entry_points or self._allow == frozenset()
        self._listeners: list[weakref.WeakMethod[Callable[[], None]]] = []
        self.changes = 0
        """Grows whenever plugins were added: what was not found before may be found now."""
        _registries.add(self)
        self._waiting = set(_BUILT_IN)
        for plugin in plugins:
            self.register(plugin)

    # --- registration ---

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a plugin that is not installed as an entry point; errors as in the constructor."""
        if plugin is None or isinstance(plugin, (str, bytes, int, float)):
            kind = type(plugin).__name__
            raise _load_error(_Source(name or repr(plugin)), f"is a {kind}, expected a module or an object with hooks")
        self._add(plugin, _Source(name or _name_of(plugin)))
        self._announce()

    def load(self) -> None:
        """Import the installed plugins now, those that are allowed; failures are kept for `plugins` and logged."""
        with self._lock:
            if self._loaded:
                return
            self._loaded = True
            for source, load in _installed(self._allow):
                self._load_one(source, load)
        self._announce()

    def _load_one(self, source: _Source, load: Callable[[], object]) -> None:
        try:
            self._add(_import_in_time(source, load), source)
        except PluginError as error:
            log.warning("%s", error)
            if isinstance(error, PluginConflictError):
                self._conflicts[error.kind, error.name] = error
            self._plugins[source.name] = PluginInfo(source.name, source.distribution, source.version, error=error)

    def _add_own(self, *kinds: str) -> None:
        """Register what vecdb itself provides of some kinds. Its names have no prefix: they take nobody else's."""
        for kind in (kind for kind in kinds if kind in self._waiting):
            with self._lock:
                room = _BUILT_IN[kind]
                self._add(import_module(room), _Source(room, _OWN, import_module(_OWN).__version__), own=True)
                self._waiting.discard(kind)

    def _add(self, plugin: object, source: _Source, *, own: bool = False) -> None:
        """Register a plugin with all that it provides, or raise and register nothing."""
        with self._lock:
            if self._manager.is_registered(plugin):
                return
            _check_hooks(plugin, source)
            try:
                self._manager.register(plugin, source.name)
                self._manager.check_pending()
                provided = list(self._collect(plugin, source, own=own))
                self._check_free(provided)
            except BaseException as error:
                if self._manager.is_registered(plugin):
                    self._manager.unregister(plugin)
                if isinstance(error, VecdbError) or not isinstance(error, Exception):
                    raise
                raise _load_error(source, f"cannot be registered: {error}") from error
            self._provided.update({(item.kind, item.name): item for item in provided})
            self._plugins[source.name] = PluginInfo(source.name, source.distribution, source.version, tuple(provided))
            self.changes += not own

    def _collect(self, plugin: object, source: _Source, *, own: bool) -> Iterator[Provided]:
        for kind in KINDS.values():
            for implementation in getattr(self._manager.hook, kind.hook).get_hookimpls():
                if implementation.plugin is plugin:
                    for thing in _results(implementation.function, kind, source):
                        yield _provided(thing, kind, source, own=own)

    def _check_free(self, provided: Iterable[Provided]) -> None:
        seen: dict[tuple[str, str], Provided] = {}
        for item in provided:
            key = item.kind, item.name
            other = self._provided.get(key) or seen.get(key)
            if other is not None:
                raise _conflict(item, other)
            seen[key] = item

    # --- asking ---

    def find(self, kind: str, name: object) -> Provided:
        """Return what is registered under a name.

        Raises
        ------
        UnknownNameError
            Nothing is; close matches and plugins that failed to load are in the hint.
        PluginConflictError
            Two installed plugins claim the name.
        """
        self._add_own(_kind(kind))
        found = self._provided.get((kind, str(name))) if isinstance(name, str) else None
        if found is None or found.distribution != _OWN:
            self.load()
            found = self._provided.get((kind, str(name))) if isinstance(name, str) else None
        contested = self._conflicts.get((kind, str(name)))
        if contested is not None:
            raise contested
        if found is None:
            raise self._unknown(kind, name)
        return found

    def names(self, kind: str) -> list[str]:
        """Return the registered names of one kind, sorted; loads the installed plugins."""
        self._add_own(_kind(kind))
        self.load()
        return sorted(name for of, name in self._provided if of == kind)

    def provided(self, kind: str) -> list[Provided]:
        """Return what is registered of one kind, by name, without names that two plugins claim; loads as `names`."""
        names = [name for name in self.names(kind) if (kind, name) not in self._conflicts]
        return [self._provided[kind, name] for name in names]

    def plugins(self) -> list[PluginInfo]:
        """Return every plugin, vecdb's own first, with those that failed; loads the installed ones."""
        self._add_own(*_BUILT_IN)
        self.load()
        return sorted(self._plugins.values(), key=lambda info: info.distribution != _OWN)

    def _unknown(self, kind: str, name: object) -> UnknownNameError:
        from difflib import get_close_matches  # needed for a message only

        available = self.names(kind)
        close = get_close_matches(str(name), available, 1)
        failed = [info for info in self._plugins.values() if info.error is not None]
        hints = [f"Did you mean {each!r} of {self._provided[kind, each].owner}?" for each in close]
        hints += [f"{describe(each.name, each.distribution, each.version)} failed to load." for each in failed]
        if not self._entry_points or self._allow == frozenset():
            hints.append(f"Installed plugins are switched off here ({ENVIRONMENT} or the registry).")
        return UnknownNameError(
            f"there is no {kind} {name!r}; there are {available}",
            hint=" ".join(hints) or "Install the plugin that provides it; `vecdb plugins` lists those there are.",
            kind=kind,
            name=name,
            available=available,
        )

    # --- life-cycle hooks ---

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener`, a method, whenever plugins were added, as long as its object lives."""
        self._listeners = [known for known in self._listeners if known() is not None]
        self._listeners.append(weakref.WeakMethod(listener))

    def _announce(self) -> None:
        for known in list(self._listeners):
            listener = known()
            if listener is not None:
                listener()

    @property
    def loaded(self) -> bool:
        """Whether the installed plugins were imported, as far as they are allowed."""
        return self._loaded

    def listens(self, hook: str) -> bool:
        """Return whether any loaded plugin implements a hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def tell(self, hook: str, told: dict[str, object] | None = None, **facts: Any) -> None:
        """Call a life-cycle hook of every loaded plugin; exceptions are logged with the plugin's name.

        Parameters
        ----------
        hook : str
        told : dict, optional
            The plugins that were called before; they are left out, and those that are called now are added.
        **facts
            Arguments of the hook.
        """
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name, claim = implementation.plugin_name, object()
            if told is not None and told.setdefault(name, claim) is not claim:  # two threads may tell at once
                continue
            try:
                implementation.function(*(facts[argument] for argument in implementation.argnames))
            except Exception:  # the plugin's own business: what happened is done and durable
                log.exception("%s failed in %s", self._describe(name), hook)

    def choose(self, hook: str, **facts: Any) -> Any:
        """Return the first answer of a ``firstresult`` hook, None if no plugin has one.

        Raises
        ------
        PluginError
            If a plugin raised.
        """
        self.load()
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            try:
                answer = implementation.function(*(facts[argument] for argument in implementation.argnames))
            except Exception as error:
                info = self._plugins[implementation.plugin_name]
                raise PluginError(
                    f"{self._describe(info.name)} failed in {hook}: {type(error).__name__}: {error}",
                    plugin=info.name,
                    distribution=info.distribution,
                ) from error
            if answer is not None:
                return answer
        return None

    def _describe(self, name: str) -> str:
        info = self._plugins[name]
        return describe(info.name, info.distribution, info.version)


# --- forks ------------------------------------------------------------------------------------------------

_registries: weakref.WeakSet[PluginRegistry] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Replace locks that threads which are not here hold; what such a thread was loading is loaded anew.

    The fork itself waits for nobody: a thread that loads plugins may wait for what the fork holds already.
    """
    global _default_lock
    _default_lock = threading.Lock()
    for registry in list(_registries):
        if registry._lock.acquire(blocking=False):
            registry._lock.release()
        else:
            registry._lock = threading.RLock()
            registry._loaded = not registry._entry_points or registry._allow == frozenset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

_default: dict[str | None, PluginRegistry] = {}
_default_lock = threading.Lock()


def default_registry(setting: str | None = None) -> PluginRegistry:
    """Return the process's registry of installed plugins: as ``VECDB_PLUGINS`` says now, or said in `setting`."""
    setting = os.environ.get(ENVIRONMENT) if setting is None else setting
    with _default_lock:
        if setting not in _default:
            _default[setting] = PluginRegistry(allow=None if setting is None else _names_in(setting))
        return _default[setting]


# --- the parts of registration ----------------------------------------------------------------------------


def _allowed(allow: Iterable[str] | None) -> frozenset[str] | None:
    if allow is None:
        setting = os.environ.get(ENVIRONMENT)
        return None if setting is None else _names_in(setting)
    if isinstance(allow, str):
        raise ParameterError(f"allow is {allow!r}, expected several names", name="allow", got=allow, allowed="[names]")
    return frozenset(allow)


def _names_in(setting: str) -> frozenset[str]:
    return frozenset(part.strip() for part in setting.split(",") if part.strip())


def _kind(kind: str) -> str:
    if kind not in KINDS:
        raise ParameterError(
            f"kind is {kind!r}, expected one of {list(KINDS)}", name="kind", got=kind, allowed=list(KINDS)
        )
    return kind


def _name_of(plugin: object) -> str:
    return str(getattr(plugin, "__name__", None) or f"{type(plugin).__module__}.{type(plugin).__qualname__}")


def _installed(allow: frozenset[str] | None) -> Iterator[tuple[_Source, Callable[[], object]]]:
    """Yield the allowed entry points, by name; importing one is left to the caller."""
    from importlib.metadata import entry_points  # slow to import, and not needed without plugins

    for point in sorted(entry_points(group=hookspecs.PROJECT), key=lambda each: (each.name, each.value)):
        distribution = point.dist
        source = _Source(point.name, *(distribution.name, distribution.version) if distribution else (None, None))
        if allow is None or source.name in allow or source.distribution in allow:
            yield source, point.load


def _import_in_time(source: _Source, load: Callable[[], object]) -> object:
    """Import a plugin, but do not wait for one that hangs."""
    outcome: list[object] = []

    def work() -> None:
        try:
            outcome.append(load())
        except BaseException as error:
            outcome.append(error)

    worker = threading.Thread(target=work, name=f"vecdb-load-{source.name}", daemon=True)
    worker.start()
    worker.join(LOAD_TIMEOUT)
    if not outcome:
        raise _load_error(source, f"did not finish importing within {LOAD_TIMEOUT:g} seconds")
    if isinstance(outcome[0], BaseException):
        problem = f"cannot be imported: {type(outcome[0]).__name__}: {outcome[0]}"
        raise _load_error(source, problem) from outcome[0]
    return outcome[0]


def _check_hooks(plugin: object, source: _Source) -> None:
    """Refuse hook functions that pluggy would accept in silence and never call."""
    known = {name for name in vars(hookspecs) if name.startswith("vecdb_")}
    for name in dir(plugin):
        marked = hasattr(getattr(plugin, name, None), f"{hookspecs.PROJECT}_impl")
        if name in known and not marked:
            raise _load_error(source, f"has a function {name} that is not marked with @vecdb.hookimpl")
        if name not in known and (marked or name.startswith("vecdb_register")):
            from difflib import get_close_matches  # needed for a message only

            close = get_close_matches(name, known, 1)
            raise _load_error(
                source,
                f"implements {name}, which is not a hook of vecdb",
                f"Did you mean {close[0]}?" if close else f"The hooks are {sorted(known)}.",
            )


def _results(function: Callable[[], Any], kind: Kind, source: _Source) -> list[Any]:
    try:
        return list(function())
    except Exception as error:
        raise _load_error(source, f"failed in {kind.hook}: {type(error).__name__}: {error}") from error


def _provided(thing: Any, kind: Kind, source: _Source, *, own: bool) -> Provided:
    problems = problems_of(kind, thing, own=own)
    if problems:
        name = getattr(thing, "name", None) or type(thing).__name__
        raise _load_error(source, f"provides {kind.name} {name!r} that breaks its contract: {'; '.join(problems)}")
    return Provided(kind.name, str(thing.name), thing, source.name, source.distribution, source.version)


def _load_error(source: _Source, problem: str, hint: str | None = None) -> PluginLoadError:
    return PluginLoadError(f"{source} {problem}", hint=hint, plugin=source.name, distribution=source.distribution)


def _conflict(item: Provided, other: Provided) -> PluginConflictError:
    return PluginConflictError(
        f"{item.owner} and {other.owner} both provide {item.kind} {item.name!r}",
        hint=f"Uninstall one, or name those that may load in {ENVIRONMENT}.",
        plugin=item.plugin,
        distribution=item.distribution,
        kind=item.kind,
        name=item.name,
        first=other.owner,
        second=item.owner,
    )
