"""Which techniques and attributors are installed, and the classes behind their names."""

import os
import sys
import threading
from functools import lru_cache, reduce
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from attribution.attributor import Attributor
from attribution.errors import BackendNotInstalledError, PluginError, UnknownAttributorError, nearest
from attribution.technique import Technique

GROUP = "attribution.attributors"
REFERENCES = "attribution.references"
"""Attributors that are ``reference``: `compare`, the checks and the tables leave them out unless they are named."""

TECHNIQUES = "attribution.techniques"
_OWN = "torch-attribution"
_registered: dict[tuple[str, str], type[Attributor[Any]]] = {}
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a fork waits: in its child nobody would end another thread's import
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def available() -> list[tuple[str, str]]:
    """Every installed (technique, backend), sorted, without references; imports nothing."""
    entries = {key for key, found in _entries().items() if any(entry.group == GROUP for entry in found)}
    return sorted({key for key, cls in _registered.items() if not cls.reference} | entries)


def references() -> list[tuple[str, str]]:
    """Every installed (technique, backend) that is a reference, sorted; imports nothing."""
    return sorted({*_registered, *_entries()} - {*available()})


def distribution(technique: str, backend: str) -> str:
    """Name and version of the distribution that brings an attributor, or ``"registered at run time"``."""
    found = _entries().get((technique, backend), [])
    return ", ".join(_distribution(entry) for entry in found) or "registered at run time"


def backends(technique: str) -> list[str]:
    """The installed backends of a technique, without references."""
    return [backend for name, backend in available() if name == technique]


def get(technique: str | Technique | type[Technique], backend: str) -> type[Attributor[Any]]:
    """The attributor class, imported on first use.

    Args:
        technique: Its name, class or an instance.
        backend: E.g. ``"hooks"``.

    Raises:
        UnknownAttributorError: Nobody brings it; names the nearest ones.
        BackendNotInstalledError: A library it needs is missing.
        PluginError: Two distributions bring it, or what was loaded does not keep the contract.
    """
    key = (technique if isinstance(technique, str) else technique.name, backend)
    with _lock:
        if key in _registered:
            return _registered[key]
        cls, module, attributes = _imported(*_search(), key)
        start: object = sys.modules.get(module)
        if reduce(_attribute, attributes, start) is not cls:  # its module was loaded anew
            _imported.cache_clear()
            cls, *_ = _imported(*_search(), key)
        return cls


def technique(name: str) -> type[Technique]:
    """The class of a technique. No backend is imported where a distribution names its techniques themselves.

    Raises:
        UnknownAttributorError: No installed distribution brings it.
        PluginError: Two distributions bring it, or what was loaded is no such technique.
    """
    entries = _scan_techniques(*_search()).get(name, [])
    if len(entries) > 1:
        owners = " and ".join(sorted(map(_distribution, entries)))
        raise PluginError(f"the technique {name!r} is brought by {owners}; uninstall one of them")
    if entries:
        found = _loaded(entries[0])
        if not (isinstance(found, type) and issubclass(found, Technique) and found.name == name):
            raise PluginError(f"{name} from {_distribution(entries[0])} is {found!r}, not a Technique of that name")
        return found
    for backend in backends(name):
        kind = get(name, backend).technique_type
        if getattr(kind, "name", None) == name:
            return kind
    known = sorted({*_scan_techniques(*_search()), *(technique for technique, _ in available())})
    raise UnknownAttributorError(f"no technique {name!r}{nearest(name, known)}. Installed: {', '.join(known)}")


def register(cls: type[Attributor[Any]], *techniques: type[Technique]) -> type[Attributor[Any]]:
    """Make an attributor known in this process without an entry point; usable as a decorator.

    Args:
        cls: The class.
        techniques: Those of its family that it computes; none: its ``technique_type``.

    Raises:
        PluginError: The class breaks the contract, or a name is taken.
    """
    keys = {(kind.name, cls.backend): kind for kind in techniques or (cls.technique_type,)}
    with _lock:
        for key, kind in keys.items():
            if key in _registered or key in _entries():
                taken = ".".join(key)
                raise PluginError(f"{taken} is taken already; choose another backend name for {cls.__qualname__}")
            _checked(cls, key, cls.__module__, kind)
        _registered.update(dict.fromkeys(keys, cls))
    return cls


def unregister(cls: type[Attributor[Any]]) -> None:
    """Undo `register`; nothing happens to one that is not registered."""
    with _lock:
        for key in [key for key, known in _registered.items() if known is cls]:
            del _registered[key]


def lasting(attributor: object) -> bool:
    """Whether it is of an installed class: one that was registered may be taken back at any time."""
    with _lock:
        return type(attributor) not in _registered.values()


def _entries() -> dict[tuple[str, str], list[EntryPoint]]:
    return _scan(*_search())


def _search() -> tuple[tuple[str, ...], bool]:
    """What the installed attributors depend on: where Python looks, and whether only our own are wanted."""
    return tuple(sys.path), os.environ.get("ATTRIBUTION_PLUGINS") == "off"


@lru_cache(maxsize=8)
def _scan(path: tuple[str, ...], only_own: bool) -> dict[tuple[str, str], list[EntryPoint]]:
    """The installed entry points; read once for each ``sys.path``, since reading takes longer than a small model."""
    found: dict[tuple[str, str], list[EntryPoint]] = {}
    for entry in (*entry_points(group=GROUP), *entry_points(group=REFERENCES)):
        technique, _, backend = entry.name.partition(".")
        known = found.setdefault((technique, backend), [])
        same = any(entry.value == other.value and _distribution(entry) == _distribution(other) for other in known)
        if not same and not (only_own and entry.dist is not None and entry.dist.name != _OWN):
            known.append(entry)
    return {key: entries for key, entries in found.items() if entries}


@lru_cache(maxsize=8)
def _scan_techniques(path: tuple[str, ...], only_own: bool) -> dict[str, list[EntryPoint]]:
    """The installed techniques by name."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=TECHNIQUES):
        own = entry.dist is None or entry.dist.name == _OWN
        known = found.setdefault(entry.name, [])
        if (own or not only_own) and not any(_distribution(entry) == _distribution(other) for other in known):
            known.append(entry)
    return {name: entries for name, entries in found.items() if entries}


@lru_cache(maxsize=64)
def _imported(
    path: tuple[str, ...], only_own: bool, key: tuple[str, str]
) -> tuple[type[Attributor[Any]], str, tuple[str, ...]]:
    """The class behind a name, and the module and attributes it was found under; errors are not kept."""
    found = _scan(path, only_own).get(key, [])
    if not found:
        raise UnknownAttributorError(f"no attributor {'.'.join(key)}{_others(*key)}")
    if len(found) > 1:
        owners = " and ".join(sorted(_distribution(entry) for entry in found))
        raise PluginError(f"{'.'.join(key)} is brought by {owners}; uninstall one of them")
    (entry,) = found
    cls = _checked(_loaded(entry), key, _distribution(entry))
    if cls.reference is not (entry.group == REFERENCES):
        right = REFERENCES if cls.reference else GROUP
        raise PluginError(
            f"{'.'.join(key)} from {_distribution(entry)} says reference = {cls.reference}, and its entry point is "
            f"one of {entry.group}; make it one of {right}"
        )
    return cls, entry.module, tuple(filter(None, (entry.attr or "").split(".")))


def _others(technique: str, backend: str) -> str:
    """Who computes the technique instead, or which techniques there are."""
    known = [*available(), *references()]
    if own := [name for asked, name in known if asked == technique]:
        close = nearest(f"{technique}.{backend}", [f"{technique}.{name}" for name in own])
        return f"{close}; {technique} is computed by {', '.join(own)}"
    close = nearest(f"{technique}.{backend}", [".".join(pair) for pair in known])
    return f"{close}. Installed techniques: {', '.join(dict.fromkeys(asked for asked, _ in known))}"


def _attribute(owner: object, name: str) -> object:
    return getattr(owner, name, None)


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value


def _loaded(entry: EntryPoint) -> Any:
    owner = _distribution(entry)
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        if error.name and entry.module.split(".")[0] == error.name.split(".")[0]:
            raise PluginError(f"{entry.name} from {owner}: {entry.value} does not exist ({error})") from error
        raise BackendNotInstalledError(
            f"{entry.name} from {owner} needs {error.name!r}, which is not installed; pip install it"
        ) from error
    except BackendNotInstalledError as error:
        raise BackendNotInstalledError(f"{entry.name} from {owner} {error}") from error
    except (Exception, SystemExit) as error:
        raise PluginError(f"{entry.name} from {owner} cannot be imported: {type(error).__name__}: {error}") from error


def _checked(cls: Any, key: tuple[str, str], owner: str, kind: type[Technique] | None = None) -> type[Attributor[Any]]:
    if not (isinstance(cls, type) and issubclass(cls, Attributor)):
        raise PluginError(f"{'.'.join(key)} from {owner} is {cls!r}, not a subclass of attribution.Attributor")
    if cls.__abstractmethods__:
        raise PluginError(
            f"{'.'.join(key)} from {owner} does not implement {', '.join(sorted(cls.__abstractmethods__))}"
        )
    name = getattr(cls.technique_type, "name", None)  # a family has none
    if name is None:
        kind = kind or technique(key[0])
        if not issubclass(kind, cls.technique_type):
            family = cls.technique_type.__name__
            raise PluginError(f"{'.'.join(key)} from {owner} computes a {family}, and {kind.__name__} is none")
        name = kind.name
    own = (name, cls.backend)
    if own != key:
        raise PluginError(f"{'.'.join(key)} from {owner} calls itself {'.'.join(own)}; make both names the same")
    _not_another(cls.technique_type if kind is None else kind, name, owner)
    return cls


def _not_another(kind: type[Technique], name: str, owner: str) -> None:
    """Refuse a technique by the name of another one: files and `compare` would take the one for the other."""
    if name not in _scan_techniques(*_search()):
        return
    known = technique(name)
    # By name: a module that was loaded anew has classes that are equal and not the same.
    if _called(known) not in map(_called, kind.__mro__):
        raise PluginError(
            f"{_called(kind)} from {owner} is called {name!r}, as {_called(known)} is; give yours another name, or "
            f"make {_called(known)} the technique_type"
        )


def _called(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
